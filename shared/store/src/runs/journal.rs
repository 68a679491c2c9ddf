//! Journals: `journal#{tenant}#{run}` / position. Items are only ever appended, so that a long run doesn't pay for its
//! past at every checkpoint, and deleted when the run is final, whose row then holds what they told.

use std::ops::Range;
use std::time::Duration;

use aws_sdk_dynamodb::types::{DeleteRequest, WriteRequest};
use serde::{Deserialize, Serialize};
use tidegate_model::{Entry, RunId, TenantId, TriggerInput};

use super::Runs;
use crate::Error;
use crate::items::{document, key, row, text};
use crate::write::{Condition, Outcome};

/// DynamoDB's limit of one batch of writes.
const BATCH: usize = 25;
const MAX_BATCH_ATTEMPTS: u32 = 8;
const FIRST_BATCH_DELAY: Duration = Duration::from_millis(10);

/// What one checkpoint stores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalItem {
    /// What started the run; in the first item, because the message that brought it is gone when the run resumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<TriggerInput>,
    /// What has happened since the item before, in order.
    pub entries: Vec<Entry>,
}

impl Runs<'_> {
    /// Appends to a run's journal at a position that nobody has written yet; one write, no read.
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
    ) -> Result<(), Error> {
        const OPERATION: &str = "append to journal";
        let item = || row(OPERATION, partition(tenant, id), sort(position), journal);
        match self.0.put(OPERATION, self.0.history_table(), item, Condition::Absent).await? {
            Outcome::Written => Ok(()),
            Outcome::Refused(_) => Err(Error::Conflict { operation: OPERATION }),
        }
    }

    /// A run's journal in order; empty where there is none.
    ///
    /// # Errors
    /// The database is away, or an item is unreadable.
    pub async fn journal(&self, tenant: TenantId, id: RunId) -> Result<Vec<JournalItem>, Error> {
        const OPERATION: &str = "read journal";
        let items = self.0.read_partition(OPERATION, self.0.history_table(), text(partition(tenant, id))).await?;
        items.iter().map(|item| document(OPERATION, item)).collect()
    }

    /// Deletes items of a final run's journal; they never expire by themselves. To be repeated until it succeeds.
    ///
    /// # Errors
    /// The database is away.
    pub async fn clear_journal(&self, tenant: TenantId, id: RunId, positions: Range<u32>) -> Result<(), Error> {
        const OPERATION: &str = "clear journal";
        let table = self.0.history_table();
        let requests = positions
            .map(|position| {
                let delete = DeleteRequest::builder().set_key(Some(key(partition(tenant, id), sort(position)))).build();
                let delete = delete.map_err(|source| Error::Refused { operation: OPERATION, source: source.into() })?;
                Ok(WriteRequest::builder().delete_request(delete).build())
            })
            .collect::<Result<Vec<_>, Error>>()?;
        for batch in requests.chunks(BATCH) {
            let mut left = batch.to_vec();
            let mut delay = FIRST_BATCH_DELAY;
            for attempt in 1.. {
                let request = self.0.client().batch_write_item().request_items(table, left);
                let done = request.send().await.map_err(|error| Error::from_sdk(OPERATION, error))?;
                left = done.unprocessed_items.and_then(|mut tables| tables.remove(table)).unwrap_or_default();
                if left.is_empty() {
                    break;
                }
                if attempt == MAX_BATCH_ATTEMPTS {
                    let source = format!("{} items were left unprocessed", left.len()).into();
                    return Err(Error::Unavailable { operation: OPERATION, source });
                }
                tokio::time::sleep(delay).await;
                delay *= 2;
            }
        }
        Ok(())
    }
}

fn partition(tenant: TenantId, id: RunId) -> String {
    format!("journal#{tenant}#{id}")
}

fn sort(position: u32) -> String {
    format!("{position:010}")
}
