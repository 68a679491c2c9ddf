//! Workflows with their versions, and connections: what a tenant sets up. Running workflows is left to the worker,
//! starting them to `webhooks` and the scheduler.

mod catalogue;
mod connections;
mod schedule;
mod workflows;

use std::sync::Arc;

use axum::extract::FromRef;
use tidegate_http::{Api, TokenVerifier, endpoint};
use tidegate_platform::{Clock, Envelope, Ids, Scheduler};
use tidegate_store::Store;

/// What the operations work with.
#[derive(Clone)]
pub struct Deps {
    /// Workflows, connections, the tenant's data key; of runs only each workflow's last.
    pub store: Store,
    /// The timers of workflows that a schedule starts.
    pub scheduler: Arc<dyn Scheduler>,
    /// Seals connections; opens none.
    pub envelope: Envelope,
    /// Verifies access tokens.
    pub verifier: TokenVerifier,
    /// Tells the time.
    pub clock: Clock,
    /// Makes ids.
    pub ids: Ids,
}

impl FromRef<Deps> for TokenVerifier {
    fn from_ref(deps: &Deps) -> Self {
        deps.verifier.clone()
    }
}

/// The operations over these dependencies.
pub fn api(deps: Deps) -> Api {
    let credentials = "/api/credentials";
    let credential = "/api/credentials/{id}";
    Api::new()
        .route(endpoint!(workflows::create_workflow))
        .route(endpoint!(workflows::list_workflows))
        .route(endpoint!(workflows::get_workflow))
        .route(endpoint!(workflows::replace_workflow))
        .route(endpoint!(workflows::toggle_workflow))
        .route(endpoint!(workflows::delete_workflow))
        .route(endpoint!(connections::create_connection))
        .route(endpoint!(connections::list_connections))
        .route(endpoint!(connections::get_connection))
        .route(endpoint!(connections::delete_connection))
        .route(endpoint!(connections::create_connection).at(credentials, "create_credential").deprecated())
        .route(endpoint!(connections::list_connections).at(credentials, "list_credentials").deprecated())
        .route(endpoint!(connections::get_connection).at(credential, "get_credential").deprecated())
        .route(endpoint!(connections::delete_connection).at(credential, "delete_credential").deprecated())
        .with_state(deps)
}
