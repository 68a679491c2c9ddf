//! The auth function as its callers see it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod accounts;
mod sessions;
mod support;
mod tokens;
