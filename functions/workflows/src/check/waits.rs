//! Waits that are written out and last longer than the run may: it would always be stopped in them.

use tidegate_model::{Builtin, Definition, FieldError, parse_wait};

use super::step_at;

pub(super) fn check(definition: &Definition, errors: &mut Vec<FieldError>) {
    let timeout = definition.execution_timeout;
    for (index, step) in definition.steps.iter().enumerate() {
        let field = match Builtin::named(&step.uses) {
            Some(Builtin::Delay) => "duration",
            Some(Builtin::Approval) => "timeout",
            _ => continue,
        };
        // One that can't be read is an expression, or told of already.
        let Some(wait) = step.with.get(field).and_then(|wait| parse_wait(wait).ok()) else { continue };
        let seconds = wait.as_secs_f64();
        if seconds >= f64::from(timeout) {
            let detail = format!(
                "is {seconds} seconds, and the run is stopped after {timeout}: raise execution_timeout above that, or \
                 wait for less"
            );
            errors.push(FieldError::new(step_at(index).push("with").push(field), detail));
        }
    }
}
