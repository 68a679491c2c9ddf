//! Drives the engine without a worker: results come from a script, time is a number, and the trace is text.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use tidegate_engine::{Call, Data, Decision, Facts, Outcome, Plan, Run};
use tidegate_model::{Definition, Entry, Event, Payload, RunId, Signal, StepError, TenantId, TriggerKind, WorkflowId};

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
    /// The worker dies during the call.
    Death {
        repeatable: bool,
    },
    /// What a waiting step hears; a called workflow's output stands in the signal.
    Signal(Signal),
    /// Nothing is ever heard.
    Silence,
}

pub(crate) const BEGINNING: &str = "2026-11-21T10:00:00Z";

pub(crate) fn facts(plan: &Plan, parameters: &Map<String, Value>) -> Facts {
    let at: Timestamp = BEGINNING.parse().unwrap();
    let tenant = TenantId::new(at, [1; 10]);
    Facts {
        run_id: RunId::for_tenant(tenant, at, [2; 10]),
        tenant_id: tenant,
        workflow_id: WorkflowId::new(at, [3; 10]),
        version: 1,
        trigger: TriggerKind::Webhook,
        content_type: Some("application/json".to_owned()),
        parameters: parameters.clone(),
        started_at: at,
        approvals: plan.approvals().map(|step| (step.to_owned(), format!("https://gate.example/{step}"))).collect(),
    }
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

    fn decide(&self) -> Decision {
        let decision = self.run.decide(self.now);
        let mut again = Run::new(Arc::clone(&self.plan), facts(&self.plan, &self.parameters), self.body.clone());
        for entry in &self.entries {
            again.apply(entry, None);
        }
        assert_eq!(decision, again.decide(self.now), "the same journal gives the same decision");
        decision
    }

    fn push(&mut self, entry: Entry) {
        self.run.apply(&entry, None);
        self.entries.push(entry);
    }

    /// Runs to the end, asking for each call's result; `slot` is `step` or `step[item]`.
    pub(crate) fn run(&mut self, mut result: impl FnMut(&str, u32) -> Scripted) -> Outcome {
        // What is under way, by when its result is there, then by its order.
        let mut under_way: BTreeMap<(Timestamp, usize), (Call, Brings)> = BTreeMap::new();
        for count in 0..20_000 {
            match self.decide() {
                Decision::Record(entries) => {
                    for entry in entries {
                        self.trace.push(format!("record {}", described(&entry)));
                        self.push(entry);
                    }
                }
                Decision::Call(calls) => {
                    for (index, call) in calls.into_iter().enumerate() {
                        let Call { attempt, uses, input, timeout, idempotency_key, .. } = &call;
                        let slot = slot(&call.step, call.item);
                        self.trace.push(format!(
                            "call {slot} #{attempt} {uses} {input} within {timeout:?} as {idempotency_key}"
                        ));
                        let input = Payload::Inline(call.input.clone());
                        self.push(call.entry(self.now, Event::Started { input }));
                        let Scripted { result, after_ms } = result(&slot, *attempt);
                        let at = self.now.checked_add(Duration::from_millis(after_ms)).unwrap();
                        if !matches!(result, Brings::Silence) {
                            under_way.insert((at, count * 1_000 + index), (call, result));
                        }
                    }
                }
                Decision::Wait(until) => {
                    assert!(until > self.now);
                    let from = self.now;
                    let waited = |to: Timestamp| to.as_millisecond() - from.as_millisecond();
                    match under_way.first_entry().filter(|next| next.key().0 <= until) {
                        Some(next) => {
                            let ((at, _), (call, result)) = next.remove_entry();
                            self.trace.push(format!("after {} ms: {}", waited(at), slot(&call.step, call.item)));
                            self.now = at;
                            self.end(&call, result);
                        }
                        None => {
                            self.trace.push(format!("wait {} ms", waited(until)));
                            self.now = until;
                        }
                    }
                }
                Decision::Finish(outcome) => {
                    let Outcome { status, error, failed_step, output } = &outcome;
                    let at = failed_step.as_ref().map(|step| format!(" at {step}")).unwrap_or_default();
                    let error = error.as_ref().map(|error| format!(": {:?}: {}", error.code, error.message));
                    let output = output.as_ref().map(|output| format!(" = {output}")).unwrap_or_default();
                    self.trace.push(format!("finish {status:?}{at}{}{output}", error.unwrap_or_default()));
                    return outcome;
                }
            }
        }
        panic!("the run never ends: {:?}", self.trace);
    }

    fn end(&mut self, call: &Call, result: Brings) {
        let open = |open: &[tidegate_engine::Open]| {
            open.iter().any(|open| open.step == call.step && open.item == call.item && open.attempt == call.attempt)
        };
        let event = match result {
            Brings::Output(output) => Event::Succeeded { output: Payload::Inline(output), outlet: None },
            Brings::Error(error) => Event::Failed { error },
            Brings::Death { repeatable } => {
                assert!(open(&self.run.in_doubt()), "a call under way is in doubt");
                self.trace.push(format!("the worker died during {}", slot(&call.step, call.item)));
                Event::Interrupted { repeatable }
            }
            Brings::Signal(signal) => {
                let output = match &signal {
                    Signal::Ended { output: Some(Payload::Inline(output)), .. } => Some(output.clone()),
                    _ => None,
                };
                let heard = self.run.hear(&call.step, call.item, &signal, output, self.now);
                let Some(entry) = heard else {
                    self.trace.push("nobody listens".to_owned());
                    return;
                };
                assert!(open(&self.run.listening()));
                self.trace.push(format!("heard {}", described(&entry)));
                return self.push(entry);
            }
            Brings::Silence => return,
        };
        self.push(call.entry(self.now, event));
    }
}

fn slot(step: &str, item: Option<u32>) -> String {
    item.map_or_else(|| step.to_owned(), |item| format!("{step}[{item}]"))
}

fn described(entry: &Entry) -> String {
    let event = serde_json::to_string(&entry.event).unwrap();
    format!("{} #{} {event}", slot(&entry.step, entry.item), entry.attempt)
}
