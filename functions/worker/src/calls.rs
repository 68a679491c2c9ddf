//! Makes a step's call: looks up the action and the connection, and sends the request through egress.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use serde_json::Value;
use tidegate_connectors::{Action, action};
use tidegate_egress::{Credential, Effect, OutboundRequest};
use tidegate_engine::{Call, Plan};
use tidegate_model::{
    Builtin, Connection, ConnectionId, Definition, ErrorCode, RunRow, StepError, Tenant, TenantId, WorkflowId,
};
use tidegate_platform::{Clock, Fresh};
use tidegate_telemetry::TraceContext;

use crate::{Deps, Error};

/// Why a call brought no output.
pub(crate) enum CallError {
    /// The step's failure: it is journalled.
    Step(StepError),
    /// The worker's own: the message is tried again.
    Worker(Error),
}

impl From<StepError> for CallError {
    fn from(error: StepError) -> Self {
        CallError::Step(error)
    }
}

/// Whether an action's call may be made twice: it only reads, or its target honours the idempotency key.
pub(crate) fn is_repeatable(uses: &str, input: &Value) -> bool {
    action(uses).is_some_and(|action| action.idempotent || action.effect(input) == Effect::Read)
}

/// The trace that the run started under.
pub(crate) fn trace_of(row: &RunRow) -> Option<TraceContext> {
    row.traceparent.parse().ok()
}

/// A call that can be made: all that had to be read for it has been.
pub(crate) struct Prepared {
    action: &'static Action,
    connection: Option<Arc<Connection>>,
    data_key: Arc<str>,
    request: OutboundRequest,
}

/// Looks up what a call needs; nothing for a built-in action, which calls nobody.
pub(crate) async fn prepare(deps: &Deps, row: &RunRow, call: &Call) -> Result<Option<Prepared>, CallError> {
    if Builtin::named(&call.uses).is_some() {
        return Ok(None);
    }
    let action = action(&call.uses).ok_or_else(|| {
        StepError::terminal(ErrorCode::InputInvalid, format!("there is no action `{}` any more", call.uses))
    })?;
    let connection = match call.connection {
        Some(id) => Some(usable_connection(deps, row.tenant, id, action.connector).await?),
        None => None,
    };
    let data_key = match &connection {
        Some(connection) => {
            let found = deps.caches.data_key(deps, connection).await.map_err(CallError::Worker)?;
            let gone =
                || "the key that its connection's secret is sealed under was destroyed; make the connection anew";
            found.ok_or_else(|| StepError::terminal(ErrorCode::ConnectionUnusable, gone()))?
        }
        None => Arc::from(""),
    };
    let request = action.request(&call.input, connection.is_some())?.into_request(
        call.timeout,
        Some(call.idempotency_key.clone()),
        trace_of(row).map(|trace| trace.child().to_string()),
    );
    Ok(Some(Prepared { action, connection, data_key, request }))
}

impl Prepared {
    /// Makes the call. Dropping the future drops the call.
    pub(crate) async fn send(self, deps: &Deps) -> Result<Value, StepError> {
        let credential =
            self.connection.as_deref().map(|connection| Credential { connection, data_key: &self.data_key });
        let response = deps.egress.send(self.request, credential).await.map_err(tidegate_connectors::step_error)?;
        self.action.output(&response, deps.clock.now())
    }
}

async fn usable_connection(
    deps: &Deps,
    tenant: TenantId,
    id: ConnectionId,
    connector: &str,
) -> Result<Arc<Connection>, CallError> {
    let unusable = |message: String| CallError::Step(StepError::terminal(ErrorCode::ConnectionUnusable, message));
    let connection = deps.caches.connection(deps, tenant, id).await.map_err(CallError::Worker)?;
    let connection =
        connection.ok_or_else(|| unusable(format!("the connection {id} is gone; choose another one in the step")))?;
    if connection.connector != connector {
        let is = &connection.connector;
        return Err(unusable(format!("the connection {id} is for `{is}`, but the step needs one for `{connector}`")));
    }
    Ok(connection)
}

/// Bound of the cached definitions, in bytes of their JSON; in memory they take a few times that.
const MAX_DEFINITIONS_BYTES: u64 = 16 * 1024 * 1024;

fn weight(definition: &Definition) -> u32 {
    serde_json::to_vec(definition).map_or(u32::MAX, |json| u32::try_from(json.len()).unwrap_or(u32::MAX))
}

/// What is read again and again. Each cache has a bound and a lifetime; a lifetime is how stale a value may be.
pub(crate) struct Caches {
    /// Versions never change, but a deleted workflow's are gone.
    plans: Cache<(TenantId, WorkflowId, u32), Arc<Plan>>,
    connections: Fresh<(TenantId, ConnectionId), Option<Arc<Connection>>>,
    tenants: Fresh<TenantId, Option<Arc<Tenant>>>,
}

/// How long what may change is used before it is read again.
const STALE_AFTER: Duration = Duration::from_secs(5);

impl Caches {
    pub(crate) fn new(clock: &Clock) -> Self {
        Self {
            plans: Cache::builder()
                .max_capacity(MAX_DEFINITIONS_BYTES)
                .weigher(|_, plan: &Arc<Plan>| weight(plan.definition()))
                .time_to_live(STALE_AFTER)
                .build(),
            connections: Fresh::new(clock.clone(), STALE_AFTER, 10_000),
            tenants: Fresh::new(clock.clone(), STALE_AFTER, 10_000),
        }
    }

    pub(crate) async fn plan(
        &self,
        deps: &Deps,
        tenant: TenantId,
        workflow: WorkflowId,
        version: u32,
    ) -> Result<Option<Arc<Plan>>, Error> {
        if let Some(plan) = self.plans.get(&(tenant, workflow, version)).await {
            return Ok(Some(plan));
        }
        let Some(definition) = deps.store.workflows().definition(tenant, workflow, version).await? else {
            return Ok(None);
        };
        let plan = Plan::new(definition).map_err(|errors| {
            let told: Vec<_> = errors.iter().map(|error| format!("{} {}", error.pointer, error.detail)).collect();
            Error::Corrupt(format!("version {version} of {workflow} makes no graph: {}", told.join("; ")))
        })?;
        let plan = Arc::new(plan);
        self.plans.insert((tenant, workflow, version), Arc::clone(&plan)).await;
        Ok(Some(plan))
    }

    async fn connection(
        &self,
        deps: &Deps,
        tenant: TenantId,
        id: ConnectionId,
    ) -> Result<Option<Arc<Connection>>, Error> {
        let read = || async { Ok(deps.store.connections().get(tenant, id).await?.map(Arc::new)) };
        self.connections.get((tenant, id), read).await.map_err(Error::Cached)
    }

    /// A tenant with its data keys, of which one that is deleted has none.
    pub(crate) async fn tenant(&self, deps: &Deps, id: TenantId) -> Result<Arc<Tenant>, Error> {
        let read = || async { Ok(deps.store.tenants().get(id).await?.map(Arc::new)) };
        let tenant = self.tenants.get(id, read).await.map_err(Error::Cached)?;
        tenant.ok_or_else(|| Error::Corrupt(format!("the tenant {id} of a run is not there")))
    }

    /// The wrapped data key that seals a connection; none where it was destroyed.
    async fn data_key(&self, deps: &Deps, connection: &Connection) -> Result<Option<Arc<str>>, Error> {
        let number = connection.data_key;
        let wrapped = |tenant: &Tenant| tenant.data_key(number).map(|key| Arc::from(key.wrapped.as_str()));
        let known = wrapped(&*self.tenant(deps, connection.tenant).await?);
        if known.is_some() {
            return Ok(known);
        }
        // The connection may have been sealed anew since the tenant was read.
        self.tenants.forget(&connection.tenant).await;
        Ok(wrapped(&*self.tenant(deps, connection.tenant).await?))
    }
}
