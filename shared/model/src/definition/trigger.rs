//! The schema of triggers. utoipa's own would say that a document fits both the schema of a variant's content, which
//! takes no `type`, and one that takes nothing but a `type`; so none would.

use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::openapi::{Object, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::Trigger;
use crate::{Schedule, WebhookTrigger};

impl PartialSchema for Trigger {
    fn schema() -> RefOr<Schema> {
        let webhook = match WebhookTrigger::schema() {
            RefOr::T(Schema::Object(fields)) => fields,
            _ => Object::new(),
        };
        let webhook = tagged("webhook", "A request to `/api/webhooks/{workflow id}`.", webhook);
        let manual = tagged("manual", "Nothing but the API and other workflows.", Object::new());
        let interval = schedule("The clock, at intervals.", "every", &["cron", "timezone"]);
        let expression = schedule("The clock, where an expression matches.", "cron", &["every"]);
        let variants =
            [webhook, manual, interval, expression].into_iter().fold(OneOfBuilder::new(), OneOfBuilder::item);
        variants.description(Some("What starts a workflow.")).into()
    }
}

impl ToSchema for Trigger {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Schedule::schemas(schemas);
        WebhookTrigger::schemas(schemas);
    }
}

/// A schedule that has one of its fields, and hasn't some others.
fn schedule(description: &str, with: &str, without: &[&str]) -> Object {
    let mut fields = match Schedule::schema() {
        RefOr::T(Schema::Object(fields)) => fields,
        _ => Object::new(),
    };
    fields.properties.retain(|field, _| !without.contains(&field.as_str()));
    fields.required.push(with.to_owned());
    tagged("schedule", description, fields)
}

/// A variant: its content, and the `type` that tells it from others.
fn tagged(kind: &str, description: &str, mut object: Object) -> Object {
    let tag = ObjectBuilder::new().schema_type(Type::String).enum_values(Some([kind]));
    object.schema_type = Type::Object.into();
    object.description = Some(description.to_owned());
    object.properties.insert("type".to_owned(), tag.into());
    object.required.push("type".to_owned());
    object
}
