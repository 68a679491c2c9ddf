//! The example payloads are what their publishers published.

use aws_lc_rs::hmac;
use tidegate_scenarios::{GITHUB_PUSH, SHOPIFY_ORDER, SLACK_COMMAND, STRIPE_EVENT};

/// <https://docs.slack.dev/authentication/verifying-requests-from-slack> prints this body with its signature.
#[test]
fn slacks_form_has_the_signature_that_slack_prints_with_it() {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"8f742231b10e8888abcd99yyyzzz85a5");
    let tag = hmac::sign(&key, format!("v0:1531420618:{SLACK_COMMAND}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503");
}

#[test]
fn the_others_are_json_objects() {
    for body in [GITHUB_PUSH, SHOPIFY_ORDER, STRIPE_EVENT] {
        assert!(serde_json::from_str::<serde_json::Value>(body).unwrap().is_object());
    }
}
