//! The timers of workflows that a schedule starts, and what is left when setting one fails.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use http::Method;
use serde_json::{Value, json};
use tidegate_model::TenantId;
use tidegate_platform::scheduler::{Timer, When};
use tidegate_platform::{PortError, Scheduler};
use tidegate_testing::World;

use crate::{Setup, by_webhook, every, setup_with};

/// Timers in memory, and a switch that makes the service be away.
#[derive(Default)]
struct Timers {
    set: Mutex<BTreeMap<String, Timer>>,
    away: AtomicBool,
}

impl Timers {
    fn check(&self) -> Result<(), PortError> {
        if self.away.load(Ordering::SeqCst) { Err(PortError::new("reach the scheduler", "away")) } else { Ok(()) }
    }

    fn of(&self, id: &str) -> Option<Timer> {
        self.set.lock().unwrap().get(id).cloned()
    }
}

#[async_trait]
impl Scheduler for Timers {
    async fn put(&self, timer: Timer) -> Result<(), PortError> {
        self.check()?;
        self.set.lock().unwrap().insert(timer.name.clone(), timer);
        Ok(())
    }

    async fn delete(&self, _tenant: TenantId, name: &str) -> Result<(), PortError> {
        self.check()?;
        self.set.lock().unwrap().remove(name);
        Ok(())
    }
}

async fn setup() -> (Setup, Arc<Timers>) {
    let timers = Arc::new(Timers::default());
    (setup_with(World::new().await, timers.clone()).await, timers)
}

fn minutes(timer: Option<Timer>) -> Option<u64> {
    timer.map(|timer| match timer.when {
        When::Every { interval, .. } => interval.as_secs() / 60,
        When::At(_) => panic!("a schedule fires again and again"),
    })
}

#[tokio::test]
async fn a_timer_follows_its_workflow() {
    let (setup, timers) = setup().await;
    let (app, owner) = (&setup.app, &setup.owner);
    let created = app.post(owner, "/api/workflows", &every("10m")).await.expect(201);
    assert_eq!(created.body.get("webhook_url"), None);
    let id = created.text("/id").to_owned();
    let path = format!("/api/workflows/{id}");
    let timer = timers.of(&id).unwrap();
    let message: Value = serde_json::from_str(&timer.body).unwrap();
    assert_eq!(
        message,
        json!({
            "kind": "schedule", "tenant_id": owner.tenant, "workflow_id": id,
            "scheduled_time": "<aws.scheduler.scheduled-time>",
        }),
    );
    let from = setup.world.clock.now();
    assert_eq!(timer.when, When::Every { interval: std::time::Duration::from_secs(600), from });

    setup.world.clock.advance(std::time::Duration::from_secs(90));
    app.put(owner, &path, "*", &every("1h")).await.expect(200);
    let When::Every { from: kept, .. } = timers.of(&id).unwrap().when else { panic!("it fires again and again") };
    assert_eq!((minutes(timers.of(&id)), kept), (Some(60), from), "saving doesn't put off the next run");
    app.put(owner, &format!("{path}/toggle"), "*", &json!({"active": false})).await.expect(200);
    assert_eq!(timers.of(&id), None);
    app.put(owner, &format!("{path}/toggle"), "*", &json!({"active": true})).await.expect(200);
    assert_eq!(minutes(timers.of(&id)), Some(60));
    app.put(owner, &path, "*", &by_webhook()).await.expect(200);
    assert_eq!(timers.of(&id), None);
    app.put(owner, &path, "*", &every("1d")).await.expect(200);
    assert_eq!(minutes(timers.of(&id)), Some(1_440));
    app.delete(owner, &path).await.expect(204);
    assert_eq!(timers.of(&id), None);

    let mut inactive = every("5m");
    inactive["active"] = json!(false);
    let id = setup.workflow(&inactive).await;
    assert_eq!(timers.of(&id), None);
}

#[tokio::test]
async fn a_failed_change_can_be_repeated() {
    let (setup, timers) = setup().await;
    let (app, owner) = (&setup.app, &setup.owner);
    let away = |is: bool| timers.away.store(is, Ordering::SeqCst);

    away(true);
    let failed = app.post(owner, "/api/workflows", &every("10m")).await.expect(503);
    assert_eq!(failed.header("retry-after"), "1");
    assert_eq!(
        app.get(owner, "/api/workflows").await.body["items"],
        json!([]),
        "repeating makes one workflow, not two"
    );
    setup.workflow(&by_webhook()).await;

    away(false);
    let id = setup.workflow(&every("10m")).await;
    let path = format!("/api/workflows/{id}");
    let unchanged = app.get(owner, &path).await;
    away(true);
    app.put(owner, &path, "\"1\"", &every("1h")).await.expect(503);
    app.send(Some(owner), Method::PUT, &format!("{path}/toggle"), &[], "").await.expect(503);
    app.delete(owner, &path).await.expect(503);
    let still = app.get(owner, &path).await;
    assert_eq!((&still.body, still.header("etag")), (&unchanged.body, "\"1\""));
    assert_eq!(minutes(timers.of(&id)), Some(10));

    away(false);
    app.put(owner, &path, "\"1\"", &every("1h")).await.expect(200);
    assert_eq!(minutes(timers.of(&id)), Some(60));
    let off = app.send(Some(owner), Method::PUT, &format!("{path}/toggle"), &[], "").await.expect(200);
    assert_eq!((&off.body["active"], timers.of(&id)), (&json!(false), None));

    // A timer that was lost, as by a crash after the workflow was stored, comes back.
    app.put(owner, &format!("{path}/toggle"), "*", &json!({"active": true})).await.expect(200);
    timers.set.lock().unwrap().clear();
    app.put(owner, &format!("{path}/toggle"), "*", &json!({"active": true})).await.expect(200);
    assert_eq!(minutes(timers.of(&id)), Some(60));
}

/// Lets somebody else act between the setting of a timer and the writing of the head.
struct Meanwhile {
    timers: Arc<Timers>,
    store: tidegate_store::Store,
    delete: Mutex<Option<(TenantId, tidegate_model::WorkflowId)>>,
}

#[async_trait]
impl Scheduler for Meanwhile {
    async fn put(&self, timer: Timer) -> Result<(), PortError> {
        self.timers.put(timer).await?;
        let victim = self.delete.lock().unwrap().take();
        if let Some((tenant, id)) = victim {
            self.store.workflows().delete(tenant, id).await.unwrap();
        }
        Ok(())
    }

    async fn delete(&self, tenant: TenantId, name: &str) -> Result<(), PortError> {
        self.timers.delete(tenant, name).await
    }
}

#[tokio::test]
async fn no_timer_outlives_a_workflow_deleted_at_the_same_moment() {
    let (world, timers) = (World::new().await, Arc::new(Timers::default()));
    let delete = Mutex::default();
    let meanwhile = Arc::new(Meanwhile { timers: timers.clone(), store: world.store.clone(), delete });
    let setup = setup_with(world, meanwhile.clone()).await;
    let id = setup.workflow(&every("10m")).await;
    *meanwhile.delete.lock().unwrap() = Some((setup.owner.tenant, id.parse().unwrap()));
    let body = json!({"active": true});
    setup.app.put(&setup.owner, &format!("/api/workflows/{id}/toggle"), "*", &body).await.expect(409);
    assert_eq!(timers.of(&id), None);
}
