//! The key service port: wraps and unwraps data keys. Two implementations, [`key_file`] and [`kms`], pass one contract
//! suite (`tests/key_service.rs`).

use async_trait::async_trait;
use tidegate_model::TenantId;
use zeroize::Zeroizing;

use crate::PortError;

pub(crate) mod cipher;
pub mod key_file;
pub mod kms;

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
    /// [`UnwrapError`] tells a key that no repetition will open from a service that is away.
    async fn unwrap_data_key(&self, wrapped: &[u8], context: &KeyContext) -> Result<PlainKey, UnwrapError>;
}

/// What a data key is for: the KMS encryption context
/// (<https://docs.aws.amazon.com/kms/latest/developerguide/encrypt_context.html>).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyContext {
    /// `tenant`: whose data the key protects; `platform` for the installation's own.
    pub tenant: String,
    /// `purpose`: `connections`, `ingress`, `signing`, …
    pub purpose: String,
}

impl KeyContext {
    /// Of a tenant's key for its connections.
    pub fn connections(tenant: TenantId) -> Self {
        Self { tenant: tenant.to_string(), purpose: "connections".to_owned() }
    }

    /// Of a tenant's key for what ingress verifies requests with, and for the uploads that it grants.
    pub fn ingress(tenant: TenantId) -> Self {
        Self { tenant: tenant.to_string(), purpose: "ingress".to_owned() }
    }
}

/// Why a wrapped key was not opened.
#[derive(Debug, thiserror::Error)]
pub enum UnwrapError {
    /// The wrapped key was changed, or wrapped under another context or another master key.
    #[error("the data key of {tenant} for {purpose} was changed, or wrapped under another context or master key")]
    Refused {
        /// The context's tenant.
        tenant: String,
        /// The context's purpose.
        purpose: String,
    },
    /// The key service could not be asked, or may not be used as it is set up; later it may succeed.
    #[error(transparent)]
    Unavailable(#[from] PortError),
}

impl UnwrapError {
    fn refused(context: &KeyContext) -> Self {
        Self::Refused { tenant: context.tenant.clone(), purpose: context.purpose.clone() }
    }
}
