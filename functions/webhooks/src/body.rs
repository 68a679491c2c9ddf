//! Makes a JSON value of a request's body, by its media type.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value};

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
/// It says that it is JSON and isn't; the text says where it breaks.
pub(crate) fn read(media_type: Option<&str>, body: &[u8]) -> Result<Value, String> {
    match media_type {
        Some(kind) if is_json(kind) => {
            serde_json::from_slice(body).map_err(|error| format!("The body is not valid JSON: {error}."))
        }
        Some("application/x-www-form-urlencoded") => Ok(bare_json(body).unwrap_or_else(|| form(body))),
        Some(kind) if is_text(kind) => Ok(text(body)),
        Some(_) => Ok(Value::String(BASE64.encode(body))),
        None => Ok(bare_json(body).unwrap_or_else(|| text(body))),
    }
}

fn is_json(media_type: &str) -> bool {
    media_type == "application/json" || media_type.ends_with("+json")
}

fn is_text(media_type: &str) -> bool {
    media_type.starts_with("text/") || media_type == "application/xml" || media_type.ends_with("+xml")
}

/// A body that is a whole JSON object or list, where the client didn't say so.
fn bare_json(body: &[u8]) -> Option<Value> {
    match body.trim_ascii_start().first() {
        Some(b'{' | b'[') => serde_json::from_slice(body).ok(),
        _ => None,
    }
}

/// The text, or base64 where it isn't UTF-8.
fn text(body: &[u8]) -> Value {
    Value::String(std::str::from_utf8(body).map_or_else(|_| BASE64.encode(body), str::to_owned))
}

/// A form (<https://url.spec.whatwg.org/#urlencoded-parsing>) as an object of strings; a key that comes again gets the
/// list of its values.
fn form(body: &[u8]) -> Value {
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
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    #[test]
    fn bodies_are_typed_by_their_media_type() {
        let read = |kind: Option<&str>, body: &[u8]| read(kind, body).unwrap();
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
            assert_eq!(read(kind, body), value, "{kind:?}");
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
        assert!(read(Some("application/json"), &deep).unwrap_err().contains("recursion limit"));
        assert!(read(None, &deep).unwrap().is_string());
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
