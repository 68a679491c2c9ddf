//! What lies in the run queue.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Payload, RunId, TenantId, WebhookRequest, WorkflowId};

/// A message of the run queue; JSON with a `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Message {
    /// An accepted run that nobody has claimed yet.
    Start(Box<StartMessage>),
    /// Time to go on with a parked run.
    Wake(WakeMessage),
    /// A schedule fired; the worker makes a start of it.
    Schedule(ScheduleMessage),
    /// Time to remove timers whose workflow wants none any more.
    Reconcile(ReconcileMessage),
}

impl Message {
    /// Whose message it is; [`TenantId::NONE`] for the installation's own.
    pub fn tenant(&self) -> TenantId {
        match self {
            Self::Start(start) => start.tenant_id,
            Self::Wake(wake) => wake.tenant_id,
            Self::Schedule(firing) => firing.tenant_id,
            Self::Reconcile(_) => TenantId::NONE,
        }
    }
}

/// Everything a run starts from, so that its row needn't exist before it is claimed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartMessage {
    /// The run's id, given out to the caller.
    pub run_id: RunId,
    /// Whose run it is.
    pub tenant_id: TenantId,
    /// The workflow that runs.
    pub workflow_id: WorkflowId,
    /// The version of the workflow that was current when the run was accepted.
    pub version: u32,
    /// What started it.
    pub trigger: TriggerInput,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// W3C trace context of the request that started it.
    pub traceparent: String,
    /// The step that waits for this run's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentStep>,
}

/// The step of another run that started this one and waits for its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentStep {
    /// That run.
    pub run_id: RunId,
    /// The step's id.
    pub step: String,
    /// Which item of the step's list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
    /// How many calls deep this run is: 1 for one that is called by a run that nobody called.
    pub depth: u32,
    /// How many runs this one may cause, directly and by those that it calls.
    pub may_cause: u32,
    /// Whether a run that handles a failure called it, or one that such a run called: then its own failure starts no
    /// handler, or two workflows could handle each other for ever.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub handles_failure: bool,
}

/// Wakes the run's `wake`-th parking, and no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeMessage {
    /// The run to go on with.
    pub run_id: RunId,
    /// Whose run it is.
    pub tenant_id: TenantId,
    /// Which of the run's parkings this ends; the first is 1.
    pub wake: u32,
}

/// A schedule's firing. The run's id is derived from the workflow, the schedule and the time, so that a firing that is
/// delivered twice is one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleMessage {
    /// Whose schedule it is.
    pub tenant_id: TenantId,
    /// The workflow to run, in its current version.
    pub workflow_id: WorkflowId,
    /// The firing's time as the scheduler planned it (RFC 3339).
    pub scheduled_time: String,
}

/// Looks at a page of all timers, and sends itself on with the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconcileMessage {
    /// Where the page begins; the first without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// What started a run and what it brought.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TriggerInput {
    /// What kind of trigger it was.
    #[serde(rename = "type")]
    pub kind: TriggerKind,
    /// The media type of a webhook's body, without parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The rest of a webhook's request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Box<WebhookRequest>>,
    /// The body: an object for JSON objects and forms, a string for text, base64 text for other bytes.
    pub body: Payload,
    /// The parameters that were given.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
}

/// The kinds of triggers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TriggerKind {
    /// A request to the workflow's webhook URL.
    Webhook,
    /// The workflow's schedule.
    Schedule,
    /// A request to the workflow's `trigger`.
    Manual,
    /// A step of another run.
    Workflow,
    /// Another run's failure.
    Failure,
}
