//! What the built-in actions take: the engine carries them out, the catalogue says what their input looks like.

use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::{Map, Value};
use tidegate_model::{Builtin, FieldError, Pointer, WorkflowId, parse_wait};

use crate::Schema;

/// Tells a text that isn't known yet, since it holds an expression.
type IsTemplate = fn(&str) -> bool;

/// A built-in action in the catalogue.
pub struct BuiltinAction {
    /// Which one it is.
    pub builtin: Builtin,
    /// Its name for display.
    pub title: &'static str,
    /// What its input looks like.
    pub input: Schema,
    /// What is wrong with an input that a schema can't tell; pointers are relative to it. Texts for which the function
    /// holds are not known yet.
    check: fn(&Map<String, Value>, IsTemplate) -> Vec<FieldError>,
}

/// `format: expression` marks a text that is an expression without braces; `format: duration` is a whole number with a
/// unit. Both are for forms: the schemas' own check of formats is off.
static BUILTINS: [BuiltinAction; 8] = [
    BuiltinAction {
        builtin: Builtin::If,
        title: "If",
        input: Schema::new(
            r#"{
                "type": "object",
                "properties": {
                    "condition": {
                        "title": "Condition",
                        "description": "An expression: where it is true the run goes on at `true`, else at `false`.",
                        "type": ["string", "boolean"], "format": "expression", "minLength": 1, "maxLength": 4096,
                        "examples": ["order.total > 100"]
                    }
                },
                "required": ["condition"],
                "additionalProperties": false
            }"#,
        ),
        check: nothing,
    },
    BuiltinAction {
        builtin: Builtin::Switch,
        title: "Switch",
        input: Schema::new(
            r#"{
                "type": "object",
                "properties": {
                    "value": {"title": "Value", "description": "What `equals` of the cases is compared with."},
                    "cases": {
                        "title": "Cases",
                        "description": "The run goes on at the name of the first that fits, else at `default`.",
                        "type": "array", "minItems": 1, "maxItems": 100,
                        "items": {
                            "type": "object",
                            "properties": {
                                "name": {
                                    "title": "Name", "description": "The outlet's name.",
                                    "type": "string", "pattern": "^[a-z][a-z0-9_]{0,63}$"
                                },
                                "when": {
                                    "title": "When", "description": "An expression: the case fits where it is true.",
                                    "type": "string", "format": "expression", "minLength": 1, "maxLength": 4096,
                                    "examples": ["order.total > 100"]
                                },
                                "equals": {
                                    "title": "Equals", "description": "The case fits where the value is this."
                                }
                            },
                            "required": ["name"],
                            "anyOf": [{"required": ["when"]}, {"required": ["equals"]}],
                            "not": {"required": ["when", "equals"]},
                            "additionalProperties": false
                        }
                    }
                },
                "required": ["cases"],
                "additionalProperties": false
            }"#,
        ),
        check: switch,
    },
    BuiltinAction {
        builtin: Builtin::Set,
        title: "Set values",
        input: Schema::new(r#"{"type": "object", "description": "Any fields; the step yields them."}"#),
        check: nothing,
    },
    BuiltinAction {
        builtin: Builtin::Transform,
        title: "Transform",
        input: Schema::new(
            r#"{
                "type": "object",
                "properties": {
                    "input": {"title": "Input", "description": "What the query is asked of."},
                    "query": {
                        "title": "Query", "description": "A JMESPath expression; the step yields its result.",
                        "type": "string", "format": "jmespath", "minLength": 1, "maxLength": 4096,
                        "examples": ["lines[?price > `10`].{sku: sku, price: price}"]
                    }
                },
                "required": ["input", "query"],
                "additionalProperties": false
            }"#,
        ),
        check: nothing,
    },
    BuiltinAction {
        builtin: Builtin::Delay,
        title: "Wait for a time",
        input: Schema::new(
            r#"{
                "type": "object",
                "properties": {
                    "duration": {
                        "title": "Duration",
                        "description": "Seconds, or a whole number with `s`, `m`, `h` or `d`; up to 366 days.",
                        "type": ["string", "number"], "format": "duration", "minLength": 1,
                        "examples": ["30s", "10m", "2h", "7d"]
                    }
                },
                "required": ["duration"],
                "additionalProperties": false
            }"#,
        ),
        check: |with, skip| wait(with, "duration", skip),
    },
    BuiltinAction {
        builtin: Builtin::WaitUntil,
        title: "Wait until a time",
        input: Schema::new(
            r#"{
                "type": "object",
                "properties": {
                    "until": {
                        "title": "Until",
                        "description": "A time by RFC 3339, up to 366 days ahead; one that is past waits for nothing.",
                        "type": "string", "format": "date-time", "minLength": 1, "examples": ["2027-01-31T09:00:00Z"]
                    }
                },
                "required": ["until"],
                "additionalProperties": false
            }"#,
        ),
        check: until,
    },
    BuiltinAction {
        builtin: Builtin::Approval,
        title: "Wait for approval",
        input: Schema::new(
            r#"{
                "type": "object",
                "properties": {
                    "message": {
                        "title": "Message", "description": "What is asked; whoever decides reads it.",
                        "type": "string", "maxLength": 2000
                    },
                    "timeout": {
                        "title": "Timeout",
                        "description": "The step fails where nobody decides within this: seconds, or a whole number with `s`, `m`, `h` or `d`.",
                        "type": ["string", "number"], "format": "duration", "minLength": 1, "examples": ["2d"]
                    }
                },
                "additionalProperties": false
            }"#,
        ),
        check: |with, skip| wait(with, "timeout", skip),
    },
    BuiltinAction {
        builtin: Builtin::Call,
        title: "Call a workflow",
        input: Schema::new(
            r#"{
                "type": "object",
                "properties": {
                    "workflow": {
                        "title": "Workflow", "description": "The id of the workflow; the step yields the `output` of its run, and the `run_id`.",
                        "type": "string", "examples": ["wf_01890a5d000070008000000000000000"]
                    },
                    "parameters": {"title": "Parameters", "description": "What it is started with.", "type": "object"},
                    "body": {"title": "Body", "description": "The body of its trigger; without it, an empty object."}
                },
                "required": ["workflow"],
                "additionalProperties": false
            }"#,
        ),
        check: call,
    },
];

/// Every built-in action.
pub fn builtins() -> impl Iterator<Item = &'static BuiltinAction> {
    BUILTINS.iter()
}

/// The built-in action of this name, such as `logic.if`.
pub fn builtin(name: &str) -> Option<&'static BuiltinAction> {
    builtins().find(|action| action.builtin.name() == name)
}

impl BuiltinAction {
    /// What is wrong with an input; pointers are relative to it. Of texts for which `skip` holds nothing is said but
    /// where they can't stand.
    pub(crate) fn errors(&self, with: &Map<String, Value>, skip: IsTemplate) -> Vec<FieldError> {
        let errors = self.input.errors(&Value::Object(with.clone()), skip);
        if errors.is_empty() { (self.check)(with, skip) } else { errors }
    }
}

fn nothing(_: &Map<String, Value>, _: IsTemplate) -> Vec<FieldError> {
    Vec::new()
}

fn at(field: &str) -> Pointer {
    Pointer::root().push(field)
}

/// The cases' names are the step's outlets, which other steps name: they are written out.
fn switch(with: &Map<String, Value>, skip: IsTemplate) -> Vec<FieldError> {
    let Some(cases) = with.get("cases").and_then(Value::as_array) else {
        return vec![FieldError::new(at("cases"), "expected a list, written out: an expression can't bring the cases")];
    };
    let mut errors = Vec::new();
    let mut names = HashSet::new();
    for (index, case) in cases.iter().enumerate() {
        let name = case.get("name").and_then(Value::as_str).unwrap_or_default();
        let place = at("cases").push(index);
        if skip(name) || !case.is_object() {
            let detail = "expected a name, written out: an expression can't name an outlet";
            errors.push(FieldError::new(place.push("name"), detail));
        } else if name == Builtin::DEFAULT {
            let detail = "is the outlet where no case fits; choose another name";
            errors.push(FieldError::new(place.push("name"), detail));
        } else if !names.insert(name) {
            errors.push(FieldError::new(place.push("name"), "is the name of an earlier case; names must be unique"));
        }
        if case.get("equals").is_some() && !with.contains_key("value") {
            let detail = "there is nothing to compare with: give the step a value, or the case a `when`";
            errors.push(FieldError::new(place.push("equals"), detail));
        }
    }
    errors
}

fn wait(with: &Map<String, Value>, field: &str, skip: IsTemplate) -> Vec<FieldError> {
    let given = with.get(field).filter(|value| !value.as_str().is_some_and(skip));
    given
        .and_then(|value| parse_wait(value).err())
        .map(|detail| FieldError::new(at(field), detail))
        .into_iter()
        .collect()
}

fn until(with: &Map<String, Value>, skip: IsTemplate) -> Vec<FieldError> {
    let text = with.get("until").and_then(Value::as_str).unwrap_or_default();
    if skip(text) || text.parse::<Timestamp>().is_ok() {
        return Vec::new();
    }
    let detail = "expected a time with its offset, such as \"2027-01-31T09:00:00Z\"";
    vec![FieldError::new(at("until"), detail)]
}

/// The workflow is written out, so that it is known when the definition is saved.
fn call(with: &Map<String, Value>, _: IsTemplate) -> Vec<FieldError> {
    let text = with.get("workflow").and_then(Value::as_str).unwrap_or_default();
    if text.parse::<WorkflowId>().is_ok() {
        return Vec::new();
    }
    let detail = "expected a workflow's id (wf_…), written out: an expression can't name the workflow";
    vec![FieldError::new(at("workflow"), detail)]
}
