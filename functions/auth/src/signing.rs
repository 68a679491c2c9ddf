//! The key that access tokens are signed with: made on first use by whichever instance is first, its private half
//! sealed by the key service.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{EncodingKey, Header};
use tidegate_http::{ALGORITHM, AUDIENCE, Claims, Problem, TOKEN_TYPE};
use tidegate_model::{Role, TenantId, UserId};
use tidegate_platform::envelope::EnvelopeError;
use tidegate_platform::key_service::KeyContext;
use tidegate_platform::{Clock, Envelope, Ids, PortError};
use tidegate_store::{PublicKey, SigningKey, Store};
use tokio::sync::Mutex;

/// How long an access token is good.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
/// How long a key is used before the store is asked whether it still is the one that signs.
const KEY_TTL: Duration = Duration::from_secs(5 * 60);

/// Signs access tokens. Clones share the key.
#[derive(Clone)]
pub struct TokenSigner {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    envelope: Envelope,
    issuer: String,
    clock: Clock,
    ids: Ids,
    current: Mutex<Option<Current>>,
}

struct Current {
    kid: String,
    key: EncodingKey,
    read_at: jiff::Timestamp,
}

/// A token couldn't be signed.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The store couldn't be asked for the key, or couldn't keep it.
    #[error(transparent)]
    Store(#[from] tidegate_store::Error),
    /// The key service made no data key.
    #[error(transparent)]
    KeyService(#[from] PortError),
    /// The private half couldn't be sealed or opened.
    #[error("the signing key can't be sealed or opened")]
    Envelope(#[from] EnvelopeError),
    /// A key pair couldn't be made.
    #[error("can't make a signing key")]
    Generate(#[source] aws_lc_rs::error::Unspecified),
    /// The key can't be written as a JSON Web Key, or doesn't sign.
    #[error("can't sign with the key")]
    Token(#[from] jsonwebtoken::errors::Error),
    /// The key's public half can't be written as JSON.
    #[error("can't write the public key")]
    Json(#[from] serde_json::Error),
}

impl From<SigningError> for Problem {
    fn from(error: SigningError) -> Self {
        match error {
            SigningError::Store(error) => error.into(),
            SigningError::KeyService(error) => error.into(),
            SigningError::Envelope(error) => error.into(),
            SigningError::Generate(_) | SigningError::Token(_) | SigningError::Json(_) => Problem::internal(&error),
        }
    }
}

impl TokenSigner {
    /// Signs as this issuer, with the key in the store.
    pub fn new(store: Store, envelope: Envelope, issuer: impl Into<String>, clock: Clock, ids: Ids) -> Self {
        let shared = Shared { store, envelope, issuer: issuer.into(), clock, ids, current: Mutex::new(None) };
        Self { shared: Arc::new(shared) }
    }

    /// Opens the key, or makes the first one; to be called at the start, so that a wrong master key is found then.
    ///
    /// # Errors
    /// The key can't be had, made or opened.
    pub async fn ready(&self) -> Result<(), SigningError> {
        let mut current = self.shared.current.lock().await;
        *current = Some(self.shared.current_key(self.shared.clock.now()).await?);
        Ok(())
    }

    /// An access token for a user, good for [`TOKEN_LIFETIME`].
    ///
    /// # Errors
    /// The key can't be had or made.
    pub async fn sign(&self, user: UserId, tenant: TenantId, role: Role) -> Result<String, SigningError> {
        let shared = &*self.shared;
        let now = shared.clock.now();
        let iat = now.as_second();
        let claims = Claims {
            iss: shared.issuer.clone(),
            aud: AUDIENCE.to_owned(),
            sub: user,
            tenant,
            role,
            iat,
            exp: iat.saturating_add_unsigned(TOKEN_LIFETIME.as_secs()),
            jti: shared.ids.entropy().iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        let mut current = shared.current.lock().await;
        let fresh = current.take().filter(|key| now.duration_since(key.read_at).unsigned_abs() < KEY_TTL);
        let key = match fresh {
            Some(key) => key,
            None => shared.current_key(now).await?,
        };
        let key = current.insert(key);
        let mut header = Header::new(ALGORITHM);
        header.typ = Some(TOKEN_TYPE.to_owned());
        header.kid = Some(key.kid.clone());
        Ok(jsonwebtoken::encode(&header, &claims, &key.key)?)
    }
}

impl Shared {
    async fn current_key(&self, read_at: jiff::Timestamp) -> Result<Current, SigningError> {
        let keys = self.store.signing_keys();
        let stored = match keys.current().await? {
            Some(stored) => stored,
            // Of several that make the first key at once one is kept, and all use that.
            None => keys.put_if_absent(&self.new_key(read_at).await?).await?,
        };
        let kid = stored.public.kid;
        let private = self.envelope.open(&stored.data_key, &context(), kid.as_bytes(), &stored.sealed).await?;
        Ok(Current { kid, key: EncodingKey::from_ec_der(&private), read_at })
    }

    async fn new_key(&self, created_at: jiff::Timestamp) -> Result<SigningKey, SigningError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(SigningError::Generate)?;
        let private = pair.to_pkcs8v1().map_err(SigningError::Generate)?;
        let mut jwk = Jwk::from_encoding_key(&EncodingKey::from_ec_der(private.as_ref()), ALGORITHM)?;
        // RFC 7638: an id that is the key's own, so that two can't share one.
        let kid = jwk.thumbprint(ThumbprintHash::SHA256)?;
        jwk.common.key_id = Some(kid.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        let data_key = self.envelope.new_data_key(&context()).await?;
        let sealed = self.envelope.seal(&data_key, &context(), kid.as_bytes(), private.as_ref()).await?;
        let public = PublicKey { kid, jwk: serde_json::to_string(&jwk)?, created_at };
        Ok(SigningKey { public, data_key, sealed })
    }
}

fn context() -> KeyContext {
    KeyContext { tenant: "platform".to_owned(), purpose: "signing".to_owned() }
}
