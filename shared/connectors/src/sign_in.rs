//! Making a connection: which fields a way to sign in has, what is wrong with those that were entered, and where the secret
//! ones go.

use indexmap::IndexMap;
use serde_json::{Map, Value, json};
use tidegate_egress::is_reserved_header;
use tidegate_model::{FieldError, Placed, Placeholder, Placement, Pointer, SecretText};
use url::{Host, Url};

use crate::manifest::{ConnectorDocument, Field, Hosts, KeyPlace, SignIn, SignInKind};

/// What goes into a request where the manifest says nothing else.
pub(crate) const API_KEY: &str = "{{ secret.api_key }}";
pub(crate) const TOKEN: &str = "{{ secret.token }}";
pub(crate) const USERNAME: &str = "{{ secret.username }}";
pub(crate) const PASSWORD: &str = "{{ secret.password }}";

const MAX_HOSTS: usize = 20;
/// The longest value of a field, in bytes: a private key fits.
const MAX_VALUE_BYTES: usize = 16 * 1024;

/// What was entered, sorted.
#[derive(Clone, PartialEq)]
pub struct Entered {
    /// The fields that aren't secret.
    pub settings: Map<String, Value>,
    /// Those that are.
    pub secret: Map<String, Value>,
}

/// What a connection may do, as a manifest says: fixed when it is made, and by consent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The hosts its secret may be sent to, sorted.
    pub hosts: Vec<String>,
    /// Where the secret goes.
    pub placement: Placement,
}

impl SignIn {
    /// What is entered: the fields that the type brings, as the manifest describes them, and the manifest's own.
    pub fn all_fields(&self) -> IndexMap<String, Field> {
        let field = |title: &str, secret, required| Field {
            title: Some(title.to_owned()),
            help: None,
            secret,
            required,
            pattern: None,
            example: None,
            default: None,
            options: None,
        };
        let names: &[(&str, &str, bool)] = match &self.kind {
            SignInKind::None | SignInKind::Custom { .. } => &[],
            SignInKind::ApiKey { value: None, .. } => &[("api_key", "API key", true)],
            SignInKind::Bearer { token: None } => &[("token", "Token", true)],
            SignInKind::Basic { username: None, password: None } => {
                &[("username", "User name", true), ("password", "Password", true)]
            }
            SignInKind::Basic { username: None, .. } => &[("username", "User name", true)],
            SignInKind::Basic { password: None, .. } => &[("password", "Password", true)],
            SignInKind::Url => &[("webhook_url", "Webhook URL", true)],
            SignInKind::OAuth2(_) => &[
                ("access_token", "Access token", false),
                ("refresh_token", "Refresh token", false),
                ("client_id", "Client ID", false),
                ("client_secret", "Client secret", false),
            ],
            SignInKind::ApiKey { .. } | SignInKind::Bearer { .. } | SignInKind::Basic { .. } => &[],
        };
        let mut fields: IndexMap<String, Field> =
            names.iter().map(|(name, title, required)| ((*name).to_owned(), field(title, true, *required))).collect();
        fields.extend(self.fields.clone());
        fields
    }

    /// The fields as a JSON Schema, for forms.
    pub fn schema(&self) -> Value {
        let fields = self.all_fields();
        let properties: Map<String, Value> = fields
            .iter()
            .map(|(name, field)| {
                let mut schema = json!({
                    "type": "string", "title": field.title, "description": field.help, "pattern": field.pattern,
                    "default": field.default, "enum": field.options, "maxLength": MAX_VALUE_BYTES,
                });
                if let Some(schema) = schema.as_object_mut() {
                    schema.retain(|_, value| !value.is_null());
                    if let Some(example) = &field.example {
                        schema.insert("examples".to_owned(), json!([example]));
                    }
                    if field.secret {
                        schema.insert("x-ui".to_owned(), json!("secret"));
                    }
                }
                (name.clone(), schema)
            })
            .collect();
        let required: Vec<_> = fields
            .iter()
            .filter(|(_, field)| field.required && field.default.is_none())
            .map(|(name, _)| name)
            .collect();
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
    }

    /// Sorts what was entered. Numbers and booleans count as their text.
    ///
    /// # Errors
    /// Fields that are missing, unknown or don't fit; pointers are relative to it, details never repeat a value.
    pub fn enter(&self, data: &Map<String, Value>) -> Result<Entered, Vec<FieldError>> {
        let fields = self.all_fields();
        let at = |name: &str| Pointer::root().push(name);
        let mut errors = Vec::new();
        for name in data.keys().filter(|name| *name != "type" && !fields.contains_key(*name)) {
            let known: Vec<_> = fields.keys().map(String::as_str).collect();
            let known =
                if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
            errors.push(FieldError::new(at(name), format!("unknown field of {:?}: {known}", self.id)));
        }
        let mut entered = Entered { settings: Map::new(), secret: Map::new() };
        for (name, field) in &fields {
            let text = match data.get(name) {
                Some(Value::String(text)) => Some(text.clone()),
                Some(Value::Number(number)) => Some(number.to_string()),
                Some(Value::Bool(value)) => Some(value.to_string()),
                Some(Value::Null) | None => field.default.clone(),
                Some(Value::Array(_) | Value::Object(_)) => {
                    errors.push(FieldError::new(at(name), "expected a string"));
                    continue;
                }
            };
            let may_be_empty = !field.required || matches!(self.kind, SignInKind::Basic { .. });
            let Some(text) = text.filter(|text| !text.is_empty() || may_be_empty) else {
                if field.required {
                    let detail = if data.contains_key(name) { "must not be empty" } else { "is required" };
                    errors.push(FieldError::new(at(name), detail));
                }
                continue;
            };
            if let Some(detail) = field.fault(&text) {
                errors.push(FieldError::new(at(name), detail));
                continue;
            }
            let into = if field.secret { &mut entered.secret } else { &mut entered.settings };
            into.insert(name.clone(), Value::String(text));
        }
        if errors.is_empty() { Ok(entered) } else { Err(errors) }
    }

    /// Where the secret goes, for these settings.
    ///
    /// # Errors
    /// What a request can't carry; pointers are relative to what was entered.
    fn placement(&self, settings: &Map<String, Value>) -> Result<Placement, FieldError> {
        let setting = |name: &str| Some(settings.get(name)?.as_str()?.to_owned());
        let unusable = |error: tidegate_model::PlaceholderError| FieldError::new(Pointer::root(), error.to_string());
        let text =
            |text: Option<&str>, default: &str| SecretText::read(text.unwrap_or(default), setting).map_err(unusable);
        let named = |name: &str| Placeholder::fill(name, setting).map_err(unusable);
        let authorization =
            |placed| Placement { headers: vec![("authorization".to_owned(), placed)], ..Placement::default() };
        Ok(match &self.kind {
            SignInKind::None => Placement::default(),
            SignInKind::ApiKey { place, name, prefix, value } => {
                let value = value.as_deref().unwrap_or(API_KEY);
                let placed = Placed::Text(text(Some(&format!("{prefix}{value}")), "")?);
                match place {
                    KeyPlace::Header => Placement { headers: vec![(name.clone(), placed)], ..Placement::default() },
                    KeyPlace::Query => Placement { query: vec![(name.clone(), placed)], ..Placement::default() },
                }
            }
            SignInKind::Bearer { token } => {
                let token = token.as_deref().unwrap_or(TOKEN);
                authorization(Placed::Text(text(Some(&format!("Bearer {token}")), "")?))
            }
            SignInKind::Basic { username, password } => authorization(Placed::Basic {
                username: text(username.as_deref(), USERNAME)?,
                password: text(password.as_deref(), PASSWORD)?,
            }),
            SignInKind::Url => Placement { url: Some("webhook_url".to_owned()), ..Placement::default() },
            SignInKind::OAuth2(_) => authorization(Placed::Text(text(None, "Bearer {{ secret.access_token }}")?)),
            SignInKind::Custom { headers, query } => {
                let mut placement = Placement::default();
                for (name, value) in headers {
                    let (name, at) = (named(name)?, only_setting(name));
                    if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
                        return Err(FieldError::new(at, "is not a header's name"));
                    }
                    if is_reserved_header(&name) {
                        return Err(FieldError::new(at, "is set by the connection itself; choose another header"));
                    }
                    placement.headers.push((name, Placed::Text(text(Some(value), "")?)));
                }
                for (name, value) in query {
                    placement.query.push((named(name)?, Placed::Text(text(Some(value), "")?)));
                }
                placement
            }
        })
    }
}

impl Field {
    /// What is wrong with a value.
    fn fault(&self, text: &str) -> Option<String> {
        if text.len() > MAX_VALUE_BYTES {
            return Some(format!("must have at most {MAX_VALUE_BYTES} bytes"));
        }
        if let Some(options) = &self.options
            && !options.iter().any(|option| option == text)
        {
            return Some(format!("must be one of {}", options.join(", ")));
        }
        let pattern = self.pattern.as_ref()?;
        match regex::Regex::new(pattern) {
            Ok(pattern) if pattern.is_match(text) => None,
            Ok(_) => Some(format!("must match {pattern}")),
            Err(_) => Some("can't be checked: its pattern is none".to_owned()),
        }
    }
}

impl ConnectorDocument {
    /// What a connection may do that was entered so: hosts and placement. `given`: the hosts that came with it, where the
    /// connector wants them.
    ///
    /// # Errors
    /// Pointers are relative to the connection: `/data/webhook_url`, `/hosts/0`.
    pub fn grant(&self, sign_in: &SignIn, entered: &Entered, given: &[String]) -> Result<Grant, Vec<FieldError>> {
        let hosts = self.hosts_of(sign_in, entered, given);
        let data = |error: FieldError| vec![under_data(error)];
        let placement = sign_in.placement(&entered.settings).map_err(data)?;
        let mut faults: Vec<FieldError> = secret_faults(sign_in, &entered.secret).collect();
        match hosts {
            Ok(hosts) if faults.is_empty() => Ok(Grant { hosts, placement }),
            Ok(_) => Err(faults),
            Err(errors) => {
                faults.extend(errors);
                Err(faults)
            }
        }
    }

    /// What a connection may do by what the manifest says now, given its settings and the hosts that it has: what its
    /// owner can consent to.
    pub fn grant_now(&self, sign_in: &SignIn, settings: &Map<String, Value>, hosts: &[String]) -> Option<Grant> {
        let placement = sign_in.placement(settings).ok()?;
        let hosts = match (&sign_in.kind, &self.hosts) {
            (SignInKind::Url, _) | (_, Hosts::Given(_)) => hosts.to_vec(),
            (_, Hosts::Listed(listed)) => listed_hosts(listed, settings).ok()?,
        };
        Some(Grant { hosts, placement })
    }

    fn hosts_of(&self, sign_in: &SignIn, entered: &Entered, given: &[String]) -> Result<Vec<String>, Vec<FieldError>> {
        let at = Pointer::root().push("hosts");
        let left_out = |reason: &str| Err(vec![FieldError::new(at.clone(), format!("must be left out: {reason}"))]);
        match (&sign_in.kind, &self.hosts) {
            (SignInKind::Url, _) if !given.is_empty() => left_out("the host is that of the connection's URL"),
            (SignInKind::Url, _) => {
                let text = entered.secret.get("webhook_url").and_then(Value::as_str).unwrap_or_default();
                let url =
                    parse_secret_url(text).map_err(|detail| vec![FieldError::new("/data/webhook_url".into(), detail)]);
                Ok(vec![host_of(&url?)])
            }
            (_, Hosts::Listed(_)) if !given.is_empty() => left_out("the connector says where its secret may go"),
            (_, Hosts::Listed(listed)) => {
                listed_hosts(listed, &entered.settings).map_err(|error| vec![under_data(error)])
            }
            (_, Hosts::Given(_)) => given_hosts(given, &at),
        }
    }
}

fn under_data(error: FieldError) -> FieldError {
    FieldError::new(Pointer::from(format!("/data{}", error.pointer).as_str()), error.detail)
}

/// The setting that a text names, where it names one alone.
fn only_setting(text: &str) -> Pointer {
    let pieces = Placeholder::split(text).unwrap_or_default();
    let mut settings = pieces.iter().filter_map(|piece| match piece {
        Placeholder::Setting(name) => Some(name),
        Placeholder::Text(_) | Placeholder::Secret(_) => None,
    });
    match (settings.next(), settings.next()) {
        (Some(name), None) => Pointer::root().push(name),
        _ => Pointer::root(),
    }
}

fn listed_hosts(listed: &[String], settings: &Map<String, Value>) -> Result<Vec<String>, FieldError> {
    let setting = |name: &str| Some(settings.get(name)?.as_str()?.to_owned());
    let mut hosts = Vec::new();
    for text in listed {
        let filled = Placeholder::fill(text, setting);
        let filled = filled.map_err(|error| FieldError::new(Pointer::root(), error.to_string()))?;
        let host = parse_host(&filled).ok_or_else(|| {
            FieldError::new(
                only_setting(text),
                format!("makes no host of {text:?}: expected letters, digits, `-` and `.`"),
            )
        })?;
        hosts.push(host);
    }
    hosts.sort();
    hosts.dedup();
    Ok(hosts)
}

fn given_hosts(given: &[String], at: &Pointer) -> Result<Vec<String>, Vec<FieldError>> {
    if given.is_empty() {
        let detail = "is required: list the hosts that the secret may be sent to, such as \"api.example.com\"";
        return Err(vec![FieldError::new(at.clone(), detail)]);
    }
    if given.len() > MAX_HOSTS {
        return Err(vec![FieldError::new(at.clone(), format!("must have at most {MAX_HOSTS} elements"))]);
    }
    let mut hosts = Vec::new();
    let mut errors = Vec::new();
    for (index, text) in given.iter().enumerate() {
        match parse_host(text) {
            Some(host) => hosts.push(host),
            None => {
                let detail = "expected a host such as \"api.example.com\" or \"api.example.com:8443\", \
                              without scheme, path or wildcard";
                errors.push(FieldError::new(at.push(index), detail));
            }
        }
    }
    hosts.sort();
    hosts.dedup();
    if errors.is_empty() { Ok(hosts) } else { Err(errors) }
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
pub(crate) fn parse_host(text: &str) -> Option<String> {
    let plain = !text.is_empty() && !text.contains(['/', '?', '#', '@', '\\', '*', '%', '{']) && text.trim() == text;
    let url = Url::parse(&format!("https://{text}/")).ok().filter(|_| plain)?;
    Some(host_of(&url))
}

/// Secrets that the request they go into can't carry.
fn secret_faults(sign_in: &SignIn, secret: &Map<String, Value>) -> impl Iterator<Item = FieldError> {
    let is_basic = matches!(sign_in.kind, SignInKind::Basic { .. });
    let in_headers = match &sign_in.kind {
        SignInKind::None | SignInKind::Url | SignInKind::Basic { .. } => false,
        SignInKind::ApiKey { place, .. } => *place == KeyPlace::Header,
        SignInKind::Custom { headers, .. } => !headers.is_empty(),
        SignInKind::Bearer { .. } | SignInKind::OAuth2(_) => true,
    };
    secret.iter().filter_map(move |(name, value)| {
        let text = value.as_str().unwrap_or_default();
        let detail = if is_basic && name == "username" && text.contains(':') {
            "must not have a colon: basic authentication can't carry it"
        } else if in_headers && http::HeaderValue::from_str(text).is_err() {
            "has characters that a header can't carry"
        } else {
            return None;
        };
        Some(FieldError::new(Pointer::from("/data").push(name), detail))
    })
}
