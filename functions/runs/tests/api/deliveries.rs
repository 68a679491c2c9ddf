//! What came for a workflow's webhook.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_model::{
    BlobRef, CapturedDelivery, Payload, RejectedDeliveries, RejectedDelivery, RunDetail, RunStatus, TriggerInput,
    TriggerKind, WebhookRequest, WorkflowId,
};
use tidegate_store::JournalItem;

use crate::{Setup, setup};

impl Setup {
    async fn deliveries(&self) -> Value {
        let path = format!("/api/workflows/{}/deliveries", self.workflow.id);
        self.app.get(&self.owner, &path).await.expect(200).body
    }
}

fn input(body: Payload) -> TriggerInput {
    let headers = json!({"x-event": "push", "x-hub-signature": "s3cr3t"}).as_object().unwrap().clone();
    TriggerInput {
        kind: TriggerKind::Webhook,
        content_type: Some("application/json".to_owned()),
        request: Some(Box::new(WebhookRequest { method: "POST".to_owned(), headers, ..WebhookRequest::default() })),
        body,
        parameters: serde_json::Map::new(),
    }
}

fn rejected(at: jiff::Timestamp, reason: &str) -> RejectedDelivery {
    RejectedDelivery {
        at,
        reason: reason.to_owned(),
        detail: "why".to_owned(),
        method: "POST".to_owned(),
        address: Some("192.0.2.1".to_owned()),
        headers: vec!["content-type".to_owned()],
    }
}

#[tokio::test]
async fn the_last_payloads_are_those_of_runs_and_those_that_were_captured() {
    let setup = setup().await;
    assert_eq!(setup.deliveries().await["items"], json!([]));
    let body = json!({"order": {"id": 7}, "password": "s3cr3t"});
    let ended = setup.ended(RunStatus::Succeeded);
    let detail = RunDetail { trigger: Some(input(Payload::Inline(body.clone()))), steps: Vec::new(), output: None };
    setup.store(&ended, Some(&detail)).await;
    setup.world.clock.advance(Duration::from_secs(1));

    // One that is under way, whose body is large.
    let running = setup.row();
    setup.store(&running, None).await;
    let blob = Payload::Blob(BlobRef { key: "live/x".to_owned(), bytes: 9_000 });
    let item = JournalItem { input: Some(input(blob)), entries: Vec::new() };
    setup.world.store.runs().append_journal(running.tenant, running.id, 0, &item, running.started_at).await.unwrap();
    // Others started by hand have no delivery.
    let by_hand = tidegate_model::RunRow { trigger: TriggerKind::Manual, ..setup.row() };
    setup.store(&by_hand, None).await;
    setup.world.clock.advance(Duration::from_secs(1));
    let now = setup.world.clock.now();
    let captured = CapturedDelivery {
        at: now,
        content_type: None,
        request: WebhookRequest { method: "PUT".to_owned(), ..WebhookRequest::default() },
        body: Some(json!("seen")),
    };
    setup.world.store.deliveries().capture(setup.owner.tenant, setup.workflow.id, 0, &captured).await.unwrap();

    let shown = setup.deliveries().await;
    assert_eq!(shown["listening_until"], Value::Null);
    let items = shown["items"].as_array().unwrap();
    let seen: Vec<_> = items.iter().map(|item| (&item["run_id"], &item["body"])).collect();
    let (running, ended) = (json!(running.id), json!(ended.id));
    let masked = json!({"order": {"id": 7}, "password": "***"});
    assert_eq!(seen, [(&Value::Null, &json!("seen")), (&running, &Value::Null), (&ended, &masked)]);
    assert_eq!(items[2]["request"]["headers"], json!({"x-event": "push", "x-hub-signature": "***"}));
    assert!(!shown.to_string().contains("s3cr3t"));
}

#[tokio::test]
async fn refusals_of_all_processes_are_added_up() {
    let setup = setup().await;
    let (tenant, workflow) = (setup.owner.tenant, setup.workflow.id);
    let deliveries = setup.world.store.deliveries();
    let now = setup.world.clock.now();
    for (process, reasons) in
        [("a", &["signature_missing"; 7][..]), ("b", &["signature_missing", "signature_mismatch"])]
    {
        let mut of_process = RejectedDeliveries::default();
        of_process.add(rejected(now - Duration::from_secs(25 * 3_600), "timestamp_too_old"));
        for (index, reason) in reasons.iter().enumerate() {
            of_process.add(rejected(now - Duration::from_secs(index as u64), reason));
        }
        deliveries.reject(tenant, workflow, process, &of_process, now).await.unwrap();
    }
    let shown = setup.deliveries().await;
    assert_eq!(shown["rejected"]["total"], 9, "{shown}");
    assert_eq!(shown["rejected"]["reasons"], json!({"signature_mismatch": 1, "signature_missing": 8}));
    let last = shown["rejected"]["last"].as_array().unwrap();
    assert!(last.len() <= 10 && last[0]["at"].as_str() >= last[1]["at"].as_str(), "{last:?}");
    assert_eq!((&last[0]["address"], &last[0]["headers"]), (&json!("192.0.2.1"), &json!(["content-type"])));
}

#[tokio::test]
async fn it_is_listening_as_long_as_it_says() {
    let setup = setup().await;
    let until = setup.world.clock.now() + Duration::from_secs(600);
    let listening = tidegate_model::Workflow { listening_until: Some(until), ..setup.workflow.clone() };
    setup.world.store.workflows().replace(1, &listening, None).await.unwrap();
    assert!(setup.deliveries().await["listening_until"].is_string());
    setup.world.clock.advance(Duration::from_secs(600));
    assert_eq!(setup.deliveries().await["listening_until"], Value::Null);
    let unknown: WorkflowId = setup.world.ids.workflow();
    setup.app.get(&setup.owner, &format!("/api/workflows/{unknown}/deliveries")).await.expect(404);
    let stranger = setup.world.session("sam").await;
    setup.app.get(&stranger, &format!("/api/workflows/{}/deliveries", setup.workflow.id)).await.expect(404);
}
