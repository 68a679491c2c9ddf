//! Removes timers that no workflow wants: of workflows that are gone, switched off, or not started by a schedule. The
//! workflows function leaves none behind unless it dies between two writes; what it then leaves, this ends within a day.
//!
//! Whoever switches a workflow on sets its timer before and after writing the head. So a timer that is removed here,
//! because the head didn't want it yet, is set again there; or the head is there when it is read once more, and then it
//! is set again here. Timers of parked runs are no business of this.

use tidegate_model::{Message, ReconcileMessage, TenantId, WorkflowId};
use tidegate_platform::queue::OutgoingMessage;
use tidegate_platform::scheduler::{Timer, timer_of};

use crate::{Deps, Error, Verdict};

/// Looks at a page of timers, and sends the message for the next one.
pub(crate) async fn page(deps: &Deps, reconcile: &ReconcileMessage) -> Result<Verdict, Error> {
    let page = deps.scheduler.list(reconcile.cursor.as_deref()).await?;
    let timers = page.timers.len();
    let mut removed = 0_usize;
    for (tenant, name) in page.timers {
        let Ok(workflow) = name.parse::<WorkflowId>() else { continue };
        if wanted(deps, tenant, workflow).await?.is_some() {
            continue;
        }
        deps.scheduler.delete(tenant, &name).await?;
        match wanted(deps, tenant, workflow).await? {
            Some(timer) => deps.scheduler.put(timer).await?,
            None => {
                removed += 1;
                tracing::warn!(
                    component = "worker",
                    tenant_id = %tenant,
                    workflow_id = %workflow,
                    "a schedule that was left behind is removed"
                );
            }
        }
    }
    tracing::info!(component = "worker", timers, removed, "schedules were held against their workflows");
    if let Some(cursor) = page.next_cursor {
        let next = Message::Reconcile(ReconcileMessage { cursor: Some(cursor) });
        let body = serde_json::to_string(&next).map_err(|error| Error::Corrupt(error.to_string()))?;
        deps.queue.send(OutgoingMessage::new(next.tenant(), body)).await?;
    }
    Ok(Verdict::Delete)
}

/// The timer that the workflow's head wants now.
async fn wanted(deps: &Deps, tenant: TenantId, workflow: WorkflowId) -> Result<Option<Timer>, Error> {
    match deps.store.workflows().get(tenant, workflow).await? {
        Some(head) => Ok(timer_of(&head)?),
        None => Ok(None),
    }
}
