//! Drives the engine for one claimed run: makes its calls, keeps its journal, parks it or finishes it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use serde_json::Value;
use tidegate_engine::{Call, Data, Decision, Facts, Outcome, Plan, Run, records_of};
use tidegate_model::{
    ApprovalToken, Builtin, DataKey, Entry, ErrorCode, Event, Payload, RunDetail, RunId, RunRow, RunStatus, StepError,
    Tenant, TenantStatus, TriggerInput,
};
use tidegate_platform::Clock;
use tidegate_platform::blobs::LIVE;
use tidegate_platform::key_service::KeyContext;
use tidegate_store::{Journal, JournalItem, ReplaceError, StoredSignal};

use crate::values::{fold, load, store_payload};
use crate::wake::{arm_wake, wake_now};
use crate::{Deps, Error, Invocation, calls, ending, waits};

/// Left between the end of a call and the end of the invocation, for the writes that follow it.
const WRITE_MARGIN: Duration = Duration::from_secs(2);
/// The longest delay between two tries of a write.
const MAX_INSISTENCE_DELAY: Duration = Duration::from_secs(5);
/// The longest error text that a record keeps, in characters.
const MAX_ERROR_CHARS: usize = 2_000;
/// What the outputs of one run may take together, in bytes of JSON: a worker keeps them in memory.
const MAX_OUTPUT_BYTES: usize = 32 * 1024 * 1024;

/// A run that this worker holds.
pub(crate) struct Claimed {
    /// The row as it was written by the claim.
    pub(crate) row: RunRow,
    /// What started the run; `None` only where neither message nor journal has it.
    pub(crate) input: Option<TriggerInput>,
    /// The stored journal.
    pub(crate) journal: Vec<JournalItem>,
    /// What its waiting steps have heard.
    pub(crate) signals: Vec<StoredSignal>,
    /// What the claim follows.
    pub(crate) after: After,
}

impl Claimed {
    /// A run whose end is only to be recorded.
    pub(crate) fn unread(row: RunRow, input: Option<TriggerInput>, journal: Journal) -> Self {
        Self { row, input, journal: journal.items, signals: journal.signals, after: After::Nothing }
    }
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
    let Some(plan) = deps.caches.plan(deps, row.tenant, row.workflow, row.version).await? else {
        let message = format!("version {} of the workflow is gone; it was deleted after the run began", row.version);
        let error = StepError::terminal(ErrorCode::WorkflowGone, message);
        return ending::give_up_claimed(deps, claimed, error).await;
    };
    // A deleted tenant has no key to sign its approvals' links with, and nobody would follow them.
    if plan.approvals().next().is_some() && deps.tenant(row.tenant).await?.status == TenantStatus::Deleted {
        let message = "the organization was deleted after the run began";
        return ending::give_up_claimed(deps, claimed, StepError::terminal(ErrorCode::WorkflowGone, message)).await;
    }
    let body = match &claimed.input {
        Some(input) => load(deps, &input.body).await?,
        None => None,
    };
    let (Some(trigger), Some(body)) = (claimed.input.clone(), body) else {
        let message = "what started the run is not stored any more; start it again with the same input";
        return ending::give_up_claimed(deps, claimed, StepError::terminal(ErrorCode::Internal, message)).await;
    };
    let facts = facts(deps, row, &plan, &trigger).await?;
    let body = Data::from(&body);
    let mut execution = Execution::new(deps, claimed, plan, facts, trigger, body, invocation, in_doubt);
    execution.take_over().await?;
    execution.drive().await
}

async fn facts(deps: &Deps, row: &RunRow, plan: &Plan, trigger: &TriggerInput) -> Result<Facts, Error> {
    let mut approvals = BTreeMap::new();
    for step in plan.approvals() {
        let token = approval_token(deps, row, step).await?;
        approvals.insert(step.to_owned(), format!("{}/api/approvals/{token}", deps.settings.public_url));
    }
    Ok(Facts {
        run_id: row.id,
        tenant_id: row.tenant,
        workflow_id: row.workflow,
        version: row.version,
        trigger: trigger.kind,
        content_type: trigger.content_type.clone(),
        request: trigger.request.clone(),
        parameters: trigger.parameters.clone(),
        started_at: row.started_at,
        approvals,
    })
}

/// What decides a step's approval: signed under the tenant's data key, so that it is the same whenever it is made, and who
/// can read the store can't make it.
pub(crate) async fn approval_token(deps: &Deps, row: &RunRow, step: &str) -> Result<ApprovalToken, Error> {
    let tenant = deps.tenant(row.tenant).await?;
    let data_key = signing_key(&tenant, row.id);
    let data_key = data_key.ok_or_else(|| Error::Corrupt(format!("the tenant {} of a run is deleted", row.tenant)))?;
    let context = KeyContext::connections(row.tenant);
    let signed = ApprovalToken::signed(row.tenant, row.id, step);
    let signature =
        deps.envelope.sign(&data_key.wrapped, &context, "approval", &signed).await.map_err(Error::Envelope)?;
    Ok(ApprovalToken { tenant: row.tenant, run: row.id, step: step.to_owned(), signature })
}

/// The data key that signs a run's links: the youngest that every worker knew when the run was started, so that the links
/// stay the same although the tenant gets a new one.
fn signing_key(tenant: &Tenant, run: RunId) -> Option<&DataKey> {
    const KNOWN_AFTER: Duration = Duration::from_secs(600);
    let known = |key: &&DataKey| key.created_at.checked_add(KNOWN_AFTER).is_ok_and(|known| known <= run.timestamp());
    tenant.data_keys.iter().rev().find(known).or_else(|| tenant.data_keys.first())
}

/// A call under way: what it was, and what it brought.
type UnderWay<'a> = FuturesUnordered<BoxFuture<'a, (Call, Result<Value, StepError>)>>;

struct Execution<'a> {
    deps: &'a Deps,
    invocation: &'a Invocation,
    in_doubt: &'a AtomicBool,
    row: RunRow,
    after: After,
    run: Run,
    trigger: TriggerInput,
    body: Data,
    entries: Vec<Entry>,
    signals: Vec<StoredSignal>,
    /// When something last happened, as the entries tell.
    heard_of: Timestamp,
    /// How many of the entries are stored.
    stored: usize,
    /// The position of the next journal item.
    position: u32,
    /// What the outputs take together.
    output_bytes: usize,
    /// Whether nothing was called and nothing waited for since the run's first claim.
    untouched: bool,
}

impl<'a> Execution<'a> {
    #[expect(clippy::too_many_arguments, reason = "it is all that a run is made of, put together in one place")]
    fn new(
        deps: &'a Deps,
        claimed: Claimed,
        plan: Arc<Plan>,
        facts: Facts,
        trigger: TriggerInput,
        body: Data,
        invocation: &'a Invocation,
        in_doubt: &'a AtomicBool,
    ) -> Self {
        let Claimed { row, journal, signals, after, .. } = claimed;
        let mut execution = Self {
            heard_of: row.started_at,
            deps,
            invocation,
            in_doubt,
            row,
            after,
            run: Run::new(plan, facts, body.clone()),
            trigger,
            body,
            entries: Vec::new(),
            signals,
            stored: 0,
            position: 0,
            output_bytes: 0,
            untouched: after == After::Nothing,
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
            self.replay().await?;
            self.settle_doubt().await?;
            if self.after != After::Death {
                break;
            }
            match self.checkpoint().await {
                Ok(()) => break,
                Err(Error::Lost) => {
                    let journal = self.deps.store.runs().journal(self.row.tenant, self.row.id).await?;
                    if u32::try_from(journal.items.len()).is_ok_and(|length| length <= self.position) {
                        return Err(Error::Lost);
                    }
                    self.read(journal.items);
                    self.signals = journal.signals;
                }
                Err(error) => return Err(error),
            }
        }
        let signals = std::mem::take(&mut self.signals);
        self.hear(signals).await?;
        self.begin_waits_again().await
    }

    /// Makes the run of the entries.
    async fn replay(&mut self) -> Result<(), Error> {
        let (plan, facts) = (Arc::clone(self.run.plan()), self.run.facts().clone());
        self.run = Run::new(plan, facts, self.body.clone());
        self.output_bytes = 0;
        self.heard_of = self.row.started_at;
        for entry in std::mem::take(&mut self.entries) {
            let output = match &entry.event {
                Event::Succeeded { output, .. } => {
                    let value = load(self.deps, output).await?.unwrap_or(Value::Null);
                    self.output_bytes += size(output);
                    Some(Data::from(&value))
                }
                _ => None,
            };
            self.apply(entry, output);
        }
        Ok(())
    }

    /// Takes in what has happened. A death takes time from each run of the batch, since their messages come again only
    /// when the invocation would have been over: what has passed since something was heard of the run is granted again.
    fn apply(&mut self, entry: Entry, output: Option<Data>) {
        if matches!(entry.event, Event::Interrupted { .. }) {
            let lost = entry.at.duration_since(self.heard_of);
            self.run.grant(Duration::try_from(lost).unwrap_or_default());
        }
        self.heard_of = self.heard_of.max(entry.at);
        self.run.apply(&entry, output);
        self.entries.push(entry);
    }

    /// Notes what an earlier claim left in doubt: the attempts that have begun without an outcome, or, where the journal
    /// is empty, the first calls, which are made without being journalled first.
    async fn settle_doubt(&mut self) -> Result<(), Error> {
        let mut doubtful = Vec::new();
        for open in self.run.in_doubt() {
            let input = self.entries.iter().rev().find_map(|entry| match &entry.event {
                Event::Started { input } if entry.step == open.step && entry.item == open.item => Some(input.clone()),
                _ => None,
            });
            let input = match input {
                Some(input) => load(self.deps, &input).await?,
                None => None,
            };
            doubtful.push((open.step, open.item, open.attempt, open.uses, input.unwrap_or(Value::Null)));
        }
        if self.after == After::Death && self.entries.is_empty() {
            doubtful.extend(self.first_calls().await?);
        }
        let at = self.deps.clock.now();
        for (step, item, attempt, uses, input) in doubtful {
            let repeatable = calls::is_repeatable(self.deps, self.row.tenant, &uses, &input).await?;
            self.push(Entry { step, item, attempt, at, event: Event::Interrupted { repeatable } });
        }
        Ok(())
    }

    /// What a first claim calls before it writes anything; what it settles by then is noted.
    async fn first_calls(&mut self) -> Result<Vec<(String, Option<u32>, u32, String, Value)>, Error> {
        loop {
            match self.run.decide(self.row.started_at) {
                Decision::Record(entries) if waits_for_nothing(&entries) => self.record(entries).await?,
                Decision::Call(batch) if batch.iter().all(is_connectors) => {
                    let call = |call: Call| (call.step, call.item, call.attempt, call.uses, call.input);
                    return Ok(batch.into_iter().map(call).collect());
                }
                Decision::Record(_) | Decision::Call(_) | Decision::Wait(_) | Decision::Finish(_) => {
                    return Ok(Vec::new());
                }
            }
        }
    }

    /// A holder that died between the journal and what it begins has begun nothing; what is begun twice is one all the
    /// same.
    async fn begin_waits_again(&mut self) -> Result<(), Error> {
        if matches!(self.after, After::Nothing | After::Parking) {
            return Ok(());
        }
        for open in self.run.listening() {
            let started = self.entries.iter().rev().find_map(|entry| match &entry.event {
                Event::Started { input } if entry.step == open.step && entry.item == open.item => {
                    Some((entry.at, input.clone()))
                }
                _ => None,
            });
            let Some((at, input)) = started else { continue };
            let input = load(self.deps, &input).await?.unwrap_or(Value::Null);
            let (step, item, attempt) = (open.step.as_str(), open.item, open.attempt);
            let wait = waits::Wait { step, item, attempt, at, input: &input, shares: self.run.calls_like(step) };
            self.begin_wait(&open.uses, wait).await?;
        }
        Ok(())
    }

    async fn drive(&mut self) -> Result<(), Error> {
        let deps = self.deps;
        let mut under_way: UnderWay<'a> = FuturesUnordered::new();
        let mut watch = tokio::time::interval(deps.settings.watch);
        watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        watch.tick().await;
        if self.row.cancel_requested || self.is_orphan().await? {
            return self.finish(cancelled()).await;
        }
        loop {
            let until = match self.run.decide(deps.clock.now()) {
                Decision::Record(entries) => {
                    self.untouched &= waits_for_nothing(&entries);
                    self.record(entries).await?;
                    // A run that computes is no reason for others to wait, nor for its own end to be missed.
                    tokio::task::yield_now().await;
                    if watch.tick().now_or_never().is_some() && self.is_cancelled().await? {
                        drop(under_way);
                        return self.finish(cancelled()).await;
                    }
                    if under_way.is_empty() && self.invocation.remaining(&deps.clock) < WRITE_MARGIN * 2 {
                        return self.park(deps.clock.now()).await;
                    }
                    continue;
                }
                Decision::Call(batch) => {
                    let (never, batch): (Vec<_>, Vec<_>) =
                        batch.into_iter().partition(|call| call.timeout + WRITE_MARGIN > deps.settings.worker_timeout);
                    if !never.is_empty() {
                        never.into_iter().for_each(|call| self.never_fits(&call));
                        continue;
                    }
                    let all = batch.len();
                    let batch: Vec<_> = batch.into_iter().filter(|call| self.has_time_for(call)).collect();
                    if batch.len() == all && !(under_way.is_empty() && self.invocation.should_yield()) {
                        self.begin(batch, &mut under_way).await?;
                        continue;
                    }
                    // What doesn't fit any more goes on in the next invocation, once what is under way is over.
                    if under_way.is_empty() {
                        return self.park(deps.clock.now()).await;
                    }
                    Timestamp::MAX
                }
                Decision::Wait(until) => until,
                Decision::Finish(outcome) => {
                    drop(under_way);
                    return self.finish(outcome).await;
                }
            };
            let delay = Duration::try_from(until.duration_since(deps.clock.now())).unwrap_or_default();
            if under_way.is_empty() {
                if delay > deps.settings.in_place || delay + WRITE_MARGIN > self.invocation.remaining(&deps.clock) {
                    return self.park(until).await;
                }
                self.untouched = false;
                tokio::time::sleep(delay).await;
                continue;
            }
            tokio::select! {
                over = under_way.next() => if let Some((call, result)) = over {
                    self.over(&call, result).await?;
                },
                () = tokio::time::sleep(delay) => {}
                _ = watch.tick() => {
                    if self.is_cancelled().await? {
                        drop(under_way);
                        return self.finish(cancelled()).await;
                    }
                }
            }
        }
    }

    /// Whether the run that called this one is over before this one begins: then nobody waits for it.
    async fn is_orphan(&self) -> Result<bool, Error> {
        let Some(parent) = self.row.parent.as_ref().filter(|_| self.after == After::Nothing) else { return Ok(false) };
        let caller = self.deps.store.runs().get(self.row.tenant, parent.run_id).await?;
        Ok(caller.is_none_or(|caller| caller.row.status.is_final()))
    }

    /// Looks whether somebody asked for the run to be cancelled, and hears what there is to hear.
    async fn is_cancelled(&mut self) -> Result<bool, Error> {
        let runs = self.deps.store.runs();
        let stored = match runs.get(self.row.tenant, self.row.id).await {
            Ok(stored) => stored.ok_or(Error::Lost)?,
            // Only a look: a store that is away now is told by the write that follows.
            Err(error) => {
                tracing::debug!(component = "worker", error = &error as &dyn std::error::Error, "no look at the row");
                return Ok(false);
            }
        };
        if stored.row.fence != self.row.fence || stored.row.lease_owner != self.row.lease_owner {
            return Err(Error::Lost);
        }
        if self.run.is_listening() {
            match runs.signals(self.row.tenant, self.row.id).await {
                Ok(signals) => self.hear(signals).await?,
                // As above; what there is to hear is looked for again before the run parks.
                Err(error) => {
                    tracing::debug!(
                        component = "worker",
                        error = &error as &dyn std::error::Error,
                        "no look at signals"
                    );
                }
            }
        }
        Ok(stored.row.cancel_requested)
    }

    /// Takes in what the engine settled itself.
    async fn record(&mut self, entries: Vec<Entry>) -> Result<(), Error> {
        for entry in entries {
            let Event::Succeeded { output: Payload::Inline(value), outlet } = &entry.event else {
                self.push(entry);
                continue;
            };
            let data = Data::from(value);
            let output = match self.keep_output(value, &entry.step, entry.item).await? {
                Ok(output) => output,
                Err(error) => {
                    self.push(Entry { event: Event::Failed { error }, ..entry });
                    continue;
                }
            };
            let event = Event::Succeeded { output, outlet: outlet.clone() };
            self.push_with(Entry { event, ..entry }, Some(data));
        }
        Ok(())
    }

    /// Takes in what steps have heard that wait for it.
    async fn hear(&mut self, signals: Vec<StoredSignal>) -> Result<(), Error> {
        for StoredSignal { step, item, signal } in signals {
            let output = match &signal {
                tidegate_model::Signal::Ended { output: Some(output), .. } => load(self.deps, output).await?,
                _ => None,
            };
            let heard = self.run.hear(&step, item, &signal, output, self.deps.clock.now());
            self.record(heard.into_iter().collect()).await?;
        }
        Ok(())
    }

    /// A call that no invocation has time for: parking for the next one would never end.
    fn never_fits(&mut self, call: &Call) {
        let message = format!(
            "the step's timeout of {} ms doesn't fit into the worker's {} ms; lower `timeout_ms`",
            call.timeout.as_millis(),
            self.deps.settings.worker_timeout.as_millis()
        );
        let error = StepError::terminal(ErrorCode::StepTimeout, message);
        self.push(call.entry(self.deps.clock.now(), Event::Failed { error }));
    }

    fn has_time_for(&self, call: &Call) -> bool {
        self.invocation.remaining(&self.deps.clock) >= call.timeout + WRITE_MARGIN
    }

    /// Begins calls, once it is journalled that they are. The run's very first need not be: where the journal is empty
    /// they are in doubt, whoever resumes the run.
    async fn begin(&mut self, batch: Vec<Call>, under_way: &mut UnderWay<'a>) -> Result<(), Error> {
        let deps = self.deps;
        let mut ready = Vec::new();
        for call in batch {
            let prepared = calls::prepare(deps, &self.row, &call).await?;
            let input = self.without_links(&call.input);
            let input = self.keep(&input, &slot(&call.step, call.item, "input")).await?;
            let at = deps.clock.now();
            self.push(call.entry(at, Event::Started { input }));
            match prepared {
                Ok(prepared) => ready.push((call, prepared, at)),
                Err(error) => self.push(call.entry(at, Event::Failed { error })),
            }
        }
        let nothing_to_lose =
            self.untouched && self.position == 0 && ready.iter().all(|(call, ..)| is_connectors(call));
        self.untouched = false;
        if !nothing_to_lose {
            // A store that is slow holds up no call that is under way.
            let mut over = Vec::new();
            {
                let mut checkpoint = std::pin::pin!(self.checkpoint());
                loop {
                    tokio::select! {
                        biased;
                        stored = &mut checkpoint => break stored?,
                        Some(call) = under_way.next() => over.push(call),
                    }
                }
            }
            for (call, result) in over {
                self.over(&call, result).await?;
            }
        }
        for (call, prepared, at) in ready {
            let Some(prepared) = prepared else {
                let (step, item, attempt) = (call.step.as_str(), call.item, call.attempt);
                let shares = self.run.calls_like(step);
                let wait = waits::Wait { step, item, attempt, at, input: &call.input, shares };
                self.begin_wait(&call.uses, wait).await?;
                continue;
            };
            if !self.has_time_for(&call) {
                self.push(call.entry(deps.clock.now(), Event::Interrupted { repeatable: true }));
                continue;
            }
            self.in_doubt.store(true, Ordering::Relaxed);
            let trace = calls::trace_of(&self.row);
            under_way.push(Box::pin(async move {
                let result = calls::send(deps, prepared, &call, trace).await;
                (call, result)
            }));
        }
        Ok(())
    }

    /// An input as it is recorded: a link that decides an approval is for whom it is sent to, not for who reads records.
    fn without_links<'v>(&self, input: &'v Value) -> Cow<'v, Value> {
        let approvals = &self.run.facts().approvals;
        if approvals.is_empty() {
            return Cow::Borrowed(input);
        }
        let mut input = input.clone();
        let links: Vec<_> = approvals.values().map(String::as_str).collect();
        hide(&mut input, &links);
        Cow::Owned(input)
    }

    /// Begins what then waits for a signal.
    async fn begin_wait(&mut self, uses: &str, wait: waits::Wait<'_>) -> Result<(), Error> {
        let begun = match Builtin::named(uses) {
            Some(Builtin::Approval) => Ok(waits::open_approval(self.deps, &self.row, &wait).await?),
            Some(Builtin::Call) => waits::call_workflow(self.deps, &self.row, &wait).await?,
            _ => Ok(()),
        };
        if let Err(error) = begun {
            let (step, item, attempt) = (wait.step.to_owned(), wait.item, wait.attempt);
            self.push(Entry { step, item, attempt, at: self.deps.clock.now(), event: Event::Failed { error } });
        }
        Ok(())
    }

    /// Notes what a call brought.
    async fn over(&mut self, call: &Call, result: Result<Value, StepError>) -> Result<(), Error> {
        let at = self.deps.clock.now();
        let error = match result {
            Ok(output) => match self.keep_output(&output, &call.step, call.item).await? {
                Ok(kept) => {
                    let entry = call.entry(at, Event::Succeeded { output: kept, outlet: None });
                    self.push_with(entry, Some(Data::from(&output)));
                    return Ok(());
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        self.push(call.entry(at, Event::Failed { error }));
        Ok(())
    }

    fn push(&mut self, entry: Entry) {
        self.push_with(entry, None);
    }

    fn push_with(&mut self, mut entry: Entry, output: Option<Data>) {
        if let Event::Failed { error } = &mut entry.event
            && let Some((end, _)) = error.message.char_indices().nth(MAX_ERROR_CHARS)
        {
            error.message.truncate(end);
            error.message.push('…');
        }
        self.apply(entry, output);
    }

    /// Appends what is not stored yet to the journal; the first time with the input, which until then only the
    /// message carries.
    async fn checkpoint(&mut self) -> Result<(), Error> {
        let input = (self.position == 0).then(|| self.trigger.clone());
        let item = JournalItem { input, entries: self.entries[self.stored..].to_vec() };
        let latest_end = self.run.latest_end();
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

    /// Gives the run up until a time comes or a signal. It is parked before it is looked for signals once more: whoever
    /// sends one from then on finds the row waiting, and wakes the run.
    async fn park(&mut self, until: Timestamp) -> Result<(), Error> {
        if self.position == 0 || self.stored < self.entries.len() {
            self.checkpoint().await?;
        }
        let row = RunRow {
            status: RunStatus::Waiting,
            wake: self.row.wake + 1,
            wake_at: Some(until),
            lease_until: self.deps.clock.now(),
            ..self.row.clone()
        };
        let runs = self.deps.store.runs();
        match runs.replace_unless_cancelled(&self.row, &row, None).await {
            Ok(()) => {}
            Err(ReplaceError::Conflict(Some(stored)))
                if stored.row.cancel_requested
                    && stored.row.fence == self.row.fence
                    && stored.row.lease_owner == self.row.lease_owner =>
            {
                return self.finish(cancelled()).await;
            }
            Err(error) => return Err(error.into()),
        }
        if self.run.is_listening() {
            let signals = runs.signals(row.tenant, row.id).await?;
            let now = self.deps.clock.now();
            let heard = |s: &StoredSignal| self.run.hear(&s.step, s.item, &s.signal, None, now).is_some();
            if signals.iter().any(heard) {
                return wake_now(self.deps, &row).await;
            }
        }
        arm_wake(self.deps, &row).await
    }

    async fn finish(&mut self, outcome: Outcome) -> Result<(), Error> {
        let row = RunRow {
            status: outcome.status,
            finished_at: Some(self.deps.clock.now()),
            error: outcome.error,
            failed_step: outcome.failed_step,
            wake_at: None,
            cancel_requested: false,
            ..self.row.clone()
        };
        let output = match &outcome.output {
            Some(output) => Some(self.keep_insisting(output, "output").await?),
            None => None,
        };
        let steps = records_of(self.run.plan(), &self.entries, row.status);
        let detail = RunDetail { trigger: Some(self.trigger.clone()), steps, output };
        let mut insistence = Insistence::new(self);
        let detail = loop {
            match self.write_final(&row, &detail).await {
                Ok(detail) => break detail,
                Err(error) => insistence.wait_after(error).await?,
            }
        };
        ending::report(self.deps, &row);
        ending::follow_up(self.deps, &row, &detail).await
    }

    async fn write_final(&self, row: &RunRow, detail: &RunDetail) -> Result<RunDetail, Error> {
        let mut detail = detail.clone();
        let folded = fold(self.deps, row, &mut detail, &self.entries).await?;
        self.deps.store.runs().replace(&self.row, row, Some(&folded)).await?;
        Ok(detail)
    }

    /// A step's output as the journal holds it; or why the step fails instead.
    async fn keep_output(
        &mut self,
        value: &Value,
        step: &str,
        item: Option<u32>,
    ) -> Result<Result<Payload, StepError>, Error> {
        let kept = self.keep_insisting(value, &slot(step, item, "output")).await?;
        self.output_bytes += size(&kept);
        if self.output_bytes > MAX_OUTPUT_BYTES {
            let message = "the outputs of the run's steps take more than 32 MiB together; let steps yield less, or split \
                           the workflow";
            return Ok(Err(StepError::terminal(ErrorCode::ResponseInvalid, message)));
        }
        Ok(Ok(kept))
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

/// The outcome of a run that somebody cancelled.
pub(crate) fn cancelled() -> Outcome {
    let error = StepError::terminal(ErrorCode::Cancelled, "the run was cancelled");
    Outcome { status: RunStatus::Cancelled, error: Some(error), failed_step: None, output: None }
}

fn hide(value: &mut Value, links: &[&str]) {
    match value {
        Value::String(text) => {
            for link in links {
                if text.contains(link) {
                    *text = text.replace(link, "(the approval's link)");
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| hide(item, links)),
        Value::Object(fields) => fields.values_mut().for_each(|field| hide(field, links)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Whether these settle something at once, so that deciding again later comes to the same.
fn waits_for_nothing(entries: &[Entry]) -> bool {
    entries.iter().all(|entry| !matches!(entry.event, Event::Started { .. }))
}

fn is_connectors(call: &Call) -> bool {
    Builtin::named(&call.uses).is_none()
}

/// The name of a slot's blob.
fn slot(step: &str, item: Option<u32>, what: &str) -> String {
    item.map_or_else(|| format!("{step}.{what}"), |item| format!("{step}.{item}.{what}"))
}

fn size(payload: &Payload) -> usize {
    match payload {
        Payload::Inline(value) => value.to_string().len(),
        Payload::Blob(blob) => usize::try_from(blob.bytes).unwrap_or(usize::MAX),
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
