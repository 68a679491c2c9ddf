//! What is built in: its names, what its actions take, how they read the answers that vendors document, and which hosts the
//! secret of a connection may go to.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tidegate_connectors::{Action, Failure, Uses, builtins, catalogue};
use tidegate_egress::OutboundResponse;
use tidegate_model::{
    Builtin, Entry, ErrorCode, Event, FieldError, MAX_JSON_DEPTH, MAX_JSON_VALUES, Payload, RunDetail, RunStatus,
    StepRecord,
};

fn the(name: &str) -> &'static Action {
    catalogue::action(name).unwrap()
}

fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> OutboundResponse {
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
        .collect();
    OutboundResponse { status, headers, body: Bytes::copy_from_slice(body.as_bytes()) }
}

fn read(name: &str, response: OutboundResponse) -> Result<Value, Failure> {
    the(name).output(response, &json!({}), true, "2026-11-20T10:00:00Z".parse().unwrap())
}

fn texts(errors: Vec<FieldError>) -> Vec<String> {
    errors.into_iter().map(|error| format!("{} {}", error.pointer, error.detail)).collect()
}

fn is_template(text: &str) -> bool {
    text.contains("{{")
}

fn check(uses: &str, with: &Value) -> Vec<String> {
    texts(Uses::named(uses).unwrap().validate_step_input(with.as_object().unwrap(), is_template))
}

#[test]
fn what_is_built_in_is_found_by_its_name_and_by_a_name_near_to_it() {
    for connector in catalogue::connectors() {
        for (name, action) in &connector.actions {
            assert_eq!(action.name, format!("{}.{name}", connector.name()));
            assert_eq!(action.input.document()["type"], "object", "{}", action.name);
        }
    }
    assert!(builtins().map(|action| action.builtin).eq(Builtin::ALL), "each built-in action has its place");
    let all: Vec<Uses> = Uses::all().collect();
    for uses in &all {
        assert!(Uses::named(uses.name()).is_some_and(|found| found.name() == uses.name()));
        assert!(!uses.title().is_empty() && uses.input().document()["type"] == "object", "{}", uses.name());
    }
    for unknown in ["", "slack", "slack.", ".send_message", "logic.iff", "nobody.request"] {
        assert!(Uses::named(unknown).is_none(), "{unknown:?}");
    }
    for (name, nearest) in [
        ("slack.sendMessage", Some("slack.send_message")),
        ("http.get", Some("http.request")),
        ("logic.iff", Some("logic.if")),
        ("time.wait", Some("time.delay")),
        ("salesforce.upsert_record_in_bulk_mode_of_everything", None),
        ("nobody.knows_what_this_is", None),
    ] {
        assert_eq!(Uses::nearest(name, all.iter().map(Uses::name)), nearest, "{name}");
    }
}

#[test]
fn built_in_actions_say_what_they_take() {
    let workflow = "wf_01890a5d000070008000000000000000";
    for (uses, with) in [
        ("logic.if", json!({"condition": "order.total > 100"})),
        ("logic.if", json!({"condition": true})),
        (
            "logic.switch",
            json!({"value": "{{ kind }}", "cases": [{"name": "a", "equals": null}, {"name": "b", "when": "n > 1"}]}),
        ),
        ("data.set", json!({"anything": {"at": ["{{ all }}"]}})),
        ("data.set", json!({})),
        ("data.transform", json!({"input": "{{ lines }}", "query": "[].sku"})),
        ("time.delay", json!({"duration": 1.5})),
        ("time.delay", json!({"duration": "366d"})),
        ("time.delay", json!({"duration": "{{ params.wait }}"})),
        ("time.wait_until", json!({"until": "2027-01-31T09:00:00+01:00"})),
        ("time.wait_until", json!({"until": "{{ now }}"})),
        ("approval.wait", json!({})),
        ("approval.wait", json!({"message": "Pay {{ amount }}?", "timeout": "2d"})),
        ("workflow.call", json!({"workflow": workflow})),
        ("workflow.call", json!({"workflow": workflow, "parameters": "{{ all }}", "body": [1]})),
    ] {
        assert_eq!(check(uses, &with), [""; 0], "{uses} {with}");
    }
    let wait = "must be a number of seconds, or a text such as \"30s\", \"10m\", \"2h\" or \"7d\"";
    let until = "/until expected a time with its offset, such as \"2027-01-31T09:00:00Z\"";
    let call = "/workflow expected a workflow's id (wf_…), written out: an expression can't name the workflow";
    let case = |case: Value| json!({"value": 1, "cases": [{"name": "first", "equals": 1}, case]});
    for (uses, with, error) in [
        ("logic.if", json!({}), "/condition is required"),
        ("logic.if", json!({"condition": 1}), "/condition expected true or false or a string, not a number"),
        ("logic.if", json!({"condition": ""}), "/condition must not be empty"),
        ("logic.switch", json!({}), "/cases is required"),
        ("logic.switch", json!({"cases": []}), "/cases must have at least 1 elements"),
        (
            "logic.switch",
            json!({"cases": "{{ cases }}"}),
            "/cases expected a list, written out: an expression can't bring the cases",
        ),
        ("logic.switch", case(json!({"name": "b"})), "/cases/1 needs at least one of when, equals"),
        (
            "logic.switch",
            case(json!({"name": "b", "when": "x", "equals": 1})),
            "/cases/1 takes only one of when, equals",
        ),
        ("logic.switch", case(json!({"name": "B", "when": "x"})), "/cases/1/name must match ^[a-z][a-z0-9_]{0,63}$"),
        ("logic.switch", case(json!({"when": "x"})), "/cases/1/name is required"),
        (
            "logic.switch",
            case(json!({"name": "{{ b }}", "when": "x"})),
            "/cases/1/name expected a name, written out: an expression can't name an outlet",
        ),
        (
            "logic.switch",
            case(json!({"name": "default", "when": "x"})),
            "/cases/1/name is the outlet where no case fits; choose another name",
        ),
        (
            "logic.switch",
            case(json!({"name": "first", "when": "x"})),
            "/cases/1/name is the name of an earlier case; names must be unique",
        ),
        (
            "logic.switch",
            json!({"cases": [{"name": "a", "equals": 1}]}),
            "/cases/0/equals there is nothing to compare with: give the step a value, or the case a `when`",
        ),
        ("data.transform", json!({"input": 1}), "/query is required"),
        ("data.transform", json!({"input": 1, "query": "a", "q": 1}), "/q unknown field; remove it"),
        ("time.delay", json!({}), "/duration is required"),
        ("time.delay", json!({"duration": true}), "/duration expected a number or a string, not a boolean"),
        ("time.delay", json!({"duration": "10"}), &format!("/duration {wait}")),
        ("time.delay", json!({"duration": "367d"}), "/duration must be at most 366 days"),
        ("time.wait_until", json!({"until": "2027-01-31"}), until),
        ("time.wait_until", json!({"until": "2027-01-31T09:00:00"}), until),
        ("approval.wait", json!({"message": 1}), "/message expected a string, not a number"),
        ("approval.wait", json!({"timeout": -1}), &format!("/timeout {wait}")),
        ("workflow.call", json!({"workflow": "wf_1"}), call),
        ("workflow.call", json!({"workflow": "{{ params.workflow }}"}), call),
        (
            "workflow.call",
            json!({"workflow": workflow, "parameters": [1]}),
            "/parameters expected an object, not a list",
        ),
    ] {
        assert_eq!(check(uses, &with), [error], "{uses} {with}");
    }
}

#[test]
fn inputs_are_checked_by_field_and_templates_are_left_to_the_run() {
    for (uses, with, errors) in [
        ("slack.send_message", json!({"text": "Hello {{user.name}}!", "blocks": "{{ blocks }}"}), &[][..]),
        ("slack.send_message", json!({}), &[" needs at least one of text, blocks, attachments"]),
        ("slack.send_message", json!({"text": 7}), &["/text expected a string, not a number"]),
        ("slack.send_message", json!({"text": "{{ a }}", "txet": "{{ b }}"}), &["/txet unknown field; remove it"]),
        ("discord.send_message", json!({"content": "x".repeat(2001)}), &["/content must have at most 2000 characters"]),
        ("discord.send_message", json!({"content": format!("{{{{ x }}}}{}", "x".repeat(2001))}), &[]),
        ("discord.send_message", json!({"embeds": ["{{ e }}", 3]}), &["/embeds/1 expected an object, not a number"]),
        ("http.request", json!({"method": "GET"}), &["/url is required"]),
        (
            "http.request",
            json!({"method": "FETCH", "url": "{{ url }}"}),
            &[r#"/method must be one of "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS""#],
        ),
        (
            "http.request",
            json!({"method": "{{ m }}", "url": "u", "json": {}, "body": ""}),
            &[" takes only one of json, body"],
        ),
        (
            "http.request",
            json!({"method": "GET", "url": "u", "headers": {"a/b": {}}}),
            &["/headers/a~1b expected true or false or a number or a string, not an object"],
        ),
        (
            "http.request",
            json!({"method": "GET", "url": "u", "paging": {"type": "cursor", "query": "c"}}),
            &["/paging/value is required"],
        ),
    ] {
        assert_eq!(check(uses, &with), errors, "{uses} {with}");
    }
}

#[test]
fn slack_answers_are_read_as_documented() {
    let ok = read("slack.send_message", answer(200, &[("content-type", "text/html")], "ok"));
    assert_eq!(ok, Ok(json!({"status": 200, "body": "ok"})));
    for (status, text, hint, is_broken) in [
        (400, "invalid_payload", "Block Kit", false),
        (403, "action_prohibited", "administrators", false),
        (404, "channel_not_found", "new webhook", false),
        (410, "channel_is_archived", "unarchive", false),
        (404, "no_service", "disabled or removed", true),
        (403, "invalid_token", "revoked", true),
    ] {
        let failure = read("slack.send_message", answer(status, &[], text)).unwrap_err();
        let code = if is_broken { ErrorCode::ConnectionUnusable } else { ErrorCode::TargetFailed };
        assert_eq!((failure.is_connection_broken, failure.is_target_down), (is_broken, false), "{text}");
        let error = failure.error;
        assert_eq!((error.code, error.retryable, error.retry_after_ms), (code, false, None), "{text}");
        assert!(error.message.contains(&format!("{text} (")) && error.message.contains(hint), "{}", error.message);
        assert!(error.message.contains(&status.to_string()), "{}", error.message);
    }
    let down = read("slack.send_message", answer(500, &[], "rollup_error")).unwrap_err();
    assert_eq!((down.error.code, down.error.retryable, down.is_target_down), (ErrorCode::TargetFailed, true, true));
    let limited = read("slack.send_message", answer(429, &[("retry-after", "30")], "rate_limited")).unwrap_err();
    let error = limited.error;
    assert_eq!((error.code, error.retryable, error.retry_after_ms), (ErrorCode::RateLimited, true, Some(30_000)));
    assert!(!limited.is_target_down, "who asks for a pause is there");
}

#[test]
fn discord_answers_are_read_as_documented() {
    assert_eq!(read("discord.send_message", answer(204, &[], "")), Ok(json!({"status": 204, "body": null})));
    let json = [("content-type", "application/json")];
    let gone = read("discord.send_message", answer(404, &json, r#"{"message": "Unknown Webhook", "code": 10015}"#));
    let gone = gone.unwrap_err();
    assert_eq!((gone.error.code, gone.error.retryable), (ErrorCode::ConnectionUnusable, false));
    assert!(gone.is_connection_broken);
    assert!(gone.error.message.contains("Unknown Webhook (the webhook was deleted"), "{}", gone.error.message);
    let limited = answer(
        429,
        &[("content-type", "application/json"), ("retry-after", "65")],
        r#"{"message": "You are being rate limited.", "retry_after": 64.57, "global": false}"#,
    );
    let error = read("discord.send_message", limited).unwrap_err().error;
    assert_eq!((error.code, error.retryable, error.retry_after_ms), (ErrorCode::RateLimited, true, Some(64_570)));
}

#[test]
fn http_answers_become_output_or_a_classified_error() {
    let json = [("content-type", "application/problem+json; charset=utf-8"), ("x-a", "1"), ("x-a", "2")];
    let output = read("http.request", answer(201, &json, r#"{"id": 12345678901234567890}"#)).unwrap();
    assert_eq!(output["body"], json!({"id": 12_345_678_901_234_567_890_u64}));
    assert_eq!(output["headers"]["x-a"], "1, 2");
    assert_eq!(read("http.request", answer(200, &json, "")).unwrap()["body"], Value::Null);
    assert_eq!(read("http.request", answer(200, &[], "[1]")).unwrap()["body"], "[1]");
    let bytes = OutboundResponse { body: Bytes::from_static(&[0xff, 0]), ..answer(200, &[], "") };
    let output = read("http.request", bytes).unwrap();
    assert_eq!((&output["body"], &output["encoding"]), (&json!("/wA="), &json!("base64")));
    let broken = read("http.request", answer(200, &json, "{")).unwrap_err().error;
    assert_eq!((broken.code, broken.retryable), (ErrorCode::ResponseInvalid, false));

    for status in [408, 425, 429, 500, 502, 503, 504] {
        let failure = read("http.request", answer(status, &[], "")).unwrap_err();
        assert!(failure.error.retryable, "{status}");
        assert_eq!(failure.is_target_down, status != 429, "{status}");
    }
    for status in [301, 304, 400, 401, 403, 404, 409, 410, 422] {
        let failure = read("http.request", answer(status, &[], "")).unwrap_err();
        assert!(!failure.error.retryable && !failure.is_target_down, "{status}");
        assert_eq!(failure.is_connection_broken, status == 401, "{status}");
    }
    let open =
        the("http.request").output(answer(401, &[], ""), &json!({}), false, "2026-11-20T10:00:00Z".parse().unwrap());
    let open = open.unwrap_err();
    assert_eq!(
        (open.error.code, open.is_connection_broken),
        (ErrorCode::TargetFailed, false),
        "there is none to break"
    );

    let after = |value: &str| {
        read("http.request", answer(503, &[("retry-after", value)], "")).unwrap_err().error.retry_after_ms
    };
    assert_eq!(after("120"), Some(120_000));
    assert_eq!(after("Fri, 20 Nov 2026 10:01:30 GMT"), Some(90_000));
    assert_eq!(after("Fri, 20 Nov 2026 09:00:00 GMT"), Some(0));
    assert_eq!((after("soon"), after("-1"), after("NaN")), (None, None, None));
    assert_eq!(after("1e300"), Some(366 * 86_400_000));

    let moved = read("http.request", answer(302, &[("location", "https://new.example.com/x?token=1")], ""));
    let moved = moved.unwrap_err().error.message;
    assert!(moved.ends_with("(it redirects to new.example.com; call that address itself)"), "{moved}");
    let told = read("http.request", answer(400, &[], "token=abcdef is wrong")).unwrap_err().error.message;
    assert!(told.contains("token=*** is wrong") && !told.contains("abcdef"), "{told}");
}

/// Answers of 120 levels and more made run records unreadable: these wrap them, and the parser stops at 127 levels.
#[test]
fn an_answer_that_is_taken_can_be_recorded() {
    let json = [("content-type", "application/json")];
    let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    let output = read("http.request", answer(200, &json, &nested(MAX_JSON_DEPTH))).unwrap();
    let at = "2026-11-20T10:00:00Z".parse().unwrap();
    let payload = Payload::Inline(output);
    let event = Event::Succeeded { output: payload.clone(), outlet: None };
    let entries = vec![Entry { step: "s".to_owned(), item: None, attempt: 1, at, event }];
    let journal = json!({ "entries": entries }).to_string();
    let stored: Value = serde_json::from_str(&journal).unwrap();
    assert_eq!(serde_json::from_value::<Vec<Entry>>(stored["entries"].clone()).unwrap(), entries);
    let step = StepRecord {
        id: "s".to_owned(),
        uses: "http.request".to_owned(),
        status: RunStatus::Succeeded,
        input: None,
        output: Some(payload),
        outlet: None,
        error: None,
        attempts: Vec::new(),
        items: Vec::new(),
    };
    let detail = RunDetail { trigger: None, steps: vec![step], output: None };
    let folded = Payload::Inline(serde_json::to_value(&detail).unwrap());
    let row = json!({ "detail": folded }).to_string();
    let stored: Value = serde_json::from_str(&row).unwrap();
    let Payload::Inline(stored) = serde_json::from_value(stored["detail"].clone()).unwrap() else { panic!("{stored}") };
    assert_eq!(serde_json::from_value::<RunDetail>(stored).unwrap(), detail);

    for levels in [101, 119, 126, 200] {
        let refused = read("http.request", answer(200, &json, &nested(levels))).unwrap_err().error;
        assert_eq!((refused.code, refused.retryable), (ErrorCode::ResponseInvalid, false), "{levels}");
        assert!(refused.message.contains("its JSON has more than 100 levels of nesting"), "{}", refused.message);
    }
}

#[test]
fn an_answers_values_are_bounded() {
    let json = [("content-type", "application/json")];
    let list = |length: usize| format!("[{}0]", "0,".repeat(length - 1));
    assert!(read("http.request", answer(200, &json, &list(MAX_JSON_VALUES - 1))).is_ok());
    let refused = read("http.request", answer(200, &json, &list(MAX_JSON_VALUES))).unwrap_err().error;
    assert_eq!((refused.code, refused.retryable), (ErrorCode::ResponseInvalid, false));
    assert!(refused.message.contains("its JSON has more than 100000 values"), "{}", refused.message);
    let reserved = r#"{"$serde_json::private::RawValue": "[]"}"#;
    let refused = read("http.request", answer(200, &json, reserved)).unwrap_err().error;
    assert_eq!(refused.code, ErrorCode::ResponseInvalid);
    // An error's text is read as JSON too, to hide secrets in it.
    let failed = read("http.request", answer(500, &[], &list(MAX_JSON_VALUES))).unwrap_err().error;
    assert_eq!(failed.message, "http.request: the target answered 500 Internal Server Error");
}

#[test]
fn secrets_fix_their_hosts_and_errors_never_repeat_them() {
    let hosts = |name: &str, auth: &str, data: Value, given: &[&str]| {
        let document = &catalogue::connector(name).unwrap().document;
        let sign_in = document.sign_in(auth).unwrap();
        let entered = sign_in.enter(data.as_object().unwrap()).map_err(texts)?;
        let given: Vec<String> = given.iter().map(|&host| host.to_owned()).collect();
        document.grant(sign_in, &entered, &given).map(|grant| grant.hosts).map_err(texts)
    };
    let webhook = |url: &str| hosts("slack", "webhook", json!({ "webhook_url": url }), &[]);
    assert_eq!(webhook("https://Hooks.Slack.com/services/T/B/x").unwrap(), ["hooks.slack.com"]);
    assert_eq!(webhook("http://127.0.0.1:9000/hook").unwrap(), ["127.0.0.1:9000"]);
    assert_eq!(webhook("http://[::1]:9000/hook").unwrap(), ["[::1]:9000"]);
    assert_eq!(webhook("https://x.org:443/").unwrap(), ["x.org"]);
    for bad in ["http://hooks.slack.com/s3cret", "ftp://x.org/s3cret", "s3cret", "https://u:s3cret@x.org/"] {
        let errors = webhook(bad).unwrap_err();
        assert!(
            errors.len() == 1 && errors[0].starts_with("/data/webhook_url ") && !errors[0].contains("s3cret"),
            "{errors:?}"
        );
    }
    assert_eq!(hosts("discord", "webhook", json!({}), &[]).unwrap_err(), ["/webhook_url is required"]);
    let elsewhere = hosts("slack", "webhook", json!({"webhook_url": "https://x.org"}), &["y.org"]).unwrap_err();
    assert!(elsewhere[0].starts_with("/hosts must be left out"), "{elsewhere:?}");
    let listed = hosts("discord", "bot_token", json!({"api_key": "s3cret"}), &["y.org"]).unwrap_err();
    assert!(listed[0].starts_with("/hosts must be left out"), "{listed:?}");
    assert_eq!(hosts("discord", "bot_token", json!({"api_key": "s3cret"}), &[]).unwrap(), ["discord.com"]);

    let bearer = json!({"token": "s3cret"});
    let given = hosts("http", "bearer", bearer.clone(), &["B.org", "a.org:8443", "b.org"]);
    assert_eq!(given.unwrap(), ["a.org:8443", "b.org"]);
    assert!(hosts("http", "bearer", bearer.clone(), &[]).unwrap_err()[0].starts_with("/hosts is required"));
    for bad in ["https://a.org", "*.a.org", "a.org/x", "", " a.org", "u@a.org", "a.org\\@b.org", "a.org?", "a.org#"] {
        let errors = hosts("http", "bearer", bearer.clone(), &["ok.org", bad]).unwrap_err();
        assert!(errors[0].starts_with("/hosts/1 "), "{bad}: {errors:?}");
    }
    for (auth, data, error) in [
        ("bearer", json!({}), "/token is required"),
        ("bearer", json!({"token": ""}), "/token must not be empty"),
        ("bearer", json!({"token": ["s3cret"]}), "/token expected a string"),
        ("bearer", json!({"tokn": "s3cret"}), "/tokn unknown field of \"bearer\": it has token"),
        ("bearer", json!({"token": "s3cret\n"}), "/token must match ^[ -~]+$"),
        ("basic", json!({"username": "s3cret:u", "password": "p"}), "/username must match ^[^:]*$"),
        ("header", json!({"name": "a b", "value": "s3cret"}), "/name must match ^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"),
        (
            "header",
            json!({"name": "Host", "value": "s3cret"}),
            "/data/name is set by the connection itself; choose another header",
        ),
    ] {
        let errors = hosts("http", auth, data, &["a.org"]).unwrap_err();
        assert!(errors.iter().any(|e| e == error), "{errors:?}");
        assert!(!errors.concat().contains("s3cret"), "{errors:?}");
    }
    let key = json!({"api_key": "s3cret\r\nX: y"});
    let smuggled = hosts("discord", "bot_token", key, &[]).unwrap_err();
    assert_eq!(smuggled, ["/data/api_key has characters that a header can't carry"]);
}
