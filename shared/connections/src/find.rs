//! Finds connectors, actions, connections and the keys that open them.

use std::sync::Arc;

use serde_json::Value;
use tidegate_connectors::manifest::{ActionDocument, ConnectorDocument, Manifest};
use tidegate_connectors::{Action, Connector, catalogue};
use tidegate_egress::Credential;
use tidegate_model::{Connection, ConnectionId, ConnectorHead, Publisher, Tenant, TenantId};

use crate::{Connections, Error};

/// A connection and what opens it.
#[derive(Debug, Clone)]
pub struct Usable {
    /// The connection.
    pub connection: Arc<Connection>,
    /// The wrapped data key that seals it.
    pub data_key: Arc<str>,
}

impl Usable {
    /// What egress takes.
    pub fn credential(&self) -> Credential<'_> {
        Credential { connection: &self.connection, data_key: &self.data_key }
    }
}

impl Connections {
    /// What a step's `uses` names: an action of a built-in connector, or of one that the tenant made. For a tenant's own at most one
    /// read in 5 s, and two more after each upload.
    ///
    /// # Errors
    /// The store is away.
    pub async fn action(&self, tenant: TenantId, uses: &str) -> Result<Option<Arc<Action>>, Error> {
        let Some((connector, name)) = uses.split_once('.') else { return Ok(None) };
        if let Some(connector) = catalogue::connector(connector) {
            return Ok(connector.actions.get(name).cloned());
        }
        let Some(head) = self.head(tenant, connector).await? else { return Ok(None) };
        let key = (tenant, head.upload.clone(), name.to_owned());
        if let Some(action) = self.caches.actions.get(&key).await {
            return Ok(Some(action));
        }
        let connectors = self.store.connectors();
        let (document, action) = tokio::try_join!(connectors.document(&head), connectors.action(&head, name))?;
        let (Some(document), Some(action)) = (document, action) else { return Ok(None) };
        let document: ConnectorDocument = read(document)?;
        let action: ActionDocument = read(action)?;
        let action = Arc::new(Action::new(Arc::new(document), name, action, Publisher::Tenant));
        self.caches.actions.insert(key, Arc::clone(&action)).await;
        Ok(Some(action))
    }

    /// A connector, whole: a built-in one, or one that the tenant made.
    ///
    /// # Errors
    /// The store is away.
    pub async fn connector(&self, tenant: TenantId, name: &str) -> Result<Option<Arc<Connector>>, Error> {
        if let Some(connector) = catalogue::connector(name) {
            return Ok(Some(Arc::clone(connector)));
        }
        let Some(head) = self.store.connectors().head(tenant, name).await? else { return Ok(None) };
        let Some(stored) = self.store.connectors().manifest(&head).await? else { return Ok(None) };
        let mut actions = Vec::new();
        for (name, action) in stored.actions {
            actions.push((name, read(action)?));
        }
        let manifest = Manifest { connector: read(stored.connector)?, actions: actions.into_iter().collect() };
        Ok(Some(Arc::new(Connector::new(manifest, Publisher::Tenant, head.version))))
    }

    /// The connector that a connection is for, while it is still that publisher's.
    ///
    /// # Errors
    /// The store is away.
    pub async fn connector_of(&self, connection: &Connection) -> Result<Option<Arc<Connector>>, Error> {
        let connector = self.connector(connection.tenant, &connection.connector).await?;
        Ok(connector.filter(|connector| connector.publisher == connection.publisher))
    }

    async fn head(&self, tenant: TenantId, name: &str) -> Result<Option<Arc<ConnectorHead>>, Error> {
        let read = || async { Ok(self.store.connectors().head(tenant, name).await?.map(Arc::new)) };
        self.caches.heads.get((tenant, name.to_owned()), read).await.map_err(Error::Cached)
    }

    /// A tenant's connection; at most 5 s old.
    ///
    /// # Errors
    /// The store is away.
    pub async fn connection(&self, tenant: TenantId, id: ConnectionId) -> Result<Option<Arc<Connection>>, Error> {
        let read = || async { Ok(self.store.connections().get(tenant, id).await?.map(Arc::new)) };
        self.caches.connections.get((tenant, id), read).await.map_err(Error::Cached)
    }

    /// A connection as it is stored now, which from now on is remembered.
    pub(crate) async fn reread(&self, connection: &Connection) -> Result<Option<Arc<Connection>>, Error> {
        self.caches.connections.forget(&(connection.tenant, connection.id)).await;
        self.connection(connection.tenant, connection.id).await
    }

    /// A tenant with its data keys, of which one that is deleted has none; at most 5 s old.
    ///
    /// # Errors
    /// The store is away, or there is no such tenant.
    pub async fn tenant(&self, id: TenantId) -> Result<Arc<Tenant>, Error> {
        let read = || async { Ok(self.store.tenants().get(id).await?.map(Arc::new)) };
        let tenant = self.caches.tenants.get(id, read).await.map_err(Error::Cached)?;
        tenant.ok_or_else(|| Error::Corrupt(format!("the tenant {id} of a run is not there")))
    }

    /// A connection with the key that seals it; none where that was destroyed.
    ///
    /// # Errors
    /// The store is away.
    pub async fn usable(&self, connection: Arc<Connection>) -> Result<Option<Usable>, Error> {
        let number = connection.data_key;
        let wrapped = |tenant: &Tenant| tenant.data_key(number).map(|key| Arc::from(key.wrapped.as_str()));
        let known = wrapped(&*self.tenant(connection.tenant).await?);
        if let Some(data_key) = known {
            return Ok(Some(Usable { connection, data_key }));
        }
        // The connection may have been sealed anew since the tenant was read.
        self.caches.tenants.forget(&connection.tenant).await;
        let known = wrapped(&*self.tenant(connection.tenant).await?);
        Ok(known.map(|data_key| Usable { connection, data_key }))
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|error| Error::Corrupt(format!("a stored manifest can't be read: {error}")))
}
