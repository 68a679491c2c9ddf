//! How bytes are written as text in headers and secrets.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

/// With or without padding: what others send isn't always what we would write.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

pub(crate) fn base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE.decode(text).ok()
}

pub(crate) fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8]| match *pair {
        [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
        _ => None,
    };
    text.as_bytes().chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_pairs_of_digits() {
        assert_eq!(hex("00fFa9"), Some(vec![0, 255, 169]));
        assert_eq!(hex(""), Some(vec![]));
        for bad in ["0", "000", "+f", "0x", " 0", "é", "0g"] {
            assert_eq!(hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn base64_needs_no_padding_but_its_alphabet() {
        for text in ["-_8=", "-_8"] {
            assert_eq!((base64url(text), base64(text)), (Some(vec![0xfb, 0xff]), None));
        }
        for text in ["+/8=", "+/8"] {
            assert_eq!((base64(text), base64url(text)), (Some(vec![0xfb, 0xff]), None));
        }
        assert_eq!(base64("+/9"), None, "bits that carry nothing");
    }
}
