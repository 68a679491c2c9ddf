//! Timers that wake parked runs.

use std::time::Duration;

use jiff::Timestamp;
use tidegate_model::{Message, RunRow, WakeMessage};
use tidegate_platform::queue::OutgoingMessage;
use tidegate_platform::scheduler::{Timer, When};

use crate::calls::trace_of;
use crate::{Deps, Error};

/// The longest delay that SQS takes
/// (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-timers.html>).
const MAX_QUEUE_DELAY: Duration = Duration::from_secs(900);

/// Arms the timer that ends a run's current parking: a delayed message, or a one-time schedule for longer.
pub(crate) async fn arm_wake(deps: &Deps, row: &RunRow) -> Result<(), Error> {
    let wake_at = row.wake_at.unwrap_or(Timestamp::UNIX_EPOCH);
    let message = Message::Wake(WakeMessage { run_id: row.id, tenant_id: row.tenant, wake: row.wake });
    let body = serde_json::to_string(&message).map_err(|error| Error::Corrupt(error.to_string()))?;
    let delay = Duration::try_from(wake_at.duration_since(deps.clock.now())).unwrap_or_default();
    if delay <= MAX_QUEUE_DELAY {
        let trace = trace_of(row).map(|trace| trace.to_xray());
        deps.queue.send(OutgoingMessage { body, group: row.tenant, delay, trace }).await?;
    } else {
        let name = format!("{}-{}", row.id, row.wake);
        deps.scheduler.put(Timer { tenant: row.tenant, name, when: When::At(wake_at), body }).await?;
    }
    Ok(())
}
