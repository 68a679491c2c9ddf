//! Who uses Tidegate: people and the organizations they belong to.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Role, TenantId, UserId};

/// A person who signs in with an email address and a password.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// The user's id.
    pub id: UserId,
    /// Address in lower case; unique over the installation.
    pub email: String,
    /// Name for display.
    pub name: String,
    /// Argon2id hash in PHC string format.
    pub password_hash: String,
    /// The tenant that the user signs in to, with the user's role there.
    pub tenant: TenantId,
    /// The user's role in that tenant.
    pub role: Role,
    /// When the account was made.
    pub created_at: Timestamp,
}

/// An organization; every other record belongs to exactly one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tenant {
    /// The tenant's id.
    pub id: TenantId,
    /// Name for display.
    pub name: String,
    /// The tenant's data key, wrapped by the key service (base64); connections are sealed under it.
    pub data_key: String,
    /// When the tenant was made.
    pub created_at: Timestamp,
}
