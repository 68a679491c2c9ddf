//! The embedded scheduler: timers in the queue's file, fired by the queue's writer.
//!
//! A firing is one transaction that inserts the message and removes or advances the timer, so a crash neither loses nor
//! doubles it. Of an interval's firings missed while the process was down, one is made up for at the start, under the
//! latest missed time; then it goes on on its grid.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tidegate_model::TenantId;

use super::{Scheduler, Timer, check};
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
}

impl fmt::Debug for EmbeddedScheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedScheduler").finish_non_exhaustive()
    }
}
