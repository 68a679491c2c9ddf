//! The auth function as its callers see it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod accounts;
mod audit;
mod invitations;
mod machines;
mod members;
mod organization;
mod platform;
mod roles;
mod support;
mod tenants;
mod tokens;
