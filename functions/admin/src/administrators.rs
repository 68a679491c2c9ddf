//! Who administers the installation. There is always somebody: nobody ends the own administration, and whoever ends
//! another's is an administrator when it is written, whatever a cache says.

use axum::extract::State;
use futures::future::try_join_all;
use http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use tidegate_http::permission::{PlatformRead, PlatformWrite};
use tidegate_http::{Change, Json, ListOf, Path, Person, Problem, ProblemCode, Time};
use tidegate_model::{Permission, UserId};
use tidegate_store::Error as StoreError;
use utoipa::ToSchema;

use crate::Deps;

/// Somebody who administers the installation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Administrator)]
pub(crate) struct AdministratorView {
    /// The user's id.
    user_id: UserId,
    /// The address that the user signs in with.
    email: String,
    /// Name for display.
    name: String,
    /// Since when.
    since: Time,
}

/// List administrators
#[utoipa::path(
    get, path = "/api/admin/platform/administrators", tag = "admin",
    responses((status = 200, description = "All of them", body = ListOf<AdministratorView>)),
)]
pub(crate) async fn list_administrators(
    _: Person<PlatformRead>,
    State(deps): State<Deps>,
) -> Result<Json<ListOf<AdministratorView>>, Problem> {
    let all = deps.store.platform().administrators().await?;
    let items = try_join_all(all.into_iter().map(|(user, since)| view(&deps, user, since))).await?;
    Ok(Json(ListOf { items: items.into_iter().flatten().collect(), next_cursor: None }))
}

/// Read an administrator
#[utoipa::path(
    get, path = "/api/admin/platform/administrators/{user_id}", tag = "admin", params(("user_id" = UserId, Path)),
    responses((status = 200, description = "The administrator", body = AdministratorView)),
)]
pub(crate) async fn get_administrator(
    _: Person<PlatformRead>,
    State(deps): State<Deps>,
    Path(user): Path<UserId>,
) -> Result<Json<AdministratorView>, Problem> {
    Ok(Json(administrator(&deps, user).await?.ok_or_else(Problem::not_found)?))
}

/// Make somebody an administrator
///
/// The person then sees and suspends all tenants, and makes and ends administrators, but gets no access to any tenant's
/// workflows, connections or runs. One who is an administrator already stays one.
#[utoipa::path(
    put, path = "/api/admin/platform/administrators/{user_id}", tag = "admin", params(("user_id" = UserId, Path)),
    responses((status = 200, description = "The administrator", body = AdministratorView)),
)]
pub(crate) async fn add_administrator(
    caller: Person<PlatformWrite>,
    State(deps): State<Deps>,
    Path(user): Path<UserId>,
) -> Result<Json<AdministratorView>, Problem> {
    let since = deps.clock.now();
    let new = view(&deps, user, since).await?.ok_or_else(Problem::not_found)?;
    let change = Change::of("administrator.add", user).to(&new);
    let store = deps.store.audited(caller.audit(&deps.ids, None, change));
    store.platform().add_administrator(user, since, Some(caller.user)).await.map_err(no_more)?;
    Ok(Json(administrator(&deps, user).await?.unwrap_or(new)))
}

/// End somebody's administration
///
/// The account stays. Takes effect within 30 seconds. Nobody can end the own, so that the installation always has an
/// administrator.
#[utoipa::path(
    delete, path = "/api/admin/platform/administrators/{user_id}", tag = "admin", params(("user_id" = UserId, Path)),
    responses((status = 204, description = "It has ended")),
)]
pub(crate) async fn remove_administrator(
    caller: Person<PlatformWrite>,
    State(deps): State<Deps>,
    Path(user): Path<UserId>,
) -> Result<StatusCode, Problem> {
    if user == caller.user {
        let detail = "You can't end your own administration, since somebody has to stay. Ask another administrator.";
        return Err(Problem::new(ProblemCode::AdministratorRequired, detail));
    }
    let before = administrator(&deps, user).await?.ok_or_else(Problem::not_found)?;
    let change = Change::of("administrator.remove", user).from(&before);
    let store = deps.store.audited(caller.audit(&deps.ids, None, change));
    store.platform().remove_administrator(user, caller.user).await.map_err(no_more)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn administrator(deps: &Deps, user: UserId) -> Result<Option<AdministratorView>, Problem> {
    let all = deps.store.platform().administrators().await?;
    match all.into_iter().find(|(id, _)| *id == user) {
        Some((_, since)) => Ok(view(deps, user, since).await?),
        None => Ok(None),
    }
}

async fn view(deps: &Deps, user: UserId, since: Timestamp) -> Result<Option<AdministratorView>, StoreError> {
    let user = deps.store.accounts().user(user).await?;
    Ok(user.map(|user| AdministratorView { user_id: user.id, email: user.email, name: user.name, since: since.into() }))
}

/// Why it couldn't be written.
fn no_more(error: StoreError) -> Problem {
    match error {
        // The caller's own administration ended meanwhile.
        StoreError::Conflict { .. } => Problem::forbidden(Permission::PlatformWrite),
        error => error.into(),
    }
}
