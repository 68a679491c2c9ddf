//! Sign-ins: they begin with a login, are prolonged by refresh tokens that are good once, and end with a logout.

use std::time::Duration;

use jiff::Timestamp;
use tidegate_http::{Change, Problem, ProblemCode, RandomSecret, RequestContext};
use tidegate_model::{AuthMethod, Member, Session, SessionId, Tenant, TenantId, TenantStatus, User, UserId};
use tidegate_store::Error as StoreError;
use zeroize::Zeroizing;

use crate::Deps;
use crate::signing::Subject;

/// What every refresh token begins with.
const REFRESH_PREFIX: &str = "tgr_";
/// How long a session lasts that isn't refreshed.
pub const IDLE_LIFETIME: Duration = Duration::from_secs(14 * 86_400);
/// How long a session lasts at most.
pub const MAX_LIFETIME: Duration = Duration::from_secs(90 * 86_400);
/// More sessions than these a user can't have: the oldest one ends.
const MAX_SESSIONS: usize = 50;
/// So often is a session changed again where it was refreshed at the same moment.
const MAX_TRIES: u32 = 3;

/// A user who has just proved to be one: tokens, and the tenant that they are for.
pub(crate) struct SignedIn {
    pub(crate) session: SessionId,
    pub(crate) access_token: String,
    pub(crate) refresh_token: RefreshToken,
    pub(crate) user: User,
    pub(crate) tenant: Option<(Tenant, Member)>,
}

/// A refresh token: `tgr_`, the ids of user and session in 32 hex digits each, and two secrets. The first is the same in
/// all tokens of the session, the second is of this one alone: who shows the first with another second has a token that
/// was used before, and who shows neither has none.
pub(crate) struct RefreshToken {
    user: UserId,
    session: SessionId,
    family: RandomSecret,
    secret: RandomSecret,
}

impl RefreshToken {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(REFRESH_PREFIX)?.split('.');
        let mut next = || parts.next();
        let user = format!("{}{}", UserId::PREFIX, next()?).parse().ok()?;
        let session = format!("{}{}", SessionId::PREFIX, next()?).parse().ok()?;
        let (family, secret) = (RandomSecret::parse(next()?)?, RandomSecret::parse(next()?)?);
        next().is_none().then_some(Self { user, session, family, secret })
    }

    pub(crate) fn write(&self) -> Zeroizing<String> {
        let (user, session) = (self.user.to_string(), self.session.to_string());
        let (user, session) = (&user[UserId::PREFIX.len()..], &session[SessionId::PREFIX.len()..]);
        let (family, secret) = (self.family.expose(), self.secret.expose());
        Zeroizing::new(format!("{REFRESH_PREFIX}{user}.{session}.{family}.{secret}"))
    }
}

/// Begins a session of a user who has proved to be one, in a tenant or in the first one that can be used.
pub(crate) async fn begin(
    deps: &Deps,
    context: &RequestContext,
    user: User,
    methods: Vec<AuthMethod>,
    tenant: Option<TenantId>,
) -> Result<SignedIn, Problem> {
    let membership = match tenant {
        Some(tenant) => Some(membership(deps, user.id, tenant).await?.ok_or_else(Problem::not_found)?),
        None => first_membership(deps, user.id).await?,
    };
    let now = deps.clock.now();
    let refresh_token = RefreshToken {
        user: user.id,
        session: deps.ids.session(),
        family: RandomSecret::new(),
        secret: RandomSecret::new(),
    };
    let session = Session {
        id: refresh_token.session,
        user: user.id,
        tenant: membership.as_ref().map(|(tenant, _)| tenant.id),
        family_hash: refresh_token.family.hash(),
        refresh_hash: refresh_token.secret.hash(),
        methods,
        created_at: now,
        refreshed_at: now,
        expires_at: now + IDLE_LIFETIME,
        address: context.address,
        user_agent: context.user_agent.as_deref().map(str::to_owned),
    };
    make_room(deps, user.id, now).await?;
    let change = Change::of("session.begin", session.id);
    let entry = context.audit(&deps.ids, session.tenant, Some(user.id.into()), change);
    // Signed first: where that fails nothing has begun.
    let signed_in = signed_in(deps, &session, refresh_token, user, membership).await?;
    deps.store.audited(entry).sessions().create(&session).await?;
    Ok(signed_in)
}

/// Prolongs a session, in its tenant or in another. A token that was used before ends the session: it or the one that came
/// after it is in the wrong hands.
pub(crate) async fn refresh(
    deps: &Deps,
    context: &RequestContext,
    shown: &RefreshToken,
    tenant: Option<TenantId>,
) -> Result<SignedIn, Problem> {
    let RefreshToken { user, session, family, secret } = shown;
    let stored = deps.store.sessions().get(*user, *session).await?.ok_or_else(ended)?;
    if !family.is(&stored.family_hash) {
        return Err(ended());
    }
    if !secret.is(&stored.refresh_hash) {
        return Err(reused(deps, context, &stored).await?);
    }
    let now = deps.clock.now();
    if stored.expires_at <= now {
        deps.store.sessions().delete(*user, &[*session]).await?;
        return Err(ended());
    }
    let account = deps.store.accounts().user(*user).await?.ok_or_else(ended)?;
    let membership = match tenant {
        Some(tenant) => Some(membership(deps, *user, tenant).await?.ok_or_else(Problem::not_found)?),
        None => match stored.tenant {
            Some(tenant) => membership(deps, *user, tenant).await?,
            None => None,
        },
    };
    let membership = match membership {
        Some(membership) => Some(membership),
        // Removed from the session's tenant; there may be others.
        None => first_membership(deps, *user).await?,
    };
    let next = RefreshToken { user: *user, session: *session, family: family.clone(), secret: RandomSecret::new() };
    let renewed = Session {
        tenant: membership.as_ref().map(|(tenant, _)| tenant.id),
        refresh_hash: next.secret.hash(),
        refreshed_at: now,
        expires_at: (now + IDLE_LIFETIME).min(stored.created_at + MAX_LIFETIME),
        ..stored.clone()
    };
    // Signed first: where that fails the token that was shown is still good, and can be shown again.
    let signed_in = signed_in(deps, &renewed, next, account, membership).await?;
    if !deps.store.sessions().replace(&stored, &renewed).await? {
        // Somebody else was faster with the same token, or ended the session.
        return match deps.store.sessions().get(*user, *session).await? {
            // It was changed in another way, and the token is still the newest.
            Some(stored) if secret.is(&stored.refresh_hash) => Err(changed().into()),
            Some(stored) => Err(reused(deps, context, &stored).await?),
            None => Err(ended()),
        };
    }
    Ok(signed_in)
}

/// Ends all of a user's sessions but one.
pub(crate) async fn end_all(
    deps: &Deps,
    user: UserId,
    but: Option<SessionId>,
    entry: tidegate_model::AuditEntry,
) -> Result<(), Problem> {
    let sessions = deps.store.sessions().list(user).await?;
    let ids: Vec<_> = sessions.iter().map(|session| session.id).filter(|id| Some(*id) != but).collect();
    if !ids.is_empty() {
        deps.store.audited(entry).sessions().delete(user, &ids).await?;
    }
    Ok(())
}

/// Notes in a session how its user has proved who it is; its next access token tells.
pub(crate) async fn set_methods(
    deps: &Deps,
    user: UserId,
    id: SessionId,
    methods: &[AuthMethod],
) -> Result<(), Problem> {
    for _ in 0..MAX_TRIES {
        let Some(stored) = deps.store.sessions().get(user, id).await? else { return Ok(()) };
        let noted = Session { methods: methods.to_vec(), ..stored.clone() };
        if deps.store.sessions().replace(&stored, &noted).await? {
            return Ok(());
        }
    }
    Err(changed().into())
}

/// A user's membership in a tenant that isn't deleted.
pub(crate) async fn membership(
    deps: &Deps,
    user: UserId,
    tenant: TenantId,
) -> Result<Option<(Tenant, Member)>, Problem> {
    let Some(member) = deps.store.tenants().member(tenant, user.into()).await? else { return Ok(None) };
    let tenant = deps.store.tenants().get(tenant).await?;
    Ok(tenant.filter(|tenant| tenant.status != TenantStatus::Deleted).map(|tenant| (tenant, member)))
}

/// The first tenant that a user can use; one that is suspended where there is no other.
async fn first_membership(deps: &Deps, user: UserId) -> Result<Option<(Tenant, Member)>, Problem> {
    let mut suspended = None;
    for tenant in deps.store.accounts().tenants_of(user).await? {
        match membership(deps, user, tenant).await? {
            Some(found) if found.0.status == TenantStatus::Active => return Ok(Some(found)),
            found => suspended = suspended.or(found),
        }
    }
    Ok(suspended)
}

/// Deletes a user's sessions that are over, and the oldest one where there are too many.
async fn make_room(deps: &Deps, user: UserId, now: Timestamp) -> Result<(), Problem> {
    let mut sessions = deps.store.sessions().list(user).await?;
    sessions.sort_by_key(|session| std::cmp::Reverse(session.refreshed_at));
    let over =
        sessions.iter().enumerate().filter(|(index, session)| session.expires_at <= now || *index + 1 >= MAX_SESSIONS);
    let ids: Vec<_> = over.map(|(_, session)| session.id).collect();
    Ok(deps.store.sessions().delete(user, &ids).await?)
}

async fn reused(deps: &Deps, context: &RequestContext, session: &Session) -> Result<Problem, Problem> {
    tracing::warn!(
        component = "auth",
        user_id = %session.user,
        "a refresh token was used twice; its session is ended"
    );
    let change = Change::of("session.reuse_detected", session.id);
    let entry = context.audit(&deps.ids, session.tenant, Some(session.user.into()), change);
    deps.store.audited(entry).sessions().delete(session.user, &[session.id]).await?;
    Ok(ended())
}

async fn signed_in(
    deps: &Deps,
    session: &Session,
    refresh_token: RefreshToken,
    user: User,
    tenant: Option<(Tenant, Member)>,
) -> Result<SignedIn, Problem> {
    let subject = Subject::person(session, tenant.as_ref().map(|(_, member)| member));
    let access_token = deps.signer.sign(subject).await?;
    Ok(SignedIn { session: session.id, access_token, refresh_token, user, tenant })
}

pub(crate) fn ended() -> Problem {
    Problem::new(ProblemCode::Unauthenticated, "The session has ended, or was never one. Sign in again.")
}

/// 401: there was no refresh token at all.
pub(crate) fn no_refresh_token() -> Problem {
    let detail =
        "There is no refresh token: send the cookie that came with the sign-in, or `refresh_token` in the body.";
    Problem::new(ProblemCode::Unauthenticated, detail)
}

fn changed() -> StoreError {
    StoreError::Conflict { operation: "change a session" }
}
