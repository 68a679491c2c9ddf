//! Workflow heads by id, remembered for at most five seconds; so are ids that no workflow has.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tidegate_http::Problem;
use tidegate_model::{SealedVerification, TenantId, Trigger, WebhookTrigger, Workflow, WorkflowId};
use tidegate_platform::{Clock, Fresh};
use tidegate_store::Store;

/// How stale a head may be: after this time a switched-off workflow accepts nothing more.
const STALE_AFTER: Duration = Duration::from_secs(5);
/// An entry takes about 500 bytes, and at most 20 KB.
const MAX_HEADS: u64 = 10_000;

/// What ingress needs of a workflow.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) id: WorkflowId,
    pub(crate) tenant: TenantId,
    pub(crate) version: u32,
    pub(crate) active: bool,
    /// None where it isn't started by a webhook.
    pub(crate) trigger: Option<Arc<WebhookTrigger>>,
    pub(crate) verification: Option<SealedVerification>,
    pub(crate) listening_until: Option<Timestamp>,
}

impl From<Workflow> for Head {
    fn from(workflow: Workflow) -> Self {
        let Workflow { id, tenant, version, active, trigger, verification, listening_until, .. } = workflow;
        let trigger = match trigger {
            Trigger::Webhook(webhook) => Some(Arc::new(*webhook)),
            Trigger::Manual {} | Trigger::Schedule { .. } => None,
        };
        Self { id, tenant, version, active, trigger, verification, listening_until }
    }
}

/// The cache; clones share it.
#[derive(Clone)]
pub(crate) struct Heads {
    known: Fresh<WorkflowId, Option<Arc<Head>>>,
}

impl Heads {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { known: Fresh::new(clock, STALE_AFTER, MAX_HEADS) }
    }

    /// The workflow's head, at most five seconds old.
    pub(crate) async fn get(&self, store: &Store, id: WorkflowId) -> Result<Option<Arc<Head>>, Problem> {
        let read = || async { Ok(store.workflows().get_public(id).await?.map(|workflow| Arc::new(workflow.into()))) };
        self.known.get(id, read).await.map_err(|error: Arc<tidegate_store::Error>| Problem::unavailable(&*error))
    }
}
