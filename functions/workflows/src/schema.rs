//! The JSON Schema of a workflow's definition, made of the types that read one.

use std::sync::LazyLock;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use tidegate_connectors::manifest_schema;
use tidegate_http::Public;
use tidegate_model::Definition;
use utoipa::{PartialSchema as _, ToSchema as _};

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| definition_schema().to_string().into());

/// The JSON Schema of a workflow's definition
///
/// For editors and checks before a definition is sent. It tells the shape (draft 2020-12); what else is checked when a
/// definition is stored, such as actions' inputs and expressions, it doesn't tell.
#[utoipa::path(
    get, path = "/api/schemas/workflow", tag = "workflows",
    responses((
        status = 200, description = "JSON Schema, draft 2020-12", body = Value, content_type = "application/schema+json",
    )),
)]
pub(crate) async fn workflow_schema(_: Public) -> ([(HeaderName, HeaderValue); 2], Bytes) {
    (headers(), DOCUMENT.clone())
}

/// The JSON Schema of a connector's manifest
///
/// For editors and checks before a manifest is uploaded. It tells the shape (draft 2020-12); expressions and what they name are
/// checked when it is uploaded.
#[utoipa::path(
    get, path = "/api/schemas/connector", tag = "connectors",
    responses((
        status = 200, description = "JSON Schema, draft 2020-12", body = Value, content_type = "application/schema+json",
    )),
)]
pub(crate) async fn connector_schema(_: Public) -> ([(HeaderName, HeaderValue); 2], Bytes) {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| manifest_schema().to_string().into());
    (headers(), DOCUMENT.clone())
}

fn headers() -> [(HeaderName, HeaderValue); 2] {
    [
        (CONTENT_TYPE, HeaderValue::from_static("application/schema+json")),
        (CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600")),
    ]
}

/// The JSON Schema (draft 2020-12) of a workflow's definition; `docs/workflow.schema.json` is this.
pub fn definition_schema() -> Value {
    let mut parts = Vec::new();
    Definition::schemas(&mut parts);
    let mut parts: Vec<_> = parts.into_iter().map(|(name, schema)| (name, schema_of(json!(schema)))).collect();
    parts.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut document = Map::from_iter([
        ("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema")),
        ("$id".to_owned(), json!("urn:tidegate:workflow")),
        ("title".to_owned(), json!("Tidegate workflow")),
    ]);
    if let Value::Object(definition) = schema_of(json!(Definition::schema())) {
        document.extend(definition);
    }
    document.insert("$defs".to_owned(), Value::Object(parts.into_iter().collect()));
    Value::Object(document)
}

/// A component of the OpenAPI document as it stands here: references lead to `$defs`, and objects with named fields take
/// no others, as the types do when they are read.
fn schema_of(component: Value) -> Value {
    match component {
        Value::Object(mut fields) => {
            if fields.contains_key("properties") && !fields.contains_key("additionalProperties") {
                fields.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            let fields = fields.into_iter().map(|(name, value)| match value {
                Value::String(target) if name == "$ref" => {
                    (name, Value::String(target.replace("#/components/schemas/", "#/$defs/")))
                }
                value => (name, schema_of(value)),
            });
            Value::Object(fields.collect())
        }
        Value::Array(elements) => Value::Array(elements.into_iter().map(schema_of).collect()),
        scalar => scalar,
    }
}
