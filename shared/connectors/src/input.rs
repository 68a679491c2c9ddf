//! What a step can use, and the check of its input: when its workflow is saved, before its expressions have values, and
//! at the call.

use serde_json::{Map, Value};
use tidegate_model::{ErrorCode, FieldError, StepError};

use crate::{Action, BuiltinAction, Schema, action, actions, builtin, builtins};

/// What a step can use.
#[derive(Clone, Copy)]
pub enum Uses {
    /// An action of a connector.
    Action(&'static Action),
    /// An action of the engine's own.
    Builtin(&'static BuiltinAction),
}

impl Uses {
    /// What a step's `uses` names.
    pub fn named(uses: &str) -> Option<Self> {
        action(uses).map(Self::Action).or_else(|| builtin(uses).map(Self::Builtin))
    }

    /// All that steps can use.
    pub fn all() -> impl Iterator<Item = Self> {
        actions().map(Self::Action).chain(builtins().map(Self::Builtin))
    }

    /// Its name in a step's `uses`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Action(action) => action.name,
            Self::Builtin(action) => action.builtin.name(),
        }
    }

    /// Its name for display.
    pub fn title(self) -> &'static str {
        match self {
            Self::Action(action) => action.title,
            Self::Builtin(action) => action.title,
        }
    }

    /// What its input looks like.
    pub fn input(self) -> &'static Schema {
        match self {
            Self::Action(action) => &action.input,
            Self::Builtin(action) => &action.input,
        }
    }

    /// That whose name is nearest to one that doesn't exist, if any is near enough to be meant; one of the same connector
    /// rather than another's.
    pub fn nearest(name: &str) -> Option<Self> {
        let letters: Vec<char> = name.chars().take(80).collect();
        let connector = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
        let distance = |uses: Self| {
            let distance = edit_distance(&letters, &uses.name().chars().collect::<Vec<_>>());
            (connector(uses.name()) != connector(name), distance)
        };
        let near = Self::all().filter(|uses| distance(*uses).1 <= uses.name().len() / 2);
        near.min_by_key(|uses| distance(*uses))
    }

    /// Checks the `with` of a step. Errors at texts for which `is_template` holds are left out: what they become is known
    /// only in a run. Pointers are relative to `with`.
    pub fn validate_step_input(self, with: &Map<String, Value>, is_template: fn(&str) -> bool) -> Vec<FieldError> {
        match self {
            Self::Action(action) => action.input.errors(&Value::Object(with.clone()), is_template),
            Self::Builtin(action) => action.errors(with, is_template),
        }
    }
}

/// Levenshtein's distance.
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
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
