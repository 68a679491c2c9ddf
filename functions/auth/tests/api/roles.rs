//! `/api/tenant/roles`, `/api/permissions` and `/api/tenant/data-keys`.

use axum::body::Body;
use http::Method;
use serde_json::{Value, json};
use tidegate_model::{Permission, Role};
use tidegate_platform::key_service::KeyContext;

use crate::organization::{organization, told};

#[tokio::test]
async fn every_permission_is_described_and_says_whether_a_role_can_hold_it() {
    let org = organization().await;
    let listed = org.app.send(None, Method::GET, "/api/permissions", &[], Body::empty()).await.expect(200);
    let items = listed.body["items"].as_array().unwrap();
    assert_eq!(items.len(), Permission::ALL.len());
    assert_eq!(
        items[2],
        json!({
            "name": "tenant:read", "grantable": true,
            "description": "See the tenant with its members, invitations, roles and settings.",
        })
    );
    let withheld: Vec<_> = items.iter().filter(|item| item["grantable"] == json!(false)).collect();
    let withheld: Vec<_> = withheld.iter().map(|item| item["name"].as_str().unwrap()).collect();
    assert_eq!(withheld, ["account:read", "account:write", "tenant:own", "platform:read", "platform:write"]);
}

#[tokio::test]
async fn a_role_is_made_changed_and_deleted_and_each_change_holds_within_five_seconds() {
    let org = organization().await;
    let body = json!({"name": "keeper", "description": "Looks after keys", "permissions": ["tenant:write"]});
    let made = org.app.post(&org.owner, "/api/tenant/roles", &body).await.expect(201);
    assert_eq!(
        made.body,
        json!({"name": "keeper", "description": "Looks after keys", "builtin": false, "permissions": ["tenant:write"]})
    );
    let path = made.header("location").to_owned();
    assert_eq!(org.app.get(&org.owner, &path).await.expect(200).body, made.body);
    let listed = org.app.get(&org.owner, "/api/tenant/roles").await.expect(200);
    let names: Vec<_> = listed.body["items"].as_array().unwrap().iter().map(|role| role["name"].clone()).collect();
    assert_eq!(names, ["owner", "admin", "editor", "viewer", "keeper"]);
    assert_eq!(listed.body["items"][0]["permissions"].as_array().unwrap().len(), Permission::of_tenants().count());

    let (keeper, other) = (org.member_as("keeper").await, org.other_instance());
    other.get(&keeper, "/api/tenant/data-keys").await.expect(200);
    assert_eq!(told(&other.get(&keeper, "/api/tenant").await), (403, "forbidden"));
    let lesser = json!({"permissions": ["tenant:read"]});
    let replaced = org.app.put(&org.owner, &path, listed.header("etag"), &lesser).await.expect(200);
    assert_eq!((&replaced.body["permissions"], replaced.text("/description")), (&json!(["tenant:read"]), ""));
    org.later(5);
    assert_eq!(told(&other.get(&keeper, "/api/tenant/data-keys").await), (403, "forbidden"));
    other.get(&keeper, "/api/tenant").await.expect(200);

    let stale = org.app.put(&org.owner, &path, listed.header("etag"), &lesser).await;
    assert_eq!(told(&stale), (412, "precondition_failed"));
    assert_eq!(told(&org.app.delete(&org.owner, &path).await), (409, "role_in_use"));
    let invite = json!({"email": "new@example.com", "role": "keeper"});
    let invited = org.app.post(&org.owner, "/api/tenant/invitations", &invite).await.expect(201);
    org.app.delete(&org.owner, &format!("/api/tenant/members/{}", keeper.user)).await.expect(204);
    assert_eq!(told(&org.app.delete(&org.owner, &path).await), (409, "role_in_use"), "an invitation has it");
    org.app.delete(&org.owner, invited.header("location")).await.expect(204);
    org.app.delete(&org.owner, &path).await.expect(204);
    org.app.get(&org.owner, &path).await.expect(404);
    let actions: Vec<_> = org.audited().await.into_iter().map(|(_, action, target)| (action, target)).collect();
    let of_roles: Vec<_> = actions.iter().filter(|(_, target)| target == "keeper").map(|(action, _)| action).collect();
    assert_eq!(of_roles, ["role.delete", "role.update", "role.create"]);
}

#[tokio::test]
async fn a_role_holds_nothing_that_its_maker_does_not() {
    let org = organization().await;
    org.role("clerk", &["tenant:read", "roles:write"]).await;
    org.role("mighty", &["tenant:read", "tenant:write"]).await;
    let clerk = org.member_as("clerk").await;
    let make = async |who, name: &str, permissions: Value| {
        org.app.post(who, "/api/tenant/roles", &json!({"name": name, "permissions": permissions})).await
    };
    let beyond = make(&clerk, "x", json!(["tenant:read", "members:write"])).await;
    assert_eq!((told(&beyond), beyond.pointers()), ((403, "forbidden"), vec!["/permissions/1"]));
    // Its own role neither, nor somebody else's which holds more: not to extend it, not to take from it.
    for (name, permissions) in
        [("clerk", json!(["members:write"])), ("mighty", json!([])), ("mighty", json!(["tenant:read"]))]
    {
        let path = format!("/api/tenant/roles/{name}");
        let answer = org.json(&clerk, Method::PUT, &path, &json!({"permissions": permissions})).await;
        assert_eq!(told(&answer), (403, "forbidden"), "{name}");
    }
    assert_eq!(told(&org.app.delete(&clerk, "/api/tenant/roles/mighty").await), (403, "forbidden"));
    make(&clerk, "reader", json!(["tenant:read"])).await.expect(201);

    for withheld in ["tenant:own", "platform:write", "account:read"] {
        let answer = make(&org.owner, "x", json!(["tenant:read", withheld])).await.expect(422);
        assert_eq!(answer.pointers(), ["/permissions/1"], "{withheld}");
    }
    assert_eq!(make(&org.owner, "x", json!(["workflows:*"])).await.expect(422).pointers(), ["/permissions/0"]);
    for taken in ["owner", "viewer", "reader", "Not a name"] {
        assert_eq!(make(&org.owner, taken, json!([])).await.expect(422).pointers(), ["/name"], "{taken}");
    }
    for builtin in ["owner", "viewer"] {
        let path = format!("/api/tenant/roles/{builtin}");
        let answer = org.json(&org.owner, Method::PUT, &path, &json!({"permissions": []})).await;
        assert_eq!(told(&answer), (403, "forbidden"));
        assert_eq!(told(&org.app.delete(&org.owner, &path).await), (403, "forbidden"));
    }
    assert_eq!(told(&make(&org.member(Role::Editor).await, "x", json!([])).await), (403, "forbidden"));
    let long = json!({"name": "x", "description": "x".repeat(501), "permissions": []});
    assert_eq!(org.app.post(&org.owner, "/api/tenant/roles", &long).await.expect(422).pointers(), ["/description"]);
    assert_eq!(org.tenant().await.roles.len(), 3);
}

#[tokio::test]
async fn a_tenant_has_fifty_roles_at_most() {
    let org = organization().await;
    let make = async |name: String| {
        org.app.post(&org.owner, "/api/tenant/roles", &json!({"name": name, "permissions": []})).await
    };
    for number in 0..50 {
        make(format!("r{number}")).await.expect(201);
    }
    assert_eq!(told(&make("r50".to_owned()).await), (409, "limit_reached"));
}

#[tokio::test]
async fn a_new_data_key_seals_and_no_answer_holds_one() {
    let org = organization().await;
    let made = org.app.post(&org.owner, "/api/tenant/data-keys", &json!(null)).await.expect(201);
    let at = "2026-11-20T10:00:00.000Z";
    assert_eq!(made.body, json!({"number": 2, "seals": true, "created_at": at}));
    let listed = org.app.get(&org.owner, "/api/tenant/data-keys").await.expect(200);
    let first = listed.body["items"][0].as_object().unwrap();
    assert_eq!((&first["number"], &first["seals"], first.len()), (&json!(1), &json!(false), 3));
    assert_eq!(listed.body["items"][1], made.body);
    let (tenant, entry) = (org.tenant().await, org.audit_entries().await.remove(0));
    assert_eq!((entry.action.as_str(), entry.target.as_str()), ("data_key.create", "2"));
    assert_eq!(entry.after.unwrap(), made.body);
    assert_eq!(tenant.sealing_key().unwrap().number, 2);
    let context = KeyContext::connections(tenant.id);
    let wrapped = tenant.data_keys.iter().map(|key| key.wrapped.as_str());
    for wrapped in wrapped {
        org.world.envelope.seal(wrapped, &context, b"conn", b"secret").await.unwrap();
    }
    assert_ne!(tenant.data_keys[0].wrapped, tenant.data_keys[1].wrapped);

    let viewer = org.member(Role::Viewer).await;
    assert_eq!(told(&org.app.get(&viewer, "/api/tenant/data-keys").await), (403, "forbidden"));
    assert_eq!(told(&org.app.post(&viewer, "/api/tenant/data-keys", &json!(null)).await), (403, "forbidden"));
    for _ in 2..20 {
        org.app.post(&org.owner, "/api/tenant/data-keys", &json!(null)).await.expect(201);
    }
    let answer = org.app.post(&org.owner, "/api/tenant/data-keys", &json!(null)).await;
    assert_eq!(told(&answer), (409, "limit_reached"));
}
