//! Workflows whose webhooks are verified: what can't be saved, and that the secret of the connection is in the head, and only
//! for ingress.

use http::Method;
use serde_json::{Value, json};
use tidegate_model::{SealedVerification, Workflow, WorkflowId};
use tidegate_platform::key_service::KeyContext;

use crate::{Setup, by_webhook, request_step, setup};

const NOBODY: &str = "conn_01890a5d000070008000000000000000";

fn verified(verify: &Value) -> Value {
    json!({"name": "w", "trigger": {"type": "webhook", "verify": verify}, "steps": [request_step()]})
}

impl Setup {
    /// A connection's id.
    async fn secret(&self, data: &Value) -> String {
        let body = json!({"name": "Stripe's webhook", "connector": "webhook_secret", "data": data});
        self.app.post(&self.owner, "/api/connections", &body).await.expect(201).text("/id").to_owned()
    }

    async fn head(&self, id: &str) -> Workflow {
        let id: WorkflowId = id.parse().unwrap();
        self.world.store.workflows().get(self.owner.tenant, id).await.unwrap().unwrap()
    }

    /// What ingress opens of a head.
    async fn head_secret(&self, id: &str) -> Option<Value> {
        let workflow = self.head(id).await;
        let sealed = workflow.verification?;
        let tenant = self.world.store.tenants().get(self.owner.tenant).await.unwrap().unwrap();
        let wrapped = tenant.data_key(sealed.data_key).unwrap().ingress.clone().unwrap();
        let (context, associated) = (KeyContext::ingress(tenant.id), workflow.id.to_string());
        let plain = self.world.envelope.open(&wrapped, &context, associated.as_bytes(), &sealed.sealed).await.unwrap();
        Some(serde_json::from_slice(&plain).unwrap())
    }
}

#[tokio::test]
async fn a_scheme_without_its_secret_can_not_be_saved() {
    let setup = setup().await;
    let slack = setup.slack(&setup.owner).await;
    let bearer = setup.secret(&json!({"type": "bearer", "secret": "t0ken"})).await;
    let connection = "/trigger/verify/connection";
    for (verify, pointer, why) in [
        (json!({"scheme": "github"}), "/trigger/verify", "missing field `connection`"),
        (json!({"scheme": "github", "connection": NOBODY}), connection, "create it first"),
        (json!({"scheme": "github", "connection": slack}), connection, "webhook_secret"),
        (json!({"scheme": "github", "connection": bearer}), connection, "signing_secret"),
        (json!({"scheme": "bitbucket", "connection": bearer}), "/trigger/verify/scheme", "unknown"),
        (json!({"scheme": "hmac", "connection": bearer}), "/trigger/verify/hmac", "required"),
    ] {
        let answer = setup.app.post(&setup.owner, "/api/workflows", &verified(&verify)).await.expect(422);
        assert!(answer.pointers().contains(&pointer), "{verify}: {}", answer.body);
        assert!(answer.body.to_string().contains(why), "{verify}: {}", answer.body);
    }
    // Another tenant's is one that nobody has.
    let stranger = setup.world.session("sam").await;
    let verify = verified(&json!({"scheme": "bearer", "connection": bearer}));
    let answer = setup.app.post(&stranger, "/api/workflows", &verify).await.expect(422);
    assert_eq!(answer.pointers(), [connection]);
    setup.app.post(&setup.owner, "/api/workflows", &verify).await.expect(201);
}

#[tokio::test]
async fn what_is_wrong_with_a_webhook_is_told_field_by_field() {
    let setup = setup().await;
    for (field, value, pointer) in [
        ("deduplicate", json!({"by": "expression"}), "/trigger/deduplicate/expression"),
        ("deduplicate", json!({"by": "expression", "expression": "1 +"}), "/trigger/deduplicate/expression"),
        ("deduplicate", json!({"by": "idempotency_key", "expression": "a"}), "/trigger/deduplicate/expression"),
        ("deduplicate", json!({"by": "delivery_id"}), "/trigger/deduplicate/by"),
        ("deduplicate", json!({"by": "idempotency_key", "remember": "30d"}), "/trigger/deduplicate/remember"),
        ("methods", json!(["GET", "GET"]), "/trigger/methods/1"),
        ("methods", json!(["TRACE"]), "/trigger/methods/0"),
        ("headers", json!(["x y"]), "/trigger/headers/0"),
        ("headers", json!(["Authorization"]), "/trigger/headers/0"),
        ("response", json!({"status": 302}), "/trigger/response/status"),
        ("response", json!({"status": 206}), "/trigger/response/status"),
        ("response", json!({"headers": {"Set-Cookie": "a=b"}}), "/trigger/response/headers/Set-Cookie"),
        ("response", json!({"headers": {"Clear-Site-Data": "*"}}), "/trigger/response/headers/Clear-Site-Data"),
        ("response", json!({"headers": {"NEL": "{}"}}), "/trigger/response/headers/NEL"),
        ("response", json!({"headers": {"X-Accel-Redirect": "/etc"}}), "/trigger/response/headers/X-Accel-Redirect"),
        ("response", json!({"headers": {"x-a": "b\r\nset-cookie: c"}}), "/trigger/response/headers/x-a"),
        ("response", json!({"status": 204, "body": "x"}), "/trigger/response/body"),
        ("cors", json!({"origins": []}), "/trigger/cors/origins"),
        ("cors", json!({"origins": ["https://a.test/path"]}), "/trigger/cors/origins/0"),
        ("cors", json!({"origins": ["https://a.test:443"]}), "/trigger/cors/origins/0"),
        ("rate_limit", json!({"per_second": 0}), "/trigger/rate_limit/per_second"),
        ("uploads", json!({"max_bytes": 0}), "/trigger/uploads/max_bytes"),
        ("respond", json!("later"), "/trigger/respond"),
        ("verifies", json!(true), "/trigger/verifies"),
    ] {
        let mut body = by_webhook();
        body["trigger"][field] = value.clone();
        let answer = setup.app.post(&setup.owner, "/api/workflows", &body).await.expect(422);
        assert_eq!(answer.pointers(), [pointer], "{field}: {value}: {}", answer.body);
    }
    let mut body = by_webhook();
    body["trigger"]["respond"] = json!("when_finished");
    body["trigger"]["response"] = json!({"body": "x"});
    let answer = setup.app.post(&setup.owner, "/api/workflows", &body).await.expect(422);
    assert_eq!(answer.pointers(), ["/trigger/response/body"]);
}

#[tokio::test]
async fn the_secret_is_in_the_head_for_ingress_alone_and_no_answer_has_it() {
    let setup = setup().await;
    let connection = setup.secret(&json!({"secret": "whsec_s3cr3t"})).await;
    let definition = verified(&json!({"scheme": "stripe", "connection": connection}));
    let created = setup.app.post(&setup.owner, "/api/workflows", &definition).await.expect(201);
    let id = created.text("/id").to_owned();
    assert_eq!(setup.head_secret(&id).await, Some(json!({"secret": "whsec_s3cr3t"})));
    let read = setup.app.get(&setup.owner, &format!("/api/workflows/{id}")).await.expect(200);
    assert!(!read.body.to_string().contains("sealed") && !read.body.to_string().contains("s3cr3t"), "{}", read.body);
    let listed = setup.app.get(&setup.owner, &format!("/api/connections/{connection}")).await.expect(200);
    assert_eq!(listed.text("/workflows/0/id"), id, "it is used");

    // Without `verify` the head has none.
    let path = format!("/api/workflows/{id}");
    setup.app.put(&setup.owner, &path, "*", &by_webhook()).await.expect(200);
    assert_eq!(setup.head_secret(&id).await, None);
    setup.app.put(&setup.owner, &path, "*", &definition).await.expect(200);
    assert!(setup.head_secret(&id).await.is_some());
    // A switch keeps it.
    let toggle = format!("{path}/toggle");
    setup.app.send(Some(&setup.owner), Method::PUT, &toggle, &[], "").await.expect(200);
    assert!(setup.head_secret(&id).await.is_some());
}

#[tokio::test]
async fn a_changed_connection_changes_the_heads_and_a_deleted_one_leaves_none() {
    let setup = setup().await;
    let connection = setup.secret(&json!({"secret": "one"})).await;
    let other = setup.secret(&json!({"secret": "other"})).await;
    let of = |connection: &str| verified(&json!({"scheme": "github", "connection": connection}));
    let [first, second] = [setup.workflow(&of(&connection)).await, setup.workflow(&of(&connection)).await];
    let elsewhere = setup.workflow(&of(&other)).await;
    let at = format!("/api/connections/{connection}");
    let data = json!({"data": {"secret": "two", "previous_secret": "one"}});
    setup.app.patch(&setup.owner, &at, &data).await.expect(200);
    for id in [&first, &second] {
        assert_eq!(setup.head_secret(id).await, Some(data["data"].clone()));
    }
    assert_eq!(setup.head_secret(&elsewhere).await, Some(json!({"secret": "other"})));

    // Whoever began to change the workflow before can't bring the former secret back.
    let before = setup.head(&first).await;
    assert_eq!(before.revision, 2);
    setup.app.put(&setup.owner, &format!("/api/workflows/{first}"), "\"1\"", &of(&connection)).await.expect(412);

    // A head that was missed, as a listing may, is found when the connection is read.
    let missed = Workflow { revision: 3, ..before.clone() };
    let missed = Workflow {
        verification: missed
            .verification
            .clone()
            .map(|sealed| SealedVerification { of: "former".to_owned(), ..sealed }),
        ..missed
    };
    setup.world.store.workflows().replace(2, &missed, None).await.unwrap();
    setup.app.get(&setup.owner, &at).await.expect(200);
    let before = setup.head(&first).await;
    assert_eq!((before.revision, before.verification.as_ref().unwrap().of == "former"), (4, false));

    // A new name is no new secret.
    setup.app.patch(&setup.owner, &at, &json!({"name": "Other"})).await.expect(200);
    assert_eq!(setup.head(&first).await, before);

    setup.app.delete(&setup.owner, &at).await.expect(204);
    for id in [&first, &second] {
        assert_eq!(setup.head_secret(id).await, None, "what is gone verifies nothing");
    }
    assert!(setup.head_secret(&elsewhere).await.is_some());
}

#[tokio::test]
async fn a_trigger_takes_the_permission_to_use_connections() {
    let setup = setup().await;
    let connection = setup.secret(&json!({"secret": "one"})).await;
    let definition = verified(&json!({"scheme": "github", "connection": connection}));
    let author = setup.builder().await;
    let answer = setup.app.post(&author, "/api/workflows", &definition).await.expect(403);
    assert_eq!(answer.pointers(), ["/trigger/verify/connection"]);
    // What is there already stays.
    let id = setup.workflow(&definition).await;
    setup.app.put(&author, &format!("/api/workflows/{id}"), "*", &definition).await.expect(200);
}

#[tokio::test]
async fn a_tenant_without_an_ingress_key_is_told_what_to_do() {
    let setup = setup().await;
    let connection = setup.secret(&json!({"secret": "one"})).await;
    let mut tenant = setup.world.store.tenants().get(setup.owner.tenant).await.unwrap().unwrap();
    for key in &mut tenant.data_keys {
        key.ingress = None;
    }
    tenant.revision += 1;
    setup.world.store.tenants().replace(&tenant).await.unwrap();
    let definition = verified(&json!({"scheme": "github", "connection": connection}));
    let answer = setup.app.post(&setup.owner, "/api/workflows", &definition).await.expect(409);
    assert!(answer.text("/detail").contains("/api/tenant/data-keys"), "{}", answer.body);
}

#[tokio::test]
async fn listening_leaves_the_workflow_as_it_is() {
    let setup = setup().await;
    let id = setup.workflow(&by_webhook()).await;
    let path = format!("/api/workflows/{id}/listen");
    let before = setup.head(&id).await;
    let answer = setup.app.send(Some(&setup.owner), Method::PUT, &path, &[], "").await.expect(200);
    let listening = setup.head(&id).await;
    assert_eq!(listening.listening_until, Some(before.created_at + std::time::Duration::from_secs(600)));
    assert!(!answer.text("/listening_until").is_empty());
    assert_eq!(Workflow { listening_until: None, ..listening }, before, "and nobody's edit fails for it");
    setup.app.delete(&setup.owner, &path).await.expect(204);
    assert_eq!(setup.head(&id).await, before);

    // Whoever switches it wants no more of that: switched off, deliveries are refused and come again.
    setup.app.send(Some(&setup.owner), Method::PUT, &path, &[], "").await.expect(200);
    let toggle = format!("/api/workflows/{id}/toggle");
    setup.app.send(Some(&setup.owner), Method::PUT, &toggle, &[], "").await.expect(200);
    assert_eq!(setup.head(&id).await.listening_until, None);

    let manual = json!({"name": "m", "trigger": {"type": "manual"}, "steps": [request_step()]});
    let manual = setup.workflow(&manual).await;
    let answer =
        setup.app.send(Some(&setup.owner), Method::PUT, &format!("/api/workflows/{manual}/listen"), &[], "").await;
    assert_eq!(answer.status, 409, "{}", answer.body);
}
