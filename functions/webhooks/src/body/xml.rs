//! XML as a value. The root element's name is the one key of an object, and of each element there is
//!
//! - its text, where it has neither attributes nor elements: `<a>1</a>` is `{"a": "1"}`;
//! - else an object: attributes as `@name`, elements by their names, those that come again as a list, and its text as
//!   `#text`, where it is more than white space: `<a b="1"><c/><c>2</c>3</a>` is `{"a": {"@b": "1", "c": ["", "2"],
//!   "#text": "3"}}`.
//!
//! Prefixes of namespaces stay in names as they are written. Comments and processing instructions are left out. Nothing
//! is expanded but references to characters and to the five entities that XML has by itself; a DOCTYPE, which could
//! define more, is refused.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8};
use quick_xml::escape::{EscapeError, resolve_xml_entity};
use quick_xml::events::attributes::AttrError;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::{Error, Reader, XmlVersion};
use serde_json::{Map, Value};
use tidegate_model::{MAX_JSON_DEPTH, MAX_JSON_VALUES, check_json_value};

use super::add;

/// How much an error shows of what is in the body.
const MAX_SHOWN_CHARS: usize = 200;

/// The document as a value. Its encoding is what a byte order mark, the content type's `charset` or the XML declaration
/// says, in this order, else UTF-8.
pub(super) fn read(charset: Option<&str>, body: &[u8]) -> Result<Value, String> {
    let text = decode(charset, body)?;
    let value = parse(&text).map_err(|Fault { at, reason }| {
        let reason: String = reason.chars().take(MAX_SHOWN_CHARS).collect();
        format!("The body is not valid XML: {reason}, at {}.", place(&text.as_bytes()[..at.min(text.len())]))
    })?;
    check_json_value(&value).map_err(|error| format!("The body's XML has {error}."))?;
    Ok(value)
}

/// What is wrong, and behind how many bytes.
struct Fault {
    at: usize,
    reason: String,
}

/// An element that hasn't ended.
struct Open {
    name: String,
    members: Map<String, Value>,
    text: String,
}

fn parse(text: &str) -> Result<Value, Fault> {
    if let Some((at, char)) = text.char_indices().find(|(_, char)| !is_char(*char)) {
        return Err(Fault { at, reason: format!("the character U+{:04X} is none of XML's", u32::from(char)) });
    }
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    let mut values = 0;
    loop {
        let at = position(reader.buffer_position());
        let fault = |reason: &str| Fault { at, reason: reason.to_owned() };
        let event = reader
            .read_event()
            .map_err(|error| Fault { at: position(reader.error_position()), reason: told(&error) })?;
        let added: Cow<'_, str> = match event {
            Event::Start(_) | Event::Empty(_) if open.is_empty() && root.is_some() => {
                return Err(fault("a second root element"));
            }
            Event::Start(_) | Event::Empty(_) if open.len() == MAX_JSON_DEPTH => {
                return Err(fault(&format!("more than {MAX_JSON_DEPTH} levels of nesting")));
            }
            // An empty element comes as one that begins and one that ends.
            Event::Start(tag) | Event::Empty(tag) => {
                open.push(element(&tag, at, &mut values)?);
                continue;
            }
            Event::End(_) => {
                let Some(ended) = open.pop() else { return Err(fault("the end of an element that didn't begin")) };
                let (name, value) = ended.value();
                match open.last_mut() {
                    Some(parent) => add(&mut parent.members, name, value),
                    None => root = Some(Value::Object(Map::from_iter([(name, value)]))),
                }
                continue;
            }
            Event::Text(text) => text.xml10_content(),
            Event::CData(text) => text.xml10_content(),
            Event::GeneralRef(reference) => resolved(&reference).map_err(|reason| Fault { at, reason })?.into(),
            Event::DocType(_) => return Err(fault("a DOCTYPE, which is refused: send the document without it")),
            Event::Comment(_) | Event::PI(_) | Event::Decl(_) => continue,
            Event::Eof => break,
        };
        match open.last_mut() {
            Some(element) => element.text.push_str(&added),
            None if added.trim().is_empty() => {}
            None => return Err(fault("text outside of the root element")),
        }
    }
    let fault = |reason: String| Fault { at: text.len(), reason };
    match open.last() {
        Some(element) => Err(fault(format!("the element <{}> doesn't end", element.name))),
        None => root.ok_or_else(|| fault("no element".to_owned())),
    }
}

impl Open {
    fn value(mut self) -> (String, Value) {
        if self.members.is_empty() {
            return (self.name, Value::String(self.text));
        }
        if !self.text.trim().is_empty() {
            self.members.insert("#text".to_owned(), Value::String(self.text));
        }
        (self.name, Value::Object(self.members))
    }
}

/// `values`: how many elements and attributes there were.
fn element(tag: &BytesStart<'_>, at: usize, values: &mut usize) -> Result<Open, Fault> {
    let fault = |reason: &str| Fault { at, reason: reason.to_owned() };
    let mut count = || {
        *values += 1;
        let is_too_many = *values > MAX_JSON_VALUES;
        if is_too_many { Err(fault(&format!("more than {MAX_JSON_VALUES} elements and attributes"))) } else { Ok(()) }
    };
    count()?;
    let name = tag.name().as_ref().to_owned();
    if !is_name(&name) {
        return Err(fault("an element without a name that XML allows"));
    }
    let mut members = Map::new();
    let mut attributes = tag.attributes();
    // Its check compares each with all others; ours comes with the object.
    attributes.with_checks(false);
    for attribute in attributes {
        count()?;
        let attribute = attribute.map_err(|error| Fault {
            // It counts from behind the `<`.
            at: at + 1 + offset(&error),
            reason: "a malformed attribute: they are written name=\"value\"".to_owned(),
        })?;
        let name: &str = attribute.key.as_ref();
        if !is_name(name) {
            return Err(fault("an attribute without a name that XML allows"));
        }
        let value = attribute.normalized_value(XmlVersion::Implicit1_0);
        let value = value.map_err(|error| Fault { at, reason: told(&error) })?;
        if !value.chars().all(is_char) {
            return Err(fault("a reference to a character that XML doesn't have"));
        }
        if members.insert(format!("@{name}"), Value::String(value.into_owned())).is_some() {
            return Err(fault(&format!("the attribute {name} twice")));
        }
    }
    Ok(Open { name, members, text: String::new() })
}

fn resolved(reference: &BytesRef<'_>) -> Result<String, String> {
    match reference.resolve_char_ref() {
        Ok(Some(char)) if is_char(char) => Ok(char.to_string()),
        Ok(None) => resolve_xml_entity(reference).map(str::to_owned).ok_or_else(|| unknown(reference)),
        _ => Err("a reference to a character that XML doesn't have".to_owned()),
    }
}

fn unknown(entity: &str) -> String {
    let entity: String = entity.chars().take(50).collect();
    format!("the entity &{entity}; is none of amp, lt, gt, quot and apos")
}

fn told(error: &Error) -> String {
    match error {
        Error::Escape(EscapeError::UnrecognizedEntity(_, entity)) => unknown(entity),
        Error::Escape(EscapeError::UnterminatedEntity(_)) => "an & that begins no reference: write &amp;".to_owned(),
        Error::Escape(EscapeError::InvalidCharRef(_)) => "a reference to a character that XML doesn't have".to_owned(),
        error => error.to_string(),
    }
}

fn offset(error: &AttrError) -> usize {
    match error {
        AttrError::ExpectedEq(at)
        | AttrError::ExpectedValue(at)
        | AttrError::UnquotedValue(at)
        | AttrError::ExpectedQuote(at, _)
        | AttrError::Duplicated(at, _) => *at,
    }
}

fn decode<'a>(charset: Option<&str>, body: &'a [u8]) -> Result<Cow<'a, str>, String> {
    if let Some((encoding, length)) = Encoding::for_bom(body) {
        return decode_in(encoding, &body[length..]);
    }
    let encoding = match charset.or_else(|| declared(body)) {
        None => UTF_8,
        Some(label) => Encoding::for_label(label.as_bytes()).ok_or_else(|| {
            let label: String = label.chars().take(50).collect();
            format!("The body's XML is in the encoding {label:?}, which isn't known; send UTF-8.")
        })?,
    };
    // A document in two bytes a character has a mark; one without only says that it is.
    decode_in(if encoding.is_ascii_compatible() { encoding } else { UTF_8 }, body)
}

fn decode_in<'a>(encoding: &'static Encoding, body: &'a [u8]) -> Result<Cow<'a, str>, String> {
    encoding.decode_without_bom_handling_and_without_replacement(body).ok_or_else(|| {
        let name = encoding.name();
        match std::str::from_utf8(body) {
            Err(error) if encoding == UTF_8 => {
                let place = place(&body[..error.valid_up_to()]);
                format!("The body is not valid XML: it has bytes that are not {name}, at {place}.")
            }
            _ => format!("The body is not valid XML: it has bytes that are not {name}."),
        }
    })
}

/// The encoding that the XML declaration names.
fn declared(body: &[u8]) -> Option<&str> {
    let declaration = body.strip_prefix(b"<?xml")?;
    let end = declaration.windows(2).take(200).position(|bytes| bytes == b"?>")?;
    let (_, encoding) = std::str::from_utf8(&declaration[..end]).ok()?.split_once("encoding")?;
    let mut quoted = encoding.split(['"', '\'']);
    (quoted.next()?.trim() == "=").then(|| quoted.next())?
}

/// Where a text ends, for people.
fn place(before: &[u8]) -> String {
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let last = before.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    format!("line {line} column {}", String::from_utf8_lossy(last).chars().count() + 1)
}

fn position(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// <https://www.w3.org/TR/xml/#charsets>
fn is_char(char: char) -> bool {
    matches!(char, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

/// <https://www.w3.org/TR/xml/#NT-Name>, with any character beyond ASCII.
fn is_name(text: &str) -> bool {
    let begins = |char: char| char.is_ascii_alphabetic() || char == '_' || char == ':' || !char.is_ascii();
    text.starts_with(begins) && text.chars().all(|char| begins(char) || char.is_ascii_digit() || "-.".contains(char))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Value, String> {
        super::read(None, text.as_bytes())
    }

    #[test]
    fn a_document_becomes_a_value() {
        for (text, value) in [
            ("<a/>", json!({"a": ""})),
            ("<a>1</a>", json!({"a": "1"})),
            ("<a> 1\r\n</a>", json!({"a": " 1\n"})),
            (r#"<a b="1"><c/><c>2</c>3</a>"#, json!({"a": {"@b": "1", "c": ["", "2"], "#text": "3"}})),
            ("<a>\n  <b>1</b>\n</a>", json!({"a": {"b": "1"}})),
            ("<a b=''> </a>", json!({"a": {"@b": ""}})),
            ("<a>x<b/>y<b/>z</a>", json!({"a": {"b": ["", ""], "#text": "xyz"}})),
            (
                "<s:E xmlns:s='urn:s' s:k='v'><s:Body><m/></s:Body></s:E>",
                json!({"s:E": {"@xmlns:s": "urn:s", "@s:k": "v", "s:Body": {"m": ""}}}),
            ),
            ("<a>&lt;&amp;&#65;&#x1F600;&quot;</a>", json!({"a": "<&A\u{1f600}\""})),
            ("<a b='&lt;&#10;\n&apos;'/>", json!({"a": {"@b": "<\n '"}})),
            ("<a><![CDATA[<b>&amp;]]></a>", json!({"a": "<b>&amp;"})),
            (
                "<?xml version=\"1.0\"?>\n<!-- <x> --><?p i?>\n<a><!-- c -->1<?p i?>2</a>\n<!-- e -->\n",
                json!({"a": "12"}),
            ),
            ("<list><i n='1'/><i><i>deep</i></i></list>", json!({"list": {"i": [{"@n": "1"}, {"i": "deep"}]}})),
            ("<\u{e9}t\u{e9} _a-b.c='1'/>", json!({"\u{e9}t\u{e9}": {"@_a-b.c": "1"}})),
        ] {
            assert_eq!(read(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn the_encoding_is_what_the_document_or_its_sender_says() {
        let named = |name: &str| format!("<?xml version='1.0' encoding='{name}'?><a>");
        let latin = [named("ISO-8859-1").as_bytes(), b"\xe9</a>"].concat();
        let utf16: Vec<u8> = "\u{feff}<?xml version='1.0' encoding='utf-16'?><a>\u{e9}</a>"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        let marked = "\u{feff}<a>\u{e9}</a>";
        let said = named("utf-16") + "\u{e9}</a>";
        for (charset, body) in [
            (None, latin.as_slice()),
            (None, utf16.as_slice()),
            (Some("iso-8859-1"), utf16.as_slice()),
            (None, marked.as_bytes()),
            (Some("utf-8"), b"<?xml version='1.0' encoding='x'?><a>\xc3\xa9</a>"),
            (None, said.as_bytes()),
        ] {
            assert_eq!(super::read(charset, body), Ok(json!({"a": "\u{e9}"})), "{charset:?} {body:?}");
        }
        for (charset, body, reason) in [
            (None, &b"<a>\n\xc3\xa9\xff</a>"[..], "it has bytes that are not UTF-8, at line 2 column 2."),
            (Some("utf-8"), latin.as_slice(), "it has bytes that are not UTF-8, at line 1 column 47."),
            (Some("x-none"), b"<a/>", "in the encoding \"x-none\", which isn't known; send UTF-8."),
            (None, named("klingon").as_bytes(), "in the encoding \"klingon\""),
        ] {
            let error = super::read(charset, body).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn what_is_no_document_is_refused_with_its_place() {
        for (text, reason) in [
            ("", "no element, at line 1 column 1."),
            ("text", "text outside of the root element, at line 1 column 1."),
            ("<a/>text", "text outside of the root element, at line 1 column 5."),
            ("<a/>\n<b/>", "a second root element, at line 2 column 1."),
            ("<a>\n <b></a>", "expected `</b>`, but `</a>` was found, at line 2 column 5."),
            ("<a><b>", "the element <b> doesn't end, at line 1 column 7."),
            ("</a>", "does not match any open tag, at line 1 column 1."),
            ("<a", "tag not closed"),
            ("<a b></a>", "a malformed attribute: they are written name=\"value\", at line 1 column 5."),
            ("<a b=1/>", "a malformed attribute"),
            ("<a b='1' b='2'/>", "the attribute b twice, at line 1 column 1."),
            ("<a>&</a>", "reference not closed"),
            ("<a>&nbsp;</a>", "the entity &nbsp; is none of amp, lt, gt, quot and apos, at line 1 column 4."),
            ("<a b='&nbsp;'/>", "the entity &nbsp; is none of"),
            ("<a b='&'/>", "an & that begins no reference: write &amp;"),
            ("<a>&#0;</a>", "a reference to a character that XML doesn't have"),
            ("<a>&#x1;</a>", "a reference to a character that XML doesn't have"),
            ("<a b='&#x1;'/>", "a reference to a character that XML doesn't have"),
            ("<a>&#xD800;</a>", "a reference to a character that XML doesn't have"),
            ("<a>\n\u{1}</a>", "the character U+0001 is none of XML's, at line 2 column 1."),
            ("<@a/>", "an element without a name that XML allows, at line 1 column 1."),
            ("<#text/>", "an element without a name"),
            ("<1/>", "an element without a name"),
            ("< a/>", "an element without a name"),
            ("<$serde_json::private::RawValue/>", "an element without a name"),
            ("<a #text='1'/>", "an attribute without a name"),
            ("<a><![CDATA[</a>", "CDATA not closed"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with("The body is not valid XML: ") && error.contains(reason), "{text}: {error}");
        }
        let long = read(&format!("<a></{}>", "b".repeat(100_000))).unwrap_err();
        assert!(long.len() < 300, "{long}");
    }

    #[test]
    fn no_document_defines_entities() {
        let laughs =
            r#"<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]><lolz>&b;</lolz>"#;
        let files = r#"<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>"#;
        let outside = r#"<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0//EN" "http://127.0.0.1/x.dtd"><html/>"#;
        for text in [laughs, files, outside, "<!doctype a><a/>"] {
            assert!(read(text).unwrap_err().contains("a DOCTYPE, which is refused"), "{text}");
        }
    }

    #[test]
    fn levels_and_values_are_bounded() {
        let nested = |levels: usize, inner: &str| format!("{}{inner}{}", "<a>".repeat(levels), "</a>".repeat(levels));
        assert!(read(&nested(100, "1")).is_ok());
        for text in [nested(101, ""), nested(1_000_000, ""), nested(99, "<a b='1'/>"), "<a>".repeat(1_000_000)] {
            assert!(read(&text).unwrap_err().contains("more than 100 levels of nesting"));
        }
        let list = |elements: usize| format!("<a>{}</a>", "<b/>".repeat(elements));
        assert_eq!(read(&list(99_997)).unwrap()["a"]["b"].as_array().unwrap().len(), 99_997);
        assert!(
            read(&list(99_998)).unwrap_err().contains("more than 100000 values"),
            "objects and lists are values too"
        );
        assert!(read(&list(100_001)).unwrap_err().contains("more than 100000 elements and attributes"));
        let attributes: String = (0..100_001).map(|number| format!(" a{number}=''")).collect();
        assert!(read(&format!("<a{attributes}/>")).unwrap_err().contains("more than 100000 elements and attributes"));
    }
}
