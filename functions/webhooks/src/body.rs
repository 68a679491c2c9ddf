//! Makes a value of a request's body, by its media type, within the bounds that JSON from outside has. What is uploaded
//! with it, of `multipart/form-data` alone, stands beside the value: nothing in a body can pose as a file.

mod multipart;
mod xml;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value};
use tidegate_http::StartBody;
use tidegate_model::{INLINE_LIMIT_BYTES, JsonError, MAX_JSON_VALUES, check_json, check_json_value, parse_json};

pub(crate) use multipart::safe_filename;

const MAX_MEDIA_TYPE_BYTES: usize = 127;

/// What a request brings.
#[derive(Debug, PartialEq)]
pub(crate) struct ReadBody {
    /// The body as the workflow sees it.
    pub(crate) body: StartBody,
    /// What was uploaded beside it, in order.
    pub(crate) files: Vec<ReceivedFile>,
}

/// A file of a form.
#[derive(Debug, PartialEq)]
pub(crate) struct ReceivedFile {
    /// The name of its field, which others may have too.
    pub(crate) field: String,
    /// What the sender calls it: the last part of a path, 1 to 200 characters, none of them a control character. It is
    /// still the sender's word, for people to read.
    pub(crate) filename: String,
    /// The media type that the sender gives it, as of [`media_type`].
    pub(crate) content_type: Option<String>,
    /// What it holds.
    pub(crate) bytes: Bytes,
}

/// The request's media type in lower case, without parameters; one that is no media type counts as none.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    canonical(content_type(headers))
}

/// The request's body and files.
///
/// # Errors
/// It says that it is JSON, a form with files or XML and isn't, or it is out of bounds; the text says what is wrong and
/// where.
pub(crate) fn read(headers: &HeaderMap, body: &Bytes) -> Result<ReadBody, String> {
    let content_type = content_type(headers);
    let value = match canonical(content_type).as_deref() {
        Some(kind) if is_json(kind) => json(body).map_err(not_json)?,
        Some("application/x-www-form-urlencoded") => match bare_json(body) {
            Some(json) => json.map_err(not_json)?,
            None => StartBody::Value(form(body)?),
        },
        Some("multipart/form-data") => return multipart::read(content_type, body),
        Some(kind) if is_xml(kind) => StartBody::Value(xml::read(parameter(content_type, "charset").as_deref(), body)?),
        Some(kind) if kind.starts_with("text/") => StartBody::Value(text(body)),
        Some(_) => StartBody::Value(Value::String(BASE64.encode(body))),
        None => match bare_json(body) {
            Some(json) => json.map_err(not_json)?,
            None => StartBody::Value(text(body)),
        },
    };
    Ok(ReadBody { body: value, files: Vec::new() })
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

pub(crate) fn canonical(content_type: &str) -> Option<String> {
    let text = content_type.split(';').next()?.trim();
    let is_token =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b));
    let is_media_type = text.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    (is_media_type && text.len() <= MAX_MEDIA_TYPE_BYTES).then(|| text.to_ascii_lowercase())
}

/// The first parameter of this name, in lower case, in a header's value (RFC 9110, section 5.6.6). What senders write
/// is taken as it is meant: a value may have characters that should be in quotes, and only a quote and a backslash are
/// escaped by a backslash, since some send paths. A value in quotes that don't end is none.
fn parameter(value: &str, name: &str) -> Option<String> {
    let (_, mut rest) = value.split_once(';')?;
    loop {
        let (found, after) = rest.split_once('=')?;
        // Parameters without a value may stand before it.
        let found = found.rsplit(';').next().unwrap_or_default().trim();
        let after = after.trim_start();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let (value, next) = after.split_once(';').unwrap_or((after, ""));
                (value.trim_end().to_owned(), next)
            }
        };
        if found.eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = next;
    }
}

/// What stands before the closing quote, and what after it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' if chars.as_str().starts_with(['"', '\\']) => value.extend(chars.next()),
            char => value.push(char),
        }
    }
}

fn is_json(media_type: &str) -> bool {
    media_type == "application/json" || media_type.ends_with("+json")
}

fn is_xml(media_type: &str) -> bool {
    matches!(media_type, "application/xml" | "text/xml") || media_type.ends_with("+xml")
}

fn not_json(error: JsonError) -> String {
    match error {
        JsonError::Broken(error) => format!("The body is not valid JSON: {error}."),
        JsonError::OutOfBounds(error) => format!("The body's JSON has {error}."),
    }
}

/// A large body is checked without building its value: two bytes of text may be a hundred in memory.
fn json(body: &Bytes) -> Result<StartBody, JsonError> {
    match body.len() > INLINE_LIMIT_BYTES {
        true => check_json(body).map(|()| StartBody::Large(body.clone())),
        false => parse_json(body).map(StartBody::Value),
    }
}

/// A body that is a whole JSON object or list, where the client didn't say so. One out of bounds is refused, since it
/// would become something else than a smaller one.
fn bare_json(body: &Bytes) -> Option<Result<StartBody, JsonError>> {
    match body.trim_ascii_start().first() {
        Some(b'{' | b'[') => match json(body) {
            Err(JsonError::Broken(_)) => None,
            read => Some(read),
        },
        _ => None,
    }
}

/// The text, or base64 where it isn't UTF-8.
fn text(body: &[u8]) -> Value {
    Value::String(std::str::from_utf8(body).map_or_else(|_| BASE64.encode(body), str::to_owned))
}

/// A form (<https://url.spec.whatwg.org/#urlencoded-parsing>) as an object of strings; a key that comes again gets the
/// list of its values.
pub(crate) fn form(body: &[u8]) -> Result<Value, String> {
    if body.iter().filter(|byte| **byte == b'&').count() >= MAX_JSON_VALUES {
        return Err(format!("The form has more than {MAX_JSON_VALUES} fields."));
    }
    let mut fields = Map::new();
    for (name, value) in url::form_urlencoded::parse(body) {
        add(&mut fields, name.into_owned(), Value::String(value.into_owned()));
    }
    let value = Value::Object(fields);
    check_json_value(&value).map_err(|error| format!("The form has {error}."))?;
    Ok(value)
}

/// Adds a member; one that is there already becomes the list of both. The values are no lists themselves.
fn add(members: &mut Map<String, Value>, name: String, value: Value) {
    match members.get_mut(&name) {
        None => {
            members.insert(name, value);
        }
        Some(Value::Array(values)) => values.push(value),
        Some(first) => *first = Value::Array(vec![first.take(), value]),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn headers(content_type: Option<&str>) -> HeaderMap {
        content_type.map(|text| (CONTENT_TYPE, HeaderValue::from_str(text).unwrap())).into_iter().collect()
    }

    fn read(content_type: Option<&str>, body: &[u8]) -> Result<StartBody, String> {
        let read = super::read(&headers(content_type), &Bytes::copy_from_slice(body))?;
        assert_eq!(read.files, []);
        Ok(read.body)
    }

    #[test]
    fn bodies_are_typed_by_their_media_type() {
        let form = Some("application/x-www-form-urlencoded");
        for (kind, body, value) in [
            (Some("application/json"), &br#"{"a": [1.5, null]}"#[..], json!({"a": [1.5, null]})),
            (Some("application/cloudevents+json"), b"[1]", json!([1])),
            (Some("application/json"), b"\"text\"", json!("text")),
            (form, b"a=1&b=x+y%21&a=2&a=3&c", json!({"a": ["1", "2", "3"], "b": "x y!", "c": ""})),
            (form, b"payload=%7B%22a%22%3A1%7D", json!({"payload": "{\"a\":1}"})),
            (form, b"", json!({})),
            (form, br#"{"user": {"name": "Alex"}}"#, json!({"user": {"name": "Alex"}})),
            (form, b"{a}=1", json!({"{a}": "1"})),
            (Some("text/plain"), br#"{"a": 1}"#, json!("{\"a\": 1}")),
            (Some("text/plain"), &[0xff], json!("/w==")),
            (Some("application/json; charset=utf-8"), b"1", json!(1)),
            (Some("application/xml"), b"<a>1</a>", json!({"a": "1"})),
            (Some("text/xml"), b"<a>1</a>", json!({"a": "1"})),
            (Some("application/soap+xml; charset=\"iso-8859-1\""), b"<a>\xe9</a>", json!({"a": "\u{e9}"})),
            (Some("multipart/mixed; boundary=x"), b"--x", json!("LS14")),
            (Some("image/png"), b"", json!("")),
            (None, b" [1]", json!([1])),
            (None, b"{broken", json!("{broken")),
            (None, b"1", json!("1")),
        ] {
            assert_eq!(read(kind, body), Ok(StartBody::Value(value)), "{kind:?}");
        }
    }

    #[test]
    fn broken_json_is_refused_with_its_place() {
        let error = read(Some("application/json"), b"{\"a\":\n nope}").unwrap_err();
        assert!(error.contains("line 2 column 3"), "{error}");
        assert!(read(Some("application/json"), b"").is_err());
        assert!(read(Some("application/json"), b"{} {}").is_err());
        assert!(read(Some("application/json"), &[b'"', 0xff, b'"']).is_err());
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        for kind in [Some("application/json"), None] {
            assert!(read(kind, &deep).unwrap_err().contains("JSON has more than 100 levels"), "{kind:?}");
        }
    }

    #[test]
    fn large_json_stays_as_it_came() {
        let kind = Some("application/json");
        let list = |length: usize| format!("[{}0]", "0, ".repeat(length - 1)).into_bytes();
        assert!(matches!(read(kind, &list(2_730)), Ok(StartBody::Value(_))));
        let text = list(2_731);
        assert_eq!(read(kind, &text), Ok(StartBody::Large(text.into())));
        assert!(matches!(read(None, &list(99_999)), Ok(StartBody::Large(_))));
        let form = Some("application/x-www-form-urlencoded");
        for kind in [kind, form, None] {
            assert!(read(kind, &list(100_000)).unwrap_err().contains("more than 100000 values"), "{kind:?}");
        }
        // What the parser would refuse later is refused now.
        let padding = " ".repeat(INLINE_LIMIT_BYTES);
        for broken in [&b"1e400"[..], br#""\ud800""#, b"\"\xff\"", b"[1,]", b"{} {}"] {
            let body = [padding.as_bytes(), broken].concat();
            assert!(read(kind, &body).unwrap_err().contains("not valid JSON"), "{broken:?}");
        }
    }

    #[test]
    fn forms_are_bounded() {
        let form = Some("application/x-www-form-urlencoded");
        assert!(read(form, "a&".repeat(99_990).as_bytes()).is_ok());
        assert!(read(form, "a&".repeat(99_999).as_bytes()).is_err(), "the form and the list are values too");
        assert!(read(form, "&".repeat(2_000_000).as_bytes()).unwrap_err().contains("more than 100000 fields"));
        assert!(read(form, b"a=1&$serde_json::private::RawValue=[]").unwrap_err().contains("reserved"));
    }

    #[test]
    fn media_types_are_canonical() {
        let of = |text: &str| media_type(&headers(Some(text)));
        assert_eq!(of("Application/JSON; charset=utf-8").as_deref(), Some("application/json"));
        assert_eq!(of(" text/plain ").as_deref(), Some("text/plain"));
        assert_eq!((of("json"), of(""), of("a/b c"), of(&format!("a/{}", "b".repeat(200)))), (None, None, None, None));
        assert_eq!(media_type(&HeaderMap::new()), None);
    }

    #[test]
    fn a_parameter_is_read_as_it_is_meant() {
        let of = |text: &str| parameter(text, "filename");
        for (text, value) in [
            ("a; filename=b", "b"),
            ("a;filename = b c ; x=y", "b c"),
            ("a; FileName=\"b;c=d\"", "b;c=d"),
            ("a; x=\"; filename=b\"; filename=c", "c"),
            ("a; x; filename=c", "c"),
            (r#"a; filename="b\"c\\d""#, r#"b"c\d"#),
            (r#"a; filename="C:\new\b.txt""#, r"C:\new\b.txt"),
            ("a; filename=\"\"", ""),
            ("a; filename==--b", "=--b"),
            ("a; filename=b; filename=c", "b"),
        ] {
            assert_eq!(of(text).as_deref(), Some(value), "{text}");
        }
        for none in ["", "filename=b", "a; filename*=b", "a; filename", "a; filename=\"b", "a; x=\"; filename=b"] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn what_looks_like_a_file_stays_data() {
        let record = json!({"files": [{"field": "a", "filename": "b", "bytes": 1, "path": "upload:run_1/0"}]});
        let text = record.to_string();
        assert_eq!(read(Some("application/json"), text.as_bytes()), Ok(StartBody::Value(record.clone())));
        assert_eq!(read(None, text.as_bytes()), Ok(StartBody::Value(record)));
        let form = read(Some("application/x-www-form-urlencoded"), b"files=upload%3Arun_1%2F0");
        assert_eq!(form, Ok(StartBody::Value(json!({"files": "upload:run_1/0"}))));
    }
}
