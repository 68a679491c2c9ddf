//! What vendors send beside events: ids that stay the same when they send again, and requests that try out an address.
//! Only for requests that were verified, and even then most vendors sign no header: an id keeps a vendor's repetitions
//! apart from new events, and stops nobody who can send a request again.

use http::HeaderMap;
use http::HeaderName;
use serde_json::Value;
use tidegate_model::Scheme;

use crate::header::{Found, find};

const MAX_ID_BYTES: usize = 255;
const MAX_CHALLENGE_BYTES: usize = 1_024;

const GITHUB_EVENT: HeaderName = HeaderName::from_static("x-github-event");
const GITHUB_ID: HeaderName = HeaderName::from_static("x-github-delivery");
const SHOPIFY_ID: HeaderName = HeaderName::from_static("x-shopify-webhook-id");
const TWILIO_ID: HeaderName = HeaderName::from_static("i-twilio-idempotency-token");
const STANDARD_ID: HeaderName = HeaderName::from_static("webhook-id");

/// A request that tries out an address and starts nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// To be answered with 200 and this text as `text/plain`.
    Echo(String),
    /// To be answered with 200.
    Acknowledge,
}

/// The vendor's id of what it sent, the same whenever it sends that again: 1 to 255 visible ASCII characters. None where
/// there is no such id, or no one such.
///
/// GitHub's `X-GitHub-Delivery` names the event, also when somebody has it delivered again. Shopify's
/// `X-Shopify-Webhook-Id` names the delivery; one `X-Shopify-Event-Id` stands in the deliveries of several topics.
/// Slack's `event_id` is in what its Events API sends, and in nothing else.
pub fn delivery_id(scheme: Scheme, headers: &HeaderMap, body: Option<&Value>) -> Option<String> {
    let header = |name: &HeaderName| match find(headers, name) {
        Found::Text(id) => Some(id),
        Found::Missing | Found::Unreadable(_) => None,
    };
    let id = match scheme {
        Scheme::GitHub => header(&GITHUB_ID),
        Scheme::Stripe => text(body, "id"),
        Scheme::Slack => text(body, "event_id"),
        Scheme::Shopify => header(&SHOPIFY_ID),
        Scheme::Twilio => header(&TWILIO_ID),
        Scheme::StandardWebhooks => header(&STANDARD_ID),
        Scheme::Hmac | Scheme::Basic | Scheme::Bearer => None,
    };
    id.filter(|id| is_visible(id, MAX_ID_BYTES)).map(str::to_owned)
}

/// How to answer a request that only tries out the address; none for all that starts something.
///
/// Slack verifies a URL and checks its certificate, GitHub sends `ping` once there is a webhook, and Stripe when somebody
/// asks for it.
pub fn challenge(scheme: Scheme, headers: &HeaderMap, body: Option<&Value>) -> Option<Challenge> {
    match scheme {
        Scheme::GitHub => match find(headers, &GITHUB_EVENT) {
            Found::Text("ping") => Some(Challenge::Acknowledge),
            Found::Text(_) | Found::Missing | Found::Unreadable(_) => None,
        },
        Scheme::Stripe if text(body, "type") == Some("v2.core.event_destination.ping") => Some(Challenge::Acknowledge),
        Scheme::Slack if text(body, "type") == Some("url_verification") => {
            let challenge = text(body, "challenge").filter(|text| is_visible(text, MAX_CHALLENGE_BYTES))?;
            Some(Challenge::Echo(challenge.to_owned()))
        }
        Scheme::Slack if text(body, "ssl_check") == Some("1") => Some(Challenge::Acknowledge),
        Scheme::Stripe
        | Scheme::Slack
        | Scheme::Shopify
        | Scheme::Twilio
        | Scheme::StandardWebhooks
        | Scheme::Hmac
        | Scheme::Basic
        | Scheme::Bearer => None,
    }
}

fn text<'a>(body: Option<&'a Value>, field: &str) -> Option<&'a str> {
    body?.get(field)?.as_str()
}

fn is_visible(text: &str, max_bytes: usize) -> bool {
    (1..=max_bytes).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}
