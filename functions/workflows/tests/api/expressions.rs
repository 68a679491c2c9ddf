//! `POST /api/expressions/evaluate`.

use serde_json::{Value, json};

use crate::setup;

#[tokio::test]
async fn an_expression_is_tried_on_made_up_values() {
    let setup = setup().await;
    let context = json!({
        "body": {"order": {"total": 120.5, "lines": ["a", "b"]}, "params": "hidden", "item": "of the body", "user": null},
        "params": {"channel": "#orders"},
        "steps": {"fetch": {"output": {"status": 200}}},
        "run": {"id": "run_1"},
    });
    for (expression, value, kind) in [
        ("order.total > 100", json!(true), "boolean"),
        ("{{ order.total }}", json!(120.5), "number"),
        (" {{ order.lines | join(', ') }} ", json!("a, b"), "string"),
        ("order.lines", json!(["a", "b"]), "array"),
        ("order", json!({"total": 120.5, "lines": ["a", "b"]}), "object"),
        ("user", Value::Null, "null"),
        ("params.channel", json!("#orders"), "string"),
        ("trigger.body.params", json!("hidden"), "string"),
        ("[trigger.type, trigger.content_type]", json!(["manual", null]), "array"),
        ("steps.fetch.output.status", json!(200), "number"),
        ("item", json!("of the body"), "string"),
        ("run.id", json!("run_1"), "string"),
        ("tenant.id", json!(setup.owner.tenant), "string"),
        ("now", json!("2026-11-20T10:00:00.000Z"), "string"),
    ] {
        let body = json!({"expression": expression, "context": context});
        let answer = setup.app.post(&setup.owner, "/api/expressions/evaluate", &body).await.expect(200);
        assert_eq!(answer.body, json!({"value": value, "type": kind}), "{expression}");
    }
    let mut of_an_item = context.clone();
    of_an_item["item"] = json!({"sku": 1});
    of_an_item["index"] = json!(3);
    of_an_item["now"] = json!("2027-01-01T00:00:00Z");
    let template = json!({"a": ["{{ item.sku }}/{{ index }}", 1, null], "b": "{{ now }}", "c": "no expression"});
    let body = json!({"template": template, "context": of_an_item});
    let answer = setup.app.post(&setup.owner, "/api/expressions/evaluate", &body).await.expect(200);
    let value = json!({"a": ["1/3", 1, null], "b": "2027-01-01T00:00:00Z", "c": "no expression"});
    assert_eq!(answer.body, json!({"value": value, "type": "object"}));

    let text = json!({"template": "Order #{{ id }}", "context": {"body": {"id": 7}}});
    let answer = setup.app.post(&setup.owner, "/api/expressions/evaluate", &text).await.expect(200);
    assert_eq!(answer.body, json!({"value": "Order #7", "type": "string"}));
    for body in [json!({"template": null}), json!({"expression": "item", "context": {"item": null}})] {
        let answer = setup.app.post(&setup.owner, "/api/expressions/evaluate", &body).await.expect(200);
        assert_eq!(answer.body, json!({"value": null, "type": "null"}));
    }
}

#[tokio::test]
async fn what_can_not_be_evaluated_says_where_and_why() {
    let setup = setup().await;
    let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    for (body, pointer, detail) in [
        (json!({}), "", "needs one of expression, template"),
        (json!({"expression": "1", "template": 1}), "", "takes only one of"),
        (json!({"expression": 1}), "/expression", "string"),
        (json!({"expression": "1", "contxt": {}}), "/contxt", "unknown field"),
        (json!({"expression": "1", "context": {"param": {}}}), "/context/param", "unknown field"),
        (json!({"expression": "1", "context": {"params": []}}), "/context/params", "map"),
        (json!({"expression": "1 +"}), "/expression", "can't be used"),
        (json!({"expression": ""}), "/expression", "is empty"),
        (json!({"expression": "order.total"}), "/expression", "`order` is not there"),
        (json!({"expression": "steps.a.output"}), "/expression", "`steps.a` is not there"),
        (json!({"expression": "params.a"}), "/expression", "`params.a` is not there"),
        (json!({"expression": "'x' * 100000000"}), "/expression", "*"),
        (json!({"expression": "a".repeat(5_000)}), "/expression", "at most 4096 bytes"),
        (json!({"template": {"a/b": ["{{ 1 }}", "{{ nope }}"]}}), "/template/a~1b/1", "`nope` is not there"),
        (json!({"template": ["{{ nope "]}), "/template/0", "without its"),
        (json!({"template": nested(101)}), "/template", "more than 100 levels"),
        (json!({"expression": "1", "context": {"body": nested(101)}}), "/context/body", "more than 100 levels"),
    ] {
        let answer = setup.app.post(&setup.owner, "/api/expressions/evaluate", &body).await.expect(422);
        assert_eq!(answer.text("/code"), "validation_failed");
        assert_eq!(answer.pointers(), [pointer], "{}", answer.body);
        let told = answer.text("/errors/0/detail");
        assert!(told.contains(detail), "expected {detail:?}: {told}");
    }
}
