//! Drives the engine for one claimed run: makes its calls, keeps its journal, parks it or finishes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tidegate_engine::{Call, Decision, Facts, Outcome, Run, decide, in_doubt, records};
use tidegate_model::{
    BlobRef, Definition, Entry, ErrorCode, INLINE_LIMIT_BYTES, Payload, RunDetail, RunRow, RunStatus, StepError,
    TriggerInput,
};
use tidegate_platform::blobs::{KEPT, LIVE};
use tidegate_store::{JournalItem, ReplaceError};

use crate::table::arm_wake;
use crate::{Deps, Error, Invocation, calls};

/// Left between the end of a call and the end of the invocation, for the writes that follow it.
const WRITE_MARGIN: Duration = Duration::from_secs(2);
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
pub(crate) async fn execute(deps: &Deps, claimed: Claimed, invocation: &Invocation) -> Result<(), Error> {
    let row = &claimed.row;
    let Some(definition) = deps.caches.definition(deps, row.tenant, row.workflow, row.version).await? else {
        let message = format!("version {} of the workflow is gone; it was deleted after the run began", row.version);
        let error = StepError::terminal(ErrorCode::WorkflowGone, message);
        return give_up(deps, &claimed.row.clone(), claimed, error).await.map_err(|conflict| match conflict {
            Conflict::Error(error) => error,
            Conflict::With(_) | Conflict::Gone => Error::Lost,
        });
    };
    let mut execution = Execution::new(deps, claimed, definition, invocation).await?;
    execution.settle_doubt();
    execution.drive().await
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
    let detail = RunDetail { trigger: claimed.input, steps };
    write_final(deps, expected, &row, detail).await.map_err(|error| match error {
        FinalError::Replace(error) => lost_to(error),
        FinalError::Other(error) => Conflict::Error(error),
    })?;
    log_end(deps, &row);
    Ok(())
}

struct Execution<'a> {
    deps: &'a Deps,
    invocation: &'a Invocation,
    row: RunRow,
    definition: Arc<Definition>,
    facts: Facts,
    trigger: TriggerInput,
    body: Value,
    entries: Vec<Entry>,
    outputs: BTreeMap<String, Value>,
    /// How many of the entries are stored.
    stored: usize,
    /// The position of the next journal item.
    position: u32,
}

impl<'a> Execution<'a> {
    async fn new(
        deps: &'a Deps,
        claimed: Claimed,
        definition: Arc<Definition>,
        invocation: &'a Invocation,
    ) -> Result<Self, Error> {
        let Claimed { row, input, journal } = claimed;
        let trigger =
            input.ok_or_else(|| Error::Corrupt(format!("{} is running, but its input is nowhere", row.id)))?;
        let body = load(deps, &trigger.body).await?;
        let position = u32::try_from(journal.len()).unwrap_or(u32::MAX);
        let entries: Vec<_> = journal.into_iter().flat_map(|item| item.entries).collect();
        let mut outputs = BTreeMap::new();
        for entry in &entries {
            if let Entry::Succeeded { step, output, .. } = entry {
                outputs.insert(step.clone(), load(deps, output).await?);
            }
        }
        let facts = Facts {
            run_id: row.id,
            tenant_id: row.tenant,
            workflow_id: row.workflow,
            version: row.version,
            trigger: trigger.kind,
            content_type: trigger.content_type.clone(),
            started_at: row.started_at,
        };
        let stored = entries.len();
        Ok(Self { deps, invocation, row, definition, facts, trigger, body, entries, outputs, stored, position })
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

    /// Journals what an earlier claim left in doubt: the attempt that has begun without an outcome, or, where the
    /// journal is empty, the first call, which is made without being journalled first.
    fn settle_doubt(&mut self) {
        let begun = in_doubt(&self.definition, &self.entries).map(|(step, attempt)| {
            let input = self.entries.iter().rev().find_map(|entry| match entry {
                Entry::Started { step: of, input, .. } if *of == step => Some(input.clone()),
                _ => None,
            });
            let input = match input {
                Some(Payload::Inline(input)) => input,
                Some(Payload::Blob(_)) | None => Value::Null,
            };
            (step, attempt, input)
        });
        let first = || match self.decide() {
            Decision::Call(call) if self.row.fence > 1 && self.entries.is_empty() => {
                Some((call.step, call.attempt, call.input))
            }
            _ => None,
        };
        if let Some((step, attempt, input)) = begun.or_else(first) {
            let repeatable =
                self.definition.steps.iter().any(|s| s.id == step && calls::is_repeatable(&s.uses, &input));
            self.entries.push(Entry::Interrupted { step, attempt, at: self.deps.clock.now(), repeatable });
        }
    }

    async fn drive(&mut self) -> Result<(), Error> {
        loop {
            match self.decide() {
                Decision::Record(entry) => self.push(entry),
                Decision::Call(call) if call.timeout + WRITE_MARGIN > self.deps.settings.worker_timeout => {
                    self.push(self.never_fits(*call));
                }
                Decision::Call(call) if self.invocation.remaining() < call.timeout + WRITE_MARGIN => {
                    return self.park(self.deps.clock.now()).await;
                }
                Decision::Call(call) => self.call(&call).await?,
                Decision::Wait(until) => {
                    let delay = Duration::try_from(until.duration_since(self.deps.clock.now())).unwrap_or_default();
                    if delay > self.deps.settings.in_place || delay + WRITE_MARGIN > self.invocation.remaining() {
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

    async fn call(&mut self, call: &Call) -> Result<(), Error> {
        let (step, attempt) = (call.step.clone(), call.attempt);
        let input = self.keep(&call.input, &format!("{step}.{attempt}.input")).await?;
        self.push(Entry::Started { step: step.clone(), attempt, at: self.deps.clock.now(), input });
        let nothing_to_lose = self.row.fence == 1 && self.position == 0 && self.entries.len() == 1;
        if !nothing_to_lose {
            self.checkpoint().await?;
        }
        let result = calls::perform(self.deps, &self.row, call).await;
        let at = self.deps.clock.now();
        match result {
            Ok(output) => {
                let kept = self.keep(&output, &format!("{step}.output")).await?;
                self.outputs.insert(step.clone(), output);
                self.push(Entry::Succeeded { step, attempt, at, output: kept });
            }
            Err(calls::CallError::Step(error)) => self.push(Entry::Failed { step, attempt, at, error }),
            Err(calls::CallError::Worker(error)) => return Err(error),
        }
        Ok(())
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
        let runs = self.deps.store.runs();
        let latest_end = self.facts.latest_end(&self.definition);
        match runs.append_journal(self.row.tenant, self.row.id, self.position, &item, latest_end).await {
            Ok(()) => {}
            Err(tidegate_store::Error::Conflict { .. }) => return Err(Error::Lost),
            Err(error) => return Err(error.into()),
        }
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
        write_final(self.deps, &self.row, &row, detail).await.map_err(|error| match error {
            FinalError::Replace(error) => error.into(),
            FinalError::Other(error) => error,
        })?;
        log_end(self.deps, &row);
        Ok(())
    }

    /// A value as the journal holds it: itself, or a reference to the blob that it was put in.
    async fn keep(&self, value: &Value, name: &str) -> Result<Payload, Error> {
        let key = format!("{LIVE}/{}/{}/{name}", self.row.tenant, self.row.id);
        store_payload(self.deps, value, key).await
    }
}

async fn store_payload(deps: &Deps, value: &Value, key: String) -> Result<Payload, Error> {
    let text = serde_json::to_vec(value).map_err(|error| Error::Corrupt(error.to_string()))?;
    if text.len() <= INLINE_LIMIT_BYTES {
        return Ok(Payload::Inline(value.clone()));
    }
    let bytes = text.len() as u64;
    deps.blobs.put(&key, text.into()).await?;
    Ok(Payload::Blob(BlobRef { key, bytes }))
}

async fn load(deps: &Deps, payload: &Payload) -> Result<Value, Error> {
    let blob = match payload {
        Payload::Inline(value) => return Ok(value.clone()),
        Payload::Blob(blob) => blob,
    };
    let mut bytes = deps.blobs.get(&blob.key).await?;
    if bytes.is_none() {
        bytes = deps.blobs.get(&kept_key(&blob.key)).await?;
    }
    let bytes = bytes.ok_or_else(|| Error::Corrupt(format!("the blob {} is gone", blob.key)))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Corrupt(format!("the blob {}: {error}", blob.key)))
}

/// Where a live run's blob lies once the run is final.
fn kept_key(key: &str) -> String {
    match key.strip_prefix(LIVE) {
        Some(rest) => format!("{KEPT}{rest}"),
        None => key.to_owned(),
    }
}

enum FinalError {
    Replace(ReplaceError),
    Other(Error),
}

/// Writes a final row with its detail. The run's blobs move to where they expire with it; a worker that dies after
/// that and before the row is written leaves a run that still finds them ([`load`]).
async fn write_final(deps: &Deps, expected: &RunRow, row: &RunRow, mut detail: RunDetail) -> Result<(), FinalError> {
    for blob in blobs_of(&mut detail) {
        let kept = kept_key(&blob.key);
        deps.blobs.rename(&blob.key, &kept).await.map_err(|error| FinalError::Other(error.into()))?;
        blob.key = kept;
    }
    let detail = fold(deps, row, &detail).await.map_err(FinalError::Other)?;
    deps.store.runs().replace(expected, row, Some(&detail)).await.map_err(FinalError::Replace)
}

fn blobs_of(detail: &mut RunDetail) -> Vec<&mut BlobRef> {
    let bodies = detail.trigger.iter_mut().map(|trigger| &mut trigger.body);
    let values = detail.steps.iter_mut().flat_map(|step| step.input.iter_mut().chain(&mut step.output));
    bodies
        .chain(values)
        .filter_map(|payload| match payload {
            Payload::Blob(blob) => Some(blob),
            Payload::Inline(_) => None,
        })
        .collect()
}

/// A run's detail as its row holds it: itself up to 8 KB, else a reference to a blob.
pub(crate) async fn fold(deps: &Deps, row: &RunRow, detail: &RunDetail) -> Result<Payload, Error> {
    let value = serde_json::to_value(detail).map_err(|error| Error::Corrupt(error.to_string()))?;
    store_payload(deps, &value, format!("{KEPT}/{}/{}/detail", row.tenant, row.id)).await
}

fn log_end(deps: &Deps, row: &RunRow) {
    tracing::info!(
        component = "worker",
        tenant_id = %row.tenant,
        workflow_id = %row.workflow,
        run_id = %row.id,
        trace_id = calls::trace_of(row).map(|trace| trace.trace_id()).unwrap_or_default(),
        status = %serde_json::to_value(row.status).ok().and_then(|s| s.as_str().map(str::to_owned)).unwrap_or_default(),
        code = row.error.as_ref().map(|error| format!("{:?}", error.code)),
        failed_step = row.failed_step,
        duration_ms = deps.clock.now().as_millisecond() - row.accepted_at.as_millisecond(),
        "run finished"
    );
}
