//! Service accounts: machines that are members of a tenant, each in a role. What they prove it with is in `api_keys`.

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tidegate_http::permission::{ServiceAccountsRead, ServiceAccountsWrite};
use tidegate_http::{Caller, Change, Created, Json, ListOf, PageQuery, Path, Problem, Query, Time};
use tidegate_model::{Member, PrincipalId, RoleName, ServiceAccountId, TenantId};
use utoipa::ToSchema;

use crate::authority::Authority;
use crate::{Deps, accounts, api_keys};

/// A service account to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateServiceAccount {
    /// Name for display: 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200, examples("Order import"))]
    name: String,
    /// What it may do: a role of nothing but what the caller may do too, and never `owner`.
    role: RoleName,
}

/// What to change of a service account; what isn't named stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeServiceAccount {
    /// The new name for display: 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200, nullable = false, examples("Order import"))]
    name: Option<String>,
    /// The new role. Neither it nor the one until now may allow what the caller may not do.
    #[schema(nullable = false)]
    role: Option<RoleName>,
}

/// A service account.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServiceAccount)]
pub(crate) struct ServiceAccountView {
    /// The account's id.
    id: ServiceAccountId,
    /// Name for display.
    name: String,
    /// Its role in the tenant: what its keys may do at most.
    role: RoleName,
    /// When it was made.
    created_at: Time,
}

impl ServiceAccountView {
    fn of(id: ServiceAccountId, member: &Member) -> Self {
        let Member { name, role, created_at, .. } = member;
        Self { id, name: name.clone(), role: role.clone(), created_at: (*created_at).into() }
    }
}

/// Create a service account
///
/// An account for a machine. It can do nothing before it has an API key.
#[utoipa::path(
    post, path = "/api/service-accounts", tag = "service_accounts", request_body = CreateServiceAccount,
    responses((
        status = 201, description = "The service account", body = ServiceAccountView,
        headers(("Location" = String, description = "The service account's address")),
    )),
)]
pub(crate) async fn create_service_account(
    caller: Caller<ServiceAccountsWrite>,
    State(deps): State<Deps>,
    Json(body): Json<CreateServiceAccount>,
) -> Result<Created<ServiceAccountView>, Problem> {
    let authority = Authority::of(&deps, &caller).await?;
    let mut errors = Vec::new();
    let name = accounts::check_name(&body.name, "/name", &mut errors);
    if !errors.is_empty() {
        return Err(Problem::validation(errors));
    }
    authority.may_give(&body.role, "/role")?;
    let id = deps.ids.service_account();
    let member = Member {
        tenant: caller.tenant,
        principal: id.into(),
        role: body.role,
        name,
        email: None,
        created_at: deps.clock.now(),
    };
    let view = ServiceAccountView::of(id, &member);
    let entry = caller.audit(&deps.ids, Change::of("service_account.create", id).to(&view));
    deps.store.audited(entry).tenants().add_member(&member).await?;
    Ok(Created { location: format!("/api/service-accounts/{id}"), body: view })
}

/// List service accounts
#[utoipa::path(
    get, path = "/api/service-accounts", tag = "service_accounts", params(PageQuery),
    responses((status = 200, description = "Newest first", body = ListOf<ServiceAccountView>)),
)]
pub(crate) async fn list_service_accounts(
    caller: Caller<ServiceAccountsRead>,
    State(deps): State<Deps>,
    Query(page): Query<PageQuery>,
) -> Result<Json<ListOf<ServiceAccountView>>, Problem> {
    let tenants = deps.store.tenants();
    let found = tenants.service_accounts(caller.tenant, page.cursor.as_deref(), page.limit.get() as usize).await?;
    let view = |member: &Member| match member.principal {
        PrincipalId::Service(id) => Some(ServiceAccountView::of(id, member)),
        PrincipalId::User(_) => None,
    };
    Ok(Json(ListOf { items: found.items.iter().filter_map(view).collect(), next_cursor: found.next_cursor }))
}

/// Get a service account
#[utoipa::path(
    get, path = "/api/service-accounts/{id}", tag = "service_accounts", params(("id" = ServiceAccountId, Path)),
    responses((status = 200, description = "The service account", body = ServiceAccountView)),
)]
pub(crate) async fn get_service_account(
    caller: Caller<ServiceAccountsRead>,
    State(deps): State<Deps>,
    Path(id): Path<ServiceAccountId>,
) -> Result<Json<ServiceAccountView>, Problem> {
    Ok(Json(ServiceAccountView::of(id, &account(&deps, caller.tenant, id).await?)))
}

/// Change a service account
///
/// A new role holds for its keys within 30 seconds.
#[utoipa::path(
    patch, path = "/api/service-accounts/{id}", tag = "service_accounts", params(("id" = ServiceAccountId, Path)),
    request_body = ChangeServiceAccount,
    responses((status = 200, description = "The service account as it is now", body = ServiceAccountView)),
)]
pub(crate) async fn change_service_account(
    caller: Caller<ServiceAccountsWrite>,
    State(deps): State<Deps>,
    Path(id): Path<ServiceAccountId>,
    Json(body): Json<ChangeServiceAccount>,
) -> Result<Json<ServiceAccountView>, Problem> {
    let before = account(&deps, caller.tenant, id).await?;
    let authority = Authority::of(&deps, &caller).await?;
    let mut errors = Vec::new();
    let name = body.name.map(|name| accounts::check_name(&name, "/name", &mut errors));
    if !errors.is_empty() {
        return Err(Problem::validation(errors));
    }
    if let Some(role) = &body.role {
        authority.may_take(&before.role)?;
        authority.may_give(role, "/role")?;
    }
    let after = Member {
        name: name.unwrap_or_else(|| before.name.clone()),
        role: body.role.unwrap_or_else(|| before.role.clone()),
        ..before.clone()
    };
    let view = ServiceAccountView::of(id, &after);
    let change = Change::of("service_account.update", id).from(&ServiceAccountView::of(id, &before)).to(&view);
    deps.store.audited(caller.audit(&deps.ids, change)).tenants().replace_members(&[(&before, &after)]).await?;
    Ok(Json(view))
}

/// Delete a service account
///
/// Its keys go with it, and stop working within 5 seconds.
#[utoipa::path(
    delete, path = "/api/service-accounts/{id}", tag = "service_accounts", params(("id" = ServiceAccountId, Path)),
    responses((status = 204, description = "It is gone")),
)]
pub(crate) async fn delete_service_account(
    caller: Caller<ServiceAccountsWrite>,
    State(deps): State<Deps>,
    Path(id): Path<ServiceAccountId>,
) -> Result<StatusCode, Problem> {
    let before = account(&deps, caller.tenant, id).await?;
    Authority::of(&deps, &caller).await?.may_take(&before.role)?;
    // Before the account, so that a repetition goes on where this failed.
    api_keys::revoke_all(&deps, &caller, id).await?;
    let change = Change::of("service_account.delete", id).from(&ServiceAccountView::of(id, &before));
    deps.store.audited(caller.audit(&deps.ids, change)).tenants().remove_member(&before).await?;
    // One made at the same moment. It would open nothing without its account, but nobody could see it any more.
    api_keys::revoke_all(&deps, &caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A tenant's service account.
pub(crate) async fn account(deps: &Deps, tenant: TenantId, id: ServiceAccountId) -> Result<Member, Problem> {
    deps.store.tenants().member(tenant, id.into()).await?.ok_or_else(Problem::not_found)
}
