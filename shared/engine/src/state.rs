//! Where a step is, told from the journal.

use jiff::Timestamp;
use tidegate_model::{Entry, ErrorCode, OnInterrupted, Step, StepError};

/// Where a step is, told from its entries.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum StepState {
    Fresh,
    InFlight { attempt: u32 },
    Retry { attempts: u32, failures: u32, last: Option<(Timestamp, StepError)> },
    Succeeded,
    Failed(StepError),
}

pub(crate) fn step_state(step: &Step, entries: &[Entry]) -> StepState {
    let mut state = StepState::Fresh;
    let mut failures = 0;
    for entry in entries.iter().filter(|entry| entry.step() == step.id) {
        state = match entry {
            Entry::Started { attempt, .. } => StepState::InFlight { attempt: *attempt },
            Entry::Succeeded { .. } => return StepState::Succeeded,
            Entry::Failed { attempt, at, error, .. } => {
                failures += 1;
                if !error.retryable || failures >= step.retry.max_attempts {
                    return StepState::Failed(error.clone());
                }
                StepState::Retry { attempts: *attempt, failures, last: Some((*at, error.clone())) }
            }
            Entry::Interrupted { repeatable, .. } if !repeatable && step.on_interrupted == OnInterrupted::Fail => {
                return StepState::Failed(interrupted());
            }
            Entry::Interrupted { attempt, .. } => StepState::Retry { attempts: *attempt, failures, last: None },
        };
    }
    state
}

/// The failure of a step whose call was cut off and must not be made again.
pub(crate) fn interrupted() -> StepError {
    StepError::terminal(
        ErrorCode::Interrupted,
        "the worker died during the call, so whether it took effect is unknown, and the step says \
         `on_interrupted: fail`; check the target, then start the run again",
    )
}
