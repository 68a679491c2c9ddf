//! docs/workflows.md and docs/schedules.md say what is: each definition on them can be stored.

use serde_json::Value;
use tidegate_model::Definition;

use crate::setup;

const PAGES: [&str; 2] = [include_str!("../../../../docs/workflows.md"), include_str!("../../../../docs/schedules.md")];
/// What the pages' definitions name in the place of a connection and of the workflow before them.
const CONNECTION: &str = "conn_01890a5d000070008000000000000000";
const WORKFLOW: &str = "wf_01890a5d000070008000000000000000";

/// The pages' blocks of JSON.
fn blocks() -> Vec<&'static str> {
    let after = PAGES.iter().flat_map(|page| page.split("\n```json\n").skip(1));
    after.map(|rest| rest.split_once("\n```\n").unwrap().0).collect()
}

fn definitions() -> Vec<&'static str> {
    blocks().into_iter().filter(|block| block.starts_with("{\"name\":")).collect()
}

#[tokio::test]
async fn each_definition_on_the_pages_can_be_stored() {
    let setup = setup().await;
    let connection = setup.slack(&setup.owner).await;
    let definitions = definitions();
    assert!(definitions.len() > 10, "the pages' definitions are found");
    let mut before = None;
    for text in definitions {
        let mut text = text.replace(CONNECTION, &connection);
        if text.contains(WORKFLOW) {
            text = text.replace(WORKFLOW, before.as_deref().unwrap());
        }
        let document: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        Definition::parse(&document).unwrap_or_else(|errors| panic!("{errors:?}: {text}"));
        let answer = setup.app.post(&setup.owner, "/api/workflows", &document).await;
        assert_eq!(answer.status, 201, "{:#}\n{text}", answer.body);
        before = Some(answer.text("/id").to_owned());
    }
}

#[test]
fn all_other_json_on_the_pages_is_json() {
    for block in blocks() {
        let parsed: Result<Value, _> = serde_json::from_str(block);
        assert!(parsed.is_ok(), "{parsed:?}: {block}");
    }
}
