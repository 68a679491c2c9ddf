//! Who calls: reads the access token or API key, and looks up how the caller and the tenant stand now.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tidegate_model::{
    ApiKey, ApiKeyId, AuthMethod, DataKey, Limits, Member, Permission, Policies, PrincipalId, RoleName, SessionId,
    Tenant, TenantId, TenantStatus, UserId,
};
use tidegate_platform::{Clock, Fresh};
use tidegate_store::{Error as StoreError, RateStatus, Store};

use crate::api_key::{API_KEY_PREFIX, RandomSecret, read_api_key};
use crate::token::FIRST_PARTY;
use crate::{Claims, Problem, ProblemCode, RateLimiter, Scope, TokenVerifier};

/// How long a tenant's state and an API key are used before they are read again.
pub const TENANT_STALE_AFTER: Duration = Duration::from_secs(5);
/// How long a membership and a session are used before they are read again.
pub const MEMBER_STALE_AFTER: Duration = Duration::from_secs(30);
/// A process notes that a key was used at most this often.
const NOTE_USE_EVERY: Duration = Duration::from_secs(300);
/// Bound of each cache; an entry takes up to a few hundred bytes.
const MAX_ENTRIES: u64 = 20_000;

/// Recognises callers and holds them to their rate limits. Clones share what they remember.
///
/// Warm, a request costs no read and at most a tenth of a write. Cold, it takes one read each of tenant, membership, and
/// session or API key. A revoked key and a suspended tenant are noticed within 5 s, a removed member, a changed role and an
/// ended session within 30 s.
#[derive(Debug, Clone)]
pub struct Authenticator {
    verifier: TokenVerifier,
    store: Store,
    clock: Clock,
    limiter: RateLimiter,
    tenants: Tenants,
    members: Fresh<(TenantId, PrincipalId), Option<Arc<Member>>>,
    sessions: Fresh<(UserId, SessionId), Option<Arc<[AuthMethod]>>>,
    keys: Fresh<ApiKeyId, Option<Arc<ApiKey>>>,
    administrators: Fresh<UserId, bool>,
    uses: Fresh<ApiKeyId, ()>,
}

/// How tenants stand, at most five seconds ago.
#[derive(Debug, Clone)]
pub struct Tenants {
    store: Store,
    known: Fresh<TenantId, Option<Arc<Standing>>>,
}

/// How a tenant stands.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Whether it may be used.
    pub status: TenantStatus,
    /// What its members have to fulfil.
    pub policies: Policies,
    /// Its own limits.
    pub limits: Limits,
    tenant: Arc<Tenant>,
}

impl Standing {
    /// The key for ingress of a data key's number, wrapped.
    pub fn ingress_key(&self, number: u32) -> Option<&str> {
        self.tenant.data_key(number)?.ingress.as_deref()
    }

    /// The newest key for ingress, wrapped, and its number.
    pub fn newest_ingress_key(&self) -> Option<(u32, &str)> {
        let newest = self.tenant.sealing_key()?;
        Some((newest.number, newest.ingress.as_deref()?))
    }
}

impl Tenants {
    /// Tenants in the store.
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, known: Fresh::new(clock, TENANT_STALE_AFTER, MAX_ENTRIES) }
    }

    /// A tenant that isn't deleted.
    ///
    /// # Errors
    /// 503: the store is away.
    pub async fn get(&self, id: TenantId) -> Result<Option<Arc<Standing>>, Problem> {
        let read = || async {
            let tenant = self.store.tenants().get(id).await?;
            let tenant = tenant.filter(|tenant| tenant.status != TenantStatus::Deleted).map(|tenant| {
                // Those for connections have no place in a cache.
                let without = |key: DataKey| DataKey { wrapped: String::new(), ..key };
                let data_keys = tenant.data_keys.into_iter().map(without).collect();
                let tenant = Arc::new(Tenant { data_keys, ..tenant });
                Arc::new(Standing { status: tenant.status, policies: tenant.policies, limits: tenant.limits, tenant })
            });
            Ok(tenant)
        };
        self.known.get(id, read).await.map_err(away)
    }
}

/// Somebody who was recognised.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) principal: PrincipalId,
    pub(crate) tenant: Option<TenantId>,
    pub(crate) session: Option<SessionId>,
    pub(crate) api_key: Option<Arc<ApiKey>>,
    pub(crate) methods: Arc<[AuthMethod]>,
    /// What the token is for, where that is less than its holder may do.
    pub(crate) scope: Option<Scope>,
}

impl Identity {
    /// The service account that an API key is of.
    fn machine(key: Arc<ApiKey>) -> Self {
        Self {
            principal: key.service_account.into(),
            tenant: Some(key.tenant),
            session: None,
            api_key: Some(key),
            methods: Arc::default(),
            scope: None,
        }
    }

    /// Whether what was shown is good for this, whoever showed it.
    pub(crate) fn is_for(&self, permission: Permission) -> bool {
        let key = self.api_key.as_ref().is_none_or(|key| key.scopes.contains(&permission));
        key && self.scope.as_ref().is_none_or(|scope| scope.0.contains(&permission))
    }
}

/// A client of OAuth 2.0 that proved to be one: an API key, and what may be done with it now.
#[derive(Debug, Clone)]
pub struct Client {
    /// The key.
    pub key: Arc<ApiKey>,
    /// The role of its service account.
    pub role: RoleName,
    /// What that role and the key's scopes allow.
    pub permissions: BTreeSet<Permission>,
    /// What is left of its rate limit.
    pub rate: Option<RateStatus>,
}

/// Somebody who was recognised, and may act in a tenant.
#[derive(Debug, Clone)]
pub(crate) struct Granted {
    pub(crate) tenant: TenantId,
    pub(crate) role: RoleName,
    pub(crate) permissions: BTreeSet<Permission>,
    pub(crate) rate: Option<RateStatus>,
}

impl Authenticator {
    /// Recognises those whose tokens the verifier takes, and API keys.
    pub fn new(verifier: TokenVerifier, store: Store, clock: Clock, limiter: RateLimiter) -> Self {
        Self {
            tenants: Tenants::new(store.clone(), clock.clone()),
            members: Fresh::new(clock.clone(), MEMBER_STALE_AFTER, MAX_ENTRIES),
            sessions: Fresh::new(clock.clone(), MEMBER_STALE_AFTER, MAX_ENTRIES),
            keys: Fresh::new(clock.clone(), TENANT_STALE_AFTER, MAX_ENTRIES),
            administrators: Fresh::new(clock.clone(), MEMBER_STALE_AFTER, MAX_ENTRIES),
            uses: Fresh::new(clock.clone(), NOTE_USE_EVERY, MAX_ENTRIES),
            verifier,
            store,
            clock,
            limiter,
        }
    }

    /// The tenants that callers act in.
    pub fn tenants(&self) -> &Tenants {
        &self.tenants
    }

    /// Verifies access tokens alone.
    pub fn verifier(&self) -> &TokenVerifier {
        &self.verifier
    }

    /// Who shows this token or key; `anew` looks a session up instead of believing that it was there lately.
    pub(crate) async fn recognise(&self, token: &str, anew: bool) -> Result<Identity, Problem> {
        if token.starts_with(API_KEY_PREFIX) {
            let (id, secret) = read_api_key(token).ok_or_else(key_invalid)?;
            return Ok(Identity::machine(self.key(id, &secret).await?));
        }
        let Claims { sub, client_id, sid, amr, tenant, scope, .. } = self.verifier.verify(token).await?;
        let ended = || Problem::token_invalid("You were signed out. Sign in again.");
        let (methods, api_key) = match (sub, sid) {
            (PrincipalId::User(user), Some(session)) if client_id == FIRST_PARTY => {
                if anew {
                    self.sessions.forget(&(user, session)).await;
                }
                let read = || async {
                    let session = self.store.sessions().get(user, session).await?;
                    Ok(session.map(|session| session.methods.into()))
                };
                let mut methods = self.sessions.get((user, session), read).await.map_err(away)?;
                if methods.as_ref().is_some_and(|methods| amr.iter().any(|method| !methods.contains(method))) {
                    // The token is younger than what is known of the session, or a second factor was turned off since.
                    self.sessions.forget(&(user, session)).await;
                    methods = self.sessions.get((user, session), read).await.map_err(away)?;
                }
                (methods.ok_or_else(ended)?, None)
            }
            (PrincipalId::Service(account), None) => {
                let key = self.live_key(client_id.parse().map_err(|_| ended())?).await?;
                let key = key.filter(|key| key.service_account == account && Some(key.tenant) == tenant);
                (Arc::default(), Some(key.ok_or_else(ended)?))
            }
            _ => return Err(ended()),
        };
        Ok(Identity { principal: sub, tenant, session: sid, api_key, methods, scope })
    }

    /// What an identity may do in its tenant now; counts the request.
    pub(crate) async fn grant(&self, identity: &Identity) -> Result<Granted, Problem> {
        let Identity { principal, api_key, methods, .. } = identity;
        let tenant = identity.tenant.ok_or_else(no_tenant)?;
        let left = || Problem::token_invalid("You are no member of this organization any more. Sign in again.");
        let mut standing = self.tenants.get(tenant).await?.ok_or_else(left)?;
        let member = self.member(tenant, *principal).await?.ok_or_else(left)?;
        let rate = self.limiter.api(tenant, api_key.as_ref().map(|key| key.id), standing.limits).await?;
        if !standing.tenant.has_role(&member.role) {
            // A role that is younger than what is known of the tenant.
            self.tenants.known.forget(&tenant).await;
            standing = self.tenants.get(tenant).await?.ok_or_else(left)?;
        }
        if standing.status == TenantStatus::Suspended {
            return Err(Problem::tenant_suspended());
        }
        if principal.user().is_some() {
            check_policies(standing.policies, &member, methods)?;
        }
        let mut permissions = standing.tenant.permissions(&member.role);
        permissions.retain(|permission| identity.is_for(*permission));
        if let Some(key) = api_key {
            self.note_use(key).await;
        }
        Ok(Granted { tenant, role: member.role.clone(), permissions, rate })
    }

    /// The client of OAuth 2.0 with this id and secret, and what it may do now; counts the request.
    ///
    /// # Errors
    /// 401: there is none, or it has ended; 403: its tenant is suspended; 429; 503: the store is away.
    pub async fn client(&self, id: ApiKeyId, secret: &RandomSecret) -> Result<Client, Problem> {
        let key = self.key(id, secret).await?;
        let Granted { role, permissions, rate, .. } = self.grant(&Identity::machine(Arc::clone(&key))).await?;
        Ok(Client { key, role, permissions, rate })
    }

    /// Counts a request of a person about the own account or the installation: no tenant's limit is about these.
    pub(crate) async fn count_person(&self, user: UserId) -> Result<Option<RateStatus>, Problem> {
        self.limiter.person(user).await
    }

    /// Whether somebody is a member of a tenant.
    pub(crate) async fn is_member(&self, tenant: TenantId, principal: PrincipalId) -> Result<bool, Problem> {
        Ok(self.member(tenant, principal).await?.is_some())
    }

    /// Whether somebody administers the installation; `anew` as in [`Self::recognise`].
    pub(crate) async fn is_administrator(&self, user: UserId, anew: bool) -> Result<bool, Problem> {
        if anew {
            self.administrators.forget(&user).await;
        }
        let read = || async { self.store.platform().is_administrator(user).await };
        self.administrators.get(user, read).await.map_err(away)
    }

    async fn member(&self, tenant: TenantId, principal: PrincipalId) -> Result<Option<Arc<Member>>, Problem> {
        let read = || async { Ok(self.store.tenants().member(tenant, principal).await?.map(Arc::new)) };
        self.members.get((tenant, principal), read).await.map_err(away)
    }

    /// The API key with this id and secret; whoever is recognised by it hears the same of a wrong id and a wrong secret.
    async fn key(&self, id: ApiKeyId, secret: &RandomSecret) -> Result<Arc<ApiKey>, Problem> {
        let key = self.live_key(id).await?.ok_or_else(key_invalid)?;
        if secret.is(&key.secret_hash) { Ok(key) } else { Err(key_invalid()) }
    }

    async fn live_key(&self, id: ApiKeyId) -> Result<Option<Arc<ApiKey>>, Problem> {
        let read = || async { Ok(self.store.api_keys().get(id).await?.map(Arc::new)) };
        let key = self.keys.get(id, read).await.map_err(away)?;
        let now = self.clock.now();
        Ok(key.filter(|key| key.expires_at.is_none_or(|end| now < end)))
    }

    /// Notes that a key was used, seldom. That it can't be noted hinders nobody.
    async fn note_use(&self, key: &ApiKey) {
        let now: Timestamp = self.clock.now();
        let note = || async {
            // A failure is as good as a note: the store isn't asked more because it can't answer.
            if let Err(error) = self.store.api_keys().mark_used(key.tenant, key.id, now).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(component = "http", error, "the use of an API key can't be noted");
            }
            Ok::<_, Infallible>(())
        };
        // It can't fail.
        self.uses.get(key.id, note).await.ok();
    }
}

fn check_policies(policies: Policies, member: &Member, methods: &[AuthMethod]) -> Result<(), Problem> {
    if policies.require_second_factor && !methods.contains(&AuthMethod::Otp) && !methods.contains(&AuthMethod::Sso) {
        let detail = "This organization requires a second factor. Set one up under `/api/auth/second-factor`, then sign \
                      in with it.";
        return Err(Problem::new(ProblemCode::SecondFactorRequired, detail));
    }
    if policies.require_sso && !methods.contains(&AuthMethod::Sso) && !member.is_owner() {
        let detail = "This organization requires signing in by its identity provider.";
        return Err(Problem::new(ProblemCode::SsoRequired, detail));
    }
    Ok(())
}

fn key_invalid() -> Problem {
    Problem::token_invalid("The API key isn't valid here: it may have been revoked, or have ended.")
}

fn no_tenant() -> Problem {
    let detail = "The access token is for no organization. Accept an invitation, or make one with `POST /api/tenants`; then get \
                  a token for it with `POST /api/auth/refresh` and its `tenant_id`.";
    Problem::new(ProblemCode::NoTenant, detail)
}

fn away(error: Arc<StoreError>) -> Problem {
    Problem::unavailable(&*error)
}
