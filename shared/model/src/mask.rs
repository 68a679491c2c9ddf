//! Hides what looks like a secret: in a target's error text for a run's record, and in what the audit log tells.

use crate::{JsonError, parse_json};
use serde_json::Value;

const MAX_CHARS: usize = 300;
const MASK: &str = "***";
const SECRET_WORDS: [&str; 10] = [
    "authorization",
    "token",
    "secret",
    "password",
    "passwd",
    "api_key",
    "apikey",
    "api-key",
    "signature",
    "credential",
];
/// The shortest run of key-like characters that is taken for a key: most tokens are longer, most words shorter.
const MIN_KEY_CHARS: usize = 24;

/// At most 300 characters of a text on one line. Hidden are the values of members whose names speak of secrets, what
/// follows `Bearer` and `Basic`, the paths and queries of URLs, and long mixes of letters and digits, but not UUIDs.
pub fn masked_snippet(text: &str) -> String {
    let text = match parse_json(text.as_bytes()) {
        Ok(mut value @ (Value::Object(_) | Value::Array(_))) => {
            mask_members(&mut value);
            value.to_string()
        }
        // Its members can't be told apart, so nothing of it is shown.
        Err(JsonError::OutOfBounds(_)) => return String::new(),
        // Far more than is shown, so that a secret at the cut is seen whole.
        Ok(_) | Err(JsonError::Broken(_)) => mask_text(&text.chars().take(8 * MAX_CHARS).collect::<String>()),
    };
    let mut snippet = String::new();
    for (count, c) in text.trim().chars().enumerate() {
        if count == MAX_CHARS {
            snippet.push('…');
            break;
        }
        snippet.push(if c.is_control() { ' ' } else { c });
    }
    snippet
}

/// Hides in a value whatever stands under a name that speaks of secrets, and nothing else: for what we show ourselves, whose
/// names we know.
pub fn mask_named(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                if speaks_of_secrets(name) && !member.is_null() && !member.is_boolean() {
                    *member = Value::String(MASK.to_owned());
                } else {
                    mask_named(member);
                }
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(mask_named),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn mask_members(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                if speaks_of_secrets(name) && !member.is_object() && !member.is_array() {
                    *member = Value::String(MASK.to_owned());
                } else {
                    mask_members(member);
                }
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(mask_members),
        Value::String(text) => *text = mask_text(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn speaks_of_secrets(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

fn mask_text(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut hide_next = false;
    for word in text.split_inclusive(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | ',' | '&')) {
        let end = word.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | ',' | '&'));
        let separator = &word[end.len()..];
        if hide_next && !end.is_empty() {
            masked.push_str(MASK);
            hide_next = false;
        } else {
            masked.push_str(&mask_word(end));
            hide_next |= end.eq_ignore_ascii_case("bearer") || end.eq_ignore_ascii_case("basic");
        }
        masked.push_str(separator);
    }
    masked
}

fn mask_word(word: &str) -> String {
    if let Some(start) = word.find("://") {
        let host_end = word[start + 3..].find(['/', '?', '#']).map_or(word.len(), |end| start + 3 + end);
        let host = word[start + 3..host_end].rsplit('@').next().unwrap_or_default();
        let rest = if host_end < word.len() { "/***" } else { "" };
        return format!("{}{host}{rest}", &word[..start + 3]);
    }
    if let Some((name, _)) =
        word.split_once(['=', ':']).filter(|(name, value)| speaks_of_secrets(name) && !value.is_empty())
    {
        return format!("{name}={MASK}");
    }
    let mut masked = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(start) = rest.find(is_key_char) {
        let end = rest[start..].find(|c| !is_key_char(c)).map_or(rest.len(), |end| start + end);
        masked.push_str(&rest[..start]);
        masked.push_str(if looks_like_key(&rest[start..end]) { MASK } else { &rest[start..end] });
        rest = &rest[end..];
    }
    masked + rest
}

fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+' | '/' | '.' | '=')
}

fn looks_like_key(text: &str) -> bool {
    let is_uuid = text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    text.len() >= MIN_KEY_CHARS
        && !is_uuid
        && text.bytes().any(|b| b.is_ascii_digit())
        && text.bytes().any(|b| b.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_under_a_secrets_name_is_hidden_whole_and_ids_stay() {
        let mut view = serde_json::json!({
            "id": "usr_01890a5d000070008000000000000000",
            "name": "Basic Plan",
            "password": {"value": "x"},
            "api_tokens": ["x"],
            "parts": [{"client_secret": "x", "has_secret": true}],
        });
        mask_named(&mut view);
        let shown = serde_json::json!({
            "id": "usr_01890a5d000070008000000000000000",
            "name": "Basic Plan",
            "password": "***",
            "api_tokens": "***",
            "parts": [{"client_secret": "***", "has_secret": true}],
        });
        assert_eq!(view, shown);
    }

    #[test]
    fn what_looks_like_a_secret_is_hidden_and_the_rest_stays() {
        for (text, masked) in [
            ("channel_is_archived", "channel_is_archived"),
            ("bad token: Bearer abc.def", "bad token: Bearer ***"),
            (r#"{"error":"no","access_token":"short"}"#, r#"{"error":"no","access_token":"***"}"#),
            ("POST https://hooks.slack.com/services/T0/B0/xyz failed", "POST https://hooks.slack.com/*** failed"),
            ("https://user:pass@example.com", "https://example.com"),
            ("key sk_live_4eC39HqLyjWDarjtT1zdp7dc is wrong", "key *** is wrong"),
            ("request 0190a4c5-3b3e-7c3e-8b3e-0190a4c53b3e", "request 0190a4c5-3b3e-7c3e-8b3e-0190a4c53b3e"),
            ("?api_key=12&x=1", "?api_key=***&x=1"),
            ("line\nline", "line line"),
        ] {
            assert_eq!(masked_snippet(text), masked);
        }
        let long = masked_snippet(&"é ".repeat(10_000));
        assert_eq!(long.chars().count(), MAX_CHARS + 1);
    }
}
