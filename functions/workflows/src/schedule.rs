//! The timer of a workflow that a schedule starts.
//!
//! No timer outlives its workflow for good: a new workflow is stored before its timer; every other change sets the timer
//! first and then writes the head on its revision, so that a repetition after a failure does the same again, and sets it
//! once more after that; a deletion removes the timer before the head, and once more after it. The second time is for the
//! worker's reconciler, which removes timers that the head doesn't want: it may look between the timer's setting and the
//! head's writing. A firing that finds its workflow inactive or gone is dropped by the worker.

use tidegate_model::{TenantId, Trigger, Workflow, WorkflowId};
use tidegate_platform::PortError;
use tidegate_platform::scheduler::{timer_name, timer_of};

use crate::Deps;

/// Makes the timer be as this head wants it. It changes nothing where it is so already: intervals are counted from their
/// start or the workflow's creation, so saving a workflow doesn't put off its next run.
pub(crate) async fn apply(deps: &Deps, workflow: &Workflow) -> Result<(), PortError> {
    match timer_of(workflow)? {
        Some(timer) => deps.scheduler.put(timer).await,
        None => remove(deps, workflow.tenant, workflow.id).await,
    }
}

/// Whether a change from one head to the other concerns the timer.
pub(crate) fn concerns(before: &Workflow, after: &Workflow) -> bool {
    [before, after].iter().any(|workflow| matches!(workflow.trigger, Trigger::Schedule(_)))
}

/// Removes a workflow's timer, if it has one.
pub(crate) async fn remove(deps: &Deps, tenant: TenantId, id: WorkflowId) -> Result<(), PortError> {
    deps.scheduler.delete(tenant, &timer_name(id)).await
}
