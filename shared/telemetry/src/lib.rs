//! What Tidegate tells its operators: JSON log lines ([`init`]), metrics ([`Metrics`]), and trace context
//! ([`TraceContext`]).
//!
//! Ids that a line should carry are fields of a span around the work: `tracing::error_span!("run", %run_id, %tenant_id)`
//! (at `error`, so that no filter takes the ids away). An error is logged once, where it is handled, as
//! `error = &failure as &dyn std::error::Error`: its whole chain of sources lands in `data.error`.

mod filter;
mod logs;
mod metrics;
mod trace_context;

pub use filter::{Filter, FilterError};
pub use logs::{InitError, init, subscriber};
pub use metrics::{EndedRun, Metrics};
pub use trace_context::{InvalidTraceparent, TraceContext};
