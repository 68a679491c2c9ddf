//! `/api/tenants` and `/api/tenant`: settings, policies, the owner, the end.

use axum::body::Body;
use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tidegate_auth::Registration;
use tidegate_model::{AuthMethod, Member, Permission, Role, RoleName, TenantStatus};
use tidegate_testing::Answer;

use crate::organization::{app, organization, told};

#[tokio::test]
async fn a_person_makes_further_tenants_where_registration_is_open_and_switches_between_them() {
    let org = organization().await;
    let made = org.app.post(&org.owner, "/api/tenants", &json!({"name": " Second Ltd. "})).await.expect(201);
    assert_eq!((made.text("/name"), made.header("location")), ("Second Ltd.", "/api/tenant"));
    let listed = org.app.get(&org.owner, "/api/tenants").await.expect(200);
    let names: Vec<_> = listed.body["items"].as_array().unwrap().iter().map(|item| &item["tenant"]["name"]).collect();
    assert_eq!(names, [&json!("alex"), &json!("Second Ltd.")]);
    assert_eq!((listed.text("/items/1/role"), listed.text("/items/1/tenant/status")), ("owner", "active"));
    assert!(!world_tenant_key(&org, made.text("/id")).await.is_empty(), "it can seal connections");

    for registration in [Registration::Invite, Registration::Closed] {
        let app = app(&org.world, registration);
        let answer = app.post(&org.owner, "/api/tenants", &json!({"name": "Third"})).await;
        assert_eq!(told(&answer), (403, "registration_closed"));
    }
    assert_eq!(
        org.app.post(&org.owner, "/api/tenants", &json!({"name": "\n"})).await.expect(422).pointers(),
        ["/name"]
    );
    assert_eq!(org.app.get(&org.owner, "/api/tenants").await.body["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn tenants_come_in_the_order_of_joining_them() {
    let org = organization().await;
    let sam = org.world.session("sam").await;
    org.later(60);
    let member = Member {
        tenant: org.owner.tenant,
        principal: sam.user.into(),
        role: Role::Editor.into(),
        name: "Sam".to_owned(),
        email: None,
        created_at: org.world.clock.now(),
    };
    org.world.store.tenants().add_member(&member).await.unwrap();
    let listed = org.app.get(&sam, "/api/tenants").await.expect(200);
    let ids: Vec<_> = [0, 1].map(|n| listed.text(&format!("/items/{n}/tenant/id")).to_owned()).into();
    assert_eq!(ids, [sam.tenant.to_string(), org.owner.tenant.to_string()], "the older one was joined later");
}

async fn world_tenant_key(org: &crate::organization::Organization, id: &str) -> String {
    let tenant = org.world.store.tenants().get(id.parse().unwrap()).await.unwrap().unwrap();
    tenant.data_keys[0].wrapped.clone()
}

#[tokio::test]
async fn settings_are_changed_on_the_revision_that_was_read_and_show_no_key() {
    let org = organization().await;
    let read = org.app.get(&org.owner, "/api/tenant").await.expect(200);
    assert_eq!(read.header("etag"), "\"1\"");
    let members: Vec<_> = read.body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["id", "name", "status", "policies", "limits", "created_at"]);

    let patch = async |if_match: Option<&str>, body: Value| -> Answer {
        let headers = [Some(("content-type", "application/json")), if_match.map(|tag| ("if-match", tag))];
        let headers: Vec<_> = headers.into_iter().flatten().collect();
        org.app.send(Some(&org.owner), Method::PATCH, "/api/tenant", &headers, Body::from(body.to_string())).await
    };
    assert_eq!(told(&patch(None, json!({"name": "B"})).await), (428, "precondition_required"));
    let renamed = patch(Some("\"1\""), json!({"name": "B"})).await.expect(200);
    assert_eq!((renamed.text("/name"), renamed.header("etag")), ("B", "\"2\""));
    assert_eq!(told(&patch(Some("\"1\""), json!({"name": "C"})).await), (412, "precondition_failed"));
    assert_eq!(patch(Some("\"2\""), json!({"name": " "})).await.expect(422).pointers(), ["/name"]);
    let limits = patch(Some("\"2\""), json!({"limits": {"api_per_second": 1_000_000}})).await;
    assert_eq!(limits.expect(422).pointers(), ["/limits"], "limits are the platform's");
    let (entry, tenant) = (org.audit_entries().await.remove(0), org.tenant().await);
    assert_eq!((entry.action.as_str(), entry.target), ("tenant.update", tenant.id.to_string()));
    assert_eq!((&entry.before.unwrap()["name"], &entry.after.unwrap()["name"]), (&json!("alex"), &json!("B")));
    assert_eq!((tenant.name.as_str(), tenant.revision), ("B", 2));
}

#[tokio::test]
async fn whoever_has_no_second_factor_can_neither_require_one_nor_get_rid_of_it() {
    let org = organization().await;
    let on = json!({"policies": {"require_second_factor": true}});
    let answer = org.patch(&org.owner, "/api/tenant", &on).await.expect(422);
    assert_eq!(answer.pointers(), ["/policies/require_second_factor"]);
    assert!(!org.tenant().await.policies.require_second_factor);
    let (viewer, admin) = (org.member(Role::Viewer).await, org.member(Role::Admin).await);
    org.app.get(&viewer, "/api/tenant").await.expect(200);
    org.set_policies(&json!({"require_second_factor": true})).await.expect(200);
    assert!(org.tenant().await.policies.require_second_factor);

    org.later(5);
    let not_the_tenants = ["account:read", "account:write", "platform:read", "platform:write"];
    let mut refused = 0;
    for (method, path, permission) in org.app.operations() {
        let Some(permission) = permission.as_deref().filter(|permission| !not_the_tenants.contains(permission)) else {
            continue;
        };
        let path = path.replace("{id}", &viewer.user.to_string()).replace("{name}", "editor");
        let off = json!({"policies": {"require_second_factor": false}});
        for caller in [&org.owner, &admin] {
            let answer = org.json(caller, method.clone(), &path, &off).await;
            assert_eq!(told(&answer), (403, "second_factor_required"), "{method} {path} needs {permission}");
        }
        refused += 1;
    }
    assert!(refused > 15, "{refused}");
    assert!(org.tenant().await.policies.require_second_factor);
    for path in ["/api/auth/me", "/api/auth/sessions", "/api/tenants"] {
        org.app.get(&viewer, path).await.expect(200);
    }
    let strong = org.signed_in_by(&viewer, &[AuthMethod::Pwd, AuthMethod::Otp]).await;
    org.app.get(&strong, "/api/tenant").await.expect(200);
    org.app.post(&viewer, "/api/tenant/leave", &json!({})).await.expect(204);

    org.set_policies(&json!({"require_second_factor": false})).await.expect(200);
    org.later(5);
    org.app.get(&admin, "/api/tenant").await.expect(200);
}

#[tokio::test]
async fn single_sign_on_is_required_by_the_owner_alone_who_may_still_come_in() {
    let org = organization().await;
    let admin = org.member(Role::Admin).await;
    let on = json!({"policies": {"require_sso": true}});
    assert_eq!(org.patch(&admin, "/api/tenant", &on).await.expect(422).pointers(), ["/policies/require_sso"]);
    org.patch(&org.owner, "/api/tenant", &on).await.expect(200);
    org.later(5);
    assert_eq!(told(&org.app.get(&admin, "/api/tenant").await), (403, "sso_required"));
    org.app.get(&org.owner, "/api/tenant").await.expect(200);
    let by_sso = org.signed_in_by(&admin, &[AuthMethod::Sso]).await;
    // What isn't said stays, and a policy that is on already asks for nothing.
    let renamed = json!({"name": "B", "policies": {"require_sso": true, "require_second_factor": true}});
    let both = org.patch(&by_sso, "/api/tenant", &renamed).await.expect(200);
    assert_eq!(both.body["policies"], json!({"require_second_factor": true, "require_sso": true}));
}

#[tokio::test]
async fn an_api_key_changes_no_policies() {
    let org = organization().await;
    org.set_policies(&json!({"require_second_factor": true})).await.expect(200);
    let machine = org.machine(Role::Admin, &[Permission::TenantWrite, Permission::TenantRead]).await;
    org.patch(&machine, "/api/tenant", &json!({"name": "By machine"})).await.expect(200);
    for policies in [json!({"require_second_factor": false}), json!({"require_sso": true})] {
        let answer = org.patch(&machine, "/api/tenant", &json!({"policies": policies})).await;
        assert_eq!(told(&answer), (403, "forbidden"));
    }
    assert!(org.tenant().await.policies.require_second_factor);
}

#[tokio::test]
async fn a_tenant_is_handed_over_to_one_member_and_its_owner_stays_an_admin() {
    let org = organization().await;
    let (admin, editor, stranger) =
        (org.member(Role::Admin).await, org.member(Role::Editor).await, org.world.session("sam").await);
    let transfer = async |who, to: String| org.app.post(who, "/api/tenant/transfer", &json!({"user_id": to})).await;
    assert_eq!(told(&transfer(&admin, admin.user.to_string()).await), (403, "forbidden"));
    for to in [stranger.user, org.owner.user] {
        assert_eq!(transfer(&org.owner, to.to_string()).await.expect(422).pointers(), ["/user_id"]);
    }
    let answers = join_all([&admin, &editor].map(|to| transfer(&org.owner, to.user.to_string()))).await;
    let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    statuses.sort_unstable();
    assert!(statuses[0] == 204 && statuses[1] > 400, "{statuses:?}");
    let mut roles = Vec::new();
    for who in [&org.owner, &admin, &editor] {
        roles.push(org.role_of(who).await.unwrap());
    }
    let owners = roles.iter().filter(|role| **role == RoleName::from(Role::Owner)).count();
    assert_eq!((owners, &roles[0]), (1, &RoleName::from(Role::Admin)), "{roles:?}");
    assert_eq!(org.audited().await[0].1, "tenant.transfer");
    // At once, although this instance still remembers the former role.
    assert_eq!(told(&transfer(&org.owner, editor.user.to_string()).await), (403, "forbidden"));
    let confirm = json!({"confirm": "alex"});
    assert_eq!(told(&org.json(&org.owner, Method::DELETE, "/api/tenant", &confirm).await), (403, "forbidden"));
}

#[tokio::test]
async fn a_member_leaves_and_the_owner_can_not() {
    let org = organization().await;
    let viewer = org.member(Role::Viewer).await;
    org.app.get(&viewer, "/api/tenant").await.expect(200);
    let leave = async |who| org.app.post(who, "/api/tenant/leave", &json!({})).await;
    leave(&viewer).await.expect(204);
    assert_eq!(told(&leave(&viewer).await), (404, "not_found"));
    assert_eq!(told(&leave(&org.owner).await), (409, "owner_required"));
    assert_eq!(org.audited().await[0], (Some(viewer.user.into()), "member.leave".into(), viewer.user.to_string()));
    org.later(30);
    assert_eq!(told(&org.app.get(&viewer, "/api/tenant").await), (401, "unauthenticated"));
    assert_eq!(org.app.get(&viewer, "/api/tenants").await.expect(200).body["items"], json!([]));
}

#[tokio::test]
async fn a_deleted_tenant_has_no_key_and_nobody_gets_in_any_more() {
    let org = organization().await;
    let (admin, other) = (org.member(Role::Admin).await, org.other_instance());
    let machine = org.machine(Role::Admin, &[Permission::TenantRead]).await;
    org.app.post(&org.owner, "/api/tenant/invitations", &json!({"email": "b@b.b", "role": "viewer"})).await.expect(201);
    for caller in [&org.owner, &admin, &machine] {
        other.get(caller, "/api/tenant").await.expect(200);
    }
    let delete = async |who, name: &str| org.json(who, Method::DELETE, "/api/tenant", &json!({"confirm": name})).await;
    assert_eq!(told(&delete(&admin, "alex").await), (403, "forbidden"));
    assert_eq!(delete(&org.owner, "Alex").await.expect(422).pointers(), ["/confirm"]);
    assert_eq!(org.tenant().await.data_keys.len(), 1);
    delete(&org.owner, "alex").await.expect(204);

    let tenant = org.tenant().await;
    assert_eq!((tenant.status, tenant.data_keys.len(), tenant.name.as_str()), (TenantStatus::Deleted, 0, ""));
    let keys = org.world.store.api_keys().list(org.owner.tenant, None, 10).await.unwrap();
    assert!(keys.items.is_empty() && org.invitations().await.is_empty());
    for caller in [&org.owner, &admin] {
        assert_eq!(org.stored_member(caller).await, None);
        assert!(org.world.store.accounts().tenants_of(caller.user).await.unwrap().is_empty());
    }
    let deleted = org.audit_entries().await.into_iter().find(|entry| entry.action == "tenant.delete").unwrap();
    assert_eq!((&deleted.before.unwrap()["name"], deleted.after), (&json!("alex"), None));
    org.later(5);
    for caller in [&org.owner, &admin, &machine] {
        assert_eq!(told(&other.get(caller, "/api/tenant").await), (401, "unauthenticated"));
    }
    org.app.get(&org.owner, "/api/auth/me").await.expect(200);
    assert_eq!(org.app.get(&org.owner, "/api/tenants").await.expect(200).body["items"], json!([]));
}

#[tokio::test]
async fn a_deletion_that_was_cut_short_is_gone_on_with() {
    let org = organization().await;
    let viewer = org.member(Role::Viewer).await;
    org.machine(Role::Viewer, &[]).await;
    org.app.get(&org.owner, "/api/tenant").await.expect(200);
    // All that the first step leaves.
    let before = org.tenant().await;
    let (status, data_keys) = (TenantStatus::Deleted, Vec::new());
    let gone = tidegate_model::Tenant { status, data_keys, revision: before.revision + 1, ..before };
    org.world.store.tenants().replace(&gone).await.unwrap();

    let repeated = org.json(&org.owner, Method::DELETE, "/api/tenant", &json!({"confirm": "alex"})).await;
    repeated.expect(204);
    assert_eq!(org.stored_member(&viewer).await, None);
    assert!(org.world.store.api_keys().list(org.owner.tenant, None, 10).await.unwrap().items.is_empty());

    // And by whoever still finds a way there.
    let left_behind = org.member(Role::Viewer).await;
    let listed = org.other_instance().get(&left_behind, "/api/tenants").await.expect(200);
    assert_eq!((&listed.body["items"], org.stored_member(&left_behind).await), (&json!([]), None));
}
