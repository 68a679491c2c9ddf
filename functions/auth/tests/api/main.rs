//! The auth function as its callers see it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod accounts;
mod invitations;
mod members;
mod organization;
mod roles;
mod audit;
mod machines;
mod support;
mod tenants;
mod tokens;
