//! Reads a target's answer: what the step yields, or why it failed, when to try again, and what that says of the connection
//! and of the target.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use indexmap::IndexMap;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use serde_json::{Map, Value, json};
use tidegate_egress::OutboundResponse;
use tidegate_engine::{Data, Scope};
use tidegate_model::{ErrorCode, JsonError, Pointer, StepError, masked_snippet, parse_json};

use crate::manifest::{AnswerKind, Answers, Meaning};
use crate::request::input_data;
use crate::{Action, Connector};

/// The longest wait that an answer can ask for.
const MAX_RETRY_AFTER_MS: u64 = 366 * 86_400_000;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What the step's record says.
    pub error: StepError,
    /// Whether the vendor refused the credential.
    pub is_connection_broken: bool,
    /// Whether the target is down, as far as one call tells: it didn't answer, or answered that it is its own fault.
    pub is_target_down: bool,
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        Self { error, is_connection_broken: false, is_target_down: false }
    }
}

/// An answer that is a success.
pub(crate) struct Success {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) encoding: Option<&'static str>,
    pub(crate) scope: Scope,
}

/// Whose answer it is, and what is known of it.
struct Reader<'a> {
    name: &'a str,
    kind: AnswerKind,
    /// The action's, then the connector's.
    answers: Vec<&'a Answers>,
    is_connected: bool,
    now: Timestamp,
}

impl Action {
    fn reader(&self, is_connected: bool, now: Timestamp) -> Reader<'_> {
        let answers = vec![&self.document.answers, &self.connector.answers];
        Reader { name: &self.name, kind: self.answer_kind(), answers, is_connected, now }
    }

    fn answer_kind(&self) -> AnswerKind {
        if self.is_http_request() { AnswerKind::Any } else { self.document.answer }
    }

    /// An answer, if it is a success.
    pub(crate) fn success(
        &self,
        response: OutboundResponse,
        input: &Value,
        is_connected: bool,
        now: Timestamp,
    ) -> Result<Success, Failure> {
        self.reader(is_connected, now).read(response, input_data(input, self.declared()))
    }

    /// What the step yields of an answer: what `output` of the manifest says, else `{"status", "body"}`. `body` is parsed where
    /// the answer is JSON, `null` where it is empty, else text; bytes that are not UTF-8 come as base64 text and
    /// `"encoding": "base64"` tells so.
    ///
    /// # Errors
    /// The answer is none that the step can go on with; `now` is what dates in it are counted from.
    pub fn output(
        &self,
        response: OutboundResponse,
        input: &Value,
        is_connected: bool,
        now: Timestamp,
    ) -> Result<Value, Failure> {
        let success = self.success(response, input, is_connected, now)?;
        if let Some(output) = &self.document.output {
            return Ok(success
                .scope
                .fill_one(output, &Pointer::root())
                .map_err(|error| self.unread(&error.message))?);
        }
        let mut output = Map::new();
        output.insert("status".to_owned(), json!(success.status));
        if self.is_http_request() {
            output.insert("headers".to_owned(), headers_of(&success.headers));
        }
        output.insert("body".to_owned(), success.body);
        if let Some(encoding) = success.encoding {
            output.insert("encoding".to_owned(), json!(encoding));
        }
        Ok(Value::Object(output))
    }

    /// An answer that isn't what the manifest reads.
    pub(crate) fn unread(&self, reason: &str) -> StepError {
        let message = format!("{}: the target's answer is not what its documentation promises: {reason}", self.name);
        StepError::terminal(ErrorCode::ResponseInvalid, message)
    }
}

impl Connector {
    /// Whose the credential is, as the answer to the test request tells, where it does.
    ///
    /// # Errors
    /// The answer is no success.
    pub fn tested(&self, response: OutboundResponse, now: Timestamp) -> Result<Option<String>, Failure> {
        let name = format!("the test request of {}", self.name());
        let answers = vec![&self.document.answers];
        let reader = Reader { name: &name, kind: AnswerKind::Any, answers, is_connected: true, now };
        let success = reader.read(response, Data::from(&json!({})))?;
        let account = self.document.test.as_ref().and_then(|test| test.account.as_ref());
        // An answer that doesn't tell is a success all the same.
        let told = account.and_then(|account| success.scope.fill_one(&json!(account), &Pointer::root()).ok());
        Ok(told.filter(|told| !told.is_null()).map(|told| crate::form::scalar(&told).chars().take(200).collect()))
    }
}

impl Reader<'_> {
    fn read(&self, response: OutboundResponse, input: Data) -> Result<Success, Failure> {
        let status = response.status;
        let body = parse_body(self.kind, &response.headers, &response.body);
        let (value, encoding) = match &body {
            Body::Empty => (Value::Null, None),
            Body::Json(value) => (value.clone(), None),
            Body::Text(text) | Body::BrokenJson { text, .. } => (Value::String((*text).to_owned()), None),
            Body::Bytes(bytes) => (Value::String(BASE64.encode(bytes)), Some("base64")),
        };
        let scope = Scope::new([
            ("status".to_owned(), Data::from(&json!(status))),
            ("headers".to_owned(), Data::from(&headers_of(&response.headers))),
            ("body".to_owned(), Data::from(&value)),
            ("input".to_owned(), input),
            ("now".to_owned(), Data::from(&json!(self.now))),
        ]);
        let fits = |when: &str| scope.evaluate(when) == Ok(Value::Bool(true));
        let rule = self.answers.iter().flat_map(|answers| &answers.errors).find(|rule| fits(&rule.when));
        let meaning = match rule {
            Some(rule) => rule.is,
            None => match status {
                200..=299 => Meaning::Ok,
                401 if self.is_connected => Meaning::ConnectionBroken,
                429 => Meaning::RateLimited,
                408 | 425 | 500.. => Meaning::Retryable,
                _ => Meaning::Failed,
            },
        };
        if meaning == Meaning::Ok {
            self.check_promise(status, &body)?;
            return Ok(Success { status, headers: response.headers, body: value, encoding, scope });
        }

        let text = |template: &String| match scope.fill_one(&json!(template), &Pointer::root()) {
            Ok(Value::Null) | Err(_) => None,
            Ok(value) => Some(crate::form::scalar(&value)).filter(|text| !text.is_empty()),
        };
        let messages = rule.and_then(|rule| rule.message.as_ref()).into_iter();
        let messages = messages.chain(self.answers.iter().filter_map(|answers| answers.error_message.as_ref()));
        let said = messages.filter_map(text).next();
        let said = masked_snippet(&said.unwrap_or_else(|| match &body {
            Body::Empty | Body::Bytes(_) => String::new(),
            Body::Json(value) => value.to_string(),
            Body::Text(text) | Body::BrokenJson { text, .. } => (*text).to_owned(),
        }));
        let retryable = matches!(meaning, Meaning::Retryable | Meaning::RateLimited);
        let waits = rule.and_then(|rule| rule.retry_after.as_ref()).into_iter();
        let waits = waits.chain(self.answers.iter().filter_map(|answers| answers.retry_after.as_ref()));
        let wait = waits.filter_map(|wait| scope.evaluate(wait).ok()?.as_f64()).find_map(milliseconds);
        let retry_after_ms = retryable.then(|| wait.or_else(|| retry_after_ms(&response.headers, self.now))).flatten();

        let mut message = format!("{}: the target answered {}", self.name, status_text(status));
        if !said.is_empty() {
            message.push_str(&format!(": {said}"));
        }
        let hints = self.answers.iter().map(|answers| &answers.hints);
        let hint = rule.and_then(|rule| rule.hint.clone()).or_else(|| hint_for(hints, &said));
        match hint.or_else(|| general_hint(meaning, status, &response.headers)) {
            Some(hint) => message.push_str(&format!(" ({hint})")),
            None if retryable => {}
            None => message.push_str(" (another attempt would be answered alike; change the step or its connection)"),
        }
        let code = match meaning {
            Meaning::RateLimited => ErrorCode::RateLimited,
            Meaning::ConnectionBroken => ErrorCode::ConnectionUnusable,
            Meaning::Invalid => ErrorCode::ResponseInvalid,
            Meaning::Failed | Meaning::Retryable | Meaning::Ok => ErrorCode::TargetFailed,
        };
        Err(Failure {
            error: StepError { code, message, retryable, retry_after_ms },
            is_connection_broken: meaning == Meaning::ConnectionBroken,
            is_target_down: meaning == Meaning::Retryable,
        })
    }

    /// A success has to be what it says.
    fn check_promise(&self, status: u16, body: &Body<'_>) -> Result<(), StepError> {
        let fault = match (self.kind, body) {
            (AnswerKind::Text, _) | (_, Body::Empty | Body::Json(_)) => return Ok(()),
            (_, Body::BrokenJson { error: JsonError::Broken(error), .. }) => format!("is broken: {error}"),
            (_, Body::BrokenJson { error: JsonError::OutOfBounds(error), .. }) => {
                format!("has {error}; ask it for less")
            }
            (AnswerKind::Any, Body::Text(_) | Body::Bytes(_)) => return Ok(()),
            (AnswerKind::Json, Body::Text(_) | Body::Bytes(_)) => "is none".to_owned(),
        };
        let message = format!("{}: the target answered {}, but its JSON {fault}", self.name, status_text(status));
        Err(StepError::terminal(ErrorCode::ResponseInvalid, message))
    }
}

fn hint_for<'a>(mut hints: impl Iterator<Item = &'a IndexMap<String, String>>, said: &str) -> Option<String> {
    hints.find_map(|hints| hints.get(said)).cloned()
}

/// What `Retry-After` says (RFC 9110, section 10.2.3), in milliseconds from now.
fn retry_after_ms(headers: &HeaderMap, now: Timestamp) -> Option<u64> {
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

enum Body<'a> {
    Empty,
    Json(Value),
    BrokenJson { text: &'a str, error: JsonError },
    Text(&'a str),
    Bytes(&'a [u8]),
}

fn parse_body<'a>(kind: AnswerKind, headers: &HeaderMap, body: &'a [u8]) -> Body<'a> {
    if body.is_empty() {
        return Body::Empty;
    }
    let Ok(text) = std::str::from_utf8(body) else { return Body::Bytes(body) };
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let says_json = media_type == "application/json" || media_type.ends_with("+json");
    match (kind, parse_json(body)) {
        (AnswerKind::Text, _) => Body::Text(text),
        (AnswerKind::Any, _) if !says_json => Body::Text(text),
        (_, Ok(value)) => Body::Json(value),
        // An error page of something in between is text.
        (AnswerKind::Json, Err(JsonError::Broken(_))) if !says_json => Body::Text(text),
        (_, Err(error)) => Body::BrokenJson { text, error },
    }
}

pub(crate) fn headers_of(headers: &HeaderMap) -> Value {
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

fn general_hint(meaning: Meaning, status: u16, headers: &HeaderMap) -> Option<String> {
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
        _ if meaning == Meaning::ConnectionBroken => Some("check the connection's credential".to_owned()),
        _ => None,
    }
}
