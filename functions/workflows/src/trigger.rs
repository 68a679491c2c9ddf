//! Starting a workflow by hand.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::LOCATION;
use serde_json::{Map, Value};
use tidegate_http::permission::WorkflowsRun;
use tidegate_http::{Accepted, Caller, Json, Path, Problem, ProblemCode, Raw, RequestContext, Start, StartBody};
use tidegate_model::{
    Definition, FieldError, INLINE_LIMIT_BYTES, JsonError, Pointer, TriggerKind, WorkflowId, parse_json,
};
use utoipa::ToSchema;

use crate::{Deps, workflows};

/// What to start a run with.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes the body in the document; the body may be absent and is read by hand")]
pub(crate) struct TriggerWorkflow {
    /// Values of the workflow's parameters, together up to 8 KB of JSON; those that are left out have their defaults.
    #[schema(nullable = false)]
    parameters: Option<Map<String, Value>>,
    /// What the workflow sees as the trigger's body: any JSON; without it an empty object.
    #[schema(value_type = Option<Value>, nullable = false)]
    body: Option<Value>,
}

/// Start a run by hand
///
/// Starts the workflow's current version whatever its trigger is, and also where it is switched off, so that it can be
/// tried before it is switched on. The body is optional; `parameters` are checked against those that the workflow
/// declares, and unknown ones are refused.
#[utoipa::path(
    post, path = "/api/workflows/{id}/trigger", tag = "workflows", params(("id" = WorkflowId, Path)),
    request_body(content = Option<TriggerWorkflow>, content_type = "application/json"),
    responses((
        status = 202, description = "The run is stored and will be executed", body = Accepted,
        headers(("Location" = String, description = "The run's address")),
    )),
)]
pub(crate) async fn trigger_workflow(
    caller: Caller<WorkflowsRun>,
    State(deps): State<Deps>,
    Path(id): Path<WorkflowId>,
    context: RequestContext,
    Raw(body): Raw,
) -> Result<Response, Problem> {
    context.record("workflow_id", id);
    let (workflow, definition) = workflows::current(&deps, caller.tenant, id).await?;
    let Given { parameters, body } = read(&body)?;
    check(&definition, &parameters).map_err(Problem::validation)?;
    let start = Start {
        run_id: deps.ids.run(caller.tenant),
        tenant: caller.tenant,
        workflow: id,
        version: workflow.version,
        kind: TriggerKind::Manual,
        content_type: None,
        request: None,
        body: StartBody::Value(body),
        parameters,
        accepted_at: deps.clock.now(),
        blob: Start::BLOB.to_owned(),
    };
    let accepted = start.send(&*deps.queue, &*deps.blobs, &context).await?;
    let location = format!("/api/runs/{}", accepted.run_id);
    Ok((StatusCode::ACCEPTED, [(LOCATION, location)], Json(accepted)).into_response())
}

struct Given {
    parameters: Map<String, Value>,
    body: Value,
}

/// What the request brings, within the bounds that JSON from outside has.
fn read(body: &[u8]) -> Result<Given, Problem> {
    let mut given = Given { parameters: Map::new(), body: Value::Object(Map::new()) };
    if body.trim_ascii().is_empty() {
        return Ok(given);
    }
    let document = parse_json(body).map_err(|error| {
        let detail = match error {
            JsonError::Broken(error) => format!("The body is no JSON: {error}."),
            JsonError::OutOfBounds(error) => format!("The body's JSON has {error}."),
        };
        Problem::new(ProblemCode::MalformedRequest, detail)
    })?;
    let invalid = |at: Pointer, detail: &str| Problem::validation(vec![FieldError::new(at, detail)]);
    let fields = match document {
        Value::Null => return Ok(given),
        Value::Object(fields) => fields,
        _ => {
            let detail = "expected a JSON object such as {\"parameters\": {}, \"body\": {}}";
            return Err(invalid(Pointer::root(), detail));
        }
    };
    let mut unknown = Vec::new();
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("parameters", Value::Object(parameters)) => given.parameters = parameters,
            ("parameters", Value::Null) => {}
            ("parameters", _) => return Err(invalid(Pointer::root().push("parameters"), "expected an object")),
            ("body", value) => given.body = value,
            _ => {
                let detail = "unknown field; what the workflow is to see belongs in \"body\"";
                unknown.push(FieldError::new(Pointer::root().push(name), detail));
            }
        }
    }
    if unknown.is_empty() { Ok(given) } else { Err(Problem::validation(unknown)) }
}

fn check(definition: &Definition, parameters: &Map<String, Value>) -> Result<(), Vec<FieldError>> {
    let at = Pointer::root().push("parameters");
    // They stay in the run's message and row.
    if serde_json::to_string(parameters).map_or(0, |text| text.len()) > INLINE_LIMIT_BYTES {
        let detail = format!("have more than {INLINE_LIMIT_BYTES} bytes of JSON; send large values in the body");
        return Err(vec![FieldError::new(at, detail)]);
    }
    definition.arguments(parameters).map(drop).map_err(|errors| crate::check::under(&at, errors).collect())
}
