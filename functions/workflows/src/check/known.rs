//! What a definition names and the tenant has.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tidegate_model::{Builtin, Connection, ConnectionId, Definition, Step, TenantId, WorkflowId};
use tidegate_store::{Error, Store};

/// How much is read at once.
const READS_AT_ONCE: usize = 16;
/// How many other workflows a definition may name: all are read, and each may be a quarter of a megabyte.
pub(super) const MAX_WORKFLOWS: usize = 100;

/// The connections and workflows that a definition names and that there are.
pub(super) struct Known {
    pub(super) connections: HashMap<ConnectionId, Connection>,
    /// Each in its current version; of more than [`MAX_WORKFLOWS`] only so many are looked for.
    pub(super) workflows: HashMap<WorkflowId, Definition>,
    /// Those that were looked for.
    pub(super) named: BTreeSet<WorkflowId>,
}

impl Known {
    pub(super) async fn read(store: &Store, tenant: TenantId, definition: &Definition) -> Result<Self, Error> {
        let connections = definition.steps.iter().filter_map(|step| step.connection).collect();
        let handler = definition.on_failure.as_ref().map(|handler| handler.workflow);
        let mut named = BTreeSet::new();
        for workflow in handler.into_iter().chain(definition.steps.iter().filter_map(called_by)) {
            if named.len() < MAX_WORKFLOWS {
                named.insert(workflow);
            }
        }
        Ok(Self {
            connections: read_all(connections, |id| async move { store.connections().get(tenant, id).await }).await?,
            workflows: read_all(named.clone(), |id| current(store, tenant, id)).await?,
            named,
        })
    }
}

/// The workflow that a step calls; none where it calls none, or names it wrongly.
pub(super) fn called_by(step: &Step) -> Option<WorkflowId> {
    if Builtin::named(&step.uses) != Some(Builtin::Call) {
        return None;
    }
    step.with.get("workflow")?.as_str()?.parse().ok()
}

async fn current(store: &Store, tenant: TenantId, id: WorkflowId) -> Result<Option<Definition>, Error> {
    match store.workflows().get(tenant, id).await? {
        Some(head) => store.workflows().definition(tenant, id, head.version).await,
        None => Ok(None),
    }
}

async fn read_all<K, V, F>(ids: BTreeSet<K>, read: impl Fn(K) -> F) -> Result<HashMap<K, V>, Error>
where
    K: Copy + Eq + Hash,
    F: Future<Output = Result<Option<V>, Error>>,
{
    let reads = ids.into_iter().map(|id| {
        let found = read(id);
        async move { Ok::<_, Error>(found.await?.map(|found| (id, found))) }
    });
    let found: Vec<_> = stream::iter(reads).buffer_unordered(READS_AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}
