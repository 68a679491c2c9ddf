//! The catalogue of connectors: what each action takes, how its request is made and how its answer is read. A connector
//! is data ([`Connector`], [`Action`] and the small enums they hold); the code that reads this data knows no vendor.
//! Sending the request, address checks and secrets are left to `tidegate-egress`; expressions to the engine.

mod answer;
mod catalogue;
mod failure;
mod input;
mod mask;
mod request;
mod schema;

pub use catalogue::{
    Action, AnswerShape, Connector, EffectRule, ErrorText, HostRule, Need, RequestShape, action, actions, connector,
    connectors, nearest_action,
};
pub use failure::step_error;
pub use input::{validate_step_input, validate_step_input_of};
pub use request::RequestParts;
pub use schema::Schema;
