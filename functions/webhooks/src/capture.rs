//! Keeps what came for a workflow that listens, to be looked at while it is made. Nothing is run.

use std::sync::atomic::Ordering;

use http::HeaderMap;
use serde::Serialize;
use serde_json::{Map, Value};
use tidegate_http::{Problem, StartBody};
use tidegate_model::{CapturedDelivery, INLINE_LIMIT_BYTES, RunFile, WebhookRequest, mask_named};

use crate::Ingress;
use crate::body::ReceivedFile;
use crate::facts;
use crate::receive::Taken;
use crate::webhook::Webhook;

/// Headers whose names don't speak of what they hold.
const MASKED: [&str; 4] = ["cookie", "x-api-key", "x-amzn-trace-id", "x-forwarded-for"];
const MASK: &str = "***";

/// What is answered.
#[derive(Debug, Serialize)]
pub(crate) struct Captured {
    status: &'static str,
}

/// Keeps a delivery, in place of one of the last. What looks like a credential is hidden in it.
pub(crate) async fn capture(
    ingress: &Ingress,
    webhook: &Webhook,
    headers: &HeaderMap,
    taken: Taken,
) -> Result<Captured, Problem> {
    let Taken { content_type, request, body, files } = taken;
    let hmac = webhook.trigger.verify.as_ref().and_then(|verify| verify.hmac.as_ref());
    let signature = hmac.map(|hmac| hmac.header.to_ascii_lowercase());
    let mut seen = facts::all_headers(headers);
    let mut left = INLINE_LIMIT_BYTES;
    for (name, value) in &mut seen {
        let is_masked = MASKED.contains(&name.as_str()) || name.contains("hmac") || signature.as_ref() == Some(name);
        let length = name.len() + value.as_str().map_or(0, str::len);
        left = left.saturating_sub(length);
        if is_masked || left == 0 {
            *value = Value::String(MASK.to_owned());
        }
    }
    let masked = |facts: Map<String, Value>| {
        let mut value = Value::Object(facts);
        mask_named(&mut value);
        match value {
            Value::Object(facts) => facts,
            _ => Map::new(),
        }
    };
    let file = |file: ReceivedFile| RunFile {
        field: Some(file.field),
        filename: file.filename,
        content_type: file.content_type,
        bytes: file.bytes.len() as u64,
        path: String::new(),
    };
    let body = match body {
        StartBody::Value(mut value) if value.to_string().len() <= INLINE_LIMIT_BYTES => {
            mask_named(&mut value);
            Some(value)
        }
        StartBody::Value(_) | StartBody::Large(_) => None,
    };
    let delivery = CapturedDelivery {
        at: ingress.deps.clock.now(),
        content_type,
        request: WebhookRequest {
            query: masked(request.query),
            headers: masked(seen),
            files: files.into_iter().map(file).collect(),
            ..request
        },
        body,
    };
    let place = ingress.locals.of(webhook.head.id).await.place.fetch_add(1, Ordering::Relaxed);
    ingress.deps.store.deliveries().capture(webhook.head.tenant, webhook.head.id, place, &delivery).await?;
    Ok(Captured { status: "captured" })
}
