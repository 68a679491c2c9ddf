//! Principals: the installation's people, and which tenants they are members of.

use axum::extract::State;
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use tidegate_http::permission::PlatformRead;
use tidegate_http::{Json, Limit, ListOf, Path, Person, Problem, Query, Time};
use tidegate_model::{RoleName, TenantId, TenantStatus, User, UserId};
use utoipa::{IntoParams, ToSchema};

use crate::{Deps, tenant};

/// Which people to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PrincipalsQuery {
    /// Only members of this tenant.
    tenant_id: Option<TenantId>,
    /// How many items to give at most.
    #[serde(default)]
    #[param(inline, required = false)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A person.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Principal)]
pub(crate) struct PrincipalView {
    /// The user's id.
    id: UserId,
    /// The address that the user signs in with.
    email: String,
    /// Whether the user proved to read mail at that address.
    email_verified: bool,
    /// Name for display.
    name: String,
    /// When the account was made.
    created_at: Time,
}

impl From<User> for PrincipalView {
    fn from(user: User) -> Self {
        let User { id, email, email_verified_at, name, created_at } = user;
        Self { id, email, email_verified: email_verified_at.is_some(), name, created_at: created_at.into() }
    }
}

/// A person with everything that the person is a member of.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PrincipalDetail)]
pub(crate) struct DetailView {
    #[serde(flatten)]
    principal: PrincipalView,
    /// Whether the person administers the installation.
    administrator: bool,
    /// The tenants that the person is a member of, oldest first.
    memberships: Vec<MembershipView>,
}

/// That a person is a member of a tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PrincipalMembership)]
pub(crate) struct MembershipView {
    /// The tenant's id.
    tenant_id: TenantId,
    /// The tenant's name.
    tenant_name: String,
    /// Whether the tenant may be used.
    tenant_status: TenantStatus,
    /// The person's role there.
    role: RoleName,
    /// Since when.
    since: Time,
}

/// List people
///
/// All people of the installation, or one tenant's, newest first.
#[utoipa::path(
    get, path = "/api/admin/platform/principals", tag = "admin", params(PrincipalsQuery),
    responses((status = 200, description = "Newest first", body = ListOf<PrincipalView>)),
)]
pub(crate) async fn list_principals(
    _: Person<PlatformRead>,
    State(deps): State<Deps>,
    Query(PrincipalsQuery { tenant_id, limit, cursor }): Query<PrincipalsQuery>,
) -> Result<Json<ListOf<PrincipalView>>, Problem> {
    let limit = limit.get() as usize;
    let (users, next_cursor) = match tenant_id {
        None => {
            let page = deps.store.accounts().list(cursor.as_deref(), limit).await?;
            (page.items, page.next_cursor)
        }
        Some(id) => {
            tenant(&deps, id).await?;
            let page = deps.store.tenants().members(id, cursor.as_deref(), limit).await?;
            let people = page.items.iter().filter_map(|member| member.principal.user());
            let accounts = deps.store.accounts();
            let users = try_join_all(people.map(|user| accounts.user(user))).await?;
            (users.into_iter().flatten().collect(), page.next_cursor)
        }
    };
    Ok(Json(ListOf { items: users.into_iter().map(PrincipalView::from).collect(), next_cursor }))
}

/// Read a person
///
/// With the tenants that the person is a member of.
#[utoipa::path(
    get, path = "/api/admin/platform/principals/{id}", tag = "admin", params(("id" = UserId, Path)),
    responses((status = 200, description = "The person", body = DetailView)),
)]
pub(crate) async fn get_principal(
    _: Person<PlatformRead>,
    State(deps): State<Deps>,
    Path(id): Path<UserId>,
) -> Result<Json<DetailView>, Problem> {
    let user = deps.store.accounts().user(id).await?.ok_or_else(Problem::not_found)?;
    let administrator = deps.store.platform().is_administrator(id).await?;
    let tenants = deps.store.accounts().tenants_of(id).await?;
    let memberships = try_join_all(tenants.into_iter().map(|tenant| membership(&deps, id, tenant))).await?;
    let memberships = memberships.into_iter().flatten().collect();
    Ok(Json(DetailView { principal: user.into(), administrator, memberships }))
}

async fn membership(deps: &Deps, user: UserId, id: TenantId) -> Result<Option<MembershipView>, Problem> {
    let Some(tenant) = deps.store.tenants().get(id).await? else { return Ok(None) };
    let member = deps.store.tenants().member(id, user.into()).await?;
    Ok(member.map(|member| MembershipView {
        tenant_id: id,
        tenant_name: tenant.name,
        tenant_status: tenant.status,
        role: member.role,
        since: member.created_at.into(),
    }))
}
