//! Actions that don't exist, connections that are missing or don't fit, inputs that can't become right whatever their
//! expressions yield.

use tidegate_connectors::{Action, Need, Uses};
use tidegate_engine::contains_template;
use tidegate_model::{Definition, FieldError, Step};

use super::known::Known;
use super::{step_at, under};

pub(super) fn check(definition: &Definition, known: &Known, errors: &mut Vec<FieldError>) {
    for (index, step) in definition.steps.iter().enumerate() {
        let at = step_at(index);
        let Some(uses) = Uses::named(&step.uses) else {
            errors.push(FieldError::new(at.push("uses"), unknown_action(&step.uses)));
            continue;
        };
        let connection = match uses {
            Uses::Action(action) => check_connection(action, step, known),
            Uses::Builtin(_) => step.connection.map(|_| format!("{} takes no connection; remove it", uses.name())),
        };
        errors.extend(connection.map(|detail| FieldError::new(at.push("connection"), detail)));
        errors.extend(under(&at.push("with"), uses.validate_step_input(&step.with, contains_template)));
    }
}

fn check_connection(action: &Action, step: &Step, known: &Known) -> Option<String> {
    let (uses, connector) = (action.name, action.connector);
    let Some(id) = step.connection else {
        let required = action.connection == Need::Required;
        return required.then(|| format!("is required: {uses} needs a connection of connector {connector:?}"));
    };
    match known.connections.get(&id) {
        None => Some(format!("there is no connection {id}; create it first")),
        Some(connection) if connection.connector != connector => {
            Some(format!("is a connection of connector {:?}; {uses} needs one of {connector:?}", connection.connector))
        }
        Some(_) => None,
    }
}

fn unknown_action(uses: &str) -> String {
    let all = Uses::all().map(Uses::name).collect::<Vec<_>>().join(", ");
    match Uses::nearest(uses) {
        Some(nearest) => format!("there is no such action; did you mean {:?}? There are: {all}", nearest.name()),
        None => format!("there is no such action; there are: {all}"),
    }
}
