//! Actions that are built in, called through egress, with a server that answers as the vendors document.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use serde_json::{Value, json};
use tidegate_connectors::{Failure, catalogue};
use tidegate_egress::Effect;
use tidegate_model::{ErrorCode, StepError};
use wiremock::matchers::{body_json, header, method, path, query_param};
use wiremock::{Mock, ResponseTemplate};

mod support;

use support::{LOOPBACK, Made, Setup, setup};

impl Setup {
    async fn webhook(&self, connector: &str, path: &str) -> Made {
        let data = json!({"webhook_url": self.url(path)});
        self.connection(catalogue::connector(connector).unwrap(), "webhook", data.as_object().unwrap(), &[]).await
    }

    async fn slack(&self, input: Value) -> Result<Value, Failure> {
        let made = self.webhook("slack", "/services/T0/B0/s3cr3ts3cr3t").await;
        self.call(catalogue::action("slack.send_message").unwrap(), &input, Some(&made)).await
    }

    async fn http(&self, input: Value, made: Option<&Made>) -> Result<Value, StepError> {
        let answered = self.call(catalogue::action("http.request").unwrap(), &input, made).await;
        answered.map_err(|failure| failure.error)
    }

    async fn bearer(&self, hosts: &[&str]) -> Made {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let data = json!({"token": "s3cr3ts3cr3t"});
        self.connection(catalogue::connector("http").unwrap(), "bearer", data.as_object().unwrap(), &hosts).await
    }
}

#[tokio::test]
async fn a_webhooks_message_is_made_exactly_as_given_and_only_with_its_connection() {
    let setup = setup(LOOPBACK).await;
    let slack = catalogue::action("slack.send_message").unwrap();
    let hook = setup.webhook("slack", "/services/T0/B0/s3cr3ts3cr3t").await;
    let now = setup.outside().now;
    let input = json!({"text": "Hello Alex! Order #12345 confirmed."});
    let parts = slack.request(&input, Some(&hook.connection), now).unwrap();
    assert_eq!((parts.method.as_str(), parts.url.as_str(), parts.effect), ("POST", "", Effect::Write));
    assert_eq!(parts.body.unwrap(), r#"{"text":"Hello Alex! Order #12345 confirmed."}"#);
    assert_eq!(parts.headers["content-type"], "application/json");

    let discord = catalogue::action("discord.send_message").unwrap();
    let invalid = slack.request(&json!({"text": ""}), Some(&hook.connection), now).unwrap_err();
    assert_eq!((invalid.code, invalid.retryable), (ErrorCode::InputInvalid, false));
    assert_eq!(invalid.message, "the input does not fit slack.send_message: /with/text must not be empty");
    let bot = catalogue::action("slack.post_message").unwrap();
    let id = hook.connection.id;
    for (action, connection, reason) in [
        (
            slack,
            None,
            r#"slack.send_message needs a connection of the connector "slack"; name one in the step"#.to_owned(),
        ),
        (
            discord,
            Some(&hook.connection),
            format!("the connection {id} is for `slack`, but discord.send_message needs one for `discord`"),
        ),
        (
            bot,
            Some(&hook.connection),
            format!(
                "the connection {id} signs in by `webhook`, but slack.post_message needs one by `bot_token` or `oauth`"
            ),
        ),
        (
            catalogue::action("storage.get").unwrap(),
            Some(&hook.connection),
            "storage.get takes no connection; remove it from the step".to_owned(),
        ),
    ] {
        let refused = action.request(&input, connection, now).unwrap_err();
        let expected = (ErrorCode::ConnectionUnusable, false, reason);
        assert_eq!((refused.code, refused.retryable, refused.message), expected, "{}", action.name);
    }
}

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
        .up_to_n_times(1)
        .mount(&setup.server)
        .await;
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(404).set_body_string("no_service"))
        .mount(&setup.server)
        .await;
    let limited = setup.slack(json!({"text": "x"})).await.unwrap_err().error;
    assert_eq!((limited.code, limited.retry_after_ms), (ErrorCode::RateLimited, Some(30_000)));
    let told = setup.slack(json!({"text": "x"})).await.unwrap_err().error.message;
    assert!(told.contains("404 Not Found: no_service") && !told.contains("s3cr3t"), "{told}");
    let gone = setup.slack(json!({"text": "x"})).await.unwrap_err();
    assert!(gone.is_connection_broken);
    assert_eq!((gone.error.code, gone.error.retryable), (ErrorCode::ConnectionUnusable, false));
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
    let hook = setup.webhook("discord", "/api/webhooks/1/token").await;
    let (action, input) =
        (catalogue::action("discord.send_message").unwrap(), json!({"content": "Hi", "username": "Tide"}));
    let limited = setup.call(action, &input, Some(&hook)).await.unwrap_err().error;
    assert_eq!((limited.code, limited.retryable, limited.retry_after_ms), (ErrorCode::RateLimited, true, Some(64_570)));
    assert_eq!(setup.call(action, &input, Some(&hook)).await, Ok(json!({"status": 204, "body": null})));
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
    let input = json!({
        "method": "POST", "url": setup.url("/v1/orders"), "query": {"notify": true}, "json": {"id": 7},
        "headers": {"Idempotency-Key": "mine"},
    });
    let here = setup.bearer(&[&setup.server.address().to_string()]).await;
    let output = setup.http(input.clone(), Some(&here)).await.unwrap();
    assert_eq!((&output["status"], &output["body"]), (&json!(201), &json!({"id": 7, "token": "***"})));
    assert_eq!(output["headers"]["content-type"], "application/json");

    let elsewhere = setup.bearer(&["api.example.com"]).await;
    let refused = setup.http(input.clone(), Some(&elsewhere)).await.unwrap_err();
    assert_eq!((refused.code, refused.retryable), (ErrorCode::EgressDenied, false));
    let without = setup.http(input, None).await.unwrap_err();
    assert_eq!(without.code, ErrorCode::TargetFailed, "the mock refuses what has no token");
}

#[tokio::test]
async fn calls_without_an_answer_say_why() {
    let closed = setup(&[]).await;
    let denied = closed.slack(json!({"text": "x"})).await.unwrap_err();
    assert!(!denied.is_connection_broken && !denied.is_target_down);
    let denied = denied.error;
    assert_eq!((denied.code, denied.retryable), (ErrorCode::EgressDenied, false));
    assert!(denied.message.contains("127.0.0.1") && !denied.message.contains("s3cr3t"), "{}", denied.message);

    let open = setup(LOOPBACK).await;
    let (action, nobody) =
        (catalogue::action("http.request").unwrap(), json!({"method": "GET", "url": "http://127.0.0.1:1/"}));
    let refused = open.call(action, &nobody, None).await.unwrap_err();
    assert!(refused.is_target_down);
    assert_eq!((refused.error.code, refused.error.retryable), (ErrorCode::ConnectFailed, true));
    let too_large = ResponseTemplate::new(200).set_body_bytes(vec![b'x'; 6 << 20]);
    Mock::given(method("GET")).respond_with(too_large).mount(&open.server).await;
    let large = open.http(json!({"method": "GET", "url": open.url("/")}), None).await.unwrap_err();
    assert_eq!((large.code, large.retryable), (ErrorCode::ResponseInvalid, false));

    // A secret that was sealed for another connection opens nothing, and nothing is sent.
    open.server.reset().await;
    let (mut mixed, other) = (open.bearer(&[&open.server.address().to_string()]).await, open.bearer(&["a.org"]).await);
    mixed.connection.sealed.clone_from(&other.connection.sealed);
    let input = json!({"method": "GET", "url": open.url("/")});
    let unopened = open.http(input, Some(&mixed)).await.unwrap_err();
    assert_eq!(unopened.code, ErrorCode::ConnectionUnusable);
    assert!(open.server.received_requests().await.unwrap().is_empty());
}
