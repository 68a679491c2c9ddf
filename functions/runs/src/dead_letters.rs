//! Runs that were given up, and how they are started again: as new runs, from what they were started from, in the same
//! version. The new run's id is on record before its start is sent, so however often that is repeated it is one run.

use axum::extract::State;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tidegate_http::permission::{RunsRead, RunsWrite};
use tidegate_http::{Caller, Json, ListOf, PageQuery, Path, Problem, ProblemCode, Query, RequestContext, Time};
use tidegate_model::{
    BlobRef, DeadLetter, ErrorCode, FieldError, Message, Payload, RunId, StartMessage, TenantId, WorkflowId,
};
use tidegate_platform::blobs::{KEPT, LIVE};
use tidegate_platform::queue::OutgoingMessage;
use tidegate_store::MAX_PAGE;
use utoipa::ToSchema;

use crate::Deps;

/// How many runs one request names.
const MAX_IDS: usize = 100;
/// How many runs one request for all of them starts: that many fit into the time that an answer may take.
const MAX_STARTED: usize = 500;
/// How many letters one request for all of them looks at, most of which may have been started again before.
const MAX_EXAMINED: usize = 2_000;
/// How many are started at the same time.
const AT_ONCE: usize = 16;

/// A run that was given up.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub(crate) struct DeadLetterView {
    /// The run.
    id: RunId,
    /// The workflow that it ran.
    workflow_id: WorkflowId,
    /// Why it was given up.
    code: ErrorCode,
    /// The same in words.
    message: String,
    /// How often a worker received it.
    receive_count: u32,
    /// When it was accepted.
    accepted_at: Time,
    /// When it was given up.
    given_up_at: Time,
    /// The run that it was started again as; null if it wasn't.
    redriven_as: Option<RunId>,
    /// When it was started again.
    redriven_at: Option<Time>,
}

impl From<DeadLetter> for DeadLetterView {
    fn from(letter: DeadLetter) -> Self {
        Self {
            id: letter.id,
            workflow_id: letter.workflow,
            code: letter.code,
            message: letter.message,
            receive_count: letter.receive_count,
            accepted_at: letter.accepted_at.into(),
            given_up_at: letter.given_up_at.into(),
            redriven_as: letter.redriven.as_ref().map(|redriven| redriven.run_id),
            redriven_at: letter.redriven.map(|redriven| redriven.at.into()),
        }
    }
}

/// A run that was started again.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RedrivenRun {
    /// The new run's id, for `GET /api/runs/{id}`.
    run_id: RunId,
}

/// Which runs to start again: `ids` or `all`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RedriveDeadLetters {
    /// These, at most 100.
    #[schema(max_items = 100)]
    ids: Option<Vec<RunId>>,
    /// All that weren't started again yet.
    #[serde(default)]
    all: bool,
    /// With `all`: the `next_cursor` of the answer before, to go on from there.
    cursor: Option<String>,
}

/// What was started again.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Redrive {
    /// The runs that were started again, and as which.
    redriven: Vec<RedrivenLetter>,
    /// The runs that could not be, and why.
    failed: Vec<FailedLetter>,
    /// Whether there may be others; then ask again with `next_cursor`.
    more: bool,
    /// Where the next request for all goes on; null at the end.
    next_cursor: Option<String>,
}

/// A run that was started again.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RedrivenLetter {
    /// The run that was given up.
    id: RunId,
    /// The new run.
    run_id: RunId,
}

/// A run that could not be started again.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FailedLetter {
    /// The run that was given up.
    id: RunId,
    /// Why it could not be started again.
    detail: String,
}

/// List runs that were given up
///
/// Those of the newest runs first, with what each of them failed of. They are kept for 30 days.
#[utoipa::path(
    get, path = "/api/dead-letters", tag = "runs", params(PageQuery),
    responses((status = 200, description = "Newest first", body = ListOf<DeadLetterView>)),
)]
pub(crate) async fn list_dead_letters(
    caller: Caller<RunsRead>,
    State(deps): State<Deps>,
    Query(page): Query<PageQuery>,
) -> Result<Json<ListOf<DeadLetterView>>, Problem> {
    let letters = deps.store.dead_letters();
    let found = letters.list(caller.tenant, page.cursor.as_deref(), page.limit.get() as usize).await?;
    let items = found.items.into_iter().map(DeadLetterView::from).collect();
    Ok(Json(ListOf { items, next_cursor: found.next_cursor }))
}

/// Start again a run that was given up
///
/// As a new run, with the same input and in the same version of its workflow. Asked again it answers the same run.
#[utoipa::path(
    post, path = "/api/dead-letters/{id}/redrive", tag = "runs",
    params(("id" = RunId, Path, description = "The run that was given up")),
    responses((status = 202, description = "The new run is stored and will be executed", body = RedrivenRun)),
)]
pub(crate) async fn redrive_dead_letter(
    caller: Caller<RunsWrite>,
    State(deps): State<Deps>,
    Path(id): Path<RunId>,
    context: RequestContext,
) -> Result<(StatusCode, Json<RedrivenRun>), Problem> {
    let letter = deps.store.dead_letters().get(caller.tenant, id).await?.ok_or_else(Problem::not_found)?;
    let run_id = redrive(&deps, &context, letter)
        .await?
        .map_err(|unusable| Problem::new(ProblemCode::Conflict, format!("It can't be started again: {unusable}.")))?;
    context.record("run_id", run_id);
    Ok((StatusCode::ACCEPTED, Json(RedrivenRun { run_id })))
}

/// Start again several or all runs that were given up
///
/// Each as `POST /api/dead-letters/{id}/redrive` does. For `all`, at most 500 by one request: while `more` is true, ask
/// again with `next_cursor`.
#[utoipa::path(
    post, path = "/api/dead-letters/redrive", tag = "runs", request_body = RedriveDeadLetters,
    responses((status = 202, description = "The new runs are stored and will be executed", body = Redrive)),
)]
pub(crate) async fn redrive_dead_letters(
    caller: Caller<RunsWrite>,
    State(deps): State<Deps>,
    context: RequestContext,
    Json(body): Json<RedriveDeadLetters>,
) -> Result<(StatusCode, Json<Redrive>), Problem> {
    let redrive = match body {
        RedriveDeadLetters { ids: Some(ids), all: false, cursor: None } => {
            if ids.is_empty() || ids.len() > MAX_IDS {
                return Err(invalid("/ids", "must have 1 to 100 ids"));
            }
            some(&deps, &context, caller.tenant, ids).await?
        }
        RedriveDeadLetters { ids: None, all: true, cursor } => all(&deps, &context, caller.tenant, cursor).await?,
        RedriveDeadLetters { all: false, cursor: Some(_), .. } => return Err(invalid("/cursor", "goes with all only")),
        _ => return Err(invalid("", "needs either ids or all")),
    };
    Ok((StatusCode::ACCEPTED, Json(redrive)))
}

fn invalid(field: &str, detail: &str) -> Problem {
    Problem::validation(vec![FieldError::new(field.into(), detail)])
}

async fn some(deps: &Deps, context: &RequestContext, tenant: TenantId, ids: Vec<RunId>) -> Result<Redrive, Problem> {
    let outcomes = futures::stream::iter(ids).map(async |id| {
        let outcome = match deps.store.dead_letters().get(tenant, id).await? {
            Some(letter) => redrive(deps, context, letter).await?,
            None => Err("no run of this id was given up".to_owned()),
        };
        Ok::<_, Problem>((id, outcome))
    });
    Ok(Redrive::of(outcomes.buffered(AT_ONCE).try_collect().await?))
}

async fn all(
    deps: &Deps,
    context: &RequestContext,
    tenant: TenantId,
    mut cursor: Option<String>,
) -> Result<Redrive, Problem> {
    let mut redriven = Redrive::default();
    for _ in 0..MAX_EXAMINED / MAX_PAGE {
        let page = deps.store.dead_letters().list(tenant, cursor.as_deref(), MAX_PAGE).await?;
        let letters = page.items.into_iter().filter(|letter| letter.redriven.is_none());
        let outcomes = futures::stream::iter(letters)
            .map(async |letter| Ok::<_, Problem>((letter.id, redrive(deps, context, letter).await?)));
        redriven.add(outcomes.buffered(AT_ONCE).try_collect().await?);
        cursor = page.next_cursor;
        if cursor.is_none() || redriven.redriven.len() + redriven.failed.len() + MAX_PAGE > MAX_STARTED {
            break;
        }
    }
    redriven.more = cursor.is_some();
    redriven.next_cursor = cursor;
    Ok(redriven)
}

impl Redrive {
    fn of(outcomes: Vec<(RunId, Result<RunId, String>)>) -> Self {
        let mut redrive = Self::default();
        redrive.add(outcomes);
        redrive
    }

    fn add(&mut self, outcomes: Vec<(RunId, Result<RunId, String>)>) {
        for (id, outcome) in outcomes {
            match outcome {
                Ok(run_id) => self.redriven.push(RedrivenLetter { id, run_id }),
                Err(detail) => self.failed.push(FailedLetter { id, detail }),
            }
        }
    }
}

/// Starts a letter's run again, under the id that is on record for it. `Err` inside: what it started from is not usable.
async fn redrive(deps: &Deps, context: &RequestContext, letter: DeadLetter) -> Result<Result<RunId, String>, Problem> {
    let (tenant, id) = (letter.tenant, letter.id);
    let run_id = match &letter.redriven {
        Some(redriven) => {
            // A run with a row was taken from the queue, so its start was sent.
            if deps.store.runs().get(tenant, redriven.run_id).await?.is_some() {
                return Ok(Ok(redriven.run_id));
            }
            redriven.run_id
        }
        None => deps.ids.run(tenant),
    };
    let start = match start_of(deps, &letter.start).await? {
        Ok(start) if start.tenant_id == tenant => start,
        Ok(_) => return Err(Problem::internal(&Foreign { id })),
        Err(unusable) => return Ok(Err(unusable)),
    };
    let input = input_of(deps, tenant, &start.trigger.body).await?;
    if matches!(input, Input::Gone) {
        return Ok(Err("its input has expired".to_owned()));
    }
    let run_id = deps.store.dead_letters().mark_redriven(tenant, id, run_id, deps.clock.now()).await?;
    let mut trigger = start.trigger;
    if let Input::InBlob(bytes) = input {
        let blob = BlobRef { key: format!("{LIVE}/{tenant}/{run_id}/input"), bytes: bytes.len() as u64 };
        deps.blobs.put(&blob.key, bytes).await?;
        trigger.body = Payload::Blob(blob);
    }
    let message = Message::Start(Box::new(StartMessage {
        run_id,
        trigger,
        accepted_at: run_id.timestamp(),
        traceparent: context.traceparent(),
        // What called the run has heard of its end.
        parent: None,
        ..start
    }));
    let text = serde_json::to_string(&message).map_err(|error| Problem::internal(&error))?;
    let trace = Some(context.trace.to_xray());
    deps.queue.send(OutgoingMessage { trace, ..OutgoingMessage::new(tenant, text) }).await?;
    Ok(Ok(run_id))
}

/// What a letter's run started from.
async fn start_of(deps: &Deps, start: &Payload) -> Result<Result<StartMessage, String>, Problem> {
    let read = match start {
        Payload::Inline(value) => StartMessage::deserialize(value),
        Payload::Blob(blob) => match deps.blobs.get(&blob.key).await? {
            Some(bytes) => serde_json::from_slice(&bytes),
            None => return Ok(Err("what it started from has expired".to_owned())),
        },
    };
    read.map(Ok).map_err(|error| Problem::internal(&error))
}

/// Where a start's input is.
enum Input {
    InStart,
    InBlob(Bytes),
    Gone,
}

async fn input_of(deps: &Deps, tenant: TenantId, body: &Payload) -> Result<Input, Problem> {
    let Payload::Blob(blob) = body else { return Ok(Input::InStart) };
    // The run that ended has moved it to where it expires.
    let name = [LIVE, KEPT].into_iter().find_map(|lifetime| blob.key.strip_prefix(&format!("{lifetime}/{tenant}/")));
    let Some(name) = name else { return Ok(Input::Gone) };
    for lifetime in [KEPT, LIVE] {
        if let Some(bytes) = deps.blobs.get(&format!("{lifetime}/{tenant}/{name}")).await? {
            return Ok(Input::InBlob(bytes));
        }
    }
    Ok(Input::Gone)
}

/// A letter that holds another tenant's start.
#[derive(Debug)]
struct Foreign {
    id: RunId,
}

impl std::fmt::Display for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the dead letter {} holds another tenant's start", self.id)
    }
}

impl std::error::Error for Foreign {}
