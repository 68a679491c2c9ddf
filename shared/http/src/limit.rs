//! Rate limits: a token bucket for each tenant and each API key. The bucket lies in the store; each process leases a block of
//! tokens from it and gives them out, so that a steady load costs at most a tenth of a write for each request.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use moka::future::Cache;
use tidegate_model::{ApiKeyId, Limits, TenantId, UserId};
use tidegate_platform::Clock;
use tidegate_store::{Rate, Store, Taken};
use tokio::sync::Mutex;

use crate::{Problem, ProblemCode};

/// The least that is leased at once.
const MIN_BLOCK: u32 = 10;
/// Tokens that nobody asked for in this time are given up: how much of the limit a process may hold back.
const LEASE: Duration = Duration::from_secs(600);
/// A process that was refused asks again at least this often.
const MAX_REFUSAL: Duration = Duration::from_secs(1);
/// A block that is used up sooner is followed by one twice as large.
const TOO_SOON: Duration = Duration::from_secs(1);
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

#[derive(Debug, Default)]
struct Bucket {
    /// Leased and not given out.
    tokens: u32,
    leased_at: Option<Timestamp>,
    block: u32,
    /// What the store had left after the lease.
    left: u32,
    /// The store's state after our last lease.
    known: Option<i64>,
    refused_until: Option<Timestamp>,
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
        let bucket = self.buckets.get_with(limit.clone(), async { Arc::default() }).await;
        let mut bucket = bucket.lock().await;
        let now = self.clock.now();
        let refused = bucket.refused_until.filter(|until| *until > now).map(|until| until.duration_since(now));
        if let Some(after) = refused {
            return Err(refusal(rate, after.unsigned_abs(), per_second, whose));
        }
        if bucket.tokens == 0 || bucket.is_over(now) {
            let block = bucket.next_block(now, rate);
            match self.store.rates().take(&limit, rate, block, now, bucket.known).await {
                Ok((Taken::Granted { left }, known)) => bucket.lease(block, left, Some(known), now),
                Ok((Taken::Refused { .. }, known)) if block > 1 => {
                    // A whole block isn't there; a single token may be.
                    match self.store.rates().take(&limit, rate, 1, now, Some(known)).await {
                        Ok((Taken::Granted { left }, known)) => bucket.lease(1, left, Some(known), now),
                        Ok((Taken::Refused { after }, known)) => {
                            return Err(bucket.refuse(after, known, now, rate, per_second, whose));
                        }
                        Err(error) => bucket.let_through(&error, now),
                    }
                }
                Ok((Taken::Refused { after }, known)) => {
                    return Err(bucket.refuse(after, known, now, rate, per_second, whose));
                }
                Err(error) => bucket.let_through(&error, now),
            }
        }
        bucket.tokens -= 1;
        let remaining = (bucket.left + bucket.tokens).min(rate.burst);
        let reset = rate.every * (rate.burst - remaining);
        Ok(RateStatus { limit: rate.burst, remaining, reset })
    }
}

impl Bucket {
    fn is_over(&self, now: Timestamp) -> bool {
        self.leased_at.is_none_or(|at| now.duration_since(at).unsigned_abs() >= LEASE)
    }

    /// Twice the last block where that was used up soon, at most what comes in within a second.
    fn next_block(&self, now: Timestamp, rate: Rate) -> u32 {
        let most = (rate.burst / 10).max(MIN_BLOCK).min(rate.burst);
        let soon = self.leased_at.is_some_and(|at| now.duration_since(at).unsigned_abs() < TOO_SOON);
        let block = if soon && self.tokens == 0 { self.block.saturating_mul(2) } else { MIN_BLOCK };
        block.clamp(1, most)
    }

    fn lease(&mut self, block: u32, left: u32, known: Option<i64>, now: Timestamp) {
        *self = Self { tokens: block, leased_at: Some(now), block, left, known, refused_until: None };
    }

    fn refuse(
        &mut self,
        after: Duration,
        known: i64,
        now: Timestamp,
        rate: Rate,
        per_second: u32,
        whose: &str,
    ) -> Problem {
        self.tokens = 0;
        self.known = Some(known);
        self.refused_until = Some(now + after.min(MAX_REFUSAL));
        refusal(rate, after, per_second, whose)
    }

    /// Whoever can't be counted is let through: better than turning away everybody while the store is throttled.
    fn let_through(&mut self, error: &tidegate_store::Error, now: Timestamp) {
        let error = error as &dyn std::error::Error;
        tracing::warn!(component = "http", error, "a rate limit can't be read; requests are let through");
        self.lease(MIN_BLOCK, 0, None, now);
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
