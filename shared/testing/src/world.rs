//! A whole installation in memory: the embedded parts, a clock that stands still, ids that count up, and callers.

use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header};
use tidegate_http::{ALGORITHM, AUDIENCE, Claims, TOKEN_TYPE, TokenVerifier};
use tidegate_model::{Role, Tenant, TenantId, User, UserId};
use tidegate_platform::blobs::folder::FolderBlobs;
use tidegate_platform::key_service::KeyContext;
use tidegate_platform::key_service::key_file::KeyFile;
use tidegate_platform::queue::{EmbeddedQueue, EmbeddedSettings};
use tidegate_platform::scheduler::EmbeddedScheduler;
use tidegate_platform::{Clock, Envelope, Ids, KeyService};
use tidegate_store::embedded::{self, Embedded, Faults};
use tidegate_store::{PublicKey, SigningKey, Store};

use crate::policy;

/// Who signs the tokens of tests.
pub const ISSUER: &str = "https://tidegate.test";
const KID: &str = "test";
/// When the clock stands at first: 2026-11-20T10:00:00Z.
const START_MS: i64 = 1_795_168_800_000;

/// Everything that functions need, in memory (keys and blobs in a folder that goes with it).
pub struct World {
    /// The store, as every function gets it.
    pub store: Store,
    /// The database under it; its `faults` and `meter`.
    pub embedded: Embedded,
    /// The run queue.
    pub queue: EmbeddedQueue,
    /// Its timers.
    pub scheduler: EmbeddedScheduler,
    /// Blobs.
    pub blobs: Arc<FolderBlobs>,
    /// Wraps and unwraps data keys.
    pub keys: Arc<dyn KeyService>,
    /// Seals and opens secrets.
    pub envelope: Envelope,
    /// Verifies the tokens of [`World::session`].
    pub verifier: TokenVerifier,
    /// Stands still until it is moved.
    pub clock: Clock,
    /// Counts up.
    pub ids: Ids,
    signing: EncodingKey,
    _folder: tempfile::TempDir,
}

/// Somebody who has signed in.
#[derive(Debug, Clone)]
pub struct Session {
    /// The caller's tenant.
    pub tenant: TenantId,
    /// The caller.
    pub user: UserId,
    /// The access token.
    pub token: String,
}

impl World {
    /// An installation without data, but for the key that it signs tokens with.
    pub async fn new() -> Self {
        let world = Self::without_key().await;
        world.publish_key().await;
        world
    }

    /// An installation that was never used: it has no key, so the sessions of [`World::session`] aren't good in it.
    pub async fn without_key() -> Self {
        let clock = Clock::manual(jiff::Timestamp::from_millisecond(START_MS).expect("a time"));
        let ids = Ids::seeded(clock.clone(), 1);
        let folder = tempfile::tempdir().expect("make a folder");
        let embedded = embedded::open_memory(clock.clone(), Faults::default()).await.expect("open the store");
        let settings =
            EmbeddedSettings { visibility_timeout: std::time::Duration::from_secs(330), max_receive_count: 25 };
        let queue = EmbeddedQueue::in_memory(settings, clock.clone()).expect("open the queue");
        let keys: Arc<dyn KeyService> =
            Arc::new(KeyFile::open_or_create(&folder.path().join("key")).expect("make the key"));
        let blobs = FolderBlobs::open(&folder.path().join("blobs"), clock.clone()).expect("open the blobs");
        let store = embedded.store.clone();
        Self {
            scheduler: queue.scheduler(),
            queue,
            blobs: Arc::new(blobs),
            envelope: Envelope::new(keys.clone(), clock.clone()),
            keys,
            verifier: TokenVerifier::new(store.clone(), ISSUER, clock.clone()),
            signing: signing_key(),
            store,
            embedded,
            clock,
            ids,
            _folder: folder,
        }
    }

    /// The store for a function (`webhooks`): what its role in `template.yaml` doesn't allow is refused.
    pub fn store_of(&self, function: &str) -> Store {
        self.embedded.guarded(policy::guard(function))
    }

    /// A new tenant and its owner, signed in.
    pub async fn session(&self, name: &str) -> Session {
        let (tenant, user) = (self.ids.tenant(), self.ids.user());
        let context = KeyContext { tenant: tenant.to_string(), purpose: "connections".to_owned() };
        let data_key = self.envelope.new_data_key(&context).await.expect("make a data key");
        let created_at = self.clock.now();
        let owner = User {
            id: user,
            email: format!("{name}@example.com"),
            name: name.to_owned(),
            password_hash: "none".to_owned(),
            tenant,
            role: Role::Owner,
            created_at,
        };
        let organization = Tenant { id: tenant, name: name.to_owned(), data_key, created_at };
        self.store.accounts().create(&owner, &organization).await.expect("create the account");
        self.sign_in(tenant, user, Role::Owner)
    }

    /// Somebody else in a tenant, in another role.
    pub fn member(&self, of: &Session, role: Role) -> Session {
        self.sign_in(of.tenant, self.ids.user(), role)
    }

    fn sign_in(&self, tenant: TenantId, user: UserId, role: Role) -> Session {
        let now = self.clock.now().as_second();
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: user,
            tenant,
            role,
            iat: now,
            exp: now + 366 * 86_400,
            jti: user.to_string(),
        };
        let header = Header { typ: Some(TOKEN_TYPE.to_owned()), kid: Some(KID.to_owned()), ..Header::new(ALGORITHM) };
        let token = jsonwebtoken::encode(&header, &claims, &self.signing).expect("sign the token");
        Session { tenant, user, token }
    }

    async fn publish_key(&self) {
        let jwk = Jwk::from_encoding_key(&self.signing, ALGORITHM).expect("describe the key");
        let jwk = serde_json::to_string(&jwk).expect("write the key");
        let public = PublicKey { kid: KID.to_owned(), jwk, created_at: self.clock.now() };
        let context = KeyContext { tenant: "platform".to_owned(), purpose: "signing".to_owned() };
        let data_key = self.envelope.new_data_key(&context).await.expect("make a data key");
        let private = self.signing.as_bytes();
        let sealed = self.envelope.seal(&data_key, &context, KID.as_bytes(), private).await.expect("seal the key");
        let key = SigningKey { public, data_key, sealed };
        self.store.signing_keys().put_if_absent(&key).await.expect("publish the key");
    }
}

fn signing_key() -> EncodingKey {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("make a key");
    let pkcs8 = pair.to_pkcs8v1().expect("encode the key");
    EncodingKey::from_ec_der(pkcs8.as_ref())
}
