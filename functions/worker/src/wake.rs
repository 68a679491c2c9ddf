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

/// The name of the timer that ends a parking beyond the queue's longest delay.
fn timer_name(row: &RunRow) -> String {
    format!("{}-{}", row.id, row.wake)
}

/// Wakes a parked run at once.
pub(crate) async fn wake_now(deps: &Deps, row: &RunRow) -> Result<(), Error> {
    send(deps, row, Duration::ZERO).await
}

async fn send(deps: &Deps, row: &RunRow, delay: Duration) -> Result<(), Error> {
    let trace = trace_of(row).map(|trace| trace.to_xray());
    Ok(deps.queue.send(OutgoingMessage { body: body(row)?, group: row.tenant, delay, trace }).await?)
}

fn body(row: &RunRow) -> Result<String, Error> {
    let message = Message::Wake(WakeMessage { run_id: row.id, tenant_id: row.tenant, wake: row.wake });
    serde_json::to_string(&message).map_err(|error| Error::Corrupt(error.to_string()))
}

/// Removes the timer of a parking that ended long before its time: it would stay for as long as a year.
pub(crate) async fn disarm(deps: &Deps, row: &RunRow) -> Result<(), Error> {
    let left = row.wake_at.map(|at| Duration::try_from(at.duration_since(deps.clock.now())).unwrap_or_default());
    if left.is_some_and(|left| left > MAX_QUEUE_DELAY) {
        deps.scheduler.delete(row.tenant, &timer_name(row)).await?;
    }
    Ok(())
}

/// Arms the timer that ends a run's current parking: a delayed message, or a one-time schedule for longer.
pub(crate) async fn arm_wake(deps: &Deps, row: &RunRow) -> Result<(), Error> {
    let wake_at = row.wake_at.unwrap_or(Timestamp::UNIX_EPOCH);
    let delay = Duration::try_from(wake_at.duration_since(deps.clock.now())).unwrap_or_default();
    if delay <= MAX_QUEUE_DELAY {
        return send(deps, row, delay).await;
    }
    let timer = Timer { tenant: row.tenant, name: timer_name(row), when: When::At(wake_at), body: body(row)? };
    Ok(deps.scheduler.put(timer).await?)
}
