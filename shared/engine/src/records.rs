//! The record of a run's steps, told from its journal.

use tidegate_model::{
    Attempt, Definition, Entry, Event, ItemRecord, OnInterrupted, Payload, RunStatus, StepError, StepRecord,
};

use crate::Plan;
use crate::progress::{Progress, SlotProgress, SlotState, Slots, StepState, interrupted};

/// What happened in each step, in the definition's order. Steps not reached are `queued` while the run goes on and
/// `skipped` once it is final; the step that a final run broke off in has the run's status.
pub fn records(definition: &Definition, entries: &[Entry], run: RunStatus) -> Vec<StepRecord> {
    // A definition whose steps make no graph never ran.
    Plan::new(definition.clone()).map_or_else(|_| Vec::new(), |plan| records_of(&plan, entries, run))
}

/// The same for a definition that was made ready.
pub fn records_of(plan: &Plan, entries: &[Entry], run: RunStatus) -> Vec<StepRecord> {
    let mut progress = Progress::new(plan, [0; 16]);
    let mut told: Vec<Told> = plan.definition().steps.iter().map(|_| Told::default()).collect();
    for entry in entries {
        if !progress.fits(plan, entry) {
            continue;
        }
        progress.apply(plan, entry);
        let Some(step) = plan.position(&entry.step) else { continue };
        let repeats = plan.step(step).on_interrupted == OnInterrupted::Retry;
        match entry.item {
            None => told[step].whole.add(entry, repeats),
            Some(item) => {
                let items = &mut told[step].items;
                if items.len() <= item as usize {
                    items.resize_with(item as usize + 1, Track::default);
                }
                items[item as usize].add(entry, repeats);
            }
        }
    }
    let steps = plan.definition().steps.iter().zip(told).enumerate();
    steps
        .map(|(index, (step, Told { whole, mut items }))| {
            let state = progress.step(index);
            let slots = progress.slots(index);
            let status = status_of_step(state, slots, run);
            // What a list broke off in when it stopped is over with it, even while the run goes on.
            let around = if status.is_final() { status } else { run };
            let items = match slots {
                Slots::One(_) => Vec::new(),
                Slots::Items(slots) => {
                    items.resize_with(slots.slots.len(), Track::default);
                    let items = slots.slots.iter().zip(items).zip(0_u32..);
                    items.map(|((slot, track), index)| track.item(index, status_of_slot(slot, around))).collect()
                }
            };
            let error = match state {
                StepState::Failed(error) => Some(error.clone()),
                _ => whole.error,
            };
            StepRecord {
                id: step.id.clone(),
                uses: step.uses.clone(),
                status,
                input: whole.input,
                output: whole.output,
                outlet: whole.outlet,
                error,
                attempts: whole.attempts,
                items,
            }
        })
        .collect()
}

fn status_of_step(state: &StepState, slots: &Slots, run: RunStatus) -> RunStatus {
    match (state, slots) {
        (StepState::Succeeded { .. }, _) => RunStatus::Succeeded,
        (StepState::Failed(_), _) => RunStatus::Failed,
        (StepState::Skipped, _) => RunStatus::Skipped,
        (StepState::Pending { .. }, _) if run.is_final() => RunStatus::Skipped,
        (StepState::Pending { .. }, _) => RunStatus::Queued,
        (StepState::Active, Slots::One(slot)) => status_of_slot(slot, run),
        (StepState::Active, Slots::Items(_)) if run.is_final() => run,
        (StepState::Active, Slots::Items(_)) => RunStatus::Running,
    }
}

fn status_of_slot(slot: &SlotProgress, run: RunStatus) -> RunStatus {
    match slot.state {
        SlotState::Succeeded => RunStatus::Succeeded,
        SlotState::Failed(_) => RunStatus::Failed,
        SlotState::Fresh if run.is_final() => RunStatus::Skipped,
        SlotState::Fresh => RunStatus::Queued,
        _ if run.is_final() => run,
        SlotState::InFlight => RunStatus::Running,
        SlotState::Asleep | SlotState::Listening | SlotState::Retry => RunStatus::Waiting,
    }
}

#[derive(Default)]
struct Told {
    whole: Track,
    items: Vec<Track>,
}

/// What entries tell of one slot.
#[derive(Default)]
struct Track {
    input: Option<Payload>,
    output: Option<Payload>,
    outlet: Option<String>,
    error: Option<StepError>,
    attempts: Vec<Attempt>,
}

impl Track {
    /// Takes in an entry. `repeats`: whether the step repeats a call whose effect is unknown.
    fn add(&mut self, entry: &Entry, repeats: bool) {
        match &entry.event {
            Event::Expanded { .. } => {}
            Event::Started { input } => {
                self.input = Some(input.clone());
                self.attempts.push(attempt(entry));
            }
            Event::Succeeded { output, outlet } => {
                self.end(entry);
                self.output = Some(output.clone());
                self.outlet.clone_from(outlet);
                self.error = None;
            }
            Event::Failed { error } => {
                self.end(entry).error = Some(error.clone());
                self.error = Some(error.clone());
            }
            Event::Interrupted { repeatable } => {
                self.end(entry).interrupted = true;
                if !repeatable && !repeats {
                    self.error = Some(interrupted());
                }
            }
        }
    }

    /// The attempt that an entry ends; it begins with it where nothing was called.
    fn end(&mut self, entry: &Entry) -> &mut Attempt {
        if self.attempts.last().is_none_or(|last| last.number != entry.attempt) {
            self.attempts.push(attempt(entry));
        }
        let last = self.attempts.len() - 1;
        let ended = &mut self.attempts[last];
        ended.finished_at = Some(entry.at);
        ended.duration_ms = Some(entry.at.as_millisecond() - ended.started_at.as_millisecond());
        ended
    }

    fn item(self, index: u32, status: RunStatus) -> ItemRecord {
        let Self { input, output, outlet: _, error, attempts } = self;
        ItemRecord { index, status, input, output, error, attempts }
    }
}

fn attempt(entry: &Entry) -> Attempt {
    Attempt {
        number: entry.attempt,
        started_at: entry.at,
        finished_at: None,
        duration_ms: None,
        error: None,
        interrupted: false,
    }
}
