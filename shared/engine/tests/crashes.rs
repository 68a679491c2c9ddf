//! Whatever the workflow, the results, the order in which parallel calls end, and wherever the worker dies: a run that
//! goes on from its journal ends as it would have without dying, and no call with a journalled result is made again.
//!
//! Two things are compared with. An oracle (`random`) tells from the definition alone how each step must end. And the
//! journal without its interruptions must be one that an undisturbed run could have written, entry by entry, with the
//! same outcome: that is the run "with the same completion order". What may legitimately differ is which of two parallel
//! failures is the first, and what else had been begun by then.
//!
//! 10,000 cases; more with `PROPTEST_CASES=1000000`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "driver/facts.rs"]
mod facts;
mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tidegate_engine::{Call, Data, Decision, Outcome, Plan, Run, records_of};
use tidegate_model::{
    Decided, Definition, Entry, ErrorCode, Event, Payload, RunId, RunStatus, Signal, StepError, StepRecord, TenantId,
};

use random::{Brings, Ends, Kind, RandomWorkflow, Tape};

/// More decisions than any of these runs needs, however often its worker dies.
const MAX_DECISIONS: usize = 3_000;

type Slot = (usize, Option<u32>);

struct Worker<'a> {
    workflow: &'a RandomWorkflow,
    plan: Arc<Plan>,
    body: Data,
    run: Run,
    now: Timestamp,
    entries: Vec<Entry>,
    /// How many of the entries are stored.
    stored: usize,
    /// Whether the first calls are still to be made: they are made without being stored first.
    fresh: bool,
    under_way: Vec<Call>,
    /// What waiting steps will hear; it outlives workers.
    signals: BTreeMap<Slot, Call>,
    /// Whether there ever was no room for another call.
    crowded: bool,
}

impl<'a> Worker<'a> {
    fn new(workflow: &'a RandomWorkflow, plan: &Arc<Plan>) -> Self {
        let body = Data::from(&random::body());
        Self {
            workflow,
            plan: Arc::clone(plan),
            run: Run::new(Arc::clone(plan), facts::facts(plan, &Map::new()), body.clone()),
            body,
            now: facts::BEGINNING.parse().unwrap(),
            entries: Vec::new(),
            stored: 0,
            fresh: true,
            under_way: Vec::new(),
            signals: BTreeMap::new(),
            crowded: false,
        }
    }

    /// Works until the run is over; the tape says what ends next, and when the worker dies.
    fn work(&mut self, tape: &mut Tape<'_>) -> Outcome {
        for _ in 0..MAX_DECISIONS {
            match self.run.decide(self.now) {
                Decision::Record(entries) => {
                    entries.into_iter().for_each(|entry| self.push(entry));
                    if tape.one_in(24) {
                        self.die(tape);
                    }
                }
                Decision::Call(calls) => self.call(calls, tape),
                Decision::Wait(until) => {
                    assert!(until > self.now, "a wait ends later");
                    match tape.below(12) {
                        11 => self.die(tape),
                        _ => self.pass(until, tape),
                    }
                }
                Decision::Finish(outcome) => return outcome,
            }
        }
        panic!("the run doesn't end: {:?}", self.entries);
    }

    fn push(&mut self, entry: Entry) {
        self.run.apply(&entry, None);
        self.entries.push(entry);
    }

    fn slot(&self, step: &str, item: Option<u32>) -> Slot {
        (step[1..].parse().unwrap(), item)
    }

    fn call(&mut self, mut calls: Vec<Call>, tape: &mut Tape<'_>) {
        let finished = finished(&self.entries);
        for call in &calls {
            let slot = (call.step.clone(), call.item);
            assert!(!finished.contains(&slot), "{slot:?} is called again: {:?}", self.entries);
        }
        let under_way = self.run.in_doubt().len() + calls.len();
        assert!(under_way <= 20, "calls under way are bounded");
        self.crowded |= under_way == 20;
        // The beginnings are journalled in any order, and a death may come between two of them.
        let turn = tape.below(calls.len());
        calls.rotate_left(turn);
        let stops_at = if tape.one_in(10) { tape.below(calls.len() + 1) } else { usize::MAX };
        for (index, call) in calls.iter().enumerate() {
            if index == stops_at {
                self.stored = self.entries.len();
                return self.die(tape);
            }
            self.push(call.entry(self.now, Event::Started { input: Payload::Inline(call.input.clone()) }));
        }
        if !self.fresh {
            if tape.one_in(16) {
                return self.die(tape);
            }
            self.stored = self.entries.len();
        }
        self.fresh = false;
        self.under_way.extend(calls);
    }

    /// Lets something end, or time pass.
    fn pass(&mut self, until: Timestamp, tape: &mut Tape<'_>) {
        let open: BTreeSet<Slot> = self.run.listening().iter().map(|open| self.slot(&open.step, open.item)).collect();
        // A decision may come at any time after the beginning, but not one that is only made at a timeout.
        let heard: Vec<Slot> = self.signals.keys().filter(|slot| open.contains(slot)).copied().collect();
        let choices = self.under_way.len() + heard.len();
        // Nobody lets a year pass.
        let may_wait = self.workflow.hurries || until < self.run.facts().latest_end(&self.plan);
        let waits = usize::from(choices == 0 || may_wait && tape.one_in(3));
        let choice = tape.below(choices + waits);
        if choice >= choices {
            self.now = until;
            return;
        }
        let passes = Duration::from_millis(tape.one_of(&[10, 0, 900, 2_500]));
        self.now = self.now.checked_add(passes).unwrap().min(until);
        if let Some(call) = (choice < self.under_way.len()).then(|| self.under_way.remove(choice)) {
            self.end(&call);
        } else {
            let slot = heard[choice - self.under_way.len()];
            self.hear(slot);
        }
        if tape.one_in(24) {
            self.die(tape);
        }
    }

    fn end(&mut self, call: &Call) {
        let slot = self.slot(&call.step, call.item);
        let step = &self.workflow.steps[slot.0];
        let failed = |entry: &&Entry| entry.step == call.step && entry.item == call.item && is_failure(entry);
        let failures = u32::try_from(self.entries.iter().filter(failed).count()).unwrap();
        let begins = matches!(step.kind, Kind::Approval | Kind::Workflow);
        if begins && !self.run.listening().iter().any(|open| (&open.step, open.item) == (&call.step, call.item)) {
            // Its list stopped meanwhile.
            return;
        }
        let event = match step.brings(call.item, failures) {
            Brings::Failure { retryable } => Event::Failed { error: StepError { retryable, ..error() } },
            Brings::Success if begins => {
                if !(step.kind == Kind::Approval && step.silent) {
                    self.signals.insert(slot, call.clone());
                }
                return;
            }
            Brings::Success => {
                let mut hasher = DefaultHasher::new();
                (slot, call.input.to_string()).hash(&mut hasher);
                let output = json!({"of": call.idempotency_key, "n": hasher.finish() % 1_000_000});
                Event::Succeeded { output: Payload::Inline(output), outlet: None }
            }
        };
        self.push(call.entry(self.now, event));
    }

    fn hear(&mut self, slot: Slot) {
        let call = &self.signals[&slot];
        let step = &self.workflow.steps[slot.0];
        let (signal, output) = if step.kind == Kind::Approval {
            (Signal::Decided(Decided { approved: step.agrees, comment: None, at: self.now }), None)
        } else {
            let at: Timestamp = facts::BEGINNING.parse().unwrap();
            let status = if step.agrees { RunStatus::Succeeded } else { RunStatus::Cancelled };
            let run_id = RunId::for_tenant(TenantId::new(at, [1; 10]), at, [4; 10]);
            let output = call.input.clone();
            (Signal::Ended { run_id, status, output: None, error: None, at: self.now }, Some(output))
        };
        let entry = self.run.hear(&call.step, call.item, &signal, output, self.now).unwrap();
        self.push(entry);
        assert!(self.run.hear(&self.signals[&slot].step, slot.1, &signal, None, self.now).is_none(), "once is enough");
    }

    /// Another worker takes over with what was stored.
    fn die(&mut self, tape: &mut Tape<'_>) {
        self.entries.truncate(self.stored);
        self.under_way.clear();
        let away = Duration::from_millis(tape.one_of(&[300, 0, 4_000, 40_000]));
        self.now = self.now.checked_add(away).unwrap();
        self.run = Run::new(Arc::clone(&self.plan), facts::facts(&self.plan, &Map::new()), self.body.clone());
        for entry in &self.entries {
            self.run.apply(entry, None);
        }
        if tape.one_in(3) {
            let decision = self.run.decide(self.now);
            for entry in &self.entries {
                self.run.apply(entry, None);
            }
            assert_eq!(decision, self.run.decide(self.now), "a journal that is read twice changes nothing");
        }
        records_of(&self.plan, &self.entries, RunStatus::Running);
        let mut in_doubt: Vec<_> =
            self.run.in_doubt().into_iter().map(|open| (open.step, open.item, open.attempt)).collect();
        if self.stored == 0 && !self.fresh {
            // The first calls may have been made.
            while let Decision::Record(entries) = self.run.decide(self.now) {
                entries.into_iter().for_each(|entry| self.push(entry));
            }
            if let Decision::Call(calls) = self.run.decide(self.now) {
                in_doubt.extend(calls.into_iter().map(|call| (call.step, call.item, call.attempt)));
            }
        }
        for (step, item, attempt) in in_doubt {
            let (index, _) = self.slot(&step, item);
            let of = &self.workflow.steps[index];
            if matches!(of.kind, Kind::Approval | Kind::Workflow) {
                // It is begun again, and is heard of once.
                continue;
            }
            let event = Event::Interrupted { repeatable: of.repeatable };
            self.push(Entry { step, item, attempt, at: self.now, event });
        }
        // What listens has been begun already, or is begun again: either way it will hear.
        for open in self.run.listening() {
            let slot = self.slot(&open.step, open.item);
            self.begin_again(slot, open.attempt);
        }
        self.stored = self.entries.len();
        self.fresh = false;
    }

    /// A step that listens may have been cut off while it was begun, so it is begun once more.
    fn begin_again(&mut self, slot: Slot, attempt: u32) {
        if self.signals.contains_key(&slot) {
            return;
        }
        let step = format!("s{}", slot.0);
        let started = self.entries.iter().rev().find_map(|entry| match &entry.event {
            Event::Started { input: Payload::Inline(input) } if entry.step == step && entry.item == slot.1 => {
                Some(input)
            }
            _ => None,
        });
        self.under_way.push(Call {
            step,
            item: slot.1,
            attempt,
            uses: String::new(),
            connection: None,
            input: started.unwrap().clone(),
            timeout: Duration::from_secs(5),
            idempotency_key: String::new(),
        });
    }
}

fn error() -> StepError {
    StepError::retryable(ErrorCode::TargetFailed, "scripted")
}

fn is_failure(entry: &Entry) -> bool {
    matches!(entry.event, Event::Failed { .. })
}

/// Slots with a result for good.
fn finished(entries: &[Entry]) -> BTreeSet<(String, Option<u32>)> {
    let is_final = |entry: &&Entry| match &entry.event {
        Event::Succeeded { .. } => true,
        Event::Failed { error } => !error.retryable,
        _ => false,
    };
    entries.iter().filter(is_final).map(|entry| (entry.step.clone(), entry.item)).collect()
}

/// The journal of an undisturbed run with the same outcomes in the same order.
fn undisturbed(definition: &Definition, entries: &[Entry]) -> Vec<Entry> {
    let fails = |entry: &Entry| {
        let step = definition.steps.iter().find(|step| step.id == entry.step).unwrap();
        let says_fail = step.on_interrupted == tidegate_model::OnInterrupted::Fail;
        matches!(entry.event, Event::Interrupted { repeatable } if !repeatable && says_fail)
    };
    // One that was never called again ended with the interruption: it held up its list until then.
    let called_again = |interrupted: &&Entry| {
        let started = |entry: &Entry| matches!(entry.event, Event::Started { .. } | Event::Failed { .. });
        let same = |entry: &Entry| (&entry.step, entry.item) == (&interrupted.step, interrupted.item);
        entries.iter().any(|entry| started(entry) && same(entry) && entry.attempt > interrupted.attempt)
    };
    let lost: BTreeSet<_> = entries
        .iter()
        .filter(|entry| matches!(entry.event, Event::Interrupted { .. }) && !fails(entry))
        .filter(called_again)
        .map(|entry| (&entry.step, entry.item, entry.attempt))
        .collect();
    let kept = entries.iter().filter(|entry| !lost.contains(&(&entry.step, entry.item, entry.attempt)));
    kept.map(|entry| {
        let before =
            |of: &&(&String, Option<u32>, u32)| (of.0, of.1) == (&entry.step, entry.item) && of.2 < entry.attempt;
        let attempt = entry.attempt - u32::try_from(lost.iter().filter(before).count()).unwrap();
        Entry { attempt, ..entry.clone() }
    })
    .collect()
}

/// Holds a journal without interruptions to what a run decides on its way, and returns how that run ends.
fn replay(plan: &Arc<Plan>, entries: &[Entry], end: Timestamp) -> Decision {
    let body = Data::from(&random::body());
    let mut run = Run::new(Arc::clone(plan), facts::facts(plan, &Map::new()), body);
    let mut proposed: Vec<Entry> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let of = |open: &tidegate_engine::Open| {
            (&open.step, open.item, open.attempt) == (&entry.step, entry.item, entry.attempt)
        };
        let is_outcome = match &entry.event {
            Event::Started { .. } | Event::Expanded { .. } => false,
            // The engine itself says that nobody decided.
            Event::Failed { error } => error.code != ErrorCode::ApprovalTimedOut,
            Event::Succeeded { .. } | Event::Interrupted { .. } => true,
        };
        if is_outcome && (run.in_doubt().iter().any(of) || run.listening().iter().any(of)) {
            proposed.clear();
        } else {
            let interrupted = matches!(entry.event, Event::Interrupted { .. });
            let is_it = |proposal: &Entry| {
                proposal == entry || interrupted && (&proposal.step, proposal.item) == (&entry.step, entry.item)
            };
            if !proposed.iter().any(is_it) {
                proposed = match run.decide(entry.at) {
                    Decision::Record(entries) => entries,
                    Decision::Call(calls) => {
                        let started = |call: &Call| Event::Started { input: Payload::Inline(call.input.clone()) };
                        calls.iter().map(|call| call.entry(entry.at, started(call))).collect()
                    }
                    other => panic!("nobody would have journalled {entry:?} (#{index}) but {other:?}"),
                };
            }
            let place = proposed.iter().position(is_it);
            proposed.remove(place.unwrap_or_else(|| panic!("nobody decided {entry:?} (#{index}) but {proposed:?}")));
        }
        run.apply(entry, None);
    }
    run.decide(end)
}

/// What a run came to: all that doesn't depend on when things happened.
fn gist(workflow: &RandomWorkflow, records: &[StepRecord]) -> Vec<Value> {
    let told = records.iter().zip(&workflow.steps).map(|(record, step)| {
        let timeless = matches!(step.kind, Kind::Call | Kind::Set | Kind::Workflow);
        let items: Vec<_> =
            record.items.iter().map(|item| json!([item.status, timeless.then_some(&item.output)])).collect();
        json!([record.status, record.outlet, timeless.then_some(&record.output), items])
    });
    told.collect()
}

/// Holds a final run to the oracle. Says whether everything about it is certain.
fn check(workflow: &RandomWorkflow, worker: &Worker<'_>, outcome: &Outcome) -> bool {
    let records = records_of(&worker.plan, &worker.entries, outcome.status);
    assert_eq!(records.len(), workflow.steps.len());
    let interrupted: Vec<Slot> = worker
        .entries
        .iter()
        .filter(|entry| {
            let step = &worker.plan.definition().steps[worker.slot(&entry.step, entry.item).0];
            let says_fail = step.on_interrupted == tidegate_model::OnInterrupted::Fail;
            says_fail && matches!(entry.event, Event::Interrupted { repeatable: false })
        })
        .map(|entry| worker.slot(&entry.step, entry.item))
        .collect();
    let ends = workflow.ends(&interrupted);
    let stops = workflow.stops(&ends);
    for (record, end) in records.iter().zip(&ends) {
        assert!(record.status.is_final(), "nothing goes on in a final run: {record:?}");
        let agrees = match (record.status, end) {
            (RunStatus::Succeeded, Ends::Succeeded(outlet)) => record.outlet.as_deref() == *outlet,
            (RunStatus::Failed, Ends::Failed) | (RunStatus::Skipped, Ends::Skipped) => true,
            // What had not been begun, and what was broken off.
            (RunStatus::Skipped, _) => outcome.status != RunStatus::Succeeded,
            (status, Ends::Succeeded(_) | Ends::Failed) => {
                outcome.status != RunStatus::Succeeded && status == outcome.status
            }
            _ => false,
        };
        assert!(agrees, "{} should be {end:?}: {record:?} in {outcome:?}", record.id);
    }
    let failed_step = outcome.failed_step.as_ref().map(|step| worker.slot(step, None).0);
    match outcome.status {
        RunStatus::Succeeded => assert!(stops.is_empty() && outcome.error.is_none() && failed_step.is_none()),
        RunStatus::Failed => {
            let failed = failed_step.unwrap();
            assert!(stops.contains(&failed), "{failed} is none of {stops:?}");
            assert_eq!(records[failed].status, RunStatus::Failed);
            assert_eq!(records[failed].error, outcome.error);
        }
        RunStatus::TimedOut => assert!(workflow.hurries, "there was time: {:?}", worker.entries),
        other => panic!("no run ends as {other:?}"),
    }
    outcome.status == RunStatus::Succeeded && interrupted.is_empty() && !workflow.has_stopped_list(&ends)
}

fn workflows() -> impl Strategy<Value = RandomWorkflow> {
    prop::collection::vec(any::<u8>(), 0..240).prop_map(|tape| RandomWorkflow::new(&mut Tape::new(&tape)))
}

fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { cases: config.cases.max(10_000), max_shrink_iters: 20_000, failure_persistence: None, ..config }
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn resumed_runs_end_like_undisturbed_ones(
        workflow in workflows(),
        fate in prop::collection::vec(any::<u8>(), 0..160),
    ) {
        let definition = Definition::parse(&workflow.document).unwrap_or_else(|errors| {
            panic!("it is refused: {errors:?}: {}", workflow.document)
        });
        let plan = Arc::new(Plan::new(definition).unwrap());

        let mut calm = Worker::new(&workflow, &plan);
        let expected = calm.work(&mut Tape::new(&[]));
        let calm_is_clear = check(&workflow, &calm, &expected);

        let mut worker = Worker::new(&workflow, &plan);
        let outcome = worker.work(&mut Tape::new(&fate));
        let is_clear = check(&workflow, &worker, &outcome);
        if calm_is_clear && is_clear {
            prop_assert_eq!(&outcome, &expected);
            let gist = |worker: &Worker<'_>| gist(&workflow, &records_of(&plan, &worker.entries, outcome.status));
            prop_assert_eq!(gist(&worker), gist(&calm));
        }

        // Without room it is a matter of chance which call is the next.
        let entries = &worker.entries;
        let journal = if worker.crowded { entries.clone() } else { undisturbed(plan.definition(), entries) };
        prop_assert_eq!(replay(&plan, &journal, worker.now), Decision::Finish(outcome));
    }
}
