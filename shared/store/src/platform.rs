//! Who administers the installation: `plat#` / user.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_model::UserId;

use crate::items::{Item, SK, document, key, row, string, text};
use crate::write::{Condition, Write};
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
    /// Makes a user an administrator, as long as the one who does it (`None`: the operator) still is one; who is already
    /// stays one.
    ///
    /// # Errors
    /// [`Error::Conflict`] where `by` is none any more.
    pub async fn add_administrator(&self, user: UserId, since: Timestamp, by: Option<UserId>) -> Result<(), Error> {
        const OPERATION: &str = "add platform administrator";
        // Who was removed can't undo it: there is nothing to make of oneself.
        if by == Some(user) {
            let conflict = Error::Conflict { operation: OPERATION };
            return if self.is_administrator(user).await? { Ok(()) } else { Err(conflict) };
        }
        let item = row(OPERATION, ADMINS, user, &Administrator { since })?;
        let mut writes = vec![Write::Put { table: self.0.config_table(), item, condition: Condition::Absent }];
        writes.extend(by.map(|by| self.still(by)));
        match self.0.transact(OPERATION, writes).await? {
            Ok(()) => Ok(()),
            // The row that was to be put is there.
            Err(stored) if stored.first().is_some_and(Option::is_some) => Ok(()),
            Err(_) => Err(Error::Conflict { operation: OPERATION }),
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

    /// Ends a user's administration, as long as somebody else is an administrator and so remains; that of one who is none is
    /// fine. Two who end each other's at the same moment don't both succeed.
    ///
    /// # Errors
    /// [`Error::Conflict`] where `remaining` is none, or is the user.
    pub async fn remove_administrator(&self, user: UserId, remaining: UserId) -> Result<(), Error> {
        const OPERATION: &str = "remove platform administrator";
        if user == remaining {
            return Err(Error::Conflict { operation: OPERATION });
        }
        let gone = Write::Delete { table: self.0.config_table(), key: key(ADMINS, user), condition: None };
        let removed = self.0.transact(OPERATION, vec![gone, self.still(remaining)]).await?;
        removed.map_err(|_| Error::Conflict { operation: OPERATION })
    }

    fn still(&self, user: UserId) -> Write<'_> {
        Write::Present { table: self.0.config_table(), key: key(ADMINS, user) }
    }
}
