//! From whom requests are taken.

use std::time::Duration;

use http::Method;
use jiff::SignedDuration;
use serde_json::{Value, json};
use tidegate_model::{RejectedDeliveries, TenantStatus, Workflow};
use tidegate_platform::key_service::KeyContext;
use tidegate_signatures::standard_webhooks::sign_v1;

use crate::{Setup, path, setup};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const BODY: &str = r#"{"order": {"id": 1, "card": "4242-4242"}}"#;

pub(crate) fn trigger(more: &Value) -> Value {
    let connection = "conn_01890a5d000070008000000000000000";
    let mut trigger = json!({"type": "webhook", "verify": {"scheme": "standard_webhooks", "connection": connection}});
    for (name, value) in more.as_object().unwrap() {
        trigger[name] = value.clone();
    }
    trigger
}

impl Setup {
    pub(crate) async fn by_signed_webhook(&self, more: &Value) -> Workflow {
        self.verified(trigger(more), true, Some(json!({"secret": SECRET}))).await
    }

    /// Sends a request that is signed with a secret, some time ago.
    pub(crate) async fn signed(
        &self,
        workflow: &Workflow,
        id: &str,
        secret: &str,
        age: SignedDuration,
        body: &str,
    ) -> tidegate_testing::Answer {
        let at = self.world.clock.now() - age;
        let signature = sign_v1(secret, id, at, body.as_bytes()).unwrap();
        let timestamp = at.as_second().to_string();
        let headers = [("webhook-id", id), ("webhook-timestamp", &timestamp), ("webhook-signature", &signature)];
        self.send(workflow, &headers, body.to_owned()).await
    }

    pub(crate) async fn delivered(&self, workflow: &Workflow, id: &str, body: &str) -> tidegate_testing::Answer {
        self.signed(workflow, id, SECRET, SignedDuration::ZERO, body).await
    }

    async fn rejected(&self, workflow: &Workflow) -> Vec<RejectedDeliveries> {
        self.world.store.deliveries().rejected(workflow.tenant, workflow.id).await.unwrap()
    }
}

#[tokio::test]
async fn what_is_signed_is_taken_and_nothing_else() {
    let setup = setup().await;
    let workflow = setup.by_signed_webhook(&json!({})).await;
    let now = SignedDuration::ZERO;
    setup.signed(&workflow, "msg_1", SECRET, now, BODY).await.expect(200);
    assert_eq!(setup.queued().await.len(), 1);

    let ago = SignedDuration::from_secs;
    for (age, status) in [(ago(299), 200), (ago(301), 401), (ago(-299), 200), (ago(-301), 401)] {
        let answer = setup.signed(&workflow, &format!("msg_{age}"), SECRET, age, BODY).await.expect(status);
        assert_eq!(answer.text("/code"), if status == 401 { "signature_invalid" } else { "" });
    }
    let queued = setup.queued().await.len();
    assert_eq!(queued, 2);
    setup.signed(&workflow, "msg_2", OTHER, now, BODY).await.expect(401);
    let unsigned = setup.send(&workflow, &[], BODY).await.expect(401);
    assert_eq!(unsigned.text("/code"), "signature_invalid");
    assert_eq!(unsigned.header("content-type"), "application/problem+json");
    for missing in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let at = setup.world.clock.now();
        let (signature, timestamp) =
            (sign_v1(SECRET, "msg_3", at, BODY.as_bytes()).unwrap(), at.as_second().to_string());
        let headers = [("webhook-id", "msg_3"), ("webhook-timestamp", &timestamp), ("webhook-signature", &signature)];
        let headers: Vec<_> = headers.into_iter().filter(|(name, _)| *name != missing).collect();
        setup.send(&workflow, &headers, BODY).await.expect(401);
        // What is signed are the bytes, not what they mean.
        let headers = [("webhook-id", "msg_3"), ("webhook-timestamp", &timestamp), ("webhook-signature", &signature)];
        setup.send(&workflow, &headers, BODY.replace(": ", ":")).await.expect(401);
    }
    assert!(setup.queued().await.is_empty(), "what isn't proven starts nothing");
}

#[tokio::test]
async fn a_rejection_is_counted_and_shows_nothing_of_the_body() {
    let setup = setup().await;
    let workflow = setup.by_signed_webhook(&json!({})).await;
    for _ in 0..3 {
        setup.send(&workflow, &[("x-note", "s3cr3t")], BODY).await.expect(401);
    }
    setup.signed(&workflow, "msg_1", OTHER, SignedDuration::ZERO, BODY).await.expect(401);
    let rejected = setup.rejected(&workflow).await;
    let [of_process] = rejected.as_slice() else { panic!("{rejected:?}") };
    let counted = of_process.since_a_day(setup.world.clock.now());
    assert_eq!(
        counted.into_iter().collect::<Vec<_>>(),
        [("signature_mismatch".to_owned(), 1), ("signature_missing".to_owned(), 3),]
    );
    assert_eq!(of_process.last.len(), 4);
    assert!(of_process.last[0].headers.contains(&"x-note".to_owned()));
    let kept = serde_json::to_string(&rejected).unwrap();
    for secret in ["4242", "s3cr3t", SECRET, OTHER] {
        assert!(!kept.contains(secret), "{kept}");
    }

    // Of many not each is written, and none is forgotten once the next one is.
    let writes = async || setup.world.embedded.meter.all_calls().values().sum::<u64>();
    let before = writes().await;
    for _ in 0..200 {
        setup.send(&workflow, &[], BODY).await.expect(401);
    }
    assert!(writes().await - before <= 20, "{} writes for 200 refused requests", writes().await - before);
    setup.world.clock.advance(Duration::from_secs(1));
    setup.send(&workflow, &[], BODY).await.expect(401);
    let of_process = setup.rejected(&workflow).await.remove(0);
    assert_eq!(of_process.since_a_day(setup.world.clock.now())["signature_missing"], 204);
    setup.world.clock.advance(Duration::from_secs(24 * 3_600));
    assert!(of_process.since_a_day(setup.world.clock.now()).is_empty());
}

#[tokio::test]
async fn without_what_is_verified_with_nothing_is_taken() {
    let setup = setup().await;
    for (secrets, reason) in [
        (None, "secret_missing"),
        (Some(json!({"secret": ""})), "secret_unusable"),
        (Some(json!({"secret": "not base64 at all"})), "secret_unusable"),
        (Some(json!({"token": SECRET})), "secret_unusable"),
    ] {
        let workflow = setup.verified(trigger(&json!({})), true, secrets).await;
        let answer = setup.signed(&workflow, "msg_1", SECRET, SignedDuration::ZERO, BODY).await.expect(401);
        assert_eq!(setup.rejected(&workflow).await[0].last[0].reason, reason);
        assert!(answer.text("/detail").contains("Its owner finds the reason"), "{}", answer.body);
    }
    // A head that lost its secret, or has another workflow's.
    let other = setup.by_signed_webhook(&json!({})).await;
    let mut workflow = setup.by_signed_webhook(&json!({})).await;
    workflow.verification = other.verification;
    workflow.revision += 1;
    setup.world.store.workflows().replace(1, &workflow, None).await.unwrap();
    let answer = setup.signed(&workflow, "msg_1", SECRET, SignedDuration::ZERO, BODY).await;
    assert_eq!(answer.status, 500, "{}", answer.body);
    assert!(setup.queued().await.is_empty());
}

#[tokio::test]
async fn while_a_secret_is_replaced_both_are_taken() {
    let setup = setup().await;
    let secrets = json!({"secret": OTHER, "previous_secret": SECRET});
    let workflow = setup.verified(trigger(&json!({})), true, Some(secrets)).await;
    let now = SignedDuration::ZERO;
    setup.signed(&workflow, "msg_1", SECRET, now, BODY).await.expect(200);
    setup.signed(&workflow, "msg_2", OTHER, now, BODY).await.expect(200);
    let third = format!("whsec_{}", "B".repeat(32));
    setup.signed(&workflow, "msg_3", &third, now, BODY).await.expect(401);
}

#[tokio::test]
async fn a_switched_off_workflow_tells_only_who_is_proven() {
    let setup = setup().await;
    let off = setup.verified(trigger(&json!({})), false, Some(json!({"secret": SECRET}))).await;
    setup.send(&off, &[], BODY).await.expect(401);
    assert_eq!(setup.delivered(&off, "msg_1", BODY).await.expect(409).text("/code"), "workflow_inactive");
    setup.world.set_status(setup.owner.tenant, TenantStatus::Suspended).await;
    setup.world.clock.advance(tidegate_http::TENANT_STALE_AFTER);
    setup.delivered(&off, "msg_2", BODY).await.expect(403);
}

#[tokio::test]
async fn a_sender_is_told_how_to_prove_itself() {
    let setup = setup().await;
    for (scheme, challenge) in
        [("basic", "Basic realm=\"webhook\", charset=\"UTF-8\""), ("bearer", "Bearer"), ("github", "Signature")]
    {
        let mut trigger = trigger(&json!({}));
        trigger["verify"]["scheme"] = json!(scheme);
        let secrets = json!({"secret": "t0ken", "username": "sender"});
        let workflow = setup.verified(trigger, true, Some(secrets)).await;
        assert_eq!(setup.send(&workflow, &[], BODY).await.expect(401).header("www-authenticate"), challenge);
        let sent = match scheme {
            "basic" => "Basic c2VuZGVyOnQwa2Vu",
            _ => "Bearer t0ken",
        };
        let status = if scheme == "github" { 401 } else { 200 };
        setup.send(&workflow, &[("authorization", sent)], BODY).await.expect(status);
        setup.send(&workflow, &[("authorization", &sent.replace("0k", "0l"))], BODY).await;
    }
}

/// The head may be newer than what is known of the tenant.
#[tokio::test]
async fn a_key_that_is_not_known_yet_is_no_missing_secret() {
    let setup = setup().await;
    let workflow = setup.by_signed_webhook(&json!({})).await;
    let now = SignedDuration::ZERO;
    setup.signed(&workflow, "msg_1", SECRET, now, BODY).await.expect(200);
    let tenants = setup.world.store.tenants();
    let mut tenant = tenants.get(setup.owner.tenant).await.unwrap().unwrap();
    let mut key = tenant.data_keys[0].clone();
    key.number += 1;
    key.ingress = Some(setup.world.envelope.new_data_key(&KeyContext::ingress(tenant.id)).await.unwrap());
    tenant.data_keys.push(key);
    tenant.revision += 1;
    tenants.replace(&tenant).await.unwrap();
    let newer = setup.by_signed_webhook(&json!({})).await;
    setup.signed(&newer, "msg_2", SECRET, now, BODY).await.expect(503);
    assert!(setup.rejected(&newer).await.is_empty());
    setup.world.clock.advance(tidegate_http::TENANT_STALE_AFTER);
    setup.signed(&newer, "msg_2", SECRET, now, BODY).await.expect(200);
}

/// The limit is there for the sender, so nobody else may use it up.
#[tokio::test]
async fn what_is_not_proven_takes_nothing_of_the_limit() {
    let setup = setup().await;
    let workflow = setup.by_signed_webhook(&json!({"rate_limit": {"per_second": 1}})).await;
    for _ in 0..50 {
        setup.send(&workflow, &[], BODY).await.expect(401);
    }
    for index in 0..10 {
        setup.delivered(&workflow, &format!("msg_{index}"), BODY).await.expect(200);
    }
    let refused = setup.delivered(&workflow, "msg_11", BODY).await.expect(429);
    assert_eq!(refused.header("retry-after"), "1");
    assert!(refused.text("/detail").contains("this webhook may make 1 a second"), "{}", refused.body);
}

#[tokio::test]
async fn vendors_try_an_address_out_before_they_use_it() {
    let setup = setup().await;
    let verify = |scheme: &str| {
        json!({"type": "webhook", "verify": {
            "scheme": scheme, "connection": "conn_01890a5d000070008000000000000000",
        }})
    };
    let secrets = Some(json!({"secret": "8f742231b10e8888abcd99yyyzzz85a5"}));
    // Also before the workflow is switched on: that is when one sets it up.
    for active in [true, false] {
        let slack = setup.verified(verify("slack"), active, secrets.clone()).await;
        let body = r#"{"token": "t", "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P", "type": "url_verification"}"#;
        let timestamp = setup.world.clock.now().as_second().to_string();
        let signature = hmac(&format!("v0:{timestamp}:{body}"), "8f742231b10e8888abcd99yyyzzz85a5");
        let signature = format!("v0={signature}");
        let headers = [("x-slack-request-timestamp", &*timestamp), ("x-slack-signature", &signature)];
        let answer = setup.send(&slack, &headers, body).await.expect(200);
        assert_eq!(answer.body, "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P");
        assert!(answer.header("content-type").starts_with("text/plain"), "{:?}", answer.headers);
        setup.send(&slack, &[], body).await.expect(401);

        let github = setup.verified(verify("github"), active, secrets.clone()).await;
        let signature = format!("sha256={}", hmac(BODY, "8f742231b10e8888abcd99yyyzzz85a5"));
        let headers = [("x-github-event", "ping"), ("x-hub-signature-256", &*signature)];
        setup.send(&github, &headers, BODY).await.expect(200);
    }
    assert!(setup.queued().await.is_empty());
}

fn hmac(text: &str, key: &str) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key.as_bytes());
    let tag = aws_lc_rs::hmac::sign(&key, text.as_bytes());
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Twilio signs the address as it knows it, with its query.
#[tokio::test]
async fn the_address_is_the_installations_and_not_what_the_request_says() {
    let setup = setup().await;
    let trigger = json!({"type": "webhook", "verify": {
        "scheme": "twilio", "connection": "conn_01890a5d000070008000000000000000",
    }});
    let workflow = setup.verified(trigger, true, Some(json!({"secret": "12345"}))).await;
    let target = format!("{}?a=1", path(&workflow));
    let sign = |host: &str| {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"12345");
        let tag = aws_lc_rs::hmac::sign(&key, format!("https://{host}{target}BodyhiFrom+1").as_bytes());
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, tag.as_ref())
    };
    for (host, status) in [("flows.example.com", 200), ("evil.example.com", 401)] {
        let signature = sign(host);
        let headers = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("x-twilio-signature", &*signature),
            ("host", "evil.example.com"),
        ];
        setup.app.send(None, Method::POST, &target, &headers, "From=%2B1&Body=hi").await.expect(status);
    }
}
