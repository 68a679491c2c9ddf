//! What is answered.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};
use tidegate_model::{Payload, RunDetail, RunId, RunRow, RunStatus, TriggerKind, Workflow};

use crate::{Setup, path, setup};

#[tokio::test]
async fn the_answer_is_what_the_trigger_says() {
    let setup = setup().await;
    let answering = |response: Value| json!({"type": "webhook", "response": response});
    let json = answering(json!({"status": 201, "headers": {"x-note": "yes"}, "body": {"ok": true}}));
    let answer = setup.send(&setup.workflow(json, true).await, &[], "{}").await.expect(201);
    assert_eq!((answer.body, answer.headers["x-note"].to_str().unwrap()), (json!({"ok": true}), "yes"));
    assert_eq!(answer.headers["content-type"], "application/json");
    let run = answer.headers["tidegate-run-id"].to_str().unwrap();
    assert_eq!(setup.queued().await[0].run_id.to_string(), run);

    // A page that a workflow answers has no scripts and is nobody else's.
    let headers = json!({"Content-Type": "text/html"});
    let html = answering(json!({"headers": headers, "body": "<script>alert(1)</script>"}));
    let answer = setup.send(&setup.workflow(html, true).await, &[], "{}").await.expect(200);
    assert_eq!(
        (answer.body, answer.headers["content-type"].to_str().unwrap()),
        (json!("<script>alert(1)</script>"), "text/html")
    );
    assert_eq!(answer.headers["content-security-policy"], "sandbox");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");

    let text = answering(json!({"body": "ok"}));
    let answer = setup.send(&setup.workflow(text, true).await, &[], "{}").await.expect(200);
    assert_eq!(
        (answer.body, answer.headers["content-type"].to_str().unwrap()),
        (json!("ok"), "text/plain; charset=utf-8")
    );
    let nothing = answering(json!({"status": 204}));
    let answer = setup.send(&setup.workflow(nothing, true).await, &[], "{}").await.expect(204);
    assert_eq!(answer.body, Value::Null);
    let accepted = answering(json!({"status": 202}));
    let answer = setup.send(&setup.workflow(accepted, true).await, &[], "{}").await.expect(202);
    assert_eq!(answer.text("/status"), "accepted");
}

impl Setup {
    /// What the worker would do with the next run of the queue.
    async fn finish(&self, workflow: &Workflow, status: RunStatus, output: Value) -> RunId {
        let start = loop {
            if let Some(start) = self.queued().await.pop() {
                break start;
            }
            tokio::task::yield_now().await;
        };
        let now = self.world.clock.now();
        let row = RunRow {
            id: start.run_id,
            tenant: workflow.tenant,
            workflow: workflow.id,
            version: 1,
            trigger: TriggerKind::Webhook,
            status,
            accepted_at: now,
            started_at: now,
            finished_at: Some(now),
            fence: 1,
            lease_until: now,
            lease_owner: "worker".to_owned(),
            claims: 1,
            journal_length: 0,
            wake: 0,
            wake_at: None,
            traceparent: start.traceparent,
            error: None,
            failed_step: None,
            cancel_requested: false,
            parent: None,
        };
        let detail =
            RunDetail { trigger: Some(start.trigger), steps: Vec::new(), output: Some(Payload::Inline(output)) };
        let detail = Payload::Inline(serde_json::to_value(detail).unwrap());
        self.world.store.runs().create(&row, Some(&detail)).await.unwrap();
        row.id
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_waits_gets_the_runs_output() {
    let setup = Arc::new(setup().await);
    let trigger = json!({"type": "webhook", "respond": "when_finished", "response": {"status": 201}});
    let workflow = setup.workflow(trigger, true).await;
    let asked = {
        let (setup, workflow) = (setup.clone(), workflow.clone());
        tokio::spawn(async move { setup.send(&workflow, &[], "{}").await })
    };
    let run = setup.finish(&workflow, RunStatus::Succeeded, json!({"total": 7})).await;
    let answer = asked.await.unwrap().expect(201);
    assert_eq!(answer.body, json!({"total": 7}));
    assert_eq!(answer.header("tidegate-run-id"), run.to_string());

    let asked = {
        let (setup, workflow) = (setup.clone(), workflow.clone());
        tokio::spawn(async move { setup.send(&workflow, &[], "{}").await })
    };
    let run = setup.finish(&workflow, RunStatus::Failed, json!("s3cr3t")).await;
    let answer = asked.await.unwrap().expect(502);
    assert_eq!(answer.text("/code"), "run_failed");
    assert_eq!(answer.header("tidegate-run-id"), run.to_string());
    assert!(!answer.body.to_string().contains("s3cr3t"));
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_waits_too_long_is_told_where_the_run_is() {
    let setup = setup().await;
    let workflow = setup.workflow(json!({"type": "webhook", "respond": "when_finished"}), true).await;
    let began = tokio::time::Instant::now();
    let before = setup.world.embedded.meter.all_calls();
    let answer = setup.send(&workflow, &[], "{}").await.expect(202);
    assert!(began.elapsed().as_secs_f64() <= 25.0, "before API Gateway gives up: {:?}", began.elapsed());
    let run = answer.text("/run_id").to_owned();
    assert_eq!(answer.header("location"), format!("/api/runs/{run}"));
    let reads = setup.world.embedded.meter.all_calls().values().sum::<u64>() - before.values().sum::<u64>();
    assert!(reads <= 30, "{reads} reads");
    assert_eq!(setup.queued().await[0].run_id.to_string(), run);
    let other = setup.app.send(None, Method::GET, &path(&workflow), &[], "").await;
    assert_eq!(other.status, 405);
}
