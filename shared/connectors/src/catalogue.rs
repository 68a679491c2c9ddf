//! The connectors and actions there are, and the types they are written in.

use http::Method;
use serde_json::Value;
use tidegate_egress::{Effect, is_reserved_header};
use tidegate_model::{FieldError, Pointer};
use url::{Host, Url};

use crate::Schema;

/// What talks to one outside system.
pub struct Connector {
    /// Its name in `connection.connector`: `slack`.
    pub name: &'static str,
    /// Its name for display.
    pub title: &'static str,
    /// What a connection's secret looks like.
    pub secret: Schema,
    /// Which hosts that secret may be sent to.
    pub hosts: HostRule,
    /// What it can do.
    pub actions: &'static [Action],
}

/// Where a connection's hosts come from; they are fixed when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostRule {
    /// The secret's field holds a URL, whose host is the only one.
    OfUrl {
        /// The field.
        field: &'static str,
    },
    /// Whoever makes the connection lists them.
    Given,
}

/// One thing that a connector does.
pub struct Action {
    /// Its name in a step's `uses`: `slack.send_message`.
    pub name: &'static str,
    /// The connector that it belongs to.
    pub connector: &'static str,
    /// Its name for display.
    pub title: &'static str,
    /// Whether it takes a connection.
    pub connection: Need,
    /// Whether it only reads.
    pub effect: EffectRule,
    /// Whether the target honours an idempotency key, so that a call in doubt may be repeated under the same one.
    pub idempotent: bool,
    /// What its input looks like.
    pub input: Schema,
    /// How its request is made.
    pub request: RequestShape,
    /// How its answer is read.
    pub answer: AnswerShape,
}

/// Whether an action takes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It can't be called without one.
    Required,
    /// It can be called with or without one.
    Optional,
}

/// Whether an action only reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EffectRule {
    /// It changes something at the target.
    Writes,
    /// `GET`, `HEAD` and `OPTIONS` read, every other method writes.
    ByMethod,
}

/// How an action's request is made of its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestShape {
    /// `POST` of the input, as JSON, to the URL in the secret's field.
    PostToSecretUrl {
        /// The field.
        field: &'static str,
    },
    /// The input says it all: `method`, `url`, `headers`, `query`, `json` or `body`.
    Http,
}

/// How an action's answer is read. Statuses 200 to 299 are successes; 408, 425, 429 and 5xx may pass; the rest won't.
#[derive(Debug, Clone, Copy)]
pub struct AnswerShape {
    /// Where the answer says what went wrong.
    pub error_text: ErrorText,
    /// What to do about errors that the vendor documents, by their text.
    pub hints: &'static [(&'static str, &'static str)],
    /// The member of a JSON answer that says, in seconds, when to try again; it goes before `Retry-After`, which is
    /// rounded up.
    pub retry_after_field: Option<&'static str>,
    /// Whether the step yields the answer's headers too.
    pub headers: bool,
}

/// Where an answer says what went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorText {
    /// The whole answer says it.
    Body,
    /// The string in this member of a JSON answer, or else the whole answer.
    Member(&'static str),
}

/// Slack's incoming webhooks: <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>; error
/// texts there and at <https://api.slack.com/changelog/2016-05-17-changes-to-errors-for-incoming-webhooks>, limits at
/// <https://docs.slack.dev/apis/web-api/rate-limits>.
static SLACK: Connector = Connector {
    name: "slack",
    title: "Slack",
    secret: Schema::new(WEBHOOK_URL_SECRET),
    hosts: HostRule::OfUrl { field: "webhook_url" },
    actions: &SLACK_ACTIONS,
};

static SLACK_ACTIONS: [Action; 1] = [Action {
    name: "slack.send_message",
    connector: "slack",
    title: "Send a message",
    connection: Need::Required,
    effect: EffectRule::Writes,
    idempotent: false,
    input: Schema::new(
        r#"{
            "type": "object",
            "properties": {
                "text": {"title": "Text", "type": "string", "minLength": 1, "maxLength": 40000},
                "blocks": {"title": "Blocks", "type": "array", "items": {"type": "object"}, "minItems": 1, "maxItems": 50},
                "attachments": {"title": "Attachments", "type": "array", "items": {"type": "object"}, "maxItems": 100},
                "channel": {"title": "Channel (legacy webhooks only)", "type": "string", "minLength": 1},
                "username": {"title": "User name (legacy webhooks only)", "type": "string", "minLength": 1},
                "icon_emoji": {"title": "Icon (legacy webhooks only)", "type": "string"},
                "icon_url": {"title": "Icon URL (legacy webhooks only)", "type": "string"},
                "thread_ts": {"title": "Thread", "type": "string", "minLength": 1},
                "mrkdwn": {"title": "Format the text", "type": "boolean"},
                "unfurl_links": {"title": "Unfurl links", "type": "boolean"},
                "unfurl_media": {"title": "Unfurl media", "type": "boolean"}
            },
            "anyOf": [{"required": ["text"]}, {"required": ["blocks"]}, {"required": ["attachments"]}],
            "additionalProperties": false
        }"#,
    ),
    request: RequestShape::PostToSecretUrl { field: "webhook_url" },
    answer: AnswerShape {
        error_text: ErrorText::Body,
        hints: &[
            ("invalid_payload", "check the step's blocks and attachments against Slack's Block Kit"),
            ("invalid_blocks", "check the step's blocks against Slack's Block Kit"),
            ("no_text", "give the step a text"),
            ("too_many_attachments", "send at most 100 attachments"),
            ("user_not_found", "the user the webhook posts to is gone; make a new webhook"),
            ("channel_not_found", "the channel the webhook posts to is gone; make a new webhook and connection"),
            ("channel_is_archived", "unarchive the channel, or make a new webhook and connection for another one"),
            ("action_prohibited", "the workspace's administrators don't allow this webhook to post"),
            ("posting_to_general_channel_denied", "the workspace's administrators don't allow posting to #general"),
            ("invalid_token", "the webhook's URL is wrong or was revoked; make a new webhook and connection"),
            ("no_service", "the webhook was disabled or removed; make a new webhook and connection"),
            ("no_service_id", "the webhook's URL is wrong; make a new webhook and connection"),
            ("no_active_hooks", "the webhook was disabled; enable it, or make a new webhook and connection"),
            ("no_team", "the workspace in the webhook's URL doesn't exist"),
            ("team_disabled", "the Slack workspace is not active any more"),
        ],
        retry_after_field: None,
        headers: false,
    },
}];

/// Discord's webhooks: <https://discord.com/developers/docs/resources/webhook#execute-webhook>, limits at
/// <https://discord.com/developers/docs/topics/rate-limits>, errors at
/// <https://discord.com/developers/docs/topics/opcodes-and-status-codes#json>. A URL with `?wait=true` makes Discord
/// answer only once the message is saved.
static DISCORD: Connector = Connector {
    name: "discord",
    title: "Discord",
    secret: Schema::new(WEBHOOK_URL_SECRET),
    hosts: HostRule::OfUrl { field: "webhook_url" },
    actions: &DISCORD_ACTIONS,
};

static DISCORD_ACTIONS: [Action; 1] = [Action {
    name: "discord.send_message",
    connector: "discord",
    title: "Send a message",
    connection: Need::Required,
    effect: EffectRule::Writes,
    idempotent: false,
    input: Schema::new(
        r#"{
            "type": "object",
            "properties": {
                "content": {"title": "Text", "type": "string", "minLength": 1, "maxLength": 2000},
                "embeds": {"title": "Embeds", "type": "array", "items": {"type": "object"}, "minItems": 1, "maxItems": 10},
                "components": {"title": "Components", "type": "array", "items": {"type": "object"}, "minItems": 1},
                "poll": {"title": "Poll", "type": "object"},
                "username": {"title": "User name", "type": "string", "minLength": 1, "maxLength": 80},
                "avatar_url": {"title": "Avatar's URL", "type": "string"},
                "tts": {"title": "Read aloud", "type": "boolean"},
                "allowed_mentions": {"title": "Allowed mentions", "type": "object"},
                "flags": {"title": "Flags", "type": "integer", "minimum": 0},
                "thread_name": {"title": "New thread's name", "type": "string", "minLength": 1, "maxLength": 100},
                "applied_tags": {"title": "Thread's tags", "type": "array", "items": {"type": "string"}}
            },
            "anyOf": [
                {"required": ["content"]}, {"required": ["embeds"]}, {"required": ["components"]}, {"required": ["poll"]}
            ],
            "additionalProperties": false
        }"#,
    ),
    request: RequestShape::PostToSecretUrl { field: "webhook_url" },
    answer: AnswerShape {
        error_text: ErrorText::Member("message"),
        hints: &[
            ("Unknown Webhook", "the webhook was deleted; make a new webhook and connection"),
            ("Invalid Webhook Token", "the webhook's URL is wrong; make a new webhook and connection"),
            ("Cannot send an empty message", "give the step a content or embeds"),
        ],
        retry_after_field: Some("retry_after"),
        headers: false,
    },
}];

/// Any HTTP API; semantics of RFC 9110.
static HTTP: Connector = Connector {
    name: "http",
    title: "HTTP",
    secret: Schema::new(
        r#"{
            "type": "object",
            "properties": {"type": {"enum": ["bearer", "basic", "header"]}},
            "required": ["type"],
            "oneOf": [
                {
                    "properties": {
                        "type": {"const": "bearer"},
                        "token": {"type": "string", "minLength": 1, "maxLength": 16384}
                    },
                    "required": ["token"], "additionalProperties": false
                },
                {
                    "properties": {
                        "type": {"const": "basic"},
                        "username": {"type": "string", "maxLength": 1024},
                        "password": {"type": "string", "maxLength": 16384}
                    },
                    "required": ["username", "password"], "additionalProperties": false
                },
                {
                    "properties": {
                        "type": {"const": "header"},
                        "name": {"type": "string", "minLength": 1, "maxLength": 256},
                        "value": {"type": "string", "minLength": 1, "maxLength": 16384}
                    },
                    "required": ["name", "value"], "additionalProperties": false
                }
            ]
        }"#,
    ),
    hosts: HostRule::Given,
    actions: &HTTP_ACTIONS,
};

static HTTP_ACTIONS: [Action; 1] = [Action {
    name: "http.request",
    connector: "http",
    title: "Send a request",
    connection: Need::Optional,
    effect: EffectRule::ByMethod,
    idempotent: false,
    input: Schema::new(
        r#"{
            "type": "object",
            "properties": {
                "method": {
                    "title": "Method", "enum": ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
                },
                "url": {"title": "URL", "type": "string", "minLength": 1, "maxLength": 8192},
                "headers": {
                    "title": "Headers", "type": "object", "maxProperties": 100,
                    "additionalProperties": {"type": ["string", "number", "boolean"]}
                },
                "query": {
                    "title": "Query", "type": "object", "maxProperties": 200,
                    "additionalProperties": {
                        "type": ["string", "number", "boolean", "null", "array"],
                        "items": {"type": ["string", "number", "boolean"]}
                    }
                },
                "json": {"title": "JSON body"},
                "body": {"title": "Text body", "type": "string"}
            },
            "required": ["method", "url"],
            "not": {"required": ["json", "body"]},
            "additionalProperties": false
        }"#,
    ),
    request: RequestShape::Http,
    answer: AnswerShape { error_text: ErrorText::Body, hints: &[], retry_after_field: None, headers: true },
}];

const WEBHOOK_URL_SECRET: &str = r#"{
    "type": "object",
    "properties": {"webhook_url": {"title": "Webhook URL", "type": "string", "minLength": 1, "maxLength": 2048}},
    "required": ["webhook_url"],
    "additionalProperties": false
}"#;

const MAX_HOSTS: usize = 20;

static CONNECTORS: [&Connector; 3] = [&SLACK, &DISCORD, &HTTP];

/// Every connector there is.
pub fn connectors() -> impl Iterator<Item = &'static Connector> {
    CONNECTORS.into_iter()
}

/// Every action there is.
pub fn actions() -> impl Iterator<Item = &'static Action> {
    connectors().flat_map(|connector| connector.actions)
}

/// The connector of this name.
pub fn connector(name: &str) -> Option<&'static Connector> {
    connectors().find(|connector| connector.name == name)
}

/// The action of this name, such as `slack.send_message`.
pub fn action(name: &str) -> Option<&'static Action> {
    actions().find(|action| action.name == name)
}

impl Connector {
    /// What is wrong with a connection's secret; pointers are relative to it, details never repeat a value.
    pub fn validate_secret(&self, secret: &Value) -> Vec<FieldError> {
        let mut errors = self.secret.errors(secret, |_| false);
        if errors.is_empty() {
            errors.extend(self.url_of(secret).and_then(Result::err));
            errors.extend(header_error(secret));
        }
        errors
    }

    /// The hosts that a valid secret may be sent to, from the secret or from the list given with it: `host` or
    /// `host:port`, lower case, without the scheme's own port.
    ///
    /// # Errors
    /// Pointers are relative to the connection: `/data/webhook_url`, `/hosts/0`.
    pub fn hosts_of(&self, secret: &Value, given: &[String]) -> Result<Vec<String>, Vec<FieldError>> {
        let hosts = Pointer::root().push("hosts");
        match self.url_of(secret) {
            Some(_) if !given.is_empty() => {
                Err(vec![FieldError::new(hosts, "must be left out: the host is that of the connection's URL")])
            }
            Some(Ok(url)) => Ok(vec![host_of(&url)]),
            Some(Err(error)) => {
                let pointer = Pointer::from(format!("/data{}", error.pointer).as_str());
                Err(vec![FieldError::new(pointer, error.detail)])
            }
            None if given.is_empty() => Err(vec![FieldError::new(
                hosts,
                "is required: list the hosts that the secret may be sent to, such as \"api.example.com\"",
            )]),
            None if given.len() > MAX_HOSTS => {
                Err(vec![FieldError::new(hosts, format!("must have at most {MAX_HOSTS} elements"))])
            }
            None => {
                let (parsed, failed): (Vec<_>, Vec<_>) = given
                    .iter()
                    .enumerate()
                    .map(|(index, text)| {
                        parse_host(text).ok_or_else(|| {
                            let detail = "expected a host such as \"api.example.com\" or \"api.example.com:8443\", \
                                          without scheme, path or wildcard";
                            FieldError::new(hosts.push(index), detail)
                        })
                    })
                    .partition(Result::is_ok);
                if failed.is_empty() {
                    let mut parsed: Vec<String> = parsed.into_iter().flatten().collect();
                    parsed.sort();
                    parsed.dedup();
                    Ok(parsed)
                } else {
                    Err(failed.into_iter().filter_map(Result::err).collect())
                }
            }
        }
    }

    /// The URL in the secret of a connector whose secret is one.
    fn url_of(&self, secret: &Value) -> Option<Result<Url, FieldError>> {
        let HostRule::OfUrl { field } = self.hosts else { return None };
        let text = secret.get(field).and_then(Value::as_str).unwrap_or_default();
        Some(parse_secret_url(text).map_err(|detail| FieldError::new(Pointer::root().push(field), detail)))
    }
}

impl Action {
    /// The connector that the action belongs to.
    pub fn connector(&self) -> Option<&'static Connector> {
        connector(self.connector)
    }

    /// Whether a call with this input only reads.
    pub fn effect(&self, input: &Value) -> Effect {
        match self.effect {
            EffectRule::Writes => Effect::Write,
            EffectRule::ByMethod => {
                let method = input.get("method").and_then(Value::as_str).unwrap_or_default();
                let reads = [Method::GET, Method::HEAD, Method::OPTIONS].iter().any(|read| read.as_str() == method);
                if reads { Effect::Read } else { Effect::Write }
            }
        }
    }
}

/// A URL that is itself a secret: https, or plain http within one's own network, where no certificate is to be had.
fn parse_secret_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "expected a URL such as https://hooks.slack.com/services/…")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not have a user name or password");
    }
    if url.fragment().is_some() {
        return Err("must not have a fragment (#…)");
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_own_network(&url) => Ok(url),
        "http" => Err("must begin with https://; plain http is only for hosts in your own network"),
        _ => Err("must begin with https://"),
    }
}

fn is_own_network(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback() || address.is_private() || address.is_link_local(),
        Some(Host::Ipv6(address)) => address.is_loopback() || address.is_unique_local(),
        Some(Host::Domain(name)) => {
            !name.contains('.') || [".localhost", ".local", ".internal"].iter().any(|suffix| name.ends_with(suffix))
        }
        None => false,
    }
}

fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// A host as a URL has it: lower case, punycode, the port only where it is not 443.
fn parse_host(text: &str) -> Option<String> {
    let plain = !text.is_empty() && !text.contains(['/', '?', '#', '@', '\\', '*', '%']) && text.trim() == text;
    let url = Url::parse(&format!("https://{text}/")).ok().filter(|_| plain)?;
    Some(host_of(&url))
}

/// A header's name and value must be ones that HTTP can carry.
fn header_error(secret: &Value) -> Option<FieldError> {
    let text = |field: &str| secret.get(field).and_then(Value::as_str);
    if let Some(name) = text("name") {
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Some(FieldError::new("/name".into(), "is not a header's name"));
        }
        if is_reserved_header(name) {
            return Some(FieldError::new("/name".into(), "is set by the connection itself; choose another header"));
        }
    }
    if text("username").is_some_and(|name| name.contains(':')) {
        return Some(FieldError::new("/username".into(), "must not have a colon: basic authentication can't carry it"));
    }
    let carried = |field: &str| text(field).is_none_or(|value| http::HeaderValue::from_str(value).is_ok());
    ["token", "value"]
        .into_iter()
        .find(|field| !carried(field))
        .map(|field| FieldError::new(Pointer::root().push(field), "has characters that a header can't carry"))
}
