//! Counts what the embedded database is asked, for tests of budgets.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

/// Counts requests by operation (`PutItem`, `Query`), repetitions by the SDK included. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    measures: AtomicBool,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    calls: BTreeMap<String, u64>,
    read_units: f64,
    write_units: f64,
    answered_bytes: u64,
}

impl Meter {
    /// How many requests of this operation there were.
    pub fn calls(&self, operation: &str) -> u64 {
        self.lock().calls.get(operation).copied().unwrap_or(0)
    }

    /// How many requests there were, by operation.
    pub fn all_calls(&self) -> BTreeMap<String, u64> {
        self.lock().calls.clone()
    }

    /// Sets all counts to zero and, with `true`, begins to measure capacity units and answers, which slows every request down.
    pub fn restart(&self, measure_units: bool) {
        *self.lock() = Counts::default();
        self.inner.measures.store(measure_units, Ordering::SeqCst);
    }

    /// Read capacity units used, indexes included.
    pub fn read_units(&self) -> f64 {
        self.lock().read_units
    }

    /// Write capacity units used, indexes included.
    pub fn write_units(&self) -> f64 {
        self.lock().write_units
    }

    /// How many bytes the answers had.
    pub fn answered_bytes(&self) -> u64 {
        self.lock().answered_bytes
    }

    pub(super) fn count(&self, operation: &str) {
        let mut counts = self.lock();
        match counts.calls.get_mut(operation) {
            Some(calls) => *calls += 1,
            None => drop(counts.calls.insert(operation.to_owned(), 1)),
        }
    }

    pub(super) fn measures(&self) -> bool {
        self.inner.measures.load(Ordering::SeqCst)
    }

    /// Adds an answer's length and its `ConsumedCapacity`: one object, or one for each table.
    pub(super) fn add_answer(&self, answer: &[u8], writes: bool) {
        self.lock().answered_bytes += answer.len() as u64;
        let Ok(answer) = serde_json::from_slice::<Value>(answer) else { return };
        let consumed = &answer["ConsumedCapacity"];
        let units = match consumed.as_array() {
            Some(tables) => tables.iter().filter_map(|table| table["CapacityUnits"].as_f64()).sum(),
            None => consumed["CapacityUnits"].as_f64().unwrap_or(0.0),
        };
        let mut counts = self.lock();
        if writes { counts.write_units += units } else { counts.read_units += units }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.inner.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
