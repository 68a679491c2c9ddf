//! Makes a request of an action and its filled-in input.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Map, Value};
use tidegate_egress::{Auth, Effect, OutboundRequest, is_reserved_header};
use tidegate_model::{ErrorCode, FieldError, Pointer, StepError};
use url::Url;

use crate::{Action, Need, RequestShape};

/// What an action says of its request; timeout, idempotency key and trace context are the caller's.
#[derive(Debug)]
pub struct RequestParts {
    /// The method.
    pub method: Method,
    /// The URL; empty where `auth` takes it from the secret.
    pub url: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Option<Bytes>,
    /// Whether the call only reads.
    pub effect: Effect,
    /// Where the connection's secret goes.
    pub auth: Auth,
}

impl RequestParts {
    /// The whole request. A read needs no idempotency key, and one among the headers is the workflow author's own.
    pub fn into_request(
        self,
        timeout: Duration,
        idempotency_key: Option<String>,
        traceparent: Option<String>,
    ) -> OutboundRequest {
        let Self { method, url, headers, body, effect, auth } = self;
        let idempotency_key =
            idempotency_key.filter(|_| effect == Effect::Write && !headers.contains_key("idempotency-key"));
        OutboundRequest { method, url, headers, body, timeout, effect, auth, idempotency_key, traceparent }
    }
}

impl Action {
    /// Checks the filled-in input and makes the request of it. `connected`: whether the step has a connection.
    ///
    /// # Errors
    /// `input_invalid`, naming the field by its pointer; `connection_unusable` where there must be one.
    pub fn request(&self, input: &Value, connected: bool) -> Result<RequestParts, StepError> {
        if self.connection == Need::Required && !connected {
            return Err(StepError::terminal(
                ErrorCode::ConnectionUnusable,
                format!("{} needs a connection of the connector {:?}; name one in the step", self.name, self.connector),
            ));
        }
        self.check_input(input)?;
        let effect = self.effect(input);
        match self.request {
            RequestShape::PostToSecretUrl { field } => Ok(RequestParts {
                method: Method::POST,
                url: String::new(),
                headers: HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(JSON))]),
                body: Some(input.to_string().into()),
                effect,
                auth: Auth::UrlField { field: field.to_owned() },
            }),
            RequestShape::Http => {
                let auth = if connected { Auth::Http } else { Auth::None };
                http_request(input, effect, auth).map_err(|error| self.input_error(&[error]))
            }
        }
    }
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

fn http_request(input: &Value, effect: Effect, auth: Auth) -> Result<RequestParts, FieldError> {
    let text = |field: &str| input.get(field).and_then(Value::as_str);
    let at = |field: &str| Pointer::root().push(field);
    let no_fields = Map::new();
    let fields = |field: &str| input.get(field).and_then(Value::as_object).unwrap_or(&no_fields);

    let method = Method::from_bytes(text("method").unwrap_or_default().as_bytes())
        .map_err(|_| FieldError::new(at("method"), "is not a method"))?;
    let mut url = Url::parse(text("url").unwrap_or_default())
        .map_err(|error| FieldError::new(at("url"), format!("is not a URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(FieldError::new(at("url"), "must begin with https:// or http://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(FieldError::new(at("url"), "must not have a user name or password; use a connection"));
    }
    url.set_fragment(None);
    add_query(&mut url, fields("query"));

    let mut headers = HeaderMap::new();
    for (name, value) in fields("headers") {
        let at = at("headers").push(name);
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| FieldError::new(at.clone(), "is not a header's name"))?;
        if is_reserved_header(name) {
            return Err(FieldError::new(at, "is set by the connection itself; remove it"));
        }
        let value = HeaderValue::from_str(&scalar(value))
            .map_err(|_| FieldError::new(at, "has characters that a header can't carry"))?;
        headers.append(parsed, value);
    }
    let (body, content_type) = match (input.get("json"), text("body")) {
        (Some(json), _) => (Some(json.to_string().into()), JSON),
        (None, Some(body)) => (Some(Bytes::copy_from_slice(body.as_bytes())), TEXT),
        (None, None) => (None, TEXT),
    };
    if body.is_some() && !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    Ok(RequestParts { method, url: url.into(), headers, body, effect, auth })
}

/// Adds parameters to those that the URL has; a list gives its parameter several times, `null` leaves it out.
fn add_query(url: &mut Url, query: &Map<String, Value>) {
    let pairs: Vec<(&str, String)> = query
        .iter()
        .flat_map(|(name, value)| match value {
            Value::Array(values) => values.iter().map(|value| (name.as_str(), scalar(value))).collect(),
            Value::Null => Vec::new(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                vec![(name.as_str(), scalar(value))]
            }
        })
        .collect();
    if !pairs.is_empty() {
        url.query_pairs_mut().extend_pairs(pairs);
    }
}

fn scalar(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
