//! Files that are too large for a webhook's body: they are put into the blobs directly, under a link that takes one file of a
//! known size once; what starts the run then is sealed in the address that the run is started at.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{FromRequest as _, Request};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_http::{Json, MAX_BODY_BYTES, Problem, ProblemCode, RequestContext, Time};
use tidegate_model::{FieldError, Pointer, RunFile, RunId};
use tidegate_platform::blobs::UPLOADS;
use tidegate_platform::key_service::KeyContext;
use utoipa::ToSchema;

use crate::Ingress;
use crate::body;
use crate::receive::admit;
use crate::webhook::{Mode, Webhook, switched_off};

/// How long a file may be put.
const PUT_WITHIN: Duration = Duration::from_secs(3_600);
/// How long the run may be started.
const START_WITHIN: Duration = Duration::from_secs(86_400);
const MAX_TOKEN_BYTES: usize = 4 * 1024;

/// A file to upload.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BeginUpload {
    /// Its name, for people to read.
    #[schema(examples("photo.png"))]
    filename: String,
    /// Its media type.
    #[serde(default)]
    #[schema(nullable = false, examples("image/png"))]
    content_type: Option<String>,
    /// Its size; no other is taken.
    #[schema(examples(20_971_520))]
    bytes: u64,
}

/// Where to put a file, and how the run is started then.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Upload {
    upload: UploadRequest,
    /// Where to `POST`, once the file is there; below this API's address.
    start_url: String,
    /// The run that will have the file.
    run_id: RunId,
}

/// The request that puts the file.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UploadRequest {
    method: &'static str,
    url: String,
    /// The headers that it must have, as they are.
    headers: BTreeMap<String, String>,
    /// Until when it is taken.
    expires_at: Time,
}

/// What is sealed in the address: written by ingress alone.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    run: RunId,
    filename: String,
    content_type: Option<String>,
    bytes: u64,
    until: Timestamp,
}

/// Tells where a file goes.
pub(crate) async fn begin(
    ingress: &Ingress,
    webhook: &Webhook,
    context: &RequestContext,
    request: Request,
) -> Result<Response, Problem> {
    let Some(uploads) = webhook.trigger.uploads else {
        let detail = "This webhook takes no uploads; give its trigger {\"uploads\": {}}.";
        return Err(Problem::new(ProblemCode::NotFound, detail));
    };
    let admitted = admit(ingress, webhook, context, request, MAX_BODY_BYTES).await?;
    if admitted.mode == Mode::Off {
        return Err(switched_off());
    }
    let again = Request::from_parts(admitted.parts, axum::body::Body::from(admitted.bytes));
    let Json(BeginUpload { filename, content_type, bytes }) = Json::from_request(again, &()).await?;
    let field =
        |name: &str, detail: String| Problem::validation(vec![FieldError::new(Pointer::root().push(name), detail)]);
    if !(1..=uploads.max_bytes).contains(&bytes) {
        return Err(field("bytes", format!("must be 1 to {}, as the trigger's `uploads` say", uploads.max_bytes)));
    }
    let content_type = match content_type {
        Some(text) => {
            let known = body::canonical(&text);
            Some(known.ok_or_else(|| field("content_type", "must be a media type, such as \"image/png\"".to_owned()))?)
        }
        None => None,
    };
    let filename = body::safe_filename(&filename);

    let now = ingress.deps.clock.now();
    let run = ingress.deps.ids.run(webhook.head.tenant);
    let media_type = content_type.as_deref().unwrap_or("application/octet-stream");
    let link = ingress.deps.blobs.upload_link(&key(webhook, run, "0"), PUT_WITHIN, bytes, media_type).await?;
    let token = Token { run, filename, content_type, bytes, until: now + START_WITHIN };
    let start_url = format!("/api/webhooks/{}/uploads/{}", webhook.head.id, seal(ingress, webhook, &token).await?);
    let headers = link.headers.into_iter().collect();
    let upload = UploadRequest { method: link.method, url: link.url, headers, expires_at: (now + PUT_WITHIN).into() };
    Ok((StatusCode::CREATED, Json(Upload { upload, start_url, run_id: run })).into_response())
}

/// The run that an address starts, and the file that it starts with.
pub(crate) async fn started(ingress: &Ingress, webhook: &Webhook, token: &str) -> Result<(RunId, RunFile), Problem> {
    let Token { run, filename, content_type, bytes, until } = open(ingress, webhook, token).await?;
    if until < ingress.deps.clock.now() {
        let detail = "A run can be started with an upload for a day. Begin another upload.";
        return Err(Problem::new(ProblemCode::LinkInvalid, detail));
    }
    if ingress.deps.blobs.size(&key(webhook, run, "0")).await? != Some(bytes) {
        let detail =
            "The file isn't there yet. `PUT` it to the upload's `url` with its `headers`, then send this again.";
        return Err(Problem::new(ProblemCode::UploadMissing, detail));
    }
    Ok((run, RunFile { field: None, filename, content_type, bytes, path: path(run, "0") }))
}

/// Where a file of a run is stored.
pub(crate) fn key(webhook: &Webhook, run: RunId, name: &str) -> String {
    format!("{UPLOADS}/{}/{run}/{name}", webhook.head.tenant)
}

/// What names a file of a run in the run's steps.
pub(crate) fn path(run: RunId, name: &str) -> String {
    format!("upload:{run}/{name}")
}

async fn seal(ingress: &Ingress, webhook: &Webhook, token: &Token) -> Result<String, Problem> {
    let Some((number, wrapped)) = webhook.tenant.newest_ingress_key() else {
        let detail = "The organization's data key is from before uploads. Make a new one: POST /api/tenant/data-keys.";
        return Err(Problem::new(ProblemCode::Conflict, detail));
    };
    let (context, associated) = bound(webhook);
    let plain = serde_json::to_vec(token).map_err(|error| Problem::internal(&error))?;
    let sealed = ingress.deps.envelope.seal(wrapped, &context, associated.as_bytes(), &plain).await?;
    let sealed = STANDARD.decode(sealed).map_err(|error| Problem::internal(&error))?;
    Ok(format!("{number}.{}", URL_SAFE_NO_PAD.encode(sealed)))
}

/// What was sealed; whatever is wrong with the text, the answer is the same.
async fn open(ingress: &Ingress, webhook: &Webhook, token: &str) -> Result<Token, Problem> {
    let gone = || Problem::new(ProblemCode::LinkInvalid, "This is no upload's address, or another webhook's.");
    let (number, sealed) = token.split_once('.').filter(|_| token.len() <= MAX_TOKEN_BYTES).ok_or_else(gone)?;
    let wrapped = number.parse().ok().and_then(|number| webhook.tenant.ingress_key(number)).ok_or_else(gone)?;
    let sealed = STANDARD.encode(URL_SAFE_NO_PAD.decode(sealed).map_err(|_| gone())?);
    let (context, associated) = bound(webhook);
    match ingress.deps.envelope.open(wrapped, &context, associated.as_bytes(), &sealed).await {
        Ok(plain) => serde_json::from_slice(&plain).map_err(|error| Problem::internal(&error)),
        Err(error) if error.is_retryable() => Err(error.into()),
        Err(_) => Err(gone()),
    }
}

/// Keeps a token apart from other tenants', other workflows' and whatever else the key seals.
fn bound(webhook: &Webhook) -> (KeyContext, String) {
    (KeyContext::ingress(webhook.head.tenant), format!("upload#{}", webhook.head.id))
}
