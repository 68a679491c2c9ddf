//! `storage.*`: a tenant's files, on the blobs port under `files/{tenant}/`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Value, json};
use tidegate_model::{ErrorCode, FieldError, Pointer, StepError, parse_json};
use tidegate_platform::PortError;
use tidegate_platform::blobs::FILES;

use crate::{Action, Files, Outside};

/// The largest file that a step takes into memory, in bytes.
const MAX_FILE_BYTES: u64 = 25 * 1024 * 1024;
/// The largest file that a step's output shows, in bytes.
const MAX_SHOWN_BYTES: usize = 4 * 1024 * 1024;

impl Files<'_> {
    /// A file's bytes.
    ///
    /// # Errors
    /// There is none, or it is too large.
    pub async fn get(&self, path: &str) -> Result<Bytes, StepError> {
        let key = self.key(path)?;
        let size = self.blobs.size(&key).await.map_err(|error| away(&error))?;
        let Some(size) = size else { return Err(missing(path)) };
        if size > MAX_FILE_BYTES {
            let message = format!("the file {path:?} has {size} bytes; a step takes at most {MAX_FILE_BYTES}");
            return Err(StepError::terminal(ErrorCode::InputInvalid, message));
        }
        self.blobs.get(&key).await.map_err(|error| away(&error))?.ok_or_else(|| missing(path))
    }

    /// Stores a file, replacing what is there.
    ///
    /// # Errors
    /// The path is none.
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<(), StepError> {
        self.blobs.put(&self.key(path)?, bytes).await.map_err(|error| away(&error))
    }

    /// The blob's key: the tenant is the caller's, and the path can't leave it.
    pub(crate) fn key(&self, path: &str) -> Result<String, StepError> {
        let key = format!("{FILES}/{}/{path}", self.tenant);
        let is_segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.len() <= 200;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        if path.len() <= 500 && path.bytes().all(is_plain) && path.split('/').all(is_segment) {
            return Ok(key);
        }
        let message =
            format!("{path:?} is no file's path: letters, digits, `-`, `_` and `.` between slashes, at most 500");
        Err(StepError::terminal(ErrorCode::InputInvalid, message))
    }
}

pub(crate) async fn run(action: &Action, outside: Outside<'_>, input: &Value) -> Result<Value, StepError> {
    action.check_input(input)?;
    let fault = |field: &str, detail: &str| action.input_error(&[FieldError::new(Pointer::root().push(field), detail)]);
    let text = |field: &str| input.get(field).and_then(Value::as_str);
    let files = outside.files;
    let path = text("path").unwrap_or_default();
    let key = files.key(path)?;
    match action.name.as_str() {
        "storage.put" => {
            let bytes: Bytes = match (input.get("json"), text("base64"), text("text")) {
                (Some(json), ..) => json.to_string().into(),
                (None, Some(encoded), _) => decoded(encoded).map_err(|_| fault("base64", "is not base64"))?,
                (None, None, text) => Bytes::copy_from_slice(text.unwrap_or_default().as_bytes()),
            };
            let size = bytes.len();
            files.put(path, bytes).await?;
            Ok(json!({"path": path, "bytes": size}))
        }
        "storage.get" => {
            let bytes = files.get(path).await?;
            let size = bytes.len();
            if size > MAX_SHOWN_BYTES {
                let message = format!(
                    "the file {path:?} has {size} bytes; a step's output holds at most {MAX_SHOWN_BYTES}: pass on its path, or a link"
                );
                return Err(StepError::terminal(ErrorCode::InputInvalid, message));
            }
            let as_text = std::str::from_utf8(&bytes).ok();
            let content = match (text("as").unwrap_or("auto"), as_text) {
                ("json", _) => {
                    ("json", parse_json(&bytes).map_err(|error| fault("as", &format!("the file is no JSON: {error}")))?)
                }
                ("base64", _) | ("auto", None) => ("base64", json!(BASE64.encode(&bytes))),
                ("text", None) => return Err(fault("as", "the file is no text; read it as base64")),
                (_, Some(text)) => ("text", json!(text)),
                (_, None) => ("base64", json!(BASE64.encode(&bytes))),
            };
            Ok(json!({"path": path, "bytes": size, content.0: content.1}))
        }
        "storage.link" => {
            if files.blobs.size(&key).await.map_err(|error| away(&error))?.is_none() {
                return Err(missing(path));
            }
            let seconds = input.get("expires_in").and_then(Value::as_u64).unwrap_or(3_600);
            let filename = text("filename").or(path.rsplit('/').next()).unwrap_or(path);
            let link =
                files.blobs.link(&key, Duration::from_secs(seconds), filename).await.map_err(|error| away(&error))?;
            let until = outside.now.checked_add(Duration::from_secs(seconds)).unwrap_or(outside.now);
            Ok(json!({"url": link, "expires_at": until}))
        }
        "storage.delete" => {
            files.blobs.delete(&key).await.map_err(|error| away(&error))?;
            Ok(json!({"path": path}))
        }
        "storage.info" => {
            let size = files.blobs.size(&key).await.map_err(|error| away(&error))?;
            Ok(json!({"path": path, "exists": size.is_some(), "bytes": size}))
        }
        other => Err(StepError::terminal(ErrorCode::Internal, format!("there is no code for {other}"))),
    }
}

pub(crate) fn decoded(text: &str) -> Result<Bytes, base64::DecodeError> {
    BASE64.decode(text.trim()).map(Bytes::from)
}

fn missing(path: &str) -> StepError {
    StepError::terminal(ErrorCode::InputInvalid, format!("there is no file {path:?}"))
}

fn away(error: &PortError) -> StepError {
    tracing::warn!(component = "connectors", error = error as &dyn std::error::Error, "the file storage failed");
    StepError::retryable(ErrorCode::Internal, "the file storage is away; the log says why")
}
