//! A workflow's definition: what starts it and which steps it takes. Reading one from JSON checks all that can be
//! known without the connector catalogue; each error names its field by a JSON pointer.

mod graph;
mod parameter;
mod trigger;

use std::collections::HashSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::builtin::Builtin;
use crate::{
    ConnectionId, ErrorCode, FieldError, Pointer, Schedule, SealedVerification, StepError, TenantId, WebhookTrigger,
    WorkflowId, json,
};

pub use graph::{Edge, Graph, When};
pub use parameter::{Parameter, ParameterType};

/// The largest definition, as JSON: a version is one item of the store (400 KB) and a worker keeps many in memory.
pub const MAX_DEFINITION_BYTES: usize = 256 * 1024;
const MAX_STEPS: usize = 1_000;
const MAX_NAME_CHARS: usize = 200;
const MAX_DESCRIPTION_CHARS: usize = 2_000;
const MAX_STEP_TIMEOUT_MS: u64 = 240_000;
const MAX_EXECUTION_TIMEOUT_S: u32 = 31_622_400;
const MAX_ATTEMPTS: u32 = 25;
const MAX_RETRY_DELAY_MS: u64 = 86_400_000;
/// Calls of one step that may be under way at once.
const MAX_CONCURRENCY: u32 = 20;
/// Names of an expression's scope that a step can't take.
const RESERVED: [&str; 9] = ["trigger", "params", "steps", "item", "index", "run", "workflow", "tenant", "now"];

/// A workflow's head: which version is current, and whether it runs at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workflow {
    /// The workflow's id.
    pub id: WorkflowId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Name for display, from the current version.
    pub name: String,
    /// Whether its trigger starts runs.
    pub active: bool,
    /// The current version's number, from 1. A new one is made by each replacement.
    pub version: u32,
    /// Counts every change of this head, switching included; the `ETag`.
    pub revision: u64,
    /// The current version's trigger.
    pub trigger: Trigger,
    /// The connections that the current version uses, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub connections: Vec<ConnectionId>,
    /// What its webhook's requests are verified with. Where the trigger says `verify` and this is missing, none is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<SealedVerification>,
    /// Until when its webhook's requests are kept to be looked at, and start nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listening_until: Option<Timestamp>,
    /// When the workflow was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// One immutable version of a workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Name for display: 1 to 200 characters.
    pub name: String,
    /// What it is for: up to 2,000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What starts it.
    pub trigger: Trigger,
    /// What a run is started with, beside the trigger's body: up to 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Parameter>,
    /// What it does: 1 to 1,000 steps, one after the other where they don't say otherwise.
    pub steps: Vec<Step>,
    /// What a run yields to a workflow that calls this one; strings may hold `{{ expression }}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Value)]
    pub output: Option<Value>,
    /// What to do when a run fails or takes too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<FailureHandler>,
    /// Seconds after which a run is stopped, waits included; default 300, up to a year.
    #[serde(default = "default_execution_timeout")]
    pub execution_timeout: u32,
}

/// What is done about a run that failed or took too long. A handler's own failure starts none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FailureHandler {
    /// The workflow to start. Its body tells of the failure: `status`, `error`, `failed_step`, `run`, `workflow`.
    pub workflow: WorkflowId,
}

/// What starts a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Trigger {
    /// A request to `/api/webhooks/{workflow id}`.
    Webhook(Box<WebhookTrigger>),
    /// Nothing but the API and other workflows.
    Manual {},
    /// The clock.
    Schedule(Box<Schedule>),
}

impl Trigger {
    /// A webhook's own part.
    pub fn webhook(&self) -> Option<&WebhookTrigger> {
        match self {
            Self::Webhook(webhook) => Some(webhook),
            Self::Manual {} | Self::Schedule(_) => None,
        }
    }

    /// How its requests are verified.
    pub fn verification(&self) -> Option<&crate::Verification> {
        self.webhook()?.verify.as_ref()
    }
}

/// One action of a workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Names the step in expressions (`steps.<id>.output`): a lower-case letter, then up to 63 letters, digits or `_`.
    pub id: String,
    /// The action: `connector.action`, such as `slack.send_message`.
    pub uses: String,
    /// The credential that the action uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionId>,
    /// The steps that it follows: `step`, or `step.outlet` of a step that branches. It runs once all of them are settled
    /// and at least one of them leads here; else it is skipped. Without `after` it follows the step before it in the
    /// list; with an empty one the run begins with it, unless a `goto` leads to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Vec<String>>,
    /// Runs the step once for each item of a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreach: Option<Foreach>,
    /// The action's input; strings may hold `{{ expression }}`.
    #[serde(default)]
    pub with: Map<String, Value>,
    /// What to do after a failed attempt.
    #[serde(default)]
    pub retry: RetryPolicy,
    /// How long one attempt may take: 1 to 240,000 ms; default 30,000.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// What a failure for good means for the run.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// What to do when a worker died during a call that must not be made twice.
    #[serde(default)]
    pub on_interrupted: OnInterrupted,
}

/// How often and after which delay a failed attempt is repeated. The delay grows exponentially and is drawn at random
/// below that ("full jitter").
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// Attempts in all: 1 to 25; default 3.
    pub max_attempts: u32,
    /// Ceiling of the first delay: 1 to 86,400,000 ms; default 1,000.
    pub initial_delay_ms: u64,
    /// Factor from one ceiling to the next: 1 to 10; default 2.
    pub multiplier: f64,
    /// Ceiling of every delay: up to 86,400,000 ms; default 60,000.
    pub max_delay_ms: u64,
    /// Which failures are retried; by default all that may pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<Vec<RetryOn>>,
}

/// A kind of failure that may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetryOn {
    /// No connection to the target, or it broke.
    ConnectFailed,
    /// No answer within the step's timeout.
    StepTimeout,
    /// The target answered that it failed, in a way that may pass (408, 425, 5xx).
    TargetFailed,
    /// The target asked for fewer calls (429).
    RateLimited,
    /// The answer was not what the target's interface promises.
    ResponseInvalid,
}

impl RetryPolicy {
    /// Whether a failure is worth another attempt.
    pub fn retries(&self, error: &StepError) -> bool {
        let named = |on: &RetryOn| {
            error.code
                == match on {
                    RetryOn::ConnectFailed => ErrorCode::ConnectFailed,
                    RetryOn::StepTimeout => ErrorCode::StepTimeout,
                    RetryOn::TargetFailed => ErrorCode::TargetFailed,
                    RetryOn::RateLimited => ErrorCode::RateLimited,
                    RetryOn::ResponseInvalid => ErrorCode::ResponseInvalid,
                }
        };
        error.retryable && self.on.as_ref().is_none_or(|kinds| kinds.iter().any(named))
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_attempts: 3, initial_delay_ms: 1_000, multiplier: 2.0, max_delay_ms: 60_000, on: None }
    }
}

/// Runs a step once for each item of a list: `item` and `index` (from 0) in its expressions. The step's output is the list
/// of the items' outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Foreach {
    /// The list, or an expression that yields one: up to 1,000 items.
    #[schema(value_type = Value, examples("{{ order.lines }}"))]
    pub items: Value,
    /// How many items are worked on at once: 1 to 20; default 1.
    #[serde(default = "default_concurrency")]
    pub concurrency: u32,
    /// What an item's failure for good means for the step.
    #[serde(default)]
    pub on_item_failure: OnItemFailure,
}

/// What an item's failure for good means for its step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnItemFailure {
    /// No further item is begun, and the step fails.
    #[default]
    Stop,
    /// The item's output is null, and the others go on. `steps.<id>.errors` lists what failed: `index` and `error`.
    Continue,
}

/// What a step's failure for good means for the run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The run fails; later steps are skipped.
    #[default]
    Stop,
    /// The run goes on with the steps that follow.
    Continue,
    /// The run goes on with this step, and not with those that follow.
    Goto(String),
}

/// What to do when a worker died during a call whose effect is unknown. Reads and calls under an idempotency key that
/// the target honours are repeated whatever it says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnInterrupted {
    /// Make the call again, under the same idempotency key.
    #[default]
    Retry,
    /// Fail the step.
    Fail,
}

fn default_execution_timeout() -> u32 {
    300
}

fn default_timeout_ms() -> u64 {
    30_000
}

fn default_concurrency() -> u32 {
    1
}

/// The fields of a definition.
const FIELDS: [&str; 8] =
    ["name", "description", "trigger", "parameters", "steps", "output", "on_failure", "execution_timeout"];

impl Definition {
    /// The connections that its trigger and its steps use, sorted.
    pub fn connections(&self) -> Vec<ConnectionId> {
        let of_trigger = self.trigger.verification().map(|verify| verify.connection);
        let of_steps = self.steps.iter().filter_map(|step| step.connection);
        let used: std::collections::BTreeSet<_> = of_trigger.into_iter().chain(of_steps).collect();
        used.into_iter().collect()
    }

    /// Reads and checks a definition.
    ///
    /// # Errors
    /// Every error found, in the document's order; where the JSON has the wrong shape, the first of each part.
    pub fn parse(document: &Value) -> Result<Self, Vec<FieldError>> {
        let Value::Object(fields) = document else {
            return Err(vec![FieldError::new(Pointer::root(), "expected a JSON object")]);
        };
        check_bounds(document).map_err(|error| vec![error])?;
        let mut errors = Vec::new();
        for field in fields.keys() {
            if !FIELDS.contains(&field.as_str()) {
                errors.push(FieldError::new(Pointer::root().push(field), "unknown field; remove it"));
            }
        }
        let name: Option<String> = member(fields, "name", None, &mut errors);
        let description: Option<Option<String>> = member(fields, "description", Some(None), &mut errors);
        let trigger = parse_trigger(fields, &mut errors);
        let parameters = parse_list(fields, "parameters", Some(Vec::new()), &mut errors);
        let steps = parse_list(fields, "steps", None, &mut errors);
        let on_failure: Option<Option<FailureHandler>> = member(fields, "on_failure", Some(None), &mut errors);
        let execution_timeout = member(fields, "execution_timeout", Some(default_execution_timeout()), &mut errors);
        let output = fields.get("output").cloned();
        let (
            Some(name),
            Some(description),
            Some(trigger),
            Some(parameters),
            Some(steps),
            Some(on_failure),
            Some(execution_timeout),
            true,
        ) = (name, description, trigger, parameters, steps, on_failure, execution_timeout, errors.is_empty())
        else {
            return Err(errors);
        };
        let definition = Self { name, description, trigger, parameters, steps, output, on_failure, execution_timeout };
        definition.check(&mut errors);
        // The graph of steps whose names are wrong would only tell the same again.
        if errors.is_empty() {
            errors.extend(Graph::new(&definition).err().into_iter().flatten());
        }
        if errors.is_empty() { Ok(definition) } else { Err(errors) }
    }

    fn check(&self, errors: &mut Vec<FieldError>) {
        let root = Pointer::root();
        match &self.trigger {
            Trigger::Webhook(webhook) => webhook.check(&root.push("trigger"), errors),
            Trigger::Schedule(schedule) => schedule.check(&root.push("trigger"), errors),
            Trigger::Manual {} => {}
        }
        let mut ensure = |holds: bool, pointer: Pointer, detail: &str| {
            if !holds {
                errors.push(FieldError::new(pointer, detail));
            }
        };
        let name_chars = self.name.trim().chars().count();
        ensure((1..=MAX_NAME_CHARS).contains(&name_chars), root.push("name"), "must have 1 to 200 characters");
        ensure(
            self.description.as_ref().is_none_or(|text| text.chars().count() <= MAX_DESCRIPTION_CHARS),
            root.push("description"),
            "must have at most 2000 characters",
        );
        ensure(
            (1..=MAX_EXECUTION_TIMEOUT_S).contains(&self.execution_timeout),
            root.push("execution_timeout"),
            "must be 1 to 31622400 seconds",
        );
        let steps = root.push("steps");
        ensure((1..=MAX_STEPS).contains(&self.steps.len()), steps.clone(), "must have 1 to 1000 steps");
        let parameters = root.push("parameters");
        ensure(
            self.parameters.len() <= parameter::MAX_PARAMETERS,
            parameters.clone(),
            "must have at most 100 parameters",
        );
        let mut names = HashSet::new();
        for (index, parameter) in self.parameters.iter().enumerate() {
            let name = parameters.push(index).push("name");
            ensure(names.insert(&parameter.name), name, "is the name of an earlier parameter; names must be unique");
        }
        let mut seen = HashSet::new();
        for (index, step) in self.steps.iter().enumerate() {
            let at = steps.push(index);
            ensure(
                is_step_id(&step.id),
                at.push("id"),
                "must be a lower-case letter, then up to 63 lower-case letters, digits or _",
            );
            ensure(
                !RESERVED.contains(&step.id.as_str()),
                at.push("id"),
                "is reserved in expressions; choose another name",
            );
            ensure(seen.insert(step.id.as_str()), at.push("id"), "is the id of an earlier step; ids must be unique");
            ensure(
                (1..=MAX_STEP_TIMEOUT_MS).contains(&step.timeout_ms),
                at.push("timeout_ms"),
                "must be 1 to 240000 milliseconds",
            );
            let retry = at.push("retry");
            ensure(
                (1..=MAX_ATTEMPTS).contains(&step.retry.max_attempts),
                retry.push("max_attempts"),
                "must be 1 to 25",
            );
            ensure(
                (1..=MAX_RETRY_DELAY_MS).contains(&step.retry.initial_delay_ms),
                retry.push("initial_delay_ms"),
                "must be 1 to 86400000 milliseconds",
            );
            ensure((1.0..=10.0).contains(&step.retry.multiplier), retry.push("multiplier"), "must be 1 to 10");
            ensure(
                (1..=MAX_RETRY_DELAY_MS).contains(&step.retry.max_delay_ms),
                retry.push("max_delay_ms"),
                "must be 1 to 86400000 milliseconds",
            );
            if let Some(foreach) = &step.foreach {
                let at = at.push("foreach");
                ensure((1..=MAX_CONCURRENCY).contains(&foreach.concurrency), at.push("concurrency"), "must be 1 to 20");
                ensure(
                    foreach.items.is_array() || foreach.items.is_string(),
                    at.push("items"),
                    "must be a list, or an expression that yields one, such as \"{{ order.lines }}\"",
                );
                let branches = Builtin::named(&step.uses).is_some_and(Builtin::branches);
                ensure(!branches, at, "an action with outlets can't run for each item; branch in a step of its own");
            }
        }
        for (index, parameter) in self.parameters.iter().enumerate() {
            parameter.check(&parameters.push(index), errors);
        }
    }
}

/// Refuses what couldn't be read again within another document.
fn check_bounds(document: &Value) -> Result<(), FieldError> {
    let mut track = serde_path_to_error::Track::new();
    let checked = json::check(serde_path_to_error::Deserializer::new(document, &mut track));
    checked.map_err(|error| FieldError::new(pointer(Pointer::root(), &track.path()), format!("has {error}")))
}

pub(crate) fn is_step_id(id: &str) -> bool {
    id.len() <= 64
        && id.starts_with(|c: char| c.is_ascii_lowercase())
        && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Reads one field; a missing one takes the default, or is an error where there is none.
fn member<T: DeserializeOwned>(
    fields: &Map<String, Value>,
    name: &str,
    default: Option<T>,
    errors: &mut Vec<FieldError>,
) -> Option<T> {
    match fields.get(name) {
        Some(value) => parse_at(value, Pointer::root().push(name), errors),
        None => {
            if default.is_none() {
                errors.push(FieldError::new(Pointer::root().push(name), "is required"));
            }
            default
        }
    }
}

/// Reads the trigger. What is chosen by its `type` is read on its own, so that an error names the field in it.
fn parse_trigger(fields: &Map<String, Value>, errors: &mut Vec<FieldError>) -> Option<Trigger> {
    let Some(Value::Object(trigger)) = fields.get("trigger") else { return member(fields, "trigger", None, errors) };
    let at = Pointer::root().push("trigger");
    let mut content = trigger.clone();
    match content.shift_remove("type").as_ref().and_then(Value::as_str) {
        Some("webhook") => parse_at(&Value::Object(content), at, errors).map(Trigger::Webhook),
        Some("schedule") => parse_at(&Value::Object(content), at, errors).map(Trigger::Schedule),
        _ => member(fields, "trigger", None, errors),
    }
}

/// Reads a list, telling what is wrong with each of its elements.
fn parse_list<T: DeserializeOwned>(
    fields: &Map<String, Value>,
    name: &str,
    default: Option<Vec<T>>,
    errors: &mut Vec<FieldError>,
) -> Option<Vec<T>> {
    let at = Pointer::root().push(name);
    match fields.get(name) {
        Some(Value::Array(elements)) => {
            let parsed: Vec<_> =
                elements.iter().enumerate().map(|(index, element)| parse_at(element, at.push(index), errors)).collect();
            parsed.into_iter().collect()
        }
        Some(_) => {
            errors.push(FieldError::new(at, "expected a list"));
            None
        }
        None => {
            if default.is_none() {
                errors.push(FieldError::new(at, "is required"));
            }
            default
        }
    }
}

fn parse_at<T: DeserializeOwned>(value: &Value, at: Pointer, errors: &mut Vec<FieldError>) -> Option<T> {
    let error = match serde_path_to_error::deserialize(value) {
        Ok(parsed) => return Some(parsed),
        Err(error) => error,
    };
    errors.push(FieldError::new(pointer(at, error.path()), error.inner().to_string()));
    None
}

fn pointer(at: Pointer, path: &serde_path_to_error::Path) -> Pointer {
    use serde_path_to_error::Segment;
    path.iter().fold(at, |pointer, segment| match segment {
        Segment::Seq { index } => pointer.push(index),
        Segment::Map { key } => pointer.push(key),
        Segment::Enum { .. } | Segment::Unknown => pointer,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn minimal() -> Value {
        json!({
            "name": "Order alerts",
            "trigger": {"type": "webhook"},
            "steps": [{"id": "notify", "uses": "slack.send_message", "with": {"text": "Hello {{user.name}}!"}}],
        })
    }

    fn errors_of(change: impl FnOnce(&mut Value)) -> Vec<(String, String)> {
        let mut document = minimal();
        change(&mut document);
        Definition::parse(&document)
            .expect_err("should not parse")
            .into_iter()
            .map(|error| (error.pointer.to_string(), error.detail))
            .collect()
    }

    #[test]
    fn defaults_are_filled_in() {
        let definition = Definition::parse(&minimal()).unwrap();
        assert_eq!(definition.execution_timeout, 300);
        assert_eq!(definition.steps[0].retry, RetryPolicy::default());
        assert_eq!(definition.steps[0].timeout_ms, 30_000);
        let again = serde_json::to_value(&definition).unwrap();
        assert_eq!(Definition::parse(&again).unwrap(), definition);
    }

    #[test]
    fn every_error_names_its_field() {
        let pointers = |change: fn(&mut Value)| errors_of(change).into_iter().map(|(p, _)| p).collect::<Vec<_>>();
        assert_eq!(pointers(|d| d["steps"][0]["with"] = json!("text")), ["/steps/0/with"]);
        assert_eq!(pointers(|d| d["steps"][0]["usess"] = json!(1)), ["/steps/0/usess"]);
        assert_eq!(
            pointers(|d| d["steps"][0]["retry"] = json!({"max_attempts": "many"})),
            ["/steps/0/retry/max_attempts"]
        );
        assert_eq!(pointers(|d| d["steps"][0]["retry"] = json!({"max_attempts": 0})), ["/steps/0/retry/max_attempts"]);
        assert_eq!(pointers(|d| d["steps"][0]["id"] = json!("trigger")), ["/steps/0/id"]);
        assert_eq!(pointers(|d| d["steps"][0]["connection"] = json!("wf_1")), ["/steps/0/connection"]);
        assert_eq!(pointers(|d| d["trigger"] = json!({"type": "schedule", "every": "0m"})), ["/trigger/every"]);
        assert_eq!(pointers(|d| d["trigger"] = json!({"type": "schedule", "cron": "0 0 L * *"})), ["/trigger/cron"]);
        assert_eq!(
            pointers(|d| d["trigger"] = json!({"type": "schedule", "cron": "@daily", "timezone": "Mars"})),
            ["/trigger/timezone"]
        );
        assert_eq!(pointers(|d| d["trigger"] = json!({"type": "schedule", "evry": "1m"})), ["/trigger/evry"]);
        assert_eq!(pointers(|d| d["trigger"] = json!({"type": "schedule"})), ["/trigger"]);
        assert_eq!(pointers(|d| d["trigger"] = json!({"type": "clock"})), ["/trigger/type"]);
        assert_eq!(pointers(|d| d["a/b"] = json!(1)), ["/a~1b"]);
        assert_eq!(pointers(|d| d["name"] = json!(" ")), ["/name"]);
        assert_eq!(
            pointers(|d| {
                d.as_object_mut().unwrap().remove("name");
                d["steps"] = json!([]);
            }),
            ["/name"],
            "shape errors come before the rest",
        );
        assert_eq!(pointers(|d| *d = json!([])), [""]);
        let twice = |d: &mut Value| {
            let step = d["steps"][0].clone();
            d["steps"].as_array_mut().unwrap().push(step);
        };
        assert_eq!(errors_of(twice)[0].0, "/steps/1/id");
    }

    #[test]
    fn nesting_is_bounded_with_the_place() {
        // The document, its steps, the step and its `with` are four levels.
        let nested = |levels: usize| (4..levels).fold(json!(1), |inner, _| json!([inner]));
        let mut document = minimal();
        document["steps"][0]["with"]["a/b"] = nested(100);
        let definition = Definition::parse(&document).unwrap();
        let text = serde_json::to_string(&definition).unwrap();
        assert_eq!(serde_json::from_str::<Definition>(&text).unwrap(), definition);
        let errors = errors_of(|d| d["steps"][0]["with"]["a/b"] = nested(101));
        let [(pointer, detail)] = errors.as_slice() else { panic!("{errors:?}") };
        assert!(pointer.starts_with("/steps/0/with/a~1b/0/0"), "{pointer}");
        assert_eq!(detail, "has more than 100 levels of nesting");
    }
}
