//! Random workflows, and what must come of them: an oracle that knows nothing of the engine.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value, json};

/// Choices, drawn from bytes. Without bytes left every choice is the first, so that fewer and smaller bytes make
/// simpler cases.
pub(crate) struct Tape<'a> {
    bytes: std::slice::Iter<'a, u8>,
}

impl<'a> Tape<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: bytes.iter() }
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.bytes.next().copied().unwrap_or(0)) % bound
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// One time in so many; never without bytes.
    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Call,
    If,
    Switch,
    Set,
    Delay,
    Until,
    Approval,
    Workflow,
}

impl Kind {
    fn uses(self) -> &'static str {
        match self {
            Kind::Call => "x.y",
            Kind::If => "logic.if",
            Kind::Switch => "logic.switch",
            Kind::Set => "data.set",
            Kind::Delay => "time.delay",
            Kind::Until => "time.wait_until",
            Kind::Approval => "approval.wait",
            Kind::Workflow => "workflow.call",
        }
    }

    /// Whether its output is the same at any time.
    fn is_timeless(self) -> bool {
        matches!(self, Kind::Call | Kind::Set | Kind::Workflow)
    }
}

/// What the attempts at a slot bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Works,
    FailsForGood,
    FailsOnce,
    FailsAlways,
    /// As drawn from the item and the number of failures.
    Moody,
}

/// What one attempt brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Brings {
    Success,
    Failure { retryable: bool },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum OnFailure {
    Stop,
    Continue,
    Goto(usize),
}

/// Which steps lead to a step, and at which outlet (`None`: at the plain end).
#[derive(Debug, Clone, PartialEq, Eq)]
enum Edge {
    After(usize, Option<String>),
    Goto(usize),
}

impl Edge {
    fn from(&self) -> usize {
        match self {
            Edge::After(from, _) | Edge::Goto(from) => *from,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct RandomStep {
    pub(crate) kind: Kind,
    pub(crate) mood: Mood,
    /// Whether a person approves, and a called workflow succeeds.
    pub(crate) agrees: bool,
    /// Whether nobody ever decides.
    pub(crate) silent: bool,
    /// Whether its call may be made twice.
    pub(crate) repeatable: bool,
    /// Items, where it has a list; none in a list that is no list.
    items: Option<Option<u32>>,
    item_failure_stops: bool,
    attempts: u32,
    on_failure: OnFailure,
    /// Its expression names what is not there, or yields the wrong thing.
    broken: bool,
    /// The step whose success is its condition; none: it is constantly so.
    condition: Result<usize, bool>,
    incoming: Vec<Edge>,
}

impl RandomStep {
    pub(crate) fn brings(&self, item: Option<u32>, failures: u32) -> Brings {
        let mut hasher = DefaultHasher::new();
        (item, failures).hash(&mut hasher);
        match (self.mood, hasher.finish() % 4) {
            (Mood::Works, _) | (Mood::Moody, 0 | 1) => Brings::Success,
            (Mood::FailsOnce, _) if failures > 0 => Brings::Success,
            (Mood::FailsForGood, _) | (Mood::Moody, 2) => Brings::Failure { retryable: false },
            (Mood::FailsOnce | Mood::FailsAlways | Mood::Moody, _) => Brings::Failure { retryable: true },
        }
    }
}

/// How a step ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ends {
    Succeeded(Option<&'static str>),
    Failed,
    Skipped,
}

#[derive(Clone)]
pub(crate) struct RandomWorkflow {
    pub(crate) document: Value,
    pub(crate) steps: Vec<RandomStep>,
    /// Whether it may run out of time.
    pub(crate) hurries: bool,
}

impl std::fmt::Debug for RandomWorkflow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let moods = self.steps.iter().map(|step| (step.mood, step.agrees, step.silent, step.repeatable));
        write!(f, "{} with {:?}", self.document, moods.collect::<Vec<_>>())
    }
}

pub(crate) fn body() -> Value {
    json!({"n": 1, "lists": {"l0": [], "l1": [1], "l2": [1, 2], "l3": [1, 2, 3], "l5": [1, 2, 3, 4, 5]}})
}

impl RandomWorkflow {
    pub(crate) fn new(tape: &mut Tape<'_>) -> Self {
        let count = 1 + tape.below(9);
        let mut steps: Vec<RandomStep> = Vec::new();
        let mut documents: Vec<Value> = Vec::new();
        let mut before: Vec<Vec<bool>> = Vec::new();
        let mut gotos: Vec<(usize, usize)> = Vec::new();
        for index in 0..count {
            let (after, mut incoming) = after(tape, &steps);
            incoming.extend(gotos.iter().filter(|(_, to)| *to == index).map(|(from, _)| Edge::Goto(*from)));
            let mut sees = vec![false; count];
            for edge in &incoming {
                sees[edge.from()] = true;
                sees.iter_mut().zip(&before[edge.from()]).for_each(|(sees, before)| *sees |= before);
            }
            let on_failure = match tape.below(6) {
                0..=2 => OnFailure::Stop,
                3 | 4 => OnFailure::Continue,
                _ if index + 1 < count => OnFailure::Goto(index + 1 + tape.below(count - index - 1)),
                _ => OnFailure::Stop,
            };
            if let OnFailure::Goto(to) = on_failure {
                gotos.push((index, to));
            }
            let (step, mut document) = step(tape, index, &sees, &steps, incoming, on_failure);
            if let Some(after) = after {
                document.insert("after".to_owned(), after);
            }
            before.push(sees);
            steps.push(step);
            documents.push(Value::Object(document));
        }
        let hurries = tape.one_in(12);
        let outputs: Vec<_> = (0..count)
            .filter(|index| steps[*index].kind.is_timeless())
            .map(|index| format!("{{{{ steps.s{index}.output | default(0) }}}}"))
            .collect();
        let document = json!({
            "name": "random", "trigger": {"type": "webhook"}, "steps": documents, "output": outputs,
            "execution_timeout": if hurries { 1 + tape.below(20) } else { 31_622_400 },
        });
        Self { document, steps, hurries }
    }

    /// How each step ends where nothing stops the run before, given the steps (with their items) that a death failed.
    pub(crate) fn ends(&self, interrupted: &[(usize, Option<u32>)]) -> Vec<Ends> {
        let mut ends: Vec<Ends> = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            let live = |edge: &Edge| match (edge, &ends[edge.from()]) {
                (Edge::Goto(_), of) => *of == Ends::Failed,
                (Edge::After(from, None), Ends::Succeeded(outlet)) => {
                    self.steps[*from].kind != Kind::Approval || *outlet == Some("approved")
                }
                (Edge::After(_, Some(at)), Ends::Succeeded(outlet)) => *outlet == Some(at),
                (Edge::After(from, None), Ends::Failed) => {
                    let from = &self.steps[*from];
                    from.kind != Kind::Approval && from.on_failure == OnFailure::Continue
                }
                (Edge::After(..), _) => false,
            };
            let runs = step.incoming.is_empty() || step.incoming.iter().any(live);
            let end = if runs { self.end(index, interrupted, &ends) } else { Ends::Skipped };
            ends.push(end);
        }
        ends
    }

    /// The steps whose failure stops the run, among these ends.
    pub(crate) fn stops(&self, ends: &[Ends]) -> Vec<usize> {
        let stops = |index: &usize| ends[*index] == Ends::Failed && self.steps[*index].on_failure == OnFailure::Stop;
        (0..self.steps.len()).filter(stops).collect()
    }

    /// Whether a list stopped at a failure: which of its items were done by then is a matter of chance.
    pub(crate) fn has_stopped_list(&self, ends: &[Ends]) -> bool {
        let stopped = |(step, end): (&RandomStep, &Ends)| matches!(step.items, Some(Some(_))) && *end == Ends::Failed;
        self.steps.iter().zip(ends).any(stopped)
    }

    fn end(&self, index: usize, interrupted: &[(usize, Option<u32>)], ends: &[Ends]) -> Ends {
        let step = &self.steps[index];
        let works = |item| !interrupted.contains(&(index, item)) && self.slot_works(step, item);
        match step.items {
            Some(None) => return Ends::Failed,
            Some(Some(count)) => {
                let fails = (0..count).any(|item| !works(Some(item)));
                return if fails && step.item_failure_stops { Ends::Failed } else { Ends::Succeeded(None) };
            }
            None if !works(None) => return Ends::Failed,
            None => {}
        }
        let holds = match step.condition {
            Ok(step) => matches!(ends[step], Ends::Succeeded(_)),
            Err(constant) => constant,
        };
        Ends::Succeeded(match step.kind {
            Kind::If => Some(if holds { "true" } else { "false" }),
            Kind::Switch => Some(if holds { "one" } else { "default" }),
            Kind::Approval => Some(if step.agrees { "approved" } else { "rejected" }),
            _ => None,
        })
    }

    /// Whether a slot ends well, however many attempts it takes.
    fn slot_works(&self, step: &RandomStep, item: Option<u32>) -> bool {
        if step.broken {
            return false;
        }
        if !matches!(step.kind, Kind::Call | Kind::Approval | Kind::Workflow) {
            return true;
        }
        let mut attempts = (0..step.attempts).map(|failures| step.brings(item, failures));
        let last = attempts.find(|brings| *brings != Brings::Failure { retryable: true });
        let begun = last == Some(Brings::Success);
        begun && !(step.kind == Kind::Approval && step.silent) && (step.kind != Kind::Workflow || step.agrees)
    }
}

/// What a step comes after: the field, where it has one, and the edges.
fn after(tape: &mut Tape<'_>, steps: &[RandomStep]) -> (Option<Value>, Vec<Edge>) {
    let index = steps.len();
    let count = match tape.below(8) {
        _ if index == 0 => 0,
        0..=2 => return (None, vec![Edge::After(index - 1, None)]),
        3 => 0,
        4 | 5 => 1,
        6 => 2,
        _ => 3,
    };
    let mut edges = Vec::new();
    for _ in 0..count {
        // Mostly a near one, so that graphs are deep and wide.
        let from = index - 1 - tape.below(index.min(4));
        let outlets: &[&str] = match steps[from].kind {
            Kind::If => &["true", "false"],
            Kind::Switch => &["one", "default"],
            Kind::Approval => &["approved", "rejected"],
            _ => &[],
        };
        let outlet = outlets.get(tape.below(outlets.len() + 1)).map(|outlet| (*outlet).to_owned());
        let edge = Edge::After(from, outlet);
        if !edges.contains(&edge) {
            edges.push(edge);
        }
    }
    let names: Vec<_> = edges
        .iter()
        .map(|edge| match edge {
            Edge::After(from, Some(outlet)) => format!("s{from}.{outlet}"),
            Edge::After(from, None) | Edge::Goto(from) => format!("s{from}"),
        })
        .collect();
    (Some(json!(names)), edges)
}

fn step(
    tape: &mut Tape<'_>,
    index: usize,
    sees: &[bool],
    steps: &[RandomStep],
    incoming: Vec<Edge>,
    on_failure: OnFailure,
) -> (RandomStep, Map<String, Value>) {
    let kind = match tape.below(16) {
        0..=7 => Kind::Call,
        8 | 9 => Kind::If,
        10 => Kind::Switch,
        11 => Kind::Set,
        12 => Kind::Delay,
        13 => Kind::Until,
        14 => Kind::Approval,
        _ => Kind::Workflow,
    };
    let mood = match tape.below(12) {
        0..=5 => Mood::Works,
        6 => Mood::FailsForGood,
        7 | 8 => Mood::FailsOnce,
        9 => Mood::FailsAlways,
        _ => Mood::Moody,
    };
    let has_list = !matches!(kind, Kind::If | Kind::Switch | Kind::Approval) && tape.one_in(3);
    let (items, list) = match has_list.then(|| tape.below(8)) {
        None => (None, Value::Null),
        Some(0 | 1) => (Some(Some(2)), json!("lists.l2")),
        Some(2) => (Some(Some(3)), json!(["a", "{{ n }}", null])),
        Some(3) => (Some(Some(0)), json!("{{ lists.l0 }}")),
        Some(4) => (Some(Some(1)), json!("lists.l1")),
        Some(5) => (Some(Some(5)), json!("lists.l5")),
        Some(6) => (Some(Some(24)), json!(vec![0; 24])),
        Some(_) => (Some(None), json!("n")),
    };
    let broken = tape.one_in(16);
    let visible: Vec<usize> = (0..index).filter(|step| sees[*step]).collect();
    let ancestor = (!visible.is_empty()).then(|| visible[tape.below(visible.len())]);
    let condition = match (ancestor, tape.below(3)) {
        (Some(step), 1 | 2) => Ok(step),
        (_, choice) => Err(choice != 2),
    };
    let repeatable = tape.one_in(2);
    let (agrees, silent) = (!tape.one_in(3), tape.one_in(4));
    let item_failure_stops = !tape.one_in(2);
    let attempts = 1 + u32::try_from(tape.below(3)).unwrap();
    let on_interrupted = if tape.one_in(3) { "fail" } else { "retry" };
    let shows = ancestor.filter(|step| steps[*step].kind.is_timeless());
    let with = with(tape, kind, broken, &condition, shows, items.is_some(), silent);
    let document = json!({
        "id": format!("s{index}"), "uses": kind.uses(), "with": with, "on_interrupted": on_interrupted,
        "retry": {"max_attempts": attempts, "initial_delay_ms": tape.one_of(&[200, 3_000])},
        "on_failure": match &on_failure {
            OnFailure::Stop => json!("stop"),
            OnFailure::Continue => json!("continue"),
            OnFailure::Goto(to) => json!({"goto": format!("s{to}")}),
        },
    });
    let Value::Object(mut document) = document else { unreachable!("it is an object") };
    if items.is_some() {
        let concurrency = tape.one_of(&[1, 2, 3, 20]);
        let on_item_failure = if item_failure_stops { "stop" } else { "continue" };
        let foreach = json!({"items": list, "concurrency": concurrency, "on_item_failure": on_item_failure});
        document.insert("foreach".to_owned(), foreach);
    }
    // A condition is evaluated by branches only.
    let step = RandomStep {
        kind,
        mood,
        agrees,
        silent,
        repeatable,
        items,
        item_failure_stops,
        attempts,
        on_failure,
        broken,
        condition,
        incoming,
    };
    (step, document)
}

fn with(
    tape: &mut Tape<'_>,
    kind: Kind,
    broken: bool,
    condition: &Result<usize, bool>,
    shows: Option<usize>,
    in_list: bool,
    silent: bool,
) -> Value {
    let holds = match condition {
        Ok(step) => format!("steps.s{step}.status == 'succeeded'"),
        Err(constant) => format!("n == {}", if *constant { 1 } else { 2 }),
    };
    match kind {
        Kind::If => json!({"condition": if broken { "n" } else { &holds }}),
        Kind::Switch if broken => json!({"value": "{{ nosuch }}", "cases": [{"name": "one", "equals": 1}]}),
        Kind::Switch => json!({"cases": [{"name": "one", "when": holds}]}),
        Kind::Delay if broken => json!({"duration": "soon"}),
        Kind::Delay => json!({"duration": tape.one_of(&["2s", "0s", "500s"])}),
        Kind::Until if broken => json!({"until": "soon"}),
        Kind::Until => {
            json!({"until": tape.one_of(&["2026-11-21T10:00:05Z", "2020-01-01T00:00:00Z", "2026-11-22T00:00:00Z"])})
        }
        Kind::Approval if broken => json!({"timeout": "soon"}),
        Kind::Approval if silent => json!({"timeout": tape.one_of(&["4s", "100s"])}),
        Kind::Approval => json!({}),
        Kind::Call | Kind::Set | Kind::Workflow => match (broken, shows) {
            (true, _) => json!({"saw": "{{ nosuch }}"}),
            (false, Some(step)) if tape.one_in(2) => {
                json!({"saw": format!("{{{{ steps.s{step}.output | default(0) }}}}")})
            }
            (false, _) if in_list && tape.one_in(2) => json!({"saw": "{{ item }} {{ index }}"}),
            (false, _) => json!({}),
        },
    }
}
