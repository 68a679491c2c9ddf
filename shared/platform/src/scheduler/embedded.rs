//! The embedded scheduler: timers in the queue's file, fired by the queue's writer.
//!
//! A firing is one transaction that inserts the message and removes or advances the timer, so a crash neither loses nor
//! doubles it. Of the firings missed while the process was down, one is made up for at the start, under the latest
//! missed time; then it goes on at its times. Jitter puts each firing off by a part of the window that follows from the
//! timer and the time, so that a restart changes nothing.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tidegate_model::TenantId;

use super::{Scheduler, Timer, TimerPage, check, from_full_name};
use crate::PortError;
use crate::queue::{Command, Writer};

/// Timers of an embedded queue; [`crate::queue::EmbeddedQueue::scheduler`] makes it.
#[derive(Clone)]
pub struct EmbeddedScheduler {
    writer: Arc<Writer>,
}

impl EmbeddedScheduler {
    pub(crate) fn new(writer: Arc<Writer>) -> Self {
        Self { writer }
    }
}

#[async_trait]
impl Scheduler for EmbeddedScheduler {
    async fn put(&self, timer: Timer) -> Result<(), PortError> {
        check(&timer)?;
        self.writer.call("put a timer", |reply| Command::PutTimer { timer, reply }).await
    }

    async fn delete(&self, tenant: TenantId, name: &str) -> Result<(), PortError> {
        let name = name.to_owned();
        self.writer.call("delete a timer", |reply| Command::DeleteTimer { tenant, name, reply }).await
    }

    async fn list(&self, cursor: Option<&str>) -> Result<TimerPage, PortError> {
        const OPERATION: &str = "list timers";
        let after = match cursor.map(from_full_name) {
            None => None,
            Some(Some((tenant, name))) => Some((tenant, name.to_owned())),
            Some(None) => return Err(PortError::new(OPERATION, "the cursor isn't one of this scheduler's")),
        };
        self.writer.call(OPERATION, |reply| Command::ListTimers { after, reply }).await
    }
}

impl fmt::Debug for EmbeddedScheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedScheduler").finish_non_exhaustive()
    }
}
