//! Access tokens: what they claim (RFC 9068), and how they are verified. The auth function signs them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::{Deserialize, Serialize};
use tidegate_model::{Role, TenantId, UserId};
use tidegate_platform::Clock;
use tidegate_store::{PublicKey, Store};

use crate::Problem;

/// The one algorithm that tokens are signed with.
pub const ALGORITHM: Algorithm = Algorithm::ES256;
/// The `typ` of an access token, which tells it from any other token that we sign.
pub const TOKEN_TYPE: &str = "at+jwt";
/// The `aud` of every access token.
pub const AUDIENCE: &str = "tidegate-api";

/// After this long a key that has been withdrawn is known to be.
const KEYS_TTL: Duration = Duration::from_secs(5 * 60);
/// An unknown key id makes us look for new keys at most this often.
const KEYS_MIN_AGE: Duration = Duration::from_secs(30);
/// As long as no key is known at all, look this often: the first one is made any moment.
const NO_KEYS_MIN_AGE: Duration = Duration::from_secs(1);
/// How far the clocks of two of our processes may differ.
const LEEWAY: SignedDuration = SignedDuration::from_secs(5);
const MAX_TOKEN_BYTES: usize = 4 * 1024;
const MAX_KEYS: usize = 100;

/// The claims of an access token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The installation that signed it.
    pub iss: String,
    /// Always [`AUDIENCE`].
    pub aud: String,
    /// The caller.
    pub sub: UserId,
    /// The tenant that the caller works in.
    pub tenant: TenantId,
    /// The caller's role there.
    pub role: Role,
    /// When it was signed: Unix seconds.
    pub iat: i64,
    /// When it ends: Unix seconds.
    pub exp: i64,
    /// The token's own id.
    pub jti: String,
}

/// Verifies access tokens with the public keys in the store. Clones share the keys.
#[derive(Debug, Clone)]
pub struct TokenVerifier {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    issuer: String,
    clock: Clock,
    keys: RwLock<Keys>,
    refreshing: tokio::sync::Mutex<()>,
}

#[derive(Clone, Default)]
struct Keys {
    by_id: Arc<HashMap<String, DecodingKey>>,
    read_at: Option<Timestamp>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("read_at", &self.read_at).finish_non_exhaustive()
    }
}

impl TokenVerifier {
    /// Verifies tokens of one installation, named by its issuer.
    pub fn new(store: Store, issuer: impl Into<String>, clock: Clock) -> Self {
        let shared = Shared {
            store,
            issuer: issuer.into(),
            clock,
            keys: RwLock::default(),
            refreshing: tokio::sync::Mutex::new(()),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The claims of a token that is ours, for us, and still good.
    ///
    /// # Errors
    /// 401 for any other token; 503 where the keys can't be read.
    pub async fn verify(&self, token: &str) -> Result<Claims, Problem> {
        let invalid = || Problem::token_invalid("The access token isn't valid here. Sign in again.");
        if token.len() > MAX_TOKEN_BYTES {
            return Err(invalid());
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| invalid())?;
        // `crit` names extensions that must be understood (RFC 7515, section 4.1.11), and we know none.
        if header.alg != ALGORITHM || header.typ.as_deref() != Some(TOKEN_TYPE) || header.crit.is_some() {
            return Err(invalid());
        }
        let key = self.key(&header.kid.ok_or_else(invalid)?).await?.ok_or_else(invalid)?;
        let mut validation = Validation::new(ALGORITHM);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[&self.shared.issuer]);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        // The library reads the system's clock; ours decides, below.
        validation.validate_exp = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &validation).map_err(|_| invalid())?.claims;
        let now = self.shared.clock.now();
        if now.saturating_sub(LEEWAY).is_ok_and(|now| claims.exp <= now.as_second()) {
            return Err(Problem::token_invalid("The access token has expired. Sign in again."));
        }
        if now.saturating_add(LEEWAY).is_ok_and(|now| claims.iat > now.as_second()) {
            return Err(invalid());
        }
        Ok(claims)
    }

    async fn key(&self, id: &str) -> Result<Option<DecodingKey>, Problem> {
        if let Some(known) = self.known(id) {
            return Ok(known);
        }
        let _one_at_a_time = self.shared.refreshing.lock().await;
        if let Some(known) = self.known(id) {
            return Ok(known);
        }
        let stored = self.shared.store.signing_keys().public_keys().await?;
        let by_id = stored.iter().rev().take(MAX_KEYS).filter_map(decoding_key).collect();
        let keys = Keys { by_id: Arc::new(by_id), read_at: Some(self.shared.clock.now()) };
        let found = keys.by_id.get(id).cloned();
        *self.shared.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(found)
    }

    /// What is known of a key id without reading: the key, that there is none (inner `None`), or nothing.
    fn known(&self, id: &str) -> Option<Option<DecodingKey>> {
        let keys = self.shared.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        let age = self.shared.clock.now().duration_since(keys.read_at?);
        let found = keys.by_id.get(id).cloned();
        let good_for = match (&found, keys.by_id.is_empty()) {
            (Some(_), _) => KEYS_TTL,
            (None, true) => NO_KEYS_MIN_AGE,
            (None, false) => KEYS_MIN_AGE,
        };
        (age.unsigned_abs() < good_for).then_some(found)
    }
}

fn decoding_key(public: &PublicKey) -> Option<(String, DecodingKey)> {
    let key = serde_json::from_str::<Jwk>(&public.jwk)
        .map_err(|error| error.to_string())
        .and_then(|jwk| DecodingKey::from_jwk(&jwk).map_err(|error| error.to_string()));
    match key {
        Ok(key) => Some((public.kid.clone(), key)),
        Err(error) => {
            tracing::error!(kid = public.kid, error, "public key is unreadable");
            None
        }
    }
}
