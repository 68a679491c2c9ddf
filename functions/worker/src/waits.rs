//! What a run waits for outside of itself: a person's decision, or a workflow that it calls.

use std::time::Duration;

use aws_lc_rs::digest;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tidegate_model::{
    Approval, ErrorCode, MAX_WAIT, Message, ParentStep, Payload, RunId, RunRow, StartMessage, StepError, TenantId,
    TriggerInput, TriggerKind, WorkflowId,
};
use tidegate_platform::blobs::LIVE;
use tidegate_platform::queue::OutgoingMessage;

use crate::execution::approval_token;
use crate::values::store_payload;
use crate::{Deps, Error};

/// How many calls deep workflows may call each other.
const MAX_DEPTH: u32 = 10;
/// How many runs one that nobody called may cause in all.
const MAX_CAUSED: u32 = 10_000;
/// What a called workflow's parameters may take, in bytes of JSON: they travel in a message.
const MAX_PARAMETER_BYTES: usize = 64 * 1024;

/// A wait to begin: which step's, and what its input says.
pub(crate) struct Wait<'a> {
    pub(crate) step: &'a str,
    pub(crate) item: Option<u32>,
    pub(crate) attempt: u32,
    /// When the journal says that it began.
    pub(crate) at: Timestamp,
    pub(crate) input: &'a Value,
    /// Between how many calls the run shares what it may cause.
    pub(crate) shares: u32,
}

/// Opens an approval, so that its link decides it.
pub(crate) async fn open_approval(deps: &Deps, row: &RunRow, wait: &Wait<'_>) -> Result<(), Error> {
    let message = wait.input["message"].as_str().map(str::to_owned);
    let token = approval_token(deps, row, wait.step).await?;
    let approval = Approval {
        digest: hexadecimal(digest::digest(&digest::SHA256, &token.signature).as_ref()),
        message,
        until: wait.input["until"].as_str().and_then(|until| until.parse().ok()),
        decided: None,
    };
    let expires_after = later(deps.clock.now(), MAX_WAIT);
    Ok(deps.store.runs().open_approval(row.tenant, row.id, wait.step, &approval, expires_after).await?)
}

/// Starts the workflow that a step calls. The same step and attempt start the same run, however often they do.
pub(crate) async fn call_workflow(deps: &Deps, row: &RunRow, wait: &Wait<'_>) -> Result<Result<(), StepError>, Error> {
    let failed = |message: String| StepError::terminal(ErrorCode::CalledWorkflowFailed, message);
    let Some(id) = wait.input["workflow"].as_str().and_then(|id| id.parse::<WorkflowId>().ok()) else {
        return Ok(Err(invalid("/with/workflow: must be a workflow's id, such as \"wf_…\"".to_owned())));
    };
    let parameters = match &wait.input["parameters"] {
        Value::Null => Map::new(),
        Value::Object(parameters) => parameters.clone(),
        _ => return Ok(Err(invalid("/with/parameters: must be an object".to_owned()))),
    };
    if Value::Object(parameters.clone()).to_string().len() > MAX_PARAMETER_BYTES {
        let message = "/with/parameters: take more than 64 KiB; pass large values in `body`".to_owned();
        return Ok(Err(invalid(message)));
    }
    let depth = row.parent.as_ref().map_or(0, |parent| parent.depth) + 1;
    if depth > MAX_DEPTH {
        let message = format!("workflows call each other {MAX_DEPTH} deep at most; does one call itself?");
        return Ok(Err(failed(message)));
    }
    // Each call takes one of what it is given for itself.
    let share = row.parent.as_ref().map_or(MAX_CAUSED, |parent| parent.may_cause) / wait.shares.max(1);
    let Some(may_cause) = share.checked_sub(1) else {
        let message = format!(
            "a run may cause {MAX_CAUSED} others at most, shared equally between its calls, and this call has no share \
             left; call fewer workflows, or give them lists instead"
        );
        return Ok(Err(failed(message)));
    };
    let Some(workflow) = deps.store.workflows().get(row.tenant, id).await? else {
        return Ok(Err(failed(format!("the workflow {id} is gone; choose another one in the step"))));
    };
    let child = Child { step: wait.step, item: wait.item, attempt: wait.attempt, at: wait.at };
    let run_id = child.run_id(row.tenant, row.id);
    let given = match &wait.input["body"] {
        Value::Null => json!({}),
        body => body.clone(),
    };
    let body = body(deps, row.tenant, run_id, &given).await?;
    let start = StartMessage {
        run_id,
        tenant_id: row.tenant,
        workflow_id: id,
        version: workflow.version,
        trigger: TriggerInput { kind: TriggerKind::Workflow, content_type: None, request: None, body, parameters },
        accepted_at: wait.at,
        traceparent: row.traceparent.clone(),
        parent: Some(ParentStep {
            run_id: row.id,
            step: wait.step.to_owned(),
            item: wait.item,
            depth,
            may_cause,
            handles_failure: handles_failure(row),
        }),
    };
    send(deps, row.tenant, &Message::Start(Box::new(start))).await?;
    Ok(Ok(()))
}

/// Whether a run came about by the handling of a failure.
pub(crate) fn handles_failure(row: &RunRow) -> bool {
    row.trigger == TriggerKind::Failure || row.parent.as_ref().is_some_and(|parent| parent.handles_failure)
}

/// A run that a step's attempt starts.
pub(crate) struct Child<'a> {
    pub(crate) step: &'a str,
    pub(crate) item: Option<u32>,
    pub(crate) attempt: u32,
    pub(crate) at: Timestamp,
}

impl Child<'_> {
    /// The same attempt has the same run.
    pub(crate) fn run_id(&self, tenant: TenantId, parent: RunId) -> RunId {
        let Self { step, item, attempt, at } = self;
        derived_id(tenant, *at, format!("{parent} {step} {item:?} {attempt}").as_bytes())
    }
}

/// A run's id, derived from what it comes from.
pub(crate) fn derived_id(tenant: TenantId, at: Timestamp, source: &[u8]) -> RunId {
    let hash = digest::digest(&digest::SHA256, source);
    let mut entropy = [0; 10];
    entropy.copy_from_slice(&hash.as_ref()[..10]);
    RunId::for_tenant(tenant, at, entropy)
}

/// A body as the message of a new run carries it.
pub(crate) async fn body(deps: &Deps, tenant: TenantId, run: RunId, value: &Value) -> Result<Payload, Error> {
    store_payload(deps, value, format!("{LIVE}/{tenant}/{run}/body")).await
}

/// Sends a message to be handled at once.
pub(crate) async fn send(deps: &Deps, tenant: TenantId, message: &Message) -> Result<(), Error> {
    let body = serde_json::to_string(message).map_err(|error| Error::Corrupt(error.to_string()))?;
    Ok(deps.queue.send(OutgoingMessage::new(tenant, body)).await?)
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn later(from: Timestamp, by: Duration) -> Timestamp {
    from.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn invalid(message: String) -> StepError {
    StepError::terminal(ErrorCode::InputInvalid, message)
}
