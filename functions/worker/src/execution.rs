//! Drives the engine for one claimed run: makes its calls, keeps its journal, parks it or finishes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tidegate_engine::{Call, Data, Decision, Facts, Outcome, Run, decide, in_doubt, records};
use tidegate_model::{Definition, Entry, ErrorCode, Payload, RunDetail, RunRow, RunStatus, StepError, TriggerInput};
use tidegate_platform::Clock;
use tidegate_platform::blobs::LIVE;
use tidegate_platform::usage;
use tidegate_store::{JournalItem, ReplaceError};
use tidegate_telemetry::EndedRun;

use crate::values::{fold, load, store_payload};
use crate::wake::arm_wake;
use crate::{Deps, Error, Invocation, calls};

/// Left between the end of a call and the end of the invocation, for the writes that follow it.
const WRITE_MARGIN: Duration = Duration::from_secs(2);
/// The longest delay between two tries of a write.
const MAX_INSISTENCE_DELAY: Duration = Duration::from_secs(5);
/// The longest error text that a record keeps, in characters.
const MAX_ERROR_CHARS: usize = 2_000;

/// A run that this worker holds.
pub(crate) struct Claimed {
    /// The row as it was written by the claim.
    pub(crate) row: RunRow,
    /// What started the run; `None` only where neither message nor journal has it.
    pub(crate) input: Option<TriggerInput>,
    /// The stored journal.
    pub(crate) journal: Vec<JournalItem>,
    /// What the claim follows.
    pub(crate) after: After,
}

/// What a claim follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// It is the run's first.
    Nothing,
    /// The run was parked.
    Parking,
    /// The holder before gave its claim back, with no call in doubt but what the journal says.
    Return,
    /// The holder before is dead, or so late that it counts as dead: it may still be about to write.
    Death,
}

/// Why a row could not be replaced.
pub(crate) enum Conflict {
    /// By this row.
    With(Box<RunRow>),
    /// The row expired.
    Gone,
    Error(Error),
}

pub(crate) fn lost_to(error: ReplaceError) -> Conflict {
    match error {
        ReplaceError::Conflict(Some(stored)) => Conflict::With(Box::new(stored.row)),
        ReplaceError::Conflict(None) => Conflict::Gone,
        ReplaceError::Store(error) => Conflict::Error(error.into()),
    }
}

impl From<ReplaceError> for Error {
    fn from(error: ReplaceError) -> Self {
        match error {
            ReplaceError::Conflict(_) => Error::Lost,
            ReplaceError::Store(error) => error.into(),
        }
    }
}

/// Executes a run until it is final or parked.
///
/// `in_doubt` is set while a call is under way whose outcome is not stored: an error meanwhile leaves it in doubt.
pub(crate) async fn execute(
    deps: &Deps,
    claimed: Claimed,
    invocation: &Invocation,
    in_doubt: &AtomicBool,
) -> Result<(), Error> {
    let row = &claimed.row;
    let Some(definition) = deps.caches.definition(deps, row.tenant, row.workflow, row.version).await? else {
        let message = format!("version {} of the workflow is gone; it was deleted after the run began", row.version);
        let error = StepError::terminal(ErrorCode::WorkflowGone, message);
        return give_up_claimed(deps, claimed, error).await;
    };
    let body = match &claimed.input {
        Some(input) => load(deps, &input.body).await?,
        None => None,
    };
    let (Some(trigger), Some(body)) = (claimed.input.clone(), body) else {
        let message = "what started the run is not stored any more; start it again with the same input";
        return give_up_claimed(deps, claimed, StepError::terminal(ErrorCode::Internal, message)).await;
    };
    let mut execution = Execution::new(deps, claimed, definition, trigger, &body, invocation, in_doubt);
    drop(body);
    execution.take_over().await?;
    execution.drive().await
}

async fn give_up_claimed(deps: &Deps, claimed: Claimed, error: StepError) -> Result<(), Error> {
    let expected = claimed.row.clone();
    give_up(deps, &expected, claimed, error).await.map_err(|conflict| match conflict {
        Conflict::Error(error) => error,
        Conflict::With(_) | Conflict::Gone => Error::Lost,
    })
}

/// Marks a claimed run as failed without executing it. `expected` is the row as it is stored.
pub(crate) async fn give_up(
    deps: &Deps,
    expected: &RunRow,
    claimed: Claimed,
    error: StepError,
) -> Result<(), Conflict> {
    let entries: Vec<_> = claimed.journal.into_iter().flat_map(|item| item.entries).collect();
    let row = &claimed.row;
    let definition = deps.caches.definition(deps, row.tenant, row.workflow, row.version).await;
    let steps = match definition.map_err(Conflict::Error)? {
        Some(definition) => records(&definition, &entries, RunStatus::Failed),
        None => Vec::new(),
    };
    let row =
        RunRow { status: RunStatus::Failed, finished_at: Some(deps.clock.now()), error: Some(error), ..claimed.row };
    let detail =
        fold(deps, &row, RunDetail { trigger: claimed.input, steps }, &entries).await.map_err(Conflict::Error)?;
    deps.store.runs().replace(expected, &row, Some(&detail)).await.map_err(lost_to)?;
    report_end(deps, &row);
    Ok(())
}

struct Execution<'a> {
    deps: &'a Deps,
    invocation: &'a Invocation,
    in_doubt: &'a AtomicBool,
    row: RunRow,
    after: After,
    definition: Arc<Definition>,
    facts: Facts,
    trigger: TriggerInput,
    body: Data,
    entries: Vec<Entry>,
    outputs: BTreeMap<String, Data>,
    /// How many of the entries are stored.
    stored: usize,
    /// The position of the next journal item.
    position: u32,
}

impl<'a> Execution<'a> {
    fn new(
        deps: &'a Deps,
        claimed: Claimed,
        definition: Arc<Definition>,
        trigger: TriggerInput,
        body: &Value,
        invocation: &'a Invocation,
        in_doubt: &'a AtomicBool,
    ) -> Self {
        let Claimed { row, journal, after, .. } = claimed;
        let facts = Facts {
            run_id: row.id,
            tenant_id: row.tenant,
            workflow_id: row.workflow,
            version: row.version,
            trigger: trigger.kind,
            content_type: trigger.content_type.clone(),
            started_at: row.started_at,
        };
        let mut execution = Self {
            deps,
            invocation,
            in_doubt,
            row,
            after,
            definition,
            facts,
            trigger,
            body: Data::from(body),
            entries: Vec::new(),
            outputs: BTreeMap::new(),
            stored: 0,
            position: 0,
        };
        execution.read(journal);
        execution
    }

    /// Starts from a stored journal.
    fn read(&mut self, journal: Vec<JournalItem>) {
        self.position = u32::try_from(journal.len()).unwrap_or(u32::MAX);
        self.entries = journal.into_iter().flat_map(|item| item.entries).collect();
        self.stored = self.entries.len();
    }

    /// Takes over from the holder before. One that died may still be about to append to the journal; the item that is
    /// appended here takes the position that it would need, so that from then on it can begin no call.
    async fn take_over(&mut self) -> Result<(), Error> {
        loop {
            self.settle_doubt().await?;
            if self.after != After::Death {
                break;
            }
            match self.checkpoint().await {
                Ok(()) => break,
                Err(Error::Lost) => {
                    let journal = self.deps.store.runs().journal(self.row.tenant, self.row.id).await?;
                    if u32::try_from(journal.len()).is_ok_and(|length| length <= self.position) {
                        return Err(Error::Lost);
                    }
                    self.read(journal);
                }
                Err(error) => return Err(error),
            }
        }
        for entry in &self.entries {
            if let Entry::Succeeded { step, output, .. } = entry {
                let output = load(self.deps, output).await?.unwrap_or(Value::Null);
                self.outputs.insert(step.clone(), Data::from(&output));
            }
        }
        Ok(())
    }

    fn decide(&self) -> Decision {
        let run = Run {
            definition: &self.definition,
            facts: &self.facts,
            body: &self.body,
            entries: &self.entries,
            outputs: &self.outputs,
        };
        decide(&run, self.deps.clock.now())
    }

    /// Notes what an earlier claim left in doubt: the attempt that has begun without an outcome, or, where the journal is
    /// empty, the first call, which is made without being journalled first.
    async fn settle_doubt(&mut self) -> Result<(), Error> {
        let doubtful = match in_doubt(&self.definition, &self.entries) {
            Some((step, attempt)) => {
                let input = self.entries.iter().rev().find_map(|entry| match entry {
                    Entry::Started { step: of, input, .. } if *of == step => Some(input.clone()),
                    _ => None,
                });
                let input = match input {
                    Some(input) => load(self.deps, &input).await?,
                    None => None,
                };
                Some((step, attempt, input.unwrap_or(Value::Null)))
            }
            None => match self.decide() {
                Decision::Call(call) if self.after == After::Death && self.entries.is_empty() => {
                    Some((call.step, call.attempt, call.input))
                }
                _ => None,
            },
        };
        if let Some((step, attempt, input)) = doubtful {
            let repeatable =
                self.definition.steps.iter().any(|s| s.id == step && calls::is_repeatable(&s.uses, &input));
            self.entries.push(Entry::Interrupted { step, attempt, at: self.deps.clock.now(), repeatable });
        }
        Ok(())
    }

    async fn drive(&mut self) -> Result<(), Error> {
        loop {
            match self.decide() {
                Decision::Record(entry) => self.push(entry),
                Decision::Call(call) if call.timeout + WRITE_MARGIN > self.deps.settings.worker_timeout => {
                    self.push(self.never_fits(*call));
                }
                Decision::Call(call) => {
                    if !self.has_time_for(&call) || !self.call(&call).await? {
                        return self.park(self.deps.clock.now()).await;
                    }
                }
                Decision::Wait(until) => {
                    let delay = Duration::try_from(until.duration_since(self.deps.clock.now())).unwrap_or_default();
                    if delay > self.deps.settings.in_place
                        || delay + WRITE_MARGIN > self.invocation.remaining(&self.deps.clock)
                    {
                        return self.park(until).await;
                    }
                    tokio::time::sleep(delay).await;
                }
                Decision::Finish(outcome) => return self.finish(outcome).await,
            }
        }
    }

    /// A call that no invocation has time for: parking for the next one would never end.
    fn never_fits(&self, call: Call) -> Entry {
        let message = format!(
            "the step's timeout of {} ms doesn't fit into the worker's {} ms; lower `timeout_ms`",
            call.timeout.as_millis(),
            self.deps.settings.worker_timeout.as_millis()
        );
        let error = StepError::terminal(ErrorCode::StepTimeout, message);
        Entry::Failed { step: call.step, attempt: call.attempt, at: self.deps.clock.now(), error }
    }

    fn has_time_for(&self, call: &Call) -> bool {
        self.invocation.remaining(&self.deps.clock) >= call.timeout + WRITE_MARGIN
    }

    /// Makes a call and notes its outcome. `false`: there was no time left for it once it could have been made.
    async fn call(&mut self, call: &Call) -> Result<bool, Error> {
        let (step, attempt) = (call.step.clone(), call.attempt);
        let prepared = calls::prepare(self.deps, &self.row, call).await;
        let input = self.keep(&call.input, &format!("{step}.input")).await?;
        self.push(Entry::Started { step: step.clone(), attempt, at: self.deps.clock.now(), input });
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(calls::CallError::Step(error)) => {
                self.push(Entry::Failed { step, attempt, at: self.deps.clock.now(), error });
                return Ok(true);
            }
            Err(calls::CallError::Worker(error)) => return Err(error),
        };
        let nothing_to_lose = self.after == After::Nothing && self.position == 0 && self.entries.len() == 1;
        if !nothing_to_lose {
            self.checkpoint().await?;
        }
        if !self.has_time_for(call) {
            let at = self.deps.clock.now();
            self.push(Entry::Interrupted { step, attempt, at, repeatable: true });
            return Ok(false);
        }
        self.in_doubt.store(true, Ordering::Relaxed);
        let result = prepared.send(self.deps).await;
        let at = self.deps.clock.now();
        match result {
            Ok(output) => {
                let kept = self.keep_insisting(&output, &format!("{step}.output")).await?;
                self.outputs.insert(step.clone(), Data::from(&output));
                self.push(Entry::Succeeded { step, attempt, at, output: kept });
            }
            Err(error) => self.push(Entry::Failed { step, attempt, at, error }),
        }
        Ok(true)
    }

    fn push(&mut self, mut entry: Entry) {
        if let Entry::Failed { error, .. } = &mut entry
            && let Some((end, _)) = error.message.char_indices().nth(MAX_ERROR_CHARS)
        {
            error.message.truncate(end);
            error.message.push('…');
        }
        self.entries.push(entry);
    }

    /// Appends what is not stored yet to the journal; the first time with the input, which until then only the
    /// message carries.
    async fn checkpoint(&mut self) -> Result<(), Error> {
        let input = (self.position == 0).then(|| self.trigger.clone());
        let item = JournalItem { input, entries: self.entries[self.stored..].to_vec() };
        let latest_end = self.facts.latest_end(&self.definition);
        let (tenant, id, position) = (self.row.tenant, self.row.id, self.position);
        let mut insistence = Insistence::new(self);
        loop {
            match self.deps.store.runs().append_journal(tenant, id, position, &item, latest_end).await {
                Ok(()) => break,
                Err(tidegate_store::Error::Conflict { .. }) => return Err(Error::Lost),
                Err(error) => insistence.wait_after(error.into()).await?,
            }
        }
        self.in_doubt.store(false, Ordering::Relaxed);
        self.stored = self.entries.len();
        self.position += 1;
        Ok(())
    }

    async fn park(&mut self, until: Timestamp) -> Result<(), Error> {
        if self.position == 0 || self.stored < self.entries.len() {
            self.checkpoint().await?;
        }
        let row = RunRow {
            status: RunStatus::Waiting,
            wake: self.row.wake + 1,
            wake_at: Some(until),
            lease_until: self.deps.clock.now(),
            journal_length: self.position,
            ..self.row.clone()
        };
        self.deps.store.runs().replace(&self.row, &row, None).await?;
        arm_wake(self.deps, &row).await
    }

    async fn finish(&mut self, outcome: Outcome) -> Result<(), Error> {
        let row = RunRow {
            status: outcome.status,
            finished_at: Some(self.deps.clock.now()),
            error: outcome.error,
            failed_step: outcome.failed_step,
            wake_at: None,
            ..self.row.clone()
        };
        let steps = records(&self.definition, &self.entries, row.status);
        let detail = RunDetail { trigger: Some(self.trigger.clone()), steps };
        let mut insistence = Insistence::new(self);
        while let Err(error) = self.write_final(&row, &detail).await {
            insistence.wait_after(error).await?;
        }
        report_end(self.deps, &row);
        Ok(())
    }

    async fn write_final(&self, row: &RunRow, detail: &RunDetail) -> Result<(), Error> {
        let detail = fold(self.deps, row, detail.clone(), &self.entries).await?;
        Ok(self.deps.store.runs().replace(&self.row, row, Some(&detail)).await?)
    }

    async fn keep_insisting(&self, value: &Value, name: &str) -> Result<Payload, Error> {
        let mut insistence = Insistence::new(self);
        loop {
            match self.keep(value, name).await {
                Ok(kept) => return Ok(kept),
                Err(error) => insistence.wait_after(error).await?,
            }
        }
    }

    /// A value as the journal holds it: itself, or a reference to the blob that it was put in. The fence in the blob's
    /// key keeps a holder that lost its claim from writing over what the next one wrote.
    async fn keep(&self, value: &Value, name: &str) -> Result<Payload, Error> {
        let key = format!("{LIVE}/{}/{}/{}/{name}", self.row.tenant, self.row.id, self.row.fence);
        store_payload(self.deps, value, key).await
    }
}

/// Repeats a write that records what has happened, for a while: giving up would leave a call in doubt whose outcome is
/// known.
struct Insistence<'a> {
    clock: &'a Clock,
    invocation: &'a Invocation,
    left: Duration,
    delay: Duration,
}

impl<'a> Insistence<'a> {
    fn new(execution: &Execution<'a>) -> Self {
        Self {
            clock: &execution.deps.clock,
            invocation: execution.invocation,
            left: execution.deps.settings.insistence,
            delay: Duration::from_millis(100),
        }
    }

    /// Waits before the next try; gives the error back where there is none.
    async fn wait_after(&mut self, error: Error) -> Result<(), Error> {
        let may_pass = matches!(error, Error::Store(tidegate_store::Error::Unavailable { .. }) | Error::Port(_));
        if !may_pass || self.left.min(self.invocation.remaining(self.clock)) < self.delay {
            return Err(error);
        }
        tokio::time::sleep(self.delay).await;
        self.left -= self.delay;
        self.delay = (self.delay * 2).min(MAX_INSISTENCE_DELAY);
        Ok(())
    }
}

/// Tells of a run that is final: a log line, and the metrics.
pub(crate) fn report_end(deps: &Deps, row: &RunRow) {
    let outcome = name(&row.status);
    let since_accepted = |at: Timestamp| at.as_millisecond() - row.accepted_at.as_millisecond();
    let ended = EndedRun {
        duration_ms: since_accepted(row.finished_at.unwrap_or_else(|| deps.clock.now())),
        queue_age_ms: since_accepted(row.started_at),
    };
    let usage = usage::so_far();
    tracing::info!(
        component = "worker",
        tenant_id = %row.tenant,
        workflow_id = %row.workflow,
        run_id = %row.id,
        trace_id = calls::trace_of(row).map(|trace| trace.trace_id()).unwrap_or_default(),
        status = outcome,
        code = row.error.as_ref().map(|error| name(&error.code)),
        failed_step = row.failed_step,
        duration_ms = ended.duration_ms,
        queue_age_ms = ended.queue_age_ms,
        read_units = usage.as_ref().map(|usage| usage.read_units).filter(|units| *units > 0.0),
        write_units = usage.as_ref().map(|usage| usage.write_units),
        "run ended"
    );
    deps.metrics.run_ended(&outcome, ended);
}

/// A status or code as the API writes it.
fn name(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}
