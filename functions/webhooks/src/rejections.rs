//! Requests that were refused because nothing proved from whom they are: counted by workflow, hour and reason, and the last
//! ones kept with what doesn't depend on their bodies. Each process keeps its own count in its own row, so that writing it again
//! changes nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tidegate_model::{RejectedDeliveries, RejectedDelivery};

use crate::Ingress;
use crate::webhook::Webhook;

/// So many are written one by one; after that a write each second has to do.
const WRITTEN_ALONE: u32 = 20;
const INTERVAL: Duration = Duration::from_secs(1);

/// What this process has refused of a webhook.
#[derive(Default)]
pub(crate) struct Count {
    rejected: RejectedDeliveries,
    written: u32,
    written_at: Option<Timestamp>,
    is_being_written: bool,
}

impl Count {
    /// What is to be written now, if anything is.
    fn add(&mut self, rejected: RejectedDelivery, now: Timestamp) -> Option<RejectedDeliveries> {
        self.rejected.add(rejected);
        let is_early = self.written_at.is_some_and(|at| now.duration_since(at).unsigned_abs() < INTERVAL);
        if self.is_being_written || (self.written >= WRITTEN_ALONE && is_early) {
            return None;
        }
        self.written = self.written.saturating_add(1);
        self.written_at = Some(now);
        self.is_being_written = true;
        Some(self.rejected.clone())
    }
}

/// Counts one. It is refused whether it can be counted or not; while one is written the others don't wait.
pub(crate) async fn add(ingress: &Ingress, webhook: &Webhook, rejected: RejectedDelivery) {
    let now = ingress.deps.clock.now();
    let local = ingress.locals.of(webhook.head.id).await;
    let Some(count) = lock(&local.refused).add(rejected, now) else { return };
    let deliveries = ingress.deps.store.deliveries();
    let written = deliveries.reject(webhook.head.tenant, webhook.head.id, &ingress.process, &count, now).await;
    lock(&local.refused).is_being_written = false;
    if let Err(error) = written {
        tracing::warn!(
            component = "webhooks",
            error = &error as &dyn std::error::Error,
            "a refused request could not be counted yet"
        );
    }
}

fn lock(count: &Mutex<Count>) -> MutexGuard<'_, Count> {
    count.lock().unwrap_or_else(PoisonError::into_inner)
}
