//! People: `user#{id}` (the profile, and one row for each tenant that the user is a member of), `cred#{id}` (what proves who
//! it is, apart, so that few may read it), and `email#{address}`, which keeps addresses unique and leads from one to its
//! user.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_model::{Credentials, Member, Tenant, TenantId, User, UserId};

use crate::items::{
    DOC, HEAD, Item, REVISION, SK, document, in_list, key, number, row, string, text, to_json, unlike_any_other,
};
use crate::tenants;
use crate::write::{Condition, ConditionalPut, Outcome};
use crate::{Error, Page, Store};

/// People.
#[derive(Debug, Clone, Copy)]
pub struct Accounts<'a>(pub(crate) &'a Store);

/// An account to make, and what is made with it.
#[derive(Debug, Clone)]
pub struct NewAccount<'a> {
    /// The person; the address is in lower case.
    pub user: &'a User,
    /// What proves who it is.
    pub credentials: &'a Credentials,
    /// A tenant that is made with it, and its owner, who is the person.
    pub tenant: Option<(&'a Tenant, &'a Member)>,
}

/// Whose an email address is.
#[derive(Debug, Serialize, Deserialize)]
struct EmailRow {
    user: UserId,
}

impl Accounts<'_> {
    /// Stores a new user, and the tenant that is made with it: all or nothing.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the address is taken.
    pub async fn create(&self, new: NewAccount<'_>) -> Result<(), Error> {
        const OPERATION: &str = "create account";
        let NewAccount { user, credentials, tenant } = new;
        let mut items = rows(OPERATION, user, credentials)?;
        if let Some((tenant, owner)) = tenant {
            items.push(tenants::head(OPERATION, tenant)?);
            items.extend(tenants::membership(OPERATION, owner)?);
        }
        let puts = items.into_iter().map(|item| ConditionalPut { item, condition: Condition::Absent }).collect();
        let written = self.0.transact_put(OPERATION, self.0.config_table(), puts).await?;
        written.map_err(|_| Error::Conflict { operation: OPERATION })
    }

    /// The user with this address (lower case).
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
        self.user(user).await
    }

    /// A user.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn user(&self, id: UserId) -> Result<Option<User>, Error> {
        const OPERATION: &str = "read user";
        let found = self.0.read(OPERATION, self.0.config_table(), key(partition(id), HEAD)).await?;
        found.as_ref().map(|item| document(OPERATION, item)).transpose()
    }

    /// Replaces the profile of a user that is stored exactly as expected; the address stays.
    ///
    /// # Errors
    /// [`Error::Conflict`] where it was changed meanwhile.
    pub async fn replace(&self, expected: &User, user: &User) -> Result<(), Error> {
        const OPERATION: &str = "replace user";
        let unchanged = Condition::Equals(vec![(DOC, text(to_json(OPERATION, DOC, expected)?))]);
        match self.0.put(OPERATION, self.0.config_table(), || profile(OPERATION, user), unchanged).await? {
            Outcome::Written => Ok(()),
            Outcome::Refused(_) => Err(Error::Conflict { operation: OPERATION }),
        }
    }

    /// What proves who a user is.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn credentials(&self, user: UserId) -> Result<Option<Credentials>, Error> {
        const OPERATION: &str = "read credentials";
        let found = self.0.read(OPERATION, self.0.config_table(), key(credentials_partition(user), HEAD)).await?;
        found.as_ref().map(|item| document(OPERATION, item)).transpose()
    }

    /// Replaces credentials whose stored revision is the one before. Of two who write the same at the same moment, because
    /// both saw the same code, one wins.
    ///
    /// # Errors
    /// [`Error::Conflict`] where they were changed meanwhile.
    pub async fn replace_credentials(&self, credentials: &Credentials) -> Result<(), Error> {
        const OPERATION: &str = "replace credentials";
        let before = Condition::Equals(vec![(REVISION, number(credentials.revision.saturating_sub(1)))]);
        let item = unlike_any_other(credentials_row(OPERATION, credentials)?);
        match self.0.put(OPERATION, self.0.config_table(), || Ok(item.clone()), before).await? {
            Outcome::Written => Ok(()),
            Outcome::Refused(_) => Err(Error::Conflict { operation: OPERATION }),
        }
    }

    /// The tenants that a user is a member of, in the order of joining them.
    ///
    /// # Errors
    /// The database is away, or a row is unreadable.
    pub async fn tenants_of(&self, user: UserId) -> Result<Vec<TenantId>, Error> {
        const OPERATION: &str = "list a user's tenants";
        let rows =
            self.0.read_prefix(OPERATION, self.0.config_table(), text(partition(user)), TenantId::PREFIX).await?;
        let membership = |item: &Item| {
            let id = string(OPERATION, item, SK)?.parse::<TenantId>();
            let corrupt = |what, source| Error::Corrupt { operation: OPERATION, what, source };
            let id = id.map_err(|source| corrupt(SK, source.into()))?;
            let joined = string(OPERATION, item, JOINED)?.parse::<Timestamp>();
            Ok((joined.map_err(|source| corrupt(JOINED, source.into()))?, id))
        };
        let mut memberships = rows.iter().map(membership).collect::<Result<Vec<_>, Error>>()?;
        memberships.sort_unstable();
        Ok(memberships.into_iter().map(|(_, id)| id).collect())
    }

    /// A page of all users, newest first. One made a moment ago may be missing.
    ///
    /// # Errors
    /// [`Error::InvalidCursor`]; the database is away, or a row is unreadable.
    pub async fn list(&self, cursor: Option<&str>, limit: usize) -> Result<Page<User>, Error> {
        self.0.list("list users", ALL, cursor, limit, |item| document("list users", item)).await
    }
}

/// The list of all users.
const ALL: &str = "user#";
/// When a person became a member: RFC 3339.
pub(crate) const JOINED: &str = "joined";

/// The rows of a new account.
pub(crate) fn rows(operation: &'static str, user: &User, credentials: &Credentials) -> Result<Vec<Item>, Error> {
    Ok(vec![
        row(operation, format_args!("email#{}", user.email), HEAD, &EmailRow { user: user.id })?,
        profile(operation, user)?,
        credentials_row(operation, credentials)?,
    ])
}

fn profile(operation: &'static str, user: &User) -> Result<Item, Error> {
    Ok(in_list(row(operation, partition(user.id), HEAD, user)?, ALL, user.id))
}

fn credentials_row(operation: &'static str, credentials: &Credentials) -> Result<Item, Error> {
    let mut item = row(operation, credentials_partition(credentials.user), HEAD, credentials)?;
    item.insert(REVISION.to_owned(), number(credentials.revision));
    Ok(item)
}

pub(crate) fn partition(user: UserId) -> String {
    format!("user#{user}")
}

fn credentials_partition(user: UserId) -> String {
    format!("cred#{user}")
}
