//! What tests share.

#![expect(clippy::expect_used, reason = "only tests use this crate, and they fail by panicking")]

mod app;
pub mod emulator;
pub mod policy;
mod world;

pub use app::{Answer, TestApp};
pub use world::{Account, ISSUER, Outbox, Session, World};
