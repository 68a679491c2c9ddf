//! The auth function as its callers see it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod accounts;
mod audit;
mod invitations;
mod machines;
mod members;
mod organization;
mod passwords;
mod platform;
mod roles;
mod second_factor;
mod sessions;
mod support;
mod tenants;
mod throttle;
mod tokens;
