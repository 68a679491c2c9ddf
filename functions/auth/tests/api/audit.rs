//! `/api/audit`, and that nothing changes what is in it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::body::Body;
use http::Method;
use insta::assert_json_snapshot;
use serde_json::{Value, json};
use tidegate_auth::{Registration, api};
use tidegate_model::{Actor, AuditEntry, Role};
use tidegate_store::embedded::Guard;
use tidegate_testing::policy::statements;
use tidegate_testing::{Session, TestApp, World};

use crate::support::deps;

struct Setup {
    world: World,
    app: TestApp,
    owner: Session,
}

async fn setup() -> Setup {
    let world = World::new().await;
    let app = TestApp::new(&world, api(deps(&world, Registration::Closed)));
    let app = app.from_address("192.0.2.7".parse().unwrap());
    let owner = world.session("alex").await;
    Setup { world, app, owner }
}

impl Setup {
    /// A service account's path.
    async fn account(&self, name: &str) -> String {
        let body = json!({"name": name, "role": "viewer"});
        self.app.post(&self.owner, "/api/service-accounts", &body).await.expect(201).header("location").to_owned()
    }

    async fn found(&self, query: &str) -> Vec<Value> {
        let page = self.app.get(&self.owner, &format!("/api/audit?limit=100&{query}")).await.expect(200);
        assert_eq!(page.body["next_cursor"], Value::Null);
        page.body["items"].as_array().unwrap().clone()
    }

    /// Puts entries with a view of this size into the owner's log.
    async fn fill(&self, entries: usize, bytes: usize) {
        for n in 0..entries {
            self.world.clock.advance(Duration::from_millis(1));
            self.write(self.entry(n, bytes)).await.unwrap();
        }
    }

    fn entry(&self, n: usize, bytes: usize) -> AuditEntry {
        let id = self.world.ids.audit();
        let actor = Actor { principal: None, session: None, api_key: None, address: None };
        let (at, after) = (id.timestamp(), Some(json!("x".repeat(bytes))));
        let (action, target, request_id) = ("test.fill".to_owned(), n.to_string(), "req_0".to_owned());
        AuditEntry { id, tenant: Some(self.owner.tenant), at, actor, action, target, before: None, after, request_id }
    }

    /// Makes some change with this entry.
    async fn write(&self, entry: AuditEntry) -> Result<(), tidegate_store::Error> {
        let user = self.world.ids.user();
        self.world.store.audited(entry).platform().add_administrator(user, self.world.clock.now(), None).await
    }

    /// The lines of one part of an export.
    async fn export(&self, query: &str) -> (Vec<Value>, usize) {
        let answer = self.app.get(&self.owner, &format!("/api/audit/export?{query}")).await.expect(200);
        assert_eq!(answer.header("content-type"), "application/x-ndjson");
        assert_eq!(answer.header("content-disposition"), "attachment; filename=\"audit.ndjson\"");
        let text = answer.body.as_str().map_or_else(|| format!("{}\n", answer.body), str::to_owned);
        assert!(text.ends_with('\n') || text == "null\n");
        (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), text.len())
    }
}

#[tokio::test]
async fn an_entry_says_who_did_what_from_where_before_and_after() {
    let setup = setup().await;
    let account = setup.account("Import").await;
    let changed = setup.app.patch(&setup.owner, &account, &json!({"role": "editor"})).await.expect(200);
    let [entry, _] = &setup.found("").await[..] else { panic!("two changes") };
    assert_json_snapshot!(
        entry,
        {".id" => "[id]", ".**.id" => "[id]", ".target" => "[id]", ".actor" => "[who]", ".request_id" => "[id]"},
        @r##"
    {
      "id": "[id]",
      "at": "2026-11-20T10:00:00.000Z",
      "actor": "[who]",
      "action": "service_account.update",
      "target": "[id]",
      "before": {
        "id": "[id]",
        "name": "Import",
        "role": "viewer",
        "created_at": "2026-11-20T10:00:00.000Z"
      },
      "after": {
        "id": "[id]",
        "name": "Import",
        "role": "editor",
        "created_at": "2026-11-20T10:00:00.000Z"
      },
      "request_id": "[id]"
    }
    "##
    );
    let actor = json!({"principal": setup.owner.user, "session": setup.owner.session, "address": "192.0.2.7"});
    assert_eq!(entry["actor"], actor);
    let id = account.rsplit('/').next().unwrap();
    assert!([&entry["target"], &entry["before"]["id"], &entry["after"]["id"]].iter().all(|shown| **shown == id));
    assert_eq!(entry["request_id"], changed.header("x-request-id"));
}

#[tokio::test]
async fn the_log_is_filtered_paged_and_the_tenants_own() {
    let setup = setup().await;
    let first = setup.account("a").await;
    setup.world.clock.advance(Duration::from_secs(60));
    let second = setup.account("b").await;
    setup.app.delete(&setup.owner, &first).await.expect(204);
    setup.world.clock.advance(Duration::from_secs(60));
    setup.app.delete(&setup.owner, &second).await.expect(204);
    let stranger = setup.world.session("sam").await;
    let body = json!({"name": "c", "role": "viewer"});
    setup.app.post(&stranger, "/api/service-accounts", &body).await.expect(201);

    let (owner, id) = (setup.owner.user, first.rsplit('/').next().unwrap());
    for (query, count) in [
        ("", 4),
        ("action=service_account.", 4),
        ("action=service_account.create", 2),
        ("action=service_account", 0),
        ("action=service_account.c", 0),
        (&*format!("target={id}"), 2),
        (&*format!("principal={owner}"), 4),
        (&*format!("principal={}", stranger.user), 0),
        ("from=2026-11-20T10:01:00Z", 3),
        ("to=2026-11-20T10:01:00Z", 1),
        ("from=2026-11-20T10:01:00Z&to=2026-11-20T10:02:00.000Z&action=service_account.delete", 1),
    ] {
        assert_eq!(setup.found(query).await.len(), count, "{query}");
    }
    for bad in ["from=yesterday", "principal=alex", "limit=0", "cursor=x", "actor=alex"] {
        setup.app.get(&setup.owner, &format!("/api/audit?{bad}")).await.expect(400);
    }
    setup.app.get(&setup.owner, "/api/audit/export?cursor=x").await.expect(400);

    let (mut seen, mut path) = (Vec::new(), "/api/audit?limit=3".to_owned());
    loop {
        let page = setup.app.get(&setup.owner, &path).await.expect(200);
        seen.extend(page.body["items"].as_array().unwrap().clone());
        let Some(cursor) = page.body["next_cursor"].as_str() else { break };
        setup.app.get(&stranger, &format!("/api/audit?cursor={cursor}")).await.expect(400);
        path = format!("/api/audit?limit=3&cursor={cursor}");
    }
    assert_eq!(seen, setup.found("").await);
    for path in ["/api/audit", "/api/audit/export"] {
        let editor = setup.world.member(&setup.owner, Role::Editor).await;
        setup.app.get(&editor, path).await.expect(403);
        setup.app.send(None, Method::GET, path, &[], Body::empty()).await.expect(401);
    }
}

#[tokio::test]
async fn what_is_after_the_time_asked_for_is_not_even_read() {
    let setup = setup().await;
    setup.account("a").await;
    setup.world.clock.advance(Duration::from_secs(1));
    setup.fill(120, 10).await;
    let page = setup.app.get(&setup.owner, "/api/audit?to=2026-11-20T10:00:01Z&limit=1").await.expect(200);
    assert_eq!((page.body["items"].as_array().unwrap().len(), &page.body["next_cursor"]), (1, &Value::Null));
}

#[tokio::test]
async fn an_export_comes_in_parts_that_lambda_can_answer() {
    let setup = setup().await;
    setup.fill(160, 60_000).await;
    setup.account("the last change").await;
    let (mut all, mut parts, mut query) = (Vec::new(), 0, String::new());
    loop {
        let (mut lines, bytes) = setup.export(&query).await;
        // As base64, with room for the envelope.
        assert!(bytes * 4 / 3 < 6_000_000, "{bytes}");
        parts += 1;
        let Some(Value::String(cursor)) = lines.last_mut().map(|line| line["next_cursor"].take()) else {
            all.append(&mut lines);
            break;
        };
        lines.pop();
        all.append(&mut lines);
        query = format!("cursor={cursor}");
    }
    assert_eq!((all.len(), parts), (161, 3));
    assert!(all.windows(2).all(|pair| pair[0]["id"].as_str() > pair[1]["id"].as_str()), "newest first, each once");
    assert_eq!(all[0]["action"], "service_account.create");
    let (only, _) = setup.export("action=service_account.").await;
    assert_eq!(only, all[..1]);
    assert_eq!(setup.export("action=nothing").await.0, [Value::Null], "no lines at all");
}

#[tokio::test]
async fn an_export_that_breaks_off_says_where_to_go_on() {
    let setup = setup().await;
    setup.fill(60, 10).await;
    // Reads as many pages as the test lets it.
    let left = Arc::new(AtomicI64::new(0));
    let counted = Arc::clone(&left);
    let guard = Guard::new(move |operation, _| operation != "Query" || counted.fetch_sub(1, Ordering::SeqCst) > 0);
    let mut deps = deps(&setup.world, Registration::Closed);
    deps.store = setup.world.embedded.guarded(guard);
    let setup = Setup { app: TestApp::new(&setup.world, api(deps)), ..setup };
    setup.app.get(&setup.owner, "/api/audit/export").await.expect(500);

    left.store(1, Ordering::SeqCst);
    let (mut lines, _) = setup.export("").await;
    assert_eq!(lines.len(), 26);
    let cursor = lines.pop().unwrap()["next_cursor"].as_str().unwrap().to_owned();
    left.store(9, Ordering::SeqCst);
    lines.extend(setup.export(&format!("cursor={cursor}")).await.0);
    assert_eq!(lines, setup.found("").await, "nothing is lost, and nothing there twice");
}

#[tokio::test]
async fn an_entry_is_written_once_and_never_again() {
    let setup = setup().await;
    let entry = setup.entry(1, 10);
    setup.write(entry.clone()).await.unwrap();
    let before = setup.found("").await;
    let forged = AuditEntry { action: "nothing.happened".to_owned(), ..entry };
    let administrators = setup.world.store.platform().administrators().await.unwrap().len();
    // Its answer is that of a user who is an administrator already.
    setup.write(forged).await.ok();
    assert_eq!(setup.found("").await, before);
    let after = setup.world.store.platform().administrators().await.unwrap().len();
    assert_eq!(after, administrators, "what can't be told isn't done");
}

#[tokio::test]
async fn no_operation_changes_what_is_in_the_log() {
    let setup = setup().await;
    let account = setup.account("a").await;
    let key = json!({"name": "k", "scopes": ["runs:read"]});
    let key = setup.app.post(&setup.owner, &format!("{account}/keys"), &key).await.expect(201);
    let key = key.header("location").rsplit('/').next().unwrap().to_owned();
    let mut known = BTreeMap::new();
    // What deletes comes last, so that the others find what they are about.
    let mut operations = setup.app.operations().to_vec();
    operations.sort_by_key(|(method, path, _)| (method == Method::DELETE, path.ends_with("{id}")));
    for (method, template, permission) in &operations {
        let path = template.replace("/api/service-accounts/{id}", &account).replace("{key}", &key);
        let session = permission.as_ref().map(|_| &setup.owner);
        let body = match template.rsplit('/').next() {
            Some("rotate") => json!({}),
            Some("keys") => json!({"name": "k", "scopes": ["runs:read"]}),
            _ => json!({"name": "x", "role": "viewer"}),
        };
        let session = session.filter(|_| !template.starts_with("/api/auth/logout"));
        let body = if *method == Method::PATCH { json!({"name": "y"}) } else { body };
        let headers = [("content-type", "application/json")];
        setup.app.send(session, method.clone(), &path, &headers, body.to_string()).await;
        let now: BTreeMap<_, _> =
            setup.found("").await.into_iter().map(|entry| (entry["id"].to_string(), entry)).collect();
        assert!(known.iter().all(|(id, entry)| now.get(id) == Some(entry)), "{method} {path}");
        known = now;
    }
    assert!(known.len() > 6, "they did something: {known:?}");
}

#[test]
fn no_functions_role_may_delete_or_update_an_entry() {
    for function in ["auth", "workflows", "webhooks", "runs", "worker"] {
        for statement in statements(function) {
            let of_the_log = statement.leading_keys.iter().flatten().any(|key| key.starts_with("audit#"));
            let anywhere =
                statement.leading_keys.is_none() || statement.leading_keys.iter().flatten().any(|key| key == "*");
            let of_history = statement.resources.iter().any(|resource| resource.starts_with("HistoryTable"));
            if !of_history || !(of_the_log || anywhere) {
                continue;
            }
            for action in &statement.actions {
                let adds_or_reads =
                    ["dynamodb:PutItem", "dynamodb:GetItem", "dynamodb:Query"].contains(&action.as_str());
                assert!(adds_or_reads, "{function}: {action} on {:?}", statement.leading_keys);
                assert!(action == "dynamodb:PutItem" || function == "auth", "{function} reads the log");
            }
        }
    }
}
