//! JSON Schemas, compiled once, whose errors are told for a person and never repeat the value.

use std::sync::OnceLock;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;
use tidegate_model::{FieldError, Pointer};

/// More errors than these help nobody, and a schema of a stranger's may have long ones.
const MAX_ERRORS: usize = 50;
const MAX_DETAIL_BYTES: usize = 1_000;
/// How large a pattern may be once it is compiled, in bytes.
const MAX_COMPILED_PATTERN: usize = 256 * 1024;

/// A JSON Schema (draft 2020-12).
pub struct Schema {
    source: Source,
    compiled: OnceLock<Result<(Value, Validator), String>>,
}

enum Source {
    Text(&'static str),
    Document(Value),
}

impl Schema {
    /// A schema from its JSON text; it is compiled on first use.
    pub const fn new(text: &'static str) -> Self {
        Self { source: Source::Text(text), compiled: OnceLock::new() }
    }

    /// A schema of a manifest; it is compiled on first use.
    pub const fn of(document: Value) -> Self {
        Self { source: Source::Document(document), compiled: OnceLock::new() }
    }

    /// The schema itself, for forms and documents.
    pub fn document(&self) -> &Value {
        match (self.compiled(), &self.source) {
            (Ok((document, _)), _) | (Err(_), Source::Document(document)) => document,
            (Err(_), Source::Text(_)) => &Value::Null,
        }
    }

    /// Why it is no JSON Schema that can be used; nothing where it is one.
    pub fn fault(&self) -> Option<&str> {
        self.compiled().as_ref().err().map(String::as_str)
    }

    /// What is wrong with a value; pointers are relative to it. An error at a text for which `skip` holds is left out,
    /// as are the errors of absent values that such a text may yet bring.
    pub fn errors(&self, value: &Value, skip: fn(&str) -> bool) -> Vec<FieldError> {
        let mut errors = Vec::new();
        match self.compiled() {
            Ok((_, validator)) => {
                for error in validator.iter_errors(value) {
                    explain(&error, skip, &mut errors);
                    if errors.len() >= MAX_ERRORS {
                        break;
                    }
                }
                for error in &mut errors {
                    if error.detail.len() > MAX_DETAIL_BYTES {
                        error.detail = error.detail.chars().take(MAX_DETAIL_BYTES / 4).chain(['…']).collect();
                    }
                }
            }
            Err(fault) => errors.push(FieldError::new(Pointer::root(), format!("can't be checked: {fault}"))),
        }
        errors
    }

    fn compiled(&self) -> &Result<(Value, Validator), String> {
        self.compiled.get_or_init(|| {
            let document = match &self.source {
                Source::Text(text) => serde_json::from_str(text).map_err(|error| error.to_string())?,
                Source::Document(document) => document.clone(),
            };
            // Patterns of manifests come from outside: these take linear time, whatever the pattern.
            let options =
                jsonschema::options().with_pattern_options(PatternOptions::regex().size_limit(MAX_COMPILED_PATTERN));
            let validator = options.build(&document).map_err(|error| error.to_string())?;
            Ok((document, validator))
        })
    }
}

fn explain(error: &ValidationError<'_>, skip: fn(&str) -> bool, errors: &mut Vec<FieldError>) {
    if error.instance().as_str().is_some_and(skip) {
        return;
    }
    let at = Pointer::from(error.instance_path().as_str());
    let mut tell = |pointer: Pointer, detail: String| errors.push(FieldError::new(pointer, detail));
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            tell(at.push(property.as_str().unwrap_or_default()), "is required".to_owned());
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            for name in unexpected {
                tell(at.push(name), "unknown field; remove it".to_owned());
            }
        }
        ValidationErrorKind::Type { kind } => {
            tell(at, format!("expected {}, not {}", expected_type(kind), type_of(error.instance())));
        }
        ValidationErrorKind::Enum { options } => {
            let options: Vec<_> = options.as_array().into_iter().flatten().map(Value::to_string).collect();
            tell(at, format!("must be one of {}", options.join(", ")));
        }
        ValidationErrorKind::MinLength { limit: 1 } => tell(at, "must not be empty".to_owned()),
        ValidationErrorKind::MinLength { limit } => tell(at, format!("must have at least {limit} characters")),
        ValidationErrorKind::MaxLength { limit } => tell(at, format!("must have at most {limit} characters")),
        ValidationErrorKind::MinItems { limit } => tell(at, format!("must have at least {limit} elements")),
        ValidationErrorKind::MaxItems { limit } => tell(at, format!("must have at most {limit} elements")),
        ValidationErrorKind::Pattern { pattern } => tell(at, format!("must match {pattern}")),
        ValidationErrorKind::MaxProperties { limit } => tell(at, format!("must have at most {limit} fields")),
        ValidationErrorKind::Not { schema } => {
            let fields = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            tell(at, format!("takes only one of {}", fields.collect::<Vec<_>>().join(", ")));
        }
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            explain_choice(at, context, skip, errors);
        }
        ValidationErrorKind::OneOfMultipleValid { .. } => {
            tell(at, "has more than one of the forms of which one is allowed here".to_owned());
        }
        _ => tell(at, error.masked().to_string()),
    }
}

/// Of the alternatives of an `anyOf` or `oneOf`, tells the errors of the one whose constants fit the value.
fn explain_choice(
    at: Pointer,
    alternatives: &[Vec<ValidationError<'static>>],
    skip: fn(&str) -> bool,
    errors: &mut Vec<FieldError>,
) {
    let missing: Option<Vec<&str>> = alternatives.iter().map(|errors| missing_field(errors)).collect();
    if let Some(fields) = missing {
        errors.push(FieldError::new(at, format!("needs at least one of {}", fields.join(", "))));
        return;
    }
    let fitting: Vec<_> =
        alternatives.iter().filter(|errors| !errors.iter().any(|error| constant(error).is_some())).collect();
    match fitting.as_slice() {
        [] => {
            let other: Vec<_> = alternatives.iter().flatten().filter(|error| constant(error).is_some()).collect();
            if other.iter().any(|error| error.instance().as_str().is_some_and(skip)) {
                return;
            }
            let place = other.first().map(|error| error.instance_path().as_str()).unwrap_or_default();
            let same = other.iter().filter(|error| error.instance_path().as_str() == place);
            let options: Vec<_> = same.filter_map(|error| constant(error)).map(Value::to_string).collect();
            errors.push(FieldError::new(Pointer::from(place), format!("must be one of {}", options.join(", "))));
        }
        [only] => {
            for error in *only {
                explain(error, skip, errors);
            }
        }
        _ => errors.push(FieldError::new(at, "has none of the forms that are allowed here")),
    }
}

/// What a value should have been, where it is the wrong constant.
fn constant<'e>(error: &'e ValidationError<'_>) -> Option<&'e Value> {
    if let ValidationErrorKind::Constant { expected_value } = error.kind() { Some(expected_value) } else { None }
}

/// The field whose absence is all that is wrong.
fn missing_field<'e>(errors: &'e [ValidationError<'static>]) -> Option<&'e str> {
    let [only] = errors else { return None };
    if let ValidationErrorKind::Required { property } = only.kind() { property.as_str() } else { None }
}

fn expected_type(kind: &TypeKind) -> String {
    let name = |kind: jsonschema::JsonType| match kind {
        jsonschema::JsonType::Array => "a list",
        jsonschema::JsonType::Boolean => "true or false",
        jsonschema::JsonType::Integer => "a whole number",
        jsonschema::JsonType::Null => "null",
        jsonschema::JsonType::Number => "a number",
        jsonschema::JsonType::Object => "an object",
        jsonschema::JsonType::String => "a string",
    };
    match kind {
        TypeKind::Single(kind) => name(*kind).to_owned(),
        TypeKind::Multiple(kinds) => kinds.iter().map(name).collect::<Vec<_>>().join(" or "),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
