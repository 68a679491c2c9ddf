//! Connectors that tenants made: `ctor#{tenant}#{name}`. The head names the current version; a version's manifest is a row
//! without its actions, and a row for each action, so that a call reads the one that it needs. The rows of a version lie under a
//! name of their own, so that two uploads at once don't mix.

use std::collections::HashMap;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_model::{ConnectorHead, TenantId};

use crate::items::{HEAD, Item, REVISION, SK, document, in_list, key, number, row, string, text};
use crate::write::{Condition, Write};
use crate::{Error, Page, Store};

/// How much is written at once.
const WRITES_AT_ONCE: usize = 16;
/// The most deletions of one transaction.
const DELETES: usize = 99;

/// Connectors that tenants made.
#[derive(Debug, Clone, Copy)]
pub struct Connectors<'a>(pub(crate) &'a Store);

/// A version's manifest as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredManifest {
    /// All but its actions.
    pub connector: Value,
    /// Its actions, by name.
    pub actions: Vec<(String, Value)>,
}

impl Connectors<'_> {
    /// Stores a version and makes it the current one. `head.version` is 1 for a connector that there isn't yet, else one more than
    /// that of the version before.
    ///
    /// # Errors
    /// [`Error::Conflict`] where another version is the current one by now, or the name is taken. What was written of this one
    /// is never read.
    pub async fn put(&self, head: &ConnectorHead, manifest: &StoredManifest) -> Result<(), Error> {
        const OPERATION: &str = "store connector";
        let table = self.0.config_table();
        let pk = partition(head.tenant, &head.name);
        // The audit entry goes with the head alone.
        let store = self.0.unaudited();
        let mut rows = Vec::new();
        for (name, action) in &manifest.actions {
            rows.push(row(OPERATION, &pk, action_key(head, name), action)?);
        }
        let store = &store;
        let writes = rows.into_iter().map(|item: Item| async move {
            store.put(OPERATION, table, || Ok(item.clone()), Condition::Absent).await.map(drop)
        });
        stream::iter(writes).buffer_unordered(WRITES_AT_ONCE).try_collect::<()>().await?;
        let names = manifest.actions.iter().map(|(name, _)| name.clone()).collect();
        let base = Base { connector: manifest.connector.clone(), names };
        let base = row(OPERATION, &pk, &head.upload, &base)?;
        let mut item = in_list(row(OPERATION, &pk, HEAD, head)?, list_key(head.tenant), &head.name);
        item.insert(REVISION.to_owned(), number(head.version));
        let condition = match head.version {
            0 | 1 => Condition::Absent,
            version => Condition::Equals(vec![(REVISION, number(version - 1))]),
        };
        let writes =
            vec![Write::Put { table, item, condition }, Write::Put { table, item: base, condition: Condition::Absent }];
        match self.0.transact(OPERATION, writes).await? {
            Ok(()) => Ok(()),
            Err(_) => Err(Error::Conflict { operation: OPERATION }),
        }
    }

    /// A tenant's connector.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn head(&self, tenant: TenantId, name: &str) -> Result<Option<ConnectorHead>, Error> {
        const OPERATION: &str = "read connector";
        let found = self.0.read(OPERATION, self.0.config_table(), key(partition(tenant, name), HEAD)).await?;
        found.map(|item| document(OPERATION, &item)).transpose()
    }

    /// A version's manifest without its actions.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn document(&self, head: &ConnectorHead) -> Result<Option<Value>, Error> {
        const OPERATION: &str = "read manifest";
        let key = key(partition(head.tenant, &head.name), &head.upload);
        let found = self.0.read(OPERATION, self.0.config_table(), key).await?;
        found.map(|item| document(OPERATION, &item).map(|base: Base| base.connector)).transpose()
    }

    /// A version's action; none where it has no such one.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn action(&self, head: &ConnectorHead, action: &str) -> Result<Option<Value>, Error> {
        const OPERATION: &str = "read action";
        let key = key(partition(head.tenant, &head.name), action_key(head, action));
        self.0.read(OPERATION, self.0.config_table(), key).await?.map(|item| document(OPERATION, &item)).transpose()
    }

    /// A version's whole manifest.
    ///
    /// # Errors
    /// The database is away, or a row is unreadable.
    pub async fn manifest(&self, head: &ConnectorHead) -> Result<Option<StoredManifest>, Error> {
        const OPERATION: &str = "read manifest";
        let pk = text(partition(head.tenant, &head.name));
        let items = self.0.read_prefix(OPERATION, self.0.config_table(), pk, &head.upload).await?;
        let mut base = None;
        let mut actions = HashMap::new();
        for item in &items {
            match string(OPERATION, item, SK)?.split_once('#') {
                Some((_, action)) => drop(actions.insert(action.to_owned(), document(OPERATION, item)?)),
                None => base = Some(document::<Base>(OPERATION, item)?),
            }
        }
        let Some(Base { connector, names }) = base else { return Ok(None) };
        let actions = names.into_iter().filter_map(|name| actions.remove(&name).map(|action| (name, action))).collect();
        Ok(Some(StoredManifest { connector, actions }))
    }

    /// A page of a tenant's connectors. One made a moment ago may be missing.
    ///
    /// # Errors
    /// [`Error::InvalidCursor`]; the database is away, or a row is unreadable.
    pub async fn list(
        &self,
        tenant: TenantId,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<ConnectorHead>, Error> {
        let read = |item: &Item| document("list connectors", item);
        self.0.list("list connectors", &list_key(tenant), cursor, limit, read).await
    }

    /// Deletes a tenant's connector with its versions; tells whether there was one.
    ///
    /// # Errors
    /// The database is away. Where some rows are left, deleting it again deletes them too.
    pub async fn delete(&self, tenant: TenantId, name: &str) -> Result<bool, Error> {
        const OPERATION: &str = "delete connector";
        if self.head(tenant, name).await?.is_none() {
            return Ok(false);
        }
        let table = self.0.config_table();
        let pk = partition(tenant, name);
        let rows = self.0.read_partition_keys(OPERATION, table, text(&pk)).await?;
        let mut keys = Vec::new();
        for row in &rows {
            let sk = string(OPERATION, row, SK)?;
            if sk != HEAD {
                keys.push(key(&pk, sk));
            }
        }
        let store = self.0.unaudited();
        for keys in keys.chunks(DELETES) {
            store.transact_delete(OPERATION, table, keys).await?;
        }
        // The head last, so that what is left can be found.
        self.0.transact_delete(OPERATION, table, &[key(&pk, HEAD)]).await
    }
}

fn partition(tenant: TenantId, name: &str) -> String {
    format!("ctor#{tenant}#{name}")
}

fn list_key(tenant: TenantId) -> String {
    format!("ctor#{tenant}")
}

fn action_key(head: &ConnectorHead, action: &str) -> String {
    format!("{}#{action}", head.upload)
}

/// The row of a version.
#[derive(Serialize, Deserialize)]
struct Base {
    connector: Value,
    /// Its actions in order.
    names: Vec<String>,
}
