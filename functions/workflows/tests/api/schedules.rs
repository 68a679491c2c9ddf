//! The timers of workflows that a schedule starts, and what is left when setting one fails.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use http::Method;
use jiff::SignedDuration;
use serde_json::{Value, json};
use tidegate_model::{Recurrence, Rhythm, TenantId};
use tidegate_platform::scheduler::{Timer, TimerPage, When};
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

    async fn list(&self, _cursor: Option<&str>) -> Result<TimerPage, PortError> {
        Err(PortError::new("list timers", "nobody does so here"))
    }
}

async fn setup() -> (Setup, Arc<Timers>) {
    let timers = Arc::new(Timers::default());
    (setup_with(World::new().await, timers.clone()).await, timers)
}

fn recurrence(timer: Timer) -> Recurrence {
    let When::Recurring(recurrence) = timer.when else { panic!("a schedule fires again and again") };
    *recurrence
}

fn minutes(timer: Option<Timer>) -> Option<u32> {
    timer.map(|timer| match recurrence(timer).rhythm {
        Rhythm::Every { interval, .. } => interval.minutes(),
        Rhythm::Cron { .. } => panic!("it is an interval"),
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
    let created = setup.world.clock.now();
    let first = |minutes: i64| Some(created + SignedDuration::from_mins(minutes));
    let of_timer = |timer: Option<Timer>| recurrence(timer.unwrap()).next_after(created);
    assert_eq!(of_timer(Some(timer)), first(10));

    setup.world.clock.advance(std::time::Duration::from_secs(90));
    app.put(owner, &path, "*", &every("1h")).await.expect(200);
    assert_eq!(of_timer(timers.of(&id)), first(60), "saving doesn't put off the next run");
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

    async fn list(&self, cursor: Option<&str>) -> Result<TimerPage, PortError> {
        self.timers.list(cursor).await
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

/// The worker's reconciler removes a timer once that it finds set while the head doesn't want it yet.
struct Reconciling {
    timers: Arc<Timers>,
    removes: AtomicBool,
}

#[async_trait]
impl Scheduler for Reconciling {
    async fn put(&self, timer: Timer) -> Result<(), PortError> {
        let (tenant, name) = (timer.tenant, timer.name.clone());
        self.timers.put(timer).await?;
        if self.removes.swap(false, Ordering::SeqCst) {
            self.timers.delete(tenant, &name).await?;
        }
        Ok(())
    }

    async fn delete(&self, tenant: TenantId, name: &str) -> Result<(), PortError> {
        self.timers.delete(tenant, name).await
    }

    async fn list(&self, cursor: Option<&str>) -> Result<TimerPage, PortError> {
        self.timers.list(cursor).await
    }
}

#[tokio::test]
async fn a_timer_that_is_reconciled_away_before_its_head_is_written_is_set_once_more() {
    let timers = Arc::new(Timers::default());
    let reconciling = Arc::new(Reconciling { timers: timers.clone(), removes: AtomicBool::new(false) });
    let setup = setup_with(World::new().await, reconciling.clone()).await;
    let mut inactive = every("10m");
    inactive["active"] = json!(false);
    let id = setup.workflow(&inactive).await;
    reconciling.removes.store(true, Ordering::SeqCst);
    let body = json!({"active": true});
    setup.app.put(&setup.owner, &format!("/api/workflows/{id}/toggle"), "*", &body).await.expect(200);
    assert!(!reconciling.removes.load(Ordering::SeqCst), "it was removed");
    assert_eq!(minutes(timers.of(&id)), Some(10));
}

fn scheduled(trigger: Value) -> Value {
    let mut workflow = every("10m");
    workflow["trigger"] = trigger;
    workflow["trigger"]["type"] = json!("schedule");
    workflow
}

/// The clock stands at 2026-11-21T10:00:00Z, a Saturday.
#[tokio::test]
async fn a_workflow_tells_when_its_schedule_fires_next() {
    let (setup, timers) = setup().await;
    let (app, owner) = (&setup.app, &setup.owner);
    let trigger = json!({
        "cron": "30 2 * * mon-fri", "timezone": "Europe/Berlin", "jitter": "5m",
        "start": "2026-11-24T00:00:00Z", "end": "2026-11-26T01:30:00Z",
    });
    let created = app.post(owner, "/api/workflows", &scheduled(trigger.clone())).await.expect(201);
    let told = json!(["2026-11-24T01:30:00.000Z", "2026-11-25T01:30:00.000Z"]);
    assert_eq!(created.body["next_firings"], told, "there are no more before the end");
    let id = created.text("/id").to_owned();
    let path = format!("/api/workflows/{id}");
    let read = app.get(owner, &path).await;
    assert_eq!(read.body["next_firings"], told);
    let mut stored = read.body["trigger"].clone();
    assert_eq!(stored.as_object_mut().unwrap().shift_remove("type"), Some(json!("schedule")));
    assert_eq!(stored, trigger);
    let timer = recurrence(timers.of(&id).unwrap());
    assert_eq!(timer.firings_after(setup.world.clock.now()).count(), 2);
    assert_eq!(timer.jitter.map(|jitter| jitter.minutes()), Some(5));

    let replaced = app.put(owner, &path, "*", &scheduled(json!({"cron": "0 12 1 */2 *"}))).await.expect(200);
    assert_eq!(
        replaced.body["next_firings"],
        json!([
            "2027-01-01T12:00:00.000Z",
            "2027-03-01T12:00:00.000Z",
            "2027-05-01T12:00:00.000Z",
            "2027-07-01T12:00:00.000Z",
            "2027-09-01T12:00:00.000Z",
        ])
    );
    app.put(owner, &format!("{path}/toggle"), "*", &json!({"active": false})).await.expect(200);
    assert_eq!(app.get(owner, &path).await.body["next_firings"], Value::Null, "it is switched off");
    let by_webhook = setup.workflow(&by_webhook()).await;
    let read = app.get(owner, &format!("/api/workflows/{by_webhook}")).await;
    assert_eq!(read.body["next_firings"], Value::Null);
}

#[tokio::test]
async fn what_is_wrong_with_a_schedule_is_told_with_its_field() {
    let (setup, timers) = setup().await;
    for (trigger, pointer, told) in [
        (json!({"cron": "0 0 1 * 1"}), "/trigger/cron", "two workflows"),
        (json!({"cron": "@daily", "timezone": "Europe/Atlantis"}), "/trigger/timezone", "no time zone"),
        (json!({"every": "5m", "cron": "@daily"}), "/trigger", "remove one"),
        (json!({"every": "5m", "jitter": "5m"}), "/trigger/jitter", "at most 4m"),
        (json!({"every": "5m", "start": "tomorrow"}), "/trigger/start", ""),
        (
            json!({"every": "5m", "start": "2026-12-01T00:00:00Z", "end": "2026-11-01T00:00:00Z"}),
            "/trigger/end",
            "later than",
        ),
    ] {
        let refused = setup.app.post(&setup.owner, "/api/workflows", &scheduled(trigger.clone())).await.expect(422);
        let error = &refused.body["errors"][0];
        assert_eq!(error["pointer"], pointer, "{trigger}");
        assert!(error["detail"].as_str().unwrap().contains(told), "{trigger}: {error}");
    }
    assert!(timers.set.lock().unwrap().is_empty());
}
