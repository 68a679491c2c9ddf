//! Holds a connection to its vendor's rate limit: callers get a slot in the order in which they come, and wait for it.

use std::time::Duration;

use tidegate_connectors::manifest::RateLimit;
use tidegate_model::{Connection, ErrorCode, StepError};
use tidegate_store::{Exhausted, Rate};
use tokio::time::Instant;

use crate::Connections;
use crate::call::left;

/// How long a call may wait for its slot.
const MAX_WAIT: Duration = Duration::from_secs(20);

impl Connections {
    /// Waits until the connection may be used. At steady load at most a tenth of a write a call.
    pub(crate) async fn pace(
        &self,
        connection: &Connection,
        limit: RateLimit,
        deadline: Instant,
    ) -> Result<(), StepError> {
        let every = Duration::from_secs(u64::from(limit.per_seconds)) / limit.requests.max(1);
        let every = every.max(Duration::from_micros(1));
        // Slots of the time to come are given out too: so many are waited for.
        let queue = u32::try_from(MAX_WAIT.as_micros() / every.as_micros()).unwrap_or(u32::MAX).min(10_000);
        let rate = Rate { every, burst: limit.requests.saturating_add(queue) };
        let wait = match self.leases.take(format!("{}#pace", connection.id), rate).await {
            // What is left beyond the slots to come is free now.
            Ok(status) => every.saturating_mul(queue.saturating_sub(status.remaining)),
            Err(Exhausted(status)) => return Err(too_many(limit, status.reset)),
        };
        if wait > left(deadline) {
            return Err(too_many(limit, wait));
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

fn too_many(limit: RateLimit, wait: Duration) -> StepError {
    let RateLimit { requests, per_seconds } = limit;
    let message =
        format!("the connection is used more often than its vendor allows ({requests} calls in {per_seconds} s)");
    let mut error = StepError::retryable(ErrorCode::RateLimited, message);
    error.retry_after_ms = u64::try_from(wait.as_millis()).ok();
    error
}
