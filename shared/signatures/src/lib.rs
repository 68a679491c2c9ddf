//! Who sent a webhook: signatures and credentials by the schemes of vendors, the ids under which they send again, and the
//! requests by which they try out an address.
//!
//! No I/O and no clock: the secrets, the request and the time are arguments. What is verified are the bytes as they
//! came. All that is unexpected is a [`Rejection`]. Finding the connection, opening its secret and answering are left
//! to the callers.

mod credentials;
mod delivery;
mod encoding;
mod header;
mod keyed;
mod rejection;
mod secrets;
pub mod standard_webhooks;
mod timestamp;
mod twilio;
mod verify;

pub use delivery::{Challenge, challenge, delivery_id};
pub use rejection::Rejection;
pub use secrets::Secrets;
pub use verify::{Received, verify};
