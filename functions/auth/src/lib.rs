//! The auth function: accounts, sign-in, and the keys that access tokens are signed with.
//!
//! `POST /api/auth/register`, `POST /api/auth/login`, `GET /api/auth/me`, `GET /.well-known/jwks.json`. Verifying tokens
//! is left to `tidegate_http`, which every function does for itself with the published keys.

mod accounts;
mod passwords;
mod routes;
mod signing;

use std::str::FromStr;

use axum::extract::FromRef;
use serde::Deserialize;
use tidegate_http::{Api, Problem, TokenVerifier, endpoint};
use tidegate_platform::{Clock, Envelope, Ids};
use tidegate_store::Store;

pub use passwords::Passwords;
pub use routes::{Account, LogIn, Me, Password, Register, TenantView, UserView};
pub use signing::{SigningError, TOKEN_LIFETIME, TokenSigner};

/// What the function may use.
#[derive(Clone)]
pub struct Deps {
    /// Accounts and signing keys: items `user#`, `email#`, `ten#`, `jwk#`, `signing#` of the config table.
    pub store: Store,
    /// Makes the data keys of new tenants: `kms:GenerateDataKey` for the purpose `connections`.
    pub envelope: Envelope,
    /// Signs access tokens: `kms:GenerateDataKey` and `kms:Decrypt` for the platform's purpose `signing`.
    pub signer: TokenSigner,
    /// Verifies access tokens and knows the published keys.
    pub verifier: TokenVerifier,
    /// Hashes passwords, a few at a time.
    pub passwords: Passwords,
    /// Tells when accounts are made.
    pub clock: Clock,
    /// Makes the ids of users and tenants.
    pub ids: Ids,
    /// Who may register.
    pub registration: Registration,
}

impl FromRef<Deps> for TokenVerifier {
    fn from_ref(deps: &Deps) -> Self {
        deps.verifier.clone()
    }
}

/// Who may make an account: `open`, `invite` or `closed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Registration {
    /// Everybody who can reach the API.
    Open,
    /// Those who were invited by a tenant.
    Invite,
    /// Nobody.
    #[default]
    Closed,
}

/// A text that names no way of registering.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("registration is `open`, `invite` or `closed`, not {0:?}")]
pub struct InvalidRegistration(String);

impl FromStr for Registration {
    type Err = InvalidRegistration;

    fn from_str(text: &str) -> Result<Self, InvalidRegistration> {
        match text {
            "open" => Ok(Self::Open),
            "invite" => Ok(Self::Invite),
            "closed" => Ok(Self::Closed),
            _ => Err(InvalidRegistration(text.to_owned())),
        }
    }
}

/// What the operator may have done by invoking the function itself; who may is IAM's business.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Makes an account and its tenant, whatever [`Registration`] says.
    pub create_owner: Register,
}

/// Does what the operator asks for.
///
/// # Errors
/// A field is wrong, the address is taken, or something is away.
pub async fn command(deps: &Deps, Command { create_owner }: Command) -> Result<Me, Problem> {
    let (user, tenant) = accounts::create(deps, create_owner).await?;
    tracing::info!(user_id = %user.id, tenant_id = %tenant.id, "an owner was made by a direct call");
    Ok(Me { user: user.into(), tenant: tenant.into() })
}

/// The function's operations.
pub fn api(deps: Deps) -> Api {
    Api::new()
        .route(endpoint!(routes::register))
        .route(endpoint!(routes::log_in))
        .route(endpoint!(routes::me))
        .route(endpoint!(routes::key_set))
        .with_state(deps)
}
