//! The timer of a workflow that a schedule starts: what sets it and what looks after it make the same.

use tidegate_model::{Message, ScheduleMessage, Trigger, Workflow, WorkflowId};

use super::{SCHEDULED_TIME, Timer, When};
use crate::PortError;

/// The name of a workflow's timer.
pub fn timer_name(workflow: WorkflowId) -> String {
    workflow.to_string()
}

/// The timer that a workflow's head wants; `None` where it wants none: it is switched off, or no schedule starts it.
///
/// # Errors
/// The message can't be written as JSON.
pub fn timer_of(workflow: &Workflow) -> Result<Option<Timer>, PortError> {
    let Trigger::Schedule(schedule) = &workflow.trigger else { return Ok(None) };
    let recurrence = schedule.recurrence(workflow.created_at).filter(|_| workflow.active);
    let Some(recurrence) = recurrence else { return Ok(None) };
    let message = Message::Schedule(ScheduleMessage {
        tenant_id: workflow.tenant,
        workflow_id: workflow.id,
        scheduled_time: SCHEDULED_TIME.to_owned(),
    });
    let body = serde_json::to_string(&message)
        .map_err(|error| PortError::new(format!("write the message of {}", workflow.id), error))?;
    let when = When::Recurring(Box::new(recurrence));
    Ok(Some(Timer { tenant: workflow.tenant, name: timer_name(workflow.id), when, body }))
}
