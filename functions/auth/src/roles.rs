//! Roles: those that every tenant has, and those that it made. They lie in the tenant's head, whose revision is their
//! entity tag.

use std::collections::BTreeSet;

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tidegate_http::permission::{RolesWrite, TenantRead};
use tidegate_http::{Caller, Change, Created, ETag, IfMatch, Json, ListOf, Path, Problem, ProblemCode, Public};
use tidegate_model::{CustomRole, FieldError, Permission, Pointer, Role, RoleName, Tenant};
use utoipa::ToSchema;

use crate::Deps;
use crate::authority::Authority;
use crate::tenants::replace_head;

const MAX_ROLES: usize = 50;
const MAX_DESCRIPTION_CHARS: usize = 500;

/// Something that a caller may do.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PermissionDescription)]
pub(crate) struct PermissionView {
    /// Its name, `resource:verb`.
    name: Permission,
    /// What it allows.
    description: &'static str,
    /// Whether a role that a tenant makes may hold it.
    grantable: bool,
}

/// A role.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Role)]
pub(crate) struct RoleView {
    /// Its name.
    name: RoleName,
    /// What it is for.
    description: String,
    /// Whether every tenant has it; such a role can't be changed.
    builtin: bool,
    /// What it allows.
    permissions: BTreeSet<Permission>,
}

/// A role to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateRole {
    /// Its name; it stays.
    #[schema(examples("operator"))]
    name: RoleName,
    /// What it is for: up to 500 characters.
    #[serde(default)]
    #[schema(max_length = 500)]
    description: String,
    /// What it allows: only what the caller may too, and never `tenant:own`.
    permissions: Vec<Permission>,
}

/// What to make of a role.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplaceRole {
    /// What it is for: up to 500 characters.
    #[serde(default)]
    #[schema(max_length = 500)]
    description: String,
    /// What it allows: only what the caller may too, and never `tenant:own`.
    permissions: Vec<Permission>,
}

impl RoleView {
    fn builtin(role: Role) -> Self {
        let (name, description) = (role.into(), role.description().to_owned());
        Self { name, description, builtin: true, permissions: role.permissions() }
    }

    fn custom(name: &RoleName, role: &CustomRole) -> Self {
        let CustomRole { description, permissions } = role.clone();
        Self { name: name.clone(), description, builtin: false, permissions }
    }

    fn of(tenant: &Tenant, name: &RoleName) -> Option<Self> {
        match name.builtin() {
            Some(role) => Some(Self::builtin(role)),
            None => tenant.roles.get(name).map(|role| Self::custom(name, role)),
        }
    }
}

/// List permissions
///
/// All that there are: what `x-required-permission` in this document names, and what roles and API keys hold.
#[utoipa::path(
    get, path = "/api/permissions", tag = "tenants",
    responses((status = 200, description = "All of them", body = ListOf<PermissionView>)),
)]
pub(crate) async fn list_permissions(_: Public) -> Json<ListOf<PermissionView>> {
    let view = |permission: &Permission| PermissionView {
        name: *permission,
        description: permission.description(),
        grantable: permission.is_grantable(),
    };
    Json(ListOf { items: Permission::ALL.iter().map(view).collect(), next_cursor: None })
}

/// List roles
#[utoipa::path(
    get, path = "/api/tenant/roles", tag = "tenants",
    responses((
        status = 200, description = "The built-in ones, then the tenant's own by name", body = ListOf<RoleView>,
        headers(("ETag" = String, description = "The tenant's revision, for If-Match")),
    )),
)]
pub(crate) async fn list_roles(
    caller: Caller<TenantRead>,
    State(deps): State<Deps>,
) -> Result<(ETag, Json<ListOf<RoleView>>), Problem> {
    let tenant = deps.store.tenants().get(caller.tenant).await?.ok_or_else(Problem::not_found)?;
    let builtin = Role::ALL.into_iter().map(RoleView::builtin);
    let items = builtin.chain(tenant.roles.iter().map(|(name, role)| RoleView::custom(name, role))).collect();
    Ok((ETag(tenant.revision), Json(ListOf { items, next_cursor: None })))
}

/// Get a role
#[utoipa::path(
    get, path = "/api/tenant/roles/{name}", tag = "tenants", params(("name" = RoleName, Path)),
    responses((
        status = 200, description = "The role", body = RoleView,
        headers(("ETag" = String, description = "The tenant's revision, for If-Match")),
    )),
)]
pub(crate) async fn get_role(
    caller: Caller<TenantRead>,
    State(deps): State<Deps>,
    Path(name): Path<RoleName>,
) -> Result<(ETag, Json<RoleView>), Problem> {
    let tenant = deps.store.tenants().get(caller.tenant).await?.ok_or_else(Problem::not_found)?;
    let role = RoleView::of(&tenant, &name).ok_or_else(Problem::not_found)?;
    Ok((ETag(tenant.revision), Json(role)))
}

/// Make a role
///
/// A set of permissions under a name, to give to members, invitations and service accounts. At most 50.
#[utoipa::path(
    post, path = "/api/tenant/roles", tag = "tenants", request_body = CreateRole,
    responses((
        status = 201, description = "The role", body = RoleView,
        headers(("Location" = String, description = "The role's address")),
    )),
)]
pub(crate) async fn create_role(
    caller: Caller<RolesWrite>,
    State(deps): State<Deps>,
    Json(body): Json<CreateRole>,
) -> Result<Created<RoleView>, Problem> {
    let authority = Authority::of(&deps, &caller).await?;
    let before = &authority.tenant;
    let CreateRole { name, description, permissions } = body;
    if before.has_role(&name) {
        let detail = "is the name of another role; take another name";
        return Err(Problem::validation(vec![FieldError::new("/name".into(), detail)]));
    }
    if before.roles.len() >= MAX_ROLES {
        let detail = format!("An organization has at most {MAX_ROLES} roles of its own; delete one first.");
        return Err(Problem::new(ProblemCode::LimitReached, detail));
    }
    let role = valid(&authority, description, permissions)?;
    let after = with_role(before, name.clone(), Some(role.clone()));
    let view = RoleView::custom(&name, &role);
    let entry = caller.audit(&deps.ids, Change::of("role.create", &name).to(&view));
    deps.store.audited(entry).tenants().replace(&after).await?;
    Ok(Created { location: format!("/api/tenant/roles/{name}"), body: view })
}

/// Replace a role
///
/// Whoever has it has what it allows from then on, within 5 seconds. Nobody changes a role that allows, or is to allow, more
/// than they may themselves.
#[utoipa::path(
    put, path = "/api/tenant/roles/{name}", tag = "tenants",
    params(("name" = RoleName, Path), ("If-Match" = String, Header, description = "The `ETag` that was read")),
    request_body = ReplaceRole,
    responses((
        status = 200, description = "The role as it is now", body = RoleView,
        headers(("ETag" = String, description = "The tenant's new revision")),
    )),
)]
pub(crate) async fn replace_role(
    caller: Caller<RolesWrite>,
    State(deps): State<Deps>,
    Path(name): Path<RoleName>,
    if_match: IfMatch,
    Json(body): Json<ReplaceRole>,
) -> Result<(ETag, Json<RoleView>), Problem> {
    let authority = Authority::of(&deps, &caller).await?;
    let before = changeable(&authority, &name)?;
    if_match.check(authority.tenant.revision)?;
    let role = valid(&authority, body.description, body.permissions)?;
    let after = with_role(&authority.tenant, name.clone(), Some(role.clone()));
    let view = RoleView::custom(&name, &role);
    let change = Change::of("role.update", &name).from(&RoleView::custom(&name, before)).to(&view);
    replace_head(&deps, caller.audit(&deps.ids, change), &after).await?;
    Ok((ETag(after.revision), Json(view)))
}

/// Delete a role
///
/// Only one that nobody has: no member, no service account, no invitation.
#[utoipa::path(
    delete, path = "/api/tenant/roles/{name}", tag = "tenants", params(("name" = RoleName, Path)),
    responses((status = 204, description = "It is gone")),
)]
pub(crate) async fn delete_role(
    caller: Caller<RolesWrite>,
    State(deps): State<Deps>,
    Path(name): Path<RoleName>,
) -> Result<StatusCode, Problem> {
    let authority = Authority::of(&deps, &caller).await?;
    let before = changeable(&authority, &name)?;
    // Who is given it at this very moment has a role that allows nothing.
    if deps.store.tenants().is_role_given(authority.tenant.id, &name).await? {
        let detail = "A member, a service account or an invitation has this role. Give those another one first.";
        return Err(Problem::new(ProblemCode::RoleInUse, detail));
    }
    let after = with_role(&authority.tenant, name.clone(), None);
    let entry = caller.audit(&deps.ids, Change::of("role.delete", &name).from(&RoleView::custom(&name, before)));
    deps.store.audited(entry).tenants().replace(&after).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A role that the caller may change: the tenant's own, which allows nothing that the caller may not.
fn changeable<'a>(authority: &'a Authority, name: &RoleName) -> Result<&'a CustomRole, Problem> {
    if name.builtin().is_some() {
        let detail = "Every organization has this role as it is. Make another one, with `POST /api/tenant/roles`.";
        return Err(Problem::new(ProblemCode::Forbidden, detail));
    }
    let role = authority.tenant.roles.get(name).ok_or_else(Problem::not_found)?;
    authority.may_take(name)?;
    Ok(role)
}

fn valid(authority: &Authority, description: String, permissions: Vec<Permission>) -> Result<CustomRole, Problem> {
    let root = Pointer::root();
    let mut errors = Vec::new();
    if description.chars().count() > MAX_DESCRIPTION_CHARS {
        errors.push(FieldError::new(root.push("description"), "must have at most 500 characters"));
    }
    for (index, permission) in permissions.iter().enumerate().filter(|(_, permission)| !permission.is_grantable()) {
        let detail = format!("{permission} can't be given to a role");
        errors.push(FieldError::new(root.push("permissions").push(index), detail));
    }
    if !errors.is_empty() {
        return Err(Problem::validation(errors));
    }
    authority.may_grant(&permissions)?;
    Ok(CustomRole { description, permissions: permissions.into_iter().collect() })
}

/// The tenant's next revision with another role of this name, or none.
fn with_role(tenant: &Tenant, name: RoleName, role: Option<CustomRole>) -> Tenant {
    let mut after = Tenant { revision: tenant.revision + 1, ..tenant.clone() };
    match role {
        Some(role) => after.roles.insert(name, role),
        None => after.roles.remove(&name),
    };
    after
}
