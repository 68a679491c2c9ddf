//! Reads a target's answer: what the step yields, or why it failed and when to try again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use serde_json::{Map, Value, json};
use tidegate_egress::OutboundResponse;
use tidegate_model::{ErrorCode, JsonError, StepError, masked_snippet, parse_json};

use crate::{Action, AnswerShape, ErrorText};

/// The longest wait that an answer can ask for.
const MAX_RETRY_AFTER_MS: u64 = 366 * 86_400_000;

impl Action {
    /// What the step yields: `{"status", "body"}`, and `"headers"` where the action says so. `body` is parsed where the
    /// answer's type is JSON, `null` where it is empty, else text; bytes that are not UTF-8 come as base64 text and
    /// `"encoding": "base64"` tells so. Header names are in lower case, repeated ones joined by `, `.
    ///
    /// # Errors
    /// `rate_limited`, `target_failed` or `response_invalid`; retryable for 408, 425, 429 and 5xx, with the wait that
    /// the answer asks for, where a date is counted from `now`.
    pub fn output(&self, response: &OutboundResponse, now: Timestamp) -> Result<Value, StepError> {
        let body = parse_body(&response.headers, &response.body);
        if !(200..=299).contains(&response.status) {
            return Err(self.failure(response, &body, now));
        }
        let (body, encoding) = match body {
            Body::Empty => (Value::Null, None),
            Body::Json(value) => (value, None),
            Body::Text(text) => (Value::String(text.to_owned()), None),
            Body::Bytes(bytes) => (Value::String(BASE64.encode(bytes)), Some("base64")),
            Body::BrokenJson { text: _, error } => {
                let fault = match error {
                    JsonError::Broken(error) => format!("is broken: {error}"),
                    JsonError::OutOfBounds(error) => format!("has {error}; ask it for less"),
                };
                let status = status_text(response.status);
                let message = format!("{}: the target answered {status}, but its JSON {fault}", self.name);
                return Err(StepError::terminal(ErrorCode::ResponseInvalid, message));
            }
        };
        let mut output = Map::new();
        output.insert("status".to_owned(), json!(response.status));
        if self.answer.headers {
            output.insert("headers".to_owned(), headers_of(&response.headers));
        }
        output.insert("body".to_owned(), body);
        if let Some(encoding) = encoding {
            output.insert("encoding".to_owned(), json!(encoding));
        }
        Ok(Value::Object(output))
    }

    fn failure(&self, response: &OutboundResponse, body: &Body<'_>, now: Timestamp) -> StepError {
        let status = response.status;
        let retryable = matches!(status, 408 | 425 | 429) || status >= 500;
        let code = if status == 429 { ErrorCode::RateLimited } else { ErrorCode::TargetFailed };
        let retry_after_ms = retryable.then(|| self.answer.retry_after_ms(&response.headers, body, now)).flatten();
        let said = self.answer.error_text(body);
        let mut message = format!("{}: the target answered {}", self.name, status_text(status));
        if !said.is_empty() {
            message.push_str(&format!(": {said}"));
        }
        let hint = self.answer.hints.iter().find(|(error, _)| said == *error).map(|(_, hint)| (*hint).to_owned());
        match hint.or_else(|| general_hint(status, &response.headers)) {
            Some(hint) => message.push_str(&format!(" ({hint})")),
            None if retryable => {}
            None => message.push_str(" (another attempt would be answered alike; change the step or its connection)"),
        }
        StepError { code, message, retryable, retry_after_ms }
    }
}

impl AnswerShape {
    fn error_text(&self, body: &Body<'_>) -> String {
        let member = match (self.error_text, body) {
            (ErrorText::Member(member), Body::Json(value)) => value.get(member).and_then(Value::as_str),
            (ErrorText::Member(_) | ErrorText::Body, _) => None,
        };
        match (member, body) {
            (Some(text), _) => masked_snippet(text),
            (None, Body::Json(value)) => masked_snippet(&value.to_string()),
            (None, Body::Text(text) | Body::BrokenJson { text, .. }) => masked_snippet(text),
            (None, Body::Empty | Body::Bytes(_)) => String::new(),
        }
    }

    /// When the target wants the next call, in milliseconds from now: the answer's own field, else `Retry-After` (RFC
    /// 9110, section 10.2.3).
    fn retry_after_ms(&self, headers: &HeaderMap, body: &Body<'_>, now: Timestamp) -> Option<u64> {
        let field = match (self.retry_after_field, body) {
            (Some(field), Body::Json(value)) => value.get(field).and_then(Value::as_f64),
            (Some(_) | None, _) => None,
        };
        if let Some(ms) = field.and_then(milliseconds) {
            return Some(ms);
        }
        let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        match text.parse::<f64>() {
            Ok(seconds) => milliseconds(seconds),
            Err(_) => {
                let at = DateTimeParser::new().parse_timestamp(text).ok()?;
                let ms = at.as_millisecond().saturating_sub(now.as_millisecond());
                Some(u64::try_from(ms).unwrap_or(0).min(MAX_RETRY_AFTER_MS))
            }
        }
    }
}

enum Body<'a> {
    Empty,
    Json(Value),
    BrokenJson { text: &'a str, error: JsonError },
    Text(&'a str),
    Bytes(&'a [u8]),
}

fn parse_body<'a>(headers: &HeaderMap, body: &'a [u8]) -> Body<'a> {
    if body.is_empty() {
        return Body::Empty;
    }
    let Ok(text) = std::str::from_utf8(body) else { return Body::Bytes(body) };
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media_type != "application/json" && !media_type.ends_with("+json") {
        return Body::Text(text);
    }
    match parse_json(body) {
        Ok(value) => Body::Json(value),
        Err(error) => Body::BrokenJson { text, error },
    }
}

fn headers_of(headers: &HeaderMap) -> Value {
    let mut joined: Map<String, Value> = Map::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        match joined.get_mut(name.as_str()) {
            Some(Value::String(text)) => text.push_str(&format!(", {value}")),
            _ => {
                joined.insert(name.as_str().to_owned(), Value::String(value.into_owned()));
            }
        }
    }
    Value::Object(joined)
}

fn milliseconds(seconds: f64) -> Option<u64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float casts saturating, and is capped"
    )]
    (seconds.is_finite() && seconds >= 0.0).then(|| ((seconds * 1_000.0).ceil() as u64).min(MAX_RETRY_AFTER_MS))
}

fn status_text(status: u16) -> String {
    match StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()) {
        Some(reason) => format!("{status} {reason}"),
        None => status.to_string(),
    }
}

fn general_hint(status: u16, headers: &HeaderMap) -> Option<String> {
    match status {
        300..=399 => {
            let host = headers
                .get(LOCATION)
                .and_then(|location| location.to_str().ok())
                .and_then(|location| url::Url::parse(location).ok())
                .and_then(|url| url.host_str().map(str::to_owned));
            Some(match host {
                Some(host) => format!("it redirects to {host}; call that address itself"),
                None => "the redirect is not followed; call the final address itself".to_owned(),
            })
        }
        401 => Some("check the connection's credential".to_owned()),
        _ => None,
    }
}
