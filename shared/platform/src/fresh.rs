//! What is read again and again, remembered for a bounded time.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use moka::future::Cache;

use crate::Clock;

/// Values by key, none older than a bound; also that there is none, where `V` is an `Option`. Callers who miss at the same
/// time share one read. Clones share the values.
#[derive(Clone)]
pub struct Fresh<K, V> {
    known: Cache<K, Known<V>>,
    clock: Clock,
    stale_after: Duration,
}

#[derive(Clone)]
struct Known<V> {
    value: V,
    read_at: Timestamp,
}

impl<K, V> Fresh<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Remembers at most so many values, none for longer than `stale_after`.
    pub fn new(clock: Clock, stale_after: Duration, capacity: u64) -> Self {
        // The cache's own lifetime only frees memory; how old a value is the clock tells.
        let known = Cache::builder().max_capacity(capacity).time_to_live(stale_after).build();
        Self { known, clock, stale_after }
    }

    /// The value, read now unless it was a short while ago.
    ///
    /// # Errors
    /// Those of `read`, which aren't remembered.
    pub async fn get<E, F>(&self, key: K, read: impl FnOnce() -> F) -> Result<V, Arc<E>>
    where
        E: Send + Sync + 'static,
        F: Future<Output = Result<V, E>>,
    {
        if let Some(known) = self.known.get(&key).await {
            if self.is_fresh(known.read_at) {
                return Ok(known.value);
            }
            self.known.invalidate(&key).await;
        }
        // The time before the read, so that the bound counts from when the source was asked.
        let read_at = self.clock.now();
        // Boxed, for a read of the store is large, and callers mostly find the value here.
        let read = Box::pin(read());
        let timed = async { Ok(Known { value: read.await?, read_at }) };
        Ok(self.known.try_get_with(key, timed).await?.value)
    }

    /// Forgets a value that this process knows to have changed.
    pub async fn forget(&self, key: &K) {
        self.known.invalidate(key).await;
    }

    /// A clock that went back makes nothing fresher.
    fn is_fresh(&self, read_at: Timestamp) -> bool {
        let age = self.clock.now().duration_since(read_at);
        !age.is_negative() && age.unsigned_abs() < self.stale_after
    }
}

impl<K, V> fmt::Debug for Fresh<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fresh").field("stale_after", &self.stale_after).finish_non_exhaustive()
    }
}
