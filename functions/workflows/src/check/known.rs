//! What a definition names and the tenant has.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tidegate_connections::Error;
use tidegate_connectors::{Action, Uses};
use tidegate_model::{Builtin, Connection, ConnectionId, Definition, Step, TenantId, WorkflowId};
use tidegate_store::{Error as StoreError, Store};

use crate::Deps;

/// How much is read at once.
const READS_AT_ONCE: usize = 16;
/// How many other workflows a definition may name: all are read, and each may be a quarter of a megabyte.
pub(super) const MAX_WORKFLOWS: usize = 100;

/// The connections, workflows and own connectors' actions that a definition names and that there are.
pub(super) struct Known {
    /// Actions of connectors that the tenant made.
    pub(super) actions: HashMap<String, Arc<Action>>,
    pub(super) connections: HashMap<ConnectionId, Connection>,
    /// Each in its current version; of more than [`MAX_WORKFLOWS`] only so many are looked for.
    pub(super) workflows: HashMap<WorkflowId, Definition>,
    /// Those that were looked for.
    pub(super) named: BTreeSet<WorkflowId>,
}

impl Known {
    pub(super) async fn read(deps: &Deps, tenant: TenantId, definition: &Definition) -> Result<Self, Error> {
        let store = &deps.store;
        let mut actions = HashMap::new();
        for step in &definition.steps {
            if Uses::named(&step.uses).is_none()
                && !actions.contains_key(&step.uses)
                && let Some(action) = deps.connections.action(tenant, &step.uses).await?
            {
                actions.insert(step.uses.clone(), action);
            }
        }
        let connections = definition.connections().into_iter().collect();
        let handler = definition.on_failure.as_ref().map(|handler| handler.workflow);
        let mut named = BTreeSet::new();
        for workflow in handler.into_iter().chain(definition.steps.iter().filter_map(called_by)) {
            if named.len() < MAX_WORKFLOWS {
                named.insert(workflow);
            }
        }
        Ok(Self {
            actions,
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

async fn current(store: &Store, tenant: TenantId, id: WorkflowId) -> Result<Option<Definition>, StoreError> {
    match store.workflows().get(tenant, id).await? {
        Some(head) => store.workflows().definition(tenant, id, head.version).await,
        None => Ok(None),
    }
}

async fn read_all<K, V, F>(ids: BTreeSet<K>, read: impl Fn(K) -> F) -> Result<HashMap<K, V>, StoreError>
where
    K: Copy + Eq + Hash,
    F: Future<Output = Result<Option<V>, StoreError>>,
{
    let reads = ids.into_iter().map(|id| {
        let found = read(id);
        async move { Ok::<_, StoreError>(found.await?.map(|found| (id, found))) }
    });
    let found: Vec<_> = stream::iter(reads).buffer_unordered(READS_AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}
