//! AES-256-GCM with random nonces and an unambiguous encoding of associated data: the one place that seals and opens.
//!
//! A sealed value is a version byte (1), the 96-bit nonce, the ciphertext and the 128-bit tag. Random nonces are safe
//! for 2³² values under one key (NIST SP 800-38D, section 8.3), far beyond a tenant's connections.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use zeroize::Zeroizing;

const VERSION: u8 = 1;
const TAG_LEN: usize = 16;
const OVERHEAD: usize = 1 + NONCE_LEN + TAG_LEN;

/// A key ready for use; the library wipes its schedule when it is dropped.
pub(crate) struct Cipher(RandomizedNonceKey);

/// The value is no sealed value, or was changed, or was sealed with other associated data or under another key. Which
/// of these is not known, by design.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused;

impl Cipher {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        #[expect(clippy::expect_used, reason = "the key's length, the only input that can be wrong, is in its type")]
        Self(RandomizedNonceKey::new(&AES_256_GCM, key).expect("a 256-bit key"))
    }

    pub(crate) fn seal(&self, associated: &[u8], plain: &[u8]) -> Vec<u8> {
        // One allocation of the final size, encrypted in place, so that no copy of the plain text stays behind.
        let mut buffer = Vec::with_capacity(OVERHEAD + plain.len());
        buffer.push(VERSION);
        buffer.extend_from_slice(&[0; NONCE_LEN]);
        buffer.extend_from_slice(plain);
        #[expect(clippy::expect_used, reason = "fails only beyond 64 GiB or where the system has no randomness")]
        let (nonce, tag) = self
            .0
            .seal_in_place_separate_tag(Aad::from(associated), &mut buffer[1 + NONCE_LEN..])
            .expect("AES-256-GCM failed to seal");
        buffer[1..=NONCE_LEN].copy_from_slice(nonce.as_ref());
        buffer.extend_from_slice(tag.as_ref());
        buffer
    }

    pub(crate) fn open(&self, associated: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refused> {
        if sealed.len() < OVERHEAD || sealed[0] != VERSION {
            return Err(Refused);
        }
        let (nonce, text) = sealed[1..].split_at(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Refused)?;
        let mut plain = Zeroizing::new(text.to_vec());
        let len = self.0.open_in_place(nonce, Aad::from(associated), &mut plain).map_err(|_| Refused)?.len();
        plain.truncate(len);
        Ok(plain)
    }
}

/// Encodes a label and parts so that no other label and parts give the same bytes: each is preceded by its length.
pub(crate) fn canonical(label: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| 8 + part.len()).sum::<usize>() + 8 + label.len());
    for part in std::iter::once(&label.as_bytes()).chain(parts) {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_only_under_its_key_and_associated_data() {
        let cipher = Cipher::new(&[7; 32]);
        for plain in [&b""[..], b"x", &[0xa5; 100_000]] {
            let sealed = cipher.seal(b"aad", plain);
            assert_eq!(sealed.len(), OVERHEAD + plain.len());
            assert_eq!(cipher.open(b"aad", &sealed).unwrap().as_slice(), plain);
            assert_eq!(cipher.open(b"aae", &sealed), Err(Refused));
            assert_eq!(cipher.open(b"", &sealed), Err(Refused));
            assert_eq!(Cipher::new(&[8; 32]).open(b"aad", &sealed), Err(Refused));
        }
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_refused() {
        let cipher = Cipher::new(&[7; 32]);
        let sealed = cipher.seal(b"aad", b"a secret");
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[at] ^= 1 << bit;
                assert_eq!(cipher.open(b"aad", &changed), Err(Refused), "byte {at} bit {bit}");
            }
            assert_eq!(cipher.open(b"aad", &sealed[..at]), Err(Refused), "cut to {at}");
        }
        assert_eq!(cipher.open(b"aad", &[sealed.as_slice(), b"0"].concat()), Err(Refused));
    }

    #[test]
    fn nonces_differ() {
        let cipher = Cipher::new(&[7; 32]);
        let nonces: std::collections::HashSet<Vec<u8>> =
            (0..1000).map(|_| cipher.seal(b"", b"")[1..=NONCE_LEN].to_vec()).collect();
        assert_eq!(nonces.len(), 1000);
    }

    #[test]
    fn encoding_is_unambiguous() {
        let encodings = [
            canonical("l", &[b"ab", b"c"]),
            canonical("l", &[b"a", b"bc"]),
            canonical("l", &[b"abc", b""]),
            canonical("l", &[b"abc"]),
            canonical("l", &[b"", b"abc"]),
            canonical("la", &[b"b", b"c"]),
            canonical("l", &[&canonical("l", &[b"abc"])]),
        ];
        let distinct: std::collections::HashSet<&Vec<u8>> = encodings.iter().collect();
        assert_eq!(distinct.len(), encodings.len());
    }
}
