//! `/api/service-accounts`, their keys, and `POST /api/auth/token`.

use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use insta::assert_json_snapshot;
use serde_json::{Value, json};
use tidegate_auth::{Registration, api};
use tidegate_http::permission::{RunsRead, WorkflowsRun};
use tidegate_http::{Api, Caller, endpoint};
use tidegate_model::{CustomRole, Member, Permission, Role, RoleName, TenantStatus};
use tidegate_testing::{Account, Answer, Session, TestApp, World};

use crate::support::deps;

const ACCOUNTS: &str = "/api/service-accounts";

struct Setup {
    world: World,
    app: TestApp,
    owner: Session,
}

/// The auth function's operations, and two that stand for another function's.
async fn setup() -> Setup {
    let world = World::new().await;
    let deps = deps(&world, Registration::Closed);
    let others = Api::new().route(endpoint!(run)).route(endpoint!(read)).with_state(deps.authenticator.clone());
    let app = TestApp::new(&world, api(deps).merge(others));
    let owner = world.session("alex").await;
    Setup { world, app, owner }
}

/// Takes the permission to run
#[utoipa::path(post, path = "/test/run", responses((status = 200)))]
async fn run(_: Caller<WorkflowsRun>) {}

/// Takes the permission to read
#[utoipa::path(get, path = "/test/read", responses((status = 200)))]
async fn read(_: Caller<RunsRead>) {}

/// A key, as its holder has it.
struct Key {
    id: String,
    path: String,
    bearer: Session,
    secret: String,
}

impl Setup {
    async fn account(&self, role: &str) -> String {
        let body = json!({"name": "Import", "role": role});
        self.app.post(&self.owner, ACCOUNTS, &body).await.expect(201).header("location").to_owned()
    }

    async fn key(&self, account: &str, scopes: &[&str]) -> Key {
        let body = json!({"name": "k", "scopes": scopes});
        self.key_of(self.app.post(&self.owner, &format!("{account}/keys"), &body).await.expect(201))
    }

    fn key_of(&self, created: Answer) -> Key {
        let bearer = Session { token: created.text("/key").to_owned(), ..self.owner.clone() };
        let [id, secret] = ["/client_id", "/client_secret"].map(|field| created.text(field).to_owned());
        Key { id, path: created.header("location").to_owned(), bearer, secret }
    }

    /// The statuses that a key or token gets where it takes `workflows:run`, and where it takes `runs:read`.
    async fn may(&self, bearer: &Session) -> [u16; 2] {
        let run = self.app.send(Some(bearer), Method::POST, "/test/run", &[], "").await;
        [run.status.as_u16(), self.app.get(bearer, "/test/read").await.status.as_u16()]
    }

    async fn token(&self, form: &str) -> Answer {
        self.ask(&[("content-type", "application/x-www-form-urlencoded")], form).await
    }

    async fn token_for(&self, key: &Key, more: &str) -> Answer {
        let Key { id, secret, .. } = key;
        self.token(&format!("grant_type=client_credentials&client_id={id}&client_secret={secret}{more}")).await
    }

    async fn ask(&self, headers: &[(&str, &str)], form: &str) -> Answer {
        self.app.send(None, Method::POST, "/api/auth/token", headers, Body::from(form.to_owned())).await
    }

    /// A member in a role of a tenant's own, with these permissions.
    async fn custom(&self, name: &str, permissions: &[Permission]) -> Session {
        let mut tenant = self.world.store.tenants().get(self.owner.tenant).await.unwrap().unwrap();
        let role = CustomRole { description: String::new(), permissions: permissions.iter().copied().collect() };
        tenant.roles.insert(name.parse().unwrap(), role);
        tenant.revision += 1;
        self.world.store.tenants().replace(&tenant).await.unwrap();
        self.world.clock.advance(Duration::from_secs(5));
        let Account { user, credentials, owner, .. } = Account::new(&self.world.ids, &format!("{name}@example.com"));
        let new = tidegate_store::NewAccount { user: &user, credentials: &credentials, tenant: None };
        self.world.store.accounts().create(new).await.unwrap();
        let member = Member { tenant: self.owner.tenant, role: name.parse().unwrap(), ..owner };
        self.world.store.tenants().add_member(&member).await.unwrap();
        self.world.sign_in(&member).await
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn a_service_account_is_made_changed_and_deleted_with_its_keys() {
    let setup = setup().await;
    let (app, owner) = (&setup.app, &setup.owner);
    let created = app.post(owner, ACCOUNTS, &json!({"name": " Import ", "role": "editor"})).await.expect(201);
    assert_json_snapshot!(created.body, {".id" => "[id]"}, @r##"
    {
      "id": "[id]",
      "name": "Import",
      "role": "editor",
      "created_at": "2026-11-20T10:00:00.000Z"
    }
    "##);
    let path = created.header("location").to_owned();
    assert_eq!(app.get(owner, &path).await.expect(200).body, created.body);
    assert_eq!(app.get(owner, ACCOUNTS).await.expect(200).body, json!({"items": [created.body], "next_cursor": null}));
    let changed = app.patch(owner, &path, &json!({"role": "viewer"})).await.expect(200);
    assert_eq!((changed.text("/name"), changed.text("/role")), ("Import", "viewer"));
    let changed = app.patch(owner, &path, &json!({"name": "Nightly"})).await.expect(200);
    assert_eq!((changed.text("/name"), changed.text("/role")), ("Nightly", "viewer"));

    let key = setup.key(&path, &["runs:read"]).await;
    assert_eq!(setup.may(&key.bearer).await, [403, 200]);
    app.delete(owner, &path).await.expect(204);
    setup.world.clock.advance(seconds(5));
    assert_eq!(setup.may(&key.bearer).await, [401, 401]);
    app.get(owner, &path).await.expect(404);
    app.delete(owner, &path).await.expect(404);
    app.get(owner, &format!("{path}/keys")).await.expect(404);
    assert_eq!(app.get(owner, ACCOUNTS).await.body["items"], json!([]));
    assert!(setup.world.store.api_keys().get(key.id.parse().unwrap()).await.unwrap().is_none(), "not even its hash");
}

#[tokio::test]
async fn nobody_gives_or_takes_a_role_beyond_their_own() {
    let setup = setup().await;
    let (app, owner) = (&setup.app, &setup.owner);
    for (body, pointers) in [
        (json!({"name": "x", "role": "owner"}), &["/role"][..]),
        (json!({"name": " ", "role": "viewer"}), &["/name"]),
        (json!({"name": "x", "role": "nobody"}), &["/role"]),
        (json!({"name": "x", "role": "No Role"}), &["/role"]),
        (json!({"name": "x"}), &["/role"]),
        (json!({"name": "x", "role": "viewer", "admin": true}), &["/admin"]),
    ] {
        assert_eq!(app.post(owner, ACCOUNTS, &body).await.expect(422).pointers(), pointers, "{body}");
    }
    use Permission as P;
    let clerk = setup.custom("clerk", &[P::ServiceAccountsRead, P::ServiceAccountsWrite, P::RunsRead]).await;
    let mightier = setup.account("editor").await;
    let refused = app.post(&clerk, ACCOUNTS, &json!({"name": "x", "role": "viewer"})).await.expect(403);
    assert_eq!((refused.text("/code"), refused.pointers()), ("forbidden", vec!["/role"]));
    app.patch(&clerk, &mightier, &json!({"role": "clerk"})).await.expect(403);
    app.delete(&clerk, &mightier).await.expect(403);
    app.patch(&clerk, &mightier, &json!({"name": "Renamed"})).await.expect(200);
    let own = app.post(&clerk, ACCOUNTS, &json!({"name": "x", "role": "clerk"})).await.expect(201);
    app.patch(&clerk, own.header("location"), &json!({"role": "admin"})).await.expect(403);

    // Keys: each wrong scope is named; what the caller may not do is wrong too.
    let keys = format!("{mightier}/keys");
    let wrong = json!({"name": "", "scopes": ["runs:read", "audit:read", "nonsense", "workflows:run", "account:read"],
                       "expires_at": "2020-01-01T00:00:00Z"});
    let answer = app.post(&clerk, &keys, &wrong).await.expect(422);
    let all = ["/name", "/scopes/1", "/scopes/2", "/scopes/3", "/scopes/4", "/expires_at"];
    assert_eq!(answer.pointers(), all, "{}", answer.body);
    assert_eq!(app.post(owner, &keys, &json!({"name": "k", "scopes": []})).await.expect(422).pointers(), ["/scopes"]);
    // A rotation hands the new key out: no way around.
    let key = setup.key(&mightier, &["workflows:run"]).await;
    app.post(&clerk, &format!("{}/rotate", key.path), &json!({})).await.expect(403);
    // But whoever manages keys may stop one.
    app.delete(&clerk, &key.path).await.expect(204);
    // A key with the permission is bound by its own scopes, not by its account's role.
    let admin = setup.account("admin").await;
    let manager = setup.key(&admin, &["service_accounts:write", "runs:read"]).await;
    app.post(&manager.bearer, &format!("{admin}/keys"), &json!({"name": "k", "scopes": ["runs:read"]}))
        .await
        .expect(201);
    let more = json!({"name": "k", "scopes": ["workflows:run"]});
    app.post(&manager.bearer, &format!("{admin}/keys"), &more).await.expect(422);
    let viewer = setup.world.member(owner, Role::Viewer).await;
    app.get(&viewer, ACCOUNTS).await.expect(403);
}

#[tokio::test]
async fn a_key_is_shown_once_and_says_when_it_was_used() {
    let setup = setup().await;
    let (app, owner) = (&setup.app, &setup.owner);
    let account = setup.account("editor").await;
    let body = json!({"name": "k", "scopes": ["workflows:run"], "expires_at": "2026-11-21T10:00:00Z"});
    let created = app.post(owner, &format!("{account}/keys"), &body).await.expect(201);
    assert_json_snapshot!(
        created.body,
        {".id" => "[id]", ".service_account_id" => "[id]", ".key" => "[key]", ".client_id" => "[id]", ".client_secret" => "[secret]"},
        @r##"
    {
      "id": "[id]",
      "service_account_id": "[id]",
      "name": "k",
      "scopes": [
        "workflows:run"
      ],
      "created_at": "2026-11-20T10:00:00.000Z",
      "expires_at": "2026-11-21T10:00:00.000Z",
      "successor": null,
      "last_used_at": null,
      "key": "[key]",
      "client_id": "[id]",
      "client_secret": "[secret]"
    }
    "##
    );
    let key = setup.key_of(created);
    assert_eq!(key.bearer.token, format!("tgk_{}_{}", &key.id["key_".len()..], key.secret));
    assert_eq!(setup.may(&key.bearer).await, [200, 403]);
    for path in [&key.path, &format!("{account}/keys")] {
        let answer = app.get(owner, path).await.expect(200);
        let view = answer.body.pointer("/items/0").unwrap_or(&answer.body);
        assert_eq!(view["last_used_at"], "2026-11-20T10:00:00.000Z");
        assert!(!answer.body.to_string().contains(&key.secret) && view.get("key").is_none());
    }
    let log = app.get(owner, "/api/audit").await.expect(200).body.to_string();
    assert!(log.contains("api_key.create") && !log.contains(&key.secret) && !log.contains("hash"), "{log}");
    let stored = setup.world.store.api_keys().get(key.id.parse().unwrap()).await.unwrap().unwrap();
    assert!(!serde_json::to_string(&stored).unwrap().contains(&key.secret));

    setup.world.clock.advance(seconds(86_399));
    assert_eq!(setup.may(&key.bearer).await, [200, 403]);
    setup.world.clock.advance(seconds(1));
    assert_eq!(setup.may(&key.bearer).await, [401, 401], "it has ended");
}

#[tokio::test]
async fn a_rotated_key_goes_on_for_the_overlap() {
    let setup = setup().await;
    let (app, owner) = (&setup.app, &setup.owner);
    let account = setup.account("editor").await;
    let old = setup.key(&account, &["workflows:run"]).await;
    let rotate = format!("{}/rotate", old.path);
    let too_long = app.post(owner, &rotate, &json!({"overlap_seconds": 2_592_001})).await.expect(422);
    assert_eq!(too_long.pointers(), ["/overlap_seconds"]);
    let new = setup.key_of(app.post(owner, &rotate, &json!({"overlap_seconds": 3_600})).await.expect(201));
    let again = app.post(owner, &rotate, &json!({})).await.expect(409);
    assert!(again.text("/detail").contains(&new.id), "whose answer got lost learns what follows: {}", again.body);
    assert_eq!(app.get(owner, &old.path).await.expect(200).text("/successor"), new.id);
    setup.world.clock.advance(seconds(3_599));
    assert_eq!((setup.may(&old.bearer).await, setup.may(&new.bearer).await), ([200, 403], [200, 403]));
    setup.world.clock.advance(seconds(1));
    assert_eq!((setup.may(&old.bearer).await, setup.may(&new.bearer).await), ([401, 401], [200, 403]));
    let views = app.get(owner, &format!("{account}/keys")).await.expect(200);
    assert_eq!(views.body["items"].as_array().unwrap().len(), 2);
    assert_eq!(views.body["items"][0]["expires_at"], Value::Null, "the new one has no end, as the old one had none");

    // One with an end is followed by one that lasts as long, and rotating never prolongs the old one.
    let body = json!({"name": "k", "scopes": ["workflows:run"], "expires_at": "2026-11-20T12:00:00Z"});
    let old = setup.key_of(app.post(owner, &format!("{account}/keys"), &body).await.expect(201));
    setup.world.clock.advance(seconds(1_800));
    let new = app.post(owner, &format!("{}/rotate", old.path), &json!({})).await.expect(201);
    assert_eq!(new.text("/expires_at"), "2026-11-20T12:30:00.000Z");
    assert_eq!(app.get(owner, &old.path).await.expect(200).text("/expires_at"), "2026-11-20T12:00:00.000Z");
    let entries = app.get(owner, "/api/audit?action=api_key.rotate").await.expect(200);
    assert_eq!(entries.body["items"].as_array().unwrap().len(), 2, "each rotation is one entry");
}

#[tokio::test]
async fn another_tenants_accounts_and_keys_are_unknown() {
    let setup = setup().await;
    let (app, owner) = (&setup.app, &setup.owner);
    let (account, stranger) = (setup.account("editor").await, setup.world.session("sam").await);
    let (key, before) = (setup.key(&account, &["runs:read"]).await, app.get(owner, &account).await.body);
    let foreign = app.post(&stranger, ACCOUNTS, &json!({"name": "x", "role": "viewer"})).await.expect(201);
    let foreign = foreign.header("location").to_owned();
    let new_key = json!({"name": "k", "scopes": ["runs:read"]});
    let other = setup.account("viewer").await;
    let by_the_wrong_account = key.path.replace(account.as_str(), &other);
    app.get(owner, &by_the_wrong_account).await.expect(404);
    app.delete(owner, &by_the_wrong_account).await.expect(404);
    let unknown = format!("{ACCOUNTS}/svc_01890a5d000070008000000000000000");
    let no_key = |account: &str| format!("{account}/keys/key_01890a5d000070008000000000000000");
    for (method, path, twin, body) in [
        (Method::GET, account.clone(), unknown.clone(), &Value::Null),
        (Method::PATCH, account.clone(), unknown.clone(), &json!({"name": "x"})),
        (Method::DELETE, account.clone(), unknown.clone(), &Value::Null),
        (Method::GET, format!("{account}/keys"), format!("{unknown}/keys"), &Value::Null),
        (Method::POST, format!("{account}/keys"), format!("{unknown}/keys"), &new_key),
        (Method::GET, key.path.clone(), no_key(&account), &Value::Null),
        (Method::DELETE, key.path.clone(), no_key(&account), &Value::Null),
        (Method::POST, format!("{}/rotate", key.path), format!("{}/rotate", no_key(&account)), &json!({})),
        (Method::GET, key.path.replace(account.as_str(), &foreign), no_key(&foreign), &Value::Null),
    ] {
        let send = |path: String| {
            let headers = [("content-type", "application/json")];
            let (app, stranger, method) = (app.clone(), stranger.clone(), method.clone());
            async move {
                let mut answer = app.send(Some(&stranger), method, &path, &headers, body.to_string()).await.expect(404);
                answer.body["request_id"] = Value::Null;
                answer.body
            }
        };
        assert_eq!(send(path.clone()).await, send(twin).await, "{method} {path}");
    }
    assert_eq!(app.get(owner, &account).await.expect(200).body, before);
    assert_eq!(setup.may(&key.bearer).await, [403, 200]);
}

#[tokio::test]
async fn a_service_accounts_keys_are_paged_apart_from_the_others() {
    let setup = setup().await;
    let (a, b) = (setup.account("viewer").await, setup.account("viewer").await);
    let mut made = Vec::new();
    for _ in 0..3 {
        setup.world.clock.advance(Duration::from_millis(1));
        made.insert(0, setup.key(&a, &["runs:read"]).await.id);
        setup.key(&b, &["runs:read"]).await;
    }
    let (mut seen, mut path) = (Vec::new(), format!("{a}/keys?limit=2"));
    loop {
        let page = setup.app.get(&setup.owner, &path).await.expect(200);
        seen.extend(page.body["items"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page.body["next_cursor"].as_str() else { break };
        path = format!("{a}/keys?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, made);
}

#[tokio::test]
async fn client_credentials_get_a_token_of_the_scope_that_is_asked_for() {
    let setup = setup().await;
    let account = setup.account("editor").await;
    let key = setup.key(&account, &["workflows:run", "runs:read"]).await;
    let whole = setup.token_for(&key, "").await.expect(200);
    assert_eq!((whole.header("cache-control"), whole.header("pragma")), ("no-store", "no-cache"));
    assert_eq!(whole.header("content-type"), "application/json");
    assert_json_snapshot!(whole.body, {".access_token" => "[token]"}, @r##"
    {
      "access_token": "[token]",
      "token_type": "Bearer",
      "expires_in": 900,
      "scope": "workflows:run runs:read"
    }
    "##);
    let bearer = |answer: &Answer| Session { token: answer.text("/access_token").to_owned(), ..setup.owner.clone() };
    assert_eq!(setup.may(&bearer(&whole)).await, [200, 200]);
    let narrow = setup.token_for(&key, "&scope=runs%3Aread").await.expect(200);
    assert_eq!(narrow.text("/scope"), "runs:read");
    assert_eq!(setup.may(&bearer(&narrow)).await, [403, 200], "the token is good for no more than it was asked for");
    // The secret in the header, form-encoded inside it.
    let basic = STANDARD.encode(format!("{}:{}", key.id.replace('_', "%5F"), key.secret));
    let headers =
        [("content-type", "application/x-www-form-urlencoded"), ("authorization", &*format!("basic {basic}"))];
    let form = format!("grant_type=client_credentials&scope=&client_id={}", key.id);
    assert_eq!(setup.ask(&headers, &form).await.expect(200).text("/scope"), "workflows:run runs:read");

    setup.app.delete(&setup.owner, &key.path).await.expect(204);
    setup.world.clock.advance(seconds(5));
    assert_eq!(setup.may(&bearer(&whole)).await, [401, 401], "it dies with its key");
    assert_eq!(setup.token_for(&key, "").await.expect(401).text("/error"), "invalid_client");
}

#[tokio::test]
async fn what_is_wrong_with_a_token_request_is_told_as_the_rfc_has_it() {
    let setup = setup().await;
    let account = setup.account("editor").await;
    let key = setup.key(&account, &["workflows:run", "runs:read"]).await;
    let Key { id, secret, .. } = &key;
    let grant = "grant_type=client_credentials";
    let client = format!("client_id={id}&client_secret={secret}");
    let other = format!("{}0", &id[..id.len() - 1]);
    let (wrong, short) = ("A".repeat(43), &secret[1..]);
    for (form, status, error) in [
        (String::new(), 400, "invalid_request"),
        (client.clone(), 400, "invalid_request"),
        (format!("grant_type=&{client}"), 400, "invalid_request"),
        (format!("{grant}&{grant}&{client}"), 400, "invalid_request"),
        (format!("{grant}&{client}&client_id={id}"), 400, "invalid_request"),
        (format!("grant_type=password&{client}"), 400, "unsupported_grant_type"),
        (format!("{grant}&{client}&scope=runs:write"), 400, "invalid_scope"),
        (format!("{grant}&{client}&scope=nonsense"), 400, "invalid_scope"),
        (format!("{grant}&{client}&scope=runs:read++workflows:run"), 400, "invalid_scope"),
        (format!("{grant}&{client}&scope=audit:read+runs:read"), 400, "invalid_scope"),
        (grant.to_owned(), 401, "invalid_client"),
        (format!("{grant}&client_id={id}"), 401, "invalid_client"),
        (format!("{grant}&client_id={id}&client_secret={wrong}"), 401, "invalid_client"),
        (format!("{grant}&client_id={id}&client_secret={short}"), 401, "invalid_client"),
        (format!("{grant}&client_id={other}&client_secret={secret}"), 401, "invalid_client"),
        (format!("{grant}&client_id=alex&client_secret={secret}"), 401, "invalid_client"),
    ] {
        let answer = setup.token(&form).await.expect(status);
        assert_eq!((answer.text("/error"), answer.header("cache-control")), (error, "no-store"), "{form}");
        assert!(!answer.text("/error_description").is_empty() && answer.body.as_object().unwrap().len() == 2);
        let challenge = if status == 401 { "Basic realm=\"tidegate\"" } else { "" };
        assert_eq!(answer.header("www-authenticate"), challenge, "{form}");
    }
    let form = ("content-type", "application/x-www-form-urlencoded");
    let whole = format!("{grant}&{client}");
    let basic = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    for (headers, body, status, error) in [
        (&[("content-type", "application/json")][..], "{}", 400, "invalid_request"),
        (&[form, ("authorization", &basic)], &*whole, 400, "invalid_request"),
        (&[form, ("authorization", &basic)], "grant_type=client_credentials&client_id=key_0", 400, "invalid_request"),
        (&[form, ("authorization", &basic), ("authorization", &basic)], grant, 400, "invalid_request"),
        (&[form, ("authorization", &key.bearer.token)], grant, 401, "invalid_client"),
        (&[form, ("authorization", "Basic !")], grant, 401, "invalid_client"),
        (&[form, ("authorization", "Basic bm9jb2xvbg==")], grant, 401, "invalid_client"),
    ] {
        assert_eq!(setup.ask(headers, body).await.expect(status).text("/error"), error, "{headers:?}");
    }

    // What the client may do now counts, not what the key once could.
    setup.app.patch(&setup.owner, &account, &json!({"role": "viewer"})).await.expect(200);
    setup.world.clock.advance(seconds(30));
    assert_eq!(setup.token_for(&key, "").await.expect(200).text("/scope"), "runs:read");
    let mut tenant = setup.world.store.tenants().get(setup.owner.tenant).await.unwrap().unwrap();
    tenant.status = TenantStatus::Suspended;
    tenant.revision += 1;
    setup.world.store.tenants().replace(&tenant).await.unwrap();
    setup.world.clock.advance(seconds(5));
    assert_eq!(setup.token_for(&key, "").await.expect(400).text("/error"), "unauthorized_client");
}

#[tokio::test]
async fn wrong_secrets_are_answered_less_and_less_but_shut_nobody_out() {
    let setup = setup().await;
    let account = setup.account("viewer").await;
    let (key, neighbour) = (setup.key(&account, &["runs:read"]).await, setup.key(&account, &["runs:read"]).await);
    let wrong = |key: &Key| {
        let secret = "A".repeat(43);
        format!("grant_type=client_credentials&client_id={}&client_secret={secret}", key.id)
    };
    let from = |address: &str| setup.app.from_address(address.parse().unwrap());
    let ask = async |address: &str, form: String| {
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        from(address).send(None, Method::POST, "/api/auth/token", &headers, form).await
    };
    for _ in 0..10 {
        ask("192.0.2.1", wrong(&key)).await.expect(401);
    }
    let refused = ask("192.0.2.1", wrong(&key)).await.expect(429);
    assert_eq!((refused.header("retry-after"), refused.text("/code")), ("30", "rate_limited"));
    ask("192.0.2.1", wrong(&neighbour)).await.expect(401);
    ask("192.0.2.2", wrong(&key)).await.expect(401);
    let right = format!("grant_type=client_credentials&client_id={}&client_secret={}", key.id, key.secret);
    ask("192.0.2.1", right).await.expect(200);
    setup.world.clock.advance(seconds(30));
    ask("192.0.2.1", wrong(&key)).await.expect(401);
    ask("192.0.2.1", wrong(&key)).await.expect(429);

    // Guesses at many clients from one network: a /64 counts as one address.
    let guess =
        |n: u32| format!("grant_type=client_credentials&client_id=key_{n:032x}&client_secret={}", "A".repeat(43));
    for n in 0..100 {
        ask(&format!("2001:db8::{n:x}"), guess(n)).await.expect(401);
    }
    ask("2001:db8::ffff", guess(100)).await.expect(429);
    ask("2001:db8:0:1::1", guess(100)).await.expect(401);
}

#[tokio::test]
async fn a_machine_is_no_person() {
    let setup = setup().await;
    let account = setup.account("admin").await;
    let key = setup.key(&account, &["runs:read"]).await;
    let token = setup.token_for(&key, "").await.expect(200);
    let token = Session { token: token.text("/access_token").to_owned(), ..setup.owner.clone() };
    for bearer in [&key.bearer, &token] {
        setup.app.get(bearer, "/api/auth/me").await.expect(403);
        setup.app.get(bearer, "/api/auth/sessions").await.expect(403);
    }
    let role: RoleName = Role::Owner.into();
    let machines = setup.world.store.tenants().service_accounts(setup.owner.tenant, None, 10).await.unwrap();
    assert!(machines.items.iter().all(|machine| machine.role != role));
}
