//! Instances of the auth function over one installation, and callers without a session.

use axum::body::Body;
use http::Method;
use serde_json::Value;
use tidegate_auth::{Deps, Passwords, Registration, TokenSigner, api};
use tidegate_http::TokenVerifier;
use tidegate_model::{Role, Tenant, TenantId, User, UserId};
use tidegate_platform::Envelope;
use tidegate_testing::{Answer, ISSUER, TestApp, World};

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
}

/// A new instance: it knows no key yet.
pub(crate) fn instance(world: &World, registration: Registration) -> Client {
    let deps = Deps {
        store: world.store_of("auth"),
        envelope: envelope(world),
        signer: signer(world),
        verifier: verifier(world),
        passwords: Passwords::new(2),
        clock: world.clock.clone(),
        ids: world.ids.clone(),
        registration,
    };
    Client::of(TestApp::new(world, api(deps)))
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

/// A new account in a role, signed in without a password.
pub(crate) async fn sign_in(world: &World, role: Role) -> SignedIn {
    let (tenant, user, created_at) = (world.ids.tenant(), world.ids.user(), world.clock.now());
    let organization = Tenant { id: tenant, name: "Example Ltd.".to_owned(), data_key: String::new(), created_at };
    let person = User {
        id: user,
        email: format!("{user}@example.com"),
        name: "Alex".to_owned(),
        password_hash: "none".to_owned(),
        tenant,
        role,
        created_at,
    };
    world.store.accounts().create(&person, &organization).await.unwrap();
    SignedIn { token: signer(world).sign(user, tenant, role).await.unwrap(), user, tenant }
}

impl Client {
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
        self.send(Method::POST, path, &[("content-type", "application/json")], body.to_string().into()).await
    }

    pub(crate) async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Body) -> Answer {
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let token = bearer.as_deref().map(|bearer| ("authorization", bearer));
        let headers: Vec<_> = headers.iter().copied().chain(token).collect();
        self.app.send(None, method, path, &headers, body).await
    }
}
