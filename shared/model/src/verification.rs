//! How a webhook's sender proves who it is: a vendor's scheme, and the connection that holds its secret. Carrying it out
//! is left to `signatures`.

use serde::{Deserialize, Serialize};

use crate::{ConnectionId, FieldError, Pointer};

const DEFAULT_TOLERANCE_SECONDS: u32 = 300;
const MAX_TOLERANCE_SECONDS: u32 = 3_600;
const MAX_HEADER_CHARS: usize = 100;
const MAX_PREFIX_CHARS: usize = 100;
const MAX_CONTENT_CHARS: usize = 200;

/// How a webhook's sender proves who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// The scheme, by the vendor who made it.
    pub scheme: Scheme,
    /// The connection that holds the secret.
    pub connection: ConnectionId,
    /// How far the sender's time may be from ours, either way: 1 to 3,600 seconds, default 300. Only where the scheme
    /// has a timestamp: `stripe`, `slack`, `standard_webhooks`, and `hmac` with a `timestamp_header`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance_seconds: Option<u32>,
    /// How the signature is made; with the scheme `hmac`, and only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hmac: Option<HmacScheme>,
}

/// A way of proving who sent a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// GitHub: `X-Hub-Signature-256`.
    #[serde(rename = "github")]
    GitHub,
    /// Stripe: `Stripe-Signature`.
    Stripe,
    /// Slack: `X-Slack-Signature` and `X-Slack-Request-Timestamp`.
    Slack,
    /// Shopify: `X-Shopify-Hmac-Sha256`.
    Shopify,
    /// Twilio: `X-Twilio-Signature`, over the URL too.
    Twilio,
    /// <https://www.standardwebhooks.com>: `webhook-id`, `webhook-timestamp` and `webhook-signature`.
    StandardWebhooks,
    /// An HMAC in a header, made as `hmac` says.
    Hmac,
    /// HTTP basic authentication (RFC 7617).
    Basic,
    /// A bearer token (RFC 6750).
    Bearer,
}

/// How a signature by HMAC is made, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HmacScheme {
    /// The header with the signature.
    #[schema(examples("x-hub-signature-256"))]
    pub header: String,
    /// The hash; default `sha256`.
    #[serde(default)]
    pub algorithm: HmacAlgorithm,
    /// How the signature is written; default `hex`.
    #[serde(default)]
    pub encoding: SignatureEncoding,
    /// What stands before the signature in its header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(examples("sha256="))]
    pub prefix: Option<String>,
    /// The header with the time of sending, in Unix seconds. `content` has to sign it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_header: Option<String>,
    /// What is signed: a text with `{body}` once, and `{timestamp}` where there is a `timestamp_header`. Default `{body}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(examples("{timestamp}.{body}"))]
    pub content: Option<String>,
}

/// The hash of an HMAC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HmacAlgorithm {
    /// SHA-1: for senders that have nothing better. As an HMAC it isn't broken.
    Sha1,
    /// SHA-256.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

/// How a signature's bytes are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignatureEncoding {
    /// Two hexadecimal digits a byte.
    #[default]
    Hex,
    /// Base64 (RFC 4648, section 4).
    Base64,
    /// Base64 in the alphabet for URLs (RFC 4648, section 5).
    Base64url,
}

/// A part of what is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentPart<'a> {
    /// As it is.
    Text(&'a str),
    /// The timestamp's header, as it was sent.
    Timestamp,
    /// The body, byte for byte.
    Body,
}

/// A template of what is signed that can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// Braces hold something else, or aren't closed.
    #[error("can hold no braces but those of `{{timestamp}}` and `{{body}}`")]
    Syntax,
    /// The body is missing, or signed twice.
    #[error("must hold `{{body}}` exactly once")]
    Body,
    /// There is a timestamp that nothing vouches for.
    #[error("must hold `{{timestamp}}`, since with a `timestamp_header` the time has to be signed")]
    TimestampUnsigned,
    /// It names a timestamp that there isn't.
    #[error("holds `{{timestamp}}`; name the header that has it in `timestamp_header`")]
    TimestampUnknown,
}

impl Scheme {
    /// Every scheme.
    pub const ALL: &'static [Self] = &[
        Self::GitHub,
        Self::Stripe,
        Self::Slack,
        Self::Shopify,
        Self::Twilio,
        Self::StandardWebhooks,
        Self::Hmac,
        Self::Basic,
        Self::Bearer,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::Stripe => "stripe",
            Self::Slack => "slack",
            Self::Shopify => "shopify",
            Self::Twilio => "twilio",
            Self::StandardWebhooks => "standard_webhooks",
            Self::Hmac => "hmac",
            Self::Basic => "basic",
            Self::Bearer => "bearer",
        }
    }

    /// Whether its senders name what they send by an id, the same whenever they send it again.
    pub fn has_delivery_ids(self) -> bool {
        match self {
            Self::GitHub | Self::Stripe | Self::Slack | Self::Shopify | Self::Twilio | Self::StandardWebhooks => true,
            Self::Hmac | Self::Basic | Self::Bearer => false,
        }
    }
}

impl Verification {
    /// Whether the sender tells when it sent.
    pub fn is_timestamped(&self) -> bool {
        match self.scheme {
            Scheme::Stripe | Scheme::Slack | Scheme::StandardWebhooks => true,
            Scheme::Hmac => self.hmac.as_ref().is_some_and(|hmac| hmac.timestamp_header.is_some()),
            Scheme::GitHub | Scheme::Shopify | Scheme::Twilio | Scheme::Basic | Scheme::Bearer => false,
        }
    }

    /// How many seconds the sender's time may be from ours, either way.
    pub fn window_seconds(&self) -> u32 {
        self.tolerance_seconds.unwrap_or(DEFAULT_TOLERANCE_SECONDS).min(MAX_TOLERANCE_SECONDS)
    }

    /// Adds what is wrong with it, which stands at `at`.
    pub fn check(&self, at: &Pointer, errors: &mut Vec<FieldError>) {
        if let Some(seconds) = self.tolerance_seconds {
            let problem = match self.is_timestamped() {
                false if self.scheme == Scheme::Hmac => {
                    Some("needs a `timestamp_header` in `hmac`; add that or remove this")
                }
                false => Some("doesn't go with this scheme, which has no timestamp; remove it"),
                true if !(1..=MAX_TOLERANCE_SECONDS).contains(&seconds) => Some("must be 1 to 3600 seconds"),
                true => None,
            };
            errors.extend(problem.map(|problem| FieldError::new(at.push("tolerance_seconds"), problem)));
        }
        match (self.scheme, &self.hmac) {
            (Scheme::Hmac, Some(hmac)) => hmac.check(&at.push("hmac"), errors),
            (Scheme::Hmac, None) => {
                errors.push(FieldError::new(at.push("hmac"), "is required with the scheme \"hmac\""));
            }
            (_, Some(_)) => {
                errors.push(FieldError::new(at.push("hmac"), "goes only with the scheme \"hmac\"; remove it"));
            }
            (_, None) => {}
        }
    }
}

impl HmacScheme {
    /// What is signed, in order: the body once, and the timestamp where it has a header.
    ///
    /// # Errors
    /// The template can't be used.
    pub fn signed(&self) -> Result<Vec<ContentPart<'_>>, ContentError> {
        let parts = ContentPart::split(self.content.as_deref().unwrap_or("{body}"))?;
        match (parts.contains(&ContentPart::Timestamp), &self.timestamp_header) {
            (true, None) => Err(ContentError::TimestampUnknown),
            (false, Some(_)) => Err(ContentError::TimestampUnsigned),
            (true, Some(_)) | (false, None) => Ok(parts),
        }
    }

    fn check(&self, at: &Pointer, errors: &mut Vec<FieldError>) {
        let mut ensure = |holds: bool, field: &str, detail: &str| {
            if !holds {
                errors.push(FieldError::new(at.push(field), detail));
            }
        };
        let header = "must be a header's name: 1 to 100 letters, digits, - or _";
        ensure(is_header_name(&self.header), "header", header);
        if let Some(name) = &self.timestamp_header {
            ensure(is_header_name(name), "timestamp_header", header);
            ensure(!name.eq_ignore_ascii_case(&self.header), "timestamp_header", "is the signature's header");
        }
        ensure(
            self.prefix.as_ref().is_none_or(|prefix| is_prefix(prefix)),
            "prefix",
            "must be 1 to 100 visible ASCII characters; spaces can't be the first",
        );
        ensure(
            self.content.as_ref().is_none_or(|content| content.chars().count() <= MAX_CONTENT_CHARS),
            "content",
            "must have at most 200 characters",
        );
        if let Err(error) = self.signed() {
            errors.push(FieldError::new(at.push("content"), error.to_string()));
        }
    }
}

impl<'a> ContentPart<'a> {
    /// A template's parts in order; the body is one of them, once.
    ///
    /// # Errors
    /// Braces hold something else or aren't closed, or the body isn't there exactly once.
    pub fn split(template: &'a str) -> Result<Vec<Self>, ContentError> {
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some((text, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or(ContentError::Syntax)?;
            parts.push(Self::Text(text));
            parts.push(match name {
                "timestamp" => Self::Timestamp,
                "body" => Self::Body,
                _ => return Err(ContentError::Syntax),
            });
            rest = after;
        }
        parts.push(Self::Text(rest));
        if parts.iter().any(|part| matches!(part, Self::Text(text) if text.contains('}'))) {
            return Err(ContentError::Syntax);
        }
        if parts.iter().filter(|part| **part == Self::Body).count() != 1 {
            return Err(ContentError::Body);
        }
        parts.retain(|part| *part != Self::Text(""));
        Ok(parts)
    }
}

fn is_header_name(name: &str) -> bool {
    (1..=MAX_HEADER_CHARS).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// A header's value begins with no space, so such a prefix would match nothing.
fn is_prefix(prefix: &str) -> bool {
    (1..=MAX_PREFIX_CHARS).contains(&prefix.len())
        && !prefix.starts_with(' ')
        && prefix.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn document(scheme: &str) -> Value {
        json!({"scheme": scheme, "connection": "conn_01890a5d000070008000000000000000"})
    }

    fn errors_of(document: Value) -> Vec<(String, String)> {
        let verification: Verification = serde_json::from_value(document).unwrap();
        let mut errors = Vec::new();
        verification.check(&Pointer::from("/trigger/verify"), &mut errors);
        errors.into_iter().map(|error| (error.pointer.to_string(), error.detail)).collect()
    }

    fn pointers_of(document: Value) -> Vec<String> {
        errors_of(document).into_iter().map(|(pointer, _)| pointer).collect()
    }

    fn hmac(change: impl FnOnce(&mut Value)) -> Value {
        let mut document = document("hmac");
        document["hmac"] = json!({"header": "x-signature"});
        change(&mut document);
        document
    }

    #[test]
    fn every_scheme_is_read_and_written_by_its_name() {
        let timestamped = [Scheme::Stripe, Scheme::Slack, Scheme::StandardWebhooks];
        for scheme in Scheme::ALL {
            let mut document = document(scheme.as_str());
            if *scheme == Scheme::Hmac {
                document["hmac"] = json!({"header": "x", "algorithm": "sha256", "encoding": "hex"});
            }
            let verification: Verification = serde_json::from_value(document.clone()).unwrap();
            assert_eq!(verification.scheme, *scheme);
            assert_eq!(serde_json::to_value(&verification).unwrap(), document);
            assert_eq!(verification.is_timestamped(), timestamped.contains(scheme), "{scheme:?}");
            assert_eq!(verification.window_seconds(), 300);
            assert!(errors_of(document).is_empty(), "{scheme:?}");
        }
        for bad in [document("git_hub"), document("none"), json!({"scheme": "github"}), {
            let mut unknown = document("github");
            unknown["secret"] = json!("s");
            unknown
        }] {
            assert!(serde_json::from_value::<Verification>(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_hmac_is_a_hex_sha256_of_the_body_where_it_says_no_other() {
        let verification: Verification = serde_json::from_value(hmac(|_| {})).unwrap();
        let scheme = verification.hmac.as_ref().unwrap();
        assert_eq!((scheme.algorithm, scheme.encoding), (HmacAlgorithm::Sha256, SignatureEncoding::Hex));
        assert_eq!(scheme.signed(), Ok(vec![ContentPart::Body]));
        assert!(!verification.is_timestamped() && errors_of(hmac(|_| {})).is_empty());
        let full = hmac(|d| {
            d["tolerance_seconds"] = json!(3_600);
            d["hmac"] = json!({
                "header": "X-Signature", "algorithm": "sha512", "encoding": "base64url", "prefix": "HMAC ",
                "timestamp_header": "X-Time", "content": "v0:{timestamp}:{body}",
            });
        });
        assert!(errors_of(full.clone()).is_empty());
        let verification: Verification = serde_json::from_value(full).unwrap();
        assert_eq!(verification.window_seconds(), 3_600);
        let parts = [ContentPart::Text("v0:"), ContentPart::Timestamp, ContentPart::Text(":"), ContentPart::Body];
        assert_eq!(verification.hmac.unwrap().signed().unwrap(), parts);
    }

    #[test]
    fn a_tolerance_goes_with_a_timestamp() {
        let with = |mut document: Value, seconds: u32| {
            document["tolerance_seconds"] = json!(seconds);
            pointers_of(document)
        };
        for scheme in ["stripe", "slack", "standard_webhooks"] {
            assert!(with(document(scheme), 1).is_empty() && with(document(scheme), 3_600).is_empty(), "{scheme}");
            for seconds in [0, 3_601] {
                assert_eq!(with(document(scheme), seconds), ["/trigger/verify/tolerance_seconds"], "{scheme}");
            }
        }
        for scheme in ["github", "shopify", "twilio", "basic", "bearer"] {
            assert_eq!(with(document(scheme), 60), ["/trigger/verify/tolerance_seconds"], "{scheme}");
        }
        assert_eq!(with(hmac(|_| {}), 60), ["/trigger/verify/tolerance_seconds"]);
        let mut unchecked = document("stripe");
        unchecked["tolerance_seconds"] = json!(u32::MAX);
        let unchecked: Verification = serde_json::from_value(unchecked).unwrap();
        assert_eq!(unchecked.window_seconds(), 3_600, "even where nobody checked");
    }

    #[test]
    fn the_description_of_an_hmac_goes_with_its_scheme() {
        assert_eq!(pointers_of(document("hmac")), ["/trigger/verify/hmac"]);
        let foreign = hmac(|d| d["scheme"] = json!("github"));
        assert_eq!(pointers_of(foreign), ["/trigger/verify/hmac"]);
    }

    #[test]
    fn every_mistake_in_an_hmac_names_its_field() {
        let table = [
            ("header", json!({"header": ""})),
            ("header", json!({"header": "x signature"})),
            ("header", json!({"header": "x".repeat(101)})),
            ("prefix", json!({"header": "x", "prefix": ""})),
            ("prefix", json!({"header": "x", "prefix": " a"})),
            ("prefix", json!({"header": "x", "prefix": "é"})),
            ("timestamp_header", json!({"header": "x", "timestamp_header": "a:b", "content": "{timestamp}{body}"})),
            ("timestamp_header", json!({"header": "x", "timestamp_header": "X", "content": "{timestamp}{body}"})),
            ("content", json!({"header": "x", "timestamp_header": "t"})),
            ("content", json!({"header": "x", "timestamp_header": "t", "content": "{body}"})),
            ("content", json!({"header": "x", "content": "{timestamp}.{body}"})),
            ("content", json!({"header": "x", "content": "signed"})),
            ("content", json!({"header": "x", "content": ""})),
            ("content", json!({"header": "x", "content": "{body}{body}"})),
            ("content", json!({"header": "x", "content": "{body}{url}"})),
            ("content", json!({"header": "x", "content": "{{body}}"})),
            ("content", json!({"header": "x", "content": "{body"})),
            ("content", json!({"header": "x", "content": "{body}}"})),
            ("content", json!({"header": "x", "content": format!("{}{{body}}", "x".repeat(200))})),
        ];
        for (field, scheme) in table {
            let errors = pointers_of(hmac(|d| d["hmac"] = scheme.clone()));
            assert_eq!(errors, [format!("/trigger/verify/hmac/{field}")], "{scheme}");
        }
    }
}
