//! Timers that were left behind, and those that were not.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::SignedDuration;
use serde_json::{Value, json};
use tidegate_model::{Message, ReconcileMessage, TenantId, Workflow, WorkflowId};
use tidegate_platform::PortError;
use tidegate_platform::scheduler::{EmbeddedScheduler, Scheduler, Timer, TimerPage, When, timer_of};
use tidegate_store::Store;
use tidegate_worker::{Source, Verdict};

use crate::world::{World, handle, message};

fn scheduled(definition: &mut Value) {
    definition["trigger"] = json!({"type": "schedule", "cron": "0 8 * * *", "timezone": "Europe/Berlin"});
}

async fn switch(store: &Store, tenant: TenantId, id: WorkflowId, active: bool) -> Workflow {
    let head = store.workflows().get(tenant, id).await.unwrap().unwrap();
    let after = Workflow { active, revision: head.revision + 1, ..head.clone() };
    store.workflows().replace(head.revision, &after, None).await.unwrap();
    after
}

/// A scheduled workflow, and the timer that it has while it is active.
async fn workflow(world: &World) -> (WorkflowId, Timer) {
    let id = world.workflow(1, scheduled).await;
    let head = world.store.workflows().get(world.tenant, id).await.unwrap().unwrap();
    (id, timer_of(&head).unwrap().unwrap())
}

async fn names(world: &World) -> BTreeSet<String> {
    let (mut names, mut cursor) = (BTreeSet::new(), None);
    loop {
        let page = world.queue.scheduler().list(cursor.as_deref()).await.unwrap();
        names.extend(page.timers.into_iter().map(|(_, name)| name));
        cursor = page.next_cursor;
        if cursor.is_none() {
            return names;
        }
    }
}

fn first_page() -> Message {
    Message::Reconcile(ReconcileMessage::default())
}

#[tokio::test]
async fn timers_that_no_workflow_wants_are_removed_and_all_others_stay() {
    let world = World::new().await;
    let scheduler = world.queue.scheduler();
    let mut kept = BTreeSet::new();
    for _ in 0..70 {
        let (active, timer) = workflow(&world).await;
        scheduler.put(timer.clone()).await.unwrap();
        kept.insert(active.to_string());

        let (off, timer) = workflow(&world).await;
        switch(&world.store, world.tenant, off, false).await;
        scheduler.put(timer).await.unwrap();
    }
    let (gone, timer) = workflow(&world).await;
    world.store.workflows().delete(world.tenant, gone).await.unwrap();
    scheduler.put(timer.clone()).await.unwrap();
    let by_webhook = world.workflow(1, |_| {}).await;
    scheduler.put(Timer { name: by_webhook.to_string(), ..timer.clone() }).await.unwrap();
    // Another tenant's timer of that name, whose workflow is none of its own.
    let (foreign, _) = workflow(&world).await;
    scheduler.put(Timer { tenant: world.ids.tenant(), name: foreign.to_string(), ..timer.clone() }).await.unwrap();
    let when = When::At(world.clock.now() + SignedDuration::from_hours(100));
    let wake = format!("{}-1", world.ids.run(world.tenant));
    scheduler.put(Timer { name: wake.clone(), when, ..timer }).await.unwrap();
    kept.insert(wake);

    world.send(&first_page()).await;
    assert!(!world.work(&world.worker("here")).await);
    assert_eq!(names(&world).await, kept);
    let depth = world.queue.depth().await.unwrap();
    assert_eq!((depth.visible, depth.in_flight, depth.dead), (0, 0, 0));
}

/// Somebody switches the workflow on at the moment in which its timer is removed.
struct Meanwhile {
    port: EmbeddedScheduler,
    store: Store,
}

#[async_trait]
impl Scheduler for Meanwhile {
    async fn put(&self, timer: Timer) -> Result<(), PortError> {
        self.port.put(timer).await
    }

    async fn delete(&self, tenant: TenantId, name: &str) -> Result<(), PortError> {
        let head = switch(&self.store, tenant, name.parse().unwrap(), true).await;
        self.port.put(timer_of(&head)?.unwrap()).await?;
        self.port.delete(tenant, name).await
    }

    async fn list(&self, cursor: Option<&str>) -> Result<TimerPage, PortError> {
        self.port.list(cursor).await
    }
}

#[tokio::test]
async fn a_workflow_that_is_switched_on_meanwhile_keeps_its_timer() {
    let world = World::new().await;
    let (id, timer) = workflow(&world).await;
    switch(&world.store, world.tenant, id, false).await;
    world.queue.scheduler().put(timer).await.unwrap();
    let mut worker = world.worker("here");
    worker.scheduler = Arc::new(Meanwhile { port: world.queue.scheduler(), store: world.store.clone() });
    assert_eq!(handle(&worker, &message(&first_page()), Source::Runs).await, Verdict::Delete);
    assert_eq!(names(&world).await, BTreeSet::from([id.to_string()]));
}

#[tokio::test]
async fn a_page_that_can_t_be_had_is_tried_again_and_given_up_as_a_dead_letter() {
    let world = World::new().await;
    let worker = world.worker("here");
    let lost = Message::Reconcile(ReconcileMessage { cursor: Some("of another scheduler".to_owned()) });
    assert!(matches!(handle(&worker, &message(&lost), Source::Runs).await, Verdict::Keep { .. }));
    assert_eq!(handle(&worker, &message(&lost), Source::DeadLetters).await, Verdict::Delete);
}
