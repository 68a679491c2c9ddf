//! An organization with people in every role, and machines, who call an instance of the auth function.

use axum::body::Body;
use http::Method;
use serde_json::{Value, json};
use tidegate_auth::{IDLE_LIFETIME, Registration, Subject, api};
use tidegate_http::{RandomSecret, write_api_key};
use tidegate_model::{
    ApiKey, AuditEntry, AuthMethod, Invitation, Member, Permission, PrincipalId, Role, RoleName, Tenant,
};
use tidegate_store::AuditFilter;
use tidegate_testing::{Account, Answer, Session, TestApp, World};

use crate::support::{deps, signer};

pub(crate) struct Organization {
    pub(crate) world: World,
    pub(crate) app: TestApp,
    pub(crate) owner: Session,
}

pub(crate) async fn organization() -> Organization {
    let world = World::new().await;
    let app = app(&world, Registration::Open);
    let owner = world.session("alex").await;
    Organization { world, app, owner }
}

/// An instance with caches of its own.
pub(crate) fn app(world: &World, registration: Registration) -> TestApp {
    TestApp::new(world, api(deps(world, registration)))
}

impl Organization {
    pub(crate) fn other_instance(&self) -> TestApp {
        app(&self.world, Registration::Open)
    }

    pub(crate) async fn member(&self, role: Role) -> Session {
        self.world.member(&self.owner, role).await
    }

    /// A new member in a role that the tenant made.
    pub(crate) async fn member_as(&self, role: &str) -> Session {
        let member = Member { role: role.parse().unwrap(), ..self.new_person(role).await };
        self.world.store.tenants().add_member(&member).await.unwrap();
        self.world.sign_in(&member).await
    }

    /// Somebody with an account who is to be a viewer.
    async fn new_person(&self, name: &str) -> Member {
        let account = Account::new(&self.world.ids, &format!("{name}.{}@example.com", self.world.ids.user()));
        let new = tidegate_store::NewAccount { user: &account.user, credentials: &account.credentials, tenant: None };
        self.world.store.accounts().create(new).await.unwrap();
        Member { tenant: self.owner.tenant, role: Role::Viewer.into(), ..account.owner }
    }

    /// Another sign-in of somebody, by these methods.
    pub(crate) async fn signed_in_by(&self, who: &Session, methods: &[AuthMethod]) -> Session {
        let now = self.world.clock.now();
        let session = tidegate_model::Session {
            id: self.world.ids.session(),
            user: who.user,
            tenant: Some(who.tenant),
            family_hash: String::new(),
            refresh_hash: String::new(),
            methods: methods.to_vec(),
            created_at: now,
            refreshed_at: now,
            expires_at: now + IDLE_LIFETIME,
            address: None,
            user_agent: None,
        };
        self.world.store.sessions().create(&session).await.unwrap();
        let member = self.stored_member(who).await.unwrap();
        let token = signer(&self.world).sign(Subject::person(&session, Some(&member))).await.unwrap();
        Session { session: session.id, token, ..who.clone() }
    }

    /// A service account in this role, and its API key with these scopes, as a caller.
    pub(crate) async fn machine(&self, role: Role, scopes: &[Permission]) -> Session {
        let (account, secret) = (self.world.ids.service_account(), RandomSecret::new());
        let member = Member {
            tenant: self.owner.tenant,
            principal: account.into(),
            role: role.into(),
            name: "Deployer".to_owned(),
            email: None,
            created_at: self.world.clock.now(),
        };
        let key = ApiKey {
            id: self.world.ids.api_key(),
            tenant: self.owner.tenant,
            service_account: account,
            name: "CI".to_owned(),
            secret_hash: secret.hash(),
            scopes: scopes.iter().copied().collect(),
            created_at: self.world.clock.now(),
            expires_at: None,
            successor: None,
        };
        self.world.store.tenants().add_member(&member).await.unwrap();
        self.world.store.api_keys().create(&key).await.unwrap();
        Session { token: write_api_key(key.id, &secret).to_string(), ..self.owner.clone() }
    }

    /// A role of the tenant's own.
    pub(crate) async fn role(&self, name: &str, permissions: &[&str]) {
        let body = json!({"name": name, "permissions": permissions});
        self.app.post(&self.owner, "/api/tenant/roles", &body).await.expect(201);
        self.later(5);
    }

    /// Lets the caches of other instances go stale.
    pub(crate) fn later(&self, seconds: u64) {
        self.world.clock.advance(std::time::Duration::from_secs(seconds));
    }

    pub(crate) async fn tenant(&self) -> Tenant {
        self.world.store.tenants().get(self.owner.tenant).await.unwrap().unwrap()
    }

    pub(crate) async fn stored_member(&self, who: &Session) -> Option<Member> {
        self.world.store.tenants().member(self.owner.tenant, who.user.into()).await.unwrap()
    }

    pub(crate) async fn role_of(&self, who: &Session) -> Option<RoleName> {
        self.stored_member(who).await.map(|member| member.role)
    }

    pub(crate) async fn invitations(&self) -> Vec<Invitation> {
        self.world.store.tenants().invitations(self.owner.tenant, None, 100).await.unwrap().items
    }

    /// What the tenant's audit log tells, newest first: who did what to what.
    pub(crate) async fn audited(&self) -> Vec<(Option<PrincipalId>, String, String)> {
        let told = |entry: AuditEntry| (entry.actor.principal, entry.action, entry.target);
        self.audit_entries().await.into_iter().map(told).collect()
    }

    pub(crate) async fn audit_entries(&self) -> Vec<AuditEntry> {
        let filter = AuditFilter::default();
        self.world.store.audit().list(Some(self.owner.tenant), &filter, None, 100).await.unwrap().items
    }

    pub(crate) async fn patch(&self, who: &Session, path: &str, body: &Value) -> Answer {
        self.json(who, Method::PATCH, path, body).await
    }

    /// Any request with JSON and an `If-Match` that everything fits.
    pub(crate) async fn json(&self, who: &Session, method: Method, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json"), ("if-match", "*")];
        self.app.send(Some(who), method, path, &headers, Body::from(body.to_string())).await
    }

    /// Changes policies as the owner, signed in with a second factor.
    pub(crate) async fn set_policies(&self, policies: &Value) -> Answer {
        let owner = self.signed_in_by(&self.owner, &[AuthMethod::Pwd, AuthMethod::Otp]).await;
        self.patch(&owner, "/api/tenant", &json!({"policies": policies})).await
    }
}

/// `POST` of JSON by somebody who shows no token.
pub(crate) async fn post_public(app: &TestApp, path: &str, body: &Value) -> Answer {
    app.send(None, Method::POST, path, &[("content-type", "application/json")], body.to_string()).await
}

/// Status and code of an answer, for comparing.
pub(crate) fn told(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.text("/code"))
}
