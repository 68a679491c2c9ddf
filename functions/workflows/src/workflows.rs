//! Workflows: a small head that says which version is current and whether it runs, and immutable versions.

use std::collections::HashSet;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use tidegate_http::permission::{WorkflowsRead, WorkflowsWrite};
use tidegate_http::{
    Caller, Change, Created, ETag, IfMatch, Json, ListOf, PageQuery, Path, Problem, ProblemCode, Query, Raw,
    RequestContext, Time,
};
use tidegate_model::{
    AuditEntry, ConnectionId, Definition, FailureHandler, FieldError, MAX_DEFINITION_BYTES, Parameter, Permission,
    Pointer, Step, TenantId, Trigger, Workflow, WorkflowId,
};
use tidegate_store::{Error, RunFilter};
use utoipa::ToSchema;

use crate::connections::ours;
use crate::{Deps, check, schedule, verification};

/// How long a webhook listens, unless it is asked again.
const LISTENING: Duration = Duration::from_secs(600);

/// How many of the times to come a workflow tells.
const NEXT_FIRINGS: usize = 5;

/// A workflow to store: its definition, and whether it is active.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes the body in the document; the body is read as JSON and then parsed")]
pub(crate) struct SaveWorkflow {
    /// Name for display: 1 to 200 characters.
    #[schema(examples("Order alerts"))]
    name: String,
    /// What it is for: up to 2,000 characters.
    description: Option<String>,
    trigger: Trigger,
    /// What a run is started with, beside the trigger's body: up to 100.
    #[schema(nullable = false)]
    parameters: Option<Vec<Parameter>>,
    /// What it does: 1 to 1,000 steps, one after the other where they don't say otherwise.
    steps: Vec<Step>,
    /// What a run yields to a workflow that calls this one; strings may hold `{{ expression }}`.
    #[schema(value_type = Option<Value>, nullable = false)]
    output: Option<Value>,
    /// What to do when a run fails or takes too long.
    on_failure: Option<FailureHandler>,
    /// Seconds after which a run is stopped, waits included; default 300, up to a year.
    #[schema(nullable = false, minimum = 1, maximum = 31_622_400)]
    execution_timeout: Option<u32>,
    /// Whether its trigger starts runs; a new workflow's default is true, a replaced one's is what it was.
    #[schema(nullable = false)]
    active: Option<bool>,
}

/// What to switch a workflow to.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes the body in the document; the body may be absent and is read by hand")]
pub(crate) struct ToggleWorkflow {
    /// Active or not; without it, the other than now.
    #[schema(nullable = false)]
    active: Option<bool>,
}

/// A workflow's head.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Workflow)]
pub(crate) struct WorkflowView {
    /// The workflow's id.
    id: WorkflowId,
    /// Name for display.
    name: String,
    /// Whether its trigger starts runs.
    active: bool,
    /// The current version's number, from 1.
    version: u32,
    trigger: Trigger,
    /// Where to post what starts a run, below this API's address; only for webhook triggers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("/api/webhooks/wf_01890a5d000070008000000000000000"))]
    webhook_url: Option<String>,
    /// When it was made.
    created_at: Time,
    /// When it was last changed.
    updated_at: Time,
}

/// A workflow with its current version.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WorkflowDetail {
    #[serde(flatten)]
    head: WorkflowView,
    /// The current version; what a replacement's body looks like.
    definition: Definition,
    /// When its last run began; null before the first.
    last_run_at: Option<Time>,
    /// The next five times for which its schedule starts a run, fewer where it ends before; null where no schedule
    /// starts it, or it is switched off. With jitter a run may begin that much later.
    #[schema(max_items = 5)]
    next_firings: Option<Vec<Time>>,
}

impl From<Workflow> for WorkflowView {
    fn from(workflow: Workflow) -> Self {
        let Workflow { id, name, active, version, trigger, created_at, updated_at, .. } = workflow;
        let webhook_url = trigger.webhook().is_some().then(|| format!("/api/webhooks/{id}"));
        let (created_at, updated_at) = (created_at.into(), updated_at.into());
        Self { id, name, active, version, trigger, webhook_url, created_at, updated_at }
    }
}

/// Create a workflow
///
/// Stores version 1 of a workflow. What is wrong with it is told field by field, and then nothing is stored. Steps with a
/// connection need the permission `connections:use` too.
#[utoipa::path(
    post, path = "/api/workflows", tag = "workflows",
    request_body = SaveWorkflow,
    responses((
        status = 201, description = "The workflow", body = WorkflowDetail,
        headers(
            ("Location" = String, description = "The workflow's address"),
            ("ETag" = String, description = "Its revision, for If-Match"),
        ),
    )),
)]
pub(crate) async fn create_workflow(
    caller: Caller<WorkflowsWrite>,
    State(deps): State<Deps>,
    context: RequestContext,
    Json(body): Json<Value>,
) -> Result<Response, Problem> {
    let (definition, active) = read(&deps, caller.tenant, None, body).await?;
    may_use_connections(&caller, &definition, None)?;
    let now = deps.clock.now();
    let id = deps.ids.workflow();
    let secret = verification::source(&deps, caller.tenant, &definition.trigger).await?;
    let workflow = Workflow {
        id,
        tenant: caller.tenant,
        name: definition.name.clone(),
        active: active.unwrap_or(true),
        version: 1,
        revision: 1,
        trigger: definition.trigger.clone(),
        connections: definition.connections(),
        verification: verification::seal(&deps, id, secret.as_ref()).await?,
        listening_until: None,
        created_at: now,
        updated_at: now,
    };
    context.record("workflow_id", workflow.id);
    let view = WorkflowView::from(workflow.clone());
    let entry = caller.audit(&deps.ids, Change::of("workflow.create", workflow.id).to(&view));
    deps.store.audited(entry).workflows().create(&workflow, &definition).await?;
    verification::settle(&deps, &workflow, secret.as_ref()).await?;
    if matches!(workflow.trigger, Trigger::Schedule(_))
        && let Err(error) = schedule::apply(&deps, &workflow).await
    {
        // Repeating the request would make a second one. The log can't take back that it was made, so it tells this too.
        let entry = caller.audit(&deps.ids, Change::of("workflow.delete", workflow.id).from(&view));
        if let Err(error) = deps.store.audited(entry).workflows().delete(workflow.tenant, workflow.id).await {
            tracing::error!(error = &error as &dyn std::error::Error, "a workflow is left without its schedule");
        }
        return Err(error.into());
    }
    let location = format!("/api/workflows/{}", workflow.id);
    let etag = ETag(workflow.revision);
    let next_firings = next_firings(&deps, &workflow);
    let detail = WorkflowDetail { head: view, definition, last_run_at: None, next_firings };
    Ok((etag, Created { location, body: detail }).into_response())
}

/// List workflows
#[utoipa::path(
    get, path = "/api/workflows", tag = "workflows", params(PageQuery),
    responses((status = 200, description = "Newest first", body = ListOf<WorkflowView>)),
)]
pub(crate) async fn list_workflows(
    caller: Caller<WorkflowsRead>,
    State(deps): State<Deps>,
    Query(page): Query<PageQuery>,
) -> Result<Json<ListOf<WorkflowView>>, Problem> {
    let found = deps.store.workflows().list(caller.tenant, page.cursor.as_deref(), page.limit.get() as usize).await?;
    let items = found.items.into_iter().map(WorkflowView::from).collect();
    Ok(Json(ListOf { items, next_cursor: found.next_cursor }))
}

/// Get a workflow
#[utoipa::path(
    get, path = "/api/workflows/{id}", tag = "workflows", params(("id" = WorkflowId, Path)),
    responses((
        status = 200, description = "The workflow with its current version", body = WorkflowDetail,
        headers(("ETag" = String, description = "Its revision, for If-Match")),
    )),
)]
pub(crate) async fn get_workflow(
    caller: Caller<WorkflowsRead>,
    State(deps): State<Deps>,
    Path(id): Path<WorkflowId>,
) -> Result<(ETag, Json<WorkflowDetail>), Problem> {
    let (workflow, definition) = current(&deps, caller.tenant, id).await?;
    detail(&deps, workflow, definition).await
}

/// Replace a workflow
///
/// Stores a new version, which is the current one from then on; runs that have begun go on in theirs. `If-Match` names
/// the revision that it replaces. Steps with a connection that the version before doesn't use need the permission
/// `connections:use` too.
#[utoipa::path(
    put, path = "/api/workflows/{id}", tag = "workflows",
    params(("id" = WorkflowId, Path), ("If-Match" = String, Header, description = "The `ETag` that was read")),
    request_body = SaveWorkflow,
    responses((
        status = 200, description = "The workflow with its new version", body = WorkflowDetail,
        headers(("ETag" = String, description = "Its new revision")),
    )),
)]
pub(crate) async fn replace_workflow(
    caller: Caller<WorkflowsWrite>,
    State(deps): State<Deps>,
    Path(id): Path<WorkflowId>,
    if_match: IfMatch,
    Json(body): Json<Value>,
) -> Result<(ETag, Json<WorkflowDetail>), Problem> {
    let before = head(&deps, caller.tenant, id).await?;
    if_match.check(before.revision)?;
    let (definition, active) = read(&deps, caller.tenant, Some(id), body).await?;
    if !caller.permissions.contains(&Permission::ConnectionsUse) {
        let stored = deps.store.workflows().definition(caller.tenant, id, before.version).await?;
        may_use_connections(&caller, &definition, stored.as_ref())?;
    }
    let secret = verification::source(&deps, caller.tenant, &definition.trigger).await?;
    let active = active.unwrap_or(before.active);
    let after = Workflow {
        name: definition.name.clone(),
        active,
        listening_until: listening(&before, active),
        version: before.version + 1,
        trigger: definition.trigger.clone(),
        connections: definition.connections(),
        verification: verification::seal(&deps, id, secret.as_ref()).await?,
        ..next_revision(&deps, &before)
    };
    let entry = caller.audit(&deps.ids, changed("workflow.update", &before, &after));
    let stored = store_head(&deps, &before, &after, Some(&definition), entry).await?;
    stored.ok_or_else(Problem::precondition_failed)?;
    verification::settle(&deps, &after, secret.as_ref()).await?;
    detail(&deps, after, definition).await
}

/// Switch a workflow on or off
///
/// Without a body it is switched to the other state. Repeating it with the state it has makes sure of its schedule.
#[utoipa::path(
    put, path = "/api/workflows/{id}/toggle", tag = "workflows", params(("id" = WorkflowId, Path)),
    request_body(content = Option<ToggleWorkflow>, content_type = "application/json"),
    responses((
        status = 200, description = "The workflow's head", body = WorkflowView,
        headers(("ETag" = String, description = "Its new revision")),
    )),
)]
pub(crate) async fn toggle_workflow(
    caller: Caller<WorkflowsWrite>,
    State(deps): State<Deps>,
    Path(id): Path<WorkflowId>,
    Raw(body): Raw,
) -> Result<(ETag, Json<WorkflowView>), Problem> {
    let wanted = wanted_state(&body)?;
    let before = head(&deps, caller.tenant, id).await?;
    let active = wanted.unwrap_or(!before.active);
    let after = Workflow { active, listening_until: listening(&before, active), ..next_revision(&deps, &before) };
    let entry = caller.audit(&deps.ids, changed("workflow.toggle", &before, &after));
    store_head(&deps, &before, &after, None, entry).await?.ok_or_else(|| {
        Problem::new(ProblemCode::Conflict, "Somebody else changed the workflow at the same moment. Try again.")
    })?;
    Ok((ETag(after.revision), Json(after.into())))
}

/// Until when a webhook listens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ListeningView {
    /// Until then, what comes for the switched-off workflow is kept to be looked at, and starts nothing; null where it
    /// doesn't listen.
    listening_until: Option<Time>,
}

/// Listen to a workflow's webhook
///
/// For 10 minutes what comes for the webhook of a workflow that is switched off is kept to be looked at, and starts
/// nothing: `GET /api/workflows/{id}/deliveries`. Where the workflow is switched on its requests start runs as ever, and are
/// shown there too. It takes up to five seconds to begin.
#[utoipa::path(
    put, path = "/api/workflows/{id}/listen", tag = "workflows", params(("id" = WorkflowId, Path)),
    responses((status = 200, description = "It listens", body = ListeningView)),
)]
pub(crate) async fn listen_workflow(
    caller: Caller<WorkflowsWrite>,
    State(deps): State<Deps>,
    Path(id): Path<WorkflowId>,
) -> Result<Json<ListeningView>, Problem> {
    let until = deps.clock.now() + LISTENING;
    set_listening(&deps, &caller, id, Some(until)).await.map(Json)
}

/// Stop listening to a workflow's webhook
#[utoipa::path(
    delete, path = "/api/workflows/{id}/listen", tag = "workflows", params(("id" = WorkflowId, Path)),
    responses((status = 204, description = "It doesn't listen")),
)]
pub(crate) async fn stop_listening(
    caller: Caller<WorkflowsWrite>,
    State(deps): State<Deps>,
    Path(id): Path<WorkflowId>,
) -> Result<StatusCode, Problem> {
    set_listening(&deps, &caller, id, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The head keeps its revision: nothing of what people see of it changes, and whoever edits it at the same time wins.
async fn set_listening(
    deps: &Deps,
    caller: &Caller<WorkflowsWrite>,
    id: WorkflowId,
    until: Option<Timestamp>,
) -> Result<ListeningView, Problem> {
    let before = head(deps, caller.tenant, id).await?;
    if before.trigger.webhook().is_none() {
        let detail = "This workflow isn't started by a webhook; give it the trigger {\"type\": \"webhook\"}.";
        return Err(Problem::new(ProblemCode::Conflict, detail));
    }
    let after = Workflow { listening_until: until, ..before.clone() };
    let view = |workflow: &Workflow| ListeningView { listening_until: workflow.listening_until.map(Time::from) };
    let change = Change::of("workflow.listen", id).from(&view(&before)).to(&view(&after));
    let entry = caller.audit(&deps.ids, change);
    deps.store.audited(entry).workflows().replace(before.revision, &after, None).await?;
    Ok(view(&after))
}

/// Delete a workflow
///
/// Nothing starts it any more, after 5 seconds at the latest. Runs that wait in the queue fail with `workflow_gone`;
/// records of runs stay.
#[utoipa::path(
    delete, path = "/api/workflows/{id}", tag = "workflows", params(("id" = WorkflowId, Path)),
    responses((status = 204, description = "It is gone")),
)]
pub(crate) async fn delete_workflow(
    caller: Caller<WorkflowsWrite>,
    State(deps): State<Deps>,
    Path(id): Path<WorkflowId>,
) -> Result<StatusCode, Problem> {
    let workflow = head(&deps, caller.tenant, id).await?;
    let scheduled = matches!(workflow.trigger, Trigger::Schedule(_));
    if scheduled {
        schedule::remove(&deps, caller.tenant, id).await?;
    }
    let entry = caller.audit(&deps.ids, Change::of("workflow.delete", id).from(&WorkflowView::from(workflow)));
    let deleted = deps.store.audited(entry).workflows().delete(caller.tenant, id).await?;
    if scheduled {
        // A change at the same moment may have set it again before the head was gone.
        schedule::remove(&deps, caller.tenant, id).await?;
    }
    // Somebody else deleted it at the same moment, and the log says who.
    if deleted { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::not_found()) }
}

/// Refuses connections that the stored version doesn't use, to a caller who may not have workflows use any.
fn may_use_connections(
    caller: &Caller<WorkflowsWrite>,
    definition: &Definition,
    stored: Option<&Definition>,
) -> Result<(), Problem> {
    if caller.permissions.contains(&Permission::ConnectionsUse) {
        return Ok(());
    }
    let used: HashSet<_> = stored.into_iter().flat_map(Definition::connections).collect();
    let is_new = |connection: Option<ConnectionId>| connection.is_some_and(|connection| !used.contains(&connection));
    let trigger = Pointer::root().push("trigger").push("verify").push("connection");
    let of_trigger = definition.trigger.verification().map(|verify| (trigger, Some(verify.connection)));
    let of_steps = definition.steps.iter().enumerate();
    let of_steps =
        of_steps.map(|(index, step)| (Pointer::root().push("steps").push(index).push("connection"), step.connection));
    let refused = of_trigger.into_iter().chain(of_steps).filter(|(_, connection)| is_new(*connection));
    let detail = format!("your role doesn't hold {}; leave out the connection", Permission::ConnectionsUse);
    let errors: Vec<_> = refused.map(|(pointer, _)| FieldError::new(pointer, detail.clone())).collect();
    if errors.is_empty() {
        return Ok(());
    }
    Err(Problem::forbidden(Permission::ConnectionsUse).with_errors(errors))
}

async fn head(deps: &Deps, tenant: TenantId, id: WorkflowId) -> Result<Workflow, Problem> {
    deps.store.workflows().get(tenant, id).await?.ok_or_else(Problem::not_found)
}

/// A workflow with its current version.
pub(crate) async fn current(deps: &Deps, tenant: TenantId, id: WorkflowId) -> Result<(Workflow, Definition), Problem> {
    let workflow = head(deps, tenant, id).await?;
    let definition = deps.store.workflows().definition(tenant, id, workflow.version).await?;
    // The head is deleted before its versions are.
    Ok((workflow, definition.ok_or_else(Problem::not_found)?))
}

async fn detail(
    deps: &Deps,
    workflow: Workflow,
    definition: Definition,
) -> Result<(ETag, Json<WorkflowDetail>), Problem> {
    let filter = RunFilter { workflow: Some(workflow.id), ..RunFilter::default() };
    let last = deps.store.runs().list(workflow.tenant, &filter, None, 1).await?;
    let last_run_at = last.items.first().map(|run| run.started_at.into());
    let (etag, next_firings) = (ETag(workflow.revision), next_firings(deps, &workflow));
    Ok((etag, Json(WorkflowDetail { head: workflow.into(), definition, last_run_at, next_firings })))
}

fn next_firings(deps: &Deps, workflow: &Workflow) -> Option<Vec<Time>> {
    let Trigger::Schedule(schedule) = &workflow.trigger else { return None };
    let recurrence = schedule.recurrence(workflow.created_at).filter(|_| workflow.active)?;
    Some(recurrence.firings_after(deps.clock.now()).take(NEXT_FIRINGS).map(Time::from).collect())
}

/// Whoever switches a workflow doesn't want its deliveries to be looked at only: switched off, they are refused, and come again.
fn listening(before: &Workflow, active: bool) -> Option<Timestamp> {
    before.listening_until.filter(|_| before.active == active)
}

fn next_revision(deps: &Deps, before: &Workflow) -> Workflow {
    Workflow { revision: before.revision + 1, updated_at: deps.clock.now(), ..before.clone() }
}

/// A change of the head. What a version's definition was, the version itself keeps.
fn changed(action: &'static str, before: &Workflow, after: &Workflow) -> Change {
    let [before, after] = [before, after].map(|workflow| WorkflowView::from(workflow.clone()));
    Change::of(action, before.id).from(&before).to(&after)
}

/// Sets the timer, writes the head, and sets the timer once more, see [`schedule`]. `None`: the head is no longer the one from before.
async fn store_head(
    deps: &Deps,
    before: &Workflow,
    after: &Workflow,
    definition: Option<&Definition>,
    entry: AuditEntry,
) -> Result<Option<()>, Problem> {
    let scheduled = schedule::concerns(before, after);
    if scheduled {
        schedule::apply(deps, after).await?;
    }
    match deps.store.audited(entry).workflows().replace(before.revision, after, definition).await {
        Ok(()) => {
            if scheduled && let Err(error) = schedule::apply(deps, after).await {
                // It was set a moment ago, and only the reconciler may have been in between.
                tracing::warn!(error = &error as &dyn std::error::Error, "a schedule could not be set once more");
            }
            Ok(Some(()))
        }
        Err(Error::Conflict { .. }) => {
            if scheduled {
                match deps.store.workflows().get(before.tenant, before.id).await? {
                    Some(current) => schedule::apply(deps, &current).await?,
                    None => schedule::remove(deps, before.tenant, before.id).await?,
                }
            }
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// What a switch's body asks for; nothing where there is no body or it is empty.
fn wanted_state(body: &[u8]) -> Result<Option<bool>, Problem> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let document: Value = serde_json::from_slice(body)
        .map_err(|error| Problem::new(ProblemCode::MalformedRequest, format!("The body is no JSON: {error}.")))?;
    if document.is_null() {
        return Ok(None);
    }
    let Value::Object(mut fields) = document else {
        let detail = "expected a JSON object such as {\"active\": true}";
        return Err(Problem::validation(vec![FieldError::new(Pointer::root(), detail)]));
    };
    let active = take_active(&mut fields);
    let unknown = fields.keys().map(|field| FieldError::new(Pointer::root().push(field), "unknown field; remove it"));
    let errors: Vec<_> = active.clone().err().into_iter().chain(unknown).collect();
    if errors.is_empty() { Ok(active.unwrap_or_default()) } else { Err(Problem::validation(errors)) }
}

/// Reads a body and checks it against everything; `id` is the workflow that it replaces.
async fn read(
    deps: &Deps,
    tenant: TenantId,
    id: Option<WorkflowId>,
    body: Value,
) -> Result<(Definition, Option<bool>), Problem> {
    let (document, active) = split_active(body);
    let (definition, mut errors) = match Definition::parse(&document) {
        Ok(definition) => (Some(definition), Vec::new()),
        Err(errors) => (None, errors),
    };
    let active = active.unwrap_or_else(|error| {
        errors.push(error);
        None
    });
    if let Some(definition) = &definition {
        if serde_json::to_string(definition).map_or(0, |text| text.len()) > MAX_DEFINITION_BYTES {
            let detail = format!("is larger than {MAX_DEFINITION_BYTES} bytes of JSON; split the workflow");
            errors.push(FieldError::new(Pointer::root(), detail));
        }
        errors.extend(check::check(deps, tenant, id, definition).await.map_err(ours)?);
    }
    match definition {
        Some(definition) if errors.is_empty() => Ok((definition, active)),
        Some(_) | None => Err(Problem::validation(errors)),
    }
}

/// The definition's own document, and `active` beside it.
fn split_active(body: Value) -> (Value, Result<Option<bool>, FieldError>) {
    let Value::Object(mut fields) = body else { return (body, Ok(None)) };
    let active = take_active(&mut fields);
    (Value::Object(fields), active)
}

fn take_active(fields: &mut Map<String, Value>) -> Result<Option<bool>, FieldError> {
    match fields.shift_remove("active") {
        None => Ok(None),
        Some(Value::Bool(active)) => Ok(Some(active)),
        Some(_) => Err(FieldError::new(Pointer::root().push("active"), "expected true or false")),
    }
}
