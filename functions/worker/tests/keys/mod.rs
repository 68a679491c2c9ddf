//! A tenant's data keys, as a worker meets them: several, a new one, and none any more.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use tidegate_model::{
    ApprovalToken, Connection, DataKey, ErrorCode, Message, RunStatus, ScheduleMessage, Tenant, TenantStatus,
};
use tidegate_platform::key_service::KeyContext;
use tidegate_platform::scheduler::{SCHEDULED_TIME, Scheduler as _, Timer};
use tidegate_worker::{Deps, Source, Verdict};

use crate::steps;
use crate::world::{World, every_minute, handle, message, wake};

fn context(world: &World) -> KeyContext {
    KeyContext::connections(world.tenant)
}

async fn tenant(world: &World) -> Tenant {
    world.store.tenants().get(world.tenant).await.unwrap().unwrap()
}

async fn change(world: &World, change: impl FnOnce(&mut Tenant)) {
    let before = tenant(world).await;
    let mut after = Tenant { revision: before.revision + 1, ..before };
    change(&mut after);
    world.store.tenants().replace(&after).await.unwrap();
}

async fn new_data_key(world: &World) {
    let wrapped = world.envelope.new_data_key(&context(world)).await.unwrap();
    let created_at = world.clock.now();
    change(world, |tenant| tenant.data_keys.push(DataKey { number: 2, wrapped, ingress: None, created_at })).await;
}

async fn delete(world: &World) {
    let gone = |tenant: &mut Tenant| (tenant.status, tenant.data_keys) = (TenantStatus::Deleted, Vec::new());
    change(world, gone).await;
}

async fn seal(world: &World, connection: &Connection, data_key: u32, secret: &Value) -> Connection {
    let tenant = tenant(world).await;
    let wrapped = &tenant.data_key(data_key).unwrap().wrapped;
    let (associated, plain) = (connection.id.to_string(), secret.to_string());
    let sealed = world.envelope.seal(wrapped, &context(world), associated.as_bytes(), plain.as_bytes()).await.unwrap();
    Connection { data_key, sealed, ..connection.clone() }
}

/// A connection to the target, not sealed yet.
fn connection(world: &World) -> Connection {
    Connection {
        id: world.ids.connection(),
        tenant: world.tenant,
        name: "Target".to_owned(),
        connector: "http".to_owned(),
        publisher: tidegate_model::Publisher::Builtin,
        auth: "bearer".to_owned(),
        settings: serde_json::Map::new(),
        hosts: vec![world.target.address().to_string()],
        placement: crate::world::bearer_placement(),
        oauth: None,
        health: tidegate_model::Health::default(),
        data_key: 0,
        sealed: String::new(),
        created_by: None,
        created_at: world.clock.now(),
    }
}

fn bearer(token: &str) -> Value {
    json!({"type": "bearer", "token": token})
}

async fn run(world: &World, worker: &Deps, steps: &[&Connection]) -> tidegate_store::StoredRun {
    let workflow = world.workflow(steps.len(), |definition| {
        for (index, connection) in steps.iter().enumerate() {
            definition["steps"][index]["connection"] = json!(connection.id);
        }
    });
    let start = world.start(workflow.await);
    let incoming = message(&Message::Start(Box::new(start.clone())));
    // Unoptimized, a call's whole future and what it polls take more than a test's stack has.
    assert_eq!(Box::pin(handle(worker, &incoming, Source::Runs)).await, Verdict::Delete);
    world.stored(start.run_id).await.unwrap()
}

async fn authorizations(world: &World) -> Vec<String> {
    let requests = world.target.received_requests().await.unwrap();
    requests.iter().map(|request| request.headers["authorization"].to_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_worker_opens_connections_under_each_of_the_tenants_keys_at_any_moment() {
    let world = World::new().await;
    world.make_tenant().await;
    let first = seal(&world, &connection(&world), 1, &bearer("one")).await;
    world.store.connections().create(&first).await.unwrap();
    // From here on this worker remembers a tenant with one key.
    let worker = world.worker("here");
    assert_eq!(run(&world, &worker, &[&first]).await.row.status, RunStatus::Succeeded);

    new_data_key(&world).await;
    let second = seal(&world, &connection(&world), 2, &bearer("two")).await;
    world.store.connections().create(&second).await.unwrap();
    assert_eq!(run(&world, &worker, &[&first, &second]).await.row.status, RunStatus::Succeeded);

    // Sealed anew while the worker still remembers it as it was, and after.
    let first = world.store.connections().get(world.tenant, first.id).await.unwrap().unwrap();
    let moved = seal(&world, &first, 2, &bearer("one")).await;
    assert!(world.store.connections().replace(&first, &moved).await.unwrap());
    assert_eq!(run(&world, &worker, &[&moved]).await.row.status, RunStatus::Succeeded);
    world.clock.advance(Duration::from_secs(5));
    assert_eq!(run(&world, &worker, &[&moved]).await.row.status, RunStatus::Succeeded);
    let expected = ["one", "one", "two", "one", "one"].map(|token| format!("Bearer {token}"));
    assert_eq!(authorizations(&world).await, expected);
}

#[tokio::test]
async fn no_connection_of_a_deleted_tenant_is_opened_after_five_seconds() {
    let world = World::new().await;
    world.make_tenant().await;
    let connection = seal(&world, &connection(&world), 1, &bearer("one")).await;
    world.store.connections().create(&connection).await.unwrap();
    let worker = world.worker("here");
    assert_eq!(run(&world, &worker, &[&connection]).await.row.status, RunStatus::Succeeded);
    delete(&world).await;
    world.clock.advance(Duration::from_secs(5));
    let stored = run(&world, &worker, &[&connection]).await;
    let record = &steps(&world, &stored).await[0];
    assert_eq!((stored.row.status, record.attempts.len()), (RunStatus::Failed, 1), "terminal");
    assert_eq!(record.error.as_ref().map(|error| error.code), Some(ErrorCode::ConnectionUnusable));
    assert_eq!(authorizations(&world).await.len(), 1);
}

#[tokio::test]
async fn a_link_that_was_sent_before_the_tenant_got_a_new_key_decides_an_approval_after() {
    let world = World::new().await;
    world.make_tenant().await;
    world.clock.advance(Duration::from_secs(3_600));
    let asking = || {
        world.workflow(1, |definition| {
            definition["execution_timeout"] = json!(100_000);
            definition["steps"][0]["with"]["json"] = json!({"link": "{{ run.approvals.ask.url }}"});
            let steps = definition["steps"].as_array_mut().unwrap();
            steps.push(json!({"id": "sleep", "uses": "time.delay", "with": {"duration": "2h"}}));
            steps.push(json!({"id": "ask", "uses": "approval.wait", "with": {"message": "Pay?"}}));
        })
    };
    let start = world.start(asking().await);
    world.send(&Message::Start(Box::new(start.clone()))).await;
    world.work(&world.worker("before")).await;
    let sent = link(&world, 0).await;

    new_data_key(&world).await;
    world.clock.advance(Duration::from_secs(7_200));
    let row = world.stored(start.run_id).await.unwrap().row;
    // Another process, which never knew the tenant with one key only.
    let after = world.worker("after");
    assert_eq!(handle(&after, &message(&wake(&row, row.wake)), Source::Runs).await, Verdict::Delete);
    let approval = world.store.runs().approval(world.tenant, start.run_id, "ask").await.unwrap().unwrap();
    let digest: String = digest(&SHA256, &sent.signature).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(approval.digest, digest, "the link that was sent is the one that decides");

    // What begins now is signed with the new key.
    let later = world.start(asking().await);
    assert_eq!(handle(&after, &message(&Message::Start(Box::new(later.clone()))), Source::Runs).await, Verdict::Delete);
    let (sent, tenant) = (link(&world, 1).await, tenant(&world).await);
    let signed = ApprovalToken::signed(world.tenant, later.run_id, "ask");
    let sign = async |number| {
        let wrapped = &tenant.data_key(number).unwrap().wrapped;
        world.envelope.sign(wrapped, &context(&world), "approval", &signed).await.unwrap()
    };
    assert!(sent.signature == sign(2).await && sent.signature != sign(1).await);
}

#[tokio::test]
async fn a_run_that_waits_for_an_approval_ends_with_its_tenant() {
    let world = World::new().await;
    world.make_tenant().await;
    let workflow = world.workflow(1, |definition| {
        definition["execution_timeout"] = json!(100_000);
        let steps = definition["steps"].as_array_mut().unwrap();
        steps.push(json!({"id": "ask", "uses": "approval.wait", "with": {"message": "Pay?"}}));
    });
    let start = world.start(workflow.await);
    world.send(&Message::Start(Box::new(start.clone()))).await;
    let worker = world.worker("here");
    world.work(&worker).await;
    assert_eq!(world.status(start.run_id).await, Some(RunStatus::Waiting));
    delete(&world).await;
    world.clock.advance(Duration::from_secs(3_600));
    let row = world.stored(start.run_id).await.unwrap().row;
    assert_eq!(handle(&worker, &message(&wake(&row, row.wake)), Source::Runs).await, Verdict::Delete);
    let row = world.stored(start.run_id).await.unwrap().row;
    assert_eq!((row.status, row.error.unwrap().code), (RunStatus::Failed, ErrorCode::WorkflowGone));
}

/// The approval's link in the target's request of this number.
async fn link(world: &World, request: usize) -> ApprovalToken {
    let requests = world.target.received_requests().await.unwrap();
    let sent: Value = serde_json::from_slice(&requests[request].body).unwrap();
    sent["link"].as_str().unwrap().rsplit_once('/').unwrap().1.parse().unwrap()
}

#[tokio::test]
async fn a_schedule_of_a_deleted_tenant_ends_with_its_next_firing() {
    let world = World::new().await;
    world.make_tenant().await;
    let schedule = |definition: &mut Value| definition["trigger"] = json!({"type": "schedule", "every": "1m"});
    let workflow = world.workflow(1, schedule).await;
    let firing = Message::Schedule(ScheduleMessage {
        tenant_id: world.tenant,
        workflow_id: workflow,
        scheduled_time: SCHEDULED_TIME.to_owned(),
    });
    let timer = Timer {
        tenant: world.tenant,
        name: workflow.to_string(),
        when: every_minute(&world),
        body: serde_json::to_string(&firing).unwrap(),
    };
    world.queue.scheduler().put(timer).await.unwrap();
    delete(&world).await;
    let worker = world.worker("here");
    for _ in 0..3 {
        world.clock.advance(Duration::from_secs(60));
        assert!(!world.work(&worker).await);
    }
    world.clock.advance(Duration::from_secs(60));
    let depth = world.queue.depth().await.unwrap();
    assert_eq!((depth.visible, world.calls().await.len()), (0, 0));
}
