//! The operations on workflows and connections, as their callers see them.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod access;
mod audit;
mod checks;
mod connections;
mod connectors;
mod expressions;
mod guide;
mod oauth;
mod resealing;
mod schedules;
mod schema;
mod trigger;
mod webhooks;
mod workflows;

use std::sync::Arc;

use serde_json::{Value, json};
use tidegate_connections::Connections;
use tidegate_egress::{Egress, EgressSettings};
use tidegate_platform::Scheduler;
use tidegate_testing::{Session, TestApp, World};
use tidegate_workflows::{Deps, Settings, api};

struct Setup {
    world: World,
    app: TestApp,
    owner: Session,
}

async fn setup() -> Setup {
    let world = World::new().await;
    let scheduler = Arc::new(world.scheduler.clone());
    setup_with(world, scheduler).await
}

async fn setup_with(world: World, scheduler: Arc<dyn Scheduler>) -> Setup {
    setup_over(world, scheduler, EgressSettings::default()).await
}

fn connections(world: &World, egress: EgressSettings) -> Connections {
    let egress = Egress::new(egress, world.envelope.clone());
    Connections::new(world.store_of("workflows"), egress, world.blobs.clone(), world.clock.clone())
}

async fn setup_over(world: World, scheduler: Arc<dyn Scheduler>, egress: EgressSettings) -> Setup {
    let app = TestApp::new(
        &world,
        api(Deps {
            store: world.store_of("workflows"),
            scheduler,
            queue: Arc::new(world.queue.clone()),
            blobs: world.blobs.clone(),
            connections: connections(&world, egress),
            envelope: world.envelope.clone(),
            authenticator: world.authenticator_of("workflows"),
            clock: world.clock.clone(),
            ids: world.ids.clone(),
            settings: Settings { public_url: Some("https://flows.example.com".to_owned()) },
        }),
    );
    let owner = world.session("alex").await;
    Setup { world, app, owner }
}

impl Setup {
    /// A Slack connection's id.
    async fn slack(&self, session: &Session) -> String {
        let body = json!({
            "name": "Orders channel", "connector": "slack",
            "data": {"webhook_url": "https://hooks.slack.com/services/T000/B000/s3cr3t"},
        });
        self.app.post(session, "/api/connections", &body).await.expect(201).text("/id").to_owned()
    }

    /// A workflow's id.
    async fn workflow(&self, definition: &Value) -> String {
        self.app.post(&self.owner, "/api/workflows", definition).await.expect(201).text("/id").to_owned()
    }
}

fn request_step() -> Value {
    json!({"id": "call", "uses": "http.request", "with": {"method": "GET", "url": "https://example.com/{{ order.id }}"}})
}

fn by_webhook() -> Value {
    json!({"name": "Order alerts", "trigger": {"type": "webhook"}, "steps": [request_step()]})
}

fn every(interval: &str) -> Value {
    json!({"name": "Nightly", "trigger": {"type": "schedule", "every": interval}, "steps": [request_step()]})
}
