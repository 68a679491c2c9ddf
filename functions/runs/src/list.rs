//! Runs in lists: one small row each, whatever their payloads.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use tidegate_http::permission::RunsRead;
use tidegate_http::{Caller, Json, Limit, ListOf, Problem, ProblemCode, Query, Time};
use tidegate_model::{FieldError, ParentStep, RunId, RunRow, RunStatus, StepError, TriggerKind, WorkflowId};
use tidegate_store::RunFilter;
use utoipa::{IntoParams, ToSchema};

use crate::Deps;

/// Which runs to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RunsQuery {
    /// Only runs of this workflow.
    workflow_id: Option<WorkflowId>,
    /// Only runs in this status. Queued runs have no record yet and are not listed.
    status: Option<RunStatus>,
    /// Only runs accepted at this time or later (RFC 3339).
    #[param(inline)]
    from: Option<Time>,
    /// Only runs accepted before this time (RFC 3339).
    #[param(inline)]
    to: Option<Time>,
    /// How many items to give at most.
    #[serde(default)]
    #[param(inline, required = false)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A run without its payloads.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Run)]
pub(crate) struct RunView {
    /// The run's id.
    pub(crate) id: RunId,
    /// What runs; null while it is queued, and where it was cancelled before a worker took it.
    pub(crate) workflow_id: Option<WorkflowId>,
    /// In which version; null where the workflow is.
    pub(crate) version: Option<u32>,
    /// What started it; null where the workflow is.
    pub(crate) trigger: Option<TriggerKind>,
    /// Where it is; never `skipped`.
    pub(crate) status: RunStatus,
    /// When it was accepted.
    pub(crate) accepted_at: Time,
    /// When a worker first took it.
    pub(crate) started_at: Option<Time>,
    /// When it ended.
    pub(crate) finished_at: Option<Time>,
    /// Milliseconds from its start to its end, waits included.
    pub(crate) duration_ms: Option<i64>,
    /// Until when it waits, while it is `waiting`.
    pub(crate) wake_at: Option<Time>,
    /// Why it failed.
    pub(crate) error: Option<StepError>,
    /// Which step failed.
    pub(crate) failed_step: Option<String>,
    /// The trace it belongs to: W3C trace id, as in the logs.
    pub(crate) trace_id: Option<String>,
    /// Somebody asked for it to be cancelled, and the worker that holds it hasn't ended it yet.
    pub(crate) cancel_requested: bool,
    /// The step of another run that called it and waits for its end.
    pub(crate) called_by: Option<CalledBy>,
}

/// The step that called a run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CalledBy {
    /// The run that calls.
    run_id: RunId,
    /// Its step.
    step: String,
    /// Which item of the step's list, from 0; null where it has none.
    item: Option<u32>,
}

impl From<ParentStep> for CalledBy {
    fn from(parent: ParentStep) -> Self {
        Self { run_id: parent.run_id, step: parent.step, item: parent.item }
    }
}

impl RunView {
    /// A run that no worker has taken yet.
    pub(crate) fn queued(id: RunId) -> Self {
        Self {
            id,
            workflow_id: None,
            version: None,
            trigger: None,
            status: RunStatus::Queued,
            accepted_at: id.timestamp().into(),
            started_at: None,
            finished_at: None,
            duration_ms: None,
            wake_at: None,
            error: None,
            failed_step: None,
            trace_id: None,
            cancel_requested: false,
            called_by: None,
        }
    }
}

impl From<RunRow> for RunView {
    fn from(row: RunRow) -> Self {
        // A run that was cancelled before a worker took it never started, and until its message comes nobody knows of what
        // it is.
        let started_at = (row.fence > 0).then_some(row.started_at);
        let known = row.workflow != WorkflowId::UNKNOWN;
        Self {
            id: row.id,
            workflow_id: known.then_some(row.workflow),
            version: known.then_some(row.version),
            trigger: known.then_some(row.trigger),
            status: row.status,
            accepted_at: row.accepted_at.into(),
            started_at: started_at.map(Time::from),
            finished_at: row.finished_at.map(Time::from),
            duration_ms: started_at
                .zip(row.finished_at)
                .map(|(start, end)| end.as_millisecond() - start.as_millisecond()),
            wake_at: row.wake_at.filter(|_| row.status == RunStatus::Waiting).map(Time::from),
            error: row.error,
            failed_step: row.failed_step,
            trace_id: row.traceparent.split('-').nth(1).map(str::to_owned),
            cancel_requested: row.cancel_requested && !row.status.is_final(),
            called_by: row.parent.map(CalledBy::from),
        }
    }
}

/// List runs
///
/// Newest first, each as a small row without payloads. Runs that no worker has taken yet are not among them; ask for
/// them by their id.
#[utoipa::path(
    get, path = "/api/runs", tag = "runs", params(RunsQuery),
    responses((status = 200, description = "Newest first", body = ListOf<RunView>)),
)]
pub(crate) async fn list_runs(
    caller: Caller<RunsRead>,
    State(deps): State<Deps>,
    Query(query): Query<RunsQuery>,
) -> Result<Json<ListOf<RunView>>, Problem> {
    if let Some(status) = query.status.filter(|status| matches!(status, RunStatus::Queued | RunStatus::Skipped)) {
        return Err(unlisted(status));
    }
    let RunsQuery { workflow_id: workflow, status, from, to, limit, cursor } = query;
    let filter = RunFilter { workflow, status, from: from.map(Time::into), to: to.map(Time::into) };
    let found = deps.store.runs().list(caller.tenant, &filter, cursor.as_deref(), limit.get() as usize).await?;
    let items = found.items.into_iter().map(RunView::from).collect();
    Ok(Json(ListOf { items, next_cursor: found.next_cursor }))
}

fn unlisted(status: RunStatus) -> Problem {
    let detail = match status {
        RunStatus::Queued => {
            "Queued runs lie in the queue and have no record until a worker takes them, so they can't be listed. Ask for \
             one by its id: GET /api/runs/{id}."
        }
        _ => "No run has this status, only steps have; list by another one.",
    };
    Problem::new(ProblemCode::ValidationFailed, detail)
        .with_errors(vec![FieldError::new("/status".into(), "can't be listed")])
}
