//! Waiting on a condition of another process.

use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, MissedTickBehavior};

/// Asks again until the answer is there.
///
/// # Errors
/// The question's own error, or the deadline passed: then `what` names what was waited for.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    mut ask: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + deadline;
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = tokio::time::timeout_at(end, ask());
        if let Some(answer) = answer.await.with_context(|| format!("waited {deadline:?} for {what}"))?? {
            return Ok(answer);
        }
    }
}
