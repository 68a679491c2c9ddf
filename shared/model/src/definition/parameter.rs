//! Parameters: values that a run is started with, beside the trigger's body.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Definition;
use crate::{FieldError, Pointer};

/// The most parameters that a definition may have.
pub(super) const MAX_PARAMETERS: usize = 100;

/// A value that a run is started with; `{{ params.<name> }}` in expressions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// Names it: a letter or `_`, then up to 63 letters, digits or `_`.
    pub name: String,
    /// What kind of value it takes.
    #[serde(rename = "type")]
    pub kind: ParameterType,
    /// What it is for: up to 2,000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether a run can't start without it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// Its value where none is given; without a default it is null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Value)]
    pub default: Option<Value>,
    /// The only values it may have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Value>)]
    pub options: Vec<Value>,
}

/// The kinds of values that a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParameterType {
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A JSON object.
    Object,
    /// A JSON list.
    Array,
}

impl ParameterType {
    fn takes(self, value: &Value) -> bool {
        match self {
            Self::String => value.is_string(),
            Self::Integer => value.is_i64() || value.is_u64(),
            Self::Number => value.is_number(),
            Self::Boolean => value.is_boolean(),
            Self::Object => value.is_object(),
            Self::Array => value.is_array(),
        }
    }

    fn described(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Integer => "a whole number",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::Object => "an object",
            Self::Array => "a list",
        }
    }
}

impl Parameter {
    /// What is wrong with a value for it; the value itself is not repeated.
    fn refuses(&self, value: &Value) -> Option<String> {
        if !self.kind.takes(value) {
            return Some(format!("must be {}", self.kind.described()));
        }
        if !self.options.is_empty() && !self.options.contains(value) {
            let options: Vec<_> = self.options.iter().map(Value::to_string).collect();
            return Some(format!("must be one of {}", options.join(", ")));
        }
        None
    }

    pub(super) fn check(&self, at: &Pointer, errors: &mut Vec<FieldError>) {
        let mut tell = |field: &str, detail: String| errors.push(FieldError::new(at.push(field), detail));
        if !is_name(&self.name) {
            tell("name", "must be a letter or _, then up to 63 letters, digits or _".to_owned());
        }
        if self.description.as_ref().is_some_and(|text| text.chars().count() > super::MAX_DESCRIPTION_CHARS) {
            tell("description", "must have at most 2000 characters".to_owned());
        }
        if let Some(bad) = self.options.iter().position(|option| !self.kind.takes(option)) {
            tell("options", format!("the option at position {bad} must be {}", self.kind.described()));
        }
        if let Some(default) = &self.default {
            if self.required {
                tell("default", "a required parameter has no default; remove one of the two".to_owned());
            } else if let Some(detail) = self.refuses(default) {
                tell("default", detail);
            }
        }
    }
}

fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl Definition {
    /// The values of all parameters, of these given ones. One that is given as null counts as not given.
    ///
    /// # Errors
    /// Unknown and missing parameters and values that don't fit; pointers are relative to `given`.
    pub fn arguments(&self, given: &Map<String, Value>) -> Result<Map<String, Value>, Vec<FieldError>> {
        let mut errors = Vec::new();
        for name in given.keys() {
            if !self.parameters.iter().any(|parameter| parameter.name == *name) {
                let known: Vec<_> = self.parameters.iter().map(|parameter| parameter.name.as_str()).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let detail = format!("the workflow has no such parameter; it has: {known}");
                errors.push(FieldError::new(Pointer::root().push(name), detail));
            }
        }
        let mut arguments = Map::new();
        for parameter in &self.parameters {
            let at = || Pointer::root().push(&parameter.name);
            match given.get(&parameter.name).filter(|value| !value.is_null()) {
                Some(value) => match parameter.refuses(value) {
                    Some(detail) => errors.push(FieldError::new(at(), detail)),
                    None => drop(arguments.insert(parameter.name.clone(), value.clone())),
                },
                None if parameter.required => errors.push(FieldError::new(at(), "is required")),
                None => {
                    drop(arguments.insert(parameter.name.clone(), parameter.default.clone().unwrap_or(Value::Null)));
                }
            }
        }
        if errors.is_empty() { Ok(arguments) } else { Err(errors) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition() -> Definition {
        Definition::parse(&json!({
            "name": "n", "trigger": {"type": "manual"}, "steps": [{"id": "a", "uses": "x.y"}],
            "parameters": [
                {"name": "channel", "type": "string", "default": "#orders", "description": "Where to"},
                {"name": "count", "type": "integer", "required": true},
                {"name": "size", "type": "string", "options": ["s", "m"]},
                {"name": "ratio", "type": "number"},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn values_are_typed_defaults_filled_in_and_unknown_ones_refused() {
        let given = |value: Value| definition().arguments(value.as_object().unwrap());
        assert_eq!(
            Value::Object(given(json!({"count": 3, "ratio": 1})).unwrap()),
            json!({"channel": "#orders", "count": 3, "size": null, "ratio": 1})
        );
        let refused = given(json!({"count": "3", "size": "l", "colour": 1, "channel": null})).unwrap_err();
        let told: Vec<_> = refused.iter().map(|e| (e.pointer.to_string(), e.detail.as_str())).collect();
        assert_eq!(
            told,
            [
                ("/colour".to_owned(), "the workflow has no such parameter; it has: channel, count, size, ratio"),
                ("/count".to_owned(), "must be a whole number"),
                ("/size".to_owned(), "must be one of \"s\", \"m\""),
            ]
        );
        assert_eq!(given(json!({})).unwrap_err()[0].detail, "is required");
    }

    #[test]
    fn declarations_are_checked() {
        let refused = |parameter: Value| {
            let document = json!({
                "name": "n", "trigger": {"type": "manual"}, "steps": [{"id": "a", "uses": "x.y"}],
                "parameters": [parameter],
            });
            Definition::parse(&document).unwrap_err()[0].pointer.to_string()
        };
        assert_eq!(refused(json!({"name": "1a", "type": "string"})), "/parameters/0/name");
        assert_eq!(refused(json!({"name": "a", "type": "text"})), "/parameters/0/type");
        assert_eq!(refused(json!({"name": "a", "type": "string", "default": 1})), "/parameters/0/default");
        assert_eq!(
            refused(json!({"name": "a", "type": "string", "default": "b", "required": true})),
            "/parameters/0/default"
        );
        assert_eq!(refused(json!({"name": "a", "type": "integer", "options": ["1"]})), "/parameters/0/options");
    }
}
