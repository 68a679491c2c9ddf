//! Sign-ins: refreshed, used against us, switched between tenants, listed and ended; and keys that change under them.

use std::time::Duration;

use axum::body::Body;
use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tidegate_auth::{
    IDLE_LIFETIME, MAX_LIFETIME, PUBLISHED_BEFORE, Registration, Settings, TOKEN_LIFETIME, TokenSigner, api,
};
use tidegate_model::{Actor, AuditEntry, Member, Role, TenantId, UserId};
use tidegate_testing::{Account, Answer, TestApp, World};

use crate::support::{Client, PASSWORD, Tokens, deps, instance, outcome, registration};

const ME: &str = "/api/auth/me";
const DAY: Duration = Duration::from_secs(86_400);

fn open(world: &World) -> Client {
    instance(world, Registration::Open)
}

async fn refresh_by_cookie(app: &Client, cookie: &str) -> Answer {
    let headers = [("content-type", "application/json"), ("cookie", cookie)];
    app.send(Method::POST, "/api/auth/refresh", &headers, Body::from("{}")).await
}

const ENDED: (u16, &str) = (401, "unauthenticated");

async fn me(app: &Client, tokens: &Tokens) -> u16 {
    app.with_token(&tokens.access).get(ME).await.status.as_u16()
}

async fn sessions(app: &Client, tokens: &Tokens) -> Vec<Value> {
    let list = app.with_token(&tokens.access).get("/api/auth/sessions").await.expect(200);
    list.body["items"].as_array().unwrap().clone()
}

/// Another tenant that a user becomes a member of.
async fn join_another(world: &World, user: UserId, role: Role) -> TenantId {
    let other = Account::new(&world.ids, "other@example.com");
    world.store.accounts().create(other.new_account()).await.unwrap();
    let member = Member { principal: user.into(), role: role.into(), ..other.owner };
    world.store.tenants().add_member(&member).await.unwrap();
    other.tenant.id
}

#[tokio::test]
async fn a_browser_keeps_the_refresh_token_where_no_script_and_no_other_site_reaches_it() {
    let world = World::without_key().await;
    let app = open(&world);
    let registered = app.post("/api/auth/register", &registration("alex@example.com")).await.expect(201);
    let cookie = registered.header("set-cookie");
    let (token, attributes) = cookie.split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/api/auth; Max-Age=1209600; HttpOnly; SameSite=Strict; Secure");
    assert!(token.starts_with("tidegate_refresh=tgr_"), "{token}");
    assert_eq!(registered.body.get("refresh_token"), None, "it is in the cookie alone");

    let refreshed = refresh_by_cookie(&app, &format!("theme=dark; {token}; lang=en")).await.expect(200);
    let next = refreshed.header("set-cookie").split("; ").next().unwrap();
    assert!(next != token && refreshed.body.get("refresh_token").is_none());
    assert_eq!(me(&app, &Tokens::of(&refreshed)).await, 200);
    assert_eq!(outcome(&refresh_by_cookie(&app, "theme=dark").await), ENDED);

    let out = app.with_token(refreshed.text("/access_token")).post("/api/auth/logout", &Value::Null).await.expect(204);
    let cleared = "tidegate_refresh=; Path=/api/auth; Max-Age=0; HttpOnly; SameSite=Strict; Secure";
    assert_eq!(out.header("set-cookie"), cleared);
    assert_eq!(outcome(&refresh_by_cookie(&app, next).await), ENDED);

    let settings = Settings::new(Registration::Open, "http://localhost:8080");
    let local =
        Client::of(TestApp::new(&world, api(tidegate_auth::Deps { settings, ..deps(&world, Registration::Open) })));
    let answer = local.post("/api/auth/register", &registration("kim@example.com")).await;
    assert!(!answer.header("set-cookie").contains("Secure"), "it would never come back over plain HTTP");
}

#[tokio::test]
async fn a_program_gets_the_refresh_token_in_the_body() {
    let world = World::without_key().await;
    let app = open(&world);
    app.register("alex@example.com").await;
    let login = app.log_in("alex@example.com", json!({})).await;
    assert_eq!(login.header("set-cookie"), "");
    let first = Tokens::of(&login);
    let answer = app.refresh(&first.refresh).await.expect(200);
    assert_eq!((answer.header("set-cookie"), answer.body["expires_in"].as_u64()), ("", Some(900)));
    let second = Tokens::of(&answer);
    assert!(second.refresh.starts_with("tgr_") && second.refresh != first.refresh && second.access != first.access);
    assert_eq!((me(&app, &first).await, me(&app, &second).await), (200, 200));
    assert_eq!(sessions(&app, &second).await.len(), 3, "the two of registering, and this one");
}

#[tokio::test]
async fn a_refresh_token_that_is_used_twice_ends_its_session() {
    let world = World::without_key().await;
    let app = open(&world);
    let bystander = app.register("alex@example.com").await;
    let first = Tokens::of(&app.log_in("alex@example.com", json!({})).await);
    let second = Tokens::of(&app.refresh(&first.refresh).await);
    assert_eq!(me(&app, &second).await, 200);

    assert_eq!(outcome(&app.refresh(&first.refresh).await), ENDED);
    assert_eq!(outcome(&app.refresh(&second.refresh).await), ENDED, "the thief's or the owner's: it isn't known whose");
    world.clock.advance(Duration::from_secs(30));
    assert_eq!((me(&app, &first).await, me(&app, &second).await), (401, 401));
    assert_eq!((me(&app, &bystander).await, app.refresh(&bystander.refresh).await.status.as_u16()), (200, 200));

    let log = world.store.audit().list(Some(first.tenant), &tidegate_store::AuditFilter::default(), None, 100).await;
    let noted = log.unwrap().items.into_iter().filter(|entry| entry.action == "session.reuse_detected").count();
    assert_eq!(noted, 1);
}

#[tokio::test]
async fn of_two_who_refresh_with_one_token_at_once_at_most_one_wins() {
    let world = World::without_key().await;
    let tokens = open(&world).register("alex@example.com").await;
    let instances: Vec<_> = (0..4).map(|_| open(&world)).collect();
    let answers = join_all(instances.iter().map(|app| app.refresh(&tokens.refresh))).await;
    let won: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert!(won.len() <= 1, "{} won", won.len());
    assert!(answers.iter().filter(|answer| answer.status != 200).all(|answer| outcome(answer) == ENDED));
    for answer in won {
        assert_eq!(
            outcome(&open(&world).refresh(answer.text("/refresh_token")).await),
            ENDED,
            "a token was used twice"
        );
    }
}

#[tokio::test]
async fn who_knows_a_sessions_id_alone_cannot_end_it() {
    let world = World::without_key().await;
    let app = open(&world);
    let tokens = app.register("alex@example.com").await;
    let foreign = app.register("kim@example.com").await;
    let parts: Vec<_> = tokens.refresh.split('.').collect();
    let other: Vec<_> = foreign.refresh.split('.').collect();
    for guess in [
        [parts[0], parts[1], other[2], other[3]].join("."),
        [parts[0], parts[1], other[2], parts[3]].join("."),
        [other[0], parts[1], parts[2], parts[3]].join("."),
        [parts[0], other[1], parts[2], parts[3]].join("."),
        parts[..3].join("."),
        format!("{}.{}", tokens.refresh, parts[3]),
        format!("{}=", tokens.refresh),
        tokens.refresh.replace("tgr_", ""),
        String::new(),
        "x".repeat(100_000),
    ] {
        assert_eq!(outcome(&app.refresh(&guess).await), ENDED, "{guess:.200}");
    }
    assert_eq!(app.refresh(&tokens.refresh).await.status, 200);
}

#[tokio::test]
async fn one_kind_of_token_is_not_taken_for_the_other() {
    let world = World::without_key().await;
    let app = open(&world);
    let tokens = app.register("alex@example.com").await;
    assert_eq!(outcome(&app.refresh(&tokens.access).await), ENDED);
    let cookie = format!("tidegate_refresh={}", tokens.access);
    assert_eq!(outcome(&refresh_by_cookie(&app, &cookie).await), ENDED);
    assert_eq!(outcome(&app.with_token(&tokens.refresh).get(ME).await), ENDED);
    assert_eq!(me(&app, &tokens).await, 200);
}

#[tokio::test]
async fn signing_out_ends_this_session_and_everywhere_ends_all() {
    let world = World::without_key().await;
    let app = open(&world);
    let laptop = app.register("alex@example.com").await;
    let phone = Tokens::of(&app.log_in("alex@example.com", json!({})).await);
    let stranger = app.register("kim@example.com").await;

    app.with_token(&phone.access).post("/api/auth/logout", &Value::Null).await.expect(204);
    assert_eq!(outcome(&app.refresh(&phone.refresh).await), ENDED);
    assert_eq!(app.refresh(&laptop.refresh).await.status, 200);
    world.clock.advance(Duration::from_secs(30));
    assert_eq!((me(&app, &phone).await, me(&app, &laptop).await), (401, 200));

    app.with_token(&laptop.access).post("/api/auth/logout-everywhere", &Value::Null).await.expect(204);
    assert_eq!(world.store.sessions().list(laptop.user).await.unwrap(), []);
    world.clock.advance(Duration::from_secs(30));
    assert_eq!((me(&app, &laptop).await, me(&app, &stranger).await), (401, 200));
}

#[tokio::test]
async fn people_see_and_end_their_own_sessions_alone() {
    let world = World::without_key().await;
    let app = open(&world);
    app.register("alex@example.com").await;
    let headers = [("content-type", "application/json"), ("user-agent", "curl/8")];
    let body = json!({"email": "alex@example.com", "password": PASSWORD, "token_delivery": "body"});
    world.clock.advance(Duration::from_secs(60));
    let phone = Tokens::of(&app.send(Method::POST, "/api/auth/login", &headers, body.to_string().into()).await);
    let stranger = app.register("kim@example.com").await;
    world.clock.advance(Duration::from_secs(60));
    let laptop = Tokens::of(&app.log_in("alex@example.com", json!({})).await);

    let list = sessions(&app, &laptop).await;
    assert_eq!(list.len(), 4, "two of registering, and two more: {list:?}");
    assert_eq!(list[0]["current"], true, "the last refreshed first");
    let [of_phone] = &list.iter().filter(|session| session["user_agent"] == "curl/8").collect::<Vec<_>>()[..] else {
        panic!("one is the phone's: {list:?}")
    };
    assert_eq!((&of_phone["current"], &of_phone["methods"]), (&json!(false), &json!(["pwd"])));
    for secret in [&laptop.refresh, &phone.refresh] {
        let (_, secrets) = secret.split_once('.').unwrap();
        assert!(!json!(list).to_string().contains(secrets.split_once('.').unwrap().1));
    }

    let path = format!("/api/auth/sessions/{}", of_phone["id"].as_str().unwrap());
    let mut foreign = app.with_token(&stranger.access).delete(&path).await;
    let unknown = format!("/api/auth/sessions/{}", world.ids.session());
    let mut missing = app.with_token(&stranger.access).delete(&unknown).await;
    assert_eq!(outcome(&foreign), (404, "not_found"));
    for answer in [&mut foreign, &mut missing] {
        answer.body["request_id"] = Value::Null;
    }
    assert_eq!(foreign.body, missing.body);
    assert_eq!(app.refresh(&phone.refresh).await.status, 200);

    app.with_token(&laptop.access).delete(&path).await.expect(204);
    assert_eq!(outcome(&app.refresh(&phone.refresh).await), ENDED);
    assert_eq!(outcome(&app.with_token(&laptop.access).delete(&path).await), (404, "not_found"));
    assert_eq!(sessions(&app, &laptop).await.len(), 3);
}

#[tokio::test]
async fn a_session_ends_after_two_idle_weeks_and_after_ninety_days_at_most() {
    let world = World::without_key().await;
    let app = open(&world);
    let idle = app.register("alex@example.com").await;
    let mut busy = Tokens::of(&app.log_in("alex@example.com", json!({})).await);
    world.clock.advance(IDLE_LIFETIME - Duration::from_secs(1));
    busy = Tokens::of(&app.refresh(&busy.refresh).await);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(outcome(&app.refresh(&idle.refresh).await), ENDED);

    let mut days = 14;
    while days < 84 {
        world.clock.advance(7 * DAY);
        days += 7;
        busy = Tokens::of(&app.refresh(&busy.refresh).await);
    }
    let ends = sessions(&app, &busy).await[0]["expires_at"].clone();
    world.clock.advance(MAX_LIFETIME - 84 * DAY);
    assert_eq!(ends, json!(format!("{:.3}", world.clock.now())), "however often it was refreshed");
    assert_eq!(outcome(&app.refresh(&busy.refresh).await), ENDED);
    assert_eq!(
        world.store.sessions().list(busy.user).await.unwrap().len(),
        1,
        "only the browser's of registering is left"
    );
}

#[tokio::test]
async fn a_refresh_switches_to_another_tenant_of_the_users() {
    let world = World::without_key().await;
    let app = open(&world);
    let tokens = app.register("alex@example.com").await;
    let stranger = app.register("kim@example.com").await;
    let other = join_another(&world, tokens.user, Role::Viewer).await;
    let switch = async |tokens: &Tokens, tenant: TenantId| {
        app.post("/api/auth/refresh", &json!({"refresh_token": tokens.refresh, "tenant_id": tenant})).await
    };

    let mut foreign = switch(&tokens, stranger.tenant).await;
    let mut unknown = switch(&tokens, world.ids.tenant()).await;
    assert_eq!(outcome(&foreign), (404, "not_found"));
    for answer in [&mut foreign, &mut unknown] {
        answer.body["request_id"] = Value::Null;
    }
    assert_eq!(foreign.body, unknown.body);

    let answer = switch(&tokens, other).await.expect(200);
    assert_eq!((answer.text("/tenant/id"), answer.text("/user/role")), (&*other.to_string(), "viewer"));
    let switched = Tokens::of(&answer);
    assert_eq!(app.with_token(&switched.access).get(ME).await.text("/tenant/id"), other.to_string());
    let stays = app.refresh(&switched.refresh).await.expect(200);
    assert_eq!(stays.text("/tenant/id"), other.to_string(), "the session stays where it is");
    let direct = app.log_in("alex@example.com", json!({"tenant_id": other})).await.expect(200);
    assert_eq!(direct.text("/tenant/id"), other.to_string());
    let refused = app.log_in("alex@example.com", json!({"tenant_id": stranger.tenant})).await;
    assert_eq!(outcome(&refused), (404, "not_found"));
}

fn kid(token: &str) -> String {
    jsonwebtoken::decode_header(token).unwrap().kid.unwrap()
}

async fn published(app: &Client) -> Vec<String> {
    let keys = app.get("/.well-known/jwks.json").await.expect(200);
    keys.body["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

/// The id of a new signing key.
async fn rotate(world: &World, signer: &TokenSigner, withdraw: bool) -> String {
    let entry = |kid: &str| {
        let actor = Actor { principal: None, session: None, api_key: None, address: None };
        let id = world.ids.audit();
        AuditEntry {
            id,
            tenant: None,
            at: id.timestamp(),
            actor,
            action: "signing_key.rotate".to_owned(),
            target: kid.to_owned(),
            before: None,
            after: None,
            request_id: "req_0".to_owned(),
        }
    };
    signer.rotate(withdraw, entry).await.unwrap().public.kid
}

#[tokio::test]
async fn a_new_signing_key_is_published_before_it_signs_and_signs_nobody_out() {
    let world = World::without_key().await;
    let deps = deps(&world, Registration::Open);
    let signer = deps.signer.clone();
    let app = Client::of(TestApp::new(&world, api(deps)));
    let elsewhere = open(&world);
    let mut tokens = app.register("alex@example.com").await;
    let first = kid(&tokens.access);
    assert_eq!(me(&elsewhere, &tokens).await, 200, "its keys are read now, and not again for a while");

    let second = rotate(&world, &signer, false).await;
    world.clock.advance(Duration::from_secs(30));
    let keys = published(&app).await;
    assert!(keys.contains(&first) && keys.contains(&second) && keys.len() == 2, "{keys:?}");
    tokens = Tokens::of(&app.refresh(&tokens.refresh).await);
    assert_eq!(kid(&tokens.access), first, "not before everybody knows the new one");
    assert_eq!(me(&elsewhere, &tokens).await, 200);

    // An instance asks every five minutes whether its key still is the one.
    world.clock.advance(PUBLISHED_BEFORE + Duration::from_secs(300));
    let next = Tokens::of(&app.refresh(&tokens.refresh).await);
    assert_eq!(kid(&next.access), second);
    assert_eq!((me(&elsewhere, &tokens).await, me(&elsewhere, &next).await), (200, 200));
    assert!(published(&elsewhere).await.contains(&first), "its last tokens are still good");

    world.clock.advance(Duration::from_secs(3_600));
    let third = rotate(&world, &signer, false).await;
    world.clock.advance(Duration::from_secs(30));
    let keys = published(&open(&world)).await;
    assert!(!keys.contains(&first) && keys.contains(&second) && keys.contains(&third), "{keys:?}");
    let next = Tokens::of(&app.refresh(&next.refresh).await);
    assert_eq!((kid(&next.access), me(&elsewhere, &next).await), (second, 200));
}

#[tokio::test]
async fn withdrawn_keys_are_good_for_five_minutes_at_most_and_sessions_go_on() {
    let world = World::without_key().await;
    let deps = deps(&world, Registration::Open);
    let signer = deps.signer.clone();
    let app = Client::of(TestApp::new(&world, api(deps)));
    let elsewhere = open(&world);
    let tokens = app.register("alex@example.com").await;
    assert_eq!(me(&elsewhere, &tokens).await, 200);

    let new = rotate(&world, &signer, true).await;
    let next = Tokens::of(&app.refresh(&tokens.refresh).await);
    assert_eq!((kid(&next.access), published(&open(&world)).await), (new.clone(), vec![new]));
    assert_eq!(me(&open(&world), &tokens).await, 401, "to an instance that reads the keys now");
    world.clock.advance(Duration::from_secs(300));
    assert!(Duration::from_secs(300) < TOKEN_LIFETIME);
    assert_eq!((me(&elsewhere, &tokens).await, me(&elsewhere, &next).await), (401, 200));
}
