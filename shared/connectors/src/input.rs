//! What a step can use, and the check of its input when its workflow is saved, before its expressions have values.

use std::sync::Arc;

use serde_json::{Map, Value};
use tidegate_model::FieldError;

use crate::{Action, BuiltinAction, Schema, builtin, builtins, catalogue};

/// What a step can use.
#[derive(Clone)]
pub enum Uses {
    /// An action of a connector.
    Action(Arc<Action>),
    /// An action of the engine's own.
    Builtin(&'static BuiltinAction),
}

impl Uses {
    /// What a step's `uses` names, of what is built in.
    pub fn named(uses: &str) -> Option<Self> {
        builtin(uses).map(Self::Builtin).or_else(|| catalogue::action(uses).cloned().map(Self::Action))
    }

    /// All that is built in.
    pub fn all() -> impl Iterator<Item = Self> {
        let actions = catalogue::connectors().flat_map(|connector| connector.actions.values().cloned());
        actions.map(Self::Action).chain(builtins().map(Self::Builtin))
    }

    /// Its name in a step's `uses`.
    pub fn name(&self) -> &str {
        match self {
            Self::Action(action) => &action.name,
            Self::Builtin(action) => action.builtin.name(),
        }
    }

    /// Its name for display.
    pub fn title(&self) -> &str {
        match self {
            Self::Action(action) => &action.document.title,
            Self::Builtin(action) => action.title,
        }
    }

    /// What its input looks like.
    pub fn input(&self) -> &Schema {
        match self {
            Self::Action(action) => &action.input,
            Self::Builtin(action) => &action.input,
        }
    }

    /// Of some names that which is nearest to one that doesn't exist, if any is near enough to be meant; one of the same
    /// connector rather than another's.
    pub fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
        let letters: Vec<char> = name.chars().take(120).collect();
        let connector = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
        let of = connector(name);
        let near = names.map(|known| {
            let distance = edit_distance(&letters, &known.chars().collect::<Vec<_>>());
            ((connector(known) != of, distance), known)
        });
        near.filter(|((_, distance), known)| *distance <= known.len() / 2)
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, known)| known)
    }

    /// Checks the `with` of a step. Errors at texts for which `is_template` holds are left out: what they become is known
    /// only in a run. Pointers are relative to `with`.
    pub fn validate_step_input(&self, with: &Map<String, Value>, is_template: fn(&str) -> bool) -> Vec<FieldError> {
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
