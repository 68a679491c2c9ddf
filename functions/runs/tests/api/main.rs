//! The operations on runs, as their callers see them.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod access;
mod approvals;
mod cancel;
mod dead_letters;
mod deliveries;
mod runs;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_model::{
    BlobRef, Definition, ErrorCode, Message, Payload, RunDetail, RunId, RunRow, RunStatus, StepError, TriggerKind,
    WakeMessage, Workflow,
};
use tidegate_platform::{Blobs, Queue};
use tidegate_runs::{Deps, api};
use tidegate_testing::{Session, TestApp, World};

struct Setup {
    world: World,
    app: TestApp,
    owner: Session,
    workflow: Workflow,
}

async fn setup() -> Setup {
    let world = World::new().await;
    let app = TestApp::new(
        &world,
        api(Deps {
            store: world.store_of("runs"),
            blobs: world.blobs.clone(),
            queue: Arc::new(world.queue.clone()),
            authenticator: world.authenticator_of("runs"),
            clock: world.clock.clone(),
            ids: world.ids.clone(),
        }),
    );
    let owner = world.session("alex").await;
    let workflow = workflow(&world, &owner).await;
    Setup { world, app, owner, workflow }
}

async fn workflow(world: &World, session: &Session) -> Workflow {
    let step = |id: &str| json!({"id": id, "uses": "http.request", "with": {"method": "GET", "url": "https://e.org"}});
    let body = json!({"name": "w", "trigger": {"type": "webhook"}, "steps": [step("first"), step("second")]});
    let definition = Definition::parse(&body).unwrap();
    let now = world.clock.now();
    let workflow = Workflow {
        connections: Vec::new(),
        verification: None,
        listening_until: None,
        id: world.ids.workflow(),
        tenant: session.tenant,
        name: definition.name.clone(),
        active: true,
        version: 1,
        revision: 1,
        trigger: definition.trigger.clone(),
        created_at: now,
        updated_at: now,
    };
    world.store.workflows().create(&workflow, &definition).await.unwrap();
    workflow
}

impl Setup {
    /// A row as the worker's claim writes it.
    fn row(&self) -> RunRow {
        let now = self.world.clock.now();
        let id = self.world.ids.run(self.owner.tenant);
        RunRow {
            id,
            tenant: self.owner.tenant,
            workflow: self.workflow.id,
            version: 1,
            trigger: TriggerKind::Webhook,
            status: RunStatus::Running,
            accepted_at: now,
            started_at: now,
            finished_at: None,
            fence: 1,
            lease_until: now,
            lease_owner: format!("owner of {id}"),
            claims: 1,
            journal_length: 0,
            wake: 0,
            wake_at: None,
            traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
            error: None,
            failed_step: None,
            cancel_requested: false,
            parent: None,
        }
    }

    fn ended(&self, status: RunStatus) -> RunRow {
        let row = self.row();
        let finished_at = Some(row.started_at + Duration::from_millis(250));
        let error = (status == RunStatus::Failed)
            .then(|| StepError::terminal(ErrorCode::TargetFailed, "the target answered 404 Not Found"));
        let failed_step = error.as_ref().map(|_| "second".to_owned());
        RunRow { status, finished_at, error, failed_step, ..row }
    }

    async fn store(&self, row: &RunRow, detail: Option<&RunDetail>) -> RunId {
        let detail = detail.map(|detail| Payload::Inline(serde_json::to_value(detail).unwrap()));
        self.world.store.runs().create(row, detail.as_ref()).await.unwrap();
        row.id
    }

    /// Stores a value as the worker stores large ones.
    async fn blob(&self, name: &str, value: &Value) -> Payload {
        let (key, text) = (format!("kept/{}/test/{name}", self.owner.tenant), value.to_string());
        let bytes = text.len() as u64;
        self.world.blobs.put(&key, text.into()).await.unwrap();
        Payload::Blob(BlobRef { key, bytes })
    }

    /// A row as a worker's parking leaves it, the third one.
    async fn waiting(&self) -> RunRow {
        let row = RunRow { status: RunStatus::Waiting, wake: 3, ..self.row() };
        self.store(&row, None).await;
        row
    }

    async fn stored(&self, id: RunId) -> RunRow {
        self.world.store.runs().get(self.owner.tenant, id).await.unwrap().unwrap().row
    }

    /// Takes what lies in the run queue.
    async fn sent(&self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            let received = self.world.queue.receive(10, Duration::ZERO).await.unwrap();
            if received.is_empty() {
                return messages;
            }
            for message in received {
                messages.push(serde_json::from_str(&message.body).unwrap());
                self.world.queue.delete(&message.receipt).await.unwrap();
            }
        }
    }
}

/// What wakes a row's parking.
fn wake_of(row: &RunRow) -> Message {
    Message::Wake(WakeMessage { run_id: row.id, tenant_id: row.tenant, wake: row.wake })
}
