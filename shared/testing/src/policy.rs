//! The policies of `template.yaml`, and what they allow of the embedded store: a function's tests run under its own, so
//! that a permission that it lacks is missed here and not on AWS.

use std::sync::OnceLock;

use serde_json::Value as Json;
use serde_yaml_ng::Value;
use tidegate_store::embedded::Guard;

const TEMPLATE: &str = include_str!("../../../template.yaml");

/// The function's name in the template: `Webhooks` for `webhooks`.
fn logical(function: &str) -> String {
    let (first, rest) = function.split_at(1);
    format!("{}{rest}", first.to_uppercase())
}

/// The template.
///
/// # Panics
/// It is no YAML.
pub fn template() -> &'static Value {
    static PARSED: OnceLock<Value> = OnceLock::new();
    PARSED.get_or_init(|| serde_yaml_ng::from_str(TEMPLATE).expect("template.yaml is YAML"))
}

/// A statement of a role's policy.
#[derive(Debug, Clone)]
pub struct Statement {
    /// `dynamodb:GetItem`.
    pub actions: Vec<String>,
    /// What it is about, by its name in the template: `ConfigTable`, `ConfigTable/index/by_tenant`, `Blobs/live/*`.
    pub resources: Vec<String>,
    /// The patterns of partition keys, where it names some.
    pub leading_keys: Option<Vec<String>>,
    /// Whether it has another condition.
    pub has_condition: bool,
}

/// What a function's role allows, without what only logs and traces need.
///
/// # Panics
/// The template has no such role, or a statement in another form than this reads.
pub fn statements(function: &str) -> Vec<Statement> {
    let role = &template()["Resources"][format!("{}Role", logical(function))];
    let policies = role["Properties"]["Policies"].as_sequence().expect("policies");
    let all =
        policies.iter().flat_map(|policy| policy["PolicyDocument"]["Statement"].as_sequence().expect("statements"));
    // One by condition, `!If [condition, statement, nothing]`, counts as if the condition held.
    let given = all.map(|statement| match statement {
        Value::Tagged(tagged) if tagged.tag == "If" => &tagged.value[1],
        statement => statement,
    });
    let read = given.map(|statement| {
        assert_eq!(statement["Effect"], "Allow", "{statement:?}");
        let condition = &statement["Condition"];
        let keys = &condition["ForAllValues:StringLike"]["dynamodb:LeadingKeys"];
        Statement {
            actions: texts(&statement["Action"]),
            resources: texts(&statement["Resource"]),
            leading_keys: (!keys.is_null()).then(|| texts(keys)),
            has_condition: !condition.is_null(),
        }
    });
    let of_logs = |action: &String| action.starts_with("logs:") || action.starts_with("xray:");
    read.filter(|statement| !statement.actions.iter().all(of_logs)).collect()
}

/// One text or several; a resource by the name that the template gives it.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Sequence(values) => values.iter().flat_map(texts).collect(),
        Value::String(text) => vec![text.clone()],
        Value::Tagged(tagged) => {
            let text = tagged.value.as_str().expect("a tag with a text");
            let name = text.rsplit_once("schedule/").map_or(text, |(_, schedules)| schedules);
            vec![name.replace("${", "").replace('}', "").replace(".Arn", "")]
        }
        other => panic!("neither a text nor a list: {other:?}"),
    }
}

/// Allows of the embedded store what the function's role allows of the tables.
pub fn guard(function: &str) -> Guard {
    let statements = statements(function);
    Guard::new(move |operation, request| {
        requests(operation, request).iter().all(|asked| statements.iter().any(|statement| allows(statement, asked)))
    })
}

/// A request, or a part of one, as IAM looks at it.
struct Asked {
    action: String,
    resource: String,
    keys: Vec<String>,
}

fn allows(statement: &Statement, asked: &Asked) -> bool {
    let Some(patterns) = &statement.leading_keys else { return false };
    let matches = |key: &String| patterns.iter().any(|pattern| like(key, pattern));
    statement.actions.contains(&asked.action)
        && statement.resources.contains(&asked.resource)
        && !asked.keys.is_empty()
        && asked.keys.iter().all(matches)
}

/// `StringLike` with a `*` at the pattern's end, which is all that the template has.
fn like(text: &str, pattern: &str) -> bool {
    pattern.strip_suffix('*').map_or(text == pattern, |prefix| text.starts_with(prefix))
}

/// A transaction is authorised by its parts
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis-iam.html>).
fn requests(operation: &str, request: &Json) -> Vec<Asked> {
    let asked = |operation: &str, table: &Json, index: &Json, keys: Vec<String>| {
        let table = match table.as_str() {
            Some("config") => "ConfigTable",
            Some("history") => "HistoryTable",
            _ => "unknown",
        };
        let index = index.as_str().map(|index| format!("/index/{index}")).unwrap_or_default();
        Asked { action: format!("dynamodb:{operation}"), resource: format!("{table}{index}"), keys }
    };
    let key = |row: &Json| vec![row["pk"]["S"].as_str().unwrap_or_default().to_owned()];
    match operation {
        "GetItem" | "DeleteItem" => vec![asked(operation, &request["TableName"], &Json::Null, key(&request["Key"]))],
        "PutItem" => vec![asked(operation, &request["TableName"], &Json::Null, key(&request["Item"]))],
        "Query" => vec![asked(operation, &request["TableName"], &request["IndexName"], vec![queried(request)])],
        "BatchGetItem" => {
            let tables = request["RequestItems"].as_object().into_iter().flatten();
            tables
                .map(|(table, wanted)| {
                    let keys = wanted["Keys"].as_array().into_iter().flatten().flat_map(key).collect();
                    asked(operation, &Json::from(table.as_str()), &Json::Null, keys)
                })
                .collect()
        }
        "TransactWriteItems" => {
            let parts = request["TransactItems"].as_array().into_iter().flatten();
            parts
                .flat_map(|part| part.as_object().into_iter().flatten())
                .map(|(kind, part)| {
                    let row = if kind == "Put" { &part["Item"] } else { &part["Key"] };
                    asked(&format!("{kind}Item"), &part["TableName"], &Json::Null, key(row))
                })
                .collect()
        }
        other => vec![asked(other, &request["TableName"], &Json::Null, Vec::new())],
    }
}

/// The partition that a query is about: the value that its key condition begins with, `#pk = :pk …`.
fn queried(request: &Json) -> String {
    let condition = request["KeyConditionExpression"].as_str().unwrap_or_default();
    let value = condition.split_whitespace().nth(2).unwrap_or_default();
    request["ExpressionAttributeValues"][value]["S"].as_str().unwrap_or_default().to_owned()
}
