//! Runs: one small row each under `run#{tenant}#{shard}` / run id, and while a run is under way the journal it has
//! stored so far and what has reached it from outside. Every write is conditional on the state that the writer knows, so of two workers one wins.

mod cancel;
mod journal;
mod list;
mod row;
mod signals;

use aws_sdk_dynamodb::types::AttributeValue;
use tidegate_model::{Payload, RunId, RunRow, TenantId};

use crate::items::{Item, key, number};
use crate::write::{Condition, Outcome};
use crate::{Error, Store};

pub use cancel::Cancel;
pub use journal::{Journal, JournalItem};
pub use list::RunFilter;
pub use signals::StoredSignal;

const REPLACE: &str = "replace run";

/// Runs and their journals.
#[derive(Debug, Clone, Copy)]
pub struct Runs<'a>(pub(crate) &'a Store);

/// A run's row as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRun {
    /// The row; its times are cut to the millisecond.
    pub row: RunRow,
    /// What was stored with it: a final run's `RunDetail`, inline or in a blob.
    pub detail: Option<Payload>,
}

/// Why a run's first row was not written.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The run has a row already.
    #[error("create run: the run exists")]
    Exists(Box<StoredRun>),
    /// The store failed; the row may have been written or not.
    #[error(transparent)]
    Store(#[from] Error),
}

/// Why a run's row was not replaced.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    /// The row is not as expected: here is what is stored. `None`: there is no row.
    #[error("replace run: the stored run is not the expected one")]
    Conflict(Option<Box<StoredRun>>),
    /// The store failed; the row may have been written or not.
    #[error(transparent)]
    Store(#[from] Error),
}

impl Runs<'_> {
    /// Writes a run's first row: one write, no read. `row.lease_owner` must be unique for this claim, so that a
    /// repetition knows its own row.
    ///
    /// # Errors
    /// [`CreateError::Exists`] with what is stored; the database is away.
    pub async fn create(&self, row: &RunRow, detail: Option<&Payload>) -> Result<(), CreateError> {
        const OPERATION: &str = "create run";
        let item = || row::to_item(OPERATION, row, detail, self.0.inner.retention);
        match self.0.put(OPERATION, self.0.history_table(), item, Condition::Absent).await? {
            Outcome::Written => Ok(()),
            Outcome::Refused(Some(stored)) => Err(CreateError::Exists(Box::new(row::from_item(OPERATION, &stored)?))),
            Outcome::Refused(None) => Err(Error::Conflict { operation: OPERATION }.into()),
        }
    }

    /// Replaces a run's row where the stored one has the fence, the status and the lease owner of `expected`: one
    /// write, no read. What was stored with the former row goes; `detail` takes its place. A final row expires by the
    /// store's retention, counted from `row.finished_at`.
    ///
    /// A request to cancel is never lost: a row that is neither final nor says `cancel_requested` doesn't replace one that
    /// does.
    ///
    /// # Errors
    /// [`ReplaceError::Conflict`] with what is stored; the database is away.
    pub async fn replace(&self, expected: &RunRow, row: &RunRow, detail: Option<&Payload>) -> Result<(), ReplaceError> {
        if !row.status.is_final() && !row.cancel_requested {
            return self.replace_unless_cancelled(expected, row, detail).await;
        }
        self.put_row(Condition::Equals(as_expected(expected)?), row, detail).await
    }

    /// As [`Runs::replace`], where nobody has asked for the run to be cancelled, whatever `row` says.
    ///
    /// # Errors
    /// [`ReplaceError::Conflict`] with what is stored; the database is away.
    pub async fn replace_unless_cancelled(
        &self,
        expected: &RunRow,
        row: &RunRow,
        detail: Option<&Payload>,
    ) -> Result<(), ReplaceError> {
        let condition = Condition::EqualsWithout(as_expected(expected)?, row::CANCEL_REQUESTED);
        self.put_row(condition, row, detail).await
    }

    async fn put_row(&self, condition: Condition, row: &RunRow, detail: Option<&Payload>) -> Result<(), ReplaceError> {
        let item = || row::to_item(REPLACE, row, detail, self.0.inner.retention);
        match self.0.put(REPLACE, self.0.history_table(), item, condition).await? {
            Outcome::Written => Ok(()),
            Outcome::Refused(stored) => {
                let stored = stored.map(|stored| row::from_item(REPLACE, &stored)).transpose()?;
                Err(ReplaceError::Conflict(stored.map(Box::new)))
            }
        }
    }

    /// A tenant's run, if it has a row.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn get(&self, tenant: TenantId, id: RunId) -> Result<Option<StoredRun>, Error> {
        const OPERATION: &str = "read run";
        let found = self.0.read(OPERATION, self.0.history_table(), run_key(tenant, id)).await?;
        found.map(|item| row::from_item(OPERATION, &item)).transpose()
    }
}

fn as_expected(expected: &RunRow) -> Result<Vec<(&'static str, AttributeValue)>, Error> {
    Ok(vec![
        (row::FENCE, number(expected.fence)),
        (row::STATUS, AttributeValue::S(row::name(REPLACE, row::STATUS, &expected.status)?)),
        (row::OWNER, AttributeValue::S(expected.lease_owner.clone())),
    ])
}

fn run_key(tenant: TenantId, id: RunId) -> Item {
    key(partition(tenant, id.shard()), id)
}

fn partition(tenant: TenantId, shard: u8) -> String {
    format!("run#{tenant}#{shard}")
}
