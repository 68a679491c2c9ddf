//! A run's row.

use std::time::Duration;

use serde_json::json;
use tidegate_model::{ParentStep, Payload, RunRow, RunStatus};
use tidegate_store::embedded::{self, Faults};
use tidegate_store::{CreateError, RETENTION, ReplaceError, StoredRun};

use crate::setup::{ended, everywhere, start};

fn detail() -> Payload {
    Payload::Inline(json!({ "trigger": null, "steps": [{ "id": "notify", "big": 1e300, "empty": "" }] }))
}

#[tokio::test]
async fn a_run_is_claimed_once() {
    everywhere(async |setup| {
        let runs = setup.store().runs();
        let row = setup.run(setup.ids.tenant(), setup.ids.workflow());
        let claims: Vec<_> = (0..8).map(|i| RunRow { lease_owner: format!("worker-{i}"), ..row.clone() }).collect();
        let outcomes = futures::future::join_all(claims.iter().map(|claim| runs.create(claim, None))).await;
        let winners: Vec<_> = outcomes.iter().zip(&claims).filter(|(outcome, _)| outcome.is_ok()).collect();
        assert_eq!(winners.len(), 1, "{outcomes:?}");
        let stored = runs.get(row.tenant, row.id).await.unwrap().unwrap();
        assert_eq!(stored, StoredRun { row: winners[0].1.clone(), detail: None });
        for outcome in outcomes {
            match outcome {
                Ok(()) => {}
                Err(CreateError::Exists(found)) => assert_eq!(*found, stored, "the loser sees the winner's row"),
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(runs.get(setup.ids.tenant(), row.id).await.unwrap(), None, "another tenant's run");
    })
    .await;
}

#[tokio::test]
async fn only_the_holder_of_the_last_claim_writes() {
    everywhere(async |setup| {
        let runs = setup.store().runs();
        let claimed = setup.run(setup.ids.tenant(), setup.ids.workflow());
        runs.create(&claimed, None).await.unwrap();
        let retaken = RunRow { fence: 2, lease_owner: "worker-2/1".to_owned(), claims: 2, ..claimed.clone() };
        runs.replace(&claimed, &retaken, None).await.unwrap();

        let finished = ended(&claimed, RunStatus::Succeeded, setup.clock.now());
        match runs.replace(&claimed, &finished, Some(&detail())).await {
            Err(ReplaceError::Conflict(Some(stored))) => assert_eq!(stored.row, retaken),
            other => panic!("the first holder wrote: {other:?}"),
        }
        let imposter = RunRow { lease_owner: "worker-3/1".to_owned(), ..retaken.clone() };
        assert!(matches!(runs.replace(&imposter, &finished, None).await, Err(ReplaceError::Conflict(Some(_)))));
        let parked = ended(&retaken, RunStatus::Waiting, setup.clock.now());
        assert!(matches!(runs.replace(&parked, &finished, None).await, Err(ReplaceError::Conflict(Some(_)))));

        let finished = ended(&retaken, RunStatus::Failed, setup.clock.now());
        runs.replace(&retaken, &finished, Some(&detail())).await.unwrap();
        let stored = runs.get(claimed.tenant, claimed.id).await.unwrap().unwrap();
        assert_eq!(stored, StoredRun { row: finished, detail: Some(detail()) });

        let unknown = setup.run(claimed.tenant, claimed.workflow);
        assert!(matches!(runs.replace(&unknown, &unknown, None).await, Err(ReplaceError::Conflict(None))));
    })
    .await;
}

#[tokio::test]
async fn a_request_to_cancel_is_never_lost_and_refuses_a_parking() {
    everywhere(async |setup| {
        let runs = setup.store().runs();
        let parent = ParentStep {
            run_id: setup.ids.run(setup.ids.tenant()),
            step: "ask".to_owned(),
            item: None,
            depth: 1,
            may_cause: 9,
            handles_failure: false,
        };
        let claimed = RunRow { parent: Some(parent), ..setup.run(setup.ids.tenant(), setup.ids.workflow()) };
        runs.create(&claimed, None).await.unwrap();
        let retaken = RunRow { fence: 2, lease_owner: "worker-2/1".to_owned(), ..claimed.clone() };
        runs.replace_unless_cancelled(&claimed, &retaken, None).await.unwrap();
        let asked = RunRow { cancel_requested: true, ..retaken.clone() };
        runs.replace(&retaken, &asked, None).await.unwrap();

        let parked = ended(&retaken, RunStatus::Waiting, setup.clock.now());
        match runs.replace_unless_cancelled(&retaken, &parked, None).await {
            Err(ReplaceError::Conflict(Some(stored))) => assert_eq!(stored.row, asked),
            other => panic!("the request is lost: {other:?}"),
        }
        for lost in [&parked, &RunRow { fence: 3, lease_owner: "worker-3/1".to_owned(), ..retaken.clone() }] {
            let refused = runs.replace(&retaken, lost, None).await;
            assert!(matches!(refused, Err(ReplaceError::Conflict(Some(_)))), "{refused:?}");
        }
        let kept = RunRow { fence: 3, ..asked.clone() };
        runs.replace(&retaken, &kept, None).await.unwrap();
        let parked = RunRow { cancel_requested: true, fence: 3, ..parked };
        let refused = runs.replace_unless_cancelled(&kept, &parked, None).await;
        assert!(matches!(refused, Err(ReplaceError::Conflict(Some(_)))), "{refused:?}");
        let retaken = kept;
        let over = RunRow { cancel_requested: true, ..ended(&retaken, RunStatus::Cancelled, setup.clock.now()) };
        runs.replace(&retaken, &over, Some(&detail())).await.unwrap();
        let stored = runs.get(claimed.tenant, claimed.id).await.unwrap().unwrap();
        assert_eq!(stored, StoredRun { row: over, detail: Some(detail()) });

        let unknown = setup.run(claimed.tenant, claimed.workflow);
        assert!(matches!(
            runs.replace_unless_cancelled(&unknown, &unknown, None).await,
            Err(ReplaceError::Conflict(None))
        ));
    })
    .await;
}

#[tokio::test]
async fn a_run_of_one_step_costs_two_writes_and_three_units() {
    let embedded = embedded::open_memory(tidegate_platform::Clock::manual(start()), Faults::default()).await.unwrap();
    let setup = crate::setup::Setup::memory().await;
    let runs = embedded.store.runs();
    embedded.meter.restart(true);
    let claimed = setup.run(setup.ids.tenant(), setup.ids.workflow());
    runs.create(&claimed, None).await.unwrap();
    let finished = ended(&claimed, RunStatus::Succeeded, setup.clock.now());
    let detail = Payload::Inline(json!({ "steps": [{ "id": "notify", "output": "x".repeat(400) }] }));
    runs.replace(&claimed, &finished, Some(&detail)).await.unwrap();
    assert_eq!(embedded.meter.all_calls(), [("PutItem".to_owned(), 2)].into());
    assert!((embedded.meter.write_units() - 3.0).abs() < 0.01, "{} units", embedded.meter.write_units());
    assert!(embedded.meter.read_units() < 0.01);
}

#[tokio::test]
async fn final_runs_expire_and_others_do_not() {
    let clock = tidegate_platform::Clock::manual(start());
    let embedded = embedded::open_memory(clock.clone(), Faults::default()).await.unwrap();
    let setup = crate::setup::Setup::memory().await;
    let runs = embedded.store.runs();
    let tenant = setup.ids.tenant();
    let mut rows = Vec::new();
    for status in [RunStatus::Running, RunStatus::Waiting, RunStatus::Succeeded, RunStatus::Failed] {
        let claimed = setup.run(tenant, setup.ids.workflow());
        runs.create(&claimed, None).await.unwrap();
        let row = ended(&claimed, status, clock.now());
        runs.replace(&claimed, &row, None).await.unwrap();
        rows.push(row);
    }
    clock.advance(RETENTION - Duration::from_secs(1));
    assert_eq!(embedded.sweep_ttl().await.unwrap(), 0);
    clock.advance(Duration::from_secs(2));
    assert_eq!(embedded.sweep_ttl().await.unwrap(), 2);
    for row in rows {
        let found = runs.get(tenant, row.id).await.unwrap();
        assert_eq!(found.is_some(), !row.status.is_final(), "{:?}", row.status);
    }
}
