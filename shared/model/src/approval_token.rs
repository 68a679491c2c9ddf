//! The text in an approval's link: who asks, for which step of which run, and a signature over it. There is one text
//! for each token, so what was verified is what is acted on. Signing and verifying are left to others.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::definition::is_step_id;
use crate::{RunId, TenantId};

const VERSION: u8 = 1;
/// Keeps these signatures apart from any others under the same key.
const DOMAIN: &[u8] = b"tidegate approval link v1\0";
const SIGNATURE_BYTES: usize = 32;
/// Version, tenant, run and signature; the step's id follows.
const FIXED_BYTES: usize = 1 + 16 + 16 + SIGNATURE_BYTES;
/// A text longer than the longest token's isn't even decoded.
const MAX_TEXT_BYTES: usize = (FIXED_BYTES + 64) * 4 / 3 + 1;

/// What lets its bearer decide one approval. As text: `version 1 | tenant 16 | run 16 | signature 32 | step id` in
/// URL-safe base64 (RFC 4648, section 5) without padding.
#[derive(Clone, PartialEq, Eq)]
pub struct ApprovalToken {
    /// Whose run it is.
    pub tenant: TenantId,
    /// The run that waits.
    pub run: RunId,
    /// The step that waits; a valid step id.
    pub step: String,
    /// HMAC-SHA256 over [`ApprovalToken::signed`].
    pub signature: [u8; SIGNATURE_BYTES],
}

/// A text that is no approval token. Nothing tells what is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an approval token")]
pub struct ApprovalTokenError;

impl ApprovalToken {
    /// The bytes that the signature covers.
    pub fn signed(tenant: TenantId, run: RunId, step: &str) -> Vec<u8> {
        [DOMAIN, tenant.as_bytes(), run.as_bytes(), step.as_bytes()].concat()
    }
}

impl fmt::Display for ApprovalToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes =
            [&[VERSION], &self.tenant.as_bytes()[..], self.run.as_bytes(), &self.signature, self.step.as_bytes()];
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes.concat()))
    }
}

/// Without the signature, so that no log holds what decides.
impl fmt::Debug for ApprovalToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApprovalToken")
            .field("tenant", &self.tenant)
            .field("run", &self.run)
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

impl FromStr for ApprovalToken {
    type Err = ApprovalTokenError;

    /// Only the text that [`ApprovalToken`] displays as is a token: for a step that may exist, of a run that was made
    /// for the tenant.
    fn from_str(text: &str) -> Result<Self, ApprovalTokenError> {
        let token = (text.len() <= MAX_TEXT_BYTES).then(|| read(text)).flatten();
        token.filter(|token| token.to_string() == text).ok_or(ApprovalTokenError)
    }
}

fn read(text: &str) -> Option<ApprovalToken> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (&[version], rest) = bytes.split_first_chunk()?;
    let (tenant, rest) = rest.split_first_chunk()?;
    let (run, rest) = rest.split_first_chunk()?;
    let (&signature, step) = rest.split_first_chunk()?;
    let (tenant, run) = (TenantId::from_bytes(*tenant), RunId::from_bytes(*run));
    let step = String::from_utf8(step.to_vec()).ok()?;
    let sound = version == VERSION && run.is_tagged_for(tenant) && is_step_id(&step);
    sound.then_some(ApprovalToken { tenant, run, step, signature })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn token(step: &str) -> ApprovalToken {
        let at = Timestamp::from_millisecond(1_790_000_000_123).unwrap();
        let tenant = TenantId::new(at, [0xab; 10]);
        let run = RunId::for_tenant(tenant, at, [0xcd; 10]);
        ApprovalToken { tenant, run, step: step.to_owned(), signature: [0xef; 32] }
    }

    #[test]
    fn the_text_is_the_token() {
        for step in ["a", "ask", "ask_2", &"s".repeat(64)] {
            let token = token(step);
            let text = token.to_string();
            assert!(text.len() <= MAX_TEXT_BYTES);
            assert_eq!(text.parse(), Ok(token));
        }
    }

    #[test]
    fn no_other_text_is_a_token() {
        // Steps of three lengths, so that the text ends with 0, 2 and 4 bits that carry nothing.
        for step in ["a", "ab", "abc"] {
            let text = token(step).to_string();
            let mut others = vec![
                String::new(),
                text.to_uppercase(),
                text.to_lowercase(),
                format!("{text}="),
                format!("{text}=="),
                format!("{text}\n"),
                format!(" {text}"),
                format!("{text}A"),
                text[..text.len() - 2].to_owned(),
                text.replace('-', "+").replace('_', "/") + "+/",
                "A".repeat(1_000_000),
            ];
            // Every other last character: other bits that carry nothing, or another step.
            for last in ('A'..='Z').chain('0'..='9').chain(['-', '_']) {
                others.push(format!("{}{last}", &text[..text.len() - 1]));
            }
            for other in others.into_iter().filter(|other| *other != text) {
                let parsed = other.parse::<ApprovalToken>();
                let same = parsed.as_ref().is_ok_and(|parsed| *parsed == token(step));
                assert!(!same, "{other}");
                assert!(parsed.is_err() || parsed.is_ok_and(|parsed| parsed.to_string() == other));
            }
        }
    }

    #[test]
    fn parts_that_cannot_be_are_refused() {
        for step in ["", "a.approved", "a#b", "Ask", "1st", "_a", "schritt-ü", &"s".repeat(65)] {
            assert_eq!(token(step).to_string().parse::<ApprovalToken>(), Err(ApprovalTokenError), "{step}");
        }
        let other_tenant = TenantId::new(Timestamp::UNIX_EPOCH, [1; 10]);
        let foreign = ApprovalToken { tenant: other_tenant, ..token("ask") };
        assert_eq!(foreign.to_string().parse::<ApprovalToken>(), Err(ApprovalTokenError));
        let mut bytes = URL_SAFE_NO_PAD.decode(token("ask").to_string()).unwrap();
        bytes[0] = 2;
        assert_eq!(URL_SAFE_NO_PAD.encode(&bytes).parse::<ApprovalToken>(), Err(ApprovalTokenError));
        bytes[0] = VERSION;
        bytes.push(0xff);
        assert_eq!(URL_SAFE_NO_PAD.encode(&bytes).parse::<ApprovalToken>(), Err(ApprovalTokenError));
    }

    #[test]
    fn the_signed_bytes_name_the_run_and_the_step() {
        let ApprovalToken { tenant, run, .. } = token("ask");
        let signed = ApprovalToken::signed(tenant, run, "ask");
        assert!(signed.starts_with(DOMAIN) && signed.ends_with(b"ask"));
        assert_eq!(signed.len(), DOMAIN.len() + 16 + 16 + 3);
        assert!(!format!("{:?}", token("ask")).contains("239"), "the signature isn't shown");
    }
}
