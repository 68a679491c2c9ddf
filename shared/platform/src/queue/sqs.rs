//! The queue on Amazon SQS: a standard queue and its dead-letter queue.
//!
//! Visibility timeout and `maxReceiveCount` are the queues' own attributes. A message's group goes along as its
//! `MessageGroupId`, which on a standard queue makes it a fair queue
//! (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html>). Durations are
//! rounded up to whole seconds.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::Builder;
use aws_sdk_sqs::error::SdkError;
use aws_sdk_sqs::operation::change_message_visibility::ChangeMessageVisibilityError;
use aws_sdk_sqs::types::{
    Message, MessageSystemAttributeName, MessageSystemAttributeNameForSends, MessageSystemAttributeValue,
};
use aws_types::SdkConfig;

use super::{MAX_RECEIVED, MAX_WAIT, OutgoingMessage, Queue, Receipt, ReceivedMessage, check_body, check_visibility};
use crate::{PortError, usage};

/// The longest delay of a message.
const MAX_DELAY: Duration = Duration::from_secs(15 * 60);
/// How long one redrive keeps the dead letters that it is moving.
const REDRIVE_VISIBILITY_SECONDS: i32 = 30;

/// A queue on SQS. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct SqsQueue {
    client: Client,
    url: String,
    dead_letters: Option<Box<SqsQueue>>,
}

impl SqsQueue {
    /// The queue at this URL, without its dead-letter queue: for those who only send.
    pub fn new(config: &SdkConfig, url: impl Into<String>) -> Self {
        let client = Client::from_conf(Builder::from(config).interceptor(usage::Calls).build());
        Self { client, url: url.into(), dead_letters: None }
    }

    /// The same queue with the dead-letter queue at this URL.
    #[must_use]
    pub fn with_dead_letters(self, url: impl Into<String>) -> Self {
        let dead = Self { client: self.client.clone(), url: url.into(), dead_letters: None };
        Self { dead_letters: Some(Box::new(dead)), ..self }
    }

    async fn send_body(
        &self,
        body: String,
        group: Option<String>,
        delay_seconds: i32,
        trace: Option<String>,
    ) -> Result<(), PortError> {
        let trace = trace.map(|header| MessageSystemAttributeValue::builder().data_type("String").string_value(header));
        let trace = trace.map(|value| value.build()).transpose().map_err(|error| self.failed("send to", error))?;
        let attributes =
            trace.map(|value| HashMap::from([(MessageSystemAttributeNameForSends::AwsTraceHeader, value)]));
        self.client
            .send_message()
            .set_message_system_attributes(attributes)
            .queue_url(&self.url)
            .message_body(body)
            .set_message_group_id(group)
            .delay_seconds(delay_seconds)
            .send()
            .await
            .map_err(|error| self.failed("send to", error))?;
        Ok(())
    }

    async fn receive_messages(
        &self,
        max: usize,
        wait: Duration,
        visibility_seconds: Option<i32>,
    ) -> Result<Vec<Message>, PortError> {
        let output = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(i32::try_from(max.clamp(1, MAX_RECEIVED)).unwrap_or(1))
            .wait_time_seconds(whole_seconds(wait.min(MAX_WAIT)))
            .set_visibility_timeout(visibility_seconds)
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(MessageSystemAttributeName::MessageGroupId)
            .send()
            .await
            .map_err(|error| self.failed("receive from", error))?;
        Ok(output.messages.unwrap_or_default())
    }

    fn failed(&self, operation: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> PortError {
        PortError::new(format!("{operation} queue {}", self.url), source)
    }

    fn incomplete(&self, field: &str) -> PortError {
        self.failed("receive from", format!("a message came without its {field}"))
    }
}

#[async_trait]
impl Queue for SqsQueue {
    async fn send(&self, message: OutgoingMessage) -> Result<(), PortError> {
        if message.delay > MAX_DELAY {
            let reason = format!(
                "SQS delays a message by at most 15 minutes, {} s were asked for: put a timer with the scheduler instead",
                message.delay.as_secs()
            );
            return Err(self.failed("send to", reason));
        }
        let body = escape_noncharacters(message.body);
        check_body(&body)?;
        self.send_body(body, Some(message.group.to_string()), whole_seconds(message.delay), message.trace).await
    }

    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<ReceivedMessage>, PortError> {
        let messages = self.receive_messages(max, wait, None).await?;
        messages
            .into_iter()
            .map(|message| {
                let receive_count = message
                    .attributes
                    .as_ref()
                    .and_then(|attributes| attributes.get(&MessageSystemAttributeName::ApproximateReceiveCount))
                    .and_then(|count| count.parse().ok())
                    .ok_or_else(|| self.incomplete("receive count"))?;
                let receipt = Receipt(message.receipt_handle.ok_or_else(|| self.incomplete("receipt handle"))?);
                let body = message.body.ok_or_else(|| self.incomplete("body"))?;
                Ok(ReceivedMessage { body, receive_count, receipt })
            })
            .collect()
    }

    async fn delete(&self, receipt: &Receipt) -> Result<(), PortError> {
        let request = self.client.delete_message().queue_url(&self.url).receipt_handle(&receipt.0);
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if error.as_service_error().is_some_and(|error| error.is_receipt_handle_is_invalid()) => Ok(()),
            Err(error) => Err(self.failed("delete from", error)),
        }
    }

    async fn change_visibility(&self, receipt: &Receipt, visible_in: Duration) -> Result<(), PortError> {
        check_visibility(visible_in)?;
        let request = self
            .client
            .change_message_visibility()
            .queue_url(&self.url)
            .receipt_handle(&receipt.0)
            .visibility_timeout(whole_seconds(visible_in));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if is_not_in_flight(&error) => Ok(()),
            Err(error) => Err(self.failed("change the visibility of a message of", error)),
        }
    }

    async fn redrive(&self, max: usize) -> Result<usize, PortError> {
        let Some(dead_letters) = &self.dead_letters else {
            return Err(self.failed("redrive", "it is a dead-letter queue itself"));
        };
        let mut moved = 0;
        while moved < max {
            let visibility = Some(REDRIVE_VISIBILITY_SECONDS);
            let batch = dead_letters.receive_messages(max - moved, Duration::from_secs(1), visibility).await?;
            if batch.is_empty() {
                break;
            }
            for message in batch {
                let group =
                    message.attributes.and_then(|mut all| all.remove(&MessageSystemAttributeName::MessageGroupId));
                let handle = message.receipt_handle.ok_or_else(|| dead_letters.incomplete("receipt handle"))?;
                let body = message.body.ok_or_else(|| dead_letters.incomplete("body"))?;
                self.send_body(body, group, 0, None).await?;
                dead_letters.delete(&Receipt(handle)).await?;
                moved += 1;
            }
        }
        Ok(moved)
    }

    fn dead_letters(&self) -> Option<&dyn Queue> {
        self.dead_letters.as_deref().map(|queue| queue as &dyn Queue)
    }
}

/// SQS tells a message that is visible again, gone or received anew apart only in part, and by three errors, one of
/// them not in its model.
fn is_not_in_flight<R>(error: &SdkError<ChangeMessageVisibilityError, R>) -> bool {
    error.as_service_error().is_some_and(|error| {
        let gone = "not available for visibility timeout change";
        error.is_message_not_inflight()
            || error.is_receipt_handle_is_invalid()
            || (error.meta().code() == Some("InvalidParameterValue")
                && error.meta().message().is_some_and(|message| message.contains(gone)))
    })
}

/// SQS takes no U+FFFE and U+FFFF. In JSON text they stand only in strings, where they may be escaped.
fn escape_noncharacters(body: String) -> String {
    if body.contains(['\u{fffe}', '\u{ffff}']) {
        body.replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff")
    } else {
        body
    }
}

fn whole_seconds(duration: Duration) -> i32 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i32::try_from(seconds).unwrap_or(i32::MAX)
}
