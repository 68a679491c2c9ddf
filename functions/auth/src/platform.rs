//! What the installation itself has: its administrators, as the operator makes and ends them, and its signing keys. What
//! administrators do otherwise is left to the admin function.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use tidegate_http::permission::PlatformWrite;
use tidegate_http::{Change, Json, ListOf, Person, Problem, ProblemCode, RequestContext, Time};
use tidegate_model::{FieldError, User, UserId};
use tidegate_store::NewAccount;
use utoipa::ToSchema;

use crate::accounts::{self, check_email, check_name, check_password};
use crate::{Deps, Password};

/// Whom to make an administrator. Where an account has the address, it becomes one as it is; otherwise one is made.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateAdministrator {
    /// The address to sign in with.
    pub email: String,
    /// The password of a new account; that of an account that exists stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Password>,
    /// The name of a new account; without one the address's part before the @.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Whose administration to end. The account stays.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveAdministrator {
    /// The address of the account.
    pub email: String,
}

/// Somebody whose administration was asked for or ended.
#[derive(Debug, Serialize)]
pub struct AdministratorAnswer {
    /// The user's id.
    pub user_id: UserId,
    /// The address to sign in with.
    pub email: String,
    /// Whether the user proved to read mail at that address.
    pub email_verified: bool,
    /// Whether the account is new.
    pub account_created: bool,
    /// Whether it changed who administers the installation.
    pub changed: bool,
}

/// Somebody who administers the installation, as the operator sees it.
#[derive(Debug, Serialize)]
pub struct AdministratorView {
    /// The user's id.
    pub user_id: UserId,
    /// The address to sign in with.
    pub email: String,
    /// Name for display.
    pub name: String,
    /// Since when.
    pub since: Time,
}

/// Makes somebody an administrator.
pub(crate) async fn create(
    deps: &Deps,
    context: &RequestContext,
    request: CreateAdministrator,
) -> Result<AdministratorAnswer, Problem> {
    let CreateAdministrator { email, password, name } = request;
    let mut errors = Vec::new();
    let email = check_email(&email, "/email", &mut errors);
    let known = match errors.is_empty() {
        true => deps.store.accounts().user_by_email(&email).await?,
        false => None,
    };
    let account_created = known.is_none();
    let user = match known {
        Some(user) => user,
        None => {
            let name = name.unwrap_or_else(|| email.split('@').next().unwrap_or_default().to_owned());
            let name = check_name(&name, "/name", &mut errors);
            new_account(deps, context, email, name, password, errors).await?
        }
    };
    let changed = !deps.store.platform().is_administrator(user.id).await?;
    if changed {
        let since = deps.clock.now();
        let change = Change::of("administrator.add", user.id).to(&AdministratorView::of(&user, since.into()));
        let entry = context.audit(&deps.ids, None, None, change);
        deps.store.audited(entry).platform().add_administrator(user.id, since, None).await?;
        tracing::info!(component = "auth", user_id = %user.id, "the operator made a platform administrator");
    }
    Ok(AdministratorAnswer::of(user, account_created, changed))
}

/// Makes the account, of no tenant.
async fn new_account(
    deps: &Deps,
    context: &RequestContext,
    email: String,
    name: String,
    password: Option<Password>,
    mut errors: Vec<FieldError>,
) -> Result<User, Problem> {
    match &password {
        Some(password) => check_password(password, "/password", &mut errors),
        None => errors.push(FieldError::new("/password".into(), "is required: no account has this address yet")),
    }
    let Some(password) = password.filter(|_| errors.is_empty()) else { return Err(Problem::validation(errors)) };
    let (user, credentials) = accounts::new_user(deps, email, name, password).await?;
    let change = Change::of("account.create", user.id);
    let new = NewAccount { user: &user, credentials: &credentials, tenant: None };
    let store = deps.store.audited(context.audit(&deps.ids, None, None, change));
    store.accounts().create(new).await.map_err(accounts::taken)?;
    Ok(user)
}

/// Ends somebody's administration, unless nobody would remain.
pub(crate) async fn remove(
    deps: &Deps,
    context: &RequestContext,
    RemoveAdministrator { email }: RemoveAdministrator,
) -> Result<AdministratorAnswer, Problem> {
    let user = deps.store.accounts().user_by_email(&accounts::normalize(&email)).await?.ok_or_else(|| {
        let detail = "No account has this email address.";
        Problem::new(ProblemCode::NotFound, detail)
    })?;
    let platform = deps.store.platform();
    let all = platform.administrators().await?;
    let mut changed = false;
    if let Some((_, since)) = all.iter().find(|(id, _)| *id == user.id) {
        let last = || {
            let detail = "This is the only administrator, and somebody has to stay. Make another one first.";
            Problem::new(ProblemCode::AdministratorRequired, detail)
        };
        let (remaining, _) = all.iter().find(|(id, _)| *id != user.id).ok_or_else(last)?;
        let change = Change::of("administrator.remove", user.id).from(&AdministratorView::of(&user, (*since).into()));
        let store = deps.store.audited(context.audit(&deps.ids, None, None, change));
        store.platform().remove_administrator(user.id, *remaining).await?;
        tracing::info!(component = "auth", user_id = %user.id, "the operator ended a platform administrator");
        changed = true;
    }
    Ok(AdministratorAnswer::of(user, false, changed))
}

/// All administrators.
pub(crate) async fn list(deps: &Deps) -> Result<ListOf<AdministratorView>, Problem> {
    let mut items = Vec::new();
    for (id, since) in deps.store.platform().administrators().await? {
        let user = deps.store.accounts().user(id).await?;
        items.extend(user.map(|user| AdministratorView::of(&user, since.into())));
    }
    Ok(ListOf { items, next_cursor: None })
}

impl AdministratorAnswer {
    fn of(user: User, account_created: bool, changed: bool) -> Self {
        let User { id, email, email_verified_at, .. } = user;
        Self { user_id: id, email, email_verified: email_verified_at.is_some(), account_created, changed }
    }
}

impl AdministratorView {
    fn of(user: &User, since: Time) -> Self {
        Self { user_id: user.id, email: user.email.clone(), name: user.name.clone(), since }
    }
}

/// How to rotate the signing keys.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotateSigningKeys {
    /// Whether the keys so far are no longer good. False: tokens signed with them are until they end, and nobody notices.
    /// True, where a key may have got into wrong hands: every access token ends, and sessions refresh to get new ones. It
    /// takes five minutes until every instance has heard of it.
    withdraw: bool,
}

/// A new signing key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RotatedSigningKey)]
pub(crate) struct RotatedView {
    /// The key's id: `kid` in tokens and in the key set.
    kid: String,
    /// From when on it signs. It is published already.
    signs_from: Time,
}

/// What the audit log tells of a rotation.
#[derive(Serialize)]
struct Rotation {
    withdraw: bool,
}

/// Rotate the signing keys
///
/// Makes a new key for access tokens. That also happens by itself every 90 days.
#[utoipa::path(
    post, path = "/api/admin/platform/signing-keys/rotate", tag = "auth",
    request_body = RotateSigningKeys,
    responses((status = 200, description = "The new key", body = RotatedView)),
)]
pub(crate) async fn rotate_signing_keys(
    caller: Person<PlatformWrite>,
    State(deps): State<Deps>,
    Json(RotateSigningKeys { withdraw }): Json<RotateSigningKeys>,
) -> Result<Json<RotatedView>, Problem> {
    let entry = |kid: &str| {
        let change = Change::of("signing_key.rotate", kid).to(&Rotation { withdraw });
        caller.audit(&deps.ids, None, change)
    };
    let key = deps.signer.rotate(withdraw, entry).await?;
    Ok(Json(RotatedView { kid: key.public.kid, signs_from: key.signs_from.into() }))
}
