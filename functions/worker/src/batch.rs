//! A batch of messages, as Lambda's event source mapping hands it over: which of them are to come again.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use tidegate_platform::queue::{Receipt, ReceivedMessage};
use tidegate_platform::usage;

use crate::{Deps, Source, Verdict, handle};

/// With less time than this left no further message is begun: it goes back to the queue unharmed.
const LEAST_TIME: Duration = Duration::from_secs(5);

/// Handles a batch within `time`, up to `concurrency` messages at once, and gives back the receipts of those that must
/// not be deleted; when they are visible again is arranged. Messages that were received before come after the fresh
/// ones and one at a time, because one of them may have been what ended an earlier invocation.
pub async fn handle_batch(
    deps: &Deps,
    source: Source,
    messages: Vec<ReceivedMessage>,
    time: Duration,
    concurrency: usize,
) -> Vec<Receipt> {
    let deadline = Instant::now() + time;
    let (fresh, repeated): (Vec<_>, Vec<_>) = messages.into_iter().partition(|message| message.receive_count == 1);
    let settle = |message: ReceivedMessage| settle(deps, source, message, deadline);
    let mut again: Vec<_> = futures::stream::iter(fresh)
        .map(settle)
        .buffer_unordered(concurrency.max(1))
        .filter_map(std::future::ready)
        .collect()
        .await;
    for message in repeated {
        again.extend(settle(message).await);
    }
    again
}

/// Handles one message; its receipt where it is to come again.
async fn settle(deps: &Deps, source: Source, message: ReceivedMessage, deadline: Instant) -> Option<Receipt> {
    let time = deadline.saturating_duration_since(Instant::now());
    let verdict = if time < LEAST_TIME {
        Verdict::Keep { visible_in: Duration::ZERO }
    } else {
        // The panic hook has logged it. The message comes again when the queue's own timeout is over.
        let counted = usage::scope(handle(deps, &message, source, time));
        match AssertUnwindSafe(counted).catch_unwind().await {
            Ok((verdict, _usage)) => verdict,
            Err(_panic) => return Some(message.receipt),
        }
    };
    let Verdict::Keep { visible_in } = verdict else {
        if source == Source::DeadLetters {
            deps.metrics.dead_letter();
        }
        return None;
    };
    let queue = match source {
        Source::Runs => Some(&*deps.queue),
        Source::DeadLetters => deps.queue.dead_letters(),
    };
    if let Some(queue) = queue
        && let Err(error) = queue.change_visibility(&message.receipt, visible_in).await
    {
        tracing::warn!(
            component = "worker",
            error = &error as &dyn std::error::Error,
            "a message's return could not be timed; it comes again when the queue's own timeout is over"
        );
    }
    Some(message.receipt)
}
