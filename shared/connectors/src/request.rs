//! Makes requests: of an action's template and its filled-in input.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tidegate_egress::{Effect, OutboundRequest, is_reserved_header};
use tidegate_engine::{Data, Names, Scope, TemplatePart, template_parts};
use tidegate_model::{Connection, ErrorCode, Placeholder, Pointer, StepError};
use url::Url;

use crate::form::{encode, scalar};
use crate::manifest::{ConnectorDocument, ListStyle, Need, RequestTemplate};
use crate::{Action, Connector};

/// A request, before it has a timeout and the headers of the call.
#[derive(Debug, Clone)]
pub struct RequestParts {
    /// The method.
    pub method: Method,
    /// The URL; empty where the connection's secret is the URL.
    pub url: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Option<Bytes>,
    /// Whether the body is made of files, which may be larger than what a step's input holds.
    pub has_files: bool,
    /// Whether the call only reads.
    pub effect: Effect,
}

impl RequestParts {
    /// The whole request. A read needs no idempotency key, and one among the headers is the workflow author's own.
    pub fn into_request(
        self,
        timeout: Duration,
        idempotency_key: Option<String>,
        traceparent: Option<String>,
    ) -> OutboundRequest {
        let Self { method, url, headers, body, has_files: _, effect } = self;
        let idempotency_key =
            idempotency_key.filter(|_| effect == Effect::Write && !headers.contains_key("idempotency-key"));
        OutboundRequest { method, url, headers, body, timeout, effect, idempotency_key, traceparent }
    }

    /// Puts a parameter into the query in the place of those of this name.
    pub(crate) fn set_query(&mut self, name: &str, value: &str) -> Result<(), StepError> {
        self.drop_query(name);
        let mut url = Url::parse(&self.url).map_err(|error| unusable(&error.to_string()))?;
        url.query_pairs_mut().append_pair(name, value);
        self.url = url.into();
        Ok(())
    }

    /// Takes the parameters of this name out of the query.
    pub(crate) fn drop_query(&mut self, name: &str) {
        // A URL that is none is told of when it is sent.
        let Ok(mut url) = Url::parse(&self.url) else { return };
        if url.query_pairs().any(|(known, _)| known == name) {
            let others: Vec<(String, String)> = url
                .query_pairs()
                .filter(|(known, _)| known != name)
                .map(|(k, v)| (k.into_owned(), v.into_owned()))
                .collect();
            url.query_pairs_mut().clear().extend_pairs(others);
            self.url = url.into();
        }
    }

    /// Puts a member into the JSON body.
    pub(crate) fn set_json(&mut self, name: &str, value: Value) {
        let body = self.body.as_deref().and_then(|body| serde_json::from_slice(body).ok());
        let mut body = match body {
            Some(Value::Object(members)) => members,
            _ => Map::new(),
        };
        body.insert(name.to_owned(), value);
        self.body = Some(Value::Object(body).to_string().into());
    }
}

/// What the expressions of a request see.
pub(crate) struct Inputs<'a> {
    /// The step's input, checked.
    pub(crate) input: &'a Value,
    /// The connection, where there is one.
    pub(crate) connection: Option<&'a Connection>,
    /// The time.
    pub(crate) now: Timestamp,
}

/// The step's input, and `null` for what it could have given.
struct InputNames {
    given: Data,
    names: Vec<String>,
    declared: Vec<String>,
}

impl Names for InputNames {
    fn get(&self, name: &str) -> Option<Data> {
        let given = self.given.member(name);
        given.or_else(|| self.declared.iter().any(|known| known == name).then(|| Data::from(&Value::Null)))
    }

    fn names(&self) -> Vec<String> {
        self.names.clone()
    }
}

/// `input` as expressions of the action see it.
pub(crate) fn input_data<'n>(input: &Value, declared: impl Iterator<Item = &'n str>) -> Data {
    let names = input.as_object().into_iter().flat_map(Map::keys).cloned().collect();
    let declared = declared.map(str::to_owned).collect();
    Data::lazy(Arc::new(InputNames { given: Data::from(input), names, declared }))
}

impl Action {
    /// Checks the filled-in input and makes the (first) request of it.
    ///
    /// # Errors
    /// `input_invalid`, naming the field by its pointer; `connection_unusable` where there must be a connection, or another.
    pub fn request(
        &self,
        input: &Value,
        connection: Option<&Connection>,
        now: Timestamp,
    ) -> Result<RequestParts, StepError> {
        self.check_connection(connection)?;
        self.check_input(input)?;
        let Some(template) = &self.document.request else {
            return Err(unusable(&format!("{} makes no request", self.name)));
        };
        let inputs = Inputs { input, connection, now };
        template
            .fill(&self.connector, &inputs, self.declared(), self.effect(input))
            .map_err(|reason| StepError::terminal(ErrorCode::InputInvalid, format!("{}: {reason}", self.name)))
    }

    pub(crate) fn check_connection(&self, connection: Option<&Connection>) -> Result<(), StepError> {
        let refused = |message: String| Err(StepError::terminal(ErrorCode::ConnectionUnusable, message));
        let name = &self.connector.name;
        match (self.need(), connection) {
            (Need::Required, None) => {
                refused(format!("{} needs a connection of the connector {name:?}; name one in the step", self.name))
            }
            (Need::None, Some(_)) => refused(format!("{} takes no connection; remove it from the step", self.name)),
            (_, Some(connection)) if !self.fits(connection) => refused(self.misfit(connection)),
            _ => Ok(()),
        }
    }

    /// Whether it can be called with a connection. `http.request` takes all whose secret isn't the URL itself.
    pub fn fits(&self, connection: &Connection) -> bool {
        if self.is_http_request() {
            return connection.placement.url.is_none();
        }
        let of_connector = connection.connector == self.connector.name && connection.publisher == self.publisher;
        of_connector && self.takes(&connection.auth)
    }

    /// Why it can't be called with a connection.
    pub fn misfit(&self, connection: &Connection) -> String {
        let (id, of, connector) = (connection.id, &connection.connector, &self.connector.name);
        if self.is_http_request() {
            return format!("the secret of the connection {id} is a whole URL, which {} can't use", self.name);
        }
        if of != connector || connection.publisher != self.publisher {
            return format!("the connection {id} is for `{of}`, but {} needs one for `{connector}`", self.name);
        }
        let takes = self.document.auth.iter().flatten().map(|id| format!("`{id}`")).collect::<Vec<_>>().join(" or ");
        format!("the connection {id} signs in by `{}`, but {} needs one by {takes}", connection.auth, self.name)
    }
}

impl Connector {
    /// The request that shows whether a connection works; none where the manifest has none for it.
    ///
    /// # Errors
    /// The connection's settings make no request.
    pub fn test_request(&self, connection: &Connection, now: Timestamp) -> Result<Option<RequestParts>, StepError> {
        let of = |ids: &Vec<String>| ids.contains(&connection.auth);
        let Some(test) = self.document.test.as_ref().filter(|test| test.auth.as_ref().is_none_or(of)) else {
            return Ok(None);
        };
        let inputs = Inputs { input: &json!({}), connection: Some(connection), now };
        let parts = test.request.fill(&self.document, &inputs, std::iter::empty(), Effect::Read);
        parts.map(Some).map_err(|reason| unusable(&format!("the test request of {}: {reason}", self.name())))
    }
}

fn unusable(reason: &str) -> StepError {
    StepError::terminal(ErrorCode::InputInvalid, reason.to_owned())
}

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const TEXT: &str = "text/plain; charset=utf-8";

impl RequestTemplate {
    fn fill<'n>(
        &self,
        connector: &ConnectorDocument,
        inputs: &Inputs<'_>,
        declared: impl Iterator<Item = &'n str>,
        effect: Effect,
    ) -> Result<RequestParts, String> {
        let settings = inputs.connection.map(|connection| Value::Object(connection.settings.clone()));
        let scope = Scope::new([
            ("input".to_owned(), input_data(inputs.input, declared)),
            ("connection".to_owned(), Data::from(&settings.unwrap_or_else(|| json!({})))),
            ("now".to_owned(), Data::from(&json!(inputs.now))),
        ]);
        let address = self.path.as_ref().or(self.url.as_ref());
        let pieces = address.map(|address| template_parts(address)).transpose()?.unwrap_or_default();
        let expressions = pieces.iter().filter_map(|piece| match piece {
            TemplatePart::Expression(source) => Some(json!(format!("{{{{{source}}}}}"))),
            TemplatePart::Text(_) => None,
        });
        let mut all_headers = connector.headers.clone();
        for (name, value) in &self.headers {
            all_headers.retain(|known, _| !known.eq_ignore_ascii_case(name));
            all_headers.insert(name.clone(), value.clone());
        }
        // All at once, so that they share the bounds of one evaluation.
        let template = json!({
            "address": expressions.collect::<Vec<_>>(), "query": self.query, "headers": all_headers,
            "json": self.json, "form": self.form, "text": self.text,
        });
        let mut filled = scope.fill_one(&template, &Pointer::root()).map_err(|error| match error.pointer.as_str() {
            "" => error.message,
            at => format!("{at}: {}", error.message),
        })?;
        prune(&template, &mut filled);
        let Value::Object(mut filled) = filled else { return Err("its template is no object".to_owned()) };
        let mut take = |name: &str| filled.remove(name).filter(|value| !value.is_null());

        let style = self.lists.unwrap_or_default();
        let url = match address {
            Some(_) => {
                let values = take("address");
                let values = values.as_ref().and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                let address = escaped_address(&pieces, values)?;
                let base = if self.path.is_some() { base_url(connector, inputs.connection)? } else { String::new() };
                let mut url =
                    Url::parse(&format!("{base}{address}")).map_err(|error| format!("its URL is none: {error}"))?;
                let query = encode(&take("query").unwrap_or_default(), style);
                if !query.is_empty() {
                    url.query_pairs_mut().extend_pairs(query);
                }
                String::from(url)
            }
            None => String::new(),
        };

        let mut headers = HeaderMap::new();
        for (name, value) in take("headers").as_ref().and_then(Value::as_object).into_iter().flatten() {
            let parsed =
                HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is not a header's name"))?;
            if is_reserved_header(name) {
                return Err(format!("the header {name} is set by the client itself"));
            }
            let value = HeaderValue::from_str(&scalar(value))
                .map_err(|_| format!("the header {name} has characters that a header can't carry"))?;
            headers.insert(parsed, value);
        }
        let (body, content_type) = match (take("json"), take("form"), take("text")) {
            (Some(json), _, _) => (Some(json.to_string().into()), JSON),
            (None, Some(form), _) => (Some(form_body(&form, style)), FORM),
            (None, None, Some(text)) => (Some(scalar(&text).into()), TEXT),
            (None, None, None) => (None, TEXT),
        };
        if body.is_some() && !headers.contains_key(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        let method =
            Method::from_bytes(self.method.as_bytes()).map_err(|_| format!("{:?} is no method", self.method))?;
        Ok(RequestParts { method, url, headers, body, has_files: false, effect })
    }
}

fn form_body(form: &Value, style: ListStyle) -> Bytes {
    let mut body = url::form_urlencoded::Serializer::new(String::new());
    body.extend_pairs(encode(form, style));
    body.finish().into()
}

fn base_url(connector: &ConnectorDocument, connection: Option<&Connection>) -> Result<String, String> {
    let base = connector.base_url.as_deref().ok_or("its manifest has no base_url")?;
    let setting = |name: &str| Some(connection?.settings.get(name)?.as_str()?.to_owned());
    let base = Placeholder::fill(base, setting).map_err(|error| format!("its base_url {error}"))?;
    Ok(base.trim_end_matches('/').to_owned())
}

/// A path or URL with its expressions' values in it, each a part of one segment.
fn escaped_address(pieces: &[TemplatePart<'_>], values: &[Value]) -> Result<String, String> {
    let mut address = String::new();
    let mut values = values.iter();
    // Where values stand, so that a segment that they make is looked at as a whole.
    let mut filled = Vec::new();
    for piece in pieces {
        match piece {
            TemplatePart::Text(text) => address.push_str(text),
            TemplatePart::Expression(source) => {
                let source = source.trim();
                let text = match values.next() {
                    Some(Value::Null) | None => {
                        return Err(format!("`{source}` is part of the address, but has no value"));
                    }
                    Some(value @ (Value::String(_) | Value::Number(_) | Value::Bool(_))) => scalar(value),
                    Some(Value::Array(_) | Value::Object(_)) => {
                        return Err(format!("`{source}` is part of the address, but is no text or number"));
                    }
                };
                filled.push((address.len(), source));
                address.extend(escaped(&text));
            }
        }
    }
    for (at, source) in filled {
        let start = address[..at].rfind('/').map_or(0, |slash| slash + 1);
        let segment = address[start..].split(['/', '?', '#']).next().unwrap_or_default();
        if segment.is_empty() || matches!(segment.to_ascii_uppercase().replace("%2E", ".").as_str(), "." | "..") {
            return Err(format!("`{source}` makes an empty, `.` or `..` segment of the address"));
        }
    }
    Ok(address)
}

/// Everything but unreserved characters (RFC 3986, section 2.3), percent-encoded.
fn escaped(text: &str) -> impl Iterator<Item = char> {
    text.bytes().flat_map(|byte| {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let text = if plain { char::from(byte).to_string() } else { format!("%{byte:02X}") };
        text.chars().collect::<Vec<_>>()
    })
}

/// Leaves out the members of objects whose template is one expression that yielded `null`.
fn prune(template: &Value, filled: &mut Value) {
    match (template, filled) {
        (Value::Object(templates), Value::Object(members)) => {
            members.retain(|name, value| !(value.is_null() && templates.get(name).is_some_and(is_expression)));
            for (name, member) in members {
                if let Some(template) = templates.get(name) {
                    prune(template, member);
                }
            }
        }
        (Value::Array(templates), Value::Array(items)) => {
            for (template, item) in templates.iter().zip(items) {
                prune(template, item);
            }
        }
        _ => {}
    }
}

fn is_expression(template: &Value) -> bool {
    let parts = template.as_str().map(template_parts);
    matches!(parts.as_ref().map(|parts| parts.as_deref()), Some(Ok([TemplatePart::Expression(_)])))
}
