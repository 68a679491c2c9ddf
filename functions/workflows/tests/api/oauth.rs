//! Signing in at a vendor, with a browser that does as it is told and one that doesn't.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tidegate_egress::EgressSettings;
use tidegate_model::{Member, Role};
use tidegate_testing::{Answer, Session, World};
use url::Url;
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::connectors::manifest;
use crate::{Setup, setup, setup_over};

const CALLBACK: &str = "/api/oauth/callback";

struct Vendor {
    server: MockServer,
    setup: Setup,
}

async fn vendor() -> Vendor {
    let world = World::new().await;
    let scheduler = Arc::new(world.scheduler.clone());
    let allow = vec!["127.0.0.1/32".parse().unwrap()];
    let setup = setup_over(world, scheduler, EgressSettings { allow, ..EgressSettings::default() }).await;
    let server = MockServer::start().await;
    let host = server.address().to_string();
    let oauth = json!({
        "id": "oauth", "type": "oauth2", "authorization_url": format!("http://{host}/authorize?tenant=x"),
        "token_url": format!("http://{host}/token"), "scopes": ["read", "write"],
    });
    let manifest = manifest(&host, |document| document["auth"] = json!([oauth]));
    setup.app.post(&setup.owner, "/api/connectors", &manifest).await.expect(201);
    Vendor { server, setup }
}

/// What a sign-in was begun with.
struct Begun {
    url: Url,
    cookie: String,
}

impl Begun {
    fn parameter(&self, name: &str) -> String {
        self.url.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
    }
}

impl Vendor {
    async fn answers(&self, answer: ResponseTemplate) {
        self.server.reset().await;
        Mock::given(method("POST")).and(path("/token")).respond_with(answer).mount(&self.server).await;
        let me = ResponseTemplate::new(200).set_body_json(json!({"name": "Alex Ltd."}));
        let with = header("authorization", "Bearer s3cr3t-access");
        Mock::given(path("/v1/me")).and(with).respond_with(me).mount(&self.server).await;
    }

    async fn begin(&self, session: &Session, body: &Value) -> Begun {
        let answer = self.setup.app.post(session, "/api/connections/oauth", body).await.expect(200);
        let cookie = answer.header("set-cookie").to_owned();
        assert!(
            cookie.contains("; HttpOnly; SameSite=Lax; Secure") && cookie.contains("Path=/api/oauth/callback"),
            "{cookie}"
        );
        let cookie = cookie.split(';').next().unwrap().to_owned();
        Begun { url: answer.text("/authorization_url").parse().unwrap(), cookie }
    }

    async fn come_back(&self, query: &str, cookie: &str) -> Answer {
        let path = format!("{CALLBACK}?{query}");
        self.setup.app.send(None, Method::GET, &path, &[("cookie", cookie)], "").await
    }

    async fn connections(&self) -> Vec<Value> {
        let listed = self.setup.app.get(&self.setup.owner, "/api/connections").await.expect(200).body;
        listed["items"].as_array().unwrap().clone()
    }
}

fn own_client() -> Value {
    json!({"connector": "acme", "name": "Acme", "data": {"client_id": "me", "client_secret": "s3cr3t-client"}})
}

fn tokens() -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({
        "access_token": "s3cr3t-access", "refresh_token": "s3cr3t-refresh", "expires_in": 3600, "scope": "read",
    }))
}

#[tokio::test]
async fn a_person_signs_in_and_the_connection_is_there() {
    let vendor = vendor().await;
    let owner = vendor.setup.owner.clone();
    vendor.answers(tokens()).await;
    let begun = vendor.begin(&owner, &own_client()).await;
    for (name, value) in [
        ("tenant", "x"),
        ("response_type", "code"),
        ("client_id", "me"),
        ("scope", "read write"),
        ("redirect_uri", "https://flows.example.com/api/oauth/callback"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(begun.parameter(name), value, "{name}");
    }
    assert!(!begun.url.as_str().contains("s3cr3t"));
    let page =
        vendor.come_back(&format!("code=the-code&state={}", begun.parameter("state")), &begun.cookie).await.expect(200);
    let html = page.body.as_str().unwrap();
    assert!(
        html.contains("“Acme” is ready") && page.header("content-security-policy").contains("default-src 'none'"),
        "{html}"
    );

    let asked = vendor.server.received_requests().await.unwrap();
    let form = String::from_utf8(asked[0].body.clone()).unwrap();
    let fields: Vec<(String, String)> = url::form_urlencoded::parse(form.as_bytes()).into_owned().collect();
    let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()).unwrap();
    assert_eq!((field("code"), field("client_id"), field("client_secret")), ("the-code", "me", "s3cr3t-client"));
    assert_eq!(field("redirect_uri"), "https://flows.example.com/api/oauth/callback");
    let challenge = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, field("code_verifier").as_bytes());
    use base64::Engine as _;
    let challenge = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(challenge);
    assert_eq!(begun.parameter("code_challenge"), challenge);

    let connection = vendor.connections().await.remove(0);
    assert_eq!((&connection["auth"], &connection["scopes"]), (&json!("oauth"), &json!(["read"])));
    assert_eq!(connection["expires_at"], "2026-11-20T11:00:00.000Z");
    assert_eq!(
        (&connection["health"]["status"], &connection["health"]["account"]),
        (&json!("ok"), &json!("Alex Ltd."))
    );
    assert!(!connection.to_string().contains("s3cr3t"), "{connection}");

    // What was used is used up.
    let again = vendor.come_back(&format!("code=the-code&state={}", begun.parameter("state")), &begun.cookie).await;
    again.expect(410);

    // The same connection, signed in anew, keeps its id.
    let id = connection["id"].as_str().unwrap();
    let renewed = json!({"connection": id, "data": {"client_id": "me", "client_secret": "s3cr3t-client"}});
    let begun = vendor.begin(&owner, &renewed).await;
    vendor.come_back(&format!("code=b&state={}", begun.parameter("state")), &begun.cookie).await.expect(200);
    let now = vendor.connections().await;
    assert_eq!((now.len(), now[0]["id"].as_str().unwrap()), (1, id));
}

#[tokio::test]
async fn nobody_elses_browser_session_or_time_is_taken() {
    let vendor = vendor().await;
    let (owner, world) = (vendor.setup.owner.clone(), &vendor.setup.world);
    vendor.answers(tokens()).await;
    let begun = vendor.begin(&owner, &own_client()).await;
    let other = vendor.begin(&owner, &own_client()).await;
    let query = format!("code=c&state={}", begun.parameter("state"));
    for (what, query, cookie) in [
        ("without the cookie", query.as_str(), ""),
        ("with another sign-in's cookie", query.as_str(), other.cookie.as_str()),
        ("with nonsense", "code=c&state=nonsense", begun.cookie.as_str()),
        ("without a state", "code=c", begun.cookie.as_str()),
    ] {
        let answer = vendor.come_back(query, cookie).await;
        assert_eq!(answer.status.as_u16(), 410, "{what}");
    }
    world.clock.advance(Duration::from_secs(601));
    vendor.come_back(&query, &begun.cookie).await.expect(410);

    // Somebody whose role was taken away meanwhile.
    let editor = world.member(&owner, Role::Editor).await;
    let begun = vendor.begin(&editor, &own_client()).await;
    let member = world.store.tenants().member(owner.tenant, editor.user.into()).await.unwrap().unwrap();
    let viewer = Member { role: Role::Viewer.into(), ..member.clone() };
    world.store.tenants().replace_members(&[(&member, &viewer)]).await.unwrap();
    vendor.come_back(&format!("code=c&state={}", begun.parameter("state")), &begun.cookie).await.expect(410);

    let begun = vendor.begin(&owner, &own_client()).await;
    world.store.sessions().delete(owner.user, &[owner.session]).await.unwrap();
    vendor.come_back(&format!("code=c&state={}", begun.parameter("state")), &begun.cookie).await.expect(410);
    assert_eq!(vendor.server.received_requests().await.unwrap().len(), 0, "no code was redeemed");
    assert_eq!(world.store.connections().list(owner.tenant, None, 10).await.unwrap().items, []);
}

#[tokio::test]
async fn what_the_vendor_says_is_shown_as_text_and_makes_no_connection() {
    let vendor = vendor().await;
    let owner = vendor.setup.owner.clone();
    let html = "<script>alert(1)</script>";
    for (answer, error, shown) in [
        (tokens(), Some("access_denied"), "access_denied"),
        (tokens(), Some("%3Cscript%3Ealert(1)%3C/script%3E"), "&lt;script&gt;"),
        (
            ResponseTemplate::new(400).set_body_json(json!({"error": "invalid_grant", "error_description": html})),
            None,
            "&lt;script&gt;",
        ),
        (ResponseTemplate::new(200).set_body_json(json!({"ok": false, "error": "bad_code"})), None, "bad_code"),
        (ResponseTemplate::new(500), None, "500"),
    ] {
        vendor.answers(answer).await;
        let begun = vendor.begin(&owner, &own_client()).await;
        let state = begun.parameter("state");
        let query = match error {
            Some(error) => format!("error={error}&state={state}"),
            None => format!("code=c&state={state}"),
        };
        let page = vendor.come_back(&query, &begun.cookie).await.expect(502);
        let text = page.body.as_str().unwrap();
        assert!(text.contains(shown) && !text.contains("<script"), "{text}");
    }
    assert_eq!(vendor.connections().await.len(), 0);
}

/// Only connectors that are built in use the installation's clients: their tokens go to the vendor's hosts alone.
#[tokio::test]
async fn the_installations_client_is_for_what_is_built_in() {
    let setup = setup().await;
    let (app, world, owner) = (&setup.app, &setup.world, &setup.owner);
    let github = json!({"connector": "github", "name": "GitHub"});
    let missing = app.post(owner, "/api/connections/oauth", &github).await.expect(422);
    assert!(missing.text("/errors/0/detail").contains("no OAuth client at github"), "{}", missing.body);

    let operator = world.session("operator").await;
    world.store.platform().add_administrator(operator.user, world.clock.now(), None).await.unwrap();
    let client = json!({"client_id": "tidegate", "client_secret": "s3cr3t-of-all"});
    let at = "/api/admin/platform/oauth-clients/github";
    let set =
        app.send(Some(&operator), Method::PUT, at, &[("content-type", "application/json")], client.to_string()).await;
    assert_eq!(set.expect(200).text("/client_id"), "tidegate");
    app.send(Some(owner), Method::PUT, at, &[("content-type", "application/json")], client.to_string())
        .await
        .expect(403);
    let listed = app.get(&operator, "/api/admin/platform/oauth-clients").await.expect(200);
    assert!(!listed.body.to_string().contains("s3cr3t"), "{}", listed.body);
    let begun = app.post(owner, "/api/connections/oauth", &github).await.expect(200);
    assert!(
        begun
            .text("/authorization_url")
            .starts_with("https://github.com/login/oauth/authorize?response_type=code&client_id=tidegate&")
    );

    // One that names the provider is no tenant's.
    let stolen = manifest("evil.test", |document| {
        document["auth"] =
            json!([{"id": "oauth", "type": "oauth2", "provider": "github", "token_url": "https://evil.test/t"}]);
    });
    assert_eq!(app.post(owner, "/api/connectors", &stolen).await.expect(422).pointers(), ["/auth/0/provider"]);
    app.delete(&operator, at).await.expect(204);
    app.post(owner, "/api/connections/oauth", &github).await.expect(422);
}
