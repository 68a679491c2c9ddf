//! What to do next in a run.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tidegate_model::{
    ConnectionId, Definition, Entry, ErrorCode, OnFailure, Pointer, RunId, RunStatus, Step, StepError, TenantId,
    TriggerKind, WorkflowId,
};

use crate::retry;
use crate::state::{StepState, step_state};
use crate::{Data, Scope};

/// A run as the engine sees it.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The version that runs.
    pub definition: &'a Definition,
    /// Which run it is.
    pub facts: &'a Facts,
    /// The trigger's body.
    pub body: &'a Data,
    /// What has happened, in order.
    pub entries: &'a [Entry],
    /// The outputs of the steps that succeeded, by step id. They stand apart from the journal because a large one is
    /// only referred to there.
    pub outputs: &'a BTreeMap<String, Data>,
}

/// What never changes about a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The run.
    pub run_id: RunId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// What runs.
    pub workflow_id: WorkflowId,
    /// In which version.
    pub version: u32,
    /// What started it.
    pub trigger: TriggerKind,
    /// The media type of the trigger's body.
    pub content_type: Option<String>,
    /// When it was first claimed; `now` in expressions.
    pub started_at: Timestamp,
}

impl Facts {
    /// When the run is stopped at the latest: its `execution_timeout` after its first claim.
    pub fn latest_end(&self, definition: &Definition) -> Timestamp {
        later(self.started_at, Duration::from_secs(u64::from(definition.execution_timeout)))
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Make a call, then journal its outcome.
    Call(Box<Call>),
    /// Journal this, then decide again: the step is settled without a call.
    Record(Entry),
    /// Nothing to do before this time.
    Wait(Timestamp),
    /// The run is over.
    Finish(Outcome),
}

/// A call to make.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The step's id.
    pub step: String,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// The action to call.
    pub uses: String,
    /// The credential to call it with.
    pub connection: Option<ConnectionId>,
    /// The input, filled in.
    pub input: Value,
    /// How long it may take: the step's timeout, or less where the run's ends before.
    pub timeout: Duration,
    /// The same for every attempt at this step of this run.
    pub idempotency_key: String,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// `Succeeded`, `Failed` or `TimedOut`.
    pub status: RunStatus,
    /// Why it did not succeed.
    pub error: Option<StepError>,
    /// In which step.
    pub failed_step: Option<String>,
}

/// Decides what to do next. The driver must have settled every call in doubt first ([`in_doubt`]); one that is still
/// in flight is made again under its next number.
pub fn decide(run: &Run<'_>, now: Timestamp) -> Decision {
    let deadline = run.facts.latest_end(run.definition);
    let mut scope = None;
    for step in &run.definition.steps {
        let (attempt, due) = match step_state(step, run.entries) {
            StepState::Succeeded => continue,
            StepState::Failed(_) if step.on_failure == OnFailure::Continue => continue,
            StepState::Failed(error) => {
                let status = RunStatus::Failed;
                return Decision::Finish(Outcome { status, error: Some(error), failed_step: Some(step.id.clone()) });
            }
            StepState::Fresh => (1, now),
            StepState::InFlight { attempt } => (attempt + 1, now),
            StepState::Retry { attempts, last: None, .. } => (attempts + 1, now),
            StepState::Retry { attempts, failures, last: Some((at, error)) } => {
                let delay = retry::delay(&step.retry, run.facts.run_id, &step.id, failures, &error);
                (attempts + 1, later(at, delay))
            }
        };
        if now >= deadline {
            return Decision::Finish(timed_out(run, step));
        }
        if due > now {
            return Decision::Wait(due.min(deadline));
        }
        let scope = scope.get_or_insert_with(|| scope_of(run));
        return match scope.fill(&step.with, &Pointer::from("/with")) {
            Ok(input) => Decision::Call(Box::new(Call {
                step: step.id.clone(),
                attempt,
                uses: step.uses.clone(),
                connection: step.connection,
                input,
                timeout: Duration::from_millis(step.timeout_ms).min(until(now, deadline)),
                idempotency_key: format!("{}:{}", run.facts.run_id, step.id),
            })),
            Err(error) => Decision::Record(Entry::Failed {
                step: step.id.clone(),
                attempt,
                at: now,
                error: StepError::terminal(ErrorCode::ExpressionFailed, error.to_string()),
            }),
        };
    }
    Decision::Finish(Outcome { status: RunStatus::Succeeded, error: None, failed_step: None })
}

/// The attempt that was begun and has no outcome: whether its call took effect is unknown.
pub fn in_doubt(definition: &Definition, entries: &[Entry]) -> Option<(String, u32)> {
    definition.steps.iter().find_map(|step| match step_state(step, entries) {
        StepState::InFlight { attempt } => Some((step.id.clone(), attempt)),
        StepState::Fresh | StepState::Retry { .. } | StepState::Succeeded | StepState::Failed(_) => None,
    })
}

fn later(from: Timestamp, by: Duration) -> Timestamp {
    from.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default()
}

fn timed_out(run: &Run<'_>, step: &Step) -> Outcome {
    let message = format!(
        "the run did not finish within its execution_timeout of {} s; it was at step `{}`",
        run.definition.execution_timeout, step.id
    );
    Outcome {
        status: RunStatus::TimedOut,
        error: Some(StepError::terminal(ErrorCode::ExecutionTimeout, message)),
        failed_step: Some(step.id.clone()),
    }
}

/// The names that expressions see: the body's fields, then the reserved names, which win.
fn scope_of(run: &Run<'_>) -> Scope {
    let facts = run.facts;
    let steps = run.definition.steps.iter().filter_map(|step| {
        let members = match step_state(step, run.entries) {
            StepState::Succeeded => {
                let output = run.outputs.get(&step.id).cloned().unwrap_or_else(|| Data::from(&Value::Null));
                [("status".to_owned(), Data::from(&json!("succeeded"))), ("output".to_owned(), output)]
            }
            StepState::Failed(error) => {
                [("status".to_owned(), Data::from(&json!("failed"))), ("error".to_owned(), Data::from(&json!(error)))]
            }
            StepState::Fresh | StepState::InFlight { .. } | StepState::Retry { .. } => return None,
        };
        Some((step.id.clone(), Data::object(members)))
    });
    let trigger = [
        ("type".to_owned(), Data::from(&json!(facts.trigger))),
        ("content_type".to_owned(), Data::from(&json!(facts.content_type))),
        ("body".to_owned(), run.body.clone()),
    ];
    let workflow = json!({"id": facts.workflow_id, "name": run.definition.name, "version": facts.version});
    let reserved = [
        ("trigger", Data::object(trigger)),
        ("params", Data::object([])),
        ("steps", Data::object(steps)),
        ("run", Data::from(&json!({"id": facts.run_id, "started_at": facts.started_at}))),
        ("workflow", Data::from(&workflow)),
        ("tenant", Data::from(&json!({"id": facts.tenant_id}))),
        ("now", Data::from(&json!(facts.started_at))),
    ];
    let reserved = reserved.map(|(name, data)| (name.to_owned(), data));
    Scope::new(run.body.members().into_iter().chain(reserved))
}
