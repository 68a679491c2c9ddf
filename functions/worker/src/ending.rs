//! The end of a run: its last write, what is told of it, and what follows from it.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tidegate_engine::records_of;
use tidegate_model::{
    Attempt, Builtin, DeadLetter, ErrorCode, MAX_WAIT, Message, ParentStep, RunDetail, RunRow, RunStatus, Signal,
    StartMessage, StepError, TriggerInput, TriggerKind,
};
use tidegate_platform::usage;
use tidegate_store::{Cancel, ReplaceError, StoredRun};
use tidegate_telemetry::EndedRun;

use crate::execution::Claimed;
use crate::values::{fold, store_payload};
use crate::waits::{self, Child};
use crate::wake::{disarm, wake_now};
use crate::{Deps, Error, calls};

/// Why a row could not be replaced.
pub(crate) enum Conflict {
    /// By this row.
    With(Box<StoredRun>),
    /// The row expired.
    Gone,
    Error(Error),
}

pub(crate) fn lost_to(error: ReplaceError) -> Conflict {
    match error {
        ReplaceError::Conflict(Some(stored)) => Conflict::With(stored),
        ReplaceError::Conflict(None) => Conflict::Gone,
        ReplaceError::Store(error) => Conflict::Error(error.into()),
    }
}

impl From<Conflict> for Error {
    fn from(conflict: Conflict) -> Self {
        match conflict {
            Conflict::Error(error) => error,
            Conflict::With(_) | Conflict::Gone => Error::Lost,
        }
    }
}

pub(crate) async fn give_up_claimed(deps: &Deps, claimed: Claimed, error: StepError) -> Result<(), Error> {
    let expected = claimed.row.clone();
    Ok(give_up(deps, &expected, claimed, error).await?)
}

/// Marks a claimed run as failed without executing it. `expected` is the row as it is stored.
pub(crate) async fn give_up(
    deps: &Deps,
    expected: &RunRow,
    claimed: Claimed,
    error: StepError,
) -> Result<(), Conflict> {
    let finished_at = Some(deps.clock.now());
    let row = RunRow { status: RunStatus::Failed, finished_at, error: Some(error), ..claimed.row.clone() };
    end_without_executing(deps, expected, row, claimed).await
}

/// Writes a final row with what the journal tells.
async fn end_without_executing(deps: &Deps, expected: &RunRow, row: RunRow, claimed: Claimed) -> Result<(), Conflict> {
    let entries: Vec<_> = claimed.journal.into_iter().flat_map(|item| item.entries).collect();
    let plan = deps.caches.plan(deps, row.tenant, row.workflow, row.version).await.map_err(Conflict::Error)?;
    let steps = plan.map_or_else(Vec::new, |plan| records_of(&plan, &entries, row.status));
    let row = RunRow { cancel_requested: false, wake_at: None, ..row };
    let mut detail = RunDetail { trigger: claimed.input, steps, output: None };
    let folded = fold(deps, &row, &mut detail, &entries).await.map_err(Conflict::Error)?;
    deps.store.runs().replace(expected, &row, Some(&folded)).await.map_err(lost_to)?;
    report(deps, &row);
    follow_up(deps, &row, &detail).await.map_err(Conflict::Error)
}

/// Keeps the record of a run that was cancelled while no worker held it: its row is final, and its journal tells the rest.
/// `known` is what the run's message knows of it, where the row doesn't.
pub(crate) async fn keep_record(deps: &Deps, stored: &RunRow, known: Option<&StartMessage>) -> Result<(), Error> {
    let journal = deps.store.runs().journal(stored.tenant, stored.id).await?;
    let input = journal.items.first().and_then(|item| item.input.clone());
    let mut row = stored.clone();
    if let Some(start) = known.filter(|_| row.workflow == tidegate_model::WorkflowId::UNKNOWN) {
        row.workflow = start.workflow_id;
        row.version = start.version;
        row.trigger = start.trigger.kind;
        row.accepted_at = start.accepted_at;
        row.traceparent.clone_from(&start.traceparent);
        row.parent.clone_from(&start.parent);
    }
    let input = input.or_else(|| known.map(|start| start.trigger.clone()));
    disarm(deps, stored).await?;
    let claimed = Claimed::unread(row.clone(), input, journal);
    match end_without_executing(deps, stored, row, claimed).await {
        // Somebody else has kept it.
        Ok(()) | Err(Conflict::With(_) | Conflict::Gone) => Ok(()),
        Err(Conflict::Error(error)) => Err(error),
    }
}

/// Does what follows from a run's end: tells the step that waits for it, starts the workflow that handles its failure,
/// cancels the runs that it called and doesn't wait for any more, keeps what was given up. Whoever finds a final row with a
/// message left does it again; done twice it is the same.
pub(crate) async fn follow_up(deps: &Deps, row: &RunRow, detail: &RunDetail) -> Result<(), Error> {
    cancel_called(deps, row, detail).await?;
    if let Some(parent) = &row.parent {
        tell_parent(deps, row, parent, detail).await?;
    }
    if matches!(row.status, RunStatus::Failed | RunStatus::TimedOut) && !waits::handles_failure(row) {
        start_handler(deps, row).await?;
    }
    let given_up = row.error.as_ref().filter(|error| is_given_up(error.code));
    if let (Some(error), Some(trigger)) = (given_up, &detail.trigger) {
        keep_dead_letter(deps, row, error, trigger).await?;
    }
    Ok(())
}

fn is_given_up(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::WorkerCrashed | ErrorCode::DeadLettered)
}

async fn cancel_called(deps: &Deps, row: &RunRow, detail: &RunDetail) -> Result<(), Error> {
    let call = Builtin::Call.name();
    for step in detail.steps.iter().filter(|step| step.uses == call) {
        let whole = std::iter::once((None, &step.attempts));
        let items = step.items.iter().map(|item| (Some(item.index), &item.attempts));
        for (item, attempts) in whole.chain(items) {
            let Some(Attempt { number, started_at, finished_at: None, .. }) = attempts.last() else { continue };
            let child = Child { step: &step.id, item, attempt: *number, at: *started_at };
            let id = child.run_id(row.tenant, row.id);
            if let Cancel::Final(called) = deps.store.runs().cancel(row.tenant, id, deps.clock.now()).await? {
                wake_now(deps, &called).await?;
            }
        }
    }
    Ok(())
}

async fn tell_parent(deps: &Deps, row: &RunRow, parent: &ParentStep, detail: &RunDetail) -> Result<(), Error> {
    let signal = Signal::Ended {
        run_id: row.id,
        status: row.status,
        output: detail.output.clone(),
        error: row.error.clone(),
        at: row.finished_at.unwrap_or_else(|| deps.clock.now()),
    };
    let runs = deps.store.runs();
    let expires_after = waits::later(deps.clock.now(), MAX_WAIT);
    runs.put_signal(row.tenant, parent.run_id, &parent.step, parent.item, &signal, expires_after).await?;
    match runs.get(row.tenant, parent.run_id).await? {
        Some(waiting) if waiting.row.status == RunStatus::Waiting => wake_now(deps, &waiting.row).await,
        // It looks for signals before it is parked; or it is over.
        Some(_) | None => Ok(()),
    }
}

async fn start_handler(deps: &Deps, row: &RunRow) -> Result<(), Error> {
    let Some(plan) = deps.caches.plan(deps, row.tenant, row.workflow, row.version).await? else { return Ok(()) };
    let Some(handler) = plan.definition().on_failure.as_ref().map(|handler| handler.workflow) else { return Ok(()) };
    let workflow = deps.store.workflows().get(row.tenant, handler).await?;
    let Some(workflow) = workflow.filter(|workflow| workflow.active) else {
        tracing::warn!(
            component = "worker",
            tenant_id = %row.tenant,
            workflow_id = %handler,
            run_id = %row.id,
            "the workflow that handles this run's failure is gone or inactive; nobody is told"
        );
        return Ok(());
    };
    let at = row.finished_at.unwrap_or_else(|| deps.clock.now());
    let run_id = waits::derived_id(row.tenant, at, format!("{} on_failure", row.id).as_bytes());
    let body = json!({
        "status": row.status,
        "error": row.error,
        "failed_step": row.failed_step,
        "run": {"id": row.id, "accepted_at": row.accepted_at, "started_at": row.started_at, "finished_at": at},
        "workflow": {"id": row.workflow, "name": plan.definition().name, "version": row.version},
    });
    let body = waits::body(deps, row.tenant, run_id, &body).await?;
    let start = StartMessage {
        run_id,
        tenant_id: row.tenant,
        workflow_id: handler,
        version: workflow.version,
        trigger: TriggerInput {
            kind: TriggerKind::Failure,
            content_type: None,
            request: None,
            body,
            parameters: Map::new(),
        },
        accepted_at: at,
        traceparent: row.traceparent.clone(),
        parent: None,
    };
    waits::send(deps, row.tenant, &Message::Start(Box::new(start))).await
}

async fn keep_dead_letter(deps: &Deps, row: &RunRow, error: &StepError, trigger: &TriggerInput) -> Result<(), Error> {
    let start = StartMessage {
        run_id: row.id,
        tenant_id: row.tenant,
        workflow_id: row.workflow,
        version: row.version,
        trigger: trigger.clone(),
        accepted_at: row.accepted_at,
        traceparent: row.traceparent.clone(),
        parent: row.parent.clone(),
    };
    let start: Value = serde_json::to_value(&start).map_err(|error| Error::Corrupt(error.to_string()))?;
    let key = format!("{}/{}/{}/dead_letter", tidegate_platform::blobs::KEPT, row.tenant, row.id);
    let letter = DeadLetter {
        id: row.id,
        tenant: row.tenant,
        workflow: row.workflow,
        code: error.code,
        message: error.message.clone(),
        receive_count: row.claims,
        accepted_at: row.accepted_at,
        given_up_at: row.finished_at.unwrap_or_else(|| deps.clock.now()),
        start: store_payload(deps, &start, key).await?,
        redriven: None,
    };
    Ok(deps.store.dead_letters().put(&letter).await?)
}

/// Tells of a run that is final: a log line, and the metrics.
pub(crate) fn report(deps: &Deps, row: &RunRow) {
    let outcome = name(&row.status);
    // Two machines' clocks: one that is ahead makes nothing negative, of which CloudWatch would make no percentile.
    let since_accepted = |at: Timestamp| (at.as_millisecond() - row.accepted_at.as_millisecond()).max(0);
    let ended = EndedRun {
        duration_ms: since_accepted(row.finished_at.unwrap_or_else(|| deps.clock.now())),
        queue_age_ms: since_accepted(row.started_at),
    };
    let usage = usage::so_far();
    tracing::info!(
        component = "worker",
        tenant_id = %row.tenant,
        workflow_id = %row.workflow,
        run_id = %row.id,
        trace_id = calls::trace_of(row).map(|trace| trace.trace_id()).unwrap_or_default(),
        status = outcome,
        code = row.error.as_ref().map(|error| name(&error.code)),
        failed_step = row.failed_step,
        duration_ms = ended.duration_ms,
        queue_age_ms = ended.queue_age_ms,
        read_units = usage.as_ref().map(|usage| usage.read_units).filter(|units| *units > 0.0),
        write_units = usage.as_ref().map(|usage| usage.write_units),
        "run ended"
    );
    deps.metrics.run_ended(&outcome, ended);
}

/// A status or code as the API writes it.
fn name(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}
