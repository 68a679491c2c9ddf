//! Workflows that others call, or that are started when a run fails: they exist, and take what they are given.

use serde_json::{Map, Value};
use tidegate_engine::contains_template;
use tidegate_model::{Definition, FieldError, Pointer, WorkflowId};

use super::known::{Known, called_by};
use super::{step_at, under};

pub(super) fn check(definition: &Definition, known: &Known, id: Option<WorkflowId>, errors: &mut Vec<FieldError>) {
    for (index, step) in definition.steps.iter().enumerate() {
        let Some(called) = called_by(step) else { continue };
        let with = step_at(index).push("with");
        // What calls itself calls the version that is being saved.
        let target = if id == Some(called) { Some(definition) } else { known.workflows.get(&called) };
        match target {
            None => errors.push(FieldError::new(with.push("workflow"), missing(called))),
            Some(target) => {
                errors.extend(under(&with.push("parameters"), unfit(target, step.with.get("parameters"))));
            }
        }
    }
    if let Some(handler) = &definition.on_failure {
        let detail = if id == Some(handler.workflow) {
            Some("is this workflow itself; name another one, which doesn't fail for the same reason".to_owned())
        } else {
            match known.workflows.get(&handler.workflow) {
                None => Some(missing(handler.workflow)),
                Some(target) => needs_parameters(target),
            }
        };
        let at = Pointer::root().push("on_failure").push("workflow");
        errors.extend(detail.map(|detail| FieldError::new(at, detail)));
    }
}

fn missing(id: WorkflowId) -> String {
    format!("there is no workflow {id}; create it first")
}

/// What is wrong with the parameters of a call, as far as it is known before the run.
fn unfit(target: &Definition, parameters: Option<&Value>) -> Vec<FieldError> {
    let none = Map::new();
    let given = match parameters {
        None | Some(Value::Null) => &none,
        Some(Value::Object(given)) => given,
        // An expression, or told of already.
        Some(_) => return Vec::new(),
    };
    let mut errors = target.arguments(given).err().unwrap_or_default();
    let unknown_yet = |name: &str, value: &Value| {
        holds_template(value) && target.parameters.iter().any(|parameter| parameter.name == name)
    };
    let unknown_yet = given.iter().filter(|(name, value)| unknown_yet(name, value));
    let unknown_yet: Vec<_> = unknown_yet.map(|(name, _)| Pointer::root().push(name)).collect();
    errors.retain(|error| !unknown_yet.contains(&error.pointer));
    errors
}

fn holds_template(value: &Value) -> bool {
    match value {
        Value::String(text) => contains_template(text),
        Value::Array(elements) => elements.iter().any(holds_template),
        Value::Object(fields) => fields.values().any(holds_template),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A failure starts its handler with a body and without parameters.
fn needs_parameters(target: &Definition) -> Option<String> {
    let required = target.parameters.iter().filter(|parameter| parameter.required);
    let required: Vec<_> = required.map(|parameter| parameter.name.as_str()).collect();
    let told =
        || format!("needs parameters, which a failure doesn't give: {}; give them defaults", required.join(", "));
    (!required.is_empty()).then(told)
}
