//! What tests share.

#![expect(clippy::expect_used, reason = "only tests use this crate, and they fail by panicking")]

mod app;

pub use app::{Answer, SignedIn, TestApp, World};
