//! Tenants: seen, suspended, resumed, limited.

use serde_json::json;
use tidegate_model::{Tenant, TenantStatus};
use tidegate_testing::World;

use crate::{administrator, ids, instance, log, platform};

#[tokio::test]
async fn all_tenants_are_listed_by_pages_and_none_shows_a_key() {
    let world = World::new().await;
    let app = instance(&world);
    let root = administrator(&world, "root").await;
    let (a, b) = (world.session("a").await, world.session("b").await);

    let first = app.get(&root, &platform("clients?limit=2")).await.expect(200);
    assert_eq!(ids(&first, "id"), [b.tenant.to_string(), a.tenant.to_string()]);
    let cursor = first.text("/next_cursor");
    let second = app.get(&root, &platform(&format!("clients?limit=2&cursor={cursor}"))).await.expect(200);
    assert_eq!(ids(&second, "id"), [root.tenant.to_string()]);
    assert!(second.body["next_cursor"].is_null());

    let one = app.get(&root, &platform(&format!("clients/{}", a.tenant))).await.expect(200);
    assert_eq!((one.header("etag"), &one.body), ("\"1\"", &first.body["items"][1]));
    let key = world.store.tenants().get(a.tenant).await.unwrap().unwrap().data_keys[0].wrapped.clone();
    assert!(!key.is_empty());
    for answer in [first, one] {
        let text = answer.body.to_string();
        assert!(!text.contains(&key) && !text.contains("data_key"), "{text}");
    }
    app.get(&root, &platform(&format!("clients/{}", world.ids.tenant()))).await.expect(404);
}

#[tokio::test]
async fn suspending_and_resuming_are_told_in_the_tenants_own_log() {
    let world = World::new().await;
    let app = instance(&world);
    let root = administrator(&world, "root").await;
    let tenant = world.session("a").await.tenant;
    let path = |action: &str| platform(&format!("clients/{tenant}/{action}"));
    let status = async || world.store.tenants().get(tenant).await.unwrap().unwrap().status;

    let suspended = app.post(&root, &path("suspend"), &json!({"reason": " unpaid "})).await.expect(200);
    assert_eq!((suspended.text("/status"), suspended.header("etag")), ("suspended", "\"2\""));
    assert_eq!(status().await, TenantStatus::Suspended);
    // Once more changes nothing, and says nothing.
    let again = app.post(&root, &path("suspend"), &json!({})).await.expect(200);
    assert_eq!(again.header("etag"), "\"2\"");
    let resumed = app.post(&root, &path("resume"), &json!({})).await.expect(200);
    assert_eq!((resumed.text("/status"), status().await), ("active", TenantStatus::Active));
    app.post(&root, &path("resume"), &json!({})).await.expect(200);

    let entries = log(&app, &root, &format!("&tenant_id={tenant}&action=tenant.")).await;
    let told: Vec<_> = entries.iter().map(|entry| [&entry["action"], &entry["before"], &entry["after"]]).collect();
    let (active, suspended) = (json!({"status": "active"}), json!({"status": "suspended"}));
    let why = json!({"status": "suspended", "reason": "unpaid"});
    assert_eq!(told, [[&json!("tenant.resume"), &suspended, &active], [&json!("tenant.suspend"), &active, &why]]);
    assert!(entries.iter().all(|entry| entry["actor"]["principal"] == json!(root.user)));
    assert_eq!(log(&app, &root, "").await.len(), 0, "the installation's log is another one");
}

#[tokio::test]
async fn a_reason_is_bounded_and_nothing_else_is_taken() {
    let world = World::new().await;
    let app = instance(&world);
    let root = administrator(&world, "root").await;
    let path = platform(&format!("clients/{}/suspend", root.tenant));
    for (body, pointer) in [
        (json!({"reason": "x".repeat(501)}), "/reason"),
        (json!({"reason": "two\nlines"}), "/reason"),
        (json!({"why": "x"}), "/why"),
    ] {
        assert_eq!(app.post(&root, &path, &body).await.expect(422).pointers(), [pointer]);
    }
    app.post(&root, &path, &json!({"reason": "ü".repeat(500)})).await.expect(200);
}

#[tokio::test]
async fn a_deleted_tenant_stays_deleted() {
    let world = World::new().await;
    let app = instance(&world);
    let root = administrator(&world, "root").await;
    let id = world.session("a").await.tenant;
    let tenant = world.store.tenants().get(id).await.unwrap().unwrap();
    let gone = Tenant { status: TenantStatus::Deleted, data_keys: Vec::new(), revision: 2, ..tenant };
    world.store.tenants().replace(&gone).await.unwrap();
    assert_eq!(app.get(&root, &platform(&format!("clients/{id}"))).await.expect(200).text("/status"), "deleted");
    for action in ["suspend", "resume"] {
        app.post(&root, &platform(&format!("clients/{id}/{action}")), &json!({})).await.expect(404);
    }
    app.put(&root, &platform(&format!("clients/{id}/limits")), "*", &json!({})).await.expect(404);
    assert_eq!(world.store.tenants().get(id).await.unwrap(), Some(gone));
}

#[tokio::test]
async fn limits_are_replaced_where_nobody_else_was_faster() {
    let world = World::new().await;
    let app = instance(&world);
    let root = administrator(&world, "root").await;
    let tenant = world.session("a").await.tenant;
    let path = platform(&format!("clients/{tenant}/limits"));

    let limits = json!({"api_per_second": 5, "webhooks_per_second": 1_000_000});
    let set = app.put(&root, &path, "\"1\"", &limits).await.expect(200);
    let shown = json!({"api_per_second": 5, "key_per_second": null, "webhooks_per_second": 1_000_000});
    assert_eq!((set.header("etag"), &set.body["limits"]), ("\"2\"", &shown));
    let stored = world.store.tenants().get(tenant).await.unwrap().unwrap();
    assert_eq!((stored.limits.api_per_second, stored.limits.key_per_second), (Some(5), None));
    assert_eq!(stored.data_keys.len(), 1, "the rest is as it was");

    app.put(&root, &path, "\"1\"", &json!({})).await.expect(412);
    let headers = [("content-type", "application/json")];
    app.send(Some(&root), http::Method::PUT, &path, &headers, "{}").await.expect(428);
    for (body, pointer) in [
        (json!({"api_per_second": 0}), "/api_per_second"),
        (json!({"key_per_second": 1_000_001}), "/key_per_second"),
        (json!({"webhooks_per_second": -1}), "/webhooks_per_second"),
        (json!({"api": 5}), "/api"),
    ] {
        assert_eq!(app.put(&root, &path, "\"2\"", &body).await.expect(422).pointers(), [pointer]);
    }
    let entry = &log(&app, &root, &format!("&tenant_id={tenant}")).await[0];
    assert_eq!([&entry["action"], &entry["after"]], [&json!("tenant.limit"), &shown]);
}
