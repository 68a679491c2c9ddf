//! `GET /api/schemas/workflow` and `docs/workflow.schema.json`.

use std::path::Path;

use http::Method;
use serde_json::{Value, json};
use tidegate_model::Definition;
use tidegate_workflows::definition_schema;

use crate::{by_webhook, setup};

#[tokio::test]
async fn the_schema_is_served_to_everyone_and_kept_in_the_documents() {
    let setup = setup().await;
    let served = setup.app.send(None, Method::GET, "/api/schemas/workflow", &[], "").await.expect(200);
    assert_eq!(served.header("content-type"), "application/schema+json");
    assert_eq!(served.header("cache-control"), "public, max-age=3600");
    assert_eq!(served.body, definition_schema());
    let kept = include_str!("../../../../docs/workflow.schema.json");
    let update = "run `cargo run -q -p tidegate -- schema > docs/workflow.schema.json`";
    assert_eq!(kept, format!("{:#}\n", definition_schema()), "docs/workflow.schema.json is out of date: {update}");
}

/// Every definition that the engine is tried with; some of its cases are of documents that are none.
fn engine_cases() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/engine/tests/cases");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let cases = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    cases
        .map(|path| {
            let case: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            (path.display().to_string(), case["definition"].clone())
        })
        .filter(|(_, definition)| Definition::parse(definition).is_ok())
        .collect()
}

#[test]
fn what_is_a_definition_fits_the_schema() {
    let schema = jsonschema::draft202012::new(&definition_schema()).unwrap();
    let meta = jsonschema::draft202012::meta::validate(&definition_schema()).map_err(|error| error.to_string());
    assert_eq!(meta, Ok(()));
    let mut definitions = engine_cases();
    assert!(definitions.len() > 10, "the engine's cases are found");
    let all_there_is = json!({
        "name": "all", "description": "x", "trigger": {"type": "schedule", "every": "10m"},
        "parameters": [
            {"name": "a", "type": "string", "description": "x", "default": "a", "options": ["a", "b"]},
            {"name": "b", "type": "object", "required": true},
        ],
        "steps": [
            {
                "id": "a", "uses": "http.request", "connection": "conn_01890a5d000070008000000000000000", "after": [],
                "foreach": {"items": "{{ lines }}", "concurrency": 5, "on_item_failure": "continue"},
                "with": {"method": "GET", "url": "https://example.com"},
                "retry": {"max_attempts": 1}, "timeout_ms": 1, "on_failure": {"goto": "b"}, "on_interrupted": "fail",
            },
            {"id": "b", "uses": "data.set", "on_failure": "continue"},
        ],
        "output": [1, "{{ steps.b.output }}"],
        "on_failure": {"workflow": "wf_01890a5d000070008000000000000000"},
        "execution_timeout": 60,
    });
    definitions.push(("all there is".to_owned(), all_there_is));
    for (name, definition) in definitions {
        let parsed = Definition::parse(&definition).unwrap_or_else(|errors| panic!("{name}: {errors:?}"));
        let stored = serde_json::to_value(parsed).unwrap();
        for form in [definition, stored] {
            let errors: Vec<_> = schema.iter_errors(&form).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{name}: {errors:?}");
        }
    }
}

#[test]
fn what_is_no_definition_does_not_fit_the_schema() {
    let schema = jsonschema::draft202012::new(&definition_schema()).unwrap();
    assert!(schema.is_valid(&by_webhook()));
    let changes: [fn(&mut Value); 22] = [
        |d| *d = json!([]),
        |d| drop(d.as_object_mut().unwrap().shift_remove("name")),
        |d| drop(d.as_object_mut().unwrap().shift_remove("steps")),
        |d| d["name"] = json!(1),
        |d| d["nmae"] = json!("x"),
        |d| d["trigger"] = json!({"type": "telepathy"}),
        |d| d["trigger"]["every"] = json!("10m"),
        |d| d["trigger"] = json!({"type": "schedule"}),
        |d| d["trigger"] = json!({"type": "schedule", "every": "10m", "cron": "* * * * *"}),
        |d| d["parameters"] = json!([{"name": "a"}]),
        |d| d["parameters"] = json!([{"name": "a", "type": "text"}]),
        |d| d["parameters"] = json!([{"name": "a", "type": "string", "title": "A"}]),
        |d| d["steps"][0]["connection"] = json!("wf_01890a5d000070008000000000000000"),
        |d| d["steps"][0]["usess"] = json!("x"),
        |d| d["steps"][0]["after"] = json!("a"),
        |d| d["steps"][0]["with"] = json!([]),
        |d| d["steps"][0]["foreach"] = json!({"concurrency": 1}),
        |d| d["steps"][0]["foreach"] = json!({"items": [], "parallel": 1}),
        |d| d["steps"][0]["on_failure"] = json!({"goto": 1}),
        |d| d["steps"][0]["on_failure"] = json!({"goto": "a", "else": "b"}),
        |d| d["steps"][0]["retry"] = json!({"attempts": 1}),
        |d| d["on_failure"] = json!({"workflow": "other"}),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut definition = by_webhook();
        change(&mut definition);
        assert!(!schema.is_valid(&definition), "{index}: {definition}");
        assert!(Definition::parse(&definition).is_err(), "{index}: {definition}");
    }
}
