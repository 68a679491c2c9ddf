//! Drives the engine without a worker: results come from a script, time is a number, and the trace is text.

pub(crate) mod facts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use tidegate_engine::{Call, Data, Decision, Outcome, Plan, Run};
use tidegate_model::{Decided, Definition, Entry, Event, Payload, RunId, RunStatus, Signal, StepError, TenantId};

pub(crate) use facts::{BEGINNING, facts};

/// What an attempt brings, and after which time.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scripted {
    #[serde(flatten)]
    pub(crate) result: Brings,
    #[serde(default = "hundred_ms")]
    pub(crate) after_ms: u64,
}

fn hundred_ms() -> u64 {
    100
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Brings {
    Output(Value),
    Error(StepError),
    /// The worker dies during the call, and all others under way with it.
    Death {
        repeatable: bool,
    },
    /// A person decides.
    Decided {
        approved: bool,
        comment: Option<String>,
    },
    /// The called workflow's run ends.
    Ended {
        status: RunStatus,
        output: Option<Value>,
        error: Option<StepError>,
    },
    /// Nothing is ever heard.
    Silence,
}

/// A simulated run.
pub(crate) struct Simulation {
    plan: Arc<Plan>,
    body: Data,
    parameters: Map<String, Value>,
    run: Run,
    pub(crate) now: Timestamp,
    pub(crate) entries: Vec<Entry>,
    pub(crate) trace: Vec<String>,
}

impl Simulation {
    pub(crate) fn new(definition: &Definition, body: &Value, parameters: &Map<String, Value>) -> Self {
        let plan = Arc::new(Plan::new(definition.clone()).unwrap());
        let body = Data::from(body);
        let run = Run::new(Arc::clone(&plan), facts(&plan, parameters), body.clone());
        let parameters = parameters.clone();
        let now = BEGINNING.parse().unwrap();
        Self { plan, body, parameters, run, now, entries: Vec::new(), trace: Vec::new() }
    }

    /// The run made of its journal anew, as after a death.
    fn resumed(&self) -> Run {
        let mut run = Run::new(Arc::clone(&self.plan), facts(&self.plan, &self.parameters), self.body.clone());
        for entry in &self.entries {
            run.apply(entry, None);
        }
        run
    }

    fn decide(&self) -> Decision {
        let decision = self.run.decide(self.now);
        assert_eq!(decision, self.resumed().decide(self.now), "the same journal gives the same decision");
        decision
    }

    fn push(&mut self, entry: Entry) {
        self.run.apply(&entry, None);
        self.entries.push(entry);
    }

    fn tell(&mut self, what: impl std::fmt::Display) {
        let beginning: Timestamp = BEGINNING.parse().unwrap();
        self.trace.push(format!("{} ms: {what}", self.now.as_millisecond() - beginning.as_millisecond()));
    }

    /// Runs to the end, asking for each call's result; `slot` is `step` or `step[item]`. `look` is called whenever time
    /// is about to pass, with the time until which nothing happens.
    pub(crate) fn run(
        &mut self,
        mut result: impl FnMut(&str, u32) -> Scripted,
        mut look: impl FnMut(&mut Self, Timestamp),
    ) -> Outcome {
        // What is under way, by when its result is there, then by its order.
        let mut under_way: BTreeMap<(Timestamp, usize), (Call, Brings)> = BTreeMap::new();
        for count in 0..20_000 {
            match self.decide() {
                Decision::Record(entries) => {
                    assert!(!entries.is_empty(), "a decision is about something");
                    for entry in entries {
                        self.tell(format!("record {}", described(&entry)));
                        self.push(entry);
                    }
                }
                Decision::Call(calls) => {
                    assert!(!calls.is_empty(), "a decision is about something");
                    for (index, call) in calls.into_iter().enumerate() {
                        let Call { attempt, uses, input, timeout, idempotency_key, .. } = &call;
                        let slot = slot(&call.step, call.item);
                        self.tell(format!(
                            "call {slot} #{attempt} {uses} {input} within {timeout:?} as {idempotency_key}"
                        ));
                        let input = Payload::Inline(call.input.clone());
                        self.push(call.entry(self.now, Event::Started { input }));
                        let Scripted { result, after_ms } = result(&slot, *attempt);
                        let at = self.now.checked_add(Duration::from_millis(after_ms)).unwrap();
                        under_way.insert((at, count * 1_000 + index), (call, result));
                    }
                    assert!(self.run.in_doubt().len() <= 20, "calls under way at once are bounded");
                }
                Decision::Wait(until) => {
                    assert!(until > self.now, "a wait ends later");
                    let next = under_way.iter().find(|(_, (_, result))| !matches!(result, Brings::Silence));
                    match next.map(|(key, _)| *key).filter(|(at, _)| *at <= until) {
                        Some(key) => {
                            let (call, result) = under_way.remove(&key).unwrap();
                            look(self, key.0);
                            self.now = key.0;
                            let dies = matches!(result, Brings::Death { .. });
                            self.end(&call, result);
                            if dies {
                                under_way.retain(|_, (call, result)| is_signal(result) || self.is_open(call));
                            }
                        }
                        None => {
                            look(self, until);
                            self.now = until;
                            self.tell("time has passed");
                        }
                    }
                }
                Decision::Finish(outcome) => {
                    let Outcome { status, error, failed_step, output } = &outcome;
                    let at = failed_step.as_ref().map(|step| format!(" at {step}")).unwrap_or_default();
                    let error = error.as_ref().map(|error| format!(": {:?}: {}", error.code, error.message));
                    let output = output.as_ref().map(|output| format!(" = {output}")).unwrap_or_default();
                    self.tell(format!("finish {status:?}{at}{}{output}", error.unwrap_or_default()));
                    return outcome;
                }
            }
        }
        panic!("the run never ends: {:?}", self.trace);
    }

    fn is_open(&self, call: &Call) -> bool {
        let mut open = self.run.in_doubt().into_iter().chain(self.run.listening());
        open.any(|open| open.step == call.step && open.item == call.item && open.attempt == call.attempt)
    }

    fn end(&mut self, call: &Call, result: Brings) {
        let name = slot(&call.step, call.item);
        let event = match result {
            Brings::Output(output) => Event::Succeeded { output: Payload::Inline(output), outlet: None },
            Brings::Error(error) => Event::Failed { error },
            Brings::Death { repeatable } => {
                assert!(self.is_open(call), "a call under way is in doubt");
                return self.die(&name, repeatable);
            }
            Brings::Decided { approved, comment } => {
                return self.hear(call, &Signal::Decided(Decided { approved, comment, at: self.now }), None);
            }
            Brings::Ended { status, output, error } => {
                let run_id = RunId::for_tenant(TenantId::new(self.now, [1; 10]), self.now, [4; 10]);
                let payload = output.clone().map(Payload::Inline);
                let signal = Signal::Ended { run_id, status, output: payload, error, at: self.now };
                return self.hear(call, &signal, output);
            }
            Brings::Silence => return,
        };
        let told = match &event {
            Event::Failed { error } => format!("{name} #{} fails: {:?}: {}", call.attempt, error.code, error.message),
            _ => format!("{name} #{} is done", call.attempt),
        };
        self.tell(told);
        self.push(call.entry(self.now, event));
    }

    fn hear(&mut self, call: &Call, signal: &Signal, output: Option<Value>) {
        match self.run.hear(&call.step, call.item, signal, output, self.now) {
            None => self.tell(format!("nobody listens any more at {}", slot(&call.step, call.item))),
            Some(entry) => {
                assert!(self.is_open(call), "who hears has listened");
                self.tell(format!("hear {}", described(&entry)));
                self.push(entry);
            }
        }
    }

    fn die(&mut self, during: &str, repeatable: bool) {
        self.tell(format!("the worker dies during {during}"));
        self.run = self.resumed();
        let in_doubt = self.run.in_doubt();
        let seen: BTreeSet<_> = in_doubt.iter().map(|open| (&open.step, open.item)).collect();
        assert_eq!(seen.len(), in_doubt.len(), "each is in doubt once");
        for open in in_doubt {
            let slot = slot(&open.step, open.item);
            self.tell(format!("{slot} #{} was interrupted", open.attempt));
            let event = Event::Interrupted { repeatable };
            self.push(Entry { step: open.step, item: open.item, attempt: open.attempt, at: self.now, event });
        }
    }
}

fn is_signal(result: &Brings) -> bool {
    matches!(result, Brings::Decided { .. } | Brings::Ended { .. })
}

fn slot(step: &str, item: Option<u32>) -> String {
    item.map_or_else(|| step.to_owned(), |item| format!("{step}[{item}]"))
}

fn described(entry: &Entry) -> String {
    let event = serde_json::to_string(&entry.event).unwrap();
    format!("{} #{} {event}", slot(&entry.step, entry.item), entry.attempt)
}
