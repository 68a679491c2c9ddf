//! `/api/webhooks/{id}`: what is taken and from whom, what is refused, what then lies in the queue, and what is answered.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod accepting;
mod answers;
mod listening;
mod once;
mod requests;
mod uploads;
mod verifying;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Method;
use serde_json::{Value, json};
use tidegate_model::{Definition, Limits, Message, SealedVerification, StartMessage, Workflow};
use tidegate_platform::Queue;
use tidegate_platform::key_service::KeyContext;
use tidegate_platform::queue::ReceivedMessage;
use tidegate_testing::{Answer, Session, TestApp, World};
use tidegate_webhooks::{Deps, api};

struct Setup {
    world: World,
    app: TestApp,
    owner: Session,
}

fn deps(world: &World, queue: Arc<dyn Queue>) -> Deps {
    Deps {
        store: world.store_of("webhooks"),
        queue,
        blobs: world.blobs.clone(),
        envelope: world.envelope.clone(),
        limiter: world.limiter_of("webhooks", Limits::default()),
        clock: world.clock.clone(),
        ids: world.ids.clone(),
        public_url: Some("https://flows.example.com".to_owned()),
    }
}

fn serve(world: &World, queue: Arc<dyn Queue>) -> TestApp {
    TestApp::new(world, api(deps(world, queue)))
}

async fn setup() -> Setup {
    let world = World::new().await;
    let app = serve(&world, Arc::new(world.queue.clone()));
    let owner = world.session("alex").await;
    Setup { world, app, owner }
}

impl Setup {
    async fn workflow(&self, trigger: Value, active: bool) -> Workflow {
        self.verified(trigger, active, None).await
    }

    /// With what the requests are verified with, as the workflows function puts it into the head.
    async fn verified(&self, trigger: Value, active: bool, secrets: Option<Value>) -> Workflow {
        let definition = Definition::parse(&json!({
            "name": "w", "trigger": trigger,
            "steps": [{"id": "s", "uses": "http.request", "with": {"method": "GET", "url": "https://example.com"}}],
        }));
        let definition = definition.unwrap();
        let now = self.world.clock.now();
        let id = self.world.ids.workflow();
        let verification = match secrets {
            Some(secrets) => Some(self.sealed(id, &secrets).await),
            None => None,
        };
        let workflow = Workflow {
            id,
            connections: definition.connections(),
            verification,
            listening_until: None,
            tenant: self.owner.tenant,
            name: definition.name.clone(),
            active,
            version: 1,
            revision: 1,
            trigger: definition.trigger.clone(),
            created_at: now,
            updated_at: now,
        };
        self.world.store.workflows().create(&workflow, &definition).await.unwrap();
        workflow
    }

    async fn sealed(&self, id: tidegate_model::WorkflowId, secrets: &Value) -> SealedVerification {
        let tenant = self.world.store.tenants().get(self.owner.tenant).await.unwrap().unwrap();
        let key = tenant.sealing_key().unwrap();
        let (context, associated) = (KeyContext::ingress(tenant.id), id.to_string());
        let plain = secrets.to_string();
        let sealed =
            self.world.envelope.seal(key.ingress.as_ref().unwrap(), &context, associated.as_bytes(), plain.as_bytes());
        SealedVerification { data_key: key.number, sealed: sealed.await.unwrap(), of: String::new() }
    }

    /// Sends JSON with headers.
    async fn send(&self, workflow: &Workflow, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let headers = [headers, &[("content-type", "application/json")]].concat();
        self.app.send(None, Method::POST, &path(workflow), &headers, body).await
    }

    async fn by_webhook(&self) -> Workflow {
        self.workflow(json!({"type": "webhook"}), true).await
    }

    async fn switch(&self, workflow: &Workflow, active: bool) -> Workflow {
        let after = Workflow { active, revision: workflow.revision + 1, ..workflow.clone() };
        self.world.store.workflows().replace(workflow.revision, &after, None).await.unwrap();
        after
    }

    async fn post(&self, workflow: &Workflow, content_type: Option<&str>, body: impl Into<Body>) -> Answer {
        let headers: Vec<_> = content_type.map(|kind| ("content-type", kind)).into_iter().collect();
        self.app.send(None, Method::POST, &format!("/api/webhooks/{}", workflow.id), &headers, body).await
    }

    async fn queued(&self) -> Vec<StartMessage> {
        let messages = self.world.queue.receive(10, Duration::ZERO).await.unwrap();
        let read = |message: ReceivedMessage| match serde_json::from_str(&message.body).unwrap() {
            Message::Start(start) => *start,
            other => panic!("unexpected {other:?}"),
        };
        messages.into_iter().map(read).collect()
    }
}

fn path(workflow: &Workflow) -> String {
    format!("/api/webhooks/{}", workflow.id)
}

const JSON: Option<&str> = Some("application/json");
