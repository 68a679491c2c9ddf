//! What the operator asks for by calling the function itself, and rotating the signing keys.

use futures::future::join_all;
use serde_json::{Value, json};
use tidegate_auth::{Command, Registration, command};
use tidegate_http::{MEMBER_STALE_AFTER, Problem, ProblemCode};
use tidegate_model::{AuditEntry, Role, TenantStatus};
use tidegate_store::AuditFilter;
use tidegate_testing::World;

use crate::support::{SignedIn, deps, instance, sign_in};

const ROTATE: &str = "/api/admin/platform/signing-keys/rotate";

/// Invokes the function with this payload.
async fn invoke(world: &World, payload: Value) -> Result<Value, Problem> {
    let asked: Command = serde_json::from_value(payload).unwrap();
    let answer = command(&deps(world, Registration::Closed), asked).await?;
    Ok(serde_json::to_value(answer).unwrap())
}

fn new_administrator(email: &str, password: Option<&str>) -> Value {
    let mut new = json!({"email": email, "name": "Root"});
    if let Some(password) = password {
        new["password"] = json!(password);
    }
    json!({"create_administrator": new})
}

/// The installation's own log, the last entry first.
async fn log(world: &World) -> Vec<AuditEntry> {
    world.store.audit().list(None, &AuditFilter::default(), None, 100).await.unwrap().items
}

#[test]
fn a_command_is_an_object_with_exactly_one_member_that_is_known() {
    let owner = json!({"email": "a@example.com", "password": "correct horse", "name": "A", "tenant_name": "T"});
    assert!(serde_json::from_value::<Command>(json!({"create_owner": owner})).is_ok());
    assert!(serde_json::from_value::<Command>(json!({"list_administrators": {}})).is_ok());
    let http = json!({"version": "2.0", "routeKey": "$default", "rawPath": "/", "requestContext": {}});
    for other in [
        json!({}),
        json!("list_administrators"),
        json!({"create_owner": owner, "list_administrators": {}}),
        json!({"create_administrator": {"email": "a@example.com", "tenant_name": "T"}}),
        json!({"become_root": {}}),
        http,
    ] {
        assert!(serde_json::from_value::<Command>(other.clone()).is_err(), "{other}");
    }
}

#[tokio::test]
async fn the_first_administrator_signs_in_and_is_no_member_of_anything() {
    let world = World::new().await;
    let app = instance(&world, Registration::Closed);
    let made = invoke(&world, new_administrator("Root@Example.com", Some("correct horse battery"))).await.unwrap();
    let (email, created) = (json!("root@example.com"), json!(true));
    assert_eq!((&made["email"], &made["account_created"], &made["changed"]), (&email, &created, &created));

    let login = json!({"email": "root@example.com", "password": "correct horse battery"});
    let signed_in = app.post("/api/auth/login", &login).await.expect(200);
    assert_eq!(
        (signed_in.text("/user/id"), &signed_in.body["tenant"]),
        (made["user_id"].as_str().unwrap(), &Value::Null)
    );
    let root = app.with_token(signed_in.text("/access_token"));
    root.post(ROTATE, &json!({"withdraw": false})).await.expect(200);

    // Nor does it open the way into one.
    let other = world.session("other").await;
    let into = json!({"email": "root@example.com", "password": "correct horse battery", "tenant_id": other.tenant});
    app.post("/api/auth/login", &into).await.expect(404);

    let actions: Vec<_> = log(&world).await.into_iter().map(|entry| entry.action).collect();
    assert_eq!(actions, ["signing_key.rotate", "session.begin", "administrator.add", "account.create"]);
    assert!(!format!("{:?}", log(&world).await).contains("horse"));
}

#[tokio::test]
async fn an_account_that_exists_becomes_one_as_it_is() {
    let world = World::new().await;
    let app = instance(&world, Registration::Open);
    let account =
        json!({"email": "a@example.com", "password": "correct horse battery", "name": "A", "tenant_name": "T"});
    app.post("/api/auth/register", &account).await.expect(201);
    for (password, changed) in [(None, true), (Some("another horse battery"), false)] {
        let made = invoke(&world, new_administrator("a@example.com", password)).await.unwrap();
        assert_eq!((&made["account_created"], &made["changed"]), (&json!(false), &json!(changed)));
        assert_eq!(made["email_verified"], false);
    }
    let login = |password: &str| json!({"email": "a@example.com", "password": password});
    app.post("/api/auth/login", &login("another horse battery")).await.expect(401);
    let signed_in = app.post("/api/auth/login", &login("correct horse battery")).await.expect(200);
    assert_eq!(signed_in.text("/user/name"), "A");
    assert_eq!(log(&world).await.len(), 1, "what changed nothing is not told");
}

#[tokio::test]
async fn an_account_is_made_of_good_fields_only_and_never_without_a_password() {
    let world = World::new().await;
    for (email, password, pointer) in [
        ("root@example.com", None, "/password"),
        ("root@example.com", Some("too short"), "/password"),
        ("root", Some("correct horse battery"), "/email"),
    ] {
        let refused = invoke(&world, new_administrator(email, password)).await.unwrap_err();
        let pointers: Vec<_> = refused.errors().iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!((refused.code(), pointers), (ProblemCode::ValidationFailed, vec![pointer]));
    }
    assert_eq!(world.store.accounts().user_by_email("root@example.com").await.unwrap(), None);
    assert_eq!(world.store.platform().administrators().await.unwrap(), []);
}

#[tokio::test]
async fn the_operator_ends_administrations_but_not_the_last_one() {
    let world = World::new().await;
    for email in ["one@example.com", "two@example.com"] {
        invoke(&world, new_administrator(email, Some("correct horse battery"))).await.unwrap();
    }
    let remove = async |email: &str| invoke(&world, json!({"remove_administrator": {"email": email}})).await;
    let list = async || {
        let listed = invoke(&world, json!({"list_administrators": {}})).await.unwrap();
        let items = listed["items"].as_array().unwrap().iter();
        items.map(|item| item["email"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list().await, ["one@example.com", "two@example.com"]);
    assert_eq!(remove("nobody@example.com").await.unwrap_err().code(), ProblemCode::NotFound);
    assert_eq!(remove(" ONE@example.com").await.unwrap()["changed"], true);
    assert_eq!(remove("one@example.com").await.unwrap()["changed"], false);
    assert_eq!(remove("two@example.com").await.unwrap_err().code(), ProblemCode::AdministratorRequired);
    assert_eq!(list().await, ["two@example.com"]);
    let entry = &log(&world).await[0];
    assert_eq!((entry.action.as_str(), entry.actor.principal), ("administrator.remove", None));
}

#[tokio::test]
async fn only_administrators_rotate_the_signing_keys() {
    let world = World::new().await;
    let app = instance(&world, Registration::Closed);
    let SignedIn { token, user, .. } = sign_in(&world, Role::Owner).await;
    app.post(ROTATE, &json!({"withdraw": true})).await.expect(401);
    app.with_token(&token).post(ROTATE, &json!({"withdraw": true})).await.expect(403);
    world.store.platform().add_administrator(user, world.clock.now(), None).await.unwrap();
    let app = instance(&world, Registration::Closed).with_token(&token);
    assert_eq!(app.post(ROTATE, &json!({})).await.expect(422).pointers(), ["/withdraw"]);

    let published = async || world.store.signing_keys().public_keys().await.unwrap().len();
    let rotated = app.post(ROTATE, &json!({"withdraw": false})).await.expect(200);
    assert_eq!(published().await, 2);
    app.get("/api/auth/me").await.expect(200);
    let entry = &log(&world).await[0];
    assert_eq!((entry.action.as_str(), entry.target.as_str()), ("signing_key.rotate", rotated.text("/kid")));
    assert_eq!((&entry.after, entry.actor.principal), (&Some(json!({"withdraw": false})), Some(user.into())));

    app.post(ROTATE, &json!({"withdraw": true})).await.expect(200);
    assert_eq!(published().await, 1);
    instance(&world, Registration::Closed).with_token(&token).get("/api/auth/me").await.expect(401);
}

/// Whoever is told that it was done finds the own key, and each rotation is told once.
#[tokio::test]
async fn rotations_at_the_same_moment_are_done_or_refused() {
    let world = World::new().await;
    let SignedIn { token, user, .. } = sign_in(&world, Role::Owner).await;
    world.store.platform().add_administrator(user, world.clock.now(), None).await.unwrap();
    let rotations = (0..4).map(|_| {
        let app = instance(&world, Registration::Closed).with_token(&token);
        async move { app.post(ROTATE, &json!({"withdraw": false})).await }
    });
    let answers = join_all(rotations).await;
    let done: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert!(!done.is_empty() && answers.iter().all(|answer| matches!(answer.status.as_u16(), 200 | 409)));
    let keys = world.store.signing_keys().public_keys().await.unwrap();
    assert!(done.iter().all(|answer| keys.iter().any(|key| key.kid == answer.text("/kid"))));
    assert_eq!((keys.len(), log(&world).await.len()), (done.len() + 1, done.len()));
}

/// Of a suspended tenant's members: they see why nothing works, and can leave.
#[tokio::test]
async fn a_suspended_tenants_members_still_see_their_account_and_sign_out() {
    let world = World::new().await;
    let app = instance(&world, Registration::Open);
    let account =
        json!({"email": "a@example.com", "password": "correct horse battery", "name": "A", "tenant_name": "T"});
    let registered = app.post("/api/auth/register", &account).await.expect(201);
    world.set_status(registered.text("/tenant/id").parse().unwrap(), TenantStatus::Suspended).await;
    world.clock.advance(MEMBER_STALE_AFTER);
    let login = json!({"email": "a@example.com", "password": "correct horse battery"});
    let signed_in = app.post("/api/auth/login", &login).await.expect(200);
    assert_eq!(signed_in.text("/tenant/status"), "suspended");
    let member = app.with_token(signed_in.text("/access_token"));
    assert_eq!(member.get("/api/auth/me").await.expect(200).text("/tenant/status"), "suspended");
    assert_eq!(member.get("/api/auth/sessions").await.expect(200).body["items"].as_array().unwrap().len(), 2);
    member.post("/api/auth/logout", &json!({})).await.expect(204);
    world.clock.advance(MEMBER_STALE_AFTER);
    member.get("/api/auth/me").await.expect(401);
}
