//! Connections: `conn#{id}`, listed by tenant.

use tidegate_model::{Connection, ConnectionId, TenantId};

use crate::items::{DOC, HEAD, Item, document, in_list, key, row, text, to_json};
use crate::write::{Condition, Outcome};
use crate::{Error, Page, Store};

/// A tenant's connections.
#[derive(Debug, Clone, Copy)]
pub struct Connections<'a>(pub(crate) &'a Store);

impl Connections<'_> {
    /// Stores a new connection.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the id is taken.
    pub async fn create(&self, connection: &Connection) -> Result<(), Error> {
        const OPERATION: &str = "create connection";
        let item = || listed(OPERATION, connection);
        match self.0.put(OPERATION, self.0.config_table(), item, Condition::Absent).await? {
            Outcome::Written => Ok(()),
            Outcome::Refused(_) => Err(Error::Conflict { operation: OPERATION }),
        }
    }

    /// Replaces a connection that is stored exactly as `expected`; tells whether it was. For sealing its secret anew.
    ///
    /// # Errors
    /// The database is away.
    pub async fn replace(&self, expected: &Connection, connection: &Connection) -> Result<bool, Error> {
        const OPERATION: &str = "replace connection";
        let condition = Condition::Equals(vec![(DOC, text(to_json(OPERATION, DOC, expected)?))]);
        let item = || listed(OPERATION, connection);
        match self.0.put(OPERATION, self.0.config_table(), item, condition).await? {
            Outcome::Written => Ok(true),
            Outcome::Refused(_) => Ok(false),
        }
    }

    /// A tenant's connection.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn get(&self, tenant: TenantId, id: ConnectionId) -> Result<Option<Connection>, Error> {
        const OPERATION: &str = "read connection";
        let found = self.0.read(OPERATION, self.0.config_table(), key(partition(id), HEAD)).await?;
        let connection: Option<Connection> = found.map(|item| document(OPERATION, &item)).transpose()?;
        Ok(connection.filter(|connection| connection.tenant == tenant))
    }

    /// A page of a tenant's connections, newest first. One made a moment ago may be missing.
    ///
    /// # Errors
    /// [`Error::InvalidCursor`]; the database is away, or a row is unreadable.
    pub async fn list(&self, tenant: TenantId, cursor: Option<&str>, limit: usize) -> Result<Page<Connection>, Error> {
        let read = |item: &Item| document("list connections", item);
        self.0.list("list connections", &list_key(tenant), cursor, limit, read).await
    }

    /// Deletes a tenant's connection; tells whether there was one.
    ///
    /// # Errors
    /// The database is away.
    pub async fn delete(&self, tenant: TenantId, id: ConnectionId) -> Result<bool, Error> {
        // Read first, because a delete whose answer was lost can't tell from its repetition that there was one.
        if self.get(tenant, id).await?.is_none() {
            return Ok(false);
        }
        let keys = [key(partition(id), HEAD)];
        self.0.transact_delete("delete connection", self.0.config_table(), &keys).await
    }
}

fn listed(operation: &'static str, connection: &Connection) -> Result<Item, Error> {
    row(operation, partition(connection.id), HEAD, connection)
        .map(|row| in_list(row, list_key(connection.tenant), connection.id))
}

fn partition(id: ConnectionId) -> String {
    format!("conn#{id}")
}

fn list_key(tenant: TenantId) -> String {
    format!("conn#{tenant}")
}
