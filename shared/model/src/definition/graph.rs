//! The steps of a definition as a graph: what follows what, and under which condition. A graph that was made has no
//! cycle, and every step in it can run.

use std::collections::HashMap;

use serde_json::Value;

use super::{Definition, OnFailure, Step};
use crate::builtin::Builtin;
use crate::{FieldError, Pointer};

/// The steps' order. Steps are named by their position in the definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    incoming: Vec<Vec<Edge>>,
    outgoing: Vec<Vec<Edge>>,
    before: Before,
}

/// From one step to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// The step that comes first.
    pub from: usize,
    /// The step that follows.
    pub to: usize,
    /// Of which outcome of the first one.
    pub when: When,
}

/// When an edge is live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// The step before succeeded, or failed and says `on_failure: continue`.
    Done,
    /// The step before went on at this outlet.
    Outlet(String),
    /// The step before failed and says `goto` this one.
    Failed,
}

impl Graph {
    /// The graph of a definition whose step ids are unique.
    ///
    /// # Errors
    /// Unknown steps and outlets, cycles, and steps that can never run.
    pub fn new(definition: &Definition) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let edges = edges(&definition.steps, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        let count = definition.steps.len();
        let (mut incoming, mut outgoing) = (vec![Vec::new(); count], vec![Vec::new(); count]);
        for edge in edges {
            incoming[edge.to].push(edge.clone());
            outgoing[edge.from].push(edge);
        }
        let order = order(&incoming, &outgoing);
        if order.len() < count {
            return Err(cycles(&definition.steps, &incoming, &order));
        }
        let before = Before::new(&incoming, &order);
        let graph = Self { incoming, outgoing, before };
        let never = graph.never_live(&definition.steps, &order);
        if never.is_empty() { Ok(graph) } else { Err(never) }
    }

    /// The edges that lead to a step; a step without any is where a run begins.
    pub fn incoming(&self, step: usize) -> &[Edge] {
        &self.incoming[step]
    }

    /// The edges that lead away from a step.
    pub fn outgoing(&self, step: usize) -> &[Edge] {
        &self.outgoing[step]
    }

    /// Whether a step is settled, whatever happens, by the time that another one runs.
    pub fn is_before(&self, earlier: usize, later: usize) -> bool {
        self.before.contains(later, earlier)
    }

    /// Steps all of whose edges can't be live, because a branch before them has a constant condition.
    fn never_live(&self, steps: &[Step], order: &[usize]) -> Vec<FieldError> {
        let mut can_run = vec![false; steps.len()];
        for &step in order {
            let incoming = &self.incoming[step];
            let possible = |edge: &Edge| can_run[edge.from] && may_leave(&steps[edge.from], &edge.when);
            can_run[step] = incoming.is_empty() || incoming.iter().any(possible);
        }
        let never = (0..steps.len()).filter(|step| !can_run[*step]);
        never
            .map(|step| {
                let detail = "never runs: a condition before it is constant; remove the step or the condition";
                FieldError::new(at(step), detail)
            })
            .collect()
    }
}

fn at(step: usize) -> Pointer {
    Pointer::root().push("steps").push(step)
}

fn may_leave(step: &Step, when: &When) -> bool {
    let constant = match step.with.get("condition") {
        Some(Value::Bool(constant)) if Builtin::named(&step.uses) == Some(Builtin::If) => Some(constant.to_string()),
        Some(Value::String(text)) if Builtin::named(&step.uses) == Some(Builtin::If) => {
            Some(text.trim().to_owned()).filter(|text| text == "true" || text == "false")
        }
        _ => None,
    };
    match (when, constant) {
        (When::Outlet(outlet), Some(constant)) => *outlet == constant,
        _ => true,
    }
}

fn edges(steps: &[Step], errors: &mut Vec<FieldError>) -> Vec<Edge> {
    let position: HashMap<&str, usize> =
        steps.iter().enumerate().map(|(index, step)| (step.id.as_str(), index)).collect();
    let mut edges = Vec::new();
    for (to, step) in steps.iter().enumerate() {
        match &step.after {
            None => edges.extend(to.checked_sub(1).map(|from| Edge { from, to, when: plain(&steps[from]) })),
            Some(after) => {
                for (index, name) in after.iter().enumerate() {
                    let named = if after[..index].contains(name) {
                        Err("is named twice; remove one".to_owned())
                    } else {
                        edge(steps, &position, name)
                    };
                    match named {
                        Ok((from, when)) => edges.push(Edge { from, to, when }),
                        Err(detail) => errors.push(FieldError::new(at(to).push("after").push(index), detail)),
                    }
                }
            }
        }
        if let OnFailure::Goto(name) = &step.on_failure {
            match position.get(name.as_str()) {
                Some(target) => edges.push(Edge { from: to, to: *target, when: When::Failed }),
                None => errors.push(FieldError::new(at(to).push("on_failure").push("goto"), unknown(name, steps))),
            }
        }
    }
    edges
}

/// What an entry of `after` names: `step`, or `step.outlet`.
fn edge(steps: &[Step], position: &HashMap<&str, usize>, name: &str) -> Result<(usize, When), String> {
    let (step, outlet) = match name.split_once('.') {
        Some((step, outlet)) => (step, Some(outlet)),
        None => (name, None),
    };
    let from = *position.get(step).ok_or_else(|| unknown(step, steps))?;
    let Some(outlet) = outlet else { return Ok((from, plain(&steps[from]))) };
    let outlets =
        Builtin::named(&steps[from].uses).map(|builtin| builtin.outlets(&steps[from].with)).unwrap_or_default();
    if outlets.contains(&outlet) {
        return Ok((from, When::Outlet(outlet.to_owned())));
    }
    Err(if outlets.is_empty() {
        format!("step {step:?} has no outlets, since {} doesn't branch; write {step:?}", steps[from].uses)
    } else {
        format!("step {step:?} has no outlet {outlet:?}; it has: {}", outlets.join(", "))
    })
}

/// The edge to a step that names no outlet.
fn plain(step: &Step) -> When {
    match Builtin::named(&step.uses) {
        Some(Builtin::Approval) => When::Outlet(Builtin::APPROVED.to_owned()),
        _ => When::Done,
    }
}

fn unknown(name: &str, steps: &[Step]) -> String {
    let ids: Vec<_> = steps.iter().map(|step| step.id.as_str()).take(20).collect();
    let more = if steps.len() > ids.len() { ", …" } else { "" };
    format!("there is no step {name:?}; there are: {}{more}", ids.join(", "))
}

/// The steps so that each comes after those before it; steps in a cycle, and behind one, are missing.
fn order(incoming: &[Vec<Edge>], outgoing: &[Vec<Edge>]) -> Vec<usize> {
    let mut open: Vec<usize> = incoming.iter().map(Vec::len).collect();
    let mut order: Vec<usize> = (0..open.len()).filter(|step| open[*step] == 0).collect();
    let mut next = 0;
    while next < order.len() {
        for edge in &outgoing[order[next]] {
            open[edge.to] -= 1;
            if open[edge.to] == 0 {
                order.push(edge.to);
            }
        }
        next += 1;
    }
    order
}

/// What to say about steps that have no place in the order.
fn cycles(steps: &[Step], incoming: &[Vec<Edge>], order: &[usize]) -> Vec<FieldError> {
    let mut placed = vec![false; steps.len()];
    order.iter().for_each(|step| placed[*step] = true);
    let mut told = placed.clone();
    let mut errors = Vec::new();
    for start in 0..steps.len() {
        if told[start] {
            continue;
        }
        // Every step without a place has one before it without a place, so walking back ends in a cycle.
        let mut path = vec![start];
        let cycle = loop {
            let last = path[path.len() - 1];
            let Some(from) = incoming[last].iter().map(|edge| edge.from).find(|from| !placed[*from]) else {
                break None;
            };
            if let Some(begin) = path.iter().position(|step| *step == from) {
                break Some(path.split_off(begin));
            }
            path.push(from);
        };
        let Some(mut cycle) = cycle else { continue };
        cycle.reverse();
        let least = (0..cycle.len()).min_by_key(|index| cycle[*index]).unwrap_or(0);
        cycle.rotate_left(least);
        let names: Vec<_> = cycle.iter().chain(cycle.first()).map(|step| steps[*step].id.as_str()).collect();
        if !told[cycle[0]] {
            let detail = format!("is in a cycle, so none of it ever runs: {}", names.join(" → "));
            errors.push(FieldError::new(at(cycle[0]).push("after"), detail));
        }
        cycle.iter().for_each(|step| told[*step] = true);
        if !told[start] {
            told[start] = true;
            let detail = format!("never runs: it waits for the cycle {}", names.join(" → "));
            errors.push(FieldError::new(at(start).push("after"), detail));
        }
    }
    errors
}

/// For each step a bit for every step before it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Before {
    bits: Vec<u64>,
    words: usize,
}

impl Before {
    fn new(incoming: &[Vec<Edge>], order: &[usize]) -> Self {
        let words = incoming.len().div_ceil(64);
        let mut before = Self { bits: vec![0; words * incoming.len()], words };
        for &step in order {
            for edge in &incoming[step] {
                for word in 0..words {
                    before.bits[step * words + word] |= before.bits[edge.from * words + word];
                }
                before.bits[step * words + edge.from / 64] |= 1 << (edge.from % 64);
            }
        }
        before
    }

    fn contains(&self, step: usize, earlier: usize) -> bool {
        self.bits[step * self.words + earlier / 64] & (1 << (earlier % 64)) != 0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors(steps: Value) -> Vec<(String, String)> {
        let document = json!({"name": "n", "trigger": {"type": "webhook"}, "steps": steps});
        let errors = Definition::parse(&document).err().unwrap_or_default();
        errors.into_iter().map(|error| (error.pointer.to_string(), error.detail)).collect()
    }

    #[test]
    fn a_graph_knows_what_comes_before() {
        let document = json!({"name": "n", "trigger": {"type": "webhook"}, "steps": [
            {"id": "big", "uses": "logic.if", "with": {"condition": "n > 1"}},
            {"id": "yes", "uses": "x.y", "after": ["big.true"], "on_failure": {"goto": "sorry"}},
            {"id": "no", "uses": "x.y", "after": ["big.false"]},
            {"id": "both", "uses": "x.y", "after": ["yes", "no"]},
            {"id": "sorry", "uses": "x.y", "after": []},
            {"id": "apart", "uses": "x.y", "after": []},
        ]});
        let graph = Graph::new(&Definition::parse(&document).unwrap()).unwrap();
        assert!(graph.is_before(0, 3) && graph.is_before(2, 3) && graph.is_before(1, 4));
        assert!(!graph.is_before(3, 0) && !graph.is_before(1, 2) && !graph.is_before(2, 4) && !graph.is_before(5, 5));
        assert_eq!(graph.incoming(4), [Edge { from: 1, to: 4, when: When::Failed }]);
        assert!(graph.incoming(5).is_empty(), "the run begins here too");
    }

    #[test]
    fn what_can_never_run_is_refused_with_its_place() {
        let cyclic = errors(json!([
            {"id": "a", "uses": "x.y", "after": []},
            {"id": "b", "uses": "x.y", "after": ["a", "d"]},
            {"id": "c", "uses": "x.y"},
            {"id": "d", "uses": "x.y"},
            {"id": "e", "uses": "x.y"},
        ]));
        let told: Vec<_> = cyclic.iter().map(|(pointer, detail)| (pointer.as_str(), detail.as_str())).collect();
        assert_eq!(
            told,
            [
                ("/steps/1/after", "is in a cycle, so none of it ever runs: b → c → d → b"),
                ("/steps/4/after", "never runs: it waits for the cycle b → c → d → b"),
            ]
        );
        let own = errors(json!([{"id": "a", "uses": "x.y", "after": ["a"]}]));
        assert!(own[0].1.contains("a → a"), "{own:?}");
        let back = errors(json!([{"id": "a", "uses": "x.y"}, {"id": "b", "uses": "x.y", "on_failure": {"goto": "a"}}]));
        assert!(back[0].1.contains("cycle"), "{back:?}");
        let constant = errors(json!([
            {"id": "a", "uses": "logic.if", "with": {"condition": true}},
            {"id": "b", "uses": "x.y", "after": ["a.false"]},
            {"id": "c", "uses": "x.y"},
        ]));
        assert_eq!(constant.iter().map(|(p, _)| p.as_str()).collect::<Vec<_>>(), ["/steps/1", "/steps/2"]);
        let names = errors(json!([
            {"id": "a", "uses": "logic.switch", "with": {"cases": [{"name": "eu", "when": "true"}]}},
            {"id": "b", "uses": "x.y", "after": ["a.us", "a.eu", "a.default", "z", "b.true", "a.eu"]},
            {"id": "c", "uses": "x.y", "on_failure": {"goto": "y"}},
        ]));
        let told: Vec<_> = names.iter().map(|(pointer, _)| pointer.as_str()).collect();
        assert_eq!(
            told,
            [
                "/steps/1/after/0",
                "/steps/1/after/3",
                "/steps/1/after/4",
                "/steps/1/after/5",
                "/steps/2/on_failure/goto",
            ]
        );
    }
}
