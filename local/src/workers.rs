//! Takes messages from the embedded queue and hands them to the worker: what Lambda's event source mapping does on AWS.

use std::sync::Arc;
use std::time::Duration;

use tidegate_platform::queue::{Queue, ReceivedMessage};
use tidegate_worker::{Deps, Source, Verdict};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// SQS's longest poll.
const POLL: Duration = Duration::from_secs(20);
/// SQS's largest batch.
const BATCH: usize = 10;
/// How many dead letters are looked at together.
const DEAD_LETTER_CONCURRENCY: usize = 2;
/// From this receipt on a message is handled by itself: one of those that come again and again may be what ends the
/// process each time. A restart or two leave all others as fast as they were.
const ALONE_FROM_RECEIPT: u32 = 3;
/// How long to leave a queue alone that failed.
const PAUSE_AFTER_FAULT: Duration = Duration::from_secs(1);

/// Runs `concurrency` workers until `stop`; [`TaskTracker::wait`] on `tasks` then waits for runs in flight.
pub(crate) async fn work(
    deps: Deps,
    queue: Arc<dyn Queue>,
    concurrency: usize,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let dead_letters = async {
        if let Some(dead) = queue.dead_letters() {
            pump(&deps, dead, &queue, Source::DeadLetters, DEAD_LETTER_CONCURRENCY, &stop, &tasks).await;
        }
    };
    tokio::join!(pump(&deps, &*queue, &queue, Source::Runs, concurrency, &stop, &tasks), dead_letters);
}

async fn pump(
    deps: &Deps,
    from: &dyn Queue,
    queue: &Arc<dyn Queue>,
    source: Source,
    concurrency: usize,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) {
    let slots = Arc::new(Semaphore::new(concurrency));
    let alone = Arc::new(Mutex::new(()));
    loop {
        let received = async {
            let mut free = free_slots(&slots).await;
            let messages = from.receive(free.len(), POLL).await;
            free.truncate(messages.as_ref().map_or(0, Vec::len));
            (messages, free)
        };
        let (messages, free) = tokio::select! {
            () = stop.cancelled() => return,
            received = received => received,
        };
        match messages {
            Ok(messages) => {
                for (message, slot) in messages.into_iter().zip(free) {
                    let (deps, queue, alone) = (deps.clone(), Arc::clone(queue), Arc::clone(&alone));
                    tasks.spawn(async move {
                        let _turn = match message.receive_count {
                            ALONE_FROM_RECEIPT.. => Some(alone.lock().await),
                            _ => None,
                        };
                        handle(&deps, &queue, source, &message).await;
                        drop(slot);
                    });
                }
            }
            Err(error) => {
                tracing::error!(
                    component = "worker",
                    error = &error as &dyn std::error::Error,
                    "the queue can't be read; it is tried again"
                );
                tokio::time::sleep(PAUSE_AFTER_FAULT).await;
            }
        }
    }
}

/// Waits for a free slot and takes what others are free, up to a batch.
async fn free_slots(slots: &Arc<Semaphore>) -> Vec<OwnedSemaphorePermit> {
    let mut free: Vec<_> = Arc::clone(slots).acquire_owned().await.into_iter().collect();
    while free.len() < BATCH {
        match Arc::clone(slots).try_acquire_owned() {
            Ok(slot) => free.push(slot),
            Err(_all_taken) => break,
        }
    }
    free
}

async fn handle(deps: &Deps, queue: &Arc<dyn Queue>, source: Source, message: &ReceivedMessage) {
    let queue = match source {
        Source::Runs => Some(&**queue),
        Source::DeadLetters => queue.dead_letters(),
    };
    let Some(queue) = queue else { return };
    let settled = match tidegate_worker::handle(deps, message, source, deps.settings.worker_timeout).await {
        Verdict::Delete => queue.delete(&message.receipt).await,
        Verdict::Keep { visible_in } => queue.change_visibility(&message.receipt, visible_in).await,
    };
    if let Err(error) = settled {
        tracing::warn!(
            component = "worker",
            error = &error as &dyn std::error::Error,
            "a handled message could not be settled; it comes again"
        );
    }
}
