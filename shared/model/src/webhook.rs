//! A webhook trigger: from whom it takes requests, what a run sees of them, what is answered, and how much it takes.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Every, FieldError, Pointer, Scheme, Verification};

const MAX_HEADERS: usize = 50;
const MAX_HEADER_NAME_BYTES: usize = 100;
const MAX_RESPONSE_HEADERS: usize = 20;
const MAX_HEADER_VALUE_BYTES: usize = 1_000;
const MAX_RESPONSE_BYTES: usize = 4 * 1024;
const MAX_ORIGINS: usize = 20;
const MAX_ORIGIN_BYTES: usize = 255;
const MAX_EXPRESSION_BYTES: usize = 4 * 1024;
const MAX_PER_SECOND: u32 = 100_000;
/// One request of S3's stores at most 5 GB.
const MAX_UPLOAD_BYTES: u64 = 5_000_000_000;
/// A day less than runs are kept, so that whoever asks for the first run finds it.
const MAX_REMEMBERED: Every = Every::days(29);
/// What never becomes part of a run's record.
const UNSEEN: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "x-api-key"];
/// Response headers that say something about the body alone. Others would speak for the installation's whole address, as
/// `Clear-Site-Data` or `Set-Cookie` do.
const OF_THE_BODY: [&str; 8] = [
    "cache-control",
    "content-disposition",
    "content-language",
    "content-type",
    "etag",
    "expires",
    "last-modified",
    "retry-after",
];
/// Of those that begin with `x-`, and so mean what their readers agreed on, these mean something to browsers and proxies.
const NOT_OF_THE_BODY: [&str; 8] =
    ["x-accel-", "x-amz", "x-content-type-options", "x-dns-", "x-forwarded-", "x-frame-", "x-request-id", "x-sendfile"];

/// A request to `/api/webhooks/{workflow id}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookTrigger {
    /// How the sender proves who it is; without it, knowing the address is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verification>,
    /// Which methods it takes; `POST` where nothing is said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<WebhookMethod>,
    /// The request's headers that expressions see in `trigger.headers`: up to 50 names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// What tells a delivery that comes again. By default that is the delivery's id where the scheme of `verify` has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deduplicate: Option<Deduplicate>,
    /// When the answer is given.
    #[serde(default, skip_serializing_if = "is_default")]
    pub respond: Respond,
    /// What is answered, in place of `{"status": "accepted", "run_id": …}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<WebhookResponse>,
    /// From which web pages browsers may send to it; from none where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    /// How many requests it takes, beside the organization's limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<TriggerRate>,
    /// Whether files can be uploaded for it (`POST /api/webhooks/{workflow id}/uploads`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uploads: Option<Uploads>,
}

/// A method that a webhook takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "they are HTTP's")]
pub enum WebhookMethod {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl WebhookMethod {
    /// Its name in a request.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// How a delivery is told that came before: it is answered with the run that it started then, and starts no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Deduplicate {
    /// What is the same when a delivery comes again.
    pub by: DeduplicateBy,
    /// With `expression`: what yields it, of what a run's expressions see of the trigger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(examples("order.id"))]
    pub expression: Option<String>,
    /// For how long it is remembered: up to 29 days, which is a day less than runs are kept; default `3d`.
    #[serde(default = "default_remember", skip_serializing_if = "is_default_remember")]
    #[schema(value_type = String, examples("3d"))]
    pub remember: Every,
}

/// What is the same when a delivery comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeduplicateBy {
    /// The id that the vendor of `verify`'s scheme gives each delivery or event.
    DeliveryId,
    /// The header `Idempotency-Key`. A request without it starts a run.
    IdempotencyKey,
    /// What an expression yields.
    Expression,
    /// Nothing: every delivery starts a run.
    Nothing,
}

/// When the answer is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Respond {
    /// As soon as the run is stored.
    #[default]
    Immediately,
    /// With the run's output, once it has ended; after 25 seconds with 202 and where to find the run.
    WhenFinished,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookResponse {
    /// 200 to 299, but not 206; default 200.
    #[serde(default = "default_status", skip_serializing_if = "is_default_status")]
    pub status: u16,
    /// Headers that say something about the body, and such as begin with `x-`: up to 20.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schema(value_type = std::collections::HashMap<String, String>)]
    pub headers: IndexMap<String, String>,
    /// A text is sent as it is (`text/plain`, unless the headers say otherwise), anything else as JSON: up to 4 KB. With
    /// `respond: when_finished` the body is the run's output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub body: Option<Value>,
}

/// From which web pages browsers may send (<https://fetch.spec.whatwg.org/#http-cors-protocol>).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Origins such as `https://shop.example.com`, or `*` for all: 1 to 20.
    pub origins: Vec<String>,
}

impl Cors {
    /// Whether pages of an origin may send.
    pub fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| allowed == "*" || allowed == origin)
    }
}

/// How many requests a trigger takes: so many a second, and ten times as many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TriggerRate {
    /// 1 to 100,000.
    pub per_second: u32,
}

/// Files that are uploaded for a trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Uploads {
    /// The largest file, in bytes: up to 5,000,000,000; default 100 MiB.
    #[serde(default = "default_upload_bytes")]
    pub max_bytes: u64,
}

fn default_remember() -> Every {
    Every::days(3)
}

fn is_default_remember(every: &Every) -> bool {
    *every == default_remember()
}

fn default_status() -> u16 {
    200
}

fn is_default_status(status: &u16) -> bool {
    *status == default_status()
}

fn default_upload_bytes() -> u64 {
    100 * 1024 * 1024
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl WebhookTrigger {
    /// The methods that it takes.
    pub fn methods(&self) -> &[WebhookMethod] {
        if self.methods.is_empty() { &[WebhookMethod::Post] } else { &self.methods }
    }

    /// What tells a delivery that comes again, if anything does.
    pub fn deduplicates(&self) -> Option<Deduplicate> {
        let by_default = || {
            let has_ids = self.verify.as_ref().is_some_and(|verify| verify.scheme.has_delivery_ids());
            has_ids.then(|| Deduplicate {
                by: DeduplicateBy::DeliveryId,
                expression: None,
                remember: default_remember(),
            })
        };
        self.deduplicate.clone().or_else(by_default).filter(|deduplicate| deduplicate.by != DeduplicateBy::Nothing)
    }

    /// Notes what is wrong with it.
    pub(crate) fn check(&self, at: &Pointer, errors: &mut Vec<FieldError>) {
        if let Some(verify) = &self.verify {
            verify.check(&at.push("verify"), errors);
        }
        let mut ensure = |holds: bool, pointer: Pointer, detail: String| {
            if !holds {
                errors.push(FieldError::new(pointer, detail));
            }
        };
        for (index, method) in self.methods.iter().enumerate() {
            let is_new = !self.methods[..index].contains(method);
            ensure(is_new, at.push("methods").push(index), "is there already; remove it".to_owned());
        }
        let headers = at.push("headers");
        ensure(self.headers.len() <= MAX_HEADERS, headers.clone(), format!("must have at most {MAX_HEADERS} names"));
        for (index, name) in self.headers.iter().enumerate() {
            let lower = name.to_ascii_lowercase();
            let at = headers.push(index);
            ensure(is_header_name(name), at.clone(), "must be the name of a header".to_owned());
            let detail = "holds a credential, which no run sees; `verify` checks it";
            ensure(!UNSEEN.contains(&lower.as_str()), at, detail.to_owned());
        }
        if let Some(deduplicate) = &self.deduplicate {
            self.check_deduplicate(deduplicate, &at.push("deduplicate"), &mut ensure);
        }
        if let Some(response) = &self.response {
            response.check(self.respond, &at.push("response"), &mut ensure);
        }
        if let Some(cors) = &self.cors {
            let at = at.push("cors").push("origins");
            ensure((1..=MAX_ORIGINS).contains(&cors.origins.len()), at.clone(), "must have 1 to 20 origins".to_owned());
            for (index, origin) in cors.origins.iter().enumerate() {
                let detail = "must be an origin as browsers send it, such as \"https://shop.example.com\", or \"*\"";
                ensure(is_origin(origin), at.push(index), detail.to_owned());
            }
        }
        if let Some(rate) = self.rate_limit {
            let detail = format!("must be 1 to {MAX_PER_SECOND}");
            ensure((1..=MAX_PER_SECOND).contains(&rate.per_second), at.push("rate_limit").push("per_second"), detail);
        }
        if let Some(uploads) = self.uploads {
            let detail = format!("must be 1 to {MAX_UPLOAD_BYTES} bytes");
            let holds = (1..=MAX_UPLOAD_BYTES).contains(&uploads.max_bytes);
            ensure(holds, at.push("uploads").push("max_bytes"), detail);
        }
    }

    fn check_deduplicate(
        &self,
        deduplicate: &Deduplicate,
        at: &Pointer,
        ensure: &mut impl FnMut(bool, Pointer, String),
    ) {
        let by_expression = deduplicate.by == DeduplicateBy::Expression;
        let expression = at.push("expression");
        match &deduplicate.expression {
            Some(text) => {
                ensure(by_expression, expression.clone(), "is only for `\"by\": \"expression\"`; remove it".to_owned());
                let detail = format!("must have 1 to {MAX_EXPRESSION_BYTES} bytes");
                ensure((1..=MAX_EXPRESSION_BYTES).contains(&text.trim().len()), expression, detail);
            }
            None => ensure(!by_expression, expression, "is required; for example \"order.id\"".to_owned()),
        }
        if deduplicate.by == DeduplicateBy::DeliveryId {
            let has_ids = self.verify.as_ref().is_some_and(|verify| verify.scheme.has_delivery_ids());
            let schemes: Vec<_> = Scheme::ALL.iter().filter(|scheme| scheme.has_delivery_ids()).collect();
            let names = schemes.iter().map(|scheme| scheme.as_str()).collect::<Vec<_>>().join(", ");
            let detail = format!("takes a scheme in `verify` whose deliveries have ids: {names}");
            ensure(has_ids, at.push("by"), detail);
        }
        let detail = format!("must be at most {MAX_REMEMBERED}: runs are kept for 30 days");
        ensure(deduplicate.remember.minutes() <= MAX_REMEMBERED.minutes(), at.push("remember"), detail);
    }
}

impl WebhookResponse {
    fn check(&self, respond: Respond, at: &Pointer, ensure: &mut impl FnMut(bool, Pointer, String)) {
        let is_status = (200..=299).contains(&self.status) && self.status != 206;
        ensure(is_status, at.push("status"), "must be 200 to 299, but not 206".to_owned());
        let has_body = !matches!(self.status, 204 | 205);
        let detail = format!("a {} has no body, and `when_finished` has one; answer 200", self.status);
        ensure(has_body || respond == Respond::Immediately, at.push("status"), detail);
        let headers = at.push("headers");
        let few = self.headers.len() <= MAX_RESPONSE_HEADERS;
        ensure(few, headers.clone(), format!("must have at most {MAX_RESPONSE_HEADERS}"));
        for (name, value) in &self.headers {
            let at = headers.push(name);
            let lower = name.to_ascii_lowercase();
            let is_private = lower.starts_with("x-") && !NOT_OF_THE_BODY.iter().any(|ours| lower.starts_with(ours));
            let is_fine = is_private || OF_THE_BODY.contains(&lower.as_str());
            ensure(is_header_name(name), at.clone(), "must be the name of a header".to_owned());
            let detail = format!("must be {}, or begin with \"x-\"; others are the platform's", OF_THE_BODY.join(", "));
            ensure(is_fine, at.clone(), detail);
            let is_plain =
                value.len() <= MAX_HEADER_VALUE_BYTES && value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
            ensure(is_plain, at, format!("must be at most {MAX_HEADER_VALUE_BYTES} visible ASCII characters"));
        }
        if let Some(body) = &self.body {
            let at = at.push("body");
            let detail = "is the run's output with `\"respond\": \"when_finished\"`; remove it".to_owned();
            ensure(respond == Respond::Immediately, at.clone(), detail);
            let detail = format!("must have at most {MAX_RESPONSE_BYTES} bytes");
            ensure(body.to_string().len() <= MAX_RESPONSE_BYTES, at.clone(), detail);
            ensure(has_body, at, format!("a {} has none; remove it, or answer 200", self.status));
        }
    }
}

fn is_header_name(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (1..=MAX_HEADER_NAME_BYTES).contains(&name.len()) && name.bytes().all(is_token)
}

/// `scheme://host` or `scheme://host:port`, in lower case, as browsers write it (RFC 6454, section 6.2).
fn is_origin(origin: &str) -> bool {
    let Some((scheme, host)) = origin.split_once("://") else { return origin == "*" };
    let default_port = if scheme == "https" { ":443" } else { ":80" };
    let is_host = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:[]".contains(&byte);
    origin.len() <= MAX_ORIGIN_BYTES
        && matches!(scheme, "http" | "https")
        && !host.is_empty()
        && !host.ends_with(default_port)
        && host.bytes().all(is_host)
}

/// What a webhook's requests are verified with, sealed under the tenant's ingress key, so that ingress opens nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedVerification {
    /// The number of the tenant's data key.
    pub data_key: u32,
    /// The connection's secrets (base64), bound to the workflow.
    pub sealed: String,
    /// Names what it was made of: the connection as it was sealed then.
    pub of: String,
}

/// What a run sees of the request that started it, beside the body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WebhookRequest {
    /// `POST`, `GET`, …
    pub method: String,
    /// The query's parameters; one that is there several times is a list.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub query: Map<String, Value>,
    /// The headers that the trigger names, in lower case; one that is there several times is joined by `, `.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub headers: Map<String, Value>,
    /// The files that came along.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<RunFile>,
}

/// A file that started a run. Nothing in a request's body can pose as one: these are written by ingress alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RunFile {
    /// The form's field that it was sent in; none for an upload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub field: Option<String>,
    /// Its name, as the sender says.
    pub filename: String,
    /// Its media type, as the sender says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub content_type: Option<String>,
    /// Its size.
    pub bytes: u64,
    /// What names it in the actions that take a file: `upload:run_…/0`.
    pub path: String,
}

/// A delivery that was kept to be looked at. What looks like a credential is hidden in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedDelivery {
    /// When it came.
    pub at: Timestamp,
    /// The body's media type.
    pub content_type: Option<String>,
    /// The rest of the request, with all its headers.
    pub request: WebhookRequest,
    /// The body as a run would see it; none where it is larger than 8 KB.
    pub body: Option<Value>,
}

/// What a process has refused of a workflow's deliveries, in the last day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedDeliveries {
    /// How many, by the beginning of the hour and by the reason.
    pub hours: BTreeMap<Timestamp, BTreeMap<String, u64>>,
    /// The last ones, oldest first.
    pub last: Vec<RejectedDelivery>,
}

/// A delivery that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedDelivery {
    /// When it came.
    pub at: Timestamp,
    /// Why, in a word: `signature_mismatch`.
    pub reason: String,
    /// Why, in a sentence.
    pub detail: String,
    /// The request's method.
    pub method: String,
    /// From which address it came, as far as that is known.
    pub address: Option<String>,
    /// The names of its headers.
    pub headers: Vec<String>,
}

impl RejectedDeliveries {
    /// How many of the last are kept.
    const LAST: usize = 5;

    /// How many by the reason, in the 24 hours before a time.
    pub fn since_a_day(&self, now: Timestamp) -> BTreeMap<String, u64> {
        let mut reasons = BTreeMap::new();
        for (_, of_hour) in self.hours.range(first_hour(now)..) {
            for (reason, count) in of_hour {
                *reasons.entry(reason.clone()).or_default() += count;
            }
        }
        reasons
    }

    /// Notes one more.
    pub fn add(&mut self, rejected: RejectedDelivery) {
        let first = first_hour(rejected.at);
        self.hours.retain(|hour, _| *hour >= first);
        *self.hours.entry(hour_of(rejected.at)).or_default().entry(rejected.reason.clone()).or_default() += 1;
        if self.last.len() >= Self::LAST {
            self.last.remove(0);
        }
        self.last.push(rejected);
    }
}

/// The beginning of an hour.
fn hour_of(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second().div_euclid(3_600) * 3_600).unwrap_or(at)
}

/// The beginning of the first of the 24 hours that end with the one of a time.
fn first_hour(at: Timestamp) -> Timestamp {
    hour_of(at).checked_sub(SignedDuration::from_hours(23)).unwrap_or(Timestamp::MIN)
}
