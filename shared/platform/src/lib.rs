//! Ports to what differs between AWS and a laptop, with two implementations each: [`Queue`] (SQS, embedded),
//! [`Scheduler`] (EventBridge Scheduler, embedded), [`KeyService`] (KMS, key file), [`Blobs`] (S3, folder). Each pair
//! passes one contract suite (`tests/`). Here too: the [`Clock`], the source of ids, and envelope encryption, which is
//! the same in both worlds; what is remembered for a bounded time ([`Fresh`]); and the count of what AWS is asked
//! ([`usage`]).

pub mod blobs;
mod clock;
pub mod envelope;
mod fresh;
pub mod key_service;
pub mod mail;
pub mod queue;
pub mod scheduler;
pub mod usage;

pub use blobs::Blobs;
pub use clock::{Clock, Ids};
pub use envelope::Envelope;
pub use fresh::Fresh;
pub use key_service::KeyService;
pub use mail::Mailer;
pub use queue::Queue;
pub use scheduler::Scheduler;

/// A port's failure: the operation that failed and why. The text is for logs, never for callers.
#[derive(Debug, thiserror::Error)]
#[error("{operation} failed")]
pub struct PortError {
    /// What was tried: `send to queue runs`.
    pub operation: String,
    /// Why it failed.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl PortError {
    /// Names the operation that failed.
    pub fn new(operation: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { operation: operation.into(), source: source.into() }
    }
}
