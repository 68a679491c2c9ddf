//! A run's journal: what has happened in it, in order. The engine decides from it alone.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Payload;

/// One thing that happened to a step. What is in the stored journal is *finished*: it is never done again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The step's id.
    pub step: String,
    /// Which item of the step's list, from 0; none where it has no list, or for the step as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// When.
    pub at: Timestamp,
    /// What.
    pub event: Event,
}

/// What happened to a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// The step with a list runs for so many items.
    Expanded {
        /// How many.
        items: u32,
    },
    /// A call is about to be made, or a wait begins. A call without a later entry for its attempt is in doubt.
    Started {
        /// The input with its expressions filled in; secrets are not part of it.
        input: Payload,
    },
    /// The attempt succeeded.
    Succeeded {
        /// What it yields.
        output: Payload,
        /// At which outlet the run goes on, for a step that branches.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        outlet: Option<String>,
    },
    /// The attempt failed, or the step failed before a call could be made (then no `Started` precedes it).
    Failed {
        /// Why.
        error: StepError,
    },
    /// The worker died during the attempt: whether the call took effect is unknown.
    Interrupted {
        /// Whether the call may be made twice: it only reads, or its target honours the idempotency key.
        repeatable: bool,
    },
}

/// Why a step or a run failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StepError {
    /// The kind of failure.
    pub code: ErrorCode,
    /// What went wrong, where, and what to do; never a secret.
    pub message: String,
    /// Whether another attempt may help.
    pub retryable: bool,
    /// How long the target asked to be left alone (`Retry-After`), in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl StepError {
    /// A failure that another attempt would only repeat.
    pub fn terminal(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retryable: false, retry_after_ms: None }
    }

    /// A failure that may pass.
    pub fn retryable(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retryable: true, retry_after_ms: None }
    }
}

/// The kinds of failure of a step or a run. `docs/errors/` has a page for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// An expression named a value that is not there, or could not be evaluated.
    ExpressionFailed,
    /// The filled-in input does not fit the action.
    InputInvalid,
    /// The connection is gone, of another connector, or can't be opened.
    ConnectionUnusable,
    /// The target's address is not one that Tidegate may call.
    EgressDenied,
    /// No connection to the target, or it broke.
    ConnectFailed,
    /// The target did not answer within the step's timeout.
    StepTimeout,
    /// The target's answer was larger than allowed or not what its interface promises.
    ResponseInvalid,
    /// The target answered that it failed.
    TargetFailed,
    /// The target asked for fewer calls.
    RateLimited,
    /// The target didn't answer several calls in a row and isn't called for a while.
    CircuitOpen,
    /// The worker died during the call and the step says `on_interrupted: fail`.
    Interrupted,
    /// The run took longer than the workflow's `execution_timeout`.
    ExecutionTimeout,
    /// Workers died five times on this run without progress.
    WorkerCrashed,
    /// The run's message could not be handled and ended in the dead-letter queue.
    DeadLettered,
    /// The workflow's version is gone.
    WorkflowGone,
    /// The workflow that the step called did not succeed, or could not be called.
    CalledWorkflowFailed,
    /// Nobody decided within the approval's timeout.
    ApprovalTimedOut,
    /// Somebody cancelled the run.
    Cancelled,
    /// A fault of Tidegate itself; the log has its cause.
    Internal,
}

impl ErrorCode {
    /// Every code there is.
    pub const ALL: &'static [ErrorCode] = &[
        ErrorCode::ExpressionFailed,
        ErrorCode::InputInvalid,
        ErrorCode::ConnectionUnusable,
        ErrorCode::EgressDenied,
        ErrorCode::ConnectFailed,
        ErrorCode::StepTimeout,
        ErrorCode::ResponseInvalid,
        ErrorCode::TargetFailed,
        ErrorCode::RateLimited,
        ErrorCode::CircuitOpen,
        ErrorCode::Interrupted,
        ErrorCode::ExecutionTimeout,
        ErrorCode::WorkerCrashed,
        ErrorCode::DeadLettered,
        ErrorCode::WorkflowGone,
        ErrorCode::CalledWorkflowFailed,
        ErrorCode::ApprovalTimedOut,
        ErrorCode::Cancelled,
        ErrorCode::Internal,
    ];
}
