//! Whole-system scenarios: the laptop's process and a deployed stack are driven by the same requests. What needs the
//! `tidegate` binary itself (starting it, killing it) is in `local/tests/`, where Cargo builds that binary first.

mod api;
pub mod png;
pub mod scenario;
mod server;
mod sink;
pub mod triggers;
mod wait;

pub use api::Api;
pub use server::Server;
pub use sink::{Received, Sink};
pub use wait::until;

/// An example payload from `tests/fixtures/`; its README tells where each comes from.
macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../fixtures/", $name))
    };
}

/// A `push` delivery of GitHub's: JSON.
pub const GITHUB_PUSH: &str = fixture!("github-push.json");
/// A `charge.succeeded` event of Stripe's: JSON.
pub const STRIPE_EVENT: &str = fixture!("stripe-charge-succeeded.json");
/// An `orders/create` delivery of Shopify's: JSON.
pub const SHOPIFY_ORDER: &str = fixture!("shopify-orders-create.json");
/// A slash command of Slack's: a form.
pub const SLACK_COMMAND: &str = fixture!("slack-slash-command.txt");
