//! Blobs as objects in one S3 bucket.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::Builder;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_types::SdkConfig;
use bytes::Bytes;

use super::{Blobs, attachment, check_key};
use crate::{PortError, usage};

/// Blobs in a bucket, under their keys.
#[derive(Debug, Clone)]
pub struct S3Blobs {
    client: Client,
    bucket: String,
}

/// How a bucket is named in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressing {
    /// `https://bucket.s3.region.amazonaws.com/key`: AWS.
    Host,
    /// `https://endpoint/bucket/key`: emulators, which have no host name for each bucket.
    Path,
}

impl S3Blobs {
    /// Blobs in a bucket that exists. The caller's role needs `s3:ListBucket` on it: without, S3 answers 403 where a blob
    /// is missing, which is an error here.
    pub fn new(config: &SdkConfig, addressing: Addressing, bucket: impl Into<String>) -> Self {
        let config =
            Builder::from(config).force_path_style(addressing == Addressing::Path).interceptor(usage::Calls).build();
        Self { client: Client::from_conf(config), bucket: bucket.into() }
    }

    async fn head(&self, operation: &'static str, key: &str) -> Result<Option<u64>, PortError> {
        match self.client.head_object().bucket(&self.bucket).key(key).send().await {
            Ok(head) => Ok(Some(head.content_length.and_then(|length| u64::try_from(length).ok()).unwrap_or(0))),
            Err(error) if error.as_service_error().is_some_and(|error| error.is_not_found()) => Ok(None),
            Err(error) => Err(PortError::new(operation, error)),
        }
    }

    async fn exists(&self, key: &str) -> Result<bool, PortError> {
        Ok(self.head("rename blob", key).await?.is_some())
    }
}

#[async_trait]
impl Blobs for S3Blobs {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), PortError> {
        check_key("put", key)?;
        let put = self.client.put_object().bucket(&self.bucket).key(key).body(ByteStream::from(bytes)).send().await;
        put.map(drop).map_err(|error| PortError::new("put blob", error))
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, PortError> {
        check_key("get", key)?;
        let object = match self.client.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(object) => object,
            Err(error) if error.as_service_error().is_some_and(|error| error.is_no_such_key()) => return Ok(None),
            Err(error) => return Err(PortError::new("get blob", error)),
        };
        let bytes = object.body.collect().await.map_err(|error| PortError::new("get blob", error))?;
        Ok(Some(bytes.into_bytes()))
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, PortError> {
        check_key("look at", key)?;
        self.head("look at blob", key).await
    }

    /// It ends with the credentials that sign it, so that a function's last some hours at most, whatever was asked.
    async fn link(&self, key: &str, expires_in: Duration, filename: &str) -> Result<String, PortError> {
        const OPERATION: &str = "link to blob";
        check_key("link to", key)?;
        let config = PresigningConfig::expires_in(expires_in).map_err(|error| PortError::new(OPERATION, error))?;
        let get = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(key)
            .response_content_type("application/octet-stream")
            .response_content_disposition(attachment(filename));
        let signed = get.presigned(config).await.map_err(|error| PortError::new(OPERATION, error))?;
        Ok(signed.uri().to_owned())
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), PortError> {
        check_key("rename", from)?;
        check_key("rename", to)?;
        if from == to {
            return match self.exists(to).await? {
                true => Ok(()),
                false => Err(PortError::new("rename blob", "there is no such blob")),
            };
        }
        // A blob's key has no character that the header would need encoded.
        let source = format!("{}/{from}", self.bucket);
        match self.client.copy_object().bucket(&self.bucket).key(to).copy_source(source).send().await {
            Ok(_) => self.delete(from).await,
            Err(error) if error.code() == Some("NoSuchKey") && self.exists(to).await? => Ok(()),
            Err(error) => Err(PortError::new("rename blob", error)),
        }
    }

    async fn delete(&self, key: &str) -> Result<(), PortError> {
        check_key("delete", key)?;
        let deleted = self.client.delete_object().bucket(&self.bucket).key(key).send().await;
        deleted.map(drop).map_err(|error| PortError::new("delete blob", error))
    }
}
