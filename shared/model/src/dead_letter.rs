//! A run that was given up, kept with what it started from, so that it can be started again.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ErrorCode, Payload, RunId, TenantId, WorkflowId};

/// A run that no worker could bring to an end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The run.
    pub id: RunId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The workflow that it ran.
    pub workflow: WorkflowId,
    /// Why it was given up.
    pub code: ErrorCode,
    /// The same in words; never a secret.
    pub message: String,
    /// How often its message was received.
    pub receive_count: u32,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When it was given up.
    pub given_up_at: Timestamp,
    /// The `StartMessage` that it started from, as JSON.
    pub start: Payload,
    /// Under which id it was started again, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redriven: Option<Redriven>,
}

/// That a dead letter was started again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redriven {
    /// The new run.
    pub run_id: RunId,
    /// When.
    pub at: Timestamp,
}
