//! `http.request`: any request of RFC 9110, with a body of any kind, and its pages.

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Map, Value, json};
use tidegate_egress::{Credential, OutboundResponse, is_reserved_header};
use tidegate_engine::{Data, transform};
use tidegate_model::{FieldError, Pointer, StepError};
use tokio::time::Instant;
use url::Url;

use crate::answer::{Failure, headers_of};
use crate::call::{Pages, link_next};
use crate::form::{encode, scalar};
use crate::manifest::{ListStyle, Native};
use crate::request::RequestParts;
use crate::storage::{held, reserve};
use crate::{Action, CallOptions, Files, Outside};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const TEXT: &str = "text/plain; charset=utf-8";
const BYTES: &str = "application/octet-stream";

impl Action {
    pub(crate) fn is_http_request(&self) -> bool {
        self.document.native == Some(Native::HttpRequest)
    }

    pub(crate) async fn http_request(
        &self,
        outside: Outside<'_>,
        input: &Value,
        credential: Option<Credential<'_>>,
        options: &CallOptions,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        self.check_connection(credential.map(|credential| credential.connection))?;
        self.check_input(input)?;
        let save_to = input.get("save_to").and_then(Value::as_str);
        // Before the request goes out, which may not be repeated.
        save_to.map(|path| outside.files.key(path)).transpose()?;
        let parts = self.parts(input, outside.files).await?;
        if let Some(paging) = input.get("paging").filter(|paging| !paging.is_null()) {
            return self.http_pages(outside, input, paging, credential, options, parts, deadline).await;
        }
        let response = options.send(&outside, parts, credential, deadline).await?;
        match save_to {
            Some(path) => self.saved(outside, input, credential.is_some(), response, path).await,
            None => self.output(response, input, credential.is_some(), outside.now),
        }
    }

    /// Puts the answer's body into a file in place of the output.
    async fn saved(
        &self,
        outside: Outside<'_>,
        input: &Value,
        is_connected: bool,
        response: OutboundResponse,
        path: &str,
    ) -> Result<Value, Failure> {
        if !(200..=299).contains(&response.status) {
            return self.output(response, input, is_connected, outside.now);
        }
        let (status, headers, bytes) = (response.status, headers_of(&response.headers), response.body);
        let size = bytes.len();
        outside.files.put(path, bytes).await?;
        Ok(json!({"status": status, "headers": headers, "file": {"path": path, "bytes": size}}))
    }

    async fn parts(&self, input: &Value, files: Files<'_>) -> Result<RequestParts, StepError> {
        let fault = |error: FieldError| self.input_error(&[error]);
        let text = |field: &str| input.get(field).and_then(Value::as_str);
        let no_fields = Map::new();
        let fields = |field: &str| input.get(field).and_then(Value::as_object).unwrap_or(&no_fields);

        let method = Method::from_bytes(text("method").unwrap_or_default().as_bytes())
            .map_err(|_| fault(at("method", "is not a method")))?;
        let url = http_url(text("url").unwrap_or_default(), fields("query")).map_err(fault)?;
        let mut headers = headers(fields("headers")).map_err(fault)?;
        let multipart = input.get("multipart").and_then(Value::as_array);
        let form = input.get("form").filter(|form| form.is_object());
        let (body, content_type): (Option<Bytes>, String) =
            match (input.get("json"), text("body"), form, multipart, text("file")) {
                (Some(json), ..) => (Some(json.to_string().into()), JSON.to_owned()),
                (_, Some(body), ..) => (Some(Bytes::copy_from_slice(body.as_bytes())), TEXT.to_owned()),
                (_, _, Some(form), ..) => {
                    let mut encoded = url::form_urlencoded::Serializer::new(String::new());
                    encoded.extend_pairs(encode(form, ListStyle::Repeated));
                    (Some(encoded.finish().into()), FORM.to_owned())
                }
                (_, _, _, Some(parts), _) => {
                    let (body, boundary) = multipart_body(self, parts, files).await?;
                    (Some(body), format!("multipart/form-data; boundary={boundary}"))
                }
                (.., Some(path)) => (Some(files.get(path).await?), BYTES.to_owned()),
                _ => (None, String::new()),
            };
        // Only a type with the boundary makes the parts readable.
        if body.is_some() && (multipart.is_some() || !headers.contains_key(CONTENT_TYPE)) {
            let content_type = text("content_type").filter(|_| multipart.is_none()).map_or(content_type, str::to_owned);
            let value = HeaderValue::from_str(&content_type);
            headers.insert(CONTENT_TYPE, value.map_err(|_| fault(at("content_type", "is no content type")))?);
        }
        let has_files = multipart.is_some() || text("file").is_some();
        Ok(RequestParts { method, url: url.into(), headers, body, has_files, effect: self.effect(input) })
    }

    #[expect(clippy::too_many_arguments, reason = "it is the call, put together by its one caller")]
    async fn http_pages(
        &self,
        outside: Outside<'_>,
        input: &Value,
        paging: &Value,
        credential: Option<Credential<'_>>,
        options: &CallOptions,
        first: RequestParts,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        let text = |field: &str| paging.get(field).and_then(Value::as_str).unwrap_or_default();
        let number = |field: &str, default: u64| paging.get(field).and_then(Value::as_u64).unwrap_or(default);
        let mut pages = Pages::new(usize::try_from(number("max_items", 1_000)).unwrap_or(usize::MAX));
        let mut request = first.clone();
        if text("type") == "page" {
            request.set_query(text("query"), &number("first", 1).to_string())?;
        }
        loop {
            let address = request.url.clone();
            let response = options.send(&outside, request, credential, deadline).await?;
            let bytes = response.body.len();
            let success = self.success(response, input, credential.is_some(), outside.now)?;
            let body = Data::from(&success.body);
            let found = |query: &str| transform(query, &body);
            let items = match text("items") {
                "" => success.body.clone(),
                query => found(query).map_err(|reason| self.unread(&reason))?,
            };
            let Value::Array(items) = items else {
                return Err(self.unread("`items` of its paging finds no list in the page").into());
            };
            let count = items.len();
            for item in items {
                if !pages.push(item) {
                    return Ok(pages.output(false));
                }
            }
            let value = || found(text("value")).ok().filter(|value| !matches!(value, Value::Null | Value::Bool(false)));
            let next = match text("type") {
                "link" => link_next(&success),
                "next_url" => value().map(|value| scalar(&value)).filter(|url| !url.is_empty()),
                _ => None,
            };
            request = first.clone();
            match (text("type"), next) {
                (_, Some(url)) => request.url = self.on_same_host(&address, &url)?,
                ("cursor", None) => match value().map(|value| scalar(&value)).filter(|cursor| !cursor.is_empty()) {
                    Some(cursor) => request.set_query(text("query"), &cursor)?,
                    None => return Ok(pages.output(true)),
                },
                ("page", None) if count > 0 => {
                    let number = number("first", 1) + pages.turned as u64 + 1;
                    request.set_query(text("query"), &number.to_string())?;
                }
                ("offset", None) if count > 0 => request.set_query(text("query"), &pages.items.len().to_string())?,
                _ => return Ok(pages.output(true)),
            }
            if !pages.turn(bytes) {
                return Ok(pages.output(false));
            }
        }
    }
}

fn at(field: &str, detail: impl Into<String>) -> FieldError {
    FieldError::new(Pointer::root().push(field), detail)
}

fn http_url(text: &str, query: &Map<String, Value>) -> Result<Url, FieldError> {
    let mut url = Url::parse(text).map_err(|error| at("url", format!("is not a URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(at("url", "must begin with https:// or http://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(at("url", "must not have a user name or password; use a connection"));
    }
    url.set_fragment(None);
    // A list gives its parameter several times, `null` leaves it out.
    let pairs = encode(&Value::Object(query.clone()), ListStyle::Repeated);
    if !pairs.is_empty() {
        url.query_pairs_mut().extend_pairs(pairs);
    }
    Ok(url)
}

fn headers(fields: &Map<String, Value>) -> Result<HeaderMap, FieldError> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let at = Pointer::root().push("headers").push(name);
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| FieldError::new(at.clone(), "is not a header's name"))?;
        if is_reserved_header(name) {
            return Err(FieldError::new(at, "is set by the connection itself; remove it"));
        }
        let value = HeaderValue::from_str(&scalar(value))
            .map_err(|_| FieldError::new(at, "has characters that a header can't carry"))?;
        headers.append(parsed, value);
    }
    Ok(headers)
}

/// The most that a form's files have together, in bytes.
const MAX_FORM_BYTES: u64 = 50 * 1024 * 1024;

/// A body of `multipart/form-data` (RFC 7578), names and file names escaped as browsers do, and its boundary. There is no
/// more of the files in memory at a time than the body and the one that is being added.
async fn multipart_body(action: &Action, parts: &[Value], files: Files<'_>) -> Result<(Bytes, String), StepError> {
    let (mut total, mut largest) = (0, 0);
    for path in parts.iter().filter_map(|part| part.get("file")?.as_str()) {
        let size = files.size(path).await?;
        (total, largest) = (total + size, largest.max(size));
        if total > MAX_FORM_BYTES {
            let detail = format!("its files have more than {MAX_FORM_BYTES} bytes together");
            return Err(action.input_error(&[FieldError::new(Pointer::root().push("multipart"), detail)]));
        }
    }
    let memory = reserve(total + largest).await?;
    let boundary = boundary();
    // Grown piece by piece it would be there twice each time.
    let mut body = BytesMut::with_capacity(usize::try_from(total).unwrap_or(0) + 1_024 * (parts.len() + 1));
    for (index, part) in parts.iter().enumerate() {
        let text = |field: &str| part.get(field).and_then(Value::as_str);
        let quoted = |text: &str| text.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A");
        let name = quoted(text("name").unwrap_or_default());
        let mut head = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"");
        let (file, default_type) = (text("file"), text("file").map(|_| BYTES));
        if let Some(filename) = text("filename").or(file.map(|path| path.rsplit('/').next().unwrap_or(path))) {
            head.push_str(&format!("; filename=\"{}\"", quoted(filename)));
        }
        if let Some(content_type) = text("content_type").or(default_type) {
            if HeaderValue::from_str(content_type).is_err() {
                let pointer = Pointer::root().push("multipart").push(index).push("content_type");
                return Err(action.input_error(&[FieldError::new(pointer, "is no content type")]));
            }
            head.push_str(&format!("\r\nContent-Type: {content_type}"));
        }
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(b"\r\n\r\n");
        match file {
            Some(path) => body.extend_from_slice(&files.read(path, largest).await?),
            None => body.extend_from_slice(part.get("value").map(scalar).unwrap_or_default().as_bytes()),
        }
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    Ok((held(body.freeze(), memory), boundary))
}

/// Random, so that no part can hold it.
#[expect(clippy::expect_used, reason = "a system without randomness can make no boundary that a part doesn't hold")]
fn boundary() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system's random number generator failed");
    format!("tidegate-{:032x}", u128::from_be_bytes(bytes))
}
