//! Values too large for rows and journals, and the blobs that hold them: under `live/` while the run goes on, under
//! `kept/` once it is final.

use std::collections::HashSet;

use serde_json::Value;
use tidegate_model::{BlobRef, Entry, Event, INLINE_LIMIT_BYTES, Payload, RunDetail, RunRow};
use tidegate_platform::blobs::{KEPT, LIVE};

use crate::{Deps, Error};

/// A value as rows and journals hold it: itself up to 8 KB, else a reference to the blob that it is put in.
pub(crate) async fn store_payload(deps: &Deps, value: &Value, key: String) -> Result<Payload, Error> {
    let text = serde_json::to_vec(value).map_err(|error| Error::Corrupt(error.to_string()))?;
    if text.len() <= INLINE_LIMIT_BYTES {
        return Ok(Payload::Inline(value.clone()));
    }
    let bytes = text.len() as u64;
    deps.blobs.put(&key, text.into()).await?;
    Ok(Payload::Blob(BlobRef { key, bytes }))
}

/// A value, wherever it is; `None` where its blob is gone.
pub(crate) async fn load(deps: &Deps, payload: &Payload) -> Result<Option<Value>, Error> {
    let blob = match payload {
        Payload::Inline(value) => return Ok(Some(value.clone())),
        Payload::Blob(blob) => blob,
    };
    let mut bytes = deps.blobs.get(&blob.key).await?;
    if bytes.is_none() {
        bytes = deps.blobs.get(&kept_key(&blob.key)).await?;
    }
    let Some(bytes) = bytes else { return Ok(None) };
    let value = serde_json::from_slice(&bytes);
    value.map(Some).map_err(|error| Error::Corrupt(format!("the blob {}: {error}", blob.key)))
}

/// Where a live run's blob lies once the run is final.
fn kept_key(key: &str) -> String {
    match key.strip_prefix(LIVE) {
        Some(rest) => format!("{KEPT}{rest}"),
        None => key.to_owned(),
    }
}

/// A run's detail as its final row holds it: itself up to 8 KB, else a reference to a blob. The blobs it refers to move
/// to where they expire with the row, and those of earlier attempts go. A worker that dies after that and before the row
/// is written leaves a run that still finds them ([`load`]).
pub(crate) async fn fold(
    deps: &Deps,
    row: &RunRow,
    detail: &mut RunDetail,
    entries: &[Entry],
) -> Result<Payload, Error> {
    let mut referred = HashSet::new();
    for blob in blobs_of(detail) {
        referred.insert(blob.key.clone());
        let kept = kept_key(&blob.key);
        match deps.blobs.rename(&blob.key, &kept).await {
            Ok(()) => {}
            Err(_) if deps.blobs.get(&blob.key).await?.is_none() && deps.blobs.get(&kept).await?.is_none() => {
                tracing::warn!(component = "worker", run_id = %row.id, blob = blob.key, "a blob of a finished run is gone");
            }
            Err(error) => return Err(error.into()),
        }
        blob.key = kept;
    }
    for entry in entries {
        if let Event::Started { input: Payload::Blob(blob) } = &entry.event
            && !referred.contains(&blob.key)
        {
            deps.blobs.delete(&blob.key).await?;
        }
    }
    let value = serde_json::to_value(&*detail).map_err(|error| Error::Corrupt(error.to_string()))?;
    store_payload(deps, &value, format!("{KEPT}/{}/{}/{}/detail", row.tenant, row.id, row.fence)).await
}

fn blobs_of(detail: &mut RunDetail) -> Vec<&mut BlobRef> {
    let bodies = detail.trigger.iter_mut().map(|trigger| &mut trigger.body);
    let values = detail.steps.iter_mut().flat_map(|step| {
        let items = step.items.iter_mut().flat_map(|item| item.input.iter_mut().chain(&mut item.output));
        step.input.iter_mut().chain(&mut step.output).chain(items)
    });
    bodies
        .chain(values)
        .chain(&mut detail.output)
        .filter_map(|payload| match payload {
            Payload::Blob(blob) => Some(blob),
            Payload::Inline(_) => None,
        })
        .collect()
}
