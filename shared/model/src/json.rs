//! Bounds of JSON that comes from outside. It is stored within our own documents and read again, so what is taken must
//! leave room for them under the parser's limit of 127 levels; and a short text can be a value that fills the memory.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// How many objects and lists may stand within each other.
pub const MAX_JSON_DEPTH: usize = 100;
/// How many values a document may have, the objects and lists among them counted.
pub const MAX_JSON_VALUES: usize = 100_000;
/// The parser gives members so named a meaning of its own: their text is parsed, past all bounds.
const RESERVED_PREFIX: &str = "$serde_json::private::";

/// Why JSON from outside is not taken.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// It is no JSON; the text says what was expected and at which line and column.
    #[error("{0}")]
    Broken(serde_json::Error),
    /// It has too many levels or values, or a reserved name; a noun phrase, with line and column where it was a text.
    #[error("{0}")]
    OutOfBounds(serde_json::Error),
}

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        if error.is_data() { JsonError::OutOfBounds(error) } else { JsonError::Broken(error) }
    }
}

/// Reads a JSON text within [`MAX_JSON_DEPTH`] and [`MAX_JSON_VALUES`].
///
/// # Errors
/// It is no JSON, or out of bounds.
pub fn parse_json(text: &[u8]) -> Result<Value, JsonError> {
    read(text, true)
}

/// Checks that [`parse_json`] would read a text, in constant memory.
///
/// # Errors
/// As [`parse_json`].
pub fn check_json(text: &[u8]) -> Result<(), JsonError> {
    read(text, false).map(drop)
}

/// Checks the bounds of a value that was put together.
///
/// # Errors
/// It is out of bounds.
pub fn check_json_value(value: &Value) -> Result<(), JsonError> {
    Ok(check(value)?)
}

/// Checks the bounds of whatever a deserializer yields.
pub(crate) fn check<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    walk(deserializer, false).map(drop)
}

fn read(text: &[u8], keep: bool) -> Result<Value, JsonError> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = walk(&mut deserializer, keep)?;
    deserializer.end()?;
    Ok(value)
}

fn walk<'de, D: Deserializer<'de>>(deserializer: D, keep: bool) -> Result<Value, D::Error> {
    Bounded { keep, levels: MAX_JSON_DEPTH, values: &mut { MAX_JSON_VALUES } }.deserialize(deserializer)
}

/// Reads one value; where it isn't kept, `null` comes instead.
struct Bounded<'a> {
    keep: bool,
    /// How many levels this value may have.
    levels: usize,
    /// How many values are left to the document.
    values: &'a mut usize,
}

impl Bounded<'_> {
    fn inner(&mut self) -> Bounded<'_> {
        Bounded { keep: self.keep, levels: self.levels, values: self.values }
    }

    fn descend<E: Error>(&mut self) -> Result<(), E> {
        let too_deep = || E::custom(format_args!("more than {MAX_JSON_DEPTH} levels of nesting"));
        self.levels = self.levels.checked_sub(1).ok_or_else(too_deep)?;
        Ok(())
    }

    fn scalar<E>(&self, value: impl Into<Value>) -> Result<Value, E> {
        Ok(if self.keep { value.into() } else { Value::Null })
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let too_many = || D::Error::custom(format_args!("more than {MAX_JSON_VALUES} values"));
        *self.values = self.values.checked_sub(1).ok_or_else(too_many)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        self.scalar(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        self.scalar(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        self.scalar(value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        self.scalar(value)
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        self.scalar(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<Value, A::Error> {
        self.descend()?;
        let mut list = Vec::new();
        while let Some(element) = elements.next_element_seed(self.inner())? {
            if self.keep {
                list.push(element);
            }
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        self.descend()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key_seed(Name { keep: self.keep })? {
            let value = members.next_value_seed(self.inner())?;
            if self.keep {
                object.insert(name, value);
            }
        }
        Ok(Value::Object(object))
    }
}

/// Reads a member's name; where it isn't kept, an empty one comes instead.
struct Name {
    keep: bool,
}

impl<'de> DeserializeSeed<'de> for Name {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<String, E> {
        if name.starts_with(RESERVED_PREFIX) {
            return Err(E::custom(format_args!("a name that begins with {RESERVED_PREFIX}, which is reserved")));
        }
        Ok(if self.keep { name.to_owned() } else { String::new() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nested(depth: usize) -> String {
        format!("{}1{}", "[{\"a\":".repeat(depth / 2), "}]".repeat(depth / 2))
    }

    fn refusal(text: &str) -> String {
        let error = parse_json(text.as_bytes()).unwrap_err();
        assert!(matches!(error, JsonError::OutOfBounds(_)), "{error}");
        assert_eq!(check_json(text.as_bytes()).unwrap_err().to_string(), error.to_string());
        error.to_string()
    }

    #[test]
    fn values_are_read_as_the_parser_reads_them() {
        for text in [
            r#"{"b": [1, -2, 3.5, -0, 1e2, 18446744073709551615, 18446744073709551616], "a": "\u00e9\n", "b": null}"#,
            " true ",
            "[]",
            "{}",
            r#""\ud83d\ude00""#,
        ] {
            let ours = parse_json(text.as_bytes()).unwrap();
            assert_eq!(ours.to_string(), serde_json::from_str::<Value>(text).unwrap().to_string());
            check_json(text.as_bytes()).unwrap();
        }
        for text in [&b"{} {}"[..], b"", b"[1,]", b"1e400", br#""\ud800""#, b"\"\xff\"", b"{\"\xff\":1}", b"nope"] {
            let expected = serde_json::from_slice::<Value>(text).unwrap_err().to_string();
            for error in [parse_json(text).unwrap_err(), check_json(text).unwrap_err()] {
                assert!(matches!(error, JsonError::Broken(_)), "{error}");
                assert_eq!(error.to_string(), expected);
            }
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let text = nested(MAX_JSON_DEPTH);
        check_json_value(&parse_json(text.as_bytes()).unwrap()).unwrap();
        check_json_value(&json!([parse_json(text.as_bytes()).unwrap()])).unwrap_err();
        assert_eq!(refusal(&format!("[{text}]")), "more than 100 levels of nesting at line 1 column 297");
        assert!(refusal(&"[".repeat(1_000_000)).starts_with("more than 100 levels of nesting"));
        assert!(refusal(&"{\"a\":".repeat(1_000_000)).starts_with("more than 100 levels of nesting"));
    }

    #[test]
    fn values_are_counted() {
        let list = |length: usize| format!("[{}0]", "0,".repeat(length - 1));
        let most = list(MAX_JSON_VALUES - 1);
        check_json_value(&parse_json(most.as_bytes()).unwrap()).unwrap();
        check_json_value(&json!({"a": parse_json(most.as_bytes()).unwrap()})).unwrap_err();
        assert!(refusal(&list(MAX_JSON_VALUES)).starts_with("more than 100000 values at line 1 column"));
        assert!(refusal(&format!("[{}]", vec![r#"{"a":{}}"#; MAX_JSON_VALUES / 2].join(","))).contains("values"));
    }

    #[test]
    fn names_of_the_parser_are_reserved() {
        for text in [
            r#"{"$serde_json::private::RawValue": "[[]]"}"#,
            r#"[{"a": {"\u0024serde_json::private::RawValue": "[[]]"}}]"#,
            r#"{"a": 1, "$serde_json::private::Number": "1"}"#,
        ] {
            assert!(refusal(text).contains("which is reserved"), "{text}");
        }
        let mut made = Map::new();
        made.insert("$serde_json::private::RawValue".to_owned(), json!("[[]]"));
        check_json_value(&Value::Object(made)).unwrap_err();
    }
}
