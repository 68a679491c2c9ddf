//! Service accounts of a tenant, and applications: their API keys, which are OAuth clients too. Never their hashes.

use std::collections::BTreeSet;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use tidegate_http::permission::PlatformRead;
use tidegate_http::{Json, Limit, ListOf, Person, Problem, Query, Time};
use tidegate_model::{ApiKey, ApiKeyId, Member, Permission, PrincipalId, RoleName, ServiceAccountId, TenantId};
use utoipa::{IntoParams, ToSchema};

use crate::{Deps, tenant};

/// Whose to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfTenantQuery {
    /// The tenant.
    tenant_id: TenantId,
    /// How many items to give at most.
    #[serde(default)]
    #[param(inline, required = false)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A machine that acts in a tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PlatformServiceAccount)]
pub(crate) struct ServiceAccountView {
    /// Its id.
    id: ServiceAccountId,
    /// The tenant.
    tenant_id: TenantId,
    /// Name for display.
    name: String,
    /// Its role in the tenant.
    role: RoleName,
    /// When it was made.
    created_at: Time,
}

/// An API key of a service account, which is an OAuth client too.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Application)]
pub(crate) struct ApplicationView {
    /// The key's id, and the `client_id`.
    id: ApiKeyId,
    /// The tenant.
    tenant_id: TenantId,
    /// Who acts with it.
    service_account_id: ServiceAccountId,
    /// What it is for.
    name: String,
    /// What may be done with it, of what the service account's role allows.
    scopes: BTreeSet<Permission>,
    /// When it was made.
    created_at: Time,
    /// When it ends; null where it doesn't.
    expires_at: Option<Time>,
}

impl ServiceAccountView {
    /// Of a member that is a service account.
    fn of(member: Member) -> Option<Self> {
        let Member { tenant, principal, role, name, created_at, .. } = member;
        match principal {
            PrincipalId::Service(id) => Some(Self { id, tenant_id: tenant, name, role, created_at: created_at.into() }),
            PrincipalId::User(_) => None,
        }
    }
}

impl From<ApiKey> for ApplicationView {
    fn from(key: ApiKey) -> Self {
        let ApiKey { id, tenant, service_account, name, secret_hash: _, scopes, created_at, expires_at, successor: _ } =
            key;
        Self {
            id,
            tenant_id: tenant,
            service_account_id: service_account,
            name,
            scopes,
            created_at: created_at.into(),
            expires_at: expires_at.map(Time::from),
        }
    }
}

/// List a tenant's service accounts
#[utoipa::path(
    get, path = "/api/admin/platform/service-accounts", tag = "admin", params(OfTenantQuery),
    responses((status = 200, description = "Newest first", body = ListOf<ServiceAccountView>)),
)]
pub(crate) async fn list_platform_service_accounts(
    _: Person<PlatformRead>,
    State(deps): State<Deps>,
    Query(OfTenantQuery { tenant_id, limit, cursor }): Query<OfTenantQuery>,
) -> Result<Json<ListOf<ServiceAccountView>>, Problem> {
    tenant(&deps, tenant_id).await?;
    let page = deps.store.tenants().service_accounts(tenant_id, cursor.as_deref(), limit.get() as usize).await?;
    let items = page.items.into_iter().filter_map(ServiceAccountView::of).collect();
    Ok(Json(ListOf { items, next_cursor: page.next_cursor }))
}

/// List a tenant's applications
///
/// The API keys of its service accounts, by which programs call the API or get tokens (OAuth 2.0 client credentials).
#[utoipa::path(
    get, path = "/api/admin/platform/applications", tag = "admin", params(OfTenantQuery),
    responses((status = 200, description = "Newest first", body = ListOf<ApplicationView>)),
)]
pub(crate) async fn list_applications(
    _: Person<PlatformRead>,
    State(deps): State<Deps>,
    Query(OfTenantQuery { tenant_id, limit, cursor }): Query<OfTenantQuery>,
) -> Result<Json<ListOf<ApplicationView>>, Problem> {
    tenant(&deps, tenant_id).await?;
    let page = deps.store.api_keys().list(tenant_id, cursor.as_deref(), limit.get() as usize).await?;
    let items = page.items.into_iter().map(ApplicationView::from).collect();
    Ok(Json(ListOf { items, next_cursor: page.next_cursor }))
}
