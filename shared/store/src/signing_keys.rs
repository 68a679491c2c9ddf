//! The installation's keys for access tokens. The public halves are plain items in one partition (`jwk#` / kid), which
//! every function may read; the sealed private half is apart (`signing#`), for the one function that signs.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::items::{document, key, row, text};
use crate::write::{Condition, ConditionalPut};
use crate::{Error, Store};

const PUBLIC: &str = "jwk#";
const PRIVATE: &str = "signing#";
const CURRENT: &str = "current";

/// The installation's keys for access tokens; they belong to no tenant.
#[derive(Debug, Clone, Copy)]
pub struct SigningKeys<'a>(pub(crate) &'a Store);

/// The public half of a signing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey {
    /// The key's id: `kid` in tokens and in the key set.
    pub kid: String,
    /// The key as a JSON Web Key (RFC 7517), JSON text.
    pub jwk: String,
    /// When the key was made.
    pub created_at: Timestamp,
}

/// A signing key; its private half is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKey {
    /// The public half.
    pub public: PublicKey,
    /// The data key that seals the private half, wrapped by the key service (base64).
    pub data_key: String,
    /// The private half under that data key (base64).
    pub sealed: String,
}

impl SigningKeys<'_> {
    /// The key that signs, if one was made.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn current(&self) -> Result<Option<SigningKey>, Error> {
        const OPERATION: &str = "read signing key";
        let found = self.0.read(OPERATION, self.0.config_table(), key(PRIVATE, CURRENT)).await?;
        found.as_ref().map(|item| document(OPERATION, item)).transpose()
    }

    /// Makes this the key that signs, and publishes its public half, unless there is one already. Returns the key that
    /// signs now: the first writer's.
    ///
    /// # Errors
    /// The database is away, or the stored key is unreadable.
    pub async fn put_if_absent(&self, new: &SigningKey) -> Result<SigningKey, Error> {
        const OPERATION: &str = "store signing key";
        let puts = [row(OPERATION, PRIVATE, CURRENT, new)?, row(OPERATION, PUBLIC, &new.public.kid, &new.public)?];
        let puts = puts.map(|item| ConditionalPut { item, condition: Condition::Absent }).into();
        match self.0.transact_put(OPERATION, self.0.config_table(), puts).await? {
            Ok(()) => Ok(new.clone()),
            Err(stored) => match stored.into_iter().next().flatten() {
                Some(winner) => document(OPERATION, &winner),
                // The kid is taken although no key signs.
                None => Err(Error::Conflict { operation: OPERATION }),
            },
        }
    }

    /// The public half with this id, for checking a token.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn public_key(&self, kid: &str) -> Result<Option<PublicKey>, Error> {
        const OPERATION: &str = "read public key";
        // The id comes from a token that nobody has checked yet; a sort key holds 1 to 1,024 bytes.
        if kid.is_empty() || kid.len() > 1_024 {
            return Ok(None);
        }
        let found = self.0.read(OPERATION, self.0.config_table(), key(PUBLIC, kid)).await?;
        found.as_ref().map(|item| document(OPERATION, item)).transpose()
    }

    /// Every public half, in the order of their ids.
    ///
    /// # Errors
    /// The database is away, or a row is unreadable.
    pub async fn public_keys(&self) -> Result<Vec<PublicKey>, Error> {
        const OPERATION: &str = "list public keys";
        let items = self.0.read_partition(OPERATION, self.0.config_table(), text(PUBLIC)).await?;
        items.iter().map(|item| document(OPERATION, item)).collect()
    }
}
