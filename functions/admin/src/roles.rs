//! Roles and permissions: those that every tenant has, and those that a tenant made.

use std::collections::BTreeSet;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use tidegate_http::permission::PlatformRead;
use tidegate_http::{Json, ListOf, Person, Problem, Query};
use tidegate_model::{Permission, Role, RoleName, TenantId};
use utoipa::{IntoParams, ToSchema};

use crate::{Deps, tenant};

/// Whose roles to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RolesQuery {
    /// Also those that this tenant made.
    tenant_id: Option<TenantId>,
}

/// A role and what it allows.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PlatformRole)]
pub(crate) struct RoleView {
    /// The role's name.
    name: RoleName,
    /// Whether every tenant has it.
    builtin: bool,
    /// What a role that a tenant made is for; null for a built-in one.
    description: Option<String>,
    /// What it allows.
    permissions: BTreeSet<Permission>,
}

/// A permission and what it allows.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PlatformPermission)]
pub(crate) struct PermissionView {
    /// The permission's name.
    name: Permission,
    /// What it allows.
    description: &'static str,
    /// Whether roles of tenants may hold it. The others are about the own account, which everybody has, and about the
    /// installation, which its administrators have.
    of_tenants: bool,
}

/// List roles
///
/// Those that every tenant has, the mightiest first, then those that a tenant made.
#[utoipa::path(
    get, path = "/api/admin/platform/roles", tag = "admin", params(RolesQuery),
    responses((status = 200, description = "All of them", body = ListOf<RoleView>)),
)]
pub(crate) async fn list_platform_roles(
    _: Person<PlatformRead>,
    State(deps): State<Deps>,
    Query(RolesQuery { tenant_id }): Query<RolesQuery>,
) -> Result<Json<ListOf<RoleView>>, Problem> {
    let builtin =
        |role: Role| RoleView { name: role.into(), builtin: true, description: None, permissions: role.permissions() };
    let mut items: Vec<_> = Role::ALL.into_iter().map(builtin).collect();
    if let Some(id) = tenant_id {
        items.extend(tenant(&deps, id).await?.roles.into_iter().map(|(name, role)| RoleView {
            name,
            builtin: false,
            description: Some(role.description),
            permissions: role.permissions,
        }));
    }
    Ok(Json(ListOf { items, next_cursor: None }))
}

/// List permissions
#[utoipa::path(
    get, path = "/api/admin/platform/permissions", tag = "admin",
    responses((status = 200, description = "All there are", body = ListOf<PermissionView>)),
)]
pub(crate) async fn list_platform_permissions(
    _: Person<PlatformRead>,
) -> Result<Json<ListOf<PermissionView>>, Problem> {
    let of_tenants: BTreeSet<_> = Permission::of_tenants().collect();
    let view = |permission: &Permission| PermissionView {
        name: *permission,
        description: permission.description(),
        of_tenants: of_tenants.contains(permission),
    };
    Ok(Json(ListOf { items: Permission::ALL.iter().map(view).collect(), next_cursor: None }))
}
