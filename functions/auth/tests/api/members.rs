//! `/api/tenant/members`: who is in, in which role, and who may change that.

use http::Method;
use serde_json::json;
use tidegate_auth::Registration;
use tidegate_model::{Member, Permission, Role};
use tidegate_testing::TestApp;

use crate::organization::{app, organization, post_public, told};

#[tokio::test]
async fn members_are_listed_and_given_other_roles() {
    let org = organization().await;
    let viewer = org.member(Role::Viewer).await;
    let listed = org.app.get(&viewer, "/api/tenant/members").await.expect(200);
    let roles: Vec<_> = listed.body["items"].as_array().unwrap().iter().map(|item| item["role"].clone()).collect();
    assert_eq!(roles, ["viewer", "owner"]);
    let path = format!("/api/tenant/members/{}", viewer.user);
    let given = org.patch(&org.owner, &path, &json!({"role": "editor"})).await.expect(200);
    assert_eq!(given.body, org.app.get(&org.owner, &path).await.expect(200).body);
    let entry = org.audit_entries().await.remove(0);
    assert_eq!((entry.action.as_str(), entry.target), ("member.update", viewer.user.to_string()));
    assert_eq!((&entry.before.unwrap()["role"], &entry.after.unwrap()["role"]), (&json!("viewer"), &json!("editor")));
    for role in ["owner", "operator"] {
        assert_eq!(org.patch(&org.owner, &path, &json!({"role": role})).await.expect(422).pointers(), ["/role"]);
    }
    assert_eq!(org.patch(&org.owner, &path, &json!({"role": "Admin!"})).await.expect(422).pointers(), ["/role"]);
    org.app.delete(&org.owner, &path).await.expect(204);
    assert_eq!((org.stored_member(&viewer).await, org.audited().await[0].1.as_str()), (None, "member.remove"));
    org.app.get(&org.owner, &path).await.expect(404);
}

#[tokio::test]
async fn nobody_gives_or_takes_what_they_do_not_hold() {
    let org = organization().await;
    org.role("people", &["tenant:read", "members:write"]).await;
    let (people, admin, editor, peer) = (
        org.member_as("people").await,
        org.member(Role::Admin).await,
        org.member(Role::Editor).await,
        org.member_as("people").await,
    );
    let path = |of: &tidegate_testing::Session| format!("/api/tenant/members/{}", of.user);
    // Upwards: oneself, another of the same kind.
    for (of, role) in [(&people, "admin"), (&people, "editor"), (&peer, "viewer"), (&people, "viewer")] {
        let answer = org.patch(&people, &path(of), &json!({"role": role})).await;
        assert_eq!((told(&answer), answer.pointers()), ((403, "forbidden"), vec!["/role"]), "{role}");
    }
    // Those who may more.
    for of in [&admin, &editor] {
        assert_eq!(told(&org.patch(&people, &path(of), &json!({"role": "people"})).await), (403, "forbidden"));
        assert_eq!(told(&org.app.delete(&people, &path(of)).await), (403, "forbidden"));
    }
    // A key does nothing that its scopes don't hold, whatever its account's role.
    let machine = org.machine(Role::Admin, &[Permission::MembersWrite]).await;
    assert_eq!(told(&org.patch(&machine, &path(&peer), &json!({"role": "admin"})).await), (403, "forbidden"));
    // The owner, whoever asks.
    for who in [&admin, &people, &org.owner] {
        for role in ["admin", "owner"] {
            let answer = org.patch(who, &path(&org.owner), &json!({"role": role})).await;
            assert_eq!(told(&answer), (409, "owner_required"));
        }
        assert_eq!(told(&org.app.delete(who, &path(&org.owner)).await), (409, "owner_required"));
    }
    // Without the permission, nothing.
    assert_eq!(told(&org.patch(&editor, &path(&editor), &json!({"role": "viewer"})).await), (403, "forbidden"));
    for (of, role) in [(&people, "people"), (&peer, "people"), (&admin, "admin"), (&editor, "editor")] {
        assert_eq!(org.role_of(of).await, Some(role.parse().unwrap()));
    }
    // What one holds, one may give and take.
    org.app.delete(&people, &path(&peer)).await.expect(204);
    org.patch(&admin, &path(&admin), &json!({"role": "viewer"})).await.expect(200);
}

#[tokio::test]
async fn another_tenants_member_is_not_found_like_an_unknown_one() {
    let org = organization().await;
    let (sam, nobody) = (org.world.session("sam").await, org.world.ids.user());
    let machine = org.world.ids.service_account().to_string();
    for method in [Method::GET, Method::PATCH, Method::DELETE] {
        let mut bodies = Vec::new();
        for id in [sam.user.to_string(), nobody.to_string(), machine.clone(), "nonsense".to_owned()] {
            let path = format!("/api/tenant/members/{id}");
            let mut answer = org.json(&org.owner, method.clone(), &path, &json!({"role": "viewer"})).await.expect(404);
            answer.body["request_id"] = json!(null);
            bodies.push(answer.body);
        }
        assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    }
}

#[tokio::test]
async fn a_removed_member_is_out_within_thirty_seconds_in_every_process() {
    let org = organization().await;
    let (admin, other) = (org.member(Role::Admin).await, org.other_instance());
    other.get(&admin, "/api/tenant").await.expect(200);
    org.app.delete(&org.owner, &format!("/api/tenant/members/{}", admin.user)).await.expect(204);
    org.later(29);
    // This process still takes the removed one for an admin, who must not come back by that.
    let invite = json!({"email": "back@example.com", "role": "admin"});
    assert_eq!(told(&other.post(&admin, "/api/tenant/invitations", &invite).await), (401, "unauthenticated"));
    let role = json!({"name": "back", "permissions": ["tenant:read"]});
    assert_eq!(told(&other.post(&admin, "/api/tenant/roles", &role).await), (401, "unauthenticated"));
    assert!(org.invitations().await.is_empty() && org.world.outbox.take("back@example.com").is_empty());
    org.later(1);
    assert_eq!(told(&other.get(&admin, "/api/tenant").await), (401, "unauthenticated"));
    assert_eq!(other.get(&admin, "/api/auth/me").await.expect(200).body["tenant"], json!(null));
}

#[tokio::test]
async fn a_lesser_role_holds_at_once_for_what_lets_others_in() {
    let org = organization().await;
    let (admin, other) = (org.member(Role::Admin).await, org.other_instance());
    other.get(&admin, "/api/tenant/data-keys").await.expect(200);
    let path = format!("/api/tenant/members/{}", admin.user);
    org.patch(&org.owner, &path, &json!({"role": "viewer"})).await.expect(200);
    let invite = json!({"email": "friend@example.com", "role": "admin"});
    assert_eq!(told(&other.post(&admin, "/api/tenant/invitations", &invite).await), (403, "forbidden"));
    org.later(30);
    assert_eq!(told(&other.get(&admin, "/api/tenant/data-keys").await), (403, "forbidden"));
}

#[tokio::test]
async fn a_removed_member_gets_no_further_token_for_the_tenant() {
    let org = organization().await;
    let public: TestApp = app(&org.world, Registration::Open);
    let sam =
        json!({"email": "sam@example.com", "password": "correct horse battery", "name": "Sam", "tenant_name": "S"});
    post_public(&public, "/api/auth/register", &sam).await.expect(201);
    let user = org.world.store.accounts().user_by_email("sam@example.com").await.unwrap().unwrap();
    let member = Member {
        tenant: org.owner.tenant,
        principal: user.id.into(),
        role: Role::Editor.into(),
        name: user.name,
        email: Some(user.email),
        created_at: user.created_at,
    };
    org.world.store.tenants().add_member(&member).await.unwrap();
    let login = json!({
        "email": "sam@example.com", "password": "correct horse battery",
        "tenant_id": org.owner.tenant, "token_delivery": "body",
    });
    let signed_in = post_public(&public, "/api/auth/login", &login).await.expect(200);
    assert_eq!(signed_in.body["tenant"]["id"], json!(org.owner.tenant));
    org.app.delete(&org.owner, &format!("/api/tenant/members/{}", user.id)).await.expect(204);
    let refresh = json!({"refresh_token": signed_in.body["refresh_token"]});
    let refreshed = post_public(&public, "/api/auth/refresh", &refresh).await.expect(200);
    assert_eq!(refreshed.body["tenant"]["name"], "S");
    let refresh = json!({"refresh_token": refreshed.body["refresh_token"], "tenant_id": org.owner.tenant});
    assert_eq!(told(&post_public(&public, "/api/auth/refresh", &refresh).await), (404, "not_found"));
}

#[tokio::test]
async fn who_was_removed_writes_nothing_into_the_log_any_more() {
    let org = organization().await;
    let member = org.member(Role::Editor).await;
    let name = json!({"name": "Another"});
    org.patch(&member, "/api/auth/me", &name).await.expect(200);
    assert_eq!(org.audit_entries().await[0].action, "account.update");
    org.app.delete(&org.owner, &format!("/api/tenant/members/{}", member.user)).await.expect(204);
    org.later(30);
    let before = org.audit_entries().await.len();
    org.patch(&member, "/api/auth/me", &name).await.expect(200);
    assert_eq!(org.audit_entries().await.len(), before);
}
