//! Who may do what: every operation, by role, with another tenant's ids, and without a token.

use http::Method;
use serde_json::{Value, json};
use tidegate_model::Role;

use crate::{by_webhook, setup};

#[tokio::test]
async fn every_operation_keeps_to_its_permission_and_tenant() {
    let setup = setup().await;
    let (app, world, owner) = (&setup.app, &setup.world, &setup.owner);
    let connection = setup.slack(owner).await;
    let workflow = setup.workflow(&by_webhook()).await;
    let before = app.get(owner, &format!("/api/workflows/{workflow}")).await.body;
    let (stranger, viewer) = (world.session("sam").await, world.member(owner, Role::Viewer).await);

    assert_eq!(app.operations().len(), 17);
    for (method, template, permission) in app.operations() {
        let Some(permission) = permission.as_deref() else {
            assert_eq!(template, "/api/schemas/workflow", "{method} {template} is public");
            app.send(None, method.clone(), template, &[], "").await.expect(200);
            continue;
        };
        let id = if template.contains("workflows") { &workflow } else { &connection };
        let path = template.replace("{id}", id);
        let evaluates = template == "/api/expressions/evaluate";
        let body = match *method {
            Method::GET => Value::Null,
            _ if evaluates => json!({"expression": "1"}),
            _ => by_webhook(),
        };
        let headers = [("content-type", "application/json"), ("if-match", "*")];
        let call = |session| app.send(session, method.clone(), &path, &headers, body.to_string());

        let anonymous = call(None).await;
        assert_eq!((anonymous.status.as_u16(), anonymous.text("/code")), (401, "unauthenticated"), "{method} {path}");
        if permission.ends_with(":write") || permission.ends_with(":run") {
            let viewed = call(Some(&viewer)).await;
            assert_eq!((viewed.status.as_u16(), viewed.text("/code")), (403, "forbidden"), "{method} {path}");
        } else {
            assert_eq!(call(Some(&viewer)).await.status, http::StatusCode::OK, "{method} {path}");
            assert!(*method == Method::GET || evaluates, "{method} {path} changes something");
        }
        if template.contains("{id}") {
            let empty = template.ends_with("toggle") || template.ends_with("trigger");
            let own = if empty { json!({}) } else { body.clone() };
            let foreign = app.send(Some(&stranger), method.clone(), &path, &headers, own.to_string()).await;
            assert_eq!((foreign.status.as_u16(), foreign.text("/code")), (404, "not_found"), "{method} {path}");
        }
    }
    assert_eq!(app.get(owner, &format!("/api/workflows/{workflow}")).await.expect(200).body, before);
    app.get(owner, &format!("/api/connections/{connection}")).await.expect(200);
    assert_eq!(app.get(&stranger, "/api/workflows").await.body["items"], json!([]));

    for id in ["nonsense", "wf_XYZ", connection.as_str(), "wf_01890a5d000070008000000000000000"] {
        app.get(owner, &format!("/api/workflows/{id}")).await.expect(404);
    }
}
