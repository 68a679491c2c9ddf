//! What is taken and what is refused whatever the trigger says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use http::Method;
use serde_json::{Value, json};
use tidegate_http::TENANT_STALE_AFTER;
use tidegate_model::{Limits, Payload, TenantStatus, Workflow};
use tidegate_platform::queue::{OutgoingMessage, Receipt, ReceivedMessage};
use tidegate_platform::{Blobs, PortError, Queue};
use tidegate_testing::TestApp;
use tidegate_webhooks::{Deps, api};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::{JSON, deps, serve, setup};

#[tokio::test]
async fn an_accepted_run_lies_in_the_queue() {
    let setup = setup().await;
    let workflow = setup.by_webhook().await;
    let path = format!("/api/webhooks/{}", workflow.id);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [("content-type", "application/json; charset=utf-8"), ("traceparent", trace)];
    let body = r#"{"user":{"name":"Alex"},"order":{"id":"12345"}}"#;
    let answer = setup.app.send(None, Method::POST, &path, &headers, body).await.expect(200);
    let queued = setup.queued().await;
    let [start] = queued.as_slice() else { panic!("{queued:?}") };
    assert_eq!(answer.body, json!({"status": "accepted", "run_id": start.run_id}));
    assert!(start.run_id.is_tagged_for(setup.owner.tenant));
    assert_eq!((start.tenant_id, start.workflow_id, start.version), (setup.owner.tenant, workflow.id, 1));
    assert_eq!(start.accepted_at, setup.world.clock.now());
    assert_eq!(start.trigger.content_type.as_deref(), Some("application/json"));
    assert_eq!(start.trigger.body, Payload::Inline(serde_json::from_str(body).unwrap()));
    assert_eq!(&start.traceparent[..36], &trace[..36], "the caller's trace goes on");
    assert_ne!(start.traceparent, trace, "under a span of its own");
}

#[tokio::test]
async fn a_warm_webhook_reads_nothing() {
    let setup = setup().await;
    let workflow = setup.by_webhook().await;
    setup.post(&workflow, JSON, "{}").await.expect(200);
    let before = setup.world.embedded.meter.all_calls();
    for _ in 0..3 {
        setup.post(&workflow, JSON, "{}").await.expect(200);
    }
    assert_eq!(setup.world.embedded.meter.all_calls(), before);
    assert_eq!(setup.queued().await.len(), 4);
}

/// In an instance that knows the tenant already.
#[tokio::test]
async fn a_suspended_tenants_webhooks_are_refused_within_five_seconds_and_taken_again_once_it_is_resumed() {
    let setup = setup().await;
    let workflow = setup.by_webhook().await;
    let other = setup.world.session("sam").await;
    for (status, expected) in [(TenantStatus::Active, 200), (TenantStatus::Suspended, 403), (TenantStatus::Active, 200)]
    {
        setup.world.set_status(setup.owner.tenant, status).await;
        setup.world.clock.advance(TENANT_STALE_AFTER);
        let answer = setup.post(&workflow, JSON, "{}").await.expect(expected);
        assert_eq!(answer.text("/code"), if expected == 403 { "tenant_suspended" } else { "" });
        assert_eq!(setup.queued().await.len(), usize::from(expected == 200));
    }
    setup.world.set_status(other.tenant, TenantStatus::Suspended).await;
    setup.world.clock.advance(TENANT_STALE_AFTER);
    setup.post(&workflow, JSON, "{}").await.expect(200);
}

#[tokio::test]
async fn vendors_payloads_arrive_whole() {
    let setup = setup().await;
    let workflow = setup.by_webhook().await;
    let json_type = "application/json";
    let github = include_str!("../../../../tests/fixtures/github-push.json");
    let stripe = include_str!("../../../../tests/fixtures/stripe-charge-succeeded.json");
    let shopify = include_str!("../../../../tests/fixtures/shopify-orders-create.json");
    for (kind, text) in [(json_type, github), ("application/json; charset=utf-8", stripe), (json_type, shopify)] {
        setup.post(&workflow, Some(kind), text).await.expect(200);
        let start = setup.queued().await.remove(0);
        let stored = match start.trigger.body {
            Payload::Inline(value) => value,
            Payload::Blob(blob) => {
                let bytes = setup.world.blobs.get(&blob.key).await.unwrap().unwrap();
                assert_eq!(bytes.len() as u64, blob.bytes);
                serde_json::from_slice(&bytes).unwrap()
            }
        };
        assert_eq!(stored, serde_json::from_str::<Value>(text).unwrap());
    }
    let slack = include_str!("../../../../tests/fixtures/slack-slash-command.txt").trim_end();
    setup.post(&workflow, Some("application/x-www-form-urlencoded"), slack).await.expect(200);
    let Payload::Inline(form) = setup.queued().await.remove(0).trigger.body else { panic!("it is small") };
    assert!(form["command"].as_str().unwrap().starts_with('/'), "{form}");
    assert!(form["response_url"].as_str().unwrap().starts_with("https://hooks.slack.com/commands/"), "{form}");
}

#[tokio::test]
async fn large_bodies_go_to_blobs_and_too_large_ones_nowhere() {
    let setup = setup().await;
    let workflow = setup.by_webhook().await;
    for (text, is_inline) in [("x".repeat(8 * 1024 - 2), true), ("x".repeat(8 * 1024 - 1), false)] {
        setup.post(&workflow, Some("text/plain"), text.clone()).await.expect(200);
        let start = setup.queued().await.remove(0);
        match start.trigger.body {
            Payload::Inline(value) => assert!(is_inline && value == json!(text)),
            Payload::Blob(blob) => {
                assert!(!is_inline);
                assert_eq!(blob.key, format!("live/{}/{}/input", setup.owner.tenant, start.run_id));
                let bytes = setup.world.blobs.get(&blob.key).await.unwrap().unwrap();
                assert_eq!(bytes, json!(text).to_string());
            }
        }
    }
    let most = 4 * 1024 * 1024;
    setup.post(&workflow, Some("text/plain"), "x".repeat(most)).await.expect(200);
    assert_eq!(setup.queued().await.len(), 1);
    let over = setup.post(&workflow, JSON, "x".repeat(most + 1)).await.expect(413);
    assert_eq!(over.text("/code"), "payload_too_large");
    assert!(setup.queued().await.is_empty());
}

#[tokio::test]
async fn what_can_not_start_a_run_says_why() {
    let setup = setup().await;
    let workflow = setup.by_webhook().await;
    let broken = setup.post(&workflow, JSON, "{\"a\":\n oops}").await.expect(400);
    assert_eq!(broken.text("/code"), "malformed_request");
    assert!(broken.text("/detail").contains("line 2 column 2"), "{}", broken.body);
    setup.post(&workflow, JSON, "").await.expect(400);

    let inactive = setup.workflow(json!({"type": "webhook"}), false).await;
    assert_eq!(setup.post(&inactive, JSON, "{}").await.expect(409).text("/code"), "workflow_inactive");
    let scheduled = setup.workflow(json!({"type": "schedule", "every": "10m"}), true).await;
    assert!(setup.post(&scheduled, JSON, "{}").await.expect(404).text("/detail").contains("webhook"));
    for id in ["wf_01890a5d000070008000000000000000", "wf_1", "conn_01890a5d000070008000000000000000", "..%2f"] {
        let path = format!("/api/webhooks/{id}");
        setup.app.send(None, Method::POST, &path, &[], "{}").await.expect(404);
    }
    for method in [Method::GET, Method::HEAD, Method::PUT] {
        let path = format!("/api/webhooks/{}", workflow.id);
        let answer = setup.app.send(None, method, &path, &[], "").await.expect(405);
        assert_eq!(answer.header("allow"), "POST");
    }
    assert!(setup.queued().await.is_empty());
}

/// Bodies of 125 levels and more were accepted, and the message could never be read.
#[tokio::test]
async fn what_is_accepted_can_be_read_again() {
    let setup = setup().await;
    let workflow = setup.by_webhook().await;
    let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    let large = |text: &str| format!("{text}{}", " ".repeat(8 * 1024));
    let text = nested(100);
    setup.post(&workflow, JSON, text.clone()).await.expect(200);
    let start = setup.queued().await.remove(0);
    assert_eq!(start.trigger.body, Payload::Inline(serde_json::from_str(&text).unwrap()));
    setup.post(&workflow, JSON, large(&text)).await.expect(200);
    let Payload::Blob(blob) = setup.queued().await.remove(0).trigger.body else { panic!("it is large") };
    let bytes = setup.world.blobs.get(&blob.key).await.unwrap().unwrap();
    assert_eq!((bytes.len() as u64, &bytes[..]), (blob.bytes, large(&text).as_bytes()), "as it came");

    // The parser unpacks such a member, even from a form, or fails to.
    let reserved = r#"{"$serde_json::private::RawValue": "[1"}"#;
    let mut refused: Vec<_> = [101, 126, 200].map(|levels| (nested(levels), "more than 100 levels")).into();
    refused.push((reserved.to_owned(), "reserved"));
    for (text, why) in refused {
        for body in [text.clone(), large(&text)] {
            let answer = setup.post(&workflow, JSON, body).await.expect(400);
            assert_eq!(answer.text("/code"), "malformed_request");
            assert!(answer.text("/detail").contains(why), "{}", answer.body);
        }
    }
    let form = Some("application/x-www-form-urlencoded");
    setup.post(&workflow, form, "$serde_json::private::RawValue=[1").await.expect(400);
    assert!(setup.queued().await.is_empty());
}

#[tokio::test]
async fn json_of_too_many_values_is_refused() {
    let setup = setup().await;
    let workflow = setup.by_webhook().await;
    let list = |length: usize| format!("[{}0]", "0,".repeat(length - 1));
    setup.post(&workflow, JSON, list(99_999)).await.expect(200);
    assert_eq!(setup.queued().await.len(), 1);
    for kind in [JSON, None, Some("application/x-www-form-urlencoded")] {
        let answer = setup.post(&workflow, kind, list(2_000_000)).await.expect(400);
        assert!(answer.text("/detail").contains("more than 100000 values"), "{}", answer.body);
    }
    let fields = "a&".repeat(2_000_000);
    setup.post(&workflow, Some("application/x-www-form-urlencoded"), fields).await.expect(400);
    assert!(setup.queued().await.is_empty());
}

/// A large body of unknown length, which tells when more of it is asked for than its beginning, and ends when it is let.
fn held_body(asked: mpsc::UnboundedSender<()>, come: watch::Receiver<bool>) -> Body {
    let begin = futures::stream::once(async { Ok::<_, std::io::Error>(format!("\"{}", "x".repeat(300_000))) });
    let end = futures::stream::once(async move {
        asked.send(()).unwrap();
        come.clone().wait_for(|come| *come).await.unwrap();
        Ok("\"".to_owned())
    });
    Body::from_stream(futures::StreamExt::chain(begin, end))
}

#[tokio::test]
async fn large_bodies_of_a_webhook_wait_for_each_other_and_others_for_none_of_them() {
    let setup = Arc::new(setup().await);
    let [workflow, other] = [setup.by_webhook().await, setup.by_webhook().await];
    let (asked, mut reading) = mpsc::unbounded_channel();
    let (come, held) = watch::channel(false);
    let mut posts = JoinSet::new();
    let mut post = |workflow: &Workflow| {
        let (setup, workflow, body) = (setup.clone(), workflow.clone(), held_body(asked.clone(), held.clone()));
        posts.spawn(async move { setup.post(&workflow, JSON, body).await });
    };
    for _ in 0..5 {
        post(&workflow);
    }
    for _ in 0..4 {
        reading.recv().await.unwrap();
    }
    setup.post(&workflow, JSON, "{}").await.expect(200);
    assert!(reading.try_recv().is_err(), "one waits");
    post(&other);
    reading.recv().await.unwrap();
    come.send(true).unwrap();
    while let Some(answer) = posts.join_next().await {
        answer.unwrap().expect(200);
    }
    reading.recv().await.unwrap();
}

/// However many webhooks there are.
#[tokio::test]
async fn only_so_many_large_bodies_are_held_at_once() {
    let setup = Arc::new(setup().await);
    let (asked, mut reading) = mpsc::unbounded_channel();
    let (come, held) = watch::channel(false);
    let mut posts = JoinSet::new();
    for _ in 0..17 {
        let workflow = setup.by_webhook().await;
        let (setup, body) = (setup.clone(), held_body(asked.clone(), held.clone()));
        posts.spawn(async move { setup.post(&workflow, JSON, body).await });
    }
    for _ in 0..16 {
        reading.recv().await.unwrap();
    }
    assert!(reading.try_recv().is_err(), "one waits");
    come.send(true).unwrap();
    while let Some(answer) = posts.join_next().await {
        answer.unwrap().expect(200);
    }
}

#[tokio::test]
async fn a_large_body_that_does_not_arrive_is_given_up() {
    let setup = setup().await;
    let workflow = setup.by_webhook().await;
    setup.post(&workflow, JSON, "{}").await.expect(200);
    let (asked, _reading) = mpsc::unbounded_channel();
    let (_come, held) = watch::channel(false);
    tokio::time::pause();
    let answer = setup.post(&workflow, JSON, held_body(asked, held)).await.expect(400);
    assert!(answer.text("/detail").contains("30 seconds"), "{}", answer.body);
}

/// What one process changes another one, that knows the former state, notices within the bound.
#[tokio::test]
async fn toggling_a_workflow_and_suspending_its_tenant_are_noticed_within_five_seconds() {
    let setup = setup().await;
    let other = serve(&setup.world, Arc::new(setup.world.queue.clone()));
    let workflow = setup.by_webhook().await;
    let path = format!("/api/webhooks/{}", workflow.id);
    let post = async |app: &TestApp| app.send(None, Method::POST, &path, &[], "{}").await.status.as_u16();
    let around = async || {
        setup.world.clock.advance(Duration::from_millis(4_999));
        let before = [post(&setup.app).await, post(&other).await];
        setup.world.clock.advance(Duration::from_millis(1));
        (before, [post(&setup.app).await, post(&other).await])
    };
    assert_eq!([post(&setup.app).await, post(&other).await], [200, 200]);
    let off = setup.switch(&workflow, false).await;
    assert_eq!(around().await, ([200, 200], [409, 409]));
    setup.switch(&off, true).await;
    assert_eq!(around().await, ([409, 409], [200, 200]));
    let mut tenant = setup.world.store.tenants().get(setup.owner.tenant).await.unwrap().unwrap();
    for (status, answers) in [(TenantStatus::Suspended, [200, 403]), (TenantStatus::Active, [403, 200])] {
        tenant.status = status;
        tenant.revision += 1;
        setup.world.store.tenants().replace(&tenant).await.unwrap();
        let [before, after] = answers.map(|answer| [answer; 2]);
        assert_eq!(around().await, (before, after), "{status:?}");
    }
}

#[tokio::test]
async fn webhooks_over_the_tenants_limit_are_told_when_to_come_again() {
    let setup = setup().await;
    let limits = Limits { webhooks_per_second: Some(1), ..Limits::default() };
    let limiter = setup.world.limiter_of("webhooks", limits);
    let deps = Deps { limiter, ..deps(&setup.world, Arc::new(setup.world.queue.clone())) };
    let app = TestApp::new(&setup.world, api(deps));
    let path = format!("/api/webhooks/{}", setup.by_webhook().await.id);
    let post = async || app.send(None, Method::POST, &path, &[], "{}").await;
    for left in (0..10).rev() {
        assert_eq!(post().await.expect(200).header("ratelimit-remaining"), left.to_string());
    }
    let refused = post().await.expect(429);
    let headers = ["retry-after", "ratelimit-limit", "ratelimit-remaining"].map(|name| refused.header(name));
    assert_eq!(headers, ["1", "10", "0"]);
    assert_eq!(setup.queued().await.len(), 10, "what is refused isn't queued");
    setup.world.clock.advance(Duration::from_secs(1));
    post().await.expect(200);
}

#[tokio::test]
async fn a_switched_off_workflow_is_refused_after_five_seconds_at_the_latest() {
    let setup = setup().await;
    let other_instance = serve(&setup.world, Arc::new(setup.world.queue.clone()));
    let workflow = setup.by_webhook().await;
    let path = format!("/api/webhooks/{}", workflow.id);
    let post = || other_instance.send(None, Method::POST, &path, &[("content-type", "application/json")], "{}");
    setup.post(&workflow, JSON, "{}").await.expect(200);
    post().await.expect(200);
    let off = setup.switch(&workflow, false).await;
    setup.world.clock.advance(Duration::from_secs(5));
    setup.post(&workflow, JSON, "{}").await.expect(409);
    post().await.expect(409);
    setup.switch(&off, true).await;
    setup.world.clock.advance(Duration::from_secs(5));
    post().await.expect(200);

    // What isn't there is remembered as long, and no longer.
    let id = setup.world.ids.workflow();
    let missing = Workflow { id, ..workflow };
    setup.post(&missing, JSON, "{}").await.expect(404);
    let reads = setup.world.embedded.meter.all_calls();
    setup.post(&missing, JSON, "{}").await.expect(404);
    assert_eq!(setup.world.embedded.meter.all_calls(), reads);
}

#[tokio::test]
async fn a_deleted_tenants_webhooks_are_not_found_after_five_seconds_at_the_latest() {
    let setup = setup().await;
    let other_instance = serve(&setup.world, Arc::new(setup.world.queue.clone()));
    let workflow = setup.by_webhook().await;
    let path = format!("/api/webhooks/{}", workflow.id);
    let post = || other_instance.send(None, Method::POST, &path, &[("content-type", "application/json")], "{}");
    post().await.expect(200);
    let tenants = setup.world.store.tenants();
    let before = tenants.get(setup.owner.tenant).await.unwrap().unwrap();
    let (status, revision) = (tidegate_model::TenantStatus::Deleted, before.revision + 1);
    let gone = tidegate_model::Tenant { status, data_keys: Vec::new(), revision, ..before };
    tenants.replace(&gone).await.unwrap();
    setup.world.clock.advance(Duration::from_secs(5));
    let mut bodies = Vec::new();
    for mut answer in
        [post().await, setup.post(&Workflow { id: setup.world.ids.workflow(), ..workflow }, JSON, "{}").await]
    {
        answer.body["request_id"] = Value::Null;
        bodies.push((answer.status.as_u16(), answer.body));
    }
    assert!(bodies[0].0 == 404 && bodies[0] == bodies[1], "like one that never was: {bodies:?}");
}

/// A queue that may be away.
pub(crate) struct Unreliable {
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) away: AtomicBool,
}

#[async_trait]
impl Queue for Unreliable {
    async fn send(&self, message: OutgoingMessage) -> Result<(), PortError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(PortError::new("send to the queue", "away"));
        }
        self.queue.send(message).await
    }

    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<ReceivedMessage>, PortError> {
        self.queue.receive(max, wait).await
    }

    async fn delete(&self, receipt: &Receipt) -> Result<(), PortError> {
        self.queue.delete(receipt).await
    }

    async fn change_visibility(&self, receipt: &Receipt, visible_in: Duration) -> Result<(), PortError> {
        self.queue.change_visibility(receipt, visible_in).await
    }

    async fn redrive(&self, max: usize) -> Result<usize, PortError> {
        self.queue.redrive(max).await
    }

    fn dead_letters(&self) -> Option<&dyn Queue> {
        self.queue.dead_letters()
    }
}

#[tokio::test]
async fn nothing_is_acknowledged_that_is_not_stored() {
    let setup = setup().await;
    let workflow = setup.by_webhook().await;
    let away = AtomicBool::new(true);
    let queue = Arc::new(Unreliable { queue: Arc::new(setup.world.queue.clone()), away });
    let app = serve(&setup.world, queue.clone());
    let path = format!("/api/webhooks/{}", workflow.id);
    let post = || app.send(None, Method::POST, &path, &[("content-type", "text/plain")], "x".repeat(10_000));
    let failed = post().await.expect(503);
    assert_eq!((failed.text("/code"), failed.header("retry-after")), ("unavailable", "1"));
    assert!(setup.queued().await.is_empty());
    queue.away.store(false, Ordering::SeqCst);
    post().await.expect(200);
    assert_eq!(setup.queued().await.len(), 1);
}
