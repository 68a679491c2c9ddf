//! The event loop: HTTP requests from API Gateway, direct calls, and batches from SQS.

use std::time::Duration;

use anyhow::anyhow;
use lambda_http::request::LambdaRequest;
use lambda_http::{Adapter, LambdaEvent, service_fn};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidegate_http::Api;
use tidegate_platform::Clock;
use tidegate_platform::queue::{Receipt, ReceivedMessage};
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
    Box::pin(lambda_http::run(api.into_router(aws.ids.clone()))).await.map_err(|error| anyhow!(error))
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
    let router = api.into_router(aws.ids.clone());
    let handle = async |event: LambdaEvent<Box<RawValue>>| -> Result<serde_json::Value, lambda_http::Error> {
        let LambdaEvent { payload, context } = event;
        if let Ok(given) = serde_json::from_str::<C>(payload.get()) {
            return Ok(serde_json::to_value(Box::pin(command(given)).await?)?);
        }
        let request: LambdaRequest = serde_json::from_str(payload.get())?;
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
        let mut answer = BatchAnswer::default();
        // A mapping has one queue, so a batch has one.
        let Some(queue) = event.payload.records.first().map(|record| record.queue_arn.clone()) else {
            return Ok(answer);
        };
        let ids: Vec<_> = event
            .payload
            .records
            .iter()
            .map(|record| (record.receipt_handle.clone(), record.message_id.clone()))
            .collect();
        let messages = event.payload.records.into_iter().map(Record::into_message).collect();
        for failed in handle(&queue, messages, time).await {
            let id = ids.iter().find(|(receipt, _)| *receipt == failed.0).map(|(_, id)| id.clone());
            answer.batch_item_failures.extend(id.map(|item_identifier| Failure { item_identifier }));
        }
        Ok(answer)
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
    #[serde(rename = "eventSourceARN")]
    queue_arn: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attributes {
    approximate_receive_count: String,
}

impl Record {
    fn into_message(self) -> ReceivedMessage {
        ReceivedMessage {
            body: self.body,
            // What can't be read counts as a repetition, which is handled with more care.
            receive_count: self.attributes.approximate_receive_count.parse().unwrap_or(u32::MAX),
            receipt: Receipt(self.receipt_handle),
        }
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
