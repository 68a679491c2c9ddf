//! What ran, what it did and why it failed: lists and details of runs. It changes nothing.

mod detail;
mod inline;
mod list;

use std::sync::Arc;

use axum::extract::FromRef;
use tidegate_http::{Api, TokenVerifier, endpoint};
use tidegate_platform::{Blobs, Clock};
use tidegate_store::Store;

/// What the operations work with.
#[derive(Clone)]
pub struct Deps {
    /// Runs with their journals, and the definitions that running ones follow; to read.
    pub store: Store,
    /// Inputs, outputs and details too large for rows; to read.
    pub blobs: Arc<dyn Blobs>,
    /// Verifies access tokens.
    pub verifier: TokenVerifier,
    /// Tells the time.
    pub clock: Clock,
}

impl FromRef<Deps> for TokenVerifier {
    fn from_ref(deps: &Deps) -> Self {
        deps.verifier.clone()
    }
}

/// The operations over these dependencies.
pub fn api(deps: Deps) -> Api {
    Api::new()
        .route(endpoint!(list::list_runs))
        .route(endpoint!(detail::get_run))
        .route(endpoint!(list::list_runs).at("/api/logs", "list_logs"))
        .route(endpoint!(detail::get_run).at("/api/logs/{id}", "get_log"))
        .with_state(deps)
}
