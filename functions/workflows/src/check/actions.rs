//! Actions that don't exist, connections that are missing or don't fit, inputs that can't become right whatever their
//! expressions yield.

use tidegate_connectors::manifest::Need;
use tidegate_connectors::{Action, Uses};
use tidegate_engine::contains_template;
use tidegate_model::{Definition, FieldError, Step};

use super::known::Known;
use super::{step_at, under};

pub(super) fn check(definition: &Definition, known: &Known, errors: &mut Vec<FieldError>) {
    for (index, step) in definition.steps.iter().enumerate() {
        let at = step_at(index);
        let own = || known.actions.get(&step.uses).cloned().map(Uses::Action);
        let Some(uses) = Uses::named(&step.uses).or_else(own) else {
            errors.push(FieldError::new(at.push("uses"), unknown_action(&step.uses, known)));
            continue;
        };
        let connection = match &uses {
            Uses::Action(action) => check_connection(action, step, known),
            Uses::Builtin(_) => step.connection.map(|_| format!("{} takes no connection; remove it", uses.name())),
        };
        errors.extend(connection.map(|detail| FieldError::new(at.push("connection"), detail)));
        errors.extend(under(&at.push("with"), uses.validate_step_input(&step.with, contains_template)));
    }
}

fn check_connection(action: &Action, step: &Step, known: &Known) -> Option<String> {
    let (uses, connector) = (&action.name, &action.connector.name);
    match (step.connection, action.need()) {
        (None, Need::Required) => Some(format!("is required: {uses} needs a connection of connector {connector:?}")),
        (None, Need::Optional | Need::None) => None,
        (Some(_), Need::None) => Some(format!("{uses} takes no connection; remove it")),
        (Some(id), _) => match known.connections.get(&id) {
            None => Some(format!("there is no connection {id}; create it first")),
            Some(connection) if !action.fits(connection) => Some(action.misfit(connection)),
            Some(_) => None,
        },
    }
}

fn unknown_action(uses: &str, known: &Known) -> String {
    let all: Vec<_> = Uses::all().map(|uses| uses.name().to_owned()).chain(known.actions.keys().cloned()).collect();
    let connector = uses.split('.').next().unwrap_or_default();
    let of_connector: Vec<_> =
        all.iter().filter(|name| name.split('.').next() == Some(connector)).map(String::as_str).collect();
    let there_are = if of_connector.is_empty() {
        "`GET /api/connectors` lists what there is".to_owned()
    } else {
        format!("{connector:?} has: {}", super::listed(of_connector.into_iter()))
    };
    match Uses::nearest(uses, all.iter().map(String::as_str)) {
        Some(nearest) => format!("there is no such action; did you mean {nearest:?}? {there_are}"),
        None => format!("there is no such action; {there_are}"),
    }
}
