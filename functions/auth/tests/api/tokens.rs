//! Access tokens: who signs them, and which are refused.

use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRef;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::join_all;
use http::Method;
use insta::assert_json_snapshot;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tidegate_auth::{Registration, Subject, TOKEN_LIFETIME};
use tidegate_http::permission::WorkflowsWrite;
use tidegate_http::{Api, Authenticator, Caller, endpoint};
use tidegate_model::Role;
use tidegate_platform::key_service::KeyContext;
use tidegate_testing::{TestApp, World};

use crate::support::{Client, SignedIn, envelope, instance, sign_in, signer, verifier};

fn app(world: &World) -> Client {
    instance(world, Registration::Closed)
}

/// The parts of a token: header, claims.
fn read(token: &str) -> [Value; 2] {
    let mut parts = token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap());
    [(); 2].map(|()| serde_json::from_slice(&parts.next().unwrap()).unwrap())
}

fn encode(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

/// The installation's own private key, as nobody outside can have it.
async fn private_key(world: &World) -> EncodingKey {
    let stored = world.store.signing_keys().ring().await.unwrap().unwrap().keys.remove(0);
    let context = KeyContext { tenant: "platform".to_owned(), purpose: "signing".to_owned() };
    let kid = stored.public.kid.as_bytes();
    let private = envelope(world).open(&stored.data_key, &context, kid, &stored.sealed).await.unwrap();
    EncodingKey::from_ec_der(&private)
}

fn foreign_key() -> EncodingKey {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref())
}

fn header(good: &str) -> Header {
    serde_json::from_value(read(good)[0].clone()).unwrap()
}

#[tokio::test]
async fn a_token_says_who_where_and_until_when() {
    let world = World::without_key().await;
    let SignedIn { token, user, tenant, session, .. } = sign_in(&world, Role::Viewer).await;
    let [header, claims] = read(&token);
    assert_json_snapshot!(header, {".kid" => "[kid]"}, @r##"
    {
      "typ": "at+jwt",
      "alg": "ES256",
      "kid": "[kid]"
    }
    "##);
    let iat = world.clock.now().as_second();
    assert_json_snapshot!(claims, {".sub" => "[user]", ".sid" => "[session]", ".tenant" => "[tenant]", ".iat" => "[now]", ".exp" => "[a quarter later]", ".jti" => "[id]"}, @r##"
    {
      "iss": "https://tidegate.test",
      "aud": "tidegate-api",
      "sub": "[user]",
      "client_id": "tidegate",
      "sid": "[session]",
      "amr": [
        "pwd"
      ],
      "tenant": "[tenant]",
      "roles": [
        "viewer"
      ],
      "iat": "[now]",
      "exp": "[a quarter later]",
      "jti": "[id]"
    }
    "##);
    assert_eq!((&claims["sub"], &claims["tenant"]), (&json!(user), &json!(tenant)));
    assert_eq!(claims["sid"], json!(session.id));
    assert_eq!((&claims["iat"], &claims["exp"]), (&json!(iat), &json!(iat + 900)));
    assert_eq!(app(&world).with_token(&token).get("/api/auth/me").await.body["user"]["role"], "viewer");
}

#[tokio::test]
async fn every_tampered_token_is_refused() {
    let world = World::without_key().await;
    let good = sign_in(&world, Role::Owner).await.token;
    let stranger = sign_in(&world, Role::Owner).await;
    let [good_header, claims] = read(&good);
    let (key, now) = (private_key(&world).await, world.clock.now().as_second());
    let sign = |header: &Header, claims: &Value, key: &EncodingKey| jsonwebtoken::encode(header, claims, key).unwrap();
    let with_header = |change: &dyn Fn(&mut Header)| {
        let mut header = header(&good);
        change(&mut header);
        sign(&header, &claims, &key)
    };
    let with_claim = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        sign(&header(&good), &claims, &key)
    };
    let without_claim = |name: &str| {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        sign(&header(&good), &claims, &key)
    };
    let unsigned = |alg: &str| {
        let mut header = good_header.clone();
        header["alg"] = json!(alg);
        format!("{}.{}.", encode(&header), encode(&claims))
    };
    let public = world.store.signing_keys().public_keys().await.unwrap().remove(0);
    let jwk: Value = serde_json::from_str(&public.jwk).unwrap();
    let point =
        [jwk["x"].as_str().unwrap(), jwk["y"].as_str().unwrap()].map(|part| URL_SAFE_NO_PAD.decode(part).unwrap());
    let confused = |secret: &[u8]| {
        let mut header = header(&good);
        header.alg = Algorithm::HS256;
        sign(&header, &claims, &EncodingKey::from_secret(secret))
    };
    let signature = good.rsplit('.').next().unwrap();
    let mut promoted = claims.clone();
    promoted["tenant"] = json!(world.ids.tenant());

    // Forging works as such: what is refused below is refused for the one thing that is wrong with it.
    for accepted in [&good, &sign(&header(&good), &claims, &key)] {
        assert_eq!(app(&world).with_token(accepted).get("/api/auth/me").await.status, 200);
    }
    for (what, token) in [
        ("alg none", unsigned("none")),
        ("alg None", unsigned("None")),
        ("no signature", unsigned("ES256")),
        ("another key under our kid", sign(&header(&good), &claims, &foreign_key())),
        ("HMAC with the public key's JWK", confused(public.jwk.as_bytes())),
        ("HMAC with the public key's point", confused(&[&[4][..], &point[0], &point[1]].concat())),
        ("another kid", with_header(&|header| header.kid = Some("other".to_owned()))),
        ("no kid", with_header(&|header| header.kid = None)),
        ("empty kid", with_header(&|header| header.kid = Some(String::new()))),
        ("another type of token", with_header(&|header| header.typ = Some("JWT".to_owned()))),
        ("an extension that must be understood", with_header(&|header| header.crit = Some(vec!["exp".to_owned()]))),
        ("wrong issuer", with_claim("iss", json!("https://elsewhere.test"))),
        ("wrong audience", with_claim("aud", json!("another-api"))),
        ("several audiences", with_claim("aud", json!(["tidegate-api", "another-api"]))),
        ("expired", with_claim("exp", json!(now - 6))),
        ("signed in the future", with_claim("iat", json!(now + 6))),
        ("an end that is no number", with_claim("exp", json!("2030"))),
        ("a role that can't be one", with_claim("roles", json!(["Root!"]))),
        ("a tenant that is none", with_claim("tenant", json!("*"))),
        ("a way of signing in that there isn't", with_claim("amr", json!(["magic"]))),
        ("another's session", with_claim("sid", json!(stranger.session.id))),
        ("a session that never was", with_claim("sid", json!(world.ids.session()))),
        ("another subject", with_claim("sub", json!(stranger.user))),
        ("a machine with a person's session", with_claim("sub", json!(world.ids.service_account()))),
        ("another client", with_claim("client_id", json!(world.ids.api_key()))),
        ("no session", without_claim("sid")),
        ("no client", without_claim("client_id")),
        ("no issuer", without_claim("iss")),
        ("no audience", without_claim("aud")),
        ("no end", without_claim("exp")),
        ("other claims under this signature", format!("{}.{}.{signature}", encode(&good_header), encode(&promoted))),
        ("a cut signature", good[..good.len() - 2].to_owned()),
        ("a fourth part", format!("{good}.{signature}")),
        ("two parts", good.rsplit_once('.').unwrap().0.to_owned()),
        ("no token", "x".to_owned()),
        ("too long", with_claim("jti", json!("x".repeat(5_000)))),
    ] {
        let answer = app(&world).with_token(&token).get("/api/auth/me").await;
        assert_eq!((answer.status.as_u16(), &answer.body["code"]), (401, &json!("unauthenticated")), "{what}");
        assert_eq!(answer.header("www-authenticate"), "Bearer error=\"invalid_token\"", "{what}");
    }
}

#[tokio::test]
async fn without_one_bearer_token_nobody_gets_in() {
    let world = World::without_key().await;
    let token = sign_in(&world, Role::Owner).await.token;
    let bearer = format!("Bearer {token}");
    let get =
        async |headers: &[(&str, &str)]| app(&world).send(Method::GET, "/api/auth/me", headers, Body::empty()).await;
    assert_eq!(get(&[("authorization", &format!("bearer {token}"))]).await.status, 200, "schemes have no case");
    for headers in [
        &[][..],
        &[("authorization", token.as_str())],
        &[("authorization", "Basic YWxleDpwYXNzd29yZA==")],
        &[("authorization", "Bearer")],
        &[("authorization", &bearer), ("authorization", &bearer)],
        &[("cookie", &format!("access_token={token}"))],
    ] {
        let answer = get(headers).await;
        assert_eq!((answer.status.as_u16(), answer.header("www-authenticate")), (401, "Bearer"), "{headers:?}");
    }
    let answer = app(&world).get("/api/auth/me").await;
    assert_json_snapshot!(answer.body, {".request_id" => "[id]"}, @r##"
    {
      "type": "/docs/errors/unauthenticated",
      "title": "Sign in first",
      "status": 401,
      "detail": "This needs an access token: send `Authorization: Bearer <access_token>`.",
      "code": "unauthenticated",
      "request_id": "[id]"
    }
    "##);
}

#[tokio::test]
async fn a_token_ends() {
    let world = World::without_key().await;
    let app = app(&world).with_token(&sign_in(&world, Role::Owner).await.token);
    world.clock.advance(TOKEN_LIFETIME - Duration::from_secs(1));
    assert_eq!(app.get("/api/auth/me").await.status, 200);
    world.clock.advance(Duration::from_secs(7));
    let answer = app.get("/api/auth/me").await;
    assert_eq!(answer.body["detail"], "The access token has expired. Sign in again.");
}

#[tokio::test]
async fn instances_that_make_the_first_key_at_once_all_use_one() {
    let world = World::without_key().await;
    let signers: Vec<_> = (0..8).map(|_| signer(&world)).collect();
    let SignedIn { session, member, .. } = sign_in(&world, Role::Owner).await;
    let tokens = join_all(signers.iter().map(|signer| signer.sign(Subject::person(&session, Some(&member))))).await;
    for token in tokens {
        let claims = verifier(&world).verify(&token.unwrap()).await.unwrap();
        assert_eq!((claims.sub, claims.tenant), (member.principal, Some(member.tenant)));
    }
    assert_eq!(world.store.signing_keys().public_keys().await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_key_survives_its_process_and_is_published_without_its_private_half() {
    let world = World::without_key().await;
    let first = sign_in(&world, Role::Owner).await.token;
    let second = sign_in(&world, Role::Owner).await.token;
    assert_eq!(read(&first)[0], read(&second)[0], "each was signed by an instance of its own");
    let answer = app(&world).get("/.well-known/jwks.json").await;
    assert_eq!(answer.header("cache-control"), "public, max-age=60");
    let key = &answer.body["keys"][0];
    let members: Vec<_> = key.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["use", "alg", "kid", "kty", "crv", "x", "y"]);
    let jwk: Jwk = serde_json::from_value(key.clone()).unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap();
    let mut validation = jsonwebtoken::Validation::new(Algorithm::ES256);
    validation.set_audience(&["tidegate-api"]);
    validation.validate_exp = false;
    assert!(
        jsonwebtoken::decode::<Value>(&first, &key, &validation).is_ok(),
        "anyone can verify with what is published"
    );
}

#[tokio::test]
async fn unknown_keys_are_looked_for_at_most_every_thirty_seconds() {
    let world = World::without_key().await;
    let good = sign_in(&world, Role::Owner).await.token;
    let mut header = header(&good);
    header.kid = Some("unknown".to_owned());
    let unknown = jsonwebtoken::encode(&header, &read(&good)[1], &foreign_key()).unwrap();
    let verifier = verifier(&world);
    world.embedded.meter.restart(false);
    for _ in 0..5 {
        assert!(verifier.verify(&unknown).await.is_err());
        assert!(verifier.verify(&good).await.is_ok());
    }
    assert_eq!(world.embedded.meter.calls("Query"), 1);
    world.clock.advance(Duration::from_secs(29));
    assert!(verifier.verify(&unknown).await.is_err());
    assert_eq!(world.embedded.meter.calls("Query"), 1);
    world.clock.advance(Duration::from_secs(1));
    join_all((0..10).map(|_| verifier.verify(&unknown))).await;
    assert_eq!(world.embedded.meter.calls("Query"), 2, "of many that ask at once one reads");
    world.clock.advance(Duration::from_secs(299));
    assert!(verifier.verify(&good).await.is_ok());
    assert_eq!(world.embedded.meter.calls("Query"), 2);
    world.clock.advance(Duration::from_secs(1));
    assert!(verifier.verify(&good).await.is_ok());
    assert_eq!(world.embedded.meter.calls("Query"), 3, "a withdrawn key is noticed after five minutes");
}

#[tokio::test]
async fn the_first_key_is_known_a_second_later() {
    let (world, other) = (World::without_key().await, World::without_key().await);
    let verifier = verifier(&world);
    assert!(verifier.verify(&sign_in(&other, Role::Owner).await.token).await.is_err());
    let token = sign_in(&world, Role::Owner).await.token;
    world.clock.advance(Duration::from_secs(1));
    assert!(verifier.verify(&token).await.is_ok());
}

#[derive(Clone)]
struct Guard(Authenticator);

impl FromRef<Guard> for Authenticator {
    fn from_ref(guard: &Guard) -> Self {
        guard.0.clone()
    }
}

/// Needs a permission
#[utoipa::path(get, path = "/guarded", tag = "test", responses((status = 204, description = "Let in")))]
async fn guarded(_: Caller<WorkflowsWrite>) -> http::StatusCode {
    http::StatusCode::NO_CONTENT
}

#[tokio::test]
async fn a_role_without_the_permission_is_told_which() {
    let world = World::without_key().await;
    let api = Api::new().route(endpoint!(guarded)).with_state(Guard(world.authenticator_of("workflows")));
    let operation = serde_json::to_value(api.document()).unwrap()["paths"]["/guarded"]["get"].clone();
    let app = Client::of(TestApp::new(&world, api));
    assert_eq!(app.with_token(&sign_in(&world, Role::Owner).await.token).get("/guarded").await.status, 204);
    let answer = app.with_token(&sign_in(&world, Role::Viewer).await.token).get("/guarded").await;
    assert_eq!(answer.header("www-authenticate"), "Bearer error=\"insufficient_scope\"");
    assert_json_snapshot!(answer.body, {".request_id" => "[id]"}, @r##"
    {
      "type": "/docs/errors/forbidden",
      "title": "Permission denied",
      "status": 403,
      "detail": "Your role doesn't hold the permission workflows:write.",
      "code": "forbidden",
      "request_id": "[id]"
    }
    "##);
    assert_json_snapshot!(operation, @r##"
    {
      "tags": [
        "test"
      ],
      "summary": "Needs a permission",
      "operationId": "guarded",
      "responses": {
        "204": {
          "description": "Let in"
        },
        "401": {
          "$ref": "#/components/responses/Problem"
        },
        "403": {
          "$ref": "#/components/responses/Problem"
        },
        "default": {
          "$ref": "#/components/responses/Problem"
        }
      },
      "security": [
        {
          "bearerAuth": []
        }
      ],
      "x-required-permission": "workflows:write"
    }
    "##);
}

#[tokio::test]
async fn a_store_that_is_away_is_no_reason_to_sign_in_again() {
    let world = World::without_key().await;
    let token = sign_in(&world, Role::Owner).await.token;
    world.embedded.faults.throttle_every(1);
    let answer = app(&world).with_token(&token).get("/api/auth/me").await;
    assert_eq!((answer.status.as_u16(), &answer.body["code"]), (503, &json!("unavailable")));
}
