//! `{{ expression }}` in a step's input. Expressions are data: no statements, no I/O, no way to run for long or to take
//! much memory. A string that is one expression keeps its value's JSON type; in a longer text values are written as
//! text. The language is Jinja's, read by minijinja's parser, and JMESPath; docs/expressions.md is its description.

mod data;
mod evaluate;
mod filters;
mod meter;
mod numbers;
mod query;
mod syntax;
mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};
use tidegate_model::{FieldError, Pointer, check_json_value};

use self::evaluate::Evaluation;
use self::meter::{Fault, Meter};

pub use self::data::{Data, Names};
pub use self::template::{Part, contains_template, split};

/// The longest expression, in bytes.
const MAX_EXPRESSION_BYTES: usize = 4 * 1024;
/// The most that the expressions of one input yield together, in bytes of JSON: a whole webhook body (4 MB) fits.
const MAX_RESULT_BYTES: usize = 6 * 1024 * 1024;
/// The longest text that an expression builds, in bytes.
const MAX_TEXT_BYTES: usize = 1024 * 1024;
/// How many expressions one input may hold.
const MAX_EXPRESSIONS: usize = 1_000;

/// An expression that can't be evaluated: where it stands and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {message}")]
pub struct ExpressionError {
    /// JSON pointer to the string, below the input.
    pub pointer: Pointer,
    /// What is wrong.
    pub message: String,
}

/// The values that expressions see. Cloning it is cheap.
#[derive(Clone)]
pub struct Scope {
    names: Data,
    below: Option<Arc<Scope>>,
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}

/// What is left for the expressions of one input.
struct Budget {
    meter: Meter,
    room: data::Room,
    expressions: usize,
}

impl Budget {
    fn new() -> Self {
        Self { meter: Meter::new(), room: data::Room::new(), expressions: MAX_EXPRESSIONS }
    }

    fn next_expression(&mut self) -> Result<(), String> {
        self.expressions = self.expressions.checked_sub(1).ok_or_else(|| {
            format!("a step may hold at most {MAX_EXPRESSIONS} expressions; split it into several steps")
        })?;
        self.meter.next_expression();
        Ok(())
    }
}

impl Scope {
    /// A scope of these names; of two with one name the later wins.
    pub fn new(names: impl IntoIterator<Item = (String, Data)>) -> Self {
        Self { names: Data::object(names), below: None }
    }

    /// A scope whose names are looked up when an expression names them: making it costs nothing, however much it holds.
    pub fn lazy(names: Arc<dyn Names>) -> Self {
        Self { names: Data::lazy(names), below: None }
    }

    /// This scope with more names, which win over those that it has.
    #[must_use]
    pub fn with(&self, names: impl IntoIterator<Item = (String, Data)>) -> Self {
        Self { names: Data::object(names), below: Some(Arc::new(self.clone())) }
    }

    /// Fills in every expression of an input's fields; yields an object.
    ///
    /// # Errors
    /// The first expression that is malformed, names a missing value or takes too much; or the whole, where it is too
    /// large or too deep to be stored and read again.
    pub fn fill(&self, fields: &Map<String, Value>, at: &Pointer) -> Result<Value, ExpressionError> {
        let filled = Value::Object(self.fill_fields(fields, at, &mut Budget::new())?);
        checked(filled, at)
    }

    /// Fills in every expression of any value.
    ///
    /// # Errors
    /// As [`Scope::fill`].
    pub fn fill_one(&self, value: &Value, at: &Pointer) -> Result<Value, ExpressionError> {
        checked(self.fill_value(value, at, &mut Budget::new())?, at)
    }

    /// Evaluates one expression, which may stand in braces: `order.total > 100`.
    ///
    /// # Errors
    /// It is malformed, names a missing value or takes too much, or its value is too large; a sentence that says what
    /// to do.
    pub fn evaluate(&self, source: &str) -> Result<Value, String> {
        let source = template::bare(source)?;
        let value = self.data(source, &mut Meter::new())?;
        value.to_json().map_err(|reason| format!("`{}` {reason}", syntax::quoted(source)))
    }

    /// As [`Scope::evaluate`], without making JSON of the value: for lists whose items are looked at one by one.
    ///
    /// # Errors
    /// As [`Scope::evaluate`], but that a large value of the scope itself is not refused.
    pub fn evaluate_data(&self, source: &str) -> Result<Data, String> {
        self.data(template::bare(source)?, &mut Meter::new())
    }

    fn get(&self, name: &str) -> Option<Data> {
        let mut scope = self;
        loop {
            if let Some(value) = scope.names.member(name) {
                return Some(value);
            }
            scope = scope.below.as_deref()?;
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
            budget.next_expression()?;
            let value = self.data(source, &mut budget.meter)?;
            return json(source, &value, &mut budget.room);
        }
        let mut filled = Filled { text: String::new(), room: budget.room.bytes() };
        for part in parts {
            match part {
                Part::Text(text) => filled.text.push_str(text),
                Part::Expression(source) => {
                    budget.next_expression()?;
                    let value = self.data(source, &mut budget.meter)?;
                    let too_large = |fmt::Error| format!("`{}` is too large", syntax::quoted(source));
                    let before = filled.room;
                    value.write(&mut filled).map_err(too_large)?;
                    budget.room.take(before - filled.room, 0).map_err(|_| too_large(fmt::Error))?;
                }
            }
        }
        Ok(Value::String(filled.text))
    }

    fn data(&self, source: &str, meter: &mut Meter) -> Result<Data, String> {
        let expression = syntax::parse(source)?;
        let evaluated = Evaluation { scope: self, meter }.value(&expression);
        evaluated.map_err(|fault| match fault {
            Fault::Missing(what) if what == format!("`{}`", source.trim()) => {
                format!("{what} is not there; {DEFAULT_HINT}")
            }
            Fault::Missing(what) => {
                format!("`{}` can't be used: {what} is not there; {DEFAULT_HINT}", syntax::quoted(source))
            }
            Fault::Refused(reason) => syntax::unusable(source, &reason),
        })
    }
}

/// A filled-in value that can be stored and read again.
fn checked(filled: Value, at: &Pointer) -> Result<Value, ExpressionError> {
    check_json_value(&filled).map_err(|error| {
        let message = format!("the value has {error} once its expressions are filled in");
        ExpressionError { pointer: at.clone(), message }
    })?;
    Ok(filled)
}

fn json(source: &str, value: &Data, room: &mut data::Room) -> Result<Value, String> {
    value.to_json_within(room).map_err(|reason| format!("`{}` {reason}", syntax::quoted(source)))
}

/// A text that values are written into, within what is left to the step.
struct Filled {
    text: String,
    room: usize,
}

impl fmt::Write for Filled {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        self.room = self.room.checked_sub(piece.len()).ok_or(fmt::Error)?;
        self.text.push_str(piece);
        Ok(())
    }
}

const DEFAULT_HINT: &str = "check the name, or give a value for when it is missing: `name | default(\"\")`, and where its \
                            parent may be missing too, `(parent | default({})).name | default(\"\")`";

/// Checks every expression in an input before it is ever evaluated: its syntax, that its filters exist and take what
/// they are given, and the patterns, queries and time zones that are written out in it. `at` is where the input stands
/// in its document.
pub fn check_templates(input: &Value, at: &Pointer, errors: &mut Vec<FieldError>) {
    visit(input, at, &mut |text, at| {
        let checked = split(text).and_then(|parts| {
            parts.iter().try_for_each(|part| match part {
                Part::Text(_) => Ok(()),
                Part::Expression(source) => syntax::parse(source).map(drop),
            })
        });
        if let Err(detail) = checked {
            errors.push(FieldError::new(at.clone(), detail));
        }
    });
}

/// As [`check_templates`], for a field that is one expression, in braces or not.
pub fn check_expression(source: &str, at: &Pointer, errors: &mut Vec<FieldError>) {
    if let Err(detail) = template::bare(source).and_then(|source| syntax::parse(source).map(drop)) {
        errors.push(FieldError::new(at.clone(), detail));
    }
}

/// A value that an expression names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// Where the expression stands.
    pub pointer: Pointer,
    /// What it names, as far as it is written out: `steps["a"].output[0]` is `steps`, `a`, `output`, `0`, and
    /// `steps[name]` is `steps`. Never empty; the first is the scope's name.
    pub path: Vec<String>,
}

impl Reference {
    /// The step that is named, where one is.
    pub fn step(&self) -> Option<&str> {
        match &self.path[..] {
            [steps, id, ..] if steps == "steps" => Some(id),
            _ => None,
        }
    }

    /// The parameter that is named, where one is.
    pub fn parameter(&self) -> Option<&str> {
        match &self.path[..] {
            [params, name, ..] if params == "params" => Some(name),
            _ => None,
        }
    }
}

/// What the expressions of an input name, in order, each once a place. What is malformed names nothing:
/// [`check_templates`] reports it.
pub fn references(input: &Value, at: &Pointer) -> Vec<Reference> {
    let mut found = Vec::new();
    visit(input, at, &mut |text, at| {
        for part in split(text).unwrap_or_default() {
            if let Part::Expression(source) = part {
                refer(source, at, &mut found);
            }
        }
    });
    found
}

/// What one expression names; see [`references`].
pub fn expression_references(source: &str, at: &Pointer) -> Vec<Reference> {
    let mut found = Vec::new();
    if let Ok(source) = template::bare(source) {
        refer(source, at, &mut found);
    }
    found
}

fn refer(source: &str, at: &Pointer, found: &mut Vec<Reference>) {
    let mut paths = Vec::new();
    if let Ok(expression) = syntax::parse(source) {
        syntax::paths(&expression, &mut paths);
    }
    let mut seen = BTreeSet::new();
    paths.retain(|path| seen.insert(path.clone()));
    found.extend(paths.into_iter().map(|path| Reference { pointer: at.clone(), path }));
}

/// Evaluates a JMESPath query on a value, within the bounds of an expression.
///
/// # Errors
/// It is malformed, can't work on this value or takes too much; a sentence that says what to do.
pub fn transform(query: &str, input: &Data) -> Result<Value, String> {
    let found = query::search(query, input, &mut Meter::new());
    let found = found.map_err(|fault| match fault {
        Fault::Refused(reason) => syntax::unusable(query, &reason),
        Fault::Missing(what) => syntax::unusable(query, &format!("{what} is not there")),
    })?;
    found.to_json().map_err(|reason| format!("`{}` {reason}", syntax::quoted(query)))
}

/// Checks a JMESPath query: its syntax, and that its functions exist and take what they are given.
///
/// # Errors
/// What is wrong, in a sentence.
pub fn check_transform(query: &str) -> Result<(), String> {
    query::check(query).map_err(|reason| syntax::unusable(query, &reason))
}

/// Calls a function with every text of an input and where it stands.
fn visit(input: &Value, at: &Pointer, each: &mut dyn FnMut(&str, &Pointer)) {
    match input {
        Value::String(text) => each(text, at),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                visit(item, &at.push(index), each);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                visit(value, &at.push(name), each);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
