//! Envelope encryption of secrets under a tenant's data key, which the key service has wrapped.
//!
//! A sealed value is base64 of what `key_service::cipher` makes. Bound to it are the key's context and the caller's
//! associated data: moved to another tenant, purpose or record, it doesn't open.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use moka::future::Cache;
use zeroize::Zeroizing;

use crate::key_service::cipher::{Cipher, canonical};
use crate::key_service::{KeyContext, UnwrapError};
use crate::{Clock, KeyService, PortError};

/// How long an opened data key is used before the key service is asked again: the bound within which a key that was
/// disabled there goes out of use here.
pub const DATA_KEY_TTL: Duration = Duration::from_secs(5 * 60);

/// How many opened data keys are kept.
const MAX_DATA_KEYS: u64 = 10_000;

/// Seals and opens secrets; keeps opened data keys for [`DATA_KEY_TTL`]. A clone shares them.
#[derive(Clone)]
pub struct Envelope {
    keys: Arc<dyn KeyService>,
    clock: Clock,
    opened: Cache<CacheKey, OpenedKey>,
}

/// Why a secret was not sealed or opened. No text in it holds a secret.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EnvelopeError {
    /// The data key was not opened.
    #[error("can't open the data key")]
    DataKey(#[source] Arc<UnwrapError>),
    /// The wrapped data key or the sealed value is not base64.
    #[error("the {0} is not base64")]
    Malformed(&'static str),
    /// The sealed value was changed, or sealed for another tenant, purpose or record, or under another data key.
    #[error("the sealed value was changed, or sealed for another tenant or record")]
    Refused,
}

impl EnvelopeError {
    /// Whether the same call may succeed later: the key service was away.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::DataKey(error) if matches!(**error, UnwrapError::Unavailable(_)))
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct CacheKey {
    wrapped: String,
    context: KeyContext,
}

#[derive(Clone)]
struct OpenedKey {
    cipher: Arc<Cipher>,
    signing: Arc<hmac::Key>,
    at: Timestamp,
}

impl Envelope {
    /// Envelope encryption over a key service.
    pub fn new(keys: Arc<dyn KeyService>, clock: Clock) -> Self {
        // The library's own expiry wipes keys that are not asked for again; the clock decides about those that are.
        let opened = Cache::builder().max_capacity(MAX_DATA_KEYS).time_to_live(DATA_KEY_TTL).build();
        Self { keys, clock, opened }
    }

    /// A new data key for a context, wrapped; base64.
    ///
    /// # Errors
    /// The key service is away.
    pub async fn new_data_key(&self, context: &KeyContext) -> Result<String, PortError> {
        let (_, wrapped) = self.keys.generate_data_key(context).await?;
        Ok(STANDARD.encode(wrapped))
    }

    /// Encrypts a secret under a wrapped data key (base64) and binds it to the context and associated data; base64.
    ///
    /// # Errors
    /// The data key doesn't open.
    pub async fn seal(
        &self,
        wrapped: &str,
        context: &KeyContext,
        associated: &[u8],
        plain: &[u8],
    ) -> Result<String, EnvelopeError> {
        let cipher = self.cipher(wrapped, context).await?;
        Ok(STANDARD.encode(cipher.seal(&bound(context, associated), plain)))
    }

    /// Decrypts what [`Envelope::seal`] made with the same data key, context and associated data.
    ///
    /// # Errors
    /// The data key doesn't open, or the value was not sealed so.
    pub async fn open(
        &self,
        wrapped: &str,
        context: &KeyContext,
        associated: &[u8],
        sealed: &str,
    ) -> Result<Zeroizing<Vec<u8>>, EnvelopeError> {
        let sealed = STANDARD.decode(sealed).map_err(|_| EnvelopeError::Malformed("sealed value"))?;
        let cipher = self.cipher(wrapped, context).await?;
        cipher.open(&bound(context, associated), &sealed).map_err(|_| EnvelopeError::Refused)
    }

    /// HMAC-SHA256 of a message under a key that is derived from a wrapped data key (base64) for this one purpose. Whoever
    /// can open the data key makes the same again; nobody else can.
    ///
    /// # Errors
    /// The data key doesn't open.
    pub async fn sign(
        &self,
        wrapped: &str,
        context: &KeyContext,
        purpose: &str,
        message: &[u8],
    ) -> Result<[u8; 32], EnvelopeError> {
        let opened = self.opened(wrapped, context).await?;
        let tag = hmac::sign(&opened.signing, &canonical("tidegate signature", &[purpose.as_bytes(), message]));
        let mut signature = [0; 32];
        signature.copy_from_slice(tag.as_ref());
        Ok(signature)
    }

    async fn cipher(&self, wrapped: &str, context: &KeyContext) -> Result<Arc<Cipher>, EnvelopeError> {
        Ok(self.opened(wrapped, context).await?.cipher)
    }

    async fn opened(&self, wrapped: &str, context: &KeyContext) -> Result<OpenedKey, EnvelopeError> {
        let key = CacheKey { wrapped: wrapped.to_owned(), context: context.clone() };
        if let Some(opened) = self.opened.get(&key).await {
            if self.clock.now() < opened.at + DATA_KEY_TTL {
                return Ok(opened);
            }
            self.opened.invalidate(&key).await;
        }
        let bytes = STANDARD.decode(wrapped).map_err(|_| EnvelopeError::Malformed("wrapped data key"))?;
        let open = async {
            // The time before the call, so that the bound counts from when the key service was asked.
            let at = self.clock.now();
            let plain = self.keys.unwrap_data_key(&bytes, context).await?;
            Ok(OpenedKey { cipher: Arc::new(Cipher::new(&plain)), signing: Arc::new(signing_key(&plain)), at })
        };
        self.opened.try_get_with(key, open).await.map_err(EnvelopeError::DataKey)
    }
}

/// The key that signs, apart from the one that seals: HMAC as the pseudo-random function of RFC 5869.
fn signing_key(data_key: &[u8; 32]) -> hmac::Key {
    let derive = hmac::Key::new(hmac::HMAC_SHA256, data_key);
    hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&derive, b"tidegate signing key").as_ref())
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope").field("opened_keys", &self.opened.entry_count()).finish_non_exhaustive()
    }
}

fn bound(context: &KeyContext, associated: &[u8]) -> Vec<u8> {
    canonical("tidegate sealed value", &[context.tenant.as_bytes(), context.purpose.as_bytes(), associated])
}
