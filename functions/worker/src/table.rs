//! What to do with a message, given the run's row: the table of ADR 1.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::digest;
use futures::FutureExt;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::{Map, json};
use tidegate_model::{
    Entry, ErrorCode, Event, Message, Payload, RunDetail, RunId, RunRow, RunStatus, ScheduleMessage, StartMessage,
    StepError, TenantStatus, Trigger, TriggerInput, TriggerKind, WakeMessage, Workflow,
};
use tidegate_platform::blobs::{KEPT, LIVE};
use tidegate_platform::queue::ReceivedMessage;
use tidegate_platform::scheduler::timer_name;
use tidegate_store::{CreateError, ReplaceError, StoredRun};

use crate::ending::{self, Conflict};
use crate::execution::{self, After, Claimed};
use crate::waits::{derived_id, hexadecimal};
use crate::wake::{arm_wake, disarm, wake_now};
use crate::{Deps, Error, Invocation, Source, Verdict, reconcile, values};

/// The owner of a claim that was given back with no call in doubt.
const RETURNED: &str = "returned";
/// Claims without progress after which a run is given up.
const MAX_CLAIMS: u32 = 5;

pub(crate) async fn handle(
    deps: &Deps,
    received: &ReceivedMessage,
    source: Source,
    invocation: &Invocation,
) -> Result<Verdict, Error> {
    let message = match read(&received.body, source) {
        Ok(message) => message,
        Err(error) if source == Source::DeadLetters => {
            let key = keep_dead_letter(deps, "unknown", &received.body).await?;
            deps.metrics.dropped();
            let reason = reason(&error);
            tracing::error!(component = "worker", blob = key, reason, "a dead letter is no message; its body is kept");
            return Ok(Verdict::Delete);
        }
        Err(error) => return Err(Error::Corrupt(format!("the message can't be read: {}", reason(&error)))),
    };
    match message {
        Message::Start(start) => self::start(deps, *start, received, source, invocation).await,
        Message::Schedule(firing) => match started_by_schedule(deps, &firing).await? {
            Some(start) => self::start(deps, start, received, source, invocation).await,
            None => Ok(Verdict::Delete),
        },
        // What is wrong with a cursor doesn't get better; the next reconciliation begins anew.
        Message::Reconcile(_) if source == Source::DeadLetters => Ok(Verdict::Delete),
        Message::Reconcile(reconcile) => reconcile::page(deps, &reconcile).await,
        Message::Wake(wake) => match deps.store.runs().get(wake.tenant_id, wake.run_id).await? {
            Some(stored) => existing(deps, stored, &Incoming::Wake(wake), invocation).await,
            None => {
                tracing::warn!(component = "worker", run_id = %wake.run_id, "a wake-up for a run that is gone is dropped");
                Ok(Verdict::Delete)
            }
        },
    }
}

/// A message; among the dead letters also one that a schedule could not send: EventBridge Scheduler leaves its whole
/// request there
/// (<https://docs.aws.amazon.com/scheduler/latest/UserGuide/configuring-schedule-dlq.html>).
fn read(body: &str, source: Source) -> Result<Message, serde_json::Error> {
    #[derive(Deserialize)]
    struct Unsent {
        #[serde(rename = "MessageBody")]
        message_body: String,
    }
    let message: Message = serde_json::from_str(body).or_else(|error| {
        let unsent = (source == Source::DeadLetters).then(|| serde_json::from_str::<Unsent>(body).ok()).flatten();
        unsent.map_or(Err(error), |unsent| serde_json::from_str(&unsent.message_body))
    })?;
    if let Message::Start(start) = &message
        && let Payload::Blob(blob) = &start.trigger.body
        && !blob.key.starts_with(&format!("{LIVE}/{}/{}/", start.tenant_id, start.run_id))
    {
        return Err(serde_json::Error::custom("its blob is not the run's own"));
    }
    Ok(message)
}

/// Why a message can't be read, without what is in it.
fn reason(error: &serde_json::Error) -> String {
    format!("{:?} error at line {}, column {}", error.classify(), error.line(), error.column())
}

/// What came for a run that has a row.
enum Incoming {
    Start(Box<StartMessage>),
    Wake(WakeMessage),
}

async fn start(
    deps: &Deps,
    start: StartMessage,
    received: &ReceivedMessage,
    source: Source,
    invocation: &Invocation,
) -> Result<Verdict, Error> {
    let row = first_claim(deps, &start, invocation);
    if source == Source::DeadLetters {
        return match deps.store.runs().get(start.tenant_id, start.run_id).await? {
            Some(stored) => existing(deps, stored, &Incoming::Start(Box::new(start)), invocation).await,
            None => give_up_unclaimed(deps, start, row, received).await,
        };
    }
    match deps.store.runs().create(&row, None).await {
        Ok(()) => {
            let claimed = Claimed {
                row,
                input: Some(start.trigger),
                journal: Vec::new(),
                signals: Vec::new(),
                after: After::Nothing,
            };
            execute(deps, claimed, invocation).await
        }
        Err(CreateError::Exists(stored)) => {
            existing(deps, *stored, &Incoming::Start(Box::new(start)), invocation).await
        }
        Err(CreateError::Store(error)) => Err(error.into()),
    }
}

fn first_claim(deps: &Deps, start: &StartMessage, invocation: &Invocation) -> RunRow {
    RunRow {
        id: start.run_id,
        tenant: start.tenant_id,
        workflow: start.workflow_id,
        version: start.version,
        trigger: start.trigger.kind,
        status: RunStatus::Running,
        accepted_at: start.accepted_at,
        started_at: deps.clock.now(),
        finished_at: None,
        fence: 1,
        lease_until: invocation.lease_until,
        lease_owner: deps.lease_owner(),
        claims: 1,
        journal_length: 0,
        wake: 0,
        wake_at: None,
        traceparent: start.traceparent.clone(),
        error: None,
        failed_step: None,
        cancel_requested: false,
        parent: start.parent.clone(),
    }
}

async fn existing(
    deps: &Deps,
    mut stored: StoredRun,
    incoming: &Incoming,
    invocation: &Invocation,
) -> Result<Verdict, Error> {
    loop {
        let row = &stored.row;
        match row.status {
            RunStatus::Waiting => match incoming {
                Incoming::Wake(wake) if wake.wake == row.wake => {}
                Incoming::Wake(_) | Incoming::Start(_) => {
                    drop_repeated_body(deps, &stored, incoming).await?;
                    // Whoever parked it may have died before it looked for what it waits for.
                    if deps.store.runs().signals(row.tenant, row.id).await?.is_empty() {
                        arm_wake(deps, row).await?;
                    } else {
                        wake_now(deps, row).await?;
                    }
                    return Ok(Verdict::Delete);
                }
            },
            RunStatus::Running if deps.lease_is_over(row) => {}
            RunStatus::Running => {
                let visible_in = Duration::try_from(row.lease_until.duration_since(deps.clock.now()));
                return Ok(Verdict::Keep { visible_in: visible_in.unwrap_or_default() });
            }
            RunStatus::Queued
            | RunStatus::Succeeded
            | RunStatus::Failed
            | RunStatus::Cancelled
            | RunStatus::TimedOut
            | RunStatus::Skipped => {
                after_the_end(deps, &stored, incoming).await?;
                drop_repeated_body(deps, &stored, incoming).await?;
                return Ok(Verdict::Delete);
            }
        }
        match claim(deps, row, incoming, invocation).await? {
            Claim::Won(claimed) => return execute(deps, *claimed, invocation).await,
            Claim::GivenUp => return Ok(Verdict::Delete),
            Claim::Changed(current) => stored = *current,
        }
    }
}

enum Claim {
    Won(Box<Claimed>),
    GivenUp,
    /// The row was written meanwhile.
    Changed(Box<StoredRun>),
}

/// What is left to do for a run that is final: whoever ended it may have died before it did what follows, and one that was
/// cancelled while nobody held it has no record yet.
async fn after_the_end(deps: &Deps, stored: &StoredRun, incoming: &Incoming) -> Result<(), Error> {
    let Some(detail) = &stored.detail else {
        let start = match incoming {
            Incoming::Start(start) => Some(&**start),
            Incoming::Wake(_) => None,
        };
        return ending::keep_record(deps, &stored.row, start).await;
    };
    if stored.row.status == RunStatus::Succeeded && stored.row.parent.is_none() {
        return Ok(());
    }
    let Some(detail) = values::load(deps, detail).await? else { return Ok(()) };
    let detail: RunDetail = serde_json::from_value(detail)
        .map_err(|error| Error::Corrupt(format!("the detail of {}: {error}", stored.row.id)))?;
    ending::follow_up(deps, &stored.row, &detail).await
}

/// A webhook's delivery that came again brought its body again, under a name of its own. Of a run that goes by another one, or
/// has ended and moved what it keeps, nobody else will remove it.
async fn drop_repeated_body(deps: &Deps, stored: &StoredRun, incoming: &Incoming) -> Result<(), Error> {
    let Incoming::Start(start) = incoming else { return Ok(()) };
    let Payload::Blob(blob) = &start.trigger.body else { return Ok(()) };
    let StoredRun { row, detail } = stored;
    if !blob.key.rsplit('/').next().is_some_and(|name| name.starts_with("input-")) {
        return Ok(());
    }
    if detail.is_none() {
        let journal = deps.store.runs().journal(row.tenant, row.id).await?;
        let own = journal.items.first().and_then(|item| item.input.as_ref());
        if own.is_none_or(|own| own.body == start.trigger.body) {
            return Ok(());
        }
    }
    Ok(deps.blobs.delete(&blob.key).await?)
}

/// Claims a waiting run, or a running one whose lease is over.
async fn claim(deps: &Deps, old: &RunRow, incoming: &Incoming, invocation: &Invocation) -> Result<Claim, Error> {
    let journal = deps.store.runs().journal(old.tenant, old.id).await?;
    let length = u32::try_from(journal.items.len()).unwrap_or(u32::MAX);
    let known = usize::try_from(old.journal_length).unwrap_or(usize::MAX);
    let progressed = journal.items.iter().skip(known).flat_map(|item| &item.entries).any(is_progress);
    let input = match (journal.items.first().and_then(|item| item.input.clone()), incoming) {
        (Some(input), _) => Some(input),
        (None, Incoming::Start(start)) => Some(start.trigger.clone()),
        (None, Incoming::Wake(_)) => None,
    };
    let after = match old.status {
        RunStatus::Waiting => After::Parking,
        _ if old.lease_owner == RETURNED => After::Return,
        _ => After::Death,
    };
    let row = RunRow {
        status: RunStatus::Running,
        fence: old.fence + 1,
        lease_until: invocation.lease_until,
        lease_owner: deps.lease_owner(),
        claims: match old.status {
            _ if progressed => 1,
            // Parked in good order, which makes no death undone.
            RunStatus::Waiting => old.claims,
            _ => old.claims + 1,
        },
        journal_length: length,
        wake_at: None,
        ..old.clone()
    };
    if row.claims > MAX_CLAIMS {
        let error = StepError::terminal(
            ErrorCode::WorkerCrashed,
            format!(
                "the worker died {MAX_CLAIMS} times on this run without finishing a step; see the log of these times"
            ),
        );
        let claimed = Claimed { row, input, journal: journal.items, signals: journal.signals, after };
        return match ending::give_up(deps, old, claimed, error).await {
            Ok(()) => Ok(Claim::GivenUp),
            Err(conflict) => changed(conflict),
        };
    }
    match deps.store.runs().replace(old, &row, None).await {
        Ok(()) => {
            if old.status == RunStatus::Waiting
                && let Err(error) = disarm(deps, old).await
            {
                // It fires once more, for nothing.
                let error = &error as &dyn std::error::Error;
                tracing::warn!(component = "worker", run_id = %old.id, error, "a timer could not be removed");
            }
            Ok(Claim::Won(Box::new(Claimed { row, input, journal: journal.items, signals: journal.signals, after })))
        }
        Err(error) => changed(ending::lost_to(error)),
    }
}

/// Whether an attempt has ended. That one begins is none: a run whose every call kills its worker begins one with each
/// claim, and each claim notes that the one before was interrupted.
fn is_progress(entry: &Entry) -> bool {
    match entry.event {
        Event::Succeeded { .. } | Event::Failed { .. } => true,
        Event::Started { .. } | Event::Interrupted { .. } | Event::Expanded { .. } => false,
    }
}

fn changed(conflict: Conflict) -> Result<Claim, Error> {
    match conflict {
        Conflict::With(stored) => Ok(Claim::Changed(stored)),
        Conflict::Gone => Ok(Claim::GivenUp),
        Conflict::Error(error) => Err(error),
    }
}

/// Executes a claimed run. Whatever goes wrong, the claim is given back, so that the message's next receipt can go on
/// without waiting for the lease's end. Only a panic counts as a claim without progress: what fails in good order, such
/// as a store that is away, is no fault of the run.
async fn execute(deps: &Deps, claimed: Claimed, invocation: &Invocation) -> Result<Verdict, Error> {
    let row = claimed.row.clone();
    // What a death left in doubt is, until it is noted in the journal.
    let in_doubt = AtomicBool::new(claimed.after == After::Death);
    let run = AssertUnwindSafe(execution::execute(deps, claimed, invocation, &in_doubt)).catch_unwind();
    let (error, claims) = match run.boxed().await {
        Ok(Ok(())) => return Ok(Verdict::Delete),
        Ok(Err(Error::Lost)) => return Err(Error::Lost),
        Ok(Err(error)) => (error, row.claims - 1),
        Err(panic) => (Error::Corrupt(format!("the worker panicked: {}", panic_text(&*panic))), row.claims),
    };
    let owner = if in_doubt.load(Ordering::Relaxed) { row.lease_owner.clone() } else { RETURNED.to_owned() };
    let returned = RunRow { lease_until: deps.clock.now(), lease_owner: owner, claims, ..row.clone() };
    let runs = deps.store.runs();
    let mut given_back = runs.replace(&row, &returned, None).await;
    // The next holder is to know that somebody asked for the run to be cancelled meanwhile.
    if let Err(ReplaceError::Conflict(Some(stored))) = &given_back
        && stored.row.cancel_requested
    {
        given_back = runs.replace(&row, &RunRow { cancel_requested: true, ..returned }, None).await;
    }
    if let Err(failure) = given_back {
        tracing::warn!(
            component = "worker",
            run_id = %row.id,
            error = &failure as &dyn std::error::Error,
            "the claim could not be given back; the run goes on when its lease ends"
        );
    }
    Err(error)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

/// The start of a schedule's firing; `None` where the workflow is gone, switched off or not scheduled any more. A timer
/// that a death left behind ends with its first firing.
async fn started_by_schedule(deps: &Deps, firing: &ScheduleMessage) -> Result<Option<StartMessage>, Error> {
    let workflow = deps.store.workflows().get(firing.tenant_id, firing.workflow_id).await?;
    let scheduled = |workflow: &Workflow| matches!(workflow.trigger, Trigger::Schedule(_));
    if !workflow.as_ref().is_some_and(scheduled) {
        deps.scheduler.delete(firing.tenant_id, &timer_name(firing.workflow_id)).await?;
    }
    let Some(workflow) = workflow.filter(|workflow| workflow.active && scheduled(workflow)) else {
        tracing::info!(
            component = "worker",
            tenant_id = %firing.tenant_id,
            workflow_id = %firing.workflow_id,
            "a firing of a workflow that is gone, inactive or not scheduled is dropped"
        );
        return Ok(None);
    };
    let tenant = deps.tenant(firing.tenant_id).await?;
    if tenant.status == TenantStatus::Deleted {
        // Nobody will switch it on again.
        deps.scheduler.delete(firing.tenant_id, &timer_name(firing.workflow_id)).await?;
    }
    if tenant.status != TenantStatus::Active {
        tracing::info!(
            component = "worker",
            tenant_id = %firing.tenant_id,
            workflow_id = %firing.workflow_id,
            "a firing of a suspended or deleted tenant is dropped"
        );
        return Ok(None);
    }
    let planned: Timestamp = firing.scheduled_time.parse().map_err(|error| {
        Error::Corrupt(format!("a firing's time {:?} can't be read: {error}", firing.scheduled_time))
    })?;
    let body = json!({"scheduled_time": firing.scheduled_time});
    Ok(Some(StartMessage {
        run_id: firing_run_id(firing, planned),
        tenant_id: firing.tenant_id,
        workflow_id: firing.workflow_id,
        version: workflow.version,
        trigger: TriggerInput {
            kind: TriggerKind::Schedule,
            content_type: None,
            request: None,
            body: Payload::Inline(body),
            parameters: Map::new(),
        },
        accepted_at: planned,
        traceparent: tidegate_telemetry::TraceContext::new_root().to_string(),
        parent: None,
    }))
}

/// The same firing is the same run, however often it is delivered.
fn firing_run_id(firing: &ScheduleMessage, planned: Timestamp) -> RunId {
    derived_id(firing.tenant_id, planned, format!("{} {}", firing.workflow_id, planned).as_bytes())
}

/// Marks a run as failed whose message went to the dead letters before anybody claimed it.
async fn give_up_unclaimed(
    deps: &Deps,
    start: StartMessage,
    row: RunRow,
    received: &ReceivedMessage,
) -> Result<Verdict, Error> {
    let key = keep_dead_letter(deps, &start.tenant_id.to_string(), &received.body).await?;
    let error = StepError::terminal(
        ErrorCode::DeadLettered,
        format!(
            "the run's message could not be handled in {} tries; its body is kept as {key}",
            received.receive_count
        ),
    );
    let row = RunRow {
        status: RunStatus::Failed,
        finished_at: Some(deps.clock.now()),
        lease_until: deps.clock.now(),
        error: Some(error),
        claims: received.receive_count,
        ..row
    };
    let mut detail = RunDetail { trigger: Some(start.trigger), steps: Vec::new(), output: None };
    let folded = values::fold(deps, &row, &mut detail, &[]).await?;
    match deps.store.runs().create(&row, Some(&folded)).await {
        Ok(()) => {
            ending::report(deps, &row);
            ending::follow_up(deps, &row, &detail).await?;
            Ok(Verdict::Delete)
        }
        Err(CreateError::Exists(_)) => Err(Error::Lost),
        Err(CreateError::Store(error)) => Err(error.into()),
    }
}

async fn keep_dead_letter(deps: &Deps, tenant: &str, body: &str) -> Result<String, Error> {
    let hash = digest::digest(&digest::SHA256, body.as_bytes());
    let key = format!("{KEPT}/{tenant}/dead_letters/{}", hexadecimal(hash.as_ref()));
    deps.blobs.put(&key, body.to_owned().into()).await?;
    Ok(key)
}
