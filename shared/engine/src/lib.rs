//! Executes a definition, as pure functions: a [`Run`] is what a definition, what started it and its journal make, and
//! [`Run::decide`] says what to do next, and always the same. Whoever drives it makes the calls, keeps the journal and
//! waits; resume after a crash is the same run made of the journal that was stored.
//!
//! No I/O, no clock, no randomness, and nothing of AWS or HTTP.

mod builtins;
mod expression;
mod plan;
mod progress;
mod records;
mod retry;
mod run;
mod scope;

pub use expression::{
    Data, ExpressionError, Names, Part as TemplatePart, Reference, Scope, check_expression, check_templates,
    check_transform, contains_template, expression_references, references, split as template_parts, transform,
};
pub use plan::Plan;
pub use records::{records, records_of};
pub use run::{Call, Decision, Facts, Open, Outcome, Run};
pub use scope::{preview, trigger_names};
