//! The SDK's HTTP connector: instead of sending a request it has the engine run it.

use std::fmt;
use std::sync::Arc;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use serde_json::{Value, json};

use super::dispatch;
use super::engine::{Engine, Failure};
use super::faults::{Faults, Instead};
use super::meter::Meter;

const TARGET_PREFIX: &str = "DynamoDB_20120810.";

/// The connector; clones share everything.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    engine: Arc<Engine>,
    faults: Faults,
    meter: Meter,
    guard: Option<Guard>,
}

/// Decides whether a request is allowed, by its operation (`PutItem`) and its body, as IAM does on AWS.
#[derive(Clone)]
pub struct Guard(Arc<Rule>);

type Rule = dyn Fn(&str, &Value) -> bool + Send + Sync;

impl Guard {
    /// A guard by a rule.
    pub fn new(allows: impl Fn(&str, &Value) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(allows))
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

impl Connector {
    pub(super) fn new(engine: Arc<Engine>, faults: Faults, meter: Meter, guard: Option<Guard>) -> Self {
        Self { engine, faults, meter, guard }
    }

    async fn answer(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let Some(operation) = target.strip_prefix(TARGET_PREFIX).map(str::to_owned) else {
            return Err(ConnectorError::user("the request names no DynamoDB operation".into()));
        };
        self.meter.count(&operation);
        let Some(body) = request.body().bytes() else {
            return Err(ConnectorError::user("the request's body is a stream".into()));
        };
        if let Some(Guard(allows)) = &self.guard
            && !allows(&operation, &serde_json::from_slice(body).unwrap_or_default())
        {
            return response(400, denied(&format!("not authorized to perform dynamodb:{operation} on these keys")));
        }
        if !dispatch::touches_rows(&operation) {
            return self.run(&operation, body).await.map(|ran| ran.response);
        }
        match self.faults.instead(&operation) {
            Some(Instead::Throttled) => return response(400, throttled(&operation)),
            Some(Instead::TransactionConflict) => return response(400, conflict(body)),
            Some(Instead::Dead) => return response(400, denied("injected: the caller is dead")),
            None => {}
        }
        let metered = self.meter.measures().then(|| ask_for_units(body)).flatten();
        let ran = self.run(&operation, metered.as_deref().unwrap_or(body)).await?;
        if ran.succeeded && dispatch::writes(&operation) {
            self.faults.note_write(&operation, body);
            if self.faults.loses_answer() {
                return Err(ConnectorError::timeout("injected: the answer got lost".into()));
            }
        }
        Ok(ran.response)
    }

    async fn run(&self, operation: &str, body: &[u8]) -> Result<Ran, ConnectorError> {
        let outcome = match dispatch::read(operation, body) {
            Ok(work) => self.engine.run(work, dispatch::writes(operation)).await,
            Err(refusal) => Err(Failure::Refused(refusal)),
        };
        match outcome {
            Ok(answer) => {
                let mut answer = answer().map_err(|error| ConnectorError::other(error.into(), None))?;
                if operation == "Query" {
                    answer = self.faults.hide_recent(body, answer);
                }
                if self.meter.measures() {
                    self.meter.add_answer(&answer, dispatch::writes(operation));
                }
                Ok(Ran { response: response(200, answer)?, succeeded: true })
            }
            Err(Failure::Refused(refusal)) => {
                Ok(Ran { response: response(refusal.status_code(), refusal.to_json().into_bytes())?, succeeded: false })
            }
            // Not retried: the database won't come back within this process.
            Err(failure) => Err(ConnectorError::other(failure.into(), None)),
        }
    }
}

struct Ran {
    response: HttpResponse,
    succeeded: bool,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().answer(request))
    }
}

impl HttpClient for Connector {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

fn response(status: u16, body: Vec<u8>) -> Result<HttpResponse, ConnectorError> {
    let status = StatusCode::try_from(status).map_err(|error| ConnectorError::other(error.into(), None))?;
    Ok(HttpResponse::new(status, SdkBody::from(body)))
}

fn ask_for_units(body: &[u8]) -> Option<Vec<u8>> {
    let mut body: Value = serde_json::from_slice(body).ok()?;
    body["ReturnConsumedCapacity"] = "TOTAL".into();
    serde_json::to_vec(&body).ok()
}

fn throttled(operation: &str) -> Vec<u8> {
    let body = json!({
        "__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
        "message": format!("injected: {operation} is throttled"),
    });
    body.to_string().into_bytes()
}

/// An answer that the SDK doesn't repeat the request after.
fn denied(message: &str) -> Vec<u8> {
    let name = "com.amazonaws.dynamodb.v20120810#AccessDeniedException";
    json!({ "__type": name, "message": message }).to_string().into_bytes()
}

fn conflict(body: &[u8]) -> Vec<u8> {
    let actions = serde_json::from_slice::<Value>(body).ok();
    let actions = actions.as_ref().and_then(|body| body["TransactItems"].as_array()).map_or(1, Vec::len);
    let mut reasons = vec![json!({ "Code": "None" }); actions];
    if let Some(first) = reasons.first_mut() {
        *first = json!({ "Code": "TransactionConflict", "Message": "Transaction is ongoing for the item" });
    }
    let body = json!({
        "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
        "Message": "Transaction cancelled, please refer cancellation reasons for specific reasons [TransactionConflict]",
        "CancellationReasons": reasons,
    });
    body.to_string().into_bytes()
}
