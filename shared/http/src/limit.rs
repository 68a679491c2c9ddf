//! Rate limits: a token bucket for each tenant and each API key. The bucket lies in the store; each process leases a block of
//! tokens from it and gives them out, so that a steady load costs at most a tenth of a write for each request.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use moka::future::Cache;
use tidegate_model::{ApiKeyId, Limits, TenantId, UserId};
use tidegate_platform::Clock;
use tidegate_store::{Lease, Rate, Store};
use tokio::sync::Mutex;

use crate::{Problem, ProblemCode};

/// Steady load on a limit of some size is served from blocks of at least this many tokens.
const FULL_BLOCK: u32 = 20;
/// A block that is used up within this time is followed by one twice as large.
const SOON: Duration = Duration::from_secs(60);
/// Tokens that nobody asked for in this time are given up: how long a process may hold a part of the limit back.
const LEASE: Duration = Duration::from_secs(600);
/// For how long a process refuses, or lets through, without asking the store again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a request waits for the store to count it.
const MAX_WAIT: Duration = Duration::from_millis(500);
/// A bucket takes about 200 bytes.
const MAX_BUCKETS: u64 = 20_000;

/// Holds callers to their limits. Clones share the leases.
#[derive(Clone)]
pub struct RateLimiter {
    store: Store,
    clock: Clock,
    defaults: Limits,
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

impl RateLimiter {
    /// Limits in the store; `defaults` for tenants that have none of their own.
    pub fn new(store: Store, clock: Clock, defaults: Limits) -> Self {
        let buckets = Cache::builder().max_capacity(MAX_BUCKETS).time_to_idle(2 * LEASE).build();
        Self { store, clock, defaults, buckets }
    }

    /// Counts a request to the API.
    ///
    /// # Errors
    /// 429: the tenant or the key has none left.
    pub async fn api(
        &self,
        tenant: TenantId,
        key: Option<ApiKeyId>,
        limits: Limits,
    ) -> Result<Option<RateStatus>, Problem> {
        let limits = limits.or(self.defaults);
        let of_key = match (key, limits.key_per_second) {
            (Some(key), Some(rate)) => Some(self.take(format!("{tenant}#{key}"), rate, "this API key").await?),
            _ => None,
        };
        let of_tenant = match limits.api_per_second {
            Some(rate) => Some(self.take(format!("{tenant}#api"), rate, "your organization").await?),
            None => None,
        };
        Ok(of_key.into_iter().chain(of_tenant).min_by_key(|status| status.remaining))
    }

    /// Counts a request of a person that isn't about a tenant.
    ///
    /// # Errors
    /// 429: the person has none left.
    pub async fn person(&self, user: UserId) -> Result<Option<RateStatus>, Problem> {
        match self.defaults.api_per_second {
            Some(rate) => self.take(format!("{user}#api"), rate, "you").await.map(Some),
            None => Ok(None),
        }
    }

    /// Counts a webhook.
    ///
    /// # Errors
    /// 429: the tenant has none left.
    pub async fn webhook(&self, tenant: TenantId, limits: Limits) -> Result<Option<RateStatus>, Problem> {
        match limits.or(self.defaults).webhooks_per_second {
            Some(rate) => self.take(format!("{tenant}#webhooks"), rate, "this organization's webhooks").await.map(Some),
            None => Ok(None),
        }
    }

    async fn take(&self, limit: String, per_second: u32, whose: &str) -> Result<RateStatus, Problem> {
        let rate = Rate::per_second(per_second);
        let bucket = self.buckets.get_with(limit.clone(), async { Arc::new(Mutex::new(Bucket::new(rate))) }).await;
        let mut bucket = bucket.lock().await;
        let now = self.clock.now();
        if bucket.rate != rate {
            *bucket = Bucket::new(rate);
        }
        match bucket.paused.filter(|(until, _)| *until > now) {
            Some((until, Pause::Refuse)) => {
                return Err(refusal(rate, until.duration_since(now).unsigned_abs(), per_second, whose));
            }
            Some((_, Pause::LetThrough)) => return Ok(bucket.status()),
            None => {}
        }
        if bucket.tokens == 0 || bucket.is_over(now) {
            let block = bucket.next_block(now);
            let rates = self.store.rates();
            let lease = rates.lease(&limit, rate, block, now, bucket.known);
            match tokio::time::timeout(MAX_WAIT, lease).await {
                Ok(Ok(Lease { tokens: 0, after, known, .. })) => {
                    let wait = bucket.refuse(after, known, now);
                    return Err(refusal(rate, wait, per_second, whose));
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
        tracing::warn!(component = "http", error, "a rate limit can't be read; requests are let through");
        self.tokens = 0;
        self.paused = Some((now + PAUSE, Pause::LetThrough));
        self.status()
    }
}

fn refusal(rate: Rate, after: Duration, per_second: u32, whose: &str) -> Problem {
    let detail = format!(
        "Too many requests: {whose} may make {per_second} a second, {} at once. Wait as `Retry-After` says.",
        rate.burst
    );
    let status = RateStatus { limit: rate.burst, remaining: 0, reset: after };
    Problem::new(ProblemCode::RateLimited, detail).retry_after(after).rate(status)
}

impl std::fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimiter").field("defaults", &self.defaults).finish_non_exhaustive()
    }
}
