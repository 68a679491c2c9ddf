//! Wakes runs that wait. A wake that isn't needed any more does no harm: the worker drops it.

use tidegate_http::Problem;
use tidegate_model::{Message, RunRow, WakeMessage};
use tidegate_platform::queue::OutgoingMessage;
use tidegate_telemetry::TraceContext;

use crate::Deps;

/// Ends the parking that the row is in, or was in last.
pub(crate) async fn wake(deps: &Deps, row: &RunRow) -> Result<(), Problem> {
    let message = Message::Wake(WakeMessage { run_id: row.id, tenant_id: row.tenant, wake: row.wake });
    let body = serde_json::to_string(&message).map_err(|error| Problem::internal(&error))?;
    let trace = row.traceparent.parse::<TraceContext>().ok().map(|trace| trace.to_xray());
    deps.queue.send(OutgoingMessage { trace, ..OutgoingMessage::new(row.tenant, body) }).await?;
    Ok(())
}
