//! The event loop: HTTP requests from API Gateway, direct calls, and batches from SQS.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::anyhow;
use axum::Router;
use axum::extract::Request;
use lambda_http::request::LambdaRequest;
use lambda_http::request::RequestContext::ApiGatewayV2;
use lambda_http::{Adapter, LambdaEvent, RequestExt as _, service_fn};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidegate_http::{Api, Connected};
use tidegate_platform::Clock;
use tidegate_platform::queue::{Receipt, ReceivedMessage};
use tidegate_platform::scheduler::SCHEDULED_TIME;
use tower::util::MapRequestLayer;
use tower::{Service as _, ServiceExt as _};

use crate::Aws;

/// Left of an invocation's time when its work must be over, for the answer's way back.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);

/// Serves operations to an HTTP API of API Gateway, payload format 2.0
/// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>).
///
/// # Errors
/// The runtime API is away.
pub async fn serve_api(aws: &Aws, api: Api) -> anyhow::Result<()> {
    Box::pin(lambda_http::run(router(aws, api))).await.map_err(|error| anyhow!(error))
}

/// The operations, which are told what API Gateway knows of a request
/// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>).
fn router(aws: &Aws, api: Api) -> Router {
    let tell = |mut request: Request| {
        if let Some(ApiGatewayV2(context)) = request.request_context_ref() {
            let address = context.http.source_ip.as_deref().and_then(|address| address.parse().ok());
            let origin = context.domain_name.as_deref().map(|name| format!("https://{name}").into());
            request.extensions_mut().insert(Connected { address, origin });
        }
        request
    };
    api.into_router(aws.ids.clone()).layer(MapRequestLayer::new(tell))
}

/// Serves operations, and direct invocations of the function with a `Command` as their payload: for those whom IAM lets
/// invoke it. An HTTP API's event has members that no command has, so no request can pose as one.
///
/// # Errors
/// The runtime API is away.
pub async fn serve_api_and<C: DeserializeOwned, R: Serialize>(
    aws: &Aws,
    api: Api,
    command: impl AsyncFn(C) -> Result<R, String>,
) -> anyhow::Result<()> {
    let router = router(aws, api);
    let handle = async |event: LambdaEvent<Box<RawValue>>| -> Result<serde_json::Value, lambda_http::Error> {
        let LambdaEvent { payload, context } = event;
        let no_command = match serde_json::from_str::<C>(payload.get()) {
            Ok(given) => return Ok(serde_json::to_value(Box::pin(command(given)).await?)?),
            Err(error) => error,
        };
        let request: LambdaRequest = serde_json::from_str(payload.get())
            .map_err(|_| format!("the payload is neither a command ({no_command}) nor an event of an HTTP API"))?;
        let mut service = Adapter::from(router.clone());
        let response = service.ready().await?.call(LambdaEvent::new(request, context)).await?;
        Ok(serde_json::to_value(response)?)
    };
    Box::pin(lambda_runtime::run(service_fn(handle))).await.map_err(|error| anyhow!(error))
}

/// Serves the batches of SQS event source mappings. `handle` gets the ARN of the queue, its messages and the time there
/// is for them, and gives back the receipts of those that are to come again
/// (<https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>).
///
/// # Errors
/// The runtime API is away.
pub async fn serve_queue(
    aws: &Aws,
    handle: impl AsyncFn(&str, Vec<ReceivedMessage>, Duration) -> Vec<Receipt>,
) -> anyhow::Result<()> {
    let clock = aws.clock.clone();
    let handle = async |event: LambdaEvent<Batch>| -> Result<BatchAnswer, lambda_http::Error> {
        let time = time_left(&clock, event.context.deadline);
        let batch = event.payload;
        // A mapping has one queue, so a batch has one.
        let Some(queue) = batch.records.first().map(|record| record.queue_arn.clone()) else {
            return Ok(BatchAnswer::default());
        };
        let failed = handle(&queue, batch.messages(), time).await;
        Ok(batch.answer(&failed))
    };
    Box::pin(lambda_runtime::run(service_fn(handle))).await.map_err(|error| anyhow!(error))
}

/// The time until the invocation's deadline, in milliseconds since 1970.
fn time_left(clock: &Clock, deadline_ms: u64) -> Duration {
    let now = u64::try_from(clock.now().as_millisecond()).unwrap_or(0);
    Duration::from_millis(deadline_ms.saturating_sub(now)).saturating_sub(ANSWER_MARGIN)
}

/// An event of SQS (<https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html>), as far as it is needed.
#[derive(Debug, Deserialize)]
struct Batch {
    #[serde(rename = "Records")]
    records: Vec<Record>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    message_id: String,
    receipt_handle: String,
    body: String,
    attributes: Attributes,
    #[serde(default)]
    message_attributes: HashMap<String, MessageAttribute>,
    #[serde(rename = "eventSourceARN")]
    queue_arn: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attributes {
    approximate_receive_count: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageAttribute {
    string_value: Option<String>,
}

impl Record {
    /// The body. A request that a schedule could not send comes through the dead letters with its planned time beside it.
    fn body(&self) -> String {
        let planned = self.message_attributes.get("SCHEDULED_TIME").and_then(|planned| planned.string_value.as_ref());
        planned.map_or_else(|| self.body.clone(), |planned| self.body.replace(SCHEDULED_TIME, planned))
    }
}

impl Batch {
    fn messages(&self) -> Vec<ReceivedMessage> {
        let message = |record: &Record| ReceivedMessage {
            body: record.body(),
            // What can't be read counts as a repetition, which is handled with more care.
            receive_count: record.attributes.approximate_receive_count.parse().unwrap_or(u32::MAX),
            receipt: Receipt(record.receipt_handle.clone()),
        };
        self.records.iter().map(message).collect()
    }

    fn answer(&self, failed: &[Receipt]) -> BatchAnswer {
        let is_failed = |record: &&Record| failed.iter().any(|receipt| receipt.0 == record.receipt_handle);
        let failure = |record: &Record| Failure { item_identifier: record.message_id.clone() };
        BatchAnswer { batch_item_failures: self.records.iter().filter(is_failed).map(failure).collect() }
    }
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct BatchAnswer {
    batch_item_failures: Vec<Failure>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    item_identifier: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of <https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html>, shortened to one line each.
    const EVENT: &str = r#"{"Records": [
        {"messageId": "059f36b4-87a3-44ab-83d2-661975830a7d", "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a...",
         "body": "Test message.", "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1545082649183",
         "SenderId": "AIDAIENQZJOLO23YVJ4VO", "ApproximateFirstReceiveTimestamp": "1545082649185"},
         "messageAttributes": {}, "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3", "eventSource": "aws:sqs",
         "eventSourceARN": "arn:aws:sqs:us-east-2:123456789012:my-queue", "awsRegion": "us-east-2"},
        {"messageId": "2e1424d4-f796-459a-8184-9c92662be6da", "receiptHandle": "AQEBzWwaftRI0KuVm4tP+/7q1rGgNqicHq...",
         "body": "Test message.", "attributes": {"ApproximateReceiveCount": "3", "SentTimestamp": "1545082650636",
         "SenderId": "AIDAIENQZJOLO23YVJ4VO", "ApproximateFirstReceiveTimestamp": "1545082650649"},
         "messageAttributes": {}, "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3", "eventSource": "aws:sqs",
         "eventSourceARN": "arn:aws:sqs:us-east-2:123456789012:my-queue", "awsRegion": "us-east-2"}]}"#;

    #[test]
    fn a_batch_is_read_and_its_failures_are_named_by_their_messages() {
        let batch: Batch = serde_json::from_str(EVENT).unwrap();
        let messages = batch.messages();
        assert_eq!(messages.iter().map(|message| message.receive_count).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(messages[0].body, "Test message.");
        let answer = serde_json::to_value(batch.answer(&[messages[1].receipt.clone()])).unwrap();
        let expected = r#"{"batchItemFailures": [{"itemIdentifier": "2e1424d4-f796-459a-8184-9c92662be6da"}]}"#;
        assert_eq!(answer, serde_json::from_str::<serde_json::Value>(expected).unwrap());
        assert_eq!(serde_json::to_string(&batch.answer(&[])).unwrap(), r#"{"batchItemFailures":[]}"#);
    }

    #[test]
    fn what_a_schedule_could_not_send_gets_its_planned_time() {
        let unsent = EVENT.replacen("Test message.", "{\\\"at\\\": \\\"<aws.scheduler.scheduled-time>\\\"}", 1).replacen(
            "\"messageAttributes\": {}",
            r#""messageAttributes": {"SCHEDULED_TIME": {"stringValue": "2026-11-21T10:00:00Z", "dataType": "String"}}"#,
            1,
        );
        let batch: Batch = serde_json::from_str(&unsent).unwrap();
        assert_eq!(batch.messages()[0].body, r#"{"at": "2026-11-21T10:00:00Z"}"#);
    }

    #[test]
    fn the_time_ends_before_the_deadline_and_never_below_none() {
        let clock = Clock::manual(jiff::Timestamp::from_millisecond(1_000_000).unwrap());
        assert_eq!(time_left(&clock, 1_015_000), Duration::from_millis(14_500));
        assert_eq!(time_left(&clock, 1_000_400), Duration::ZERO);
        assert_eq!(time_left(&clock, 0), Duration::ZERO);
    }
}
