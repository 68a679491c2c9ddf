//! What ran, what it did and why it failed: lists and details of runs. What people do to runs: cancel them, decide the
//! approvals that they wait for, start again what was given up. Executing them is left to the worker, which is told by
//! messages.

mod approval_page;
mod approvals;
mod cancel;
mod dead_letters;
mod deliveries;
mod detail;
mod inline;
mod list;
mod wake;

use std::sync::Arc;

use axum::extract::FromRef;
use tidegate_http::{Api, Authenticator, endpoint};
use tidegate_platform::{Blobs, Clock, Ids, Queue};
use tidegate_store::Store;

/// What the operations work with.
#[derive(Clone)]
pub struct Deps {
    /// Runs with their journals, the definitions that running ones follow, and what came for webhooks; to read. Cancellations, decisions and
    /// which dead letters were started again; to write.
    pub store: Store,
    /// Inputs, outputs and details too large for rows, to read; inputs of what is started again, to write.
    pub blobs: Arc<dyn Blobs>,
    /// The run queue, to send to: wakes, and starts of what was given up.
    pub queue: Arc<dyn Queue>,
    /// Recognises callers: reads tenants, members, sessions and API keys, and counts requests.
    pub authenticator: Authenticator,
    /// Tells the time.
    pub clock: Clock,
    /// Makes the ids of runs that are started again.
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
        .route(endpoint!(list::list_runs))
        .route(endpoint!(detail::get_run))
        .route(endpoint!(list::list_runs).at("/api/logs", "list_logs"))
        .route(endpoint!(detail::get_run).at("/api/logs/{id}", "get_log"))
        .route(endpoint!(deliveries::list_deliveries))
        .route(endpoint!(cancel::cancel_run))
        .route(endpoint!(approvals::get_approval))
        .route(endpoint!(approvals::decide_approval).max_body_bytes(approvals::MAX_BODY_BYTES))
        .route(endpoint!(dead_letters::list_dead_letters))
        .route(endpoint!(dead_letters::redrive_dead_letter))
        .route(endpoint!(dead_letters::redrive_dead_letters))
        .with_state(deps)
}
