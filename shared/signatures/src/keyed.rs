//! Signatures by HMAC: made under each secret, and compared with what came in a time that depends on neither.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use http::{HeaderMap, HeaderName};

use crate::Rejection;
use crate::header::{Found, find};

/// How many signatures one header may have.
pub(crate) const MAX_SIGNATURES: usize = 16;

/// The text of a signature's header.
pub(crate) fn signature_header<'a>(headers: &'a HeaderMap, header: &HeaderName) -> Result<&'a str, Rejection> {
    match find(headers, header) {
        Found::Missing => Err(Rejection::SignatureMissing { header: header.clone() }),
        Found::Unreadable(problem) => Err(malformed(header, problem)),
        Found::Text(text) => Ok(text),
    }
}

pub(crate) fn malformed(header: &HeaderName, problem: &'static str) -> Rejection {
    Rejection::SignatureMalformed { header: header.clone(), problem }
}

pub(crate) fn mismatch(header: &HeaderName) -> Rejection {
    Rejection::SignatureMismatch { header: header.clone() }
}

/// Whether one of the signatures is that of the parts, one after the other, under one of the keys. Tries every key with
/// every signature, also after two have matched.
pub(crate) fn matches<K: AsRef<[u8]>>(
    algorithm: hmac::Algorithm,
    keys: &[K],
    parts: &[&[u8]],
    signatures: &[Vec<u8>],
) -> bool {
    let mut found = false;
    for key in keys {
        let tag = tag(algorithm, key.as_ref(), parts);
        for signature in signatures {
            found |= verify_slices_are_equal(tag.as_ref(), signature).is_ok();
        }
    }
    found
}

pub(crate) fn tag(algorithm: hmac::Algorithm, key: &[u8], parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, key));
    for part in parts {
        context.update(part);
    }
    context.sign()
}
