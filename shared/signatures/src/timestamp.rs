//! The time that a sender tells, in Unix seconds, and how far from ours it may be.

use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use tidegate_model::Verification;

use crate::Rejection;
use crate::header::{Found, find};

/// Enough for the year 5138.
const MAX_DIGITS: usize = 11;

/// The text of a timestamp, which is part of what is signed, and its value.
pub(crate) struct Sent<'a> {
    pub(crate) text: &'a str,
    seconds: i64,
}

impl<'a> Sent<'a> {
    pub(crate) fn in_header(headers: &'a HeaderMap, header: &HeaderName) -> Result<Self, Rejection> {
        match find(headers, header) {
            Found::Missing => Err(Rejection::TimestampMissing { header: header.clone() }),
            Found::Unreadable(problem) => Err(Rejection::TimestampMalformed { header: header.clone(), problem }),
            Found::Text(text) => Self::read(text, header),
        }
    }

    /// There is one text for each time, so that no digit can move between a timestamp and what is signed beside it.
    pub(crate) fn read(text: &'a str, header: &HeaderName) -> Result<Self, Rejection> {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        let seconds = (is_number && text.len() <= MAX_DIGITS).then(|| text.parse().ok()).flatten();
        let problem = "it must be Unix seconds, in digits alone";
        let malformed = || Rejection::TimestampMalformed { header: header.clone(), problem };
        Ok(Self { text, seconds: seconds.ok_or_else(malformed)? })
    }

    /// Refuses what was sent too long before or after now.
    pub(crate) fn expect_near(&self, now: Timestamp, verification: &Verification) -> Result<(), Rejection> {
        let tolerance_seconds = verification.window_seconds();
        let age = now.as_second().saturating_sub(self.seconds);
        let distance = age.unsigned_abs();
        match (distance > u64::from(tolerance_seconds), age > 0) {
            (false, _) => Ok(()),
            (true, true) => Err(Rejection::TimestampTooOld { age_seconds: distance, tolerance_seconds }),
            (true, false) => Err(Rejection::TimestampInFuture { ahead_seconds: distance, tolerance_seconds }),
        }
    }
}
