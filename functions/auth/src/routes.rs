//! The operations: they read the request, call the rules in `accounts`, and write the answer.

use std::fmt;
use std::net::IpAddr;

use axum::extract::State;
use axum::response::{IntoResponse, IntoResponseParts, ResponseParts};
use http::header::{CACHE_CONTROL, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use tidegate_http::permission::{AccountRead, AccountWrite};
use tidegate_http::{Change, Created, Json, ListOf, Path, Person, Problem, Public, RequestContext, Time, cookie};
use tidegate_model::{AuthMethod, RoleName, Session, SessionId, Tenant, TenantId, TenantStatus, User, UserId};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::Deps;
use crate::sessions::{RefreshToken, SignedIn};
use crate::{accounts, sessions};

/// A new account and the tenant that is made with it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// The address to sign in with; upper and lower case are the same.
    #[schema(format = Email, max_length = 254, examples("alex@example.com"))]
    pub email: String,
    /// The password: 10 to 256 characters.
    pub password: Password,
    /// The user's name for display: 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200, examples("Alex"))]
    pub name: String,
    /// The organization's name for display: 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200, examples("Example Ltd."))]
    pub tenant_name: String,
    /// Where the refresh token goes.
    #[serde(default)]
    pub token_delivery: TokenDelivery,
}

/// Who signs in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogIn {
    /// The account's address.
    #[schema(format = Email, examples("alex@example.com"))]
    pub email: String,
    /// The account's password.
    pub password: Password,
    /// A code of the second factor, or a recovery code, where the account has one.
    #[serde(default)]
    #[schema(value_type = Option<String>, examples("123456"))]
    pub code: Option<Password>,
    /// The tenant that the access token is to be for; without it the first one that the user is a member of.
    #[serde(default)]
    pub tenant_id: Option<TenantId>,
    /// Where the refresh token goes.
    #[serde(default)]
    pub token_delivery: TokenDelivery,
}

/// Where a refresh token goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenDelivery {
    /// Into a cookie that scripts can't read and other sites can't send: for browsers.
    #[default]
    Cookie,
    /// Into the answer's body: for programs without a cookie jar.
    Body,
}

/// What a person changes of the own account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateMe {
    /// Name for display: 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200, examples("Alexandra"))]
    name: String,
}

/// What prolongs a session.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    /// The refresh token; without it the cookie's.
    #[serde(default)]
    pub refresh_token: Option<Password>,
    /// The tenant that the access token is to be for, if it is to be another one.
    #[serde(default)]
    pub tenant_id: Option<TenantId>,
}

/// A password in the clear: never printed, wiped when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, format = Password, min_length = 10, max_length = 256, examples("correct horse battery"))]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes a password.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// A signed-in account.
#[derive(Serialize, ToSchema)]
pub struct Account {
    /// The access token: send it as `Authorization: Bearer …`.
    pub access_token: String,
    /// Always `Bearer`.
    #[schema(examples("Bearer"))]
    pub token_type: &'static str,
    /// Seconds until the token ends.
    #[schema(examples(900))]
    pub expires_in: u64,
    /// What gets the next access token, once; only where it was asked for in the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<Password>,
    /// The user.
    pub user: UserView,
    /// The tenant that the token is for; null for a user who is of none.
    pub tenant: Option<TenantView>,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { access_token: _, token_type, expires_in, refresh_token: _, user, tenant } = self;
        f.debug_struct("Account")
            .field("token_type", token_type)
            .field("expires_in", expires_in)
            .field("user", user)
            .field("tenant", tenant)
            .finish_non_exhaustive()
    }
}

/// The caller's account.
#[derive(Debug, Serialize, ToSchema)]
pub struct Me {
    /// The user.
    pub user: UserView,
    /// The tenant that the token is for; null for a user who is of none.
    pub tenant: Option<TenantView>,
}

/// A user.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserView {
    /// The user's id.
    pub id: UserId,
    /// The address that the user signs in with, in lower case.
    pub email: String,
    /// Whether the user proved to read mail at that address.
    pub email_verified: bool,
    /// Name for display.
    pub name: String,
    /// The user's role in the tenant; null for a user who is of none.
    pub role: Option<RoleName>,
    /// When the account was made.
    pub created_at: Time,
}

/// A tenant, as its members see it.
#[derive(Debug, Serialize, ToSchema)]
pub struct TenantView {
    /// The tenant's id.
    pub id: TenantId,
    /// Name for display.
    pub name: String,
    /// Whether it may be used.
    pub status: TenantStatus,
    /// When the tenant was made.
    pub created_at: Time,
}

/// A sign-in of the caller.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Session)]
pub(crate) struct SessionView {
    /// The session's id.
    id: SessionId,
    /// Whether it is the one that this request came in.
    current: bool,
    /// How the user proved who it is.
    methods: Vec<AuthMethod>,
    /// When it began.
    created_at: Time,
    /// When it was last refreshed.
    refreshed_at: Time,
    /// When it ends unless it is refreshed before.
    expires_at: Time,
    /// From which address it began.
    #[schema(value_type = Option<String>)]
    address: Option<IpAddr>,
    /// With what: the `User-Agent`.
    user_agent: Option<String>,
}

/// The keys that access tokens are signed with (RFC 7517, section 5)
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeySet {
    /// JSON Web Keys.
    #[schema(value_type = Vec<Object>)]
    keys: Vec<jsonwebtoken::jwk::Jwk>,
}

/// Make an account and its tenant
///
/// The user owns the tenant. Where registration isn't open this is 403. A link that verifies the address is mailed; where it
/// can't be, the account is made all the same, and `POST /api/auth/email/verification` asks for another.
#[utoipa::path(
    post,
    path = "/api/auth/register",
    tag = "auth",
    request_body = Register,
    responses((status = 201, description = "Registered and signed in", body = Account))
)]
pub(crate) async fn register(
    _: Public,
    State(deps): State<Deps>,
    context: RequestContext,
    Json(body): Json<Register>,
) -> Result<(SetRefresh, Created<Account>), Problem> {
    let delivery = body.token_delivery;
    let (cookie, account) = answer(&deps, &context, accounts::register(&deps, &context, body).await?, delivery);
    Ok((cookie, Created { location: "/api/auth/me".to_owned(), body: account }))
}

/// Sign in
///
/// The access token is good for 15 minutes; `POST /api/auth/refresh` gets the next one. Where the account has a second factor
/// and no `code` comes along, this is 403 with the code `second_factor_required`. Too many attempts are 429.
#[utoipa::path(
    post,
    path = "/api/auth/login",
    tag = "auth",
    operation_id = "login",
    request_body = LogIn,
    responses((status = 200, description = "Signed in", body = Account))
)]
pub(crate) async fn log_in(
    _: Public,
    State(deps): State<Deps>,
    context: RequestContext,
    Json(body): Json<LogIn>,
) -> Result<(SetRefresh, Json<Account>), Problem> {
    let delivery = body.token_delivery;
    let (cookie, account) = answer(&deps, &context, accounts::log_in(&deps, &context, body).await?, delivery);
    Ok((cookie, Json(account)))
}

/// Get the next access token
///
/// A refresh token is good once: the answer brings the next one, where this one came from. One that is used a second time
/// ends the session. With `tenant_id` the access token is for another tenant that the user is a member of.
#[utoipa::path(
    post,
    path = "/api/auth/refresh",
    tag = "auth",
    request_body = Refresh,
    responses((status = 200, description = "The next tokens", body = Account))
)]
pub(crate) async fn refresh(
    _: Public,
    State(deps): State<Deps>,
    context: RequestContext,
    headers: HeaderMap,
    Json(body): Json<Refresh>,
) -> Result<(SetRefresh, Json<Account>), Problem> {
    let (shown, delivery) = match &body.refresh_token {
        Some(token) => (RefreshToken::parse(token.expose()), TokenDelivery::Body),
        None => (cookie(&headers, COOKIE).and_then(RefreshToken::parse), TokenDelivery::Cookie),
    };
    if body.refresh_token.is_none() && cookie(&headers, COOKIE).is_none() {
        return Err(sessions::no_refresh_token());
    }
    let shown = shown.ok_or_else(sessions::ended)?;
    let signed_in = sessions::refresh(&deps, &context, &shown, body.tenant_id).await?;
    let (cookie, account) = answer(&deps, &context, signed_in, delivery);
    Ok((cookie, Json(account)))
}

/// Sign out
///
/// Ends the session: its refresh token at once, its access token within 30 seconds.
#[utoipa::path(post, path = "/api/auth/logout", tag = "auth", responses((status = 204, description = "Signed out")))]
pub(crate) async fn log_out(
    caller: Person<AccountWrite>,
    State(deps): State<Deps>,
) -> Result<(SetRefresh, StatusCode), Problem> {
    end_one(&deps, &caller, caller.session).await?;
    Ok((SetRefresh::clear(&deps), StatusCode::NO_CONTENT))
}

/// Sign out everywhere
///
/// Ends all sessions of the caller, this one too.
#[utoipa::path(
    post,
    path = "/api/auth/logout-everywhere",
    tag = "auth",
    responses((status = 204, description = "Signed out everywhere"))
)]
pub(crate) async fn log_out_everywhere(
    caller: Person<AccountWrite>,
    State(deps): State<Deps>,
) -> Result<(SetRefresh, StatusCode), Problem> {
    let entry = caller.audit(&deps.ids, caller.tenant, Change::of("session.end_all", caller.user));
    sessions::end_all(&deps, caller.user, None, entry).await?;
    Ok((SetRefresh::clear(&deps), StatusCode::NO_CONTENT))
}

/// List one's sessions
#[utoipa::path(
    get,
    path = "/api/auth/sessions",
    tag = "auth",
    responses((status = 200, description = "All of them, the last refreshed first", body = ListOf<SessionView>))
)]
pub(crate) async fn list_sessions(
    caller: Person<AccountRead>,
    State(deps): State<Deps>,
) -> Result<Json<ListOf<SessionView>>, Problem> {
    let now = deps.clock.now();
    let mut sessions = deps.store.sessions().list(caller.user).await?;
    sessions.retain(|session| now < session.expires_at);
    sessions.sort_by_key(|session| std::cmp::Reverse(session.refreshed_at));
    let items = sessions.into_iter().map(|session| SessionView::of(session, caller.session)).collect();
    Ok(Json(ListOf { items, next_cursor: None }))
}

/// End one of one's sessions
#[utoipa::path(
    delete,
    path = "/api/auth/sessions/{id}",
    tag = "auth",
    params(("id" = SessionId, Path)),
    responses((status = 204, description = "It has ended"))
)]
pub(crate) async fn end_session(
    caller: Person<AccountWrite>,
    State(deps): State<Deps>,
    Path(id): Path<SessionId>,
) -> Result<StatusCode, Problem> {
    deps.store.sessions().get(caller.user, id).await?.ok_or_else(Problem::not_found)?;
    end_one(&deps, &caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The caller's account
#[utoipa::path(get, path = "/api/auth/me", tag = "auth", responses((status = 200, description = "The account", body = Me)))]
pub(crate) async fn me(caller: Person<AccountRead>, State(deps): State<Deps>) -> Result<Json<Me>, Problem> {
    account_of(&deps, caller.user, caller.tenant).await
}

/// Change one's account
#[utoipa::path(
    patch,
    path = "/api/auth/me",
    tag = "auth",
    request_body = UpdateMe,
    responses((status = 200, description = "The account as it is now", body = Me))
)]
pub(crate) async fn update_me(
    caller: Person<AccountWrite>,
    State(deps): State<Deps>,
    Json(body): Json<UpdateMe>,
) -> Result<Json<Me>, Problem> {
    let audit = |change| caller.audit(&deps.ids, caller.tenant, change);
    accounts::rename(&deps, caller.user, &body.name, audit).await?;
    account_of(&deps, caller.user, caller.tenant).await
}

async fn account_of(deps: &Deps, user: UserId, tenant: Option<TenantId>) -> Result<Json<Me>, Problem> {
    let user = accounts::account(deps, user).await?;
    let membership = match tenant {
        Some(tenant) => sessions::membership(deps, user.id, tenant).await?,
        None => None,
    };
    let role = membership.as_ref().map(|(_, member)| member.role.clone());
    let tenant = membership.as_ref().map(|(tenant, _)| TenantView::from(tenant));
    Ok(Json(Me { user: UserView::of(user, role), tenant }))
}

async fn end_one(deps: &Deps, caller: &Person<AccountWrite>, id: SessionId) -> Result<(), Problem> {
    let entry = caller.audit(&deps.ids, caller.tenant, Change::of("session.end", id));
    Ok(deps.store.audited(entry).sessions().delete(caller.user, &[id]).await?)
}

/// The public keys of access tokens
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "auth",
    responses((status = 200, description = "A JSON Web Key Set (RFC 7517)", body = KeySet))
)]
pub(crate) async fn key_set(_: Public, State(deps): State<Deps>) -> Result<impl IntoResponse, Problem> {
    let keys = deps.authenticator.verifier().public_keys().await?.to_vec();
    Ok(([(CACHE_CONTROL, "public, max-age=60")], Json(KeySet { keys })))
}

/// The refresh token's cookie on an answer: HttpOnly, `SameSite=Strict`, and sent to `/api/auth` alone.
#[derive(Debug)]
pub(crate) struct SetRefresh(Option<HeaderValue>);

const COOKIE: &str = "tidegate_refresh";

impl SetRefresh {
    fn to(deps: &Deps, token: &str) -> Self {
        Self::with(deps, token, sessions::IDLE_LIFETIME.as_secs())
    }

    fn clear(deps: &Deps) -> Self {
        Self::with(deps, "", 0)
    }

    fn with(deps: &Deps, token: &str, max_age: u64) -> Self {
        let secure = if deps.settings.secure_cookies { "; Secure" } else { "" };
        let text = format!("{COOKIE}={token}; Path=/api/auth; Max-Age={max_age}; HttpOnly; SameSite=Strict{secure}");
        let value = HeaderValue::try_from(text).ok();
        Self(value.map(|mut value| {
            value.set_sensitive(true);
            value
        }))
    }
}

impl IntoResponseParts for SetRefresh {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Self::Error> {
        if let Some(value) = self.0 {
            parts.headers_mut().append(SET_COOKIE, value);
        }
        Ok(parts)
    }
}

/// The answer to who has just proved to be somebody.
pub(crate) fn answer(
    deps: &Deps,
    context: &RequestContext,
    signed_in: SignedIn,
    delivery: TokenDelivery,
) -> (SetRefresh, Account) {
    let SignedIn { session: _, access_token, refresh_token, user, tenant } = signed_in;
    context.name_caller(tenant.as_ref().map(|(tenant, _)| tenant.id), user.id.into());
    let refresh_token = refresh_token.write();
    let (cookie, refresh_token) = match delivery {
        TokenDelivery::Cookie => (SetRefresh::to(deps, &refresh_token), None),
        TokenDelivery::Body => (SetRefresh(None), Some(Password::new(refresh_token.as_str()))),
    };
    let role = tenant.as_ref().map(|(_, member)| member.role.clone());
    let account = Account {
        access_token,
        token_type: "Bearer",
        expires_in: crate::TOKEN_LIFETIME.as_secs(),
        refresh_token,
        user: UserView::of(user, role),
        tenant: tenant.as_ref().map(|(tenant, _)| TenantView::from(tenant)),
    };
    (cookie, account)
}

impl UserView {
    /// A user, in a role.
    pub(crate) fn of(user: User, role: Option<RoleName>) -> Self {
        let User { id, email, email_verified_at, name, created_at } = user;
        Self { id, email, email_verified: email_verified_at.is_some(), name, role, created_at: created_at.into() }
    }
}

impl From<&Tenant> for TenantView {
    fn from(tenant: &Tenant) -> Self {
        let Tenant { id, name, status, created_at, .. } = tenant;
        Self { id: *id, name: name.clone(), status: *status, created_at: (*created_at).into() }
    }
}

impl SessionView {
    fn of(session: Session, current: SessionId) -> Self {
        let Session { id, methods, created_at, refreshed_at, expires_at, address, user_agent, .. } = session;
        Self {
            id,
            current: id == current,
            methods,
            created_at: created_at.into(),
            refreshed_at: refreshed_at.into(),
            expires_at: expires_at.into(),
            address,
            user_agent,
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn an_accounts_debug_text_has_no_token() {
        let at = Timestamp::UNIX_EPOCH;
        let (id, tenant) = (UserId::new(at, [1; 10]), TenantId::new(at, [2; 10]));
        let account = Account {
            access_token: "eyJ0eXAiOiJKV1Qi".to_owned(),
            token_type: "Bearer",
            expires_in: 900,
            refresh_token: Some(Password::new("tgr_0123")),
            user: UserView {
                id,
                email: "alex@example.com".to_owned(),
                email_verified: false,
                name: "Alex".to_owned(),
                role: None,
                created_at: at.into(),
            },
            tenant: Some(TenantView {
                id: tenant,
                name: "Alex's".to_owned(),
                status: TenantStatus::Active,
                created_at: at.into(),
            }),
        };
        let text = format!("{account:?}");
        assert!(text.contains("alex@example.com") && !text.contains("eyJ0") && !text.contains("tgr_"), "{text}");
    }
}
