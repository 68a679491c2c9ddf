//! `/api/dead-letters`.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tidegate_model::{
    BlobRef, DeadLetter, ErrorCode, Message, ParentStep, Payload, RunId, StartMessage, TriggerInput, TriggerKind,
};
use tidegate_platform::Blobs;
use tidegate_testing::Answer;

use crate::{Setup, setup};

/// A run that was given up, with a body of its own.
pub(crate) async fn given_up(setup: &Setup) -> DeadLetter {
    given_up_with(setup, Payload::Inline(json!({"order": 7}))).await
}

async fn given_up_with(setup: &Setup, body: Payload) -> DeadLetter {
    setup.world.clock.advance(Duration::from_millis(1));
    let (tenant, now) = (setup.owner.tenant, setup.world.clock.now());
    let id = setup.world.ids.run(tenant);
    let start = StartMessage {
        run_id: id,
        tenant_id: tenant,
        workflow_id: setup.workflow.id,
        version: 3,
        trigger: TriggerInput {
            kind: TriggerKind::Webhook,
            content_type: Some("application/json".to_owned()),
            request: None,
            body,
            parameters: Map::from_iter([("channel".to_owned(), json!("#orders"))]),
        },
        accepted_at: now,
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
        parent: Some(ParentStep {
            run_id: id,
            step: "call".to_owned(),
            item: None,
            depth: 1,
            may_cause: 9,
            handles_failure: false,
        }),
    };
    let letter = DeadLetter {
        id,
        tenant,
        workflow: setup.workflow.id,
        code: ErrorCode::DeadLettered,
        message: "the run's message could not be handled in 25 tries".to_owned(),
        receive_count: 25,
        accepted_at: now,
        given_up_at: now + Duration::from_secs(60),
        start: Payload::Inline(serde_json::to_value(start).unwrap()),
        redriven: None,
    };
    setup.world.store.dead_letters().put(&letter).await.unwrap();
    letter
}

async fn redrive(setup: &Setup, id: RunId) -> Answer {
    setup.app.post(&setup.owner, &format!("/api/dead-letters/{id}/redrive"), &Value::Null).await
}

async fn redrive_many(setup: &Setup, body: &Value) -> Answer {
    setup.app.post(&setup.owner, "/api/dead-letters/redrive", body).await
}

async fn started(setup: &Setup) -> Vec<StartMessage> {
    let start = |message| match message {
        Message::Start(start) => *start,
        other => panic!("not a start: {other:?}"),
    };
    setup.sent().await.into_iter().map(start).collect()
}

#[tokio::test]
async fn what_was_given_up_is_listed_with_its_cause() {
    let setup = setup().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(given_up(&setup).await.id.to_string());
    }
    ids.reverse();
    let first = setup.app.get(&setup.owner, "/api/dead-letters?limit=3").await.expect(200).body;
    let expected = json!({
        "id": ids[0], "workflow_id": setup.workflow.id, "code": "dead_lettered",
        "message": "the run's message could not be handled in 25 tries", "receive_count": 25,
        "accepted_at": "2026-11-20T10:00:00.005Z", "given_up_at": "2026-11-20T10:01:00.005Z",
        "redriven_as": null, "redriven_at": null,
    });
    assert_eq!(first["items"][0], expected);
    let next = format!("/api/dead-letters?limit=3&cursor={}", first["next_cursor"].as_str().unwrap());
    let second = setup.app.get(&setup.owner, &next).await.expect(200).body;
    let shown = [&first, &second].map(|page| page["items"].as_array().unwrap().clone()).concat();
    assert_eq!(shown.iter().map(|letter| letter["id"].as_str().unwrap()).collect::<Vec<_>>(), ids);
    assert_eq!(second["next_cursor"], Value::Null);
    let stranger = setup.world.session("sam").await;
    setup.app.get(&stranger, &next).await.expect(400);
}

#[tokio::test]
async fn a_run_is_started_again_as_one_new_run() {
    let setup = setup().await;
    let letter = given_up(&setup).await;
    setup.world.clock.advance(Duration::from_secs(3_600));
    let now = setup.world.clock.now();
    let answer = redrive(&setup, letter.id).await.expect(202);
    let run_id: RunId = answer.text("/run_id").parse().unwrap();
    assert!(run_id != letter.id && run_id.is_tagged_for(letter.tenant));
    let starts = started(&setup).await;
    let [start] = &starts[..] else { panic!("{starts:?}") };
    assert_eq!((start.run_id, start.tenant_id, start.workflow_id), (run_id, letter.tenant, letter.workflow));
    assert_eq!((start.version, start.accepted_at, &start.parent), (3, now, &None));
    assert_eq!(start.trigger.body, Payload::Inline(json!({"order": 7})));
    assert_eq!(start.trigger.parameters["channel"], "#orders");
    let shown = setup.app.get(&setup.owner, "/api/dead-letters").await.expect(200).body;
    assert_eq!(shown["items"][0]["redriven_as"], json!(run_id));
    let queued = setup.app.get(&setup.owner, &format!("/api/runs/{run_id}")).await.expect(200);
    assert_eq!(queued.text("/status"), "queued");

    // Again, as after a crash before the start was sent: the same run, but for its place in a trace.
    setup.world.clock.advance(Duration::from_secs(10));
    assert_eq!(redrive(&setup, letter.id).await.expect(202).text("/run_id"), run_id.to_string());
    let again = started(&setup).await;
    assert_eq!((again.len(), again[0].run_id, again[0].accepted_at), (1, run_id, now));
    assert_eq!(again[0].trigger, start.trigger);

    // A worker has taken it: there is nothing to send any more.
    let row = tidegate_model::RunRow { id: run_id, ..setup.row() };
    setup.store(&row, None).await;
    assert_eq!(redrive(&setup, letter.id).await.expect(202).text("/run_id"), run_id.to_string());
    assert_eq!(started(&setup).await, []);
    redrive(&setup, run_id).await.expect(404);
}

#[tokio::test]
async fn a_large_input_becomes_the_new_runs_own() {
    let setup = setup().await;
    let tenant = setup.owner.tenant;
    for (stored, said) in [("live", "live"), ("kept", "live"), ("kept", "kept")] {
        let key = |lifetime: &str| format!("{lifetime}/{tenant}/run_of_before/input_{stored}_{said}");
        setup.world.blobs.put(&key(stored), "[1, 2]".into()).await.unwrap();
        let letter = given_up_with(&setup, Payload::Blob(BlobRef { key: key(said), bytes: 6 })).await;
        let run_id = redrive(&setup, letter.id).await.expect(202).text("/run_id").to_owned();
        let key = format!("live/{tenant}/{run_id}/input");
        assert_eq!(setup.world.blobs.get(&key).await.unwrap().as_deref(), Some(&b"[1, 2]"[..]));
        assert_eq!(started(&setup).await[0].trigger.body, Payload::Blob(BlobRef { key, bytes: 6 }));
    }
    let theirs = format!("kept/{}/run/input", setup.world.ids.tenant());
    setup.world.blobs.put(&theirs, "[3]".into()).await.unwrap();
    for key in [format!("live/{tenant}/run/gone"), theirs, format!("other/{tenant}/run/input")] {
        let letter = given_up_with(&setup, Payload::Blob(BlobRef { key, bytes: 3 })).await;
        let answer = redrive(&setup, letter.id).await.expect(409);
        assert!(answer.text("/detail").contains("its input has expired"), "{}", answer.body);
        let stored = setup.world.store.dead_letters().get(tenant, letter.id).await.unwrap().unwrap();
        assert_eq!(stored.redriven, None);
    }
    assert_eq!(started(&setup).await, []);
}

#[tokio::test]
async fn several_are_started_again_and_the_others_named() {
    let setup = setup().await;
    let (one, two) = (given_up(&setup).await.id, given_up(&setup).await.id);
    let gone = BlobRef { key: format!("live/{}/run/gone", setup.owner.tenant), bytes: 3 };
    let gone = given_up_with(&setup, Payload::Blob(gone)).await.id;
    let never = setup.world.ids.run(setup.owner.tenant);
    let answer = redrive_many(&setup, &json!({"ids": [two, never, one, gone]})).await.expect(202).body;
    let redriven: Vec<_> = answer["redriven"].as_array().unwrap().iter().map(|letter| letter["id"].clone()).collect();
    assert_eq!(redriven, [json!(two), json!(one)]);
    let failed = json!([
        {"id": never, "detail": "no run of this id was given up"}, {"id": gone, "detail": "its input has expired"},
    ]);
    assert_eq!((&answer["failed"], &answer["more"]), (&failed, &json!(false)));
    assert_eq!(started(&setup).await.len(), 2);

    let many: Vec<_> = (0..101).map(|_| one).collect();
    for (body, pointer) in [
        (json!({}), ""),
        (json!({"all": false}), ""),
        (json!({"all": true, "ids": [one]}), ""),
        (json!({"ids": []}), "/ids"),
        (json!({"ids": many}), "/ids"),
        (json!({"ids": ["wf_1"]}), "/ids/0"),
        (json!({"ids": [one], "cursor": "x"}), "/cursor"),
        (json!({"everything": true}), "/everything"),
    ] {
        let answer = redrive_many(&setup, &body).await.expect(422);
        assert_eq!(answer.pointers(), [pointer], "{}", answer.body);
    }
    redrive_many(&setup, &json!({"all": true, "cursor": "x"})).await.expect(400);
    assert_eq!(started(&setup).await, []);
}

#[tokio::test]
async fn all_are_started_again_500_at_a_time() {
    let setup = setup().await;
    let mut expected = BTreeSet::new();
    for _ in 0..730 {
        expected.insert(given_up(&setup).await.id.to_string());
    }
    let before = expected.iter().next_back().unwrap().parse().unwrap();
    let before = redrive(&setup, before).await.expect(202).text("/run_id").to_owned();
    let (mut runs, mut body, mut answers) = (BTreeSet::from([before]), json!({"all": true}), Vec::new());
    loop {
        let answer = redrive_many(&setup, &body).await.expect(202).body;
        let redriven = answer["redriven"].as_array().unwrap();
        runs.extend(redriven.iter().map(|letter| letter["run_id"].as_str().unwrap().to_owned()));
        answers.push((redriven.len(), answer["more"].as_bool().unwrap()));
        if answer["more"] == false {
            break;
        }
        body = json!({"all": true, "cursor": answer["next_cursor"]});
    }
    // The first page has one that was started again before.
    assert_eq!(answers, [(499, true), (230, false)]);
    assert_eq!(runs.len(), 730);
    let sent: BTreeSet<_> = started(&setup).await.iter().map(|start| start.run_id.to_string()).collect();
    assert_eq!(sent, runs);
    let answer = redrive_many(&setup, &json!({"all": true})).await.expect(202).body;
    assert_eq!((&answer["redriven"], &answer["more"]), (&json!([]), &json!(false)));
}
