//! API keys of service accounts. A key's secret is shown once, when it is made, and only its hash is kept.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::extract::State;
use futures::future::try_join_all;
use http::StatusCode;
use jiff::{Timestamp, TimestampArithmetic};
use serde::{Deserialize, Serialize};
use tidegate_http::permission::{ServiceAccountsRead, ServiceAccountsWrite};
use tidegate_http::{
    Caller, Change, Created, Json, ListOf, PageQuery, Path, Problem, ProblemCode, Query, RandomSecret, Time,
    write_api_key,
};
use tidegate_model::{ApiKey, ApiKeyId, FieldError, Permission, Pointer, ServiceAccountId, TenantId};
use tidegate_store::{MAX_PAGE, Page};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::authority::Authority;
use crate::service_accounts::account;
use crate::{Deps, accounts};

/// How long a rotated key goes on working where nothing else is said.
const OVERLAP: Duration = Duration::from_secs(86_400);
const MAX_OVERLAP: Duration = Duration::from_secs(30 * 86_400);

/// An API key to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateApiKey {
    /// What it is for: 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200, examples("Nightly import"))]
    name: String,
    /// What may be done with it, of what the service account's role allows and the caller may do too.
    #[schema(value_type = Vec<Permission>, min_items = 1, examples(json!(["workflows:run", "runs:read"])))]
    scopes: Vec<String>,
    /// When it ends; without it, never.
    #[schema(inline)]
    expires_at: Option<Time>,
}

/// How to replace a key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotateApiKey {
    /// Seconds that the key until now goes on working beside the new one: up to 30 days, default a day.
    #[serde(default = "overlap_seconds")]
    #[schema(maximum = 2_592_000, default = 86_400)]
    overlap_seconds: u32,
}

fn overlap_seconds() -> u32 {
    u32::try_from(OVERLAP.as_secs()).unwrap_or_default()
}

/// An API key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub(crate) struct ApiKeyView {
    /// The key's id.
    id: ApiKeyId,
    /// Whose it is.
    service_account_id: ServiceAccountId,
    /// What it is for.
    name: String,
    /// What may be done with it, as far as the service account's role allows it.
    scopes: BTreeSet<Permission>,
    /// When it was made.
    created_at: Time,
    /// When it ends; null for one that doesn't.
    expires_at: Option<Time>,
    /// The key that it was rotated to; null for one that wasn't.
    successor: Option<ApiKeyId>,
    /// When it was last used, to about five minutes; null before that.
    last_used_at: Option<Time>,
}

/// A new API key. This is the only answer that shows its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct NewApiKey {
    #[serde(flatten)]
    view: ApiKeyView,
    /// The key: send it as `Authorization: Bearer …`.
    #[schema(value_type = String, examples("tgk_01890a5d000070008000000000000000_K7gNU3sdo-OL0wNhqoVWhr3g6s1xYv72ol_pe_Unols"))]
    key: Zeroizing<String>,
    /// For `POST /api/auth/token`: the key's id.
    client_id: ApiKeyId,
    /// For `POST /api/auth/token`.
    #[schema(value_type = String, examples("K7gNU3sdo-OL0wNhqoVWhr3g6s1xYv72ol_pe_Unols"))]
    client_secret: Zeroizing<String>,
}

/// What a rotation leaves: for the audit log.
#[derive(Serialize)]
struct Rotated<'a> {
    former: &'a ApiKeyView,
    new: &'a ApiKeyView,
}

impl ApiKeyView {
    fn of(key: &ApiKey, last_used_at: Option<Timestamp>) -> Self {
        let ApiKey { id, tenant: _, service_account, name, secret_hash: _, scopes, created_at, expires_at, successor } =
            key;
        Self {
            id: *id,
            service_account_id: *service_account,
            name: name.clone(),
            scopes: scopes.clone(),
            created_at: (*created_at).into(),
            expires_at: expires_at.map(Time),
            successor: *successor,
            last_used_at: last_used_at.map(Time),
        }
    }
}

impl NewApiKey {
    fn created(key: &ApiKey, secret: &RandomSecret) -> Created<Self> {
        let ApiKey { id, service_account, .. } = key;
        let body = Self {
            view: ApiKeyView::of(key, None),
            key: write_api_key(*id, secret),
            client_id: *id,
            client_secret: Zeroizing::new(secret.expose().to_owned()),
        };
        Created { location: format!("/api/service-accounts/{service_account}/keys/{id}"), body }
    }
}

/// Create an API key
///
/// The answer shows the key, once. It is good for `Authorization: Bearer …` at every operation that its scopes allow, and
/// its two parts are the client of `POST /api/auth/token`.
#[utoipa::path(
    post, path = "/api/service-accounts/{id}/keys", tag = "service_accounts",
    params(("id" = ServiceAccountId, Path)), request_body = CreateApiKey,
    responses((
        status = 201, description = "The key with its secret", body = NewApiKey,
        headers(("Location" = String, description = "The key's address")),
    )),
)]
pub(crate) async fn create_api_key(
    caller: Caller<ServiceAccountsWrite>,
    State(deps): State<Deps>,
    Path(id): Path<ServiceAccountId>,
    Json(body): Json<CreateApiKey>,
) -> Result<Created<NewApiKey>, Problem> {
    let member = account(&deps, caller.tenant, id).await?;
    let authority = Authority::of(&deps, &caller).await?;
    let of_role = authority.tenant.permissions(&member.role);
    let now = deps.clock.now();
    let mut errors = Vec::new();
    let name = accounts::check_name(&body.name, "/name", &mut errors);
    let scopes = check_scopes(&body.scopes, &of_role, &authority.permissions, &mut errors);
    let expires_at = body.expires_at.map(Timestamp::from);
    if expires_at.is_some_and(|end| end <= now) {
        errors.push(FieldError::new("/expires_at".into(), "must be a time to come"));
    }
    if !errors.is_empty() {
        return Err(Problem::validation(errors));
    }
    let secret = RandomSecret::new();
    let key = ApiKey {
        id: deps.ids.api_key(),
        tenant: caller.tenant,
        service_account: id,
        name,
        secret_hash: secret.hash(),
        scopes,
        created_at: now,
        expires_at,
        successor: None,
    };
    let change = Change::of("api_key.create", key.id).to(&ApiKeyView::of(&key, None));
    deps.store.audited(caller.audit(&deps.ids, change)).api_keys().create(&key).await?;
    Ok(NewApiKey::created(&key, &secret))
}

/// List a service account's API keys
#[utoipa::path(
    get, path = "/api/service-accounts/{id}/keys", tag = "service_accounts",
    params(("id" = ServiceAccountId, Path), PageQuery),
    responses((status = 200, description = "Newest first, without their secrets", body = ListOf<ApiKeyView>)),
)]
pub(crate) async fn list_api_keys(
    caller: Caller<ServiceAccountsRead>,
    State(deps): State<Deps>,
    Path(id): Path<ServiceAccountId>,
    Query(page): Query<PageQuery>,
) -> Result<Json<ListOf<ApiKeyView>>, Problem> {
    account(&deps, caller.tenant, id).await?;
    let Page { items, next_cursor } = keys_of(&deps, caller.tenant, id, page.cursor, page.limit.get() as usize).await?;
    let items = try_join_all(items.iter().map(|key| view(&deps, key))).await?;
    Ok(Json(ListOf { items, next_cursor }))
}

/// Get an API key
#[utoipa::path(
    get, path = "/api/service-accounts/{id}/keys/{key}", tag = "service_accounts",
    params(("id" = ServiceAccountId, Path), ("key" = ApiKeyId, Path)),
    responses((status = 200, description = "The key, without its secret", body = ApiKeyView)),
)]
pub(crate) async fn get_api_key(
    caller: Caller<ServiceAccountsRead>,
    State(deps): State<Deps>,
    Path((id, key)): Path<(ServiceAccountId, ApiKeyId)>,
) -> Result<Json<ApiKeyView>, Problem> {
    Ok(Json(view(&deps, &key_of(&deps, caller.tenant, id, key).await?).await?))
}

/// Revoke an API key
///
/// It stops working within 5 seconds, and so do the access tokens that it got.
#[utoipa::path(
    delete, path = "/api/service-accounts/{id}/keys/{key}", tag = "service_accounts",
    params(("id" = ServiceAccountId, Path), ("key" = ApiKeyId, Path)),
    responses((status = 204, description = "It is gone")),
)]
pub(crate) async fn revoke_api_key(
    caller: Caller<ServiceAccountsWrite>,
    State(deps): State<Deps>,
    Path((id, key)): Path<(ServiceAccountId, ApiKeyId)>,
) -> Result<StatusCode, Problem> {
    revoke(&deps, &caller, &key_of(&deps, caller.tenant, id, key).await?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Rotate an API key
///
/// Makes a key with the same name and scopes, and ends this one after an overlap, in which whoever uses it takes over the
/// new one. A key that was made with an end is followed by one that lasts as long. One that was rotated already is 409.
#[utoipa::path(
    post, path = "/api/service-accounts/{id}/keys/{key}/rotate", tag = "service_accounts",
    params(("id" = ServiceAccountId, Path), ("key" = ApiKeyId, Path)), request_body = RotateApiKey,
    responses((
        status = 201, description = "The new key with its secret", body = NewApiKey,
        headers(("Location" = String, description = "The new key's address")),
    )),
)]
pub(crate) async fn rotate_api_key(
    caller: Caller<ServiceAccountsWrite>,
    State(deps): State<Deps>,
    Path((id, key)): Path<(ServiceAccountId, ApiKeyId)>,
    Json(RotateApiKey { overlap_seconds }): Json<RotateApiKey>,
) -> Result<Created<NewApiKey>, Problem> {
    let overlap = Duration::from_secs(overlap_seconds.into());
    if overlap > MAX_OVERLAP {
        let detail = format!("must be at most {} (30 days)", MAX_OVERLAP.as_secs());
        return Err(Problem::validation(vec![FieldError::new("/overlap_seconds".into(), detail)]));
    }
    let former = key_of(&deps, caller.tenant, id, key).await?;
    if let Some(successor) = former.successor {
        let detail = format!("This key was rotated already: {successor} follows it. Rotate or revoke that one.");
        return Err(Problem::new(ProblemCode::Conflict, detail));
    }
    // The caller will hold the new key, and with it all its scopes.
    let authority = Authority::of(&deps, &caller).await?;
    if let Some(beyond) = former.scopes.difference(&authority.permissions).next() {
        return Err(Problem::forbidden(*beyond));
    }
    let now = deps.clock.now();
    let secret = RandomSecret::new();
    let new = ApiKey {
        id: deps.ids.api_key(),
        secret_hash: secret.hash(),
        created_at: now,
        expires_at: former.expires_at.map(|end| after(now, end.duration_since(former.created_at))),
        successor: None,
        ..former.clone()
    };
    let end = after(now, overlap);
    let ended = ApiKey {
        expires_at: Some(former.expires_at.map_or(end, |before| before.min(end))),
        successor: Some(new.id),
        ..former.clone()
    };
    let [was, is, follower] = [&former, &ended, &new].map(|key| ApiKeyView::of(key, None));
    let change = Change::of("api_key.rotate", key).from(&was).to(&Rotated { former: &is, new: &follower });
    deps.store.audited(caller.audit(&deps.ids, change)).api_keys().rotate(&former, &ended, &new).await?;
    Ok(NewApiKey::created(&new, &secret))
}

/// Revokes all keys of a service account, each with its own entry in the audit log.
pub(crate) async fn revoke_all(
    deps: &Deps,
    caller: &Caller<ServiceAccountsWrite>,
    id: ServiceAccountId,
) -> Result<(), Problem> {
    let mut cursor = None;
    loop {
        let page = keys_of(deps, caller.tenant, id, cursor, MAX_PAGE).await?;
        for key in &page.items {
            revoke(deps, caller, key).await?;
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

async fn revoke(deps: &Deps, caller: &Caller<ServiceAccountsWrite>, key: &ApiKey) -> Result<(), Problem> {
    let change = Change::of("api_key.revoke", key.id).from(&ApiKeyView::of(key, None));
    Ok(deps.store.audited(caller.audit(&deps.ids, change)).api_keys().delete(key.id).await?)
}

/// A page of a service account's keys. They are listed by tenant, which has few.
async fn keys_of(
    deps: &Deps,
    tenant: TenantId,
    id: ServiceAccountId,
    mut cursor: Option<String>,
    limit: usize,
) -> Result<Page<ApiKey>, Problem> {
    let mut items = Vec::new();
    loop {
        let page = deps.store.api_keys().list(tenant, cursor.as_deref(), limit - items.len()).await?;
        items.extend(page.items.into_iter().filter(|key| key.service_account == id));
        cursor = page.next_cursor;
        if cursor.is_none() || items.len() >= limit {
            return Ok(Page { items, next_cursor: cursor });
        }
    }
}

async fn key_of(deps: &Deps, tenant: TenantId, id: ServiceAccountId, key: ApiKeyId) -> Result<ApiKey, Problem> {
    let found = deps.store.api_keys().get(key).await?;
    found.filter(|key| key.tenant == tenant && key.service_account == id).ok_or_else(Problem::not_found)
}

async fn view(deps: &Deps, key: &ApiKey) -> Result<ApiKeyView, Problem> {
    Ok(ApiKeyView::of(key, deps.store.api_keys().last_used(key.tenant, key.id).await?))
}

/// A time so much later; the last there is where there is none.
fn after(time: Timestamp, duration: impl Into<TimestampArithmetic>) -> Timestamp {
    time.saturating_add(duration).unwrap_or(Timestamp::MAX)
}

/// The scopes, which both the role and whoever makes the key have to hold; every other one is an error.
fn check_scopes(
    scopes: &[String],
    of_role: &BTreeSet<Permission>,
    own: &BTreeSet<Permission>,
    errors: &mut Vec<FieldError>,
) -> BTreeSet<Permission> {
    let root = Pointer::root().push("scopes");
    if scopes.is_empty() {
        errors.push(FieldError::new(root.clone(), "name at least one permission"));
    }
    let mut checked = BTreeSet::new();
    for (index, scope) in scopes.iter().enumerate() {
        let detail = match scope.parse::<Permission>() {
            Ok(scope) if !of_role.contains(&scope) => "the service account's role doesn't allow it",
            Ok(scope) if !own.contains(&scope) => "you may not do it yourself",
            Ok(scope) => {
                checked.insert(scope);
                continue;
            }
            Err(_) => "there is no such permission",
        };
        errors.push(FieldError::new(root.push(index), detail));
    }
    checked
}
