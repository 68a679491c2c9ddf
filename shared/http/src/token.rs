//! Access tokens: what they claim (RFC 9068), and how they are verified. The auth function signs them.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tidegate_model::{AuthMethod, Permission, PrincipalId, RoleName, SessionId, TenantId, UnknownPermission};
use tidegate_platform::Clock;
use tidegate_store::{PublicKey, Store};

use crate::Problem;

/// The one algorithm that tokens are signed with.
pub const ALGORITHM: Algorithm = Algorithm::ES256;
/// The `typ` of an access token, which tells it from any other token that we sign.
pub const TOKEN_TYPE: &str = "at+jwt";
/// The `iss` of an installation's access tokens. Another installation's don't pass, for they are signed with its own keys.
pub const ISSUER: &str = "tidegate";
/// The `client_id` of tokens for people.
pub const FIRST_PARTY: &str = "tidegate";
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
    /// The caller: a person or a service account.
    pub sub: PrincipalId,
    /// For whom the token was made: the API key of a service account's client credentials, [`FIRST_PARTY`] for people.
    pub client_id: String,
    /// The sign-in that a person's token belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<SessionId>,
    /// How a person proved who it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub amr: Vec<AuthMethod>,
    /// The tenant that the caller works in; none for a person who is of no tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// The caller's roles there when the token was signed. For clients to read: what counts is the role at the request.
    #[serde(default)]
    pub roles: Vec<RoleName>,
    /// What may be done with it, where that is less than the caller may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// When it was signed: Unix seconds.
    pub iat: i64,
    /// When it ends: Unix seconds.
    pub exp: i64,
    /// The token's own id.
    pub jti: String,
}

/// Permissions as OAuth 2.0 writes them: one or more names with single spaces between them (RFC 6749, section 3.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope(pub BTreeSet<Permission>);

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|permission| permission.as_str()).collect();
        f.write_str(&names.join(" "))
    }
}

impl FromStr for Scope {
    type Err = UnknownPermission;

    fn from_str(text: &str) -> Result<Self, UnknownPermission> {
        text.split(' ').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
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
    published: Arc<Vec<Jwk>>,
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

    /// The keys that tokens may be signed with, at most 30 s old.
    ///
    /// # Errors
    /// 503 where the keys can't be read.
    pub async fn public_keys(&self) -> Result<Arc<Vec<Jwk>>, Problem> {
        let fresh =
            |keys: &Keys| keys.is_fresh(self.shared.clock.now(), keys.min_age()).then(|| keys.published.clone());
        match self.keys(fresh).await? {
            Ok(published) => Ok(published),
            Err(reread) => Ok(reread.published),
        }
    }

    async fn key(&self, id: &str) -> Result<Option<DecodingKey>, Problem> {
        // What is known of the id: the key, that there is none (inner `None`), or nothing.
        let known = |keys: &Keys| {
            let found = keys.by_id.get(id).cloned();
            let good_for = if found.is_some() { KEYS_TTL } else { keys.min_age() };
            keys.is_fresh(self.shared.clock.now(), good_for).then_some(found)
        };
        match self.keys(known).await? {
            Ok(found) => Ok(found),
            Err(reread) => Ok(reread.by_id.get(id).cloned()),
        }
    }

    /// What `look` finds in the keys at hand, or else the keys just read from the store; one reads at a time.
    async fn keys<T>(&self, look: impl Fn(&Keys) -> Option<T>) -> Result<Result<T, Keys>, Problem> {
        let at_hand = || self.shared.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(found) = look(&at_hand()) {
            return Ok(Ok(found));
        }
        let _one_at_a_time = self.shared.refreshing.lock().await;
        if let Some(found) = look(&at_hand()) {
            return Ok(Ok(found));
        }
        let stored = self.shared.store.signing_keys().public_keys().await?;
        let keys = Keys::new(&stored, self.shared.clock.now());
        *self.shared.keys.write().unwrap_or_else(PoisonError::into_inner) = keys.clone();
        Ok(Err(keys))
    }
}

impl Keys {
    fn new(stored: &[PublicKey], read_at: Timestamp) -> Self {
        let mut keys = Self { read_at: Some(read_at), ..Self::default() };
        let (by_id, published) = stored.iter().take(MAX_KEYS).filter_map(readable).unzip();
        keys.by_id = Arc::new(by_id);
        keys.published = Arc::new(published);
        keys
    }

    fn is_fresh(&self, now: Timestamp, good_for: Duration) -> bool {
        self.read_at.is_some_and(|read_at| now.duration_since(read_at).unsigned_abs() < good_for)
    }

    fn min_age(&self) -> Duration {
        if self.by_id.is_empty() { NO_KEYS_MIN_AGE } else { KEYS_MIN_AGE }
    }
}

/// A stored key to verify with and to publish.
fn readable(public: &PublicKey) -> Option<((String, DecodingKey), Jwk)> {
    let read = || -> Result<_, Box<dyn std::error::Error>> {
        let jwk: Jwk = serde_json::from_str(&public.jwk)?;
        Ok(((public.kid.clone(), DecodingKey::from_jwk(&jwk)?), jwk))
    };
    read().inspect_err(|error| tracing::error!(kid = public.kid, error = &**error, "public key is unreadable")).ok()
}
