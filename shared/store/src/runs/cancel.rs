//! Cancelling: what it does depends on where the run is, and the run may move at the same time, so the attempt is made
//! again on what is stored by then.

use std::hash::{BuildHasher, Hasher};

use jiff::Timestamp;
use tidegate_model::{ErrorCode, RunId, RunRow, RunStatus, StepError, TenantId, TriggerKind, WorkflowId};

use super::{CreateError, ReplaceError, Runs};
use crate::Error;

/// How often a run may move on between our look and our write.
const MAX_ATTEMPTS: u32 = 8;

/// What a cancellation did.
#[derive(Debug, Clone, PartialEq)]
pub enum Cancel {
    /// No worker had taken the run, and none will: it has a final row now, without a workflow and without a detail.
    Unclaimed(RunRow),
    /// The run was waiting and is final now, without a detail. Its parking `wake` has to be woken, so that a worker
    /// folds the journal into the row; `wake_at` stays, because it tells which timer that parking has armed.
    Final(RunRow),
    /// A worker holds the run, and will see that it is asked to end it.
    Requested(RunRow),
    /// The run was over already.
    AlreadyFinal(RunRow),
}

impl Cancel {
    /// The row as it is stored now.
    pub fn row(&self) -> &RunRow {
        match self {
            Self::Unclaimed(row) | Self::Final(row) | Self::Requested(row) | Self::AlreadyFinal(row) => row,
        }
    }
}

impl Runs<'_> {
    /// Cancels a run of the tenant wherever it is. Whether an id without a row was ever given out is the caller's to
    /// know: it gets a row.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where the run moved on at every attempt; the database is away, or the row is unreadable.
    pub async fn cancel(&self, tenant: TenantId, id: RunId, now: Timestamp) -> Result<Cancel, Error> {
        const OPERATION: &str = "cancel run";
        let mut found = self.get(tenant, id).await?;
        for _ in 0..MAX_ATTEMPTS {
            let Some(stored) = found else {
                let row = tombstone(tenant, id, now);
                match self.create(&row, None).await {
                    Ok(()) => return Ok(Cancel::Unclaimed(row)),
                    Err(CreateError::Exists(stored)) => found = Some(*stored),
                    Err(CreateError::Store(error)) => return Err(error),
                }
                continue;
            };
            let former = stored.row;
            let (row, detail) = match former.status {
                RunStatus::Waiting => {
                    let error = Some(cancelled());
                    let over = RunRow { status: RunStatus::Cancelled, finished_at: Some(now), error, ..former.clone() };
                    (over, None)
                }
                RunStatus::Queued | RunStatus::Running if former.cancel_requested => {
                    return Ok(Cancel::Requested(former));
                }
                RunStatus::Queued | RunStatus::Running => {
                    (RunRow { cancel_requested: true, ..former.clone() }, stored.detail)
                }
                RunStatus::Succeeded
                | RunStatus::Failed
                | RunStatus::Cancelled
                | RunStatus::TimedOut
                | RunStatus::Skipped => return Ok(Cancel::AlreadyFinal(former)),
            };
            match self.replace(&former, &row, detail.as_ref()).await {
                Ok(()) if row.status.is_final() => return Ok(Cancel::Final(row)),
                Ok(()) => return Ok(Cancel::Requested(row)),
                Err(ReplaceError::Conflict(stored)) => found = stored.map(|stored| *stored),
                Err(ReplaceError::Store(error)) => return Err(error),
            }
        }
        let source = "the run moved on at every attempt".into();
        Err(Error::Unavailable { operation: OPERATION, source })
    }
}

/// The row of a run that no worker has taken: all that is known of it is its id.
fn tombstone(tenant: TenantId, id: RunId, now: Timestamp) -> RunRow {
    // Different for every call, so that of two that meet each knows its own row.
    let unique = std::hash::RandomState::new().build_hasher().finish();
    RunRow {
        id,
        tenant,
        workflow: WorkflowId::UNKNOWN,
        version: 0,
        trigger: TriggerKind::Manual,
        status: RunStatus::Cancelled,
        accepted_at: id.timestamp(),
        started_at: now,
        finished_at: Some(now),
        fence: 0,
        lease_until: now,
        lease_owner: format!("cancel/{unique:016x}"),
        claims: 0,
        journal_length: 0,
        wake: 0,
        wake_at: None,
        traceparent: String::new(),
        error: Some(cancelled()),
        failed_step: None,
        cancel_requested: false,
        parent: None,
    }
}

fn cancelled() -> StepError {
    StepError::terminal(ErrorCode::Cancelled, "the run was cancelled")
}
