//! Deliveries that come again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Method;
use serde_json::json;
use tidegate_model::{Payload, Trigger};
use tidegate_platform::Blobs as _;
use tokio::task::JoinSet;

use crate::accepting::Unreliable;
use crate::{JSON, path, serve, setup};

#[tokio::test]
async fn a_delivery_that_comes_again_is_the_same_run_and_is_sent_for_again() {
    let setup = setup().await;
    let workflow = setup.by_signed_webhook(&json!({})).await;
    let first = setup.delivered(&workflow, "msg_1", "{}").await.expect(200);
    assert_eq!(first.text("/status"), "accepted");
    let again = setup.delivered(&workflow, "msg_1", "{}").await.expect(200);
    assert_eq!((again.text("/status"), again.text("/run_id")), ("duplicate", first.text("/run_id")));
    assert_eq!(again.header("tidegate-run-id"), first.text("/run_id"));
    let other = setup.delivered(&workflow, "msg_2", "{}").await.expect(200);
    assert_ne!(other.text("/run_id"), first.text("/run_id"));
    let queued: Vec<_> = setup.queued().await.into_iter().map(|start| start.run_id.to_string()).collect();
    assert_eq!(queued, [first.text("/run_id"), first.text("/run_id"), other.text("/run_id")]);

    // Another workflow's are others.
    let elsewhere = setup.by_signed_webhook(&json!({})).await;
    let there = setup.delivered(&elsewhere, "msg_1", "{}").await.expect(200);
    assert_eq!(there.text("/status"), "accepted");
}

#[tokio::test]
async fn it_is_remembered_as_long_as_the_trigger_says() {
    let setup = setup().await;
    let trigger = json!({"type": "webhook", "deduplicate": {"by": "idempotency_key", "remember": "1h"}});
    let workflow = setup.workflow(trigger, true).await;
    let send = async || setup.send(&workflow, &[("idempotency-key", "a")], "{}").await.expect(200);
    let first = send().await.text("/run_id").to_owned();
    setup.world.clock.advance(Duration::from_secs(3_599));
    assert_eq!(send().await.text("/run_id"), first);
    // From the first time, so that its end comes.
    setup.world.clock.advance(Duration::from_secs(2));
    let later = send().await;
    assert_ne!(later.text("/run_id"), first);
    assert_eq!(send().await.text("/run_id"), later.text("/run_id"));

    // It ends before the run's own record does.
    let Trigger::Webhook(trigger) = workflow.trigger else { panic!("it is a webhook") };
    assert!(trigger.deduplicates().unwrap().remember.duration() < Duration::from_secs(30 * 86_400));
}

#[tokio::test]
async fn what_tells_them_is_the_triggers_choice() {
    let setup = setup().await;
    let by = |deduplicate: serde_json::Value| json!({"type": "webhook", "deduplicate": deduplicate});
    let expression = by(json!({"by": "expression", "expression": "order.id ~ '/' ~ trigger.query.shop"}));
    let workflow = setup.workflow(expression, true).await;
    let send = async |shop: &str, body: &str| {
        let target = format!("{}?shop={shop}", path(&workflow));
        let headers = [("content-type", "application/json")];
        setup.app.send(None, Method::POST, &target, &headers, body.to_owned()).await
    };
    let first = send("a", r#"{"order": {"id": 7}, "try": 1}"#).await.expect(200);
    let again = send("a", r#"{"order": {"id": 7}, "try": 2}"#).await.expect(200);
    assert_eq!(again.text("/run_id"), first.text("/run_id"));
    for (shop, body) in [("b", r#"{"order": {"id": 7}}"#), ("a", r#"{"order": {"id": 8}}"#)] {
        assert_eq!(send(shop, body).await.expect(200).text("/status"), "accepted");
    }
    // Of a large body too.
    let large = format!(r#"{{"order": {{"id": 7}}, "more": "{}"}}"#, "x".repeat(20_000));
    assert_eq!(send("a", &large).await.expect(200).text("/run_id"), first.text("/run_id"));
    let unknown = setup.workflow(by(json!({"by": "expression", "expression": "order.id"})), true).await;
    let answer = setup.post(&unknown, JSON, r#"{"order": {}}"#).await.expect(400);
    assert!(answer.text("/detail").contains("deduplicate.expression"), "{}", answer.body);

    let keyed = setup.workflow(by(json!({"by": "idempotency_key"})), true).await;
    setup.queued().await;
    // Without a key nothing tells them.
    let [one, two] = [setup.post(&keyed, JSON, "{}").await, setup.post(&keyed, JSON, "{}").await];
    assert_ne!(one.text("/run_id"), two.text("/run_id"));
    let long = "k".repeat(256);
    setup.send(&keyed, &[("idempotency-key", &long)], "{}").await.expect(400);
    setup.send(&keyed, &[("idempotency-key", "a"), ("idempotency-key", "b")], "{}").await.expect(400);

    // Off, although the scheme has ids.
    let off = setup.by_signed_webhook(&json!({"deduplicate": {"by": "nothing"}})).await;
    let [one, two] = [setup.delivered(&off, "msg_1", "{}").await, setup.delivered(&off, "msg_1", "{}").await];
    assert_ne!(one.text("/run_id"), two.text("/run_id"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_at_once_one_starts_a_run() {
    let setup = Arc::new(setup().await);
    let trigger = json!({"type": "webhook", "deduplicate": {"by": "idempotency_key"}});
    let workflow = setup.workflow(trigger, true).await;
    let mut sends = JoinSet::new();
    for index in 0..100 {
        let (setup, workflow) = (setup.clone(), workflow.clone());
        sends.spawn(async move {
            let key = format!("key-{}", index % 10);
            let answer = setup.send(&workflow, &[("idempotency-key", &key)], "{}").await.expect(200);
            (key, answer.text("/run_id").to_owned(), answer.text("/status").to_owned())
        });
    }
    let answers: Vec<_> = sends.join_all().await;
    let runs: BTreeSet<_> = answers.iter().map(|(key, run, _)| (key, run)).collect();
    assert_eq!(runs.len(), 10, "one run for each key");
    assert_eq!(answers.iter().filter(|(_, _, status)| status == "accepted").count(), 10);
}

/// What a repetition stores must not change what the first one's run reads.
#[tokio::test]
async fn a_repetition_has_blobs_of_its_own() {
    let setup = setup().await;
    let workflow = setup.by_signed_webhook(&json!({})).await;
    let body = |letter: &str| format!("\"{}\"", letter.repeat(10_000));
    setup.delivered(&workflow, "msg_1", &body("a")).await.expect(200);
    setup.delivered(&workflow, "msg_1", &body("b")).await.expect(200);
    let queued = setup.queued().await;
    let [first, second] = queued.as_slice() else { panic!("{queued:?}") };
    assert_eq!(first.run_id, second.run_id);
    for (start, letter) in [(first, "a"), (second, "b")] {
        let Payload::Blob(blob) = &start.trigger.body else { panic!("it is large") };
        assert_eq!(setup.world.blobs.get(&blob.key).await.unwrap().unwrap(), body(letter));
    }
}

/// Between the note that a delivery was seen and its message nothing may be lost.
#[tokio::test]
async fn what_was_noted_and_not_sent_is_sent_by_the_vendors_retry() {
    let setup = setup().await;
    let trigger = json!({"type": "webhook", "deduplicate": {"by": "idempotency_key"}});
    let workflow = setup.workflow(trigger, true).await;
    let queue = Arc::new(Unreliable { queue: Arc::new(setup.world.queue.clone()), away: true.into() });
    let app = serve(&setup.world, queue.clone());
    let headers = [("content-type", "application/json"), ("idempotency-key", "a")];
    let send = async || app.send(None, Method::POST, &path(&workflow), &headers, "{}").await;
    send().await.expect(503);
    assert!(setup.queued().await.is_empty());
    queue.away.store(false, Ordering::SeqCst);
    let retried = send().await.expect(200);
    assert_eq!(retried.text("/status"), "duplicate");
    let queued = setup.queued().await;
    assert_eq!(queued.iter().map(|start| start.run_id.to_string()).collect::<Vec<_>>(), [retried.text("/run_id")]);
}

/// One write for a delivery that is told from others, none otherwise; no read.
#[tokio::test]
async fn telling_deliveries_takes_one_write() {
    let setup = setup().await;
    let plain = setup.by_webhook().await;
    let signed = setup.by_signed_webhook(&json!({})).await;
    setup.post(&plain, JSON, "{}").await.expect(200);
    setup.delivered(&signed, "msg_0", "{}").await.expect(200);
    let before = setup.world.embedded.meter.all_calls();
    setup.post(&plain, JSON, "{}").await.expect(200);
    assert_eq!(setup.world.embedded.meter.all_calls(), before);
    setup.delivered(&signed, "msg_1", "{}").await.expect(200);
    let after = setup.world.embedded.meter.all_calls();
    let more: u64 = after.values().sum::<u64>() - before.values().sum::<u64>();
    assert_eq!(more, 1, "{before:?} {after:?}");
}
