//! API keys as their holders write them: `tgk_`, the key's id in 32 hex digits, `_`, and a secret of 256 random bits in 43
//! characters of base64url. The prefix lets scanners of source code recognise one that leaked.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tidegate_model::ApiKeyId;
use zeroize::Zeroizing;

/// What every API key begins with.
pub const API_KEY_PREFIX: &str = "tgk_";
const SECRET_CHARS: usize = 43;

/// A secret of 256 random bits, of which only the hash is stored: one that can't be guessed needs no slow hash.
#[derive(Clone)]
pub struct RandomSecret(Zeroizing<String>);

impl RandomSecret {
    /// A new one.
    ///
    /// # Panics
    /// The system's random number generator fails.
    #[expect(clippy::expect_used, reason = "a system without randomness can make no secrets")]
    pub fn new() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(bytes.as_mut()).expect("the system's random number generator failed");
        Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_ref())))
    }

    /// The one that somebody shows, if it has a secret's form.
    pub fn parse(text: &str) -> Option<Self> {
        let canonical = text.len() == SECRET_CHARS && URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 32);
        canonical.then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored of it: SHA-256, hex.
    pub fn hash(&self) -> String {
        sha256_hex(self.0.as_bytes())
    }

    /// Whether this is the secret that was stored so; takes as long either way.
    pub fn is(&self, stored_hash: &str) -> bool {
        verify_slices_are_equal(self.hash().as_bytes(), stored_hash.as_bytes()).is_ok()
    }
}

impl Default for RandomSecret {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for RandomSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RandomSecret(…)")
    }
}

/// SHA-256 of a text, hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An API key as its holder writes it.
pub fn write_api_key(id: ApiKeyId, secret: &RandomSecret) -> Zeroizing<String> {
    let id = id.to_string();
    let digits = id.trim_start_matches(ApiKeyId::PREFIX);
    Zeroizing::new(format!("{API_KEY_PREFIX}{digits}_{}", secret.expose()))
}

/// The id and the secret of an API key, if it has a key's form.
pub fn read_api_key(text: &str) -> Option<(ApiKeyId, RandomSecret)> {
    let (digits, secret) = text.strip_prefix(API_KEY_PREFIX)?.split_once('_')?;
    let id = format!("{}{digits}", ApiKeyId::PREFIX).parse().ok()?;
    Some((id, RandomSecret::parse(secret)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_no_other_text_is_one() {
        let id = ApiKeyId::new(jiff::Timestamp::UNIX_EPOCH, [7; 10]);
        let secret = RandomSecret::new();
        let text = write_api_key(id, &secret);
        let (read, shown) = read_api_key(&text).unwrap();
        assert!(read == id && shown.is(&secret.hash()) && !RandomSecret::new().is(&secret.hash()));
        for bad in [&text[1..], &text[..text.len() - 1], &format!("{}x", *text), &text.replace("tgk_", "tgk__")] {
            assert!(read_api_key(bad).is_none(), "{bad}");
        }
        assert_eq!(format!("{secret:?}"), "RandomSecret(…)");
    }
}
