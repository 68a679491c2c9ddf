//! The blob port: values too large for rows and messages. Two implementations, [`folder`] and [`s3`], pass one contract
//! suite (`tests/blobs.rs`).

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::PortError;

pub mod folder;
pub mod s3;

/// Stores bytes under keys. A key is `{lifetime}/{tenant}/…`, made of letters, digits, `-`, `_`, `.` and `/`; one with
/// an empty, `.` or `..` segment, a segment over 200 bytes or over 900 bytes in all is refused.
#[async_trait]
pub trait Blobs: Send + Sync {
    /// Stores bytes; returns once they are durable. An existing blob is replaced whole.
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), PortError>;

    /// The bytes, or `None` where there is no such blob.
    async fn get(&self, key: &str) -> Result<Option<Bytes>, PortError>;

    /// The bytes, or `None` where there is no such blob. One with more than so many bytes is an error and not read.
    async fn get_up_to(&self, key: &str, max_bytes: u64) -> Result<Option<Bytes>, PortError>;

    /// How many bytes it has, or `None` where there is no such blob.
    async fn size(&self, key: &str) -> Result<Option<u64>, PortError>;

    /// A URL under which whoever has it can download the blob for this time, as an attachment of this name. Whether the
    /// blob is there isn't looked at.
    async fn link(&self, key: &str, expires_in: Duration, filename: &str) -> Result<String, PortError>;

    /// How whoever is told can store exactly so many bytes of a media type under a key where no blob is, once, within this
    /// time. The time and the bytes count as the upload begins and ends; a second one, and one where a blob is by then, is
    /// refused with 412.
    async fn upload_link(
        &self,
        key: &str,
        expires_in: Duration,
        bytes: u64,
        content_type: &str,
    ) -> Result<UploadLink, PortError>;

    /// Copies a blob, replacing what is there; none of it is in memory. False where there is no blob to copy.
    async fn copy(&self, from: &str, to: &str) -> Result<bool, PortError>;

    /// Moves a blob, replacing what is there. Repeating a move that has happened succeeds; moving what never was fails.
    async fn rename(&self, from: &str, to: &str) -> Result<(), PortError>;

    /// Removes a blob. Removing one that is gone succeeds.
    async fn delete(&self, key: &str) -> Result<(), PortError>;
}

/// How to upload one blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadLink {
    /// The request's method: `PUT`.
    pub method: &'static str,
    /// Where to: whoever has it may upload.
    pub url: String,
    /// The headers that the sender must send just so, by their names in lower case: `content-length`, `content-type` and
    /// `if-none-match`.
    pub headers: Vec<(String, String)>,
}

/// The headers that an upload has.
fn upload_headers(bytes: u64, content_type: &str) -> [(&'static str, String); 3] {
    [
        ("content-length", bytes.to_string()),
        ("content-type", content_type.to_owned()),
        ("if-none-match", "*".to_owned()),
    ]
}

/// The lifetime of blobs of runs that are not final: no lifecycle rule touches them.
pub const LIVE: &str = "live";
/// The lifetime of blobs of final runs: they expire with the run's row.
pub const KEPT: &str = "kept";
/// The lifetime of what was uploaded for runs: it expires as [`KEPT`] does, but counts from the upload.
pub const UPLOADS: &str = "uploads";
/// The lifetime of tenants' files: until somebody deletes them.
pub const FILES: &str = "files";

/// The value of `Content-Disposition` (RFC 6266) for a download of this name.
pub fn attachment(filename: &str) -> String {
    let is_plain = |char: char| (char.is_ascii_graphic() || char == ' ') && !"\"\\;%".contains(char);
    let plain: String = filename.chars().map(|char| if is_plain(char) { char } else { '_' }).collect();
    if plain == filename {
        return format!("attachment; filename=\"{plain}\"");
    }
    // For clients of today the name as it is (RFC 8187).
    let encoded: String = filename
        .bytes()
        .map(|byte| match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect();
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
}

/// A blob's key that the port refuses.
#[derive(Debug, thiserror::Error)]
#[error("{key:?} is not a blob's key: letters, digits, `-`, `_` and `.` between slashes")]
struct KeyError {
    key: String,
}

/// A blob that is larger than its reader takes.
#[derive(Debug, thiserror::Error)]
#[error("the blob has {bytes} bytes; at most {max_bytes} are read")]
struct TooLarge {
    bytes: u64,
    max_bytes: u64,
}

fn check_key(operation: &str, key: &str) -> Result<(), PortError> {
    let is_segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.len() <= 200
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    if key.len() <= 900 && key.split('/').all(is_segment) {
        return Ok(());
    }
    let key = key.chars().take(100).collect();
    Err(PortError::new(format!("{operation} blob"), KeyError { key }))
}

/// A media type, with parameters or without, that a header can carry as it is.
fn check_content_type(content_type: &str) -> Result<(), PortError> {
    let is_plain = content_type.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if is_plain && content_type.trim() == content_type && (1..=200).contains(&content_type.len()) {
        return Ok(());
    }
    let content_type: String = content_type.chars().take(100).collect();
    Err(PortError::new("link for an upload", format!("{content_type:?} is not a media type")))
}
