//! The scheduler port: timers that send a message to the run queue.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tidegate_model::TenantId;

use crate::PortError;

/// In a timer's message this text is replaced, at each firing, by the planned time in RFC 3339
/// (<https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-schedule-context-attributes.html>).
pub const SCHEDULED_TIME: &str = "<aws.scheduler.scheduled-time>";

/// Durable timers, named within a tenant. Putting one under a name that exists replaces it.
///
/// A timer that came due while nothing ran fires once, as soon as something does. A firing may be delivered twice.
#[async_trait]
pub trait Scheduler: Send + Sync {
    /// Makes or replaces a timer; returns once it is durable.
    async fn put(&self, timer: Timer) -> Result<(), PortError>;

    /// Removes a timer. Removing one that is gone succeeds.
    async fn delete(&self, tenant: TenantId, name: &str) -> Result<(), PortError>;
}

/// A timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    /// Whose it is; also the message's fairness group.
    pub tenant: TenantId,
    /// Its name within the tenant: letters, digits, `-`, `_`, up to 64 characters less 33 for the tenant on AWS... see the implementation.
    pub name: String,
    /// When it fires.
    pub when: When,
    /// The message to send; [`SCHEDULED_TIME`] in it is filled in.
    pub body: String,
}

/// When a timer fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Once, at a time; in the past means now. It is gone afterwards.
    At(Timestamp),
    /// Every so often, first one interval after `from`. Whole minutes. On AWS `from` is the schedule's start date.
    Every {
        /// The interval.
        interval: Duration,
        /// Counted from here.
        from: Timestamp,
    },
}
