//! The auth function as its callers see it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod accounts;
mod passwords;
mod second_factor;
mod sessions;
mod support;
mod throttle;
mod tokens;
