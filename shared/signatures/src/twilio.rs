//! <https://www.twilio.com/docs/usage/security>: an HMAC-SHA1 under the account's token, over the URL and the fields of a
//! form; of any other body the URL has the SHA-256.
//!
//! Nothing stands between a field's name and its value there, nor between two fields. So only what is written as a form
//! is taken for one.

use std::borrow::Cow;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName};
use url::form_urlencoded;

use crate::encoding::{base64, hex};
use crate::header::{Found, find};
use crate::keyed::{malformed, matches, mismatch, signature_header};
use crate::{Received, Rejection};

const SIGNATURE: HeaderName = HeaderName::from_static("x-twilio-signature");
const BODY_HASH: &str = "bodySHA256";

pub(crate) fn verify(keys: &[&str], received: &Received<'_>) -> Result<(), Rejection> {
    let text = signature_header(received.headers, &SIGNATURE)?;
    let signatures = [base64(text).ok_or_else(|| malformed(&SIGNATURE, "it must be base64"))?];
    let hash = body_hash(received.url)?;
    let fields = match hash {
        Some(_) => Vec::new(),
        None => fields(received)?,
    };
    let mut found = false;
    for url in spellings(received.url) {
        let fields = fields.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
        let parts: Vec<_> = url.iter().map(|part| part.as_bytes()).chain(fields).collect();
        found |= matches(HMAC_SHA1_FOR_LEGACY_USE_ONLY, keys, &parts, &signatures);
    }
    if let Some(hash) = hash {
        let hash = hex(&hash).unwrap_or_default();
        found &= verify_slices_are_equal(digest(&SHA256, received.body).as_ref(), &hash).is_ok();
    }
    match found {
        true => Ok(()),
        false => Err(mismatch(&SIGNATURE)),
    }
}

/// What the URL says of the body.
fn body_hash(url: &str) -> Result<Option<Cow<'_, str>>, Rejection> {
    let url = url.split_once('#').map_or(url, |(url, _)| url);
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let mut hashes = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == BODY_HASH);
    match (hashes.next(), hashes.next()) {
        (_, Some(_)) => Err(Rejection::BodyUnsigned { problem: "the URL has more than one `bodySHA256`" }),
        (hash, None) => Ok(hash.map(|(_, hash)| hash)),
    }
}

type Field<'a> = (Cow<'a, str>, Cow<'a, str>);

/// The fields of a form by name, then value, each once; none of an empty body.
fn fields<'a>(received: &Received<'a>) -> Result<Vec<Field<'a>>, Rejection> {
    if received.body.is_empty() {
        return Ok(Vec::new());
    }
    if !is_form(received.headers) || !is_plain(received.body) {
        let problem = "it must be a form, or the URL must have its `bodySHA256`";
        return Err(Rejection::BodyUnsigned { problem });
    }
    let mut fields: Vec<_> = form_urlencoded::parse(received.body).collect();
    fields.sort_unstable();
    fields.dedup();
    Ok(fields)
}

fn is_form(headers: &HeaderMap) -> bool {
    match find(headers, &CONTENT_TYPE) {
        Found::Text(text) => {
            let kind = text.split(';').next().unwrap_or_default().trim();
            kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
        }
        Found::Missing | Found::Unreadable(_) => false,
    }
}

/// Whether every field has a name and an equals sign, escapes are whole, and all that isn't plain text is escaped.
fn is_plain(body: &[u8]) -> bool {
    let is_field = |field: &[u8]| field.iter().position(|byte| *byte == b'=').is_some_and(|at| at > 0);
    let mut rest = body;
    while let Some((first, after)) = rest.split_first() {
        rest = match first {
            b'%' => match after {
                [high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => after,
                _ => return false,
            },
            byte if byte.is_ascii_alphanumeric() || b"-._~*+=&!'(),:;@/?$".contains(byte) => after,
            _ => return false,
        };
    }
    body.split(|byte| *byte == b'&').all(is_field)
}

/// The URL with its port and without, in parts: what Twilio signs isn't always what it calls. Where there is none, the
/// scheme's own.
fn spellings(url: &str) -> Vec<[&str; 3]> {
    let as_it_is = [url, "", ""];
    let Some(start) = url.find("://").map(|at| at + 3) else {
        return vec![as_it_is];
    };
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |length| start + length);
    let (authority, rest) = (&url[..end], &url[end..]);
    let host = url[start..end].rsplit_once('@').map_or(&url[start..end], |(_, host)| host);
    match host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit())) {
        Some((_, port)) => vec![as_it_is, [&authority[..authority.len() - port.len() - 1], "", rest]],
        None if url.starts_with("https:") => vec![as_it_is, [authority, ":443", rest]],
        None if url.starts_with("http:") => vec![as_it_is, [authority, ":80", rest]],
        None => vec![as_it_is],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_spelled_with_its_port_and_without() {
        for (url, other) in [
            ("https://a.example", Some("https://a.example:443")),
            ("https://a.example/b:1?c=d:2#e:3", Some("https://a.example:443/b:1?c=d:2#e:3")),
            ("http://a.example?b", Some("http://a.example:80?b")),
            ("http://a.example:8080/b", Some("http://a.example/b")),
            ("https://u:1@a.example/", Some("https://u:1@a.example:443/")),
            ("https://u:1@a.example:2/", Some("https://u:1@a.example/")),
            ("https://[::1]/", Some("https://[::1]:443/")),
            ("https://[::1]:1/", Some("https://[::1]/")),
            ("ftp://a.example/", None),
            ("a.example:80", None),
            ("", None),
        ] {
            let spelled: Vec<_> = spellings(url).iter().map(|parts| parts.concat()).collect();
            let expected: Vec<_> = [Some(url), other].into_iter().flatten().collect();
            assert_eq!(spelled, expected);
        }
    }

    #[test]
    fn only_what_is_written_as_a_form_is_one() {
        for form in ["a=", "a=b", "a=b&c=d%2B+e", "A.b-c_d~*=x=y", "a=%C3%A9"] {
            assert!(is_plain(form.as_bytes()), "{form}");
        }
        for other in
            ["a", "=a", "a=b&", "&a=b", "a=b&&c=d", "a=%", "a=%2", "a=%2g", "a=b c", "a=\"", "{\"a\":\"=\"}", "a=é", ""]
        {
            assert!(!is_plain(other.as_bytes()), "{other}");
        }
    }
}
