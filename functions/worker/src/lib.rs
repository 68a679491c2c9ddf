//! Consumes the run queue and executes runs; consumes its dead letters. What it does with a message is the table of
//! `docs/adr/0001-messages-and-rows.md`: [`table`](self) looks at the run's row and claims it, `execution` drives the
//! engine and keeps the journal, `calls` makes the calls, `waits` begins what a run then waits for, `ending` does what follows
//! from its end, `values` keeps what is too large for rows, `wake` arms timers, `reconcile` removes those that were left behind.
//!
//! Who takes messages from the queue and deletes them is not its business: on AWS Lambda's event source mapping does so
//! and hands them over as a `batch`, on a laptop `local` does.

mod batch;
mod calls;
mod ending;
mod execution;
mod reconcile;
mod table;
mod values;
mod waits;
mod wake;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt;
use jiff::Timestamp;
use tidegate_connections::Connections;
use tidegate_egress::Egress;
use tidegate_model::RunRow;
use tidegate_platform::envelope::EnvelopeError;
use tidegate_platform::queue::ReceivedMessage;
use tidegate_platform::{Blobs, Clock, Envelope, PortError, Queue, Scheduler};
use tidegate_store::Store;
use tidegate_telemetry::Metrics;

use crate::calls::Caches;

pub use batch::handle_batch;

/// What a worker may use.
#[derive(Clone)]
pub struct Deps {
    /// Runs and journals: read and write; workflows and tenants: read.
    pub store: Store,
    /// The run queue: sends wake messages.
    pub queue: Arc<dyn Queue>,
    /// Arms wake timers beyond the queue's longest delay; lists and removes schedules that were left behind.
    pub scheduler: Arc<dyn Scheduler>,
    /// Inputs, outputs and records too large for a row.
    pub blobs: Arc<dyn Blobs>,
    /// The way out, with tenants' connections and connectors: opens secrets, renews tokens, notes health and targets that are down.
    pub connections: Connections,
    /// Signs the links of approvals, under the data key that opens connections.
    pub envelope: Envelope,
    /// Tells the time.
    pub clock: Clock,
    /// How it works.
    pub settings: Settings,
    /// Collects what became of runs; by default nothing is.
    pub metrics: Metrics,
    caches: Arc<Caches>,
    claims: Arc<AtomicU64>,
}

/// How a worker works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names this process among all that claim runs.
    pub process: String,
    /// Whether no other process works on this data: then leases of other processes are over, for those are dead.
    pub exclusive: bool,
    /// How long one invocation may work: a step whose timeout doesn't fit into it fails. The longest step's timeout and
    /// its margin take 242 s.
    pub worker_timeout: Duration,
    /// The longest delay between two attempts that is waited for in place; longer ones park the run.
    pub in_place: Duration,
    /// How long a write that records what has happened is repeated before the message is given back.
    pub insistence: Duration,
    /// How often a run with a call under way looks whether it was cancelled.
    pub watch: Duration,
    /// How long the others of a batch wait for the last of its runs, which then goes on in a message of its own.
    pub alone_after: Duration,
    /// Where people reach this installation, without a slash at its end: links begin with it.
    pub public_url: String,
}

impl Settings {
    /// Five minutes an invocation, delays up to 2 s in place.
    pub fn new(process: impl Into<String>, exclusive: bool) -> Self {
        Self {
            process: process.into(),
            exclusive,
            worker_timeout: Duration::from_secs(300),
            in_place: Duration::from_secs(2),
            insistence: Duration::from_secs(60),
            watch: Duration::from_secs(2),
            alone_after: Duration::from_secs(20),
            public_url: String::new(),
        }
    }

    /// The same for one of many workers whose invocations have this timeout. An invocation's time is over a little before
    /// its deadline, and some of it is gone before a message's turn comes; so a step may count on less, or one whose
    /// timeout just fits would be put off for ever.
    pub fn on_lambda(process: impl Into<String>, timeout: Duration) -> Self {
        Self { worker_timeout: timeout.saturating_sub(INVOCATION_MARGIN), ..Self::new(process, false) }
    }
}

/// Where a message came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The run queue.
    Runs,
    /// The run queue's dead-letter queue.
    DeadLetters,
}

/// What to do with a handled message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Delete it.
    Delete,
    /// Keep it (on AWS: report it as failed) and make it visible again after this time.
    Keep {
        /// Counted from now.
        visible_in: Duration,
    },
}

/// Why a message could not be handled to its end.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the store failed")]
    Store(#[from] tidegate_store::Error),
    /// As before, told to all who waited for the same read.
    #[error("the store failed")]
    Cached(#[source] Arc<tidegate_store::Error>),
    #[error(transparent)]
    Port(#[from] PortError),
    #[error("the tenant's data key can't be used")]
    Envelope(#[source] EnvelopeError),
    #[error("{0}")]
    Corrupt(String),
    /// Somebody else wrote the run's row or journal: the claim is lost.
    #[error("another worker holds the run")]
    Lost,
}

/// After a failure of the worker itself, when the message is tried again; doubled by each receipt.
const RETRY_AFTER_FAULT: Duration = Duration::from_secs(5);
/// The longest time until it is tried again: 25 receipts then span about five hours of outage.
const MAX_RETRY_AFTER_FAULT: Duration = Duration::from_secs(900);
/// How much less than its invocation's timeout a step may count on.
const INVOCATION_MARGIN: Duration = Duration::from_secs(5);
/// The lease outlasts the invocation by this, for the clocks' difference.
const LEASE_MARGIN: Duration = Duration::from_secs(5);

impl Deps {
    /// Puts a worker together.
    #[expect(clippy::too_many_arguments, reason = "one for each service that the function's policy names")]
    pub fn new(
        store: Store,
        queue: Arc<dyn Queue>,
        scheduler: Arc<dyn Scheduler>,
        blobs: Arc<dyn Blobs>,
        egress: Egress,
        envelope: Envelope,
        clock: Clock,
        settings: Settings,
    ) -> Self {
        let caches = Arc::new(Caches::new());
        let connections = Connections::new(store.clone(), egress, Arc::clone(&blobs), clock.clone());
        Self {
            store,
            queue,
            scheduler,
            blobs,
            connections,
            envelope,
            clock,
            settings,
            metrics: Metrics::default(),
            caches,
            claims: Arc::default(),
        }
    }
}

/// Handles one message, to its end or until `time` is over. A panic fails this message only.
pub async fn handle(deps: &Deps, message: &ReceivedMessage, source: Source, time: Duration) -> Verdict {
    handle_in(deps, message, source, Invocation::begin(deps, time)).await
}

async fn handle_in(deps: &Deps, message: &ReceivedMessage, source: Source, invocation: Invocation) -> Verdict {
    match table::handle(deps, message, source, &invocation).boxed().await {
        Ok(verdict) => verdict,
        Err(Error::Lost) => Verdict::Keep { visible_in: Duration::from_secs(1) },
        Err(error) => {
            tracing::error!(
                component = "worker",
                receive_count = message.receive_count,
                error = &error as &dyn std::error::Error,
                "a message could not be handled and will be tried again"
            );
            Verdict::Keep { visible_in: retry_after_fault(message.receive_count) }
        }
    }
}

fn retry_after_fault(receive_count: u32) -> Duration {
    let doublings = receive_count.saturating_sub(1).min(16);
    RETRY_AFTER_FAULT.saturating_mul(1 << doublings).min(MAX_RETRY_AFTER_FAULT)
}

/// The time that one handling of a message has.
#[derive(Debug)]
struct Invocation {
    deadline: Instant,
    lease_until: Timestamp,
    /// From when on it holds up the others of its batch.
    alone_from: Instant,
    /// How many messages of its batch are not settled; none where it is handled by itself.
    crowd: Option<Arc<AtomicUsize>>,
}

impl Invocation {
    fn begin(deps: &Deps, time: Duration) -> Self {
        Self {
            deadline: Instant::now() + time,
            lease_until: deps.clock.now().checked_add(time + LEASE_MARGIN).unwrap_or(Timestamp::MAX),
            alone_from: Instant::now() + deps.settings.alone_after,
            crowd: None,
        }
    }

    /// One of a batch, of which so many messages are not settled yet.
    fn in_batch(mut self, unsettled: &Arc<AtomicUsize>) -> Self {
        self.crowd = Some(Arc::clone(unsettled));
        self
    }

    /// Whether all others of its batch only wait for this run. It then goes on by a message to itself.
    fn should_yield(&self) -> bool {
        let is_last = self.crowd.as_ref().is_some_and(|unsettled| unsettled.load(Ordering::Relaxed) == 1);
        is_last && Instant::now() >= self.alone_from
    }

    /// By the monotonic clock, and by the clock that leases go by: a machine that slept stops the one, not the other.
    fn remaining(&self, clock: &Clock) -> Duration {
        let of_lease = Duration::try_from(self.lease_until.duration_since(clock.now())).unwrap_or_default();
        self.deadline.saturating_duration_since(Instant::now()).min(of_lease.saturating_sub(LEASE_MARGIN))
    }
}

impl Deps {
    /// A name for one claim of a run; no other claim has it.
    fn lease_owner(&self) -> String {
        format!("{}/{}", self.settings.process, self.claims.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether the claim on a running row is over.
    fn lease_is_over(&self, row: &RunRow) -> bool {
        let of_this_process = row.lease_owner.split('/').next() == Some(self.settings.process.as_str());
        row.lease_until <= self.clock.now() || (self.settings.exclusive && !of_this_process)
    }
}
