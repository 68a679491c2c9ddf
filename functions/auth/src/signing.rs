//! The key that access tokens are signed with: made on first use by whichever instance is first, its private half
//! sealed by the key service.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jiff::Timestamp;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{EncodingKey, Header};
use tidegate_http::{ALGORITHM, AUDIENCE, Claims, FIRST_PARTY, Problem, Scope, TOKEN_TYPE};
use tidegate_model::{ApiKey, AuditEntry, AuthMethod, Member, PrincipalId, RoleName, Session, SessionId, TenantId};
use tidegate_platform::envelope::EnvelopeError;
use tidegate_platform::key_service::KeyContext;
use tidegate_platform::{Clock, Envelope, Ids, PortError};
use tidegate_store::{Error as StoreError, PublicKey, SigningKey, SigningRing, Store};
use tokio::sync::Mutex;

/// How long an access token is good.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(15 * 60);
/// How old a key gets before another one follows it.
pub const KEY_LIFETIME: Duration = Duration::from_secs(90 * 86_400);
/// How long a key is published before it signs: verifiers look for unknown keys every 30 s.
pub const PUBLISHED_BEFORE: Duration = Duration::from_secs(120);
/// When the last token of a key has ended, counted from when its successor began to sign: an instance may sign with the old
/// one for [`KEY_TTL`] more.
const TOKENS_ENDED_AFTER: Duration = Duration::from_secs(30 * 60);
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
    read_at: Timestamp,
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
    /// There are keys, but none of them signs.
    #[error("no signing key is left")]
    NoKey,
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
            SigningError::NoKey | SigningError::Generate(_) | SigningError::Token(_) | SigningError::Json(_) => {
                Problem::internal(&error)
            }
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

    /// An access token, good for [`TOKEN_LIFETIME`].
    ///
    /// # Errors
    /// The key can't be had or made.
    pub async fn sign(&self, subject: Subject) -> Result<String, SigningError> {
        let shared = &*self.shared;
        let now = shared.clock.now();
        let iat = now.as_second();
        let Subject { principal, client_id, session, methods, tenant, roles, scope } = subject;
        let claims = Claims {
            iss: shared.issuer.clone(),
            aud: AUDIENCE.to_owned(),
            sub: principal,
            client_id,
            sid: session,
            amr: methods,
            tenant,
            roles,
            scope,
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

    /// Makes a new key. It is published at once and signs once every verifier knows it, so that nobody is signed out; with
    /// `withdraw` the keys so far are no longer good, and it signs at once. `entry` tells the audit log, by the key's id.
    /// Returns the key.
    ///
    /// # Errors
    /// The keys can't be had or made; [`StoreError::Conflict`] where somebody else changed them at the same moment.
    pub async fn rotate(
        &self,
        withdraw: bool,
        entry: impl FnOnce(&str) -> AuditEntry,
    ) -> Result<SigningKey, SigningError> {
        let shared = &*self.shared;
        let now = shared.clock.now();
        let former = shared.store.signing_keys().ring().await?;
        let signs_from = if withdraw { now } else { now + PUBLISHED_BEFORE };
        let key = shared.new_key(now, signs_from).await?;
        let new = key.clone();
        let kept = former.iter().filter(|_| !withdraw).flat_map(|ring| ring.keys.iter().cloned());
        let mut keys: Vec<_> = kept.chain([key]).collect();
        drop_retired(&mut keys, now);
        let revision = former.as_ref().map_or(0, |ring| ring.revision) + 1;
        let store = shared.store.audited(entry(&new.public.kid));
        let stands = store.signing_keys().replace(former.as_ref(), &SigningRing { keys, revision }).await?;
        *shared.current.lock().await = None;
        // Somebody else's rotation may withdraw less than this one.
        if stands.keys.contains(&new) {
            return Ok(new);
        }
        Err(StoreError::Conflict { operation: "rotate signing keys" }.into())
    }
}

/// Who an access token is for.
#[derive(Debug, Clone)]
pub struct Subject {
    principal: PrincipalId,
    client_id: String,
    session: Option<SessionId>,
    methods: Vec<AuthMethod>,
    tenant: Option<TenantId>,
    roles: Vec<RoleName>,
    scope: Option<Scope>,
}

impl Subject {
    /// A person in a session, as a member of a tenant.
    pub fn person(session: &Session, member: Option<&Member>) -> Self {
        Self {
            principal: session.user.into(),
            client_id: FIRST_PARTY.to_owned(),
            session: Some(session.id),
            methods: session.methods.clone(),
            tenant: member.map(|member| member.tenant),
            roles: member.map(|member| member.role.clone()).into_iter().collect(),
            scope: None,
        }
    }

    /// A service account in its role, by one of its API keys, for a part of what that allows.
    pub fn machine(key: &ApiKey, role: RoleName, scope: Scope) -> Self {
        Self {
            principal: key.service_account.into(),
            client_id: key.id.to_string(),
            session: None,
            methods: Vec::new(),
            tenant: Some(key.tenant),
            roles: vec![role],
            scope: Some(scope),
        }
    }
}

/// The youngest key that signs by now.
fn signs_at(ring: &SigningRing, now: Timestamp) -> Option<&SigningKey> {
    ring.keys.iter().rev().find(|key| key.signs_from <= now).or_else(|| ring.keys.first())
}

/// Drops the keys whose tokens have all ended: those whose successor has long been signing.
fn drop_retired(keys: &mut Vec<SigningKey>, now: Timestamp) {
    let successors: Vec<_> = keys.iter().skip(1).map(|key| key.signs_from).collect();
    let mut successor = successors.into_iter();
    keys.retain(|_| successor.next().is_none_or(|signs_from| now < signs_from + TOKENS_ENDED_AFTER));
}

impl Shared {
    async fn current_key(&self, read_at: Timestamp) -> Result<Current, SigningError> {
        let keys = self.store.signing_keys();
        let ring = match keys.ring().await? {
            Some(ring) => self.renewed(ring, read_at).await?,
            // Of several that make the first key at once one is kept, and all use that.
            None => {
                let first = SigningRing { keys: vec![self.new_key(read_at, read_at).await?], revision: 1 };
                keys.replace(None, &first).await?
            }
        };
        let stored = signs_at(&ring, read_at).ok_or(SigningError::NoKey)?;
        let kid = stored.public.kid.clone();
        let private = self.envelope.open(&stored.data_key, &context(), kid.as_bytes(), &stored.sealed).await?;
        Ok(Current { kid, key: EncodingKey::from_ec_der(&private), read_at })
    }

    /// The ring, with a new key where the youngest one is old.
    async fn renewed(&self, ring: SigningRing, now: Timestamp) -> Result<SigningRing, SigningError> {
        let young = |key: &SigningKey| now < key.public.created_at + KEY_LIFETIME;
        if ring.keys.last().is_some_and(young) {
            return Ok(ring);
        }
        let mut keys = ring.keys.clone();
        keys.push(self.new_key(now, now + PUBLISHED_BEFORE).await?);
        drop_retired(&mut keys, now);
        let next = SigningRing { keys, revision: ring.revision + 1 };
        Ok(self.store.signing_keys().replace(Some(&ring), &next).await?)
    }

    async fn new_key(&self, created_at: Timestamp, signs_from: Timestamp) -> Result<SigningKey, SigningError> {
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
        Ok(SigningKey { public, data_key, sealed, signs_from })
    }
}

fn context() -> KeyContext {
    KeyContext { tenant: "platform".to_owned(), purpose: "signing".to_owned() }
}
