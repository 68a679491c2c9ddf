//! The ids under which vendors send again, and the requests by which they try out an address.

mod support;

use serde_json::{Value, json};
use tidegate_model::Scheme;
use tidegate_signatures::{Challenge, challenge, delivery_id};

use support::headers;

const HEADERS: [(&str, &str); 4] = [
    ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
    ("x-shopify-webhook-id", "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043"),
    ("i-twilio-idempotency-token", "0dc28f2b"),
    ("webhook-id", "msg_1"),
];

#[test]
fn a_delivery_has_its_vendors_id() {
    let sent = headers(&HEADERS);
    let body = json!({"id": "evt_1", "event_id": "Ev08MFMKH6"});
    for (scheme, id) in [
        (Scheme::GitHub, Some(HEADERS[0].1)),
        (Scheme::Stripe, Some("evt_1")),
        (Scheme::Slack, Some("Ev08MFMKH6")),
        (Scheme::Shopify, Some(HEADERS[1].1)),
        (Scheme::Twilio, Some(HEADERS[2].1)),
        (Scheme::StandardWebhooks, Some(HEADERS[3].1)),
        (Scheme::Hmac, None),
        (Scheme::Basic, None),
        (Scheme::Bearer, None),
    ] {
        assert_eq!(delivery_id(scheme, &sent, Some(&body)).as_deref(), id, "{scheme:?}");
        assert_eq!(scheme.has_delivery_ids(), id.is_some(), "{scheme:?}");
        assert_eq!(delivery_id(scheme, &headers(&[]), None), None, "{scheme:?}");
    }
}

#[test]
fn what_could_be_no_key_is_no_id() {
    let long = "x".repeat(256);
    for bad in ["", "a b", "\u{9}", long.as_str()] {
        for (at, scheme) in
            [Scheme::GitHub, Scheme::Shopify, Scheme::Twilio, Scheme::StandardWebhooks].iter().enumerate()
        {
            let sent = headers(&[(HEADERS[at].0, bad)]);
            assert_eq!(delivery_id(*scheme, &sent, None), None, "{scheme:?} {bad}");
        }
        let body = json!({"id": bad, "event_id": bad});
        assert_eq!(delivery_id(Scheme::Stripe, &headers(&[]), Some(&body)), None);
        assert_eq!(delivery_id(Scheme::Slack, &headers(&[]), Some(&body)), None);
    }
    for body in [json!({"id": 1, "event_id": ["a"]}), json!(["id"]), json!("id"), Value::Null] {
        assert_eq!(delivery_id(Scheme::Stripe, &headers(&[]), Some(&body)), None);
        assert_eq!(delivery_id(Scheme::Slack, &headers(&[]), Some(&body)), None);
    }
    let mut twice = headers(&HEADERS[..1]);
    twice.append("x-github-delivery", "other".parse().unwrap());
    assert_eq!(delivery_id(Scheme::GitHub, &twice, None), None);
    let longest = "x".repeat(255);
    assert_eq!(delivery_id(Scheme::Stripe, &twice, Some(&json!({"id": longest}))), Some(longest));
}

/// <https://docs.slack.dev/reference/events/url_verification>, <https://docs.github.com/en/webhooks/webhook-events-and-payloads#ping>
/// and <https://docs.stripe.com/api/v2/core/event-destinations/event-types>
#[test]
fn a_request_that_tries_out_the_address_is_answered() {
    let ping = headers(&[("x-github-event", "ping")]);
    let slack = json!({
        "token": "Jhj5dZrVaK7ZwHHjRyZWjbDl", "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P",
        "type": "url_verification",
    });
    let certificate = json!({"ssl_check": "1", "token": "Jhj5dZrVaK7ZwHHjRyZWjbDl"});
    let stripe = json!({"id": "evt_1", "object": "v2.core.event", "type": "v2.core.event_destination.ping"});
    for scheme in Scheme::ALL {
        let by_header = challenge(*scheme, &ping, None);
        assert_eq!(by_header, (*scheme == Scheme::GitHub).then_some(Challenge::Acknowledge), "{scheme:?}");
        let echo = Challenge::Echo("3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P".to_owned());
        let verification = challenge(*scheme, &headers(&[]), Some(&slack));
        assert_eq!(verification, (*scheme == Scheme::Slack).then_some(echo), "{scheme:?}");
        let checked = challenge(*scheme, &headers(&[]), Some(&certificate));
        assert_eq!(checked, (*scheme == Scheme::Slack).then_some(Challenge::Acknowledge), "{scheme:?}");
        let pinged = challenge(*scheme, &headers(&[]), Some(&stripe));
        assert_eq!(pinged, (*scheme == Scheme::Stripe).then_some(Challenge::Acknowledge), "{scheme:?}");
    }
}

#[test]
fn all_else_starts_something() {
    let push = headers(&[("x-github-event", "push")]);
    let long = "x".repeat(1_025);
    for body in [
        Value::Null,
        json!("url_verification"),
        json!({"type": "event_callback", "challenge": "x"}),
        json!({"type": "url_verification"}),
        json!({"type": "url_verification", "challenge": 1}),
        json!({"type": "url_verification", "challenge": "<script> </script>"}),
        json!({"type": "url_verification", "challenge": long}),
        json!({"type": "invoice.paid"}),
        json!({"ssl_check": "0"}),
    ] {
        for scheme in Scheme::ALL {
            assert_eq!(challenge(*scheme, &push, Some(&body)), None, "{scheme:?} {body}");
        }
    }
}
