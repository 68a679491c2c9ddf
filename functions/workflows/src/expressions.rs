//! Trying out an expression, as the editor does while it is written.

use axum::extract::State;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};
use tidegate_engine::{Data, ExpressionError, Scope, preview, trigger_names};
use tidegate_http::permission::WorkflowsRead;
use tidegate_http::{Caller, Json, Problem, Time};
use tidegate_model::{FieldError, Pointer, TenantId, TriggerKind, check_json_value};
use utoipa::ToSchema;

use crate::Deps;

/// What to evaluate: one of `expression` and `template`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EvaluateExpression {
    /// One expression, in braces or not.
    #[schema(nullable = false, examples("order.total > 100"))]
    expression: Option<String>,
    /// Any JSON whose strings may hold `{{ expression }}`, as a step's input has them.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Value>, nullable = false, examples("Hello {{ user.name }}!"))]
    template: Option<Value>,
    /// What it sees.
    #[serde(default)]
    #[schema(required = false)]
    context: Context,
}

/// What the expressions see, in the place of a run. What is left out is empty.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EvaluationContext)]
pub(crate) struct Context {
    /// The trigger's body; its fields are at the top of the scope, and reserved names win over them.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Value>, nullable = false)]
    body: Option<Value>,
    /// The workflow's parameters.
    #[serde(default)]
    params: Map<String, Value>,
    /// The steps before, by id: `{"fetch": {"output": {"status": 200}}}`.
    #[serde(default)]
    steps: Map<String, Value>,
    /// The item, in a step with `foreach`.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Value>, nullable = false)]
    item: Option<Value>,
    /// Its position, from 0.
    #[schema(nullable = false)]
    index: Option<u32>,
    /// The run.
    #[serde(default)]
    run: Map<String, Value>,
    /// The workflow.
    #[serde(default)]
    workflow: Map<String, Value>,
    /// When the run began, RFC 3339; without it the present time.
    #[schema(nullable = false)]
    now: Option<String>,
}

/// What it comes to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Evaluated {
    /// The value.
    value: Value,
    /// Its type: `null`, `boolean`, `number`, `string`, `array` or `object`.
    #[serde(rename = "type")]
    #[schema(examples("string"))]
    kind: &'static str,
}

/// Null counts as given.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Evaluate an expression
///
/// Evaluates an expression, or everything in a template, on made-up values, within the bounds that a step of a run has.
/// Nothing is stored or called. What is wrong with it is told with its place.
#[utoipa::path(
    post, path = "/api/expressions/evaluate", tag = "workflows",
    request_body = EvaluateExpression,
    responses((status = 200, description = "The value", body = Evaluated)),
)]
pub(crate) async fn evaluate_expression(
    caller: Caller<WorkflowsRead>,
    State(deps): State<Deps>,
    Json(body): Json<EvaluateExpression>,
) -> Result<Json<Evaluated>, Problem> {
    let now = Time(deps.clock.now());
    let tenant = caller.tenant;
    // It may take as long as a step's expressions do.
    let evaluated = tokio::task::spawn_blocking(move || evaluate(body, tenant, now)).await;
    let value = evaluated.map_err(|error| Problem::internal(&error))?;
    let value = value.map_err(|error| Problem::validation(vec![error]))?;
    Ok(Json(Evaluated { kind: type_of(&value), value }))
}

fn evaluate(body: EvaluateExpression, tenant: TenantId, now: Time) -> Result<Value, FieldError> {
    let EvaluateExpression { expression, template, context } = body;
    let scope = scope(context, tenant, now)?;
    let root = Pointer::root();
    match (expression, template) {
        (Some(expression), None) => {
            scope.evaluate(&expression).map_err(|message| FieldError::new(root.push("expression"), message))
        }
        (None, Some(template)) => {
            check_bounds(&template, "template")?;
            let filled = scope.fill_one(&template, &root.push("template"));
            filled.map_err(|ExpressionError { pointer, message }| FieldError::new(pointer, message))
        }
        (Some(_), Some(_)) => Err(FieldError::new(root, "takes only one of expression, template")),
        (None, None) => Err(FieldError::new(root, "needs one of expression, template")),
    }
}

fn scope(context: Context, tenant: TenantId, now: Time) -> Result<Scope, FieldError> {
    let Context { body, params, steps, item, index, run, workflow, now: given_now } = context;
    let data = |name: &str, value: Value| {
        check_bounds(&value, &format!("context/{name}"))?;
        Ok(Data::from(&value))
    };
    let body = data("body", body.unwrap_or_else(|| json!({})))?;
    let reserved = [
        ("trigger", trigger_names(TriggerKind::Manual, None, None, body.clone())),
        ("params", data("params", Value::Object(params))?),
        ("steps", data("steps", Value::Object(steps))?),
        ("run", data("run", Value::Object(run))?),
        ("workflow", data("workflow", Value::Object(workflow))?),
        ("tenant", Data::from(&json!({ "id": tenant }))),
        ("now", Data::from(&given_now.map_or_else(|| json!(now), Value::String))),
    ];
    let scope = preview(body, reserved);
    let item = item.map(|item| data("item", item)).transpose()?.map(|item| ("item".to_owned(), item));
    let index = index.map(|index| ("index".to_owned(), Data::from(&json!(index))));
    Ok(scope.with(item.into_iter().chain(index)))
}

/// What comes from outside is as deep and has as many values as a run's data.
fn check_bounds(value: &Value, place: &str) -> Result<(), FieldError> {
    check_json_value(value).map_err(|error| {
        let at = Pointer::from(format!("/{place}").as_str());
        FieldError::new(at, format!("has {error}"))
    })
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
