//! The record of a run's steps, told from its journal.

use tidegate_model::{Attempt, Definition, Entry, RunStatus, StepRecord};

use crate::state::{StepState, interrupted, step_state};

/// What happened in each step, in the definition's order. Steps not reached are `queued` while the run goes on and
/// `skipped` once it is final; the step that a final run broke off in has the run's status.
pub fn records(definition: &Definition, entries: &[Entry], run: RunStatus) -> Vec<StepRecord> {
    definition
        .steps
        .iter()
        .map(|step| {
            let mut record = StepRecord {
                id: step.id.clone(),
                uses: step.uses.clone(),
                status: match step_state(step, entries) {
                    StepState::Fresh if run.is_final() => RunStatus::Skipped,
                    StepState::Fresh => RunStatus::Queued,
                    StepState::InFlight { .. } | StepState::Retry { .. } if run.is_final() => run,
                    StepState::InFlight { .. } => RunStatus::Running,
                    StepState::Retry { .. } => RunStatus::Waiting,
                    StepState::Succeeded => RunStatus::Succeeded,
                    StepState::Failed(_) => RunStatus::Failed,
                },
                input: None,
                output: None,
                error: None,
                attempts: Vec::new(),
            };
            for entry in entries.iter().filter(|entry| entry.step() == step.id) {
                add(&mut record, entry);
            }
            record
        })
        .collect()
}

fn add(record: &mut StepRecord, entry: &Entry) {
    match entry {
        Entry::Started { attempt, at, input, .. } => {
            record.input = Some(input.clone());
            record.attempts.push(Attempt {
                number: *attempt,
                started_at: *at,
                finished_at: None,
                duration_ms: None,
                error: None,
                interrupted: false,
            });
        }
        Entry::Succeeded { attempt, at, output, .. } => {
            end(record, *attempt, *at, |_| {});
            record.output = Some(output.clone());
            record.error = None;
        }
        Entry::Failed { attempt, at, error, .. } => {
            end(record, *attempt, *at, |ended| ended.error = Some(error.clone()));
            record.error = Some(error.clone());
        }
        Entry::Interrupted { attempt, at, repeatable, .. } => {
            end(record, *attempt, *at, |ended| ended.interrupted = true);
            if !repeatable {
                record.error = Some(interrupted());
            }
        }
    }
}

fn end(record: &mut StepRecord, number: u32, at: jiff::Timestamp, change: impl FnOnce(&mut Attempt)) {
    if record.attempts.last().is_none_or(|attempt| attempt.number != number) {
        record.attempts.push(Attempt {
            number,
            started_at: at,
            finished_at: None,
            duration_ms: None,
            error: None,
            interrupted: false,
        });
    }
    if let Some(attempt) = record.attempts.last_mut() {
        attempt.finished_at = Some(at);
        attempt.duration_ms = Some(at.as_millisecond() - attempt.started_at.as_millisecond());
        change(attempt);
    }
}
