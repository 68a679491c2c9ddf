//! Workflows with their versions, and connections: what a tenant sets up; and starting a workflow by hand. Running
//! workflows is left to the worker, starting them by their triggers to `webhooks` and the scheduler.

mod check;
mod connections;
mod connectors;
mod expressions;
mod import;
mod oauth;
mod resealing;
mod schedule;
mod schema;
mod trigger;
mod verification;
mod workflows;

use std::sync::Arc;

use axum::extract::FromRef;
use tidegate_connections::Connections;
use tidegate_connectors::MAX_MANIFEST_BYTES;
use tidegate_http::{Api, Authenticator, MAX_INPUT_BYTES, endpoint};
use tidegate_platform::{Blobs, Clock, Envelope, Ids, Queue, Scheduler};
use tidegate_store::Store;

pub use schema::definition_schema;

/// What the operations work with.
#[derive(Clone)]
pub struct Deps {
    /// Workflows, connections, the tenant's data keys; of runs only each workflow's last.
    pub store: Store,
    /// The timers of workflows that a schedule starts.
    pub scheduler: Arc<dyn Scheduler>,
    /// The run queue, to send to.
    pub queue: Arc<dyn Queue>,
    /// Bodies over 8 KB of runs that are started by hand, to write.
    pub blobs: Arc<dyn Blobs>,
    /// Tests connections and asks vendors for choices and tokens: the way out, with tenants' connections and connectors.
    pub connections: Connections,
    /// Seals connections; opens those that an older data key sealed, to seal them anew.
    pub envelope: Envelope,
    /// Recognises callers: reads tenants, members, sessions and API keys, and counts requests.
    pub authenticator: Authenticator,
    /// Tells the time.
    pub clock: Clock,
    /// Makes ids.
    pub ids: Ids,
    /// How it works.
    pub settings: Settings,
}

/// How the function works.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where people reach the installation: `https://flows.example.com`, without a slash at the end. Where it isn't given, it is
    /// where the request came.
    pub public_url: Option<String>,
}

impl FromRef<Deps> for Authenticator {
    fn from_ref(deps: &Deps) -> Self {
        deps.authenticator.clone()
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
        .route(endpoint!(workflows::listen_workflow))
        .route(endpoint!(workflows::stop_listening))
        .route(endpoint!(trigger::trigger_workflow).max_body_bytes(MAX_INPUT_BYTES))
        .route(endpoint!(schema::workflow_schema))
        .route(endpoint!(expressions::evaluate_expression))
        .route(endpoint!(connections::create_connection))
        .route(endpoint!(connections::list_connections))
        .route(endpoint!(connections::get_connection))
        .route(endpoint!(connections::delete_connection))
        .route(endpoint!(connections::update_connection))
        .route(endpoint!(connections::test_connection))
        .route(endpoint!(connections::consent_connection))
        .route(endpoint!(connections::load_options))
        .route(endpoint!(oauth::begin_oauth))
        .route(endpoint!(oauth::oauth_callback))
        .route(endpoint!(oauth::list_oauth_clients))
        .route(endpoint!(oauth::set_oauth_client))
        .route(endpoint!(oauth::remove_oauth_client))
        .route(endpoint!(connectors::list_connectors))
        .route(endpoint!(connectors::get_connector))
        .route(endpoint!(connectors::get_action))
        .route(endpoint!(connectors::get_manifest))
        .route(endpoint!(connectors::create_connector).max_body_bytes(MAX_MANIFEST_BYTES))
        .route(endpoint!(import::import_connector).max_body_bytes(MAX_MANIFEST_BYTES))
        .route(endpoint!(connectors::replace_connector).max_body_bytes(MAX_MANIFEST_BYTES))
        .route(endpoint!(connectors::delete_connector))
        .route(endpoint!(schema::connector_schema))
        .route(endpoint!(connections::create_connection).at(credentials, "create_credential").deprecated())
        .route(endpoint!(connections::list_connections).at(credentials, "list_credentials").deprecated())
        .route(endpoint!(connections::get_connection).at(credential, "get_credential").deprecated())
        .route(endpoint!(connections::delete_connection).at(credential, "delete_credential").deprecated())
        .with_state(deps)
}
