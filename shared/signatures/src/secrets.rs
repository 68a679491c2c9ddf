//! What a connection holds to verify webhooks with.

use std::fmt;

use serde::Deserialize;
use zeroize::Zeroizing;

use crate::Rejection;

/// A connection's secret, and during a rotation the one before. Deserialized from
/// `{"secret", "previous_secret", "username"}`; a parser's error may quote them, so better by [`Secrets::read`].
#[derive(Clone, Deserialize)]
#[serde(from = "Fields")]
pub struct Secrets {
    /// The signing secret, password or token; for Standard Webhooks it may be a public key.
    pub secret: Zeroizing<String>,
    /// The one before, which still counts. An empty one is none.
    pub previous_secret: Option<Zeroizing<String>>,
    /// The user's name, for basic authentication.
    pub username: Option<String>,
}

#[derive(Deserialize)]
struct Fields {
    secret: String,
    #[serde(default)]
    previous_secret: Option<String>,
    #[serde(default)]
    username: Option<String>,
}

impl Secrets {
    /// The secrets in a connection's opened JSON.
    ///
    /// # Errors
    /// [`Rejection::SecretUnusable`]: it isn't of that form.
    pub fn read(plain: &[u8]) -> Result<Self, Rejection> {
        let problem = "it needs a text `secret`; `previous_secret` and `username` are texts too";
        serde_json::from_slice(plain).map_err(|_| Rejection::SecretUnusable { problem })
    }

    /// The secrets that count, the newest first.
    pub(crate) fn in_use(&self) -> Result<Vec<&str>, Rejection> {
        if self.secret.is_empty() {
            return Err(Rejection::SecretUnusable { problem: "it is empty" });
        }
        let previous = self.previous_secret.iter().filter(|secret| !secret.is_empty());
        Ok([&self.secret].into_iter().chain(previous).map(|secret| secret.as_str()).collect())
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

impl From<Fields> for Secrets {
    fn from(fields: Fields) -> Self {
        Self {
            secret: Zeroizing::new(fields.secret),
            previous_secret: fields.previous_secret.map(Zeroizing::new),
            username: fields.username,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_is_needed_and_none_is_shown() {
        let both = Secrets::read(br#"{"secret": "new1", "previous_secret": "old1", "username": "u"}"#).unwrap();
        assert_eq!(both.in_use().unwrap(), ["new1", "old1"]);
        assert_eq!(both.username.as_deref(), Some("u"));
        assert_eq!(format!("{both:?}"), "Secrets(…)");
        for one in [&br#"{"secret": "new1"}"#[..], br#"{"secret": "new1", "previous_secret": "", "username": null}"#] {
            assert_eq!(Secrets::read(one).unwrap().in_use().unwrap(), ["new1"]);
        }
        let empty = Secrets::read(br#"{"secret": "", "previous_secret": "old1"}"#).unwrap();
        assert_eq!(empty.in_use().unwrap_err().reason(), "secret_unusable");
    }

    #[test]
    fn what_is_no_secret_is_refused_without_being_quoted() {
        for plain in [&b""[..], b"{}", br#"{"secret": 123454321}"#, br#"{"secret": "s", "previous_secret": 123454321}"#]
        {
            let error = Secrets::read(plain).unwrap_err();
            assert_eq!(error.reason(), "secret_unusable");
            assert!(!format!("{error} {error:?}").contains("123454321"));
        }
    }
}
