//! What goes wrong in the embedded database on purpose, in a fixed pattern. dynoxide itself never throttles, never has
//! two transactions meet, and shows every write in its indexes at once; DynamoDB does not.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

/// Faults to inject; none at first. Clones share them, so a test can set them while the database runs.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Spares the lock, and reading bodies, where there are no faults at all.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    throttle: Every,
    conflict: Every,
    lose_answer: Every,
    stale_writes: usize,
    recent: VecDeque<Row>,
    writes_left: Option<Arc<AtomicI64>>,
}

/// Fires at every `n`-th call; never where `n` is 0.
#[derive(Debug, Default, Clone, Copy)]
struct Every {
    n: u32,
    calls: u32,
}

impl Every {
    fn new(n: u32) -> Self {
        Self { n, calls: 0 }
    }

    fn fires(&mut self) -> bool {
        if self.n == 0 {
            return false;
        }
        self.calls += 1;
        self.calls.is_multiple_of(self.n)
    }
}

/// Table, partition key, sort key.
type Row = (String, Value, Value);

/// What to answer instead of running the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instead {
    Throttled,
    TransactionConflict,
    Dead,
}

impl Faults {
    /// Answers every `n`-th request for rows with `ProvisionedThroughputExceededException`; 0 stops it.
    pub fn throttle_every(&self, n: u32) {
        self.set(|state| state.throttle = Every::new(n));
    }

    /// Cancels every `n`-th transaction with the reason `TransactionConflict`; 0 stops it.
    pub fn conflict_every(&self, n: u32) {
        self.set(|state| state.conflict = Every::new(n));
    }

    /// Applies every `n`-th write that succeeds, and then breaks the connection; 0 stops it.
    pub fn lose_answer_every(&self, n: u32) {
        self.set(|state| state.lose_answer = Every::new(n));
    }

    /// Queries of an index don't see rows that the last `writes` writes touched; 0 stops it.
    pub fn stale_index(&self, writes: usize) {
        self.set(|state| {
            state.stale_writes = writes;
            state.recent.clear();
        });
    }

    /// Takes one from the number for each write, and refuses writes once it is used up, as if the caller had died. The
    /// number may be shared with other ports, so that a test can end a worker between any two of its writes.
    pub fn dies_with(&self, writes_left: Arc<AtomicI64>) {
        self.set(|state| state.writes_left = Some(writes_left));
    }

    /// Stops all faults.
    pub fn clear(&self) {
        self.set(|state| *state = State::default());
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let any = state.throttle.n + state.conflict.n + state.lose_answer.n > 0
            || state.stale_writes > 0
            || state.writes_left.is_some();
        self.inner.any.store(any, Ordering::SeqCst);
    }

    fn ask<T>(&self, without: T, question: impl FnOnce(&mut State) -> T) -> T {
        if !self.inner.any.load(Ordering::SeqCst) {
            return without;
        }
        question(&mut self.inner.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Called before a request for rows.
    pub(super) fn instead(&self, operation: &str) -> Option<Instead> {
        self.ask(None, |state| {
            let dead = state.writes_left.as_ref().filter(|_| super::dispatch::writes(operation));
            if dead.is_some_and(|left| left.fetch_sub(1, Ordering::SeqCst) <= 0) {
                Some(Instead::Dead)
            } else if state.throttle.fires() {
                Some(Instead::Throttled)
            } else if operation == "TransactWriteItems" && state.conflict.fires() {
                Some(Instead::TransactionConflict)
            } else {
                None
            }
        })
    }

    /// Called after a write that succeeded: whether its answer gets lost.
    pub(super) fn loses_answer(&self) -> bool {
        self.ask(false, |state| state.lose_answer.fires())
    }

    /// Called after a write that succeeded, with its request.
    pub(super) fn note_write(&self, operation: &str, body: &[u8]) {
        self.ask((), |state| {
            if state.stale_writes == 0 {
                return;
            }
            let Ok(body) = serde_json::from_slice::<Value>(body) else { return };
            state.recent.extend(written_rows(operation, &body));
            let surplus = state.recent.len().saturating_sub(state.stale_writes);
            state.recent.drain(..surplus);
        });
    }

    /// Takes from the answer to an index query the rows that the index doesn't show yet.
    pub(super) fn hide_recent(&self, body: &[u8], answer: Vec<u8>) -> Vec<u8> {
        let recent = self.ask(VecDeque::new(), |state| state.recent.clone());
        if recent.is_empty() {
            return answer;
        }
        let (Ok(body), Ok(mut found)) =
            (serde_json::from_slice::<Value>(body), serde_json::from_slice::<Value>(&answer))
        else {
            return answer;
        };
        if body["IndexName"].is_null() {
            return answer;
        }
        let Some(items) = found["Items"].as_array_mut() else { return answer };
        items.retain(|item| !recent.iter().any(|row| *row == row_of(&body["TableName"], item)));
        let count = items.len();
        found["Count"] = count.into();
        serde_json::to_vec(&found).unwrap_or(answer)
    }
}

fn row_of(table: &Value, keys: &Value) -> Row {
    (table.as_str().unwrap_or_default().to_owned(), keys["pk"].clone(), keys["sk"].clone())
}

fn written_rows(operation: &str, body: &Value) -> Vec<Row> {
    match operation {
        "PutItem" => vec![row_of(&body["TableName"], &body["Item"])],
        "UpdateItem" | "DeleteItem" => vec![row_of(&body["TableName"], &body["Key"])],
        "TransactWriteItems" => {
            let items = body["TransactItems"].as_array().into_iter().flatten();
            let actions = items.flat_map(|item| item.as_object().into_iter().flat_map(|item| item.values()));
            let keys = |action: &Value| {
                let keys = if action["Item"].is_null() { &action["Key"] } else { &action["Item"] };
                row_of(&action["TableName"], keys)
            };
            actions.map(keys).collect()
        }
        _ => Vec::new(),
    }
}
