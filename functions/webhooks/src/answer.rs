//! What a webhook answers once its run is stored: that it is, what the trigger says, or the run's output.

use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::Value;
use tidegate_http::{Accepted, Json, MAX_INPUT_BYTES, Problem, ProblemCode};
use tidegate_model::{Payload, Respond, RunDetail, RunId, RunStatus, TenantId, WebhookResponse, WebhookTrigger};
use tidegate_platform::PortError;
use tokio::time::Instant;

use crate::Ingress;

const RUN_ID: HeaderName = HeaderName::from_static("tidegate-run-id");
/// What a workflow answers may be a page; it has to be nobody else's (no scripts, an origin of its own).
const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// API Gateway waits 30 seconds for an answer.
const MAX_WAIT: Duration = Duration::from_secs(25);
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LAST_LOOK: Duration = Duration::from_secs(1);

/// The answer to a request whose run is stored.
pub(crate) async fn answer(
    ingress: &Ingress,
    trigger: &WebhookTrigger,
    tenant: TenantId,
    accepted: Accepted,
) -> Response {
    let run = accepted.run_id;
    let mut response = match trigger.respond {
        Respond::Immediately => at_once(trigger.response.as_ref(), accepted),
        Respond::WhenFinished => match finished(ingress, tenant, run).await {
            Ok(Some(output)) => chosen(trigger.response.as_ref(), output),
            Ok(None) => goes_on(accepted),
            Err(problem) => problem.into_response(),
        },
    };
    if let Ok(run) = HeaderValue::try_from(run.to_string()) {
        response.headers_mut().insert(RUN_ID, run);
    }
    response
}

fn at_once(response: Option<&WebhookResponse>, accepted: Accepted) -> Response {
    let has_body = !response.is_some_and(|response| matches!(response.status, 204 | 205));
    let body = match response.and_then(|response| response.body.clone()) {
        Some(body) => shown(body),
        None if has_body => Json(accepted).into_response(),
        None => ().into_response(),
    };
    chosen(response, body)
}

/// A value as a body: a text as it is, anything else as JSON.
fn shown(value: Value) -> Response {
    match value {
        Value::String(text) => ([(CONTENT_TYPE, TEXT)], text).into_response(),
        value => Json(value).into_response(),
    }
}

/// The body with the status and headers that the trigger chose.
fn chosen(response: Option<&WebhookResponse>, mut body: Response) -> Response {
    body.headers_mut().insert(CONTENT_SECURITY_POLICY, SANDBOX);
    let Some(response) = response else { return body };
    *body.status_mut() = StatusCode::from_u16(response.status).unwrap_or_default();
    for (name, value) in &response.headers {
        // They were checked when the workflow was saved.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            body.headers_mut().insert(name, value);
        }
    }
    body
}

fn goes_on(accepted: Accepted) -> Response {
    let location = format!("/api/runs/{}", accepted.run_id);
    (StatusCode::ACCEPTED, [(LOCATION, location)], Json(accepted)).into_response()
}

/// A run's output as a body, once it has ended; none where that takes too long, or is too large to be answered.
async fn finished(ingress: &Ingress, tenant: TenantId, run: RunId) -> Result<Option<Response>, Problem> {
    let end = Instant::now() + MAX_WAIT;
    let mut wait = FIRST_LOOK;
    loop {
        let next = Instant::now() + wait;
        if next > end {
            return Ok(None);
        }
        tokio::time::sleep_until(next).await;
        wait = (wait * 2).min(LAST_LOOK);
        let stored = match ingress.deps.store.runs().get(tenant, run).await {
            Ok(stored) => stored,
            // The run goes on, whether it can be looked at or not.
            Err(error) => return unseen(&error),
        };
        let Some(stored) = stored.filter(|stored| stored.row.status.is_final()) else { continue };
        if stored.row.status != RunStatus::Succeeded {
            let detail =
                format!("The run {run} has not succeeded. Whoever may read it finds out why at /api/runs/{run}.");
            return Err(Problem::new(ProblemCode::RunFailed, detail));
        }
        let output = match output(ingress, stored.detail).await {
            Ok(output) => output,
            Err(error) => return unseen(&error),
        };
        return Ok(output.map(shown));
    }
}

/// A run whose end can't be looked at is as one that takes long: the sender must not take it for a failure, and send again.
fn unseen(error: &(dyn std::error::Error + 'static)) -> Result<Option<Response>, Problem> {
    tracing::warn!(component = "webhooks", error, "a run's output can't be answered");
    Ok(None)
}

/// What a run yields; none where it is too large to be answered.
async fn output(ingress: &Ingress, detail: Option<Payload>) -> Result<Option<Value>, Unreadable> {
    let Some(detail) = read(ingress, detail).await? else { return Ok(None) };
    let detail: RunDetail = serde_json::from_value(detail)?;
    read(ingress, Some(detail.output.unwrap_or(Payload::Inline(Value::Null)))).await
}

/// Why a run's output can't be had.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("it is no JSON")]
    Json(#[from] serde_json::Error),
    #[error("the blobs are away")]
    Blobs(#[from] PortError),
}

async fn read(ingress: &Ingress, payload: Option<Payload>) -> Result<Option<Value>, Unreadable> {
    match payload {
        None => Ok(None),
        Some(Payload::Inline(value)) => Ok(Some(value)),
        Some(Payload::Blob(blob)) if blob.bytes > MAX_INPUT_BYTES as u64 => Ok(None),
        Some(Payload::Blob(blob)) => match ingress.deps.blobs.get(&blob.key).await? {
            Some(bytes) => Ok(serde_json::from_slice(&bytes)?),
            None => Ok(None),
        },
    }
}
