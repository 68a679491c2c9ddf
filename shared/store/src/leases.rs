//! Limits that are held by many processes: a token bucket lies in the store ([`Rates`](crate::Rates)); each process leases a block
//! of tokens from it and gives them out, so that a steady load costs at most a tenth of a write for each.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use moka::future::Cache;
use tidegate_platform::Clock;
use tokio::sync::Mutex;

use crate::Store;
use crate::rates::{Lease, Rate};

/// Steady load on a limit of some size is served from blocks of at least this many tokens.
const FULL_BLOCK: u32 = 20;
/// A block that is used up within this time is followed by one twice as large.
const SOON: Duration = Duration::from_secs(60);
/// Tokens that nobody asked for in this time are given up: how long a process may hold a part of the limit back.
const LEASE: Duration = Duration::from_secs(600);
/// For how long a process refuses, or lets through, without asking the store again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a caller waits for the store to count it.
const MAX_WAIT: Duration = Duration::from_millis(500);
/// A bucket takes about 200 bytes.
const MAX_BUCKETS: u64 = 20_000;

/// Gives out tokens of limits. Clones share the leases.
#[derive(Clone)]
pub struct Leases {
    store: Store,
    clock: Clock,
    buckets: Cache<String, Arc<Mutex<Bucket>>>,
}

/// What is left of a limit, for the answer's headers
/// (<https://www.ietf.org/archive/id/draft-ietf-httpapi-ratelimit-headers-06.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateStatus {
    /// The most requests at once.
    pub limit: u32,
    /// How many can be made now.
    pub remaining: u32,
    /// Until when that is the limit again, or, where a request was refused, until when to wait.
    pub reset: Duration,
}

/// There was no token; `reset` of the status is until when to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted(pub RateStatus);

/// A process's part of a limit.
#[derive(Debug)]
struct Bucket {
    /// The limit that the rest is about; when it changes, nothing of that holds any more.
    rate: Rate,
    /// Leased and not given out.
    tokens: u32,
    /// How many were leased last, and when.
    block: u32,
    leased_at: Option<Timestamp>,
    /// What the store had left after the lease.
    left: u32,
    /// The store's state after our last lease.
    known: Option<i64>,
    /// Until when the store isn't asked, and what is done with requests until then.
    paused: Option<(Timestamp, Pause)>,
}

#[derive(Debug, Clone, Copy)]
enum Pause {
    Refuse,
    LetThrough,
}

impl Leases {
    /// Limits in the store.
    pub fn new(store: Store, clock: Clock) -> Self {
        let buckets = Cache::builder().max_capacity(MAX_BUCKETS).time_to_idle(2 * LEASE).build();
        Self { store, clock, buckets }
    }

    /// Takes a token of a limit. Whoever can't be counted, because the store is away, is let through.
    ///
    /// # Errors
    /// There is none left.
    pub async fn take(&self, limit: String, rate: Rate) -> Result<RateStatus, Exhausted> {
        let bucket = self.buckets.get_with(limit.clone(), async { Arc::new(Mutex::new(Bucket::new(rate))) }).await;
        let mut bucket = bucket.lock().await;
        let now = self.clock.now();
        if bucket.rate != rate {
            *bucket = Bucket::new(rate);
        }
        match bucket.paused.filter(|(until, _)| *until > now) {
            Some((until, Pause::Refuse)) => return Err(exhausted(rate, until.duration_since(now).unsigned_abs())),
            Some((_, Pause::LetThrough)) => return Ok(bucket.status()),
            None => {}
        }
        if bucket.tokens == 0 || bucket.is_over(now) {
            let block = bucket.next_block(now);
            let rates = self.store.rates();
            let lease = rates.lease(&limit, rate, block, now, bucket.known);
            match tokio::time::timeout(MAX_WAIT, lease).await {
                Ok(Ok(Lease { tokens: 0, after, known, .. })) => {
                    return Err(exhausted(rate, bucket.refuse(after, known, now)));
                }
                Ok(Ok(lease)) => bucket.fill(block, lease, now),
                Ok(Err(error)) => return Ok(bucket.let_through(&error, now)),
                Err(elapsed) => return Ok(bucket.let_through(&elapsed, now)),
            }
        }
        bucket.tokens -= 1;
        Ok(bucket.status())
    }
}

fn exhausted(rate: Rate, after: Duration) -> Exhausted {
    Exhausted(RateStatus { limit: rate.burst, remaining: 0, reset: after })
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        Self { rate, tokens: 0, block: 0, leased_at: None, left: 0, known: None, paused: None }
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.leased_at.is_none_or(|at| now.duration_since(at).unsigned_abs() >= LEASE)
    }

    fn status(&self) -> RateStatus {
        let Rate { every, burst } = self.rate;
        let remaining = self.left.saturating_add(self.tokens).min(burst);
        RateStatus { limit: burst, remaining, reset: every * (burst - remaining) }
    }

    /// About what this process gives out in a minute, but at most what comes in within a second: a process that has little
    /// to do holds little back from the others. Small limits have somewhat larger blocks, for a write less often, but never
    /// more than half of what there is at once.
    fn next_block(&self, now: Timestamp) -> u32 {
        let burst = self.rate.burst;
        let most = (burst / 10).max(FULL_BLOCK.min(burst / 2)).max(1);
        let first = (most / 10).max(1);
        let used_soon = self.leased_at.is_some_and(|at| now.duration_since(at).unsigned_abs() < SOON);
        match self.block {
            0 => first,
            _ if self.is_over(now) => first,
            block if used_soon => block.saturating_mul(2).min(most),
            block => block,
        }
    }

    fn fill(&mut self, block: u32, lease: Lease, now: Timestamp) {
        let Lease { tokens, left, known, .. } = lease;
        *self = Self { rate: self.rate, tokens, block, leased_at: Some(now), left, known: Some(known), paused: None };
    }

    /// Refuses for a second, which `Retry-After` has to say anyway, so that being at the limit doesn't cost a write for every
    /// token. What comes in meanwhile isn't lost.
    fn refuse(&mut self, after: Duration, known: i64, now: Timestamp) -> Duration {
        self.tokens = 0;
        self.left = 0;
        self.known = Some(known);
        self.paused = Some((now + PAUSE, Pause::Refuse));
        after.max(PAUSE)
    }

    /// Whoever can't be counted is let through: better than turning away everybody while the store is throttled. For a
    /// while nobody is counted, so that the store isn't asked more because it can't answer.
    fn let_through(&mut self, error: &(dyn std::error::Error + 'static), now: Timestamp) -> RateStatus {
        tracing::warn!(component = "limits", error, "a rate limit can't be read; what it counts is let through");
        self.tokens = 0;
        self.paused = Some((now + PAUSE, Pause::LetThrough));
        self.status()
    }
}

impl std::fmt::Debug for Leases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leases").finish_non_exhaustive()
    }
}
