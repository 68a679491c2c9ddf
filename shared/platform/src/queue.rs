//! The queue port: at-least-once delivery with SQS's semantics.

#[cfg(feature = "embedded")]
mod embedded;
mod sqs;

#[cfg(feature = "embedded")]
pub(crate) use embedded::writer::{Command, Writer};
#[cfg(feature = "embedded")]
pub use embedded::{Depth, EmbeddedQueue, EmbeddedSettings};
pub use sqs::SqsQueue;

use std::time::Duration;

use async_trait::async_trait;
use tidegate_model::TenantId;

use crate::PortError;

/// The largest body in bytes (SQS's limit).
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// The longest that a received message can be kept invisible, counted from now (SQS's limit).
pub const MAX_VISIBILITY: Duration = Duration::from_secs(12 * 60 * 60);
/// The most messages that one receive takes (SQS's limit).
pub const MAX_RECEIVED: usize = 10;
/// The longest that one receive waits (SQS's limit).
pub const MAX_WAIT: Duration = Duration::from_secs(20);

/// A durable queue with a dead-letter queue behind it.
///
/// What every implementation keeps to (the contract suite in `tests/queue.rs`):
/// - `send` returns once the message is on durable storage; nothing acknowledged is lost by a crash.
/// - A received message is invisible for the queue's visibility timeout and comes again unless it was deleted.
/// - After `max_receive_count` receives it moves to the dead-letter queue.
/// - Order is not kept; a group (tenant) with a backlog doesn't hold up another group's message.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Stores a message; returns once it is durable.
    ///
    /// # Errors
    /// The body is over [`MAX_BODY_BYTES`], the delay is longer than the implementation takes, or storage fails.
    async fn send(&self, message: OutgoingMessage) -> Result<(), PortError>;

    /// Takes up to `max` messages ([`MAX_RECEIVED`] bounds it), waiting up to `wait` ([`MAX_WAIT`] bounds it) for the
    /// first.
    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<ReceivedMessage>, PortError>;

    /// Deletes a received message. Deleting one that is gone succeeds.
    async fn delete(&self, receipt: &Receipt) -> Result<(), PortError>;

    /// Sets when a received message becomes visible again, counted from now; zero hands it on at once. A message that
    /// is visible already, or gone, stays as it is.
    ///
    /// # Errors
    /// `visible_in` is over [`MAX_VISIBILITY`], or storage fails.
    async fn change_visibility(&self, receipt: &Receipt, visible_in: Duration) -> Result<(), PortError>;

    /// Moves up to `max` messages from the dead-letter queue back, their receive counts at zero; tells how many.
    /// On SQS `Queue::send` of each body and then the deletion of the dead one: a crash between doubles, never loses.
    ///
    /// # Errors
    /// This is a dead-letter queue, or storage fails.
    async fn redrive(&self, max: usize) -> Result<usize, PortError>;

    /// The dead-letter queue as a queue of its own: receive and delete work on it as here. `None` on a dead-letter queue.
    fn dead_letters(&self) -> Option<&dyn Queue>;
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingMessage {
    /// JSON text, at most [`MAX_BODY_BYTES`].
    pub body: String,
    /// Fairness group: `MessageGroupId` on SQS.
    pub group: TenantId,
    /// How long it stays invisible. SQS takes up to 15 minutes; for more use the scheduler.
    pub delay: Duration,
    /// The trace that it belongs to, as X-Ray's tracing header: `AWSTraceHeader` on SQS, from which Lambda takes it.
    pub trace: Option<String>,
}

impl OutgoingMessage {
    /// A message that is visible at once.
    pub fn new(group: TenantId, body: impl Into<String>) -> Self {
        Self { body: body.into(), group, delay: Duration::ZERO, trace: None }
    }
}

/// A received message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedMessage {
    /// What was sent.
    pub body: String,
    /// How often it has been received, this time included.
    pub receive_count: u32,
    /// Names this receipt of it.
    pub receipt: Receipt,
}

/// Names one receipt of a message. An old receipt, of a message that has been received again since, deletes nothing
/// and changes nothing on the embedded queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt(pub String);

fn check_body(body: &str) -> Result<(), PortError> {
    if body.len() > MAX_BODY_BYTES {
        let reason = format!("the body has {} bytes, at most {MAX_BODY_BYTES} are allowed", body.len());
        return Err(PortError::new("check a message", reason));
    }
    Ok(())
}

fn check_visibility(visible_in: Duration) -> Result<(), PortError> {
    if visible_in > MAX_VISIBILITY {
        let reason = format!("{} s were asked for, at most 12 h are allowed", visible_in.as_secs());
        return Err(PortError::new("change a message's visibility", reason));
    }
    Ok(())
}
