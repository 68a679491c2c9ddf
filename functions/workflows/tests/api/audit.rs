//! What the audit log tells of changes to workflows and connections.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tidegate_model::{AuditEntry, Role, TenantId};
use tidegate_platform::scheduler::{Timer, TimerPage};
use tidegate_platform::{PortError, Scheduler};
use tidegate_store::AuditFilter;
use tidegate_testing::{Session, World};

use crate::{Setup, by_webhook, every, setup, setup_with};

const SECRET: &str = "s3cr3t-0f-alex";

impl Setup {
    /// A tenant's log, oldest first.
    async fn log(&self, tenant: TenantId) -> Vec<AuditEntry> {
        let filter = AuditFilter::default();
        let mut page = self.world.store.audit().list(Some(tenant), &filter, None, 100).await.unwrap();
        page.items.reverse();
        page.items
    }

    /// The one entry that a request leaves, which comes from an address of its own.
    async fn leaves(&self, method: Method, path: &str, body: &Value, status: u16) -> (AuditEntry, Value) {
        let before = self.log(self.owner.tenant).await;
        let app = self.app.from_address("2001:db8::7".parse().unwrap());
        let headers = [("content-type", "application/json"), ("if-match", "*")];
        let answer = app.send(Some(&self.owner), method.clone(), path, &headers, body.to_string()).await.expect(status);
        let after = self.log(self.owner.tenant).await;
        assert_eq!(after[..before.len()], before, "{method} {path}: what is in the log stays as it is");
        let [entry] = &after[before.len()..] else { panic!("{method} {path} leaves {:?}", &after[before.len()..]) };
        assert_eq!(entry.request_id, answer.header("x-request-id"));
        assert_eq!(entry.actor.principal, Some(self.owner.user.into()), "{method} {path}");
        assert_eq!(entry.actor.session, Some(self.owner.session));
        assert_eq!(entry.actor.address, Some("2001:db8::7".parse().unwrap()));
        (entry.clone(), answer.body)
    }
}

fn connection() -> Value {
    let url = format!("https://hooks.slack.com/services/T000/B000/{SECRET}");
    json!({"name": "Orders channel", "connector": "slack", "data": {"webhook_url": url}})
}

/// A workflow's head, as the API shows it: a detail without what else is in it.
fn head(detail: &Value) -> Value {
    let mut head = detail.clone();
    let more = ["definition", "last_run_at", "next_firings"];
    head.as_object_mut().unwrap().retain(|member, _| !more.contains(&member.as_str()));
    head
}

#[tokio::test]
async fn every_change_leaves_one_entry_with_before_and_after() {
    let setup = setup().await;
    let mut told = BTreeSet::new();
    let mut tell =
        |method: &Method, path: &str| assert!(told.insert(format!("{method} {path}")), "{method} {path} twice");
    let (post, put, delete) = (Method::POST, Method::PUT, Method::DELETE);

    let (entry, created) = setup.leaves(post.clone(), "/api/workflows", &by_webhook(), 201).await;
    tell(&post, "/api/workflows");
    let id = created["id"].as_str().unwrap();
    assert_eq!((&*entry.action, &*entry.target), ("workflow.create", id));
    assert_eq!((entry.before, entry.after), (None, Some(head(&created))));

    setup.world.clock.advance(std::time::Duration::from_secs(1));
    let path = format!("/api/workflows/{id}");
    let mut renamed = by_webhook();
    renamed["name"] = json!("Renamed");
    let (entry, replaced) = setup.leaves(put.clone(), &path, &renamed, 200).await;
    tell(&put, "/api/workflows/{id}");
    assert_eq!((&*entry.action, &*entry.target), ("workflow.update", id));
    assert_eq!((entry.before, entry.after), (Some(head(&created)), Some(head(&replaced))));

    let (entry, off) = setup.leaves(put.clone(), &format!("{path}/toggle"), &Value::Null, 200).await;
    tell(&put, "/api/workflows/{id}/toggle");
    assert_eq!((&*entry.action, &*entry.target), ("workflow.toggle", id));
    assert_eq!((entry.before, entry.after), (Some(head(&replaced)), Some(off.clone())));

    let listen = format!("{path}/listen");
    let (entry, listening) = setup.leaves(put.clone(), &listen, &Value::Null, 200).await;
    tell(&put, "/api/workflows/{id}/listen");
    assert_eq!((&*entry.action, &*entry.target), ("workflow.listen", id));
    assert_eq!((entry.before, entry.after), (Some(json!({"listening_until": null})), Some(listening.clone())));
    let (entry, _) = setup.leaves(delete.clone(), &listen, &Value::Null, 204).await;
    tell(&delete, "/api/workflows/{id}/listen");
    assert_eq!((entry.before, entry.after), (Some(listening), Some(json!({"listening_until": null}))));

    let (entry, _) = setup.leaves(delete.clone(), &path, &Value::Null, 204).await;
    tell(&delete, "/api/workflows/{id}");
    assert_eq!((&*entry.action, &*entry.target), ("workflow.delete", id));
    assert_eq!((entry.before, entry.after), (Some(off), None));

    for base in ["/api/connections", "/api/credentials"] {
        let (entry, created) = setup.leaves(post.clone(), base, &connection(), 201).await;
        tell(&post, base);
        let id = created["id"].as_str().unwrap();
        assert_eq!((&*entry.action, &*entry.target), ("connection.create", id));
        assert_eq!((entry.before, entry.after), (None, Some(created.clone())));
        let (entry, _) = setup.leaves(delete.clone(), &format!("{base}/{id}"), &Value::Null, 204).await;
        tell(&delete, &format!("{base}/{{id}}"));
        assert_eq!((&*entry.action, &*entry.target), ("connection.delete", id));
        assert_eq!((entry.before, entry.after), (Some(created), None));
    }

    let patch = Method::PATCH;
    let (_, created) = setup.leaves(post.clone(), "/api/connections", &connection(), 201).await;
    let path = format!("/api/connections/{}", created["id"].as_str().unwrap());
    let (entry, renamed) = setup.leaves(patch.clone(), &path, &json!({"name": "Other"}), 200).await;
    tell(&patch, "/api/connections/{id}");
    assert_eq!((&*entry.action, entry.before), ("connection.update", Some(created)));
    assert_eq!(entry.after.unwrap()["name"], renamed["name"]);

    let manifest = |host: &str| crate::connectors::manifest(host, |_| {});
    let (entry, created) = setup.leaves(post.clone(), "/api/connectors", &manifest("a.test"), 201).await;
    tell(&post, "/api/connectors");
    assert_eq!((&*entry.action, &*entry.target), ("connector.create", "acme"));
    assert_eq!((entry.before, &entry.after.unwrap()["version"]), (None, &created["version"]));
    let acme = json!({"name": "Acme", "connector": "acme", "data": {"api_key": SECRET}});
    let (_, connected) = setup.leaves(post.clone(), "/api/connections", &acme, 201).await;
    let (entry, _) = setup.leaves(put.clone(), "/api/connectors/acme", &manifest("b.test"), 200).await;
    tell(&put, "/api/connectors/{name}");
    assert_eq!((&*entry.action, &entry.after.unwrap()["version"]), ("connector.update", &json!(2)));
    let at = format!("/api/connections/{}", connected["id"].as_str().unwrap());
    let pending = setup.app.get(&setup.owner, &at).await.expect(200).body["pending"].clone();
    let consent = json!({"consent": pending["consent"]});
    let (entry, _) = setup.leaves(post.clone(), &format!("{at}/consent"), &consent, 200).await;
    tell(&post, "/api/connections/{id}/consent");
    assert_eq!((&*entry.action, &entry.after.unwrap()["hosts"]), ("connection.consent", &json!(["b.test"])));
    let (entry, _) = setup.leaves(delete.clone(), "/api/connectors/acme", &Value::Null, 204).await;
    tell(&delete, "/api/connectors/{name}");
    assert_eq!((&*entry.action, &entry.before.unwrap()["version"]), ("connector.delete", &json!(2)));

    let document = json!({
        "openapi": "3.0.3", "info": {"title": "Pets", "version": "1"}, "servers": [{"url": "https://a.test"}],
        "paths": {"/pets": {"get": {"operationId": "listPets", "responses": {"200": {"description": "Pets"}}}}},
    });
    let import = json!({"document": document});
    let (entry, _) = setup.leaves(post.clone(), "/api/connectors/import", &import, 201).await;
    tell(&post, "/api/connectors/import");
    assert_eq!((&*entry.action, &*entry.target), ("connector.create", "pets"));

    // A sign-in at a vendor is told at its end, by the callback.
    let changes_nothing = [
        "/api/workflows/{id}/trigger",
        "/api/expressions/evaluate",
        "/api/connections/{id}/test",
        "/api/connections/{id}/options",
        "/api/connections/oauth",
    ];
    let all: BTreeSet<_> = setup
        .app
        .operations()
        .iter()
        .filter(|(method, path, _)| {
            method != Method::GET && !changes_nothing.contains(&path.as_str()) && !path.starts_with("/api/admin/")
        })
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    assert_eq!(told, all, "say here what each operation leaves in the log");
    let log = serde_json::to_string(&setup.log(setup.owner.tenant).await).unwrap();
    assert!(!log.contains(SECRET) && !log.contains("sealed") && !log.contains("webhook_url\":\"https"), "{log}");
}

#[tokio::test]
async fn what_changes_nothing_leaves_nothing() {
    let setup = setup().await;
    let id = setup.workflow(&by_webhook()).await;
    let made = setup.app.post(&setup.owner, "/api/connections", &connection()).await.expect(201);
    let (workflow, credential) = (format!("/api/workflows/{id}"), format!("/api/connections/{}", made.text("/id")));
    let before = setup.log(setup.owner.tenant).await;
    let (stranger, viewer) = (setup.world.session("sam").await, setup.world.member(&setup.owner, Role::Viewer).await);
    let invalid = json!({"name": "", "trigger": {"type": "telepathy"}, "steps": []});
    let (toggle, trigger) = (format!("{workflow}/toggle"), format!("{workflow}/trigger"));
    let owner = &setup.owner;
    let calls: Vec<(&Session, Method, &str, &str, Value, u16)> = vec![
        (owner, Method::POST, "/api/workflows", "*", invalid.clone(), 422),
        (owner, Method::PUT, &workflow, "*", invalid, 422),
        (owner, Method::PUT, &workflow, "\"7\"", by_webhook(), 412),
        (owner, Method::PUT, &toggle, "*", json!({"active": 1}), 422),
        (owner, Method::POST, "/api/connections", "*", json!({"name": "x", "connector": "slack", "data": {}}), 422),
        (owner, Method::POST, "/api/expressions/evaluate", "*", json!({"expression": "1"}), 200),
        (owner, Method::POST, &trigger, "*", json!({}), 202),
        (&viewer, Method::PUT, &toggle, "*", json!({}), 403),
        (&viewer, Method::DELETE, &workflow, "*", Value::Null, 403),
        (&viewer, Method::DELETE, &credential, "*", Value::Null, 403),
        (&stranger, Method::PUT, &workflow, "*", by_webhook(), 404),
        (&stranger, Method::PUT, &toggle, "*", json!({}), 404),
        (&stranger, Method::DELETE, &workflow, "*", Value::Null, 404),
        (&stranger, Method::DELETE, &credential, "*", Value::Null, 404),
    ];
    for (session, method, path, tag, body, status) in calls {
        let headers = [("content-type", "application/json"), ("if-match", tag)];
        let answer = setup.app.send(Some(session), method.clone(), path, &headers, body.to_string()).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}: {}", answer.body);
    }
    assert_eq!(setup.log(setup.owner.tenant).await, before);
    assert_eq!(setup.log(stranger.tenant).await, []);
}

/// A scheduler that is away.
struct Away;

#[async_trait]
impl Scheduler for Away {
    async fn put(&self, _timer: Timer) -> Result<(), PortError> {
        Err(PortError::new("reach the scheduler", "away"))
    }

    async fn delete(&self, _tenant: TenantId, _name: &str) -> Result<(), PortError> {
        Err(PortError::new("reach the scheduler", "away"))
    }

    async fn list(&self, _: Option<&str>) -> Result<TimerPage, PortError> {
        Err(PortError::new("list timers", "away"))
    }
}

/// The log can't take back that the workflow was there for a moment, in which it could be read.
#[tokio::test]
async fn a_workflow_without_its_schedule_is_told_to_be_made_and_to_be_gone_again() {
    let setup = setup_with(World::new().await, Arc::new(Away)).await;
    let failed = setup.app.post(&setup.owner, "/api/workflows", &every("10m")).await.expect(503);
    let [made, gone] = &setup.log(setup.owner.tenant).await[..] else { panic!("two entries") };
    assert_eq!((&*made.action, &*gone.action), ("workflow.create", "workflow.delete"));
    assert_eq!((&made.target, &made.after), (&gone.target, &gone.before));
    assert!([made, gone].iter().all(|entry| entry.request_id == failed.header("x-request-id")));
}

#[tokio::test]
async fn what_is_deleted_by_several_at_once_is_told_to_be_gone_once() {
    let setup = setup().await;
    let made = setup.app.post(&setup.owner, "/api/connections", &connection()).await.expect(201);
    let paths = [
        format!("/api/workflows/{}", setup.workflow(&by_webhook()).await),
        format!("/api/connections/{}", made.text("/id")),
    ];
    for path in &paths {
        let all = join_all((0..4).map(|_| setup.app.delete(&setup.owner, path))).await;
        let mut statuses: Vec<_> = all.iter().map(|answer| answer.status.as_u16()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [204, 404, 404, 404], "{path}");
    }
    assert_eq!(setup.log(setup.owner.tenant).await.len(), 4);
}
