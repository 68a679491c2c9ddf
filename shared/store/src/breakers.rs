//! What is known of targets that fail: one row for each tenant and host, `brk#{tenant}#{host}`, in `history`. There is none for a
//! host that answers.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_model::TenantId;

use crate::items::{HEAD, Item, document, expiry, key, row, text};
use crate::tables::TTL;
use crate::write::{Condition, Outcome};
use crate::{Error, Store};

/// Counts the writes of a row.
const REVISION: &str = crate::items::REVISION;
/// A host that wasn't called for so long starts anew.
const RETENTION: Duration = Duration::from_secs(3_600);

/// What is known of targets that fail.
#[derive(Debug, Clone, Copy)]
pub struct Breakers<'a>(pub(crate) &'a Store);

/// How a target that failed lately stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Breaker {
    /// How many calls failed one after the other.
    pub failures: u32,
    /// When the last of them did.
    pub failed_at: Timestamp,
    /// Until when it isn't called.
    pub open_until: Option<Timestamp>,
    /// How often it was opened in a row.
    pub openings: u32,
    /// Until when somebody tries whether it answers again.
    pub probe_until: Option<Timestamp>,
    /// Counts the writes, from 1.
    pub revision: u64,
}

impl Breakers<'_> {
    /// How a tenant's target stands; none where nothing is wrong with it.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn get(&self, tenant: TenantId, host: &str) -> Result<Option<Breaker>, Error> {
        const OPERATION: &str = "read breaker";
        let found = self.0.read(OPERATION, self.0.history_table(), key(partition(tenant, host), HEAD)).await?;
        found.map(|item| document(OPERATION, &item)).transpose()
    }

    /// Replaces what is known of a target whose row has the revision before (there is none before 1); tells whether it had.
    ///
    /// # Errors
    /// The database is away.
    pub async fn put(&self, tenant: TenantId, host: &str, breaker: &Breaker, now: Timestamp) -> Result<bool, Error> {
        const OPERATION: &str = "write breaker";
        let item = || {
            let mut item: Item = row(OPERATION, partition(tenant, host), HEAD, breaker)?;
            item.insert(REVISION.to_owned(), text(breaker.revision));
            item.insert(TTL.to_owned(), expiry(now, RETENTION));
            Ok(item)
        };
        let condition = match breaker.revision {
            0 | 1 => Condition::Absent,
            revision => Condition::Equals(vec![(REVISION, text(revision - 1))]),
        };
        let outcome = self.0.put(OPERATION, self.0.history_table(), item, condition).await?;
        Ok(matches!(outcome, Outcome::Written))
    }

    /// Forgets what is known of a target: it answers.
    ///
    /// # Errors
    /// The database is away.
    pub async fn forget(&self, tenant: TenantId, host: &str) -> Result<(), Error> {
        let keys = [key(partition(tenant, host), HEAD)];
        self.0.transact_delete("forget breaker", self.0.history_table(), &keys).await.map(drop)
    }
}

fn partition(tenant: TenantId, host: &str) -> String {
    format!("brk#{tenant}#{host}")
}
