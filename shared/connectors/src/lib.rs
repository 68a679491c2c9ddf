//! The catalogue of connectors: what each action takes, how its request is made and how its answer is read. A connector
//! is data ([`Connector`], [`Action`] and the small enums they hold); the code that reads this data knows no vendor. What
//! the built-in actions take is told here too ([`BuiltinAction`]); carrying them out is the engine's.
//! Sending the request, address checks and secrets are left to `tidegate-egress`; expressions to the engine.

mod answer;
mod builtin;
mod catalogue;
mod failure;
mod input;
mod openapi;
mod request;
mod schema;

pub use builtin::{BuiltinAction, builtin, builtins};
pub use catalogue::{
    Action, AnswerShape, Connector, EffectRule, ErrorText, HostRule, Need, RequestShape, action, actions, connector,
    connectors,
};
pub use failure::step_error;
pub use input::Uses;
pub use openapi::{ImportOptions, ImportReport, Imported, LeftOut, import_openapi};
pub use request::RequestParts;
pub use schema::Schema;
