//! A tenant's stored credential for one connector.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ConnectionId, TenantId};

/// A connection as it is stored: what is secret in it is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The connection's id.
    pub id: ConnectionId,
    /// Its tenant.
    pub tenant: TenantId,
    /// Name for display.
    pub name: String,
    /// The connector it is for: `slack`, `discord`, `http`.
    pub connector: String,
    /// The hosts its secret may be sent to, fixed when it was made; `host` or `host:port`, lower case.
    pub hosts: Vec<String>,
    /// The number of the tenant's data key that seals it.
    pub data_key: u32,
    /// The credential's JSON under AES-256-GCM with that data key and this id as associated data (base64).
    pub sealed: String,
    /// When it was made.
    pub created_at: Timestamp,
}
