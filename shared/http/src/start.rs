//! How a request starts a run: its input on durable storage, its message in the run queue, and only then the answer.

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use tidegate_model::{
    BlobRef, INLINE_LIMIT_BYTES, Message, Payload, RunId, StartMessage, TenantId, TriggerInput, TriggerKind,
    WebhookRequest, WorkflowId,
};
use tidegate_platform::queue::OutgoingMessage;
use tidegate_platform::{Blobs, Queue, blobs};
use utoipa::ToSchema;

use crate::{Problem, RequestContext};

/// How large the body of a request that starts a run may be.
pub const MAX_INPUT_BYTES: usize = 4 * 1024 * 1024;

/// An accepted run.
#[derive(Debug, Serialize, ToSchema)]
pub struct Accepted {
    /// `accepted`: the run is on durable storage, and will be executed whatever happens to this process. `duplicate`, from a
    /// webhook alone: it was so before.
    #[schema(examples("accepted"))]
    pub status: &'static str,
    /// The run's id, for `GET /api/runs/{id}`.
    pub run_id: RunId,
}

impl Accepted {
    /// The status of what is new.
    pub const ACCEPTED: &str = "accepted";
    /// The status of what came again.
    pub const DUPLICATE: &str = "duplicate";
}

/// A run that a request starts.
#[derive(Debug)]
pub struct Start {
    /// The run's id.
    pub run_id: RunId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What runs.
    pub workflow: WorkflowId,
    /// In which version.
    pub version: u32,
    /// What kind of trigger the request is.
    pub kind: TriggerKind,
    /// The media type of a webhook's body.
    pub content_type: Option<String>,
    /// The rest of a webhook's request.
    pub request: Option<Box<WebhookRequest>>,
    /// What the request brought.
    pub body: StartBody,
    /// The parameters that were given.
    pub parameters: Map<String, Value>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// What a large body's blob is called. A start that may be the repetition of another needs a name of its own, so that
    /// it changes nothing of a run that has begun.
    pub blob: String,
}

impl Start {
    /// What the blob of a run that is started once is called.
    pub const BLOB: &str = "input";
}

/// The trigger's body.
#[derive(Debug, PartialEq)]
pub enum StartBody {
    /// A value.
    Value(Value),
    /// The text of a JSON value that is larger than stays in a message.
    Large(Bytes),
}

impl Start {
    /// Puts the run on durable storage: a body over 8 KB as a blob, the rest as a message of the run queue, in the
    /// request's trace. Once this returns the run will be executed.
    ///
    /// # Errors
    /// Queue or blobs are away; nothing was accepted, although the run may be executed where only the answer was lost.
    pub async fn send(
        self,
        queue: &dyn Queue,
        blobs: &dyn Blobs,
        context: &RequestContext,
    ) -> Result<Accepted, Problem> {
        let Self {
            run_id,
            tenant,
            workflow,
            version,
            kind,
            content_type,
            request,
            body,
            parameters,
            accepted_at,
            blob,
        } = self;
        context.record("run_id", run_id);
        let (body, bytes) = place(body, || format!("{}/{tenant}/{run_id}/{blob}", blobs::LIVE))?;
        if let (Payload::Blob(at), Some(bytes)) = (&body, bytes) {
            blobs.put(&at.key, bytes).await?;
        }
        let message = Message::Start(Box::new(StartMessage {
            run_id,
            tenant_id: tenant,
            workflow_id: workflow,
            version,
            trigger: TriggerInput { kind, content_type, request, body, parameters },
            accepted_at,
            traceparent: context.traceparent(),
            parent: None,
        }));
        let text = serde_json::to_string(&message).map_err(|error| Problem::internal(&error))?;
        // A blob is left behind where this fails: the message may be in the queue although its answer was lost.
        let trace = Some(context.trace.to_xray());
        queue.send(OutgoingMessage { trace, ..OutgoingMessage::new(tenant, text) }).await?;
        Ok(Accepted { status: Accepted::ACCEPTED, run_id })
    }
}

/// A small value stays in the message; a large one becomes a blob, whose bytes come along.
fn place(body: StartBody, key: impl FnOnce() -> String) -> Result<(Payload, Option<Bytes>), Problem> {
    let text = match body {
        StartBody::Large(text) => text,
        StartBody::Value(value) => {
            let text = serde_json::to_vec(&value).map_err(|error| Problem::internal(&error))?;
            if text.len() <= INLINE_LIMIT_BYTES {
                return Ok((Payload::Inline(value), None));
            }
            text.into()
        }
    };
    Ok((Payload::Blob(BlobRef { key: key(), bytes: text.len() as u64 }), Some(text)))
}
