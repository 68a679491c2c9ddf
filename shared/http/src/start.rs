//! How a request starts a run: its input on durable storage, its message in the run queue, and only then the answer.

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use tidegate_model::{
    BlobRef, INLINE_LIMIT_BYTES, Message, Payload, RunId, StartMessage, TenantId, TriggerInput, TriggerKind, WorkflowId,
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
    /// Always `accepted`: the run is on durable storage, and will be executed whatever happens to this process.
    #[schema(examples("accepted"))]
    status: &'static str,
    /// The run's id, for `GET /api/runs/{id}`.
    pub run_id: RunId,
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
    /// What the request brought.
    pub body: StartBody,
    /// The parameters that were given.
    pub parameters: Map<String, Value>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
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
        let Self { run_id, tenant, workflow, version, kind, content_type, body, parameters, accepted_at } = self;
        context.record("run_id", run_id);
        let (body, blob) = place(body, || format!("{}/{tenant}/{run_id}/input", blobs::LIVE))?;
        if let (Payload::Blob(at), Some(bytes)) = (&body, blob) {
            blobs.put(&at.key, bytes).await?;
        }
        let message = Message::Start(Box::new(StartMessage {
            run_id,
            tenant_id: tenant,
            workflow_id: workflow,
            version,
            trigger: TriggerInput { kind, content_type, body, parameters },
            accepted_at,
            traceparent: context.traceparent(),
            parent: None,
        }));
        let text = serde_json::to_string(&message).map_err(|error| Problem::internal(&error))?;
        // A blob is left behind where this fails: the message may be in the queue although its answer was lost.
        let trace = Some(context.trace.to_xray());
        queue.send(OutgoingMessage { trace, ..OutgoingMessage::new(tenant, text) }).await?;
        Ok(Accepted { status: "accepted", run_id })
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
