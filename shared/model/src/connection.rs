//! A tenant's stored credential for one connector, and where its secret goes in a request.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{ConnectionId, TenantId, UserId};

/// A connection as it is stored: what is secret in it is sealed. Hosts and placement are fixed when it is made: what a
/// connector's manifest says later changes them only with consent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The connection's id.
    pub id: ConnectionId,
    /// Its tenant.
    pub tenant: TenantId,
    /// Name for display.
    pub name: String,
    /// The connector it is for: `slack`, `http`, or one that the tenant made.
    pub connector: String,
    /// Whose connector that is.
    #[serde(default)]
    pub publisher: Publisher,
    /// The way of signing in, of those that the connector has.
    #[serde(default)]
    pub auth: String,
    /// The fields that aren't secret.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub settings: Map<String, Value>,
    /// The hosts its secret may be sent to; `host` or `host:port`, lower case.
    pub hosts: Vec<String>,
    /// Where the secret goes in a request.
    #[serde(default)]
    pub placement: Placement,
    /// What keeps its access token fresh, where somebody signed in at the vendor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth: Option<OAuthGrant>,
    /// Whether it works, as far as is known.
    #[serde(default)]
    pub health: Health,
    /// The number of the tenant's data key that seals it.
    pub data_key: u32,
    /// The secret fields' JSON under AES-256-GCM with that data key and this id as associated data (base64).
    pub sealed: String,
    /// Who made it; nobody where a service account did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<UserId>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Whose a connector is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Publisher {
    /// It is built in.
    #[default]
    Builtin,
    /// The tenant made it.
    Tenant,
}

/// Whether a connection works, as its last use told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Health {
    /// What is known.
    pub status: HealthStatus,
    /// Why it is broken, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whose the credential is, as the vendor's test request told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// When the status became what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// What is known of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// It wasn't tried yet.
    #[default]
    Untested,
    /// The vendor took the credential.
    Ok,
    /// The vendor refused the credential.
    Broken,
}

/// What keeps an access token fresh. The tokens themselves are in the sealed secret: `access_token`, `refresh_token`, and for
/// a client of the tenant's own `client_id` and `client_secret`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OAuthGrant {
    /// Where tokens come from: the only place that the refresh token is sent to.
    pub token_url: String,
    /// The provider whose client of the installation's it is; without it the client is in the secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// How the client says who it is.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// The scopes that were granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Whether there is a refresh token.
    pub refreshable: bool,
    /// When the access token ends; without it never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// How long an access token lasts, in seconds, as it was last granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_seconds: Option<u32>,
    /// Until when somebody is refreshing it, and a name for that attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refreshing: Option<Refreshing>,
}

/// A refresh that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refreshing {
    /// A name that no other attempt has.
    pub by: String,
    /// When it counts as given up.
    pub until: Timestamp,
}

/// How an OAuth client says who it is (RFC 6749, section 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// By `client_id` and `client_secret` in the body.
    #[default]
    Body,
    /// By HTTP basic authentication.
    Basic,
}

/// Where a connection's secret goes in a request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Placement {
    /// The field that holds the whole URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Headers by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, Placed)>,
    /// Parameters of the URL's query by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<(String, Placed)>,
}

impl Placement {
    /// Whether it puts the secret nowhere.
    pub fn is_empty(&self) -> bool {
        self.url.is_none() && self.headers.is_empty() && self.query.is_empty()
    }
}

/// A value with the secret in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placed {
    /// A text.
    Text(SecretText),
    /// `Basic` and, in base64, user name and password (RFC 7617).
    Basic {
        /// The user name, without a colon.
        username: SecretText,
        /// The password.
        password: SecretText,
    },
}

/// A text with fields of the secret in it: `Bearer {{ secret.token }}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText(Vec<SecretPart>);

/// A part of a [`SecretText`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretPart {
    /// As it is.
    Text(String),
    /// A field of the secret.
    Secret(String),
}

impl SecretText {
    /// Reads a manifest's text; `setting` gives the value of a field of the connection that isn't secret.
    ///
    /// # Errors
    /// Braces hold something else than the two placeholders, or name a setting that there isn't.
    pub fn read(text: &str, setting: impl Fn(&str) -> Option<String>) -> Result<Self, PlaceholderError> {
        let mut parts: Vec<SecretPart> = Vec::new();
        for piece in Placeholder::split(text)? {
            let text = match piece {
                Placeholder::Text(text) => text.to_owned(),
                Placeholder::Setting(name) => setting(name).ok_or_else(|| PlaceholderError::unknown(name))?,
                Placeholder::Secret(name) => {
                    parts.push(SecretPart::Secret(name.to_owned()));
                    continue;
                }
            };
            match parts.last_mut() {
                Some(SecretPart::Text(before)) => before.push_str(&text),
                Some(SecretPart::Secret(_)) | None => parts.push(SecretPart::Text(text)),
            }
        }
        Ok(Self(parts))
    }

    /// The text, with the secret's fields as `field` gives them; `None` where it has not all of them.
    pub fn fill<'a>(&'a self, field: impl Fn(&str) -> Option<&'a str>) -> Option<String> {
        let mut filled = String::new();
        for part in &self.0 {
            filled.push_str(match part {
                SecretPart::Text(text) => text,
                SecretPart::Secret(name) => field(name)?,
            });
        }
        Some(filled)
    }
}

/// A piece of a text in a manifest in which only fields of a connection can be named, and no expressions written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholder<'a> {
    /// As it is.
    Text(&'a str),
    /// `{{ secret.field }}`
    Secret(&'a str),
    /// `{{ connection.field }}`: one that isn't secret.
    Setting(&'a str),
}

/// A text in which a placeholder can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceholderError {
    /// Braces that hold something else, or aren't closed.
    #[error("only `{{{{ secret.field }}}}` and `{{{{ connection.field }}}}` can be written in braces here")]
    Syntax,
    /// A field that there isn't.
    #[error("names `connection.{0}`, but there is no such field")]
    Unknown(String),
}

impl PlaceholderError {
    fn unknown(name: &str) -> Self {
        Self::Unknown(name.to_owned())
    }
}

impl<'a> Placeholder<'a> {
    /// A text's pieces in order.
    ///
    /// # Errors
    /// Braces hold something else than a placeholder, or aren't closed.
    pub fn split(text: &'a str) -> Result<Vec<Self>, PlaceholderError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (inner, after) = after.split_once("}}").ok_or(PlaceholderError::Syntax)?;
            if !before.is_empty() {
                pieces.push(Self::Text(before));
            }
            let is_name = |name: &&str| {
                !name.is_empty()
                    && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            };
            let (of, name) =
                inner.trim().split_once('.').filter(|(_, name)| is_name(name)).ok_or(PlaceholderError::Syntax)?;
            pieces.push(match of {
                "secret" => Self::Secret(name),
                "connection" => Self::Setting(name),
                _ => return Err(PlaceholderError::Syntax),
            });
            rest = after;
        }
        if rest.contains("}}") {
            return Err(PlaceholderError::Syntax);
        }
        if !rest.is_empty() {
            pieces.push(Self::Text(rest));
        }
        Ok(pieces)
    }

    /// A text that names no secret, with its settings filled in.
    ///
    /// # Errors
    /// As [`SecretText::read`]; or it names a secret.
    pub fn fill(text: &str, setting: impl Fn(&str) -> Option<String>) -> Result<String, PlaceholderError> {
        let mut filled = String::new();
        for piece in Placeholder::split(text)? {
            match piece {
                Placeholder::Text(text) => filled.push_str(text),
                Placeholder::Setting(name) => {
                    filled.push_str(&setting(name).ok_or_else(|| PlaceholderError::unknown(name))?);
                }
                Placeholder::Secret(_) => return Err(PlaceholderError::Syntax),
            }
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_with_its_settings_and_filled_with_the_secret() {
        let setting = |name: &str| (name == "sid").then(|| "AC1".to_owned());
        let text = SecretText::read("Key {{connection.sid}}-{{ secret.token }}!", setting).unwrap();
        assert_eq!(serde_json::to_string(&text).unwrap(), r#"[{"text":"Key AC1-"},{"secret":"token"},{"text":"!"}]"#);
        assert_eq!(text.fill(|name| (name == "token").then_some("t")), Some("Key AC1-t!".to_owned()));
        assert_eq!(text.fill(|_| None), None);
        assert_eq!(SecretText::read("{{ connection.x }}", setting), Err(PlaceholderError::Unknown("x".to_owned())));
        for bad in [
            "{{ token }}",
            "{{ secret.a | upper }}",
            "{{ secret. }}",
            "{{ secret.a",
            "a }}",
            "{{ input.a }}",
            "{{ secret.a.b }}",
        ] {
            assert_eq!(SecretText::read(bad, setting), Err(PlaceholderError::Syntax), "{bad}");
        }
        assert_eq!(Placeholder::fill("https://{{ connection.sid }}.test", setting), Ok("https://AC1.test".to_owned()));
        assert_eq!(
            Placeholder::fill("{{ secret.token }}", setting),
            Err(PlaceholderError::Syntax),
            "not where it is shown"
        );
    }
}
