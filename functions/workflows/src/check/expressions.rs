//! Expressions that can't be read, and those that name what isn't there where they stand.

use std::collections::BTreeSet;

use serde_json::Value;
use tidegate_engine::{
    Reference, check_expression, check_templates, check_transform, contains_template, expression_references, references,
};
use tidegate_model::{Builtin, Definition, FieldError, Graph, Pointer, Step};

use super::{listed, step_at};

pub(super) fn check(definition: &Definition, graph: &Graph, errors: &mut Vec<FieldError>) {
    for place in places(definition) {
        place.check_syntax(errors);
        // A place that names two outputs of one wrong step is told of once.
        let mut told = BTreeSet::new();
        errors.extend(place.references().into_iter().filter_map(|reference| {
            let path: Vec<_> = reference.path.iter().map(String::as_str).collect();
            let detail = place.sees.refuses(definition, graph, &path)?;
            let is_new = told.insert((reference.pointer.clone(), detail.clone()));
            is_new.then(|| FieldError::new(reference.pointer, detail))
        }));
    }
}

/// A part of a definition that may hold expressions.
struct Place<'a> {
    at: Pointer,
    source: Source<'a>,
    sees: Sees,
}

enum Source<'a> {
    /// A value whose strings may hold `{{ expression }}`.
    Templates(&'a Value),
    /// The expression itself.
    Expression(&'a str),
    /// A JMESPath query.
    Query(&'a str),
    /// A list for `foreach`.
    List(&'a Value),
}

/// What the expressions of a place see.
#[derive(Clone, Copy)]
struct Sees {
    /// The steps before this one; all of them where there is none.
    step: Option<usize>,
    /// Whether `item` and `index` are there.
    item: bool,
}

fn places(definition: &Definition) -> Vec<Place<'_>> {
    let mut places = Vec::new();
    for (index, step) in definition.steps.iter().enumerate() {
        let (at, step_is) = (step_at(index), Some(index));
        if let Some(foreach) = &step.foreach {
            let at = at.push("foreach").push("items");
            places.push(Place { at, source: Source::List(&foreach.items), sees: Sees { step: step_is, item: false } });
        }
        let sees = Sees { step: step_is, item: step.foreach.is_some() };
        let inputs = inputs(step).into_iter();
        places.extend(inputs.map(|(field, source)| Place { at: join(&at.push("with"), &field), source, sees }));
    }
    if let Some(output) = &definition.output {
        let sees = Sees { step: None, item: false };
        places.push(Place { at: Pointer::root().push("output"), source: Source::Templates(output), sees });
    }
    places
}

fn join(at: &Pointer, field: &Pointer) -> Pointer {
    Pointer::from(format!("{at}{field}").as_str())
}

/// The fields of a step's input, by what kind of expression each holds.
fn inputs(step: &Step) -> Vec<(Pointer, Source<'_>)> {
    let builtin = Builtin::named(&step.uses);
    let mut inputs = Vec::new();
    for (name, value) in &step.with {
        let at = Pointer::root().push(name);
        match (builtin, name.as_str(), value) {
            (Some(Builtin::If), "condition", Value::String(text)) => inputs.push((at, Source::Expression(text))),
            (Some(Builtin::Transform), "query", Value::String(text)) if !contains_template(text) => {
                inputs.push((at, Source::Query(text)));
            }
            (Some(Builtin::Switch), "cases", Value::Array(cases)) => {
                let fields = cases.iter().enumerate().flat_map(|(index, case)| {
                    let fields = case.as_object().into_iter().flatten();
                    fields.map(move |field| (index, field))
                });
                inputs.extend(fields.map(|(index, (name, value))| {
                    let source = match value {
                        Value::String(text) if name == "when" => Source::Expression(text),
                        _ => Source::Templates(value),
                    };
                    (at.push(index).push(name), source)
                }));
            }
            _ => inputs.push((at, Source::Templates(value))),
        }
    }
    inputs
}

impl Place<'_> {
    fn check_syntax(&self, errors: &mut Vec<FieldError>) {
        match self.source {
            Source::List(Value::String(text)) if !contains_template(text) => {
                let detail = "is a text, not a list; write an expression, such as \"{{ order.lines }}\"";
                errors.push(FieldError::new(self.at.clone(), detail));
            }
            Source::Templates(value) | Source::List(value) => check_templates(value, &self.at, errors),
            Source::Expression(source) => check_expression(source, &self.at, errors),
            Source::Query(query) => {
                errors.extend(check_transform(query).err().map(|detail| FieldError::new(self.at.clone(), detail)));
            }
        }
    }

    /// What the expressions name. What can't be read names nothing.
    fn references(&self) -> Vec<Reference> {
        match self.source {
            Source::Templates(value) | Source::List(value) => references(value, &self.at),
            Source::Expression(source) => expression_references(source, &self.at),
            Source::Query(_) => Vec::new(),
        }
    }
}

impl Sees {
    /// Why an expression here can't name this path.
    fn refuses(self, definition: &Definition, graph: &Graph, path: &[&str]) -> Option<String> {
        match path {
            ["steps", id, ..] => self.refuses_step(definition, graph, id),
            ["params", name, ..] if !definition.parameters.iter().any(|parameter| parameter.name == *name) => {
                let names = listed(definition.parameters.iter().map(|parameter| parameter.name.as_str()));
                Some(format!("the workflow has no parameter `{name}`; declare it in parameters. There are: {names}"))
            }
            [name @ ("item" | "index"), ..] if !self.item => Some(format!(
                "`{name}` is only there in the input of a step with foreach; a field of the body is \
                 `trigger.body.{name}`"
            )),
            _ => None,
        }
    }

    fn refuses_step(self, definition: &Definition, graph: &Graph, id: &str) -> Option<String> {
        let Some(named) = definition.steps.iter().position(|step| step.id == id) else {
            return Some(format!("there is no step `{id}`; name one that comes before"));
        };
        let step = self.step?;
        if graph.is_before(named, step) {
            return None;
        }
        Some(if named == step {
            format!("`steps.{id}` is this step itself, which has no output before it ran")
        } else {
            format!("step `{id}` isn't before this one, so its output may not be there; put it in `after`, or before")
        })
    }
}
