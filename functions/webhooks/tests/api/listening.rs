//! Keeping what comes to look at it.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_model::{CapturedDelivery, Workflow};

use crate::{Setup, setup};

impl Setup {
    async fn listening(&self, trigger: Value, secrets: Option<Value>) -> Workflow {
        let mut workflow = self.verified(trigger, false, secrets).await;
        workflow.listening_until = Some(self.world.clock.now() + Duration::from_secs(600));
        self.world.store.workflows().replace(1, &workflow, None).await.unwrap();
        workflow
    }

    async fn captured(&self, workflow: &Workflow) -> Vec<CapturedDelivery> {
        self.world.store.deliveries().captured(workflow.tenant, workflow.id).await.unwrap()
    }
}

#[tokio::test]
async fn a_listening_webhook_keeps_what_comes_and_runs_nothing() {
    let setup = setup().await;
    let workflow = setup.listening(json!({"type": "webhook"}), None).await;
    let headers = [("x-github-event", "push"), ("authorization", "Bearer s3cr3t"), ("x-hook-token", "s3cr3t")];
    let body = r#"{"order": {"id": 1}, "password": "s3cr3t", "card": {"token": "s3cr3t"}}"#;
    let answer = setup.send(&workflow, &headers, body).await.expect(200);
    assert_eq!(answer.body, json!({"status": "captured"}));
    assert!(setup.queued().await.is_empty());
    let captured = setup.captured(&workflow).await;
    let [delivery] = captured.as_slice() else { panic!("{captured:?}") };
    assert_eq!(delivery.request.headers["x-github-event"], "push", "all headers are shown");
    assert_eq!(delivery.body.as_ref().unwrap()["order"], json!({"id": 1}));
    assert!(!serde_json::to_string(&captured).unwrap().contains("s3cr3t"), "{captured:?}");

    // The last ten, and of large ones no body.
    for index in 0..15 {
        setup.world.clock.advance(Duration::from_secs(1));
        setup.send(&workflow, &[], json!({"index": index}).to_string()).await.expect(200);
    }
    setup.world.clock.advance(Duration::from_secs(1));
    setup.send(&workflow, &[], format!("[\"{}\"]", "x".repeat(9_000))).await.expect(200);
    let captured = setup.captured(&workflow).await;
    let seen: Vec<_> =
        captured.iter().map(|delivery| delivery.body.as_ref().map(|body| body["index"].clone())).collect();
    assert_eq!(seen, [vec![None], (6..15).rev().map(|index| Some(json!(index))).collect()].concat());

    setup.world.clock.advance(Duration::from_secs(600));
    setup.send(&workflow, &[], "{}").await.expect(409);
}

#[tokio::test]
async fn it_listens_to_nobody_else() {
    let setup = setup().await;
    let trigger = crate::verifying::trigger(&json!({}));
    let secrets = json!({"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"});
    let workflow = setup.listening(trigger, Some(secrets)).await;
    setup.send(&workflow, &[], "{}").await.expect(401);
    assert!(setup.captured(&workflow).await.is_empty());
    setup.delivered(&workflow, "msg_1", "{}").await.expect(200);
    let captured = setup.captured(&workflow).await;
    assert_eq!(
        captured[0].request.headers["webhook-signature"], "***",
        "what is signed can't be sent again by who reads it"
    );
    assert_eq!(captured[0].request.headers["webhook-id"], "msg_1");
}

#[tokio::test]
async fn an_active_workflow_goes_on_running() {
    let setup = setup().await;
    let mut workflow = setup.listening(json!({"type": "webhook"}), None).await;
    workflow.active = true;
    workflow.revision += 1;
    setup.world.store.workflows().replace(1, &workflow, None).await.unwrap();
    setup.send(&workflow, &[], "{}").await.expect(200);
    assert_eq!(setup.queued().await.len(), 1);
}
