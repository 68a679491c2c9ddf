//! Sign-ins: `ses#{user}` / session. Nothing in them is secret, for of refresh tokens they hold hashes.

use tidegate_model::{Session, SessionId, UserId};

use crate::items::{DOC, document, key, row, text, to_json};
use crate::write::{Condition, Outcome};
use crate::{Error, Store};

/// Sign-ins.
#[derive(Debug, Clone, Copy)]
pub struct Sessions<'a>(pub(crate) &'a Store);

impl Sessions<'_> {
    /// Stores a new session.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the id is taken.
    pub async fn create(&self, session: &Session) -> Result<(), Error> {
        const OPERATION: &str = "create session";
        let item = || row(OPERATION, partition(session.user), session.id, session);
        match self.0.put(OPERATION, self.0.config_table(), item, Condition::Absent).await? {
            Outcome::Written => Ok(()),
            Outcome::Refused(_) => Err(Error::Conflict { operation: OPERATION }),
        }
    }

    /// A user's session.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn get(&self, user: UserId, id: SessionId) -> Result<Option<Session>, Error> {
        const OPERATION: &str = "read session";
        let found = self.0.read(OPERATION, self.0.config_table(), key(partition(user), id)).await?;
        found.as_ref().map(|item| document(OPERATION, item)).transpose()
    }

    /// A user's sessions, oldest first; also those that have expired and were not deleted yet.
    ///
    /// # Errors
    /// The database is away, or a row is unreadable.
    pub async fn list(&self, user: UserId) -> Result<Vec<Session>, Error> {
        const OPERATION: &str = "list sessions";
        let rows = self.0.read_partition(OPERATION, self.0.config_table(), text(partition(user))).await?;
        rows.iter().map(|item| document(OPERATION, item)).collect()
    }

    /// Replaces a session that is stored exactly as expected; tells whether it was. Of two that refresh with the same token
    /// one wins.
    ///
    /// # Errors
    /// The database is away.
    pub async fn replace(&self, expected: &Session, session: &Session) -> Result<bool, Error> {
        const OPERATION: &str = "replace session";
        let unchanged = Condition::Equals(vec![(DOC, text(to_json(OPERATION, DOC, expected)?))]);
        let item = || row(OPERATION, partition(session.user), session.id, session);
        match self.0.put(OPERATION, self.0.config_table(), item, unchanged).await? {
            Outcome::Written => Ok(true),
            Outcome::Refused(_) => Ok(false),
        }
    }

    /// Deletes sessions of a user; those that are gone already are fine.
    ///
    /// # Errors
    /// The database is away.
    pub async fn delete(&self, user: UserId, ids: &[SessionId]) -> Result<(), Error> {
        const OPERATION: &str = "delete sessions";
        let keys: Vec<_> = ids.iter().map(|id| key(partition(user), id)).collect();
        for (index, group) in keys.chunks(99).enumerate() {
            let store = if index == 0 { self.0 } else { &self.0.unaudited() };
            store.transact_delete(OPERATION, self.0.config_table(), group).await?;
        }
        Ok(())
    }
}

fn partition(user: UserId) -> String {
    format!("ses#{user}")
}
