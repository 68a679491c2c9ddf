//! What vendors and their libraries publish: requests with the signatures that belong to them.

mod support;

use serde_json::json;
use tidegate_signatures::{Received, standard_webhooks, verify};

use support::{at, headers, secrets, verification};

/// <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries#testing-the-webhook-payload-validation>
#[test]
fn github() {
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let headers = headers(&[("x-hub-signature-256", signature)]);
    let received = Received { url: "", headers: &headers, body: b"Hello, World!" };
    let secrets = secrets("It's a Secret to Everybody", None);
    assert_eq!(verify(&verification(json!({"scheme": "github"})), &secrets, &received, at(0)), Ok(()));
    let as_hmac = json!({"scheme": "hmac", "hmac": {"header": "x-hub-signature-256", "prefix": "sha256="}});
    assert_eq!(verify(&verification(as_hmac), &secrets, &received, at(0)), Ok(()));
}

/// <https://docs.slack.dev/authentication/verifying-requests-from-slack>
#[test]
fn slack() {
    let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&\
                channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&\
                response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F\
                96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    let headers = headers(&[
        ("x-slack-request-timestamp", "1531420618"),
        ("x-slack-signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
    ]);
    let received = Received { url: "", headers: &headers, body: body.as_bytes() };
    let secrets = secrets("8f742231b10e8888abcd99yyyzzz85a5", None);
    let scheme = json!({"scheme": "slack", "tolerance_seconds": 5});
    assert_eq!(verify(&verification(scheme.clone()), &secrets, &received, at(1_531_420_623)), Ok(()));
    let late = verify(&verification(scheme), &secrets, &received, at(1_531_420_624)).unwrap_err();
    assert_eq!(late.reason(), "timestamp_too_old");
}

/// The algorithm of <https://docs.stripe.com/webhooks#verify-manually>, which has no example that is whole; computed with
/// Python's `hmac`. The prefix of a secret is part of it.
#[test]
fn stripe() {
    let signature = "t=1492774577,v1=799c4ba7bb339f3c8601adfd112f0e477c930a268be1243d341abb8286501c2f,v0=6ffbb59b";
    let headers = headers(&[("stripe-signature", signature)]);
    let received = Received { url: "", headers: &headers, body: br#"{"id":"evt_1"}"# };
    let secrets = secrets("whsec_test_secret", None);
    assert_eq!(verify(&verification(json!({"scheme": "stripe"})), &secrets, &received, at(1_492_774_577)), Ok(()));
}

/// The algorithm of <https://shopify.dev/docs/apps/build/webhooks/verify-deliveries>, which has no example; computed with
/// Python's `hmac`.
#[test]
fn shopify() {
    let headers = headers(&[("x-shopify-hmac-sha256", "3U5F5wv3PAzlBJte7rl7C6gmUUh4nhzbUPgTVPs1gfk=")]);
    let received = Received { url: "", headers: &headers, body: br#"{"id":549755813}"# };
    let scheme = verification(json!({"scheme": "shopify"}));
    assert_eq!(verify(&scheme, &secrets("hush", None), &received, at(0)), Ok(()));
}

/// <https://www.twilio.com/docs/usage/security>, and what <https://github.com/twilio/twilio-node>'s
/// `spec/validation.spec.js` adds: ports, fields that repeat, bodies by their hash.
#[test]
fn twilio() {
    let call = "CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212";
    let json = r#"{"property": "value", "boolean": true}"#;
    let hash = "bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620";
    let of_nothing = "bodySHA256=44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let php = "://mycompany.com/myapp.php";
    for (url, body, signature) in [
        (format!("https{php}?foo=1&bar=2"), call, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        ("https://mycompany.com:1234/myapp.php?foo=1&bar=2".to_owned(), call, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        ("http://mycompany.com:1234/myapp.php?foo=1&bar=2".to_owned(), call, "Zmvh+3yNM1Phv2jhDCwEM3q5ebU="),
        (format!("https{php}?foo=1&bar=2"), call, "kvajT1Ptam85bY51eRf/AJRuM3w="),
        (format!("http{php}?foo=1&bar=2"), call, "0ZXoZLH/DfblKGATFgpif+LLRf4="),
        ("https://user:pass@mycompany.com/myapp.php?foo=1&bar=2".to_owned(), call, "CukzLTc1tT5dXEDIHm/tKBanW10="),
        ("https://user:pass@mycompany.com/myapp.php?foo=1&bar=2".to_owned(), call, "ZQFR1PTIZXF2MXB8ZnKCvnnA+rI="),
        (format!("https{php}?foo=1&bar=2&Body=It's+amazing"), call, "dsq4Ehbj6cs+KdTkpF5sSSplOWw="),
        (
            format!("https{php}?foo=1&bar=2"),
            "MessagingBinding.Address=%2B1415xxxxxxx&MessagingBinding.Address=%2B1325xxxxxxx",
            "83O6e2vORAoJHUNzJjDWN1jz+BA=",
        ),
        (
            format!("https{php}?foo=1&bar=2"),
            "Sid=CA123&SidAccount=AC123&Digits=5678&Digits=1234&Digits=1234",
            "IK+Dwps556ElfBT0I3Rgjkr1wJU=",
        ),
        (format!("https{php}?foo=1&bar=2&{hash}"), json, "a9nBmqA0ju/hNViExpshrM61xv4="),
        (format!("https{php}?{hash}"), json, "y77kIzt2vzLz71DgmJGsen2scGs="),
        (format!("https{php}?foo=1&bar=2&{of_nothing}"), "{}", "Ldidvp12m26NI7eqEvxnEpkd9Hc="),
    ] {
        let kind = if body.starts_with('{') { "application/json" } else { "application/x-www-form-urlencoded" };
        let headers = headers(&[("x-twilio-signature", signature), ("content-type", kind)]);
        let scheme = verification(json!({"scheme": "twilio"}));
        let received = Received { url: &url, headers: &headers, body: body.as_bytes() };
        assert_eq!(verify(&scheme, &secrets("12345", None), &received, at(0)), Ok(()), "{url}");
        let other = Received { body: b"{\"property\": \"other\"}", ..received };
        assert!(verify(&scheme, &secrets("12345", None), &other, at(0)).is_err(), "{url}");
    }
}

/// <https://github.com/standard-webhooks/standard-webhooks>: `libraries/javascript/src/webhook.test.ts` for `v1`,
/// `libraries/go/webhook_asymmetric_test.go` for `v1a`, whose public key was derived from its private key.
#[test]
fn standard_webhooks_of_both_kinds() {
    let (id, seconds, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let v1 = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    let key = "whpk_ZlN4eg7dSSqi0moX9hQUk3orrOouK3QVQSlJa248c/g=";
    let v1a = "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag==";
    assert_eq!(standard_webhooks::sign_v1(secret, id, at(seconds), body).unwrap(), v1);
    let unmarked = secret.trim_start_matches("whsec_");
    let list = format!("v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc= v2,? {v1a} {v1}");
    for (secret, previous, signature, counts) in [
        (secret, None, v1, true),
        (unmarked, None, v1, true),
        (key, None, v1a, true),
        (secret, None, &list, true),
        (key, None, &list, true),
        (secret, Some(key), v1a, true),
        (key, Some(secret), v1, true),
        (secret, None, v1a, false),
        (key, None, v1, false),
        (key, None, &v1a.replace("v1a", "v1"), false),
        (secret, None, &v1.replace("v1", "v1a"), false),
        (key, None, &v1a.replace("tQ9", "tQ8"), false),
    ] {
        let time = seconds.to_string();
        let headers = [("webhook-id", id), ("webhook-timestamp", &time), ("webhook-signature", signature)];
        let headers = headers.into_iter().collect::<Vec<_>>();
        let headers = support::headers(&headers);
        let scheme = verification(json!({"scheme": "standard_webhooks"}));
        let received = Received { url: "", headers: &headers, body };
        let verified = verify(&scheme, &secrets(secret, previous), &received, at(seconds));
        assert_eq!(verified.is_ok(), counts, "{secret} {signature}");
        let other = Received { body: br#"{"test": 2432232315}"#, ..received };
        assert!(verify(&scheme, &secrets(secret, previous), &other, at(seconds)).is_err());
    }
}

#[test]
fn a_key_of_another_kind_or_length_is_none() {
    use base64::Engine as _;
    let base64 = |length: usize| base64::engine::general_purpose::STANDARD.encode(vec![7; length]);
    let sign = |secret: &str| standard_webhooks::sign_v1(secret, "msg_1", at(1), b"").map_err(|error| error.reason());
    for length in [24, 64] {
        assert!(sign(&format!("whsec_{}", base64(length))).is_ok(), "{length}");
    }
    for length in [0, 1, 23, 65, 1_000] {
        assert_eq!(sign(&format!("whsec_{}", base64(length))), Err("secret_unusable"), "{length}");
    }
    let headers = headers(&[("webhook-id", "a"), ("webhook-timestamp", "1"), ("webhook-signature", "v1a,AA==")]);
    let received = Received { url: "", headers: &headers, body: b"" };
    let scheme = verification(json!({"scheme": "standard_webhooks"}));
    for bad in [
        format!("whsk_{}", base64(32)),
        format!("whpk_{}", base64(31)),
        "whpk_".to_owned(),
        "whsec_?".to_owned(),
        "whsec_whsec_".to_owned(),
        "s".to_owned(),
    ] {
        assert_eq!(sign(&bad), Err("secret_unusable"), "{bad}");
        for held in [secrets(&bad, None), secrets(&format!("whsec_{}", base64(24)), Some(&bad))] {
            let rejection = verify(&scheme, &held, &received, at(1)).unwrap_err();
            assert!(rejection.reason() == "secret_unusable" && rejection.is_ours(), "{bad}");
        }
    }
    let public = "whpk_ZlN4eg7dSSqi0moX9hQUk3orrOouK3QVQSlJa248c/g=";
    assert_eq!(sign(public), Err("secret_unusable"), "a public key signs nothing");
}

#[test]
fn an_id_with_a_dot_could_take_in_the_time() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let signed = standard_webhooks::sign_v1(secret, "msg_1", at(1_614_265_330), b"1714265330.x").unwrap();
    let scheme = verification(json!({"scheme": "standard_webhooks"}));
    for id in ["msg_1.1614265330", "", "a b", &"x".repeat(256)] {
        let headers =
            headers(&[("webhook-id", id), ("webhook-timestamp", "1714265330"), ("webhook-signature", &signed)]);
        let received = Received { url: "", headers: &headers, body: b"x" };
        let rejection = verify(&scheme, &secrets(secret, None), &received, at(1_714_265_330)).unwrap_err();
        assert_eq!(rejection.reason(), "id_malformed", "{id}");
        assert_eq!(standard_webhooks::sign_v1(secret, id, at(1), b"").unwrap_err().reason(), "id_malformed");
    }
    let before_1970 = standard_webhooks::sign_v1(secret, "msg_1", at(-1), b"").unwrap_err();
    assert_eq!(before_1970.reason(), "timestamp_malformed");
}
