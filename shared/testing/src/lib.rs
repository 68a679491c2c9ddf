//! What tests share.

#![expect(clippy::expect_used, reason = "only tests use this crate, and they fail by panicking")]

pub mod emulator;
