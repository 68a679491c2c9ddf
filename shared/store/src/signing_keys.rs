//! The installation's keys for access tokens. The public halves are plain items in one partition (`jwk#` / kid), which
//! every function may read; the sealed private halves are apart (`signing#`), for the one function that signs.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::items::{Item, REVISION, document, key, number, row, text};
use crate::write::{Condition, Write};
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
    /// From when on it signs, if no younger one does: verifiers have to know it by then.
    pub signs_from: Timestamp,
}

/// All keys whose tokens may still be good, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningRing {
    /// The keys.
    pub keys: Vec<SigningKey>,
    /// Counts the writes, from 1.
    pub revision: u64,
}

impl SigningKeys<'_> {
    /// The keys, if one was made.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn ring(&self) -> Result<Option<SigningRing>, Error> {
        const OPERATION: &str = "read signing keys";
        let found = self.0.read(OPERATION, self.0.config_table(), key(PRIVATE, CURRENT)).await?;
        found.as_ref().map(|item| document(OPERATION, item)).transpose()
    }

    /// Replaces the ring whose revision is the one before (there is none before 1), publishes the public halves of its keys,
    /// and withdraws those of `former` that are no longer in it. Returns the ring that stands: this one, or that of somebody
    /// who was faster.
    ///
    /// # Errors
    /// The database is away, or the stored ring is unreadable.
    pub async fn replace(&self, former: Option<&SigningRing>, ring: &SigningRing) -> Result<SigningRing, Error> {
        const OPERATION: &str = "store signing keys";
        let table = self.0.config_table();
        let mut item = row(OPERATION, PRIVATE, CURRENT, ring)?;
        item.insert(REVISION.to_owned(), number(ring.revision));
        let condition = match former {
            Some(former) => Condition::Equals(vec![(REVISION, number(former.revision))]),
            None => Condition::Absent,
        };
        let mut writes = vec![Write::Put { table, item, condition }];
        let former: Vec<_> = former.into_iter().flat_map(|ring| &ring.keys).map(|key| &key.public.kid).collect();
        for added in ring.keys.iter().filter(|key| !former.contains(&&key.public.kid)) {
            let item = row(OPERATION, PUBLIC, &added.public.kid, &added.public)?;
            writes.push(Write::Put { table, item, condition: Condition::Absent });
        }
        for gone in former.into_iter().filter(|kid| !ring.keys.iter().any(|key| key.public.kid == **kid)) {
            writes.push(Write::Delete { table, key: key(PUBLIC, gone), condition: None });
        }
        match self.0.transact(OPERATION, writes).await? {
            Ok(()) => Ok(ring.clone()),
            // The kid is a hash of the key, so it was the ring's own condition that failed.
            Err(_) => self.ring().await?.ok_or(Error::Conflict { operation: OPERATION }),
        }
    }

    /// Every public half, in the order of their ids.
    ///
    /// # Errors
    /// The database is away, or a row is unreadable.
    pub async fn public_keys(&self) -> Result<Vec<PublicKey>, Error> {
        const OPERATION: &str = "list public keys";
        let items = self.0.read_partition(OPERATION, self.0.config_table(), text(PUBLIC)).await?;
        items.iter().map(|item: &Item| document(OPERATION, item)).collect()
    }
}
