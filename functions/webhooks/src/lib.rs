//! Public ingress: a request to `/api/webhooks/{workflow id}` is proven to be from whom it says, put on durable storage, and
//! only then answered. Running it is left to the worker.

mod answer;
mod body;
mod capture;
mod cors;
mod facts;
mod heads;
mod local;
mod once;
mod receive;
mod rejections;
mod uploads;
mod verify;
mod webhook;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use tidegate_http::{
    Accepted, Api, MAX_INPUT_BYTES, Path, Problem, Public, RateLimiter, RequestContext, Tenants, endpoint,
};
use tidegate_model::{WebhookMethod, WorkflowId};
use tidegate_platform::{Blobs, Clock, Envelope, Ids, Queue};
use tidegate_store::Store;
use tokio::sync::Semaphore;
use utoipa::openapi::path::HttpMethod;

use heads::Heads;
use local::Locals;
use receive::LARGE_AT_A_TIME;
use uploads::{BeginUpload, Upload};
use webhook::Webhook;

/// What ingress works with.
#[derive(Clone)]
pub struct Deps {
    /// Workflow heads, read by their unguessable ids, and how their tenants stand; deliveries that came before, were captured
    /// or refused; the runs whose output is waited for.
    pub store: Store,
    /// The run queue, to send to.
    pub queue: Arc<dyn Queue>,
    /// Bodies over 8 KB and files, to write; the outputs of runs, to read.
    pub blobs: Arc<dyn Blobs>,
    /// Opens what requests are verified with.
    pub envelope: Envelope,
    /// Counts requests.
    pub limiter: RateLimiter,
    /// Tells the time.
    pub clock: Clock,
    /// Makes ids.
    pub ids: Ids,
    /// Where people reach the installation: `https://flows.example.com`, without a slash at the end. Where it isn't given, it is
    /// where the request came.
    pub public_url: Option<String>,
}

/// The dependencies, and what is remembered from one request to the next.
struct Ingress {
    deps: Deps,
    heads: Heads,
    tenants: Tenants,
    locals: Locals,
    large_bodies: Semaphore,
    /// Names this process among those that refuse requests.
    process: String,
}

type Shared = State<Arc<Ingress>>;

/// The operations over these dependencies.
pub fn api(deps: Deps) -> Api {
    let webhook = "/api/webhooks/{id}";
    let methods = [HttpMethod::Get, HttpMethod::Put, HttpMethod::Patch, HttpMethod::Delete];
    let names = ["receive_webhook_get", "receive_webhook_put", "receive_webhook_patch", "receive_webhook_delete"];
    let mut api = Api::new()
        .route(endpoint!(receive_webhook).max_body_bytes(MAX_INPUT_BYTES))
        .route(endpoint!(allow_webhook))
        .route(endpoint!(begin_upload))
        .route(endpoint!(allow_upload))
        .route(endpoint!(allow_start))
        .route(endpoint!(start_with_upload).max_body_bytes(MAX_INPUT_BYTES));
    for (method, name) in methods.into_iter().zip(names) {
        api = api.route(endpoint!(receive_webhook).at(webhook, name).of(method, name).max_body_bytes(MAX_INPUT_BYTES));
    }
    let ingress = Ingress {
        heads: Heads::new(deps.clock.clone()),
        tenants: Tenants::new(deps.store.clone(), deps.clock.clone()),
        locals: Locals::new(deps.clock.clone()),
        large_bodies: Semaphore::new(LARGE_AT_A_TIME),
        process: deps.ids.entropy().map(|byte| format!("{byte:02x}")).concat(),
        deps,
    };
    api.with_state(Arc::new(ingress))
}

/// Start a run by its webhook
///
/// Takes any body up to 4 MB, by the methods that the trigger allows (`POST` unless it says otherwise). Where the trigger
/// has a `verify`, the request has to be signed as that says, or it is 401. It is answered as soon as it is stored, unless
/// the trigger says otherwise.
///
/// What the workflow's expressions see of the body depends on its media type alone: `application/json` and `…+json` as the
/// JSON value; `application/x-www-form-urlencoded` and the fields of `multipart/form-data` as an object of strings, a
/// repeated key as a list; XML as an object; `text/…` as a string; anything else as a base64 string; nothing at all as an
/// empty object. Files of a form are in `trigger.files`. A body with no media type, or marked as a form by a client's
/// default (`curl -d`), that is a whole JSON object or list counts as JSON: no form's encoding begins with `{` or `[`. JSON
/// may have 100 levels of nesting and 100,000 values.
#[utoipa::path(
    post, path = "/api/webhooks/{id}", tag = "webhooks", params(("id" = WorkflowId, Path)),
    request_body(content(
        (serde_json::Value = "application/json"),
        (String = "application/x-www-form-urlencoded"),
        (String = "multipart/form-data"),
        (String = "application/xml"),
        (String = "text/plain"),
        (Vec<u8> = "application/octet-stream"),
    )),
    responses(
        (
            status = 200, description = "The run is stored and will be executed; or what the trigger's `response` says",
            body = Accepted,
            headers(("Tidegate-Run-Id" = String, description = "The run's id")),
        ),
        (
            status = 202, description = "With `respond: when_finished`: the run goes on", body = Accepted,
            headers(
                ("Location" = String, description = "The run's address"),
                ("Tidegate-Run-Id" = String, description = "The run's id"),
            ),
        ),
    ),
)]
async fn receive_webhook(
    _: Public,
    State(ingress): Shared,
    Path(id): Path<WorkflowId>,
    context: RequestContext,
    request: Request,
) -> Result<Response, Problem> {
    let webhook = Webhook::find(&ingress, id, &context).await?;
    let cors = webhook.cors(request.headers());
    Ok(cors.dress(receive::receive(&ingress, &webhook, &context, request, None).await))
}

/// Tell a browser whether a page may send to a webhook
///
/// Answers a preflight request (<https://fetch.spec.whatwg.org/#cors-preflight-request>) as the trigger's `cors` says.
#[utoipa::path(
    options, path = "/api/webhooks/{id}", tag = "webhooks", params(("id" = WorkflowId, Path)),
    responses((status = 204, description = "The headers say what is allowed")),
)]
async fn allow_webhook(
    _: Public,
    State(ingress): Shared,
    Path(id): Path<WorkflowId>,
    context: RequestContext,
    request: Request,
) -> Result<Response, Problem> {
    let webhook = Webhook::find(&ingress, id, &context).await?;
    Ok(webhook.cors(request.headers()).preflight(webhook.trigger.methods(), request.headers()))
}

/// Tell a browser whether a page may upload
#[utoipa::path(
    options, path = "/api/webhooks/{id}/uploads", tag = "webhooks", params(("id" = WorkflowId, Path)),
    responses((status = 204, description = "The headers say what is allowed")),
)]
async fn allow_upload(
    _: Public,
    State(ingress): Shared,
    Path(id): Path<WorkflowId>,
    context: RequestContext,
    request: Request,
) -> Result<Response, Problem> {
    let webhook = Webhook::find(&ingress, id, &context).await?;
    Ok(webhook.cors(request.headers()).preflight(&[WebhookMethod::Post], request.headers()))
}

/// Tell a browser whether a page may start a run with an upload
#[utoipa::path(
    options, path = "/api/webhooks/{id}/uploads/{token}", tag = "webhooks",
    params(("id" = WorkflowId, Path), ("token" = String, Path, description = "As `start_url` has it")),
    responses((status = 204, description = "The headers say what is allowed")),
)]
async fn allow_start(
    public: Public,
    ingress: Shared,
    Path((id, _)): Path<(WorkflowId, String)>,
    context: RequestContext,
    request: Request,
) -> Result<Response, Problem> {
    allow_upload(public, ingress, Path(id), context, request).await
}

/// Upload a file to start a run with
///
/// For files that are too large for the webhook itself, where the trigger has `uploads`. Tells where to `PUT` the file; it
/// can be put there once, in this size, within an hour. Then a `POST` to `start_url` starts the run, with the file in
/// `trigger.files`. Where the trigger has a `verify`, both requests to this API have to be signed as that says.
#[utoipa::path(
    post, path = "/api/webhooks/{id}/uploads", tag = "webhooks", params(("id" = WorkflowId, Path)),
    request_body = BeginUpload,
    responses((status = 201, description = "Where to put the file", body = Upload)),
)]
async fn begin_upload(
    _: Public,
    State(ingress): Shared,
    Path(id): Path<WorkflowId>,
    context: RequestContext,
    request: Request,
) -> Result<Response, Problem> {
    let webhook = Webhook::find(&ingress, id, &context).await?;
    let cors = webhook.cors(request.headers());
    Ok(cors.dress(uploads::begin(&ingress, &webhook, &context, request).await))
}

/// Start a run with an uploaded file
///
/// What is sent is taken as by `POST /api/webhooks/{id}`, and the file that was uploaded is in `trigger.files`. Repeating it
/// starts no other run.
#[utoipa::path(
    post, path = "/api/webhooks/{id}/uploads/{token}", tag = "webhooks",
    params(("id" = WorkflowId, Path), ("token" = String, Path, description = "As `start_url` has it")),
    request_body(content((serde_json::Value = "application/json"))),
    responses((
        status = 200, description = "The run is stored and will be executed; or what the trigger's `response` says",
        body = Accepted,
        headers(("Tidegate-Run-Id" = String, description = "The run's id")),
    )),
)]
async fn start_with_upload(
    _: Public,
    State(ingress): Shared,
    Path((id, token)): Path<(WorkflowId, String)>,
    context: RequestContext,
    request: Request,
) -> Result<Response, Problem> {
    let webhook = Webhook::find(&ingress, id, &context).await?;
    let cors = webhook.cors(request.headers());
    Ok(cors.dress(receive::receive(&ingress, &webhook, &context, request, Some(&token)).await))
}
