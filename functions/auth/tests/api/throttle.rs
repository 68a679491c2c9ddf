//! How often somebody may try to sign in.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use tidegate_auth::Registration;
use tidegate_testing::{Answer, World};

use crate::support::{Client, PASSWORD, instance, outcome, registration};

const WRONG: (u16, &str) = (401, "invalid_credentials");
const LIMITED: (u16, &str) = (429, "rate_limited");

async fn guess(app: &Client, email: &str) -> Answer {
    app.log_in(email, json!({"password": "wrong horse battery"})).await
}

#[tokio::test]
async fn guesses_at_an_account_run_out_whether_it_exists_or_not() {
    let world = World::without_key().await;
    let app = instance(&world, Registration::Open);
    app.register("alex@example.com").await;
    let mut refusals = Vec::new();
    for email in ["alex@example.com", "nobody@example.com"] {
        // Other instances count for the same account.
        let instances: Vec<_> = (0..4).map(|_| instance(&world, Registration::Closed)).collect();
        // One was taken by registering, at the address that exists.
        let taken = u32::from(email == "alex@example.com");
        for n in taken..20 {
            assert_eq!(outcome(&guess(&instances[n as usize % 4], &email.to_uppercase()).await), WRONG, "{email} {n}");
        }
        let mut refused = guess(&app, email).await;
        assert_eq!((outcome(&refused), refused.header("retry-after")), (LIMITED, "60"));
        refused.body["request_id"] = Value::Null;
        refusals.push(refused.body);
        // The next account has not to wait for the client's own limit.
        world.clock.advance(Duration::from_secs(59));
        assert_eq!(outcome(&app.log_in(email, json!({})).await), LIMITED, "the right password, too");
        world.clock.advance(Duration::from_secs(1));
        assert_eq!(outcome(&guess(&app, email).await), WRONG);
        assert_eq!(outcome(&guess(&app, email).await), LIMITED);
        world.clock.advance(Duration::from_secs(600));
    }
    assert_eq!(refusals[0], refusals[1]);
    assert_eq!(app.log_in("alex@example.com", json!({})).await.status, 200);
}

#[tokio::test]
async fn guesses_from_an_address_run_out_whomever_they_are_about() {
    let world = World::without_key().await;
    let app = instance(&world, Registration::Open);
    for n in 0..50 {
        assert_eq!(outcome(&guess(&app, &format!("user{n}@example.com")).await), WRONG);
    }
    let refused = guess(&app, "user50@example.com").await;
    assert_eq!((outcome(&refused), refused.header("retry-after")), (LIMITED, "10"));
    for (path, body) in [
        ("/api/auth/register", registration("alex@example.com")),
        ("/api/auth/password/forgot", json!({"email": "alex@example.com"})),
        ("/api/auth/password/reset", json!({"token": "x", "new_password": PASSWORD})),
    ] {
        assert_eq!(outcome(&app.post(path, &body).await), LIMITED, "{path}");
    }
    world.clock.advance(Duration::from_secs(10));
    assert_eq!(outcome(&guess(&app, "user50@example.com").await), WRONG);
}

#[tokio::test]
async fn who_signs_in_rightly_is_not_counted() {
    let world = World::without_key().await;
    let app = instance(&world, Registration::Open);
    app.register("alex@example.com").await;
    for n in 0..60 {
        assert_eq!(app.log_in("alex@example.com", json!({})).await.status, 200, "{n}");
    }
}

#[tokio::test]
async fn guesses_behind_a_session_count_like_those_before() {
    let world = World::without_key().await;
    let app = instance(&world, Registration::Open);
    let tokens = app.register("alex@example.com").await;
    let person = app.with_token(&tokens.access);
    let body = json!({"current_password": "wrong horse battery", "new_password": PASSWORD});
    for _ in 1..20 {
        assert_eq!(person.post("/api/auth/password", &body).await.status, 422);
    }
    assert_eq!(outcome(&person.post("/api/auth/password", &body).await), LIMITED);
    let set_up = person.post("/api/auth/second-factor", &json!({"password": PASSWORD})).await;
    assert_eq!(outcome(&set_up), LIMITED);
    assert_eq!(outcome(&app.log_in("alex@example.com", json!({})).await), LIMITED);
}

#[tokio::test]
async fn guesses_that_come_at_once_count_one_each() {
    let world = World::without_key().await;
    let app = instance(&world, Registration::Closed);
    for _ in 0..15 {
        guess(&app, "alex@example.com").await;
    }
    let instances: Vec<_> = (0..12).map(|_| instance(&world, Registration::Closed)).collect();
    let answers = join_all(instances.iter().map(|app| guess(app, "alex@example.com"))).await;
    let tried = answers.iter().filter(|answer| outcome(answer) == WRONG).count();
    assert!(tried <= 5, "{tried} of the 5 that were left");
    for answer in answers {
        // Who can't be counted among so many at once is turned away, too.
        assert!([WRONG, LIMITED, (503, "unavailable")].contains(&outcome(&answer)), "{}", answer.body);
    }
}

#[tokio::test]
async fn while_nobody_can_be_counted_nobody_signs_in() {
    let world = World::without_key().await;
    let app = instance(&world, Registration::Open);
    app.register("alex@example.com").await;
    world.embedded.faults.throttle_every(1);
    world.embedded.meter.restart(false);
    assert_eq!(outcome(&app.log_in("alex@example.com", json!({})).await), (503, "unavailable"));
    assert_eq!(outcome(&guess(&app, "nobody@example.com").await), (503, "unavailable"));
    assert_eq!(world.embedded.meter.calls("GetItem"), 0, "it went no further than to the limit");
    world.embedded.faults.clear();
    assert_eq!(app.log_in("alex@example.com", json!({})).await.status, 200);
}
