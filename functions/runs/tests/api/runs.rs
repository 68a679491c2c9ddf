//! `/api/runs` and its older name, `/api/logs`.

use std::time::Duration;

use insta::assert_json_snapshot;
use serde_json::{Map, Value, json};
use tidegate_model::{
    Attempt, BlobRef, Entry, ErrorCode, Event, ItemRecord, ParentStep, Payload, RunDetail, RunId, RunStatus, StepError,
    StepRecord, TriggerInput, TriggerKind,
};
use tidegate_store::JournalItem;

use crate::{setup, workflow};

fn input(body: Payload) -> TriggerInput {
    TriggerInput {
        kind: TriggerKind::Webhook,
        content_type: Some("application/json".to_owned()),
        request: None,
        body,
        parameters: Map::default(),
    }
}

fn succeeded(id: &str, at: jiff::Timestamp, output: Payload) -> StepRecord {
    let attempt = |number, from: u64, to: u64, error| Attempt {
        number,
        started_at: at + Duration::from_millis(from),
        finished_at: Some(at + Duration::from_millis(to)),
        duration_ms: Some(i64::try_from(to - from).unwrap()),
        error,
        interrupted: false,
    };
    let refused = StepError::retryable(ErrorCode::RateLimited, "the target answered 429 Too Many Requests");
    StepRecord {
        id: id.to_owned(),
        uses: "http.request".to_owned(),
        status: RunStatus::Succeeded,
        input: Some(Payload::Inline(json!({"method": "GET", "headers": {"X-Api-Key": "k", "accept": "*/*"}}))),
        output: Some(output),
        outlet: None,
        error: None,
        attempts: vec![attempt(1, 0, 20, Some(refused)), attempt(2, 100, 150, None)],
        items: Vec::new(),
    }
}

#[tokio::test]
async fn a_finished_run_shows_everything() {
    let setup = setup().await;
    let row = setup.ended(RunStatus::Failed);
    let failed = StepRecord {
        status: RunStatus::Failed,
        output: None,
        error: row.error.clone(),
        attempts: Vec::new(),
        ..succeeded("second", row.started_at, Payload::Inline(Value::Null))
    };
    let detail = RunDetail {
        trigger: Some(input(Payload::Inline(json!({"truncated": true, "bytes": 1})))),
        steps: vec![
            succeeded(
                "first",
                row.started_at,
                Payload::Inline(json!({"status": 200, "headers": {"set-cookie": "id=1"}})),
            ),
            failed,
        ],
        output: None,
    };
    let id = setup.store(&row, Some(&detail)).await;
    let answer = setup.app.get(&setup.owner, &format!("/api/runs/{id}")).await.expect(200);
    assert_json_snapshot!(answer.body, @r##"
    {
      "id": "run_01a1f8660d0070008000000002000005",
      "workflow_id": "wf_01a1f8660d0070008000000000000004",
      "version": 1,
      "trigger": "webhook",
      "status": "failed",
      "accepted_at": "2026-11-20T10:00:00.000Z",
      "started_at": "2026-11-20T10:00:00.000Z",
      "finished_at": "2026-11-20T10:00:00.250Z",
      "duration_ms": 250,
      "wake_at": null,
      "error": {
        "code": "target_failed",
        "message": "the target answered 404 Not Found",
        "retryable": false
      },
      "failed_step": "second",
      "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
      "cancel_requested": false,
      "called_by": null,
      "input": {
        "type": "webhook",
        "content_type": "application/json",
        "body": {
          "truncated": true,
          "bytes": 1
        },
        "parameters": {}
      },
      "steps": [
        {
          "id": "first",
          "uses": "http.request",
          "status": "succeeded",
          "started_at": "2026-11-20T10:00:00.000Z",
          "finished_at": "2026-11-20T10:00:00.150Z",
          "duration_ms": 150,
          "input": {
            "method": "GET",
            "headers": {
              "X-Api-Key": "***",
              "accept": "*/*"
            }
          },
          "output": {
            "status": 200,
            "headers": {
              "set-cookie": "***"
            }
          },
          "outlet": null,
          "error": null,
          "attempts": [
            {
              "number": 1,
              "started_at": "2026-11-20T10:00:00.000Z",
              "finished_at": "2026-11-20T10:00:00.020Z",
              "duration_ms": 20,
              "error": {
                "code": "rate_limited",
                "message": "the target answered 429 Too Many Requests",
                "retryable": true
              },
              "interrupted": false
            },
            {
              "number": 2,
              "started_at": "2026-11-20T10:00:00.100Z",
              "finished_at": "2026-11-20T10:00:00.150Z",
              "duration_ms": 50,
              "error": null,
              "interrupted": false
            }
          ]
        },
        {
          "id": "second",
          "uses": "http.request",
          "status": "failed",
          "started_at": null,
          "finished_at": null,
          "duration_ms": null,
          "input": {
            "method": "GET",
            "headers": {
              "X-Api-Key": "***",
              "accept": "*/*"
            }
          },
          "output": null,
          "outlet": null,
          "error": {
            "code": "target_failed",
            "message": "the target answered 404 Not Found",
            "retryable": false
          },
          "attempts": []
        }
      ],
      "output": null
    }
    "##);
    let log = setup.app.get(&setup.owner, &format!("/api/logs/{id}")).await.expect(200);
    assert_eq!(log.body, answer.body);
}

#[tokio::test]
async fn a_run_under_way_shows_its_journal() {
    let setup = setup().await;
    let mut row = setup.row();
    row.status = RunStatus::Waiting;
    row.wake_at = Some(row.started_at + Duration::from_secs(60));
    let id = setup.store(&row, None).await;
    let (step, at) = ("first".to_owned(), row.started_at);
    let item = JournalItem {
        input: Some(input(Payload::Inline(json!({"a": 1})))),
        entries: vec![
            Entry {
                step: step.clone(),
                item: None,
                attempt: 1,
                at,
                event: Event::Started { input: Payload::Inline(json!({"method": "GET"})) },
            },
            Entry {
                step,
                item: None,
                attempt: 1,
                at: at + Duration::from_millis(7),
                event: Event::Succeeded { output: Payload::Inline(json!(42)), outlet: None },
            },
        ],
    };
    setup
        .world
        .store
        .runs()
        .append_journal(row.tenant, id, 0, &item, row.accepted_at + Duration::from_secs(300))
        .await
        .unwrap();
    let run = setup.app.get(&setup.owner, &format!("/api/runs/{id}")).await.expect(200).body;
    assert_eq!((&run["status"], &run["wake_at"]), (&json!("waiting"), &json!("2026-11-20T10:01:00.000Z")));
    assert_eq!(run["input"]["body"], json!({"a": 1}));
    assert_eq!((&run["steps"][0]["status"], &run["steps"][0]["output"]), (&json!("succeeded"), &json!(42)));
    assert_eq!(run["steps"][0]["duration_ms"], 7);
    assert_eq!((&run["steps"][1]["status"], &run["steps"][1]["attempts"]), (&json!("queued"), &json!([])));

    setup.world.store.workflows().delete(row.tenant, row.workflow).await.unwrap();
    let run = setup.app.get(&setup.owner, &format!("/api/runs/{id}")).await.expect(200).body;
    assert_eq!((&run["input"]["body"], &run["steps"]), (&json!({"a": 1}), &json!([])), "its definition is gone");
}

#[tokio::test]
async fn an_accepted_run_is_queued_until_it_is_claimed() {
    let setup = setup().await;
    let stranger = setup.world.session("sam").await;
    let id = setup.world.ids.run(setup.owner.tenant);
    let path = format!("/api/runs/{id}");
    let queued = setup.app.get(&setup.owner, &path).await.expect(200);
    assert_eq!((queued.text("/status"), queued.text("/accepted_at")), ("queued", "2026-11-20T10:00:00.000Z"));
    assert_eq!((&queued.body["workflow_id"], &queued.body["steps"]), (&Value::Null, &json!([])));
    setup.app.get(&stranger, &path).await.expect(404);

    setup.world.clock.advance(Duration::from_secs(10 * 86_400 - 1));
    setup.app.get(&setup.owner, &path).await.expect(200);
    setup.world.clock.advance(Duration::from_secs(1));
    setup.app.get(&setup.owner, &path).await.expect(404);
    let later = setup.world.clock.now() + Duration::from_secs(3_600);
    let future = RunId::for_tenant(setup.owner.tenant, later, [1; 10]);
    setup.app.get(&setup.owner, &format!("/api/runs/{future}")).await.expect(404);
    setup.app.get(&setup.owner, "/api/runs/nonsense").await.expect(404);
}

#[tokio::test]
async fn large_values_come_from_blobs_and_too_large_ones_are_told_by_size() {
    let setup = setup().await;
    let row = setup.ended(RunStatus::Succeeded);
    let large = json!("x".repeat(100_000));
    let too_large = json!("x".repeat(1024 * 1024));
    let missing = BlobRef { key: format!("kept/{}/test/gone", setup.owner.tenant), bytes: 9_000 };
    let mut steps = vec![
        succeeded("large", row.started_at, setup.blob("large", &large).await),
        succeeded("too_large", row.started_at, setup.blob("too-large", &too_large).await),
        succeeded("gone", row.started_at, Payload::Blob(missing)),
    ];
    let one = json!("x".repeat(900_000));
    let many = setup.blob("many", &one).await;
    steps.extend((0..5).map(|n| succeeded(&format!("many_{n}"), row.started_at, many.clone())));
    let detail = RunDetail { trigger: Some(input(setup.blob("input", &large).await)), steps, output: None };
    let detail = setup.blob("detail", &serde_json::to_value(detail).unwrap()).await;
    setup.world.store.runs().create(&row, Some(&detail)).await.unwrap();
    let run = setup.app.get(&setup.owner, &format!("/api/runs/{}", row.id)).await.expect(200).body;
    assert_eq!((&run["input"]["body"], &run["steps"][0]["output"]), (&large, &large));
    assert_eq!(run["steps"][1]["output"], Value::Null);
    assert_eq!(run["steps"][1]["output_truncated"], json!({"bytes": 1024 * 1024 + 2}));
    assert_eq!(run["steps"][2]["output_truncated"], json!({"bytes": 9_000}));
    assert_eq!(run["steps"][4]["output_truncated"], Value::Null);
    assert_eq!(run["steps"][6]["output_truncated"], json!({"bytes": 900_002}), "an answer has a bound too");
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let setup = setup().await;
    let other = workflow(&setup.world, &setup.owner).await;
    let mut ids = Vec::new();
    for n in 0..6 {
        setup.world.clock.advance(Duration::from_secs(60));
        let status = if n % 2 == 0 { RunStatus::Succeeded } else { RunStatus::Failed };
        let mut row = setup.ended(status);
        if n >= 4 {
            row.workflow = other.id;
        }
        ids.push(setup.store(&row, None).await.to_string());
    }
    ids.reverse();
    let list = async |query: &str| {
        let answer = setup.app.get(&setup.owner, &format!("/api/runs?{query}")).await.expect(200);
        let items = answer.body["items"].as_array().unwrap();
        items.iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list("").await, ids);
    assert_eq!(list("status=failed").await, [&ids[0][..], &ids[2], &ids[4]]);
    assert_eq!(list(&format!("workflow_id={}", other.id)).await, ids[..2]);
    assert_eq!(list(&format!("workflow_id={}&status=succeeded", other.id)).await, ids[1..2]);
    assert_eq!(list("from=2026-11-20T10:05:00Z").await, ids[..2]);
    assert_eq!(list("from=2026-11-20T10:02:00Z&to=2026-11-20T12:04:00%2B02:00").await, ids[3..5]);

    let (mut seen, mut path) = (Vec::new(), "/api/logs?limit=4".to_owned());
    loop {
        let page = setup.app.get(&setup.owner, &path).await.expect(200);
        seen.extend(page.body["items"].as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page.body["next_cursor"].as_str() else { break };
        path = format!("/api/logs?limit=4&cursor={cursor}");
    }
    assert_eq!(seen, ids);

    let stranger = setup.world.session("sam").await;
    let foreign = format!("/api/runs?workflow_id={}", other.id);
    assert_eq!(setup.app.get(&stranger, &foreign).await.expect(200).body["items"], json!([]));
    let queued = setup.app.get(&setup.owner, "/api/runs?status=queued").await.expect(422);
    assert!(queued.text("/detail").contains("can't be listed"), "{}", queued.body);
    assert_eq!(queued.pointers(), ["/status"]);
    setup.app.get(&setup.owner, "/api/runs?status=skipped").await.expect(422);
    for (bad, field) in [
        ("status=lost", "/status"),
        ("from=yesterday", "/from"),
        ("workflow_id=run_1", "/workflow_id"),
        ("limit=1000", "/limit"),
        ("colour=red", "/colour"),
    ] {
        let answer = setup.app.get(&setup.owner, &format!("/api/runs?{bad}")).await.expect(400);
        assert_eq!(answer.pointers(), [field], "{}", answer.body);
    }
}

#[tokio::test]
async fn lists_of_items_are_shown_while_there_is_room() {
    let setup = setup().await;
    let mut row = setup.ended(RunStatus::Succeeded);
    let parent = setup.world.ids.run(row.tenant);
    row.parent = Some(ParentStep {
        run_id: parent,
        step: "call".to_owned(),
        item: Some(2),
        depth: 1,
        may_cause: 9,
        handles_failure: false,
    });
    let at = row.started_at;
    let whole = succeeded("each", at, Payload::Inline(json!([1, 2])));
    let item = |index: u32, output: Value| ItemRecord {
        index,
        status: RunStatus::Succeeded,
        input: Some(Payload::Inline(json!({"headers": {"cookie": "c"}}))),
        output: Some(Payload::Inline(output)),
        error: None,
        attempts: vec![Attempt {
            number: 1,
            started_at: at + Duration::from_millis(u64::from(index)),
            finished_at: Some(at + Duration::from_millis(10 + u64::from(index))),
            duration_ms: Some(10),
            error: None,
            interrupted: false,
        }],
    };
    let each = StepRecord {
        outlet: Some("true".to_owned()),
        attempts: Vec::new(),
        items: vec![item(0, json!("a")), item(1, json!("b"))],
        ..whole.clone()
    };
    let many = (0..10_000).map(|index| item(index, json!("x"))).collect();
    let many = StepRecord { id: "many".to_owned(), attempts: Vec::new(), items: many, ..whole };
    let output = Some(Payload::Inline(json!({"total": 2})));
    let detail = RunDetail { trigger: None, steps: vec![each, many], output };
    let detail = setup.blob("detail", &serde_json::to_value(detail).unwrap()).await;
    setup.world.store.runs().create(&row, Some(&detail)).await.unwrap();

    let answer = setup.app.get(&setup.owner, &format!("/api/runs/{}", row.id)).await.expect(200);
    assert_eq!(answer.body["called_by"], json!({"run_id": parent, "step": "call", "item": 2}));
    let (each, many) = (&answer.body["steps"][0], &answer.body["steps"][1]);
    assert_eq!(
        (&each["outlet"], &each["items_left_out"], &each["attempts"]),
        (&json!("true"), &Value::Null, &json!([]))
    );
    assert_eq!((&each["started_at"], &each["duration_ms"]), (&json!("2026-11-20T10:00:00.000Z"), &json!(11)));
    assert_json_snapshot!(each["items"][1], @r#"
    {
      "index": 1,
      "status": "succeeded",
      "started_at": "2026-11-20T10:00:00.001Z",
      "finished_at": "2026-11-20T10:00:00.011Z",
      "duration_ms": 10,
      "input": {
        "headers": {
          "cookie": "***"
        }
      },
      "output": "b",
      "error": null,
      "attempts": [
        {
          "number": 1,
          "started_at": "2026-11-20T10:00:00.001Z",
          "finished_at": "2026-11-20T10:00:00.011Z",
          "duration_ms": 10,
          "error": null,
          "interrupted": false
        }
      ]
    }
    "#);
    let shown = many["items"].as_array().unwrap().len();
    assert!((1_000..10_000).contains(&shown), "{shown}");
    assert_eq!(many["items_left_out"], 10_000 - shown);
    assert!(answer.body.to_string().len() < 3_500_000, "{}", answer.body.to_string().len());
}

#[tokio::test]
async fn the_output_of_a_run_is_shown_within_bounds() {
    let setup = setup().await;
    for (output, shown, truncated) in [
        (json!({"total": 2}), json!({"total": 2}), Value::Null),
        (json!("x".repeat(1024 * 1024)), Value::Null, json!({"bytes": 1024 * 1024 + 2})),
    ] {
        let row = setup.ended(RunStatus::Succeeded);
        let output = Some(setup.blob("output", &output).await);
        let id = setup.store(&row, Some(&RunDetail { trigger: None, steps: Vec::new(), output })).await;
        let run = setup.app.get(&setup.owner, &format!("/api/runs/{id}")).await.expect(200).body;
        assert_eq!((&run["output"], &run["output_truncated"]), (&shown, &truncated));
    }
}
