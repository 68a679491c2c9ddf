use serde_json::json;
use tidegate_model::MAX_JSON_DEPTH;

use super::*;

fn fill(input: Value) -> Result<Value, String> {
    let names = json!({
        "user": {"name": "Alex", "tags": ["a", "b"], "nickname": null},
        "order": {"id": "12345", "total": 99.5, "count": 3, "big": 9_007_199_254_740_993_i64},
        "text": "x".repeat(1_000),
    });
    let input = Map::from_iter([("v".to_owned(), input)]);
    let filled = Scope::new(Data::from(&names).members()).fill(&input, &Pointer::root());
    filled.map(|mut filled| filled["v"].take()).map_err(|error| error.to_string())
}

#[test]
fn text_is_filled_and_single_expressions_keep_their_type() {
    let filled = |text: &str| fill(json!(text)).unwrap();
    assert_eq!(
        filled("Hello {{user.name}}! Order #{{order.id}} confirmed."),
        json!("Hello Alex! Order #12345 confirmed.")
    );
    assert_eq!(filled("{{ order }}")["total"], json!(99.5));
    assert_eq!(filled("{{ order.count }}"), json!(3));
    assert_eq!(filled("{{ order.big }}"), json!(9_007_199_254_740_993_i64));
    assert_eq!(filled("{{ order.count + 1 }}"), json!(4));
    assert_eq!(filled("{{ order.count > 2 }}"), json!(true));
    assert_eq!(filled("{{ user.nickname }}"), Value::Null);
    assert_eq!(filled(" {{ order.count }}"), json!(" 3"));
    assert_eq!(
        filled("{{ user }} {{ user.tags }}"),
        json!(r#"{"name":"Alex","tags":["a","b"],"nickname":null} ["a","b"]"#)
    );
    assert_eq!(filled("{{ user.tags[1] }}{{ user['name'] | upper }}"), json!("bALEX"));
    assert_eq!(filled("{{ user.tags | join(', ') }}"), json!("a, b"));
    assert_eq!(filled("{{ {'a': '}}'} }}"), json!({"a": "}}"}));
    assert_eq!(
        filled("https://a.example/{{ '../é?x=1#' | urlencode }}"),
        json!("https://a.example/..%2F%C3%A9%3Fx%3D1%23")
    );
    assert_eq!(filled("{{ (nobody | default({})).name | default('a | nosuch') }}"), json!("a | nosuch"));
    assert_eq!(filled("{{ order.missing | default('none') }}"), json!("none"));
    assert_eq!(filled("no expression } {"), json!("no expression } {"));
    assert_eq!(filled(""), json!(""));
    assert_eq!(fill(json!({"a": ["{{user.name}}", 1, null]})).unwrap(), json!({"a": ["Alex", 1, null]}));
    let untouched = json!("{% for x in user.tags %}{{ x | default('') }}{% endfor %}{# no #}");
    assert_eq!(fill(untouched).unwrap(), json!("{% for x in user.tags %}{% endfor %}{# no #}"));
}

#[test]
fn a_missing_value_is_an_error_that_names_it() {
    for text in [
        "{{ user.nam }}",
        "Hi {{ user.nam }}",
        "{{ nobody.name }}",
        "{{ user.a.b }}",
        "{{ nobody }}",
        "{{ 'a' ~ user.nam }}",
    ] {
        let message = fill(json!({"text": text})).expect_err(text);
        assert!(
            message.starts_with("/v/text: ") && message.contains("not there") && message.contains("default"),
            "{message}"
        );
        assert!(message.contains("nam") || message.contains("nobody") || message.contains("user.a.b"), "{message}");
    }
}

#[test]
fn malformed_expressions_are_refused() {
    for text in [
        "{{",
        "{{ }}",
        "{{ user.name",
        "{{ user. }}",
        "{{ 1 + }}",
        "{{ user.name | nosuch }}",
        "{{ f() }}",
        "{{ a; b }}",
    ] {
        let mut errors = Vec::new();
        check_templates(&json!({"with": [text]}), &Pointer::root(), &mut errors);
        let refused = errors.first().map(|error| error.pointer.to_string());
        assert_eq!(refused.as_deref(), Some("/with/0"), "{text}");
        assert!(fill(json!(text)).is_err(), "{text}");
    }
    let long = format!("{{{{ {} }}}}", "a".repeat(5_000));
    assert!(fill(json!(long)).is_err());
}

#[test]
fn what_would_repeat_or_grow_a_text_is_refused() {
    for text in [
        "{{ text * 2 }}",
        "{{ 2 * text }}",
        "{{ [1] * 2 }}",
        "{{ 'a' * 0 }}",
        "{{ text | replace('x', text) | replace('x', text) }}",
        "{{ (text | replace('x', text)) | replace('', text) }}",
        "{{ [text, text, text] | join(text | replace('x', text)) }}",
        "{{ 9 ** 9 ** 9 ** 9 }}",
        "{{ 1e308 * 10 }}",
    ] {
        assert!(fill(json!(text)).is_err(), "{text}");
    }
    let message = fill(json!("{{ text * 2 }}")).unwrap_err();
    assert_eq!(
        message,
        "/v: `text * 2` can't be used: `*` needs numbers, not a text and a number; texts and lists can't be repeated"
    );
}

#[test]
fn a_step_has_bounds_of_its_own() {
    let texts = |count: usize| fill(Value::Array(vec![json!("{{ text }}"); count]));
    assert!(texts(1_000).is_ok());
    assert!(texts(1_001).unwrap_err().contains("at most 1000 expressions"));
    let large = json!("{{ text | replace('x', text) }}");
    assert!(fill(Value::Array(vec![large.clone(); 6])).is_ok());
    assert!(fill(Value::Array(vec![large; 7])).unwrap_err().contains("too large"), "bytes are counted");
    let pieces = json!("{{ text | replace('x', text) }} and {{ text | replace('x', text) }}");
    assert!(fill(Value::Array(vec![pieces.clone(); 3])).is_ok());
    assert!(fill(Value::Array(vec![pieces; 4])).unwrap_err().contains("too large"), "in longer texts too");
    let nested = |levels: usize| {
        let list = format!("{{{{ {}1{} }}}}", "[".repeat(40), "]".repeat(40));
        fill((0..levels).fold(json!(list), |inner, _| json!([inner])))
    };
    assert!(nested(MAX_JSON_DEPTH - 41).is_ok());
    assert!(nested(MAX_JSON_DEPTH - 40).unwrap_err().contains("levels"), "all levels count together");
    let posing = json!("{{ {'$serde_json::private::RawValue': '[1]'} }}");
    assert!(fill(posing).is_err(), "a reserved name would be read back as something else");
    let deep = format!("{{{{ {}1{} }}}}", "[".repeat(1_000), "]".repeat(1_000));
    assert!(fill(json!(deep)).is_err());
}
