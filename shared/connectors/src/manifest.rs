//! The connector manifest as it is written: the format of `docs/connector-manifest.md`, in the order of that page. Reading and
//! checking a text is `check.rs`'s.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidegate_model::ClientAuth;

/// A connector, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// All but its actions.
    #[serde(flatten)]
    pub connector: ConnectorDocument,
    /// What it can do, by name.
    pub actions: IndexMap<String, ActionDocument>,
}

/// What a manifest says besides its actions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectorDocument {
    /// The format's version: 1.
    pub format: u32,
    /// What steps write before the dot.
    pub name: String,
    /// Its name for display.
    pub title: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The name of an icon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icon: Option<String>,
    /// The vendor's documentation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docs: Option<String>,
    /// What kind of system it is.
    #[serde(default)]
    pub category: Category,
    /// The hosts that its requests may go to.
    pub hosts: Hosts,
    /// What the `path` of a request follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// Headers of all its requests.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub headers: Map<String, Value>,
    /// The ways to sign in, the usual one first.
    pub auth: Vec<SignIn>,
    /// How many requests a connection may make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// A request that shows that a connection works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<TestRequest>,
    /// What answers mean, for all actions.
    #[serde(flatten)]
    pub answers: Answers,
}

/// What kind of system a connector talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "they say what they are")]
pub enum Category {
    Communication,
    Commerce,
    Crm,
    Data,
    Developer,
    Email,
    Files,
    Information,
    Marketing,
    Payments,
    Productivity,
    #[default]
    Other,
}

/// Where requests may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Hosts {
    /// To these, which may hold fields of the connection.
    Listed(Vec<String>),
    /// To those that whoever makes a connection lists.
    Given(Given),
}

/// The word for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Given {
    /// `given`
    Given,
}

/// A way to sign in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignIn {
    /// Its name, in a connection's `auth`.
    pub id: String,
    /// Its name for display.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Where to get what is entered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The vendor's page about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docs: Option<String>,
    /// Fields beside, or instead of, those that the type brings.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub fields: IndexMap<String, Field>,
    /// What it is.
    #[serde(flatten)]
    pub kind: SignInKind,
}

/// What a way to sign in is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SignInKind {
    /// There is none.
    None,
    /// A key in a header or in the query.
    ApiKey {
        /// Where.
        #[serde(rename = "in")]
        place: KeyPlace,
        /// The header's or parameter's name.
        name: String,
        /// What stands before the key.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        prefix: String,
        /// The key, where it isn't the field `api_key`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<String>,
    },
    /// `Authorization: Bearer`.
    Bearer {
        /// The token, where it isn't the field `token`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
    },
    /// `Authorization: Basic`.
    Basic {
        /// The user name, where it isn't the field `username`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        username: Option<String>,
        /// The password, where it isn't the field `password`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        password: Option<String>,
    },
    /// The field `webhook_url` is the requests' URL.
    Url,
    /// OAuth 2.0's authorization code (RFC 6749, section 4.1) with PKCE (RFC 7636).
    #[serde(rename = "oauth2")]
    OAuth2(OAuth2),
    /// Fields of the connector's own, put where the templates say.
    Custom {
        /// Headers by name.
        #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
        headers: IndexMap<String, String>,
        /// Parameters of the query by name.
        #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
        query: IndexMap<String, String>,
    },
}

/// Where an API key goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyPlace {
    /// Into a header.
    Header,
    /// Into the URL's query.
    Query,
}

/// How one signs in at the vendor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OAuth2 {
    /// The provider that the installation has a client at; it brings the URLs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Where one signs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_url: Option<String>,
    /// Where tokens come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_url: Option<String>,
    /// What is asked for.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// What stands between scopes, where it isn't a space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope_separator: Option<String>,
    /// Whether the vendor takes PKCE; it does unless it says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pkce: Option<bool>,
    /// How the client says who it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<ClientAuth>,
    /// Further parameters of the authorization URL.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub authorize_params: IndexMap<String, String>,
}

/// What is entered to make a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// Its name for display.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Where to find it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Whether it is sealed and never shown again.
    #[serde(default = "yes")]
    pub secret: bool,
    /// Whether there must be one.
    #[serde(default = "yes")]
    pub required: bool,
    /// A regular expression that it has to match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// What one looks like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub example: Option<String>,
    /// What it is where it isn't given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// What it can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<Vec<String>>,
}

fn yes() -> bool {
    true
}

/// How many requests a connection may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// So many,
    pub requests: u32,
    /// in so many seconds.
    pub per_seconds: u32,
}

/// A request that only reads, and shows that a connection works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestRequest {
    /// The request.
    pub request: RequestTemplate,
    /// Whose the credential is, by its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The ways to sign in that it works with; without it all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Vec<String>>,
}

/// What answers mean, and what the vendor answers when it fails.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Answers {
    /// Rules, of which the first that fits counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ErrorRule>,
    /// What the vendor says went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// When the next call may be made, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<String>,
    /// What to do about some of the vendor's texts.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub hints: IndexMap<String, String>,
    /// Failures as the vendor documents them.
    #[serde(default, skip_serializing_if = "Recorded::is_empty")]
    pub recorded: Recorded,
}

/// What some answers mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorRule {
    /// Which answers: an expression that is true for them.
    pub when: String,
    /// What they mean.
    pub is: Meaning,
    /// What the vendor says went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// When the next call may be made, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<String>,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meaning {
    /// The call failed, and would again.
    Failed,
    /// It may pass.
    Retryable,
    /// There were too many calls.
    RateLimited,
    /// The credential is refused.
    ConnectionBroken,
    /// It is not what the vendor promises.
    Invalid,
    /// It is a success.
    Ok,
}

/// Failures as the vendor documents them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// The credential is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_failure: Option<RecordedAnswer>,
    /// Too many calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limited: Option<RecordedAnswer>,
    /// The vendor's own fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_error: Option<RecordedAnswer>,
    /// Not what is promised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub malformed: Option<RecordedAnswer>,
}

impl Recorded {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An answer as the vendor gives it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedAnswer {
    /// The status.
    pub status: u16,
    /// The headers that matter.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub headers: IndexMap<String, String>,
    /// The body: a text as it is, anything else as JSON; without it, or `null`, empty.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub body: Value,
}

/// One thing that a connector does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActionDocument {
    /// Its name for display.
    pub title: String,
    /// What it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The page of the vendor's documentation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docs: Option<String>,
    /// Whether it only reads.
    pub effect: EffectRule,
    /// Whether the vendor honours `Idempotency-Key`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idempotent: bool,
    /// The ways to sign in that it works with; without it all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Vec<String>>,
    /// Whether it needs a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<Need>,
    /// What its input looks like: a JSON Schema (draft 2020-12).
    pub input: Value,
    /// The request that is made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestTemplate>,
    /// Or the code of our own that carries it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<Native>,
    /// What the answer is.
    #[serde(default, skip_serializing_if = "AnswerKind::is_json")]
    pub answer: AnswerKind,
    /// What the step yields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// How there is more than one page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paging: Option<Paging>,
    /// What its answers mean, before what the connector says of all.
    #[serde(flatten)]
    pub answers: Answers,
    /// One call, from input to output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub example: Option<Example>,
}

/// Whether an action only reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EffectRule {
    /// It changes nothing.
    Read,
    /// It may change something.
    Write,
    /// `GET`, `HEAD` and `OPTIONS` read, every other method writes.
    ByMethod,
}

/// Whether an action takes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// It can't be called without one.
    Required,
    /// It can be called with or without one.
    Optional,
    /// It takes none.
    None,
}

/// Code of our own that carries an action out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Native {
    /// Any HTTP request.
    HttpRequest,
    /// Mail over SMTP.
    Smtp,
    /// The tenant's files.
    Storage,
}

/// What an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerKind {
    /// JSON, or empty.
    #[default]
    Json,
    /// Text, whatever its content type says.
    Text,
    /// JSON where its content type says so, else text or bytes.
    Any,
}

impl AnswerKind {
    fn is_json(&self) -> bool {
        *self == Self::Json
    }
}

/// A request with expressions in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestTemplate {
    /// The method.
    pub method: String,
    /// What follows `base_url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A whole URL instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The query's parameters.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub query: Map<String, Value>,
    /// The headers.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub headers: Map<String, Value>,
    /// A body of JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
    /// A body of form fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<Value>,
    /// A body of text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// How lists go out in `query` and `form`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lists: Option<ListStyle>,
}

/// How a list goes out in a query or form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListStyle {
    /// `a=1&a=2`
    #[default]
    Repeated,
    /// `a[]=1&a[]=2`
    Brackets,
    /// `a[0]=1&a[1]=2`
    Indexed,
}

/// How the pages of an answer follow each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Paging {
    /// The list within a page: an expression.
    pub items: String,
    /// How the next page is asked for.
    #[serde(flatten)]
    pub next: NextPage,
}

/// How the next page is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NextPage {
    /// By a cursor of the page before.
    Cursor {
        /// The cursor: an expression.
        value: String,
        /// The query's parameter that it is sent in,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        query: Option<String>,
        /// or the JSON body's member.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        json: Option<String>,
    },
    /// By an address in the page before: an expression.
    NextUrl(String),
    /// By the `Link` header (RFC 8288).
    Link(bool),
    /// By a number.
    Page {
        /// The query's parameter.
        query: String,
        /// The first page's number.
        #[serde(default = "one")]
        first: u32,
        /// How many items a full page has: one with fewer is the last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<usize>,
    },
    /// By the count of the items before.
    Offset {
        /// The query's parameter.
        query: String,
        /// How many items a full page has: one with fewer is the last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<usize>,
    },
}

fn one() -> u32 {
    1
}

/// One call, from input to output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// What the step gives.
    pub input: Map<String, Value>,
    /// The request that is made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RecordedRequest>,
    /// What the vendor answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<RecordedAnswer>,
    /// What the step yields.
    #[serde(default)]
    pub output: Value,
}

/// A request as it goes out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedRequest {
    /// The method.
    pub method: String,
    /// The whole path, escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The query's parameters.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub query: IndexMap<String, Value>,
    /// The headers that matter.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub headers: IndexMap<String, String>,
    /// The body, as JSON,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
    /// as form fields,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<IndexMap<String, Value>>,
    /// or as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}
