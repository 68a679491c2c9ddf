//! The scheduler port: timers that send a message to the run queue.

#[cfg(feature = "embedded")]
mod embedded;
mod eventbridge;
mod workflow;

#[cfg(feature = "embedded")]
pub use embedded::EmbeddedScheduler;
pub use eventbridge::{EventBridgeScheduler, EventBridgeSettings};
pub use workflow::{timer_name, timer_of};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use tidegate_model::{Recurrence, TenantId};

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
    /// Makes or replaces a timer; returns once it is durable. One that has no firing left is removed instead.
    ///
    /// # Errors
    /// The name or the body isn't as [`Timer`] says, or storage fails.
    async fn put(&self, timer: Timer) -> Result<(), PortError>;

    /// Removes a timer. Removing one that is gone succeeds.
    async fn delete(&self, tenant: TenantId, name: &str) -> Result<(), PortError>;

    /// The names of all timers of all tenants, page by page, in no particular order. One that is put or removed meanwhile
    /// may be among them or not.
    ///
    /// # Errors
    /// The cursor is none of this scheduler's, or is days old; or storage fails.
    async fn list(&self, cursor: Option<&str>) -> Result<TimerPage, PortError>;
}

/// A page of timers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TimerPage {
    /// Whose they are, and their names; up to 100.
    pub timers: Vec<(TenantId, String)>,
    /// Where the next page begins; none after the last.
    pub next_cursor: Option<String>,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// Once, at a time (a fraction of a second rounds up); in the past means now. It is gone afterwards.
    At(Timestamp),
    /// At each of its times that is still to come, or within its jitter after that.
    Recurring(Box<Recurrence>),
}

/// The first whole second that isn't before a time, since 1970.
pub(crate) fn ceil_to_second(time: Timestamp) -> i64 {
    time.as_millisecond().saturating_add(999).div_euclid(1000)
}

/// A timer's name among those of all tenants: `{the tenant's UUID as 22 base64url characters}.{name}`.
pub(crate) fn full_name(tenant: TenantId, name: &str) -> String {
    format!("{}.{name}", URL_SAFE_NO_PAD.encode(tenant.as_bytes()))
}

/// The parts of a [`full_name`]; `None` for what is none.
fn from_full_name(full_name: &str) -> Option<(TenantId, &str)> {
    let (tenant, name) = full_name.split_once('.')?;
    let bytes = URL_SAFE_NO_PAD.decode(tenant).ok()?;
    Some((TenantId::from_bytes(bytes.try_into().ok()?), name))
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
    Ok(())
}
