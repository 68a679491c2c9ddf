//! The blob port: values too large for rows and messages.

use async_trait::async_trait;
use bytes::Bytes;

use crate::PortError;

/// Stores bytes under keys. A key is `{lifetime}/{tenant}/…`, made of letters, digits, `-`, `_`, `.` and `/`; one with
/// an empty, `.` or `..` segment is refused.
#[async_trait]
pub trait Blobs: Send + Sync {
    /// Stores bytes; returns once they are durable. An existing blob is replaced whole.
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), PortError>;

    /// The bytes, or `None` where there is no such blob.
    async fn get(&self, key: &str) -> Result<Option<Bytes>, PortError>;

    /// Moves a blob. Repeating a move that has happened succeeds.
    async fn rename(&self, from: &str, to: &str) -> Result<(), PortError>;

    /// Removes a blob. Removing one that is gone succeeds.
    async fn delete(&self, key: &str) -> Result<(), PortError>;
}

/// The lifetime of blobs of runs that are not final: no lifecycle rule touches them.
pub const LIVE: &str = "live";
/// The lifetime of blobs of final runs: they expire with the run's row.
pub const KEPT: &str = "kept";
