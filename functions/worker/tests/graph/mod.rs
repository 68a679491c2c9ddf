//! Runs that are more than a line of calls: parallel branches, lists, people, other workflows, cancelling.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_model::{
    Decided, ErrorCode, Message, Payload, RunId, RunRow, RunStatus, StartMessage, TriggerKind, WorkflowId,
};
use tidegate_platform::queue::Queue;
use tidegate_store::Cancel;
use tidegate_worker::{Settings, Source, Verdict, handle_batch};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Barrier;
use wiremock::ResponseTemplate;

use crate::world::{World, handle, message, wake};
use crate::{detail, steps};

fn post(world: &World, id: &str, after: Option<Value>) -> Value {
    let mut step = json!({
        "id": id, "uses": "http.request",
        "with": {"method": "POST", "url": format!("{}/{id}", world.target.uri()), "json": {}},
    });
    if let Some(after) = after {
        step["after"] = after;
    }
    step
}

/// A workflow of these steps that may take a year.
async fn workflow(world: &World, steps: Value) -> WorkflowId {
    workflow_with(world, steps, |_| {}).await
}

async fn workflow_with(world: &World, steps: Value, change: impl FnOnce(&mut Value)) -> WorkflowId {
    let change = |definition: &mut Value| {
        definition["steps"] = steps;
        definition["execution_timeout"] = json!(31_000_000);
        change(definition);
    };
    world.workflow(1, change).await
}

async fn run(world: &World, workflow: WorkflowId) -> StartMessage {
    let start = world.start(workflow);
    world.send(&Message::Start(Box::new(start.clone()))).await;
    world.work(&world.worker("here")).await;
    start
}

async fn row(world: &World, run: RunId) -> RunRow {
    world.stored(run).await.unwrap().row
}

/// The runs of a workflow, by their rows.
async fn runs_of(world: &World, workflow: WorkflowId) -> Vec<RunRow> {
    let filter = tidegate_store::RunFilter { workflow: Some(workflow), ..Default::default() };
    world.store.runs().list(world.tenant, &filter, None, 100).await.unwrap().items
}

/// A target that answers once four requests are there; its address.
async fn answers_four_together() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let together = Arc::new(Barrier::new(4));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let together = Arc::clone(&together);
            tokio::spawn(async move {
                let mut request = [0; 4_096];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                together.wait().await;
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
            });
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn branches_and_items_are_called_at_the_same_time() {
    let world = World::new().await;
    let target = answers_four_together().await;
    let call = |id: &str| json!({"id": id, "uses": "http.request", "after": [], "with": {"method": "POST", "url": target}, "timeout_ms": 20_000});
    let mut items = call("items");
    items["foreach"] = json!({"items": [1, 2], "concurrency": 2});
    let workflow = workflow(&world, json!([call("a"), call("b"), items])).await;
    let start = run(&world, workflow).await;
    let row = row(&world, start.run_id).await;
    assert_eq!(row.status, RunStatus::Succeeded, "{:?}", row.error);
}

#[tokio::test]
async fn items_have_records_of_their_own_and_large_outputs_go_to_blobs() {
    let world = World::new().await;
    world.answers(ResponseTemplate::new(200).set_body_string("x".repeat(10_000))).await;
    let mut items = post(&world, "items", None);
    items["foreach"] = json!({"items": "{{ trigger.body.n | string | split('') }}", "concurrency": 3});
    items["foreach"]["items"] = json!(["p", "q", "r"]);
    items["with"]["json"] = json!({"item": "{{ item }}", "index": "{{ index }}"});
    let mut last = post(&world, "last", None);
    last["with"]["json"] =
        json!({"count": "{{ steps.items.output | length }}", "of": "{{ steps.items.output[2].body[:3] }}"});
    let workflow = workflow(&world, json!([items, last])).await;
    let start = run(&world, workflow).await;
    let stored = world.stored(start.run_id).await.unwrap();
    assert_eq!(stored.row.status, RunStatus::Succeeded, "{:?}", stored.row.error);
    let steps = steps(&world, &stored).await;
    assert_eq!(steps[0].items.len(), 3);
    assert!(steps[0].items.iter().all(|item| matches!(item.output, Some(Payload::Blob(_)))));
    let Some(Payload::Inline(input)) = &steps[1].input else { panic!("{:?}", steps[1].input) };
    assert_eq!(input["json"], json!({"count": 3, "of": "xxx"}));
}

/// An approval whose link is sent by the step before it.
async fn asking(world: &World) -> WorkflowId {
    let mut send = post(world, "send", None);
    send["with"]["json"] = json!({"link": "{{ run.approvals.ask.url }}"});
    let steps = json!([
        send,
        {"id": "ask", "uses": "approval.wait", "with": {"message": "Pay {{ n }}?"}},
        post(world, "yes", None),
        post(world, "no", Some(json!(["ask.rejected"]))),
    ]);
    workflow(world, steps).await
}

fn decided(world: &World, approved: bool) -> Decided {
    Decided { approved, comment: Some("fine".to_owned()), at: world.clock.now() }
}

#[tokio::test]
async fn a_run_waits_for_a_decision_and_goes_on_where_it_leads() {
    for (approved, path) in [(true, "/yes"), (false, "/no")] {
        let world = World::new().await;
        world.make_tenant().await;
        let start = run(&world, asking(&world).await).await;
        let waiting = row(&world, start.run_id).await;
        assert_eq!(waiting.status, RunStatus::Waiting, "{:?}", waiting.error);
        let sent: Value = serde_json::from_slice(&world.target.received_requests().await.unwrap()[0].body).unwrap();
        let link = sent["link"].as_str().unwrap().rsplit_once('/').unwrap().1;
        let token: tidegate_model::ApprovalToken = link.parse().unwrap();
        assert_eq!((token.tenant, token.run, token.step.as_str()), (world.tenant, start.run_id, "ask"));

        let runs = world.store.runs();
        let approval = runs.approval(world.tenant, start.run_id, "ask").await.unwrap().unwrap();
        assert_eq!(approval.message.as_deref(), Some("Pay 1?"));
        runs.decide(world.tenant, start.run_id, "ask", &decided(&world, approved)).await.unwrap();
        world.send(&wake(&waiting, waiting.wake)).await;
        world.work(&world.worker("here")).await;
        let stored = world.stored(start.run_id).await.unwrap();
        assert_eq!(stored.row.status, RunStatus::Succeeded, "{:?}", stored.row.error);
        let paths: Vec<_> = world.calls().await.into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["/send", path]);
        let steps = steps(&world, &stored).await;
        assert_eq!(steps[1].outlet.as_deref(), Some(if approved { "approved" } else { "rejected" }));
        assert_eq!(steps[if approved { 3 } else { 2 }].status, RunStatus::Skipped);
        let depth = world.queue.depth().await.unwrap();
        assert_eq!(depth.delayed, 0, "the timer of a year is gone: {depth:?}");
    }
}

/// Whoever decides before the run is parked finds it running and wakes nobody.
#[tokio::test]
async fn a_decision_just_before_the_parking_is_heard() {
    let world = World::new().await;
    world.make_tenant().await;
    let start = world.start(asking(&world).await);
    let runs = world.store.runs();
    let approval = tidegate_model::Approval { digest: "0".to_owned(), message: None, until: None, decided: None };
    let later = world.clock.now() + Duration::from_secs(1_000);
    runs.open_approval(world.tenant, start.run_id, "ask", &approval, later).await.unwrap();
    runs.decide(world.tenant, start.run_id, "ask", &decided(&world, true)).await.unwrap();
    world.send(&Message::Start(Box::new(start.clone()))).await;
    world.work(&world.worker("here")).await;
    assert_eq!(world.status(start.run_id).await, Some(RunStatus::Succeeded));
}

async fn called_and_calling(world: &World, called: Value) -> (WorkflowId, WorkflowId) {
    let called = workflow_with(world, called, |definition| {
        definition["output"] = json!({"got": "{{ n }}", "twice": "{{ params.factor * 2 }}"});
        definition["parameters"] = json!([{"name": "factor", "type": "integer", "required": true}]);
    })
    .await;
    let call = json!({
        "id": "call", "uses": "workflow.call",
        "with": {"workflow": called, "parameters": {"factor": "{{ n + 20 }}"}, "body": {"n": "x"}},
    });
    let mut after = post(world, "after", None);
    after["with"]["json"] = json!({"sum": "{{ steps.call.output.output }}"});
    (called, workflow(world, json!([call, after])).await)
}

#[tokio::test]
async fn a_called_workflow_yields_its_output() {
    let world = World::new().await;
    let (called, calling) = called_and_calling(&world, json!([post(&world, "inner", None)])).await;
    let start = run(&world, calling).await;
    let stored = world.stored(start.run_id).await.unwrap();
    assert_eq!(stored.row.status, RunStatus::Succeeded, "{:?}", stored.row.error);
    let child = &runs_of(&world, called).await[0];
    assert_eq!((child.status, child.trigger), (RunStatus::Succeeded, TriggerKind::Workflow));
    assert_eq!(child.parent.as_ref().map(|parent| (parent.run_id, parent.depth)), Some((start.run_id, 1)));
    let Some(Payload::Inline(input)) = &steps(&world, &stored).await[1].input else { panic!("no input") };
    assert_eq!(input["json"]["sum"], json!({"got": "x", "twice": 42}));
    assert_eq!(runs_of(&world, called).await.len(), 1);
}

#[tokio::test]
async fn a_called_workflows_failure_is_its_callers() {
    let world = World::new().await;
    world.answers(ResponseTemplate::new(404)).await;
    let (called, calling) = called_and_calling(&world, json!([post(&world, "inner", None)])).await;
    let start = run(&world, calling).await;
    let failed = row(&world, start.run_id).await;
    assert_eq!(failed.failed_step.as_deref(), Some("call"));
    let error = failed.error.unwrap();
    assert_eq!(error.code, ErrorCode::CalledWorkflowFailed);
    assert!(error.message.contains(&runs_of(&world, called).await[0].id.to_string()), "{}", error.message);

    world.store.workflows().delete(world.tenant, called).await.unwrap();
    let start = run(&world, calling).await;
    let error = row(&world, start.run_id).await.error.unwrap();
    assert!(error.message.contains("is gone"), "{}", error.message);
}

#[tokio::test]
async fn a_workflow_that_calls_itself_ends() {
    let world = World::new().await;
    let id = workflow(&world, json!([post(&world, "a", None)])).await;
    // A workflow's id is known once it is made, so the call is put into its second version.
    let mut head = world.store.workflows().get(world.tenant, id).await.unwrap().unwrap();
    let steps = json!([{"id": "again", "uses": "workflow.call", "with": {"workflow": id}}]);
    let document = json!({"name": "loop", "trigger": {"type": "manual"}, "steps": steps});
    let definition = tidegate_model::Definition::parse(&document).unwrap();
    (head.version, head.revision) = (2, 2);
    world.store.workflows().replace(1, &head, Some(&definition)).await.unwrap();
    let start = StartMessage { version: 2, ..world.start(id) };
    world.send(&Message::Start(Box::new(start.clone()))).await;
    world.work(&world.worker("here")).await;
    let failed = row(&world, start.run_id).await;
    assert_eq!(failed.status, RunStatus::Failed);
    let runs = runs_of(&world, id).await;
    assert_eq!(runs.len(), 11);
    let deepest = runs.iter().max_by_key(|run| run.parent.as_ref().map_or(0, |parent| parent.depth)).unwrap();
    assert!(deepest.error.as_ref().unwrap().message.contains("10 deep"), "{:?}", deepest.error);
}

#[tokio::test]
async fn a_failure_starts_its_handler_once_and_the_handlers_own_starts_none() {
    let world = World::new().await;
    world.answers(ResponseTemplate::new(404)).await;
    let handler = workflow(&world, json!([post(&world, "tell", None)])).await;
    let failing = workflow_with(&world, json!([post(&world, "a", None)]), |definition| {
        definition["on_failure"] = json!({"workflow": handler});
    })
    .await;
    let start = run(&world, failing).await;
    let runs = runs_of(&world, handler).await;
    assert_eq!(runs.len(), 1);
    assert_eq!((runs[0].trigger, runs[0].status), (TriggerKind::Failure, RunStatus::Failed));
    let told = detail(&world, &world.stored(runs[0].id).await.unwrap()).await.trigger.unwrap();
    let Payload::Inline(body) = told.body else { panic!("a small body") };
    assert_eq!(body["run"]["id"], json!(start.run_id));
    assert_eq!((&body["failed_step"], &body["error"]["code"]), (&json!("a"), &json!("target_failed")));

    // A message that comes once more finds the run ended and tells again, of the same run.
    world.send(&Message::Start(Box::new(start))).await;
    world.work(&world.worker("here")).await;
    assert_eq!(runs_of(&world, handler).await.len(), 1);
}

#[tokio::test]
async fn a_call_in_flight_is_dropped_when_its_run_is_cancelled() {
    let world = World::new().await;
    world.answers(ResponseTemplate::new(200).set_delay(Duration::from_secs(60))).await;
    let workflow = workflow(&world, json!([post(&world, "a", None), post(&world, "b", None)])).await;
    let start = world.start(workflow);
    let settings = Settings { watch: Duration::from_millis(5), ..Settings::new("here", true) };
    let worker = world.worker_with(settings);
    let incoming = message(&Message::Start(Box::new(start.clone())));
    let working = tokio::spawn(async move { handle(&worker, &incoming, Source::Runs).await });
    while world.calls().await.is_empty() {
        tokio::task::yield_now().await;
    }
    let asked = world.store.runs().cancel(world.tenant, start.run_id, world.clock.now()).await.unwrap();
    assert!(matches!(asked, Cancel::Requested(_)), "{asked:?}");
    assert_eq!(working.await.unwrap(), Verdict::Delete);
    let stored = world.stored(start.run_id).await.unwrap();
    assert_eq!(stored.row.status, RunStatus::Cancelled);
    let steps = steps(&world, &stored).await;
    assert_eq!([steps[0].status, steps[1].status], [RunStatus::Cancelled, RunStatus::Skipped]);
}

#[tokio::test]
async fn a_waiting_run_is_cancelled_at_once_with_all_that_it_called() {
    let world = World::new().await;
    world.make_tenant().await;
    let called = json!([{"id": "ask", "uses": "approval.wait", "with": {}}]);
    let (called, calling) = called_and_calling(&world, called).await;
    let start = run(&world, calling).await;
    let child = runs_of(&world, called).await[0].id;
    assert_eq!(world.status(child).await, Some(RunStatus::Waiting));

    let done = world.store.runs().cancel(world.tenant, start.run_id, world.clock.now()).await.unwrap();
    let Cancel::Final(waiting) = done else { panic!("{done:?}") };
    assert_eq!(world.status(start.run_id).await, Some(RunStatus::Cancelled));
    world.send(&wake(&waiting, waiting.wake)).await;
    world.work(&world.worker("here")).await;
    let stored = world.stored(start.run_id).await.unwrap();
    assert_eq!(steps(&world, &stored).await[0].status, RunStatus::Cancelled, "its record was kept");
    let child = world.stored(child).await.unwrap();
    assert_eq!(child.row.status, RunStatus::Cancelled);
    assert!(child.detail.is_some());
    assert!(world.calls().await.is_empty());
}

#[tokio::test]
async fn a_run_that_is_cancelled_in_the_queue_never_begins() {
    let world = World::new().await;
    let workflow = workflow(&world, json!([post(&world, "a", None)])).await;
    let start = world.start(workflow);
    let runs = world.store.runs();
    let done = runs.cancel(world.tenant, start.run_id, world.clock.now()).await.unwrap();
    assert!(matches!(done, Cancel::Unclaimed(_)), "{done:?}");
    world.send(&Message::Start(Box::new(start.clone()))).await;
    world.work(&world.worker("here")).await;
    let stored = world.stored(start.run_id).await.unwrap();
    assert_eq!((stored.row.status, stored.row.workflow), (RunStatus::Cancelled, workflow));
    assert_eq!(detail(&world, &stored).await.trigger, Some(start.trigger));
    assert!(world.calls().await.is_empty());
}

/// Between a look at the row and the parking somebody asks; the parking doesn't go over it.
#[tokio::test]
async fn a_run_that_was_asked_to_cancel_is_not_parked() {
    let world = World::new().await;
    let steps = json!([post(&world, "a", None), {"id": "sleep", "uses": "time.delay", "with": {"duration": "1h"}}]);
    let workflow = workflow(&world, steps).await;
    let start = world.start(workflow);
    world.answers(ResponseTemplate::new(200).set_delay(Duration::from_millis(300))).await;
    let worker = world.worker_with(Settings::new("here", true));
    let incoming = message(&Message::Start(Box::new(start.clone())));
    let working = tokio::spawn(async move { handle(&worker, &incoming, Source::Runs).await });
    while world.calls().await.is_empty() {
        tokio::task::yield_now().await;
    }
    world.store.runs().cancel(world.tenant, start.run_id, world.clock.now()).await.unwrap();
    assert_eq!(working.await.unwrap(), Verdict::Delete);
    assert_eq!(world.status(start.run_id).await, Some(RunStatus::Cancelled));
}

#[tokio::test]
async fn a_run_without_time_goes_on_by_a_message_to_itself() {
    let world = World::new().await;
    let steps: Vec<_> = ["a", "b", "c"].iter().map(|id| post(&world, id, None)).collect();
    let workflow = workflow(&world, json!(steps)).await;
    let start = world.start(workflow);
    let worker = world.worker("here");
    let incoming = message(&Message::Start(Box::new(start.clone())));
    // A step takes 30 s at most, so there is no time for the first one.
    let verdict = tidegate_worker::handle(&worker, &incoming, Source::Runs, Duration::from_secs(20)).await;
    assert_eq!(verdict, Verdict::Delete);
    assert_eq!(world.status(start.run_id).await, Some(RunStatus::Waiting));
    world.work(&worker).await;
    assert_eq!(world.status(start.run_id).await, Some(RunStatus::Succeeded));
    assert_eq!(world.calls().await.len(), 3);
}

#[tokio::test]
async fn the_last_run_of_a_batch_goes_on_alone() {
    let world = World::new().await;
    let long: Vec<_> = ["a", "b", "c"].iter().map(|id| post(&world, id, None)).collect();
    let (long, short) = (workflow(&world, json!(long)).await, workflow(&world, json!([post(&world, "s", None)])).await);
    let (slow, fast) = (world.start(long), world.start(short));
    for start in [&slow, &fast] {
        world.send(&Message::Start(Box::new(start.clone()))).await;
    }
    let mut messages = world.queue.receive(10, Duration::ZERO).await.unwrap();
    // One at a time, the short run first: with both at once it would be chance which is the last.
    messages.sort_by_key(|message| !message.body.contains(&fast.run_id.to_string()));
    let settings = Settings { alone_after: Duration::ZERO, ..Settings::new("here", true) };
    let time = Duration::from_secs(300);
    let again = handle_batch(&world.worker_with(settings), Source::Runs, messages, time, 1).await;
    assert!(again.is_empty(), "both messages can be deleted");
    assert_eq!(world.status(fast.run_id).await, Some(RunStatus::Succeeded));
    assert_eq!(world.status(slow.run_id).await, Some(RunStatus::Waiting));
    world.work(&world.worker("here")).await;
    assert_eq!(world.status(slow.run_id).await, Some(RunStatus::Succeeded));
    assert_eq!(world.calls().await.len(), 4);
}

#[tokio::test]
async fn a_call_in_flight_is_dropped_when_the_runs_time_is_over() {
    let world = World::new().await;
    world.answers(ResponseTemplate::new(200).set_delay(Duration::from_secs(60))).await;
    let steps = json!([post(&world, "a", None)]);
    let workflow = workflow_with(&world, steps, |definition| {
        definition["execution_timeout"] = json!(1);
        definition["steps"][0]["retry"] = json!({"max_attempts": 1});
    });
    let start = world.start(workflow.await);
    let incoming = message(&Message::Start(Box::new(start.clone())));
    assert_eq!(handle(&world.worker("here"), &incoming, Source::Runs).await, Verdict::Delete);
    let ended = row(&world, start.run_id).await;
    assert!(matches!(ended.status, RunStatus::TimedOut | RunStatus::Failed), "{ended:?}");
    assert_eq!(ended.failed_step.as_deref(), Some("a"));
}

#[tokio::test]
async fn what_was_given_up_is_kept_with_its_cause() {
    let world = World::new().await;
    let workflow = workflow(&world, json!([post(&world, "a", None)])).await;
    let start = world.start(workflow);
    let crashed = RunRow { claims: 5, fence: 5, ..world.row(&start, RunStatus::Running) };
    world.store.runs().create(&crashed, None).await.unwrap();
    let never = world.start(workflow);
    let worker = world.worker("here");
    handle(&worker, &message(&Message::Start(Box::new(start.clone()))), Source::Runs).await;
    handle(&worker, &message(&Message::Start(Box::new(never.clone()))), Source::DeadLetters).await;
    let letters = world.store.dead_letters().list(world.tenant, None, 10).await.unwrap().items;
    let told: Vec<_> = letters.iter().map(|letter| (letter.id, letter.code, letter.workflow)).collect();
    assert_eq!(
        told,
        [(never.run_id, ErrorCode::DeadLettered, workflow), (start.run_id, ErrorCode::WorkerCrashed, workflow)]
    );
    let Payload::Inline(kept) = &letters[1].start else { panic!("a small start") };
    assert_eq!(serde_json::from_value::<StartMessage>(kept.clone()).unwrap(), start);
}

/// Puts a second version of a workflow in place of its first, since its own id is known only then.
async fn second_version(world: &World, id: WorkflowId, document: Value) -> StartMessage {
    let mut head = world.store.workflows().get(world.tenant, id).await.unwrap().unwrap();
    let definition = tidegate_model::Definition::parse(&document).unwrap();
    (head.version, head.revision) = (2, 2);
    world.store.workflows().replace(1, &head, Some(&definition)).await.unwrap();
    StartMessage { version: 2, ..world.start(id) }
}

#[tokio::test]
async fn workflows_that_handle_each_others_failures_end() {
    let world = World::new().await;
    world.answers(ResponseTemplate::new(404)).await;
    let handler = workflow(&world, json!([post(&world, "tell", None)])).await;
    let failing = workflow_with(&world, json!([post(&world, "a", None)]), |definition| {
        definition["on_failure"] = json!({"workflow": handler});
    })
    .await;
    let again = json!([{"id": "again", "uses": "workflow.call", "with": {"workflow": failing}}]);
    second_version(&world, handler, json!({"name": "handler", "trigger": {"type": "manual"}, "steps": again})).await;
    run(&world, failing).await;
    assert_eq!((runs_of(&world, failing).await.len(), runs_of(&world, handler).await.len()), (2, 1));
}

#[tokio::test]
async fn what_a_run_may_cause_is_bounded() {
    let world = World::new().await;
    let id = workflow(&world, json!([post(&world, "a", None)])).await;
    let steps = json!([{
        "id": "again", "uses": "workflow.call", "with": {"workflow": id}, "on_failure": "continue",
        "foreach": {"items": (0..30).collect::<Vec<_>>(), "concurrency": 20, "on_item_failure": "continue"},
    }]);
    let document = json!({"name": "bomb", "trigger": {"type": "manual"}, "steps": steps});
    let start = second_version(&world, id, document).await;
    // It is not the first of its kind: 100 are left to it.
    let parent = tidegate_model::ParentStep {
        run_id: start.run_id,
        step: "again".to_owned(),
        item: None,
        depth: 1,
        may_cause: 100,
        handles_failure: false,
    };
    let caller = world.start(id);
    world.store.runs().create(&world.row(&caller, RunStatus::Waiting), None).await.unwrap();
    let parent = tidegate_model::ParentStep { run_id: caller.run_id, ..parent };
    world.send(&Message::Start(Box::new(StartMessage { parent: Some(parent), ..start.clone() }))).await;
    world.work_to_the_end(&world.worker("here")).await;
    let caused = runs_of(&world, id).await.into_iter().filter(|run| run.id != start.run_id && run.id != caller.run_id);
    assert_eq!(caused.count(), 30, "each of the thirty has a share of two, and none for thirty more");
}

#[tokio::test]
async fn a_called_run_whose_caller_is_over_does_not_begin() {
    let world = World::new().await;
    let id = workflow(&world, json!([post(&world, "a", None)])).await;
    let (caller, called) = (world.start(id), world.start(id));
    world.store.runs().create(&world.row(&caller, RunStatus::Cancelled), None).await.unwrap();
    let parent = tidegate_model::ParentStep {
        run_id: caller.run_id,
        step: "a".to_owned(),
        item: None,
        depth: 1,
        may_cause: 100,
        handles_failure: false,
    };
    world.send(&Message::Start(Box::new(StartMessage { parent: Some(parent), ..called.clone() }))).await;
    world.work(&world.worker("here")).await;
    assert_eq!(world.status(called.run_id).await, Some(RunStatus::Cancelled));
    assert!(world.calls().await.is_empty());
}
