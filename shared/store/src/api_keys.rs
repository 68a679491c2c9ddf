//! API keys: `key#{id}`, listed by tenant. When one was last used lies in `history`, under `seen#{tenant}`, where every
//! function may note it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_model::{ApiKey, ApiKeyId, TenantId};

use crate::items::{DOC, HEAD, Item, document, expiry, in_list, key, row, text, to_json};
use crate::tables::TTL;
use crate::write::{Condition, ConditionalPut, Outcome};
use crate::{Error, Page, Store};

/// How long it is remembered when a key was last used.
const SEEN_RETENTION: Duration = Duration::from_secs(400 * 86_400);

/// API keys.
#[derive(Debug, Clone, Copy)]
pub struct ApiKeys<'a>(pub(crate) &'a Store);

#[derive(Debug, Serialize, Deserialize)]
struct Seen {
    at: Timestamp,
}

impl ApiKeys<'_> {
    /// Stores a new key.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the id is taken.
    pub async fn create(&self, new: &ApiKey) -> Result<(), Error> {
        const OPERATION: &str = "create API key";
        match self.0.put(OPERATION, self.0.config_table(), || listed(OPERATION, new), Condition::Absent).await? {
            Outcome::Written => Ok(()),
            Outcome::Refused(_) => Err(Error::Conflict { operation: OPERATION }),
        }
    }

    /// The key with this id, of whichever tenant: whoever shows a key knows no tenant.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn get(&self, id: ApiKeyId) -> Result<Option<ApiKey>, Error> {
        const OPERATION: &str = "read API key";
        let found = self.0.read(OPERATION, self.0.config_table(), key(partition(id), HEAD)).await?;
        found.as_ref().map(|item| document(OPERATION, item)).transpose()
    }

    /// Replaces a key that is stored exactly as expected.
    ///
    /// # Errors
    /// [`Error::Conflict`] where it was changed or deleted meanwhile.
    pub async fn replace(&self, expected: &ApiKey, new: &ApiKey) -> Result<(), Error> {
        const OPERATION: &str = "replace API key";
        let unchanged = Condition::Equals(vec![(DOC, text(to_json(OPERATION, DOC, expected)?))]);
        match self.0.put(OPERATION, self.0.config_table(), || listed(OPERATION, new), unchanged).await? {
            Outcome::Written => Ok(()),
            Outcome::Refused(_) => Err(Error::Conflict { operation: OPERATION }),
        }
    }

    /// Stores a new key and gives the one it follows, which is stored exactly as expected, its end: both or neither.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the former one was changed or deleted meanwhile.
    pub async fn rotate(&self, expected: &ApiKey, ended: &ApiKey, new: &ApiKey) -> Result<(), Error> {
        const OPERATION: &str = "rotate API key";
        let unchanged = Condition::Equals(vec![(DOC, text(to_json(OPERATION, DOC, expected)?))]);
        let puts = vec![
            ConditionalPut { item: listed(OPERATION, ended)?, condition: unchanged },
            ConditionalPut { item: listed(OPERATION, new)?, condition: Condition::Absent },
        ];
        let written = self.0.transact_put(OPERATION, self.0.config_table(), puts).await?;
        written.map_err(|_| Error::Conflict { operation: OPERATION })
    }

    /// Deletes a key; one that is gone already is fine.
    ///
    /// # Errors
    /// The database is away.
    pub async fn delete(&self, id: ApiKeyId) -> Result<(), Error> {
        let keys = [key(partition(id), HEAD)];
        self.0.transact_delete("delete API key", self.0.config_table(), &keys).await.map(drop)
    }

    /// A page of a tenant's keys, newest first. One made a moment ago may be missing.
    ///
    /// # Errors
    /// [`Error::InvalidCursor`]; the database is away, or a row is unreadable.
    pub async fn list(&self, tenant: TenantId, cursor: Option<&str>, limit: usize) -> Result<Page<ApiKey>, Error> {
        let read = |item: &Item| document("list API keys", item);
        self.0.list("list API keys", &list_key(tenant), cursor, limit, read).await
    }

    /// Notes that a key was used. To be called seldom: it is a write.
    ///
    /// # Errors
    /// The database is away.
    pub async fn mark_used(&self, tenant: TenantId, id: ApiKeyId, at: Timestamp) -> Result<(), Error> {
        const OPERATION: &str = "note a key's use";
        let mut item = row(OPERATION, seen_partition(tenant), id, &Seen { at })?;
        item.insert(TTL.to_owned(), expiry(at, SEEN_RETENTION));
        let request = self.0.client().put_item().table_name(self.0.history_table()).set_item(Some(item));
        request.send().await.map_err(|error| Error::from_sdk(OPERATION, error))?;
        Ok(())
    }

    /// When a key was last used, as far as it was noted.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn last_used(&self, tenant: TenantId, id: ApiKeyId) -> Result<Option<Timestamp>, Error> {
        const OPERATION: &str = "read a key's last use";
        let found = self.0.read(OPERATION, self.0.history_table(), key(seen_partition(tenant), id)).await?;
        found.as_ref().map(|item| document(OPERATION, item).map(|seen: Seen| seen.at)).transpose()
    }
}

fn listed(operation: &'static str, key: &ApiKey) -> Result<Item, Error> {
    Ok(in_list(row(operation, partition(key.id), HEAD, key)?, list_key(key.tenant), key.id))
}

fn partition(id: ApiKeyId) -> String {
    format!("key#{id}")
}

fn list_key(tenant: TenantId) -> String {
    format!("key#{tenant}")
}

fn seen_partition(tenant: TenantId) -> String {
    format!("seen#{tenant}")
}
