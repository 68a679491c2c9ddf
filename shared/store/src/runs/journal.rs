//! Journals: `journal#{tenant}#{run}` / position; beside the positions lies what reached the run from outside. Items are only ever appended, so that a long run doesn't pay for its
//! past at every checkpoint. When the run is final its row tells what they told; they expire by themselves, a retention
//! after the run's latest possible end, which is later than any message of a run that is not final can still come.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_model::{Entry, RunId, TenantId, TriggerInput};

use super::Runs;
use super::signals::{self, StoredSignal};
use crate::Error;
use crate::items::{SK, document, expiry, row, string, text};
use crate::tables::TTL;
use crate::write::{Condition, Outcome};

/// What one checkpoint stores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalItem {
    /// What started the run; in the first item, because the message that brought it is gone when the run resumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<TriggerInput>,
    /// What has happened since the item before, in order.
    pub entries: Vec<Entry>,
}

/// A run's journal, and what reached the run from outside.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Journal {
    /// The items in order.
    pub items: Vec<JournalItem>,
    /// What waiting steps have heard so far, decided approvals included.
    pub signals: Vec<StoredSignal>,
}

impl Runs<'_> {
    /// Appends to a run's journal at a position that nobody has written yet; one write, no read. `latest_end`: when the
    /// run is final at the latest.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the position is taken by something else: the writer's lease is over and another worker
    /// goes on. [`Error::Refused`] for an item over 400 KB.
    pub async fn append_journal(
        &self,
        tenant: TenantId,
        id: RunId,
        position: u32,
        journal: &JournalItem,
        latest_end: Timestamp,
    ) -> Result<(), Error> {
        const OPERATION: &str = "append to journal";
        let item = || {
            let mut item = row(OPERATION, partition(tenant, id), sort(position), journal)?;
            item.insert(TTL.to_owned(), expiry(latest_end, self.0.inner.retention));
            Ok(item)
        };
        match self.0.put(OPERATION, self.0.history_table(), item, Condition::Absent).await? {
            Outcome::Written => Ok(()),
            Outcome::Refused(_) => Err(Error::Conflict { operation: OPERATION }),
        }
    }

    /// A run's journal and signals, in one query; empty where there are none.
    ///
    /// # Errors
    /// The database is away, or an item is unreadable.
    pub async fn journal(&self, tenant: TenantId, id: RunId) -> Result<Journal, Error> {
        const OPERATION: &str = "read journal";
        let items = self.0.read_partition(OPERATION, self.0.history_table(), text(partition(tenant, id))).await?;
        let mut journal = Journal::default();
        for item in &items {
            if string(OPERATION, item, SK)?.starts_with(signals::PREFIX) {
                journal.signals.extend(signals::heard(OPERATION, item)?);
            } else {
                journal.items.push(document(OPERATION, item)?);
            }
        }
        Ok(journal)
    }
}

pub(super) fn partition(tenant: TenantId, id: RunId) -> String {
    format!("journal#{tenant}#{id}")
}

fn sort(position: u32) -> String {
    format!("{position:010}")
}
