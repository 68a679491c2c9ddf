//! Who may: administrators who are people, and nobody else. And what being one doesn't allow.

use std::collections::BTreeSet;

use axum::body::Body;
use serde_json::json;
use tidegate_http::{Claims, RandomSecret};
use tidegate_model::{ApiKey, Member, Permission, PrincipalId, Role};
use tidegate_testing::{ISSUER, Session, World};

use crate::{administrator, instance, platform};

#[tokio::test]
async fn every_operation_is_for_administrators_alone() {
    let world = World::new().await;
    let app = instance(&world);
    let owner = world.session("owner").await;
    let operations = app.operations().to_vec();
    assert_eq!(operations.len(), 16);
    for (method, path, permission) in operations {
        let expected = if method == "GET" { "platform:read" } else { "platform:write" };
        assert_eq!(permission.as_deref(), Some(expected), "{method} {path}");
        assert!(path.starts_with("/api/admin/platform/"), "{path}");
        let path = path.replace("{id}", &owner.tenant.to_string()).replace("{user_id}", &owner.user.to_string());
        let json = [("content-type", "application/json"), ("if-match", "*")];
        for (session, status) in [(None, 401), (Some(&owner), 403)] {
            let answer = app.send(session, method.clone(), &path, &json, Body::from("{}")).await;
            assert_eq!(answer.status, status, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn no_api_key_administers_whatever_its_scopes_say() {
    let world = World::new().await;
    let app = instance(&world);
    let owner = world.session("owner").await;
    let account = world.ids.service_account();
    let now = world.clock.now();
    let member = Member {
        tenant: owner.tenant,
        principal: PrincipalId::Service(account),
        role: Role::Admin.into(),
        name: "CI".to_owned(),
        email: None,
        created_at: now,
    };
    world.store.tenants().add_member(&member).await.unwrap();
    let key = ApiKey {
        id: world.ids.api_key(),
        tenant: owner.tenant,
        service_account: account,
        name: "CI".to_owned(),
        secret_hash: RandomSecret::new().hash(),
        scopes: BTreeSet::from([Permission::PlatformRead, Permission::PlatformWrite]),
        created_at: now,
        expires_at: None,
        successor: None,
    };
    world.store.api_keys().create(&key).await.unwrap();
    let claims = Claims {
        iss: ISSUER.to_owned(),
        aud: tidegate_http::AUDIENCE.to_owned(),
        sub: account.into(),
        client_id: key.id.to_string(),
        sid: None,
        amr: Vec::new(),
        tenant: Some(owner.tenant),
        roles: vec![Role::Admin.into()],
        scope: None,
        iat: now.as_second(),
        exp: now.as_second() + 900,
        jti: "1".to_owned(),
    };
    let machine = Session { token: world.sign(&claims), ..owner };
    app.get(&machine, &platform("clients")).await.expect(403);
}

#[tokio::test]
async fn an_administrator_whose_own_tenant_is_suspended_goes_on() {
    let world = World::new().await;
    let app = instance(&world);
    let root = administrator(&world, "root").await;
    let body = json!({"reason": "a slip"});
    app.post(&root, &platform(&format!("clients/{}/suspend", root.tenant)), &body).await.expect(200);
    world.clock.advance(tidegate_http::TENANT_STALE_AFTER);
    app.post(&root, &platform(&format!("clients/{}/resume", root.tenant)), &json!({})).await.expect(200);
}
