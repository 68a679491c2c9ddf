//! What every scheme has to hold: its sender is let in, and whatever is changed, left out, sent twice, late or early, or
//! signed by somebody else is not.

mod support;

use http::{HeaderName, HeaderValue};
use tidegate_signatures::Secrets;

use support::{NOW, Sender, secrets};

fn one(sender: Sender) -> Secrets {
    secrets(&sender.secret(1), None)
}

#[test]
fn the_sender_is_let_in() {
    for sender in Sender::ALL {
        let request = sender.send(&sender.secret(1), NOW);
        assert_eq!(request.verify(&one(sender), NOW), Ok(()), "{sender:?}");
    }
}

#[test]
fn either_secret_counts_during_a_rotation() {
    for sender in Sender::ALL {
        let both = secrets(&sender.secret(1), Some(&sender.secret(2)));
        for (seed, counts) in [(1, true), (2, true), (3, false)] {
            let request = sender.send(&sender.secret(seed), NOW);
            assert_eq!(request.verify(&both, NOW).is_ok(), counts, "{sender:?} {seed}");
        }
        let request = sender.send(&sender.secret(2), NOW);
        let over = secrets(&sender.secret(1), Some(""));
        let reason = if sender.is_signed() { "signature_mismatch" } else { "credentials_wrong" };
        assert_eq!(request.refused(&one(sender), NOW), reason, "{sender:?}");
        assert_eq!(request.refused(&over, NOW), reason, "{sender:?}");
    }
}

#[test]
fn an_empty_secret_lets_nobody_in() {
    for sender in Sender::ALL {
        let request = match sender {
            Sender::StandardWebhooks => sender.send("whsec_", NOW),
            // A header can't end with a space; the token is empty either way.
            Sender::Bearer => sender.send("", NOW).with("authorization", "Bearer "),
            _ => sender.send("", NOW),
        };
        for empty in [secrets("", None), secrets("", Some("")), secrets("", Some(&sender.secret(1)))] {
            assert_eq!(request.refused(&empty, NOW), "secret_unusable", "{sender:?}");
        }
        assert!(request.verify(&secrets(&sender.secret(1), Some("")), NOW).is_err(), "{sender:?}");
    }
    let prefix_alone = Sender::StandardWebhooks.send("whsec_", NOW).verify(&secrets("whsec_", None), NOW);
    assert_eq!(prefix_alone.unwrap_err().reason(), "secret_unusable");
}

#[test]
fn no_byte_of_a_signed_body_may_change() {
    for sender in Sender::ALL.into_iter().filter(|sender| sender.is_signed()) {
        let request = sender.send(&sender.secret(1), NOW);
        for at in 0..request.body.len() {
            // The lowest bit, since another may turn a digit of an escape into the same digit's other case.
            let mut changed = request.clone();
            changed.body[at] ^= 1;
            assert!(changed.verify(&one(sender), NOW).is_err(), "{sender:?} {at}");
            let mut cut = request.clone();
            cut.body.truncate(at);
            assert!(cut.verify(&one(sender), NOW).is_err(), "{sender:?} {at}");
        }
        for more in ["x", "\n", "\0", "&", "&a=b"] {
            let mut longer = request.clone();
            longer.body.extend_from_slice(more.as_bytes());
            assert!(longer.verify(&one(sender), NOW).is_err(), "{sender:?} {more:?}");
        }
    }
}

#[test]
fn no_character_of_a_needed_header_may_change() {
    for sender in Sender::ALL {
        let request = sender.send(&sender.secret(1), NOW);
        for name in sender.needed().iter().filter(|name| **name != "content-type") {
            let text = request.header(name);
            for at in 0..text.len() {
                let mut bytes = text.clone().into_bytes();
                bytes[at] = if bytes[at] == b'z' { b'y' } else { b'z' };
                let changed = request.with(name, std::str::from_utf8(&bytes).unwrap());
                assert!(changed.verify(&one(sender), NOW).is_err(), "{sender:?} {name} {at}");
                let cut = request.with(name, &text[..at]);
                // Base64 needs no padding.
                let is_whole = text[at..].trim_end_matches('=').is_empty();
                assert!(is_whole || cut.verify(&one(sender), NOW).is_err(), "{sender:?} {name} {at}");
            }
        }
    }
}

#[test]
fn every_needed_header_is_there_once() {
    for sender in Sender::ALL {
        let request = sender.send(&sender.secret(1), NOW);
        for name in sender.needed() {
            let mut without = request.clone();
            without.headers.remove(*name);
            let reason = without.refused(&one(sender), NOW);
            let is_named = reason.ends_with("_missing") || (*name == "content-type" && reason == "body_unsigned");
            assert!(is_named, "{sender:?} {name} {reason}");
            let mut twice = request.clone();
            twice.headers.append(HeaderName::from_static(name), request.headers[*name].clone());
            let reason = twice.refused(&one(sender), NOW);
            let is_named = reason.ends_with("_malformed") || (*name == "content-type" && reason == "body_unsigned");
            assert!(is_named, "{sender:?} {name} {reason}");
            for value in ["", "é", "\u{7f}"] {
                let mut other = request.clone();
                let value = HeaderValue::from_bytes(value.as_bytes()).unwrap_or(HeaderValue::from_static("-"));
                other.headers.insert(HeaderName::from_static(name), value);
                assert!(other.verify(&one(sender), NOW).is_err(), "{sender:?} {name}");
            }
        }
    }
}

#[test]
fn what_is_too_old_or_from_the_future_is_refused() {
    for sender in Sender::ALL {
        let is_timestamped = sender.verification().is_timestamped();
        for (seconds, reason) in [
            (NOW - 300, None),
            (NOW + 300, None),
            (NOW - 301, Some("timestamp_too_old")),
            (NOW + 301, Some("timestamp_in_future")),
            (1, Some("timestamp_too_old")),
            (99_999_999_999, Some("timestamp_in_future")),
        ] {
            let request = sender.send(&sender.secret(1), seconds);
            let reason = reason.filter(|_| is_timestamped);
            let refused = request.verify(&one(sender), NOW).map_err(|rejection| rejection.reason());
            assert_eq!(refused.err(), reason, "{sender:?} {seconds}");
            // Nobody learns more than that of what isn't the sender's.
            if is_timestamped {
                assert_eq!(request.refused(&secrets(&sender.secret(2), None), NOW), "signature_mismatch");
            }
        }
    }
}

#[test]
fn a_time_is_written_in_one_way() {
    for (sender, name) in [
        (Sender::Slack, "x-slack-request-timestamp"),
        (Sender::StandardWebhooks, "webhook-timestamp"),
        (Sender::HmacTimestamped, "x-time"),
    ] {
        let request = sender.send(&sender.secret(1), NOW);
        for bad in ["0", "01790000000", "+1790000000", "-1", "1790000000.0", "1790000000000", "1e9", "0x1", "now", "1 "]
        {
            let reason = request.with(name, bad).refused(&one(sender), NOW);
            assert_eq!(reason, "timestamp_malformed", "{sender:?} {bad}");
        }
    }
    let stripe = Sender::Stripe.send(&Sender::Stripe.secret(1), NOW);
    for (header, reason) in [
        ("t=0,v1=00", "timestamp_malformed"),
        ("t=,v1=00", "timestamp_malformed"),
        ("v1=00", "timestamp_missing"),
        ("t=1,t=1,v1=00", "signature_malformed"),
        ("t=1", "signature_malformed"),
        ("t=1,v0=00", "signature_malformed"),
        ("t=1,v1=0", "signature_malformed"),
        ("t=1,v1", "signature_malformed"),
    ] {
        assert_eq!(stripe.with("stripe-signature", header).refused(&one(Sender::Stripe), NOW), reason, "{header}");
    }
}

#[test]
fn a_signature_among_others_counts_up_to_a_bound() {
    for (sender, name, separator) in
        [(Sender::Stripe, "stripe-signature", ","), (Sender::StandardWebhooks, "webhook-signature", " ")]
    {
        let request = sender.send(&sender.secret(1), NOW);
        let text = request.header(name);
        let other = match sender {
            Sender::Stripe => format!("v1={}", "00".repeat(32)),
            _ => "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc=".to_owned(),
        };
        let own = text.as_str();
        let of = |others: usize| {
            let others = vec![other.as_str(); others];
            request.with(name, &[others.join(separator).as_str(), own].join(separator))
        };
        let room = if sender == Sender::Stripe { 14 } else { 15 };
        assert_eq!(of(room).verify(&one(sender), NOW), Ok(()), "{sender:?}");
        assert_eq!(of(room + 1).refused(&one(sender), NOW), "signature_malformed", "{sender:?}");
        assert_eq!(request.with(name, &[own, &other].join(separator)).verify(&one(sender), NOW), Ok(()));
        let unreadable = request.with(name, &[own, "v1"].join(separator));
        assert_eq!(unreadable.refused(&one(sender), NOW), "signature_malformed", "{sender:?}");
    }
}

#[test]
fn the_sha_1_that_github_sends_along_counts_for_nothing() {
    let sender = Sender::GitHub;
    let mut request = sender.send(&sender.secret(1), NOW).with("x-hub-signature", "sha1=00");
    assert_eq!(request.verify(&one(sender), NOW), Ok(()));
    let sha1 = support::mac(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &sender.secret(1), sender.body());
    let sha1 = format!("sha1={}", support::hex(&sha1));
    assert_eq!(request.with("x-hub-signature-256", &sha1).refused(&one(sender), NOW), "signature_malformed");
    request.headers.remove("x-hub-signature-256");
    assert_eq!(request.with("x-hub-signature", &sha1).refused(&one(sender), NOW), "signature_missing");
}

#[test]
fn twilio_signs_the_url_and_forms_or_a_body_that_the_url_vouches_for() {
    for sender in [Sender::TwilioForm, Sender::TwilioJson] {
        let request = sender.send(&sender.secret(1), NOW);
        for at in 0..request.url.len() {
            let mut changed = request.clone();
            let other = if request.url.as_bytes()[at] == b'z' { "y" } else { "z" };
            changed.url.replace_range(at..=at, other);
            assert!(changed.verify(&one(sender), NOW).is_err(), "{sender:?} {at}");
        }
    }
    let form = Sender::TwilioForm.send(&Sender::TwilioForm.secret(1), NOW);
    let as_json = form.with("content-type", "application/json");
    assert_eq!(as_json.refused(&one(Sender::TwilioForm), NOW), "body_unsigned");
    // Without anything between names and values, these are signed alike.
    let mut moved = form;
    moved.body = b"To%2B1800&CallSid=CA12&Digits=1+2&From=%2B1415".to_vec();
    assert_eq!(moved.refused(&one(Sender::TwilioForm), NOW), "body_unsigned");
    let mut twice = Sender::TwilioJson.send(&Sender::TwilioJson.secret(1), NOW);
    twice.url.push_str("&bodySHA256=00");
    assert_eq!(twice.refused(&one(Sender::TwilioJson), NOW), "body_unsigned");
}

#[test]
fn credentials_are_those_of_the_connection_and_no_others() {
    let basic = |name: &str, secret: &str| {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{secret}"));
        Sender::Basic.send("x", NOW).with("authorization", &format!("bAsIc  {text}"))
    };
    let held = secrets("pass:word", None);
    assert_eq!(basic("user", "pass:word").verify(&held, NOW), Ok(()));
    for (name, secret) in [("user", "pass"), ("User", "pass:word"), ("", "pass:word"), ("user:pass", "word2")] {
        assert_eq!(basic(name, secret).refused(&held, NOW), "credentials_wrong", "{name}");
    }
    for username in [None, Some("user:pass".to_owned())] {
        let unusable = Secrets { username, ..secrets("word", None) };
        assert_eq!(basic("user", "pass:word").refused(&unusable, NOW), "secret_unusable");
    }
    let bearer = Sender::Bearer.send("t0ken", NOW);
    assert_eq!(bearer.with("authorization", "bearer t0ken").verify(&secrets("t0ken", None), NOW), Ok(()));
    for bad in ["t0ken", "Bearert0ken", "Basic t0ken", "Bearer", "Digest t0ken"] {
        let reason = bearer.with("authorization", bad).refused(&secrets("t0ken", None), NOW);
        assert_eq!(reason, "credentials_malformed", "{bad}");
    }
    for wrong in ["Bearer Token", "Bearer t0ken2", "Bearer t0ken t0ken", "Bearer toke"] {
        assert_eq!(bearer.with("authorization", wrong).refused(&secrets("t0ken", None), NOW), "credentials_wrong");
    }
}

#[test]
fn a_scheme_that_says_nothing_lets_nobody_in() {
    let request = Sender::Hmac.send(&Sender::Hmac.secret(1), NOW);
    let received = tidegate_signatures::Received { url: "", headers: &request.headers, body: &request.body };
    for hmac in [
        None,
        Some(serde_json::json!({"header": "x sign"})),
        Some(serde_json::json!({"header": "x-sign", "content": "{timestamp}{body}"})),
        Some(serde_json::json!({"header": "x-sign", "content": "no body"})),
        Some(serde_json::json!({"header": "x-sign", "timestamp_header": "x-time"})),
    ] {
        let mut document = serde_json::json!({"scheme": "hmac"});
        if let Some(hmac) = hmac {
            document["hmac"] = hmac;
        }
        let verification = support::verification(document);
        let refused = tidegate_signatures::verify(&verification, &one(Sender::Hmac), &received, support::at(NOW));
        let rejection = refused.unwrap_err();
        assert!(rejection.reason() == "verification_unusable" && rejection.is_ours(), "{rejection}");
    }
}
