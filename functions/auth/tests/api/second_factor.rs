//! `/api/auth/second-factor`, and signing in with one.

use std::time::Duration;

use aws_lc_rs::hmac;
use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tidegate_auth::Registration;
use tidegate_model::{Policies, Tenant};
use tidegate_testing::World;

use crate::support::{Client, PASSWORD, Tokens, instance, mailed_token, outcome};

const ALEX: &str = "alex@example.com";
const PATH: &str = "/api/auth/second-factor";
const STEP: Duration = Duration::from_secs(30);
const WRONG: (u16, &str) = (401, "second_factor_invalid");

/// Somebody who has a device.
struct Enrolled {
    world: World,
    app: Client,
    tokens: Tokens,
    secret: Vec<u8>,
    recovery_codes: Vec<String>,
}

/// A code as an authenticator app makes it (RFC 6238), apart from the function's own code.
fn code_at(secret: &[u8], seconds: i64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    let tag = hmac::sign(&key, &(seconds / 30).to_be_bytes());
    let offset = usize::from(tag.as_ref()[19] & 15);
    let bytes: [u8; 4] = tag.as_ref()[offset..offset + 4].try_into().unwrap();
    format!("{:06}", (u32::from_be_bytes(bytes) & 0x7fff_ffff) % 1_000_000)
}

fn from_base32(text: &str) -> Vec<u8> {
    let mut bits = String::new();
    for c in text.chars() {
        bits += &format!("{:05b}", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".find(c).unwrap());
    }
    bits.as_bytes()
        .chunks_exact(8)
        .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap())
        .collect()
}

fn recovery_codes(body: &Value) -> Vec<String> {
    serde_json::from_value(body["recovery_codes"].clone()).unwrap()
}

/// The same ten digits over again, but for the last.
fn wrong_code(secret: &[u8], seconds: i64) -> String {
    let good: Vec<_> = (-1..=1).map(|step| code_at(secret, seconds + 30 * step)).collect();
    (0..10).map(|n| format!("00000{n}")).find(|code| !good.contains(code)).unwrap()
}

impl Enrolled {
    async fn new() -> Self {
        let world = World::without_key().await;
        let app = instance(&world, Registration::Open);
        let tokens = app.register(ALEX).await;
        let person = app.with_token(&tokens.access);
        let secret = from_base32(person.post(PATH, &json!({"password": PASSWORD})).await.expect(201).text("/secret"));
        let code = code_at(&secret, world.clock.now().as_second());
        let confirmed = person.post(&format!("{PATH}/confirm"), &json!({"code": code})).await.expect(200);
        // The code of this step is spent.
        world.clock.advance(STEP);
        Self { recovery_codes: recovery_codes(&confirmed.body), world, app, tokens, secret }
    }

    fn code(&self) -> String {
        code_at(&self.secret, self.world.clock.now().as_second())
    }

    fn wrong_code(&self) -> String {
        wrong_code(&self.secret, self.world.clock.now().as_second())
    }

    fn person(&self) -> Client {
        self.app.with_token(&self.tokens.access)
    }

    async fn state(&self) -> Value {
        self.person().get(PATH).await.expect(200).body
    }

    async fn log_in_with(&self, code: &str) -> tidegate_testing::Answer {
        self.app.log_in(ALEX, json!({"code": code})).await
    }
}

#[tokio::test]
async fn a_second_factor_is_asked_for_once_a_code_has_confirmed_it() {
    let world = World::without_key().await;
    let app = instance(&world, Registration::Open);
    let tokens = app.register(ALEX).await;
    let person = app.with_token(&tokens.access);
    assert_eq!(person.get(PATH).await.body, json!({"state": "off", "confirmed_at": null, "recovery_codes_left": 0}));

    let refused = person.post(PATH, &json!({"password": "wrong horse battery"})).await;
    assert_eq!((outcome(&refused), refused.pointers()), ((422, "validation_failed"), vec!["/password"]));
    let first = person.post(PATH, &json!({"password": PASSWORD})).await.expect(201);
    let made = person.post(PATH, &json!({"password": PASSWORD})).await.expect(201);
    assert_eq!(made.header("location"), PATH);
    let text = made.text("/secret");
    assert_ne!(first.text("/secret"), text, "each time a new one");
    let secret = from_base32(text);
    assert_eq!(secret.len(), 20);
    let uri = format!("otpauth://totp/Tidegate:alex%40example.com?secret={text}&issuer=Tidegate");
    assert_eq!(made.text("/uri"), uri);
    assert_eq!(person.get(PATH).await.text("/state"), "pending");
    assert_eq!(app.log_in(ALEX, json!({})).await.status, 200, "not yet asked for");

    let now = world.clock.now().as_second();
    let confirm = async |code: String| person.post(&format!("{PATH}/confirm"), &json!({"code": code})).await;
    for bad in [wrong_code(&secret, now), code_at(&secret, now - 60), code_at(&secret, now + 60), "12345".to_owned()] {
        let answer = confirm(bad).await;
        assert_eq!((outcome(&answer), answer.pointers()), ((422, "validation_failed"), vec!["/code"]));
    }
    let confirmed = confirm(code_at(&secret, now)).await.expect(200);
    assert_eq!(recovery_codes(&confirmed.body).len(), 10);
    let state = json!({"state": "on", "confirmed_at": "2026-11-20T10:00:00.000Z", "recovery_codes_left": 10});
    assert_eq!(person.get(PATH).await.body, state);
    assert_eq!(outcome(&app.log_in(ALEX, json!({})).await), (403, "second_factor_required"));
    assert_eq!(
        outcome(&app.log_in(ALEX, json!({"password": "wrong horse battery"})).await),
        (401, "invalid_credentials")
    );
    assert_eq!(outcome(&confirm(code_at(&secret, now)).await), (409, "second_factor_on"));
    let again = person.post(PATH, &json!({"password": PASSWORD})).await;
    assert_eq!(outcome(&again), (409, "second_factor_on"), "whoever has the password alone can't replace it");
}

#[tokio::test]
async fn what_is_stored_tells_neither_secret_nor_codes() {
    let enrolled = Enrolled::new().await;
    let stored = enrolled.world.store.accounts().credentials(enrolled.tokens.user).await.unwrap().unwrap();
    let text = serde_json::to_string(&stored).unwrap();
    for code in &enrolled.recovery_codes {
        assert!(!text.contains(code.as_str()) && !text.contains(&code.replace('-', "")));
    }
    // Sealed for this user: under another's id it doesn't open.
    let other = enrolled.app.register("kim@example.com").await;
    let mut theirs = enrolled.world.store.accounts().credentials(other.user).await.unwrap().unwrap();
    theirs.second_factor = stored.second_factor;
    theirs.revision += 1;
    enrolled.world.store.accounts().replace_credentials(&theirs).await.unwrap();
    let moved = enrolled.app.log_in("kim@example.com", json!({"code": enrolled.code()})).await;
    assert_eq!(outcome(&moved), (500, "internal"));
}

#[tokio::test]
async fn turning_it_on_ends_other_sessions_and_this_one_has_proved_it() {
    let world = World::without_key().await;
    let app = instance(&world, Registration::Open);
    let thief = app.register(ALEX).await;
    let tokens = Tokens::of(&app.log_in(ALEX, json!({})).await);
    let person = app.with_token(&tokens.access);
    let secret = from_base32(person.post(PATH, &json!({"password": PASSWORD})).await.text("/secret"));
    let code = code_at(&secret, world.clock.now().as_second());
    person.post(&format!("{PATH}/confirm"), &json!({"code": code})).await.expect(200);
    assert_eq!(outcome(&app.refresh(&thief.refresh).await), (401, "unauthenticated"));
    let refreshed = app.refresh(&tokens.refresh).await.expect(200);
    let sessions = app.with_token(refreshed.text("/access_token")).get("/api/auth/sessions").await;
    assert_eq!(sessions.body["items"].as_array().unwrap().len(), 1);
    assert_eq!(sessions.body["items"][0]["methods"], json!(["pwd", "otp"]));

    world.clock.advance(STEP);
    let code = code_at(&secret, world.clock.now().as_second());
    let both = json!({"password": PASSWORD, "code": code});
    person.json(Method::DELETE, PATH, &both).await.expect(204);
    let sessions = person.get("/api/auth/sessions").await;
    assert_eq!(sessions.body["items"][0]["methods"], json!(["pwd"]), "what it proved counts no more");
}

#[tokio::test]
async fn a_code_signs_in_once_within_a_step_of_its_time() {
    let enrolled = Enrolled::new().await;
    let now = enrolled.world.clock.now().as_second();
    assert_eq!(outcome(&enrolled.log_in_with(&code_at(&enrolled.secret, now - 30)).await), WRONG, "it confirmed");
    assert_eq!(outcome(&enrolled.log_in_with(&code_at(&enrolled.secret, now + 60)).await), WRONG, "too early");
    let code = enrolled.code();
    let spaced = format!("{} {}", &code[..3], &code[3..]);
    let signed_in = Tokens::of(&enrolled.log_in_with(&spaced).await);
    let sessions = enrolled.app.with_token(&signed_in.access).get("/api/auth/sessions").await;
    assert_eq!(sessions.body["items"][0]["methods"], json!(["pwd", "otp"]));
    assert_eq!(outcome(&enrolled.log_in_with(&code).await), WRONG, "seen over the shoulder");
    let ahead = code_at(&enrolled.secret, now + 30);
    assert_eq!(enrolled.log_in_with(&ahead).await.status, 200, "a clock that is half a minute ahead");
    enrolled.world.clock.advance(STEP);
    assert_eq!(outcome(&enrolled.log_in_with(&ahead).await), WRONG, "and then its own time comes");
    enrolled.world.clock.advance(2 * STEP);
    let now = enrolled.world.clock.now().as_second();
    assert_eq!(outcome(&enrolled.log_in_with(&code_at(&enrolled.secret, now - 60)).await), WRONG, "too late");
    assert_eq!(enrolled.log_in_with(&code_at(&enrolled.secret, now - 30)).await.status, 200);
}

#[tokio::test]
async fn of_two_who_sign_in_with_one_code_at_once_one_does() {
    let enrolled = Enrolled::new().await;
    let instances: Vec<_> = (0..3).map(|_| instance(&enrolled.world, Registration::Closed)).collect();
    for code in [enrolled.code(), enrolled.recovery_codes[0].clone()] {
        let body = json!({"code": code});
        let answers = join_all(instances.iter().map(|app| app.log_in(ALEX, body.clone()))).await;
        let mut outcomes: Vec<_> = answers.iter().map(outcome).collect();
        outcomes.sort_unstable();
        assert_eq!(outcomes, [(200, ""), WRONG, WRONG]);
    }
}

#[tokio::test]
async fn a_recovery_code_stands_in_once() {
    let enrolled = Enrolled::new().await;
    let [first, second, ..] = &enrolled.recovery_codes[..] else { panic!("ten codes") };
    assert_eq!(enrolled.log_in_with(&first.to_uppercase().replace('-', " ")).await.status, 200);
    assert_eq!(outcome(&enrolled.log_in_with(first).await), WRONG);
    assert_eq!(enrolled.state().await["recovery_codes_left"], 9);
    let log = enrolled.world.store.audit().list(None, &tidegate_store::AuditFilter::default(), None, 100).await;
    let used = log.unwrap().items.into_iter().filter(|entry| entry.action == "second_factor.use_recovery_code").count();
    assert_eq!(used, 1);

    let path = format!("{PATH}/recovery-codes");
    for (body, pointer) in [
        (json!({"password": "wrong horse battery", "code": second}), "/password"),
        (json!({"password": PASSWORD, "code": first}), "/code"),
        (json!({"password": PASSWORD, "code": enrolled.wrong_code()}), "/code"),
        (json!({"password": PASSWORD}), "/code"),
    ] {
        let refused = enrolled.person().post(&path, &body).await;
        assert_eq!((outcome(&refused), refused.pointers()), ((422, "validation_failed"), vec![pointer]));
    }
    let code = enrolled.code();
    let made = enrolled.person().post(&path, &json!({"password": PASSWORD, "code": code})).await.expect(200);
    assert_eq!(outcome(&enrolled.log_in_with(second).await), WRONG, "the old ones are void");
    assert_eq!(outcome(&enrolled.log_in_with(&code).await), WRONG, "it was spent on the new ones");
    assert_eq!(enrolled.log_in_with(&recovery_codes(&made.body)[0]).await.status, 200);
}

#[tokio::test]
async fn it_is_turned_off_by_both_proofs_alone() {
    let enrolled = Enrolled::new().await;
    let off = async |body: Value| enrolled.person().json(Method::DELETE, PATH, &body).await;
    for (body, pointer) in [
        (json!({"password": PASSWORD}), "/code"),
        (json!({"password": PASSWORD, "code": enrolled.wrong_code()}), "/code"),
        (json!({"password": "wrong horse battery", "code": enrolled.code()}), "/password"),
    ] {
        let refused = off(body).await;
        assert_eq!((outcome(&refused), refused.pointers()), ((422, "validation_failed"), vec![pointer]));
    }
    assert_eq!(enrolled.state().await["state"], "on");
    let other = Tokens::of(&enrolled.log_in_with(&enrolled.recovery_codes[1]).await);
    off(json!({"password": PASSWORD, "code": enrolled.recovery_codes[0]})).await.expect(204);
    assert_eq!(enrolled.state().await["state"], "off");
    assert_eq!(outcome(&enrolled.app.refresh(&other.refresh).await), (401, "unauthenticated"));
    assert_eq!(enrolled.app.log_in(ALEX, json!({})).await.status, 200);
    assert_eq!(outcome(&off(json!({"password": PASSWORD})).await), (404, "not_found"));
    let none = enrolled.person().post(&format!("{PATH}/confirm"), &json!({"code": "123456"})).await;
    assert_eq!(outcome(&none), (404, "not_found"));
}

#[tokio::test]
async fn codes_cannot_be_guessed_by_whoever_has_the_password() {
    let enrolled = Enrolled::new().await;
    let wrong = enrolled.wrong_code();
    for _ in 0..9 {
        assert_eq!(outcome(&enrolled.log_in_with(&wrong).await), WRONG);
    }
    // Those who are signed in take from the same number.
    let body = json!({"password": PASSWORD, "code": wrong});
    assert_eq!(enrolled.person().json(Method::DELETE, PATH, &body).await.status, 422);
    for code in [&wrong, &enrolled.code(), &enrolled.recovery_codes[0]] {
        let refused = enrolled.log_in_with(code).await;
        assert_eq!((outcome(&refused), refused.header("retry-after")), ((429, "rate_limited"), "1800"));
    }
    enrolled.world.clock.advance(Duration::from_secs(1_800));
    assert_eq!(enrolled.log_in_with(&enrolled.code()).await.status, 200);
}

/// Whoever knew the password and began to set up a factor can't finish once the owner has taken the account back.
#[tokio::test]
async fn a_new_password_ends_a_second_factor_that_is_not_confirmed() {
    let world = World::without_key().await;
    let app = instance(&world, Registration::Open);
    let thief = app.register(ALEX).await;
    world.outbox.take(ALEX);
    let person = app.with_token(&thief.access);
    let secret = from_base32(person.post(PATH, &json!({"password": PASSWORD})).await.expect(201).text("/secret"));
    person.get("/api/auth/me").await.expect(200);
    app.post("/api/auth/password/forgot", &json!({"email": ALEX})).await.expect(202);
    let reset = json!({"token": mailed_token(&world, ALEX), "new_password": "another horse battery"});
    app.post("/api/auth/password/reset", &reset).await.expect(204);

    let code = json!({"code": code_at(&secret, world.clock.now().as_second())});
    let confirmed = person.post(&format!("{PATH}/confirm"), &code).await;
    assert_eq!(outcome(&confirmed), (401, "unauthenticated"), "the session has ended, however lately");
    let owner = Tokens::of(&app.log_in(ALEX, json!({"password": "another horse battery"})).await.expect(200));
    let owner = app.with_token(&owner.access);
    assert_eq!(owner.get(PATH).await.text("/state"), "off");
    owner.post(&format!("{PATH}/confirm"), &code).await.expect(404);
}

#[tokio::test]
async fn an_account_made_with_somebody_elses_address_is_theirs_after_a_reset() {
    let enrolled = Enrolled::new().await;
    enrolled.world.outbox.take(ALEX);
    enrolled.app.post("/api/auth/password/forgot", &json!({"email": ALEX})).await.expect(202);
    let reset = json!({"token": mailed_token(&enrolled.world, ALEX), "new_password": "another horse battery"});
    enrolled.app.post("/api/auth/password/reset", &reset).await.expect(204);
    let owner = enrolled.app.log_in(ALEX, json!({"password": "another horse battery"})).await.expect(200);
    assert_eq!(owner.body["user"]["email_verified"], true, "the link came to the address");
}

#[tokio::test]
async fn asking_to_confirm_what_is_on_uses_up_no_tries() {
    let enrolled = Enrolled::new().await;
    for _ in 0..30 {
        enrolled.person().post(&format!("{PATH}/confirm"), &json!({"code": "123456"})).await.expect(409);
    }
    enrolled.log_in_with(&enrolled.code()).await.expect(200);
}

#[tokio::test]
async fn a_tenants_policy_holds_once_the_factor_is_off() {
    let enrolled = Enrolled::new().await;
    let (world, person) = (&enrolled.world, enrolled.person());
    let id = person.get("/api/tenant").await.expect(200).text("/id").parse().unwrap();
    let before = world.store.tenants().get(id).await.unwrap().unwrap();
    let policies = Policies { require_second_factor: true, ..before.policies };
    let after = Tenant { policies, revision: before.revision + 1, ..before };
    world.store.tenants().replace(&after).await.unwrap();
    world.clock.advance(STEP);
    person.get("/api/tenant").await.expect(200);
    let both = json!({"password": PASSWORD, "code": enrolled.code()});
    person.json(Method::DELETE, PATH, &both).await.expect(204);
    world.clock.advance(STEP);
    let refused = person.get("/api/tenant").await;
    assert_eq!(outcome(&refused), (403, "second_factor_required"), "within half a minute, whatever the token says");
}
