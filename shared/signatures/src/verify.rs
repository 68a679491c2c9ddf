//! Who sent a request, by its webhook's scheme: the vendors' whose signature is one HMAC, and that of `hmac`.

use aws_lc_rs::hmac::{self, HMAC_SHA1_FOR_LEGACY_USE_ONLY, HMAC_SHA256, HMAC_SHA512};
use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use tidegate_model::{ContentPart, HmacAlgorithm, HmacScheme, Scheme, SignatureEncoding, Verification};

use crate::encoding::{base64, base64url, hex};
use crate::keyed::{MAX_SIGNATURES, malformed, matches, mismatch, signature_header};
use crate::timestamp::Sent;
use crate::{Rejection, Secrets, credentials, standard_webhooks, twilio};

const GITHUB_SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature-256");
const SHOPIFY_SIGNATURE: HeaderName = HeaderName::from_static("x-shopify-hmac-sha256");
const SLACK_SIGNATURE: HeaderName = HeaderName::from_static("x-slack-signature");
const SLACK_TIMESTAMP: HeaderName = HeaderName::from_static("x-slack-request-timestamp");
const STRIPE_SIGNATURE: HeaderName = HeaderName::from_static("stripe-signature");

/// A request as it came.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// Its URL as the sender saw it: scheme, host, path and query.
    pub url: &'a str,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body, byte for byte.
    pub body: &'a [u8],
}

/// Makes sure that a request comes from who has the secret, and where the scheme has a timestamp, that it was sent now.
/// Only what the scheme signs is vouched for: no other header, and the URL with Twilio alone.
///
/// # Errors
/// It doesn't come from there, or nobody can tell.
pub fn verify(
    verification: &Verification,
    secrets: &Secrets,
    received: &Received<'_>,
    now: Timestamp,
) -> Result<(), Rejection> {
    let keys = secrets.in_use()?;
    // The time is judged last, so that what is too old is known to be the sender's own.
    let sent = match verification.scheme {
        Scheme::GitHub => github(&keys, received).map(|()| None),
        Scheme::Stripe => stripe(&keys, received).map(Some),
        Scheme::Slack => slack(&keys, received).map(Some),
        Scheme::Shopify => shopify(&keys, received).map(|()| None),
        Scheme::Twilio => twilio::verify(&keys, received).map(|()| None),
        Scheme::StandardWebhooks => standard_webhooks::verify(&keys, received).map(Some),
        Scheme::Hmac => hmac(verification.hmac.as_ref(), &keys, received),
        Scheme::Basic => credentials::basic(&keys, secrets.username.as_deref(), received.headers).map(|()| None),
        Scheme::Bearer => credentials::bearer(&keys, received.headers).map(|()| None),
    }?;
    match sent {
        Some(sent) => sent.expect_near(now, verification),
        None => Ok(()),
    }
}

/// <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>. The SHA-1 beside it is ignored.
fn github(keys: &[&str], received: &Received<'_>) -> Result<(), Rejection> {
    let text = signature_header(received.headers, &GITHUB_SIGNATURE)?;
    let signature = text.strip_prefix("sha256=").and_then(hex);
    let signature =
        signature.ok_or_else(|| malformed(&GITHUB_SIGNATURE, "it must be `sha256=` and hexadecimal digits"))?;
    expect(HMAC_SHA256, keys, &[received.body], signature, &GITHUB_SIGNATURE)
}

/// <https://shopify.dev/docs/apps/build/webhooks/verify-deliveries>
fn shopify(keys: &[&str], received: &Received<'_>) -> Result<(), Rejection> {
    let text = signature_header(received.headers, &SHOPIFY_SIGNATURE)?;
    let signature = base64(text).ok_or_else(|| malformed(&SHOPIFY_SIGNATURE, "it must be base64"))?;
    expect(HMAC_SHA256, keys, &[received.body], signature, &SHOPIFY_SIGNATURE)
}

/// <https://docs.slack.dev/authentication/verifying-requests-from-slack>
fn slack<'a>(keys: &[&str], received: &Received<'a>) -> Result<Sent<'a>, Rejection> {
    let text = signature_header(received.headers, &SLACK_SIGNATURE)?;
    let signature = text.strip_prefix("v0=").and_then(hex);
    let signature = signature.ok_or_else(|| malformed(&SLACK_SIGNATURE, "it must be `v0=` and hexadecimal digits"))?;
    let sent = Sent::in_header(received.headers, &SLACK_TIMESTAMP)?;
    let parts = [b"v0:", sent.text.as_bytes(), b":", received.body];
    expect(HMAC_SHA256, keys, &parts, signature, &SLACK_SIGNATURE)?;
    Ok(sent)
}

/// <https://docs.stripe.com/webhooks/signature>. While a secret is rolled, there is a `v1` for each; `v0` is for tests.
fn stripe<'a>(keys: &[&str], received: &Received<'a>) -> Result<Sent<'a>, Rejection> {
    let header = &STRIPE_SIGNATURE;
    let text = signature_header(received.headers, header)?;
    let (mut time, mut signatures) = (None, Vec::new());
    for (at, entry) in text.split(',').enumerate() {
        if at == MAX_SIGNATURES {
            return Err(malformed(header, "it has more than 16 entries"));
        }
        match entry.trim().split_once('=') {
            Some(("t", _)) if time.is_some() => return Err(malformed(header, "it has more than one `t`")),
            Some(("t", text)) => time = Some(text),
            Some(("v1", text)) => {
                let signature = hex(text).ok_or_else(|| malformed(header, "`v1` must be hexadecimal digits"))?;
                signatures.push(signature);
            }
            Some(_) => {}
            None => return Err(malformed(header, "it must be entries `name=value`, separated by commas")),
        }
    }
    if signatures.is_empty() {
        return Err(malformed(header, "it has no `v1`"));
    }
    let time = time.ok_or_else(|| Rejection::TimestampMissing { header: header.clone() })?;
    let sent = Sent::read(time, header)?;
    let parts = [sent.text.as_bytes(), b".", received.body];
    match matches(HMAC_SHA256, keys, &parts, &signatures) {
        true => Ok(sent),
        false => Err(mismatch(header)),
    }
}

fn hmac<'a>(
    scheme: Option<&HmacScheme>,
    keys: &[&str],
    received: &Received<'a>,
) -> Result<Option<Sent<'a>>, Rejection> {
    let unusable = |problem| Rejection::VerificationUnusable { problem };
    let named = |name: &str| HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable("it names no header"));
    let scheme = scheme.ok_or_else(|| unusable("it has no `hmac`"))?;
    let template = scheme.signed().map_err(|_| unusable("its `content` is no template of what is signed"))?;
    let header = named(&scheme.header)?;
    let text = signature_header(received.headers, &header)?;
    let prefix = scheme.prefix.as_deref().unwrap_or_default();
    let text = text.strip_prefix(prefix).ok_or_else(|| malformed(&header, "it doesn't begin with the prefix"))?;
    let (signature, problem) = match scheme.encoding {
        SignatureEncoding::Hex => (hex(text), "it must be hexadecimal digits after the prefix"),
        SignatureEncoding::Base64 => (base64(text), "it must be base64 after the prefix"),
        SignatureEncoding::Base64url => {
            (base64url(text), "it must be base64 in the alphabet for URLs after the prefix")
        }
    };
    let signature = signature.ok_or_else(|| malformed(&header, problem))?;
    let sent = match &scheme.timestamp_header {
        Some(name) => Some(Sent::in_header(received.headers, &named(name)?)?),
        None => None,
    };
    let mut parts = Vec::with_capacity(template.len());
    for part in &template {
        parts.push(match part {
            ContentPart::Text(text) => text.as_bytes(),
            ContentPart::Body => received.body,
            ContentPart::Timestamp => {
                sent.as_ref().ok_or_else(|| unusable("it has no `timestamp_header`"))?.text.as_bytes()
            }
        });
    }
    let algorithm = match scheme.algorithm {
        HmacAlgorithm::Sha1 => HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        HmacAlgorithm::Sha256 => HMAC_SHA256,
        HmacAlgorithm::Sha512 => HMAC_SHA512,
    };
    expect(algorithm, keys, &parts, signature, &header)?;
    Ok(sent)
}

fn expect(
    algorithm: hmac::Algorithm,
    keys: &[&str],
    parts: &[&[u8]],
    signature: Vec<u8>,
    header: &HeaderName,
) -> Result<(), Rejection> {
    match matches(algorithm, keys, parts, &[signature]) {
        true => Ok(()),
        false => Err(mismatch(header)),
    }
}
