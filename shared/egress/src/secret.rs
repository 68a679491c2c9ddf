//! A connection's secret: where it may go, opening it, and hiding it in what comes back.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memmem;
use serde_json::Value;
use tidegate_model::{Connection, Placed, SecretText};
use tidegate_platform::Envelope;
use tidegate_platform::key_service::KeyContext;
use url::Url;
use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

use crate::{Credential, EgressError, is_reserved_header};

/// The purpose in the key context under which connections are sealed.
pub(crate) const PURPOSE: &str = "connections";
/// What stands in a response where the secret was.
const MASK: &[u8] = b"***";
/// Shorter secrets are not looked for in responses: they would be found in any text.
const MIN_MASKED_BYTES: usize = 8;
/// The longest numeric entity of HTML, with some zeros in front.
const MAX_ENTITY_BYTES: usize = 16;

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

/// An opened secret: the fields that the connection's placement names.
pub(crate) struct Secret<'a> {
    connection: &'a Connection,
    fields: BTreeMap<String, Zeroizing<String>>,
}

/// Strings to hide in a response.
pub(crate) struct Masks(Vec<Zeroizing<String>>);

/// What a connection's placement puts into a request.
pub(crate) struct Injected {
    /// The whole URL, where the secret is one.
    pub(crate) url: Option<Zeroizing<String>>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) query: Vec<(String, Zeroizing<String>)>,
    pub(crate) masks: Masks,
}

impl<'a> Secret<'a> {
    pub(crate) async fn open(envelope: &Envelope, credential: Credential<'a>) -> Result<Self, EgressError> {
        let connection = credential.connection;
        let context = KeyContext { tenant: connection.tenant.to_string(), purpose: PURPOSE.to_owned() };
        let id = connection.id.to_string();
        let opened = envelope.open(credential.data_key, &context, id.as_bytes(), &connection.sealed).await;
        let plain = opened.map_err(|source| EgressError::Connection { connection: id, source })?;
        let mut secret = Self { connection, fields: BTreeMap::new() };
        // The parser's own error would quote the secret.
        let value: BTreeMap<String, Value> =
            serde_json::from_slice(&plain).map_err(|_| secret.unusable("it is no JSON object"))?;
        for (name, value) in value {
            if let Value::String(text) = value {
                secret.fields.insert(name, Zeroizing::new(text));
            }
        }
        Ok(secret)
    }

    /// A field of the secret.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|text| text.as_str())
    }

    /// What goes into a request, as the connection's placement says.
    pub(crate) fn inject(&self) -> Result<Injected, EgressError> {
        let placement = &self.connection.placement;
        let url = match &placement.url {
            Some(field) => {
                let url = self.field(field).ok_or_else(|| self.unusable("it has no URL"))?;
                Some(Zeroizing::new(url.to_owned()))
            }
            None => None,
        };
        let mut encoded = Vec::new();
        let mut headers = Vec::new();
        for (name, placed) in &placement.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| !is_reserved_header(name.as_str()));
            let name = name.ok_or_else(|| self.unusable("its header's name can't be used"))?;
            let text = self.text(placed, &mut encoded)?;
            let mut value = HeaderValue::from_str(&text)
                .map_err(|_| self.unusable("it has characters that a header can't carry"))?;
            value.set_sensitive(true);
            headers.push((name, value));
        }
        let mut query = Vec::new();
        for (name, placed) in &placement.query {
            query.push((name.clone(), self.text(placed, &mut encoded)?));
        }
        let path =
            url.iter().filter_map(|url| url.split_once("://")?.1.split_once('/')).map(|(_, path)| path.to_owned());
        let fields = self.fields.values().map(|text| text.to_string());
        // A vendor may answer with the part of the URL that makes it a secret.
        let parts: Vec<String> = match &url {
            Some(url) => url.split(['/', '?', '&', '=', '#']).skip(3).map(str::to_owned).collect(),
            None => Vec::new(),
        };
        let masks = Masks::new(fields.chain(path).chain(parts).chain(encoded));
        Ok(Injected { url, headers, query, masks })
    }

    fn text(&self, placed: &Placed, encoded: &mut Vec<String>) -> Result<Zeroizing<String>, EgressError> {
        let fill = |text: &SecretText| {
            let filled = text.fill(|name| self.field(name)).map(Zeroizing::new);
            filled.ok_or_else(|| self.unusable("it lacks a field that the request needs"))
        };
        match placed {
            Placed::Text(text) => fill(text),
            Placed::Basic { username, password } => {
                let (username, password) = (fill(username)?, fill(password)?);
                if username.contains(':') {
                    return Err(self.unusable("its user name has a colon, which basic authentication can't carry"));
                }
                let basic = STANDARD.encode(Zeroizing::new(format!("{}:{}", *username, *password)).as_bytes());
                let text = Zeroizing::new(format!("Basic {basic}"));
                encoded.push(basic);
                Ok(text)
            }
        }
    }

    pub(crate) fn unusable(&self, reason: &'static str) -> EgressError {
        EgressError::Secret { connection: self.connection.id.to_string(), reason }
    }
}

impl Masks {
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    /// The secrets, and how they look in a form and in base64; escapes are undone where they are looked for.
    pub(crate) fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let spellings = secrets.into_iter().map(Zeroizing::new).flat_map(|secret| {
            let escaped = Zeroizing::new(Value::from(secret.as_str()).to_string());
            let escaped = Zeroizing::new(escaped.trim_matches('"').to_owned());
            // Spaces are pluses there.
            let form: Zeroizing<String> = Zeroizing::new(byte_serialize(secret.as_bytes()).collect());
            let (base64, url_safe) = (STANDARD.encode(secret.as_bytes()), URL_SAFE_NO_PAD.encode(secret.as_bytes()));
            let unpadded = Zeroizing::new(base64.trim_end_matches('=').to_owned());
            let (base64, url_safe) = (Zeroizing::new(base64), Zeroizing::new(url_safe));
            [secret, escaped, form, base64, unpadded, url_safe]
        });
        let mut masks: Vec<_> = spellings.filter(|secret| secret.len() >= MIN_MASKED_BYTES).collect();
        masks.sort_unstable_by(|a, b| a.as_str().cmp(b));
        masks.dedup();
        Self(masks)
    }

    pub(crate) fn hide_in_body(&self, body: Bytes) -> Bytes {
        self.hidden(&body).map_or(body, Bytes::from)
    }

    pub(crate) fn hide_in_headers(&self, headers: &mut HeaderMap) {
        for value in headers.values_mut() {
            if let Some(hidden) = self.hidden(value.as_bytes()) {
                // Bytes that were a header's value, less some, plus asterisks, are one again.
                *value = HeaderValue::from_bytes(&hidden).unwrap_or(HeaderValue::from_static("***"));
            }
        }
    }

    pub(crate) fn hide_in_text(&self, text: String) -> String {
        let hidden = self.hidden(text.as_bytes());
        hidden.map_or(text, |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The text without the secrets, as they are and behind escapes; `None` where there are none.
    fn hidden(&self, text: &[u8]) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        let unescaped = Unescaped::of(text);
        let mut found = Vec::new();
        for secret in &self.0 {
            let finder = memmem::Finder::new(secret.as_bytes());
            found.extend(finder.find_iter(text).map(|at| at..at + secret.len()));
            if let Some(Unescaped { bytes, from }) = &unescaped {
                found.extend(finder.find_iter(bytes).map(|at| from[at]..from[at + secret.len()]));
            }
        }
        found.sort_unstable_by_key(|place| place.start);
        let mut hidden = Vec::with_capacity(text.len());
        let mut copied = 0;
        for place in &found {
            if place.start >= copied {
                hidden.extend_from_slice(&text[copied..place.start]);
                hidden.extend_from_slice(MASK);
            }
            copied = copied.max(place.end);
        }
        hidden.extend_from_slice(&text[copied..]);
        (!found.is_empty()).then_some(hidden)
    }
}

/// A text with the escapes of JSON, URLs and HTML undone, also where one stands inside another's text.
struct Unescaped {
    bytes: Vec<u8>,
    /// Where in the text each byte comes from, and at the end the text's length.
    from: Vec<usize>,
}

impl Unescaped {
    /// `None` where there are no escapes.
    fn of(text: &[u8]) -> Option<Self> {
        let first = text.iter().position(|byte| b"\\%&".contains(byte))?;
        let mut unescaped = Self { bytes: text[..first].to_vec(), from: (0..first).collect() };
        let mut at = first;
        while at < text.len() {
            let (character, length) = escape(&text[at..]).unwrap_or((Ok(text[at]), 1));
            match character {
                Ok(byte) => unescaped.bytes.push(byte),
                Err(character) => unescaped.bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
            unescaped.from.resize(unescaped.bytes.len(), at);
            at += length;
        }
        unescaped.from.push(text.len());
        Some(unescaped)
    }
}

/// The byte, or else the character, that the escape at the beginning of a text stands for, and how long the escape is.
fn escape(text: &[u8]) -> Option<(Result<u8, char>, usize)> {
    let number = |digits: &[u8], radix| u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok();
    match text[0] {
        b'%' => Some((Ok(u8::try_from(number(text.get(1..3)?, 16)?).ok()?), 3)),
        b'\\' => {
            // JSON inside a text of JSON has more of them.
            let slashes = text.iter().take_while(|byte| **byte == b'\\').count();
            match *text.get(slashes)? {
                b'u' => {
                    let unit = number(text.get(slashes + 1..slashes + 5)?, 16)?;
                    Some((Err(char::from_u32(unit)?), slashes + 5))
                }
                quoted @ (b'/' | b'"' | b'\'') => Some((Ok(quoted), slashes + 1)),
                _ => None,
            }
        }
        b'&' => {
            let end = text.iter().take(MAX_ENTITY_BYTES).position(|byte| *byte == b';')?;
            let character = match &text[1..end] {
                b"amp" => '&',
                b"lt" => '<',
                b"gt" => '>',
                b"quot" => '"',
                b"apos" => '\'',
                [b'#', b'x' | b'X', digits @ ..] => char::from_u32(number(digits, 16)?)?,
                [b'#', digits @ ..] => char::from_u32(number(digits, 10)?)?,
                _ => return None,
            };
            Some((Err(character), end + 1))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "tok/Ab+Cd&Ef=01'23\"<é>";

    #[test]
    fn a_secret_is_hidden_however_it_is_escaped() {
        let masks = Masks::new([SECRET.to_owned()]);
        let upper: String = SECRET.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let json: String = SECRET.chars().map(|char| format!("\\u{:04x}", char as u32)).collect();
        for spelling in [
            SECRET.to_owned(),
            upper.to_lowercase(),
            upper,
            json.to_uppercase().replace("\\U", "\\u"),
            json.replace('\\', "\\\\"),
            json.replace('\\', "\\\\\\\\"),
            json,
            SECRET.chars().map(|char| format!("&#{};", char as u32)).collect(),
            SECRET.chars().map(|char| format!("&#x{:X};", char as u32)).collect(),
            "tok/Ab+Cd&amp;Ef=01&#39;23&quot;&lt;é&gt;".to_owned(),
            "tok\\/Ab\\u002BCd\\u0026Ef=01\\u002723\\\"<é>".to_owned(),
            "tok%2fAb%2bCd&Ef%3d01'23\"<%c3%a9>".to_owned(),
            STANDARD.encode(SECRET).replace('=', "%3d").replace('+', "\\u002b"),
        ] {
            let body =
                Bytes::from(format!("{{\"100%\": \"\\n{spelling}\", \"R&D\": \"C:\\\\temp &x; %zz &#xffffffff;\"}}"));
            let hidden = masks.hide_in_body(body);
            let expected = "{\"100%\": \"\\n***\", \"R&D\": \"C:\\\\temp &x; %zz &#xffffffff;\"}";
            assert_eq!(std::str::from_utf8(&hidden), Ok(expected), "{spelling}");
        }
    }

    #[test]
    fn what_is_no_secret_stays_as_it_is() {
        let masks = Masks::new([SECRET.to_owned()]);
        for text in ["", "\\", "%", "&", "%4", "\\u00", "&#", "tok%2fAb", "\\ud83d\\ude00 100% &amp;"] {
            let body = Bytes::from_static(text.as_bytes());
            assert_eq!(masks.hide_in_body(body.clone()), body);
        }
    }

    #[test]
    fn spellings_that_overlap_are_one_secret() {
        let masks = Masks::new(["abcdefghij".to_owned(), "fghijklmno".to_owned()]);
        assert_eq!(masks.hide_in_body("x abcdefghijklmno y abcdefghij".into()), "x *** y ***");
    }
}
