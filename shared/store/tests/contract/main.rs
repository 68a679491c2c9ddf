//! What the store promises, held against every way the database may behave: in memory and in a folder, without faults
//! and with each of them.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic as the test itself may")]

mod accounts;
mod cancel;
mod connections;
mod dead_letters;
mod deliveries;
mod faults;
mod folder;
mod journal;
mod platform;
mod rates;
mod run_list;
mod runs;
mod setup;
mod signals;
mod workflows;
