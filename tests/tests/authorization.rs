//! Who may do what: every operation of the OpenAPI document, tried by every kind of caller. An operation that isn't in the
//! table fails the test.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Method;
use serde_json::{Value, json};
use tidegate_http::{Api, Health, RandomSecret, error_pages, sha256_hex, write_api_key};
use tidegate_model::{
    ApiKey, DeadLetter, ErrorCode, Limits, Member, Message, Payload, Permission, Role, RunRow, RunStatus, StartMessage,
    TriggerInput, TriggerKind,
};
use tidegate_testing::{Answer, Session, TestApp, World};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Operations that everybody may call; each is its own proof, or tells nothing of anybody.
const PUBLIC: &[&str] = &[
    "GET /.well-known/jwks.json",
    "GET /api/approvals/{token}",
    "POST /api/approvals/{token}",
    "POST /api/auth/login",
    "POST /api/auth/refresh",
    "POST /api/auth/register",
    "POST /api/auth/token",
    "POST /api/auth/password/forgot",
    "POST /api/auth/password/reset",
    "POST /api/invitations/preview",
    "POST /api/invitations/register",
    "GET /api/openapi.json",
    "GET /api/permissions",
    "GET /api/oauth/callback",
    "GET /api/schemas/connector",
    "GET /api/schemas/workflow",
    "DELETE /api/webhooks/{id}",
    "GET /api/webhooks/{id}",
    "OPTIONS /api/webhooks/{id}",
    "OPTIONS /api/webhooks/{id}/uploads",
    "OPTIONS /api/webhooks/{id}/uploads/{token}",
    "PATCH /api/webhooks/{id}",
    "POST /api/webhooks/{id}",
    "POST /api/webhooks/{id}/uploads",
    "POST /api/webhooks/{id}/uploads/{token}",
    "PUT /api/webhooks/{id}",
    "GET /docs/errors/{code}",
    "GET /q/health",
    "GET /q/health/live",
    "GET /q/health/ready",
];

/// An operation of the document, ready to be called in a tenant.
struct Operation {
    path: String,
    body: Value,
}

/// A tenant with somebody in every role and something of every kind, and a stranger with a tenant of its own.
struct Cast {
    world: World,
    app: TestApp,
    owner: Session,
    stranger: Session,
    workflow: String,
    connection: String,
    run: String,
    dead_letter: String,
    service_account: String,
    api_key: String,
    invitation: String,
    member: Session,
}

async fn whole_api(world: &World) -> Api {
    let (clock, ids) = (world.clock.clone(), world.ids.clone());
    let auth = tidegate_auth::Deps {
        store: world.store_of("auth"),
        envelope: world.envelope.clone(),
        signer: tidegate_auth::TokenSigner::new(
            world.store_of("auth"),
            world.envelope.clone(),
            tidegate_testing::ISSUER,
            clock.clone(),
            ids.clone(),
        ),
        authenticator: world.authenticator_of("auth"),
        passwords: tidegate_auth::Passwords::new(2),
        clock: clock.clone(),
        ids: ids.clone(),
        mailer: Arc::new(world.outbox.clone()),
        settings: tidegate_auth::Settings::new(tidegate_auth::Registration::Open, "https://flows.example.com"),
    };
    let workflows = tidegate_workflows::Deps {
        store: world.store_of("workflows"),
        scheduler: Arc::new(world.scheduler.clone()),
        queue: Arc::new(world.queue.clone()),
        blobs: world.blobs.clone(),
        connections: tidegate_connections::Connections::new(
            world.store_of("workflows"),
            tidegate_egress::Egress::new(tidegate_egress::EgressSettings::default(), world.envelope.clone()),
            world.blobs.clone(),
            clock.clone(),
        ),
        envelope: world.envelope.clone(),
        authenticator: world.authenticator_of("workflows"),
        clock: clock.clone(),
        ids: ids.clone(),
        settings: tidegate_workflows::Settings { public_url: Some("https://flows.example.com".to_owned()) },
    };
    let webhooks = tidegate_webhooks::Deps {
        store: world.store_of("webhooks"),
        queue: Arc::new(world.queue.clone()),
        blobs: world.blobs.clone(),
        envelope: world.envelope.clone(),
        limiter: world.limiter_of("webhooks", Limits::default()),
        clock: clock.clone(),
        ids: ids.clone(),
        public_url: Some("https://flows.example.com".to_owned()),
    };
    let runs = tidegate_runs::Deps {
        store: world.store_of("runs"),
        blobs: world.blobs.clone(),
        queue: Arc::new(world.queue.clone()),
        authenticator: world.authenticator_of("runs"),
        clock: clock.clone(),
        ids: ids.clone(),
    };
    let admin = tidegate_admin::Deps {
        store: world.store_of("admin"),
        authenticator: world.authenticator_of("admin"),
        clock,
        ids,
    };
    tidegate_auth::api(auth)
        .merge(tidegate_workflows::api(workflows))
        .merge(tidegate_webhooks::api(webhooks))
        .merge(tidegate_runs::api(runs))
        .merge(tidegate_admin::api(admin))
        .merge(Health::default().api())
        .merge(error_pages())
        .with_document("{}")
}

fn definition() -> Value {
    let step = json!({"id": "s", "uses": "http.request", "with": {"method": "GET", "url": "https://example.com"}});
    json!({"name": "w", "trigger": {"type": "webhook"}, "steps": [step]})
}

impl Cast {
    async fn new() -> Self {
        let world = World::new().await;
        let app = TestApp::new(&world, whole_api(&world).await);
        let (owner, stranger) = (world.session("alex").await, world.session("sam").await);
        let member = world.member(&owner, Role::Viewer).await;
        let workflow = app.post(&owner, "/api/workflows", &definition()).await.expect(201).text("/id").to_owned();
        app.post(&owner, "/api/connectors", &manifest("clerk")).await.expect(201);
        let connection = json!({"name": "c", "connector": "clerk", "data": {"token": "s3cr3t"}});
        let connection = app.post(&owner, "/api/connections", &connection).await.expect(201).text("/id").to_owned();
        let invite = json!({"email": "new@example.com", "role": "viewer"});
        let invitation = app.post(&owner, "/api/tenant/invitations", &invite).await.expect(201).text("/id").to_owned();
        let role = json!({"name": "clerk", "description": "Reads runs", "permissions": ["runs:read"]});
        app.post(&owner, "/api/tenant/roles", &role).await.expect(201);
        let mut cast = Self {
            run: String::new(),
            dead_letter: String::new(),
            service_account: String::new(),
            api_key: String::new(),
            world,
            app,
            owner,
            stranger,
            workflow,
            connection,
            invitation,
            member,
        };
        cast.run = cast.store_run().await;
        cast.dead_letter = cast.store_dead_letter().await;
        let (key, _) = cast.key(Role::Viewer, [Permission::RunsRead]).await;
        (cast.service_account, cast.api_key) = (key.service_account.to_string(), key.id.to_string());
        cast
    }

    async fn store_run(&self) -> String {
        let now = self.world.clock.now();
        let row = RunRow {
            id: self.world.ids.run(self.owner.tenant),
            tenant: self.owner.tenant,
            workflow: self.workflow.parse().unwrap(),
            version: 1,
            trigger: TriggerKind::Webhook,
            status: RunStatus::Running,
            accepted_at: now,
            started_at: now,
            finished_at: None,
            fence: 1,
            lease_until: now,
            lease_owner: "nobody".to_owned(),
            claims: 1,
            journal_length: 0,
            wake: 0,
            wake_at: None,
            traceparent: TRACE.to_owned(),
            error: None,
            failed_step: None,
            cancel_requested: false,
            parent: None,
        };
        self.world.store.runs().create(&row, None).await.unwrap();
        row.id.to_string()
    }

    async fn store_dead_letter(&self) -> String {
        let now = self.world.clock.now();
        let (tenant, id) = (self.owner.tenant, self.world.ids.run(self.owner.tenant));
        let start = Message::Start(Box::new(StartMessage {
            run_id: id,
            tenant_id: tenant,
            workflow_id: self.workflow.parse().unwrap(),
            version: 1,
            trigger: TriggerInput {
                kind: TriggerKind::Webhook,
                content_type: None,
                request: None,
                body: Payload::Inline(json!({})),
                parameters: serde_json::Map::new(),
            },
            accepted_at: now,
            traceparent: TRACE.to_owned(),
            parent: None,
        }));
        let Message::Start(start) = start else { unreachable!("it is a start") };
        let letter = DeadLetter {
            id,
            tenant,
            workflow: start.workflow_id,
            code: ErrorCode::DeadLettered,
            message: "given up".to_owned(),
            receive_count: 25,
            accepted_at: now,
            given_up_at: now,
            start: Payload::Inline(serde_json::to_value(start).unwrap()),
            redriven: None,
        };
        self.world.store.dead_letters().put(&letter).await.unwrap();
        id.to_string()
    }

    /// An API key of a new service account in a role, with these scopes; and how its holder writes it.
    async fn key(&self, role: Role, scopes: impl IntoIterator<Item = Permission>) -> (ApiKey, Session) {
        let world = &self.world;
        let (account, created_at) = (world.ids.service_account(), world.clock.now());
        let member = Member {
            tenant: self.owner.tenant,
            principal: account.into(),
            role: role.into(),
            name: "robot".to_owned(),
            email: None,
            created_at,
        };
        world.store.tenants().add_member(&member).await.unwrap();
        let secret = RandomSecret::new();
        let key = ApiKey {
            id: world.ids.api_key(),
            tenant: self.owner.tenant,
            service_account: account,
            name: "key".to_owned(),
            secret_hash: secret.hash(),
            scopes: scopes.into_iter().collect(),
            created_at,
            expires_at: None,
            successor: None,
        };
        world.store.api_keys().create(&key).await.unwrap();
        let token = write_api_key(key.id, &secret).to_string();
        let shown = Session { token, ..self.owner.clone() };
        (key, shown)
    }

    /// How an operation is called so that it does something in the tenant.
    fn operation(&self, method: &Method, template: &str) -> Option<Operation> {
        let name = format!("{method} {template}");
        let (_, rest) = template.split_once("/api/").unwrap_or_default();
        let of = |parameter: &str, id: &str| template.replace(parameter, id);
        let id = match rest.split('/').next().unwrap_or_default() {
            "workflows" => self.workflow.clone(),
            "connections" | "credentials" => self.connection.clone(),
            "runs" | "logs" => self.run.clone(),
            "dead-letters" => self.dead_letter.clone(),
            "service-accounts" => self.service_account.clone(),
            _ => match template {
                path if path.starts_with("/api/tenant/members/") => self.member.user.to_string(),
                path if path.starts_with("/api/tenant/invitations/") => self.invitation.clone(),
                path if path.starts_with("/api/auth/sessions/") => self.owner.session.to_string(),
                path if path.starts_with("/api/admin/platform/clients/") => self.owner.tenant.to_string(),
                path if path.contains("/{user_id}") || path.contains("/principals/") => self.owner.user.to_string(),
                _ => String::new(),
            },
        };
        let mut path = of("{id}", &id).replace("{key}", &self.api_key).replace("{name}", "clerk");
        path = path.replace("{action}", "send").replace("{provider}", "google");
        path = path.replace("{user_id}", &self.owner.user.to_string());
        for listed in ["/roles", "/service-accounts", "/applications"] {
            if path.starts_with("/api/admin/") && path.ends_with(listed) {
                path = format!("{path}?tenant_id={}", self.owner.tenant);
            }
        }
        let connection = json!({
            "name": "c", "connector": "slack", "data": {"webhook_url": "https://hooks.slack.com/services/T0/B0/x"},
        });
        let body = match name.as_str() {
            name if name.starts_with("GET ") => Value::Null,
            "POST /api/workflows" | "PUT /api/workflows/{id}" => definition(),
            "PUT /api/workflows/{id}/listen" => Value::Null,
            "PUT /api/workflows/{id}/toggle" | "POST /api/workflows/{id}/trigger" => json!({}),
            "POST /api/connections" | "POST /api/credentials" => connection,
            "PATCH /api/connections/{id}" => json!({"name": "d"}),
            "POST /api/connections/{id}/test" => Value::Null,
            // To what the connection does already.
            "POST /api/connections/{id}/consent" => {
                let placed = json!([["authorization", {"text": [{"text": "Bearer "}, {"secret": "token"}]}]]);
                let grant = json!(["clerk", "tenant", ["127.0.0.1:9"], {"headers": placed}]);
                json!({"consent": sha256_hex(grant.to_string().as_bytes())})
            }
            "POST /api/connections/{id}/options" => json!({"action": "clerk.send", "field": "to"}),
            "POST /api/connections/oauth" => json!({
                "name": "c", "connector": "github", "data": {"type": "oauth", "client_id": "a", "client_secret": "b"},
            }),
            "POST /api/connectors" => manifest("other"),
            "PUT /api/connectors/{name}" => manifest("clerk"),
            "POST /api/connectors/import" => json!({"document": {
                "openapi": "3.0.3", "info": {"title": "Pets", "version": "1"}, "servers": [{"url": "https://a.test"}],
                "paths": {"/pets": {"get": {"operationId": "listPets", "responses": {"200": {"description": "Pets"}}}}},
            }}),
            "POST /api/expressions/evaluate" => json!({"expression": "1"}),
            "POST /api/dead-letters/redrive" => json!({"all": true}),
            "POST /api/runs/{id}/cancel" | "POST /api/dead-letters/{id}/redrive" => Value::Null,
            "PATCH /api/tenant" => json!({"name": "Other Ltd."}),
            "DELETE /api/tenant" => json!({"confirm": "alex"}),
            "POST /api/tenant/transfer" => json!({"user_id": self.member.user}),
            "POST /api/tenants" => json!({"name": "Second Ltd."}),
            "PATCH /api/tenant/members/{id}" => json!({"role": "viewer"}),
            "POST /api/tenant/invitations" => json!({"email": "another@example.com", "role": "viewer"}),
            "POST /api/tenant/roles" => json!({"name": "other", "description": "", "permissions": ["runs:read"]}),
            "PUT /api/tenant/roles/{name}" => json!({"description": "", "permissions": ["runs:read"]}),
            "POST /api/service-accounts" | "PATCH /api/service-accounts/{id}" => {
                json!({"name": "robot", "role": "viewer"})
            }
            "POST /api/service-accounts/{id}/keys" => json!({"name": "key", "scopes": ["runs:read"]}),
            "POST /api/service-accounts/{id}/keys/{key}/rotate" => json!({}),
            // About the own account or the installation: what a body would do isn't of interest here.
            name if name.contains("/api/auth/") || name.contains("/api/admin/") => json!({}),
            name if name.starts_with("DELETE ") => Value::Null,
            "POST /api/tenant/leave" | "POST /api/invitations/accept" => json!({}),
            "POST /api/tenant/invitations/{id}/resend" | "POST /api/tenant/data-keys" => Value::Null,
            _ => return None,
        };
        Some(Operation { path, body })
    }

    async fn call(&self, session: Option<&Session>, method: &Method, operation: &Operation) -> Answer {
        let headers = [("content-type", "application/json"), ("if-match", "*")];
        let body = if operation.body.is_null() { Body::empty() } else { operation.body.to_string().into() };
        self.app.send(session, method.clone(), &operation.path, &headers, body).await
    }

    fn with_token(&self, token: &str) -> Session {
        Session { token: token.to_owned(), ..self.owner.clone() }
    }

    /// The owner's token with other claims.
    fn forged(&self, change: impl FnOnce(&mut Value)) -> Session {
        let payload = self.owner.token.split('.').nth(1).unwrap();
        let payload = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload).unwrap();
        let mut claims: Value = serde_json::from_slice(&payload).unwrap();
        change(&mut claims);
        self.with_token(&self.world.sign(&claims))
    }
}

fn outcome(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.text("/code").to_owned())
}

/// Whether the caller was recognised and allowed, whatever became of the request.
fn let_in(answer: &Answer) -> bool {
    let status = answer.status.as_u16();
    status < 400 || (404..500).contains(&status) || status == 502
}

/// What asks a vendor, which nobody may call here.
const CALLS_A_VENDOR: &[&str] = &["POST /api/connections/{id}/options"];
/// What a browser is sent away for.
const TAKES_A_PERSON: &[&str] = &["POST /api/connections/oauth"];

/// A connector of the tenant's own.
fn manifest(name: &str) -> Value {
    let path = |method: &str| json!({"method": method, "path": "/things"});
    json!({
        "format": 1, "name": name, "title": "Clerk", "hosts": ["127.0.0.1:9"], "base_url": "http://127.0.0.1:9",
        "auth": [{"id": "key", "type": "bearer"}],
        "actions": {
            "list": {"title": "List", "effect": "read", "input": {"type": "object"}, "request": path("GET")},
            "send": {
                "title": "Send", "effect": "write", "request": path("POST"),
                "input": {"type": "object", "properties": {
                    "to": {"type": "string", "x-options": {"action": "list", "value": "id", "label": "name"}},
                }},
            },
        },
    })
}

/// Everybody but those who may is refused; who may is not.
#[tokio::test]
async fn every_operation_is_tried_by_every_kind_of_caller() {
    let operations = Cast::new().await.app.operations().to_vec();
    let mut public = Vec::new();
    for (method, template, permission) in &operations {
        let name = format!("{method} {template}");
        let Some(permission) = permission else {
            public.push(name);
            continue;
        };
        let permission: Permission = permission.parse().unwrap();
        // What one caller did must not stand in the next one's way.
        let cast = Cast::new().await;
        let operation = cast.operation(method, template).unwrap_or_else(|| panic!("say how to call {name}"));
        let refused = async |what: &str, session: Option<&Session>, expected: (u16, &str)| {
            let answer = cast.call(session, method, &operation).await;
            assert_eq!(outcome(&answer), (expected.0, expected.1.to_owned()), "{name} {what}: {}", answer.body);
        };
        let unauthenticated = (401, "unauthenticated");
        refused("without a token", None, unauthenticated).await;
        refused("with nonsense", Some(&cast.with_token("nonsense")), unauthenticated).await;
        let expired = cast.forged(|claims| claims["exp"] = json!(cast.world.clock.now().as_second() - 60));
        refused("with an expired token", Some(&expired), unauthenticated).await;
        let elsewhere = cast.forged(|claims| claims["aud"] = json!("another-api"));
        refused("with a token for another audience", Some(&elsewhere), unauthenticated).await;
        let no_session = cast.forged(|claims| claims["sid"] = Value::Null);
        refused("with a token of no session", Some(&no_session), unauthenticated).await;
        let foreign = cast.forged(|claims| claims["tenant"] = json!(cast.stranger.tenant));
        if !permission.is_own() && !permission.is_of_platform() {
            refused("with a token for a tenant of others", Some(&foreign), unauthenticated).await;
        }

        let personal = permission.is_own() || permission.is_of_platform();
        let (_, everything) = cast.key(Role::Owner, Permission::ALL.iter().copied()).await;
        let others = Permission::ALL.iter().copied().filter(|other| *other != permission);
        let (_, nothing) = cast.key(Role::Owner, others).await;
        refused("with an API key without the scope", Some(&nothing), (403, "forbidden")).await;
        if personal {
            refused("with an API key", Some(&everything), (403, "forbidden")).await;
        }
        if permission.is_of_platform() {
            refused("as a tenant's owner", Some(&cast.owner), (403, "forbidden")).await;
            let administrator = cast.world.session("operator").await;
            let since = cast.world.clock.now();
            cast.world.store.platform().add_administrator(administrator.user, since, None).await.unwrap();
            let answer = cast.call(Some(&administrator), method, &operation).await;
            assert!(let_in(&answer), "{name} as an administrator: {} {}", answer.status, answer.body);
            continue;
        }
        // The least first: what an owner does may leave nothing for the others.
        for role in Role::ALL.into_iter().rev() {
            let member = match role {
                Role::Owner => cast.owner.clone(),
                _ => cast.world.member(&cast.owner, role).await,
            };
            let answer = cast.call(Some(&member), method, &operation).await;
            if permission.is_own() || role.permissions().contains(&permission) {
                assert!(let_in(&answer), "{name} as {}: {} {}", role.as_str(), answer.status, answer.body);
            } else {
                assert_eq!(outcome(&answer), (403, "forbidden".to_owned()), "{name} as {}", role.as_str());
            }
        }
    }
    public.sort_unstable();
    let mut expected: Vec<_> = PUBLIC.to_vec();
    expected.sort_unstable();
    assert_eq!(public, expected, "these operations everybody may call");
}

/// The first who may does what the operation is for: the table is about operations that work.
#[tokio::test]
async fn who_may_gets_what_it_is_for() {
    let operations = Cast::new().await.app.operations().to_vec();
    for (method, template, permission) in &operations {
        let Some(permission) = permission else { continue };
        let permission: Permission = permission.parse().unwrap();
        if permission.is_own() || permission.is_of_platform() {
            continue;
        }
        let cast = Cast::new().await;
        let Some(operation) = cast.operation(method, template) else { continue };
        let least = Role::ALL.into_iter().rev().find(|role| role.permissions().contains(&permission)).unwrap();
        let member = match least {
            Role::Owner => cast.owner.clone(),
            _ => cast.world.member(&cast.owner, least).await,
        };
        let answer = cast.call(Some(&member), method, &operation).await;
        if CALLS_A_VENDOR.contains(&&*format!("{method} {template}")) {
            assert_eq!(outcome(&answer), (502, "target_failed".to_owned()), "{method} {template}");
            continue;
        }
        assert!(answer.status.is_success(), "{method} {template}: {} {}", answer.status, answer.body);
        if TAKES_A_PERSON.contains(&&*format!("{method} {template}")) {
            continue;
        }

        let cast = Cast::new().await;
        let operation = cast.operation(method, template).unwrap();
        // Who gives a role or a scope has to hold what is in it: here a viewer's.
        let scopes = Role::Viewer.permissions().into_iter().chain([permission, Permission::ConnectionsUse]);
        let (_, key) = cast.key(Role::Owner, scopes).await;
        let answer = cast.call(Some(&key), method, &operation).await;
        assert!(answer.status.is_success(), "{method} {template} with a key: {} {}", answer.status, answer.body);
    }
}

/// Another tenant's id is answered as one that nobody has, to the byte.
#[tokio::test]
async fn another_tenants_id_is_like_an_unknown_one() {
    let operations = Cast::new().await.app.operations().to_vec();
    let mut tried = 0;
    for (method, template, permission) in &operations {
        let Some(permission) = permission else { continue };
        let permission: Permission = permission.parse().unwrap();
        if !template.contains('{') || permission.is_of_platform() {
            continue;
        }
        let cast = Cast::new().await;
        let operation = cast.operation(method, template).unwrap();
        let foreign = cast.call(Some(&cast.stranger), method, &operation).await;
        // The same, with other digits at the end of each id.
        let unknown = operation.path.split('/').map(|part| match part.rsplit_once('_') {
            Some((prefix, digits)) if digits.len() == 32 => {
                format!("{prefix}_{}{}", &digits[..20], digits[20..].chars().rev().collect::<String>())
            }
            _ => part.replace("clerk", "nobody"),
        });
        let path = unknown.collect::<Vec<_>>().join("/");
        assert_ne!(path, operation.path);
        let unknown = cast.call(Some(&cast.stranger), method, &Operation { path, body: operation.body }).await;
        assert_eq!(foreign.status, 404, "{method} {template}: {}", foreign.body);
        let without_id = |answer: &Answer| {
            let text = answer.body.to_string();
            text.replace(answer.text("/request_id"), "")
        };
        assert_eq!(without_id(&foreign), without_id(&unknown), "{method} {template}");
        tried += 1;
    }
    assert!(tried > 15, "{tried} operations name something by its id");
}

/// A caller's standing is looked up, so nothing of it outlasts its bound.
#[tokio::test]
async fn a_token_outlasts_neither_membership_nor_session() {
    let cast = Cast::new().await;
    let member = &cast.member;
    cast.app.get(member, "/api/workflows").await.expect(200);
    let stored = cast.world.store.tenants().member(member.tenant, member.user.into()).await.unwrap().unwrap();
    cast.world.store.tenants().remove_member(&stored).await.unwrap();
    cast.world.clock.advance(Duration::from_secs(30));
    assert_eq!(outcome(&cast.app.get(member, "/api/workflows").await).0, 401);
    cast.app.get(&cast.owner, "/api/workflows").await.expect(200);
    cast.world.store.sessions().delete(cast.owner.user, &[cast.owner.session]).await.unwrap();
    cast.world.clock.advance(Duration::from_secs(30));
    assert_eq!(outcome(&cast.app.get(&cast.owner, "/api/workflows").await).0, 401);
}
