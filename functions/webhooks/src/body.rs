//! Makes a JSON value of a request's body, by its media type, within the bounds that JSON from outside has.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value};
use tidegate_http::StartBody;
use tidegate_model::{INLINE_LIMIT_BYTES, JsonError, MAX_JSON_VALUES, check_json, check_json_value, parse_json};

const MAX_MEDIA_TYPE_BYTES: usize = 127;

/// The request's media type in lower case, without parameters; one that is no media type counts as none.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?.split(';').next()?.trim();
    let is_token =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b));
    let is_media_type = text.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    (is_media_type && text.len() <= MAX_MEDIA_TYPE_BYTES).then(|| text.to_ascii_lowercase())
}

/// The body as the workflow sees it.
///
/// # Errors
/// It says that it is JSON and isn't, or it is out of bounds; the text says what is wrong and where.
pub(crate) fn read(media_type: Option<&str>, body: &Bytes) -> Result<StartBody, String> {
    let read = match media_type {
        Some(kind) if is_json(kind) => json(body),
        Some("application/x-www-form-urlencoded") => match bare_json(body) {
            Some(json) => json,
            None => return form(body).map(StartBody::Value),
        },
        Some(kind) if is_text(kind) => Ok(StartBody::Value(text(body))),
        Some(_) => Ok(StartBody::Value(Value::String(BASE64.encode(body)))),
        None => bare_json(body).unwrap_or_else(|| Ok(StartBody::Value(text(body)))),
    };
    read.map_err(|error| match error {
        JsonError::Broken(error) => format!("The body is not valid JSON: {error}."),
        JsonError::OutOfBounds(error) => format!("The body's JSON has {error}."),
    })
}

fn is_json(media_type: &str) -> bool {
    media_type == "application/json" || media_type.ends_with("+json")
}

fn is_text(media_type: &str) -> bool {
    media_type.starts_with("text/") || media_type == "application/xml" || media_type.ends_with("+xml")
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
fn form(body: &[u8]) -> Result<Value, String> {
    if body.iter().filter(|byte| **byte == b'&').count() >= MAX_JSON_VALUES {
        return Err(format!("The form has more than {MAX_JSON_VALUES} fields."));
    }
    let mut fields = Map::new();
    for (name, value) in url::form_urlencoded::parse(body) {
        let value = Value::String(value.into_owned());
        match fields.get_mut(name.as_ref()) {
            None => {
                fields.insert(name.into_owned(), value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    let value = Value::Object(fields);
    check_json_value(&value).map_err(|error| format!("The form has {error}."))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn read(media_type: Option<&str>, body: &[u8]) -> Result<StartBody, String> {
        super::read(media_type, &Bytes::copy_from_slice(body))
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
            (Some("application/xml"), b"<a/>", json!("<a/>")),
            (Some("multipart/form-data"), b"--x", json!("LS14")),
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
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_str(text).unwrap());
            media_type(&headers)
        };
        assert_eq!(of("Application/JSON; charset=utf-8").as_deref(), Some("application/json"));
        assert_eq!(of(" text/plain ").as_deref(), Some("text/plain"));
        assert_eq!((of("json"), of(""), of("a/b c"), of(&format!("a/{}", "b".repeat(200)))), (None, None, None, None));
        assert_eq!(media_type(&HeaderMap::new()), None);
    }
}
