//! Links that are mailed to a person: each has a secret of its own, is good once and for a while, and only the newest is.

use std::time::Duration;

use jiff::Timestamp;
use tidegate_http::{Problem, ProblemCode, RandomSecret};
use tidegate_model::{Link, UserId};
use zeroize::Zeroizing;

/// What a link is for: a token of one kind isn't good for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To set a new password.
    Reset,
    /// To verify an address.
    Verification,
}

impl Purpose {
    fn prefix(self) -> &'static str {
        match self {
            Self::Reset => "tgp_",
            Self::Verification => "tgv_",
        }
    }

    /// How long such a link is good.
    pub(crate) fn lifetime(self) -> Duration {
        match self {
            Self::Reset => Duration::from_secs(3_600),
            Self::Verification => Duration::from_secs(3 * 86_400),
        }
    }
}

/// A link's token: a prefix, the user's id in 32 hex digits, and a secret of which only the hash is stored.
#[derive(Debug)]
pub(crate) struct LinkToken {
    pub(crate) user: UserId,
    secret: RandomSecret,
}

impl LinkToken {
    /// A new one.
    pub(crate) fn new(user: UserId) -> Self {
        Self { user, secret: RandomSecret::new() }
    }

    /// The one that somebody shows, if it has the form of one for this purpose.
    pub(crate) fn parse(purpose: Purpose, text: &str) -> Option<Self> {
        let (user, secret) = text.strip_prefix(purpose.prefix())?.split_once('.')?;
        let user = format!("{}{user}", UserId::PREFIX).parse().ok()?;
        Some(Self { user, secret: RandomSecret::parse(secret)? })
    }

    /// The token as it stands in the link.
    pub(crate) fn write(&self, purpose: Purpose) -> Zeroizing<String> {
        let user = self.user.to_string();
        Zeroizing::new(format!("{}{}.{}", purpose.prefix(), &user[UserId::PREFIX.len()..], self.secret.expose()))
    }

    /// What is stored of it.
    pub(crate) fn link(&self, purpose: Purpose, now: Timestamp) -> Link {
        Link { secret_hash: self.secret.hash(), expires_at: now + purpose.lifetime() }
    }

    /// Whether it is the one that is stored, and still good.
    pub(crate) fn opens(&self, stored: Option<&Link>, now: Timestamp) -> bool {
        stored.is_some_and(|link| self.secret.is(&link.secret_hash) && now < link.expires_at)
    }
}

/// 410: the link isn't good, whatever the reason.
pub(crate) fn invalid() -> Problem {
    let detail = "This link was used, has ended, or was followed by a newer one. Ask for another.";
    Problem::new(ProblemCode::LinkInvalid, detail)
}

/// 403: it is another account's.
pub(crate) fn not_yours() -> Problem {
    let detail = "This link is another account's. Sign in to the account with the address that it was mailed to.";
    Problem::new(ProblemCode::Forbidden, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_written_and_for_its_own_purpose_alone() {
        let token = LinkToken::new(UserId::new(Timestamp::UNIX_EPOCH, [7; 10]));
        let text = token.write(Purpose::Reset);
        assert!(text.starts_with("tgp_"));
        let read = LinkToken::parse(Purpose::Reset, &text).unwrap();
        let link = token.link(Purpose::Reset, Timestamp::UNIX_EPOCH);
        assert!(read.user == token.user && read.opens(Some(&link), Timestamp::UNIX_EPOCH));
        assert!(!read.opens(Some(&link), link.expires_at) && !read.opens(None, Timestamp::UNIX_EPOCH));
        assert!(!LinkToken::new(token.user).opens(Some(&link), Timestamp::UNIX_EPOCH));
        assert!(LinkToken::parse(Purpose::Verification, &text).is_none());
        for bad in [&text[..text.len() - 1], &format!("{}x", *text), &text.replace('.', ""), ""] {
            assert!(LinkToken::parse(Purpose::Reset, bad).is_none(), "{bad}");
        }
        assert!(!format!("{token:?}").contains(text.split_once('.').unwrap().1));
    }
}
