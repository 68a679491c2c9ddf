//! Batches: what comes again, what one message can do to the others, and what is written about it.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tidegate_model::{BlobRef, Message, Payload, RunStatus, ScheduleMessage, TenantId};
use tidegate_platform::queue::{Queue, Receipt, ReceivedMessage};
use tidegate_platform::scheduler::{Scheduler, Timer, TimerPage};
use tidegate_platform::{Blobs, Clock, PortError};
use tidegate_telemetry::Metrics;
use tidegate_worker::{Deps, Settings, Source, handle_batch};

use crate::world::World;

const TIME: Duration = Duration::from_secs(300);

/// What is in the queue, as a mapping takes it.
async fn received(world: &World) -> Vec<ReceivedMessage> {
    world.queue.receive(10, Duration::ZERO).await.unwrap()
}

fn worker(world: &World) -> Deps {
    world.worker("here")
}

#[tokio::test]
async fn what_can_not_be_handled_comes_again_and_the_rest_is_done() {
    let world = World::new().await;
    let workflow = world.workflow(1, |_| {}).await;
    let (first, second) = (world.start(workflow), world.start(workflow));
    for start in [&first, &second] {
        world.send(&Message::Start(Box::new(start.clone()))).await;
    }
    let unreadable = tidegate_platform::queue::OutgoingMessage::new(world.tenant, "{}");
    world.queue.send(unreadable).await.unwrap();
    let messages = received(&world).await;
    let expected = messages.iter().find(|message| message.body == "{}").unwrap().receipt.clone();

    let again = handle_batch(&worker(&world), Source::Runs, messages, TIME, 10).await;
    assert_eq!(again, [expected]);
    for start in [first, second] {
        assert_eq!(world.status(start.run_id).await, Some(RunStatus::Succeeded));
    }
    assert!(received(&world).await.is_empty(), "it comes again, but not at once");
    world.clock.advance(Duration::from_secs(5));
    assert_eq!(received(&world).await.len(), 1);
}

/// Whoever may send to the queue must not read another tenant's data by it, nor write it into the log.
#[tokio::test]
async fn a_start_with_a_blob_that_is_not_its_own_is_no_message() {
    let world = World::new().await;
    let mut start = world.start(world.workflow(1, |_| {}).await);
    let key = format!("kept/{}/secret/input", world.ids.tenant());
    world.blobs.put(&key, "{}".into()).await.unwrap();
    start.trigger.body = Payload::Blob(BlobRef { key: key.clone(), bytes: 2 });
    let receipt = Receipt("none".to_owned());
    let body = serde_json::to_string(&Message::Start(Box::new(start.clone()))).unwrap();
    let message = ReceivedMessage { body, receive_count: 1, receipt: receipt.clone() };
    assert_eq!(handle_batch(&worker(&world), Source::Runs, vec![message], TIME, 1).await, [receipt]);
    assert_eq!(world.status(start.run_id).await, None);
    assert!(world.blobs.get(&key).await.unwrap().is_some(), "it stays where it is");
}

#[tokio::test]
async fn without_time_everything_goes_back_as_if_it_had_never_come() {
    let world = World::new().await;
    let start = world.start(world.workflow(1, |_| {}).await);
    world.send(&Message::Start(Box::new(start.clone()))).await;
    let messages = received(&world).await;
    let again = handle_batch(&worker(&world), Source::Runs, messages, Duration::from_secs(4), 10).await;
    assert!(again.is_empty(), "it is sent anew instead");
    assert_eq!(world.status(start.run_id).await, None);
    let messages = received(&world).await;
    assert_eq!(messages.iter().map(|message| message.receive_count).collect::<Vec<_>>(), [1]);
}

/// EventBridge Scheduler leaves the request that it could not make.
#[tokio::test]
async fn what_a_schedule_could_not_send_is_handled_all_the_same() {
    let world = World::new().await;
    world.make_tenant().await;
    let workflow = world.workflow(1, |document| {
        document["trigger"] = json!({"type": "schedule", "every": "5m"});
    });
    let scheduled_time = "2026-11-21T10:00:00Z".to_owned();
    let firing = ScheduleMessage { tenant_id: world.tenant, workflow_id: workflow.await, scheduled_time };
    let body = serde_json::to_string(&Message::Schedule(firing)).unwrap();
    let request = json!({"QueueUrl": "https://sqs/runs", "MessageBody": body, "MessageGroupId": world.tenant});
    let receipt = Receipt("none".to_owned());
    let message = ReceivedMessage { body: request.to_string(), receive_count: 1, receipt };
    let mut deps = worker(&world);
    deps.metrics = Metrics::collecting();
    assert!(handle_batch(&deps, Source::DeadLetters, vec![message], TIME, 1).await.is_empty());

    let filter = tidegate_store::RunFilter::default();
    let runs = world.store.runs().list(world.tenant, &filter, None, 10).await.unwrap();
    assert_eq!(runs.items.len(), 1, "the firing is a run on record");
    let mut metrics = Vec::new();
    deps.metrics.write("tidegate-worker", &world.clock, &mut metrics).unwrap();
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(metrics.contains(r#""dead_letters":1,"dropped":0"#), "{metrics}");
}

/// Steps whose timeouts fit an invocation in full, but not what is left of one, were parked again and again.
#[tokio::test]
async fn no_steps_timeout_is_put_off_from_invocation_to_invocation() {
    let invocation = Duration::from_secs(30);
    for (timeout_ms, outcome) in [
        (23_000, RunStatus::Succeeded),
        (23_001, RunStatus::Failed),
        (27_800, RunStatus::Failed),
        (28_000, RunStatus::Failed),
        (29_000, RunStatus::Failed),
    ] {
        let world = World::new().await;
        let workflow = world.workflow(1, |document| document["steps"][0]["timeout_ms"] = timeout_ms.into()).await;
        let start = world.start(workflow);
        world.send(&Message::Start(Box::new(start.clone()))).await;
        let messages = received(&world).await;
        let deps = world.worker_with(Settings::on_lambda("here", invocation));
        let left = invocation - Duration::from_millis(500);
        assert!(handle_batch(&deps, Source::Runs, messages, left, 10).await.is_empty());
        assert_eq!(world.status(start.run_id).await, Some(outcome), "{timeout_ms} ms");
    }
}

struct Panicking;

#[async_trait]
impl Scheduler for Panicking {
    async fn put(&self, _: Timer) -> Result<(), PortError> {
        panic!("put")
    }

    async fn delete(&self, _: TenantId, _: &str) -> Result<(), PortError> {
        panic!("delete")
    }

    async fn list(&self, _: Option<&str>) -> Result<TimerPage, PortError> {
        panic!("list")
    }
}

#[tokio::test]
async fn a_panic_fails_its_own_message_only() {
    let world = World::new().await;
    let workflow = world.workflow(1, |_| {}).await;
    let start = world.start(workflow);
    // The workflow isn't started by a schedule, so its timer is to be deleted.
    let scheduled_time = "2026-11-21T10:00:00Z".to_owned();
    let firing = ScheduleMessage { tenant_id: world.tenant, workflow_id: workflow, scheduled_time };
    world.send(&Message::Schedule(firing)).await;
    world.send(&Message::Start(Box::new(start.clone()))).await;
    let messages = received(&world).await;
    let panicking = messages.iter().find(|message| message.body.contains("schedule")).unwrap().receipt.clone();

    let mut deps = worker(&world);
    deps.scheduler = Arc::new(Panicking);
    assert_eq!(handle_batch(&deps, Source::Runs, messages, TIME, 10).await, [panicking]);
    assert_eq!(world.status(start.run_id).await, Some(RunStatus::Succeeded));
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_run_is_one_line_of_at_most_400_bytes_with_what_it_used() {
    let world = World::new().await;
    let mut deps = worker(&world);
    deps.metrics = Metrics::collecting();
    let workflow = world.workflow(1, |_| {}).await;
    let (warm_up, start) = (world.start(workflow), world.start(workflow));
    let written = Written::default();
    for (start, queue_age) in [(warm_up, 0), (start, 999)] {
        world.send(&Message::Start(Box::new(start))).await;
        written.0.lock().unwrap().clear();
        world.clock.advance(Duration::from_millis(queue_age));
        let filter = "info,reqwest=off,hyper=off".parse().unwrap();
        let log = tidegate_telemetry::subscriber("worker", filter, Clock::system(), written.clone());
        let messages = received(&world).await;
        let _guard = tracing::subscriber::set_default(log);
        assert!(handle_batch(&deps, Source::Runs, messages, TIME, 10).await.is_empty());
    }
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(text.len() <= 400, "{} bytes: {text}", text.len());
    let data = &lines[0]["data"];
    assert_eq!((&data["status"], &data["queue_age_ms"]), (&"succeeded".into(), &999.into()), "{text}");
    assert_eq!((data["write_units"].as_f64(), data["read_units"].as_f64()), (Some(3.0), None), "{text}");

    let mut metrics = Vec::new();
    deps.metrics.write("tidegate-worker", &world.clock, &mut metrics).unwrap();
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(metrics.contains(r#""outcome":"succeeded","runs":2,"#) && metrics.contains(r#""dropped":0"#), "{metrics}");
}
