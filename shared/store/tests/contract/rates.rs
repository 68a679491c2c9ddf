//! Limits that are counted in the store.

use std::time::Duration;

use tidegate_store::{Rate, Taken};

use crate::setup::everywhere;

const RATE: Rate = Rate { every: Duration::from_secs(60), burst: 5 };

#[tokio::test]
async fn tokens_are_there_up_to_the_burst_and_come_in_again() {
    everywhere(async |setup| {
        let rates = setup.store().rates();
        let take = async |tokens| rates.take("login#x", RATE, tokens, setup.clock.now(), None).await.unwrap().0;
        for left in (0..5).rev() {
            assert_eq!(take(1).await, Taken::Granted { left });
        }
        assert_eq!(take(1).await, Taken::Refused { after: Duration::from_secs(60) });
        setup.clock.advance(Duration::from_secs(120));
        assert_eq!(take(3).await, Taken::Refused { after: Duration::from_secs(60) }, "all or none");
        assert_eq!(take(2).await, Taken::Granted { left: 0 });
        let other = rates.take("login#y", RATE, 5, setup.clock.now(), None).await.unwrap();
        assert_eq!(other.0, Taken::Granted { left: 0 }, "each limit on its own");
    })
    .await;
}

#[tokio::test]
async fn a_limit_that_is_whole_costs_what_one_costs_that_was_never_used() {
    let setup = crate::setup::Setup::memory().await;
    let rates = setup.store().rates();
    let writes = async |limit: &str| {
        setup.embedded.meter.restart(false);
        rates.take(limit, RATE, 1, setup.clock.now(), None).await.unwrap();
        setup.embedded.meter.all_calls()
    };
    let never = writes("login#x").await;
    setup.clock.advance(RATE.every);
    assert_eq!(writes("login#x").await, never);
    assert_eq!(never["PutItem"], 1);
    assert_eq!(writes("login#x").await["PutItem"], 2, "it is in use");
}

#[tokio::test]
async fn what_is_given_back_can_be_taken_again_unless_somebody_took_meanwhile() {
    everywhere(async |setup| {
        let rates = setup.store().rates();
        let now = setup.clock.now();
        let (_, state) = rates.take("login#x", RATE, 5, now, None).await.unwrap();
        rates.give_back("login#x", RATE, 1, now, state).await.unwrap();
        let (taken, _) = rates.take("login#x", RATE, 1, now, None).await.unwrap();
        assert_eq!(taken, Taken::Granted { left: 0 });
        rates.give_back("login#x", RATE, 1, now, state - 1).await.unwrap();
        let (taken, _) = rates.take("login#x", RATE, 1, now, None).await.unwrap();
        assert!(matches!(taken, Taken::Refused { .. }));
    })
    .await;
}

/// They know the same and write the same, so that one could take another's write for its own.
#[tokio::test]
async fn those_who_take_at_the_same_moment_take_one_each() {
    everywhere(async |setup| {
        let rates = setup.store().rates();
        let now = setup.clock.now();
        rates.take("login#x", RATE, 2, now, None).await.unwrap();
        let all = futures::future::join_all((0..12).map(|_| rates.take("login#x", RATE, 1, now, None))).await;
        let granted = all.iter().filter(|taken| matches!(taken, Ok((Taken::Granted { .. }, _)))).count();
        assert!(granted <= 3, "{granted} of 3 that were left");
        assert!(all.iter().all(Result::is_ok));
    })
    .await;
}

/// One a second.
const STEADY: Rate = Rate { every: Duration::from_secs(1), burst: 10 };

#[tokio::test]
async fn a_lease_is_what_there_is() {
    everywhere(async |setup| {
        let (store, now) = (setup.store(), setup.clock.now());
        let rates = store.rates();
        let first = rates.lease("blocks", STEADY, 7, now, None).await.unwrap();
        assert_eq!((first.tokens, first.left), (7, 3));
        let other = rates.lease("blocks", STEADY, 7, now, None).await.unwrap();
        assert_eq!((other.tokens, other.left), (3, 0));
        let none = rates.lease("blocks", STEADY, 7, now, Some(first.known)).await.unwrap();
        assert_eq!((none.tokens, none.after), (0, Duration::from_secs(1)));
        let later = rates.lease("blocks", STEADY, 7, now + Duration::from_secs(4), Some(none.known)).await.unwrap();
        assert_eq!((later.tokens, later.left), (4, 0));
        let whole = rates.lease("blocks", STEADY, 99, now + Duration::from_secs(60), Some(later.known)).await.unwrap();
        assert_eq!((whole.tokens, whole.left), (10, 0));
    })
    .await;
}
