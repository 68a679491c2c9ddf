//! `/api/workflows`.

use http::Method;
use insta::assert_json_snapshot;
use serde_json::{Value, json};

use crate::{by_webhook, request_step, setup};

#[tokio::test]
async fn a_workflow_is_created_read_replaced_switched_and_deleted() {
    let setup = setup().await;
    let (app, owner) = (&setup.app, &setup.owner);
    let connection = setup.slack(owner).await;
    let mut body = by_webhook();
    body["steps"] = json!([{
        "id": "notify", "uses": "slack.send_message", "connection": connection,
        "with": {"text": "Hello {{user.name}}! Order #{{order.id}} confirmed."},
    }]);
    let created = app.post(owner, "/api/workflows", &body).await.expect(201);
    assert_json_snapshot!(created.body, {".definition.steps[0].connection" => "[connection]"}, @r##"
    {
      "id": "wf_01a1f8660d0070008000000000000008",
      "name": "Order alerts",
      "active": true,
      "version": 1,
      "trigger": {
        "type": "webhook"
      },
      "webhook_url": "/api/webhooks/wf_01a1f8660d0070008000000000000008",
      "created_at": "2026-11-20T10:00:00.000Z",
      "updated_at": "2026-11-20T10:00:00.000Z",
      "definition": {
        "name": "Order alerts",
        "trigger": {
          "type": "webhook"
        },
        "steps": [
          {
            "id": "notify",
            "uses": "slack.send_message",
            "connection": "[connection]",
            "with": {
              "text": "Hello {{user.name}}! Order #{{order.id}} confirmed."
            },
            "retry": {
              "max_attempts": 3,
              "initial_delay_ms": 1000,
              "multiplier": 2.0,
              "max_delay_ms": 60000
            },
            "timeout_ms": 30000,
            "on_failure": "stop",
            "on_interrupted": "retry"
          }
        ],
        "execution_timeout": 300
      },
      "last_run_at": null,
      "next_firings": null
    }
    "##);
    let id = created.text("/id");
    let path = format!("/api/workflows/{id}");
    assert_eq!((created.header("location"), created.header("etag")), (path.as_str(), "\"1\""));
    let read = app.get(owner, &path).await.expect(200);
    assert_eq!((&read.body, read.header("etag")), (&created.body, "\"1\""));

    let mut replacement = read.body["definition"].clone();
    replacement["name"] = json!("Order news");
    let without =
        app.send(Some(owner), Method::PUT, &path, &[("content-type", "application/json")], replacement.to_string());
    without.await.expect(428);
    app.put(owner, &path, "\"7\"", &replacement).await.expect(412);
    setup.world.clock.advance(std::time::Duration::from_secs(60));
    let replaced = app.put(owner, &path, "\"1\"", &replacement).await.expect(200);
    assert_eq!((replaced.header("etag"), &replaced.body["version"]), ("\"2\"", &json!(2)));
    assert_eq!((replaced.text("/name"), replaced.text("/updated_at")), ("Order news", "2026-11-20T10:01:00.000Z"));
    app.put(owner, &path, "\"1\"", &replacement).await.expect(412);
    let first = setup.world.store.workflows().definition(owner.tenant, id.parse().unwrap(), 1).await.unwrap().unwrap();
    assert_eq!(first.name, "Order alerts", "versions don't change");

    let toggle = format!("{path}/toggle");
    let empty: &[(&str, &str)] = &[];
    let off = app.send(Some(owner), Method::PUT, &toggle, empty, "").await.expect(200);
    assert_eq!((&off.body["active"], &off.body["version"], off.header("etag")), (&json!(false), &json!(2), "\"3\""));
    let off = app.put(owner, &toggle, "*", &json!({"active": false})).await.expect(200);
    assert_eq!(off.body["active"], false);
    let kept = app.put(owner, &path, "*", &replacement).await.expect(200);
    assert_eq!(kept.body["active"], false, "replacing doesn't switch it on");
    let on = app.send(Some(owner), Method::PUT, &toggle, empty, "").await.expect(200);
    assert_eq!(on.body["active"], true);
    for (bad, status) in [("[]", 422), ("{\"activ\": true}", 422), ("{\"active\": 1}", 422), ("{", 400)] {
        app.send(Some(owner), Method::PUT, &toggle, empty, bad).await.expect(status);
    }
    assert_eq!(app.get(owner, &path).await.body["active"], true, "bad input changed nothing");

    app.delete(owner, &path).await.expect(204);
    app.get(owner, &path).await.expect(404);
    app.delete(owner, &path).await.expect(404);
    app.send(Some(owner), Method::PUT, &toggle, empty, "").await.expect(404);
    assert_eq!(app.get(owner, "/api/workflows").await.expect(200).body["items"], json!([]));
}

#[tokio::test]
async fn every_mistake_is_named_and_nothing_is_stored() {
    let setup = setup().await;
    let (app, owner) = (&setup.app, &setup.owner);
    let webhook = json!({"webhook_url": "https://discord.com/api/webhooks/1/x"});
    let discord = json!({"name": "d", "connector": "discord", "data": webhook});
    let discord = app.post(owner, "/api/connections", &discord).await.expect(201).text("/id").to_owned();
    let stranger = setup.world.session("sam").await;
    let foreign = setup.slack(&stranger).await;
    let slack_step = |connection: Value| {
        let mut step = json!({"id": "s", "uses": "slack.send_message", "with": {"text": "x"}});
        if !connection.is_null() {
            step["connection"] = connection;
        }
        step
    };
    let with_step = |step: Value| {
        let mut body = by_webhook();
        body["steps"] = json!([request_step(), step]);
        body
    };
    let with_input = |input: Value| with_step(json!({"id": "s", "uses": "http.request", "with": input}));
    let changed = |change: fn(&mut Value)| {
        let mut body = by_webhook();
        change(&mut body);
        body
    };
    for (body, pointers) in [
        (json!([]), &[""][..]),
        (changed(|b| b["active"] = json!("yes")), &["/active"]),
        (changed(|b| b["nmae"] = json!("x")), &["/nmae"]),
        (changed(|b| b["trigger"] = json!({"type": "telepathy"})), &["/trigger/type"]),
        (changed(|b| b["description"] = json!(1)), &["/description"]),
        (with_step(json!({"id": "s", "uses": "slack.sendMessage"})), &["/steps/1/uses"]),
        (with_step(slack_step(Value::Null)), &["/steps/1/connection"]),
        (with_step(slack_step(json!(discord))), &["/steps/1/connection"]),
        (with_step(slack_step(json!(foreign))), &["/steps/1/connection"]),
        (with_step(slack_step(json!("conn_01890a5d000070008000000000000000"))), &["/steps/1/connection"]),
        (with_input(json!({"method": "GET"})), &["/steps/1/with/url"]),
        (
            with_input(json!({"method": "POST", "url": "{{ u }}", "headers": {"a/b": []}})),
            &["/steps/1/with/headers/a~1b"],
        ),
        (with_input(json!({"method": "GET", "url": "{{ order. }}"})), &["/steps/1/with/url"]),
        (
            with_input(json!({"method": "GET", "url": "{{ a", "query": {"q": ["{% if %}", "{{ 1 + }}"]}})),
            &["/steps/1/with/url", "/steps/1/with/query/q/1"],
        ),
    ] {
        let answer = app.post(owner, "/api/workflows", &body).await.expect(422);
        assert_eq!(answer.text("/code"), "validation_failed");
        assert_eq!(answer.pointers(), pointers, "{}", answer.body);
    }
    let unknown = app.post(owner, "/api/workflows", &with_step(json!({"id": "s", "uses": "slack.sendMessage"}))).await;
    let detail = unknown.text("/errors/0/detail");
    assert!(
        detail.contains("did you mean \"slack.send_message\"?") && detail.contains("slack.post_message"),
        "{detail}"
    );
    let other = app.post(owner, "/api/workflows", &with_step(slack_step(json!(discord)))).await;
    assert!(other.text("/errors/0/detail").contains("is for `discord`"), "{}", other.body);
    let large = with_input(json!({"method": "POST", "url": "https://e.org", "body": "x".repeat(300_000)}));
    assert_eq!(app.post(owner, "/api/workflows", &large).await.expect(422).pointers(), [""]);

    let json_type = ("content-type", "application/json");
    let broken = app.send(Some(owner), Method::POST, "/api/workflows", &[json_type], "{\"name\":").await.expect(400);
    assert!(broken.text("/detail").contains("line 1"), "{}", broken.body);
    let huge = "x".repeat(2 << 20);
    app.send(Some(owner), Method::POST, "/api/workflows", &[json_type], huge).await.expect(413);
    app.send(Some(owner), Method::POST, "/api/workflows", &[], "{}").await.expect(415);
    assert_eq!(app.get(owner, "/api/workflows").await.expect(200).body["items"], json!([]));

    let id = setup.workflow(&by_webhook()).await;
    let path = format!("/api/workflows/{id}");
    let before = app.get(owner, &path).await;
    app.put(owner, &path, "*", &with_step(slack_step(json!(foreign)))).await.expect(422);
    let after = app.get(owner, &path).await;
    assert_eq!((&after.body, after.header("etag")), (&before.body, "\"1\""));
}

#[tokio::test]
async fn lists_are_paged_newest_first() {
    let setup = setup().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        setup.world.clock.advance(std::time::Duration::from_millis(1));
        made.push(setup.workflow(&by_webhook()).await);
    }
    made.reverse();
    let stranger = setup.world.session("sam").await;
    let mut seen = Vec::new();
    let mut path = "/api/workflows?limit=2".to_owned();
    loop {
        let page = setup.app.get(&setup.owner, &path).await.expect(200);
        seen.extend(page.body["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page.body["next_cursor"].as_str() else { break };
        setup.app.get(&stranger, &format!("/api/workflows?limit=2&cursor={cursor}")).await.expect(400);
        path = format!("/api/workflows?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, made);
    assert_eq!(
        setup.app.get(&stranger, "/api/workflows").await.expect(200).body,
        json!({"items": [], "next_cursor": null})
    );
    for bad in ["limit=0", "limit=101", "limit=x", "cursor=nonsense", "color=red"] {
        setup.app.get(&setup.owner, &format!("/api/workflows?{bad}")).await.expect(400);
    }
}
