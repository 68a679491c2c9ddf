//! `POST /api/workflows/{id}/trigger`.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tidegate_model::{Message, Payload, StartMessage, TriggerKind};
use tidegate_platform::{Blobs as _, Queue as _};

use crate::{Setup, by_webhook, every, setup};

impl Setup {
    async fn queued(&self) -> Vec<StartMessage> {
        let messages = self.world.queue.receive(10, Duration::ZERO).await.unwrap();
        let read = |text: &str| match serde_json::from_str(text).unwrap() {
            Message::Start(start) => *start,
            other => panic!("unexpected {other:?}"),
        };
        messages.iter().map(|message| read(&message.body)).collect()
    }
}

fn with_parameters() -> Value {
    let mut body = by_webhook();
    body["trigger"] = json!({"type": "manual"});
    body["parameters"] = json!([
        {"name": "count", "type": "integer", "required": true},
        {"name": "channel", "type": "string", "default": "#orders"},
        {"name": "note", "type": "string"},
    ]);
    body
}

#[tokio::test]
async fn a_run_is_started_by_hand() {
    let setup = setup().await;
    let (app, owner) = (&setup.app, &setup.owner);
    let id = setup.workflow(&with_parameters()).await;
    let path = format!("/api/workflows/{id}/trigger");
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let body = json!({"parameters": {"count": 3, "note": null}, "body": {"order": {"id": 7}}});
    let headers = [("traceparent", trace)];
    let answer = app.send(Some(owner), Method::POST, &path, &headers, body.to_string()).await.expect(202);
    let queued = setup.queued().await;
    let [start] = queued.as_slice() else { panic!("{queued:?}") };
    assert_eq!(answer.body, json!({"status": "accepted", "run_id": start.run_id}));
    assert_eq!(answer.header("location"), format!("/api/runs/{}", start.run_id));
    assert!(start.run_id.is_tagged_for(owner.tenant) && start.parent.is_none());
    assert_eq!((start.tenant_id, start.workflow_id.to_string(), start.version), (owner.tenant, id.clone(), 1));
    assert_eq!((start.trigger.kind, &start.trigger.content_type), (TriggerKind::Manual, &None));
    assert_eq!(start.trigger.body, Payload::Inline(json!({"order": {"id": 7}})));
    assert_eq!(Value::Object(start.trigger.parameters.clone()), json!({"count": 3, "note": null}));
    assert_eq!(start.accepted_at, setup.world.clock.now());
    assert_eq!(&start.traceparent[..36], &trace[..36], "the caller's trace goes on");

    let mut replaced = with_parameters();
    replaced["parameters"] = json!([]);
    app.put(owner, &format!("/api/workflows/{id}"), "*", &replaced).await.expect(200);
    app.post(owner, &path, &json!({"body": "text"})).await.expect(202);
    let start = setup.queued().await.remove(0);
    assert_eq!((start.version, start.trigger.body), (2, Payload::Inline(json!("text"))), "the current version");
}

#[tokio::test]
async fn every_workflow_can_be_started_even_when_it_is_switched_off() {
    let setup = setup().await;
    let mut inactive = by_webhook();
    inactive["active"] = json!(false);
    for definition in [by_webhook(), every("10m"), inactive] {
        let id = setup.workflow(&definition).await;
        let path = format!("/api/workflows/{id}/trigger");
        for body in ["", " ", "null", "{}", r#"{"parameters": null}"#] {
            setup.app.send(Some(&setup.owner), Method::POST, &path, &[], body).await.expect(202);
            let start = setup.queued().await.remove(0);
            assert_eq!(start.trigger.body, Payload::Inline(json!({})), "{body}");
            assert!(start.trigger.parameters.is_empty());
        }
        setup.app.post(&setup.owner, &path, &json!({"body": null})).await.expect(202);
        assert_eq!(setup.queued().await.remove(0).trigger.body, Payload::Inline(Value::Null));
    }
}

#[tokio::test]
async fn what_does_not_fit_starts_nothing() {
    let setup = setup().await;
    let (app, owner) = (&setup.app, &setup.owner);
    let id = setup.workflow(&with_parameters()).await;
    let path = format!("/api/workflows/{id}/trigger");
    let all = json!({"count": "3", "channel": 1, "colour": "red"});
    for (body, pointers) in [
        (json!([]), &[""][..]),
        (json!({"parameters": [1]}), &["/parameters"]),
        (json!({"params": {"count": 3}, "order": 1}), &["/params", "/order"]),
        (json!({}), &["/parameters/count"]),
        (json!({"parameters": {"count": null}}), &["/parameters/count"]),
        (json!({ "parameters": all }), &["/parameters/colour", "/parameters/count", "/parameters/channel"]),
        (json!({"parameters": {"count": 1, "note": "x".repeat(8 * 1024)}}), &["/parameters"]),
    ] {
        let answer = app.post(owner, &path, &body).await.expect(422);
        assert_eq!((answer.text("/code"), answer.pointers()), ("validation_failed", pointers.to_vec()), "{body}");
    }
    let unknown = app.post(owner, &path, &json!({"parameters": {"count": 1, "colour": 1}})).await.expect(422);
    let detail = "the workflow has no such parameter; it has: count, channel, note";
    assert_eq!(unknown.text("/errors/0/detail"), detail);
    let nested = format!("{}1{}", "[".repeat(101), "]".repeat(101));
    for (body, told) in [("{\"body\":", "no JSON"), (nested.as_str(), "more than 100 levels")] {
        let refused = app.send(Some(owner), Method::POST, &path, &[], body.to_owned()).await.expect(400);
        assert_eq!(refused.text("/code"), "malformed_request");
        assert!(refused.text("/detail").contains(told), "{}", refused.body);
    }
    app.post(owner, "/api/workflows/wf_01890a5d000070008000000000000000/trigger", &json!({})).await.expect(404);
    assert!(setup.queued().await.is_empty());
}

#[tokio::test]
async fn large_bodies_go_to_blobs_as_a_webhooks_do() {
    let setup = setup().await;
    let (app, owner) = (&setup.app, &setup.owner);
    let id = setup.workflow(&by_webhook()).await;
    let path = format!("/api/workflows/{id}/trigger");
    for (text, is_inline) in [("x".repeat(8 * 1024 - 2), true), ("x".repeat(8 * 1024 - 1), false)] {
        app.post(owner, &path, &json!({ "body": text })).await.expect(202);
        let start = setup.queued().await.remove(0);
        match start.trigger.body {
            Payload::Inline(value) => assert!(is_inline && value == json!(text)),
            Payload::Blob(blob) => {
                assert!(!is_inline);
                assert_eq!(blob.key, format!("live/{}/{}/input", owner.tenant, start.run_id));
                let bytes = setup.world.blobs.get(&blob.key).await.unwrap().unwrap();
                assert_eq!((bytes.len() as u64, &bytes[..]), (blob.bytes, json!(text).to_string().as_bytes()));
            }
        }
    }
    app.post(owner, &path, &json!({"body": "x".repeat(4 * 1024 * 1024 - 100)})).await.expect(202);
    let over = app.post(owner, &path, &json!({"body": "x".repeat(4 * 1024 * 1024)})).await.expect(413);
    assert_eq!((over.text("/code"), setup.queued().await.len()), ("payload_too_large", 1));
}
