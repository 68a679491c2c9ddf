//! The timer of a workflow that a schedule starts, named by the workflow's id.
//!
//! No timer outlives its workflow for good: a new workflow is stored before its timer; every other change sets the timer
//! first and then writes the head on its revision, so that a repetition after a failure does the same again; a deletion
//! removes the timer before the head, and once more after it. A firing that finds its workflow inactive or gone is
//! dropped by the worker.

use tidegate_model::{Message, ScheduleMessage, TenantId, Trigger, Workflow, WorkflowId};
use tidegate_platform::PortError;
use tidegate_platform::scheduler::{SCHEDULED_TIME, Timer, When};

use crate::Deps;

/// Makes the timer be as this head wants it. It changes nothing where it is so already: intervals are counted from the
/// workflow's creation, so saving a workflow doesn't put off its next run.
pub(crate) async fn apply(deps: &Deps, workflow: &Workflow) -> Result<(), PortError> {
    match (&workflow.trigger, workflow.active) {
        (Trigger::Schedule { every }, true) => {
            let message = Message::Schedule(ScheduleMessage {
                tenant_id: workflow.tenant,
                workflow_id: workflow.id,
                scheduled_time: SCHEDULED_TIME.to_owned(),
            });
            let body = serde_json::to_string(&message)
                .map_err(|error| PortError::new(format!("write the message of {}", workflow.id), error))?;
            let when = When::Every { interval: every.duration(), from: workflow.created_at };
            deps.scheduler.put(Timer { tenant: workflow.tenant, name: workflow.id.to_string(), when, body }).await
        }
        (Trigger::Schedule { .. } | Trigger::Webhook {} | Trigger::Manual {}, _) => {
            remove(deps, workflow.tenant, workflow.id).await
        }
    }
}

/// Whether a change from one head to the other concerns the timer.
pub(crate) fn concerns(before: &Workflow, after: &Workflow) -> bool {
    [before, after].iter().any(|workflow| matches!(workflow.trigger, Trigger::Schedule { .. }))
}

/// Removes a workflow's timer, if it has one.
pub(crate) async fn remove(deps: &Deps, tenant: TenantId, id: WorkflowId) -> Result<(), PortError> {
    deps.scheduler.delete(tenant, &id.to_string()).await
}
