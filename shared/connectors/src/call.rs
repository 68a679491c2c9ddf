//! One call of an action, with all its pages.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tidegate_egress::{Credential, Egress, OutboundResponse};
use tidegate_model::{Connection, ErrorCode, Placeholder, Pointer, StepError};
use tidegate_platform::Blobs;
use tokio::time::Instant;
use url::Url;

use crate::answer::{Failure, Success};
use crate::failure::failure;
use crate::manifest::{Native, NextPage, Paging};
use crate::request::RequestParts;
use crate::{Action, Connector, smtp, storage};

/// The most items that an action with pages fetches.
pub const MAX_ITEMS: u64 = 10_000;
const DEFAULT_ITEMS: usize = 1_000;
/// The most pages of one call.
const MAX_PAGES: usize = 200;
/// What the pages of one call and the items made of them may take together: they are kept in memory.
const MAX_PAGED_BYTES: usize = 32 * 1024 * 1024;

/// What calls go out with.
#[derive(Clone, Copy)]
pub struct Outside<'a> {
    /// The way out.
    pub egress: &'a Egress,
    /// The tenant's files.
    pub files: Files<'a>,
    /// The time.
    pub now: Timestamp,
}

/// A tenant's files.
#[derive(Clone, Copy)]
pub struct Files<'a> {
    /// Where they lie.
    pub blobs: &'a dyn Blobs,
    /// Whose they are.
    pub tenant: tidegate_model::TenantId,
}

/// What is the call's own.
#[derive(Debug, Clone)]
pub struct CallOptions {
    /// Bounds the whole call, all pages included.
    pub timeout: Duration,
    /// Sent with a write.
    pub idempotency_key: Option<String>,
    /// Sent with each request.
    pub traceparent: Option<String>,
}

impl CallOptions {
    pub(crate) async fn send(
        &self,
        outside: &Outside<'_>,
        mut parts: RequestParts,
        credential: Option<Credential<'_>>,
        deadline: Instant,
    ) -> Result<OutboundResponse, Failure> {
        // As with headers, the connection's own wins: a next page's address may repeat it, masked.
        for (name, _) in credential.iter().flat_map(|credential| &credential.connection.placement.query) {
            parts.drop_query(name);
        }
        let timeout = deadline.saturating_duration_since(Instant::now());
        let has_files = parts.has_files;
        let request = parts.into_request(timeout, self.idempotency_key.clone(), self.traceparent.clone());
        let sent = match has_files {
            true => outside.egress.send_files(request, credential).await,
            false => outside.egress.send(request, credential).await,
        };
        sent.map_err(failure)
    }
}

impl Action {
    /// Calls the action with a filled-in input. Dropping the future drops the call.
    ///
    /// # Errors
    /// Why the step failed, and what that says of the connection and the target.
    pub async fn call(
        &self,
        outside: Outside<'_>,
        input: &Value,
        credential: Option<Credential<'_>>,
        options: CallOptions,
    ) -> Result<Value, Failure> {
        let deadline = Instant::now() + options.timeout;
        let connection = credential.map(|credential| credential.connection);
        match self.document.native {
            Some(Native::HttpRequest) => self.http_request(outside, input, credential, &options, deadline).await,
            Some(Native::Smtp) => smtp::send(self, outside, input, credential, &options, deadline).await,
            Some(Native::Storage) => Ok(storage::run(self, outside, input).await?),
            None => {
                let parts = self.request(input, connection, outside.now)?;
                match &self.document.paging {
                    Some(paging) => self.pages(paging, outside, input, credential, &options, parts, deadline).await,
                    None => {
                        let response = options.send(&outside, parts, credential, deadline).await?;
                        self.output(response, input, connection.is_some(), outside.now)
                    }
                }
            }
        }
    }

    /// The host that a call goes to, as far as can be told before it; none where it goes nowhere.
    pub fn target(&self, input: &Value, connection: Option<&Connection>) -> Option<String> {
        let only = || connection.and_then(|connection| connection.hosts.first().cloned());
        match (self.document.native, &self.document.request) {
            (Some(Native::Storage), _) => None,
            (Some(Native::Smtp), _) => only(),
            (Some(Native::HttpRequest), _) => host(input.get("url")?.as_str()?),
            (None, Some(request)) => {
                if connection.is_some_and(|connection| connection.placement.url.is_some()) {
                    return only();
                }
                let url = request.url.as_ref().or(self.connector.base_url.as_ref())?;
                let setting = |name: &str| Some(connection?.settings.get(name)?.as_str()?.to_owned());
                let origin: Vec<_> = url.splitn(4, '/').take(3).collect();
                host(&Placeholder::fill(&origin.join("/"), setting).ok()?)
            }
            (None, None) => None,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "it is the call, put together by its one caller")]
    async fn pages(
        &self,
        paging: &Paging,
        outside: Outside<'_>,
        input: &Value,
        credential: Option<Credential<'_>>,
        options: &CallOptions,
        first: RequestParts,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        let asked = input.get("max_items").and_then(Value::as_u64).and_then(|max| usize::try_from(max).ok());
        let mut pages = Pages::new(asked.unwrap_or(DEFAULT_ITEMS));
        let mut request = first.clone();
        if let NextPage::Page { query, first, .. } = &paging.next {
            request.set_query(query, &first.to_string())?;
        }
        loop {
            let address = request.url.clone();
            let response = options.send(&outside, request, credential, deadline).await?;
            let bytes = response.body.len();
            let success = self.success(response, input, credential.is_some(), outside.now)?;
            let items = success.scope.evaluate_data(&paging.items).map_err(|reason| self.unread(&reason))?;
            let items = items.items().ok_or_else(|| self.unread("the page has no list of items"))?;
            let count = items.len();
            for item in items {
                let item = match &self.document.output {
                    Some(output) => success.scope.with([("item".to_owned(), item)]).fill_one(output, &Pointer::root()),
                    None => item
                        .to_json()
                        .map_err(|message| tidegate_engine::ExpressionError { pointer: Pointer::root(), message }),
                };
                if !pages.push(item.map_err(|error| self.unread(&error.message))?) {
                    return Ok(pages.output(false));
                }
            }
            let next = self.next_page(&paging.next, &first, &address, &success, count, &pages)?;
            let Some(next) = next else { return Ok(pages.output(true)) };
            if !pages.turn(bytes) {
                return Ok(pages.output(false));
            }
            request = next;
        }
    }

    /// The next page's request; `None` after the last.
    fn next_page(
        &self,
        next: &NextPage,
        first: &RequestParts,
        address: &str,
        success: &Success,
        count: usize,
        pages: &Pages,
    ) -> Result<Option<RequestParts>, StepError> {
        let mut request = first.clone();
        match next {
            NextPage::Cursor { value, query, json } => {
                // A page whose cursor can't be found is the last.
                let cursor = success.scope.evaluate(value).unwrap_or_default();
                if matches!(&cursor, Value::Null | Value::Bool(false)) || cursor == json!("") {
                    return Ok(None);
                }
                match (query, json) {
                    (Some(query), _) => request.set_query(query, &crate::form::scalar(&cursor))?,
                    (None, Some(member)) => request.set_json(member, cursor),
                    (None, None) => return Ok(None),
                }
            }
            NextPage::NextUrl(value) => match success.scope.evaluate(value) {
                Ok(Value::String(url)) if !url.is_empty() => request.url = self.on_same_host(address, &url)?,
                _ => return Ok(None),
            },
            NextPage::Link(_) => match link_next(success) {
                Some(url) => request.url = self.on_same_host(address, &url)?,
                None => return Ok(None),
            },
            NextPage::Page { query, first, size } => {
                if count < size.unwrap_or(1) {
                    return Ok(None);
                }
                request.set_query(query, &(u64::from(*first) + pages.turned as u64 + 1).to_string())?;
            }
            NextPage::Offset { query, size } => {
                if count < size.unwrap_or(1) {
                    return Ok(None);
                }
                request.set_query(query, &pages.items.len().to_string())?;
            }
        }
        Ok(Some(request))
    }

    /// The next page's address, which the answer chose: only where the request went.
    pub(crate) fn on_same_host(&self, address: &str, next: &str) -> Result<String, StepError> {
        let refused = |reason: &str| self.unread(&format!("the next page's address {reason}"));
        let from = Url::parse(address).map_err(|_| refused("can't be made"))?;
        let next = from.join(next).map_err(|_| refused("is none"))?;
        if next.origin() != from.origin() {
            return Err(refused("is on another host"));
        }
        Ok(next.into())
    }
}

fn host(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))
}

/// The items of the pages so far.
pub(crate) struct Pages {
    pub(crate) items: Vec<Value>,
    max_items: usize,
    pub(crate) turned: usize,
    bytes: usize,
}

impl Pages {
    pub(crate) fn new(max_items: usize) -> Self {
        Self { items: Vec::new(), max_items, turned: 0, bytes: 0 }
    }

    /// Takes an item; tells whether there was room for it.
    pub(crate) fn push(&mut self, item: Value) -> bool {
        // What comes out counts as what came in does: an output can repeat a page's text for each of its items.
        self.bytes += serde_json::to_vec(&item).map_or(MAX_PAGED_BYTES, |json| json.len());
        let has_room = self.items.len() < self.max_items && self.bytes <= MAX_PAGED_BYTES;
        if has_room {
            self.items.push(item);
        }
        has_room
    }

    /// Whether there may be another page after one of so many bytes.
    pub(crate) fn turn(&mut self, bytes: usize) -> bool {
        self.turned += 1;
        self.bytes += bytes;
        self.turned < MAX_PAGES && self.bytes < MAX_PAGED_BYTES && self.items.len() < self.max_items
    }

    pub(crate) fn output(self, complete: bool) -> Value {
        json!({"items": self.items, "complete": complete})
    }
}

/// The target of the `Link` header's `rel="next"` (RFC 8288).
pub(crate) fn link_next(success: &Success) -> Option<String> {
    let links = success.headers.get_all(http::header::LINK).iter().filter_map(|value| value.to_str().ok());
    links.flat_map(|links| split(links, b',')).find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = split(parameters, b';').into_iter().filter_map(|parameter| parameter.split_once('=')).any(
            |(name, value)| {
                name.trim().eq_ignore_ascii_case("rel")
                    && value
                        .trim()
                        .trim_matches('"')
                        .split_ascii_whitespace()
                        .any(|rel| rel.eq_ignore_ascii_case("next"))
            },
        );
        is_next.then(|| target.to_owned())
    })
}

/// The parts of a header's value: separators stand in targets and in quotes too.
fn split(value: &str, separator: u8) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut closed_by, mut escaped) = (0, None, false);
    for (index, byte) in value.bytes().enumerate() {
        match (closed_by, byte) {
            _ if escaped => escaped = false,
            (Some(b'"'), b'\\') => escaped = true,
            (Some(end), byte) if byte == end => closed_by = None,
            (Some(_), _) => {}
            (None, b'<') => closed_by = Some(b'>'),
            (None, b'"') => closed_by = Some(b'"'),
            (None, byte) if byte == separator => {
                parts.push(&value[start..index]);
                start = index + 1;
            }
            (None, _) => {}
        }
    }
    parts.push(&value[start..]);
    parts
}

impl Connector {
    /// Makes the test request; yields whose the credential is, where the answer tells. `None` outside where the manifest has no
    /// such request for the connection's way to sign in.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn test(
        &self,
        outside: Outside<'_>,
        credential: Credential<'_>,
        options: CallOptions,
    ) -> Result<Option<Option<String>>, Failure> {
        let deadline = Instant::now() + options.timeout;
        if self.actions.values().any(|action| action.document.native == Some(Native::Smtp)) {
            return smtp::test(outside, credential, deadline).await.map(|()| Some(None));
        }
        let Some(parts) = self.test_request(credential.connection, outside.now)? else { return Ok(None) };
        let response = options.send(&outside, parts, Some(credential), deadline).await?;
        self.tested(response, outside.now).map(Some)
    }
}

/// What isn't a call without its connection.
pub(crate) fn connected<'a>(action: &Action, credential: Option<Credential<'a>>) -> Result<Credential<'a>, StepError> {
    credential.ok_or_else(|| {
        let message = format!("{} needs a connection; name one in the step", action.name);
        StepError::terminal(ErrorCode::ConnectionUnusable, message)
    })
}
