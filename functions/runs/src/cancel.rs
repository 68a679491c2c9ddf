//! Cancelling a run, wherever it is.

use axum::extract::State;
use http::StatusCode;
use tidegate_http::permission::RunsWrite;
use tidegate_http::{Caller, Json, Path, Problem, ProblemCode, RequestContext};
use tidegate_model::{RunId, RunRow, RunStatus};
use tidegate_store::Cancel;

use crate::Deps;
use crate::detail::may_be_queued;
use crate::list::RunView;
use crate::wake::wake;

/// Cancel a run
///
/// A queued or waiting run is `cancelled` at once. One that a worker holds is still `running` in the answer, with
/// `cancel_requested`: the worker drops the call in flight within seconds, and whether that call took effect is then
/// unknown. A run that is over is 409.
#[utoipa::path(
    post, path = "/api/runs/{id}/cancel", tag = "runs", params(("id" = RunId, Path)),
    responses((status = 202, description = "It is cancelled, or will be", body = RunView)),
)]
pub(crate) async fn cancel_run(
    caller: Caller<RunsWrite>,
    State(deps): State<Deps>,
    Path(id): Path<RunId>,
    context: RequestContext,
) -> Result<(StatusCode, Json<RunView>), Problem> {
    context.record("run_id", id);
    let (tenant, now) = (caller.tenant, deps.clock.now());
    let runs = deps.store.runs();
    if !may_be_queued(tenant, id, now) && runs.get(tenant, id).await?.is_none() {
        return Err(Problem::not_found());
    }
    match runs.cancel(tenant, id, now).await? {
        Cancel::Unclaimed(row) | Cancel::Requested(row) => Ok((StatusCode::ACCEPTED, Json(row.into()))),
        Cancel::Final(row) => {
            wake(&deps, &row).await?;
            Ok((StatusCode::ACCEPTED, Json(row.into())))
        }
        Cancel::AlreadyFinal(row) => {
            // Who cancelled it may have failed before the wake, and now tries again.
            if row.status == RunStatus::Cancelled && row.wake > 0 {
                wake(&deps, &row).await?;
            }
            Err(is_over(&row))
        }
    }
}

fn is_over(row: &RunRow) -> Problem {
    let ended = match row.status {
        RunStatus::Succeeded => "succeeded",
        RunStatus::Failed => "failed",
        RunStatus::TimedOut => "timed out",
        RunStatus::Cancelled => "was cancelled",
        RunStatus::Queued | RunStatus::Running | RunStatus::Waiting | RunStatus::Skipped => "ended",
    };
    let at = row.finished_at.map(|at| format!(" at {at:.3}")).unwrap_or_default();
    Problem::new(ProblemCode::Conflict, format!("The run {ended}{at}; there is nothing left to cancel."))
}
