//! Checks a definition against the connector catalogue and the tenant's connections.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde_json::Value;
use tidegate_connectors::{Action, Need, action, actions, nearest_action, validate_step_input_of};
use tidegate_engine::{check_templates, contains_template};
use tidegate_model::{Connection, ConnectionId, Definition, FieldError, Pointer, Step, TenantId};
use tidegate_store::{Error, Store};

/// Everything that is wrong with the steps: actions that don't exist, connections that are missing or don't fit, inputs
/// that can't become right whatever their expressions yield, expressions that can't be read.
///
/// # Errors
/// A connection can't be read.
pub(crate) async fn check(store: &Store, tenant: TenantId, definition: &Definition) -> Result<Vec<FieldError>, Error> {
    let mut errors = Vec::new();
    let mut connections: HashMap<ConnectionId, Option<Connection>> = HashMap::new();
    for (index, step) in definition.steps.iter().enumerate() {
        let at = Pointer::root().push("steps").push(index);
        let Some(action) = action(&step.uses) else {
            errors.push(FieldError::new(at.push("uses"), unknown_action(&step.uses)));
            continue;
        };
        let connection = match step.connection {
            Some(id) => {
                if let Entry::Vacant(unread) = connections.entry(id) {
                    unread.insert(store.connections().get(tenant, id).await?);
                }
                connections.get(&id).and_then(Option::as_ref)
            }
            None => None,
        };
        errors.extend(check_connection(action, step, connection).map(|d| FieldError::new(at.push("connection"), d)));
        let with = at.push("with");
        let input_errors = validate_step_input_of(action, &step.with, contains_template);
        errors.extend(
            input_errors
                .into_iter()
                .map(|error| FieldError::new(Pointer::from(format!("{with}{}", error.pointer).as_str()), error.detail)),
        );
        check_templates(&Value::Object(step.with.clone()), &with, &mut errors);
    }
    Ok(errors)
}

fn check_connection(action: &Action, step: &Step, connection: Option<&Connection>) -> Option<String> {
    let (uses, connector) = (action.name, action.connector);
    match (step.connection, connection) {
        (None, _) if action.connection == Need::Required => {
            Some(format!("is required: {uses} needs a connection of connector {connector:?}"))
        }
        (None, _) => None,
        (Some(id), None) => Some(format!("there is no connection {id}; create it first")),
        (Some(_), Some(connection)) if connection.connector != connector => {
            Some(format!("is a connection of connector {:?}; {uses} needs one of {connector:?}", connection.connector,))
        }
        (Some(_), Some(_)) => None,
    }
}

fn unknown_action(uses: &str) -> String {
    let all = actions().map(|action| action.name).collect::<Vec<_>>().join(", ");
    match nearest_action(uses) {
        Some(nearest) => format!("there is no such action; did you mean {:?}? There are: {all}", nearest.name),
        None => format!("there is no such action; there are: {all}"),
    }
}
