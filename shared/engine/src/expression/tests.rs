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

mod oracles;
mod page;

#[test]
fn what_is_missing_is_named_with_the_part_that_is() {
    let message = |text: &str| fill(json!(text)).unwrap_err();
    assert_eq!(message("{{ user.nam }}"), format!("/v: `user.nam` is not there; {DEFAULT_HINT}"));
    assert_eq!(
        message("{{ user.address.city }}"),
        format!("/v: `user.address.city` can't be used: `user.address` is not there; {DEFAULT_HINT}")
    );
    assert_eq!(
        message("{{ user.tags[7] ~ 'x' }}"),
        format!("/v: `user.tags[7] ~ 'x'` can't be used: `user.tags[7]` is not there; {DEFAULT_HINT}")
    );
    assert!(message("{{ user['first name'].x }}").contains("`user[\"first name\"]` is not there"));
    assert!(message("{{ user.nickname.x }}").contains("`user.nickname.x` is not there"));
    assert!(message("{{ [] | first }}").contains("an item of a list that is empty is not there"));
    assert!(message("{{ 1 if order.count > 5 }}").contains("`else`"));
    let filled = |text: &str| fill(json!(text)).unwrap();
    assert_eq!(filled("{{ user.nam | default('x') }}"), json!("x"));
    assert_eq!(filled("{{ user.nam is defined }}"), json!(false));
    assert_eq!(
        filled("{{ order.text | regex_find('y') | default('none') if order.text is defined else 1 }}"),
        json!(1)
    );
    assert!(fill(json!("{{ user.address.city | default('x') }}")).is_err(), "only the last part may be missing");
}

#[test]
fn a_definition_is_refused_for_what_can_never_work() {
    for (source, reason) in [
        ("a | nosuch", "no filter `nosuch`"),
        ("nosuch(a)", "no function `nosuch`"),
        ("a.upper()", "value | upper"),
        ("a | upper(1)", "takes nothing more"),
        ("a | join(', ', 'b', 3)", "is given too much"),
        ("a | join(sep=1)", "takes no `sep`"),
        ("a | join('x', separator='y')", "twice"),
        ("a | replace('x')", "needs `to`"),
        ("a | join(*b)", "`*` can't be used on arguments"),
        ("a is nosuch", "no test `nosuch`"),
        ("a is equalto", "takes 1"),
        ("a | regex_match('(')", "the pattern can't be used"),
        ("a | regex_match('(((a{1000}){1000}){1000})')", "the pattern is too large"),
        ("a | date('%Y', 'Berlin')", "no time zone"),
        ("a | jmespath('a..b')", "the query can't be used"),
        ("a | jmespath('nosuch(a)')", "no function `nosuch`"),
        ("jmespath(a, 'a[')", "the query can't be used"),
        ("99999999999999999999999999999999999999999", ""),
        ("-".repeat(3_000).as_str(), "at most 250"),
        ("not ".repeat(1_000).as_str(), "at most 250"),
        (format!("a{}", ".b".repeat(1_000)).as_str(), "at most 250"),
        ("", "is empty"),
        ("{{ a }} {{ b }}", "more than one expression"),
    ] {
        let mut errors = Vec::new();
        check_expression(source, &Pointer::from("/condition"), &mut errors);
        assert_eq!(errors.len(), 1, "{source}");
        assert!(errors[0].detail.contains(reason), "{source}: {}", errors[0].detail);
        assert!(Scope::new([]).evaluate(source).is_err(), "{source}");
    }
    for source in ["order.total > 100", "{{ order.total > 100 }}", " {{ {'a': 1}.a }} ", "a is not in b and not c"] {
        let mut errors = Vec::new();
        check_expression(source, &Pointer::root(), &mut errors);
        assert_eq!(errors, [], "{source}");
    }
    assert!(check_transform("items[?a == `1`].b | [0]").is_ok());
    let numbers = transform(
        "[to_number('1.5'), to_number('-2e1'), to_number('[]'), to_number(@), avg(`[]`), avg(`[1, 2]`)]",
        &Data::from(&json!({})),
    );
    assert_eq!(numbers, Ok(json!([1.5, -20.0, null, null, null, 1.5])));
    for query in ["a..b", "nosuch(@)", "length(@, @)", "&a", "[::0]", &"!".repeat(300), &"a.".repeat(300)] {
        assert!(check_transform(query).is_err(), "{query}");
    }
}

/// Names that count how often they are asked.
struct Counted(std::sync::atomic::AtomicUsize);

impl Names for Counted {
    fn get(&self, name: &str) -> Option<Data> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let step = |output: Value| Data::object([("output".to_owned(), Data::from(&output))]);
        match name {
            "a" => Some(step(json!({"n": 1}))),
            "my-step" => Some(step(json!([1, 2]))),
            _ => None,
        }
    }

    fn names(&self) -> Vec<String> {
        vec!["a".to_owned(), "my-step".to_owned()]
    }
}

#[test]
fn names_are_looked_up_when_they_are_named() {
    let names = Arc::new(Counted(Default::default()));
    let scope = Scope::new([("steps".to_owned(), Data::lazy(names.clone()))]);
    let asked = || names.0.swap(0, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(scope.evaluate("1 + 1"), Ok(json!(2)));
    assert_eq!(asked(), 0);
    assert_eq!(scope.evaluate("{{ steps.a.output.n }}"), Ok(json!(1)));
    assert_eq!(asked(), 1);
    assert_eq!(scope.evaluate("steps['my-step'].output[1]"), Ok(json!(2)));
    assert!(scope.evaluate("steps.b.output").unwrap_err().contains("`steps.b` is not there"));
    assert_eq!(scope.evaluate("'a' in steps and 'b' not in steps"), Ok(json!(true)));
    assert_eq!(scope.evaluate("steps | length"), Ok(json!(2)));
    let whole = json!({"a": {"output": {"n": 1}}, "my-step": {"output": [1, 2]}});
    for source in ["steps", "steps | to_json | from_json", "[steps][0]", "steps | merge({})", "steps | jmespath('@')"] {
        assert_eq!(scope.evaluate(source), Ok(whole.clone()), "{source}");
    }
    assert_eq!(scope.evaluate("steps == {'a': steps.a, 'my-step': steps['my-step']}"), Ok(json!(true)));
    assert_eq!(scope.evaluate("steps | jmespath('a.output.n')"), Ok(json!(1)));
    assert_eq!(Data::lazy(names), Data::from(&whole));

    let inner = scope.with([("item".to_owned(), Data::from(&json!(5))), ("index".to_owned(), Data::from(&json!(0)))]);
    assert_eq!(inner.evaluate("item + index + steps.a.output.n"), Ok(json!(6)));
    let within = inner.with([("item".to_owned(), Data::from(&json!(7)))]);
    assert_eq!(within.evaluate("[item, index]"), Ok(json!([7, 0])));
    assert!(scope.evaluate("item").is_err());
    let lazy = Scope::lazy(Arc::new(Counted(Default::default())));
    assert_eq!(lazy.evaluate("a.output.n"), Ok(json!(1)));
}

#[test]
fn lists_are_handed_out_without_copying() {
    let items = json!([{"a": 1}, [2], "three"]);
    let scope = Scope::new([("items".to_owned(), Data::from(&items))]);
    let list = scope.evaluate_data("{{ items[1:] }}").unwrap();
    let list = list.items().unwrap();
    assert_eq!(list.iter().map(|item| item.to_json().unwrap()).collect::<Vec<_>>(), [json!([2]), json!("three")]);
    assert_eq!(Data::list(list).to_json().unwrap(), json!([[2], "three"]));
    assert_eq!(scope.evaluate_data("items[0]").unwrap().items(), None);
    let many = Data::list((0..100_001).map(|_| Data::from(&json!(1))));
    assert!(many.to_json().unwrap_err().contains("too many values"));
    let posing = json!({"$serde_json::private::RawValue": "[1]"});
    assert!(Data::from(&posing).to_json().is_err() && transform("@", &Data::from(&posing)).is_err());
    assert!(Data::from(&json!(["x".repeat(7_000_000)])).to_json().unwrap_err().contains("too large"));
}

#[test]
fn what_an_input_names_is_found() {
    let input = json!({
        "text": "{{ steps.a.output.x }} and {{ steps['my-step'].output[0] | default(params.channel) }} {{ steps.a.output.x }}",
        "list": ["{{ steps[user.name].output }}", "plain", "{{ broken"],
        "deep": {"more": "{{ [item.x, {'k': index}] if (now | date) in jmespath(trigger.body, 'a') else -run.n }}"},
    });
    let found: Vec<_> = references(&input, &Pointer::from("/with"))
        .into_iter()
        .map(|found| format!("{} {}", found.pointer, found.path.join("/")))
        .collect();
    assert_eq!(
        found,
        [
            "/with/text steps/a/output/x",
            "/with/text steps/my-step/output/0",
            "/with/text params/channel",
            "/with/text steps/a/output/x",
            "/with/list/0 steps",
            "/with/list/0 user/name",
            "/with/deep/more now",
            "/with/deep/more trigger/body",
            "/with/deep/more item/x",
            "/with/deep/more index",
            "/with/deep/more run/n",
        ]
    );
    let found = expression_references("steps.a.output > params.least", &Pointer::root());
    assert_eq!(found[0].step(), Some("a"));
    assert_eq!(found[0].parameter(), None);
    assert_eq!(found[1].parameter(), Some("least"));
}

#[test]
fn comparisons_that_mean_nothing_are_refused() {
    let evaluate = |source: &str| Scope::new([]).evaluate(source);
    assert_eq!(
        evaluate("1 == 1.0 and 1 != '1' and none != false and [1, {'a': 1.0}] == [1.0, {'a': 1}]"),
        Ok(json!(true))
    );
    assert_eq!(evaluate("1 < 2 < 3 and 'a' < 'b' and not 2 < 2 <= 1"), Ok(json!(true)));
    assert!(evaluate("1 < '2'").unwrap_err().contains("a number and a text have no order"));
    assert!(evaluate("none < 1").is_err());
    assert!(evaluate("[1] < [2]").is_err());
    assert!(evaluate("1 in 'abc'").is_err());
    assert!(evaluate("1 + 'a'").unwrap_err().contains("join texts with `~`"));
    assert_eq!(evaluate("'a' ~ none ~ 1.5 ~ [true]"), Ok(json!("anull1.5[true]")));
    assert_eq!(evaluate("2 ** 100 // 2 ** 90"), Ok(json!(1024)));
    assert_eq!(evaluate("18446744073709551615"), Ok(json!(18_446_744_073_709_551_615_u64)));
    assert!(evaluate("2 ** 100").unwrap_err().contains("not a number that JSON can hold"));
    assert!(evaluate("1 / 0").unwrap_err().contains("by zero"));
    assert_eq!(
        evaluate("['abcdef'[1:-1:2], [1, 2, 3][::-1], 'ab'[-1], 'abc'[5:]]"),
        Ok(json!(["bd", [3, 2, 1], "b", ""]))
    );
}
