//! AWS KMS as the key service: `GenerateDataKey` and `Decrypt` under one symmetric key, with the context as the
//! encryption context (<https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKey.html>).

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::Builder;
use aws_sdk_kms::operation::decrypt::DecryptError;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use aws_types::SdkConfig;
use zeroize::Zeroizing;

use super::{KeyContext, KeyService, PlainKey, UnwrapError};
use crate::{PortError, usage};

/// Data keys wrapped by a KMS key.
#[derive(Debug, Clone)]
pub struct Kms {
    client: Client,
    key_id: String,
}

impl Kms {
    /// The key service on a symmetric KMS key: its id, ARN, or alias ARN.
    pub fn new(config: &SdkConfig, key_id: impl Into<String>) -> Self {
        let client = Client::from_conf(Builder::from(config).interceptor(usage::Calls).build());
        Self { client, key_id: key_id.into() }
    }
}

#[async_trait]
impl KeyService for Kms {
    async fn generate_data_key(&self, context: &KeyContext) -> Result<(PlainKey, Vec<u8>), PortError> {
        let operation = "make a data key with KMS";
        let made = self
            .client
            .generate_data_key()
            .key_id(&self.key_id)
            .key_spec(DataKeySpec::Aes256)
            .set_encryption_context(Some(encryption_context(context)))
            .send()
            .await
            .map_err(|error| PortError::new(operation, error))?;
        let key =
            plain_key(made.plaintext).ok_or_else(|| PortError::new(operation, "the answer held no 32-byte key"))?;
        let wrapped =
            made.ciphertext_blob.ok_or_else(|| PortError::new(operation, "the answer held no wrapped key"))?;
        Ok((key, wrapped.into_inner()))
    }

    async fn unwrap_data_key(&self, wrapped: &[u8], context: &KeyContext) -> Result<PlainKey, UnwrapError> {
        let operation = "open a data key with KMS";
        let opened = self
            .client
            .decrypt()
            // Named, so that a key wrapped under somebody else's KMS key is never accepted.
            .key_id(&self.key_id)
            .ciphertext_blob(Blob::new(wrapped))
            .set_encryption_context(Some(encryption_context(context)))
            .send()
            .await
            .map_err(|error| match error.as_service_error() {
                Some(DecryptError::InvalidCiphertextException(_) | DecryptError::IncorrectKeyException(_)) => {
                    UnwrapError::refused(context)
                }
                _ => UnwrapError::Unavailable(PortError::new(operation, error)),
            })?;
        plain_key(opened.plaintext).ok_or_else(|| UnwrapError::refused(context))
    }
}

fn encryption_context(context: &KeyContext) -> HashMap<String, String> {
    HashMap::from([("tenant".to_owned(), context.tenant.clone()), ("purpose".to_owned(), context.purpose.clone())])
}

fn plain_key(plain: Option<Blob>) -> Option<PlainKey> {
    let plain = Zeroizing::new(plain?.into_inner());
    <[u8; 32]>::try_from(plain.as_slice()).ok().map(Zeroizing::new)
}
