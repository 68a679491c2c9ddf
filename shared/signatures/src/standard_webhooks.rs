//! <https://www.standardwebhooks.com>, version 1.0.0: `v1` by HMAC-SHA256 with a `whsec_` secret, `v1a` by Ed25519 with a
//! `whpk_` key.

use aws_lc_rs::hmac::HMAC_SHA256;
use aws_lc_rs::signature::{ED25519, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::encoding::base64;
use crate::header::{Found, find};
use crate::keyed::{MAX_SIGNATURES, malformed, matches, mismatch, signature_header, tag};
use crate::timestamp::Sent;
use crate::{Received, Rejection};

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const SECRET_PREFIX: &str = "whsec_";
const PUBLIC_KEY_PREFIX: &str = "whpk_";
const PRIVATE_KEY_PREFIX: &str = "whsk_";

/// The `webhook-signature` of what is sent with this id at this time, to whole seconds.
///
/// # Errors
/// The secret, the id or the time can't be used.
pub fn sign_v1(secret: &str, id: &str, timestamp: Timestamp, body: &[u8]) -> Result<String, Rejection> {
    let id = checked_id(id)?;
    let seconds = timestamp.as_second().to_string();
    let sent = Sent::read(&seconds, &TIMESTAMP)?;
    match Key::read(secret)? {
        Key::Secret(key) => Ok(format!("v1,{}", STANDARD.encode(tag(HMAC_SHA256, &key, &content(id, &sent, body))))),
        Key::Public(_) => {
            let problem = "a public key can't sign; it must be `whsec_` and base64";
            Err(Rejection::SecretUnusable { problem })
        }
    }
}

pub(crate) fn verify<'a>(keys: &[&str], received: &Received<'a>) -> Result<Sent<'a>, Rejection> {
    let keys: Vec<_> = keys.iter().map(|key| Key::read(key)).collect::<Result<_, _>>()?;
    let signatures = Signatures::read(signature_header(received.headers, &SIGNATURE)?)?;
    let id = id(received.headers)?;
    let sent = Sent::in_header(received.headers, &TIMESTAMP)?;
    let parts = content(id, &sent, received.body);
    let mut found = false;
    for key in &keys {
        match key {
            Key::Secret(key) => found |= matches(HMAC_SHA256, &[key], &parts, &signatures.v1),
            Key::Public(key) => {
                let content = parts.concat();
                for signature in &signatures.v1a {
                    found |= key.verify_sig(&content, signature).is_ok();
                }
            }
        }
    }
    match found {
        true => Ok(sent),
        false => Err(mismatch(&SIGNATURE)),
    }
}

enum Key {
    Secret(Zeroizing<Vec<u8>>),
    Public(ParsedPublicKey),
}

impl Key {
    /// The prefix of a secret may be left out, as in the reference libraries.
    fn read(text: &str) -> Result<Self, Rejection> {
        let unusable = |problem| Rejection::SecretUnusable { problem };
        if text.starts_with(PRIVATE_KEY_PREFIX) {
            return Err(unusable("it is the sender's private key, which is nobody else's; take the `whpk_` one"));
        }
        if let Some(text) = text.strip_prefix(PUBLIC_KEY_PREFIX) {
            let key = base64(text).and_then(|bytes| ParsedPublicKey::new(&ED25519, bytes).ok());
            return key
                .map(Self::Public)
                .ok_or_else(|| unusable("`whpk_` must be followed by an Ed25519 key in base64"));
        }
        let bytes = base64(text.strip_prefix(SECRET_PREFIX).unwrap_or(text)).map(Zeroizing::new);
        let key = bytes.filter(|bytes| (24..=64).contains(&bytes.len()));
        key.map(Self::Secret)
            .ok_or_else(|| unusable("it must be `whsec_` and 24 to 64 bytes in base64, or a `whpk_` key"))
    }
}

/// The signatures of the versions that are known.
struct Signatures {
    v1: Vec<Vec<u8>>,
    v1a: Vec<Vec<u8>>,
}

impl Signatures {
    fn read(text: &str) -> Result<Self, Rejection> {
        let mut read = Self { v1: Vec::new(), v1a: Vec::new() };
        for (at, entry) in text.split(' ').filter(|entry| !entry.is_empty()).enumerate() {
            if at == MAX_SIGNATURES {
                return Err(malformed(&SIGNATURE, "it has more than 16 entries"));
            }
            let problem = "it must be entries of version, comma and base64, separated by spaces";
            let (version, signature) = entry.split_once(',').ok_or_else(|| malformed(&SIGNATURE, problem))?;
            let known = match version {
                "v1" => &mut read.v1,
                "v1a" => &mut read.v1a,
                _ => continue,
            };
            known.push(base64(signature).ok_or_else(|| malformed(&SIGNATURE, problem))?);
        }
        match read.v1.is_empty() && read.v1a.is_empty() {
            true => Err(malformed(&SIGNATURE, "it has neither a `v1` nor a `v1a`")),
            false => Ok(read),
        }
    }
}

fn id(headers: &HeaderMap) -> Result<&str, Rejection> {
    match find(headers, &ID) {
        Found::Missing => Err(Rejection::IdMissing { header: ID }),
        Found::Unreadable(problem) => Err(Rejection::IdMalformed { header: ID, problem }),
        Found::Text(id) => checked_id(id),
    }
}

/// With a dot in the id, somebody could move what is signed from one part to the next.
fn checked_id(id: &str) -> Result<&str, Rejection> {
    let is_id = (1..=255).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'.');
    let problem = "it must be 1 to 255 visible ASCII characters without a dot";
    is_id.then_some(id).ok_or(Rejection::IdMalformed { header: ID, problem })
}

fn content<'a>(id: &'a str, sent: &Sent<'a>, body: &'a [u8]) -> [&'a [u8]; 5] {
    [id.as_bytes(), b".", sent.text.as_bytes(), b".", body]
}
