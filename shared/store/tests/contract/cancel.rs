//! Cancelling a run, wherever it is.

use std::time::Duration;

use tidegate_model::{ErrorCode, RunRow, RunStatus, WorkflowId};
use tidegate_platform::Clock;
use tidegate_store::embedded::{self, Faults};
use tidegate_store::{Cancel, CreateError, RETENTION, ReplaceError, RunFilter};

use crate::setup::{Setup, ended, everywhere};

#[tokio::test]
async fn a_run_without_a_row_gets_a_final_one_that_no_claim_overcomes() {
    everywhere(async |setup| {
        let runs = setup.store().runs();
        let claim = setup.run(setup.ids.tenant(), setup.ids.workflow());
        let now = setup.clock.now();
        let Cancel::Unclaimed(row) = runs.cancel(claim.tenant, claim.id, now).await.unwrap() else {
            panic!("there was no row");
        };
        assert_eq!((row.workflow, row.version, row.status), (WorkflowId::UNKNOWN, 0, RunStatus::Cancelled));
        assert_eq!((row.accepted_at, row.finished_at), (claim.id.timestamp(), Some(now)));
        assert_eq!(row.error.as_ref().map(|error| error.code), Some(ErrorCode::Cancelled));
        match runs.create(&claim, None).await {
            Err(CreateError::Exists(stored)) => assert_eq!((stored.row, stored.detail), (row.clone(), None)),
            other => panic!("the cancelled run was claimed: {other:?}"),
        }
        assert_eq!(runs.cancel(claim.tenant, claim.id, now).await.unwrap(), Cancel::AlreadyFinal(row.clone()));
        setup.settle();
        let cancelled = RunFilter { status: Some(RunStatus::Cancelled), ..RunFilter::default() };
        assert_eq!(runs.list(claim.tenant, &cancelled, None, 10).await.unwrap().items, [row]);
    })
    .await;
}

#[tokio::test]
async fn a_waiting_run_is_final_at_once_and_keeps_the_number_of_its_parking() {
    everywhere(async |setup| {
        let runs = setup.store().runs();
        let claimed = setup.run(setup.ids.tenant(), setup.ids.workflow());
        runs.create(&claimed, None).await.unwrap();
        let parked = RunRow { wake: 3, ..ended(&claimed, RunStatus::Waiting, setup.clock.now()) };
        runs.replace(&claimed, &parked, None).await.unwrap();
        setup.clock.advance(Duration::from_secs(1));
        let now = setup.clock.now();
        let Cancel::Final(row) = runs.cancel(claimed.tenant, claimed.id, now).await.unwrap() else {
            panic!("the run was waiting");
        };
        assert_eq!((row.status, row.wake, row.wake_at), (RunStatus::Cancelled, 3, parked.wake_at));
        assert_eq!(row.finished_at, Some(now));
        let stored = runs.get(claimed.tenant, claimed.id).await.unwrap().unwrap();
        assert_eq!((&stored.row, stored.detail), (&row, None));
        let woken = RunRow { status: RunStatus::Running, fence: 2, ..parked.clone() };
        assert!(matches!(runs.replace(&parked, &woken, None).await, Err(ReplaceError::Conflict(Some(_)))));
        assert_eq!(runs.cancel(claimed.tenant, claimed.id, now).await.unwrap(), Cancel::AlreadyFinal(row));
    })
    .await;
}

#[tokio::test]
async fn the_holder_of_a_running_run_is_asked_and_may_still_finish() {
    everywhere(async |setup| {
        let runs = setup.store().runs();
        let claimed = setup.run(setup.ids.tenant(), setup.ids.workflow());
        runs.create(&claimed, None).await.unwrap();
        let asked = RunRow { cancel_requested: true, ..claimed.clone() };
        for _ in 0..2 {
            let now = setup.clock.now();
            let done = runs.cancel(claimed.tenant, claimed.id, now).await.unwrap();
            assert_eq!(done, Cancel::Requested(asked.clone()));
        }
        assert_eq!(runs.get(claimed.tenant, claimed.id).await.unwrap().unwrap().row, asked);
        let finished = ended(&claimed, RunStatus::Succeeded, setup.clock.now());
        runs.replace(&claimed, &finished, None).await.unwrap();
        let done = runs.cancel(claimed.tenant, claimed.id, setup.clock.now()).await.unwrap();
        assert_eq!(done, Cancel::AlreadyFinal(finished));
    })
    .await;
}

#[tokio::test]
async fn another_tenants_cancellation_does_not_touch_the_run() {
    everywhere(async |setup| {
        let runs = setup.store().runs();
        let claimed = setup.run(setup.ids.tenant(), setup.ids.workflow());
        runs.create(&claimed, None).await.unwrap();
        runs.cancel(setup.ids.tenant(), claimed.id, setup.clock.now()).await.unwrap();
        assert_eq!(runs.get(claimed.tenant, claimed.id).await.unwrap().unwrap().row, claimed);
    })
    .await;
}

/// Whatever meets a cancellation, its answer is what is stored.
#[tokio::test]
async fn cancellations_that_meet_the_holder_and_each_other_tell_the_truth() {
    everywhere(async |setup| {
        let runs = setup.store().runs();
        for status in [RunStatus::Waiting, RunStatus::Succeeded, RunStatus::Failed] {
            let claimed = setup.run(setup.ids.tenant(), setup.ids.workflow());
            let now = setup.clock.now();
            let next = ended(&claimed, status, now);
            let holder = Box::pin(async {
                let created = runs.create(&claimed, None).await;
                match created {
                    Ok(()) => runs.replace_unless_cancelled(&claimed, &next, None).await.is_ok(),
                    Err(CreateError::Exists(_)) => false,
                    Err(error) => panic!("{error:?}"),
                }
            });
            // At different times, so that no two write the same row.
            let cancel = |ms| Box::pin(runs.cancel(claimed.tenant, claimed.id, now + Duration::from_millis(ms)));
            let (went_on, one, two, three) = futures::future::join4(holder, cancel(1), cancel(2), cancel(3)).await;
            let done = [one.unwrap(), two.unwrap(), three.unwrap()];
            let stored = runs.get(claimed.tenant, claimed.id).await.unwrap().unwrap().row;
            let count = |wanted: fn(&Cancel) -> bool| done.iter().filter(|done| wanted(done)).count();
            let unclaimed = count(|done| matches!(done, Cancel::Unclaimed(_)));
            let over = count(|done| matches!(done, Cancel::Final(_)));
            assert!(unclaimed + over <= 1, "one of them did it: {done:?}");
            match stored.status {
                RunStatus::Cancelled => assert_eq!(unclaimed + over, 1, "{done:?}"),
                RunStatus::Running => {
                    assert!(stored.cancel_requested && !went_on);
                    assert_eq!(count(|done| matches!(done, Cancel::Requested(_))), 3, "{done:?}");
                }
                _ => {
                    assert!(went_on);
                    assert_eq!(count(|done| matches!(done, Cancel::AlreadyFinal(_))), 3, "{done:?}");
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn cancelled_runs_expire() {
    let setup = Setup::memory().await;
    let clock = Clock::manual(setup.clock.now());
    let embedded = embedded::open_memory(clock.clone(), Faults::default()).await.unwrap();
    let runs = embedded.store.runs();
    let tenant = setup.ids.tenant();
    runs.cancel(tenant, setup.ids.run(tenant), clock.now()).await.unwrap();
    let claimed = setup.run(tenant, setup.ids.workflow());
    runs.create(&claimed, None).await.unwrap();
    runs.replace(&claimed, &ended(&claimed, RunStatus::Waiting, clock.now()), None).await.unwrap();
    runs.cancel(tenant, claimed.id, clock.now()).await.unwrap();
    clock.advance(RETENTION - Duration::from_secs(1));
    assert_eq!(embedded.sweep_ttl().await.unwrap(), 0);
    clock.advance(Duration::from_secs(2));
    assert_eq!(embedded.sweep_ttl().await.unwrap(), 2);
}
