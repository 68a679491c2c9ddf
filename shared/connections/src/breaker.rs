//! A breaker for each tenant and host. While calls succeed it costs nothing. A process whose call finds the target down looks at what
//! all processes know of it, adds its failure, and from then on asks before each call, at most once a second; when five calls in a
//! row failed the target isn't called (open), after a while by one call of all processes (half-open), and when that succeeds by
//! everybody (closed). The failure of one tenant's calls tells nothing of another's: hosts are shared, what is called there isn't.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tidegate_connectors::Failure;
use tidegate_model::{ErrorCode, StepError, TenantId};
use tidegate_store::Breaker;
use tokio::sync::Mutex;

use crate::Connections;

/// A failure counts for so long.
const WINDOW: Duration = Duration::from_secs(120);
/// How long it stays open at first; twice as long each time, up to the most.
const OPEN: Duration = Duration::from_secs(30);
const MAX_OPEN: Duration = Duration::from_secs(600);
/// For how long one call tries whether the target answers again.
const PROBE: Duration = Duration::from_secs(60);
/// How old what is known of a suspect may be.
const STALE_AFTER: Duration = Duration::from_secs(1);
/// A target without failures for so long is no suspect.
pub(crate) const FORGET_AFTER: Duration = Duration::from_secs(900);

/// A target that failed lately, as far as this process knows.
#[derive(Debug, Default)]
pub(crate) struct Suspect {
    known: Mutex<Option<(Timestamp, Option<Breaker>)>>,
}

impl Connections {
    /// Refuses a call to a target that is down.
    pub(crate) async fn admit(&self, tenant: TenantId, host: &str) -> Result<(), StepError> {
        let Some(suspect) = self.caches.suspects.get(&(tenant, host.to_owned())).await else { return Ok(()) };
        let mut known = suspect.known.lock().await;
        let now = self.clock.now();
        let fresh = |at: Timestamp| now.duration_since(at).unsigned_abs() < STALE_AFTER;
        if known.as_ref().is_none_or(|(at, _)| !fresh(*at)) {
            match self.store.breakers().get(tenant, host).await {
                Ok(breaker) => *known = Some((now, breaker)),
                // Whoever can't tell calls: the target may be up.
                Err(error) => {
                    warn(&error);
                    return Ok(());
                }
            }
        }
        let Some((_, Some(breaker))) = known.as_mut() else { return Ok(()) };
        let Some(open_until) = breaker.open_until else { return Ok(()) };
        if open_until > now {
            return Err(open(host, open_until.duration_since(now).unsigned_abs()));
        }
        // Half-open: one call of all processes.
        if let Some(probe) = breaker.probe_until.filter(|probe| *probe > now) {
            return Err(open(host, probe.duration_since(now).unsigned_abs().min(Duration::from_secs(5))));
        }
        let probing = Breaker { probe_until: Some(now + PROBE), revision: breaker.revision + 1, ..breaker.clone() };
        match self.store.breakers().put(tenant, host, &probing, now).await {
            Ok(true) => {
                *breaker = probing;
                Ok(())
            }
            Ok(false) => {
                *known = None;
                Err(open(host, STALE_AFTER))
            }
            Err(error) => {
                warn(&error);
                Ok(())
            }
        }
    }

    /// Notes what a call says of its target.
    pub(crate) async fn note_target(&self, tenant: TenantId, host: &str, result: &Result<Value, Failure>) {
        let key = (tenant, host.to_owned());
        let noted = match result {
            Err(failure) if failure.is_target_down => {
                let suspect = self.caches.suspects.get_with(key, async { Arc::default() }).await;
                let mut known = suspect.known.lock().await;
                match self.add_failure(tenant, host).await {
                    Ok(breaker) => {
                        *known = Some((self.clock.now(), Some(breaker)));
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
            // Any answer shows that it is up.
            _ => match self.caches.suspects.remove(&key).await {
                Some(_) => self.store.breakers().forget(tenant, host).await,
                None => Ok(()),
            },
        };
        if let Err(error) = noted {
            warn(&error);
        }
    }

    async fn add_failure(&self, tenant: TenantId, host: &str) -> Result<Breaker, tidegate_store::Error> {
        let mut last = Breaker::default();
        // Of several who fail at the same moment one or two need not be counted.
        for _ in 0..3 {
            let now = self.clock.now();
            let before = self.store.breakers().get(tenant, host).await?;
            last = after_failure(before.unwrap_or_default(), self.open_after, now);
            if self.store.breakers().put(tenant, host, &last, now).await? {
                if last.open_until.is_some_and(|until| until > now) {
                    tracing::warn!(component = "connections", tenant_id = %tenant, host, "a target is down and isn't called for a while");
                }
                break;
            }
        }
        Ok(last)
    }
}

fn after_failure(before: Breaker, open_after: u32, now: Timestamp) -> Breaker {
    let is_recent = now.duration_since(before.failed_at).unsigned_abs() < WINDOW;
    let was_open = before.open_until.is_some();
    let failures = if is_recent || was_open { before.failures.saturating_add(1) } else { 1 };
    let still_open = before.open_until.filter(|until| *until > now);
    let (open_until, openings) = match still_open {
        // A call that began before it was opened says nothing new.
        Some(until) => (Some(until), before.openings),
        None if was_open || failures >= open_after => {
            let wait = OPEN.saturating_mul(1 << before.openings.min(8)).min(MAX_OPEN);
            (Some(now + wait), before.openings.saturating_add(1))
        }
        None => (None, before.openings),
    };
    Breaker { failures, failed_at: now, open_until, openings, probe_until: None, revision: before.revision + 1 }
}

fn open(host: &str, wait: Duration) -> StepError {
    let message = format!("{host} failed several calls in a row and isn't called for a while");
    let mut error = StepError::retryable(ErrorCode::CircuitOpen, message);
    error.retry_after_ms = u64::try_from(wait.as_millis()).ok();
    error
}

fn warn(error: &tidegate_store::Error) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(component = "connections", error, "what is known of a target can't be read or written");
}
