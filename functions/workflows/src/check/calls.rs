//! Workflows that others call, or that are started when a run fails: they exist, and take what they are given.

use serde_json::{Map, Value};
use tidegate_engine::contains_template;
use tidegate_model::{Definition, FieldError, Pointer, WorkflowId};

use super::known::{Known, MAX_WORKFLOWS, called_by};
use super::{listed, step_at, under};

/// How many of a call's unknown parameters are told.
const MAX_UNKNOWN: usize = 20;

pub(super) fn check(definition: &Definition, known: &Known, id: Option<WorkflowId>, errors: &mut Vec<FieldError>) {
    for (index, step) in definition.steps.iter().enumerate() {
        let Some(called) = called_by(step) else { continue };
        let with = step_at(index).push("with");
        // What calls itself calls the version that is being saved.
        let target = if id == Some(called) { Some(definition) } else { known.workflows.get(&called) };
        match target {
            None if !known.named.contains(&called) => {
                let detail = format!("is one too many: a workflow may call at most {MAX_WORKFLOWS} different ones");
                errors.push(FieldError::new(with.push("workflow"), detail));
            }
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
    let is_known = |name: &str| target.parameters.iter().any(|parameter| parameter.name == name);
    // Each error lists the parameters there are, so not every one of very many is told.
    let (fit, others): (Map<_, _>, Map<_, _>) =
        given.iter().map(|(name, value)| (name.clone(), value.clone())).partition(|(name, _)| is_known(name));
    let looked_at = fit.into_iter().chain(others.into_iter().take(MAX_UNKNOWN)).collect();
    let mut errors = target.arguments(&looked_at).err().unwrap_or_default();
    let unknown_yet = given.iter().filter(|(name, value)| is_known(name) && holds_template(value));
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
    let mut required = required.map(|parameter| parameter.name.as_str()).peekable();
    required.peek()?;
    Some(format!("needs parameters, which a failure doesn't give: {}; give them defaults", listed(required)))
}
