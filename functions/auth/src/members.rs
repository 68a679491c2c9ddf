//! A tenant's people: who they are, what role they have, and who may change that.

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tidegate_http::permission::{MembersWrite, TenantRead};
use tidegate_http::{Caller, Change, Json, ListOf, PageQuery, Path, Problem, Query, Time};
use tidegate_model::{Member, PrincipalId, RoleName, TenantId, UserId};
use utoipa::ToSchema;

use crate::Deps;
use crate::authority::{Authority, owner_required};

/// A person in the tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Member)]
pub(crate) struct MemberView {
    /// The person's id.
    #[schema(value_type = UserId)]
    id: PrincipalId,
    /// Name for display, as it was when the person joined.
    name: String,
    /// The address, as it was when the person joined.
    email: Option<String>,
    /// The role in the tenant.
    role: RoleName,
    /// Since when.
    created_at: Time,
}

/// What to change of a member.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateMember {
    /// The new role: any but `owner`, and none that allows more than the caller may.
    role: RoleName,
}

impl From<&Member> for MemberView {
    fn from(member: &Member) -> Self {
        let Member { tenant: _, principal, role, name, email, created_at } = member;
        let created_at = (*created_at).into();
        Self { id: *principal, name: name.clone(), email: email.clone(), role: role.clone(), created_at }
    }
}

/// List members
///
/// The tenant's people; its machines are service accounts.
#[utoipa::path(
    get, path = "/api/tenant/members", tag = "tenants", params(PageQuery),
    responses((status = 200, description = "The newest accounts first", body = ListOf<MemberView>)),
)]
pub(crate) async fn list_members(
    caller: Caller<TenantRead>,
    State(deps): State<Deps>,
    Query(page): Query<PageQuery>,
) -> Result<Json<ListOf<MemberView>>, Problem> {
    let found = deps.store.tenants().members(caller.tenant, page.cursor.as_deref(), page.limit.get() as usize).await?;
    Ok(Json(ListOf { items: found.items.iter().map(MemberView::from).collect(), next_cursor: found.next_cursor }))
}

/// Get a member
#[utoipa::path(
    get, path = "/api/tenant/members/{id}", tag = "tenants", params(("id" = UserId, Path)),
    responses((status = 200, description = "The member", body = MemberView)),
)]
pub(crate) async fn get_member(
    caller: Caller<TenantRead>,
    State(deps): State<Deps>,
    Path(id): Path<UserId>,
) -> Result<Json<MemberView>, Problem> {
    Ok(Json(MemberView::from(&find(&deps, caller.tenant, id).await?)))
}

/// Give a member another role
///
/// Nobody gives or takes a role that allows more than they may themselves, and nobody changes the owner's. It takes effect
/// within 30 seconds.
#[utoipa::path(
    patch, path = "/api/tenant/members/{id}", tag = "tenants", params(("id" = UserId, Path)),
    request_body = UpdateMember,
    responses((status = 200, description = "The member as it is now", body = MemberView)),
)]
pub(crate) async fn update_member(
    caller: Caller<MembersWrite>,
    State(deps): State<Deps>,
    Path(id): Path<UserId>,
    Json(body): Json<UpdateMember>,
) -> Result<Json<MemberView>, Problem> {
    let authority = Authority::of(&deps, &caller).await?;
    let before = find_changeable(&deps, &authority, id).await?;
    authority.may_give(&body.role, "/role")?;
    let after = Member { role: body.role, ..before.clone() };
    let view = MemberView::from(&after);
    let change = Change::of("member.update", id).from(&MemberView::from(&before)).to(&view);
    deps.store.audited(caller.audit(&deps.ids, change)).tenants().replace_members(&[(&before, &after)]).await?;
    Ok(Json(view))
}

/// Remove a member
///
/// The person is out within 30 seconds, and with the next access token at the latest. The account stays, and so do the
/// other tenants it is a member of.
#[utoipa::path(
    delete, path = "/api/tenant/members/{id}", tag = "tenants", params(("id" = UserId, Path)),
    responses((status = 204, description = "The person is no member any more")),
)]
pub(crate) async fn remove_member(
    caller: Caller<MembersWrite>,
    State(deps): State<Deps>,
    Path(id): Path<UserId>,
) -> Result<StatusCode, Problem> {
    let authority = Authority::of(&deps, &caller).await?;
    let member = find_changeable(&deps, &authority, id).await?;
    let change = Change::of("member.remove", id).from(&MemberView::from(&member));
    deps.store.audited(caller.audit(&deps.ids, change)).tenants().remove_member(&member).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn find(deps: &Deps, tenant: TenantId, id: UserId) -> Result<Member, Problem> {
    deps.store.tenants().member(tenant, id.into()).await?.ok_or_else(Problem::not_found)
}

/// A member whom the caller may change: not the owner, and nobody who may more than the caller.
async fn find_changeable(deps: &Deps, authority: &Authority, id: UserId) -> Result<Member, Problem> {
    let member = find(deps, authority.tenant.id, id).await?;
    if member.is_owner() {
        return Err(owner_required());
    }
    authority.may_take(&member.role)?;
    Ok(member)
}
