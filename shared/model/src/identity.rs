//! Who uses Tidegate: people and the organizations they belong to.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Role, TenantId, UserId};

/// A person who signs in with an email address and a password.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
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

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, email, name, password_hash: _, tenant, role, created_at } = self;
        f.debug_struct("User")
            .field("id", id)
            .field("email", email)
            .field("name", name)
            .field("tenant", tenant)
            .field("role", role)
            .field("created_at", created_at)
            .finish_non_exhaustive()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_debug_text_has_no_hash() {
        let at = Timestamp::UNIX_EPOCH;
        let user = User {
            id: UserId::new(at, [1; 10]),
            email: "alex@example.com".to_owned(),
            name: "Alex".to_owned(),
            password_hash: "$argon2id$v=19$m=19456".to_owned(),
            tenant: TenantId::new(at, [2; 10]),
            role: Role::Owner,
            created_at: at,
        };
        let text = format!("{user:?}");
        assert!(text.contains("alex@example.com") && !text.contains("argon2id"), "{text}");
    }
}
