//! Blobs as objects in one S3 bucket.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::Builder;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_types::SdkConfig;
use bytes::{Bytes, BytesMut};

use super::{Blobs, TooLarge, UploadLink, attachment, check_content_type, check_key, upload_headers};
use crate::{PortError, usage};

const MAX_RESERVED_BYTES: usize = 32 * 1024 * 1024;

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

    async fn exists(&self, operation: &'static str, key: &str) -> Result<bool, PortError> {
        Ok(self.head(operation, key).await?.is_some())
    }

    /// Copies one key to another; false where there is nothing to copy.
    async fn copy_object(&self, operation: &'static str, from: &str, to: &str) -> Result<bool, PortError> {
        // A blob's key has no character that the header would need encoded.
        let source = format!("{}/{from}", self.bucket);
        match self.client.copy_object().bucket(&self.bucket).key(to).copy_source(source).send().await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some("NoSuchKey") => Ok(false),
            Err(error) => Err(PortError::new(operation, error)),
        }
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
        self.get_up_to(key, u64::MAX).await
    }

    async fn get_up_to(&self, key: &str, max_bytes: u64) -> Result<Option<Bytes>, PortError> {
        check_key("get", key)?;
        let object = match self.client.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(object) => object,
            Err(error) if error.as_service_error().is_some_and(|error| error.is_no_such_key()) => return Ok(None),
            Err(error) => return Err(PortError::new("get blob", error)),
        };
        // Collected otherwise, it would be there twice for a moment.
        let length = object.content_length.and_then(|length| u64::try_from(length).ok()).unwrap_or(0);
        if length > max_bytes {
            return Err(PortError::new("get blob", TooLarge { bytes: length, max_bytes }));
        }
        let reserved = usize::try_from(length).unwrap_or(0).min(MAX_RESERVED_BYTES);
        let mut bytes = BytesMut::with_capacity(reserved);
        let mut body = object.body;
        while let Some(piece) = body.try_next().await.map_err(|error| PortError::new("get blob", error))? {
            bytes.extend_from_slice(&piece);
        }
        Ok(Some(bytes.freeze()))
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

    /// It ends with the credentials that sign it, as a link does. Up to 5 GB.
    async fn upload_link(
        &self,
        key: &str,
        expires_in: Duration,
        bytes: u64,
        content_type: &str,
    ) -> Result<UploadLink, PortError> {
        const OPERATION: &str = "link for an upload";
        check_key("link for", key)?;
        check_content_type(content_type)?;
        let config = PresigningConfig::expires_in(expires_in).map_err(|error| PortError::new(OPERATION, error))?;
        let length = i64::try_from(bytes).map_err(|error| PortError::new(OPERATION, error))?;
        let put = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .content_length(length)
            .content_type(content_type)
            .if_none_match("*");
        let signed = put.presigned(config).await.map_err(|error| PortError::new(OPERATION, error))?;
        let headers = upload_headers(bytes, content_type);
        // What isn't signed isn't enforced.
        let is_signed =
            |(name, value): &(&str, String)| signed.headers().any(|(a, b)| a.eq_ignore_ascii_case(name) && b == value);
        if signed.headers().count() != headers.len() || !headers.iter().all(is_signed) {
            return Err(PortError::new(OPERATION, "the signature covers other headers than those of an upload"));
        }
        let headers = headers.map(|(name, value)| (name.to_owned(), value)).into();
        Ok(UploadLink { method: "PUT", url: signed.uri().to_owned(), headers })
    }

    async fn copy(&self, from: &str, to: &str) -> Result<bool, PortError> {
        const OPERATION: &str = "copy blob";
        check_key("copy", from)?;
        check_key("copy", to)?;
        // S3 refuses to copy a key to itself.
        if from == to { self.exists(OPERATION, from).await } else { self.copy_object(OPERATION, from, to).await }
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), PortError> {
        const OPERATION: &str = "rename blob";
        check_key("rename", from)?;
        check_key("rename", to)?;
        if from != to && self.copy_object(OPERATION, from, to).await? {
            return self.delete(from).await;
        }
        // Moved already, or never there.
        match self.exists(OPERATION, to).await? {
            true => Ok(()),
            false => Err(PortError::new(OPERATION, "there is no such blob")),
        }
    }

    async fn delete(&self, key: &str) -> Result<(), PortError> {
        check_key("delete", key)?;
        let deleted = self.client.delete_object().bucket(&self.bucket).key(key).send().await;
        deleted.map(drop).map_err(|error| PortError::new("delete blob", error))
    }
}
