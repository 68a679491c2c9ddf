//! `/api/auth/password`, `/api/auth/email` and one's own name.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tidegate_auth::{Deps, Registration, api};
use tidegate_platform::mail::NoMailer;
use tidegate_testing::{Answer, TestApp, World};

use crate::support::{Client, PASSWORD, Tokens, deps, instance, mailed_token, outcome, registration};

const ALEX: &str = "alex@example.com";
const NEW: &str = "another horse battery";
const GONE: (u16, &str) = (410, "link_invalid");
const ENDED: (u16, &str) = (401, "unauthenticated");

/// An instance, and somebody with two sessions of whom no mail is left.
async fn alex(world: &World) -> (Client, Tokens, Tokens) {
    let app = instance(world, Registration::Open);
    let first = app.register(ALEX).await;
    let second = Tokens::of(&app.log_in(ALEX, json!({})).await);
    world.outbox.take(ALEX);
    (app, first, second)
}

async fn forgot(app: &Client, email: &str) -> Answer {
    app.post("/api/auth/password/forgot", &json!({"email": email})).await
}

async fn reset(app: &Client, token: &str, password: &str) -> Answer {
    app.post("/api/auth/password/reset", &json!({"token": token, "new_password": password})).await
}

async fn verify(app: &Client, token: &str) -> Answer {
    app.post("/api/auth/email/verify", &json!({"token": token})).await
}

async fn actions(world: &World, of: Option<tidegate_model::TenantId>) -> Vec<String> {
    let log = world.store.audit().list(of, &tidegate_store::AuditFilter::default(), None, 100).await.unwrap();
    log.items.into_iter().map(|entry| entry.action).collect()
}

#[tokio::test]
async fn changing_the_password_takes_the_old_one_and_ends_other_sessions() {
    let world = World::without_key().await;
    let (app, laptop, thief) = alex(&world).await;
    forgot(&app, ALEX).await.expect(202);
    let link = mailed_token(&world, ALEX);
    let change = async |current: &str, new: &str| {
        let body = json!({"current_password": current, "new_password": new});
        app.with_token(&laptop.access).post("/api/auth/password", &body).await
    };
    for (current, new, pointer) in [(NEW, NEW, "/current_password"), (PASSWORD, "short", "/new_password")] {
        let refused = change(current, new).await;
        assert_eq!((outcome(&refused), refused.pointers()), ((422, "validation_failed"), vec![pointer]));
    }
    change(PASSWORD, NEW).await.expect(204);
    assert_eq!(outcome(&app.refresh(&thief.refresh).await), ENDED);
    assert_eq!(app.refresh(&laptop.refresh).await.status, 200);
    assert_eq!(outcome(&app.log_in(ALEX, json!({})).await), (401, "invalid_credentials"));
    assert_eq!(app.log_in(ALEX, json!({"password": NEW})).await.status, 200);
    assert_eq!(outcome(&reset(&app, &link, PASSWORD).await), GONE, "a link of before");
    assert!(actions(&world, Some(laptop.tenant)).await.contains(&"password.change".to_owned()));
}

#[tokio::test]
async fn a_forgotten_password_is_set_anew_by_a_link_that_is_good_once() {
    let world = World::without_key().await;
    let (app, first, second) = alex(&world).await;
    assert_eq!(forgot(&app, "Alex@Example.com ").await.expect(202).body, Value::Null);
    let mails = world.outbox.take(ALEX);
    let [mail] = &mails[..] else { panic!("{} mails", mails.len()) };
    let (_, link) = mail.text.split_once("https://flows.example.com/reset-password#token=").unwrap();
    let link = link.split_whitespace().next().unwrap();
    let refused = reset(&app, link, "short").await;
    assert_eq!((outcome(&refused), refused.pointers()), ((422, "validation_failed"), vec!["/new_password"]));

    reset(&app, link, NEW).await.expect(204);
    assert_eq!(outcome(&reset(&app, link, PASSWORD).await), GONE);
    for tokens in [&first, &second] {
        assert_eq!(outcome(&app.refresh(&tokens.refresh).await), ENDED);
    }
    assert_eq!(outcome(&app.log_in(ALEX, json!({})).await), (401, "invalid_credentials"));
    assert_eq!(app.log_in(ALEX, json!({"password": NEW})).await.status, 200);
    assert!(actions(&world, None).await.contains(&"password.reset".to_owned()));
    let stored = world.store.accounts().credentials(first.user).await.unwrap().unwrap();
    assert!(!serde_json::to_string(&stored).unwrap().contains(link.split_once('.').unwrap().1));
}

#[tokio::test]
async fn a_link_ends_after_an_hour_and_with_the_next_one() {
    let world = World::without_key().await;
    let (app, ..) = alex(&world).await;
    let mut links = Vec::new();
    for _ in 0..2 {
        forgot(&app, ALEX).await.expect(202);
        links.push(mailed_token(&world, ALEX));
    }
    assert_eq!(outcome(&reset(&app, &links[0], NEW).await), GONE);
    world.clock.advance(Duration::from_secs(3_600));
    assert_eq!(outcome(&reset(&app, &links[1], NEW).await), GONE);
    forgot(&app, ALEX).await.expect(202);
    world.clock.advance(Duration::from_secs(3_599));
    assert_eq!(reset(&app, &mailed_token(&world, ALEX), NEW).await.status, 204);
}

#[tokio::test]
async fn of_two_who_follow_one_link_at_once_one_sets_the_password() {
    let world = World::without_key().await;
    let (app, ..) = alex(&world).await;
    forgot(&app, ALEX).await.expect(202);
    let link = mailed_token(&world, ALEX);
    let instances: Vec<_> = (0..3).map(|_| instance(&world, Registration::Closed)).collect();
    let answers = join_all(instances.iter().map(|app| reset(app, &link, NEW))).await;
    let mut outcomes: Vec<_> = answers.iter().map(outcome).collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes, [(204, ""), GONE, GONE]);
}

#[tokio::test]
async fn a_link_is_good_for_its_own_account_and_purpose_alone() {
    let world = World::without_key().await;
    let (app, alexs, _) = alex(&world).await;
    let kim = app.register("kim@example.com").await;
    let verification = mailed_token(&world, "kim@example.com");
    forgot(&app, "kim@example.com").await.expect(202);
    let of_kim = mailed_token(&world, "kim@example.com");
    forgot(&app, ALEX).await.expect(202);
    let own = mailed_token(&world, ALEX);
    let (alex, secret) = own.split_once('.').unwrap();
    let (_, secret_of_kim) = of_kim.split_once('.').unwrap();
    for bad in [
        format!("{alex}.{secret_of_kim}"),
        verification.clone(),
        verification.replace("tgv_", "tgp_"),
        alex.to_owned(),
        format!("{alex}."),
        format!("tgp_{}.{secret}", &world.ids.user().to_string()[4..]),
        String::new(),
    ] {
        assert_eq!(outcome(&reset(&app, &bad, NEW).await), GONE, "{bad}");
    }
    let me = app.with_token(&kim.access);
    assert_eq!(outcome(&verify(&me, &of_kim.replace("tgp_", "tgv_")).await), GONE);
    assert_eq!(outcome(&verify(&app.with_token(&alexs.access), &verification).await), (403, "forbidden"));
    assert_eq!(outcome(&app.with_token(&own).get("/api/auth/me").await), ENDED);
    assert_eq!(reset(&app, &own, NEW).await.status, 204);
}

#[tokio::test]
async fn asking_for_a_link_tells_nobody_who_has_an_account() {
    let world = World::without_key().await;
    let (app, ..) = alex(&world).await;
    let ask = async |email: &str| {
        world.embedded.meter.restart(false);
        let answer = forgot(&app, email).await;
        (answer.status, answer.body, world.embedded.meter.all_calls())
    };
    // Once each, so that all limits are there.
    ask(ALEX).await;
    world.outbox.take(ALEX);
    let known = ask(ALEX).await;
    assert!(!mailed_token(&world, ALEX).is_empty());
    for unknown in ["nobody@example.com", "not an address", ""] {
        ask(unknown).await;
        assert_eq!(ask(unknown).await, known, "{unknown}");
        assert_eq!(world.outbox.take(unknown), []);
    }
}

#[tokio::test]
async fn nobody_is_flooded_with_mail() {
    let world = World::without_key().await;
    let (app, ..) = alex(&world).await;
    for email in [ALEX, "nobody@example.com"] {
        for _ in 0..5 {
            forgot(&app, email).await.expect(202);
        }
        let refused = forgot(&app, email).await;
        assert_eq!((outcome(&refused), refused.header("retry-after")), ((429, "rate_limited"), "600"));
    }
    assert_eq!(world.outbox.take(ALEX).len(), 5);
    assert_eq!(app.log_in(ALEX, json!({})).await.status, 200, "whoever asks for links locks nobody out");
}

#[tokio::test]
async fn a_new_password_does_not_replace_the_second_factor() {
    let world = World::without_key().await;
    let (app, tokens, _) = alex(&world).await;
    let user = world.store.accounts().user(tokens.user).await.unwrap().unwrap();
    let verified = tidegate_model::User { email_verified_at: Some(world.clock.now()), ..user.clone() };
    world.store.accounts().replace(&user, &verified).await.unwrap();
    let mut credentials = world.store.accounts().credentials(tokens.user).await.unwrap().unwrap();
    credentials.second_factor = Some(tidegate_model::SecondFactor {
        data_key: String::new(),
        sealed: String::new(),
        confirmed_at: Some(world.clock.now()),
        last_step: 0,
        recovery_hashes: Vec::new(),
    });
    credentials.revision += 1;
    world.store.accounts().replace_credentials(&credentials).await.unwrap();
    forgot(&app, ALEX).await.expect(202);
    reset(&app, &mailed_token(&world, ALEX), NEW).await.expect(204);
    let answer = app.log_in(ALEX, json!({"password": NEW})).await;
    assert_eq!(outcome(&answer), (403, "second_factor_required"));
}

#[tokio::test]
async fn an_address_is_verified_by_the_newest_link_once() {
    let world = World::without_key().await;
    let app = instance(&world, Registration::Open);
    let tokens = app.register(ALEX).await;
    let me = app.with_token(&tokens.access);
    let first = mailed_token(&world, ALEX);
    assert_eq!(me.get("/api/auth/me").await.body["user"]["email_verified"], false);
    me.post("/api/auth/email/verification", &Value::Null).await.expect(202);
    let newest = mailed_token(&world, ALEX);
    assert_eq!(outcome(&verify(&app, &newest).await), ENDED, "nobody is signed in");
    assert_eq!(outcome(&verify(&me, &first).await), GONE);
    assert_eq!(outcome(&reset(&app, &newest.replace("tgv_", "tgp_"), NEW).await), GONE);
    verify(&me, &newest).await.expect(204);
    assert_eq!(outcome(&verify(&me, &newest).await), GONE);
    assert_eq!(me.get("/api/auth/me").await.body["user"]["email_verified"], true);
    me.post("/api/auth/email/verification", &Value::Null).await.expect(204);
    assert_eq!(world.outbox.take(ALEX), []);
    assert!(actions(&world, None).await.contains(&"email.verify".to_owned()));

    let late = app.register("kim@example.com").await;
    world.clock.advance(Duration::from_secs(3 * 86_400));
    let signed_in = Tokens::of(&app.log_in("kim@example.com", json!({})).await);
    let me = app.with_token(&signed_in.access);
    assert_eq!(outcome(&verify(&me, &mailed_token(&world, "kim@example.com")).await), GONE);
    assert_eq!(world.store.accounts().user(late.user).await.unwrap().unwrap().email_verified_at, None);
}

#[tokio::test]
async fn where_no_mail_can_be_sent_people_can_register_all_the_same() {
    let world = World::without_key().await;
    let without = Deps { mailer: Arc::new(NoMailer), ..deps(&world, Registration::Open) };
    let app = Client::of(TestApp::new(&world, api(without)));
    let tokens = app.register(ALEX).await;
    let known = forgot(&app, ALEX).await;
    assert_eq!((known.status, known.body), {
        let unknown = forgot(&app, "nobody@example.com").await;
        (unknown.status, unknown.body)
    });
    let asked = app.with_token(&tokens.access).post("/api/auth/email/verification", &Value::Null).await;
    assert_eq!(outcome(&asked), (503, "unavailable"), "who asks for a mail is told that none came");
}

#[tokio::test]
async fn mails_hold_nothing_that_their_sender_chose() {
    let world = World::without_key().await;
    let app = instance(&world, Registration::Open);
    let mut body = registration("victim@example.com");
    body["name"] = json!("Buy at https://spam.example");
    body["tenant_name"] = json!("Spam Inc.");
    app.post("/api/auth/register", &body).await.expect(201);
    forgot(&app, "victim@example.com").await.expect(202);
    for mail in world.outbox.take("victim@example.com") {
        assert!(!mail.text.contains("spam") && !mail.text.contains("Spam"), "{}", mail.text);
    }
}

#[tokio::test]
async fn people_change_their_names() {
    let world = World::without_key().await;
    let (app, tokens, _) = alex(&world).await;
    let rename = async |body: Value| app.with_token(&tokens.access).json(Method::PATCH, "/api/auth/me", &body).await;
    let answer = rename(json!({"name": " Alexandra "})).await.expect(200);
    assert_eq!((answer.text("/user/name"), answer.text("/user/role")), ("Alexandra", "owner"));
    assert_eq!(app.with_token(&tokens.access).get("/api/auth/me").await.body, answer.body);
    for body in [json!({"name": "two\nlines"}), json!({"name": ""}), json!({"name": "x", "email": "e@example.com"})] {
        assert_eq!(rename(body).await.status, 422);
    }
    assert!(actions(&world, Some(tokens.tenant)).await.contains(&"account.update".to_owned()));
}
