//! Workflow heads by id, remembered for at most five seconds; so are ids that no workflow has.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use moka::future::Cache;
use tidegate_http::Problem;
use tidegate_model::{TenantId, Trigger, Workflow, WorkflowId};
use tidegate_platform::Clock;
use tidegate_store::{Error, Store};

/// How stale a head may be: after this time a switched-off workflow accepts nothing more.
pub(crate) const STALE_AFTER: Duration = Duration::from_secs(5);
/// An entry takes about 150 bytes.
const MAX_HEADS: u64 = 50_000;

/// What ingress needs of a workflow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) tenant: TenantId,
    pub(crate) version: u32,
    pub(crate) active: bool,
    pub(crate) is_webhook: bool,
}

impl From<Workflow> for Head {
    fn from(workflow: Workflow) -> Self {
        let is_webhook = matches!(workflow.trigger, Trigger::Webhook {});
        Self { tenant: workflow.tenant, version: workflow.version, active: workflow.active, is_webhook }
    }
}

#[derive(Clone, Copy)]
struct Known {
    head: Option<Head>,
    read_at: Timestamp,
}

/// The cache; clones share it.
#[derive(Clone)]
pub(crate) struct Heads {
    known: Cache<WorkflowId, Known>,
}

impl Heads {
    pub(crate) fn new() -> Self {
        // The cache's own lifetime only frees memory; how old an entry is the clock tells.
        Self { known: Cache::builder().max_capacity(MAX_HEADS).time_to_live(STALE_AFTER).build() }
    }

    /// The workflow's head, at most [`STALE_AFTER`] old. Callers who miss at the same time share one read.
    pub(crate) async fn get(&self, store: &Store, clock: &Clock, id: WorkflowId) -> Result<Option<Head>, Problem> {
        if let Some(known) = self.known.get(&id).await {
            if is_fresh(known.read_at, clock.now()) {
                return Ok(known.head);
            }
            self.known.invalidate(&id).await;
        }
        let read = async {
            // The time before the read, so that the bound counts from when the store was asked.
            let read_at = clock.now();
            let head = store.workflows().get_public(id).await?.map(Head::from);
            Ok(Known { head, read_at })
        };
        let known =
            self.known.try_get_with(id, read).await.map_err(|error: Arc<Error>| Problem::unavailable(&*error))?;
        Ok(known.head)
    }
}

/// A clock that went back makes nothing fresher.
fn is_fresh(read_at: Timestamp, now: Timestamp) -> bool {
    let age = now.duration_since(read_at);
    !age.is_negative() && age.unsigned_abs() < STALE_AFTER
}
