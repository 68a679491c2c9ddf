//! The auth function: accounts, sign-in, and the keys that access tokens are signed with; tenants with their members,
//! invitations, roles and data keys.
//!
//! `routes` holds the operations of accounts and sessions; each further resource has a file of its own. Verifying tokens is
//! left to `tidegate_http`, which every function does for itself with the published keys.

mod accounts;
mod api_keys;
mod audit;
mod authority;
mod client_credentials;
mod data_keys;
mod email;
mod invitations;
mod links;
mod members;
mod password_change;
mod passwords;
mod platform;
mod roles;
mod routes;
mod second_factor;
mod service_accounts;
mod sessions;
mod signing;
mod tenants;
mod throttle;

use std::str::FromStr;
use std::sync::Arc;

use axum::extract::FromRef;
use serde::{Deserialize, Serialize};
use tidegate_http::{Api, Authenticator, ListOf, Problem, RequestContext, endpoint};
use tidegate_model::Role;
use tidegate_platform::{Clock, Envelope, Ids, Mailer};
use tidegate_store::Store;

pub use invitations::INVITATION_LIFETIME;
pub use passwords::Passwords;
pub use platform::{AdministratorAnswer, AdministratorView, CreateAdministrator, RemoveAdministrator};
pub use routes::{Account, LogIn, Me, Password, Refresh, Register, TenantView, TokenDelivery, UserView};
pub use sessions::{IDLE_LIFETIME, MAX_LIFETIME};
pub use signing::{KEY_LIFETIME, PUBLISHED_BEFORE, SigningError, Subject, TOKEN_LIFETIME, TokenSigner};

/// What the function may use.
#[derive(Clone)]
pub struct Deps {
    /// Identities, sessions and signing keys in the config table; the audit log and limits (`rate#`) in the history table.
    pub store: Store,
    /// Makes the data keys of new tenants: `kms:GenerateDataKey` for the purposes `connections` and `ingress`. Seals second factors:
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
        context.url(self.public_url.as_deref(), page)
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

/// What the operator may have done: by invoking the function itself, where who may is IAM's business, or at the console. An
/// object with one member: `{"create_owner": {…}}`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Makes an account and its tenant, whatever [`Registration`] says.
    CreateOwner(Register),
    /// Makes somebody an administrator of the installation.
    CreateAdministrator(CreateAdministrator),
    /// Ends somebody's administration.
    RemoveAdministrator(RemoveAdministrator),
    /// Tells who administers the installation.
    ListAdministrators {},
}

/// What became of a [`Command`].
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum CommandAnswer {
    /// The new account.
    Owner(Me),
    /// Who administers the installation now, or does so no more.
    Administrator(AdministratorAnswer),
    /// All administrators.
    Administrators(ListOf<AdministratorView>),
}

/// Does what the operator asks for.
///
/// # Errors
/// A field is wrong, the address is taken or unknown, the last administrator would go, or something is away.
pub async fn command(deps: &Deps, command: Command) -> Result<CommandAnswer, Problem> {
    let context = RequestContext::of_command(&deps.ids);
    match command {
        Command::CreateOwner(owner) => {
            let (user, tenant) = accounts::create(deps, &context, owner).await?;
            tracing::info!(component = "auth", user_id = %user.id, tenant_id = %tenant.id, "the operator made an owner");
            let tenant = Some(TenantView::from(&tenant));
            Ok(CommandAnswer::Owner(Me { user: UserView::of(user, Some(Role::Owner.into())), tenant }))
        }
        Command::CreateAdministrator(new) => {
            platform::create(deps, &context, new).await.map(CommandAnswer::Administrator)
        }
        Command::RemoveAdministrator(of) => {
            platform::remove(deps, &context, of).await.map(CommandAnswer::Administrator)
        }
        Command::ListAdministrators {} => platform::list(deps).await.map(CommandAnswer::Administrators),
    }
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
        .route(endpoint!(tenants::list_tenants))
        .route(endpoint!(tenants::create_tenant))
        .route(endpoint!(tenants::get_tenant))
        .route(endpoint!(tenants::update_tenant))
        .route(endpoint!(tenants::delete_tenant))
        .route(endpoint!(tenants::transfer_tenant))
        .route(endpoint!(tenants::leave_tenant))
        .route(endpoint!(members::list_members))
        .route(endpoint!(members::get_member))
        .route(endpoint!(members::update_member))
        .route(endpoint!(members::remove_member))
        .route(endpoint!(invitations::create_invitation))
        .route(endpoint!(invitations::list_invitations))
        .route(endpoint!(invitations::get_invitation))
        .route(endpoint!(invitations::revoke_invitation))
        .route(endpoint!(invitations::resend_invitation))
        .route(endpoint!(invitations::preview_invitation))
        .route(endpoint!(invitations::accept_invitation))
        .route(endpoint!(invitations::register_invited))
        .route(endpoint!(roles::list_permissions))
        .route(endpoint!(roles::list_roles))
        .route(endpoint!(roles::get_role))
        .route(endpoint!(roles::create_role))
        .route(endpoint!(roles::replace_role))
        .route(endpoint!(roles::delete_role))
        .route(endpoint!(data_keys::list_data_keys))
        .route(endpoint!(data_keys::create_data_key))
        .route(endpoint!(client_credentials::issue_token))
        .route(endpoint!(service_accounts::create_service_account))
        .route(endpoint!(service_accounts::list_service_accounts))
        .route(endpoint!(service_accounts::get_service_account))
        .route(endpoint!(service_accounts::change_service_account))
        .route(endpoint!(service_accounts::delete_service_account))
        .route(endpoint!(api_keys::create_api_key))
        .route(endpoint!(api_keys::list_api_keys))
        .route(endpoint!(api_keys::get_api_key))
        .route(endpoint!(api_keys::revoke_api_key))
        .route(endpoint!(api_keys::rotate_api_key))
        .route(endpoint!(audit::list_audit_log))
        .route(endpoint!(audit::export_audit_log))
        .route(endpoint!(platform::rotate_signing_keys))
        .with_state(deps)
}
