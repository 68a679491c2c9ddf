//! Health: `/q/health`, `/q/health/live` and `/q/health/ready`, in the form of MicroProfile Health 4.0
//! (<https://download.eclipse.org/microprofile/microprofile-health-4.0/microprofile-health-spec-4.0.html>).

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::future::{BoxFuture, join_all};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{Api, Json, Public, endpoint};

/// A check that takes longer has failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

type BoxError = Box<dyn Error + Send + Sync>;

/// What must work for the process to be healthy.
#[derive(Clone, Default)]
pub struct Health {
    checks: Vec<Check>,
}

#[derive(Clone)]
struct Check {
    name: &'static str,
    kind: Kind,
    run: Arc<dyn Fn() -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Live,
    Ready,
}

impl Health {
    /// Adds a check without which the process can only be restarted.
    #[must_use]
    pub fn live<F>(self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.with(Kind::Live, name, check)
    }

    /// Adds a check without which the process can't serve for now, such as one of something it depends on.
    #[must_use]
    pub fn ready<F>(self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.with(Kind::Ready, name, check)
    }

    /// The three operations.
    pub fn api(self) -> Api {
        Api::new().route(endpoint!(health)).route(endpoint!(live)).route(endpoint!(ready)).with_state(self)
    }

    fn with<F>(mut self, kind: Kind, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.checks.push(Check { name, kind, run: Arc::new(move || Box::pin(check())) });
        self
    }

    async fn report(&self, kind: Option<Kind>) -> HealthReport {
        let wanted = self.checks.iter().filter(|check| kind.is_none_or(|kind| kind == check.kind));
        let checks = join_all(wanted.map(Check::report)).await;
        let down = checks.iter().any(|check| check.status == HealthStatus::Down);
        HealthReport { status: if down { HealthStatus::Down } else { HealthStatus::Up }, checks }
    }
}

impl Check {
    async fn report(&self) -> HealthCheck {
        let outcome = tokio::time::timeout(CHECK_TIMEOUT, (self.run)()).await.map_err(BoxError::from).flatten();
        let status = match outcome {
            Ok(()) => HealthStatus::Up,
            Err(error) => {
                let error: &(dyn Error + 'static) = &*error;
                tracing::warn!(error, check = self.name, "health check failed");
                HealthStatus::Down
            }
        };
        HealthCheck { name: self.name, status }
    }
}

/// The state of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct HealthReport {
    /// `DOWN` if any check is.
    pub status: HealthStatus,
    /// Each check.
    pub checks: Vec<HealthCheck>,
}

/// The outcome of one check. Why it failed is in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct HealthCheck {
    /// What was checked.
    pub name: &'static str,
    /// Whether it works.
    pub status: HealthStatus,
}

/// Whether something works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HealthStatus {
    /// It works.
    Up,
    /// It doesn't.
    Down,
}

impl IntoResponse for HealthReport {
    fn into_response(self) -> Response {
        let status = match self.status {
            HealthStatus::Up => StatusCode::OK,
            HealthStatus::Down => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, Json(self)).into_response()
    }
}

/// Everything
#[utoipa::path(
    get,
    path = "/q/health",
    tag = "health",
    responses((status = 200, body = HealthReport), (status = 503, body = HealthReport))
)]
async fn health(_: Public, State(health): State<Health>) -> HealthReport {
    health.report(None).await
}

/// Whether the process must be restarted
#[utoipa::path(
    get,
    path = "/q/health/live",
    tag = "health",
    responses((status = 200, body = HealthReport), (status = 503, body = HealthReport))
)]
async fn live(_: Public, State(health): State<Health>) -> HealthReport {
    health.report(Some(Kind::Live)).await
}

/// Whether the process can serve
#[utoipa::path(
    get,
    path = "/q/health/ready",
    tag = "health",
    responses((status = 200, body = HealthReport), (status = 503, body = HealthReport))
)]
async fn ready(_: Public, State(health): State<Health>) -> HealthReport {
    health.report(Some(Kind::Ready)).await
}
