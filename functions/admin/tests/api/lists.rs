//! People, roles, service accounts, API keys and audit logs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;
use tidegate_http::RandomSecret;
use tidegate_model::{ApiKey, CustomRole, Member, Permission, PrincipalId, Role, Tenant};
use tidegate_testing::World;

use crate::{administrator, ids, instance, log, platform};

#[tokio::test]
async fn people_are_listed_of_the_installation_and_of_a_tenant() {
    let world = World::new().await;
    let app = instance(&world);
    let root = administrator(&world, "root").await;
    let owner = world.session("owner").await;
    let viewer = world.member(&owner, Role::Viewer).await;

    let all = app.get(&root, &platform("principals")).await.expect(200);
    assert_eq!(ids(&all, "id"), [viewer.user, owner.user, root.user].map(|id| id.to_string()));
    let page = app.get(&root, &platform(&format!("principals?limit=1&tenant_id={}", owner.tenant))).await.expect(200);
    assert_eq!(ids(&page, "id"), [viewer.user.to_string()]);
    let next = format!("principals?limit=1&tenant_id={}&cursor={}", owner.tenant, page.text("/next_cursor"));
    assert_eq!(ids(&app.get(&root, &platform(&next)).await.expect(200), "id"), [owner.user.to_string()]);
    app.get(&root, &platform(&format!("principals?tenant_id={}", world.ids.tenant()))).await.expect(404);
    // A cursor is of its own list.
    let foreign = format!("principals?cursor={}", page.text("/next_cursor"));
    app.get(&root, &platform(&foreign)).await.expect(400);

    let one = app.get(&root, &platform(&format!("principals/{}", owner.user))).await.expect(200);
    assert_eq!((one.text("/email"), &one.body["administrator"]), ("owner@example.com", &json!(false)));
    let since = &one.body["memberships"][0]["since"];
    let membership = json!({
        "tenant_id": owner.tenant, "tenant_name": "owner", "tenant_status": "active", "role": "owner", "since": since,
    });
    assert_eq!(one.body["memberships"], json!([membership]));
    let own = app.get(&root, &platform(&format!("principals/{}", root.user))).await.expect(200);
    assert_eq!(own.body["administrator"], true);
    app.get(&root, &platform(&format!("principals/{}", world.ids.user()))).await.expect(404);
}

#[tokio::test]
async fn roles_and_permissions_are_the_registrys_and_a_tenants_own() {
    let world = World::new().await;
    let app = instance(&world);
    let root = administrator(&world, "root").await;
    let tenant = world.store.tenants().get(root.tenant).await.unwrap().unwrap();
    let role = CustomRole { description: "Looks".to_owned(), permissions: BTreeSet::from([Permission::RunsRead]) };
    let roles = BTreeMap::from([("watcher".parse().unwrap(), role)]);
    world.store.tenants().replace(&Tenant { roles, revision: 2, ..tenant }).await.unwrap();

    let builtin = app.get(&root, &platform("roles")).await.expect(200);
    assert_eq!(ids(&builtin, "name"), ["owner", "admin", "editor", "viewer"]);
    let viewer = json!(["tenant:read", "workflows:read", "connections:read", "connectors:read", "runs:read"]);
    assert_eq!(builtin.body["items"][3]["permissions"], viewer);
    let with = app.get(&root, &platform(&format!("roles?tenant_id={}", root.tenant))).await.expect(200);
    let watcher = json!({"name": "watcher", "builtin": false, "description": "Looks", "permissions": ["runs:read"]});
    assert_eq!((with.body["items"].as_array().unwrap().len(), &with.body["items"][4]), (5, &watcher));

    let permissions = app.get(&root, &platform("permissions")).await.expect(200);
    let names: Vec<_> = Permission::ALL.iter().map(|permission| permission.to_string()).collect();
    assert_eq!(ids(&permissions, "name"), names);
}

#[tokio::test]
async fn service_accounts_and_keys_are_a_tenants_and_show_no_hash() {
    let world = World::new().await;
    let app = instance(&world);
    let root = administrator(&world, "root").await;
    let (a, b) = (world.session("a").await, world.session("b").await);
    let (account, now) = (world.ids.service_account(), world.clock.now());
    let member = Member {
        tenant: a.tenant,
        principal: PrincipalId::Service(account),
        role: Role::Editor.into(),
        name: "CI".to_owned(),
        email: None,
        created_at: now,
    };
    world.store.tenants().add_member(&member).await.unwrap();
    let secret_hash = RandomSecret::new().hash();
    let key = ApiKey {
        id: world.ids.api_key(),
        tenant: a.tenant,
        service_account: account,
        name: "deploys".to_owned(),
        secret_hash: secret_hash.clone(),
        scopes: BTreeSet::from([Permission::WorkflowsWrite]),
        created_at: now,
        expires_at: Some(now + Duration::from_secs(60)),
        successor: None,
    };
    world.store.api_keys().create(&key).await.unwrap();

    let of = |list: &str, tenant: tidegate_model::TenantId| platform(&format!("{list}?tenant_id={tenant}"));
    let accounts = app.get(&root, &of("service-accounts", a.tenant)).await.expect(200);
    assert_eq!(ids(&accounts, "id"), [account.to_string()]);
    assert_eq!(accounts.text("/items/0/role"), "editor");
    let keys = app.get(&root, &of("applications", a.tenant)).await.expect(200);
    let shown = json!({
        "id": key.id, "tenant_id": a.tenant, "service_account_id": account, "name": "deploys",
        "scopes": ["workflows:write"],
        "created_at": "2026-11-20T10:00:00.000Z", "expires_at": "2026-11-20T10:01:00.000Z",
    });
    assert_eq!(keys.body["items"], json!([shown]));
    for list in ["service-accounts", "applications"] {
        assert_eq!(app.get(&root, &of(list, b.tenant)).await.expect(200).body["items"], json!([]));
        app.get(&root, &of(list, world.ids.tenant())).await.expect(404);
        app.get(&root, &platform(list)).await.expect(400);
    }
    // Nor are service accounts people.
    assert!(!ids(&app.get(&root, &of("principals", a.tenant)).await.expect(200), "id").contains(&account.to_string()));
}

#[tokio::test]
async fn a_log_is_filtered() {
    let world = World::new().await;
    let app = instance(&world);
    let root = administrator(&world, "root").await;
    let mut users = Vec::new();
    for name in ["a", "b"] {
        world.clock.advance(Duration::from_secs(60));
        let user = world.session(name).await.user;
        app.put(&root, &platform(&format!("administrators/{user}")), "*", &json!(null)).await.expect(200);
        users.push(user);
    }
    let count = async |query: &str| log(&app, &root, query).await.len();
    assert_eq!(count("").await, 2);
    assert_eq!(count(&format!("&target={}", users[0])).await, 1);
    assert_eq!(count(&format!("&principal={}", root.user)).await, 2);
    assert_eq!(count(&format!("&principal={}", users[0])).await, 0);
    assert_eq!(count("&action=administrator.").await, 2);
    assert_eq!(count("&action=administrator.remove").await, 0);
    assert_eq!(count("&from=2026-11-20T10:01:30Z").await, 1);
    assert_eq!(count("&to=2026-11-20T10:01:30Z").await, 1);
    for bad in ["from=yesterday", "principal=me", "tenant_id=all", "actor=me"] {
        app.get(&root, &platform(&format!("audit?{bad}"))).await.expect(400);
    }
    app.get(&root, &platform(&format!("audit?tenant_id={}", world.ids.tenant()))).await.expect(404);
}
