//! Checks a step's input when its workflow is saved, before its expressions have values.

use serde_json::{Map, Value};
use tidegate_model::{ErrorCode, FieldError, StepError};

use crate::{Action, action};

/// Checks the `with` of a step that uses this action, by name; nothing is said of an action that doesn't exist. Errors
/// at texts for which `is_template` holds are left out: what they become is known only in a run. Pointers are relative
/// to `with`.
pub fn validate_step_input(uses: &str, with: &Map<String, Value>, is_template: fn(&str) -> bool) -> Vec<FieldError> {
    action(uses).map_or_else(Vec::new, |action| validate_step_input_of(action, with, is_template))
}

/// [`validate_step_input`] of an action at hand.
pub fn validate_step_input_of(
    action: &Action,
    with: &Map<String, Value>,
    is_template: fn(&str) -> bool,
) -> Vec<FieldError> {
    action.input.errors(&Value::Object(with.clone()), is_template)
}

impl Action {
    /// Checks a filled-in input.
    ///
    /// # Errors
    /// `input_invalid`, naming every field that doesn't fit by its pointer within `with`.
    pub fn check_input(&self, input: &Value) -> Result<(), StepError> {
        let errors = self.input.errors(input, |_| false);
        if errors.is_empty() { Ok(()) } else { Err(self.input_error(&errors)) }
    }

    pub(crate) fn input_error(&self, errors: &[FieldError]) -> StepError {
        let list: Vec<_> =
            errors.iter().take(5).map(|error| format!("/with{} {}", error.pointer, error.detail)).collect();
        StepError::terminal(
            ErrorCode::InputInvalid,
            format!("the input does not fit {}: {}", self.name, list.join("; ")),
        )
    }
}
