//! Sealing connections anew: once a tenant has a new data key, each connection moves under it when it is next read.

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tidegate_model::{Connection, DataKey, Tenant, TenantId};
use tidegate_platform::envelope::EnvelopeError;
use tidegate_platform::key_service::KeyContext;
use tidegate_store::Error as StoreError;

use crate::Deps;

/// Why a connection stays under the data key that it is under. The next read tries again.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the tenant has no data key {0}")]
    NoKey(u32),
    #[error("the secret can't be opened or sealed")]
    Envelope(#[from] EnvelopeError),
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// Seals those of a tenant's connections anew that an older data key seals. What can't be is logged, and hinders nobody:
/// every data key still opens what it sealed.
pub(crate) async fn reseal(deps: &Deps, tenant: TenantId, connections: &[Connection]) {
    if connections.is_empty() {
        return;
    }
    let tenant = match deps.store.tenants().get(tenant).await {
        Ok(Some(tenant)) => tenant,
        Ok(None) => return,
        Err(error) => return log(&error.into(), tenant),
    };
    // None where the tenant was deleted at this moment.
    let Some(sealing) = tenant.sealing_key() else { return };
    let mut under_way = FuturesUnordered::new();
    for connection in connections {
        if connection.data_key != sealing.number {
            under_way.push(reseal_one(deps, &tenant, sealing, connection));
        }
    }
    while let Some(done) = under_way.next().await {
        if let Err(error) = done {
            log(&error, tenant.id);
        }
    }
}

/// Writes only where the connection is stored as it was read: of several that seal it anew at the same time one does, and
/// one that was deleted meanwhile stays deleted.
async fn reseal_one(deps: &Deps, tenant: &Tenant, sealing: &DataKey, connection: &Connection) -> Result<(), Error> {
    let before = tenant.data_key(connection.data_key).ok_or(Error::NoKey(connection.data_key))?;
    let (context, associated) = (KeyContext::connections(tenant.id), connection.id.to_string());
    let plain = deps.envelope.open(&before.wrapped, &context, associated.as_bytes(), &connection.sealed).await?;
    let sealed = deps.envelope.seal(&sealing.wrapped, &context, associated.as_bytes(), &plain).await?;
    let resealed = Connection { data_key: sealing.number, sealed, ..connection.clone() };
    deps.store.connections().replace(connection, &resealed).await?;
    Ok(())
}

fn log(error: &Error, tenant: TenantId) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(component = "workflows", tenant_id = %tenant, error, "a connection can't be sealed anew yet");
}
