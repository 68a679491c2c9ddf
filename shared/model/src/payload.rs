//! A value that may be too large for a message or a row.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The largest value, in bytes of JSON, that stays in messages and rows; beyond it goes to a blob.
pub const INLINE_LIMIT_BYTES: usize = 8 * 1024;

/// A JSON value, here or in a blob. The tag keeps them apart: nothing that a caller sends can pose as a
/// reference to a blob.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// The value itself.
    Inline(Value),
    /// Where the value's JSON text is stored.
    Blob(BlobRef),
}

/// A stored blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRef {
    /// The blob's key in the blob store; it begins with a lifetime and the tenant's id.
    pub key: String,
    /// Size in bytes.
    pub bytes: u64,
}
