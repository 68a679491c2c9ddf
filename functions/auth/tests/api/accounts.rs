//! `/api/auth/*`: registering and signing in.

use futures::future::join_all;
use insta::assert_json_snapshot;
use serde_json::{Value, json};
use tidegate_auth::Registration;
use tidegate_model::{Role, TenantId};
use tidegate_platform::key_service::KeyContext;
use tidegate_testing::{TestApp, World};

use crate::support::{Client, SignedIn, deps, envelope, instance, sign_in};

fn alex() -> Value {
    json!({
        "email": "Alex@Example.com",
        "password": "correct horse battery",
        "name": "Alex",
        "tenant_name": "Example Ltd.",
    })
}

fn open(world: &World) -> Client {
    instance(world, Registration::Open)
}

#[tokio::test]
async fn who_registers_is_signed_in_and_can_sign_in_again() {
    let world = World::without_key().await;
    let app = open(&world);
    let registered = app.post("/api/auth/register", &alex()).await;
    assert_eq!((registered.status.as_u16(), registered.header("location")), (201, "/api/auth/me"));
    assert_json_snapshot!(registered.body, {".access_token" => "[token]", ".**.id" => "[id]"}, @r##"
    {
      "access_token": "[token]",
      "token_type": "Bearer",
      "expires_in": 900,
      "user": {
        "id": "[id]",
        "email": "alex@example.com",
        "email_verified": false,
        "name": "Alex",
        "role": "owner",
        "created_at": "2026-11-20T10:00:00.000Z"
      },
      "tenant": {
        "id": "[id]",
        "name": "Example Ltd.",
        "status": "active",
        "created_at": "2026-11-20T10:00:00.000Z"
      }
    }
    "##);

    let login = json!({"email": " ALEX@example.com", "password": "correct horse battery"});
    let signed_in = app.post("/api/auth/login", &login).await;
    assert_eq!(signed_in.status, 200);
    for member in ["user", "tenant", "token_type", "expires_in"] {
        assert_eq!(signed_in.body[member], registered.body[member]);
    }
    for answer in [&registered, &signed_in] {
        let me = app.with_token(answer.body["access_token"].as_str().unwrap()).get("/api/auth/me").await;
        assert_eq!(me.body, json!({"user": registered.body["user"], "tenant": registered.body["tenant"]}));
    }
}

#[tokio::test]
async fn a_new_tenants_data_key_opens_for_its_connections_only() {
    let world = World::without_key().await;
    let registered = open(&world).post("/api/auth/register", &alex()).await;
    let tenant: TenantId = registered.body["tenant"]["id"].as_str().unwrap().parse().unwrap();
    let data_key = world.store.tenants().get(tenant).await.unwrap().unwrap().data_keys[0].wrapped.clone();
    let seal = async |tenant: &str, purpose: &str| {
        let context = KeyContext { tenant: tenant.to_owned(), purpose: purpose.to_owned() };
        envelope(&world).seal(&data_key, &context, b"conn", b"secret").await
    };
    assert!(seal(&tenant.to_string(), "connections").await.is_ok());
    assert!(seal(&tenant.to_string(), "signing").await.is_err());
    assert!(seal("platform", "connections").await.is_err());
}

#[tokio::test]
async fn an_unknown_user_and_a_wrong_password_get_the_same_answer() {
    let world = World::without_key().await;
    let deps = deps(&world, Registration::Open);
    let passwords = deps.passwords.clone();
    let app = Client::of(TestApp::new(&world, tidegate_auth::api(deps)));
    app.post("/api/auth/register", &alex()).await;
    let work_of = async |email: &str| {
        // Registering and the guess before counted as tries; that is over after a minute.
        world.clock.advance(std::time::Duration::from_secs(60));
        world.embedded.meter.restart(false);
        let hashed = passwords.done();
        let body = json!({"email": email, "password": "wrong horse battery"});
        let mut answer = app.post("/api/auth/login", &body).await;
        answer.body["request_id"] = Value::Null;
        let challenge = answer.header("www-authenticate").to_owned();
        let work = (world.embedded.meter.all_calls(), passwords.done() - hashed);
        (answer.body, answer.status, challenge, work)
    };
    let wrong = work_of("alex@example.com").await;
    assert_eq!(wrong.3.1, 1, "a password was verified");
    assert_eq!(wrong, work_of("nobody@example.com").await, "after the same work, too");
    assert_eq!(wrong, work_of("not an address").await);
    assert_eq!((wrong.1.as_u16(), wrong.2.as_str()), (401, "Bearer"));
    assert_json_snapshot!(wrong.0, @r##"
    {
      "type": "/docs/errors/invalid_credentials",
      "title": "Wrong email address or password",
      "status": 401,
      "detail": "There is no account with this email address and password.",
      "code": "invalid_credentials",
      "request_id": null
    }
    "##);
}

#[tokio::test]
async fn bad_registrations_name_their_fields_and_store_nothing() {
    let world = World::without_key().await;
    let app = open(&world);
    let bad = json!({"email": "alex", "password": "short", "name": " ", "tenant_name": "x".repeat(201)});
    let answer = app.post("/api/auth/register", &bad).await;
    assert_json_snapshot!(answer.body, {".request_id" => "[id]"}, @r##"
    {
      "type": "/docs/errors/validation_failed",
      "title": "The body is invalid",
      "status": 422,
      "detail": "The body is invalid in 4 places; see errors.",
      "code": "validation_failed",
      "request_id": "[id]",
      "errors": [
        {
          "pointer": "/email",
          "detail": "expected an email address such as alex@example.com"
        },
        {
          "pointer": "/password",
          "detail": "expected 10 to 256 characters (1,024 bytes at most)"
        },
        {
          "pointer": "/name",
          "detail": "expected 1 to 200 characters on one line, all of them visible"
        },
        {
          "pointer": "/tenant_name",
          "detail": "expected 1 to 200 characters on one line, all of them visible"
        }
      ]
    }
    "##);
    for (field, value) in [("email", json!(1)), ("password", json!(1234567890)), ("colour", json!("red"))] {
        let mut body = alex();
        body[field] = value;
        let answer = app.post("/api/auth/register", &body).await;
        let pointer = &answer.body["errors"][0]["pointer"];
        assert_eq!((answer.status.as_u16(), pointer), (422, &json!(format!("/{field}"))));
    }
    assert_eq!(world.store.accounts().user_by_email("alex@example.com").await.unwrap(), None);
}

#[tokio::test]
async fn an_address_is_registered_once() {
    let world = World::without_key().await;
    let app = open(&world);
    assert_eq!(app.post("/api/auth/register", &alex()).await.status, 201);
    let mut again = alex();
    again["email"] = json!("ALEX@EXAMPLE.COM");
    let answer = app.post("/api/auth/register", &again).await;
    assert_eq!(answer.status, 409);
    assert_json_snapshot!(answer.body, {".request_id" => "[id]"}, @r##"
    {
      "type": "/docs/errors/email_taken",
      "title": "The email address is taken",
      "status": 409,
      "detail": "An account with this email address exists. Sign in, or take another address.",
      "code": "email_taken",
      "request_id": "[id]",
      "errors": [
        {
          "pointer": "/email",
          "detail": "is taken by another account"
        }
      ]
    }
    "##);
}

#[tokio::test]
async fn of_those_who_register_one_address_at_once_one_wins() {
    let world = World::without_key().await;
    let instances: Vec<_> = (0..6).map(|_| open(&world)).collect();
    let body = alex();
    let answers = join_all(instances.iter().map(|app| app.post("/api/auth/register", &body))).await;
    let mut codes: Vec<_> = answers.iter().map(|answer| answer.body["code"].as_str().unwrap_or("created")).collect();
    codes.sort_unstable();
    assert_eq!(codes, ["created", "email_taken", "email_taken", "email_taken", "email_taken", "email_taken"]);
    let winner = answers.iter().find(|answer| answer.status == 201).unwrap();
    let stored = world.store.accounts().user_by_email("alex@example.com").await.unwrap().unwrap();
    assert_eq!(winner.body["user"]["id"], stored.id.to_string());
    let tenants = world.store.accounts().tenants_of(stored.id).await.unwrap();
    assert_eq!(winner.body["tenant"]["id"], tenants[0].to_string());
}

#[tokio::test]
async fn registration_can_be_closed_while_signing_in_stays_open() {
    let world = World::without_key().await;
    open(&world).post("/api/auth/register", &alex()).await;
    for registration in [Registration::Closed, Registration::Invite] {
        let app = instance(&world, registration);
        let mut other = alex();
        other["email"] = json!("other@example.com");
        let answer = app.post("/api/auth/register", &other).await;
        assert_eq!((answer.status.as_u16(), &answer.body["code"]), (403, &json!("registration_closed")));
        let login = json!({"email": "alex@example.com", "password": "correct horse battery"});
        assert_eq!(app.post("/api/auth/login", &login).await.status, 200);
    }
    assert_eq!(world.store.accounts().user_by_email("other@example.com").await.unwrap(), None);
    assert_eq!("open".parse(), Ok(Registration::Open));
    assert!("Open".parse::<Registration>().is_err());
}

#[tokio::test]
async fn a_session_that_is_gone_is_signed_in_no_more() {
    let world = World::without_key().await;
    let SignedIn { token, session, .. } = sign_in(&world, Role::Owner).await;
    world.store.sessions().delete(session.user, &[session.id]).await.unwrap();
    let answer = open(&world).with_token(&token).get("/api/auth/me").await;
    assert_eq!((answer.status.as_u16(), &answer.body["code"]), (401, &json!("unauthenticated")));
}
