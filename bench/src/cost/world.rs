//! The two functions that a run goes through, over the embedded DynamoDB and the emulator of everything else; and the
//! parts of AWS between them: HTTP API, the queue's mapping to the worker, the scheduler's firing.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use aws_sdk_sqs::types::DeleteMessageBatchRequestEntry;
use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};
use tidegate_egress::{Egress, EgressSettings};
use tidegate_http::RateLimiter;
use tidegate_model::{
    Connection, ConnectionId, Definition, Health, HealthStatus, Limits, Message, Payload, Placed, Placement, Publisher,
    RunId, RunStatus, ScheduleMessage, SecretText, TenantId, WakeMessage, Workflow, WorkflowId,
};
use tidegate_platform::blobs::s3::{Addressing, S3Blobs};
use tidegate_platform::key_service::KeyContext;
use tidegate_platform::key_service::kms::Kms;
use tidegate_platform::queue::{OutgoingMessage, Queue, Receipt, ReceivedMessage, SqsQueue};
use tidegate_platform::scheduler::{EventBridgeScheduler, EventBridgeSettings};
use tidegate_platform::{Clock, Envelope, Ids, usage};
use tidegate_store::embedded::{self, Embedded, Faults};
use tidegate_testing::{Account, emulator};
use tidegate_worker::{Settings, Source, handle_batch};
use tower::ServiceExt as _;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber as _;

use super::scenario::{FirstAnswer, Scenario, Trigger};
use super::tally::Tally;
use super::target::Target;

/// A cached value is warm for 5 s; well before, the caches are filled anew.
const WARM: Duration = Duration::from_millis(2_500);
/// The worker's time, as `template.yaml` sets it.
const WORKER_TIMEOUT: Duration = Duration::from_secs(300);
/// How many runs of a batch are in flight at once, as `template.yaml`'s defaults say.
const SHARE: usize = 10;
const HOUR: Duration = Duration::from_secs(3_600);

/// AWS and a tenant.
pub(crate) struct World {
    store: Embedded,
    target: Target,
    aws: Emulated,
    tenant: TenantId,
    connection: ConnectionId,
}

/// What lies on the emulator.
struct Emulated {
    sqs: aws_sdk_sqs::Client,
    queue_url: String,
    dead_letter_url: String,
    dead_letter_arn: String,
    kms_key: String,
    bucket: String,
    group: String,
}

/// One play of a scenario.
struct Play<'a> {
    world: &'a World,
    scenario: &'a Scenario,
    workflow: WorkflowId,
    queue: SqsQueue,
    /// Stands still where an hour has to go by.
    clock: Clock,
    webhooks: Option<Process<Router>>,
    worker: Option<Process<tidegate_worker::Deps>>,
    log: Log,
    tally: Tally,
    runs: Vec<RunId>,
    /// Runs that don't count.
    warm_ups: Vec<String>,
    /// Requests that the embedded database got, by its own count.
    metered: u64,
    processes: u32,
}

struct Process<T> {
    function: T,
    warmed: Instant,
}

/// The functions' logs, of which only the size counts.
struct Log {
    webhooks: Dispatch,
    worker: Dispatch,
    bytes: Arc<AtomicU64>,
}

struct Count(Arc<AtomicU64>);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl World {
    /// Makes what a deployment has, and a tenant with a connection.
    ///
    /// # Errors
    /// The emulator fails.
    pub(crate) async fn new() -> anyhow::Result<Self> {
        let aws = Emulated::new().await.context("set up the emulator")?;
        let clock = Clock::system();
        let store = embedded::open_memory(clock.clone(), Faults::default()).await?;
        let ids = Ids::new(clock.clone());
        let (tenant, connection) = (ids.tenant(), ids.connection());
        let world = Self { store, target: Target::start()?, aws, tenant, connection };
        world.make_tenant(&ids, &clock).await.context("make a tenant")?;
        Ok(world)
    }

    async fn make_tenant(&self, ids: &Ids, clock: &Clock) -> anyhow::Result<()> {
        let envelope = self.envelope(clock);
        let context = KeyContext::connections(self.tenant);
        let data_key = envelope.new_data_key(&context).await?;
        let secret = json!({"token": "0123456789abcdef0123456789abcdef"}).to_string();
        let token = SecretText::read("Bearer {{ secret.token }}", |_| None)?;
        let associated = self.connection.to_string();
        let connection = Connection {
            id: self.connection,
            tenant: self.tenant,
            name: "Orders".to_owned(),
            connector: "http".to_owned(),
            publisher: Publisher::Builtin,
            auth: "bearer".to_owned(),
            settings: Map::new(),
            hosts: vec![self.target.authority()],
            placement: Placement {
                headers: vec![("authorization".to_owned(), Placed::Text(token))],
                ..Placement::default()
            },
            oauth: None,
            // As after its first use.
            health: Health { status: HealthStatus::Ok, ..Health::default() },
            data_key: 1,
            sealed: envelope.seal(&data_key, &context, associated.as_bytes(), secret.as_bytes()).await?,
            created_by: None,
            created_at: clock.now(),
        };
        let mut account = Account::new(ids, "owner@example.com");
        (account.tenant.id, account.owner.tenant) = (self.tenant, self.tenant);
        account.tenant.data_keys[0].wrapped = data_key;
        self.store.store.accounts().create(account.new_account()).await?;
        self.store.store.connections().create(&connection).await?;
        Ok(())
    }

    fn database_requests(&self) -> u64 {
        self.store.meter.all_calls().values().sum()
    }

    fn envelope(&self, clock: &Clock) -> Envelope {
        Envelope::new(Arc::new(Kms::new(&emulator::sdk_config(), &self.aws.kms_key)), clock.clone())
    }

    /// Plays a scenario with at least so many runs and tells what they asked for.
    ///
    /// # Errors
    /// A run doesn't end as it should.
    pub(crate) async fn play(&self, scenario: &Scenario, runs: u32) -> anyhow::Result<Tally> {
        let runs = runs.next_multiple_of(scenario.batch);
        let clock = match scenario.first_answer {
            FirstAnswer::UnavailableForAnHour => Clock::manual(Clock::system().now()),
            FirstAnswer::Good | FirstAnswer::Unavailable => Clock::system(),
        };
        let workflow = self.make_workflow(scenario, &clock).await.context("make the workflow")?;
        let mut play = Play {
            world: self,
            scenario,
            workflow,
            queue: self.aws.queue(),
            clock,
            webhooks: None,
            worker: None,
            log: Log::new()?,
            tally: Tally { runs, ..Tally::default() },
            runs: Vec::new(),
            warm_ups: Vec::new(),
            metered: 0,
            processes: 0,
        };
        let calls = self.target.calls();
        let warm_up_calls = play.all(runs).await?;
        let expected = play.calls_per_run() * u64::from(runs) + warm_up_calls;
        let made = self.target.calls() - calls;
        ensure!(made == expected, "the steps were to call {expected} times, but did {made} times");
        // A count that misses what a function does would keep to every budget.
        let (counted, metered) = (play.tally.calls_to("DynamoDB"), play.metered);
        ensure!(counted == metered, "{counted} requests to DynamoDB were counted, but it got {metered}");
        Ok(play.tally)
    }

    async fn make_workflow(&self, scenario: &Scenario, clock: &Clock) -> anyhow::Result<WorkflowId> {
        let (trigger, json) = match scenario.trigger {
            Trigger::Webhook { .. } => (
                json!({"type": "webhook"}),
                json!({"id": "{{ order.id }}", "text": "Hello {{user.name}}! Order #{{order.id}} confirmed."}),
            ),
            Trigger::Schedule => {
                (json!({"type": "schedule", "every": "10m"}), json!({"text": "It is {{ scheduled_time }}."}))
            }
        };
        let step = |number| {
            let url = self.target.url(scenario.first_answer);
            let mut step = json!({
                "id": format!("call_{number}"),
                "uses": "http.request",
                "with": {"method": "POST", "url": url, "json": json},
                "retry": {"max_attempts": 3, "initial_delay_ms": 1},
            });
            if scenario.connection {
                step["connection"] = json!(self.connection);
            }
            step
        };
        let steps: Vec<Value> = (0..scenario.steps).map(step).collect();
        let document = json!({"name": "Bench", "trigger": trigger, "steps": steps, "execution_timeout": 86_400});
        let definition = Definition::parse(&document).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
        let workflow = Workflow {
            connections: Vec::new(),
            verification: None,
            listening_until: None,
            id: Ids::new(clock.clone()).workflow(),
            tenant: self.tenant,
            name: definition.name.clone(),
            active: true,
            version: 1,
            revision: 1,
            trigger: definition.trigger.clone(),
            created_at: clock.now(),
            updated_at: clock.now(),
        };
        self.store.store.workflows().create(&workflow, &definition).await?;
        Ok(workflow.id)
    }
}

impl Play<'_> {
    /// Plays the runs to their end; how many calls were made to warm up.
    async fn all(&mut self, runs: u32) -> anyhow::Result<u64> {
        let mut warm_ups = 0;
        for run in 0..runs {
            match self.scenario.trigger {
                Trigger::Webhook { body_bytes } => self.post(&body(run, body_bytes)).await?,
                Trigger::Schedule => self.fire_schedule(run).await?,
            }
            // Where runs are alone, each is done before the next one comes.
            if self.scenario.batch == 1 {
                warm_ups += self.work(1).await?;
            }
        }
        while self.tally.worker.count * u64::from(self.scenario.batch) < u64::from(runs) {
            warm_ups += self.work(self.scenario.batch).await?;
        }
        if self.scenario.first_answer == FirstAnswer::UnavailableForAnHour {
            self.check(RunStatus::Waiting).await?;
            self.clock.advance(HOUR);
            for run_id in self.runs.clone() {
                // An hour later no cache is warm.
                self.worker = None;
                self.fire(&Message::Wake(WakeMessage { run_id, tenant_id: self.world.tenant, wake: 1 })).await?;
                warm_ups += self.work(1).await?;
            }
        }
        self.check(RunStatus::Succeeded).await?;
        self.tally.log_bytes = self.log.bytes.load(Ordering::Relaxed);
        Ok(warm_ups)
    }

    fn calls_per_run(&self) -> u64 {
        u64::from(self.scenario.steps) + u64::from(self.scenario.first_answer != FirstAnswer::Good)
    }

    /// A request through the HTTP API to the webhooks function.
    async fn post(&mut self, body: &str) -> anyhow::Result<()> {
        if self.needs_start(self.webhooks.as_ref().map(|process| process.warmed)) {
            let router = self.start_webhooks();
            if self.scenario.warm {
                // Neither its log lines nor its message must be counted among the others.
                let log = self.log.bytes.load(Ordering::Relaxed);
                let run = self.send(&router, body).await?;
                self.warm_ups.push(run.to_string());
                self.log.bytes.store(log, Ordering::Relaxed);
            } else {
                self.tally.webhooks.cold_starts += 1;
            }
            self.webhooks = Some(Process { function: router, warmed: Instant::now() });
        }
        let router = self.webhooks.as_ref().context("it was just started")?.function.clone();
        let (before, metered) = (thread_cpu()?, self.world.database_requests());
        let (run, used) = usage::scope(self.send(&router, body)).await;
        self.tally.webhooks.cpu += thread_cpu()? - before;
        self.metered += self.world.database_requests() - metered;
        self.tally.webhooks.count += 1;
        for ((service, _), count) in &used.calls {
            *self.tally.webhooks.waits.entry(service.clone()).or_default() += *count as f64;
        }
        self.tally.add(&used);
        self.runs.push(run?);
        Ok(())
    }

    async fn send(&self, router: &Router, body: &str) -> anyhow::Result<RunId> {
        let request = Request::post(format!("/api/webhooks/{}", self.workflow))
            .header("content-type", "application/json")
            .header("content-length", body.len())
            .body(Body::from(body.to_owned()))?;
        let answered = router.clone().oneshot(request).with_subscriber(self.log.webhooks.clone()).await;
        let (parts, body) = answered?.into_parts();
        let body = body.collect().await?.to_bytes();
        ensure!(parts.status == StatusCode::OK, "the webhook answered {}: {body:?}", parts.status);
        let answer: Value = serde_json::from_slice(&body)?;
        answer["run_id"].as_str().context("no run was accepted")?.parse().map_err(|error| anyhow::anyhow!("{error:?}"))
    }

    /// A firing of the workflow's schedule.
    async fn fire_schedule(&mut self, number: u32) -> anyhow::Result<()> {
        let at = self.clock.now().checked_add(Duration::from_secs(600 * u64::from(number)))?;
        let scheduled_time = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let firing = ScheduleMessage { tenant_id: self.world.tenant, workflow_id: self.workflow, scheduled_time };
        self.fire(&Message::Schedule(firing)).await
    }

    /// What EventBridge Scheduler does when a timer is due: it sends the message.
    async fn fire(&mut self, message: &Message) -> anyhow::Result<()> {
        let body = serde_json::to_string(message)?;
        self.queue.send(OutgoingMessage::new(self.world.tenant, body)).await?;
        self.tally.firings += 1;
        self.tally.add_call("SQS", "SendMessage");
        Ok(())
    }

    /// Takes a batch as Lambda's mapping does, hands it to the worker and deletes it; how many calls were made to warm
    /// up.
    async fn work(&mut self, batch: u32) -> anyhow::Result<u64> {
        let messages = self.receive(usize::try_from(batch)?).await?;
        let bytes: usize = messages.iter().map(|message| message.body.len()).sum();
        for message in &messages {
            self.tally.add_sqs_bytes(message.body.len());
        }
        self.tally.add_sqs_bytes(bytes);
        self.tally.add_call("SQS", "ReceiveMessage");

        let mut warm_up_calls = 0;
        if self.needs_start(self.worker.as_ref().map(|process| process.warmed)) {
            let deps = self.start_worker();
            let calls = self.world.target.calls();
            if self.scenario.warm {
                self.warm_up(&deps, &messages[0]).await?;
            } else {
                self.tally.worker.cold_starts += 1;
            }
            warm_up_calls = self.world.target.calls() - calls;
            self.worker = Some(Process { function: deps, warmed: Instant::now() });
        }
        let deps = self.worker.as_ref().context("it was just started")?.function.clone();
        let (count, calls) = (messages.len() as f64, self.world.target.calls());
        let receipts: Vec<Receipt> = messages.iter().map(|message| message.receipt.clone()).collect();
        let (before, metered) = (thread_cpu()?, self.world.database_requests());
        let handled = handle_batch(&deps, Source::Runs, messages, WORKER_TIMEOUT, SHARE);
        let (again, used) = usage::scope(handled.with_subscriber(self.log.worker.clone())).await;
        self.tally.worker.cpu += thread_cpu()? - before;
        self.metered += self.world.database_requests() - metered;
        ensure!(again.is_empty(), "{} messages of a batch are to come again", again.len());
        self.tally.worker.count += 1;
        for ((service, _), calls) in &used.calls {
            *self.tally.worker.waits.entry(service.clone()).or_default() += *calls as f64 / count;
        }
        self.tally.worker.step_waits += (self.world.target.calls() - calls) as f64 / count;
        self.tally.add(&used);

        self.delete(&receipts).await?;
        self.tally.add_call("SQS", "DeleteMessageBatch");
        Ok(warm_up_calls)
    }

    /// Receives a whole batch: a queue with that many messages may give fewer at a time.
    async fn receive(&self, count: usize) -> anyhow::Result<Vec<ReceivedMessage>> {
        let mut messages = Vec::new();
        while messages.len() < count {
            let received = self.queue.receive(count - messages.len(), Duration::from_secs(5)).await?;
            if received.is_empty() {
                bail!("{} messages were to come, but only {} did", count, messages.len());
            }
            for message in received {
                if self.warm_ups.iter().any(|run| message.body.contains(run)) {
                    self.queue.delete(&message.receipt).await?;
                } else {
                    messages.push(message);
                }
            }
        }
        Ok(messages)
    }

    async fn delete(&self, receipts: &[Receipt]) -> anyhow::Result<()> {
        let entry = |(number, receipt): (usize, &Receipt)| {
            DeleteMessageBatchRequestEntry::builder().id(number.to_string()).receipt_handle(&receipt.0).build()
        };
        let entries: Result<Vec<_>, _> = receipts.iter().enumerate().map(entry).collect();
        let request = self.world.aws.sqs.delete_message_batch().queue_url(&self.world.aws.queue_url);
        let deleted = request.set_entries(Some(entries?)).send().await?;
        ensure!(deleted.failed.is_empty(), "{} messages can't be deleted", deleted.failed.len());
        Ok(())
    }

    /// Fills the caches by a run of its own, like the one that this message starts; does nothing where it only wakes
    /// one.
    async fn warm_up(&self, deps: &tidegate_worker::Deps, like: &ReceivedMessage) -> anyhow::Result<()> {
        let Message::Start(mut start) = serde_json::from_str(&like.body)? else {
            return Ok(());
        };
        start.run_id = Ids::new(self.clock.clone()).run(self.world.tenant);
        // Where the body is in a blob, the run that it belongs to still needs it.
        start.trigger.body = Payload::Inline(serde_json::from_str(&body(0, 150))?);
        let message = ReceivedMessage {
            body: serde_json::to_string(&Message::Start(start))?,
            receive_count: 1,
            receipt: Receipt("warm-up".to_owned()),
        };
        let again = handle_batch(deps, Source::Runs, vec![message], WORKER_TIMEOUT, SHARE).await;
        ensure!(again.is_empty(), "the run to warm up was not handled");
        Ok(())
    }

    /// Whether a process has to be started: none runs, its caches get old, or every run is to find a new one.
    fn needs_start(&self, warmed: Option<Instant>) -> bool {
        !self.scenario.warm || warmed.is_none_or(|warmed| warmed.elapsed() > WARM)
    }

    fn start_webhooks(&self) -> Router {
        let store = self.world.store.store.clone();
        let (clock, ids) = (self.clock.clone(), Ids::new(self.clock.clone()));
        let (queue, blobs) = (Arc::new(self.world.aws.queue()), Arc::new(self.world.aws.blobs()));
        let limiter = RateLimiter::new(store.clone(), clock.clone(), Limits::default());
        let envelope = self.world.envelope(&self.clock);
        let deps = tidegate_webhooks::Deps {
            store,
            queue,
            blobs,
            envelope,
            limiter,
            clock,
            ids: ids.clone(),
            public_url: None,
        };
        tidegate_webhooks::api(deps).into_router(ids)
    }

    fn start_worker(&mut self) -> tidegate_worker::Deps {
        self.processes += 1;
        let allow = "127.0.0.1/32".parse().into_iter().collect();
        let settings = EgressSettings { allow, ..EgressSettings::default() };
        tidegate_worker::Deps::new(
            self.world.store.store.clone(),
            Arc::new(self.world.aws.queue()),
            Arc::new(self.world.aws.scheduler(&self.clock)),
            Arc::new(self.world.aws.blobs()),
            Egress::new(settings, self.world.envelope(&self.clock)),
            self.world.envelope(&self.clock),
            self.clock.clone(),
            Settings::new(format!("bench-{}", self.processes), false),
        )
    }

    async fn check(&self, expected: RunStatus) -> anyhow::Result<()> {
        for run in &self.runs {
            let stored = self.world.store.store.runs().get(self.world.tenant, *run).await?;
            let row = stored.with_context(|| format!("{run} has no row"))?.row;
            ensure!(row.status == expected, "{run} is {:?}, not {expected:?}: {:?}", row.status, row.error);
        }
        Ok(())
    }
}

impl Log {
    fn new() -> anyhow::Result<Self> {
        let bytes = Arc::<AtomicU64>::default();
        let dispatch = |service| {
            let writer = Count(Arc::clone(&bytes));
            let log = tidegate_telemetry::subscriber(service, "info".parse()?, Clock::system(), writer);
            anyhow::Ok(Dispatch::new(log))
        };
        Ok(Self { webhooks: dispatch("webhooks")?, worker: dispatch("worker")?, bytes })
    }
}

impl Emulated {
    async fn new() -> anyhow::Result<Self> {
        let config = emulator::sdk_config();
        let name = format!("bench-{}", Ids::new(Clock::system()).workflow()).replace('_', "-").to_lowercase();
        let sqs = aws_sdk_sqs::Client::new(&config);
        let queue = async |name: &str| -> anyhow::Result<String> {
            let made = sqs.create_queue().queue_name(name).send().await?;
            made.queue_url.context("a queue without a URL")
        };
        let dead = format!("{name}-dead");
        let (queue_url, dead_letter_url) = (queue(&name).await?, queue(&dead).await?);
        let kms = aws_sdk_kms::Client::new(&config).create_key().send().await?;
        let buckets = aws_sdk_s3::config::Builder::from(&config).force_path_style(true).build();
        aws_sdk_s3::Client::from_conf(buckets).create_bucket().bucket(&name).send().await?;
        aws_sdk_scheduler::Client::new(&config).create_schedule_group().name(&name).send().await?;
        Ok(Self {
            sqs,
            queue_url,
            dead_letter_url,
            dead_letter_arn: format!("arn:aws:sqs:{}:{}:{dead}", emulator::REGION, emulator::ACCOUNT),
            kms_key: kms.key_metadata.context("a key without metadata")?.key_id,
            bucket: name.clone(),
            group: name,
        })
    }

    fn queue(&self) -> SqsQueue {
        SqsQueue::new(&emulator::sdk_config(), &self.queue_url).with_dead_letters(&self.dead_letter_url)
    }

    fn blobs(&self) -> S3Blobs {
        S3Blobs::new(&emulator::sdk_config(), Addressing::Path, &self.bucket)
    }

    fn scheduler(&self, clock: &Clock) -> EventBridgeScheduler {
        let settings = EventBridgeSettings {
            group: self.group.clone(),
            role_arn: format!("arn:aws:iam::{}:role/schedules", emulator::ACCOUNT),
            queue_url: self.queue_url.clone(),
            dead_letter_arn: self.dead_letter_arn.clone(),
        };
        EventBridgeScheduler::new(&emulator::sdk_config(), settings, clock.clone())
    }
}

/// A webhook's body of about so many bytes.
fn body(number: u32, bytes: usize) -> String {
    let mut order = json!({
        "user": {"name": "Alex", "email": "alex@example.com"},
        "order": {"id": format!("{number}"), "total": 99.5, "currency": "EUR"},
    });
    let left = bytes.saturating_sub(order.to_string().len() + r#","note":"""#.len());
    order["note"] = json!("x".repeat(left));
    order.to_string()
}

/// Processor time of this thread up to now (`/proc/thread-self/schedstat`, proc(5)): the functions' own work and the
/// SDK's, but not the embedded database's, which has threads of its own.
fn thread_cpu() -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").context("read this thread's CPU time")?;
    let nanoseconds = text.split_whitespace().next().context("schedstat is empty")?.parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_the_size_asked_for() {
        assert_eq!(body(7, 150).len(), 150);
        assert_eq!(body(99, 20_000).len(), 20_000);
    }

    #[test]
    fn this_threads_cpu_time_goes_up_with_its_work() {
        let before = thread_cpu().unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        assert!(thread_cpu().unwrap() > before);
    }
}
