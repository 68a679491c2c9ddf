//! Rate limits: nobody takes what somebody else took.

use std::time::Duration;

use futures::future::join_all;
use tidegate_store::{Rate, Taken};

use crate::setup::{Setup, everywhere};

const RATE: Rate = Rate { every: Duration::from_secs(1), burst: 10 };

#[tokio::test]
async fn those_who_take_at_the_same_moment_are_all_counted() {
    // Without faults: where an answer is lost after somebody else took, a token too many is taken.
    let setup = Setup::memory().await;
    let (store, now) = (setup.store(), setup.clock.now());
    let rates = store.rates();
    // Each as a process that knows nothing: they write the same but for who writes it.
    let taken = join_all((0..5).map(|_| rates.take("together", RATE, 2, now, None))).await;
    let mut left: Vec<_> = taken.into_iter().map(|taken| taken.unwrap().0).collect();
    left.sort_by_key(|taken| format!("{taken:?}"));
    let granted = [0, 2, 4, 6, 8].map(|left| Taken::Granted { left });
    assert_eq!(left, granted);
    let (refused, _) = rates.take("together", RATE, 1, now, None).await.unwrap();
    assert_eq!(refused, Taken::Refused { after: Duration::from_secs(1) });
}

#[tokio::test]
async fn a_lease_is_what_there_is() {
    everywhere(async |setup| {
        let (store, now) = (setup.store(), setup.clock.now());
        let rates = store.rates();
        let first = rates.lease("blocks", RATE, 7, now, None).await.unwrap();
        assert_eq!((first.tokens, first.left), (7, 3));
        let other = rates.lease("blocks", RATE, 7, now, None).await.unwrap();
        assert_eq!((other.tokens, other.left), (3, 0));
        let none = rates.lease("blocks", RATE, 7, now, Some(first.known)).await.unwrap();
        assert_eq!((none.tokens, none.after), (0, Duration::from_secs(1)));
        let later = rates.lease("blocks", RATE, 7, now + Duration::from_secs(4), Some(none.known)).await.unwrap();
        assert_eq!((later.tokens, later.left), (4, 0));
        let whole = rates.lease("blocks", RATE, 99, now + Duration::from_secs(60), Some(later.known)).await.unwrap();
        assert_eq!((whole.tokens, whole.left), (10, 0));
    })
    .await;
}
