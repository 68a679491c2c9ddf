//! Filters that write a value in another form: JSON, base64, hexadecimal, hashes, URLs, HTML.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD, URL_SAFE_NO_PAD};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Arguments, shown, text};
use crate::expression::MAX_TEXT_BYTES;
use crate::expression::data::Data;
use crate::expression::evaluate::Outcome;
use crate::expression::meter::{Fault, List, Meter, Object, Text};

/// Both alphabets with or without padding: what others send isn't always what we would write.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const LENIENT_STANDARD: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT);
const LENIENT_URL_SAFE: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::URL_SAFE, LENIENT);

pub(super) fn to_json(value: &Data, _: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let value = value.clone().settle(meter)?;
    if value.size().bytes > 4 * MAX_TEXT_BYTES {
        return Err(Fault::long_text());
    }
    meter.work(value.size().bytes)?;
    let mut out = Text::default();
    value.write_json(&mut out).map_err(|fmt::Error| Fault::long_text())?;
    Ok(out.finish(meter)?.into())
}

pub(super) fn from_json(value: &Data, _: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let text = text(value, meter)?;
    let mut fault = None;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = Reader { meter, fault: &mut fault }.deserialize(&mut deserializer);
    match (read.and_then(|value| deserializer.end().map(|()| value)), fault) {
        (_, Some(fault)) => Err(fault),
        (Err(error), None) => Err(Fault::refused(format!("the text is not JSON: {error}"))),
        (Ok(value), None) => Ok(value.into()),
    }
}

/// Reads JSON straight into a bounded value.
struct Reader<'m> {
    meter: &'m mut Meter,
    fault: &'m mut Option<Fault>,
}

impl Reader<'_> {
    fn bounded<T, E: serde::de::Error>(&mut self, result: Result<T, Fault>) -> Result<T, E> {
        result.map_err(|fault| {
            *self.fault = Some(fault);
            E::custom("out of bounds")
        })
    }

    fn inner(&mut self) -> Reader<'_> {
        Reader { meter: self.meter, fault: self.fault }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Data;

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<Data, D::Error> {
        let charged = self.meter.work(16);
        self.bounded(charged)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Data, E> {
        Ok(Data::NULL)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Data, E> {
        Ok(Data::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Data, E> {
        Ok(Data::integer(i128::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Data, E> {
        Ok(Data::integer(i128::from(value)))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Data, E> {
        Data::float(value).ok_or_else(|| E::custom("a number is too large"))
    }

    fn visit_str<E: serde::de::Error>(mut self, value: &str) -> Result<Data, E> {
        let text = self.meter.text(value);
        self.bounded(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Data, A::Error> {
        let list = List::new(self.meter);
        let mut list = self.bounded(list)?;
        while let Some(item) = items.next_element_seed(self.inner())? {
            let pushed = list.push(self.meter, item);
            self.bounded(pushed)?;
        }
        Ok(list.finish())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Data, A::Error> {
        let object = Object::new(self.meter);
        let mut object = self.bounded(object)?;
        while let Some(name) = members.next_key::<String>()? {
            let named = self.meter.take(name.len());
            self.bounded(named)?;
            let value = members.next_value_seed(self.inner())?;
            let inserted = object.insert(self.meter, Arc::from(name), value);
            self.bounded(inserted)?;
        }
        Ok(object.finish())
    }
}

pub(super) fn base64_encode(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let text = shown(value, meter)?;
    if text.len() / 3 >= MAX_TEXT_BYTES / 4 {
        return Err(Fault::long_text());
    }
    let encoded = if arguments.flag("url_safe") { URL_SAFE_NO_PAD.encode(&*text) } else { STANDARD.encode(&*text) };
    Ok(meter.text(encoded)?.into())
}

pub(super) fn base64_decode(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let text = text(value, meter)?;
    meter.take(text.len())?;
    let engine = if arguments.flag("url_safe") { LENIENT_URL_SAFE } else { LENIENT_STANDARD };
    let bytes = engine.decode(text).map_err(|error| Fault::refused(format!("the text is not base64: {error}")))?;
    decoded(bytes, meter)
}

fn decoded(bytes: Vec<u8>, meter: &mut Meter) -> Result<Outcome, Fault> {
    let text = String::from_utf8(bytes).map_err(|_| Fault::refused("what it decodes to is not text (UTF-8)"))?;
    Ok(meter.text(text)?.into())
}

pub(super) fn hex(value: &Data, _: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let text = shown(value, meter)?;
    Ok(hexadecimal(text.as_bytes(), meter)?.into())
}

fn hexadecimal(bytes: &[u8], meter: &mut Meter) -> Result<Data, Fault> {
    let mut out = Text::default();
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            out.push_char(char::from(b"0123456789abcdef"[usize::from(digit)]))?;
        }
    }
    out.finish(meter)
}

pub(super) fn sha1(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    hashed(&digest::SHA1_FOR_LEGACY_USE_ONLY, value, arguments, meter)
}

pub(super) fn sha256(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    hashed(&digest::SHA256, value, arguments, meter)
}

pub(super) fn sha512(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    hashed(&digest::SHA512, value, arguments, meter)
}

fn hashed(
    algorithm: &'static digest::Algorithm,
    value: &Data,
    arguments: &Arguments,
    meter: &mut Meter,
) -> Result<Outcome, Fault> {
    let text = shown(value, meter)?;
    meter.work(2 * text.len())?;
    written(digest::digest(algorithm, text.as_bytes()).as_ref(), arguments, meter)
}

pub(super) fn hmac_sha256(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let text = shown(value, meter)?;
    let secret = arguments.needed_text("key")?;
    meter.work(2 * text.len() + secret.len())?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    written(hmac::sign(&key, text.as_bytes()).as_ref(), arguments, meter)
}

fn written(bytes: &[u8], arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    match arguments.text("encoding")? {
        None | Some("hex") => Ok(hexadecimal(bytes, meter)?.into()),
        Some("base64") => Ok(meter.text(STANDARD.encode(bytes))?.into()),
        Some("base64url") => Ok(meter.text(URL_SAFE_NO_PAD.encode(bytes))?.into()),
        Some(_) => Err(Fault::refused("`encoding` is \"hex\", \"base64\" or \"base64url\"")),
    }
}

/// A value as one segment of a URL's path or query: all but RFC 3986's unreserved characters percent-encoded.
pub(super) fn urlencode(value: &Data, _: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let text = shown(value, meter)?;
    let mut out = Text::default();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push_char(char::from(byte))?;
        } else {
            out.push(&format!("%{byte:02X}"))?;
        }
    }
    meter.work(8 * text.len())?;
    Ok(out.finish(meter)?.into())
}

/// Undoes percent-encoding; a `%` without two digits is refused, `+` stays.
pub(super) fn urldecode(value: &Data, _: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let text = text(value, meter)?;
    meter.take(text.len())?;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(Fault::refused("a `%` is not followed by two hexadecimal digits"));
        };
        bytes.extend(u8::try_from(high * 16 + low));
    }
    decoded(bytes, meter)
}

pub(super) fn escape(value: &Data, _: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let text = shown(value, meter)?;
    let mut out = Text::default();
    for character in text.chars() {
        match character {
            '&' => out.push("&amp;")?,
            '<' => out.push("&lt;")?,
            '>' => out.push("&gt;")?,
            '"' => out.push("&quot;")?,
            '\'' => out.push("&#39;")?,
            other => out.push_char(other)?,
        }
    }
    Ok(out.finish(meter)?.into())
}
