//! A connection's secret: where it may go, opening it, and hiding it in what comes back.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memmem;
use serde::Deserialize;
use serde_json::Value;
use tidegate_platform::Envelope;
use tidegate_platform::key_service::KeyContext;
use url::Url;
use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

use crate::{Credential, EgressError, is_reserved_header};

/// The purpose in the key context under which connections are sealed.
const PURPOSE: &str = "connections";
/// What stands in a response where the secret was.
const MASK: &[u8] = b"***";
/// Shorter secrets are not looked for in responses: they would be found in any text.
const MIN_MASKED_BYTES: usize = 8;

/// Refuses a URL that the connection was not made for. `scheme_is_secret`: the URL comes from the secret, so that its
/// scheme is its owner's choice; otherwise it is the workflow author's, who must not send the secret in the clear.
pub(crate) fn check_host(credential: &Credential<'_>, url: &Url, scheme_is_secret: bool) -> Result<(), EgressError> {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    let with_port = format!("{host}:{port}");
    let as_owner_wants = scheme_is_secret || url.scheme() == "https";
    let allowed = |entry: &String| match *entry == with_port {
        true => as_owner_wants || port != 443,
        false => as_owner_wants && url.port().is_none() && entry == host,
    };
    if credential.connection.hosts.iter().any(allowed) {
        return Ok(());
    }
    let target = url.origin().ascii_serialization();
    Err(EgressError::HostNotAllowed { target, hosts: credential.connection.hosts.clone() })
}

/// An opened secret.
pub(crate) struct Secret<'a> {
    credential: Credential<'a>,
    plain: Zeroizing<Vec<u8>>,
}

/// Strings to hide in a response, longest first.
pub(crate) struct Masks(Vec<Zeroizing<String>>);

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum HttpSecret {
    Bearer { token: String },
    Basic { username: String, password: String },
    Header { name: String, value: String },
}

impl<'a> Secret<'a> {
    pub(crate) async fn open(envelope: &Envelope, credential: Credential<'a>) -> Result<Self, EgressError> {
        let connection = credential.connection;
        let context = KeyContext { tenant: connection.tenant.to_string(), purpose: PURPOSE.to_owned() };
        let id = connection.id.to_string();
        let opened = envelope.open(credential.data_key, &context, id.as_bytes(), &connection.sealed).await;
        let plain = opened.map_err(|source| EgressError::Connection { connection: id, source })?;
        Ok(Self { credential, plain })
    }

    /// The URL in a field of the secret.
    pub(crate) fn url(&self, field: &str) -> Result<(Zeroizing<String>, Masks), EgressError> {
        // The parser's own error would quote the secret.
        let value: Value = serde_json::from_slice(&self.plain).map_err(|_| self.unusable("it is not JSON"))?;
        let url = value.get(field).and_then(Value::as_str);
        let url = Zeroizing::new(url.ok_or_else(|| self.unusable("it has no URL"))?.to_owned());
        let path = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map(|(_, path)| path.to_owned());
        let masks = Masks::new(std::iter::once(url.to_string()).chain(path));
        Ok((url, masks))
    }

    /// The header that carries the secret.
    pub(crate) fn header(&self) -> Result<(HeaderName, HeaderValue, Masks), EgressError> {
        let secret = serde_json::from_slice(&self.plain)
            .map_err(|_| self.unusable("it is neither a bearer token, nor user name and password, nor a header"))?;
        let (name, value, masks) = match secret {
            HttpSecret::Bearer { token } => (AUTHORIZATION, format!("Bearer {token}"), vec![token]),
            HttpSecret::Basic { username, password } => {
                if username.contains(':') {
                    return Err(self.unusable("its user name has a colon, which basic authentication can't carry"));
                }
                let encoded = STANDARD.encode(Zeroizing::new(format!("{username}:{password}")).as_bytes());
                (AUTHORIZATION, format!("Basic {encoded}"), vec![encoded, password])
            }
            HttpSecret::Header { name, value } => {
                let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
                let name = parsed.filter(|name| !is_reserved_header(name.as_str()));
                (name.ok_or_else(|| self.unusable("its header's name can't be used"))?, value.clone(), vec![value])
            }
        };
        let mut value =
            HeaderValue::from_str(&value).map_err(|_| self.unusable("it has characters that a header can't carry"))?;
        value.set_sensitive(true);
        Ok((name, value, Masks::new(masks)))
    }

    pub(crate) fn unusable(&self, reason: &'static str) -> EgressError {
        EgressError::Secret { connection: self.credential.connection.id.to_string(), reason }
    }
}

impl Masks {
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    /// The secrets, and how they look inside JSON, in a URL, in a form, and in base64.
    fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let spellings = secrets.into_iter().map(Zeroizing::new).flat_map(|secret| {
            let escaped = Zeroizing::new(Value::from(secret.as_str()).to_string());
            let escaped = Zeroizing::new(escaped.trim_matches('"').to_owned());
            let slashes = Zeroizing::new(escaped.replace('/', "\\/"));
            let form: Zeroizing<String> = Zeroizing::new(byte_serialize(secret.as_bytes()).collect());
            let in_url = Zeroizing::new(form.replace('+', "%20"));
            let (base64, url_safe) = (STANDARD.encode(secret.as_bytes()), URL_SAFE_NO_PAD.encode(secret.as_bytes()));
            let unpadded = Zeroizing::new(base64.trim_end_matches('=').to_owned());
            let (base64, url_safe) = (Zeroizing::new(base64), Zeroizing::new(url_safe));
            [secret, escaped, slashes, form, in_url, base64, unpadded, url_safe]
        });
        let mut masks: Vec<_> = spellings.filter(|secret| secret.len() >= MIN_MASKED_BYTES).collect();
        masks.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        masks.dedup();
        Self(masks)
    }

    pub(crate) fn hide_in_body(&self, body: Bytes) -> Bytes {
        self.0.iter().fold(body, |body, secret| match masked(&body, secret.as_bytes()) {
            Some(masked) => masked.into(),
            None => body,
        })
    }

    pub(crate) fn hide_in_headers(&self, headers: &mut HeaderMap) {
        for value in headers.values_mut() {
            for secret in &self.0 {
                if let Some(masked) = masked(value.as_bytes(), secret.as_bytes()) {
                    // Bytes that were a header's value, less some, plus asterisks, are one again.
                    *value = HeaderValue::from_bytes(&masked).unwrap_or(HeaderValue::from_static("***"));
                }
            }
        }
    }
}

/// The text with each occurrence of the secret replaced; `None` where there is none.
fn masked(text: &[u8], secret: &[u8]) -> Option<Vec<u8>> {
    let finder = memmem::Finder::new(secret);
    let mut found = finder.find_iter(text).peekable();
    found.peek()?;
    let mut masked = Vec::with_capacity(text.len());
    let mut copied = 0;
    for at in found {
        masked.extend_from_slice(&text[copied..at]);
        masked.extend_from_slice(MASK);
        copied = at + secret.len();
    }
    masked.extend_from_slice(&text[copied..]);
    Some(masked)
}
