//! Who may do what: every operation, by role, with another tenant's ids, and without a token.

use http::Method;
use serde_json::{Value, json};
use tidegate_model::{CustomRole, Member, Permission, Role, Tenant};
use tidegate_testing::Session;

use crate::{Setup, by_webhook, setup};

#[tokio::test]
async fn every_operation_keeps_to_its_permission_and_tenant() {
    let setup = setup().await;
    let (app, world, owner) = (&setup.app, &setup.world, &setup.owner);
    let connection = setup.slack(owner).await;
    let workflow = setup.workflow(&by_webhook()).await;
    let before = app.get(owner, &format!("/api/workflows/{workflow}")).await.body;
    let (stranger, viewer) = (world.session("sam").await, world.member(owner, Role::Viewer).await);

    // What else there is `tests/tests/authorization.rs` tries.
    let is_tried = |template: &str| {
        let bases = ["/api/workflows", "/api/credentials", "/api/expressions", "/api/schemas/workflow"];
        bases.iter().any(|base| template.starts_with(base))
            || ["/api/connections", "/api/connections/{id}"].contains(&template)
    };
    let tried: Vec<_> =
        app.operations().iter().filter(|(method, path, _)| method != Method::PATCH && is_tried(path)).collect();
    assert_eq!(tried.len(), 19);
    for (method, template, permission) in tried {
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

impl Setup {
    /// A member with a role of the tenant's own that writes workflows, and may not have them use connections.
    pub(crate) async fn builder(&self) -> Session {
        let (world, owner) = (&self.world, &self.owner);
        let tenants = world.store.tenants();
        let before = tenants.get(owner.tenant).await.unwrap().unwrap();
        let permissions = [Permission::WorkflowsRead, Permission::WorkflowsWrite].into();
        let builder = CustomRole { description: String::new(), permissions };
        let roles = [("builder".parse().unwrap(), builder)].into();
        tenants.replace(&Tenant { roles, revision: before.revision + 1, ..before }).await.unwrap();
        let member = world.member(owner, Role::Viewer).await;
        let stored = tenants.member(owner.tenant, member.user.into()).await.unwrap().unwrap();
        let as_builder = Member { role: "builder".parse().unwrap(), ..stored.clone() };
        tenants.replace_members(&[(&stored, &as_builder)]).await.unwrap();
        world.clock.advance(std::time::Duration::from_secs(5));
        member
    }
}

#[tokio::test]
async fn a_connection_gets_into_a_workflow_by_who_may_use_it_alone() {
    let setup = setup().await;
    let (app, world, owner) = (&setup.app, &setup.world, &setup.owner);
    let member = setup.builder().await;
    let (used, other) = (setup.slack(owner).await, setup.slack(owner).await);
    let notify = |id: &str, connection: &str, text: &str| json!({"id": id, "uses": "slack.send_message", "connection": connection, "with": {"text": text}});
    let with = |steps: &[Value]| {
        let mut body = by_webhook();
        body["steps"].as_array_mut().unwrap().extend_from_slice(steps);
        body
    };
    let refused = app.post(&member, "/api/workflows", &with(&[notify("a", &used, "x")])).await.expect(403);
    assert_eq!((refused.text("/code"), refused.pointers()), ("forbidden", vec!["/steps/1/connection"]));
    app.post(&member, "/api/workflows", &by_webhook()).await.expect(201);

    let workflow = setup.workflow(&with(&[notify("a", &used, "x")])).await;
    let path = format!("/api/workflows/{workflow}");
    // What it uses already may be used on, by further steps too.
    let more = with(&[notify("a", &used, "y"), notify("b", &used, "z")]);
    let replaced = app.put(&member, &path, "*", &more).await.expect(200);
    let swapped = with(&[notify("a", &used, "y"), notify("b", &other, "z"), notify("c", &other, "z")]);
    let refused = app.put(&member, &path, "*", &swapped).await.expect(403);
    assert_eq!(refused.pointers(), ["/steps/2/connection", "/steps/3/connection"]);
    assert_eq!(app.get(owner, &path).await.expect(200).body["definition"], replaced.body["definition"]);
    app.put(&world.member(owner, Role::Editor).await, &path, "*", &swapped).await.expect(200);
    // Once it is out, it is out.
    app.put(&member, &path, "*", &by_webhook()).await.expect(200);
    app.put(&member, &path, "*", &with(&[notify("a", &used, "x")])).await.expect(403);
}
