//! Drives the engine without a worker: results come from a script, time is a number, and the trace is text.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tidegate_engine::{Data, Decision, Facts, Outcome, Run, decide, in_doubt};
use tidegate_model::{Definition, Entry, Payload, RunId, StepError, TenantId, TriggerKind, WorkflowId};

/// What an attempt brings.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scripted {
    Output(Value),
    Error(StepError),
    /// The worker dies during the call.
    Death {
        repeatable: bool,
    },
}

/// A simulated run.
pub(crate) struct Simulation<'a> {
    pub(crate) definition: &'a Definition,
    pub(crate) body: Data,
    pub(crate) now: Timestamp,
    pub(crate) entries: Vec<Entry>,
    pub(crate) outputs: BTreeMap<String, Data>,
    pub(crate) trace: Vec<String>,
}

impl<'a> Simulation<'a> {
    pub(crate) fn new(definition: &'a Definition, body: &Value) -> Self {
        let now = "2026-11-21T10:00:00Z".parse().unwrap();
        Self {
            definition,
            body: Data::from(body),
            now,
            entries: Vec::new(),
            outputs: BTreeMap::new(),
            trace: Vec::new(),
        }
    }

    fn facts() -> Facts {
        let at: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let tenant = TenantId::new(at, [1; 10]);
        Facts {
            run_id: RunId::for_tenant(tenant, at, [2; 10]),
            tenant_id: tenant,
            workflow_id: WorkflowId::new(at, [3; 10]),
            version: 1,
            trigger: TriggerKind::Webhook,
            content_type: Some("application/json".to_owned()),
            started_at: at,
        }
    }

    pub(crate) fn decide(&self) -> Decision {
        let facts = Self::facts();
        let run = Run {
            definition: self.definition,
            facts: &facts,
            body: &self.body,
            entries: &self.entries,
            outputs: &self.outputs,
        };
        let decision = decide(&run, self.now);
        assert_eq!(decision, decide(&run, self.now), "the same journal gives the same decision");
        decision
    }

    /// Runs to the end, asking for each call's result.
    pub(crate) fn run(&mut self, mut result: impl FnMut(&str, u32) -> Scripted) -> Outcome {
        for _ in 0..10_000 {
            match self.decide() {
                Decision::Record(entry) => {
                    self.trace.push(format!("record {}", serde_json::to_string(&entry).unwrap()));
                    self.entries.push(entry);
                }
                Decision::Wait(until) => {
                    assert!(until > self.now);
                    self.trace.push(format!("wait {} ms", until.as_millisecond() - self.now.as_millisecond()));
                    self.now = until;
                }
                Decision::Finish(outcome) => {
                    self.trace.push(format!("finish {outcome:?}"));
                    return outcome;
                }
                Decision::Call(call) => {
                    self.trace.push(format!(
                        "call {} #{} {} {} within {:?} as {}",
                        call.step, call.attempt, call.uses, call.input, call.timeout, call.idempotency_key
                    ));
                    let (step, attempt) = (call.step.clone(), call.attempt);
                    let started = Entry::Started {
                        step: step.clone(),
                        attempt,
                        at: self.now,
                        input: Payload::Inline(call.input),
                    };
                    self.entries.push(started);
                    self.now = self.now.checked_add(std::time::Duration::from_millis(100)).unwrap();
                    let at = self.now;
                    let entry = match result(&step, attempt) {
                        Scripted::Output(output) => {
                            self.outputs.insert(step.clone(), Data::from(&output));
                            Entry::Succeeded { step, attempt, at, output: Payload::Inline(output) }
                        }
                        Scripted::Error(error) => Entry::Failed { step, attempt, at, error },
                        Scripted::Death { repeatable } => {
                            assert_eq!(in_doubt(self.definition, &self.entries), Some((step.clone(), attempt)));
                            self.trace.push(format!("death during {step} #{attempt}"));
                            Entry::Interrupted { step, attempt, at, repeatable }
                        }
                    };
                    self.entries.push(entry);
                }
            }
        }
        panic!("the run never ends: {:?}", self.trace);
    }
}
