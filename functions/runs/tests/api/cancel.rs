//! `POST /api/runs/{id}/cancel`.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_model::{Entry, Event, Payload, RunId, RunStatus};
use tidegate_store::JournalItem;
use tidegate_testing::Answer;

use crate::{Setup, setup, wake_of};

async fn cancel(setup: &Setup, id: RunId) -> Answer {
    setup.app.post(&setup.owner, &format!("/api/runs/{id}/cancel"), &Value::Null).await
}

#[tokio::test]
async fn a_queued_run_is_cancelled_before_a_worker_takes_it() {
    let setup = setup().await;
    let id = setup.world.ids.run(setup.owner.tenant);
    setup.world.clock.advance(Duration::from_secs(5));
    let answer = cancel(&setup, id).await.expect(202);
    assert_eq!((answer.text("/status"), answer.text("/error/code")), ("cancelled", "cancelled"));
    for field in ["workflow_id", "version", "trigger", "started_at", "duration_ms", "trace_id"] {
        assert_eq!(answer.body[field], Value::Null, "{field}");
    }
    assert_eq!(answer.text("/accepted_at"), "2026-11-20T10:00:00.000Z");
    assert_eq!(answer.text("/finished_at"), "2026-11-20T10:00:05.000Z");
    let shown = setup.app.get(&setup.owner, &format!("/api/runs/{id}")).await.expect(200).body;
    assert_eq!((&shown["status"], &shown["steps"], &shown["input"]), (&json!("cancelled"), &json!([]), &Value::Null));
    let list = setup.app.get(&setup.owner, "/api/runs?status=cancelled").await.expect(200).body;
    assert_eq!((&list["items"][0]["id"], &list["items"][0]["workflow_id"]), (&json!(id), &Value::Null));
    cancel(&setup, id).await.expect(409);
    assert_eq!(setup.sent().await, []);
}

#[tokio::test]
async fn ids_that_were_never_given_out_are_not_there() {
    let setup = setup().await;
    let stranger = setup.world.session("sam").await;
    let theirs = setup.world.ids.run(stranger.tenant);
    let old = setup.world.ids.run(setup.owner.tenant);
    setup.world.clock.advance(Duration::from_secs(10 * 86_400));
    let early = setup.world.clock.now() + Duration::from_secs(3_600);
    for id in [theirs, old, RunId::for_tenant(setup.owner.tenant, early, [1; 10])] {
        cancel(&setup, id).await.expect(404);
        assert_eq!(setup.world.store.runs().get(setup.owner.tenant, id).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_waiting_run_is_cancelled_at_once_and_told_from_its_journal() {
    let setup = setup().await;
    let row = setup.waiting().await;
    let entry = Entry {
        step: "first".to_owned(),
        item: None,
        attempt: 1,
        at: row.started_at,
        event: Event::Succeeded { output: Payload::Inline(json!(42)), outlet: None },
    };
    let item = JournalItem { input: None, entries: vec![entry] };
    setup.world.store.runs().append_journal(row.tenant, row.id, 0, &item, row.started_at).await.unwrap();
    let answer = cancel(&setup, row.id).await.expect(202);
    assert_eq!((answer.text("/status"), answer.text("/id")), ("cancelled", &*row.id.to_string()));
    assert_eq!(setup.sent().await, [wake_of(&row)], "so that a worker folds the journal");
    let shown = setup.app.get(&setup.owner, &format!("/api/runs/{}", row.id)).await.expect(200).body;
    assert_eq!(shown["error"], json!({"code": "cancelled", "message": "the run was cancelled", "retryable": false}));
    assert_eq!((&shown["steps"][0]["output"], &shown["steps"][1]["status"]), (&json!(42), &json!("skipped")));

    // Whoever got no answer asks again; the wake may not have been sent.
    let again = cancel(&setup, row.id).await.expect(409);
    assert!(again.text("/detail").contains("was cancelled at 2026-11-20T10:00:00.000Z"), "{}", again.body);
    assert_eq!(setup.sent().await, [wake_of(&row)]);
}

#[tokio::test]
async fn the_worker_of_a_running_run_is_asked() {
    let setup = setup().await;
    let row = setup.row();
    setup.store(&row, None).await;
    let before = setup.app.get(&setup.owner, &format!("/api/runs/{}", row.id)).await.expect(200).body;
    assert_eq!(before["cancel_requested"], false);
    for _ in 0..2 {
        let answer = cancel(&setup, row.id).await.expect(202);
        assert_eq!((answer.text("/status"), &answer.body["cancel_requested"]), ("running", &json!(true)));
    }
    assert!(setup.stored(row.id).await.cancel_requested);
    assert_eq!(setup.sent().await, []);
}

#[tokio::test]
async fn a_run_that_is_over_stays_as_it_is() {
    let setup = setup().await;
    for (status, word) in [(RunStatus::Succeeded, "succeeded"), (RunStatus::Failed, "failed")] {
        let row = setup.ended(status);
        setup.store(&row, None).await;
        let answer = cancel(&setup, row.id).await.expect(409);
        let detail = format!("The run {word} at 2026-11-20T10:00:00.250Z; there is nothing left to cancel.");
        assert_eq!((answer.text("/code"), answer.text("/detail")), ("conflict", &*detail));
        assert_eq!(setup.stored(row.id).await, row);
    }
    assert_eq!(setup.sent().await, []);
}
