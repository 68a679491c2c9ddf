//! `storage.*`: a tenant's files, on the blobs port under `files/{tenant}/`, and what was uploaded for its runs, under
//! `uploads/{tenant}/`, which no action changes.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Value, json};
use tidegate_model::{ErrorCode, FieldError, Pointer, RunId, StepError, parse_json};
use tidegate_platform::PortError;
use tidegate_platform::blobs::{FILES, UPLOADS};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{Action, Files, Outside};

/// The largest file that a step takes into memory, in bytes.
const MAX_FILE_BYTES: u64 = 25 * 1024 * 1024;
/// The largest file that a step's output shows, in bytes.
const MAX_SHOWN_BYTES: u64 = 4 * 1024 * 1024;

/// What the large files of all steps in this process may take in memory at once, in KiB. More wait: a worker has 512 MB
/// and ten runs.
const MEMORY_KIB: usize = 80 * 1024;
/// How long one waits for it.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// From which size on they are counted.
const LARGE_BYTES: u64 = 1024 * 1024;

static MEMORY: Semaphore = Semaphore::const_new(MEMORY_KIB);

/// A file in memory that counts for as long as it is there.
struct Held {
    bytes: Bytes,
    _memory: Option<SemaphorePermit<'static>>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The bytes, with the memory that was reserved for them.
pub(crate) fn held(bytes: Bytes, memory: Option<SemaphorePermit<'static>>) -> Bytes {
    match memory {
        None => bytes,
        memory => Bytes::from_owner(Held { bytes, _memory: memory }),
    }
}

/// Waits until there is memory for so many bytes. Whoever has some must not ask for more: two that do wait for each other.
pub(crate) async fn reserve(bytes: u64) -> Result<Option<SemaphorePermit<'static>>, StepError> {
    if bytes < LARGE_BYTES {
        return Ok(None);
    }
    let kib = usize::try_from(bytes.div_ceil(1024)).unwrap_or(MEMORY_KIB).min(MEMORY_KIB);
    let permits = u32::try_from(kib).unwrap_or(u32::MAX);
    match tokio::time::timeout(MAX_WAIT, MEMORY.acquire_many(permits)).await {
        Ok(Ok(permit)) => Ok(Some(permit)),
        _ => Err(StepError::retryable(ErrorCode::Internal, "the worker has no memory free for large files")),
    }
}

/// What the path of a file that was uploaded for a run begins with: `upload:run_…/0`. No tenant's own path has a colon.
const UPLOADED: &str = "upload:";

impl Files<'_> {
    /// A file's bytes.
    ///
    /// # Errors
    /// There is none, or it is too large.
    pub async fn get(&self, path: &str) -> Result<Bytes, StepError> {
        let size = self.size(path).await?;
        let memory = reserve(size).await?;
        let bytes = self.read(path, size).await?;
        Ok(held(bytes, memory))
    }

    /// What [`Files::size`] was told of, for whoever has reserved the memory. Replaced meanwhile by a larger one it is an
    /// error, as is everything that may pass.
    pub(crate) async fn read(&self, path: &str, size: u64) -> Result<Bytes, StepError> {
        let key = self.readable_key(path)?;
        self.blobs.get_up_to(&key, size).await.map_err(|error| away(&error))?.ok_or_else(|| missing(path))
    }

    /// How many bytes a file has that a step takes into memory.
    ///
    /// # Errors
    /// There is none, or it is too large.
    pub(crate) async fn size(&self, path: &str) -> Result<u64, StepError> {
        let size = self.blobs.size(&self.readable_key(path)?).await.map_err(|error| away(&error))?;
        let Some(size) = size else { return Err(missing(path)) };
        if size > MAX_FILE_BYTES {
            let message = format!("the file {path:?} has {size} bytes; a step takes at most {MAX_FILE_BYTES}");
            return Err(StepError::terminal(ErrorCode::InputInvalid, message));
        }
        Ok(size)
    }

    /// Stores a file, replacing what is there.
    ///
    /// # Errors
    /// The path is none of the tenant's own.
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<(), StepError> {
        self.blobs.put(&self.key(path)?, bytes).await.map_err(|error| away(&error))
    }

    /// The blob's key of a file to read: one of the tenant's own, or one that was uploaded for a run of the tenant.
    pub(crate) fn readable_key(&self, path: &str) -> Result<String, StepError> {
        let Some(uploaded) = path.strip_prefix(UPLOADED) else { return self.key(path) };
        let is_run = |run: &str| run.parse::<RunId>().is_ok();
        // `0`, and where the delivery may come again `0-` and what tells this one.
        let is_name = |name: &str| {
            let (number, delivery) = name.split_once('-').unwrap_or((name, "0"));
            (1..=4).contains(&number.len())
                && number.bytes().all(|byte| byte.is_ascii_digit())
                && (number == "0" || !number.starts_with('0'))
                && (1..=64).contains(&delivery.len())
                && delivery.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        if uploaded.split_once('/').is_some_and(|(run, name)| is_run(run) && is_name(name)) {
            return Ok(format!("{UPLOADS}/{}/{uploaded}", self.tenant));
        }
        let path: String = path.chars().take(100).collect();
        let message =
            format!("{path:?} is no uploaded file's path, which begins with \"upload:run_\": see trigger.files");
        Err(StepError::terminal(ErrorCode::InputInvalid, message))
    }

    /// The blob's key of a file of the tenant's own: the tenant is the caller's, and the path can't leave it.
    pub(crate) fn key(&self, path: &str) -> Result<String, StepError> {
        if path.starts_with(UPLOADED) {
            let message = "an uploaded file is only read; storage.copy makes one of your own of it";
            return Err(StepError::terminal(ErrorCode::InputInvalid, message));
        }
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
            let size = files.size(path).await?;
            if size > MAX_SHOWN_BYTES {
                let message = format!(
                    "the file {path:?} has {size} bytes; a step's output holds at most {MAX_SHOWN_BYTES}: pass on its path, or a link"
                );
                return Err(StepError::terminal(ErrorCode::InputInvalid, message));
            }
            let bytes = files.get(path).await?;
            let size = bytes.len();
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
        "storage.copy" => {
            let (from, to) = (text("from").unwrap_or_default(), text("to").unwrap_or_default());
            let (source, target) = (files.readable_key(from)?, files.key(to)?);
            if !files.blobs.copy(&source, &target).await.map_err(|error| away(&error))? {
                return Err(missing(from));
            }
            let size = files.blobs.size(&target).await.map_err(|error| away(&error))?;
            Ok(json!({"path": to, "bytes": size}))
        }
        "storage.link" => {
            let key = files.readable_key(path)?;
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
            files.blobs.delete(&files.key(path)?).await.map_err(|error| away(&error))?;
            Ok(json!({"path": path}))
        }
        "storage.info" => {
            let size = files.blobs.size(&files.readable_key(path)?).await.map_err(|error| away(&error))?;
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
