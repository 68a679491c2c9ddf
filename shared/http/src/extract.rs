//! Reading requests and writing answers: extractors that answer problems naming the field, and the usual answers.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, IntoResponseParts, Response, ResponseParts};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, IF_MATCH, LOCATION};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tidegate_model::{FieldError, Pointer};
use utoipa::ToSchema;

use crate::{Problem, ProblemCode};

/// A JSON body. As an argument: anything but `application/json` (or `…+json`) is 415, a body over the limit 413, what
/// is no JSON 400 with line and column, JSON of another shape 422 with a pointer to the field.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            let detail = "Send the body as JSON, with `Content-Type: application/json`.";
            return Err(Problem::new(ProblemCode::UnsupportedMediaType, detail));
        }
        let Raw(bytes) = Raw::from_request(request, state).await?;
        parse(&bytes).map(Self)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response(),
            Err(error) => Problem::internal(&error).into_response(),
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(CONTENT_TYPE).map(HeaderValue::to_str) else { return false };
    let media_type = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type == "application/json" || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    use serde_json::error::Category;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let mut track = serde_path_to_error::Track::new();
    let parsed = T::deserialize(serde_path_to_error::Deserializer::new(&mut deserializer, &mut track));
    let parsed = parsed.and_then(|value| deserializer.end().map(|()| value));
    parsed.map_err(|error| match error.classify() {
        Category::Data => {
            let text = error.to_string();
            let place = format!(" at line {} column {}", error.line(), error.column());
            let detail = text.strip_suffix(&place).unwrap_or(&text);
            Problem::validation(vec![field_error(&track.path(), detail)])
        }
        Category::Syntax | Category::Eof | Category::Io => {
            Problem::new(ProblemCode::MalformedRequest, format!("The body is no JSON: {error}."))
        }
    })
}

/// The field that a path of serde's and its message are about. A missing field is named itself, not what it misses in.
fn field_error(path: &serde_path_to_error::Path, detail: &str) -> FieldError {
    use serde_path_to_error::Segment;
    let mut pointer = Pointer::root();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer = pointer.push(index),
            Segment::Map { key } => pointer = pointer.push(shortened(key)),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    match detail.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        Some(field) => FieldError::new(pointer.push(field), "is required"),
        None => FieldError::new(pointer, shortened(detail)),
    }
}

/// What was sent comes back in parts only: an answer isn't larger than its request.
fn shortened(text: &str) -> String {
    const MAX_CHARS: usize = 500;
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The body's bytes, whatever they are; over the limit is 413.
#[derive(Debug, Clone, Default)]
pub struct Raw(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Raw {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        Bytes::from_request(request, state).await.map(Self).map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                Problem::new(ProblemCode::PayloadTooLarge, "The body is larger than this operation takes.")
            } else {
                Problem::new(ProblemCode::MalformedRequest, "The body ended before it was complete.")
            }
        })
    }
}

/// Query parameters. What can't be read is 400, with the parameter's name as the pointer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs)).map(Self).map_err(|error| {
            let field = field_error(error.path(), &error.inner().to_string());
            let name = field.pointer.as_str().trim_start_matches('/');
            let subject = if name.is_empty() { "The query".to_owned() } else { format!("The parameter {name:?}") };
            let detail = format!("{subject} is invalid: {}", field.detail);
            Problem::new(ProblemCode::InvalidParameter, detail).with_errors(vec![field])
        })
    }
}

/// Parameters of the path. One that can't be read, such as an id of another kind, is 404: no such thing exists.
#[derive(Debug, Clone, Copy, Default)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(_) => Err(Problem::not_found()),
        }
    }
}

/// 201 with the new resource and its address.
#[derive(Debug, Clone)]
pub struct Created<T> {
    /// The resource's path.
    pub location: String,
    /// The resource.
    pub body: T,
}

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        let mut response = (StatusCode::CREATED, Json(self.body)).into_response();
        match HeaderValue::try_from(self.location) {
            Ok(location) => response.headers_mut().insert(LOCATION, location),
            Err(error) => return Problem::internal(&error).into_response(),
        };
        response
    }
}

/// A resource's revision as its strong entity tag; put it before the body: `(ETag(workflow.revision), Json(view))`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ETag(pub u64);

impl IntoResponseParts for ETag {
    type Error = Problem;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Self::Error> {
        let tag = HeaderValue::try_from(format!("\"{}\"", self.0)).map_err(|error| Problem::internal(&error))?;
        parts.headers_mut().insert(ETAG, tag);
        Ok(parts)
    }
}

/// The request's `If-Match` (RFC 9110, section 13.1.1), which the operation requires: without it 428.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IfMatch {
    any: bool,
    revisions: Vec<u64>,
}

impl IfMatch {
    /// Checks a resource's revision.
    ///
    /// # Errors
    /// 412: the request was made for another revision.
    pub fn check(&self, revision: u64) -> Result<(), Problem> {
        if self.any || self.revisions.contains(&revision) {
            return Ok(());
        }
        Err(Problem::precondition_failed())
    }
}

impl Problem {
    /// 412: the resource isn't the one that `If-Match` names. Also for a write that lost the race.
    pub fn precondition_failed() -> Self {
        let detail = "It has changed since you read it. Read it again and repeat your change on that.";
        Self::new(ProblemCode::PreconditionFailed, detail)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let mut condition = Self { any: false, revisions: Vec::new() };
        let mut present = false;
        for value in parts.headers.get_all(IF_MATCH) {
            present = true;
            // Tags that aren't ours, weak ones among them, match nothing.
            for tag in value.to_str().unwrap_or_default().split(',').map(str::trim) {
                condition.any |= tag == "*";
                let inner = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
                condition.revisions.extend(inner.and_then(|digits| digits.parse::<u64>().ok()));
            }
        }
        if present {
            return Ok(condition);
        }
        let detail = "Send `If-Match` with the `ETag` that you read, so that nobody else's change is overwritten.";
        Err(Problem::new(ProblemCode::PreconditionRequired, detail))
    }
}

/// How many items a page holds: 1 to 100, default 20.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(u32);

impl Limit {
    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(20)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        match text.parse() {
            Ok(number @ 1..=100) => Ok(Self(number)),
            Ok(_) | Err(_) => Err(serde::de::Error::custom("expected a whole number from 1 to 100")),
        }
    }
}

impl utoipa::PartialSchema for Limit {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::Integer)
            .minimum(Some(1))
            .maximum(Some(100))
            .default(Some(20.into()))
            .into()
    }
}

impl ToSchema for Limit {}

/// The parameters of every list. A list with more of its own has these two fields among them.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// How many items to give at most.
    #[serde(default)]
    #[param(inline, required = false)]
    pub limit: Limit,
    /// The `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ListOf<T> {
    /// The items.
    pub items: Vec<T>,
    /// Give this as `cursor` to get the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// A time: in an answer RFC 3339, UTC, always with milliseconds; in a request with any offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Timestamp);

impl From<Timestamp> for Time {
    fn from(timestamp: Timestamp) -> Self {
        Self(timestamp)
    }
}

impl From<Time> for Timestamp {
    fn from(time: Time) -> Self {
        time.0
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.3}", self.0))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| {
            let detail = "expected a time such as 2026-11-20T10:00:00Z (RFC 3339; in a URL write + as %2B)";
            serde::de::Error::custom(detail)
        })
    }
}

impl utoipa::PartialSchema for Time {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{KnownFormat, SchemaFormat, Type};
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .into()
    }
}

impl ToSchema for Time {}
