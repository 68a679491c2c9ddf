//! A tenant's data keys: their numbers and ages, never the keys. A new one seals from then on; what older ones sealed is
//! sealed anew when the workflows function next reads it.

use axum::extract::State;
use serde::Serialize;
use tidegate_http::permission::TenantWrite;
use tidegate_http::{Caller, Change, Created, Json, ListOf, Problem, ProblemCode, Time};
use tidegate_model::{DataKey, Tenant};
use utoipa::ToSchema;

use crate::authority::Authority;
use crate::{Deps, accounts};

/// Old ones are kept: something may still be sealed under each.
const MAX_DATA_KEYS: usize = 20;

/// A data key, without the key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DataKey)]
pub(crate) struct DataKeyView {
    /// Counts up from 1.
    number: u32,
    /// Whether it is the one that seals; the others only open.
    seals: bool,
    /// When it was made.
    created_at: Time,
}

impl DataKeyView {
    fn of(tenant: &Tenant, key: &DataKey) -> Self {
        let seals = tenant.sealing_key().is_some_and(|sealing| sealing.number == key.number);
        Self { number: key.number, seals, created_at: key.created_at.into() }
    }
}

/// List data keys
///
/// The keys that the tenant's connections are sealed under: numbers and ages alone.
#[utoipa::path(
    get, path = "/api/tenant/data-keys", tag = "tenants",
    responses((status = 200, description = "Oldest first; the last one seals", body = ListOf<DataKeyView>)),
)]
pub(crate) async fn list_data_keys(
    caller: Caller<TenantWrite>,
    State(deps): State<Deps>,
) -> Result<Json<ListOf<DataKeyView>>, Problem> {
    let tenant = deps.store.tenants().get(caller.tenant).await?.ok_or_else(Problem::not_found)?;
    let items = tenant.data_keys.iter().map(|key| DataKeyView::of(&tenant, key)).collect();
    Ok(Json(ListOf { items, next_cursor: None }))
}

/// Make a new data key
///
/// It seals from then on. A connection that an older one sealed is sealed anew when it is next read or listed; until then
/// the older one opens it. At most 20.
#[utoipa::path(
    post, path = "/api/tenant/data-keys", tag = "tenants",
    responses((
        status = 201, description = "The new key's number", body = DataKeyView,
        headers(("Location" = String, description = "Where it is listed")),
    )),
)]
pub(crate) async fn create_data_key(
    caller: Caller<TenantWrite>,
    State(deps): State<Deps>,
) -> Result<Created<DataKeyView>, Problem> {
    let Authority { tenant: before, .. } = Authority::of(&deps, &caller).await?;
    if before.data_keys.len() >= MAX_DATA_KEYS {
        let detail = format!("An organization has at most {MAX_DATA_KEYS} data keys.");
        return Err(Problem::new(ProblemCode::LimitReached, detail));
    }
    let number = before.data_keys.iter().map(|key| key.number).max().unwrap_or(0) + 1;
    let key = accounts::new_data_key(&deps, before.id, number).await?;
    let mut after = Tenant { revision: before.revision + 1, ..before };
    after.data_keys.push(key.clone());
    let view = DataKeyView::of(&after, &key);
    let entry = caller.audit(&deps.ids, Change::of("data_key.create", number).to(&view));
    deps.store.audited(entry).tenants().replace(&after).await?;
    Ok(Created { location: "/api/tenant/data-keys".to_owned(), body: view })
}
