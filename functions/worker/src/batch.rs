//! A batch of messages, as Lambda's event source mapping hands it over: which of them are to come again.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use tidegate_model::Message;
use tidegate_platform::queue::{OutgoingMessage, Receipt, ReceivedMessage};
use tidegate_platform::usage;

use crate::{Deps, Invocation, Source, Verdict, handle_in};

/// With less time than this left no further message is begun.
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
    // A batch of one holds up nobody.
    let unsettled = (messages.len() > 1).then(|| Arc::new(AtomicUsize::new(messages.len())));
    let (fresh, repeated): (Vec<_>, Vec<_>) = messages.into_iter().partition(|message| message.receive_count == 1);
    let settle = async |message: ReceivedMessage| {
        let again = settle(deps, source, message, deadline, unsettled.as_ref()).await;
        if let Some(unsettled) = &unsettled {
            unsettled.fetch_sub(1, Ordering::Relaxed);
        }
        again
    };
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
async fn settle(
    deps: &Deps,
    source: Source,
    message: ReceivedMessage,
    deadline: Instant,
    unsettled: Option<&Arc<AtomicUsize>>,
) -> Option<Receipt> {
    let time = deadline.saturating_duration_since(Instant::now());
    if time < LEAST_TIME && source == Source::Runs {
        return put_back(deps, message).await;
    }
    let mut invocation = Invocation::begin(deps, time);
    if let Some(unsettled) = unsettled {
        invocation = invocation.in_batch(unsettled);
    }
    let counted = usage::scope(handle_in(deps, &message, source, invocation));
    let verdict = match tokio::time::timeout(time, AssertUnwindSafe(counted).catch_unwind()).await {
        Ok(Ok((verdict, _usage))) => verdict,
        // The panic hook has logged it. The message comes again when the queue's own timeout is over.
        Ok(Err(_panic)) => return Some(message.receipt),
        Err(_elapsed) => {
            tracing::warn!(component = "worker", "a message was left at the invocation's end; it comes again");
            return Some(message.receipt);
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

/// Sends a message anew for which there is no time left. Left in the queue it would count as received, and as one that may
/// have ended an invocation. Delivered twice, it is one run all the same.
async fn put_back(deps: &Deps, message: ReceivedMessage) -> Option<Receipt> {
    let Ok(parsed) = serde_json::from_str::<Message>(&message.body) else { return Some(message.receipt) };
    match deps.queue.send(OutgoingMessage::new(parsed.tenant(), message.body)).await {
        Ok(()) => None,
        Err(error) => {
            tracing::warn!(
                component = "worker",
                error = &error as &dyn std::error::Error,
                "a message without time could not be sent anew; it comes again"
            );
            Some(message.receipt)
        }
    }
}
