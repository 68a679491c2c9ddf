//! A connector that is ready to be used: its manifest, checked, and its actions with their schemas.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};
use tidegate_egress::Effect;
use tidegate_model::{ErrorCode, FieldError, Publisher, StepError};

use crate::manifest::{ActionDocument, ConnectorDocument, EffectRule, Manifest, Need, SignIn, SignInKind};
use crate::{MAX_ITEMS, Schema};

/// What talks to one outside system.
#[derive(Debug, Clone)]
pub struct Connector {
    /// Whose it is.
    pub publisher: Publisher,
    /// Its version: 1 for what is built in.
    pub version: u32,
    /// All but its actions.
    pub document: Arc<ConnectorDocument>,
    /// What it can do, by name.
    pub actions: IndexMap<String, Arc<Action>>,
}

/// One thing that a connector does.
pub struct Action {
    /// Its name in a step's `uses`: `slack.send_message`.
    pub name: String,
    /// Whose its connector is.
    pub publisher: Publisher,
    /// Its connector.
    pub connector: Arc<ConnectorDocument>,
    /// What the manifest says of it.
    pub document: ActionDocument,
    /// What its input looks like.
    pub input: Schema,
}

impl Connector {
    /// A manifest that was checked, ready to be used.
    pub fn new(manifest: Manifest, publisher: Publisher, version: u32) -> Self {
        let document = Arc::new(manifest.connector);
        let actions = manifest.actions.into_iter().map(|(name, action)| {
            let action = Action::new(Arc::clone(&document), &name, action, publisher);
            (name, Arc::new(action))
        });
        let actions = actions.collect();
        Self { publisher, version, document, actions }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.document.name
    }

    /// Whether a connection can be made for it.
    pub fn is_connectable(&self) -> bool {
        self.document.is_connectable()
    }
}

impl ConnectorDocument {
    /// The way to sign in of this id.
    pub fn sign_in(&self, id: &str) -> Option<&SignIn> {
        self.auth.iter().find(|sign_in| sign_in.id == id)
    }

    /// Whether there is a way to sign in, so that a connection can be made.
    pub fn is_connectable(&self) -> bool {
        self.auth.iter().any(|sign_in| sign_in.kind != SignInKind::None)
    }
}

impl Action {
    /// An action of a manifest that was checked.
    pub fn new(connector: Arc<ConnectorDocument>, name: &str, document: ActionDocument, publisher: Publisher) -> Self {
        let mut schema = document.input.clone();
        if document.paging.is_some()
            && let Some(properties) =
                schema.as_object_mut().map(|schema| schema.entry("properties").or_insert(json!({})))
            && let Some(properties) = properties.as_object_mut()
        {
            properties.insert(
                "max_items".to_owned(),
                json!({
                    "title": "At most", "description": "How many items to fetch; without it 1000.",
                    "type": "integer", "minimum": 1, "maximum": MAX_ITEMS
                }),
            );
        }
        let name = format!("{}.{name}", connector.name);
        Self { name, publisher, connector, document, input: Schema::of(schema) }
    }

    /// The names of the fields that the input's schema declares.
    pub(crate) fn declared(&self) -> impl Iterator<Item = &str> {
        self.input.document()["properties"].as_object().into_iter().flat_map(Map::keys).map(String::as_str)
    }

    /// Whether it takes a connection.
    pub fn need(&self) -> Need {
        let with_nothing = |sign_in: &SignIn| sign_in.kind == SignInKind::None && self.takes(&sign_in.id);
        match self.document.connection {
            Some(need) => need,
            None if !self.connector.is_connectable() => Need::None,
            None if self.connector.auth.iter().any(with_nothing) => Need::Optional,
            None => Need::Required,
        }
    }

    /// Whether it works with connections that were made by this way to sign in.
    pub fn takes(&self, sign_in: &str) -> bool {
        self.document.auth.as_ref().is_none_or(|ids| ids.iter().any(|id| id == sign_in))
    }

    /// Whether a call with this input only reads.
    pub fn effect(&self, input: &Value) -> Effect {
        match self.document.effect {
            EffectRule::Read => Effect::Read,
            EffectRule::Write => Effect::Write,
            EffectRule::ByMethod => match input.get("method").and_then(Value::as_str) {
                Some("GET" | "HEAD" | "OPTIONS") => Effect::Read,
                _ => Effect::Write,
            },
        }
    }

    /// A filled-in input without the optional fields that are `null`, where their schemas take none: so a workflow can leave a
    /// field out by an expression.
    pub fn given<'v>(&self, input: &'v Value) -> Cow<'v, Value> {
        let schema = self.input.document();
        let required =
            |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|known| known == name));
        let takes_null = |name: &str| match &schema["properties"][name]["type"] {
            Value::String(kind) => kind == "null",
            Value::Array(kinds) => kinds.iter().any(|kind| kind == "null"),
            _ => true,
        };
        let is_left_out = |name: &str, value: &Value| value.is_null() && !required(name) && !takes_null(name);
        match input {
            Value::Object(members) if members.iter().any(|(name, value)| is_left_out(name, value)) => {
                let given = members.iter().filter(|(name, value)| !is_left_out(name, value));
                Cow::Owned(Value::Object(given.map(|(name, value)| (name.clone(), value.clone())).collect()))
            }
            _ => Cow::Borrowed(input),
        }
    }

    /// Checks a filled-in input.
    ///
    /// # Errors
    /// `input_invalid`, naming every field that doesn't fit by its pointer within `with`.
    pub fn check_input(&self, input: &Value) -> Result<(), StepError> {
        let errors = self.input.errors(input, |_| false);
        if errors.is_empty() { Ok(()) } else { Err(self.input_error(&errors)) }
    }

    pub(crate) fn input_error(&self, errors: &[FieldError]) -> StepError {
        let list: Vec<_> =
            errors.iter().take(5).map(|error| format!("/with{} {}", error.pointer, error.detail)).collect();
        let message = format!("the input does not fit {}: {}", self.name, list.join("; "));
        StepError::terminal(ErrorCode::InputInvalid, message)
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Action").field("name", &self.name).finish_non_exhaustive()
    }
}
