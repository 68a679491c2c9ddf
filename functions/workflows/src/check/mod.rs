//! The check of a definition as a whole, beyond its shape: against the catalogue, against the tenant's connections and
//! workflows, and of its parts against each other. One concern is one file.

mod actions;
mod calls;
mod expressions;
mod known;
mod trigger;
mod waits;

use tidegate_connections::Error;
use tidegate_model::{Definition, FieldError, Graph, Pointer, TenantId, WorkflowId};

use crate::Deps;

use known::Known;

/// Everything that is wrong with a definition that could be parsed. `id` is the workflow that it is for, where that
/// exists already.
///
/// # Errors
/// A connection or a workflow that it names can't be read.
pub(crate) async fn check(
    deps: &Deps,
    tenant: TenantId,
    id: Option<WorkflowId>,
    definition: &Definition,
) -> Result<Vec<FieldError>, Error> {
    let graph = match Graph::new(definition) {
        Ok(graph) => graph,
        Err(errors) => return Ok(errors),
    };
    let known = Known::read(deps, tenant, definition).await?;
    let mut errors = Vec::new();
    trigger::check(definition, &known, &mut errors);
    actions::check(definition, &known, &mut errors);
    waits::check(definition, &mut errors);
    calls::check(definition, &known, id, &mut errors);
    expressions::check(definition, &graph, &mut errors);
    Ok(errors)
}

/// Where a step stands.
fn step_at(index: usize) -> Pointer {
    Pointer::root().push("steps").push(index)
}

/// Names as a text lists them; of many, the first.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const MOST: usize = 20;
    let names: Vec<_> = names.take(MOST + 1).collect();
    match names.len() {
        0 => "none".to_owned(),
        1..=MOST => names.join(", "),
        _ => format!("{}, …", names[..MOST].join(", ")),
    }
}

/// Errors whose pointers are relative to a place, in the document.
pub(crate) fn under(at: &Pointer, errors: Vec<FieldError>) -> impl Iterator<Item = FieldError> {
    errors.into_iter().map(move |error| {
        let pointer = Pointer::from(format!("{at}{}", error.pointer).as_str());
        FieldError::new(pointer, error.detail)
    })
}
