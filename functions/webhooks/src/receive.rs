//! The way of a request: admitted, proven, read, told from those that came before, stored, answered. Nothing is changed before
//! all of it is known to be right, and it is answered only once it can't be lost.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Map;
use tidegate_http::{Accepted, Json, MAX_INPUT_BYTES, Problem, ProblemCode, RequestContext, Start, StartBody};
use tidegate_model::{RejectedDelivery, RunFile, RunId, TriggerKind, WebhookRequest};
use tidegate_signatures::{Challenge, Received};
use tokio::sync::{AcquireError, SemaphorePermit};

use crate::body::{ReadBody, ReceivedFile};
use crate::local::Local;
use crate::once::Delivery;
use crate::verify::Refused;
use crate::webhook::{Mode, Webhook, switched_off};
use crate::{Ingress, answer, body, capture, facts, once, rejections, uploads, verify};

/// Bodies over this size are read at most [`LARGE_AT_A_TIME`] at once: others wait.
const LARGE_BYTES: usize = 256 * 1024;
pub(crate) const LARGE_AT_A_TIME: usize = 16;
/// How long a body may take to arrive, so that slow senders don't keep the others waiting.
const MAX_READ: Duration = Duration::from_secs(30);
/// How long a large one waits for its place.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// A request that is from whom it says, and within the limits.
pub(crate) struct Admitted<'a> {
    pub(crate) parts: Parts,
    /// Its body, as it came.
    pub(crate) bytes: Bytes,
    pub(crate) mode: Mode,
    /// For as long as a large body is in memory.
    _permit: Option<Permit<'a>>,
}

/// Takes a request. `upload`: the token of an address that a run is started at with an upload.
pub(crate) async fn receive(
    ingress: &Ingress,
    webhook: &Webhook,
    context: &RequestContext,
    request: Request,
    upload: Option<&str>,
) -> Result<Response, Problem> {
    if upload.is_none()
        && let Some(refused) = webhook.refuses(request.method())
    {
        return Ok(refused);
    }
    let admitted = admit(ingress, webhook, context, request, MAX_INPUT_BYTES).await?;
    let Admitted { parts, bytes, mode, _permit } = admitted;
    let content_type = body::media_type(&parts.headers);
    let ReadBody { body, files } = match bytes.is_empty() && content_type.is_none() {
        true => ReadBody { body: StartBody::Value(Map::new().into()), files: Vec::new() },
        false => {
            body::read(&parts.headers, &bytes).map_err(|detail| Problem::new(ProblemCode::MalformedRequest, detail))?
        }
    };
    drop(bytes);
    if let Some(answer) = challenge(webhook, &parts, &body) {
        return Ok(answer);
    }
    let request = facts::of(&parts, &webhook.trigger.headers)?;
    let taken = Taken { content_type, request, body, files };
    match mode {
        Mode::Off => return Err(switched_off()),
        Mode::Listen => {
            let captured = capture::capture(ingress, webhook, &parts.headers, taken).await?;
            return Ok(Json(captured).into_response());
        }
        Mode::Run => {}
    }

    let accepted = match upload {
        Some(token) => {
            let (run, file) = uploads::started(ingress, webhook, token).await?;
            taken.with(file).store(ingress, webhook, context, run, Accepted::ACCEPTED, true).await?
        }
        None => {
            let (run, status, repeatable) = identify(ingress, webhook, &parts, &taken).await?;
            taken.store(ingress, webhook, context, run, status, repeatable).await?
        }
    };
    drop(_permit);
    Ok(answer::answer(ingress, &webhook.trigger, webhook.head.tenant, accepted).await)
}

/// Reads a request, counts it, and has it prove from whom it is.
pub(crate) async fn admit<'a>(
    ingress: &'a Ingress,
    webhook: &Webhook,
    context: &RequestContext,
    request: Request,
    max_bytes: usize,
) -> Result<Admitted<'a>, Problem> {
    let mode = webhook.mode(ingress);
    let verification = webhook.trigger.verify.as_ref();
    if verification.is_none() {
        // Before the body is read: a caller who can start nothing costs no memory.
        if mode == Mode::Off {
            return Err(switched_off());
        }
        webhook.count(ingress, context).await?;
    }
    let (parts, body) = request.into_parts();
    let (bytes, permit) = read(ingress, webhook, body, max_bytes).await?;
    if let Some(verification) = verification {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let url = context.url(ingress.deps.public_url.as_deref(), path)?;
        let received = Received { url: &url, headers: &parts.headers, body: &bytes };
        if let Err(refused) = verify::verify(ingress, webhook, verification, &received).await? {
            let problem = refused.problem(verification.scheme);
            let rejected = rejected(ingress, &parts, context, refused);
            drop((bytes, permit));
            rejections::add(ingress, webhook, rejected).await;
            return Err(problem);
        }
        // Only now, so that nobody else uses up what the sender has.
        webhook.count(ingress, context).await?;
    }
    Ok(Admitted { parts, bytes, mode, _permit: permit })
}

/// What is told of a refused request: nothing of its body, and of its headers only their names.
fn rejected(ingress: &Ingress, parts: &Parts, context: &RequestContext, refused: Refused) -> RejectedDelivery {
    const MAX_NAMES: usize = 20;
    const MAX_NAME_BYTES: usize = 40;
    let names = parts.headers.keys().map(|name| name.as_str()).filter(|name| name.len() <= MAX_NAME_BYTES);
    RejectedDelivery {
        at: ingress.deps.clock.now(),
        reason: refused.reason.to_owned(),
        detail: refused.detail,
        method: parts.method.as_str().to_owned(),
        address: context.address.map(|address| address.to_string()),
        headers: names.take(MAX_NAMES).map(str::to_owned).collect(),
    }
}

/// The answer to what a vendor asks of an address before it sends to it.
fn challenge(webhook: &Webhook, parts: &Parts, body: &StartBody) -> Option<Response> {
    let verification = webhook.trigger.verify.as_ref()?;
    let value = match body {
        StartBody::Value(value) => Some(value),
        // Challenges are small.
        StartBody::Large(_) => None,
    };
    match tidegate_signatures::challenge(verification.scheme, &parts.headers, value)? {
        Challenge::Echo(text) => Some(text.into_response()),
        Challenge::Acknowledge => Some(Json(serde_json::json!({"status": "acknowledged"})).into_response()),
    }
}

/// Which run a delivery starts, or has started before; and whether it may come again.
async fn identify(
    ingress: &Ingress,
    webhook: &Webhook,
    parts: &Parts,
    taken: &Taken,
) -> Result<(RunId, &'static str, bool), Problem> {
    let head = &webhook.head;
    let run = ingress.deps.ids.run(head.tenant);
    let Some(deduplicate) = webhook.trigger.deduplicates() else { return Ok((run, Accepted::ACCEPTED, false)) };
    let delivery = Delivery {
        headers: &parts.headers,
        content_type: taken.content_type.as_deref(),
        request: &taken.request,
        body: &taken.body,
    };
    let Some(key) = once::key(&webhook.trigger, &deduplicate, &delivery)? else {
        return Ok((run, Accepted::ACCEPTED, false));
    };
    let (now, remember) = (ingress.deps.clock.now(), deduplicate.remember.duration());
    // The run of a delivery that came before is sent for again: its message may have been lost, and is dropped otherwise.
    match ingress.deps.store.deliveries().remember(head.tenant, head.id, &key, run, now, remember).await? {
        None => Ok((run, Accepted::ACCEPTED, true)),
        Some(before) => Ok((before, Accepted::DUPLICATE, true)),
    }
}

/// What a request brings.
pub(crate) struct Taken {
    pub(crate) content_type: Option<String>,
    pub(crate) request: WebhookRequest,
    pub(crate) body: StartBody,
    pub(crate) files: Vec<ReceivedFile>,
}

impl Taken {
    /// The same with a file that was uploaded before.
    fn with(mut self, file: RunFile) -> Self {
        self.request.files.push(file);
        self
    }

    /// Puts it on durable storage. `repeatable`: it may be sent again, so that what is stored gets names of its own, and changes
    /// nothing of a run that has begun.
    async fn store(
        self,
        ingress: &Ingress,
        webhook: &Webhook,
        context: &RequestContext,
        run: RunId,
        status: &'static str,
        repeatable: bool,
    ) -> Result<Accepted, Problem> {
        let Self { content_type, mut request, body, files } = self;
        let suffix =
            if repeatable { format!("-{}", context.request_id.trim_start_matches("req_")) } else { String::new() };
        let already = request.files.len();
        for (index, file) in files.into_iter().enumerate() {
            let name = format!("{}{suffix}", already + index);
            let ReceivedFile { field, filename, content_type, bytes } = file;
            let (path, length) = (uploads::path(run, &name), bytes.len() as u64);
            ingress.deps.blobs.put(&uploads::key(webhook, run, &name), bytes).await?;
            request.files.push(RunFile { field: Some(field), filename, content_type, bytes: length, path });
        }
        let start = Start {
            run_id: run,
            tenant: webhook.head.tenant,
            workflow: webhook.head.id,
            version: webhook.head.version,
            kind: TriggerKind::Webhook,
            content_type,
            request: Some(Box::new(request)),
            body,
            parameters: Map::new(),
            accepted_at: ingress.deps.clock.now(),
            blob: format!("{}{suffix}", Start::BLOB),
        };
        let accepted = start.send(&*ingress.deps.queue, &*ingress.deps.blobs, context).await?;
        Ok(Accepted { status, ..accepted })
    }
}

/// Holds the place of a large body, among all and among those of its webhook.
pub(crate) struct Permit<'a> {
    _of_all: SemaphorePermit<'a>,
    _of_webhook: Arc<Local>,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self._of_webhook.large_bodies.add_permits(1);
    }
}

/// The body, and for a large one its place in memory: it is taken once so much has come, so that who sends nothing holds none.
async fn read<'a>(
    ingress: &'a Ingress,
    webhook: &Webhook,
    body: Body,
    max_bytes: usize,
) -> Result<(Bytes, Option<Permit<'a>>), Problem> {
    let too_large = || too_large(webhook, max_bytes);
    let mut body = Limited::new(body, max_bytes);
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(too_large());
    }
    let mut permit = None;
    let read = async {
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
                Some(_) => too_large(),
                None => Problem::new(ProblemCode::MalformedRequest, "The body ended before it was complete."),
            })?;
            bytes.extend_from_slice(&frame.into_data().unwrap_or_default());
            if bytes.len() > LARGE_BYTES && permit.is_none() {
                permit = Some(place(ingress, webhook).await?);
            }
        }
        Ok::<_, Problem>(bytes.freeze())
    };
    match tokio::time::timeout(MAX_READ, read).await {
        Ok(read) => Ok((read?, permit)),
        Err(_) => {
            let detail = format!("The body took longer than {} seconds to arrive.", MAX_READ.as_secs());
            Err(Problem::new(ProblemCode::MalformedRequest, detail))
        }
    }
}

async fn place<'a>(ingress: &'a Ingress, webhook: &Webhook) -> Result<Permit<'a>, Problem> {
    let local = ingress.locals.of(webhook.head.id).await;
    let taken = async {
        let of_webhook = local.large_bodies.acquire().await?;
        let of_all = ingress.large_bodies.acquire().await?;
        of_webhook.forget();
        Ok::<_, AcquireError>(of_all)
    };
    match tokio::time::timeout(MAX_WAIT, taken).await {
        Ok(Ok(of_all)) => Ok(Permit { _of_all: of_all, _of_webhook: local.clone() }),
        Ok(Err(error)) => Err(Problem::internal(&error)),
        Err(_) => {
            let detail = "Too many large bodies are on their way. Send this again.";
            Err(Problem::new(ProblemCode::Unavailable, detail).retry_after(MAX_WAIT))
        }
    }
}

fn too_large(webhook: &Webhook, max_bytes: usize) -> Problem {
    let id = webhook.head.id;
    let how = match webhook.trigger.uploads {
        Some(_) => "",
        None => ", once the trigger has {\"uploads\": {}}",
    };
    let detail = format!(
        "The body is larger than {} MB. Upload it as a file: POST /api/webhooks/{id}/uploads{how}.",
        max_bytes / 1024 / 1024
    );
    Problem::new(ProblemCode::PayloadTooLarge, detail)
}
