//! What the queue's and the scheduler's contracts are run against.

use std::time::Duration;

use tidegate_platform::queue::SqsQueue;
use tidegate_platform::{Clock, Ids};
use tidegate_testing::emulator;

/// A queue on the emulator, with a dead-letter queue of its own.
#[allow(dead_code, reason = "each test binary uses a part of it")]
pub(crate) struct EmulatedQueue {
    pub(crate) queue: SqsQueue,
    pub(crate) url: String,
    pub(crate) dead_letter_arn: String,
}

/// Makes a queue under a name that no other test has.
pub(crate) async fn sqs_queue(visibility_timeout: Duration, max_receive_count: u32) -> EmulatedQueue {
    use aws_sdk_sqs::types::QueueAttributeName::{RedrivePolicy, VisibilityTimeout};

    let config = emulator::sdk_config();
    let client = aws_sdk_sqs::Client::new(&config);
    let name = format!("test-{}", Ids::new(Clock::system()).workflow());
    let dead_name = format!("{name}-dead");
    let dead = client.create_queue().queue_name(&dead_name).send().await.unwrap();
    let dead_letter_arn = format!("arn:aws:sqs:{}:{}:{dead_name}", emulator::REGION, emulator::ACCOUNT);
    let redrive = serde_json::json!({ "deadLetterTargetArn": dead_letter_arn, "maxReceiveCount": max_receive_count });
    let main = client
        .create_queue()
        .queue_name(&name)
        .attributes(VisibilityTimeout, visibility_timeout.as_secs().to_string())
        .attributes(RedrivePolicy, redrive.to_string())
        .send()
        .await
        .unwrap();
    let (url, dead_url) = (main.queue_url.unwrap(), dead.queue_url.unwrap());
    EmulatedQueue { queue: SqsQueue::new(&config, &url).with_dead_letters(dead_url), url, dead_letter_arn }
}

pub(crate) fn manual_clock() -> Clock {
    Clock::manual("2026-11-21T10:00:00Z".parse().unwrap())
}
