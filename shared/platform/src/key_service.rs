//! The key service port: wraps and unwraps data keys.

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::PortError;

/// A 256-bit key in the clear; wiped when dropped.
pub type PlainKey = Zeroizing<[u8; 32]>;

/// Makes data keys and opens them again. The context is bound to the wrapped key: another context opens nothing.
#[async_trait]
pub trait KeyService: Send + Sync {
    /// A new data key, in the clear and wrapped under the context.
    async fn generate_data_key(&self, context: &KeyContext) -> Result<(PlainKey, Vec<u8>), PortError>;

    /// Opens a wrapped key.
    ///
    /// # Errors
    /// The key was tampered with, was wrapped under another context or another master key, or the service is away.
    async fn unwrap_data_key(&self, wrapped: &[u8], context: &KeyContext) -> Result<PlainKey, PortError>;
}

/// What a data key is for: the KMS encryption context
/// (<https://docs.aws.amazon.com/kms/latest/developerguide/encrypt_context.html>).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyContext {
    /// `tenant`: whose data the key protects; `platform` for the installation's own.
    pub tenant: String,
    /// `purpose`: `connections`, `signing`.
    pub purpose: String,
}
