//! The auth function: accounts, sign-in, and the keys that access tokens are signed with.
//!
//! `routes` holds the operations of accounts and sessions; each further resource has a file of its own. Verifying tokens is
//! left to `tidegate_http`, which every function does for itself with the published keys.

mod accounts;
mod email;
mod links;
mod password_change;
mod passwords;
mod routes;
mod second_factor;
mod sessions;
mod signing;
mod throttle;

use std::str::FromStr;
use std::sync::Arc;

use axum::extract::FromRef;
use serde::Deserialize;
use tidegate_http::{Api, Authenticator, Problem, RequestContext, endpoint};
use tidegate_model::Role;
use tidegate_platform::{Clock, Envelope, Ids, Mailer};
use tidegate_store::Store;

pub use passwords::Passwords;
pub use routes::{Account, LogIn, Me, Password, Refresh, Register, TenantView, TokenDelivery, UserView};
pub use sessions::{IDLE_LIFETIME, MAX_LIFETIME};
pub use signing::{KEY_LIFETIME, PUBLISHED_BEFORE, SigningError, Subject, TOKEN_LIFETIME, TokenSigner};

/// What the function may use.
#[derive(Clone)]
pub struct Deps {
    /// Identities, sessions and signing keys in the config table; the audit log and limits (`rate#`) in the history table.
    pub store: Store,
    /// Makes the data keys of new tenants: `kms:GenerateDataKey` for the purpose `connections`. Seals second factors:
    /// `kms:GenerateDataKey` and `kms:Decrypt` for the platform's purpose `second_factor`.
    pub envelope: Envelope,
    /// Signs access tokens: `kms:GenerateDataKey` and `kms:Decrypt` for the platform's purpose `signing`.
    pub signer: TokenSigner,
    /// Recognises callers and knows the published keys.
    pub authenticator: Authenticator,
    /// Hashes passwords, a few at a time.
    pub passwords: Passwords,
    /// Tells when accounts are made.
    pub clock: Clock,
    /// Makes ids.
    pub ids: Ids,
    /// Sends invitations and links.
    pub mailer: Arc<dyn Mailer>,
    /// What the installation decides.
    pub settings: Settings,
}

/// What the installation decides.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who may register.
    pub registration: Registration,
    /// Where people reach this installation, without a slash at the end; none where that is the API's own address. Mailed
    /// links begin with it.
    pub public_url: Option<String>,
    /// Whether cookies are for HTTPS alone: wherever people reach it so.
    pub secure_cookies: bool,
}

impl Settings {
    /// With secure cookies where the URL begins with `https:`.
    pub fn new(registration: Registration, public_url: impl Into<String>) -> Self {
        let public_url = public_url.into();
        Self { registration, secure_cookies: public_url.starts_with("https:"), public_url: Some(public_url) }
    }

    /// The address that a link of a page begins with. Never what a request's `Host` says.
    pub(crate) fn link(&self, context: &RequestContext, page: &str) -> Result<String, Problem> {
        let origin = self.public_url.as_deref().or(context.origin.as_deref());
        let origin = origin.ok_or_else(|| Problem::internal(&NoPublicUrl))?;
        Ok(format!("{origin}{page}"))
    }
}

impl FromRef<Deps> for Authenticator {
    fn from_ref(deps: &Deps) -> Self {
        deps.authenticator.clone()
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

#[derive(Debug, thiserror::Error)]
#[error("nothing says where people reach this installation; set TIDEGATE_PUBLIC_URL")]
struct NoPublicUrl;

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
    let context = RequestContext::of_command(&deps.ids);
    let (user, tenant) = accounts::create(deps, &context, create_owner).await?;
    tracing::info!(user_id = %user.id, tenant_id = %tenant.id, "an owner was made by a direct call");
    Ok(Me { user: UserView::of(user, Some(Role::Owner.into())), tenant: Some(TenantView::from(&tenant)) })
}

/// The function's operations.
pub fn api(deps: Deps) -> Api {
    Api::new()
        .route(endpoint!(routes::register))
        .route(endpoint!(routes::log_in))
        .route(endpoint!(routes::refresh))
        .route(endpoint!(routes::log_out))
        .route(endpoint!(routes::log_out_everywhere))
        .route(endpoint!(routes::list_sessions))
        .route(endpoint!(routes::end_session))
        .route(endpoint!(routes::me))
        .route(endpoint!(routes::update_me))
        .route(endpoint!(second_factor::get))
        .route(endpoint!(second_factor::set_up))
        .route(endpoint!(second_factor::confirm))
        .route(endpoint!(second_factor::turn_off))
        .route(endpoint!(second_factor::make_recovery_codes))
        .route(endpoint!(password_change::change))
        .route(endpoint!(password_change::forgot))
        .route(endpoint!(password_change::reset))
        .route(endpoint!(email::ask))
        .route(endpoint!(email::verify))
        .route(endpoint!(routes::key_set))
        .with_state(deps)
}
