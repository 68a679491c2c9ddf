//! Both languages have an engine of their own, which bounds nothing but knows what is right: on small values ours has
//! to agree with them. And whatever is written, nothing panics.

use std::sync::LazyLock;

use minijinja::value::ValueKind;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use tidegate_model::Pointer;

use crate::expression::filters::FILTERS;
use crate::expression::{Data, Scope, check_expression, check_transform, transform};

/// What minijinja makes of an expression; none where it refuses it.
fn jinja(source: &str) -> Option<Value> {
    let environment = minijinja::Environment::empty();
    let expression = environment.compile_expression(source).ok()?;
    json_of(&expression.eval(()).ok()?)
}

fn json_of(value: &minijinja::Value) -> Option<Value> {
    match value.kind() {
        ValueKind::None => Some(Value::Null),
        ValueKind::Bool => Some(json!(value.is_true())),
        ValueKind::Number if value.is_integer() => {
            let integer = i128::try_from(value.clone()).ok()?;
            i64::try_from(integer).map(Value::from).or_else(|_| u64::try_from(integer).map(Value::from)).ok()
        }
        ValueKind::Number => {
            let float = f64::try_from(value.clone()).ok()?;
            float.is_finite().then(|| json!(float))
        }
        ValueKind::String => Some(json!(value.as_str()?)),
        ValueKind::Seq | ValueKind::Iterable => {
            value.try_iter().ok()?.map(|item| json_of(&item)).collect::<Option<_>>().map(Value::Array)
        }
        _ => None,
    }
}

/// Whether two results are the same, whole floats being integers too.
fn alike(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other
                || one.as_f64().zip(other.as_f64()).is_some_and(|(one, other)| {
                    one.total_cmp(&other).is_eq() || (one - other).abs() <= one.abs() * 1e-15
                })
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| alike(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, one)| other.get(name).is_some_and(|other| alike(one, other)))
        }
        (one, other) => one == other,
    }
}

fn arithmetic() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        4 => (0_i64..20).prop_map(|number| number.to_string()),
        1 => any::<u32>().prop_map(|number| number.to_string()),
        2 => (0_u32..4000).prop_map(|number| format!("{:?}", f64::from(number) / 8.0)),
    ];
    number.prop_recursive(5, 24, 3, |inner| {
        let operator = select(vec!["+", "-", "*", "/", "//", "%", "**"]);
        let comparison = select(vec!["<", "<=", ">", ">=", "==", "!="]);
        prop_oneof![
            6 => (inner.clone(), operator.clone(), inner.clone()).prop_map(|(a, op, b)| format!("({a}) {op} ({b})")),
            3 => (inner.clone(), operator.clone(), inner.clone(), operator, inner.clone())
                .prop_map(|(a, op, b, next, c)| format!("({a} {op} {b} {next} {c})")),
            1 => inner.clone().prop_map(|a| format!("(-({a}))")),
            1 => (inner.clone(), inner.clone(), comparison, inner.clone(), inner.clone())
                .prop_map(|(a, b, op, c, d)| format!("(({a}) if ({b}) {op} ({c}) else ({d}))")),
            1 => (inner.clone(), inner.clone(), inner.clone(), 0_usize..3)
                .prop_map(|(a, b, c, index)| format!("[{a}, {b}, {c}][{index}]")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("(({a}) and ({b}))")),
            1 => (inner.clone(), inner).prop_map(|(a, b)| format!("(({a}) if not ({b}) else ({b}))")),
        ]
    })
}

/// What the `jmespath` crate makes of a query; none where it refuses it.
fn crates(query: &str, data: &Value) -> Option<Value> {
    let data = jmespath::Variable::from_json(&data.to_string()).unwrap();
    let found = jmespath::compile(query).ok()?.search(data).ok()?;
    serde_json::from_str(&found.to_string()).ok()
}

fn queries() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        select(vec![
            "a",
            "b",
            "c",
            "@",
            "`1`",
            "`[1, 2, 3]`",
            "'x'",
            "`null`",
            "\"a\"",
            "`{\"a\": [1]}`",
            "to_string(a)"
        ])
        .prop_map(str::to_owned),
        (-3..4).prop_map(|index| format!("a[{index}]")),
    ];
    leaf.prop_recursive(5, 20, 3, |inner| {
        // `to_string` only of what is there: a sum of whole numbers stays whole with us. Not `to_number` and `avg`: the
        // crate takes `"[]"` for the list and has no average of nothing, where the specification says null.
        let functions = vec![
            "abs", "ceil", "floor", "length", "max", "min", "not_null", "reverse", "sort", "sum", "to_array",
            "type",
        ];
        let comparison = select(vec!["==", "!=", "<", "<=", ">", ">="]);
        prop_oneof![
            3 => (inner.clone(), select(vec!["a", "b", "c", "*"])).prop_map(|(q, name)| format!("({q}).{name}")),
            2 => (inner.clone(), select(vec!["[*]", "[]", "[0]", "[-1]", "[1:]", "[::-1]", "[:2]"]))
                .prop_map(|(q, part)| format!("({q}){part}")),
            2 => (inner.clone(), inner.clone(), inner.clone()).prop_map(|(q, test, rest)| format!("({q})[?{test}] | [].[{rest}]")),
            1 => (inner.clone(), inner.clone()).prop_map(|(q, rest)| format!("({q})[*].[{rest}, @]")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{{a: {a}, b: {b}}}")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[{a}, {b}]")),
            2 => (inner.clone(), comparison, inner.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            1 => (inner.clone(), select(vec!["&&", "||", "|"]), inner.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            1 => inner.clone().prop_map(|a| format!("!({a})")),
            3 => (select(functions), inner.clone()).prop_map(|(name, a)| format!("{name}({a})")),
            1 => (select(vec!["sort_by", "max_by", "min_by"]), inner.clone(), inner.clone())
                .prop_map(|(name, a, by)| format!("{name}({a}, &{by})")),
            1 => (inner.clone(), inner.clone()).prop_map(|(by, a)| format!("map(&{by}, {a})")),
            1 => (select(vec!["contains", "starts_with", "ends_with"]), inner.clone(), inner)
                .prop_map(|(name, a, b)| format!("{name}({a}, {b})")),
        ]
    })
}

fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        (-5_i64..6).prop_map(Value::from),
        (-8_i32..9).prop_map(|number| json!(f64::from(number) / 4.0)),
        select(vec!["", "x", "xy", "ä", "12"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| json!({"a": a, "b": b})),
            (inner.clone(), inner).prop_map(|(a, c)| json!({"a": a, "c": c})),
        ]
    })
}

static NAMES: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "s": "Ab c,dß\u{0}\u{1f600}", "n": 7, "f": -2.5, "big": 18_446_744_073_709_551_615_u64, "t": true, "z": null,
        "l": [3, 1, 2, 1.0], "w": ["b", "a", ""], "m": [[], {}, null, "x", 1],
        "o": {"a": 1, "b": {"c": [1, {"d": "e"}]}},
        "r": [{"a": 1, "k": "x"}, {"a": 2, "k": "y"}, {"a": 1}],
        "now": "2026-03-29T01:30:00Z", "j": "{\"a\": [1, 2.5e300]}",
    })
});

fn expressions() -> impl Strategy<Value = String> {
    let names: Vec<String> = NAMES.as_object().unwrap().keys().cloned().chain(["missing".to_owned()]).collect();
    let constants = vec![
        "0",
        "1",
        "-1",
        "3.7",
        "170141183460469231731687303715884105727",
        "1e300",
        "''",
        "'a'",
        "'%Y-%m %Q %:z'",
        "','",
        "'Europe/Berlin'",
        "'a.b'",
        "'(.)(.*)'",
        "'$1$2$$${x}'",
        "'a[*].b'",
        "'@'",
        "none",
        "true",
        "[]",
        "{}",
        "'eq'",
        "'upper'",
        "'length'",
        "9223372036854775807",
    ];
    let leaf = prop_oneof![select(names), select(constants).prop_map(str::to_owned)];
    leaf.prop_recursive(6, 40, 4, |inner| {
        let filters: Vec<_> = FILTERS.iter().map(|filter| (filter.name, filter.parameters, filter.required)).collect();
        let operator =
            select(vec!["+", "-", "*", "/", "//", "%", "**", "~", "==", "<", ">=", "in", "not in", "and", "or"]);
        let filtered = (inner.clone(), select(filters), prop::collection::vec(inner.clone(), 0..4), any::<bool>())
            .prop_map(|(value, (name, parameters, required), mut arguments, named)| {
                arguments.truncate(parameters.len());
                while arguments.len() < required {
                    arguments.push("1".to_owned());
                }
                let arguments: Vec<_> = match named {
                    true => arguments.iter().zip(parameters).map(|(value, name)| format!("{name}={value}")).collect(),
                    false => arguments,
                };
                format!("(({value}) | {name}({}))", arguments.join(", "))
            });
        prop_oneof![
            6 => filtered,
            4 => (inner.clone(), operator, inner.clone()).prop_map(|(a, op, b)| format!("(({a}) {op} ({b}))")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})[{b}]")),
            1 => (inner.clone(), inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c, d)| format!("({a})[{b}:{c}:{d}]")),
            1 => (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} if {b} else {c})")),
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            1 => inner.clone().prop_map(|a| format!("{{'a': {a}}}")),
            1 => (inner, select(vec!["a", "b", "k"])).prop_map(|(a, name)| format!("({a}).{name}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arithmetic_is_jinjas(source in arithmetic()) {
        let ours = Scope::new([]).evaluate(&source);
        let theirs = jinja(&source);
        match (&ours, &theirs) {
            (Ok(ours), Some(theirs)) => prop_assert!(alike(ours, theirs), "{} is {}, not {}", source, theirs, ours),
            (Err(_), None) => {}
            // Ours refuses infinity at once, theirs goes on with it.
            (Err(reason), Some(_)) if reason.contains("the number is too large, or there is none") => {}
            _ => prop_assert!(false, "{}: ours {:?}, theirs {:?}", source, ours, theirs),
        }
    }

    #[test]
    fn queries_find_what_the_specification_says(query in queries(), data in documents()) {
        let ours = transform(&query, &Data::from(&data));
        let theirs = crates(&query, &data);
        match (&ours, &theirs) {
            (Ok(ours), Some(theirs)) => prop_assert!(alike(ours, theirs), "{} on {} is {}, not {}", query, data, theirs, ours),
            (Err(_), None) => {}
            _ => prop_assert!(false, "{} on {}: ours {:?}, theirs {:?}", query, data, ours, theirs),
        }
    }

    #[test]
    fn nothing_that_is_written_panics(source in expressions()) {
        let scope = Scope::new(Data::from(&*NAMES).members());
        if let Err(reason) = scope.evaluate(&source) {
            prop_assert!(reason.starts_with('`') || reason.contains("at most"), "{}", reason);
        }
    }

    #[test]
    fn no_rubbish_panics(source in "[a-c0-9.,:'\"(){}\\[\\]|&!@*`<>=?~ %+\\\\/-]{0,60}|\\PC{0,40}") {
        let scope = Scope::new(Data::from(&*NAMES).members());
        prop_assert_eq!(check_transform(&source).is_err() && transform(&source, &Data::from(&*NAMES)).is_ok(), false);
        let mut errors = Vec::new();
        check_expression(&source, &Pointer::root(), &mut errors);
        prop_assert!(errors.is_empty() || scope.evaluate(&source).is_err(), "what is refused isn't evaluated: {}", source);
    }
}

/// The strategies have to yield what both sides can evaluate, or they would agree on nothing but refusals.
#[test]
fn most_of_what_is_compared_has_a_value() {
    let mut runner = TestRunner::deterministic();
    let mut values = 0;
    for _ in 0..1_000 {
        let source = arithmetic().new_tree(&mut runner).unwrap().current();
        values += usize::from(jinja(&source).is_some());
    }
    assert!(values > 500, "{values} of 1000 expressions");
    let mut values = 0;
    for _ in 0..1_000 {
        let query = queries().new_tree(&mut runner).unwrap().current();
        let data = documents().new_tree(&mut runner).unwrap().current();
        values += usize::from(crates(&query, &data).is_some_and(|found| !found.is_null()));
    }
    // Of a query and a document that know nothing of each other most find nothing, which both sides then say too.
    assert!(values > 150, "{values} of 1000 queries");
}
