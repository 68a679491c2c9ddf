//! Public ingress: `POST /api/webhooks/{workflow id}` takes what a caller sends, puts it on durable storage, and only
//! then answers. Running it is left to the worker.

mod body;
mod heads;

use std::sync::Arc;
use std::time::Duration;

use axum::body::HttpBody as _;
use axum::extract::{FromRequest as _, Request, State};
use bytes::Bytes;
use serde_json::Map;
use tidegate_http::{
    Accepted, Api, Json, MAX_INPUT_BYTES, Path, Problem, ProblemCode, Public, RateLimiter, Raw, RequestContext, Start,
    Tenants, endpoint,
};
use tidegate_model::{TenantStatus, TriggerKind, WorkflowId};
use tidegate_platform::{Blobs, Clock, Ids, Queue};
use tidegate_store::Store;
use tokio::sync::{Semaphore, SemaphorePermit};

use heads::{Head, Heads};

/// Bodies over this size, or of a size that isn't told, are read at most [`LARGE_AT_A_TIME`] at once: others wait.
const LARGE_BYTES: u64 = 256 * 1024;
const LARGE_AT_A_TIME: usize = 16;
/// How long a large body may take to arrive, so that slow senders don't keep the others waiting.
const MAX_LARGE_READ: Duration = Duration::from_secs(30);

/// What ingress works with.
#[derive(Clone)]
pub struct Deps {
    store: Store,
    queue: Arc<dyn Queue>,
    blobs: Arc<dyn Blobs>,
    clock: Clock,
    ids: Ids,
    heads: Heads,
    tenants: Tenants,
    limiter: RateLimiter,
    large_bodies: Arc<Semaphore>,
}

impl Deps {
    /// `store`: workflow heads, read by their unguessable ids, and how their tenants stand. `limiter`: counts webhooks. `queue`: the run queue, to send to. `blobs`: bodies over
    /// 8 KB, to write.
    pub fn new(
        store: Store,
        queue: Arc<dyn Queue>,
        blobs: Arc<dyn Blobs>,
        limiter: RateLimiter,
        clock: Clock,
        ids: Ids,
    ) -> Self {
        let large_bodies = Arc::new(Semaphore::new(LARGE_AT_A_TIME));
        let heads = Heads::new(clock.clone());
        let tenants = Tenants::new(store.clone(), clock.clone());
        Self { store, queue, blobs, clock, ids, heads, tenants, limiter, large_bodies }
    }
}

/// The operation over these dependencies.
pub fn api(deps: Deps) -> Api {
    Api::new().route(endpoint!(receive_webhook).max_body_bytes(MAX_INPUT_BYTES)).with_state(deps)
}

/// Start a run by its webhook
///
/// Takes any body up to 4 MB and answers as soon as it is stored. What the workflow's expressions see of it depends on
/// its media type alone: `application/json` and `…+json` as the JSON value; `application/x-www-form-urlencoded` as an
/// object of strings, a repeated key as a list; `text/…` and XML as a string; anything else as a base64 string. A body
/// with no media type, or marked as a form by a client's default (`curl -d`), that is a whole JSON object or list counts
/// as JSON: no form's encoding begins with `{` or `[`. JSON may have 100 levels of nesting and 100,000 values.
#[utoipa::path(
    post, path = "/api/webhooks/{id}", tag = "webhooks", params(("id" = WorkflowId, Path)),
    request_body(content(
        (serde_json::Value = "application/json"),
        (String = "application/x-www-form-urlencoded"),
        (String = "text/plain"),
        (Vec<u8> = "application/octet-stream"),
    )),
    responses((status = 200, description = "The run is stored and will be executed", body = Accepted)),
)]
pub(crate) async fn receive_webhook(
    _: Public,
    State(deps): State<Deps>,
    Path(id): Path<WorkflowId>,
    context: RequestContext,
    request: Request,
) -> Result<Json<Accepted>, Problem> {
    context.record("workflow_id", id);
    // Before the body is read: a caller without a workflow costs no memory.
    let head = deps.heads.get(&deps.store, id).await?.ok_or_else(Problem::not_found)?;
    context.record("tenant_id", head.tenant);
    let tenant = deps.tenants.get(head.tenant).await?.ok_or_else(Problem::not_found)?;
    if tenant.status == TenantStatus::Suspended {
        return Err(Problem::tenant_suspended());
    }
    check(&head)?;
    context.tell_rate(deps.limiter.webhook(head.tenant, tenant.limits).await?);
    let content_type = body::media_type(request.headers());
    let (bytes, _permit) = receive(&deps, request).await?;
    let body = body::read(content_type.as_deref(), &bytes)
        .map_err(|detail| Problem::new(ProblemCode::MalformedRequest, detail))?;

    let start = Start {
        run_id: deps.ids.run(head.tenant),
        tenant: head.tenant,
        workflow: id,
        version: head.version,
        kind: TriggerKind::Webhook,
        content_type,
        body,
        parameters: Map::new(),
        accepted_at: deps.clock.now(),
    };
    start.send(&*deps.queue, &*deps.blobs, &context).await.map(Json)
}

fn check(head: &Head) -> Result<(), Problem> {
    if !head.is_webhook {
        let detail = "This workflow isn't started by a webhook; give it the trigger {\"type\": \"webhook\"}.";
        return Err(Problem::new(ProblemCode::NotFound, detail));
    }
    if !head.active {
        let detail = "This workflow is switched off, so nothing was started. Switch it on, then send again.";
        return Err(Problem::new(ProblemCode::WorkflowInactive, detail));
    }
    Ok(())
}

/// The body, and for a large one the permit to hold it in memory.
async fn receive(deps: &Deps, request: Request) -> Result<(Bytes, Option<SemaphorePermit<'_>>), Problem> {
    if request.body().size_hint().upper().is_some_and(|bytes| bytes <= LARGE_BYTES) {
        return Ok((Raw::from_request(request, &()).await?.0, None));
    }
    let permit = deps.large_bodies.acquire().await.map_err(|error| Problem::internal(&error))?;
    match tokio::time::timeout(MAX_LARGE_READ, Raw::from_request(request, &())).await {
        Ok(read) => Ok((read?.0, Some(permit))),
        Err(_) => {
            let detail = format!("The body took longer than {} seconds to arrive.", MAX_LARGE_READ.as_secs());
            Err(Problem::new(ProblemCode::MalformedRequest, detail))
        }
    }
}
