//! Requests signed as each vendor documents it, written apart from what is tested.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this module")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{self, HMAC_SHA1_FOR_LEGACY_USE_ONLY, HMAC_SHA256, HMAC_SHA512};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use serde_json::{Value, json};
use tidegate_model::Verification;
use tidegate_signatures::{Received, Rejection, Secrets, verify};
use zeroize::Zeroizing;

pub const NOW: i64 = 1_790_000_000;
pub const URL: &str = "https://tidegate.example/api/webhooks/wf_1?foo=1";

/// A kind of sender: a scheme, in one of its forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    GitHub,
    Stripe,
    Slack,
    Shopify,
    TwilioForm,
    TwilioJson,
    StandardWebhooks,
    Hmac,
    HmacTimestamped,
    Basic,
    Bearer,
}

impl Sender {
    pub const ALL: [Self; 11] = [
        Self::GitHub,
        Self::Stripe,
        Self::Slack,
        Self::Shopify,
        Self::TwilioForm,
        Self::TwilioJson,
        Self::StandardWebhooks,
        Self::Hmac,
        Self::HmacTimestamped,
        Self::Basic,
        Self::Bearer,
    ];

    pub fn verification(self) -> Verification {
        let mut document = json!({"connection": "conn_01890a5d000070008000000000000000"});
        document["scheme"] = json!(match self {
            Self::GitHub => "github",
            Self::Stripe => "stripe",
            Self::Slack => "slack",
            Self::Shopify => "shopify",
            Self::TwilioForm | Self::TwilioJson => "twilio",
            Self::StandardWebhooks => "standard_webhooks",
            Self::Hmac | Self::HmacTimestamped => "hmac",
            Self::Basic => "basic",
            Self::Bearer => "bearer",
        });
        if self == Self::Hmac {
            document["hmac"] = json!({"header": "X-Sign", "algorithm": "sha512", "encoding": "base64url"});
        }
        if self == Self::HmacTimestamped {
            document["hmac"] = json!({
                "header": "X-Sign", "algorithm": "sha1", "encoding": "base64", "prefix": "sig ",
                "timestamp_header": "X-Time", "content": "{timestamp}|{body}",
            });
        }
        serde_json::from_value(document).unwrap()
    }

    /// A secret that the scheme can use, another for each seed.
    pub fn secret(self, seed: u8) -> String {
        match self {
            Self::StandardWebhooks => format!("whsec_{}", STANDARD.encode([seed; 32])),
            _ => format!("secret of {seed}"),
        }
    }

    pub fn body(self) -> &'static [u8] {
        match self {
            Self::TwilioForm => b"To=%2B1800&CallSid=CA12&Digits=1+2&From=%2B1415",
            _ => b"{\"id\": \"evt_1\", \"text\": \"\xc3\xa9\"}\n",
        }
    }

    /// Everything that the request can't do without.
    pub fn needed(self) -> &'static [&'static str] {
        match self {
            Self::GitHub => &["x-hub-signature-256"],
            Self::Stripe => &["stripe-signature"],
            Self::Slack => &["x-slack-signature", "x-slack-request-timestamp"],
            Self::Shopify => &["x-shopify-hmac-sha256"],
            Self::TwilioForm => &["x-twilio-signature", "content-type"],
            Self::TwilioJson => &["x-twilio-signature"],
            Self::StandardWebhooks => &["webhook-id", "webhook-timestamp", "webhook-signature"],
            Self::Hmac => &["x-sign"],
            Self::HmacTimestamped => &["x-sign", "x-time"],
            Self::Basic | Self::Bearer => &["authorization"],
        }
    }

    pub fn is_signed(self) -> bool {
        !matches!(self, Self::Basic | Self::Bearer)
    }

    /// What the sender would send now.
    pub fn send(self, secret: &str, seconds: i64) -> Request {
        let body = self.body();
        let text = [&seconds.to_string(), std::str::from_utf8(body).unwrap()];
        let mut url = URL.to_owned();
        let headers = match self {
            Self::GitHub => vec![("x-hub-signature-256", format!("sha256={}", hex(&mac(HMAC_SHA256, secret, body))))],
            Self::Stripe => {
                let signature = hex(&mac(HMAC_SHA256, secret, text.join(".").as_bytes()));
                vec![("stripe-signature", format!("t={seconds},v1={signature}"))]
            }
            Self::Slack => {
                let signature = hex(&mac(HMAC_SHA256, secret, format!("v0:{}", text.join(":")).as_bytes()));
                vec![
                    ("x-slack-signature", format!("v0={signature}")),
                    ("x-slack-request-timestamp", seconds.to_string()),
                ]
            }
            Self::Shopify => vec![("x-shopify-hmac-sha256", STANDARD.encode(mac(HMAC_SHA256, secret, body)))],
            Self::TwilioForm => {
                let signed = format!("{url}CallSidCA12Digits1 2From+1415To+1800");
                vec![
                    ("x-twilio-signature", sha1(secret, &signed)),
                    ("content-type", "application/x-www-form-urlencoded; charset=UTF-8".to_owned()),
                ]
            }
            Self::TwilioJson => {
                url = format!("{URL}&bodySHA256={}", hex(digest(&SHA256, body).as_ref()));
                vec![("x-twilio-signature", sha1(secret, &url)), ("content-type", "application/json".to_owned())]
            }
            Self::StandardWebhooks => {
                let key = STANDARD.decode(secret.trim_start_matches("whsec_")).unwrap();
                let signed = format!("msg_1.{}", text.join("."));
                let signature = STANDARD.encode(hmac::sign(&hmac::Key::new(HMAC_SHA256, &key), signed.as_bytes()));
                vec![
                    ("webhook-id", "msg_1".to_owned()),
                    ("webhook-timestamp", seconds.to_string()),
                    ("webhook-signature", format!("v1,{signature}")),
                ]
            }
            Self::Hmac => vec![("x-sign", URL_SAFE_NO_PAD.encode(mac(HMAC_SHA512, secret, body)))],
            Self::HmacTimestamped => {
                vec![("x-sign", format!("sig {}", sha1(secret, &text.join("|")))), ("x-time", seconds.to_string())]
            }
            Self::Basic => vec![("authorization", format!("Basic {}", STANDARD.encode(format!("user:{secret}"))))],
            Self::Bearer => vec![("authorization", format!("Bearer {secret}"))],
        };
        let headers = headers.into_iter().map(|(name, text)| (HeaderName::from_static(name), text.parse().unwrap()));
        Request { sender: self, url, headers: headers.collect(), body: body.to_vec() }
    }
}

/// A request, for tests to spoil.
#[derive(Debug, Clone)]
pub struct Request {
    pub sender: Sender,
    pub url: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Request {
    pub fn verify(&self, secrets: &Secrets, now: i64) -> Result<(), Rejection> {
        let received = Received { url: &self.url, headers: &self.headers, body: &self.body };
        verify(&self.sender.verification(), secrets, &received, at(now))
    }

    /// The reason for its being refused.
    #[track_caller]
    pub fn refused(&self, secrets: &Secrets, now: i64) -> &'static str {
        let rejection = self.verify(secrets, now).unwrap_err();
        let text = format!("{rejection} {rejection:?}");
        for secret in [Some(&secrets.secret), secrets.previous_secret.as_ref()].into_iter().flatten() {
            assert!(secret.is_empty() || !text.contains(secret.as_str()), "{text}");
        }
        rejection.reason()
    }

    pub fn header(&self, name: &str) -> String {
        self.headers[name].to_str().unwrap().to_owned()
    }

    #[must_use]
    pub fn with(&self, name: &str, text: &str) -> Self {
        let mut changed = self.clone();
        changed.headers.insert(HeaderName::try_from(name).unwrap(), HeaderValue::from_str(text).unwrap());
        changed
    }
}

pub fn secrets(secret: &str, previous: Option<&str>) -> Secrets {
    Secrets {
        secret: Zeroizing::new(secret.to_owned()),
        previous_secret: previous.map(|previous| Zeroizing::new(previous.to_owned())),
        username: Some("user".to_owned()),
    }
}

pub fn verification(document: Value) -> Verification {
    let mut document = document;
    document["connection"] = json!("conn_01890a5d000070008000000000000000");
    serde_json::from_value(document).unwrap()
}

pub fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    list.iter().map(|(name, text)| (HeaderName::from_static(name), HeaderValue::from_str(text).unwrap())).collect()
}

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

pub fn mac(algorithm: hmac::Algorithm, secret: &str, content: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(algorithm, secret.as_bytes()), content).as_ref().to_vec()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha1(secret: &str, content: &str) -> String {
    STANDARD.encode(mac(HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret, content.as_bytes()))
}
