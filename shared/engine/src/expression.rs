//! `{{ expression }}` in a step's input. Expressions are data: no statements, no I/O, no way to run for long. A string
//! that is one expression keeps its value's JSON type; in a longer text values are written as text.

use std::sync::{Arc, LazyLock};

use minijinja::value::{Enumerator, Object, Serde, ValueKind};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value as Dynamic};
use serde_json::{Map, Value};
use tidegate_model::{FieldError, MAX_JSON_DEPTH, Pointer, check_json_value};

/// The longest expression, in bytes.
const MAX_EXPRESSION_BYTES: usize = 4 * 1024;
/// Instructions that one expression may take.
const FUEL: u64 = 20_000;
/// The most that the expressions of one input yield together, in bytes of JSON: a whole webhook body (4 MB) fits.
const MAX_RESULT_BYTES: usize = 6 * 1024 * 1024;
/// How many expressions one input may hold.
const MAX_EXPRESSIONS: usize = 1_000;
/// How many `*` the expressions of one input may hold together.
const MAX_INPUT_MULTIPLICATIONS: usize = 20;
/// The largest value that a filter builds.
const MAX_FILTER_BYTES: usize = 1024 * 1024;
/// How many `~` and `+` an expression may hold: each copies both its sides.
const MAX_CONCATENATIONS: usize = 32;
/// How many `*` an expression may hold: each can repeat a text to 100 MB.
const MAX_MULTIPLICATIONS: usize = 2;

/// An expression that can't be evaluated: where it stands and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {message}")]
pub struct ExpressionError {
    /// JSON pointer to the string, below the input.
    pub pointer: Pointer,
    /// What is wrong.
    pub message: String,
}

/// A JSON value made ready for expressions, once; cloning it is cheap.
#[derive(Debug, Clone, PartialEq)]
pub struct Data(Dynamic);

impl From<&Value> for Data {
    fn from(value: &Value) -> Self {
        Self(Dynamic::from(Serde(value)))
    }
}

/// Members that are looked up when they are named.
pub(crate) trait Names: std::fmt::Debug + Send + Sync {
    fn get(&self, name: &str) -> Option<Data>;
    fn names(&self) -> Vec<String>;
}

#[derive(Debug)]
struct Lazy(Arc<dyn Names>);

impl Object for Lazy {
    fn get_value(self: &Arc<Self>, key: &Dynamic) -> Option<Dynamic> {
        self.0.get(key.as_str()?).map(|data| data.0)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.names().into_iter().map(Dynamic::from).collect())
    }
}

impl Data {
    pub(crate) fn lazy(names: Arc<dyn Names>) -> Self {
        Self(Dynamic::from_object(Lazy(names)))
    }

    pub(crate) fn list(items: impl IntoIterator<Item = Data>) -> Self {
        Self(Dynamic::from(items.into_iter().map(|data| data.0).collect::<Vec<_>>()))
    }

    pub(crate) fn items(&self) -> Option<Vec<Data>> {
        (self.0.kind() == ValueKind::Seq).then(|| self.0.try_iter().into_iter().flatten().map(Data).collect())
    }

    pub(crate) fn member(&self, name: &str) -> Option<Data> {
        if self.0.kind() != ValueKind::Map {
            return None;
        }
        self.0.get_attr(name).ok().filter(|value| !value.is_undefined()).map(Data)
    }

    /// An object of these members.
    pub(crate) fn object(members: impl IntoIterator<Item = (String, Data)>) -> Self {
        Self(Dynamic::from_pairs(members.into_iter().map(|(name, data)| (name, data.0))))
    }

    /// The members of an object; none of anything else.
    pub(crate) fn members(&self) -> Vec<(String, Data)> {
        if self.0.kind() != ValueKind::Map {
            return Vec::new();
        }
        let names = self.0.try_iter().into_iter().flatten();
        names.filter_map(|name| Some((name.as_str()?.to_owned(), Data(self.0.get_item(&name).ok()?)))).collect()
    }
}

/// What is left for the expressions of one input.
struct Budget {
    bytes: usize,
    expressions: usize,
    multiplications: usize,
}

impl Budget {
    fn new() -> Self {
        Self { bytes: MAX_RESULT_BYTES, expressions: MAX_EXPRESSIONS, multiplications: MAX_INPUT_MULTIPLICATIONS }
    }

    fn take_expression(&mut self, multiplications: usize) -> Result<(), String> {
        let left = self.expressions.checked_sub(1).zip(self.multiplications.checked_sub(multiplications));
        (self.expressions, self.multiplications) = left.ok_or_else(|| {
            format!(
                "a step may hold at most {MAX_EXPRESSIONS} expressions, and {MAX_INPUT_MULTIPLICATIONS} `*` in them; \
                 split it into several steps"
            )
        })?;
        Ok(())
    }
}

/// The values that expressions see.
#[derive(Debug)]
pub struct Scope {
    values: Dynamic,
}

impl Scope {
    pub(crate) fn lazy(names: Arc<dyn Names>) -> Self {
        Self { values: Data::lazy(names).0 }
    }

    pub(crate) fn with(&self, names: impl IntoIterator<Item = (String, Data)>) -> Self {
        #[derive(Debug)]
        struct Over(Vec<(String, Data)>, Dynamic);
        impl Names for Over {
            fn get(&self, name: &str) -> Option<Data> {
                let over = self.0.iter().find(|(over, _)| over == name).map(|(_, data)| data.clone());
                over.or_else(|| Data(self.1.clone()).member(name))
            }
            fn names(&self) -> Vec<String> {
                self.0.iter().map(|(name, _)| name.clone()).collect()
            }
        }
        Self::lazy(Arc::new(Over(names.into_iter().collect(), self.values.clone())))
    }

    pub(crate) fn fill_one(&self, value: &Value, at: &Pointer) -> Result<Value, ExpressionError> {
        self.fill_value(value, at, &mut Budget::new())
    }

    pub(crate) fn evaluate(&self, source: &str) -> Result<Value, String> {
        let source = bare(source);
        self.value(source, &mut Budget::new())
    }

    pub(crate) fn evaluate_data(&self, source: &str) -> Result<Data, String> {
        let value = self.evaluate(source)?;
        Ok(Data::from(&value))
    }

    /// A scope of these names.
    pub(crate) fn new(names: impl IntoIterator<Item = (String, Data)>) -> Self {
        Self { values: Data::object(names).0 }
    }

    /// Fills in every expression of an input's fields; yields an object.
    ///
    /// # Errors
    /// The first expression that is malformed, names a missing value or takes too much; or the whole, where it is too
    /// large or too deep to be stored and read again.
    pub fn fill(&self, fields: &Map<String, Value>, at: &Pointer) -> Result<Value, ExpressionError> {
        let filled = Value::Object(self.fill_fields(fields, at, &mut Budget::new())?);
        match check_json_value(&filled) {
            Ok(()) => Ok(filled),
            Err(error) => {
                let message = format!("the input has {error} once its expressions are filled in");
                Err(ExpressionError { pointer: at.clone(), message })
            }
        }
    }

    fn fill_fields(
        &self,
        fields: &Map<String, Value>,
        at: &Pointer,
        budget: &mut Budget,
    ) -> Result<Map<String, Value>, ExpressionError> {
        let filled = fields.iter().map(|(name, value)| {
            let filled = self.fill_value(value, &at.push(name), budget)?;
            Ok((name.clone(), filled))
        });
        filled.collect()
    }

    fn fill_value(&self, input: &Value, at: &Pointer, budget: &mut Budget) -> Result<Value, ExpressionError> {
        match input {
            Value::String(text) => {
                self.fill_text(text, budget).map_err(|message| ExpressionError { pointer: at.clone(), message })
            }
            Value::Array(items) => {
                let filled =
                    items.iter().enumerate().map(|(index, item)| self.fill_value(item, &at.push(index), budget));
                filled.collect::<Result<_, _>>().map(Value::Array)
            }
            Value::Object(fields) => self.fill_fields(fields, at, budget).map(Value::Object),
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(input.clone()),
        }
    }

    fn fill_text(&self, text: &str, budget: &mut Budget) -> Result<Value, String> {
        let parts = split(text)?;
        if let [Part::Expression(source)] = parts[..] {
            return self.value(source, budget);
        }
        let mut filled = String::new();
        for part in parts {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Expression(source) => match self.value(source, budget)? {
                    Value::String(text) => filled.push_str(&text),
                    other => filled.push_str(&other.to_string()),
                },
            }
        }
        Ok(Value::String(filled))
    }

    fn value(&self, source: &str, budget: &mut Budget) -> Result<Value, String> {
        budget.take_expression(operators(source).multiplications)?;
        let expression = compile(source)?;
        let value = expression.eval(self.values.clone()).map_err(|error| describe(source, &error))?;
        if value.is_undefined() {
            return Err(format!("`{}` is not there; {DEFAULT_HINT}", source.trim()));
        }
        to_json(&value, MAX_JSON_DEPTH, &mut budget.bytes).map_err(|reason| format!("`{}` {reason}", source.trim()))
    }
}

fn bare(source: &str) -> &str {
    let trimmed = source.trim();
    match split(trimmed).as_deref() {
        Ok([Part::Expression(inside)]) => &trimmed[2..2 + inside.len()],
        _ => source,
    }
}

pub(crate) fn transform(_query: &str, input: &Value) -> Result<Value, String> {
    Ok(input.clone())
}

const DEFAULT_HINT: &str = "check the name, or give a value for when it is missing: `name | default(\"\")`, and where its \
                            parent may be missing too, `(parent | default({})).name | default(\"\")`";

/// Whether a text holds an expression.
pub fn contains_template(text: &str) -> bool {
    text.contains("{{")
}

/// Checks the syntax of every expression in an input; `at` is where the input stands in its document.
pub fn check_templates(input: &Value, at: &Pointer, errors: &mut Vec<FieldError>) {
    match input {
        Value::String(text) => {
            let checked = split(text).and_then(|parts| {
                parts.iter().try_for_each(|part| match part {
                    Part::Text(_) => Ok(()),
                    Part::Expression(source) => compile(source).map(drop),
                })
            });
            if let Err(detail) = checked {
                errors.push(FieldError::new(at.clone(), detail));
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check_templates(item, &at.push(index), errors);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                check_templates(value, &at.push(name), errors);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    Text(&'a str),
    Expression(&'a str),
}

/// Splits a text at its expressions. Braces and quotes inside an expression nest as they do in the language, so that
/// `{{ {"a": "}}"} }}` is one expression.
fn split(text: &str) -> Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        if start > 0 {
            parts.push(Part::Text(&rest[..start]));
        }
        let inside = &rest[start + 2..];
        let end = expression_end(inside)
            .ok_or_else(|| format!("`{{{{` without its `}}}}`, at {:?}", clip(&rest[start..], 40)))?;
        parts.push(Part::Expression(&inside[..end]));
        rest = &inside[end + 2..];
    }
    if !rest.is_empty() || parts.is_empty() {
        parts.push(Part::Text(rest));
    }
    Ok(parts)
}

fn expression_end(inside: &str) -> Option<usize> {
    let bytes = inside.as_bytes();
    let mut depth = 0_usize;
    let mut quote = None;
    let mut index = 0;
    while index < bytes.len() {
        match (quote, bytes[index]) {
            (Some(_), b'\\') => index += 1,
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
            (None, b'{') => depth += 1,
            (None, b'}') if depth > 0 => depth -= 1,
            (None, b'}') if bytes.get(index + 1) == Some(&b'}') => return Some(index),
            (None, _) => {}
        }
        index += 1;
    }
    None
}

fn clip(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

fn compile(source: &str) -> Result<minijinja::Expression<'static, 'static>, String> {
    if source.len() > MAX_EXPRESSION_BYTES {
        return Err(format!("an expression may have at most {MAX_EXPRESSION_BYTES} bytes"));
    }
    if source.trim().is_empty() {
        return Err("`{{ }}` is empty; name a value, such as `{{ user.name }}`".to_owned());
    }
    let operators = operators(source);
    if operators.multiplications > MAX_MULTIPLICATIONS || operators.concatenations > MAX_CONCATENATIONS {
        return Err(format!(
            "an expression may hold at most {MAX_MULTIPLICATIONS} `*` and {MAX_CONCATENATIONS} `~` and `+`; split it"
        ));
    }
    if let Some(unknown) = filters(source).find(|name| !FILTERS.contains(name)) {
        return Err(format!("there is no filter `{unknown}`; there are: {}", FILTERS.join(", ")));
    }
    ENVIRONMENT.compile_expression_owned(source.to_owned()).map_err(|error| describe(source, &error))
}

/// The filters there are; what each does is in the environment below.
const FILTERS: [&str; 16] = [
    "abs",
    "default",
    "first",
    "float",
    "int",
    "join",
    "last",
    "length",
    "lower",
    "replace",
    "round",
    "string",
    "to_json",
    "trim",
    "upper",
    "urlencode",
];

/// The names that stand where a filter does: behind a `|` outside of quotes.
fn filters(source: &str) -> impl Iterator<Item = &str> {
    let mut quote = None;
    let mut escaped = false;
    source.bytes().enumerate().filter_map(move |(index, byte)| {
        match (quote, byte) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(open), byte) if byte == open => quote = None,
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'|') => {
                let rest = source[index + 1..].trim_start();
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                return Some(&rest[..end]);
            }
            (Some(_) | None, _) => {}
        }
        None
    })
}

struct Operators {
    multiplications: usize,
    concatenations: usize,
}

/// Counts the operators that make values larger, outside of quotes. `**` counts as two `*`.
fn operators(source: &str) -> Operators {
    let mut counted = Operators { multiplications: 0, concatenations: 0 };
    let mut quote = None;
    let mut escaped = false;
    for byte in source.bytes() {
        match (quote, byte) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'*') => counted.multiplications += 1,
            (None, b'~' | b'+') => counted.concatenations += 1,
            (None, _) => {}
        }
    }
    counted
}

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(64);
    environment.set_debug(false);
    environment.add_filter("abs", minijinja::filters::abs);
    environment.add_filter("default", minijinja::filters::default);
    environment.add_filter("first", minijinja::filters::first);
    environment.add_filter("float", minijinja::filters::float);
    environment.add_filter("int", minijinja::filters::int);
    environment.add_filter("join", join);
    environment.add_filter("last", minijinja::filters::last);
    environment.add_filter("length", length);
    environment.add_filter("lower", |text: &Dynamic| Ok::<_, Error>(string(text)?.to_lowercase()));
    environment.add_filter("replace", replace);
    environment.add_filter("round", minijinja::filters::round);
    environment.add_filter("string", string);
    environment.add_filter("to_json", to_json_text);
    environment.add_filter("trim", |text: &Dynamic| Ok::<_, Error>(string(text)?.trim().to_owned()));
    environment.add_filter("upper", |text: &Dynamic| Ok::<_, Error>(string(text)?.to_uppercase()));
    environment.add_filter("urlencode", urlencode);
    environment.add_test("defined", minijinja::tests::is_defined);
    environment.add_test("undefined", minijinja::tests::is_undefined);
    environment.add_test("none", minijinja::tests::is_none);
    environment.add_test("number", minijinja::tests::is_number);
    environment.add_test("string", minijinja::tests::is_string);
    environment
});

/// Says in a sentence what is wrong with an expression.
fn describe(source: &str, error: &Error) -> String {
    let source = clip(source.trim(), 200);
    match error.kind() {
        ErrorKind::UndefinedError => {
            let what = error.detail().map_or_else(String::new, |detail| format!(" ({detail})"));
            format!("`{source}` names a value that is not there{what}; {DEFAULT_HINT}")
        }
        ErrorKind::OutOfFuel => format!("`{source}` takes too long; make it simpler"),
        kind => match error.detail() {
            Some(detail) => format!("`{source}` can't be used: {detail}"),
            None => format!("`{source}` can't be used: {kind}"),
        },
    }
}

fn too_large() -> Error {
    Error::new(ErrorKind::InvalidOperation, "the result is over 1 MiB")
}

/// A value as one segment of a URL's path or query: all but RFC 3986's unreserved characters percent-encoded.
fn urlencode(value: &Dynamic) -> Result<String, Error> {
    let mut encoded = String::new();
    for byte in string(value)?.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        if encoded.len() > MAX_FILTER_BYTES {
            return Err(too_large());
        }
    }
    Ok(encoded)
}

fn length(value: &Dynamic) -> Result<usize, Error> {
    match value.as_str() {
        Some(text) if text.len() > MAX_FILTER_BYTES => Err(too_large()),
        Some(text) => Ok(text.chars().count()),
        None => value
            .len()
            .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "only texts, lists and objects have a length")),
    }
}

fn join(items: &Dynamic, separator: Option<String>) -> Result<String, Error> {
    let separator = separator.unwrap_or_default();
    let mut joined = String::new();
    for (index, item) in items.try_iter()?.enumerate() {
        if index > 0 {
            joined.push_str(&separator);
        }
        joined.push_str(&string(&item)?);
        if joined.len() > MAX_FILTER_BYTES {
            return Err(too_large());
        }
    }
    Ok(joined)
}

fn replace(text: &str, from: &str, to: &str) -> Result<String, Error> {
    let grown = text.matches(from).count().saturating_mul(to.len());
    if text.len().saturating_add(grown) > MAX_FILTER_BYTES {
        return Err(too_large());
    }
    Ok(text.replace(from, to))
}

/// A value as it is written into a text: a string as it is, everything else as JSON.
fn string(value: &Dynamic) -> Result<String, Error> {
    match value.as_str() {
        Some(text) if text.len() > MAX_FILTER_BYTES => Err(too_large()),
        Some(text) => Ok(text.to_owned()),
        None => to_json_text(value),
    }
}

fn to_json_text(value: &Dynamic) -> Result<String, Error> {
    let mut room = MAX_FILTER_BYTES;
    to_json(value, MAX_JSON_DEPTH, &mut room)
        .map(|value| value.to_string())
        .map_err(|reason| Error::new(ErrorKind::InvalidOperation, reason))
}

/// A value as JSON, within bounds of depth and bytes.
fn to_json(value: &Dynamic, depth: usize, room: &mut usize) -> Result<Value, &'static str> {
    let mut take = |bytes: usize| {
        *room = room.checked_sub(bytes).ok_or("is too large")?;
        Ok::<(), &'static str>(())
    };
    if depth == 0 {
        return Err("is nested too deeply");
    }
    match value.kind() {
        ValueKind::Undefined => Err("holds a value that is not there"),
        ValueKind::None => take(4).map(|()| Value::Null),
        ValueKind::Bool => take(5).map(|()| Value::Bool(value.is_true())),
        ValueKind::Number => {
            take(8)?;
            serde_json::to_value(value).map_err(|_| "is not a number that JSON can hold")
        }
        ValueKind::String => {
            let text = value.as_str().ok_or("is not text")?;
            take(text.len() + 2)?;
            Ok(Value::String(text.to_owned()))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let mut items = Vec::new();
            for item in value.try_iter().map_err(|_| "is not a list")? {
                *room = room.checked_sub(1).ok_or("is too large")?;
                items.push(to_json(&item, depth - 1, room)?);
            }
            Ok(Value::Array(items))
        }
        ValueKind::Map => {
            let mut fields = Map::new();
            for key in value.try_iter().map_err(|_| "is not an object")? {
                let name = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                *room = room.checked_sub(name.len() + 4).ok_or("is too large")?;
                let field = value.get_item(&key).map_err(|_| "is not an object")?;
                fields.insert(name, to_json(&field, depth - 1, room)?);
            }
            Ok(Value::Object(fields))
        }
        _ => Err("is not a value that JSON can hold"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
            if text.contains("f()") {
                assert!(fill(json!(text)).is_err(), "{text}");
            } else {
                assert_eq!(refused.as_deref(), Some("/with/0"), "{text}");
            }
        }
        let long = format!("{{{{ {} }}}}", "a".repeat(5_000));
        assert!(fill(json!(long)).is_err());
    }

    #[test]
    fn an_expression_wastes_only_its_own_bounds() {
        for text in [
            "{{ text * 100000000 }}",
            "{{ [1] * 10000000 }}",
            "{{ text * 1000 * 1000 * 1000 }}",
            "{{ text * 10000 | upper }}",
            "{{ (text * 10000) | upper | lower }}",
            "{{ (text * 10000) | length }}",
            "{{ (text * 10000) | trim }}",
            "{{ text | replace('x', text) | replace('x', text) }}",
            "{{ (text | replace('x', text)) | replace('', text) }}",
            "{{ [text, text] | join(text * 1200) }}",
            "{{ 'a' * 9 * 9 * 9 * 9 * 9 }}",
            "{{ 9 ** 9 ** 9 ** 9 }}",
        ] {
            assert!(fill(json!(text)).is_err(), "{text}");
        }
        let once = json!("{{ text * 100 }}");
        assert!(fill(once.clone()).is_ok());
        let whole = |count: usize| fill(Value::Array(vec![once.clone(); count]));
        assert!(whole(20).is_ok());
        assert!(whole(21).unwrap_err().contains("at most"), "multiplications are counted over the input");
        let texts = |count: usize| fill(Value::Array(vec![json!("{{ text }}"); count]));
        assert!(texts(1_000).is_ok());
        assert!(texts(1_001).is_err(), "expressions are counted");
        let large = json!("{{ text * 1000 }}");
        assert!(fill(Value::Array(vec![large; 7])).unwrap_err().contains("too large"), "bytes are counted");
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
}
