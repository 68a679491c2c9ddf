//! What tells a delivery that came before: the vendor's id, the caller's key, or what an expression yields.

use std::borrow::Cow;

use http::HeaderMap;
use serde_json::Value;
use tidegate_engine::{Data, preview, trigger_names};
use tidegate_http::{Problem, ProblemCode, StartBody, sha256_hex};
use tidegate_model::{Deduplicate, DeduplicateBy, Scheme, TriggerKind, WebhookRequest, WebhookTrigger};

/// <https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const MAX_KEY_BYTES: usize = 255;

/// A request, as far as it tells which delivery it is.
pub(crate) struct Delivery<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) request: &'a WebhookRequest,
    pub(crate) body: &'a StartBody,
}

/// What is the same whenever this delivery comes; none where nothing tells it. Keys of different origins never meet.
///
/// # Errors
/// The trigger's expression fails or yields nothing, or there are several idempotency keys.
pub(crate) fn key(
    trigger: &WebhookTrigger,
    deduplicate: &Deduplicate,
    delivery: &Delivery<'_>,
) -> Result<Option<String>, Problem> {
    let key = match deduplicate.by {
        DeduplicateBy::Nothing => None,
        DeduplicateBy::DeliveryId => match &trigger.verify {
            Some(verify) => delivery_id(verify.scheme, delivery)?,
            None => None,
        },
        DeduplicateBy::IdempotencyKey => idempotency_key(delivery.headers)?,
        DeduplicateBy::Expression => expression(deduplicate.expression.as_deref().unwrap_or_default(), delivery)?,
    };
    // A text of its own for each origin, which stays: rows are found by it.
    let origin = match deduplicate.by {
        DeduplicateBy::DeliveryId => "delivery_id",
        DeduplicateBy::IdempotencyKey => "idempotency_key",
        DeduplicateBy::Expression => "expression",
        DeduplicateBy::Nothing => "nothing",
    };
    Ok(key.map(|key| sha256_hex(format!("{origin} {key}").as_bytes())))
}

/// The id is in a header, or else in the body, which is read only then.
fn delivery_id(scheme: Scheme, delivery: &Delivery<'_>) -> Result<Option<String>, Problem> {
    match tidegate_signatures::delivery_id(scheme, delivery.headers, None) {
        Some(id) => Ok(Some(id)),
        None => Ok(tidegate_signatures::delivery_id(scheme, delivery.headers, Some(&*value(delivery.body)?))),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=MAX_KEY_BYTES).contains(&key.len()) && values.next().is_none());
    let detail = "`Idempotency-Key` has to be there once, with 1 to 255 visible ASCII characters.";
    key.map(|key| Some(key.to_owned())).ok_or_else(|| Problem::new(ProblemCode::MalformedRequest, detail))
}

fn expression(expression: &str, delivery: &Delivery<'_>) -> Result<Option<String>, Problem> {
    let body = Data::from(&*value(delivery.body)?);
    let trigger = trigger_names(TriggerKind::Webhook, delivery.content_type, Some(delivery.request), body.clone());
    let refused = |why: String| {
        let detail = format!("The delivery has nothing to be told by: the trigger's `deduplicate.expression` {why}.");
        Problem::new(ProblemCode::MalformedRequest, detail)
    };
    let scope = preview(body, [("trigger", trigger)]);
    match scope.evaluate(expression).map_err(|error| refused(format!("fails: {error}")))? {
        Value::Null => Err(refused("yields null".to_owned())),
        Value::String(text) if text.is_empty() => Err(refused("yields an empty text".to_owned())),
        value => Ok(Some(value.to_string())),
    }
}

/// The body as a value. A large one was checked and not built, which is done here, where something in it is asked for.
fn value(body: &StartBody) -> Result<Cow<'_, Value>, Problem> {
    match body {
        StartBody::Value(value) => Ok(Cow::Borrowed(value)),
        StartBody::Large(text) => {
            serde_json::from_slice(text).map(Cow::Owned).map_err(|error| Problem::internal(&error))
        }
    }
}
