//! Whatever comes, nothing panics and nobody gets in who hasn't the secret.

mod support;

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use tidegate_signatures::{challenge, delivery_id};

use support::{NOW, Sender, secrets};

/// Bytes, and texts that are nearly what a header should be.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        "(sha256=|v0=|sig |v1,|v1a,|Basic |Bearer |t=)?[0-9a-f]{0,130}".prop_map(String::into_bytes),
        "(t=[0-9]{0,12},?)?(v1=[0-9a-f]{0,66},?){0,20}".prop_map(String::into_bytes),
        "(v1a?,[A-Za-z0-9+/]{0,90}={0,2} ?){0,20}".prop_map(String::into_bytes),
        "(Basic |bearer )[A-Za-z0-9+/=]{0,60}".prop_map(String::into_bytes),
        Just(NOW.to_string().into_bytes()),
        Just(b"application/x-www-form-urlencoded".to_vec()),
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        "([A-Za-z]{0,4}=?(%[0-9a-g]{0,2}|[a-z+]){0,6}&?){0,6}".prop_map(String::into_bytes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_is_refused(
        sender in prop::sample::select(Sender::ALL.to_vec()),
        values in prop::collection::vec((any::<bool>(), value()), 3),
        url in prop_oneof!["\\PC{0,60}", "https?://[a-z@:\\[\\]0-9]{0,20}(/[a-z]{0,3})?(\\?bodySHA256=[0-9a-f]{0,66})?"],
        body in body(),
        secret in "\\PC{0,40}",
        now in prop_oneof![Just(NOW), -377_000_000_000_i64..253_000_000_000],
    ) {
        let mut request = sender.send(&sender.secret(1), NOW);
        request.headers.clear();
        for (name, (repeated, value)) in sender.needed().iter().zip(values) {
            let Ok(value) = HeaderValue::from_bytes(&value) else { continue };
            if repeated {
                request.headers.append(HeaderName::from_static(name), value.clone());
            }
            request.headers.append(HeaderName::from_static(name), value);
        }
        (request.url, request.body) = (url, body);
        let scheme = sender.verification().scheme;
        // Ahead of the rest a marker that the garbage doesn't have.
        for held in [secrets(&sender.secret(1), Some(&sender.secret(2))), secrets(&format!("§{secret}"), None)] {
            prop_assert!(request.verify(&held, now).is_err());
        }
        let value = serde_json::from_slice(&request.body).ok();
        delivery_id(scheme, &request.headers, value.as_ref());
        challenge(scheme, &request.headers, value.as_ref());
    }
}

#[test]
fn no_length_of_a_header_lets_anybody_in() {
    for sender in Sender::ALL {
        let request = sender.send(&sender.secret(1), NOW);
        let held = secrets(&sender.secret(1), None);
        for name in sender.needed().iter().filter(|name| **name != "content-type") {
            for length in (0..300).chain([8_192, 100_000]) {
                for fill in ["0", "a", ",", " ", "=", "v1,", "v1=00,"] {
                    let text: String = fill.chars().cycle().take(length).collect();
                    assert!(request.with(name, &text).verify(&held, NOW).is_err(), "{sender:?} {name} {length} {fill}");
                }
            }
        }
    }
}
