//! `/api/connections` and its older name, `/api/credentials`.

use insta::assert_json_snapshot;
use serde_json::{Value, json};
use tidegate_platform::key_service::KeyContext;

use crate::setup;

#[tokio::test]
async fn a_secret_goes_in_and_never_comes_out() {
    let setup = setup().await;
    let (app, owner) = (&setup.app, &setup.owner);
    let secret = json!({"webhook_url": "https://Hooks.Slack.com/services/T000/B000/s3cr3t"});
    let body = json!({"name": " Orders channel ", "connector": "slack", "data": secret});
    let created = app.post(owner, "/api/connections", &body).await.expect(201);
    assert_json_snapshot!(created.body, @r##"
    {
      "id": "conn_01a1f8660d0070008000000000000005",
      "name": "Orders channel",
      "connector": "slack",
      "publisher": "builtin",
      "auth": "webhook",
      "settings": {},
      "hosts": [
        "hooks.slack.com"
      ],
      "health": {
        "status": "untested",
        "reason": null,
        "account": null,
        "since": null
      },
      "created_by": "usr_01a1f8660d0070008000000000000001",
      "created_at": "2026-11-20T10:00:00.000Z"
    }
    "##);
    let id = created.text("/id").to_owned();
    assert_eq!(created.header("location"), format!("/api/connections/{id}"));
    for path in ["/api/connections", "/api/credentials"] {
        let mut read = app.get(owner, &format!("{path}/{id}")).await.expect(200);
        assert_eq!(read.body.as_object_mut().unwrap().remove("workflows"), Some(json!([])));
        let list = app.get(owner, path).await.expect(200);
        assert_eq!((&read.body, &list.body["items"]), (&created.body, &json!([created.body])));
    }

    let stored = setup.world.store.connections().get(owner.tenant, id.parse().unwrap()).await.unwrap().unwrap();
    assert!(!serde_json::to_string(&stored).unwrap().contains("s3cr3t"));
    let tenant = setup.world.store.tenants().get(owner.tenant).await.unwrap().unwrap();
    let context = KeyContext::connections(owner.tenant);
    let open = |associated: String| {
        let (world, tenant, context, sealed) = (&setup.world, &tenant, &context, &stored.sealed);
        async move { world.envelope.open(&tenant.data_keys[0].wrapped, context, associated.as_bytes(), sealed).await }
    };
    assert_eq!(serde_json::from_slice::<Value>(&open(id.clone()).await.unwrap()).unwrap(), secret);
    open("conn_01890a5d000070008000000000000000".to_owned()).await.unwrap_err();

    app.delete(owner, &format!("/api/credentials/{id}")).await.expect(204);
    app.get(owner, &format!("/api/connections/{id}")).await.expect(404);
    app.delete(owner, &format!("/api/connections/{id}")).await.expect(404);
    let again = app.post(owner, "/api/credentials", &body).await.expect(201);
    app.get(owner, &format!("/api/connections/{}", again.text("/id"))).await.expect(200);
}

#[tokio::test]
async fn a_connection_that_can_not_work_is_refused_without_repeating_the_secret() {
    let setup = setup().await;
    let connection = |connector: &str, data: Value| json!({"name": "n", "connector": connector, "data": data});
    let bearer = || connection("http", json!({"type": "bearer", "token": "s3cr3t"}));
    let with = |mut body: Value, field: &str, value: Value| {
        body[field] = value;
        body
    };
    for (body, pointer) in [
        (with(with(bearer(), "hosts", json!(["a.org"])), "name", json!("  ")), "/name"),
        (with(bearer(), "hosts", json!("a.org")), "/hosts"),
        (with(bearer(), "secret", json!("s3cr3t")), "/secret"),
        (bearer(), "/hosts"),
        (with(bearer(), "hosts", json!(["ok.org", "https://a.org"])), "/hosts/1"),
        (connection("telegram", json!({})), "/connector"),
        (connection("slack", json!({"webhook_url": "http://hooks.slack.com/s3cr3t"})), "/data/webhook_url"),
        (connection("slack", json!("s3cr3t")), "/data"),
        (connection("discord", json!({"webhook_url": "https://x.org", "token": "s3cr3t"})), "/data/token"),
        (connection("http", json!({"type": "basic", "username": "a:b", "password": "s3cr3t"})), "/data/username"),
        (json!({"name": "n", "connector": "slack"}), "/data"),
    ] {
        let answer = setup.app.post(&setup.owner, "/api/connections", &body).await.expect(422);
        assert_eq!(answer.pointers(), [pointer], "{}", answer.body);
        assert!(!answer.body.to_string().contains("s3cr3t"), "{}", answer.body);
    }
    assert_eq!(setup.app.get(&setup.owner, "/api/connections").await.body["items"], json!([]));
}
