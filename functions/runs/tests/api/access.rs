//! Who may do what: every operation, by role, with another tenant's ids, and without a token.

use http::{Method, StatusCode};
use serde_json::json;
use tidegate_http::TENANT_STALE_AFTER;
use tidegate_model::{Role, RunStatus, TenantStatus};

use crate::{dead_letters, setup};

#[tokio::test]
async fn every_operation_keeps_to_its_permission_and_tenant() {
    let setup = setup().await;
    let run = setup.store(&setup.ended(RunStatus::Succeeded), None).await.to_string();
    let workflow = setup.workflow.id.to_string();
    let letter = dead_letters::given_up(&setup).await.id.to_string();
    let (stranger, viewer) = (setup.world.session("sam").await, setup.world.member(&setup.owner, Role::Viewer).await);
    let mut public = Vec::new();
    assert_eq!(setup.app.operations().len(), 11);
    for (method, template, permission) in setup.app.operations() {
        let Some(permission) = permission.as_deref() else {
            public.push(format!("{method} {template}"));
            continue;
        };
        let id = match template {
            template if template.contains("dead-letters") => &letter,
            template if template.contains("workflows") => &workflow,
            _ => &run,
        };
        let path = template.replace("{id}", id);
        let body = json!({"ids": [id]}).to_string();
        let headers = [("content-type", "application/json")];
        let call = |session| setup.app.send(session, method.clone(), &path, &headers, body.clone());
        call(None).await.expect(401);
        let foreign = call(Some(&stranger)).await;
        if template.contains("{id}") {
            assert_eq!(foreign.status, 404, "{method} {path}");
        } else {
            assert!(foreign.status.is_success(), "{method} {path}: {}", foreign.body);
            assert!(!foreign.body["items"].to_string().contains(id.as_str()), "{path}");
            assert_eq!(foreign.body.get("redriven").unwrap_or(&json!([])), &json!([]), "{path}");
        }
        let viewed = call(Some(&viewer)).await;
        match permission {
            "runs:read" => {
                assert_eq!((method, viewed.status), (&Method::GET, StatusCode::OK), "{path}");
                let shown = if *id == workflow { "rejected" } else { id };
                assert!(viewed.body.to_string().contains(shown), "{path}");
            }
            "runs:write" => {
                assert_eq!((viewed.status.as_u16(), viewed.text("/code")), (403, "forbidden"), "{method} {path}");
            }
            other => panic!("{method} {path} takes {other}"),
        }
    }
    // Who has an approval's link decides, with or without an account.
    assert_eq!(public, ["GET /api/approvals/{token}", "POST /api/approvals/{token}"]);
    assert_eq!(setup.sent().await, [], "nothing was woken or started");
}

/// In an instance that knows the tenant and the caller already.
#[tokio::test]
async fn a_suspended_tenants_members_are_refused_within_five_seconds_until_it_is_resumed() {
    let setup = setup().await;
    let run = setup.store(&setup.ended(RunStatus::Succeeded), None).await.to_string();
    let stranger = setup.world.session("sam").await;
    let path = format!("/api/runs/{run}");
    for (status, expected) in [(TenantStatus::Active, 200), (TenantStatus::Suspended, 403), (TenantStatus::Active, 200)]
    {
        setup.world.set_status(setup.owner.tenant, status).await;
        setup.world.clock.advance(TENANT_STALE_AFTER);
        for path in ["/api/runs", &path] {
            let answer = setup.app.get(&setup.owner, path).await.expect(expected);
            assert_eq!(answer.text("/code"), if expected == 403 { "tenant_suspended" } else { "" });
        }
        setup.app.get(&stranger, "/api/runs").await.expect(200);
    }
}
