//! What the installation's administrators do, under `/api/admin/platform/`: see tenants (`clients`), people (`principals`),
//! roles, service accounts and API keys (`applications`) of all tenants; suspend, resume and limit tenants; say who else is an
//! administrator; read the audit logs. None of it leads to a tenant's workflows, connections or runs. Rotating the signing
//! keys is left to the auth function, which alone may use them.

mod administrators;
mod applications;
mod audit;
mod clients;
mod principals;
mod roles;

use axum::extract::FromRef;
use tidegate_http::{Api, Authenticator, Problem, endpoint};
use tidegate_model::{Tenant, TenantId};
use tidegate_platform::{Clock, Ids};
use tidegate_store::Store;

/// What the operations work with.
#[derive(Clone)]
pub struct Deps {
    /// Tenants and administrators, to read and write; people, memberships, service accounts, API keys and audit logs, to
    /// read.
    pub store: Store,
    /// Recognises callers, and knows who is an administrator.
    pub authenticator: Authenticator,
    /// Tells since when somebody is an administrator.
    pub clock: Clock,
    /// Makes the ids of audit entries.
    pub ids: Ids,
}

impl FromRef<Deps> for Authenticator {
    fn from_ref(deps: &Deps) -> Self {
        deps.authenticator.clone()
    }
}

/// The operations over these dependencies.
pub fn api(deps: Deps) -> Api {
    Api::new()
        .route(endpoint!(clients::list_clients))
        .route(endpoint!(clients::get_client))
        .route(endpoint!(clients::suspend_client))
        .route(endpoint!(clients::resume_client))
        .route(endpoint!(clients::limit_client))
        .route(endpoint!(principals::list_principals))
        .route(endpoint!(principals::get_principal))
        .route(endpoint!(administrators::list_administrators))
        .route(endpoint!(administrators::get_administrator))
        .route(endpoint!(administrators::add_administrator))
        .route(endpoint!(administrators::remove_administrator))
        .route(endpoint!(roles::list_platform_roles))
        .route(endpoint!(roles::list_platform_permissions))
        .route(endpoint!(applications::list_platform_service_accounts))
        .route(endpoint!(applications::list_applications))
        .route(endpoint!(audit::list_platform_audit))
        .with_state(deps)
}

/// A tenant, also one that is deleted.
async fn tenant(deps: &Deps, id: TenantId) -> Result<Tenant, Problem> {
    deps.store.tenants().get(id).await?.ok_or_else(Problem::not_found)
}
