//! Connectors of a tenant's own: uploaded, used, changed, and what a change may not do.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};
use tidegate_egress::EgressSettings;
use tidegate_model::Role;
use tidegate_testing::{Session, World};
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::{Setup, setup, setup_over};

/// A small connector at a host.
pub(crate) fn manifest(host: &str, change: impl FnOnce(&mut Value)) -> Value {
    let scheme = if host.contains(':') { "http" } else { "https" };
    let mut document = json!({
        "format": 1, "name": "acme", "title": "Acme", "hosts": [host], "base_url": format!("{scheme}://{host}/v1"),
        "auth": [{"id": "key", "type": "api_key", "in": "header", "name": "X-Key"}],
        "test": {"request": {"method": "GET", "path": "/me"}, "account": "{{ body.name }}"},
        "actions": {
            "list_things": {
                "title": "List", "effect": "read", "input": {"type": "object"},
                "request": {"method": "GET", "path": "/things"}, "paging": {"items": "{{ body }}", "link": true},
            },
            "make_thing": {
                "title": "Make", "effect": "write", "request": {"method": "POST", "path": "/things", "json": "{{ input }}"},
                "input": {
                    "type": "object", "required": ["name"], "additionalProperties": false,
                    "properties": {
                        "name": {"type": "string"},
                        "like": {"type": "string", "x-options": {"action": "list_things", "value": "id", "label": "name"}},
                    },
                },
            },
        },
    });
    change(&mut document);
    document
}

async fn with_vendor() -> (Setup, MockServer) {
    let world = World::new().await;
    let scheduler = Arc::new(world.scheduler.clone());
    let allow = vec!["127.0.0.1/32".parse().unwrap()];
    let setup = setup_over(world, scheduler, EgressSettings { allow, ..EgressSettings::default() }).await;
    (setup, MockServer::start().await)
}

fn workflow(connection: &str, with: &Value) -> Value {
    let step = json!({"id": "make", "uses": "acme.make_thing", "connection": connection, "with": with});
    json!({"name": "w", "trigger": {"type": "manual"}, "steps": [step]})
}

impl Setup {
    async fn upload(&self, as_whom: &Session, manifest: &Value, version: u64) {
        let if_match = format!("\"{}\"", version - 1);
        let headers = [("content-type", "application/yaml"), ("if-match", if_match.as_str())];
        let (method, path, status) = match version {
            1 => (Method::POST, "/api/connectors", 201),
            _ => (Method::PUT, "/api/connectors/acme", 200),
        };
        let answer = self.app.send(Some(as_whom), method, path, &headers, manifest.to_string()).await.expect(status);
        assert_eq!(
            (answer.header("etag"), &answer.body["version"]),
            (format!("\"{version}\"").as_str(), &json!(version))
        );
    }
}

#[tokio::test]
async fn what_is_uploaded_can_be_used_at_once() {
    let (setup, vendor) = with_vendor().await;
    let (app, owner) = (&setup.app, &setup.owner);
    let host = vendor.address().to_string();
    let listed = app.get(owner, "/api/connectors").await.expect(200);
    let names = |body: &Value| -> Vec<String> {
        body["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    assert!(names(&listed.body).contains(&"slack".to_owned()) && names(&listed.body).len() >= 15, "{}", listed.body);

    setup.upload(owner, &manifest(&host, |_| {}), 1).await;
    assert!(names(&app.get(owner, "/api/connectors").await.body).contains(&"acme".to_owned()));
    let detail = app.get(owner, "/api/connectors/acme").await.expect(200).body;
    assert_eq!((&detail["publisher"], &detail["auth"][0]["id"]), (&json!("tenant"), &json!("key")));
    assert_eq!(detail["auth"][0]["schema"]["properties"]["api_key"]["x-ui"], "secret");
    let action = app.get(owner, "/api/connectors/acme/actions/make_thing").await.expect(200).body;
    assert_eq!((&action["uses"], &action["effect"]), (&json!("acme.make_thing"), &json!("write")));
    let stored = app.get(owner, "/api/connectors/acme/manifest").await.expect(200).body;
    setup.upload(owner, &stored, 2).await;

    // The connection is tested as it is made.
    let me = ResponseTemplate::new(200).set_body_json(json!({"name": "Alex Ltd."}));
    Mock::given(path("/v1/me")).and(header("x-key", "s3cr3t-s3cr3t")).respond_with(me).mount(&vendor).await;
    let body = json!({"name": "Acme", "connector": "acme", "data": {"api_key": "s3cr3t-s3cr3t"}});
    let made = app.post(owner, "/api/connections", &body).await.expect(201);
    assert_eq!((&made.body["health"]["status"], &made.body["health"]["account"]), (&json!("ok"), &json!("Alex Ltd.")));
    let connection = made.text("/id").to_owned();
    let wrong = app.post(owner, "/api/workflows", &workflow(&connection, &json!({}))).await.expect(422);
    assert_eq!(wrong.pointers(), ["/steps/0/with/name"]);
    let unknown =
        json!({"name": "w", "trigger": {"type": "manual"}, "steps": [{"id": "s", "uses": "acme.make_things"}]});
    let unknown = app.post(owner, "/api/workflows", &unknown).await.expect(422);
    assert!(unknown.text("/errors/0/detail").contains("there is no such action"), "{}", unknown.body);
    let workflow = app.post(owner, "/api/workflows", &workflow(&connection, &json!({"name": "x"}))).await.expect(201);
    let detail = app.get(owner, &format!("/api/connections/{connection}")).await.expect(200).body;
    assert_eq!(detail["workflows"], json!([{"id": workflow.text("/id"), "name": "w", "active": true}]));

    // Choices of a field come from the vendor.
    let things =
        ResponseTemplate::new(200).set_body_json(json!([{"id": "t1", "name": "One"}, {"id": "t2", "name": "Two"}]));
    Mock::given(path("/v1/things")).and(header("x-key", "s3cr3t-s3cr3t")).respond_with(things).mount(&vendor).await;
    let asked = json!({"action": "acme.make_thing", "field": "like"});
    let options = app.post(owner, &format!("/api/connections/{connection}/options"), &asked).await.expect(200).body;
    assert_eq!(options["items"], json!([{"value": "t1", "label": "One"}, {"value": "t2", "label": "Two"}]));

    // Once the vendor refuses the key, the list says so, and why.
    vendor.reset().await;
    Mock::given(path("/v1/me")).respond_with(ResponseTemplate::new(401)).mount(&vendor).await;
    let tested = app.post(owner, &format!("/api/connections/{connection}/test"), &Value::Null).await.expect(200).body;
    assert_eq!((&tested["ok"], &tested["health"]["status"]), (&json!(false), &json!("broken")));
    let listed = app.get(owner, "/api/connections").await.expect(200).body;
    let health = &listed["items"][0]["health"];
    assert!(health["reason"].as_str().unwrap().contains("401") && !health["since"].is_null(), "{health}");

    app.send(Some(owner), Method::DELETE, "/api/connectors/acme", &[], "").await.expect(204);
    app.get(owner, "/api/connectors/acme").await.expect(404);
    let gone = app.patch(owner, &format!("/api/connections/{connection}"), &json!({"data": {"api_key": "x"}})).await;
    assert_eq!(gone.expect(409).text("/code"), "connector_gone");
}

/// A colleague's version 2 sends the secret to a host of its own.
#[tokio::test]
async fn a_new_version_gets_no_secret_for_its_new_host_until_somebody_consents() {
    let (setup, vendor) = with_vendor().await;
    let thief = MockServer::start().await;
    for server in [&vendor, &thief] {
        Mock::given(path("/v1/me")).respond_with(ResponseTemplate::new(200)).mount(server).await;
    }
    let (app, owner) = (&setup.app, &setup.owner);
    let editor = setup.world.member(owner, Role::Editor).await;
    let (good, bad) = (vendor.address().to_string(), thief.address().to_string());
    setup.upload(owner, &manifest(&good, |_| {}), 1).await;
    let body = json!({"name": "Acme", "connector": "acme", "data": {"api_key": "s3cr3t-s3cr3t"}});
    let connection = app.post(owner, "/api/connections", &body).await.expect(201).text("/id").to_owned();
    let at = |rest: &str| format!("/api/connections/{connection}{rest}");

    // Another host; the same host, the secret in the query of a request that others read; both.
    let moved = |document: &mut Value| {
        document["auth"][0] = json!({"id": "key", "type": "api_key", "in": "query", "name": "leak"});
    };
    setup.upload(&editor, &manifest(&bad, |_| {}), 2).await;
    let test = app.post(&editor, &at("/test"), &Value::Null).await.expect(200).body;
    assert!(test["detail"].as_str().unwrap().contains("may not be sent to"), "{test}");
    let detail = app.get(owner, &at("")).await.expect(200).body;
    assert_eq!((&detail["hosts"], &detail["pending"]["new_hosts"]), (&json!([good]), &json!([bad])));
    assert_eq!((&detail["pending"]["version"], &detail["pending"]["moves_secret"]), (&json!(2), &json!(false)));
    setup.upload(&editor, &manifest(&good, moved), 3).await;
    app.post(&editor, &at("/test"), &Value::Null).await.expect(200);
    let detail = app.get(owner, &at("")).await.expect(200).body;
    assert_eq!((&detail["pending"]["new_hosts"], &detail["pending"]["moves_secret"]), (&json!([]), &json!(true)));
    let asked = vendor.received_requests().await.unwrap();
    let last = asked.last().unwrap();
    assert_eq!((last.url.query(), last.headers["x-key"].to_str().unwrap()), (None, "s3cr3t-s3cr3t"), "where it was");

    // Neither can the editor consent, nor anybody to another version than the one that was looked at.
    let seen = json!({"consent": detail["pending"]["consent"]});
    assert_eq!(detail["pending"]["query"], json!(["leak"]));
    app.post(&editor, &at("/consent"), &seen).await.expect(403);
    setup.upload(&editor, &manifest(&bad, |_| {}), 4).await;
    assert_eq!(app.post(owner, &at("/consent"), &seen).await.expect(409).text("/code"), "conflict");
    // The same number again, of a connector that was deleted and made anew.
    app.delete(&editor, "/api/connectors/acme").await.expect(204);
    setup.upload(&editor, &manifest(&good, |_| {}), 1).await;
    setup.upload(&editor, &manifest(&good, |_| {}), 2).await;
    setup.upload(&editor, &manifest(&bad, |_| {}), 3).await;
    assert_eq!(app.post(owner, &at("/consent"), &seen).await.expect(409).text("/code"), "conflict");
    assert_eq!(thief.received_requests().await.unwrap().len(), 0, "no secret left so far");
    let pending = app.get(owner, &at("")).await.expect(200).body["pending"].clone();
    let consented = app.post(owner, &at("/consent"), &json!({"consent": pending["consent"]})).await.expect(200).body;
    assert_eq!((&consented["hosts"], &consented["pending"]), (&json!([bad]), &Value::Null));
    assert_eq!(app.post(owner, &at("/test"), &Value::Null).await.expect(200).body["ok"], true);
    assert_eq!(thief.received_requests().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_manifest_that_is_wrong_changes_nothing() {
    let setup = setup().await;
    let (app, owner) = (&setup.app, &setup.owner);
    for (change, pointer) in [
        (json!({"name": "slack"}), "/name"),
        (json!({"hosts": ["*.example.com"]}), "/hosts/0"),
        (json!({"base_url": "https://other.example.com"}), "/base_url"),
        (json!({"actions": {}}), "/actions"),
        (json!({"surprise": 1}), "/surprise"),
    ] {
        let wrong = manifest("a.test", |document| {
            document.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        });
        let answer = app.post(owner, "/api/connectors", &wrong).await.expect(422);
        assert!(answer.pointers().contains(&pointer), "{change}: {}", answer.body);
    }
    let yaml = ("content-type", "application/yaml");
    let no_yaml = app.send(Some(owner), Method::POST, "/api/connectors", &[yaml], "a: [1").await.expect(422);
    assert!(no_yaml.text("/errors/0/detail").starts_with("the manifest is no YAML"), "{}", no_yaml.body);
    app.get(owner, "/api/connectors/acme").await.expect(404);

    setup.upload(owner, &manifest("a.test", |_| {}), 1).await;
    let again = app.post(owner, "/api/connectors", &manifest("a.test", |_| {})).await.expect(409);
    assert_eq!(again.text("/code"), "name_taken");
    let stale = [yaml, ("if-match", "\"7\"")];
    let next = manifest("b.test", |_| {}).to_string();
    app.send(Some(owner), Method::PUT, "/api/connectors/acme", &stale, next.clone()).await.expect(412);
    app.send(Some(owner), Method::PUT, "/api/connectors/acme", &[yaml], next).await.expect(428);
    let renamed = manifest("a.test", |document| document["name"] = json!("other")).to_string();
    let current = [yaml, ("if-match", "\"1\"")];
    let answer = app.send(Some(owner), Method::PUT, "/api/connectors/acme", &current, renamed).await.expect(422);
    assert_eq!(answer.pointers(), ["/name"]);
    assert_eq!(app.get(owner, "/api/connectors/acme").await.body["hosts"], json!(["a.test"]));
    // Another tenant has neither the connector nor its name taken.
    let stranger = setup.world.session("sam").await;
    app.get(&stranger, "/api/connectors/acme").await.expect(404);
    app.post(&stranger, "/api/connectors", &manifest("c.test", |_| {})).await.expect(201);
}

#[tokio::test]
async fn an_openapi_document_becomes_a_connector() {
    let (setup, vendor) = with_vendor().await;
    let (app, owner) = (&setup.app, &setup.owner);
    let document = json!({
        "openapi": "3.1.0", "info": {"title": "Pet shop", "version": "1"}, "servers": [{"url": vendor.uri()}],
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}}, "security": [{"token": []}],
        "paths": {
            "/pets/{id}": {"get": {
                "operationId": "getPet", "summary": "Get a pet",
                "parameters": [{"name": "id", "in": "path", "required": true, "schema": {"type": "integer"}}],
                "responses": {"200": {"description": "ok", "content": {"application/json": {}}}},
            }},
            "/pets/{id}/photo": {"put": {
                "operationId": "putPhoto", "requestBody": {"required": true, "content": {"image/png": {}}},
                "responses": {"204": {"description": "ok"}},
            }},
        },
    });
    let yaml = ResponseTemplate::new(200).set_body_string(document.to_string());
    Mock::given(path("/openapi.json")).respond_with(yaml).mount(&vendor).await;
    let url = format!("{}/openapi.json", vendor.uri());
    let looked =
        app.post(owner, "/api/connectors/import", &json!({"url": url, "dry_run": true})).await.expect(200).body;
    assert_eq!(
        (&looked["report"]["actions"], &looked["report"]["left_out"][0]["at"]),
        (&json!(1), &json!("PUT /pets/{id}/photo"))
    );
    assert_eq!(looked["manifest"]["name"], "pet_shop");
    app.get(owner, "/api/connectors/pet_shop").await.expect(404);

    let made = app.post(owner, "/api/connectors/import", &json!({"url": url, "name": "pets"})).await.expect(201);
    assert_eq!((made.header("location"), &made.body["connector"]["version"]), ("/api/connectors/pets", &json!(1)));
    let body = json!({"name": "Pets", "connector": "pets", "data": {"token": "s3cr3t-s3cr3t"}});
    let connection = app.post(owner, "/api/connections", &body).await.expect(201).text("/id").to_owned();
    let action = app.get(owner, "/api/connectors/pets/actions/get_pet").await.expect(200).body;
    assert_eq!(action["input"]["required"], json!(["id"]));
    let step = json!({"id": "s", "uses": "pets.get_pet", "connection": connection, "with": {"id": 7}});
    let workflow = json!({"name": "w", "trigger": {"type": "manual"}, "steps": [step]});
    app.post(owner, "/api/workflows", &workflow).await.expect(201);

    let own_auth = json!([{"id": "key", "type": "api_key", "in": "header", "name": "X-Key"}]);
    let other = json!({"document": document, "name": "pets2", "auth": own_auth});
    let other = app.post(owner, "/api/connectors/import", &other).await.expect(201).body;
    assert_eq!(other["connector"]["auth"][0]["id"], "key");
    for (body, pointer) in [
        (json!({}), "/url"),
        (json!({"url": "http://10.0.0.1/openapi.json"}), "/url"),
        (json!({"url": "file:///etc/passwd"}), "/url"),
        (json!({"url": format!("{}/absent", vendor.uri())}), "/url"),
        (json!({"document": {"swagger": "2.0"}}), "/document/swagger"),
        (json!({"document": document, "name": "slack"}), "/name"),
        (json!({"document": document, "server": "nonsense"}), "/server"),
    ] {
        let answer = app.post(owner, "/api/connectors/import", &body).await.expect(422);
        assert!(answer.pointers().contains(&pointer), "{body}: {}", answer.body);
    }
    let taken = app.post(owner, "/api/connectors/import", &json!({"url": url, "name": "pets"})).await.expect(409);
    assert_eq!(taken.text("/code"), "name_taken");
}

/// A connection that is changed is entered whole: what was entered before goes nowhere else.
#[tokio::test]
async fn a_secret_is_entered_anew_for_other_hosts() {
    let (setup, vendor) = with_vendor().await;
    Mock::given(method("GET")).respond_with(ResponseTemplate::new(200)).mount(&vendor).await;
    let (app, owner) = (&setup.app, &setup.owner);
    let port = vendor.address().port();
    let with_domain = manifest("a.test", |document| {
        document["hosts"] = json!([format!("{{{{ connection.domain }}}}:{port}")]);
        document["base_url"] = json!(format!("http://{{{{ connection.domain }}}}:{port}/v1"));
        document["auth"][0]["fields"] = json!({"domain": {"secret": false}});
    });
    setup.upload(owner, &with_domain, 1).await;
    let host = vendor.address().to_string();
    let data = |domain: &str| json!({"domain": domain, "api_key": "s3cr3t-s3cr3t"});
    let body = json!({"name": "Acme", "connector": "acme", "data": data("127.0.0.1")});
    let made = app.post(owner, "/api/connections", &body).await.expect(201);
    assert_eq!((&made.body["hosts"], &made.body["settings"]), (&json!([host]), &json!({"domain": "127.0.0.1"})));
    let at = format!("/api/connections/{}", made.text("/id"));
    for (change, pointer) in [
        (json!({"data": {"domain": "evil.test"}}), "/data/api_key"),
        (json!({"hosts": ["evil.test"]}), "/hosts"),
        (json!({"data": data("evil.test"), "hosts": ["evil.test"]}), "/hosts"),
        (json!({"data": {"domain": "evil.test/", "api_key": "x"}}), "/data/domain"),
        (json!({"name": ""}), "/name"),
    ] {
        let answer = app.patch(owner, &at, &change).await.expect(422);
        assert!(answer.pointers().contains(&pointer), "{change}: {}", answer.body);
    }
    assert_eq!(app.get(owner, &at).await.body["hosts"], json!([host]));
    let changed = app.patch(owner, &at, &json!({"name": "New", "data": data("other.test")})).await.expect(200).body;
    assert_eq!((&changed["name"], &changed["hosts"]), (&json!("New"), &json!([format!("other.test:{port}")])));
    assert_eq!(changed["health"]["status"], "untested", "it can't be reached, which says nothing of it");
}
