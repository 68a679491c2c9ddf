//! Who administers the installation: `plat#` / user.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_model::UserId;

use crate::items::{Item, SK, document, key, row, string, text};
use crate::write::{Condition, Outcome};
use crate::{Error, Store};

const ADMINS: &str = "plat#";

/// Who administers the installation.
#[derive(Debug, Clone, Copy)]
pub struct Platform<'a>(pub(crate) &'a Store);

#[derive(Debug, Serialize, Deserialize)]
struct Administrator {
    since: Timestamp,
}

impl Platform<'_> {
    /// Makes a user an administrator; one who is already stays one.
    ///
    /// # Errors
    /// The database is away.
    pub async fn add_administrator(&self, user: UserId, since: Timestamp) -> Result<(), Error> {
        const OPERATION: &str = "add platform administrator";
        let item = || row(OPERATION, ADMINS, user, &Administrator { since });
        match self.0.put(OPERATION, self.0.config_table(), item, Condition::Absent).await? {
            Outcome::Written | Outcome::Refused(_) => Ok(()),
        }
    }

    /// Whether a user is an administrator.
    ///
    /// # Errors
    /// The database is away.
    pub async fn is_administrator(&self, user: UserId) -> Result<bool, Error> {
        let found = self.0.read("read platform administrator", self.0.config_table(), key(ADMINS, user)).await?;
        Ok(found.is_some())
    }

    /// All administrators, with the times since when they are.
    ///
    /// # Errors
    /// The database is away, or a row is unreadable.
    pub async fn administrators(&self) -> Result<Vec<(UserId, Timestamp)>, Error> {
        const OPERATION: &str = "list platform administrators";
        let rows = self.0.read_partition(OPERATION, self.0.config_table(), text(ADMINS)).await?;
        let read = |item: &Item| {
            let id = string(OPERATION, item, SK)?.parse();
            let id =
                id.map_err(|source| Error::Corrupt { operation: OPERATION, what: SK, source: Box::new(source) })?;
            Ok((id, document::<Administrator>(OPERATION, item)?.since))
        };
        rows.iter().map(read).collect()
    }

    /// Ends a user's administration; that of one who is none is fine.
    ///
    /// # Errors
    /// The database is away.
    pub async fn remove_administrator(&self, user: UserId) -> Result<(), Error> {
        let keys = [key(ADMINS, user)];
        self.0.transact_delete("remove platform administrator", self.0.config_table(), &keys).await
    }
}
