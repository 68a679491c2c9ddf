//! The table of ADR 1, cell by cell, and every death between two writes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batch;
mod blast;
mod graph;
mod keys;
mod reconcile;
mod world;

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_model::{
    BlobRef, Connection, Entry, ErrorCode, Event, Message, Payload, RunDetail, RunRow, RunStatus, ScheduleMessage,
    StartMessage, StepRecord, Tenant, TenantStatus,
};
use tidegate_platform::Blobs;
use tidegate_platform::queue::Queue;
use tidegate_platform::scheduler::{SCHEDULED_TIME, Scheduler, Timer};
use tidegate_store::{JournalItem, StoredRun};
use tidegate_worker::{Settings, Source, Verdict};
use wiremock::ResponseTemplate;
use world::{TRACEPARENT, VISIBILITY, World, every_minute, handle, message, seconds_until, wake};

async fn detail(world: &World, stored: &StoredRun) -> RunDetail {
    let value = match stored.detail.clone().unwrap() {
        Payload::Inline(value) => value,
        Payload::Blob(blob) => serde_json::from_slice(&world.blobs.get(&blob.key).await.unwrap().unwrap()).unwrap(),
    };
    serde_json::from_value(value).unwrap()
}

async fn steps(world: &World, stored: &StoredRun) -> Vec<StepRecord> {
    detail(world, stored).await.steps
}

#[tokio::test]
async fn no_row_and_start_is_claimed_and_executed_in_two_writes_and_no_read() {
    let world = World::new().await;
    let worker = world.worker("here");
    let workflow = world.workflow(1, |_| {}).await;
    let warm_up = world.start(workflow);
    assert_eq!(handle(&worker, &message(&Message::Start(Box::new(warm_up))), Source::Runs).await, Verdict::Delete);

    let before: HashMap<_, _> = world.store_calls().into_iter().collect();
    let start = world.start(workflow);
    let verdict = handle(&worker, &message(&Message::Start(Box::new(start.clone()))), Source::Runs).await;
    assert_eq!(verdict, Verdict::Delete);
    let calls: HashMap<_, _> = world
        .store_calls()
        .into_iter()
        .map(|(operation, count)| (operation.clone(), count - before.get(&operation).copied().unwrap_or(0)))
        .filter(|(_, count)| *count > 0)
        .collect();
    assert_eq!(calls, HashMap::from([("PutItem".to_owned(), 2)]));

    let stored = world.stored(start.run_id).await.unwrap();
    assert_eq!((stored.row.status, stored.row.fence), (RunStatus::Succeeded, 1));
    let steps = steps(&world, &stored).await;
    assert_eq!(steps[0].attempts.len(), 1);
    assert_eq!(
        steps[0].input.as_ref().map(|input| matches!(input, Payload::Inline(v) if v["json"] == json!({"n": 1}))),
        Some(true)
    );
    let request = world.target.received_requests().await.unwrap().pop().unwrap();
    let traceparent = request.headers["traceparent"].to_str().unwrap();
    assert_eq!(traceparent[..36], TRACEPARENT[..36], "the run's trace goes on");
    assert_ne!(traceparent, TRACEPARENT, "in a span of its own");
}

#[tokio::test]
async fn no_row_and_wake_is_deleted() {
    let world = World::new().await;
    let workflow = world.workflow(1, |_| {}).await;
    let row = world.row(&world.start(workflow), RunStatus::Waiting);
    assert_eq!(handle(&world.worker("here"), &message(&wake(&row, 1)), Source::Runs).await, Verdict::Delete);
    assert!(world.stored(row.id).await.is_none());
    assert!(world.calls().await.is_empty());
}

#[tokio::test]
async fn running_with_a_lease_that_is_over_is_resumed_without_repeating_a_journalled_step() {
    for by_wake in [false, true] {
        let world = World::new().await;
        let workflow = world.workflow(2, |_| {}).await;
        let start = world.start(workflow);
        let row = world.row(&start, RunStatus::Running);
        world.store.runs().create(&row, None).await.unwrap();
        let at = world.clock.now();
        let entry = |step: &str, event: Event| Entry { step: step.to_owned(), item: None, attempt: 1, at, event };
        let started = |step| entry(step, Event::Started { input: Payload::Inline(json!({"method": "POST"})) });
        let output = Payload::Inline(json!({"status": 200}));
        let item = JournalItem {
            input: Some(start.trigger.clone()),
            entries: vec![started("a"), entry("a", Event::Succeeded { output, outlet: None }), started("b")],
        };
        world.store.runs().append_journal(world.tenant, row.id, 0, &item, at).await.unwrap();

        world.clock.advance(Duration::from_secs(101));
        let worker = world.worker_with(Settings::new("here", false));
        let incoming = if by_wake { wake(&row, 0) } else { Message::Start(Box::new(start.clone())) };
        assert_eq!(handle(&worker, &message(&incoming), Source::Runs).await, Verdict::Delete);

        let stored = world.stored(row.id).await.unwrap();
        assert_eq!((stored.row.status, stored.row.fence, stored.row.claims), (RunStatus::Succeeded, 2, 1));
        assert_eq!(world.calls().await, [("/b".to_owned(), format!("{}:b", row.id))]);
        let steps = steps(&world, &stored).await;
        assert!(steps[1].attempts[0].interrupted && !steps[1].attempts[1].interrupted);
    }
}

#[tokio::test]
async fn a_call_in_doubt_fails_the_step_that_says_so() {
    let world = World::new().await;
    let workflow = world.workflow(2, |definition| definition["steps"][0]["on_interrupted"] = json!("fail")).await;
    let start = world.start(workflow);
    world.store.runs().create(&world.row(&start, RunStatus::Running), None).await.unwrap();
    let incoming = message(&Message::Start(Box::new(start.clone())));
    assert_eq!(handle(&world.worker("here"), &incoming, Source::Runs).await, Verdict::Delete);
    let stored = world.stored(start.run_id).await.unwrap();
    assert_eq!(stored.row.error.map(|error| error.code), Some(ErrorCode::Interrupted));
    assert!(world.calls().await.is_empty());
}

/// The message of a run whose worker died comes again when all of the `execution_timeout` may be over: with AWS's
/// settings and the default one, every run of a batch that one of them killed was stopped.
#[tokio::test]
async fn the_time_that_a_death_takes_is_not_the_runs() {
    for (delay_s, outcome) in [(200, RunStatus::Succeeded), (310, RunStatus::TimedOut)] {
        let world = World::new().await;
        let workflow = world
            .workflow(1, |definition| {
                definition["steps"][0]["timeout_ms"] = json!(1_000);
                let delay_ms = delay_s * 1_000;
                definition["steps"][0]["retry"] = json!({"initial_delay_ms": delay_ms, "max_delay_ms": delay_ms});
            })
            .await;
        let start = world.start(workflow);
        world.store.runs().create(&world.row(&start, RunStatus::Running), None).await.unwrap();
        world.clock.advance(VISIBILITY);
        world.send(&Message::Start(Box::new(start.clone()))).await;
        let answer = ResponseTemplate::new(503).insert_header("retry-after", delay_s.to_string());
        world.answers(answer).await;
        let worker = world.worker_with(Settings { in_place: Duration::ZERO, ..Settings::new("here", false) });
        assert!(!world.work(&worker).await);
        assert_eq!(world.status(start.run_id).await, Some(RunStatus::Waiting), "also once it was parked");
        world.answers(ResponseTemplate::new(200)).await;
        world.work_to_the_end(&worker).await;
        assert_eq!(world.status(start.run_id).await, Some(outcome), "after {delay_s} s of its own");
    }
}

#[tokio::test]
async fn five_claims_without_progress_are_the_last() {
    let world = World::new().await;
    let workflow = world.workflow(1, |_| {}).await;
    let start = world.start(workflow);
    let row = RunRow { claims: 5, fence: 5, ..world.row(&start, RunStatus::Running) };
    world.store.runs().create(&row, None).await.unwrap();
    let incoming = message(&Message::Start(Box::new(start.clone())));
    assert_eq!(handle(&world.worker("here"), &incoming, Source::Runs).await, Verdict::Delete);
    let stored = world.stored(row.id).await.unwrap();
    assert_eq!(stored.row.status, RunStatus::Failed);
    assert_eq!(stored.row.error.as_ref().map(|error| error.code), Some(ErrorCode::WorkerCrashed));
    assert_eq!(steps(&world, &stored).await[0].status, RunStatus::Skipped);
    assert!(world.calls().await.is_empty());
}

#[tokio::test]
async fn running_with_a_lease_that_is_held_is_left_alone_until_its_end() {
    let world = World::new().await;
    let workflow = world.workflow(1, |_| {}).await;
    let start = world.start(workflow);
    let row = world.row(&start, RunStatus::Running);
    world.store.runs().create(&row, None).await.unwrap();
    let worker = world.worker_with(Settings::new("here", false));
    for incoming in [Message::Start(Box::new(start.clone())), wake(&row, 0), wake(&row, 1)] {
        for source in [Source::Runs, Source::DeadLetters] {
            let verdict = handle(&worker, &message(&incoming), source).await;
            assert_eq!(verdict, Verdict::Keep { visible_in: Duration::from_secs(100) });
        }
    }
    assert_eq!(world.stored(row.id).await.unwrap().row, row);
    assert!(world.calls().await.is_empty());
}

#[tokio::test]
async fn a_sole_process_voids_the_leases_of_others_but_not_its_own() {
    let world = World::new().await;
    let workflow = world.workflow(1, |_| {}).await;
    let start = world.start(workflow);
    let row = RunRow { lease_owner: "here/7".to_owned(), ..world.row(&start, RunStatus::Running) };
    world.store.runs().create(&row, None).await.unwrap();
    let incoming = message(&Message::Start(Box::new(start.clone())));
    let held = Verdict::Keep { visible_in: Duration::from_secs(100) };
    assert_eq!(handle(&world.worker("here"), &incoming, Source::Runs).await, held);
    assert_eq!(handle(&world.worker("restarted"), &incoming, Source::Runs).await, Verdict::Delete);
    assert_eq!(world.status(row.id).await, Some(RunStatus::Succeeded));
}

/// Runs a workflow whose target answers 503 until its run waits, and gives its row.
async fn waiting(world: &World) -> (Message, RunRow) {
    let workflow = world.workflow(2, |definition| {
        definition["execution_timeout"] = json!(100_000);
        definition["steps"][0]["retry"] =
            json!({"max_attempts": 9, "initial_delay_ms": 600_000, "max_delay_ms": 600_000});
    });
    let start = world.start(workflow.await);
    world.answers(ResponseTemplate::new(503)).await;
    let message_body = Message::Start(Box::new(start.clone()));
    assert_eq!(handle(&world.worker("here"), &message(&message_body), Source::Runs).await, Verdict::Delete);
    let row = world.stored(start.run_id).await.unwrap().row;
    assert_eq!((row.status, row.wake), (RunStatus::Waiting, 1));
    world.answers(ResponseTemplate::new(200)).await;
    (message_body, row)
}

#[tokio::test]
async fn waiting_is_resumed_by_its_own_wake_only() {
    let world = World::new().await;
    let (start, row) = waiting(&world).await;
    let worker = world.worker("here");
    assert_eq!(world.queue.depth().await.unwrap().delayed, 1, "parking arms the wake");
    assert!(seconds_until(row.wake_at.unwrap(), &world.clock) <= 600);

    for other in [start, wake(&row, 0), wake(&row, 2)] {
        for source in [Source::Runs, Source::DeadLetters] {
            let armed = world.queue.depth().await.unwrap().delayed;
            assert_eq!(handle(&worker, &message(&other), source).await, Verdict::Delete);
            assert_eq!(world.queue.depth().await.unwrap().delayed, armed + 1, "it is armed again");
            assert_eq!(world.stored(row.id).await.unwrap().row, row);
        }
    }
    assert!(world.calls().await.is_empty());

    world.clock.advance(Duration::from_secs(600));
    assert_eq!(handle(&worker, &message(&wake(&row, 1)), Source::Runs).await, Verdict::Delete);
    let stored = world.stored(row.id).await.unwrap();
    assert_eq!((stored.row.status, stored.row.fence), (RunStatus::Succeeded, 2));
    let steps = steps(&world, &stored).await;
    assert_eq!(steps[0].attempts.len(), 2);
    assert_eq!(detail(&world, &stored).await.trigger.unwrap().body, Payload::Inline(json!({"n": 1})));
}

#[tokio::test]
async fn a_wait_beyond_the_queues_longest_delay_is_a_one_time_schedule() {
    let world = World::new().await;
    let workflow = world.workflow(1, |definition| definition["execution_timeout"] = json!(100_000)).await;
    world.answers(ResponseTemplate::new(429).insert_header("retry-after", "7200")).await;
    world.send(&Message::Start(Box::new(world.start(workflow)))).await;
    let worker = world.worker("here");
    assert!(!world.work(&worker).await);
    let depth = world.queue.depth().await.unwrap();
    assert_eq!(depth.visible + depth.delayed + depth.in_flight, 0);
    world.answers(ResponseTemplate::new(200)).await;
    world.clock.advance(Duration::from_secs(7_199));
    assert!(!world.work(&worker).await);
    assert!(world.calls().await.is_empty());
    world.clock.advance(Duration::from_secs(2));
    assert!(!world.work(&worker).await);
    assert_eq!(world.calls().await.len(), 1);
}

#[tokio::test]
async fn a_final_row_ends_every_message() {
    let world = World::new().await;
    let workflow = world.workflow(1, |_| {}).await;
    for status in [RunStatus::Succeeded, RunStatus::Failed, RunStatus::Cancelled, RunStatus::TimedOut] {
        let start = world.start(workflow);
        let row = world.row(&start, status);
        world.store.runs().create(&row, None).await.unwrap();
        for incoming in [Message::Start(Box::new(start.clone())), wake(&row, 0), wake(&row, 1)] {
            for source in [Source::Runs, Source::DeadLetters] {
                assert_eq!(handle(&world.worker("here"), &message(&incoming), source).await, Verdict::Delete);
            }
        }
        assert_eq!(world.stored(row.id).await.unwrap().row, row);
    }
    assert!(world.calls().await.is_empty());
}

#[tokio::test]
async fn a_dead_letter_without_a_row_is_kept_and_its_run_failed() {
    let world = World::new().await;
    let workflow = world.workflow(1, |_| {}).await;
    let start = world.start(workflow);
    let incoming = message(&Message::Start(Box::new(start.clone())));
    let worker = world.worker("here");
    assert_eq!(handle(&worker, &incoming, Source::DeadLetters).await, Verdict::Delete);
    let stored = world.stored(start.run_id).await.unwrap();
    let error = stored.row.error.clone().unwrap();
    assert_eq!((stored.row.status, error.code), (RunStatus::Failed, ErrorCode::DeadLettered));
    let key = error.message.rsplit(' ').next().unwrap();
    assert_eq!(world.blobs.get(key).await.unwrap().unwrap(), incoming.body.as_bytes());
    assert_eq!(handle(&worker, &incoming, Source::Runs).await, Verdict::Delete, "the queue's copy changes nothing");
    assert!(world.calls().await.is_empty());
}

#[tokio::test]
async fn a_dead_letter_of_a_run_that_can_go_on_resumes_it() {
    let world = World::new().await;
    let workflow = world.workflow(1, |_| {}).await;
    let start = world.start(workflow);
    world.store.runs().create(&world.row(&start, RunStatus::Running), None).await.unwrap();
    let incoming = message(&Message::Start(Box::new(start.clone())));
    assert_eq!(handle(&world.worker("here"), &incoming, Source::DeadLetters).await, Verdict::Delete);
    assert_eq!(world.status(start.run_id).await, Some(RunStatus::Succeeded));
}

#[tokio::test]
async fn what_is_no_message_goes_to_the_dead_letters_and_is_kept_there() {
    let world = World::new().await;
    let mut incoming = message(&wake(&world.row(&world.start(world.ids.workflow()), RunStatus::Running), 1));
    incoming.body = "{not a message".to_owned();
    let worker = world.worker("here");
    assert!(matches!(handle(&worker, &incoming, Source::Runs).await, Verdict::Keep { .. }));
    assert_eq!(handle(&worker, &incoming, Source::DeadLetters).await, Verdict::Delete);
}

#[tokio::test]
async fn a_firing_is_one_run_and_none_once_its_workflow_is_switched_off() {
    let world = World::new().await;
    world.make_tenant().await;
    let workflow = world
        .workflow(1, |definition| {
            definition["trigger"] = json!({"type": "schedule", "every": "10m"});
            definition["steps"][0]["with"]["json"] = json!({"at": "{{ trigger.body.scheduled_time }}"});
        })
        .await;
    let worker = world.worker("here");
    let firing = Message::Schedule(ScheduleMessage {
        tenant_id: world.tenant,
        workflow_id: workflow,
        scheduled_time: "2026-11-21T10:00:00Z".to_owned(),
    });
    for _ in 0..2 {
        assert_eq!(handle(&worker, &message(&firing), Source::Runs).await, Verdict::Delete);
    }
    let requests = world.target.received_requests().await.unwrap();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].body_json::<Value>().unwrap(), json!({"at": "2026-11-21T10:00:00Z"}));

    let head = world.store.workflows().get(world.tenant, workflow).await.unwrap().unwrap();
    let off = tidegate_model::Workflow { active: false, revision: head.revision + 1, ..head.clone() };
    world.store.workflows().replace(head.revision, &off, None).await.unwrap();
    let later = Message::Schedule(ScheduleMessage {
        tenant_id: world.tenant,
        workflow_id: workflow,
        scheduled_time: "2026-11-21T10:10:00Z".to_owned(),
    });
    assert_eq!(handle(&worker, &message(&later), Source::Runs).await, Verdict::Delete);
    assert_eq!(world.calls().await.len(), 1);
}

/// In a process that knows the tenant already.
#[tokio::test]
async fn a_suspended_tenants_schedules_start_nothing_but_what_was_accepted_goes_on() {
    let world = World::new().await;
    world.make_tenant().await;
    let workflow = world
        .workflow(1, |definition| {
            definition["trigger"] = json!({"type": "schedule", "every": "10m"});
            definition["steps"][0]["with"]["json"] = json!({});
        })
        .await;
    let worker = world.worker("here");
    let fire = async |scheduled_time: &str| {
        let scheduled_time = scheduled_time.to_owned();
        let firing = ScheduleMessage { tenant_id: world.tenant, workflow_id: workflow, scheduled_time };
        let verdict = handle(&worker, &message(&Message::Schedule(firing)), Source::Runs).await;
        assert_eq!(verdict, Verdict::Delete);
        world.calls().await.len()
    };
    let switch = async |status: TenantStatus| {
        let before = world.store.tenants().get(world.tenant).await.unwrap().unwrap();
        let after = Tenant { status, revision: before.revision + 1, ..before };
        world.store.tenants().replace(&after).await.unwrap();
        world.clock.advance(Duration::from_secs(5));
    };
    world.answers(ResponseTemplate::new(200)).await;
    assert_eq!(fire("2026-11-21T10:00:00Z").await, 1);

    switch(TenantStatus::Suspended).await;
    assert_eq!(fire("2026-11-21T10:10:00Z").await, 1);
    let accepted = world.start(world.workflow(1, |_| ()).await);
    world.send(&Message::Start(Box::new(accepted.clone()))).await;
    world.work_to_the_end(&worker).await;
    assert_eq!(world.status(accepted.run_id).await, Some(RunStatus::Succeeded));
    assert_eq!(world.calls().await.len(), 2);

    switch(TenantStatus::Active).await;
    assert_eq!(fire("2026-11-21T10:20:00Z").await, 3);
}

#[tokio::test]
async fn a_run_without_time_for_its_next_call_goes_on_by_a_message_to_itself() {
    let world = World::new().await;
    let workflow = world.workflow(2, |_| {}).await;
    let start = world.start(workflow);
    world.send(&Message::Start(Box::new(start.clone()))).await;
    // A step may take 30 s and 2 s are kept for writing: after the first call there is no time for the second.
    world.answers(ResponseTemplate::new(200).set_delay(Duration::from_millis(1_200))).await;
    let hurried =
        world.worker_with(Settings { worker_timeout: Duration::from_secs(33), ..Settings::new("here", true) });
    let received = world.queue.receive(1, Duration::ZERO).await.unwrap();
    assert_eq!(handle(&hurried, &received[0], Source::Runs).await, Verdict::Delete);
    world.queue.delete(&received[0].receipt).await.unwrap();
    assert_eq!(world.status(start.run_id).await, Some(RunStatus::Waiting));
    world.work_to_the_end(&world.worker("here")).await;
    assert_eq!(world.status(start.run_id).await, Some(RunStatus::Succeeded));
    let paths: Vec<_> = world.calls().await.into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["/a", "/b"]);
}

#[tokio::test]
async fn a_call_that_no_invocation_has_time_for_fails_its_step() {
    let world = World::new().await;
    let workflow = world.workflow(1, |_| {}).await;
    let start = world.start(workflow);
    let hurried =
        world.worker_with(Settings { worker_timeout: Duration::from_secs(31), ..Settings::new("here", true) });
    let incoming = message(&Message::Start(Box::new(start.clone())));
    assert_eq!(handle(&hurried, &incoming, Source::Runs).await, Verdict::Delete);
    let stored = world.stored(start.run_id).await.unwrap();
    assert_eq!(stored.row.error.map(|error| error.code), Some(ErrorCode::StepTimeout));
    assert!(world.calls().await.is_empty());
}

#[tokio::test]
async fn large_values_go_through_blobs_and_expire_with_the_run() {
    let world = World::new().await;
    let workflow = world
        .workflow(2, |definition| {
            definition["steps"][0]["with"]["json"] = json!("{{ trigger.body }}");
            definition["steps"][1]["with"]["json"] = json!({"back": "{{ steps.a.output.body.text }}"});
        })
        .await;
    let text = "x".repeat(20_000);
    world.answers(ResponseTemplate::new(200).set_body_json(json!({"text": text}))).await;
    let mut start = world.start(workflow);
    let key = format!("live/{}/{}/input", world.tenant, start.run_id);
    let body = serde_json::to_vec(&json!({"text": text})).unwrap();
    let bytes = body.len() as u64;
    world.blobs.put(&key, body.into()).await.unwrap();
    start.trigger.body = Payload::Blob(tidegate_model::BlobRef { key: key.clone(), bytes });
    let incoming = message(&Message::Start(Box::new(start.clone())));
    assert_eq!(handle(&world.worker("here"), &incoming, Source::Runs).await, Verdict::Delete);

    let stored = world.stored(start.run_id).await.unwrap();
    assert_eq!(stored.row.status, RunStatus::Succeeded, "{:?}", stored.row.error);
    let requests = world.target.received_requests().await.unwrap();
    assert_eq!(requests[1].body_json::<Value>().unwrap(), json!({"back": text}));
    let detail = detail(&world, &stored).await;
    let trigger = detail.trigger.unwrap();
    let steps = detail.steps;
    for payload in [&trigger.body, steps[0].input.as_ref().unwrap(), steps[0].output.as_ref().unwrap()] {
        let Payload::Blob(blob) = payload else { panic!("expected a blob, not {payload:?}") };
        assert!(blob.key.starts_with("kept/"), "{}", blob.key);
        assert!(world.blobs.get(&blob.key).await.unwrap().is_some());
    }
    assert!(world.blobs.get(&key).await.unwrap().is_none());
}

#[tokio::test]
async fn a_fault_that_is_not_the_runs_is_neither_counted_nor_a_doubt() {
    let world = World::new().await;
    let now = world.clock.now();
    let connection = Connection {
        id: world.ids.connection(),
        tenant: world.tenant,
        name: "Slack".to_owned(),
        connector: "http".to_owned(),
        publisher: tidegate_model::Publisher::Builtin,
        auth: "bearer".to_owned(),
        settings: serde_json::Map::new(),
        hosts: vec![world.target.address().to_string()],
        placement: crate::world::bearer_placement(),
        oauth: None,
        health: tidegate_model::Health::default(),
        data_key: 1,
        sealed: String::new(),
        created_by: None,
        created_at: now,
    };
    world.store.connections().create(&connection).await.unwrap();
    let workflow = world.workflow(1, |definition| {
        definition["steps"][0]["connection"] = json!(connection.id);
        definition["steps"][0]["on_interrupted"] = json!("fail");
    });
    let start = world.start(workflow.await);
    let worker = world.worker("here");
    let mut incoming = message(&Message::Start(Box::new(start.clone())));
    let mut waits = Vec::new();
    for receive_count in 1..=10 {
        incoming.receive_count = receive_count;
        let Verdict::Keep { visible_in } = handle(&worker, &incoming, Source::Runs).await else {
            panic!("the tenant's row is missing, so nothing can be done")
        };
        waits.push(visible_in.as_secs());
        assert_eq!(world.status(start.run_id).await, Some(RunStatus::Running));
    }
    assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 900, 900]);

    world.make_tenant().await;
    // That there was no tenant is remembered as long as a tenant is.
    world.clock.advance(Duration::from_secs(5));
    assert_eq!(handle(&worker, &incoming, Source::Runs).await, Verdict::Delete);
    let stored = world.stored(start.run_id).await.unwrap();
    let record = &steps(&world, &stored).await[0];
    assert_eq!(record.attempts.len(), 1, "{record:?}");
    assert_eq!(record.error.as_ref().map(|error| error.code), Some(ErrorCode::ConnectionUnusable), "it does not open");
}

#[tokio::test]
async fn a_worker_that_wakes_up_after_its_lease_begins_nothing_more() {
    let world = World::new().await;
    let workflow = world.workflow(2, |definition| definition["execution_timeout"] = json!(100_000)).await;
    let start = world.start(workflow);
    let incoming = message(&Message::Start(Box::new(start.clone())));
    world.answers(ResponseTemplate::new(200).set_delay(Duration::from_secs(1))).await;
    let [late, next] = ["late", "next"].map(|process| world.worker_with(Settings::new(process, false)));
    let late_message = incoming.clone();
    let late = tokio::spawn(async move { handle(&late, &late_message, Source::Runs).await });
    while world.calls().await.is_empty() {
        tokio::task::yield_now().await;
    }
    world.clock.advance(Duration::from_secs(400));
    assert_eq!(handle(&next, &incoming, Source::Runs).await, Verdict::Delete);
    assert!(matches!(late.await.unwrap(), Verdict::Keep { .. }));

    let stored = world.stored(start.run_id).await.unwrap();
    assert_eq!((stored.row.status, stored.row.fence), (RunStatus::Succeeded, 2));
    let mut paths: Vec<_> = world.calls().await.into_iter().map(|(path, _)| path).collect();
    paths.sort();
    assert_eq!(paths, ["/a", "/a", "/b"], "the call that was in flight is repeated, and no other");
}

#[tokio::test]
async fn a_run_whose_input_is_gone_ends() {
    let world = World::new().await;
    let workflow = world.workflow(1, |_| {}).await;
    let mut start = world.start(workflow);
    let key = format!("live/{}/{}/input", world.tenant, start.run_id);
    start.trigger.body = Payload::Blob(tidegate_model::BlobRef { key, bytes: 10_000 });
    let incoming = message(&Message::Start(Box::new(start.clone())));
    assert_eq!(handle(&world.worker("here"), &incoming, Source::Runs).await, Verdict::Delete);
    let stored = world.stored(start.run_id).await.unwrap();
    assert_eq!(stored.row.error.map(|error| error.code), Some(ErrorCode::Internal));
}

#[tokio::test]
async fn a_firing_of_a_workflow_that_is_not_scheduled_ends_its_timer() {
    let world = World::new().await;
    let workflow = world.workflow(1, |_| {}).await;
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
    let worker = world.worker("here");
    for _ in 0..3 {
        world.clock.advance(Duration::from_secs(60));
        assert!(!world.work(&worker).await);
    }
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(world.queue.depth().await.unwrap().visible, 0);
    assert!(world.calls().await.is_empty());
}

/// A worker dies after every number of writes, and then its successor after as many; the third one lives.
#[tokio::test]
async fn whichever_write_is_the_last_the_run_ends_once_and_repeats_only_what_was_in_flight() {
    let mut deaths = Vec::new();
    for writes in 0..40 {
        let world = World::new().await;
        let workflow = world
            .workflow(3, |definition| {
                definition["execution_timeout"] = json!(100_000);
                definition["steps"][1]["retry"] = json!({"initial_delay_ms": 60_000, "max_delay_ms": 60_000});
            })
            .await;
        let start = world.start(workflow);
        world.send(&Message::Start(Box::new(start.clone()))).await;
        world.answers(ResponseTemplate::new(200).set_body_string("x".repeat(10_000))).await;
        for process in ["first", "second"] {
            world.life.dies_after(writes);
            let worker = world.worker(process);
            for _ in 0..3 {
                if world.work(&worker).await {
                    deaths.push((process, writes));
                    break;
                }
                world.clock.advance(Duration::from_secs(60));
            }
            world.life.revive();
        }
        world.work_to_the_end(&world.worker("third")).await;

        let stored = world.stored(start.run_id).await.unwrap();
        assert_eq!(stored.row.status, RunStatus::Succeeded, "dying after {writes} writes: {:?}", stored.row.error);
        let records = steps(&world, &stored).await;
        let mut calls: HashMap<String, u32> = HashMap::new();
        for (path, key) in world.calls().await {
            assert_eq!(key, format!("{}:{}", start.run_id, &path[1..]));
            *calls.entry(path).or_default() += 1;
        }
        for record in records {
            let made = calls[&format!("/{}", record.id)];
            let interrupted = record.attempts.iter().filter(|attempt| attempt.interrupted).count();
            assert!(
                made as usize <= 1 + interrupted,
                "dying after {writes} writes: {} was called {made} times",
                record.id
            );
        }
    }
    let last = |process| deaths.iter().filter(|(of, _)| *of == process).map(|(_, writes)| *writes).max();
    assert!(last("first").is_some_and(|writes| (8..39).contains(&writes)), "{deaths:?}");
    assert!(last("second").is_some(), "{deaths:?}");
}

/// A delivery that came again brought its body under a name of its own, which nothing else would remove.
#[tokio::test]
async fn what_a_repeated_delivery_brought_goes_and_the_runs_own_stays() {
    let world = World::new().await;
    let worker = world.worker("here");
    let workflow = world.workflow(1, |_| {}).await;
    let mut first = world.start(workflow);
    let brought = async |start: &mut StartMessage, name: &str| {
        let key = format!("live/{}/{}/{name}", start.tenant_id, start.run_id);
        let text = json!({"n": 1, "more": "x".repeat(9_000)}).to_string();
        start.trigger.body = Payload::Blob(BlobRef { key: key.clone(), bytes: text.len() as u64 });
        world.blobs.put(&key, text.into()).await.unwrap();
        key
    };
    let own = brought(&mut first, "input-1").await;
    let handled = async |start: &StartMessage| {
        let message = message(&Message::Start(Box::new(start.clone())));
        handle(&worker, &message, Source::Runs).await
    };
    assert_eq!(handled(&first).await, Verdict::Delete);
    let kept = own.replacen("live/", "kept/", 1);
    assert!(world.blobs.get(&kept).await.unwrap().is_some(), "the record has it");
    let mut again = first.clone();
    let other = brought(&mut again, "input-2").await;
    for start in [&again, &first] {
        assert_eq!(handled(start).await, Verdict::Delete);
    }
    assert_eq!(world.blobs.get(&other).await.unwrap(), None);
    assert!(world.blobs.get(&kept).await.unwrap().is_some());

    // While it waits its own one is needed.
    let mut waiting = world.start(workflow);
    let own = brought(&mut waiting, "input-1").await;
    let row = world.row(&waiting, RunStatus::Waiting);
    world.store.runs().create(&row, None).await.unwrap();
    let item = JournalItem { input: Some(waiting.trigger.clone()), entries: Vec::new() };
    world.store.runs().append_journal(row.tenant, row.id, 0, &item, row.started_at).await.unwrap();
    let mut again = waiting.clone();
    let other = brought(&mut again, "input-2").await;
    for start in [&again, &waiting] {
        assert_eq!(handled(start).await, Verdict::Delete);
    }
    assert_eq!(world.blobs.get(&other).await.unwrap(), None);
    assert!(world.blobs.get(&own).await.unwrap().is_some());
}
