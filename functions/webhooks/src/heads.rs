//! Workflow heads by id, remembered for at most five seconds; so are ids that no workflow has.

use std::time::Duration;

use tidegate_http::Problem;
use tidegate_model::{TenantId, Trigger, Workflow, WorkflowId};
use tidegate_platform::{Clock, Fresh};
use tidegate_store::Store;

/// How stale a head may be: after this time a switched-off workflow accepts nothing more.
const STALE_AFTER: Duration = Duration::from_secs(5);
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

/// The cache; clones share it.
#[derive(Clone)]
pub(crate) struct Heads {
    known: Fresh<WorkflowId, Option<Head>>,
}

impl Heads {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { known: Fresh::new(clock, STALE_AFTER, MAX_HEADS) }
    }

    /// The workflow's head, at most five seconds old.
    pub(crate) async fn get(&self, store: &Store, id: WorkflowId) -> Result<Option<Head>, Problem> {
        let read = || async { Ok(store.workflows().get_public(id).await?.map(Head::from)) };
        self.known
            .get(id, read)
            .await
            .map_err(|error: std::sync::Arc<tidegate_store::Error>| Problem::unavailable(&*error))
    }
}
