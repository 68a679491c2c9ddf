//! Makes a step's call, and remembers what runs need again and again.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use serde_json::Value;
use tidegate_connections::{Called, Prepared};
use tidegate_connectors::CallOptions;
use tidegate_egress::Effect;
use tidegate_engine::{Call, Plan};
use tidegate_model::{Builtin, Definition, RunRow, StepError, Tenant, TenantId, WorkflowId};
use tidegate_telemetry::TraceContext;

use crate::{Deps, Error};

impl From<tidegate_connections::Error> for Error {
    fn from(error: tidegate_connections::Error) -> Self {
        match error {
            tidegate_connections::Error::Store(error) => Self::Store(error),
            tidegate_connections::Error::Cached(error) => Self::Cached(error),
            tidegate_connections::Error::Corrupt(what) => Self::Corrupt(what),
        }
    }
}

/// Whether an action's call may be made twice: it only reads, or its target honours the idempotency key.
pub(crate) async fn is_repeatable(deps: &Deps, tenant: TenantId, uses: &str, input: &Value) -> Result<bool, Error> {
    let action = deps.connections.action(tenant, uses).await?;
    Ok(action.is_some_and(|action| action.document.idempotent || action.effect(input) == Effect::Read))
}

/// The trace that the run started under.
pub(crate) fn trace_of(row: &RunRow) -> Option<TraceContext> {
    row.traceparent.parse().ok()
}

/// Looks up what a call needs; nothing for a built-in action, which calls nobody. Inside: why the step fails.
pub(crate) async fn prepare(
    deps: &Deps,
    row: &RunRow,
    call: &Call,
) -> Result<Result<Option<Prepared>, StepError>, Error> {
    if Builtin::named(&call.uses).is_some() {
        return Ok(Ok(None));
    }
    match deps.connections.prepare(row.tenant, &call.uses, call.connection).await {
        Ok(prepared) => Ok(Ok(Some(prepared))),
        Err(Called::Step(error)) => Ok(Err(error)),
        Err(Called::Ours(error)) => Err(error.into()),
    }
}

/// Makes a call. Dropping the future drops the call.
pub(crate) async fn send(
    deps: &Deps,
    prepared: Prepared,
    call: &Call,
    trace: Option<TraceContext>,
) -> Result<Value, StepError> {
    let options = CallOptions {
        timeout: call.timeout,
        idempotency_key: Some(call.idempotency_key.clone()),
        traceparent: trace.map(|trace| trace.child().to_string()),
    };
    deps.connections.call(prepared, &call.input, options).await
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
}

/// How long what may change is used before it is read again.
const STALE_AFTER: Duration = Duration::from_secs(5);

impl Caches {
    pub(crate) fn new() -> Self {
        Self {
            plans: Cache::builder()
                .max_capacity(MAX_DEFINITIONS_BYTES)
                .weigher(|_, plan: &Arc<Plan>| weight(plan.definition()))
                .time_to_live(STALE_AFTER)
                .build(),
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
}

impl Deps {
    /// A tenant with its data keys, of which one that is deleted has none.
    pub(crate) async fn tenant(&self, id: TenantId) -> Result<Arc<Tenant>, Error> {
        Ok(self.connections.tenant(id).await?)
    }
}
