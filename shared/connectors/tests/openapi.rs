//! OpenAPI documents, well-formed, wrong and hostile ones, as connector manifests. What a manifest sends is told by the
//! engine's own evaluation of its templates.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Map, Value, json};
use tidegate_connectors::{ImportOptions, Imported, LeftOut, import_openapi};
use tidegate_engine::{Data, Scope, check_templates};
use tidegate_model::Pointer;

fn document(paths: Value, components: Value) -> Value {
    json!({
        "openapi": "3.0.3",
        "info": { "title": "Acme API", "version": "1" },
        "servers": [{ "url": "https://api.acme.test/v2" }],
        "paths": paths,
        "components": components,
    })
}

/// A document of one operation, `POST /things`, with these members.
fn operation(members: Value) -> Value {
    document(json!({ "/things": { "post": members } }), json!({}))
}

/// A document of one operation that takes a body of this schema.
fn body_of(schema: Value, components: Value) -> Value {
    let body = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    document(json!({ "/things": { "post": { "operationId": "make", "requestBody": body } } }), components)
}

fn import(document: &Value) -> Imported {
    import_with(document, &ImportOptions::default())
}

fn import_with(document: &Value, options: &ImportOptions) -> Imported {
    let imported = import_openapi(document, options).unwrap();
    check(&imported.manifest);
    assert_eq!(imported.report.actions, imported.manifest["actions"].as_object().unwrap().len());
    imported
}

fn refusals(document: &Value, options: &ImportOptions) -> Vec<(String, String)> {
    let errors = import_openapi(document, options).unwrap_err();
    errors.into_iter().map(|error| (error.pointer.to_string(), error.detail)).collect()
}

/// What holds for each manifest: its inputs are JSON Schemas, its templates parse, and there are none but those.
fn check(manifest: &Value) {
    for (name, action) in manifest["actions"].as_object().unwrap() {
        assert!(name.len() >= 2 && name.len() <= 60 && name.starts_with(|c: char| c.is_ascii_lowercase()), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{name}");
        assert!(jsonschema::draft202012::meta::is_valid(&action["input"]), "{name}: {}", action["input"]);
        jsonschema::draft202012::new(&action["input"]).unwrap();
        let mut errors = Vec::new();
        check_templates(&action["request"], &Pointer::root(), &mut errors);
        assert_eq!(errors, [], "{name}");
        for template in templates(&action["request"]) {
            let inside = template.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap());
            for expression in inside {
                assert!(expression.contains("input"), "{name}: {template}");
            }
        }
    }
    let mut rest = manifest.clone();
    for action in rest["actions"].as_object_mut().unwrap().values_mut() {
        action.as_object_mut().unwrap().remove("request");
    }
    let allowed = |text: &&String| !text.contains("{{ secret.");
    assert_eq!(templates(&rest).iter().filter(allowed).collect::<Vec<_>>(), Vec::<&String>::new());
}

/// The texts within a value in which an expression begins.
fn templates(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) if text.contains("{{") => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(templates).collect(),
        Value::Object(members) => members.values().flat_map(templates).collect(),
        _ => Vec::new(),
    }
}

/// The request that an action makes of an input: its templates filled in, members that are null left out.
fn sent(manifest: &Value, action: &str, input: Value) -> Value {
    let action = &manifest["actions"][action];
    assert!(jsonschema::is_valid(&action["input"], &input), "{input} doesn't fit {}", action["input"]);
    let mut seen = Map::new();
    for name in action["input"]["properties"].as_object().unwrap().keys() {
        seen.insert(name.clone(), input.get(name).cloned().unwrap_or(Value::Null));
    }
    // The whole input is what the step gave; a field of it that wasn't given is null.
    let alone = action["request"]["json"] == "{{ input }}";
    let seen = if alone { input } else { Value::Object(seen) };
    let scope = Scope::new([("input".to_owned(), Data::from(&seen))]);
    let mut request = scope.fill_one(&action["request"], &Pointer::root()).unwrap();
    for part in request.as_object_mut().unwrap().values_mut() {
        if let (Value::Object(members), false) = (part, alone) {
            members.retain(|_, value| !value.is_null());
        }
    }
    request.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    request
}

fn input<'m>(manifest: &'m Value, action: &str) -> &'m Value {
    &manifest["actions"][action]["input"]
}

fn left_out(imported: &Imported) -> Vec<(&str, &str)> {
    imported.report.left_out.iter().map(|LeftOut { at, reason }| (at.as_str(), reason.as_str())).collect()
}

#[test]
fn an_operation_becomes_an_action() {
    let document = document(
        json!({ "/customers/{customer}/orders": {
            "parameters": [
                { "name": "customer", "in": "path", "required": true, "schema": { "type": "string" } },
                { "name": "dry", "in": "query", "schema": { "type": "string" } },
            ],
            "get": {
                "operationId": "ListOrders", "tags": ["Orders"], "summary": "List *all* orders",
                "parameters": [{ "name": "limit", "in": "query", "schema": { "type": "integer", "maximum": 100 } }],
                "responses": { "200": { "description": "", "content": { "application/json": {} } } },
            },
            "post": {
                "operationId": "orders/createOrder",
                "description": "<p>Creates an <b>order</b>. See [the guide](https://x.test). And more. And more.</p>",
                "externalDocs": { "url": "https://docs.acme.test/orders" },
                "parameters": [
                    { "$ref": "#/components/parameters/Dry" },
                    { "name": "X-Trace", "in": "header", "description": "A `trace`.", "schema": { "type": "string" } },
                ],
                "requestBody": { "$ref": "#/components/requestBodies/Order" },
                "responses": { "201": { "description": "" } },
            },
        } }),
        json!({
            "parameters": { "Dry": { "name": "dry", "in": "query", "schema": { "type": "boolean" } } },
            "requestBodies": { "Order": {
                "required": true,
                "content": { "application/json; charset=utf-8": { "schema": { "$ref": "#/components/schemas/Order" } } },
            } },
            "schemas": { "Order": {
                "type": "object",
                "required": ["item", "id"],
                "properties": {
                    "id": { "type": "string", "readOnly": true },
                    "item": { "type": "string", "minLength": 1, "x-secret": true },
                    "gift-note": { "type": "string" },
                },
            } },
        }),
    );
    let Imported { manifest, report } = import(&document);
    assert_eq!(manifest["format"], 1);
    assert_eq!(manifest["name"], "acme");
    assert_eq!(manifest["title"], "Acme API");
    assert_eq!(manifest["base_url"], "https://api.acme.test/v2");
    assert_eq!(manifest["hosts"], json!(["api.acme.test"]));
    assert_eq!(manifest["auth"], json!([{ "id": "none", "type": "none" }]));
    assert_eq!(report.left_out, []);
    assert_eq!(
        manifest["actions"]["orders_create_order"],
        json!({
            "title": "Orders create order",
            "help": "Creates an order. See the guide.",
            "docs": "https://docs.acme.test/orders",
            "effect": "write",
            "input": {
                "type": "object",
                "properties": {
                    "customer": { "title": "Customer", "type": "string" },
                    "dry": { "title": "Dry", "type": "boolean" },
                    "X-Trace": { "title": "X trace", "type": "string", "description": "A trace." },
                    "item": { "title": "Item", "type": "string", "minLength": 1 },
                    "gift-note": { "title": "Gift note", "type": "string" },
                },
                "required": ["customer", "item"],
                "additionalProperties": false,
            },
            "request": {
                "method": "POST",
                "path": "/customers/{{ input.customer }}/orders",
                "query": { "dry": "{{ input.dry }}" },
                "headers": { "X-Trace": "{{ input[\"X-Trace\"] }}" },
                "json": { "item": "{{ input.item }}", "gift-note": "{{ input[\"gift-note\"] }}" },
            },
            "answer": "any",
        })
    );
    assert_eq!(manifest["actions"]["list_orders"]["effect"], "read");
    assert_eq!(manifest["actions"]["list_orders"]["title"], "List all orders");
    assert_eq!(manifest["actions"]["list_orders"]["answer"], Value::Null);
    assert_eq!(
        sent(&manifest, "orders_create_order", json!({ "customer": "c_1", "item": "i_1", "dry": true })),
        json!({
            "method": "POST", "path": "/customers/c_1/orders", "query": { "dry": true }, "headers": {},
            "json": { "item": "i_1" },
        })
    );
}

#[test]
fn other_versions_are_refused() {
    let refusal = |document: Value| refusals(&document, &ImportOptions::default()).remove(0);
    let (at, detail) = refusal(json!({ "swagger": "2.0" }));
    assert_eq!(at, "/swagger");
    assert!(detail.contains("swagger2openapi"), "{detail}");
    assert_eq!(refusal(json!({ "openapi": "4.0.0" })).0, "/openapi");
    assert_eq!(refusal(json!({ "openapi": 3 })).0, "/openapi");
    assert_eq!(refusal(json!([])).0, "");
    assert_eq!(refusal(json!({ "openapi": "3.1.0", "servers": [{ "url": "https://a.test" }] })).0, "/paths");
    let nothing = document(json!({ "/a": { "trace": {} } }), json!({}));
    assert!(refusal(nothing).1.contains("TRACE /a: a step can't send TRACE"));
}

#[test]
fn operations_are_chosen() {
    let one = |id: &str, tag: &str| json!({ "operationId": id, "tags": [tag] });
    let document = document(
        json!({
            "/v1/orders": { "get": one("listOrders", "Orders"), "post": one("createOrder", "Orders") },
            "/v1/orders/{id}": { "get": one("getOrder", "Orders") },
            "/v1/orders_archive": { "get": one("archive", "Old") },
        }),
        json!({}),
    );
    let chosen = |include: &[&str]| {
        let include = include.iter().map(|text| (*text).to_owned()).collect();
        let imported = import_with(&document, &ImportOptions { include, ..ImportOptions::default() });
        imported.manifest["actions"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(chosen(&["createOrder", "archive"]), ["create_order", "archive"]);
    assert_eq!(chosen(&["get_order"]), ["get_order"]);
    assert_eq!(chosen(&["tag:Old"]), ["archive"]);
    assert_eq!(chosen(&["/v1/orders"]), ["list_orders", "create_order", "get_order"]);
    assert_eq!(chosen(&["get /v1/orders"]), ["list_orders", "get_order"]);
    assert_eq!(chosen(&["/v1/"]).len(), 4);
    let options = ImportOptions {
        name: Some("Acme!".to_owned()),
        include: vec!["archive".to_owned(), "tag:None".to_owned()],
        server: Some("acme.test".to_owned()),
        ..ImportOptions::default()
    };
    let at: Vec<_> = refusals(&document, &options).into_iter().map(|(at, _)| at).collect();
    assert_eq!(at, ["/options/name", "/options/server", "/options/include/1"]);
}

#[test]
fn names_are_unique_and_the_same_whatever_is_chosen() {
    let long = "x".repeat(100);
    let document = document(
        json!({
            "/a": { "get": { "operationId": "getHTTPStatus" }, "post": { "operationId": "get-http status" } },
            "/b": { "get": { "operationId": long }, "post": { "operationId": long }, "put": { "operationId": "日本" } },
            "/b/{id}": { "delete": {}, "get": { "operationId": "2fa" }, "put": { "operationId": "OAuthLogin" } },
        }),
        json!({}),
    );
    let names = |include: &[&str]| {
        let include = include.iter().map(|text| (*text).to_owned()).collect();
        let imported = import_with(&document, &ImportOptions { include, ..ImportOptions::default() });
        imported.manifest["actions"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    let (whole, cut) = ("x".repeat(60), format!("{}_2", "x".repeat(58)));
    let expected =
        ["get_http_status", "get_http_status_2", &whole, &cut, "put_b", "delete_b_id", "n_2fa", "oauth_login"];
    assert_eq!(names(&[]), expected);
    assert_eq!(names(&["POST /a", "POST /b"]), ["get_http_status_2", &cut]);
}

#[test]
fn parameters_go_out_in_their_style() {
    let list = json!({ "type": "array", "items": { "type": "string" } });
    let range = json!({ "type": "object", "properties": { "gte": { "type": "integer" } } });
    let parameters = json!([
        { "name": "ids", "in": "path", "required": true, "schema": list },
        { "name": "tag", "in": "query", "schema": list },
        { "name": "tags[]", "in": "query", "schema": list },
        { "name": "fields", "in": "query", "explode": false, "schema": list },
        { "name": "either", "in": "query", "explode": false, "schema": { "anyOf": [list, { "type": "string" }] } },
        { "name": "words", "in": "query", "style": "spaceDelimited", "schema": list },
        { "name": "pipes", "in": "query", "style": "pipeDelimited", "schema": list },
        { "name": "created", "in": "query", "style": "deepObject",
          "schema": { "anyOf": [range, { "type": "integer" }] } },
        { "name": "expand", "in": "query", "style": "deepObject", "explode": true, "schema": list },
        { "name": "unset", "in": "query", "style": "deepObject",
          "schema": { "anyOf": [list, { "type": "string", "enum": [""] }] } },
        { "name": "page", "in": "query", "schema": {
            "type": "object", "properties": { "page[size]": { "type": "integer" }, "sort": { "type": "string" } } } },
        { "name": "filter", "in": "query", "content": { "application/json": { "schema": { "type": "object" } } } },
        { "name": "ids", "in": "query", "schema": { "type": "integer" } },
        { "name": "X-List", "in": "header", "schema": list },
        { "name": "Accept", "in": "header", "required": true, "schema": { "type": "string" } },
        { "name": "Idempotency-Key", "in": "header", "required": true, "schema": { "type": "string" } },
        { "name": "session", "in": "cookie", "required": false, "schema": { "type": "string" } },
        { "name": "Host", "in": "header", "required": true, "schema": { "type": "string" } },
        { "name": "odd", "in": "query", "explode": false, "schema": range },
    ]);
    let post = json!({ "operationId": "find", "parameters": parameters });
    let Imported { manifest, report } =
        import(&document(json!({ "/x/{ids}/{undeclared}": { "post": post } }), json!({})));
    let action = &manifest["actions"]["find"];
    assert_eq!(action["idempotent"], true);
    assert_eq!(action["input"]["required"], json!(["ids", "undeclared"]));
    let given = json!({
        "ids": ["a", "b"], "undeclared": "u", "tag": ["a", "b"], "tags[]": ["c"], "fields": ["a", "b"], "either": "e",
        "words": ["a", "b"], "pipes": ["a", "b"], "created": { "gte": 5 }, "expand": ["data"], "unset": "",
        "page[size]": 3, "sort": "up", "filter": { "a": 1 }, "query_ids": 7, "X-List": ["a", "b"],
    });
    assert_eq!(
        sent(&manifest, "find", given),
        json!({
            "method": "POST",
            "path": "/x/a,b/u",
            "query": {
                "tag": ["a", "b"], "tags[]": ["c"], "fields": "a,b", "either": "e", "words": "a b", "pipes": "a|b",
                "created": { "gte": 5 }, "expand[]": ["data"], "unset": "", "page[size]": 3, "sort": "up",
                "filter": "{\"a\":1}", "ids": 7,
            },
            "headers": { "X-List": "a,b" },
        })
    );
    let least = json!({ "ids": ["a"], "undeclared": "u", "unset": ["a"] });
    let least = sent(&manifest, "find", least);
    assert_eq!((&least["query"], &least["headers"]), (&json!({ "unset[]": ["a"] }), &json!({})));
    let notes = report.notes.join("\n");
    for part in ["\"session\" goes out as a cookie", "\"odd\" is an object"] {
        assert!(notes.contains(part), "{notes}");
    }
}

#[test]
fn parameters_that_cannot_be_sent_leave_their_operation_out() {
    let matrix = json!({ "name": "id", "in": "path", "required": true, "style": "matrix", "schema": {} });
    let object = json!({ "name": "f", "in": "query", "required": true, "schema": { "type": "object" } });
    let imported = import(&document(
        json!({
            "/a/{id}": { "get": { "parameters": [matrix] } },
            "/b": { "get": { "parameters": [object] } },
            "/c?x={x}": { "get": {} },
            "/c c": { "get": {} },
            "/d/{id": { "get": {} },
            "/e/../f": { "get": {} },
            "/e/%2E./f": { "get": {} },
            "no": { "get": {} },
            "/g?beta=true&of=%7B%7B+now#first": { "get": {} },
            "/g?beta=true#first": { "get": {}, "options": {} },
        }),
        json!({}),
    ));
    let request = json!({ "method": "GET", "path": "/g", "query": { "beta": "true" } });
    assert_eq!(imported.manifest["actions"]["get_g_beta_true_first"]["request"], request);
    let expected = [
        ("GET /a/{id}", "its parameter \"id\" goes out in a style that can't be expressed"),
        ("GET /b", "its parameter \"f\" is an object without named members"),
        ("GET /c?x={x}", "its path has a query that can't be expressed"),
        ("GET /c c", "its path holds what can't stand in one, such as a space"),
        ("GET /d/{id", "its path has a `{` without its `}`"),
        ("GET /e/../f", "its path doesn't begin with `/`, or goes up"),
        ("GET /e/%2E./f", "its path doesn't begin with `/`, or goes up"),
        ("GET no", "its path doesn't begin with `/`, or goes up"),
        ("GET /g?beta=true&of=%7B%7B+now#first", "its path has a query that can't be expressed"),
        ("OPTIONS /g?beta=true#first", "a step can't send OPTIONS"),
    ];
    assert_eq!(left_out(&imported), expected);
}

#[test]
fn bodies_of_json_are_fields_or_one_field() {
    let schema =
        json!({ "type": "object", "properties": { "id": { "type": "string" }, "a b": { "type": "integer" } } });
    let json_of = |kind: &str, schema: &Value, required: bool| json!({ "required": required, "content": { kind: { "schema": schema } } });
    let of = |body: Value| json!({ "requestBody": body });
    let free = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    let either = json!({ "anyOf": [schema, { "type": "array", "items": {} }] });
    let choice = json!({
        "type": "object", "properties": { "a": {}, "b": {} }, "oneOf": [{ "required": ["a", "a"] }, { "required": ["b"] }],
    });
    let Imported { manifest, .. } = import(&document(
        json!({
            "/alone": { "post": of(json_of("application/json", &schema, true)) },
            "/clash/{id}": { "put": of(json_of("application/json", &schema, true)) },
            "/free": { "post": of(json_of("application/json", &free, true)) },
            "/either": { "post": of(json_of("*/*", &either, false)) },
            "/vendor": { "patch": of(json_of("application/merge-patch+json", &schema, true)) },
            "/gone": { "delete": of(json_of("application/json", &schema, false)) },
            "/choice": { "post": of(json_of("application/json", &choice, true)) },
            "/text": { "post": of(json_of("text/csv", &json!({ "type": "string" }), true)) },
            "/empty": { "post": of(json_of("application/json", &json!({ "type": "object", "additionalProperties": false }), true)) },
        }),
        json!({}),
    ));
    assert_eq!(sent(&manifest, "post_alone", json!({ "a b": 1 }))["json"], json!({ "a b": 1 }));
    let clash = sent(&manifest, "put_clash_id", json!({ "id": "1", "body": { "id": "2" } }));
    assert_eq!((&clash["path"], &clash["json"]), (&json!("/clash/1"), &json!({ "id": "2" })));
    assert_eq!(input(&manifest, "put_clash_id")["required"], json!(["id", "body"]));
    assert_eq!(sent(&manifest, "post_free", json!({ "body": { "any": "x" } }))["json"], json!({ "any": "x" }));
    assert_eq!(sent(&manifest, "post_either", json!({ "body": [1] }))["json"], json!([1]));
    assert_eq!(sent(&manifest, "post_either", json!({})), json!({ "method": "POST", "path": "/either" }));
    let vendor = sent(&manifest, "patch_vendor", json!({ "id": "1" }));
    assert_eq!(vendor["headers"], json!({ "Content-Type": "application/merge-patch+json" }));
    assert_eq!(sent(&manifest, "delete_gone", json!({})), json!({ "method": "DELETE", "path": "/gone" }));
    assert!(!jsonschema::is_valid(input(&manifest, "post_choice"), &json!({})));
    assert_eq!(sent(&manifest, "post_choice", json!({ "b": 1 }))["json"], json!({ "b": 1 }));
    let text = sent(&manifest, "post_text", json!({ "body": "a,b" }));
    assert_eq!((&text["text"], &text["headers"]), (&json!("a,b"), &json!({ "Content-Type": "text/csv" })));
    assert_eq!(sent(&manifest, "post_empty", json!({})), json!({ "method": "POST", "path": "/empty" }));
}

#[test]
fn forms_go_out_as_their_encoding_says() {
    let nested = json!({ "type": "object", "properties": { "line1": { "type": "string" } } });
    let list = json!({ "type": "array", "items": { "type": "string" } });
    let schema = json!({
        "type": "object",
        "required": ["amount"],
        "properties": {
            "id": { "type": "string" }, "amount": { "type": "integer" }, "address": nested,
            "items": { "type": "array", "items": nested }, "expand": list, "plain": list, "commas": list,
            "blocks": { "type": "array", "items": { "type": "object" } },
        },
    });
    let deep = json!({ "style": "deepObject", "explode": true });
    let encoding = json!({
        "address": deep, "items": deep, "expand": deep, "commas": { "style": "form", "explode": false },
        "blocks": { "contentType": "application/json" },
    });
    let content = json!({ "application/x-www-form-urlencoded": { "schema": schema, "encoding": encoding } });
    let post = json!({ "operationId": "pay", "requestBody": { "required": true, "content": content } });
    let empty = json!({ "type": "object", "properties": {}, "additionalProperties": false });
    let get = json!({ "operationId": "none", "requestBody": {
        "content": { "application/x-www-form-urlencoded": { "schema": empty } } } });
    let Imported { manifest, report } =
        import(&document(json!({ "/pay/{id}": { "post": post, "get": get } }), json!({})));
    assert_eq!(report.notes, ["no way to sign in is known; add one to `auth` if the API wants one"]);
    assert_eq!(input(&manifest, "pay")["required"], json!(["id", "amount"]));
    let given = json!({
        "id": "1", "form_id": "2", "amount": 5, "address": { "line1": "x" }, "items": [{ "line1": "y" }],
        "expand": ["a", "b"], "plain": ["c", "d"], "commas": ["e", "f"], "blocks": [{ "t": 1 }],
    });
    assert_eq!(
        sent(&manifest, "pay", given)["form"],
        json!({
            "id": "2", "amount": 5, "address": { "line1": "x" }, "items": [{ "line1": "y" }],
            "expand[]": ["a", "b"], "plain": ["c", "d"], "commas": "e,f", "blocks": "[{\"t\":1}]",
        })
    );
}

#[test]
fn other_bodies_are_left_out() {
    let of = |kind: &str, required: bool| json!({ "requestBody": { "required": required, "content": { kind: {} } } });
    let imported = import(&document(
        json!({
            "/files": { "post": of("multipart/form-data", true), "put": of("multipart/form-data", false) },
            "/search": { "get": of("application/json", false) },
        }),
        json!({}),
    ));
    let reason = "it needs a body of multipart/form-data, which a step can't send";
    assert_eq!(left_out(&imported), [("POST /files", reason), ("PUT /files", reason)]);
    let notes = [
        "no way to sign in is known; add one to `auth` if the API wants one",
        "a body of GET can't be sent; it is left out (GET /search)",
    ];
    assert_eq!(imported.report.notes, notes);
}

#[test]
fn references_are_followed_within_the_document() {
    let refer = |to: &str| json!({ "$ref": to });
    let document = document(
        json!({
            "/a~b/{x}": { "get": { "parameters": [{ "name": "p", "in": "query", "schema": { "type": "integer" } }] } },
            "/things": { "post": { "operationId": "make", "requestBody": refer("#/components/requestBodies/B") } },
            "/shared": refer("#/components/pathItems/Shared"),
            "/lost": refer("other.yaml#/x"),
        }),
        json!({
            "pathItems": { "Shared": { "get": { "operationId": "shared" } } },
            "requestBodies": { "B": { "required": true, "content": { "application/json": { "schema": {
                "type": "object",
                "properties": {
                    "chain": refer("#/components/schemas/One"),
                    "escaped": refer("#/paths/~1a~0b~1%7Bx%7D/get/parameters/0/schema"),
                    "remote": refer("https://evil.test/schema.json#/a"),
                    "lost": refer("#/components/schemas/Lost"),
                    "anchor": refer("#lost"),
                    "broken": refer("#/%zz"),
                    "loop": refer("#/components/schemas/Loop"),
                    "beside": { "$ref": "#/components/schemas/Two", "description": "Its own." },
                },
            } } } } },
            "schemas": {
                "One": refer("#/components/schemas/Two"),
                "Two": { "type": "string", "description": "Two." },
                "Loop": refer("#/components/schemas/Pool"),
                "Pool": refer("#/components/schemas/Loop"),
            },
        }),
    );
    let Imported { manifest, report } = import(&document);
    assert_eq!(
        input(&manifest, "make")["properties"],
        json!({
            "chain": { "title": "Chain", "type": "string", "description": "Two." },
            "escaped": { "title": "Escaped", "type": "integer" },
            "remote": { "title": "Remote" },
            "lost": { "title": "Lost" },
            "anchor": { "title": "Anchor" },
            "broken": { "title": "Broken" },
            "loop": { "title": "Loop" },
            "beside": { "title": "Beside", "type": "string", "description": "Its own." },
        })
    );
    assert!(manifest["actions"]["shared"].is_object());
    let notes = report.notes.join("\n");
    assert!(notes.contains("\"https://evil.test/schema.json#/a\" leads out of the document"), "{notes}");
    assert!(notes.contains("\"other.yaml#/x\" leads out of the document"), "{notes}");
    assert!(notes.contains("\"#/components/schemas/Lost\" points to nothing"), "{notes}");
    assert!(notes.contains("a reference that leads to itself is left out (POST /things)"), "{notes}");
}

#[test]
fn schemas_become_those_of_2020_12() {
    let make = |schema: Value| {
        let document = body_of(
            json!({ "type": "object", "properties": { "f": schema } }),
            json!({
                "schemas": { "Base": {
                    "type": "object", "required": ["id", "kind"], "additionalProperties": false,
                    "properties": { "id": { "type": "string", "readOnly": true }, "kind": { "type": "string" } },
                } },
            }),
        );
        let mut made = input(&import(&document).manifest, "make")["properties"]["f"].clone();
        assert_eq!(made.as_object_mut().unwrap().shift_remove("title").unwrap(), "F");
        made
    };
    let same = |schema: Value| assert_eq!(make(schema.clone()), schema);
    same(json!({ "type": "string", "format": "date-time", "pattern": "^a", "minLength": 1, "maxLength": 5 }));
    same(json!({ "type": ["string", "null"] }));
    same(json!({ "type": "array", "minItems": 1, "uniqueItems": true, "items": { "type": "integer" } }));
    same(json!({ "type": "number", "exclusiveMinimum": 3, "multipleOf": 0.5 }));
    same(json!({ "const": 5 }));
    for (from, to) in [
        (json!({ "type": "string", "nullable": true }), json!({ "type": ["string", "null"] })),
        (
            json!({ "type": "string", "nullable": true, "enum": ["a"] }),
            json!({ "type": ["string", "null"], "enum": ["a", null] }),
        ),
        (
            json!({ "nullable": true, "oneOf": [{ "type": "string" }, { "type": "object" }] }),
            json!({ "anyOf": [{ "type": "string" }, { "type": "object" }, { "type": "null" }] }),
        ),
        (
            json!({ "type": "integer", "minimum": 1, "exclusiveMinimum": true, "maximum": 9, "exclusiveMaximum": false }),
            json!({ "type": "integer", "exclusiveMinimum": 1, "maximum": 9 }),
        ),
        (
            json!({ "type": "string", "example": "e", "default": "d" }),
            json!({ "type": "string", "default": "d", "examples": ["e"] }),
        ),
        (json!({ "type": "string", "x-ui": "code", "xml": {}, "discriminator": {} }), json!({ "type": "string" })),
        (
            json!({ "type": "file", "minLength": -1, "maxLength": "9", "pattern": "(", "required": true, "enum": [] }),
            json!({}),
        ),
        (json!({ "type": "string", "pattern": "(?=look)ahead" }), json!({ "type": "string" })),
        (json!({ "not": { "type": "string" }, "if": {}, "$id": "x", "$schema": "y", "$anchor": "z" }), json!({})),
        (json!(true), json!({})),
        (json!("nonsense"), json!({})),
        (
            json!({ "allOf": [{ "$ref": "#/components/schemas/Base" },
                { "properties": { "kind": { "enum": ["a"] }, "more": {} } }], "nullable": true }),
            json!({ "type": ["object", "null"], "properties": { "kind": { "enum": ["a"] }, "more": {} }, "required": ["kind"] }),
        ),
        (
            json!({ "$ref": "#/components/schemas/Base" }),
            json!({ "type": "object", "properties": { "kind": { "type": "string" } }, "required": ["kind"],
                "additionalProperties": false }),
        ),
        (json!({ "anyOf": [{ "type": "string" }, {}] }), json!({})),
        (
            json!({ "allOf": [{ "anyOf": [{ "type": "string" }] }, { "oneOf": [{ "minLength": 1 }] }] }),
            json!({ "allOf": [{ "anyOf": [{ "type": "string" }] }, { "anyOf": [{ "minLength": 1 }] }] }),
        ),
    ] {
        assert_eq!(make(from.clone()), to, "{from}");
    }
    let hidden = body_of(
        json!({ "type": "object", "properties": { "a": { "readOnly": true }, "b": { "$ref": "#/components/schemas/R" },
            "c": false, "d": {} } }),
        json!({ "schemas": { "R": { "type": "string", "readOnly": true } } }),
    );
    let fields = input(&import(&hidden).manifest, "make")["properties"].clone();
    assert_eq!(fields, json!({ "d": { "title": "D" } }));
}

#[test]
fn recursion_is_cut() {
    let refer = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let schemas = json!({ "schemas": {
        "Node": { "type": "object", "properties": {
            "name": { "type": "string" }, "children": { "type": "array", "items": refer("Node") },
        } },
        "All": { "allOf": [refer("All"), { "properties": { "a": { "type": "string" } } }] },
        "Pet": { "type": "object", "properties": { "kind": { "type": "string" } }, "oneOf": [refer("Cat"), refer("Dog")] },
        "Cat": { "allOf": [refer("Pet"), { "properties": { "lives": { "type": "integer" } } }] },
        "Dog": { "allOf": [refer("Pet"), { "properties": { "tricks": { "type": "integer" } } }] },
    } });
    let fields = json!({ "node": refer("Node"), "all": refer("All"), "pet": refer("Pet") });
    let Imported { manifest, .. } = import(&body_of(json!({ "type": "object", "properties": fields }), schemas));
    let pet = |name: &str| json!({ "type": "object", "properties": { "kind": { "type": "string" }, name: { "type": "integer" } } });
    assert_eq!(
        input(&manifest, "make")["properties"],
        json!({
            "node": { "title": "Node", "type": "object", "properties": {
                "name": { "type": "string" }, "children": { "type": "array", "items": { "type": "object" } },
            } },
            "all": { "title": "All", "type": "object", "properties": { "a": { "type": "string" } } },
            "pet": { "title": "Pet", "type": "object", "properties": { "kind": { "type": "string" } },
                "anyOf": [pet("lives"), pet("tricks")] },
        })
    );
}

#[test]
fn hostile_schemas_take_little() {
    let refer = |index: usize| json!({ "$ref": format!("#/components/schemas/S{index}") });
    let schemas = |make: &dyn Fn(usize) -> Value, count: usize| {
        let schemas: Map<_, _> = (0..count).map(|index| (format!("S{index}"), make(index))).collect();
        json!({ "schemas": schemas })
    };
    let many = |field: &dyn Fn(usize) -> Value| {
        let mut paths = Map::new();
        for index in 0..10 {
            let schema = json!({ "type": "object", "properties": { "f": field(index) } });
            let body = json!({ "content": { "application/json": { "schema": schema } } });
            paths.insert(format!("/p{index}"), json!({ "post": { "requestBody": body } }));
        }
        Value::Object(paths)
    };
    let properties = |to: usize| json!({ "type": "object", "properties": { "a": refer(to), "b": refer(to), "c": refer(to), "d": refer(to) } });
    let parts = |keyword: &str, to: usize| json!({ keyword: [refer(to), refer(to), refer(to)] });
    let deep = (0..100).fold(json!({}), |schema, _| json!({ "items": schema }));
    let wide: Map<String, Value> = (0..20_000)
        .map(|index| (format!("p{index}"), json!({ "type": "string", "description": "Long. ".repeat(9) })))
        .collect();
    let huge = json!({ "enum": (0..20_000).collect::<Vec<_>>() });
    let long = json!({ "type": "string", "description": "<".repeat(1_000_000), "title": "[ (".repeat(100_000) });
    let regexes: Vec<_> = (0..600).map(|index| json!({ "pattern": format!("(\\w{{{index}}}){{100}}") })).collect();
    for (schemas, field) in [
        (schemas(&|index| properties(index + 1), 200), refer(0)),
        (schemas(&|index| properties((index * 7 + 1) % 50), 50), refer(0)),
        (schemas(&|index| parts("allOf", index + 1), 1_000), refer(0)),
        (schemas(&|index| parts("anyOf", index + 1), 1_000), refer(0)),
        (schemas(&|index| parts("oneOf", (index * 3 + 1) % 40), 40), refer(0)),
        (schemas(&|index| json!({ "items": refer(index + 1) }), 1_000), refer(0)),
        (schemas(&|index| refer(index + 1), 10_000), refer(0)),
        (schemas(&|_| json!({ "type": "object", "properties": wide }), 1), refer(0)),
        (schemas(&|_| huge.clone(), 1), refer(0)),
        (schemas(&|_| long.clone(), 1), refer(0)),
        (schemas(&|_| json!({ "anyOf": regexes }), 1), refer(0)),
        (json!({}), deep),
    ] {
        let imported = import(&document(many(&|_| field.clone()), schemas));
        for action in imported.manifest["actions"].as_object().unwrap().values() {
            assert!(action["input"].to_string().len() < 70_000);
        }
    }
    let wide =
        import_openapi(&body_of(json!({ "type": "object", "properties": wide }), json!({})), &Default::default());
    let wide = wide.unwrap().manifest;
    assert_eq!(input(&wide, "make")["properties"], json!({ "body": { "title": "Body", "type": "object" } }));
}

#[test]
fn what_is_cut_is_noted() {
    let field = |index: usize| (format!("f{index}"), json!({ "type": "string", "description": "Word ".repeat(30) }));
    let inner: Map<_, _> = (0..20).map(field).collect();
    let outer = |index: usize| (format!("o{index}"), json!({ "type": "object", "properties": inner }));
    let outer: Map<_, _> = (0..80).map(outer).collect();
    let Imported { manifest, report } = import(&body_of(json!({ "type": "object", "properties": outer }), json!({})));
    assert!(report.notes.is_empty() || !report.notes[0].contains("cut"), "descriptions go first: {:?}", report.notes);
    assert_eq!(input(&manifest, "make")["properties"]["o79"]["properties"]["f19"], json!({ "type": "string" }));

    let more: Map<_, _> =
        (0..300).map(|index| (format!("o{index}"), json!({ "type": "object", "properties": inner }))).collect();
    let Imported { manifest, report } = import(&body_of(json!({ "type": "object", "properties": more }), json!({})));
    assert_eq!(input(&manifest, "make")["properties"]["o7"], json!({ "title": "O7", "type": "object" }));
    assert!(report.notes.iter().any(|note| note.contains("cut, as it would be larger than 64 KB (POST /things)")));
}

#[test]
fn a_connector_takes_2000_actions() {
    let mut paths = Map::new();
    for index in 0..2_100 {
        paths.insert(format!("/p{index}"), json!({ "get": {} }));
    }
    let imported = import(&document(paths.into(), json!({})));
    assert_eq!(imported.report.actions, 2_000);
    assert_eq!(imported.report.left_out.len(), 100);
    assert!(imported.report.left_out[0].reason.contains("choose by `include`"));
}

#[test]
fn servers_become_the_base_url_and_hosts() {
    let with = |servers: Value| {
        let mut document = operation(json!({ "operationId": "make" }));
        document["servers"] = servers;
        document
    };
    let base = |servers: Value| {
        let manifest = import(&with(servers)).manifest;
        (manifest["base_url"].as_str().unwrap().to_owned(), manifest["hosts"].clone())
    };
    let variables = json!({ "region": { "default": "eu" }, "base": { "default": "v1" } });
    for (servers, url, host) in [
        (json!([{ "url": "https://A.test:8443/x/" }]), "https://a.test:8443/x", "a.test:8443"),
        (json!([{ "url": "http://a.test/x" }]), "https://a.test/x", "a.test"),
        (json!([{ "url": "http://a.test:80" }]), "http://a.test:80", "a.test:80"),
        (json!([{ "url": "http://localhost:3000" }]), "http://localhost:3000", "localhost:3000"),
        (
            json!([{ "url": "https://{region}.a.test/{base}/", "variables": variables }]),
            "https://eu.a.test/v1",
            "eu.a.test",
        ),
        (json!([{ "url": "https://a.test/{unknown}?q=1#f" }]), "https://a.test/%7Bunknown%7D", "a.test"),
    ] {
        assert_eq!(base(servers), (url.to_owned(), json!([host])));
    }
    let several = import(&with(json!([{ "url": "/v1" }, { "url": "https://a.test" }, { "url": "https://b.test" }])));
    assert_eq!(several.manifest["base_url"], "https://a.test");
    assert!(several.report.notes[0].contains("(/v1, https://a.test, https://b.test)"), "{:?}", several.report.notes);
    for servers in [
        json!(null),
        json!([]),
        json!([{ "url": "/v2" }]),
        json!([{ "url": "ftp://a.test" }]),
        json!([{ "url": "https://user:pass@a.test" }]),
        json!([{ "url": "https://{region}.a.test" }]),
        json!([{ "url": "https://{{connection.x}}.a.test" }]),
        json!([{ "url": "https://*.a.test" }]),
        json!([{ "url": "https://{host}", "variables": { "host": { "default": "{{connection.x}}" } } }]),
    ] {
        let (at, detail) = refusals(&with(servers.clone()), &ImportOptions::default()).remove(0);
        assert_eq!(at, "/servers", "{servers}");
        assert!(detail.contains("`server`"), "{detail}");
        let options = ImportOptions { server: Some("https://given.test/api".to_owned()), ..ImportOptions::default() };
        assert_eq!(import_with(&with(servers), &options).manifest["base_url"], "https://given.test/api");
    }
    let Imported { manifest, report } = import(&document(
        json!({
            "/a/{id}": { "servers": [{ "url": "https://files.acme.test" }], "get": { "operationId": "own" } },
            "/b": { "get": { "operationId": "relative", "servers": [{ "url": "/v3" }] } },
            "/c": { "get": { "operationId": "same", "servers": [{ "url": "https://api.acme.test/v2/" }] } },
            "/d": { "get": { "operationId": "wrong", "servers": [{ "url": "https://{x}" }] } },
        }),
        json!({}),
    ));
    let request = |name: &str| &manifest["actions"][name]["request"];
    assert_eq!(request("own")["url"], "https://files.acme.test/a/{{ input.id }}");
    assert_eq!(request("relative")["url"], "https://api.acme.test/v3/b");
    assert_eq!(request("same")["path"], "/c");
    assert_eq!(manifest["hosts"], json!(["api.acme.test", "files.acme.test"]));
    assert!(
        report
            .notes
            .contains(&"a connection's secret may also go to the host \"files.acme.test\" (GET /a/{id})".to_owned())
    );
    assert_eq!(report.left_out[0].at, "GET /d");
}

#[test]
fn security_schemes_become_ways_to_sign_in() {
    let flow = json!({
        "authorizationUrl": "/oauth/authorize", "tokenUrl": "https://id.acme.test/token",
        "scopes": { "read": "", "write": "", "admin": "" },
    });
    let schemes = json!({ "securitySchemes": {
        "Bearer": { "type": "http", "scheme": "Bearer", "description": "A **token** of yours." },
        "basicAuth": { "type": "http", "scheme": "basic" },
        "queryKey": { "type": "apiKey", "in": "query", "name": "key" },
        "apiKey": { "type": "apiKey", "in": "header", "name": "X-Key" },
        "appKey": { "type": "apiKey", "in": "header", "name": "X-App" },
        "OAuth2": { "type": "oauth2", "flows": { "authorizationCode": flow } },
        "session": { "type": "apiKey", "in": "cookie", "name": "sid" },
        "implicit": { "type": "oauth2", "flows": { "implicit": flow } },
        "oidc": { "type": "openIdConnect", "openIdConnectUrl": "https://id.acme.test" },
        "digest": { "type": "http", "scheme": "digest" },
    } });
    let mut document = document(
        json!({
            "/usual": { "get": { "operationId": "usual", "parameters": [
                { "name": "x-key", "in": "header", "required": true, "schema": {} }] } },
            "/own": { "post": { "operationId": "own", "security": [{ "OAuth2": ["write"] }, { "Bearer": [] }] } },
            "/public": { "get": { "operationId": "public", "security": [] } },
            "/perhaps": { "get": { "operationId": "perhaps", "security": [{}, { "Bearer": [] }] } },
            "/hardly": { "get": { "operationId": "hardly", "security": [{ "session": [] }] } },
        }),
        schemes,
    );
    document["security"] = json!([{ "OAuth2": ["read"] }, { "appKey": [], "apiKey": [] }, { "lost": [] }]);
    let Imported { manifest, report } = import(&document);
    assert_eq!(
        manifest["auth"],
        json!([
            { "id": "oauth2", "type": "oauth2", "authorization_url": "https://api.acme.test/oauth/authorize",
              "token_url": "https://id.acme.test/token", "scopes": ["read", "write"], "title": "OAuth2" },
            { "id": "api_key_and_app_key", "type": "custom", "title": "apiKey and appKey",
              "fields": { "api_key": { "title": "Api key" }, "app_key": { "title": "App key" } },
              "headers": { "X-Key": "{{ secret.api_key }}", "X-App": "{{ secret.app_key }}" } },
            { "id": "bearer", "type": "bearer", "help": "A token of yours.", "title": "Bearer" },
            { "id": "basic_auth", "type": "basic", "title": "basicAuth" },
            { "id": "query_key", "type": "api_key", "in": "query", "name": "key", "title": "queryKey" },
        ])
    );
    let action = |name: &str| (&manifest["actions"][name]["auth"], &manifest["actions"][name]["connection"]);
    assert_eq!(action("usual"), (&json!(["oauth2", "api_key_and_app_key"]), &Value::Null));
    assert_eq!(action("own"), (&json!(["oauth2", "bearer"]), &Value::Null));
    assert_eq!(action("public"), (&Value::Null, &json!("optional")));
    assert_eq!(action("perhaps"), (&json!(["bearer"]), &json!("optional")));
    assert_eq!(action("hardly"), (&Value::Null, &Value::Null));
    assert_eq!(input(&manifest, "usual")["properties"], json!({}), "the connection sends it");
    let notes = report.notes.join("\n");
    for part in [
        "\"session\" goes out as a cookie",
        "\"implicit\" is OAuth without its flow `authorizationCode`",
        "\"oidc\" is OpenID Connect",
        "\"digest\" uses the HTTP scheme \"digest\"",
        "\"lost\" is not defined",
        "none of the ways to sign in that it takes can be expressed; try one of the others (GET /hardly)",
    ] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
}

#[test]
fn flows_that_a_document_makes_schemes_of_are_one() {
    let flow =
        json!({ "authorizationUrl": "https://id.test/a", "tokenUrl": "https://id.test/t", "scopes": { "all": "" } });
    let mut document = document(
        json!({ "/a": { "get": {} } }),
        json!({ "securitySchemes": {
            "Oauth2": { "type": "oauth2", "flows": { "implicit": flow } },
            "Oauth2c": { "type": "oauth2", "flows": { "authorizationCode": flow } },
        } }),
    );
    document["security"] = json!([{ "Oauth2": ["all"], "Oauth2c": ["all"] }]);
    let auth = &import(&document).manifest["auth"];
    assert_eq!((&auth[0]["type"], &auth[0]["scopes"], &auth[1]), (&json!("oauth2"), &json!(["all"]), &Value::Null));
    document["security"] = json!([{ "Oauth2c": [] }]);
    assert!(import(&document).report.notes[0].contains("don't say which OAuth scopes"));
    document["components"]["securitySchemes"]["Oauth2c"]["flows"]["authorizationCode"]["tokenUrl"] =
        json!("http://id.test");
    assert_eq!(import(&document).manifest["auth"], json!([{ "id": "none", "type": "none" }]));
}

#[test]
fn answers_are_read_by_their_content() {
    let read = |responses: Value| {
        let manifest = import(&operation(json!({ "operationId": "make", "responses": responses }))).manifest;
        let action = &manifest["actions"]["make"];
        (action["answer"].clone(), action["request"]["headers"]["Accept"].clone())
    };
    let of = |kinds: &[&str]| {
        let content: Map<_, _> = kinds.iter().map(|kind| ((*kind).to_owned(), json!({}))).collect();
        json!({ "content": content })
    };
    assert_eq!(read(json!({ "200": of(&["application/json; charset=utf-8"]) })), (Value::Null, Value::Null));
    assert_eq!(read(json!({ "204": {} })), (Value::Null, Value::Null));
    assert_eq!(read(json!({ "201": {} })), (json!("any"), Value::Null));
    assert_eq!(read(json!({ "default": of(&["application/json"]) })), (Value::Null, Value::Null));
    assert_eq!(
        read(json!({ "200": of(&["text/html"]), "404": of(&["application/json"]) })),
        (json!("text"), Value::Null)
    );
    assert_eq!(read(json!({ "200": of(&["application/pdf"]) })), (json!("any"), Value::Null));
    assert_eq!(
        read(json!({ "200": of(&["application/xml", "application/json"]) })),
        (Value::Null, json!("application/json"))
    );
    assert_eq!(
        read(json!({ "200": of(&["application/vnd.api+json"]) })),
        (Value::Null, json!("application/vnd.api+json"))
    );
    assert_eq!(read(json!({ "2XX": of(&["application/{{ now }}+json"]) })), (Value::Null, Value::Null));
}

#[test]
fn texts_become_plain() {
    let help = |text: &str| {
        let manifest = import(&operation(json!({ "operationId": "make", "description": text }))).manifest;
        manifest["actions"]["make"]["help"].as_str().unwrap_or_default().to_owned()
    };
    for (text, plain) in [
        ("# Heading\n\nMakes `x`. _Or_ **y**. Or z.", "Makes x. Or y."),
        ("<p>Makes <a href=\"x\">a &amp; b</a>.<br/>More.</p>", "Makes a & b."),
        ("![picture](x.png)\n\n| a | b |\n|---|---|\n\n```sh\ncurl\n```\n\nMakes it", "Makes it"),
        (
            "Takes <api_key>, see <https://x.test/a>, e.g. snake_case_name. But",
            "Takes <api_key>, see https://x.test/a, e.g. snake_case_name. But",
        ),
        ("Writes {{{name}}} and {{ now }}", "Writes { { {name}}} and { { now }}"),
        ("tab\tand\u{0}control", "tab and control"),
        ("", ""),
        (" \n\n<!-- x -->", ""),
    ] {
        assert_eq!(help(text), plain);
    }
    let long = help(&"word ".repeat(1_000));
    assert!(long.ends_with('…') && long.chars().count() == 300, "{long}");
}

/// Names, texts and values that try to become expressions, at every place where a document has its own words.
#[test]
fn nothing_of_a_document_becomes_an_expression() {
    for hostile in [
        "{{ now }}",
        "{{ connection.key }}",
        "x\"] }}{{ now",
        "x'] ~ now ~ input['x",
        "x }} {{ connection.a",
        "a\\",
        "a\\\"]",
        "{{",
        "}}",
        "{% set a = 1 %}",
        "{# c #}",
        "a\nb",
        "\u{202e}x",
        "${jndi}",
        "..",
        "",
    ] {
        let schema = json!({
            "title": format!("{hostile} words"), "description": hostile, "type": "string", "format": hostile,
            "pattern": hostile, "enum": [hostile], "const": hostile, "default": hostile, "example": { hostile: hostile },
        });
        let object = json!({
            "type": "object",
            "properties": { hostile: schema, "safe": schema, "nested": { "properties": { hostile: schema } } },
            "required": [hostile],
            "anyOf": [{ "required": [hostile] }],
        });
        let media = json!({ "schema": object, "encoding": { hostile: { "style": "deepObject" } } });
        let parameter = |place: &str| json!({ "name": hostile, "in": place, "schema": schema, "description": hostile });
        let members = |kind: &str| {
            json!({
                "operationId": hostile, "summary": hostile, "description": hostile, "tags": [hostile],
                "externalDocs": { "url": format!("https://x.test/{hostile}") },
                "parameters": [parameter("query"), parameter("header"), parameter("path"), parameter("cookie"), parameter(hostile)],
                "requestBody": { "content": { kind: media } },
                "responses": { "200": { "content": { format!("{hostile}+json"): {} } } },
                "security": [{ hostile: [hostile] }, { hostile: [], "other": [] }],
            })
        };
        let mut document = document(
            json!({
                "/safe": {
                    "post": members("application/json"), "put": members("application/x-www-form-urlencoded"),
                    "patch": members(&format!("application/{hostile}+json")), "delete": members(&format!("text/{hostile}")),
                },
                format!("/{hostile}"): { "get": {} },
                format!("/a/{{{hostile}}}/b"): { "post": members("application/json") },
                "/always": { "get": {} },
            }),
            json!({ "securitySchemes": {
                hostile: { "type": "oauth2", "description": hostile, "flows": { "authorizationCode": {
                    "authorizationUrl": format!("https://x.test/{hostile}"), "tokenUrl": format!("https://{hostile}/"),
                } } },
                "other": { "type": "apiKey", "in": "query", "name": hostile, "description": hostile },
                "third": { "type": "apiKey", "in": "header", "name": hostile },
            } }),
        );
        document["info"] = json!({ "title": hostile, "description": hostile });
        document["externalDocs"] = json!({ "url": format!("https://x.test?{hostile}") });
        document["servers"][0]["url"] = json!(format!("https://api.acme.test/{hostile}"));
        let options = ImportOptions { title: Some(hostile.to_owned()), ..ImportOptions::default() };
        let Imported { manifest, .. } = import_with(&document, &options);
        for (name, action) in manifest["actions"].as_object().unwrap() {
            let given = action["input"]["properties"].as_object().unwrap().keys();
            let given: Map<_, _> = given.map(|name| (name.clone(), json!("GIVEN"))).collect();
            let scope = Scope::new([("input".to_owned(), Data::from(&Value::Object(given)))]);
            scope.fill_one(&action["request"], &Pointer::root()).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}

/// A document with all that is read, each of whose values in turn is replaced by something else.
#[test]
fn a_wrong_document_never_breaks_the_import() {
    let schema = json!({ "$ref": "#/components/schemas/S" });
    let document = json!({
        "openapi": "3.1.0",
        "info": { "title": "T", "description": "D" },
        "servers": [{ "url": "https://{a}.test", "variables": { "a": { "default": "b" } } }],
        "security": [{ "k": [], "o": ["s"] }],
        "externalDocs": { "url": "https://x.test" },
        "paths": { "/a/{b}": {
            "servers": [{ "url": "https://c.test" }],
            "parameters": [{ "name": "b", "in": "path", "required": true, "schema": { "type": "string" }, "example": 1 }],
            "post": {
                "operationId": "o", "summary": "S", "description": "D", "tags": ["t"], "deprecated": true,
                "externalDocs": { "url": "https://x.test" },
                "parameters": [
                    { "name": "q", "in": "query", "style": "deepObject", "explode": true, "schema": schema },
                    { "name": "c", "in": "query", "content": { "application/json": { "schema": schema } } },
                    { "name": "H", "in": "header", "schema": { "type": "array", "items": schema } },
                ],
                "requestBody": { "required": true, "content": {
                    "application/x-www-form-urlencoded": { "schema": schema, "encoding": { "p": { "style": "deepObject" } } },
                } },
                "responses": { "200": { "content": { "text/plain": {} } } },
                "security": [{ "k": [] }],
            },
        } },
        "components": {
            "schemas": { "S": {
                "type": ["object", "null"], "title": "T t", "description": "D", "required": ["p"],
                "properties": { "p": { "type": "array", "items": { "minimum": 1 }, "minItems": 1 }, "r": { "readOnly": true } },
                "additionalProperties": { "enum": ["a"], "default": "a", "examples": ["a"] },
                "allOf": [{ "anyOf": [{ "pattern": "a", "exclusiveMinimum": 1 }] }], "nullable": true,
            } },
            "securitySchemes": {
                "k": { "type": "apiKey", "in": "header", "name": "X" },
                "o": { "type": "oauth2", "flows": { "authorizationCode": {
                    "authorizationUrl": "https://x.test", "tokenUrl": "https://x.test", "scopes": { "s": "" } } } },
            },
        },
    });
    import(&document);
    let (mut refused, mut taken) = (0, 0);
    let replacements = [
        json!(null),
        json!(true),
        json!(-1),
        json!("{{ x }}"),
        json!([]),
        json!([1]),
        json!({}),
        json!({ "$ref": "#" }),
    ];
    for pointer in pointers(&document, String::new()) {
        for replacement in &replacements {
            let mut document = document.clone();
            *document.pointer_mut(&pointer).unwrap() = replacement.clone();
            match import_openapi(&document, &ImportOptions::default()) {
                Ok(imported) => {
                    check(&imported.manifest);
                    taken += 1;
                }
                Err(errors) => {
                    assert!(!errors.is_empty());
                    refused += 1;
                }
            }
        }
    }
    assert!(taken > 500 && refused > 20, "{taken} taken, {refused} refused");
}

fn pointers(value: &Value, at: String) -> BTreeSet<String> {
    let mut found = BTreeSet::from([at.clone()]);
    let names: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect(),
        _ => Vec::new(),
    };
    for (name, value) in names {
        let mut below = at.clone();
        write!(below, "/{}", name.replace('~', "~0").replace('/', "~1")).unwrap();
        found.extend(pointers(value, below));
    }
    found
}
