//! A run as the engine sees it: what is known of it, and what to do next.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tidegate_model::{
    Builtin, ConnectionId, Entry, ErrorCode, Event, Payload, Pointer, RunId, RunStatus, Signal, Step, StepError,
    TenantId, TriggerKind, WebhookRequest, WorkflowId,
};

use crate::progress::{Progress, Slot, SlotState, Slots, StepState};
use crate::scope::Known;
use crate::{Data, ExpressionError, Plan, Scope, builtins};

/// How many calls of one run may be under way at once.
const MAX_PARALLEL_CALLS: usize = 20;
/// How many things one decision settles itself: each may take an expression's whole time, and whoever drives the run looks at
/// the clock in between.
const MAX_AT_ONCE: usize = 8;
/// The most items that a step's list may have.
pub(crate) const MAX_ITEMS: usize = 1_000;
/// How long it may take to begin what then waits for a signal.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(5);

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
    /// The rest of the request, where it was one.
    pub request: Option<Box<WebhookRequest>>,
    /// The parameters that it was started with.
    pub parameters: Map<String, Value>,
    /// When it was first claimed; `now` in expressions.
    pub started_at: Timestamp,
    /// Where each of its approvals is decided, by step id.
    pub approvals: BTreeMap<String, String>,
}

impl Facts {
    /// Its `execution_timeout` after its first claim: when the run is stopped at the latest, unless it is granted more.
    pub fn latest_end(&self, plan: &Plan) -> Timestamp {
        later(self.started_at, Duration::from_secs(u64::from(plan.definition().execution_timeout)))
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Take in and journal these: something is settled without the outside.
    Record(Vec<Entry>),
    /// Make these calls, beside those that are under way, and journal each one's beginning and outcome.
    Call(Vec<Call>),
    /// Nothing to do before this time but to hear of calls under way, and of signals.
    Wait(Timestamp),
    /// The run is over.
    Finish(Outcome),
}

/// A call to make.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The step's id.
    pub step: String,
    /// Which item of the step's list.
    pub item: Option<u32>,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// The action to call; `approval.wait` and `workflow.call` are begun, and their outcome is heard as a signal.
    pub uses: String,
    /// The credential to call it with.
    pub connection: Option<ConnectionId>,
    /// The input, filled in.
    pub input: Value,
    /// How long it may take: the step's timeout, or less where the run's ends before.
    pub timeout: Duration,
    /// The same for every attempt at this step, or this item, of this run.
    pub idempotency_key: String,
}

impl Call {
    /// An entry about this call.
    pub fn entry(&self, at: Timestamp, event: Event) -> Entry {
        Entry { step: self.step.clone(), item: self.item, attempt: self.attempt, at, event }
    }
}

/// An attempt that was begun and is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The step's id.
    pub step: String,
    /// Which item of the step's list.
    pub item: Option<u32>,
    /// The attempt's number.
    pub attempt: u32,
    /// The action.
    pub uses: String,
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
    /// What it yields, where its definition says so.
    pub output: Option<Value>,
}

/// A run: its plan, what started it, and what its journal has told so far. The same journal makes the same run, and
/// the same run decides the same.
pub struct Run {
    plan: Arc<Plan>,
    facts: Facts,
    progress: Progress,
    known: Arc<Known>,
    /// Outputs of items, until their list is complete.
    items: BTreeMap<usize, Vec<Option<Data>>>,
    /// The lists that were evaluated; what they yield never changes.
    lists: Mutex<BTreeMap<usize, Arc<[Data]>>>,
    /// Why it can't run at all.
    refused: Option<StepError>,
    /// What its time is longer by.
    granted: Duration,
}

impl Run {
    /// A run without a journal. `body` is what the trigger brought.
    pub fn new(plan: Arc<Plan>, facts: Facts, body: Data) -> Self {
        let (parameters, refused) = match plan.definition().arguments(&facts.parameters) {
            Ok(parameters) => (parameters, None),
            Err(errors) => {
                let told: Vec<_> = errors.iter().map(|error| format!("{} {}", error.pointer, error.detail)).collect();
                let message = format!("the run's parameters don't fit: {}; start it with other ones", told.join("; "));
                (Map::new(), Some(StepError::terminal(ErrorCode::InputInvalid, message)))
            }
        };
        let progress = Progress::new(&plan, *facts.run_id.as_bytes());
        let known = Arc::new(Known::new(Arc::clone(&plan), &facts, body, &parameters));
        Self {
            plan,
            facts,
            progress,
            known,
            items: BTreeMap::new(),
            lists: Mutex::default(),
            refused,
            granted: Duration::ZERO,
        }
    }

    /// The plan that it follows.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// What never changes about it.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// When the run is stopped at the latest: its `execution_timeout` after its first claim, and what it was granted.
    pub fn latest_end(&self) -> Timestamp {
        later(self.facts.latest_end(&self.plan), self.granted)
    }

    /// Gives the run so much longer: for time in which nobody could work on it. One that has failed already needs none,
    /// and stays as it is. What is granted has to follow from the journal, or a run that is resumed decides otherwise.
    pub fn grant(&mut self, time: Duration) {
        if self.progress.failure().is_none() {
            self.granted = self.granted.saturating_add(time);
        }
    }

    /// Takes in a journal's next entry; one that doesn't fit, such as one that was taken in before, changes nothing.
    /// `output`: the value of a `Succeeded`, where the entry only refers to it.
    pub fn apply(&mut self, entry: &Entry, output: Option<Data>) {
        if !self.progress.fits(&self.plan, entry) {
            return;
        }
        let Some(step) = self.plan.position(&entry.step) else { return };
        match &entry.event {
            Event::Succeeded { output: payload, .. } => {
                let output = output.unwrap_or_else(|| match payload {
                    Payload::Inline(value) => Data::from(value),
                    Payload::Blob(_) => Data::from(&Value::Null),
                });
                match entry.item {
                    None => self.known.set_output(step, output),
                    Some(item) => {
                        if let Some(place) = self.items.get_mut(&step).and_then(|items| items.get_mut(item as usize)) {
                            *place = Some(output);
                        }
                    }
                }
            }
            Event::Expanded { items } => drop(self.items.insert(step, vec![None; *items as usize])),
            Event::Started { .. } | Event::Failed { .. } | Event::Interrupted { .. } => {}
        }
        self.progress.apply(&self.plan, entry);
        if self.progress.step(step) != &StepState::Active {
            self.settled(step);
        }
    }

    /// Tells expressions of a step that is settled.
    fn settled(&mut self, step: usize) {
        if let Slots::Items(_) = self.progress.slots(step) {
            let outputs = self.items.remove(&step).unwrap_or_default();
            let null = Data::from(&Value::Null);
            self.known.set_output(step, Data::list(outputs.into_iter().map(|output| output.unwrap_or(null.clone()))));
            self.known.set_errors(step, self.item_errors(step));
            if let Ok(lists) = self.lists.get_mut() {
                lists.remove(&step);
            }
        }
        match self.progress.step(step) {
            StepState::Succeeded { outlet } => self.known.succeeded(step, outlet.as_deref()),
            StepState::Failed(error) => self.known.failed(step, error),
            StepState::Pending { .. } | StepState::Active | StepState::Skipped => {}
        }
    }

    fn item_errors(&self, step: usize) -> Value {
        let Slots::Items(items) = self.progress.slots(step) else { return json!([]) };
        let errors = items.slots.iter().enumerate().filter_map(|(index, slot)| match &slot.state {
            SlotState::Failed(error) => Some(json!({"index": index, "error": error})),
            _ => None,
        });
        errors.collect()
    }

    /// Decides what to do next.
    pub fn decide(&self, now: Timestamp) -> Decision {
        if let Some(error) = &self.refused {
            return finish(RunStatus::Failed, Some(error.clone()), None, None);
        }
        let end = self.latest_end();
        if let Some(failure) = self.progress.failure() {
            // A call that the run's end cut off fails with it.
            if failure.at >= end {
                return self.time_out();
            }
            if self.progress.in_flight().is_empty() || now >= end {
                let step = self.plan.step(failure.step).id.clone();
                return finish(RunStatus::Failed, Some(failure.error.clone()), Some(step), None);
            }
            return Decision::Wait(end);
        }
        if self.progress.is_settled() {
            return self.succeed();
        }
        if now >= end {
            return self.time_out();
        }
        let slots = || self.progress.due(now).chain(self.progress.beginnable(&self.plan));
        let room = MAX_PARALLEL_CALLS.saturating_sub(self.progress.in_flight().len());
        // What needs no call goes first: the inputs of calls would be evaluated again after each of it.
        let at_once = slots().filter(|slot| !self.comes_to_a_call(*slot)).take(MAX_AT_ONCE);
        let mut begun: Vec<_> = at_once.map(|slot| self.begin(slot, now)).collect();
        if begun.is_empty() {
            let calls = slots().filter(|slot| self.comes_to_a_call(*slot)).take(room);
            begun = calls.map(|slot| self.begin(slot, now)).collect();
        }
        let mut records = Vec::new();
        let mut calls = Vec::new();
        for begun in begun {
            match begun {
                Begun::Record(entry) => records.push(entry),
                Begun::Call(call) => calls.push(*call),
            }
        }
        match (records.is_empty(), calls.is_empty()) {
            (false, _) => Decision::Record(records),
            (true, false) => Decision::Call(calls),
            // A call that is due but has no room is no reason to wake up.
            (true, true) => Decision::Wait(self.progress.next_timer(now).map_or(end, |at| at.min(end))),
        }
    }

    /// Whether beginning a slot is a call. To tell a list's items, and that an approval's time is over, is none.
    fn comes_to_a_call(&self, slot: Slot) -> bool {
        if slot.item.is_none() && self.plan.step(slot.step).foreach.is_some() {
            return false;
        }
        let listens = self.progress.slot(slot).is_some_and(|progress| progress.state == SlotState::Listening);
        match self.plan.builtin(slot.step) {
            Some(Builtin::Approval | Builtin::Call) => !listens,
            Some(_) => false,
            None => true,
        }
    }

    fn succeed(&self) -> Decision {
        let Some(output) = &self.plan.definition().output else {
            return finish(RunStatus::Succeeded, None, None, None);
        };
        let scope = Scope::lazy(Arc::new(self.known.at_the_end()));
        let at = Pointer::from("/output");
        match scope.fill_one(output, &at) {
            Ok(output) => finish(RunStatus::Succeeded, None, None, Some(output)),
            Err(error) => finish(RunStatus::Failed, Some(expression_failed(&error)), None, None),
        }
    }

    fn time_out(&self) -> Decision {
        let steps = 0..self.plan.definition().steps.len();
        let active = steps.into_iter().find(|step| *self.progress.step(*step) == StepState::Active);
        let at = active.or_else(|| self.progress.failure().map(|failure| failure.step));
        let step = at.map(|step| self.plan.step(step).id.clone());
        let message = format!(
            "the run did not finish within its execution_timeout of {} s; it was at step `{}`",
            self.plan.definition().execution_timeout,
            step.as_deref().unwrap_or_default()
        );
        let error = StepError::terminal(ErrorCode::ExecutionTimeout, message);
        finish(RunStatus::TimedOut, Some(error), step, None)
    }

    /// What a slot comes to that can be begun, or that something is due for.
    fn begin(&self, slot: Slot, now: Timestamp) -> Begun {
        let step = self.plan.step(slot.step);
        let (attempt, state) = match self.progress.slot(slot) {
            Some(progress) => (progress.attempt, &progress.state),
            None => (0, &SlotState::Fresh),
        };
        let record = |attempt: u32, event: Event| {
            Begun::Record(Entry { step: step.id.clone(), item: slot.item, attempt, at: now, event })
        };
        match (state, self.plan.builtin(slot.step)) {
            (SlotState::Asleep, _) => {
                let output = json!({"until": now});
                return record(attempt, Event::Succeeded { output: Payload::Inline(output), outlet: None });
            }
            (SlotState::Listening, _) => {
                let message = "nobody decided within the approval's timeout; ask again by starting the run again";
                let error = StepError::terminal(ErrorCode::ApprovalTimedOut, message);
                return record(attempt, Event::Failed { error });
            }
            _ => {}
        }
        let begun = match (&step.foreach, slot.item) {
            (Some(_), None) => self.expand(slot.step, step).map(|items| Begin::Event(Event::Expanded { items })),
            _ => self.scope(slot).and_then(|scope| self.evaluate(slot, step, &scope, now)),
        };
        match begun {
            Ok(Begin::Event(event)) => record(attempt + 1, event),
            Ok(Begin::Call(input)) => Begun::Call(Box::new(self.call(slot, step, attempt + 1, input, now))),
            Err(error) => record(attempt + 1, Event::Failed { error }),
        }
    }

    fn call(&self, slot: Slot, step: &Step, attempt: u32, input: Value, now: Timestamp) -> Call {
        let timeout = match self.plan.builtin(slot.step) {
            Some(_) => BEGIN_TIMEOUT,
            None => Duration::from_millis(step.timeout_ms),
        };
        let run = self.facts.run_id;
        Call {
            step: step.id.clone(),
            item: slot.item,
            attempt,
            uses: step.uses.clone(),
            connection: step.connection,
            input,
            timeout: timeout.min(until(now, self.latest_end())),
            idempotency_key: match slot.item {
                Some(item) => format!("{run}:{}:{item}", step.id),
                None => format!("{run}:{}", step.id),
            },
        }
    }

    fn evaluate(&self, slot: Slot, step: &Step, scope: &Scope, now: Timestamp) -> Result<Begin, StepError> {
        let Some(builtin) = self.plan.builtin(slot.step) else {
            return scope.fill(&step.with, &Pointer::from("/with")).map(Begin::Call).map_err(|e| expression_failed(&e));
        };
        builtins::evaluate(builtin, &step.with, scope, now)
    }

    /// The number of a step's items.
    fn expand(&self, index: usize, step: &Step) -> Result<u32, StepError> {
        let list = self.list(index, step)?;
        if list.len() > MAX_ITEMS {
            let message = format!("`foreach.items` yields {} items; a step may have {MAX_ITEMS} at most", list.len());
            return Err(StepError::terminal(ErrorCode::InputInvalid, message));
        }
        u32::try_from(list.len()).map_err(|error| StepError::terminal(ErrorCode::Internal, error.to_string()))
    }

    fn list(&self, index: usize, step: &Step) -> Result<Arc<[Data]>, StepError> {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(list) = lists.get(&index) {
            return Ok(Arc::clone(list));
        }
        let scope = Scope::lazy(Arc::new(self.known.before(index)));
        let at = Pointer::from("/foreach/items");
        let items = match step.foreach.as_ref().map(|foreach| &foreach.items) {
            Some(Value::String(source)) => {
                let data = scope
                    .evaluate_data(source)
                    .map_err(|message| expression_failed(&ExpressionError { pointer: at.clone(), message }))?;
                data.items().ok_or_else(|| {
                    let message = format!("{at}: `{}` yields no list; name one, such as `order.lines`", source.trim());
                    StepError::terminal(ErrorCode::ExpressionFailed, message)
                })?
            }
            Some(list) => {
                let filled = scope.fill_one(list, &at).map_err(|error| expression_failed(&error))?;
                Data::from(&filled).items().unwrap_or_default()
            }
            None => Vec::new(),
        };
        let list: Arc<[Data]> = items.into();
        lists.insert(index, Arc::clone(&list));
        Ok(list)
    }

    /// What the expressions of a slot see.
    fn scope(&self, slot: Slot) -> Result<Scope, StepError> {
        let scope = Scope::lazy(Arc::new(self.known.before(slot.step)));
        let Some(index) = slot.item else { return Ok(scope) };
        let list = self.list(slot.step, self.plan.step(slot.step))?;
        let Some(item) = list.get(index as usize) else {
            let message = format!("the list has no item {index} any more");
            return Err(StepError::terminal(ErrorCode::Internal, message));
        };
        Ok(scope.with([("item".to_owned(), item.clone()), ("index".to_owned(), Data::from(&json!(index)))]))
    }

    /// How many workflows the run's steps may call if each calls as many as this one: what a run may cause is shared
    /// between them.
    pub fn calls_like(&self, step: &str) -> u32 {
        let steps = 0..self.plan.definition().steps.len();
        let calling = steps.filter(|step| self.plan.builtin(*step) == Some(Builtin::Call)).count();
        let items = match self.plan.position(step).map(|step| self.progress.slots(step)) {
            Some(Slots::Items(items)) => items.slots.len(),
            Some(Slots::One(_)) | None => 1,
        };
        u32::try_from(calling.saturating_mul(items)).unwrap_or(u32::MAX).max(1)
    }

    /// The calls that were begun and have no outcome. After a death it is unknown whether they took effect.
    pub fn in_doubt(&self) -> Vec<Open> {
        self.progress.in_flight().iter().map(|slot| self.open(*slot)).collect()
    }

    /// The steps that wait for a signal.
    pub fn listening(&self) -> Vec<Open> {
        self.progress.listening().iter().map(|slot| self.open(*slot)).collect()
    }

    /// Whether anything waits for a signal.
    pub fn is_listening(&self) -> bool {
        !self.progress.listening().is_empty()
    }

    fn open(&self, slot: Slot) -> Open {
        let step = self.plan.step(slot.step);
        let attempt = self.progress.slot(slot).map_or(0, |progress| progress.attempt);
        Open { step: step.id.clone(), item: slot.item, attempt, uses: step.uses.clone() }
    }

    /// What a signal means for the step that waits for it: the entry to journal; nothing where none waits. `output` is
    /// what the called workflow yields.
    pub fn hear(
        &self,
        step: &str,
        item: Option<u32>,
        signal: &Signal,
        output: Option<Value>,
        now: Timestamp,
    ) -> Option<Entry> {
        let slot = Slot { step: self.plan.position(step)?, item };
        if !self.progress.listening().contains(&slot) {
            return None;
        }
        let is_for_it = matches!(
            (self.plan.builtin(slot.step), signal),
            (Some(Builtin::Approval), Signal::Decided(_)) | (Some(Builtin::Call), Signal::Ended { .. })
        );
        if !is_for_it {
            return None;
        }
        let attempt = self.progress.slot(slot)?.attempt;
        let event = builtins::heard(signal, output);
        Some(Entry { step: step.to_owned(), item, attempt, at: now, event })
    }
}

/// What beginning a slot comes to, once its expressions are evaluated.
pub(crate) enum Begin {
    /// This happens to it at once.
    Event(Event),
    /// It is called with this input.
    Call(Value),
}

enum Begun {
    Record(Entry),
    Call(Box<Call>),
}

pub(crate) fn expression_failed(error: &ExpressionError) -> StepError {
    StepError::terminal(ErrorCode::ExpressionFailed, error.to_string())
}

fn finish(status: RunStatus, error: Option<StepError>, failed_step: Option<String>, output: Option<Value>) -> Decision {
    Decision::Finish(Outcome { status, error, failed_step, output })
}

pub(crate) fn later(from: Timestamp, by: Duration) -> Timestamp {
    from.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default()
}
