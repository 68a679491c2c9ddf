//! Instances of the auth function over one installation, and callers without a session.

use std::sync::Arc;

use axum::body::Body;
use http::Method;
use serde_json::{Value, json};

use tidegate_auth::{Deps, IDLE_LIFETIME, Passwords, Registration, Settings, Subject, TokenSigner, api};
use tidegate_http::TokenVerifier;
use tidegate_model::{AuthMethod, Member, Role, Session, TenantId, UserId};
use tidegate_platform::Envelope;
use tidegate_testing::{Account, Answer, ISSUER, TestApp, World};

/// A caller of one instance; with or without a token.
#[derive(Clone)]
pub(crate) struct Client {
    app: TestApp,
    token: Option<String>,
}

/// An account with a token that the function itself signed.
pub(crate) struct SignedIn {
    pub(crate) token: String,
    pub(crate) user: UserId,
    pub(crate) tenant: TenantId,
    pub(crate) session: Session,
    pub(crate) member: Member,
}

/// The password of everybody who registers.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// What somebody holds who signed in as a program does, with the refresh token in the body.
#[derive(Clone)]
pub(crate) struct Tokens {
    pub(crate) access: String,
    pub(crate) refresh: String,
    pub(crate) user: UserId,
    pub(crate) tenant: TenantId,
}

impl Tokens {
    /// Those of an answer.
    pub(crate) fn of(answer: &Answer) -> Self {
        assert!(answer.status.is_success(), "{}", answer.body);
        Self {
            access: answer.text("/access_token").to_owned(),
            refresh: answer.text("/refresh_token").to_owned(),
            user: answer.text("/user/id").parse().unwrap(),
            tenant: answer.text("/tenant/id").parse().unwrap(),
        }
    }
}

/// The status and code of an answer.
pub(crate) fn outcome(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.text("/code"))
}

/// The token in the one mail to an address; empty where none came.
pub(crate) fn mailed_token(world: &World, to: &str) -> String {
    let mails = world.outbox.take(to);
    assert!(mails.len() <= 1, "{} mails", mails.len());
    let text = mails.into_iter().map(|mail| mail.text).collect::<String>();
    let token = text.split_once("#token=").map(|(_, rest)| rest.split_whitespace().next().unwrap().to_owned());
    token.unwrap_or_default()
}

/// A new instance: it knows no key yet.
pub(crate) fn instance(world: &World, registration: Registration) -> Client {
    Client::of(TestApp::new(world, api(deps(world, registration))))
}

pub(crate) fn deps(world: &World, registration: Registration) -> Deps {
    Deps {
        store: world.store_of("auth"),
        envelope: envelope(world),
        signer: signer(world),
        authenticator: world.authenticator_of("auth"),
        passwords: Passwords::new(2),
        clock: world.clock.clone(),
        ids: world.ids.clone(),
        mailer: Arc::new(world.outbox.clone()),
        settings: Settings::new(registration, "https://flows.example.com"),
    }
}

pub(crate) fn envelope(world: &World) -> Envelope {
    Envelope::new(world.keys.clone(), world.clock.clone())
}

pub(crate) fn signer(world: &World) -> TokenSigner {
    TokenSigner::new(world.store_of("auth"), envelope(world), ISSUER, world.clock.clone(), world.ids.clone())
}

pub(crate) fn verifier(world: &World) -> TokenVerifier {
    TokenVerifier::new(world.store_of("auth"), ISSUER, world.clock.clone())
}

/// A new account in a tenant of its own, in a role, signed in without a password.
pub(crate) async fn sign_in(world: &World, role: Role) -> SignedIn {
    let mut account = Account::new(&world.ids, &format!("{}@example.com", world.ids.user()));
    account.owner.role = role.into();
    world.store.accounts().create(account.new_account()).await.unwrap();
    let now = world.clock.now();
    let session = Session {
        id: world.ids.session(),
        user: account.user.id,
        tenant: Some(account.tenant.id),
        family_hash: String::new(),
        refresh_hash: String::new(),
        methods: vec![AuthMethod::Pwd],
        created_at: now,
        refreshed_at: now,
        expires_at: now + IDLE_LIFETIME,
        address: None,
        user_agent: None,
    };
    world.store.sessions().create(&session).await.unwrap();
    let token = signer(world).sign(Subject::person(&session, Some(&account.owner))).await.unwrap();
    SignedIn { token, user: account.user.id, tenant: account.tenant.id, session, member: account.owner }
}

/// What registers somebody.
pub(crate) fn registration(email: &str) -> Value {
    json!({"email": email, "password": PASSWORD, "name": "Alex", "tenant_name": "Example Ltd."})
}

impl Client {
    /// Makes an account with a tenant of its own, and signs in.
    pub(crate) async fn register(&self, email: &str) -> Tokens {
        self.post("/api/auth/register", &registration(email)).await.expect(201);
        Tokens::of(&self.log_in(email, json!({})).await)
    }

    /// Signs in with [`PASSWORD`], or with what else is said.
    pub(crate) async fn log_in(&self, email: &str, more: Value) -> Answer {
        let mut body = json!({"email": email, "password": PASSWORD, "token_delivery": "body"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.post("/api/auth/login", &body).await
    }

    /// Asks for the next tokens with a refresh token in the body.
    pub(crate) async fn refresh(&self, refresh_token: &str) -> Answer {
        self.post("/api/auth/refresh", &json!({"refresh_token": refresh_token})).await
    }

    pub(crate) fn of(app: TestApp) -> Self {
        Self { app, token: None }
    }

    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self { app: self.app.clone(), token: Some(token.to_owned()) }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], Body::empty()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.json(Method::POST, path, body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], Body::empty()).await
    }

    pub(crate) async fn json(&self, method: Method, path: &str, body: &Value) -> Answer {
        self.send(method, path, &[("content-type", "application/json")], body.to_string().into()).await
    }

    pub(crate) async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Body) -> Answer {
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let token = bearer.as_deref().map(|bearer| ("authorization", bearer));
        let headers: Vec<_> = headers.iter().copied().chain(token).collect();
        self.app.send(None, method, path, &headers, body).await
    }
}
