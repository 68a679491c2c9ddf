//! The audit logs: the installation's own, and each tenant's.

use axum::extract::State;
use serde::Deserialize;
use tidegate_http::permission::PlatformRead;
use tidegate_http::{AuditEntryView, Json, Limit, ListOf, Person, Problem, Query, Time};
use tidegate_model::{PrincipalId, TenantId};
use tidegate_store::AuditFilter;
use utoipa::IntoParams;

use crate::{Deps, tenant};

/// Which entries to list: those that fulfil everything that is said.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditQuery {
    /// This tenant's log instead of the installation's own.
    tenant_id: Option<TenantId>,
    /// Only entries of this time or later (RFC 3339).
    #[param(inline)]
    from: Option<Time>,
    /// Only entries before this time (RFC 3339).
    #[param(inline)]
    to: Option<Time>,
    /// Only this action (`tenant.suspend`), or those that begin so where it ends with a dot (`tenant.`).
    action: Option<String>,
    /// Only what this principal did.
    principal: Option<PrincipalId>,
    /// Only what was done to this target: an id, or a role's name.
    target: Option<String>,
    /// How many entries to look at; those that don't match are left out.
    #[serde(default)]
    #[param(inline, required = false)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Read an audit log
///
/// The installation's own (administrators, signing keys), or with `tenant_id` a tenant's; newest first. With filters a page
/// may be short, even empty, and not be the last: go on while there is a `next_cursor`.
#[utoipa::path(
    get, path = "/api/admin/platform/audit", tag = "admin", params(AuditQuery),
    responses((status = 200, description = "Newest first", body = ListOf<AuditEntryView>)),
)]
pub(crate) async fn list_platform_audit(
    _: Person<PlatformRead>,
    State(deps): State<Deps>,
    Query(query): Query<AuditQuery>,
) -> Result<Json<ListOf<AuditEntryView>>, Problem> {
    let AuditQuery { tenant_id, from, to, action, principal, target, limit, cursor } = query;
    if let Some(id) = tenant_id {
        tenant(&deps, id).await?;
    }
    let principal = principal.map(|principal| principal.to_string());
    let (from, until) = (from.map(Time::into), to.map(Time::into));
    let filter = AuditFilter { from, until, action, principal, target };
    let page = deps.store.audit().list(tenant_id, &filter, cursor.as_deref(), limit.get() as usize).await?;
    let items = page.items.into_iter().map(AuditEntryView::from).collect();
    Ok(Json(ListOf { items, next_cursor: page.next_cursor }))
}
