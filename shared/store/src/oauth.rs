//! The installation's clients at OAuth providers (`oauth#` / provider, in `config`; they belong to no tenant), and sign-ins at
//! vendors that are under way (`oauth#{state}`, in `history`).

use std::time::Duration;

use tidegate_model::{OAuthClient, OAuthState};

use crate::items::{HEAD, Item, document, expiry, key, row, text};
use crate::tables::TTL;
use crate::write::{Condition, Outcome, Write};
use crate::{Error, Store};

const CLIENTS: &str = "oauth#";

/// OAuth at vendors.
#[derive(Debug, Clone, Copy)]
pub struct OAuth<'a>(pub(crate) &'a Store);

impl OAuth<'_> {
    /// Sets the installation's client at a provider.
    ///
    /// # Errors
    /// The database is away.
    pub async fn set_client(&self, client: &OAuthClient) -> Result<(), Error> {
        const OPERATION: &str = "set OAuth client";
        let table = self.0.config_table();
        let item = row(OPERATION, CLIENTS, &client.provider, client)?;
        let present = self.client(&client.provider).await?;
        let condition = if present.is_some() { Condition::Present } else { Condition::Absent };
        match self.0.put(OPERATION, table, || Ok(item.clone()), condition).await? {
            Outcome::Written => Ok(()),
            Outcome::Refused(_) => Err(Error::Conflict { operation: OPERATION }),
        }
    }

    /// The installation's client at a provider.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn client(&self, provider: &str) -> Result<Option<OAuthClient>, Error> {
        const OPERATION: &str = "read OAuth client";
        let found = self.0.read(OPERATION, self.0.config_table(), key(CLIENTS, provider)).await?;
        found.map(|item| document(OPERATION, &item)).transpose()
    }

    /// All of the installation's clients.
    ///
    /// # Errors
    /// The database is away, or a row is unreadable.
    pub async fn clients(&self) -> Result<Vec<OAuthClient>, Error> {
        const OPERATION: &str = "list OAuth clients";
        let items = self.0.read_partition(OPERATION, self.0.config_table(), text(CLIENTS)).await?;
        items.iter().map(|item: &Item| document(OPERATION, item)).collect()
    }

    /// Removes the installation's client at a provider; tells whether there was one.
    ///
    /// # Errors
    /// The database is away.
    pub async fn remove_client(&self, provider: &str) -> Result<bool, Error> {
        if self.client(provider).await?.is_none() {
            return Ok(false);
        }
        self.0.transact_delete("remove OAuth client", self.0.config_table(), &[key(CLIENTS, provider)]).await
    }

    /// Remembers that somebody is signing in at a vendor.
    ///
    /// # Errors
    /// The database is away.
    pub async fn begin(&self, state: &OAuthState) -> Result<(), Error> {
        const OPERATION: &str = "begin OAuth sign-in";
        let item = || {
            let mut item = row(OPERATION, format!("{CLIENTS}{}", state.id), HEAD, state)?;
            item.insert(TTL.to_owned(), expiry(state.expires_at, Duration::ZERO));
            Ok(item)
        };
        match self.0.put(OPERATION, self.0.history_table(), item, Condition::Absent).await? {
            Outcome::Written => Ok(()),
            Outcome::Refused(_) => Err(Error::Conflict { operation: OPERATION }),
        }
    }

    /// A sign-in that is under way, by its state.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn under_way(&self, id: &str) -> Result<Option<OAuthState>, Error> {
        const OPERATION: &str = "read OAuth sign-in";
        let found = self.0.read(OPERATION, self.0.history_table(), key(format!("{CLIENTS}{id}"), HEAD)).await?;
        found.map(|item| document(OPERATION, &item)).transpose()
    }

    /// Ends a sign-in that is under way; tells whether it still was: of several who try one is told so.
    ///
    /// # Errors
    /// The database is away.
    pub async fn end(&self, id: &str) -> Result<bool, Error> {
        const OPERATION: &str = "end OAuth sign-in";
        let key = key(format!("{CLIENTS}{id}"), HEAD);
        let delete = Write::Delete { table: self.0.history_table(), key, condition: Some(Condition::Present) };
        Ok(self.0.unaudited().transact(OPERATION, vec![delete]).await?.is_ok())
    }
}
