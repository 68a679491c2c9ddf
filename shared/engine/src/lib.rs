//! Executes a definition, as pure functions: given the definition, what started the run, its journal and the time,
//! [`decide`] says what to do next, and always the same. Whoever drives it makes the calls, keeps the journal and
//! waits; resume after a crash is the same function with the journal that was stored.
//!
//! No I/O, no clock, no randomness, and nothing of AWS or HTTP.

mod decision;
mod expression;
mod records;
mod retry;
mod state;

pub use decision::{Call, Decision, Facts, Outcome, Run, decide, in_doubt};
pub use expression::{
    Data, ExpressionError, Names, Reference, Scope, check_expression, check_templates, check_transform,
    contains_template, expression_references, references, transform,
};
pub use records::records;
