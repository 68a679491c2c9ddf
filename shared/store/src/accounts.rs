//! People and their organizations: `user#{id}`, `ten#{id}`, and `email#{address}`, which keeps addresses unique and
//! leads from one to its user.

use serde::{Deserialize, Serialize};
use tidegate_model::{Tenant, TenantId, User, UserId};

use crate::items::{HEAD, document, key, row};
use crate::write::{Condition, ConditionalPut};
use crate::{Error, Store};

/// People and their organizations.
#[derive(Debug, Clone, Copy)]
pub struct Accounts<'a>(pub(crate) &'a Store);

/// Whose an email address is.
#[derive(Debug, Serialize, Deserialize)]
struct EmailRow {
    user: UserId,
}

impl Accounts<'_> {
    /// Stores a new user and the tenant that is made with them, both or neither. `user.email` is in lower case.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the address is taken.
    pub async fn create(&self, user: &User, tenant: &Tenant) -> Result<(), Error> {
        const OPERATION: &str = "create account";
        let email = format!("email#{}", user.email);
        let items = [
            row(OPERATION, email, HEAD, &EmailRow { user: user.id })?,
            row(OPERATION, format_args!("user#{}", user.id), HEAD, user)?,
            row(OPERATION, format_args!("ten#{}", tenant.id), HEAD, tenant)?,
        ];
        let puts = items.map(|item| ConditionalPut { item, condition: Condition::Absent }).into();
        let written = self.0.transact_put(OPERATION, self.0.config_table(), puts).await?;
        written.map_err(|_| Error::Conflict { operation: OPERATION })
    }

    /// The user with this address (lower case), of whichever tenant: sign-in knows no tenant yet.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn user_by_email(&self, email: &str) -> Result<Option<User>, Error> {
        const OPERATION: &str = "read user by email";
        // A key may not be over 2 KB; no address is that long (RFC 5321 allows 254 bytes).
        if email.len() > 1_024 {
            return Ok(None);
        }
        let found = self.0.read(OPERATION, self.0.config_table(), key(format!("email#{email}"), HEAD)).await?;
        let Some(found) = found else { return Ok(None) };
        let EmailRow { user } = document(OPERATION, &found)?;
        self.read_user(OPERATION, user).await
    }

    /// A tenant's user.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn user(&self, tenant: TenantId, id: UserId) -> Result<Option<User>, Error> {
        Ok(self.read_user("read user", id).await?.filter(|user| user.tenant == tenant))
    }

    /// A tenant.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn tenant(&self, id: TenantId) -> Result<Option<Tenant>, Error> {
        const OPERATION: &str = "read tenant";
        let found = self.0.read(OPERATION, self.0.config_table(), key(format!("ten#{id}"), HEAD)).await?;
        found.as_ref().map(|item| document(OPERATION, item)).transpose()
    }

    async fn read_user(&self, operation: &'static str, id: UserId) -> Result<Option<User>, Error> {
        let found = self.0.read(operation, self.0.config_table(), key(format!("user#{id}"), HEAD)).await?;
        found.as_ref().map(|item| document(operation, item)).transpose()
    }
}
