//! Senders that show the secret itself: basic authentication (RFC 7617) and bearer tokens (RFC 6750).

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use zeroize::Zeroizing;

use crate::Rejection;
use crate::encoding::base64;
use crate::header::{Found, find};

pub(crate) fn basic(keys: &[&str], username: Option<&str>, headers: &HeaderMap) -> Result<(), Rejection> {
    let username = username.filter(|name| !name.contains(':'));
    let problem = "basic authentication needs a `username`, without a colon";
    let username = username.ok_or(Rejection::SecretUnusable { problem })?;
    let problem = "it must be `Basic` and the base64 of name, colon and password";
    let malformed = || Rejection::CredentialsMalformed { problem };
    let given = shown(headers, "basic", malformed)?;
    let given = Zeroizing::new(base64(given).ok_or_else(malformed)?);
    let accepted = keys.iter().map(|key| Zeroizing::new(format!("{username}:{key}")));
    expect(&given, accepted)
}

pub(crate) fn bearer(keys: &[&str], headers: &HeaderMap) -> Result<(), Rejection> {
    let malformed = || Rejection::CredentialsMalformed { problem: "it must be `Bearer` and the token" };
    let given = shown(headers, "bearer", malformed)?;
    expect(given.as_bytes(), keys.iter())
}

/// What stands after the scheme, which is written in either case.
fn shown<'a>(headers: &'a HeaderMap, scheme: &str, malformed: impl Fn() -> Rejection) -> Result<&'a str, Rejection> {
    let text = match find(headers, &AUTHORIZATION) {
        Found::Missing => return Err(Rejection::CredentialsMissing),
        Found::Unreadable(problem) => return Err(Rejection::CredentialsMalformed { problem }),
        Found::Text(text) => text,
    };
    let (name, shown) = text.split_once(' ').ok_or_else(&malformed)?;
    name.eq_ignore_ascii_case(scheme).then(|| shown.trim_start_matches(' ')).ok_or_else(malformed)
}

/// By digests, so that the time tells nothing of the lengths either; all are tried.
fn expect(given: &[u8], accepted: impl Iterator<Item: AsRef<str>>) -> Result<(), Rejection> {
    let given = digest(&SHA256, given);
    let mut found = false;
    for text in accepted {
        let digest = digest(&SHA256, text.as_ref().as_bytes());
        found |= verify_slices_are_equal(digest.as_ref(), given.as_ref()).is_ok();
    }
    match found {
        true => Ok(()),
        false => Err(Rejection::CredentialsWrong),
    }
}
