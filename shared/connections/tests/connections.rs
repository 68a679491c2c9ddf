//! Connections at work, in several processes over one store, against a vendor that answers as a test says.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_connections::{Called, Connections};
use tidegate_connectors::{CallOptions, Connector, catalogue, check_manifest};
use tidegate_egress::{Egress, EgressSettings};
use tidegate_model::{
    ClientAuth, Connection, ConnectionId, ConnectorHead, ErrorCode, Health, HealthStatus, OAuthGrant, Publisher,
    StepError, TenantId,
};
use tidegate_store::{Store, StoredManifest};
use tidegate_testing::{Session, World};
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

/// A tenant and a vendor.
struct Setup {
    world: World,
    owner: Session,
    vendor: MockServer,
}

async fn setup() -> Setup {
    let world = World::new().await;
    let owner = world.session("alex").await;
    Setup { world, owner, vendor: MockServer::start().await }
}

impl Setup {
    /// A process of its own: it shares the store, and remembers nothing of the others.
    fn process(&self) -> Connections {
        self.process_over(self.world.store_of("worker"))
    }

    fn process_over(&self, store: Store) -> Connections {
        let allow = vec!["127.0.0.1/32".parse().unwrap()];
        let settings = EgressSettings { allow, ..EgressSettings::default() };
        let egress = Egress::new(settings, self.world.envelope.clone());
        Connections::new(store, egress, self.world.blobs.clone(), self.world.clock.clone())
    }

    /// A connector of the tenant's own, at the vendor.
    async fn connector(&self, change: impl FnOnce(&mut Value)) -> Connector {
        let host = self.vendor.address().to_string();
        let mut document = json!({
            "format": 1, "name": "acme", "title": "Acme", "hosts": [host], "base_url": format!("http://{host}"),
            "auth": [{
                "id": "oauth", "type": "oauth2", "authorization_url": format!("http://{host}/authorize"),
                "token_url": format!("http://{host}/token"),
            }],
            "actions": {"get": {
                "title": "Get", "effect": "read", "input": {"type": "object"}, "request": {"method": "GET", "path": "/thing"},
            }},
        });
        change(&mut document);
        let manifest = check_manifest(document).unwrap();
        let actions =
            manifest.actions.iter().map(|(name, action)| (name.clone(), serde_json::to_value(action).unwrap()));
        let stored = StoredManifest {
            connector: serde_json::to_value(&manifest.connector).unwrap(),
            actions: actions.collect(),
        };
        let now = self.world.clock.now();
        let head = ConnectorHead {
            tenant: self.owner.tenant,
            name: "acme".to_owned(),
            title: "Acme".to_owned(),
            help: None,
            icon: None,
            category: "other".to_owned(),
            version: 1,
            upload: "v1".to_owned(),
            actions: 1,
            updated_by: None,
            created_at: now,
            updated_at: now,
        };
        self.world.store.connectors().put(&head, &stored).await.unwrap();
        Connector::new(manifest, Publisher::Tenant, 1)
    }

    /// A connection of it, with tokens that somebody got, ending in so many seconds.
    async fn connection(&self, connector: &Connector, ends_in: i64) -> ConnectionId {
        let data = json!({"access_token": "first-access", "refresh_token": "first-refresh", "client_id": "c", "client_secret": "client-s3cret"});
        let now = self.world.clock.now();
        let grant = OAuthGrant {
            token_url: format!("{}/token", self.vendor.uri()),
            provider: None,
            client_auth: ClientAuth::Body,
            scopes: Vec::new(),
            refreshable: true,
            expires_at: Some(now + jiff::SignedDuration::from_secs(ends_in)),
            lifetime_seconds: Some(3_600),
            refreshing: None,
        };
        self.made(connector, data, Some(grant)).await
    }

    async fn made(&self, connector: &Connector, data: Value, oauth: Option<OAuthGrant>) -> ConnectionId {
        let sign_in = &connector.document.auth[0];
        let entered = sign_in.enter(data.as_object().unwrap()).unwrap();
        let grant = connector.document.grant(sign_in, &entered, &[]).unwrap();
        let tenant = self.world.store.tenants().get(self.owner.tenant).await.unwrap().unwrap();
        let key = tenant.sealing_key().unwrap();
        let id = self.world.ids.connection();
        let context = tidegate_platform::key_service::KeyContext {
            tenant: tenant.id.to_string(),
            purpose: "connections".to_owned(),
        };
        let plain = Value::Object(entered.secret).to_string();
        let envelope = &self.world.envelope;
        let sealed = envelope.seal(&key.wrapped, &context, id.to_string().as_bytes(), plain.as_bytes()).await.unwrap();
        let connection = Connection {
            id,
            tenant: tenant.id,
            name: "Acme".to_owned(),
            connector: connector.name().to_owned(),
            publisher: connector.publisher,
            auth: sign_in.id.clone(),
            settings: entered.settings,
            hosts: grant.hosts,
            placement: grant.placement,
            oauth,
            health: Health::default(),
            data_key: key.number,
            sealed,
            created_by: None,
            created_at: self.world.clock.now(),
        };
        self.world.store.connections().create(&connection).await.unwrap();
        id
    }

    async fn call(&self, process: &Connections, connection: ConnectionId) -> Result<Value, StepError> {
        call(process, self.owner.tenant, "acme.get", Some(connection), json!({})).await
    }

    async fn stored(&self, id: ConnectionId) -> Connection {
        self.world.store.connections().get(self.owner.tenant, id).await.unwrap().unwrap()
    }

    /// The vendor gives out tokens like this, and lets in whoever has one of these.
    async fn gives(&self, tokens: impl Respond + 'static, good: &'static [&'static str]) {
        self.vendor.reset().await;
        Mock::given(method("POST")).and(path("/token")).respond_with(tokens).mount(&self.vendor).await;
        for token in good {
            let with = header("authorization", format!("Bearer {token}").as_str());
            let thing = ResponseTemplate::new(200).set_body_json(json!({"id": 7}));
            Mock::given(path("/thing")).and(with).respond_with(thing).mount(&self.vendor).await;
        }
        let refused = ResponseTemplate::new(401).set_body_json(json!({"error": "expired"}));
        Mock::given(path("/thing")).respond_with(refused).with_priority(9).mount(&self.vendor).await;
    }

    async fn asked_for_tokens(&self) -> Vec<String> {
        let requests = self.vendor.received_requests().await.unwrap();
        let of = requests.iter().filter(|request| request.url.path() == "/token");
        of.map(|request| String::from_utf8_lossy(&request.body).into_owned()).collect()
    }
}

async fn call(
    process: &Connections,
    tenant: TenantId,
    uses: &str,
    connection: Option<ConnectionId>,
    input: Value,
) -> Result<Value, StepError> {
    let prepared = match process.prepare(tenant, uses, connection).await {
        Ok(prepared) => prepared,
        Err(Called::Step(error)) => return Err(error),
        Err(Called::Ours(error)) => panic!("{error}"),
    };
    let options = CallOptions { timeout: Duration::from_secs(10), idempotency_key: None, traceparent: None };
    process.call(prepared, &input, options).await
}

fn tokens(refresh: Option<&str>) -> ResponseTemplate {
    let mut answer =
        json!({"access_token": "second-access", "token_type": "bearer", "expires_in": 3600, "scope": "a b"});
    if let Some(refresh) = refresh {
        answer["refresh_token"] = json!(refresh);
    }
    ResponseTemplate::new(200).set_body_json(answer)
}

/// Two workers find at the same moment that a token is about to end.
#[tokio::test]
async fn of_two_who_refresh_at_once_one_asks_the_vendor() {
    let setup = setup().await;
    let connector = setup.connector(|_| {}).await;
    // It isn't over yet, but will be soon; and one that is over already.
    for ends_in in [100, -5] {
        let id = setup.connection(&connector, ends_in).await;
        setup.gives(tokens(Some("second-refresh")), &["first-access", "second-access"]).await;
        let processes: Vec<_> = (0..4).map(|_| setup.process()).collect();
        let calls = processes.iter().map(|process| setup.call(process, id));
        for result in futures::future::join_all(calls).await {
            assert_eq!(result, Ok(json!({"status": 200, "body": {"id": 7}})));
        }
        let asked = setup.asked_for_tokens().await;
        assert_eq!(
            asked,
            ["grant_type=refresh_token&refresh_token=first-refresh&client_id=c&client_secret=client-s3cret"]
        );
        let stored = setup.stored(id).await;
        let grant = stored.oauth.as_ref().unwrap();
        assert_eq!((grant.refreshing.is_none(), grant.scopes.len()), (true, 2));
        assert_eq!(grant.expires_at, Some(setup.world.clock.now() + Duration::from_secs(3_600)));
        assert!(!format!("{stored:?}").contains("second-access"), "it is sealed");

        // It is good for four fifths of its life.
        setup.world.clock.advance(Duration::from_secs(3_200));
        assert!(setup.call(&setup.process(), id).await.is_ok());
        assert_eq!(setup.asked_for_tokens().await.len(), 1);
        setup.world.clock.advance(Duration::from_secs(200));
        assert!(setup.call(&setup.process(), id).await.is_ok());
        assert!(setup.asked_for_tokens().await[1].contains("refresh_token=second-refresh"), "the rotated one");
    }
}

#[tokio::test]
async fn a_refusal_with_any_status_breaks_the_connection_and_says_why() {
    let setup = setup().await;
    let connector = setup.connector(|_| {}).await;
    for (answer, why) in [
        (
            ResponseTemplate::new(200)
                .set_body_json(json!({"error": "bad_refresh_token", "error_description": "It expired."})),
            "bad_refresh_token: It expired.",
        ),
        (ResponseTemplate::new(200).set_body_json(json!({"ok": false, "error": "token_revoked"})), "token_revoked"),
        (
            ResponseTemplate::new(200).set_body_string("error=bad_refresh_token&error_description=gone"),
            "bad_refresh_token",
        ),
        (ResponseTemplate::new(400).set_body_json(json!({"error": "invalid_grant"})), "invalid_grant"),
    ] {
        let id = setup.connection(&connector, -5).await;
        setup.gives(answer, &[]).await;
        let process = setup.process();
        let error = setup.call(&process, id).await.unwrap_err();
        assert_eq!((error.code, error.retryable), (ErrorCode::ConnectionUnusable, false));
        assert!(error.message.contains(why) && error.message.contains("sign in anew"), "{}", error.message);
        let stored = setup.stored(id).await;
        assert_eq!(stored.health.status, HealthStatus::Broken);
        assert!(stored.health.reason.unwrap().contains(why));
        // Nobody asks again with a grant that was refused, and no call goes out without a token.
        let again = setup.call(&setup.process(), id).await.unwrap_err();
        assert_eq!(
            (again.code, again.message.contains(why)),
            (ErrorCode::ConnectionUnusable, true),
            "{}",
            again.message
        );
        assert_eq!(setup.asked_for_tokens().await.len(), 1);
        let all = setup.vendor.received_requests().await.unwrap();
        assert!(all.iter().all(|request| request.url.path() == "/token"));
    }
}

#[tokio::test]
async fn a_vendor_that_is_down_breaks_nothing() {
    let setup = setup().await;
    let connector = setup.connector(|_| {}).await;
    for answer in [
        ResponseTemplate::new(503),
        ResponseTemplate::new(429),
        ResponseTemplate::new(200).set_body_json(json!({"error": "temporarily_unavailable"})),
    ] {
        // The token that there is is good for a while.
        let soon = setup.connection(&connector, 100).await;
        setup.gives(answer.clone(), &["first-access"]).await;
        assert!(setup.call(&setup.process(), soon).await.is_ok());
        let over = setup.connection(&connector, -5).await;
        let error = setup.call(&setup.process(), over).await.unwrap_err();
        assert!(error.retryable, "{}", error.message);
        for id in [soon, over] {
            let stored = setup.stored(id).await;
            assert_ne!(stored.health.status, HealthStatus::Broken);
            assert!(stored.oauth.unwrap().refreshing.is_none(), "others may try");
        }
    }
}

/// Some vendors don't say when tokens end, and any of them may take one back.
#[tokio::test]
async fn a_token_that_is_refused_is_refreshed_and_the_call_made_again() {
    let setup = setup().await;
    let connector = setup.connector(|_| {}).await;
    let id = setup.connection(&connector, 3_000).await;
    setup.gives(tokens(None), &["second-access"]).await;
    assert!(setup.call(&setup.process(), id).await.is_ok());
    assert_eq!(setup.asked_for_tokens().await.len(), 1);
    assert_eq!(setup.stored(id).await.health.status, HealthStatus::Ok);
    // A fresh one that is refused too is the end of it.
    setup.gives(tokens(None), &[]).await;
    let error = setup.call(&setup.process(), id).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ConnectionUnusable);
    assert_eq!(setup.asked_for_tokens().await.len(), 1);
    assert_eq!(setup.stored(id).await.health.status, HealthStatus::Broken);
    // Until the vendor takes it again.
    setup.gives(tokens(None), &["second-access"]).await;
    assert!(setup.call(&setup.process(), id).await.is_ok());
    assert_eq!(setup.stored(id).await.health.status, HealthStatus::Ok);
}

#[tokio::test]
async fn who_died_while_refreshing_hinders_others_for_half_a_minute() {
    let setup = setup().await;
    let connector = setup.connector(|_| {}).await;
    let id = setup.connection(&connector, 100).await;
    let before = setup.stored(id).await;
    let until = setup.world.clock.now() + Duration::from_secs(30);
    let refreshing = Some(tidegate_model::Refreshing { by: "dead".to_owned(), until });
    let grant = OAuthGrant { refreshing, ..before.oauth.clone().unwrap() };
    let left = Connection { oauth: Some(grant), ..before.clone() };
    assert!(setup.world.store.connections().replace(&before, &left).await.unwrap());
    setup.gives(tokens(None), &["first-access", "second-access"]).await;
    assert!(setup.call(&setup.process(), id).await.is_ok(), "with the token that there is");
    assert_eq!(setup.asked_for_tokens().await.len(), 0);
    setup.world.clock.advance(Duration::from_secs(31));
    assert!(setup.call(&setup.process(), id).await.is_ok());
    assert_eq!(setup.asked_for_tokens().await.len(), 1);
}

/// Answers with an error until it was asked so many times.
struct Down(AtomicU32);

impl Respond for Down {
    fn respond(&self, _: &Request) -> ResponseTemplate {
        let left = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        ResponseTemplate::new(if left.is_ok() { 503 } else { 200 })
    }
}

#[tokio::test]
async fn a_target_that_is_down_is_left_alone_by_all_processes() {
    let setup = setup().await;
    let tenant = setup.owner.tenant;
    Mock::given(path("/down")).respond_with(Down(AtomicU32::new(7))).mount(&setup.vendor).await;
    let input = json!({"method": "GET", "url": format!("{}/down", setup.vendor.uri())});
    let get = async |process: &Connections, tenant| {
        call(process, tenant, "http.request", None, input.clone())
            .await
            .map_err(|error| (error.code, error.retry_after_ms))
    };
    let asked = async || setup.vendor.received_requests().await.unwrap().len();
    let (one, other) = (setup.process(), setup.process());
    for _ in 0..4 {
        assert_eq!(get(&one, tenant).await, Err((ErrorCode::TargetFailed, None)));
    }
    // The fifth failure in a row is another process's.
    assert_eq!(get(&other, tenant).await, Err((ErrorCode::TargetFailed, None)));
    assert_eq!(get(&other, tenant).await, Err((ErrorCode::CircuitOpen, Some(30_000))));
    setup.world.clock.advance(Duration::from_secs(2));
    assert_eq!(get(&one, tenant).await, Err((ErrorCode::CircuitOpen, Some(28_000))), "it asks once a second");
    assert_eq!(asked().await, 5);
    // Another tenant's calls are its own affair.
    let stranger = setup.world.session("sam").await.tenant;
    assert_eq!(get(&one, stranger).await, Err((ErrorCode::TargetFailed, None)));

    // Half-open: one call of all processes, and twice the time when it fails.
    setup.world.clock.advance(Duration::from_secs(30));
    assert_eq!(get(&one, tenant).await, Err((ErrorCode::TargetFailed, None)));
    setup.world.clock.advance(Duration::from_secs(2));
    assert_eq!(get(&other, tenant).await, Err((ErrorCode::CircuitOpen, Some(58_000))));
    assert_eq!(asked().await, 7);
    setup.world.clock.advance(Duration::from_secs(60));
    assert!(get(&other, tenant).await.is_ok());
    setup.world.clock.advance(Duration::from_secs(2));
    assert!(get(&one, tenant).await.is_ok(), "closed for all");
    assert_eq!(setup.world.store.breakers().get(tenant, &setup.vendor.address().to_string()).await.unwrap(), None);
}

#[tokio::test]
async fn answers_that_blame_the_caller_open_nothing_and_successes_cost_nothing() {
    let setup = setup().await;
    Mock::given(path("/ok")).respond_with(ResponseTemplate::new(200)).mount(&setup.vendor).await;
    let process = setup.process();
    let calls = tidegate_platform::usage::scope(async {
        for at in ["/absent", "/ok"] {
            for _ in 0..8 {
                let input = json!({"method": "GET", "url": format!("{}{at}", setup.vendor.uri())});
                let result = call(&process, setup.owner.tenant, "http.request", None, input).await;
                assert_eq!(result.is_ok(), at == "/ok", "{result:?}");
            }
        }
    });
    let ((), usage) = Box::pin(calls).await;
    assert_eq!(usage.all_calls(), 0, "{usage:?}");
}

#[tokio::test]
async fn a_connections_calls_are_spread_as_its_vendor_allows() {
    let setup = setup().await;
    let connector = setup.connector(|document| {
        document["rate_limit"] = json!({"requests": 2, "per_seconds": 60});
        document["auth"] = json!([{"id": "key", "type": "bearer"}]);
    });
    let id = setup.made(&connector.await, json!({"token": "t"}), None).await;
    Mock::given(path("/thing")).respond_with(ResponseTemplate::new(200)).mount(&setup.vendor).await;
    let (one, other) = (setup.process(), setup.process());
    assert!(setup.call(&one, id).await.is_ok());
    assert!(setup.call(&other, id).await.is_ok());
    // The third has to wait for longer than its step may take.
    for process in [&one, &other] {
        let error = setup.call(process, id).await.unwrap_err();
        assert_eq!((error.code, error.retryable), (ErrorCode::RateLimited, true), "{}", error.message);
        assert!(error.retry_after_ms.is_some_and(|wait| wait > 0));
    }
    assert_eq!(setup.vendor.received_requests().await.unwrap().len(), 2);
    setup.world.clock.advance(Duration::from_secs(60));
    assert!(setup.call(&one, id).await.is_ok());
}

#[tokio::test]
async fn what_a_call_lacks_is_said_before_it_is_made() {
    let setup = setup().await;
    let tenant = setup.owner.tenant;
    let process = setup.process();
    let refused = async |uses: &str, id| call(&process, tenant, uses, id, json!({"text": "x"})).await.unwrap_err();
    let error = refused("acme.get", None).await;
    assert_eq!(
        (error.code, error.message.as_str()),
        (ErrorCode::InputInvalid, "there is no action `acme.get` any more")
    );
    let error = refused("slack.send_message", None).await;
    assert!(error.message.contains("needs a connection of the connector \"slack\""), "{}", error.message);
    let error = refused("slack.send_message", Some(setup.world.ids.connection())).await;
    assert!(error.message.contains("is gone"), "{}", error.message);

    let connector = setup.connector(|_| {}).await;
    let id = setup.connection(&connector, 3_000).await;
    let error = refused("slack.send_message", Some(id)).await;
    assert!(error.message.contains("is for `acme`, but slack.send_message needs one for `slack`"), "{}", error.message);
    // A connection for what a tenant made is not one for what is built in under the same name, should that ever come.
    let github = catalogue::connector("github").unwrap();
    let made = setup.made(github, json!({"token": "ghp_x"}), None).await;
    let before = setup.stored(made).await;
    let forged = Connection { publisher: Publisher::Tenant, ..before.clone() };
    assert!(setup.world.store.connections().replace(&before, &forged).await.unwrap());
    let error = refused("github.get_issue", Some(made)).await;
    assert_eq!(error.code, ErrorCode::ConnectionUnusable);
    assert_eq!(setup.vendor.received_requests().await.unwrap().len(), 0);
}

/// The test of a connection does as a run does: a token that ended before its time breaks nothing.
#[tokio::test]
async fn a_test_renews_the_token_too() {
    let setup = setup().await;
    let connector =
        setup.connector(|document| document["test"] = json!({"request": {"method": "GET", "path": "/thing"}}));
    let id = setup.connection(&connector.await, 3_000).await;
    setup.gives(tokens(None), &["second-access"]).await;
    // It is the API's to test.
    let process = setup.process_over(setup.world.store_of("workflows"));
    let tested = process.test(setup.stored(id).await).await.unwrap();
    assert_eq!((tested.error, tested.connection.health.status), (None, HealthStatus::Ok));
    assert_eq!(setup.asked_for_tokens().await.len(), 1);
}

/// What somebody has just mended counts at once, though a process remembers it as it was.
#[tokio::test]
async fn a_credential_that_was_just_entered_anew_is_used_at_once() {
    let setup = setup().await;
    let change = |document: &mut Value| document["auth"] = json!([{"id": "key", "type": "bearer"}]);
    let connector = setup.connector(change).await;
    let id = setup.made(&connector, json!({"token": "stale-token"}), None).await;
    let fresh = setup.made(&connector, json!({"token": "second-access"}), None).await;
    setup.gives(tokens(None), &["second-access"]).await;
    let process = setup.process();
    assert_eq!(setup.call(&process, id).await.unwrap_err().code, ErrorCode::ConnectionUnusable);
    // Without the first call's note of it, so that the process goes on with what it remembers.
    assert_eq!(setup.call(&process, id).await.unwrap_err().code, ErrorCode::ConnectionUnusable);
    let (before, other) = (setup.stored(id).await, setup.stored(fresh).await);
    let hosts = vec!["elsewhere.test".to_owned()];
    let moved = Connection { hosts, ..before.clone() };
    assert!(setup.world.store.connections().replace(&before, &moved).await.unwrap());
    let refused = setup.call(&setup.process(), id).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::EgressDenied);
    let late = setup.process();
    assert_eq!(setup.call(&late, id).await.unwrap_err().code, ErrorCode::EgressDenied);
    let consented = Connection { hosts: other.hosts, ..moved.clone() };
    assert!(setup.world.store.connections().replace(&moved, &consented).await.unwrap());
    let error = setup.call(&late, id).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ConnectionUnusable, "it reaches the vendor by now: {}", error.message);
}
