//! A whole installation in memory: the embedded parts, a clock that stands still, ids that count up, and callers.

use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header};
use tidegate_http::{ALGORITHM, AUDIENCE, Authenticator, Claims, FIRST_PARTY, RateLimiter, TOKEN_TYPE, TokenVerifier};
use tidegate_model::{
    AuthMethod, Credentials, DataKey, Limits, Member, Policies, Role, SessionId, Tenant, TenantId, TenantStatus, User,
    UserId,
};
use tidegate_platform::blobs::folder::FolderBlobs;
use tidegate_platform::key_service::KeyContext;
use tidegate_platform::key_service::key_file::KeyFile;
use tidegate_platform::mail::Mail;
use tidegate_platform::queue::{EmbeddedQueue, EmbeddedSettings};
use tidegate_platform::scheduler::EmbeddedScheduler;
use tidegate_platform::{Clock, Envelope, Ids, KeyService, Mailer, PortError};
use tidegate_store::embedded::{self, Embedded, Faults};
use tidegate_store::{NewAccount, PublicKey, SigningKey, SigningRing, Store};

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
    /// The mails that were sent.
    pub outbox: Outbox,
    /// Stands still until it is moved.
    pub clock: Clock,
    /// Counts up.
    pub ids: Ids,
    signing: EncodingKey,
    _folder: tempfile::TempDir,
}

/// How long the tokens of [`World::session`] are good.
const YEAR: std::time::Duration = std::time::Duration::from_secs(366 * 86_400);

/// Keeps mails instead of sending them.
#[derive(Debug, Clone, Default)]
pub struct Outbox(Arc<std::sync::Mutex<Vec<Mail>>>);

impl Outbox {
    /// Takes out the mails to an address, oldest first.
    pub fn take(&self, to: &str) -> Vec<Mail> {
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (taken, left) = all.drain(..).partition(|mail| mail.to == to);
        *all = left;
        taken
    }
}

#[async_trait::async_trait]
impl Mailer for Outbox {
    async fn send(&self, mail: Mail) -> Result<(), PortError> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(mail);
        Ok(())
    }
}

/// A person who owns a tenant, to store.
#[derive(Debug, Clone)]
pub struct Account {
    /// The person.
    pub user: User,
    /// Nobody knows the password.
    pub credentials: Credentials,
    /// The tenant; its one data key opens nothing until it is set.
    pub tenant: Tenant,
    /// The person as the tenant's owner.
    pub owner: Member,
}

impl Account {
    /// A new one.
    pub fn new(ids: &Ids, email: &str) -> Self {
        let (user, tenant) = (ids.user(), ids.tenant());
        let created_at = tenant.timestamp();
        let name = email.split('@').next().unwrap_or_default().to_owned();
        Self {
            user: User { id: user, email: email.to_owned(), email_verified_at: None, name: name.clone(), created_at },
            credentials: Credentials {
                user,
                password_hash: "none".to_owned(),
                second_factor: None,
                reset: None,
                verification: None,
                revision: 1,
            },
            tenant: Tenant {
                id: tenant,
                name: name.clone(),
                status: TenantStatus::Active,
                data_keys: vec![DataKey { number: 1, wrapped: String::new(), ingress: None, created_at }],
                policies: Policies::default(),
                limits: Limits::default(),
                roles: std::collections::BTreeMap::new(),
                revision: 1,
                created_at,
            },
            owner: Member {
                tenant,
                principal: user.into(),
                role: Role::Owner.into(),
                name,
                email: Some(email.to_owned()),
                created_at,
            },
        }
    }

    /// What the store takes.
    pub fn new_account(&self) -> NewAccount<'_> {
        NewAccount { user: &self.user, credentials: &self.credentials, tenant: Some((&self.tenant, &self.owner)) }
    }
}

/// Somebody who has signed in.
#[derive(Debug, Clone)]
pub struct Session {
    /// The caller's tenant.
    pub tenant: TenantId,
    /// The caller.
    pub user: UserId,
    /// The sign-in.
    pub session: SessionId,
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
        let blobs = blobs.with_links("https://flows.example.com/files").expect("make the links' key");
        let store = embedded.store.clone();
        Self {
            scheduler: queue.scheduler(),
            queue,
            blobs: Arc::new(blobs),
            envelope: Envelope::new(keys.clone(), clock.clone()),
            keys,
            signing: signing_key(),
            outbox: Outbox::default(),
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
        let mut account = Account::new(&self.ids, &format!("{name}@example.com"));
        let id = account.tenant.id;
        let key = &mut account.tenant.data_keys[0];
        key.wrapped = self.envelope.new_data_key(&KeyContext::connections(id)).await.expect("make a data key");
        key.ingress = Some(self.envelope.new_data_key(&KeyContext::ingress(id)).await.expect("make a data key"));
        self.store.accounts().create(account.new_account()).await.expect("create the account");
        self.sign_in(&account.owner).await
    }

    /// Somebody else in a tenant, in another role.
    pub async fn member(&self, of: &Session, role: Role) -> Session {
        let Account { user, credentials, owner, .. } =
            Account::new(&self.ids, &format!("{}@example.com", self.ids.user()));
        let new = NewAccount { user: &user, credentials: &credentials, tenant: None };
        self.store.accounts().create(new).await.expect("create the account");
        let member = Member { tenant: of.tenant, role: role.into(), ..owner };
        self.store.tenants().add_member(&member).await.expect("add the member");
        self.sign_in(&member).await
    }

    /// Suspends or resumes a tenant, as another function does it.
    ///
    /// # Panics
    /// There is no such tenant.
    pub async fn set_status(&self, tenant: TenantId, status: TenantStatus) {
        let before = self.store.tenants().get(tenant).await.expect("read the tenant").expect("a tenant");
        let after = Tenant { status, revision: before.revision + 1, ..before };
        self.store.tenants().replace(&after).await.expect("replace the tenant");
    }

    /// A session of a member who is a person, with a token that is good for a year.
    ///
    /// # Panics
    /// It is no person, or the session can't be stored.
    pub async fn sign_in(&self, member: &Member) -> Session {
        let user = member.principal.user().expect("a person");
        let now = self.clock.now();
        let session = tidegate_model::Session {
            id: self.ids.session(),
            user,
            tenant: Some(member.tenant),
            family_hash: String::new(),
            refresh_hash: String::new(),
            methods: vec![AuthMethod::Pwd],
            created_at: now,
            refreshed_at: now,
            expires_at: now + YEAR,
            address: None,
            user_agent: None,
        };
        self.store.sessions().create(&session).await.expect("store the session");
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: user.into(),
            client_id: FIRST_PARTY.to_owned(),
            sid: Some(session.id),
            amr: session.methods,
            tenant: session.tenant,
            roles: vec![member.role.clone()],
            scope: None,
            iat: now.as_second(),
            exp: (now + YEAR).as_second(),
            jti: user.to_string(),
        };
        Session { tenant: member.tenant, user, session: session.id, token: self.sign(&claims) }
    }

    /// A token of any claims, under the world's own key.
    pub fn sign(&self, claims: &impl serde::Serialize) -> String {
        let header = Header { typ: Some(TOKEN_TYPE.to_owned()), kid: Some(KID.to_owned()), ..Header::new(ALGORITHM) };
        jsonwebtoken::encode(&header, claims, &self.signing).expect("sign the token")
    }

    /// What recognises callers, as a function has it: under the role of the function, without limits.
    pub fn authenticator_of(&self, function: &str) -> Authenticator {
        let store = self.store_of(function);
        let verifier = TokenVerifier::new(store.clone(), ISSUER, self.clock.clone());
        Authenticator::new(verifier, store, self.clock.clone(), self.limiter_of(function, Limits::default()))
    }

    /// Rate limits, as a function has them.
    pub fn limiter_of(&self, function: &str, defaults: Limits) -> RateLimiter {
        RateLimiter::new(self.store_of(function), self.clock.clone(), defaults)
    }

    async fn publish_key(&self) {
        let jwk = Jwk::from_encoding_key(&self.signing, ALGORITHM).expect("describe the key");
        let jwk = serde_json::to_string(&jwk).expect("write the key");
        let public = PublicKey { kid: KID.to_owned(), jwk, created_at: self.clock.now() };
        let context = KeyContext { tenant: "platform".to_owned(), purpose: "signing".to_owned() };
        let data_key = self.envelope.new_data_key(&context).await.expect("make a data key");
        let private = self.signing.as_bytes();
        let sealed = self.envelope.seal(&data_key, &context, KID.as_bytes(), private).await.expect("seal the key");
        let key = SigningKey { public, data_key, sealed, signs_from: self.clock.now() };
        let ring = SigningRing { keys: vec![key], revision: 1 };
        self.store.signing_keys().replace(None, &ring).await.expect("publish the key");
    }
}

fn signing_key() -> EncodingKey {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("make a key");
    let pkcs8 = pair.to_pkcs8v1().expect("encode the key");
    EncodingKey::from_ec_der(pkcs8.as_ref())
}
