//! A definition made ready to run.

use std::collections::HashMap;

use tidegate_model::{Builtin, Definition, FieldError, Graph, Step};

/// A definition with its graph. It never changes, so that runs share it.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    definition: Definition,
    graph: Graph,
    positions: HashMap<String, usize>,
    builtins: Vec<Option<Builtin>>,
}

impl Plan {
    /// Makes a definition ready.
    ///
    /// # Errors
    /// Its steps make no graph; a definition that was checked does.
    pub fn new(definition: Definition) -> Result<Self, Vec<FieldError>> {
        let graph = Graph::new(&definition)?;
        let positions = definition.steps.iter().enumerate().map(|(index, step)| (step.id.clone(), index)).collect();
        let builtins = definition.steps.iter().map(|step| Builtin::named(&step.uses)).collect();
        Ok(Self { definition, graph, positions, builtins })
    }

    /// The definition itself.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// What follows what.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    pub(crate) fn step(&self, index: usize) -> &Step {
        &self.definition.steps[index]
    }

    pub(crate) fn builtin(&self, index: usize) -> Option<Builtin> {
        self.builtins[index]
    }

    pub(crate) fn position(&self, step: &str) -> Option<usize> {
        self.positions.get(step).copied()
    }

    /// The approvals that the definition asks for, by step id.
    pub fn approvals(&self) -> impl Iterator<Item = &str> {
        let steps = self.definition.steps.iter().zip(&self.builtins);
        steps.filter(|(_, builtin)| **builtin == Some(Builtin::Approval)).map(|(step, _)| step.id.as_str())
    }
}
