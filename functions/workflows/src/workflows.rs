//! Workflows: a small head that says which version is current and whether it runs, and immutable versions.

use std::collections::HashSet;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use tidegate_http::permission::{WorkflowsRead, WorkflowsWrite};
use tidegate_http::{
    Caller, Change, Created, ETag, IfMatch, Json, ListOf, PageQuery, Path, Problem, ProblemCode, Query, Raw,
    RequestContext, Time,
};
use tidegate_model::{
    AuditEntry, Definition, FailureHandler, FieldError, MAX_DEFINITION_BYTES, Parameter, Permission, Pointer, Step,
    TenantId, Trigger, Workflow, WorkflowId,
};
use tidegate_store::{Error, RunFilter};
use utoipa::ToSchema;

use crate::connections::ours;
use crate::{Deps, check, schedule};

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
}

impl From<Workflow> for WorkflowView {
    fn from(workflow: Workflow) -> Self {
        let Workflow { id, name, active, version, trigger, created_at, updated_at, .. } = workflow;
        let webhook_url = matches!(trigger, Trigger::Webhook {}).then(|| format!("/api/webhooks/{id}"));
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
    let workflow = Workflow {
        id: deps.ids.workflow(),
        tenant: caller.tenant,
        name: definition.name.clone(),
        active: active.unwrap_or(true),
        version: 1,
        revision: 1,
        trigger: definition.trigger.clone(),
        connections: definition.connections(),
        created_at: now,
        updated_at: now,
    };
    context.record("workflow_id", workflow.id);
    let view = WorkflowView::from(workflow.clone());
    let entry = caller.audit(&deps.ids, Change::of("workflow.create", workflow.id).to(&view));
    deps.store.audited(entry).workflows().create(&workflow, &definition).await?;
    if matches!(workflow.trigger, Trigger::Schedule { .. })
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
    let detail = WorkflowDetail { head: view, definition, last_run_at: None };
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
    let after = Workflow {
        name: definition.name.clone(),
        active: active.unwrap_or(before.active),
        version: before.version + 1,
        trigger: definition.trigger.clone(),
        connections: definition.connections(),
        ..next_revision(&deps, &before)
    };
    let entry = caller.audit(&deps.ids, changed("workflow.update", &before, &after));
    let stored = store_head(&deps, &before, &after, Some(&definition), entry).await?;
    stored.ok_or_else(Problem::precondition_failed)?;
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
    let after = Workflow { active, ..next_revision(&deps, &before) };
    let entry = caller.audit(&deps.ids, changed("workflow.toggle", &before, &after));
    store_head(&deps, &before, &after, None, entry).await?.ok_or_else(|| {
        Problem::new(ProblemCode::Conflict, "Somebody else changed the workflow at the same moment. Try again.")
    })?;
    Ok((ETag(after.revision), Json(after.into())))
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
    let scheduled = matches!(workflow.trigger, Trigger::Schedule { .. });
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

/// Refuses steps with connections that the stored version doesn't use, to a caller who may not have workflows use any.
fn may_use_connections(
    caller: &Caller<WorkflowsWrite>,
    definition: &Definition,
    stored: Option<&Definition>,
) -> Result<(), Problem> {
    if caller.permissions.contains(&Permission::ConnectionsUse) {
        return Ok(());
    }
    let used: HashSet<_> =
        stored.into_iter().flat_map(|stored| &stored.steps).filter_map(|step| step.connection).collect();
    let is_new = |step: &Step| step.connection.is_some_and(|connection| !used.contains(&connection));
    let refused = definition.steps.iter().enumerate().filter(|(_, step)| is_new(step));
    let errors: Vec<_> = refused
        .map(|(index, _)| {
            let pointer = Pointer::root().push("steps").push(index).push("connection");
            let detail = format!("your role doesn't hold {}; leave out the connection", Permission::ConnectionsUse);
            FieldError::new(pointer, detail)
        })
        .collect();
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
    Ok((ETag(workflow.revision), Json(WorkflowDetail { head: workflow.into(), definition, last_run_at })))
}

fn next_revision(deps: &Deps, before: &Workflow) -> Workflow {
    Workflow { revision: before.revision + 1, updated_at: deps.clock.now(), ..before.clone() }
}

/// A change of the head. What a version's definition was, the version itself keeps.
fn changed(action: &'static str, before: &Workflow, after: &Workflow) -> Change {
    let [before, after] = [before, after].map(|workflow| WorkflowView::from(workflow.clone()));
    Change::of(action, before.id).from(&before).to(&after)
}

/// Sets the timer and then writes the head, see [`schedule`]. `None`: the head is no longer the one from before.
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
        Ok(()) => Ok(Some(())),
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
