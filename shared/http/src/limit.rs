//! Rate limits of the API: a token bucket for each tenant and each API key, given out from leased blocks.

use tidegate_model::{ApiKeyId, Limits, TenantId, UserId, WorkflowId};
use tidegate_platform::Clock;
use tidegate_store::{Exhausted, Leases, Rate, RateStatus, Store};

use crate::{Problem, ProblemCode};

/// Holds callers to their limits. Clones share the leases.
#[derive(Clone)]
pub struct RateLimiter {
    leases: Leases,
    defaults: Limits,
}

impl RateLimiter {
    /// Limits in the store; `defaults` for tenants that have none of their own.
    pub fn new(store: Store, clock: Clock, defaults: Limits) -> Self {
        Self { leases: Leases::new(store, clock), defaults }
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

    /// Counts a request to a webhook, which may have a limit of its own.
    ///
    /// # Errors
    /// 429: the webhook or its tenant has none left.
    pub async fn webhook(
        &self,
        tenant: TenantId,
        limits: Limits,
        workflow: WorkflowId,
        per_second: Option<u32>,
    ) -> Result<Option<RateStatus>, Problem> {
        // Its own first, so that what is too much for one webhook takes nothing from the others.
        let of_webhook = match per_second {
            Some(rate) => Some(self.take(format!("{workflow}#webhook"), rate, "this webhook").await?),
            None => None,
        };
        let of_tenant = match limits.or(self.defaults).webhooks_per_second {
            Some(rate) => Some(self.take(format!("{tenant}#webhooks"), rate, "this organization's webhooks").await?),
            None => None,
        };
        Ok(of_webhook.into_iter().chain(of_tenant).min_by_key(|status| status.remaining))
    }

    async fn take(&self, limit: String, per_second: u32, whose: &str) -> Result<RateStatus, Problem> {
        let taken = self.leases.take(limit, Rate::per_second(per_second)).await;
        taken.map_err(|Exhausted(status)| refusal(status, per_second, whose))
    }
}

fn refusal(status: RateStatus, per_second: u32, whose: &str) -> Problem {
    let detail = format!(
        "Too many requests: {whose} may make {per_second} a second, {} at once. Wait as `Retry-After` says.",
        status.limit
    );
    Problem::new(ProblemCode::RateLimited, detail).retry_after(status.reset).rate(status)
}

impl std::fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimiter").field("defaults", &self.defaults).finish_non_exhaustive()
    }
}
