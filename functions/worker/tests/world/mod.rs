//! A whole world for a worker: embedded store and queue in memory, a clock that stands still, a target that records its
//! calls, and a way to let the worker die between any two of its writes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tidegate_egress::{Egress, EgressSettings};
use tidegate_model::{
    Definition, Message, Payload, Placed, Placement, Recurrence, RunId, RunRow, RunStatus, SecretText, StartMessage,
    TenantId, TriggerInput, TriggerKind, WakeMessage, Workflow, WorkflowId,
};
use tidegate_platform::blobs::UploadLink;
use tidegate_platform::blobs::folder::FolderBlobs;
use tidegate_platform::key_service::KeyContext;
use tidegate_platform::key_service::key_file::KeyFile;
use tidegate_platform::queue::{EmbeddedQueue, EmbeddedSettings, OutgoingMessage, Queue, Receipt, ReceivedMessage};
use tidegate_platform::scheduler::{Scheduler, Timer, TimerPage, When};
use tidegate_platform::{Blobs, Clock, Envelope, Ids, PortError};
use tidegate_store::embedded::{self, Embedded, Faults, Location};
use tidegate_store::{Store, StoredRun};
use tidegate_testing::{Account, policy};
use tidegate_worker::{Deps, Settings, Source, Verdict};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

pub(crate) const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
pub(crate) const BEGINNING: &str = "2026-11-21T10:00:00Z";
/// How long a received message stays invisible: the worker's timeout and 30 s, as in the template.
pub(crate) const VISIBILITY: Duration = Duration::from_secs(330);
const QUEUE: EmbeddedSettings = EmbeddedSettings { visibility_timeout: VISIBILITY, max_receive_count: 25 };

pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) ids: Ids,
    pub(crate) tenant: TenantId,
    pub(crate) store: Store,
    pub(crate) queue: Arc<EmbeddedQueue>,
    pub(crate) blobs: Arc<FolderBlobs>,
    pub(crate) target: MockServer,
    pub(crate) life: Life,
    pub(crate) envelope: Envelope,
    embedded: Embedded,
    /// One for all workers: making one reads every root certificate.
    egress: Egress,
    _folder: Option<tempfile::TempDir>,
}

/// How many more writes the worker makes before it dies.
#[derive(Clone)]
pub(crate) struct Life {
    writes: Arc<AtomicI64>,
    pub(crate) faults: Faults,
}

impl Life {
    pub(crate) fn dies_after(&self, writes: u32) {
        self.writes.store(i64::from(writes), Ordering::SeqCst);
        self.faults.dies_with(Arc::clone(&self.writes));
    }

    pub(crate) fn revive(&self) {
        self.writes.store(i64::MAX, Ordering::SeqCst);
        self.faults.clear();
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.writes.load(Ordering::SeqCst) <= 0
    }

    fn write(&self) -> Result<(), PortError> {
        if self.writes.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Err(PortError::new("write", "the worker is dead"));
        }
        Ok(())
    }
}

/// Where the secret of a connection goes that holds a bearer token.
pub(crate) fn bearer_placement() -> Placement {
    let token = SecretText::read("Bearer {{ secret.token }}", |_| None).unwrap();
    Placement { headers: vec![("authorization".to_owned(), Placed::Text(token))], ..Placement::default() }
}

impl World {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(BEGINNING.parse().unwrap());
        let faults = Faults::default();
        let embedded = embedded::open(Location::Memory, faults.clone()).await.unwrap();
        let queue = EmbeddedQueue::in_memory(QUEUE, clock.clone()).unwrap();
        let world = Self::over(folder.path(), clock, embedded, faults, queue).await;
        Self { _folder: Some(folder), ..world }
    }

    /// A world that outlasts this process: store and queue lie in the folder too.
    pub(crate) async fn in_folder(folder: &Path, now: Timestamp) -> Self {
        let clock = Clock::manual(now);
        let faults = Faults::default();
        let embedded = embedded::open(Location::Folder(folder), faults.clone()).await.unwrap();
        let queue = EmbeddedQueue::open(&folder.join("queue.db"), QUEUE, clock.clone()).unwrap();
        Self::over(folder, clock, embedded, faults, queue).await
    }

    async fn over(folder: &Path, clock: Clock, embedded: Embedded, faults: Faults, queue: EmbeddedQueue) -> Self {
        let ids = Ids::seeded(clock.clone(), 1);
        let keys = KeyFile::open_or_create(&folder.join("master.key")).unwrap();
        let envelope = Envelope::new(Arc::new(keys), clock.clone());
        let allow = vec!["127.0.0.1/32".parse().unwrap()];
        let egress = Egress::new(EgressSettings { allow, ..EgressSettings::default() }, envelope.clone());
        let world = Self {
            tenant: ids.tenant(),
            store: embedded.store.clone(),
            queue: Arc::new(queue),
            blobs: Arc::new(FolderBlobs::open(&folder.join("blobs"), clock.clone()).unwrap()),
            target: MockServer::start().await,
            life: Life { writes: Arc::new(AtomicI64::new(i64::MAX)), faults },
            envelope,
            egress,
            embedded,
            clock,
            ids,
            _folder: None,
        };
        world.answers(ResponseTemplate::new(200).set_body_json(json!({"ok": true}))).await;
        world
    }

    /// A worker in a process of its own, the only one alive.
    pub(crate) fn worker(&self, process: &str) -> Deps {
        let settings =
            Settings { in_place: Duration::ZERO, insistence: Duration::ZERO, ..Settings::new(process, true) };
        self.worker_with(settings)
    }

    pub(crate) fn worker_with(&self, settings: Settings) -> Deps {
        Deps::new(
            self.embedded.guarded(policy::guard("worker")),
            Arc::new(Mortal { port: Arc::clone(&self.queue), life: self.life.clone() }),
            Arc::new(Mortal { port: Arc::new(self.queue.scheduler()), life: self.life.clone() }),
            Arc::new(Mortal { port: Arc::clone(&self.blobs), life: self.life.clone() }),
            self.egress.clone(),
            self.envelope.clone(),
            self.clock.clone(),
            settings,
        )
    }

    /// From now on the target answers like this.
    pub(crate) async fn answers(&self, answer: ResponseTemplate) {
        self.target.reset().await;
        Mock::given(any()).respond_with(answer).mount(&self.target).await;
    }

    /// The target's calls: each one's path and idempotency key.
    pub(crate) async fn calls(&self) -> Vec<(String, String)> {
        let requests = self.target.received_requests().await.unwrap();
        requests
            .iter()
            .map(|request| {
                let key = request.headers.get("idempotency-key").map_or("", |key| key.to_str().unwrap());
                (request.url.path().to_owned(), key.to_owned())
            })
            .collect()
    }

    /// Stores a workflow whose steps POST to `/a`, `/b`, … of the target; `change` may alter the definition.
    pub(crate) async fn workflow(&self, steps: usize, change: impl FnOnce(&mut Value)) -> WorkflowId {
        let steps: Vec<Value> = ["a", "b", "c", "d"][..steps]
            .iter()
            .map(|id| {
                let url = format!("{}/{id}", self.target.uri());
                json!({"id": id, "uses": "http.request", "with": {"method": "POST", "url": url, "json": {"n": "{{ n }}"}}})
            })
            .collect();
        let mut document = json!({"name": "test", "trigger": {"type": "webhook"}, "steps": steps});
        change(&mut document);
        let definition = Definition::parse(&document).unwrap();
        let now = self.clock.now();
        let workflow = Workflow {
            id: self.ids.workflow(),
            tenant: self.tenant,
            name: definition.name.clone(),
            active: true,
            version: 1,
            revision: 1,
            connections: Vec::new(),
            verification: None,
            listening_until: None,
            trigger: definition.trigger.clone(),
            created_at: now,
            updated_at: now,
        };
        self.store.workflows().create(&workflow, &definition).await.unwrap();
        workflow.id
    }

    /// Stores the tenant; without it no connection can be opened.
    pub(crate) async fn make_tenant(&self) {
        let context = KeyContext::connections(self.tenant);
        let mut account = Account::new(&self.ids, "owner@example.com");
        (account.tenant.id, account.owner.tenant) = (self.tenant, self.tenant);
        account.tenant.data_keys[0].wrapped = self.envelope.new_data_key(&context).await.unwrap();
        self.store.accounts().create(account.new_account()).await.unwrap();
    }

    pub(crate) fn start(&self, workflow: WorkflowId) -> StartMessage {
        StartMessage {
            run_id: self.ids.run(self.tenant),
            tenant_id: self.tenant,
            workflow_id: workflow,
            version: 1,
            trigger: TriggerInput {
                kind: TriggerKind::Webhook,
                content_type: Some("application/json".to_owned()),
                request: None,
                body: Payload::Inline(json!({"n": 1})),
                parameters: Map::new(),
            },
            accepted_at: self.clock.now(),
            traceparent: TRACEPARENT.to_owned(),
            parent: None,
        }
    }

    /// A row of the run that this message starts, in the given state and held by another process.
    pub(crate) fn row(&self, start: &StartMessage, status: RunStatus) -> RunRow {
        RunRow {
            id: start.run_id,
            tenant: start.tenant_id,
            workflow: start.workflow_id,
            version: start.version,
            trigger: TriggerKind::Webhook,
            status,
            accepted_at: start.accepted_at,
            started_at: self.clock.now(),
            finished_at: status.is_final().then(|| self.clock.now()),
            fence: 1,
            lease_until: self.clock.now().checked_add(Duration::from_secs(100)).unwrap(),
            lease_owner: "another/0".to_owned(),
            claims: 1,
            journal_length: 0,
            wake: 0,
            wake_at: None,
            traceparent: TRACEPARENT.to_owned(),
            error: None,
            failed_step: None,
            cancel_requested: false,
            parent: None,
        }
    }

    pub(crate) async fn stored(&self, run: RunId) -> Option<StoredRun> {
        self.store.runs().get(self.tenant, run).await.unwrap()
    }

    pub(crate) async fn status(&self, run: RunId) -> Option<RunStatus> {
        self.stored(run).await.map(|stored| stored.row.status)
    }

    pub(crate) async fn send(&self, message: &Message) {
        let body = serde_json::to_string(message).unwrap();
        self.queue.send(OutgoingMessage::new(self.tenant, body)).await.unwrap();
    }

    /// Handles the visible messages with this worker, until there are none or it dies. A worker that dies settles
    /// nothing: its messages come again when the queue is told that it is dead. Tells whether it died.
    pub(crate) async fn work(&self, deps: &Deps) -> bool {
        loop {
            let messages = self.queue.receive(1, Duration::ZERO).await.unwrap();
            let Some(message) = messages.first() else { return false };
            let verdict = handle(deps, message, Source::Runs).await;
            if self.life.is_dead() {
                self.life.revive();
                self.queue.change_visibility(&message.receipt, Duration::ZERO).await.unwrap();
                return true;
            }
            match verdict {
                Verdict::Delete => self.queue.delete(&message.receipt).await.unwrap(),
                Verdict::Keep { visible_in } => {
                    self.queue.change_visibility(&message.receipt, visible_in).await.unwrap();
                }
            }
        }
    }

    /// Works until nothing is left, moving the clock past delays.
    pub(crate) async fn work_to_the_end(&self, deps: &Deps) {
        for _ in 0..1_000 {
            assert!(!self.work(deps).await, "this one lives");
            let depth = self.queue.depth().await.unwrap();
            if depth.visible + depth.delayed + depth.in_flight == 0 {
                return;
            }
            self.clock.advance(Duration::from_secs(60));
        }
        panic!("the queue never empties: {:?}", self.queue.depth().await);
    }

    /// How many calls the database got, by what they do.
    pub(crate) fn store_calls(&self) -> BTreeMap<String, u64> {
        self.embedded.meter.all_calls()
    }
}

pub(crate) fn message(body: &Message) -> ReceivedMessage {
    ReceivedMessage {
        body: serde_json::to_string(body).unwrap(),
        receive_count: 1,
        receipt: Receipt("none".to_owned()),
    }
}

pub(crate) fn wake(row: &RunRow, wake: u32) -> Message {
    Message::Wake(WakeMessage { run_id: row.id, tenant_id: row.tenant, wake })
}

/// Each minute from a minute on.
pub(crate) fn every_minute(world: &World) -> When {
    let first = world.clock.now().checked_add(Duration::from_secs(60)).unwrap();
    When::Recurring(Box::new(Recurrence::every("1m".parse().unwrap(), first)))
}

pub(crate) fn seconds_until(at: Timestamp, clock: &Clock) -> i64 {
    at.as_second() - clock.now().as_second()
}

/// A port whose writes fail once the worker is dead.
struct Mortal<P> {
    port: Arc<P>,
    life: Life,
}

#[async_trait]
impl<P: Queue> Queue for Mortal<P> {
    async fn send(&self, message: OutgoingMessage) -> Result<(), PortError> {
        self.life.write()?;
        self.port.send(message).await
    }

    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<ReceivedMessage>, PortError> {
        self.port.receive(max, wait).await
    }

    async fn delete(&self, receipt: &Receipt) -> Result<(), PortError> {
        self.port.delete(receipt).await
    }

    async fn change_visibility(&self, receipt: &Receipt, visible_in: Duration) -> Result<(), PortError> {
        self.port.change_visibility(receipt, visible_in).await
    }

    async fn redrive(&self, max: usize) -> Result<usize, PortError> {
        self.port.redrive(max).await
    }

    fn dead_letters(&self) -> Option<&dyn Queue> {
        self.port.dead_letters()
    }
}

#[async_trait]
impl<P: Scheduler> Scheduler for Mortal<P> {
    async fn put(&self, timer: Timer) -> Result<(), PortError> {
        self.life.write()?;
        self.port.put(timer).await
    }

    async fn delete(&self, tenant: TenantId, name: &str) -> Result<(), PortError> {
        self.life.write()?;
        self.port.delete(tenant, name).await
    }

    async fn list(&self, cursor: Option<&str>) -> Result<TimerPage, PortError> {
        self.port.list(cursor).await
    }
}

#[async_trait]
impl<P: Blobs> Blobs for Mortal<P> {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), PortError> {
        self.life.write()?;
        self.port.put(key, bytes).await
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, PortError> {
        self.port.get(key).await
    }

    async fn get_up_to(&self, key: &str, max_bytes: u64) -> Result<Option<Bytes>, PortError> {
        self.port.get_up_to(key, max_bytes).await
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, PortError> {
        self.port.size(key).await
    }

    async fn link(&self, key: &str, expires_in: Duration, filename: &str) -> Result<String, PortError> {
        self.port.link(key, expires_in, filename).await
    }

    async fn upload_link(
        &self,
        key: &str,
        expires_in: Duration,
        bytes: u64,
        content_type: &str,
    ) -> Result<UploadLink, PortError> {
        self.port.upload_link(key, expires_in, bytes, content_type).await
    }

    async fn copy(&self, from: &str, to: &str) -> Result<bool, PortError> {
        self.life.write()?;
        self.port.copy(from, to).await
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), PortError> {
        self.life.write()?;
        self.port.rename(from, to).await
    }

    async fn delete(&self, key: &str) -> Result<(), PortError> {
        self.life.write()?;
        self.port.delete(key).await
    }
}

/// Handles a message as a worker does that has its whole time for it.
pub(crate) async fn handle(deps: &Deps, message: &ReceivedMessage, source: Source) -> Verdict {
    tidegate_worker::handle(deps, message, source, deps.settings.worker_timeout).await
}
