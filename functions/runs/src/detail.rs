//! One run with everything that happened in it.

use std::time::Duration;

use axum::extract::State;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;
use tidegate_engine::records;
use tidegate_http::permission::RunsRead;
use tidegate_http::{Caller, Json, Path, Problem, Time};
use tidegate_model::{
    Attempt, Entry, ItemRecord, Payload, RunDetail, RunId, RunRow, RunStatus, StepError, StepRecord, TenantId,
    TriggerInput, TriggerKind, WebhookRequest, WorkflowId,
};
use utoipa::ToSchema;

use crate::inline::{Inliner, Truncated};
use crate::list::RunView;
use crate::{Deps, inline};

/// How long a message stays in the run queue: a run without a record that is older never was, or is long gone.
const QUEUE_RETENTION: Duration = Duration::from_secs(10 * 86_400);
/// How far in the future an id's time may be, since clocks differ.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);

/// A run with its input and steps. Connections' secrets are not in it: they exist only in the calls. Headers that give
/// access are masked.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunDetailView {
    #[serde(flatten)]
    run: RunView,
    /// What started it; null while it is queued.
    input: Option<InputView>,
    /// Its steps, in the definition's order.
    steps: Vec<StepView>,
    /// What it yields, where its definition says so; null before its end.
    #[schema(value_type = Value)]
    output: Option<Value>,
    /// The output is too large to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    output_truncated: Option<Truncated>,
    /// The record was too large to show; then `input`, `steps` and `output` are missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<Truncated>,
}

/// What started a run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InputView {
    /// The kind of trigger.
    #[serde(rename = "type")]
    kind: TriggerKind,
    /// The media type of a webhook's body, as it was sent.
    content_type: Option<String>,
    /// The rest of a webhook's request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    request: Option<WebhookRequest>,
    /// The body: a JSON value for JSON and forms, else a string.
    #[schema(value_type = Value)]
    body: Option<Value>,
    /// The body is too large to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_truncated: Option<Truncated>,
    /// The parameters that were given.
    #[schema(value_type = Value)]
    parameters: Option<Value>,
    /// The parameters are too large to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters_truncated: Option<Truncated>,
}

/// What happened in one step.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RunStep)]
pub(crate) struct StepView {
    /// The step's id.
    id: String,
    /// The action it calls.
    uses: String,
    /// Where it is.
    status: RunStatus,
    /// When its first attempt began.
    started_at: Option<Time>,
    /// When its last attempt ended.
    finished_at: Option<Time>,
    /// Milliseconds from the first attempt's beginning to the last one's end, waits between them included.
    duration_ms: Option<i64>,
    /// Input of the last attempt, expressions filled in; null before the first.
    #[schema(value_type = Value)]
    input: Option<Value>,
    /// The input is too large to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    input_truncated: Option<Truncated>,
    /// What it yielded; null before that.
    #[schema(value_type = Value)]
    output: Option<Value>,
    /// The output is too large to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    output_truncated: Option<Truncated>,
    /// At which outlet the run went on, for a step that branches; null before that.
    outlet: Option<String>,
    /// Why it failed, or why its last attempt did.
    error: Option<StepError>,
    /// Every attempt, in order; a step with a list has them in its items.
    attempts: Vec<AttemptView>,
    /// What happened for each item, in a step with a list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    items: Vec<ItemView>,
    /// How many items at the list's end there was no room for.
    #[serde(skip_serializing_if = "Option::is_none")]
    items_left_out: Option<u32>,
}

/// What happened for one item of a step's list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RunItem)]
pub(crate) struct ItemView {
    /// Its position in the list, from 0.
    index: u32,
    /// Where it is.
    status: RunStatus,
    /// When its first attempt began.
    started_at: Option<Time>,
    /// When its last attempt ended.
    finished_at: Option<Time>,
    /// Milliseconds from the first attempt's beginning to the last one's end, waits between them included.
    duration_ms: Option<i64>,
    /// Input of the last attempt, expressions filled in; null before the first.
    #[schema(value_type = Value)]
    input: Option<Value>,
    /// The input is too large to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    input_truncated: Option<Truncated>,
    /// What it yielded; null before that.
    #[schema(value_type = Value)]
    output: Option<Value>,
    /// The output is too large to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    output_truncated: Option<Truncated>,
    /// Why it failed, or why its last attempt did.
    error: Option<StepError>,
    /// Every attempt, in order.
    attempts: Vec<AttemptView>,
}

/// One attempt at a step.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RunAttempt)]
pub(crate) struct AttemptView {
    /// From 1.
    number: u32,
    /// When it began.
    started_at: Time,
    /// When its outcome was known; null while it runs.
    finished_at: Option<Time>,
    /// Milliseconds from the one to the other.
    duration_ms: Option<i64>,
    /// Why it failed; null when it succeeded.
    error: Option<StepError>,
    /// The worker died during it, so whether the call took effect is unknown.
    interrupted: bool,
}

impl From<Attempt> for AttemptView {
    fn from(attempt: Attempt) -> Self {
        let Attempt { number, started_at, finished_at, duration_ms, error, interrupted } = attempt;
        let (started_at, finished_at) = (started_at.into(), finished_at.map(Time::from));
        Self { number, started_at, finished_at, duration_ms, error, interrupted }
    }
}

/// Get a run
///
/// With its steps, attempts, inputs, outputs and durations. A run that was accepted and that no worker has taken yet is
/// `queued`.
#[utoipa::path(
    get, path = "/api/runs/{id}", tag = "runs", params(("id" = RunId, Path)),
    responses((status = 200, description = "The run", body = RunDetailView)),
)]
pub(crate) async fn get_run(
    caller: Caller<RunsRead>,
    State(deps): State<Deps>,
    Path(id): Path<RunId>,
) -> Result<Json<RunDetailView>, Problem> {
    let Some(stored) = deps.store.runs().get(caller.tenant, id).await? else {
        let queued = may_be_queued(caller.tenant, id, deps.clock.now());
        return if queued { Ok(Json(self::queued(id))) } else { Err(Problem::not_found()) };
    };
    let mut inliner = Inliner::new(&*deps.blobs);
    let (detail, truncated) = match stored.detail {
        Some(payload) => inliner.detail(payload).await?,
        None => (from_journal(&deps, &stored.row).await?, None),
    };
    let RunDetail { trigger, steps, output } = detail;
    let input = match trigger {
        Some(trigger) => Some(input_view(&mut inliner, trigger).await?),
        None => None,
    };
    let mut step_views = Vec::with_capacity(steps.len());
    for step in steps {
        step_views.push(step_view(&mut inliner, step).await?);
    }
    let output = show(&mut inliner, output).await?;
    Ok(Json(RunDetailView {
        run: stored.row.into(),
        input,
        steps: step_views,
        output: output.value,
        output_truncated: output.truncated,
        truncated,
    }))
}

/// Whether a run without a row may lie in the queue: its id was made for the tenant, and a message from then may be
/// there still.
pub(crate) fn may_be_queued(tenant: TenantId, id: RunId, now: Timestamp) -> bool {
    let age = now.duration_since(id.timestamp());
    age < SignedDuration::try_from(QUEUE_RETENTION).unwrap_or(SignedDuration::MAX)
        && age > -CLOCK_SKEW
        && id.is_tagged_for(tenant)
}

fn queued(id: RunId) -> RunDetailView {
    RunDetailView {
        run: RunView::queued(id),
        input: None,
        steps: Vec::new(),
        output: None,
        output_truncated: None,
        truncated: None,
    }
}

/// What has happened in a run whose row doesn't tell: it isn't final, or was cancelled while it waited.
async fn from_journal(deps: &Deps, row: &RunRow) -> Result<RunDetail, Problem> {
    let (trigger, entries) = journaled(deps, row).await?;
    let definition = match row.workflow {
        WorkflowId::UNKNOWN => None,
        workflow => deps.store.workflows().definition(row.tenant, workflow, row.version).await?,
    };
    let steps = definition.map_or_else(Vec::new, |definition| records(&definition, &entries, row.status));
    Ok(RunDetail { trigger, steps, output: None })
}

/// What a run's journal holds: what started it, and what has happened.
pub(crate) async fn journaled(deps: &Deps, row: &RunRow) -> Result<(Option<TriggerInput>, Vec<Entry>), Problem> {
    if row.workflow == WorkflowId::UNKNOWN {
        return Ok((None, Vec::new()));
    }
    let mut trigger = None;
    let mut entries = Vec::new();
    for item in deps.store.runs().journal(row.tenant, row.id).await?.items {
        trigger = trigger.or(item.input);
        entries.extend(item.entries);
    }
    Ok((trigger, entries))
}

async fn input_view(inliner: &mut Inliner<'_>, trigger: TriggerInput) -> Result<InputView, Problem> {
    let TriggerInput { kind, content_type, request, body, parameters } = trigger;
    let body = inliner.show(body).await?;
    let parameters = inliner.show(Payload::Inline(Value::Object(parameters))).await?;
    Ok(InputView {
        kind,
        content_type,
        request: request.map(|request| *request),
        body: body.value,
        body_truncated: body.truncated,
        parameters: parameters.value,
        parameters_truncated: parameters.truncated,
    })
}

async fn step_view(inliner: &mut Inliner<'_>, step: StepRecord) -> Result<StepView, Problem> {
    let StepRecord { id, uses, status, input, output, outlet, error, attempts, items } = step;
    let input = show(inliner, input).await?;
    let output = show(inliner, output).await?;
    let tracks = items.iter().map(|item| &item.attempts).chain([&attempts]);
    let Span { started_at, finished_at, duration_ms } = Span::of(tracks);
    let count = items.len();
    let mut item_views = Vec::new();
    for item in items {
        if !inliner.takes(size_without_values(&item)) {
            break;
        }
        item_views.push(item_view(inliner, item).await?);
    }
    let left_out = u32::try_from(count - item_views.len()).unwrap_or(u32::MAX);
    Ok(StepView {
        id,
        uses,
        status,
        started_at,
        finished_at,
        duration_ms,
        input: input.value,
        input_truncated: input.truncated,
        output: output.value,
        output_truncated: output.truncated,
        outlet,
        error,
        attempts: attempts.into_iter().map(AttemptView::from).collect(),
        items: item_views,
        items_left_out: (left_out > 0).then_some(left_out),
    })
}

async fn item_view(inliner: &mut Inliner<'_>, item: ItemRecord) -> Result<ItemView, Problem> {
    let ItemRecord { index, status, input, output, error, attempts } = item;
    let input = show(inliner, input).await?;
    let output = show(inliner, output).await?;
    let Span { started_at, finished_at, duration_ms } = Span::of([&attempts]);
    Ok(ItemView {
        index,
        status,
        started_at,
        finished_at,
        duration_ms,
        input: input.value,
        input_truncated: input.truncated,
        output: output.value,
        output_truncated: output.truncated,
        error,
        attempts: attempts.into_iter().map(AttemptView::from).collect(),
    })
}

/// About how many bytes an item takes besides its values, which are counted when they are shown.
fn size_without_values(item: &ItemRecord) -> u64 {
    const ITEM: usize = 200;
    const ATTEMPT: usize = 200;
    let text = |error: &Option<StepError>| error.as_ref().map_or(0, |error| 100 + error.message.len());
    let attempts: usize = item.attempts.iter().map(|attempt| ATTEMPT + text(&attempt.error)).sum();
    (ITEM + text(&item.error) + attempts) as u64
}

/// From the first attempt's beginning to the last one's end.
struct Span {
    started_at: Option<Time>,
    finished_at: Option<Time>,
    duration_ms: Option<i64>,
}

impl Span {
    /// Over the attempts of a step, or of each of its items; no end while one goes on.
    fn of<'a>(tracks: impl IntoIterator<Item = &'a Vec<Attempt>>) -> Self {
        let tracks: Vec<_> = tracks.into_iter().filter_map(|attempts| attempts.first().zip(attempts.last())).collect();
        let start = tracks.iter().map(|(first, _)| first.started_at).min();
        // `None` is less than any time.
        let first_end = tracks.iter().map(|(_, last)| last.finished_at).min().flatten();
        let end = first_end.and_then(|_| tracks.iter().map(|(_, last)| last.finished_at).max().flatten());
        let duration_ms = start.zip(end).map(|(start, end)| end.as_millisecond() - start.as_millisecond());
        Self { started_at: start.map(Time::from), finished_at: end.map(Time::from), duration_ms }
    }
}

async fn show(inliner: &mut Inliner<'_>, payload: Option<Payload>) -> Result<inline::Shown, Problem> {
    let Some(payload) = payload else { return Ok(inline::Shown::default()) };
    let mut shown = inliner.show(payload).await?;
    if let Some(value) = &mut shown.value {
        mask_headers(value);
    }
    Ok(shown)
}

/// Hides in a request's or an answer's headers what gives access. Connections' secrets are never in a record; these are
/// what an author wrote into a step, or a target handed out.
fn mask_headers(value: &mut Value) {
    const NAMES: [&str; 5] = ["authorization", "cookie", "token", "secret", "api-key"];
    for (name, value) in value.get_mut("headers").and_then(Value::as_object_mut).into_iter().flatten() {
        let name = name.to_ascii_lowercase().replace('_', "-");
        if NAMES.iter().any(|secret| name.contains(secret)) || name == "apikey" {
            *value = Value::String("***".to_owned());
        }
    }
}
