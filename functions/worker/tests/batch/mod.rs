//! Batches: what comes again, what one message can do to the others, and what is written about it.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tidegate_model::{Message, RunStatus, ScheduleMessage, TenantId};
use tidegate_platform::queue::{Queue, ReceivedMessage};
use tidegate_platform::scheduler::{Scheduler, Timer};
use tidegate_platform::{Clock, PortError};
use tidegate_telemetry::Metrics;
use tidegate_worker::{Deps, Source, handle_batch};

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

#[tokio::test]
async fn without_time_everything_goes_back_unharmed() {
    let world = World::new().await;
    let start = world.start(world.workflow(1, |_| {}).await);
    world.send(&Message::Start(Box::new(start.clone()))).await;
    let messages = received(&world).await;
    let again = handle_batch(&worker(&world), Source::Runs, messages, Duration::from_secs(4), 10).await;
    assert_eq!(again.len(), 1);
    assert_eq!(world.status(start.run_id).await, None);
    assert_eq!(received(&world).await.len(), 1, "it is visible at once");
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
