//! Who administers the installation.

use tidegate_model::UserId;
use tidegate_store::Error;

use crate::setup::{Setup, everywhere};

async fn administrators(setup: &Setup) -> Vec<UserId> {
    let all = setup.store().platform().administrators().await.unwrap();
    all.into_iter().map(|(user, _)| user).collect()
}

#[tokio::test]
async fn administrators_are_made_by_the_operator_and_by_those_who_are() {
    everywhere(async |setup| {
        let (platform, now) = (setup.store().platform(), setup.clock.now());
        let [one, two, three] = [(); 3].map(|()| setup.ids.user());
        let refused = platform.add_administrator(two, now, Some(one)).await;
        assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
        let refused = platform.add_administrator(one, now, Some(one)).await;
        assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
        platform.add_administrator(one, now, None).await.unwrap();
        platform.add_administrator(two, now, Some(one)).await.unwrap();
        // Twice is once, whoever asks.
        let later = now + std::time::Duration::from_secs(60);
        for by in [None, Some(one), Some(two), Some(three)] {
            platform.add_administrator(two, later, by).await.unwrap();
        }
        assert_eq!(platform.administrators().await.unwrap(), [(one, now), (two, now)]);
        assert!(platform.is_administrator(two).await.unwrap() && !platform.is_administrator(three).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn somebody_always_remains() {
    everywhere(async |setup| {
        let platform = setup.store().platform();
        let [one, two, three] = [(); 3].map(|()| setup.ids.user());
        for user in [one, two] {
            platform.add_administrator(user, setup.clock.now(), None).await.unwrap();
        }
        for remaining in [one, three] {
            let refused = platform.remove_administrator(one, remaining).await;
            assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
        }
        // Each ends the other's, at the same moment.
        let (first, second) =
            tokio::join!(platform.remove_administrator(one, two), platform.remove_administrator(two, one));
        assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
        assert_eq!(administrators(&setup).await.len(), 1);
    })
    .await;
}
