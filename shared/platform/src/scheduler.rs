//! The scheduler port: timers that send a message to the run queue.

#[cfg(feature = "embedded")]
mod embedded;
mod eventbridge;

#[cfg(feature = "embedded")]
pub use embedded::EmbeddedScheduler;
pub use eventbridge::{EventBridgeScheduler, EventBridgeSettings};

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tidegate_model::TenantId;

use crate::PortError;

/// In a timer's message this text is replaced, at each firing, by the planned time in RFC 3339
/// (`2026-11-21T10:00:00Z`, whole seconds;
/// <https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-schedule-context-attributes.html>).
pub const SCHEDULED_TIME: &str = "<aws.scheduler.scheduled-time>";

/// The longest name of a timer: 64 characters (EventBridge Scheduler's limit for a schedule's name) less the 23 that
/// name the tenant there. A run's id, `-` and a number below 10,000 fit.
pub const MAX_NAME_CHARS: usize = 41;

/// Durable timers, named within a tenant. Putting one under a name that exists replaces it.
///
/// A timer that came due while nothing ran fires once, as soon as something does. A firing may be delivered twice.
#[async_trait]
pub trait Scheduler: Send + Sync {
    /// Makes or replaces a timer; returns once it is durable.
    ///
    /// # Errors
    /// The name, the interval or the body isn't as [`Timer`] says, or storage fails.
    async fn put(&self, timer: Timer) -> Result<(), PortError>;

    /// Removes a timer. Removing one that is gone succeeds.
    async fn delete(&self, tenant: TenantId, name: &str) -> Result<(), PortError>;
}

/// A timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    /// Whose it is; also the message's fairness group.
    pub tenant: TenantId,
    /// Its name within the tenant: 1 to [`MAX_NAME_CHARS`] letters, digits, `-`, `_`.
    pub name: String,
    /// When it fires.
    pub when: When,
    /// The message to send; [`SCHEDULED_TIME`] in it is filled in.
    pub body: String,
}

/// When a timer fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Once, at a time (a fraction of a second rounds up); in the past means now. It is gone afterwards.
    At(Timestamp),
    /// At each `from + k * interval` (k ≥ 1) that is still to come.
    Every {
        /// The interval: whole minutes, at least one.
        interval: Duration,
        /// Counted from here.
        from: Timestamp,
    },
}

impl When {
    /// The first firing, in whole milliseconds since 1970, as planned: an `At` in the past stays in the past.
    pub(crate) fn first_ms(self, now: Timestamp) -> i64 {
        match self {
            Self::At(at) => ceil_to_second(at.as_millisecond()),
            Self::Every { interval, from } => {
                let (from, interval) = (ceil_to_second(from.as_millisecond()), interval_ms(interval));
                let passed = (now.as_millisecond() - from).div_euclid(interval).max(0);
                from.saturating_add(interval.saturating_mul(passed + 1))
            }
        }
    }
}

fn interval_ms(interval: Duration) -> i64 {
    i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(60_000)
}

fn ceil_to_second(ms: i64) -> i64 {
    ms.saturating_add(999).div_euclid(1000).saturating_mul(1000)
}

fn check(timer: &Timer) -> Result<(), PortError> {
    let refuse = |reason: String| Err(PortError::new(format!("check the timer {:?}", timer.name), reason));
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if timer.name.is_empty() || timer.name.len() > MAX_NAME_CHARS || !timer.name.chars().all(allowed) {
        return refuse(format!("its name must be 1 to {MAX_NAME_CHARS} letters, digits, '-' and '_'"));
    }
    if timer.body.len() > crate::queue::MAX_BODY_BYTES {
        return refuse(format!("its message has {} bytes", timer.body.len()));
    }
    if let When::Every { interval, .. } = timer.when
        && (interval.is_zero() || interval.subsec_nanos() != 0 || interval.as_secs() % 60 != 0)
    {
        return refuse("its interval must be whole minutes, at least one".to_owned());
    }
    Ok(())
}
