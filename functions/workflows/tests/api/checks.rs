//! The check of a definition as a whole: each mistake with its pointer, what is wrong, and what to do.

use serde_json::{Value, json};

use crate::{Setup, setup};

const UNKNOWN: &str = "wf_01890a5d000070008000000000000000";

fn definition(steps: Value) -> Value {
    json!({
        "name": "n", "trigger": {"type": "manual"}, "steps": steps,
        "parameters": [{"name": "channel", "type": "string"}, {"name": "count", "type": "integer"}],
    })
}

fn set(id: &str, value: &str) -> Value {
    json!({"id": id, "uses": "data.set", "with": {"value": value}})
}

/// A step without its id.
fn step(uses: &str, with: Value) -> Value {
    json!({"id": "s", "uses": uses, "with": with})
}

impl Setup {
    /// Pointers and details of what is wrong.
    async fn mistakes(&self, definition: &Value) -> Vec<(String, String)> {
        let answer = self.app.post(&self.owner, "/api/workflows", definition).await;
        if answer.status == 201 {
            return Vec::new();
        }
        let answer = answer.expect(422);
        let errors = answer.body["errors"].as_array().unwrap().iter();
        let text = |error: &Value, field: &str| error[field].as_str().unwrap().to_owned();
        errors.map(|error| (text(error, "pointer"), text(error, "detail"))).collect()
    }

    async fn check(&self, definition: &Value, expected: &[(&str, &str)]) {
        let mistakes = self.mistakes(definition).await;
        let told = || format!("{definition}\n{mistakes:#?}");
        assert_eq!(mistakes.len(), expected.len(), "{}", told());
        for ((pointer, detail), (at, part)) in mistakes.iter().zip(expected) {
            assert!(pointer == at && detail.contains(part), "expected {at} {part:?} of {}", told());
        }
    }
}

#[tokio::test]
async fn built_in_actions_are_checked_like_any_other() {
    let setup = setup().await;
    let connection = setup.slack(&setup.owner).await;
    let connected = json!({"id": "s", "uses": "logic.if", "connection": connection, "with": {"condition": "a"}});
    for (step, pointer, detail) in [
        (step("logic.iff", json!({})), "/steps/0/uses", "did you mean \"logic.if\"?"),
        (connected, "/steps/0/connection", "logic.if takes no connection; remove it"),
        (step("logic.if", json!({})), "/steps/0/with/condition", "is required"),
        (step("data.transform", json!({"input": 1})), "/steps/0/with/query", "is required"),
        (step("time.delay", json!({"duration": "soon"})), "/steps/0/with/duration", "\"2h\""),
        (step("time.delay", json!({"duration": "367d"})), "/steps/0/with/duration", "at most 366 days"),
        (step("time.wait_until", json!({"until": "tomorrow"})), "/steps/0/with/until", "\"2027-01-31T09:00:00Z\""),
        (step("approval.wait", json!({"timeout": "x"})), "/steps/0/with/timeout", "number of seconds"),
        (
            step("logic.switch", json!({"cases": [{"name": "a", "when": "x"}, {"name": "a", "when": "y"}]})),
            "/steps/0/with/cases/1/name",
            "names must be unique",
        ),
        (step("workflow.call", json!({"workflow": "{{ w }}"})), "/steps/0/with/workflow", "written out"),
    ] {
        setup.check(&definition(json!([step])), &[(pointer, detail)]).await;
    }
}

#[tokio::test]
async fn a_wait_fits_into_the_runs_time() {
    let setup = setup().await;
    let waits = |wait: Value, timeout: u32| {
        let mut body = definition(json!([wait]));
        body["execution_timeout"] = json!(timeout);
        body
    };
    let delay = |duration: Value| step("time.delay", json!({ "duration": duration }));
    setup.check(&waits(delay(json!("5m")), 301), &[]).await;
    setup.check(&waits(delay(json!("365d")), 31_622_400), &[]).await;
    setup.check(&waits(delay(json!("{{ wait }}")), 1), &[]).await;
    setup.check(&waits(step("approval.wait", json!({})), 1), &[]).await;
    let late = "is 300 seconds, and the run is stopped after 300: raise execution_timeout above that";
    setup.check(&waits(delay(json!("5m")), 300), &[("/steps/0/with/duration", late)]).await;
    setup.check(&waits(delay(json!(1.5)), 1), &[("/steps/0/with/duration", "is 1.5 seconds")]).await;
    let approval = step("approval.wait", json!({"timeout": "2d"}));
    setup.check(&waits(approval, 300), &[("/steps/0/with/timeout", "is 172800 seconds")]).await;
}

#[tokio::test]
async fn expressions_are_checked_wherever_they_stand() {
    let setup = setup().await;
    let foreach = |items: Value| {
        let mut each = set("s", "{{ item.sku }} {{ index }}");
        each["foreach"] = json!({ "items": items });
        each
    };
    let switch = |case: Value| step("logic.switch", json!({"value": "{{ a }}", "cases": [case]}));
    for right in [
        step("logic.if", json!({"condition": "order.total > 100 and not order.paid"})),
        step("logic.if", json!({"condition": "{{ order.total > 100 }}"})),
        step("logic.if", json!({"condition": true})),
        switch(json!({"name": "a", "when": "a == {\"b\": {}}"})),
        switch(json!({"name": "a", "equals": {"b": "{{ c }}"}})),
        step("data.transform", json!({"input": "{{ lines }}", "query": "[?price > `10`].{sku: sku, at: {n: n}}"})),
        step("data.transform", json!({"input": [], "query": "{{ query }}"})),
        foreach(json!("{{ order.lines }}")),
        foreach(json!([1, "{{ a }}"])),
    ] {
        setup.check(&definition(json!([right])), &[]).await;
    }
    for (wrong, pointer) in [
        (set("s", "{{ order. }}"), "/steps/0/with/value"),
        (step("logic.if", json!({"condition": "order.total >"})), "/steps/0/with/condition"),
        (switch(json!({"name": "a", "when": "1 +"})), "/steps/0/with/cases/0/when"),
        (switch(json!({"name": "a", "equals": ["{{ 1 + }}"]})), "/steps/0/with/cases/0/equals/0"),
        (step("data.transform", json!({"input": 1, "query": "[?price > "})), "/steps/0/with/query"),
        (step("data.transform", json!({"input": "{{ x", "query": "a"})), "/steps/0/with/input"),
        (foreach(json!("{{ order. }}")), "/steps/0/foreach/items"),
        (foreach(json!(["{{ order. }}"])), "/steps/0/foreach/items/0"),
        (foreach(json!("order.lines")), "/steps/0/foreach/items"),
    ] {
        setup.check(&definition(json!([wrong])), &[(pointer, "")]).await;
    }
    let mut output = definition(json!([set("s", "x")]));
    output["output"] = json!({"a": ["{{ steps.s.output }}", "{{ 1 + }}"]});
    setup.check(&output, &[("/output/a/1", "")]).await;
}

#[tokio::test]
async fn an_expression_names_only_what_is_there() {
    let setup = setup().await;
    // `yes` and `no` are the branches of `big`, `both` comes after them.
    let graph = |yes: &str, both: &str| {
        let mut body = definition(json!([
            {"id": "big", "uses": "logic.if", "with": {"condition": "n > 1"}},
            {"id": "yes", "uses": "data.set", "after": ["big.true"], "with": {"value": yes}},
            {"id": "no", "uses": "data.set", "after": ["big.false"], "with": {"value": 1}},
            {"id": "both", "uses": "data.set", "after": ["yes", "no"], "with": {"value": [both]}},
        ]));
        body["output"] = json!("{{ steps.yes.output | default(steps.no.output) }}");
        body
    };
    setup.check(&graph("{{ steps.big.outlet }}", "{{ steps.yes.output | default(steps.no.output) }}"), &[]).await;
    setup.check(&graph("{{ params.channel }}", "{{ item_count + items.index + trigger.body.item }}"), &[]).await;
    let (yes, both) = ("/steps/1/with/value", "/steps/3/with/value/0");
    let x = "{{ x }}";
    for (definition, pointer, detail) in [
        (graph(x, "{{ steps.never.output }}"), both, "there is no step `never`"),
        (graph("{{ steps.no.output }}", x), yes, "step `no` isn't before this one"),
        (graph("{{ steps.both.output }}", x), yes, "step `both` isn't before this one"),
        (graph("{{ steps.yes.output }}", x), yes, "`steps.yes` is this step itself"),
        (graph(x, "{{ params.chanel }}"), both, "no parameter `chanel`; declare it in parameters. There are: channel"),
        (graph(x, "{{ [1, item.sku] | length }}"), both, "`item` is only there in the input of a step with foreach"),
        (graph(x, "{{ index + 1 }}"), both, "a field of the body is `trigger.body.index`"),
    ] {
        setup.check(&definition, &[(pointer, detail)]).await;
    }

    let mut each = json!([set("a", "x"), set("each", "{{ item }} {{ steps.a.output }}")]);
    each[1]["foreach"] = json!({"items": "{{ steps.a.output.list }}"});
    setup.check(&definition(each.clone()), &[]).await;
    each[1]["foreach"]["items"] = json!("{{ steps.each.output }}");
    setup.check(&definition(each.clone()), &[("/steps/1/foreach/items", "is this step itself")]).await;
    each[1]["foreach"]["items"] = json!("{{ [item] }}");
    setup.check(&definition(each), &[("/steps/1/foreach/items", "`item` is only there")]).await;

    let condition = step("logic.if", json!({"condition": "params.nope == steps.nope.output"}));
    let at = "/steps/0/with/condition";
    setup.check(&definition(json!([condition])), &[(at, "no parameter `nope`"), (at, "no step `nope`")]).await;
    let mut output = definition(json!([set("s", "x")]));
    output["output"] = json!({"a": "{{ steps.t.output }}", "b": "{{ index }}"});
    setup.check(&output, &[("/output/a", "there is no step `t`"), ("/output/b", "`index` is only there")]).await;
}

#[tokio::test]
async fn called_workflows_exist_and_take_what_they_are_given() {
    let setup = setup().await;
    let called = json!({
        "name": "called", "trigger": {"type": "manual"}, "steps": [set("s", "x")],
        "parameters": [
            {"name": "count", "type": "integer", "required": true},
            {"name": "size", "type": "string", "options": ["s", "m"]},
            {"name": "extra", "type": "object"},
        ],
    });
    let called = setup.workflow(&called).await;
    let stranger = setup.world.session("sam").await;
    let foreign = setup.app.post(&stranger, "/api/workflows", &definition(json!([set("s", "x")]))).await.expect(201);
    let call = |workflow: &str, parameters: Value| {
        definition(json!([step("workflow.call", json!({"workflow": workflow, "parameters": parameters}))]))
    };
    for parameters in [
        json!({"count": 3}),
        json!({"count": "{{ n }}", "size": "m", "extra": {"a": "{{ b }}"}}),
        json!({"count": 1, "size": "{{ size }}"}),
        json!("{{ all }}"),
    ] {
        setup.check(&call(&called, parameters), &[]).await;
    }
    let at = |name: &str| format!("/steps/0/with/parameters/{name}");
    for (parameters, name, detail) in [
        (json!({}), "count", "is required"),
        (Value::Null, "count", "is required"),
        (json!({"count": "3"}), "count", "must be a whole number"),
        (json!({"count": 1, "size": "l"}), "size", "must be one of"),
        (json!({"count": 1, "colour": 1}), "colour", "no such parameter; it has: count, size, extra"),
        (json!({"count": 1, "colour": "{{ c }}"}), "colour", "no such parameter"),
    ] {
        // Null is refused as no object, before the call itself is looked at.
        if parameters.is_null() {
            let expected = [("/steps/0/with/parameters", "expected an object"), (&at(name), detail)];
            setup.check(&call(&called, parameters), &expected).await;
        } else {
            setup.check(&call(&called, parameters), &[(&at(name), detail)]).await;
        }
    }
    for missing in [UNKNOWN, foreign.text("/id")] {
        let expected = [("/steps/0/with/workflow", "create it first")];
        setup.check(&call(missing, json!({})), &expected).await;
    }

    let handled = |workflow: &str| {
        let mut body = definition(json!([set("s", "x")]));
        body["on_failure"] = json!({ "workflow": workflow });
        body
    };
    let at = "/on_failure/workflow";
    setup.check(&handled(UNKNOWN), &[(at, "create it first")]).await;
    setup.check(&handled(foreign.text("/id")), &[(at, "create it first")]).await;
    setup.check(&handled(&called), &[(at, "needs parameters, which a failure doesn't give: count")]).await;
    let handler = setup.workflow(&definition(json!([set("s", "{{ error.message }}")]))).await;
    setup.check(&handled(&handler), &[]).await;

    // A replacement is checked as what it will be.
    let path = format!("/api/workflows/{handler}");
    let itself = setup.app.put(&setup.owner, &path, "*", &handled(&handler)).await.expect(422);
    assert_eq!(itself.pointers(), [at]);
    assert!(itself.text("/detail").contains("is this workflow itself"), "{}", itself.body);
    let recursive = call(&handler, json!({"count": 1, "added": 2}));
    let refused = setup.app.put(&setup.owner, &path, "*", &recursive).await.expect(422);
    assert_eq!(refused.pointers(), ["/steps/0/with/parameters/added"]);
    let mut declared = recursive;
    declared["parameters"][0] = json!({"name": "added", "type": "integer"});
    setup.app.put(&setup.owner, &path, "*", &declared).await.expect(200);
}

#[tokio::test]
async fn what_is_wrong_many_times_is_told_in_bounds() {
    let setup = setup().await;
    let parameters: Vec<_> =
        (0..100).map(|n| json!({"name": format!("p{n}_{}", "x".repeat(50)), "type": "string"})).collect();
    let mut called = definition(json!([set("s", "x")]));
    called["parameters"] = json!(parameters);
    let called = setup.workflow(&called).await;
    let unknown: serde_json::Map<_, _> = (0..20_000).map(|n| (format!("u{n}"), json!(1))).collect();
    let call = json!({"workflow": called, "parameters": unknown});
    let mistakes = setup.mistakes(&definition(json!([step("workflow.call", call)]))).await;
    assert_eq!((mistakes.len(), mistakes[0].0.as_str()), (20, "/steps/0/with/parameters/u0"));
    let mut own = definition(json!([set("s", &"{{ params.nope }}{{ params.never }}".repeat(400))]));
    own["parameters"] = json!(parameters);
    let mistakes = setup.mistakes(&own).await;
    assert_eq!(mistakes.len(), 2, "a place tells the same once");
    assert!(mistakes.iter().all(|(_, detail)| detail.len() < 1_500 && detail.ends_with(", …")), "{mistakes:?}");

    let calls = (0..102).map(|n| {
        let workflow = format!("wf_01890a5d000070008000000000000{n:03}");
        json!({"id": format!("s{n}"), "uses": "workflow.call", "with": {"workflow": workflow}})
    });
    let mistakes = setup.mistakes(&definition(json!(calls.collect::<Vec<_>>()))).await;
    let one_too_many: Vec<_> = mistakes.iter().filter(|(_, detail)| detail.contains("one too many")).collect();
    assert_eq!((mistakes.len(), one_too_many.len()), (102, 2));
    assert_eq!(one_too_many[0].0, "/steps/100/with/workflow");
}

#[tokio::test]
async fn every_concern_is_told_at_once() {
    let setup = setup().await;
    let mut body = definition(json!([
        {"id": "a", "uses": "logic.iff", "with": {}},
        {"id": "b", "uses": "time.delay", "with": {"duration": "1h"}},
        {"id": "c", "uses": "workflow.call", "with": {"workflow": UNKNOWN}},
        {"id": "d", "uses": "data.set", "with": {"value": "{{ steps.e.output }}"}},
    ]));
    body["on_failure"] = json!({ "workflow": UNKNOWN });
    let expected = [
        ("/steps/0/uses", "logic.if"),
        ("/steps/1/with/duration", "execution_timeout"),
        ("/steps/2/with/workflow", "create it first"),
        ("/on_failure/workflow", "create it first"),
        ("/steps/3/with/value", "there is no step `e`"),
    ];
    setup.check(&body, &expected).await;
    assert_eq!(setup.app.get(&setup.owner, "/api/workflows").await.expect(200).body["items"], json!([]));
}
