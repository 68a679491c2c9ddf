//! The operations: they read the request, call the rules in `accounts`, and write the answer.

use std::fmt;

use axum::extract::State;
use axum::response::IntoResponse;
use http::header::CACHE_CONTROL;
use serde::{Deserialize, Serialize};
use tidegate_http::permission::AccountRead;
use tidegate_http::{Caller, Created, Json, Problem, Public, RequestContext, Time};
use tidegate_model::{Role, Tenant, TenantId, User, UserId};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::Deps;
use crate::accounts::{self, SignedIn};

/// A new account and the tenant that is made with it.
#[derive(Debug, Deserialize, ToSchema)]
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
}

/// A password in the clear: never printed, wiped when dropped.
#[derive(Clone, PartialEq, Eq, Deserialize, ToSchema)]
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
    #[schema(examples(3600))]
    pub expires_in: u64,
    /// The user.
    pub user: UserView,
    /// The user's tenant.
    pub tenant: TenantView,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { access_token: _, token_type, expires_in, user, tenant } = self;
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
    /// The user's tenant.
    pub tenant: TenantView,
}

/// A user, as its own tenant sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserView {
    /// The user's id.
    pub id: UserId,
    /// The address that the user signs in with, in lower case.
    pub email: String,
    /// Name for display.
    pub name: String,
    /// The user's role in the tenant.
    pub role: Role,
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
    /// When the tenant was made.
    pub created_at: Time,
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
/// The user owns the tenant. Where registration isn't open this is 403.
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
) -> Result<Created<Account>, Problem> {
    let account = accounts::register(&deps, body).await?;
    context.name_caller(account.tenant.id, account.user.id);
    Ok(Created { location: "/api/auth/me".to_owned(), body: account.into() })
}

/// Sign in
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
) -> Result<Json<Account>, Problem> {
    let account = accounts::log_in(&deps, body).await?;
    context.name_caller(account.tenant.id, account.user.id);
    Ok(Json(account.into()))
}

/// The caller's account
#[utoipa::path(get, path = "/api/auth/me", tag = "auth", responses((status = 200, description = "The account", body = Me)))]
pub(crate) async fn me(caller: Caller<AccountRead>, State(deps): State<Deps>) -> Result<Json<Me>, Problem> {
    let (user, tenant) = accounts::account(&deps, caller.tenant, caller.user).await?;
    Ok(Json(Me { user: user.into(), tenant: tenant.into() }))
}

/// The public keys of access tokens
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "auth",
    responses((status = 200, description = "A JSON Web Key Set (RFC 7517)", body = KeySet))
)]
pub(crate) async fn key_set(_: Public, State(deps): State<Deps>) -> Result<impl IntoResponse, Problem> {
    let keys = deps.verifier.public_keys().await?.to_vec();
    Ok(([(CACHE_CONTROL, "public, max-age=60")], Json(KeySet { keys })))
}

impl From<SignedIn> for Account {
    fn from(signed_in: SignedIn) -> Self {
        Self {
            access_token: signed_in.token,
            token_type: "Bearer",
            expires_in: crate::TOKEN_LIFETIME.as_secs(),
            user: signed_in.user.into(),
            tenant: signed_in.tenant.into(),
        }
    }
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        let User { id, email, name, role, created_at, password_hash: _, tenant: _ } = user;
        Self { id, email, name, role, created_at: created_at.into() }
    }
}

impl From<Tenant> for TenantView {
    fn from(tenant: Tenant) -> Self {
        let Tenant { id, name, created_at, data_key: _ } = tenant;
        Self { id, name, created_at: created_at.into() }
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
            expires_in: 3_600,
            user: UserView {
                id,
                email: "alex@example.com".to_owned(),
                name: "Alex".to_owned(),
                role: Role::Owner,
                created_at: at.into(),
            },
            tenant: TenantView { id: tenant, name: "Alex's".to_owned(), created_at: at.into() },
        };
        let text = format!("{account:?}");
        assert!(text.contains("alex@example.com") && !text.contains("eyJ0"), "{text}");
    }
}
