//! Clients: the installation's tenants. Their data keys never leave the store.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use tidegate_http::permission::{PlatformRead, PlatformWrite};
use tidegate_http::{Change, ETag, IfMatch, Json, ListOf, PageQuery, Path, Person, Problem, Query, Time};
use tidegate_model::{FieldError, Limits, Policies, Tenant, TenantId, TenantStatus};
use tidegate_store::Error as StoreError;
use utoipa::ToSchema;

use crate::{Deps, tenant};

const MAX_REASON_CHARS: usize = 500;
const MAX_PER_SECOND: u32 = 1_000_000;

/// A tenant, as the installation's administrators see it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Client)]
pub(crate) struct ClientView {
    /// The tenant's id.
    id: TenantId,
    /// Name for display.
    name: String,
    /// Whether it may be used.
    status: TenantStatus,
    /// What its members have to fulfil.
    policies: Policies,
    /// Its own limits; null is the installation's default.
    limits: Limits,
    /// When the tenant was made.
    created_at: Time,
}

impl From<&Tenant> for ClientView {
    fn from(tenant: &Tenant) -> Self {
        let Tenant { id, name, status, policies, limits, created_at, .. } = tenant;
        Self {
            id: *id,
            name: name.clone(),
            status: *status,
            policies: *policies,
            limits: *limits,
            created_at: (*created_at).into(),
        }
    }
}

/// Why a tenant is suspended.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Suspend {
    /// For the tenant's audit log, which its members may read: up to 500 characters.
    #[serde(default)]
    #[schema(max_length = 500, examples("Unpaid since August"))]
    reason: Option<String>,
}

/// A tenant's state and why, in the audit log.
#[derive(Serialize)]
struct Standing<'a> {
    status: TenantStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// List clients
///
/// All tenants of the installation, newest first; also those that are suspended or deleted.
#[utoipa::path(
    get, path = "/api/admin/platform/clients", tag = "admin", params(PageQuery),
    responses((status = 200, description = "Newest first", body = ListOf<ClientView>)),
)]
pub(crate) async fn list_clients(
    _: Person<PlatformRead>,
    State(deps): State<Deps>,
    Query(PageQuery { limit, cursor }): Query<PageQuery>,
) -> Result<Json<ListOf<ClientView>>, Problem> {
    let page = deps.store.tenants().list(cursor.as_deref(), limit.get() as usize).await?;
    let items = page.items.iter().map(ClientView::from).collect();
    Ok(Json(ListOf { items, next_cursor: page.next_cursor }))
}

/// Read a client
#[utoipa::path(
    get, path = "/api/admin/platform/clients/{id}", tag = "admin", params(("id" = TenantId, Path)),
    responses((status = 200, description = "The tenant; its ETag is for `If-Match`", body = ClientView)),
)]
pub(crate) async fn get_client(
    _: Person<PlatformRead>,
    State(deps): State<Deps>,
    Path(id): Path<TenantId>,
) -> Result<(ETag, Json<ClientView>), Problem> {
    Ok(shown(&tenant(&deps, id).await?))
}

/// Suspend a client
///
/// Within five seconds its webhooks and the API answer 403 (`tenant_suspended`), and its schedules start nothing. Runs that
/// were accepted before go on. Its members can still see their own accounts and sign out. One that is suspended already
/// stays so.
#[utoipa::path(
    post, path = "/api/admin/platform/clients/{id}/suspend", tag = "admin", params(("id" = TenantId, Path)),
    request_body = Suspend,
    responses((status = 200, description = "It is suspended", body = ClientView)),
)]
pub(crate) async fn suspend_client(
    caller: Person<PlatformWrite>,
    State(deps): State<Deps>,
    Path(id): Path<TenantId>,
    Json(Suspend { reason }): Json<Suspend>,
) -> Result<(ETag, Json<ClientView>), Problem> {
    let reason = reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty());
    if reason.is_some_and(|reason| reason.chars().count() > MAX_REASON_CHARS || reason.contains(char::is_control)) {
        let error = FieldError::new("/reason".into(), "expected at most 500 characters on one line");
        return Err(Problem::validation(vec![error]));
    }
    switch(&deps, &caller, id, "tenant.suspend", Standing { status: TenantStatus::Suspended, reason }).await
}

/// Resume a client
///
/// Everything works again within five seconds. A tenant that isn't suspended stays as it is.
#[utoipa::path(
    post, path = "/api/admin/platform/clients/{id}/resume", tag = "admin", params(("id" = TenantId, Path)),
    responses((status = 200, description = "It is active", body = ClientView)),
)]
pub(crate) async fn resume_client(
    caller: Person<PlatformWrite>,
    State(deps): State<Deps>,
    Path(id): Path<TenantId>,
) -> Result<(ETag, Json<ClientView>), Problem> {
    switch(&deps, &caller, id, "tenant.resume", Standing { status: TenantStatus::Active, reason: None }).await
}

/// Set a client's limits
///
/// Replaces them all; what is left out or null is the installation's default. Takes effect within five seconds.
#[utoipa::path(
    put, path = "/api/admin/platform/clients/{id}/limits", tag = "admin",
    params(("id" = TenantId, Path), ("If-Match" = String, Header, description = "The client's `ETag`")),
    request_body = Limits,
    responses((status = 200, description = "The tenant with its limits", body = ClientView)),
)]
pub(crate) async fn limit_client(
    caller: Person<PlatformWrite>,
    State(deps): State<Deps>,
    Path(id): Path<TenantId>,
    if_match: IfMatch,
    Json(limits): Json<Limits>,
) -> Result<(ETag, Json<ClientView>), Problem> {
    check(limits)?;
    let before = living(&deps, id).await?;
    if_match.check(before.revision)?;
    let change = Change::of("tenant.limit", id).from(&before.limits).to(&limits);
    let after = Tenant { limits, revision: before.revision + 1, ..before };
    let entry = caller.audit(&deps.ids, Some(id), change);
    match deps.store.audited(entry).tenants().replace(&after).await {
        Ok(()) => Ok(shown(&after)),
        Err(StoreError::Conflict { .. }) => Err(Problem::precondition_failed()),
        Err(error) => Err(error.into()),
    }
}

/// Gives a tenant another state, unless it has it.
async fn switch(
    deps: &Deps,
    caller: &Person<PlatformWrite>,
    id: TenantId,
    action: &'static str,
    to: Standing<'_>,
) -> Result<(ETag, Json<ClientView>), Problem> {
    let before = living(deps, id).await?;
    if before.status == to.status {
        return Ok(shown(&before));
    }
    let change = Change::of(action, id).from(&Standing { status: before.status, reason: None }).to(&to);
    let after = Tenant { status: to.status, revision: before.revision + 1, ..before };
    deps.store.audited(caller.audit(&deps.ids, Some(id), change)).tenants().replace(&after).await?;
    Ok(shown(&after))
}

/// A tenant that can be changed: one that is deleted is gone for good.
async fn living(deps: &Deps, id: TenantId) -> Result<Tenant, Problem> {
    let found = tenant(deps, id).await?;
    if found.status == TenantStatus::Deleted { Err(Problem::not_found()) } else { Ok(found) }
}

fn check(limits: Limits) -> Result<(), Problem> {
    let Limits { api_per_second, key_per_second, webhooks_per_second } = limits;
    let members = [
        ("/api_per_second", api_per_second),
        ("/key_per_second", key_per_second),
        ("/webhooks_per_second", webhooks_per_second),
    ];
    let wrong = members.into_iter().filter(|(_, limit)| limit.is_some_and(|n| !(1..=MAX_PER_SECOND).contains(&n)));
    let errors: Vec<_> =
        wrong.map(|(pointer, _)| FieldError::new(pointer.into(), "expected 1 to 1,000,000 a second")).collect();
    if errors.is_empty() { Ok(()) } else { Err(Problem::validation(errors)) }
}

fn shown(tenant: &Tenant) -> (ETag, Json<ClientView>) {
    (ETag(tenant.revision), Json(tenant.into()))
}
