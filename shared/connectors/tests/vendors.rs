//! Actions called through egress, with a server that answers as the vendors document.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_connectors::{action, connector, step_error};
use tidegate_egress::{Credential, Egress, EgressSettings};
use tidegate_model::{Connection, ErrorCode, StepError};
use tidegate_platform::key_service::KeyContext;
use tidegate_platform::key_service::key_file::KeyFile;
use tidegate_platform::{Clock, Envelope, Ids};
use wiremock::matchers::{body_json, header, method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

struct Setup {
    server: MockServer,
    egress: Egress,
    envelope: Envelope,
    ids: Ids,
    _folder: tempfile::TempDir,
}

async fn setup(allow: &[&str]) -> Setup {
    let clock = Clock::system();
    let folder = tempfile::tempdir().unwrap();
    let keys = KeyFile::open_or_create(&folder.path().join("key")).unwrap();
    let envelope = Envelope::new(Arc::new(keys), clock.clone());
    let allow = allow.iter().map(|range| range.parse().unwrap()).collect();
    let egress = Egress::new(EgressSettings { allow, ..EgressSettings::default() }, envelope.clone());
    Setup { server: MockServer::start().await, egress, envelope, ids: Ids::new(clock), _folder: folder }
}

impl Setup {
    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.uri())
    }

    /// Calls an action with a connection that was made as the API makes it, or without one.
    async fn call(
        &self,
        uses: &str,
        secret: Option<Value>,
        hosts: &[String],
        input: Value,
    ) -> Result<Value, StepError> {
        let action = action(uses).unwrap();
        let parts = action.request(&input, secret.is_some())?;
        let request = parts.into_request(Duration::from_secs(5), Some("key-1".to_owned()), None);
        let tenant = self.ids.tenant();
        let context = KeyContext { tenant: tenant.to_string(), purpose: "connections".to_owned() };
        let data_key = self.envelope.new_data_key(&context).await.unwrap();
        let connection = match secret {
            Some(secret) => {
                let connector = connector(action.connector).unwrap();
                assert_eq!(connector.validate_secret(&secret), []);
                let id = self.ids.connection();
                let (associated, plain) = (id.to_string(), secret.to_string());
                let sealed = self.envelope.seal(&data_key, &context, associated.as_bytes(), plain.as_bytes());
                Some(Connection {
                    id,
                    tenant,
                    name: "c".to_owned(),
                    connector: connector.name.to_owned(),
                    hosts: connector.hosts_of(&secret, hosts).unwrap(),
                    data_key: 1,
                    sealed: sealed.await.unwrap(),
                    created_at: Clock::system().now(),
                })
            }
            None => None,
        };
        let credential = connection.as_ref().map(|connection| Credential { connection, data_key: &data_key });
        let response = self.egress.send(request, credential).await.map_err(step_error)?;
        action.output(&response, Clock::system().now())
    }

    async fn slack(&self, input: Value) -> Result<Value, StepError> {
        self.call(
            "slack.send_message",
            Some(json!({"webhook_url": self.url("/services/T0/B0/s3cr3ts3cr3t")})),
            &[],
            input,
        )
        .await
    }
}

const LOOPBACK: &[&str] = &["127.0.0.1/32"];

#[tokio::test]
async fn a_slack_message_is_sent_as_given_and_its_answers_are_told() {
    let setup = setup(LOOPBACK).await;
    let message = json!({"text": "Hello Alex! Order #12345 confirmed."});
    Mock::given(method("POST"))
        .and(path("/services/T0/B0/s3cr3ts3cr3t"))
        .and(header("content-type", "application/json"))
        .and(header("idempotency-key", "key-1"))
        .and(body_json(&message))
        .respond_with(ResponseTemplate::new(200).set_body_string("ok"))
        .expect(1)
        .mount(&setup.server)
        .await;
    assert_eq!(setup.slack(message).await, Ok(json!({"status": 200, "body": "ok"})));

    setup.server.reset().await;
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(429).insert_header("retry-after", "30").set_body_string("rate_limited"))
        .up_to_n_times(1)
        .mount(&setup.server)
        .await;
    let gone = format!("no_service: {}", setup.url("/services/T0/B0/s3cr3ts3cr3t"));
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(404).set_body_string(gone))
        .mount(&setup.server)
        .await;
    let limited = setup.slack(json!({"text": "x"})).await.unwrap_err();
    assert_eq!((limited.code, limited.retry_after_ms), (ErrorCode::RateLimited, Some(30_000)));
    let gone = setup.slack(json!({"text": "x"})).await.unwrap_err();
    assert!(gone.message.contains("404 Not Found: no_service"), "{}", gone.message);
    assert!(!gone.message.contains("s3cr3t"), "{}", gone.message);
}

#[tokio::test]
async fn a_discord_message_is_sent_and_its_wait_is_honoured() {
    let setup = setup(LOOPBACK).await;
    let limited = json!({"message": "You are being rate limited.", "retry_after": 64.57, "global": false});
    Mock::given(path("/api/webhooks/1/token"))
        .respond_with(ResponseTemplate::new(429).insert_header("retry-after", "65").set_body_json(limited))
        .up_to_n_times(1)
        .mount(&setup.server)
        .await;
    Mock::given(method("POST"))
        .and(path("/api/webhooks/1/token"))
        .and(body_json(json!({"content": "Hi", "username": "Tide"})))
        .respond_with(ResponseTemplate::new(204))
        .expect(1)
        .mount(&setup.server)
        .await;
    let secret = json!({"webhook_url": setup.url("/api/webhooks/1/token")});
    let send =
        || setup.call("discord.send_message", Some(secret.clone()), &[], json!({"content": "Hi", "username": "Tide"}));
    let limited = send().await.unwrap_err();
    assert_eq!((limited.code, limited.retryable, limited.retry_after_ms), (ErrorCode::RateLimited, true, Some(64_570)));
    assert_eq!(send().await, Ok(json!({"status": 204, "body": null})));
}

#[tokio::test]
async fn an_http_request_carries_its_secret_only_to_its_hosts() {
    let setup = setup(LOOPBACK).await;
    Mock::given(method("POST"))
        .and(path("/v1/orders"))
        .and(query_param("notify", "true"))
        .and(header("authorization", "Bearer s3cr3ts3cr3t"))
        .and(header("idempotency-key", "mine"))
        .and(body_json(json!({"id": 7})))
        .respond_with(ResponseTemplate::new(201).set_body_json(json!({"id": 7, "token": "s3cr3ts3cr3t"})))
        .expect(1)
        .mount(&setup.server)
        .await;
    let bearer = || Some(json!({"type": "bearer", "token": "s3cr3ts3cr3t"}));
    let input = json!({
        "method": "POST", "url": setup.url("/v1/orders"), "query": {"notify": true}, "json": {"id": 7},
        "headers": {"Idempotency-Key": "mine"},
    });
    let here = [setup.server.address().to_string()];
    let output = setup.call("http.request", bearer(), &here, input.clone()).await.unwrap();
    assert_eq!((&output["status"], &output["body"]), (&json!(201), &json!({"id": 7, "token": "***"})));
    assert_eq!(output["headers"]["content-type"], "application/json");

    let elsewhere = setup.call("http.request", bearer(), &["api.example.com".to_owned()], input.clone()).await;
    let refused = elsewhere.unwrap_err();
    assert_eq!((refused.code, refused.retryable), (ErrorCode::EgressDenied, false));
    let without = setup.call("http.request", None, &[], input).await.unwrap_err();
    assert_eq!(without.code, ErrorCode::TargetFailed, "the mock refuses what has no token");
}

#[tokio::test]
async fn calls_without_an_answer_say_why() {
    let closed = setup(&[]).await;
    let denied = closed.slack(json!({"text": "x"})).await.unwrap_err();
    assert_eq!((denied.code, denied.retryable), (ErrorCode::EgressDenied, false));
    assert!(denied.message.contains("127.0.0.1") && !denied.message.contains("s3cr3t"), "{}", denied.message);

    let open = setup(LOOPBACK).await;
    let nobody = json!({"method": "GET", "url": "http://127.0.0.1:1/"});
    let refused = open.call("http.request", None, &[], nobody).await.unwrap_err();
    assert_eq!((refused.code, refused.retryable), (ErrorCode::ConnectFailed, true));
    let too_large = ResponseTemplate::new(200).set_body_bytes(vec![b'x'; 6 << 20]);
    Mock::given(method("GET")).respond_with(too_large).mount(&open.server).await;
    let large = open.call("http.request", None, &[], json!({"method": "GET", "url": open.url("/")})).await.unwrap_err();
    assert_eq!((large.code, large.retryable), (ErrorCode::ResponseInvalid, false));
}
