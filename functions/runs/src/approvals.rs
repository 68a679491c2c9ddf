//! Approvals: the page behind an approval's link, and the decision. Whoever has the link decides; nothing else lets one.
//!
//! The link's text is canonical before anything is looked up by it, and what was verified is what is acted on. A GET
//! decides nothing, because mail scanners and chat previews open links. The first decision stands; the same one again
//! only wakes the run again.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::{FromRequest as _, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_http::{Json, Path, Problem, ProblemCode, Public, Raw, RequestContext, Time};
use tidegate_model::{Approval, ApprovalToken, Decided, FieldError, RunId, RunRow, RunStatus, TenantStatus};
use utoipa::ToSchema;

use crate::wake::wake;
use crate::{Deps, approval_page};

/// A decision with the longest comment, as a form: each character up to 12 bytes, and the rest.
pub(crate) const MAX_BODY_BYTES: usize = 64 * 1024;
const MAX_COMMENT_CHARS: usize = 2_000;

/// An approval, as whoever has its link sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Approval)]
pub(crate) struct ApprovalView {
    /// The workflow's name; null where it is deleted.
    pub(crate) workflow: Option<String>,
    /// The run that waits.
    pub(crate) run_id: RunId,
    /// The step that waits.
    pub(crate) step: String,
    /// What is asked.
    pub(crate) message: Option<String>,
    /// Whether it can be decided, or what was decided.
    pub(crate) status: ApprovalStatus,
    /// Until when it can be decided; null: as long as the run waits.
    pub(crate) until: Option<Time>,
    /// When it was decided.
    pub(crate) decided_at: Option<Time>,
}

/// Where an approval is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ApprovalStatus {
    /// It can be decided.
    Open,
    /// It was approved.
    Approved,
    /// It was rejected.
    Rejected,
    /// Nobody decided in time.
    Expired,
    /// The run is over.
    Closed,
}

/// A decision.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DecideApproval {
    /// What is decided.
    decision: Decision,
    /// What the run is told besides; at most 2,000 characters.
    #[schema(max_length = 2_000)]
    comment: Option<String>,
}

/// What is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Decision {
    /// The run goes on at the outlet `approved`.
    Approve,
    /// The run goes on at the outlet `rejected`.
    Reject,
}

/// See an approval
///
/// The page behind the link that a run gives out for its `approval.wait`; as JSON where `Accept` names
/// `application/json`. It decides nothing. A link that is not exactly one that was given out is 404.
#[utoipa::path(
    get, path = "/api/approvals/{token}", tag = "runs",
    params(("token" = String, Path, description = "From the link")),
    responses((status = 200, description = "The approval", content(
        (ApprovalView = "application/json"),
        (String = "text/html"),
    ))),
)]
pub(crate) async fn get_approval(
    _: Public,
    State(deps): State<Deps>,
    Path(token): Path<String>,
    context: RequestContext,
    headers: HeaderMap,
) -> Response {
    let shown = async {
        let asked = Asked::find(&deps, &token, &context).await?;
        asked.view(&deps).await
    };
    Format::of_answer(&headers).answer(shown.await)
}

/// Decide an approval
///
/// Wakes the run that waits. The first decision stands: the same one again is 200, another one 409, as is one that comes
/// after the approval's time or the run's end.
#[utoipa::path(
    post, path = "/api/approvals/{token}", tag = "runs",
    params(("token" = String, Path, description = "From the link")),
    request_body(content(
        (DecideApproval = "application/json"),
        (DecideApproval = "application/x-www-form-urlencoded"),
    )),
    responses((status = 200, description = "It is decided so", content(
        (ApprovalView = "application/json"),
        (String = "text/html"),
    ))),
)]
pub(crate) async fn decide_approval(
    _: Public,
    State(deps): State<Deps>,
    Path(token): Path<String>,
    context: RequestContext,
    request: Request,
) -> Response {
    let format = Format::of_answer(request.headers());
    let decided = async {
        // Before the body is read: without a link nothing is.
        let asked = Asked::find(&deps, &token, &context).await?;
        let (decision, comment) = read(request).await?;
        asked.decide(&deps, decision, comment).await
    };
    format.answer(decided.await)
}

/// An approval whose link was verified.
struct Asked {
    token: ApprovalToken,
    approval: Approval,
    row: RunRow,
    now: Timestamp,
}

impl Asked {
    /// The approval that a link's text is for. Whatever is wrong with it, the answer is the same.
    async fn find(deps: &Deps, token: &str, context: &RequestContext) -> Result<Self, Problem> {
        let token: ApprovalToken = token.parse().map_err(|_| no_such_approval())?;
        let runs = deps.store.runs();
        let approval = runs.approval(token.tenant, token.run, &token.step).await?.ok_or_else(no_such_approval)?;
        let digest = hex(digest(&SHA256, &token.signature).as_ref());
        verify_slices_are_equal(digest.as_bytes(), approval.digest.as_bytes()).map_err(|_| no_such_approval())?;
        let tenant = deps.authenticator.tenants().get(token.tenant).await?.ok_or_else(no_such_approval)?;
        if tenant.status == TenantStatus::Suspended {
            return Err(Problem::tenant_suspended());
        }
        let stored = runs.get(token.tenant, token.run).await?.ok_or_else(no_such_approval)?;
        context.record("tenant_id", token.tenant);
        context.record("run_id", token.run);
        Ok(Self { token, approval, row: stored.row, now: deps.clock.now() })
    }

    fn status(&self) -> ApprovalStatus {
        match &self.approval.decided {
            Some(decided) if decided.approved => ApprovalStatus::Approved,
            Some(_) => ApprovalStatus::Rejected,
            None if self.row.status.is_final() => ApprovalStatus::Closed,
            None if self.approval.until.is_some_and(|until| until <= self.now) => ApprovalStatus::Expired,
            None => ApprovalStatus::Open,
        }
    }

    async fn view(self, deps: &Deps) -> Result<ApprovalView, Problem> {
        let workflow = deps.store.workflows().get(self.row.tenant, self.row.workflow).await?;
        Ok(ApprovalView {
            workflow: workflow.map(|workflow| workflow.name),
            run_id: self.row.id,
            status: self.status(),
            until: self.approval.until.map(Time::from),
            decided_at: self.approval.decided.map(|decided| decided.at.into()),
            step: self.token.step,
            message: self.approval.message,
        })
    }

    async fn decide(
        mut self,
        deps: &Deps,
        decision: Decision,
        comment: Option<String>,
    ) -> Result<ApprovalView, Problem> {
        match self.status() {
            ApprovalStatus::Closed => return Err(is_over(&self.row)),
            ApprovalStatus::Expired => return Err(too_late(self.approval.until)),
            ApprovalStatus::Open | ApprovalStatus::Approved | ApprovalStatus::Rejected => {}
        }
        let ApprovalToken { tenant, run, step, .. } = &self.token;
        let runs = deps.store.runs();
        let stands = match self.approval.decided.take() {
            Some(decided) => decided,
            None => {
                let approved = decision == Decision::Approve;
                let decided = Decided { approved, comment, at: self.now };
                let stands = runs.decide(*tenant, *run, step, &decided).await?.ok_or_else(no_such_approval)?;
                // The run may have parked, or ended, since we looked.
                self.row = runs.get(*tenant, *run).await?.ok_or_else(no_such_approval)?.row;
                if self.row.status.is_final() {
                    return Err(is_over(&self.row));
                }
                stands
            }
        };
        if stands.approved != (decision == Decision::Approve) {
            return Err(decided_otherwise(&stands));
        }
        if self.row.status == RunStatus::Waiting {
            wake(deps, &self.row).await?;
        }
        self.approval.decided = Some(stands);
        self.view(deps).await
    }
}

/// The same for every link that isn't good, so that nothing can be learned by trying.
fn no_such_approval() -> Problem {
    Problem::new(
        ProblemCode::NotFound,
        "There is no approval by this link. Check that it is complete; it may also be long over.",
    )
}

fn is_over(row: &RunRow) -> Problem {
    let at = row.finished_at.map(|at| format!(" at {at:.3}")).unwrap_or_default();
    Problem::new(ProblemCode::Conflict, format!("The run ended{at}, so nothing waits for this decision any more."))
}

fn too_late(until: Option<Timestamp>) -> Problem {
    let until = until.map(|until| format!(" at {until:.3}")).unwrap_or_default();
    Problem::new(ProblemCode::Conflict, format!("The time for this decision was over{until}."))
}

fn decided_otherwise(decided: &Decided) -> Problem {
    let what = if decided.approved { "approved" } else { "rejected" };
    let detail = format!("This was {what} at {:.3} already, and the first decision stands.", decided.at);
    Problem::new(ProblemCode::Conflict, detail)
}

/// The decision in a request's body, JSON or a form.
async fn read(request: Request) -> Result<(Decision, Option<String>), Problem> {
    let DecideApproval { decision, comment } = match media_type(request.headers()).as_deref() {
        Some("application/x-www-form-urlencoded") => {
            let Raw(bytes) = Raw::from_request(request, &()).await?;
            serde_urlencoded::from_bytes(&bytes).map_err(|_| {
                let detail = "The form needs a `decision`, `approve` or `reject`, and may have a `comment`.";
                Problem::new(ProblemCode::ValidationFailed, detail)
            })?
        }
        _ => Json::from_request(request, &()).await?.0,
    };
    // Browsers send a form's line ends as CRLF and count them as one.
    let comment = comment.map(|comment| comment.replace("\r\n", "\n").trim().to_owned());
    let comment = comment.filter(|comment| !comment.is_empty());
    if comment.as_ref().is_some_and(|comment| comment.chars().count() > MAX_COMMENT_CHARS) {
        let detail = format!("has more than {MAX_COMMENT_CHARS} characters");
        return Err(Problem::validation(vec![FieldError::new("/comment".into(), detail)]));
    }
    Ok((decision, comment))
}

fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next()?.trim().to_ascii_lowercase())
}

/// In which form the caller wants the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Html,
    Json,
}

impl Format {
    /// JSON where `Accept` names it, or a JSON body came along with an `Accept` that doesn't name HTML.
    fn of_answer(headers: &HeaderMap) -> Self {
        let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let accepted: Vec<_> = accept.flat_map(|value| value.split(',')).collect();
        let names = |media_type: &str| {
            accepted.iter().any(|range| range.split(';').next().unwrap_or_default().trim() == media_type)
        };
        let sent_json = media_type(headers).as_deref() == Some("application/json");
        if names("application/json") || (sent_json && !names("text/html")) { Self::Json } else { Self::Html }
    }

    fn answer(self, result: Result<ApprovalView, Problem>) -> Response {
        match (self, result) {
            (Self::Json, Ok(view)) => Json(view).into_response(),
            (Self::Html, Ok(view)) => approval_page::of_approval(&view),
            // A fault of ours keeps its request id.
            (Self::Html, Err(problem)) if problem.code().status().is_client_error() => {
                approval_page::of_problem(&problem)
            }
            (_, Err(problem)) => problem.into_response(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
