//! What this process keeps of each webhook that is in use: nothing that is lost with it matters.

use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use moka::future::Cache;
use tidegate_model::WorkflowId;
use tidegate_platform::Clock;
use tidegate_store::CAPTURES;
use tokio::sync::Semaphore;

use crate::rejections::Count;

/// An entry takes at most 10 KB.
const MAX_WEBHOOKS: u64 = 5_000;
const IDLE: Duration = Duration::from_secs(3_600);
/// So many large bodies of one webhook are read at once, so that who knows one can't keep all others waiting.
pub(crate) const LARGE_OF_ONE: usize = 4;

/// What is kept of a webhook.
pub(crate) struct Local {
    pub(crate) large_bodies: Semaphore,
    /// Where the next delivery is captured.
    pub(crate) place: AtomicU8,
    /// What was refused.
    pub(crate) refused: Mutex<Count>,
}

pub(crate) struct Locals {
    clock: Clock,
    kept: Cache<WorkflowId, Arc<Local>>,
}

impl Locals {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, kept: Cache::builder().max_capacity(MAX_WEBHOOKS).time_to_idle(IDLE).build() }
    }

    pub(crate) async fn of(&self, workflow: WorkflowId) -> Arc<Local> {
        let made = async {
            // Processes begin at different places, or each would overwrite what the one before has just captured.
            let place = self.clock.now().as_second().rem_euclid(CAPTURES.into());
            Arc::new(Local {
                large_bodies: Semaphore::new(LARGE_OF_ONE),
                place: AtomicU8::new(u8::try_from(place).unwrap_or_default()),
                refused: Mutex::default(),
            })
        };
        self.kept.get_with(workflow, made).await
    }
}
