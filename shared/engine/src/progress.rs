//! Where a run is, told from its journal entry by entry: what each step has come to, and what can be begun. Taking in an
//! entry costs the same however many there were before.

use std::collections::BTreeSet;

use jiff::Timestamp;
use tidegate_model::{
    Builtin, Entry, ErrorCode, Event, OnFailure, OnInterrupted, OnItemFailure, Payload, Step, StepError, When,
};

use crate::Plan;
use crate::retry;

/// One call's place: a step, and which item of its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot {
    pub(crate) step: usize,
    pub(crate) item: Option<u32>,
}

/// What a step has come to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum StepState {
    /// Steps before it are not settled.
    Pending { open: usize, live: bool },
    /// It was begun, or can be.
    Active,
    /// It succeeded.
    Succeeded { outlet: Option<String> },
    /// It failed for good.
    Failed(StepError),
    /// No branch led to it.
    Skipped,
}

/// What a slot has come to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SlotState {
    Fresh,
    /// Its call is under way.
    InFlight,
    /// It waits for a time.
    Asleep,
    /// It waits for a signal.
    Listening,
    /// It is called again when this time comes.
    Retry,
    Succeeded,
    Failed(StepError),
}

/// A slot's history.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SlotProgress {
    pub(crate) state: SlotState,
    /// The number of its last attempt.
    pub(crate) attempt: u32,
    failures: u32,
    due: Option<Timestamp>,
}

impl SlotProgress {
    const FRESH: Self = Self { state: SlotState::Fresh, attempt: 0, failures: 0, due: None };
}

/// The slots of a step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Slots {
    /// A step without a list, or one whose list is not known yet.
    One(SlotProgress),
    Items(Items),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Items {
    pub(crate) slots: Vec<SlotProgress>,
    /// The first that was never begun.
    next: usize,
    /// Begun and not over.
    active: usize,
    /// Calls under way.
    in_flight: usize,
    settled: usize,
    /// The failure that stops the list.
    failed: Option<StepError>,
}

/// The first failure that stops the run.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) step: usize,
    pub(crate) error: StepError,
    pub(crate) at: Timestamp,
}

/// Where a run is.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    steps: Vec<StepState>,
    slots: Vec<Slots>,
    /// Steps that are not settled.
    unsettled: usize,
    /// Steps with something to begin: one that has no entry yet, or a list with room for another item.
    beginnable: BTreeSet<usize>,
    /// What comes due when: delays, attempts, timeouts of approvals.
    timers: BTreeSet<(Timestamp, Slot)>,
    in_flight: BTreeSet<Slot>,
    listening: BTreeSet<Slot>,
    failure: Option<Failure>,
    /// When the last entry came.
    at: Timestamp,
    /// Draws the delays between attempts.
    seed: [u8; 16],
}

impl Progress {
    /// A run without a journal.
    pub(crate) fn new(plan: &Plan, seed: [u8; 16]) -> Self {
        let count = plan.definition().steps.len();
        let mut progress = Self {
            steps: Vec::with_capacity(count),
            slots: vec![Slots::One(SlotProgress::FRESH); count],
            unsettled: count,
            beginnable: BTreeSet::new(),
            timers: BTreeSet::new(),
            in_flight: BTreeSet::new(),
            listening: BTreeSet::new(),
            failure: None,
            at: Timestamp::MIN,
            seed,
        };
        for step in 0..count {
            let open = plan.graph().incoming(step).len();
            progress.steps.push(if open == 0 { StepState::Active } else { StepState::Pending { open, live: false } });
            if open == 0 {
                progress.beginnable.insert(step);
            }
        }
        progress
    }

    pub(crate) fn step(&self, step: usize) -> &StepState {
        &self.steps[step]
    }

    pub(crate) fn slots(&self, step: usize) -> &Slots {
        &self.slots[step]
    }

    pub(crate) fn slot(&self, slot: Slot) -> Option<&SlotProgress> {
        match (&self.slots[slot.step], slot.item) {
            (Slots::One(progress), None) => Some(progress),
            (Slots::Items(items), Some(item)) => items.slots.get(item as usize),
            _ => None,
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.unsettled == 0
    }

    /// The first failure that stops the run.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    pub(crate) fn in_flight(&self) -> &BTreeSet<Slot> {
        &self.in_flight
    }

    pub(crate) fn listening(&self) -> &BTreeSet<Slot> {
        &self.listening
    }

    /// When something comes due after this time.
    pub(crate) fn next_timer(&self, now: Timestamp) -> Option<Timestamp> {
        self.timers.iter().map(|(at, _)| *at).find(|at| *at > now)
    }

    /// What is due.
    pub(crate) fn due(&self, now: Timestamp) -> impl Iterator<Item = Slot> {
        self.timers.iter().take_while(move |(at, _)| *at <= now).map(|(_, slot)| *slot)
    }

    /// What can be begun, in the definition's order.
    pub(crate) fn beginnable<'a>(&'a self, plan: &'a Plan) -> impl Iterator<Item = Slot> + 'a {
        self.beginnable.iter().flat_map(move |&step| {
            let items = match &self.slots[step] {
                Slots::One(_) => return Begin::One(std::iter::once(Slot { step, item: None })),
                Slots::Items(items) => items,
            };
            let room = concurrency(plan.step(step)).saturating_sub(items.active);
            let fresh = (items.next..items.slots.len()).filter(|item| items.slots[*item].state == SlotState::Fresh);
            Begin::Items(fresh.take(room).map(move |item| Slot { step, item: u32::try_from(item).ok() }))
        })
    }

    /// Whether an entry can be the next one. One that can't was taken in before, or is of another definition.
    pub(crate) fn fits(&self, plan: &Plan, entry: &Entry) -> bool {
        let Some(step) = plan.position(&entry.step) else { return false };
        if self.steps[step] != StepState::Active {
            return false;
        }
        if plan.step(step).foreach.is_some() && entry.item.is_none() {
            return match entry.event {
                Event::Expanded { .. } => matches!(self.slots[step], Slots::One(_)),
                Event::Failed { .. } => true,
                Event::Started { .. } | Event::Succeeded { .. } | Event::Interrupted { .. } => false,
            };
        }
        let Some(slot) = self.slot(Slot { step, item: entry.item }) else { return false };
        match (&slot.state, &entry.event) {
            (SlotState::Succeeded | SlotState::Failed(_), _) | (_, Event::Expanded { .. }) => false,
            (SlotState::Fresh | SlotState::Retry, _) => entry.attempt > slot.attempt,
            (SlotState::InFlight | SlotState::Asleep | SlotState::Listening, Event::Started { .. }) => false,
            (SlotState::InFlight | SlotState::Asleep | SlotState::Listening, _) => entry.attempt == slot.attempt,
        }
    }

    /// Takes in an entry. One that doesn't fit is passed over.
    pub(crate) fn apply(&mut self, plan: &Plan, entry: &Entry) {
        if !self.fits(plan, entry) {
            return;
        }
        let Some(step) = plan.position(&entry.step) else { return };
        self.at = entry.at;
        if let Event::Expanded { items } = entry.event {
            return self.expand(plan, step, items);
        }
        let slot = Slot { step, item: entry.item };
        let of = plan.step(step);
        let seed = self.seed;
        // A list that could not be told fails as a whole.
        if entry.item.is_none() && of.foreach.is_some() {
            if let Event::Failed { error } = &entry.event {
                self.settle(plan, step, StepState::Failed(error.clone()));
            }
            return;
        }
        let Some(progress) = self.slot_mut(slot) else { return };
        let before = progress.state.clone();
        let due_before = progress.due.take();
        progress.attempt = entry.attempt;
        match &entry.event {
            Event::Expanded { .. } => {}
            Event::Started { input } => {
                progress.state = match plan.builtin(step) {
                    Some(Builtin::Delay | Builtin::WaitUntil) => {
                        progress.due = Some(until(input).unwrap_or(entry.at));
                        SlotState::Asleep
                    }
                    Some(Builtin::Approval) => {
                        progress.due = until(input);
                        SlotState::Listening
                    }
                    Some(Builtin::Call) => SlotState::Listening,
                    Some(Builtin::If | Builtin::Switch | Builtin::Set | Builtin::Transform) | None => {
                        SlotState::InFlight
                    }
                };
            }
            Event::Succeeded { .. } => progress.state = SlotState::Succeeded,
            Event::Failed { error } => {
                progress.failures += 1;
                if !of.retry.retries(error) || progress.failures >= of.retry.max_attempts {
                    progress.state = SlotState::Failed(error.clone());
                } else {
                    let delay = retry::delay(&of.retry, seed, &of.id, entry.item, progress.failures, error);
                    progress.due = Some(entry.at.checked_add(delay).unwrap_or(Timestamp::MAX));
                    progress.state = SlotState::Retry;
                }
            }
            Event::Interrupted { repeatable } if !repeatable && of.on_interrupted == OnInterrupted::Fail => {
                progress.state = SlotState::Failed(interrupted());
            }
            Event::Interrupted { .. } => {
                progress.due = Some(entry.at);
                progress.state = SlotState::Retry;
            }
        }
        let (after, due) = (progress.state.clone(), progress.due);
        if let Some(due) = due_before {
            self.timers.remove(&(due, slot));
        }
        if let Some(due) = due {
            self.timers.insert((due, slot));
        }
        self.moved(plan, slot, &before, after, entry);
    }

    /// Keeps the sets in step with a slot that has moved.
    fn moved(&mut self, plan: &Plan, slot: Slot, before: &SlotState, after: SlotState, entry: &Entry) {
        set(&mut self.in_flight, slot, after == SlotState::InFlight);
        set(&mut self.listening, slot, after == SlotState::Listening);
        let is_over = |state: &SlotState| matches!(state, SlotState::Succeeded | SlotState::Failed(_));
        if let Slots::Items(items) = &mut self.slots[slot.step] {
            items.in_flight += usize::from(after == SlotState::InFlight);
            items.in_flight -= usize::from(*before == SlotState::InFlight);
            if *before == SlotState::Fresh {
                items.active += 1;
                let fresh = |slot: &SlotProgress| slot.state == SlotState::Fresh;
                items.next += items.slots[items.next..].iter().take_while(|slot| !fresh(slot)).count();
            }
            if is_over(&after) && !is_over(before) {
                items.active -= 1;
                items.settled += 1;
            }
            if let SlotState::Failed(error) = &after
                && items.failed.is_none()
                && stops(plan.step(slot.step))
            {
                items.failed = Some(StepError {
                    message: format!("item {}: {}", slot.item.unwrap_or_default(), error.message),
                    ..error.clone()
                });
            }
            if items.failed.is_some() {
                // Nothing more is begun: no item that was put off is called again.
                self.timers.retain(|(_, other)| other.step != slot.step);
            }
            return self.settle_items(plan, slot.step);
        }
        self.beginnable.remove(&slot.step);
        match after {
            SlotState::Succeeded => {
                let outlet = match &entry.event {
                    Event::Succeeded { outlet, .. } => outlet.clone(),
                    _ => None,
                };
                self.settle(plan, slot.step, StepState::Succeeded { outlet });
            }
            SlotState::Failed(error) => self.settle(plan, slot.step, StepState::Failed(error)),
            _ => {}
        }
    }

    fn expand(&mut self, plan: &Plan, step: usize, count: u32) {
        self.slots[step] = Slots::Items(Items {
            slots: vec![SlotProgress::FRESH; count as usize],
            next: 0,
            active: 0,
            in_flight: 0,
            settled: 0,
            failed: None,
        });
        self.settle_items(plan, step);
    }

    /// Settles a step whose list is done, and tells whether another of its items can be begun.
    fn settle_items(&mut self, plan: &Plan, step: usize) {
        let Slots::Items(items) = &self.slots[step] else { return };
        let outcome = match &items.failed {
            Some(error) if items.in_flight == 0 => Some(StepState::Failed(error.clone())),
            Some(_) => None,
            None if items.settled == items.slots.len() => Some(StepState::Succeeded { outlet: None }),
            None => None,
        };
        let room =
            items.failed.is_none() && items.next < items.slots.len() && items.active < concurrency(plan.step(step));
        set(&mut self.beginnable, step, room && outcome.is_none());
        if let Some(outcome) = outcome {
            self.settle(plan, step, outcome);
        }
    }

    /// Settles a step and all those after it to which now no branch leads.
    fn settle(&mut self, plan: &Plan, step: usize, outcome: StepState) {
        if self.steps[step] != StepState::Active {
            return;
        }
        self.beginnable.remove(&step);
        if matches!(self.slots[step], Slots::Items(_)) {
            // Items that listen when the list failed.
            self.listening.retain(|slot| slot.step != step);
        }
        if let StepState::Failed(error) = &outcome
            && plan.step(step).on_failure == OnFailure::Stop
            && self.failure.is_none()
        {
            self.failure = Some(Failure { step, error: error.clone(), at: self.at });
        }
        self.steps[step] = outcome;
        self.unsettled -= 1;
        let mut settled = vec![step];
        while let Some(from) = settled.pop() {
            for edge in plan.graph().outgoing(from) {
                let leads = leads(plan.step(from), &self.steps[from], &edge.when);
                let StepState::Pending { open, live } = &mut self.steps[edge.to] else { continue };
                *open -= 1;
                *live |= leads;
                match (*open, *live) {
                    (0, true) => {
                        self.steps[edge.to] = StepState::Active;
                        self.beginnable.insert(edge.to);
                    }
                    (0, false) => {
                        self.steps[edge.to] = StepState::Skipped;
                        self.unsettled -= 1;
                        settled.push(edge.to);
                    }
                    _ => {}
                }
            }
        }
    }

    fn slot_mut(&mut self, slot: Slot) -> Option<&mut SlotProgress> {
        match (&mut self.slots[slot.step], slot.item) {
            (Slots::One(progress), None) => Some(progress),
            (Slots::Items(items), Some(item)) => items.slots.get_mut(item as usize),
            _ => None,
        }
    }
}

/// The slots of one step that can be begun.
enum Begin<A, B> {
    One(A),
    Items(B),
}

impl<A: Iterator<Item = Slot>, B: Iterator<Item = Slot>> Iterator for Begin<A, B> {
    type Item = Slot;

    fn next(&mut self) -> Option<Slot> {
        match self {
            Begin::One(one) => one.next(),
            Begin::Items(items) => items.next(),
        }
    }
}

/// Whether an edge of this kind is live after a step with this outcome.
fn leads(step: &Step, outcome: &StepState, when: &When) -> bool {
    match (outcome, when) {
        (StepState::Succeeded { .. }, When::Done) => true,
        (StepState::Succeeded { outlet }, When::Outlet(of)) => outlet.as_ref() == Some(of),
        (StepState::Failed(_), When::Done) => step.on_failure == OnFailure::Continue,
        (StepState::Failed(_), When::Failed) => true,
        _ => false,
    }
}

fn stops(step: &Step) -> bool {
    step.foreach.as_ref().is_none_or(|foreach| foreach.on_item_failure == OnItemFailure::Stop)
}

fn concurrency(step: &Step) -> usize {
    step.foreach.as_ref().map_or(1, |foreach| foreach.concurrency as usize)
}

/// Until when a wait lasts, told from its input.
fn until(input: &Payload) -> Option<Timestamp> {
    match input {
        Payload::Inline(input) => input.get("until")?.as_str()?.parse().ok(),
        Payload::Blob(_) => None,
    }
}

fn set<T: Ord>(members: &mut BTreeSet<T>, member: T, is_in: bool) {
    if is_in {
        members.insert(member);
    } else {
        members.remove(&member);
    }
}

/// The failure of a step whose call was cut off and must not be made again.
pub(crate) fn interrupted() -> StepError {
    StepError::terminal(
        ErrorCode::Interrupted,
        "the worker died during the call, so whether it took effect is unknown, and the step says \
         `on_interrupted: fail`; check the target, then start the run again",
    )
}
