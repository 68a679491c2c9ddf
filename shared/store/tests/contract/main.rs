//! What the store promises, held against every way the database may behave: in memory and in a folder, without faults
//! and with each of them.

mod accounts;
mod setup;
