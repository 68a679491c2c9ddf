//! A run: its small row, and the record of its steps.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ParentStep, Payload, RunId, StepError, TenantId, TriggerInput, TriggerKind, WorkflowId};

/// Where a run or a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Accepted, not yet claimed by a worker.
    Queued,
    /// A worker holds it.
    Running,
    /// Parked until a time comes, somebody decides or a called workflow ends.
    Waiting,
    /// All steps succeeded, were skipped, or failed without stopping the run.
    Succeeded,
    /// A step failed for good.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
    /// It took longer than its `execution_timeout`.
    TimedOut,
    /// A step that did not run, because no branch led to it or the run was over before. Runs never have it.
    Skipped,
}

impl RunStatus {
    /// Whether nothing can change any more.
    pub fn is_final(self) -> bool {
        match self {
            RunStatus::Succeeded
            | RunStatus::Failed
            | RunStatus::Cancelled
            | RunStatus::TimedOut
            | RunStatus::Skipped => true,
            RunStatus::Queued | RunStatus::Running | RunStatus::Waiting => false,
        }
    }
}

/// A run's row: small, written when it is claimed, parked and finished.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRow {
    /// The run's id.
    pub id: RunId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What runs; [`WorkflowId::UNKNOWN`] where the run was cancelled before a worker took it.
    pub workflow: WorkflowId,
    /// In which version.
    pub version: u32,
    /// What started it.
    pub trigger: TriggerKind,
    /// Where it is; never `Queued` or `Skipped`.
    pub status: RunStatus,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When it was first claimed.
    pub started_at: Timestamp,
    /// When it became final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// How often it was claimed; only the holder of the last one may write.
    pub fence: u32,
    /// Until when the holder's claim lasts.
    pub lease_until: Timestamp,
    /// The process that holds it. Where one process owns the data folder, leases of others are over.
    pub lease_owner: String,
    /// Claims since the journal last told of an attempt's end.
    pub claims: u32,
    /// The journal's length when it was last claimed.
    pub journal_length: u32,
    /// Number of its current or last parking, 0 before the first.
    pub wake: u32,
    /// When the current parking ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake_at: Option<Timestamp>,
    /// W3C trace context that it started under.
    pub traceparent: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepError>,
    /// Which step failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_step: Option<String>,
    /// Whether somebody asked for it to be cancelled while a worker holds it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancel_requested: bool,
    /// The step of another run that waits for this one's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentStep>,
}

/// A final run's input and steps; folded into the row where small, else a blob.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunDetail {
    /// What started it; `None` where the run's message was never understood.
    pub trigger: Option<TriggerInput>,
    /// The steps in the definition's order.
    pub steps: Vec<StepRecord>,
    /// What the run yields, where its definition says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Payload>,
}

/// What happened in one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The step's id.
    pub id: String,
    /// The action it calls.
    pub uses: String,
    /// Where it is.
    pub status: RunStatus,
    /// Input of the last attempt, expressions filled in. Absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Payload>,
    /// What it yielded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Payload>,
    /// At which outlet the run went on, for a step that branches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlet: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepError>,
    /// Every attempt, in order; a step with a list has them in its items.
    pub attempts: Vec<Attempt>,
    /// What happened for each item, in a step with a list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<ItemRecord>,
}

/// What happened for one item of a step's list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemRecord {
    /// Its position in the list, from 0.
    pub index: u32,
    /// Where it is.
    pub status: RunStatus,
    /// Input of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Payload>,
    /// What it yielded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Payload>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepError>,
    /// Every attempt, in order.
    pub attempts: Vec<Attempt>,
}

/// One attempt at a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When its outcome was known; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
    /// Milliseconds from the one to the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i64>,
    /// Why it failed; absent when it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepError>,
    /// The worker died during it, so whether the call took effect is unknown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
}
