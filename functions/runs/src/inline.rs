//! Brings payloads into an answer, within bounds: a value over 1 MiB, or beyond 2.75 MiB in all, is told by its size
//! only. Lambda answers at most 6 MB, the answer's text as a JSON string, in which a quote or a backslash takes twice its
//! space.

use serde::Serialize;
use serde_json::Value;
use tidegate_http::Problem;
use tidegate_model::{BlobRef, Payload, RunDetail};
use tidegate_platform::Blobs;
use utoipa::ToSchema;

const MAX_VALUE_BYTES: u64 = 1024 * 1024;
const MAX_ANSWER_BYTES: u64 = 11 * 1024 * 1024 / 4;
const MAX_DETAIL_BYTES: u64 = 16 * 1024 * 1024;

/// A value that is not shown, beside the place where it would stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Truncated {
    /// Its size in bytes of JSON.
    bytes: u64,
}

/// A value, or why it isn't here.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) value: Option<Value>,
    pub(crate) truncated: Option<Truncated>,
}

/// Brings the payloads of one answer.
pub(crate) struct Inliner<'a> {
    blobs: &'a dyn Blobs,
    left: u64,
}

impl<'a> Inliner<'a> {
    pub(crate) fn new(blobs: &'a dyn Blobs) -> Self {
        Self { blobs, left: MAX_ANSWER_BYTES }
    }

    /// A final run's detail.
    pub(crate) async fn detail(&mut self, payload: Payload) -> Result<(RunDetail, Option<Truncated>), Problem> {
        let nothing = RunDetail { trigger: None, steps: Vec::new(), output: None };
        let detail = match payload {
            Payload::Inline(value) => serde_json::from_value(value),
            Payload::Blob(blob) if blob.bytes > MAX_DETAIL_BYTES => {
                return Ok((nothing, Some(Truncated { bytes: blob.bytes })));
            }
            Payload::Blob(blob) => match self.blobs.get(&blob.key).await? {
                Some(bytes) => serde_json::from_slice(&bytes),
                None => return Ok((nothing, Some(gone(&blob)))),
            },
        };
        detail.map(|detail| (detail, None)).map_err(|error| Problem::internal(&error))
    }

    /// A payload's value, where there is room for it.
    pub(crate) async fn show(&mut self, payload: Payload) -> Result<Shown, Problem> {
        let value = match payload {
            Payload::Inline(value) => {
                let bytes = serde_json::to_string(&value).map_err(|error| Problem::internal(&error))?.len() as u64;
                if !self.takes(bytes) {
                    return Ok(Shown { value: None, truncated: Some(Truncated { bytes }) });
                }
                value
            }
            Payload::Blob(blob) if !self.takes(blob.bytes) => {
                return Ok(Shown { value: None, truncated: Some(Truncated { bytes: blob.bytes }) });
            }
            Payload::Blob(blob) => match self.blobs.get(&blob.key).await? {
                Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| Problem::internal(&error))?,
                None => return Ok(Shown { value: None, truncated: Some(gone(&blob)) }),
            },
        };
        Ok(Shown { value: Some(value), truncated: None })
    }

    /// Takes from what the answer may hold; `false`: there is no room for so many bytes more.
    pub(crate) fn takes(&mut self, bytes: u64) -> bool {
        let fits = bytes <= MAX_VALUE_BYTES.min(self.left);
        if fits {
            self.left -= bytes;
        }
        fits
    }
}

/// A blob that the run's row still names: a run that ends moves its blobs, and expired ones go before the row.
fn gone(blob: &BlobRef) -> Truncated {
    tracing::warn!(key = blob.key, "a blob of a run is not there");
    Truncated { bytes: blob.bytes }
}
