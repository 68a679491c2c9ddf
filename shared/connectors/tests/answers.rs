//! What answers mean by a manifest's rules, what a step yields of them, and how their pages follow each other.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use tidegate_connectors::{Action, Connector, Failure};
use tidegate_egress::OutboundResponse;
use tidegate_model::ErrorCode;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

mod support;

use support::{LOOPBACK, Made, Setup, connector, setup};

/// An action whose connector and which itself say these things of their answers.
fn action_of(of_connector: &Value, of_action: &Value) -> Arc<Action> {
    let mut manifest = json!({
        "format": 1, "name": "acme", "title": "Acme", "hosts": ["api.acme.test"], "base_url": "https://api.acme.test",
        "auth": [{"id": "key", "type": "bearer"}],
        "actions": {"act": {
            "title": "Act", "effect": "read", "input": {"type": "object", "properties": {"a": {}, "b": {}}},
            "request": {"method": "GET", "path": "/"},
        }},
    });
    for (document, said) in [("", of_connector), ("/actions/act", of_action)] {
        let document = manifest.pointer_mut(document).unwrap().as_object_mut().unwrap();
        document.extend(said.as_object().unwrap().clone());
    }
    Arc::clone(&connector(&manifest.to_string()).actions["act"])
}

fn response(status: u16, headers: &[(&'static str, &str)], body: impl Into<Bytes>) -> OutboundResponse {
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
        .collect();
    OutboundResponse { status, headers, body: body.into() }
}

fn read(action: &Action, response: OutboundResponse) -> Result<Value, Failure> {
    action.output(response, &json!({"a": "given"}), true, "2026-11-20T10:00:00Z".parse().unwrap())
}

#[test]
fn the_first_rule_that_fits_says_what_an_answer_means() {
    let of_action = json!({"errors": [
        {"when": "body.code == 7", "is": "ok"},
        {"when": "status == 404 and body.none", "is": "ok"},
        {"when": "body.a.b.c == 1", "is": "failed"},
        {"when": "body.n + 1", "is": "failed"},
        {"when": "body.text", "is": "failed"},
        {"when": "headers['x-fault'] == input.a", "is": "invalid"},
        {"when": "{{ body.code == 8 }}", "is": "connection_broken"},
    ]});
    let of_connector = json!({"errors": [
        {"when": "body.code in [7, 8, 9]", "is": "rate_limited"},
        {"when": "body.down", "is": "retryable"},
        {"when": "body.refused", "is": "failed"},
        {"when": "body.refused or body.late", "is": "invalid"},
        {"when": "body is sequence and body | length > 0 and body[0].gone", "is": "failed"},
    ]});
    let action = action_of(&of_connector, &of_action);
    let (failed, retried) = (Some((ErrorCode::TargetFailed, false)), Some((ErrorCode::TargetFailed, true)));
    let (invalid, limited) = (Some((ErrorCode::ResponseInvalid, false)), Some((ErrorCode::RateLimited, true)));
    let broken = Some((ErrorCode::ConnectionUnusable, false));
    for (status, body, fails) in [
        (200, json!({}), None),
        (299, json!(null), None),
        (500, json!({"code": 7}), None),
        (404, json!({"none": true}), None),
        (404, json!({"none": 1}), failed),
        (404, json!({"none": false}), failed),
        (200, json!({"code": 8}), broken),
        (200, json!({"code": 9}), limited),
        (200, json!({"down": true, "refused": true}), retried),
        (200, json!({"refused": true}), failed),
        (200, json!({"late": true, "refused": false}), invalid),
        // None of these is true: the rules look for something else, or for nothing that can be told.
        (200, json!({"late": true}), None),
        (200, json!({"a": {"b": {}}, "n": "x", "text": "true"}), None),
        (200, json!({"n": 0}), None),
        (200, json!("text"), None),
        (200, json!([]), None),
        (200, json!([{"gone": true}]), failed),
        // By the status alone.
        (401, json!({}), broken),
        (403, json!({}), failed),
        (302, json!({}), failed),
        (408, json!({}), retried),
        (425, json!({}), retried),
        (429, json!({}), limited),
        (500, json!({}), retried),
        (599, json!({}), retried),
    ] {
        let read = read(&action, response(status, &[], body.to_string()));
        let code = read.as_ref().err().map(|failure| (failure.error.code, failure.error.retryable));
        assert_eq!(code, fails, "{status} {body}");
        match read {
            Ok(output) => assert_eq!(output, json!({"status": status, "body": body})),
            Err(failure) => {
                assert_eq!(failure.is_connection_broken, fails == broken, "{status} {body}");
                assert_eq!(failure.is_target_down, fails == retried, "{status} {body}");
            }
        }
    }
    let by_header = read(&action, response(200, &[("x-fault", "given")], "{}")).unwrap_err();
    assert_eq!(by_header.error.code, ErrorCode::ResponseInvalid);
    assert_eq!(read(&action, response(200, &[("x-fault", "else")], "{}")), Ok(json!({"status": 200, "body": {}})));
    let error_page =
        read(&action, response(502, &[("content-type", "text/html")], "<h1>Bad gateway</h1>")).unwrap_err();
    assert!(
        error_page.is_target_down && error_page.error.message.contains("Bad gateway"),
        "{}",
        error_page.error.message
    );
}

#[test]
fn what_went_wrong_is_told_in_the_vendors_words_with_a_hint() {
    let of_action = json!({
        "errors": [
            {"when": "body.rule == 1", "is": "failed", "message": "{{ body.code }}: {{ body.why }}", "hint": "the rule's own hint"},
            {"when": "body.rule == 2", "is": "failed", "message": "{{ body.why }}"},
            {"when": "body.rule == 3", "is": "connection_broken", "message": "refused"},
            {"when": "body.rule == 4", "is": "retryable"},
        ],
        "error_message": "{{ body.error }}",
        "hints": {"gone": "it was the action", "both": "first"},
    });
    let of_connector = json!({
        "error_message": "{{ body.errors | map(attribute='text') | join(', ') }}",
        "hints": {"gone, lost": "it was the connector", "both": "second"},
    });
    let action = action_of(&of_connector, &of_action);
    let other = " (another attempt would be answered alike; change the step or its connection)";
    for (status, body, expected) in [
        (400, json!({"rule": 1, "code": 7, "why": "late"}), "400 Bad Request: 7: late (the rule's own hint)"),
        // A message that can't be made is none: the next says it, and the hint stays.
        (200, json!({"rule": 1, "code": 7, "error": "gone"}), "200 OK: gone (the rule's own hint)"),
        (400, json!({"rule": 2, "why": "", "error": "gone"}), "400 Bad Request: gone (it was the action)"),
        (400, json!({"rule": 2, "why": null, "error": "both"}), "400 Bad Request: both (first)"),
        (400, json!({"error": "else"}), &format!("400 Bad Request: else{other}")),
        (400, json!({"error": 12}), &format!("400 Bad Request: 12{other}")),
        (
            422,
            json!({"errors": [{"text": "gone"}, {"text": "lost"}]}),
            "422 Unprocessable Entity: gone, lost (it was the connector)",
        ),
        (400, json!({"what": [1]}), &format!("400 Bad Request: {{\"what\":[1]}}{other}")),
        (400, json!("words"), &format!("400 Bad Request: \"words\"{other}")),
        (403, json!({"rule": 3}), "403 Forbidden: refused (check the connection's credential)"),
        (503, json!({"rule": 4, "error": "busy"}), "503 Service Unavailable: busy"),
        (429, json!({"error": "both"}), "429 Too Many Requests: both (first)"),
        (700, json!({"error": "odd"}), "700: odd"),
        (
            400,
            json!({"error": "the key sk_live_4eC39HqLyjWDarjtT1zdp7dc\nand token=abc"}),
            &format!("400 Bad Request: the key *** and token=***{other}"),
        ),
        (
            400,
            json!({"error": {"text": "no", "api_token": "abc"}}),
            &format!("400 Bad Request: {{\"text\":\"no\",\"api_token\":\"***\"}}{other}"),
        ),
    ] {
        let message = read(&action, response(status, &[], body.to_string())).unwrap_err().error.message;
        assert_eq!(message, format!("acme.act: the target answered {expected}"), "{body}");
    }
    let long = read(&action, response(400, &[], json!({"error": "x y ".repeat(1_000)}).to_string())).unwrap_err();
    assert!(long.error.message.len() < 500, "{}", long.error.message);
    let nothing = read(&action, response(400, &[], "")).unwrap_err().error.message;
    assert_eq!(nothing, format!("acme.act: the target answered 400 Bad Request{other}"));
}

#[test]
fn how_long_to_wait_is_said_by_the_vendor() {
    let of_action = json!({
        "errors": [
            {"when": "body.rule", "is": "rate_limited", "retry_after": "body.rule_wait"},
            {"when": "body.down", "is": "retryable"},
            {"when": "body.no", "is": "failed", "retry_after": "7"},
        ],
        "retry_after": "body.wait_ms / 1000",
    });
    let of_connector = json!({"retry_after": "{{ headers['x-reset'] | int - (now | unix) }}"});
    let action = action_of(&of_connector, &of_action);
    let soon = "1795168830"; // 30 s after now
    for (body, headers, waits) in [
        (json!({"rule": true, "rule_wait": 1.5, "wait_ms": 9}), &[("retry-after", "99")][..], Some(1_500)),
        (json!({"rule": true, "wait_ms": 2500}), &[("retry-after", "99")], Some(2_500)),
        (json!({"rule": true, "rule_wait": "5", "wait_ms": 2500}), &[], Some(2_500)),
        (json!({"rule": true, "rule_wait": -5}), &[("retry-after", "99")], Some(99_000)),
        (json!({"rule": true}), &[("x-reset", soon), ("retry-after", "99")], Some(30_000)),
        (json!({"rule": true}), &[("x-reset", "soon"), ("retry-after", "99")], Some(99_000)),
        (json!({"rule": true}), &[("retry-after", "Fri, 20 Nov 2026 10:01:30 GMT")], Some(90_000)),
        (json!({"rule": true, "rule_wait": 1e300}), &[], Some(366 * 86_400_000)),
        (json!({"rule": true, "rule_wait": 0}), &[("retry-after", "99")], Some(0)),
        (json!({"rule": true}), &[], None),
        (json!({"down": true, "wait_ms": 1}), &[], Some(1)),
        (json!({"down": true}), &[("retry-after", "9")], Some(9_000)),
        (json!({"no": true}), &[("retry-after", "9")], None),
    ] {
        let error = read(&action, response(200, headers, body.to_string())).unwrap_err().error;
        assert_eq!(error.retry_after_ms, waits, "{body} {headers:?}");
    }
}

#[test]
fn an_answer_is_what_the_manifest_says_it_is() {
    let (json_type, html) = ("application/json; charset=utf-8", "text/html");
    let is_none = "but its JSON is none";
    let broken = "but its JSON is broken: ";
    for (kind, content_type, body, expected) in [
        ("json", json_type, r#"{"a": 1}"#, Ok(json!({"a": 1}))),
        ("json", html, "[1]", Ok(json!([1]))),
        ("json", "", "null", Ok(json!(null))),
        ("json", "", "", Ok(json!(null))),
        ("json", html, "<p>", Err(is_none)),
        ("json", json_type, "<p>", Err(broken)),
        ("json", json_type, r#"{"a": 1"#, Err(broken)),
        ("json", json_type, r#"{"a": 1} x"#, Err(broken)),
        ("text", json_type, r#"{"a": 1}"#, Ok(json!(r#"{"a": 1}"#))),
        ("text", html, "<p>", Ok(json!("<p>"))),
        ("text", json_type, "{", Ok(json!("{"))),
        ("text", "", "", Ok(json!(null))),
        ("any", json_type, r#"{"a": 1}"#, Ok(json!({"a": 1}))),
        ("any", "application/problem+json", "[1]", Ok(json!([1]))),
        ("any", "APPLICATION/JSON", "[1]", Ok(json!([1]))),
        ("any", html, "[1]", Ok(json!("[1]"))),
        ("any", "", "[1]", Ok(json!("[1]"))),
        ("any", json_type, "{", Err(broken)),
        ("any", json_type, "", Ok(json!(null))),
    ] {
        let action = action_of(&json!({}), &json!({"answer": kind}));
        let headers: &[(&str, &str)] = if content_type.is_empty() { &[] } else { &[("content-type", content_type)] };
        match (read(&action, response(200, headers, body.to_owned())), expected) {
            (Ok(output), Ok(expected)) => assert_eq!(output, json!({"status": 200, "body": expected}), "{kind} {body}"),
            (Err(failure), Err(reason)) => {
                assert_eq!((failure.error.code, failure.error.retryable), (ErrorCode::ResponseInvalid, false));
                assert!(failure.error.message.contains(reason), "{kind} {body}: {}", failure.error.message);
            }
            (other, expected) => panic!("{kind} {content_type} {body}: {other:?} instead of {expected:?}"),
        }
    }
    for (kind, succeeds) in [("json", false), ("text", true), ("any", true)] {
        let action = action_of(&json!({}), &json!({"answer": kind}));
        let output = read(&action, response(200, &[], &b"\xff\0"[..]));
        assert_eq!(
            output.ok(),
            succeeds.then(|| json!({"status": 200, "body": "/wA=", "encoding": "base64"})),
            "{kind}"
        );
    }
    // A rule may make a success of it, but no JSON of what is none.
    let action = action_of(&json!({}), &json!({"errors": [{"when": "status == 404", "is": "ok"}]}));
    assert_eq!(read(&action, response(404, &[], "<p>")).unwrap_err().error.code, ErrorCode::ResponseInvalid);
}

#[test]
fn an_output_is_made_of_the_answer_and_the_input() {
    let action = action_of(
        &json!({}),
        &json!({
            "errors": [{"when": "status == 404", "is": "ok"}],
            "output": {
                "found": "{{ status != 404 }}", "id": "{{ body.id | default(none) }}", "type": "{{ headers['content-type'] }}",
                "for": "{{ input.a }}/{{ input.b }}", "nothing": "{{ input.b }}", "at": "{{ now }}", "fixed": [1, null],
            },
        }),
    );
    let made = |id: Value, found: bool| {
        json!({
            "found": found, "id": id, "type": "application/json", "for": "given/null", "nothing": null,
            "at": "2026-11-20T10:00:00Z", "fixed": [1, null],
        })
    };
    let headers = [("content-type", "application/json")];
    assert_eq!(read(&action, response(201, &headers, r#"{"id": [{"n": 1.0}]}"#)), Ok(made(json!([{"n": 1.0}]), true)));
    assert_eq!(read(&action, response(404, &headers, "{}")), Ok(made(Value::Null, false)));
    let unread = read(&action, response(200, &[], "{}")).unwrap_err();
    assert_eq!((unread.error.code, unread.error.retryable), (ErrorCode::ResponseInvalid, false));
    let promise = "acme.act: the target's answer is not what its documentation promises: ";
    assert!(unread.error.message.starts_with(promise), "{}", unread.error.message);
    assert!(!unread.is_connection_broken && !unread.is_target_down);

    let whole = action_of(&json!({}), &json!({"output": "{{ body.items }}"}));
    assert_eq!(read(&whole, response(200, &[], r#"{"items": [1]}"#)), Ok(json!([1])));
}

/// A vendor with so many items, in pages of three.
const ITEMS: usize = 7;

/// Answers by path, as the manifest below reads it.
fn vendor(host: &str, elsewhere: &str) -> impl Fn(&Request) -> ResponseTemplate + Send + Sync + 'static {
    let (host, elsewhere) = (host.to_owned(), elsewhere.to_owned());
    move |request| {
        let query = |name: &str| {
            request.url.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
        };
        let number = |name: &str| query(name).and_then(|text| text.parse::<usize>().ok());
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let of = query("of").unwrap_or_default();
        let count = if of == "many" { 2_000 } else { ITEMS };
        let size = if of == "many" { 600 } else { 3 };
        let page = |from: usize| (from..(from + size).min(count)).map(|n| json!({"id": n})).collect::<Vec<_>>();
        let path = request.url.path();
        let from = number("after").or(body["after"].as_u64().map(|n| usize::try_from(n).unwrap())).unwrap_or(0);
        let next = (from + size < count).then_some(from + size);
        let here = |next: usize| format!("{path}?of={of}&after={next}");
        let ok = |body: Value| ResponseTemplate::new(200).set_body_json(body);
        match path {
            "/cursor" => ok(match (next, of.as_str()) {
                (Some(next), "text") => json!({"items": page(from), "next": next.to_string()}),
                (Some(next), _) => json!({"items": page(from), "next": next}),
                (None, "text") => json!({"items": page(from), "next": ""}),
                (None, "no") => json!({"items": page(from), "next": false}),
                (None, "missing") => json!({"items": page(from)}),
                (None, _) => json!({"items": page(from), "next": null}),
            }),
            "/endless" => ok(json!({"items": [{"id": 0}], "next": 1})),
            "/failing" if from > 0 => ResponseTemplate::new(429).insert_header("retry-after", "7"),
            "/listless" if from > 0 => ok(json!({"items": {}, "next": null})),
            "/idless" if from > 0 => ok(json!({"items": [{}], "next": null})),
            "/failing" | "/listless" | "/idless" => ok(json!({"items": page(from), "next": next})),
            "/next" => ok(json!({"items": page(from), "next": next.map(|next| match of.as_str() {
                "absolute" => format!("{host}{}", here(next)),
                "query" => format!("?of={of}&after={next}"),
                "host" => format!("{elsewhere}/next?after={next}"),
                "scheme" => format!("https:{}{}", host.trim_start_matches("http:"), here(next)),
                "file" => "file:///etc/passwd".to_owned(),
                "user" => format!("http://u@{elsewhere}/").replace("http://u@http://", "http://u@"),
                "double" => format!("//{}", elsewhere.trim_start_matches("http://")),
                "none" => "http://[".to_owned(),
                "key" => format!("{}&key={}", here(next), query("key").unwrap_or_default()),
                _ => here(next),
            })})),
            "/link" => {
                let first = format!("<{}>; rel=\"first\"; title=\"a\\\"; rel=next, <b>\"", here(0));
                let next = next.map(|next| match of.as_str() {
                    "plain" => format!("<{}>; rel=next", here(next)),
                    "comma" => format!("<{}&x=a,b;c>; title=\"a, b\"; REL=\"last NEXT\"", here(next)),
                    "host" => format!("<{elsewhere}/link>; rel=\"next\""),
                    _ => format!("<{}>; rel=\"next\"", here(next)),
                });
                let links: Vec<_> = std::iter::once(first).chain(next).collect();
                let template = ok(json!(page(from)));
                match of.as_str() {
                    "apart" => {
                        links.iter().fold(template, |template, link| template.append_header("link", link.as_str()))
                    }
                    "bare" => template,
                    _ => template.insert_header("link", links.join(", ").as_str()),
                }
            }
            "/page" => ok(json!(page(number("page").unwrap_or(0).saturating_sub(1) * size))),
            "/zero" => ok(json!(page(number("page").unwrap_or(99) * size))),
            "/offset" => ok(json!(page(number("skip").unwrap_or(0)))),
            _ => ResponseTemplate::new(404),
        }
    }
}

const PAGES: &str = r#"
format: 1
name: acme
title: Acme
hosts: [HOST]
base_url: http://HOST
auth: [{ id: key, type: bearer }, { id: in_query, type: api_key, in: query, name: key }]
actions:
  cursor:
    title: By cursor
    effect: read
    input: &input { type: object, properties: { of: { type: string } }, additionalProperties: false }
    request: { method: GET, path: /cursor, query: &query { of: "{{ input.of }}" } }
    paging: &cursor { items: body.items, cursor: { value: "{{ body.next }}", query: after } }
    output: { id: "{{ item.id }}", of: "{{ input.of }}", next: "{{ body.next | default(none) }}" }
  in_json:
    title: By cursor in JSON
    effect: read
    input: *input
    request: { method: POST, path: /cursor, json: { of: "{{ input.of }}", size: 3 } }
    paging: { items: "{{ body.items }}", cursor: { value: body.next, json: after } }
  endless: { title: E, effect: read, input: *input, request: { method: GET, path: /endless }, paging: *cursor }
  failing: { title: F, effect: read, input: *input, request: { method: GET, path: /failing }, paging: *cursor }
  listless: { title: L, effect: read, input: *input, request: { method: GET, path: /listless }, paging: *cursor }
  idless:
    title: I
    effect: read
    input: *input
    request: { method: GET, path: /idless }
    paging: *cursor
    output: "{{ item.id }}"
  next:
    title: By address
    effect: read
    input: *input
    request: { method: GET, path: /next, query: *query }
    paging: { items: body.items, next_url: body.next }
  link:
    title: By link
    effect: read
    input: *input
    request: { method: GET, path: /link, query: *query }
    paging: { items: body, link: true }
  page: { title: P, effect: read, input: *input, request: { method: GET, path: /page, query: *query }, paging: { items: body, page: { query: page } } }
  sized: { title: P, effect: read, input: *input, request: { method: GET, path: /page }, paging: { items: body, page: { query: page, size: 3 } } }
  zero: { title: P, effect: read, input: *input, request: { method: GET, path: /zero }, paging: { items: body, page: { query: page, first: 0 } } }
  offset: { title: O, effect: read, input: *input, request: { method: GET, path: /offset }, paging: { items: body, offset: { query: skip } } }
  skipped: { title: O, effect: read, input: *input, request: { method: GET, path: /offset }, paging: { items: body, offset: { query: skip, size: 3 } } }
"#;

struct Paged {
    setup: Setup,
    elsewhere: MockServer,
    acme: Connector,
}

impl Paged {
    async fn new() -> Self {
        let setup = setup(LOOPBACK).await;
        let elsewhere = MockServer::start().await;
        for server in [&setup.server, &elsewhere] {
            Mock::given(any()).respond_with(vendor(&setup.server.uri(), &elsewhere.uri())).mount(server).await;
        }
        let acme = setup.connector(PAGES);
        Self { setup, elsewhere, acme }
    }

    async fn connection(&self, auth: &str, field: &str) -> Made {
        let data = Map::from_iter([(field.to_owned(), json!("s3cr3ts3cr3t"))]);
        self.setup.connection(&self.acme, auth, &data, &[]).await
    }

    /// What the action yields, and the requests that it made.
    async fn call(&self, action: &str, input: Value, made: &Made) -> (Result<Value, Failure>, Vec<Request>) {
        let before = self.setup.server.received_requests().await.unwrap().len();
        let called = self.setup.call(&self.acme.actions[action], &input, Some(made)).await;
        let mut requests = self.setup.server.received_requests().await.unwrap();
        (called, requests.split_off(before))
    }
}

fn ids(output: &Value) -> Vec<u64> {
    output["items"].as_array().unwrap().iter().map(|item| item["id"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn all_pages_are_read_however_they_follow_each_other() {
    let paged = Paged::new().await;
    let made = paged.connection("key", "token").await;
    for (action, input, queries) in [
        ("cursor", json!({}), vec!["", "after=3", "after=6"]),
        ("cursor", json!({"of": "text"}), vec!["of=text", "of=text&after=3", "of=text&after=6"]),
        ("cursor", json!({"of": "no"}), vec!["of=no", "of=no&after=3", "of=no&after=6"]),
        ("cursor", json!({"of": "missing"}), vec!["of=missing", "of=missing&after=3", "of=missing&after=6"]),
        (
            "cursor",
            json!({"of": "a&after=6"}),
            vec!["of=a%26after%3D6", "of=a%26after%3D6&after=3", "of=a%26after%3D6&after=6"],
        ),
        ("in_json", json!({}), vec!["", "", ""]),
        ("next", json!({}), vec!["", "of=&after=3", "of=&after=6"]),
        ("next", json!({"of": "absolute"}), vec!["of=absolute", "of=absolute&after=3", "of=absolute&after=6"]),
        ("next", json!({"of": "query"}), vec!["of=query", "of=query&after=3", "of=query&after=6"]),
        ("link", json!({}), vec!["", "of=&after=3", "of=&after=6"]),
        ("link", json!({"of": "plain"}), vec!["of=plain", "of=plain&after=3", "of=plain&after=6"]),
        ("link", json!({"of": "comma"}), vec!["of=comma", "of=comma&after=3&x=a,b;c", "of=comma&after=6&x=a,b;c"]),
        ("link", json!({"of": "apart"}), vec!["of=apart", "of=apart&after=3", "of=apart&after=6"]),
        ("page", json!({"of": "x"}), vec!["of=x&page=1", "of=x&page=2", "of=x&page=3", "of=x&page=4"]),
        ("sized", json!({}), vec!["page=1", "page=2", "page=3"]),
        ("zero", json!({}), vec!["page=0", "page=1", "page=2", "page=3"]),
        ("offset", json!({}), vec!["", "skip=3", "skip=6", "skip=7"]),
        ("skipped", json!({}), vec!["", "skip=3", "skip=6"]),
    ] {
        let (output, requests) = paged.call(action, input.clone(), &made).await;
        let output = output.unwrap_or_else(|failure| panic!("{action} {input}: {failure:?}"));
        assert_eq!((ids(&output), &output["complete"]), ((0..7).collect(), &json!(true)), "{action} {input}");
        let sent: Vec<_> = requests.iter().map(|request| request.url.query().unwrap_or_default()).collect();
        assert_eq!(sent, queries, "{action} {input}");
        assert!(requests.iter().all(|request| request.headers["authorization"] == "Bearer s3cr3ts3cr3t"));
        if action == "cursor" {
            let of = input.get("of").unwrap_or(&Value::Null);
            let item = |output: &Value, index: usize| {
                (output["items"][index]["of"].clone(), output["items"][index]["next"].to_string())
            };
            assert_eq!(item(&output, 3).0, *of, "each item is made with its page and the input");
            assert_eq!(item(&output, 3).1.trim_matches('"'), "6", "{output}");
        }
        if action == "in_json" {
            let bodies: Vec<Value> =
                requests.iter().map(|request| serde_json::from_slice(&request.body).unwrap()).collect();
            assert_eq!(bodies, [json!({"size": 3}), json!({"size": 3, "after": 3}), json!({"size": 3, "after": 6})]);
        }
    }
    let (bare, requests) = paged.call("link", json!({"of": "bare"}), &made).await;
    assert_eq!((ids(&bare.unwrap()), requests.len()), (vec![0, 1, 2], 1), "no link, no further page");
}

#[tokio::test]
async fn no_more_items_are_fetched_than_were_asked_for() {
    let paged = Paged::new().await;
    let made = paged.connection("key", "token").await;
    for (action, max, count, complete, requests) in [
        ("cursor", Some(1), 1, false, 1),
        ("cursor", Some(3), 3, false, 1),
        ("cursor", Some(4), 4, false, 2),
        ("cursor", Some(7), 7, true, 3),
        ("cursor", Some(10_000), 7, true, 3),
        ("sized", Some(6), 6, false, 2),
        ("offset", Some(7), 7, false, 3),
        ("link", Some(2), 2, false, 1),
    ] {
        let input = json!({"max_items": max, "of": "x"});
        let (output, sent) = paged.call(action, input, &made).await;
        let output = output.unwrap();
        assert_eq!(ids(&output), (0..count).collect::<Vec<_>>(), "{action} {max:?}");
        assert_eq!((&output["complete"], sent.len()), (&json!(complete), requests), "{action} {max:?}");
    }
    let (many, sent) = paged.call("cursor", json!({"of": "many"}), &made).await;
    let many = many.unwrap();
    assert_eq!(
        (ids(&many).len(), &many["complete"], sent.len()),
        (1_000, &json!(false), 2),
        "a thousand where nothing is said"
    );
    let (endless, sent) = paged.call("endless", json!({"max_items": 10_000}), &made).await;
    let endless = endless.unwrap();
    assert_eq!((ids(&endless).len(), &endless["complete"], sent.len()), (200, &json!(false), 200));
    for max in [json!(0), json!(10_001), json!("7"), json!(1.5)] {
        let (refused, sent) = paged.call("cursor", json!({"max_items": max}), &made).await;
        let refused = refused.unwrap_err().error;
        assert!(refused.message.contains("/with/max_items "), "{}", refused.message);
        assert_eq!((refused.code, sent.len()), (ErrorCode::InputInvalid, 0), "{max}");
    }
}

#[tokio::test]
async fn a_page_that_fails_or_leads_away_fails_the_call() {
    let paged = Paged::new().await;
    let made = paged.connection("key", "token").await;
    let (limited, _) = paged.call("failing", json!({}), &made).await;
    let limited = limited.unwrap_err().error;
    assert_eq!((limited.code, limited.retryable, limited.retry_after_ms), (ErrorCode::RateLimited, true, Some(7_000)));
    for (action, of, reason) in [
        ("listless", None, "the page has no list of items"),
        ("idless", None, "`item.id` is not there"),
        ("next", Some("host"), "the next page's address is on another host"),
        ("next", Some("scheme"), "the next page's address is on another host"),
        ("next", Some("file"), "the next page's address is on another host"),
        ("next", Some("user"), "the next page's address is on another host"),
        ("next", Some("double"), "the next page's address is on another host"),
        ("next", Some("none"), "the next page's address is none"),
        ("link", Some("host"), "the next page's address is on another host"),
    ] {
        let (refused, sent) = paged.call(action, of.map_or(json!({}), |of| json!({"of": of})), &made).await;
        let refused = refused.unwrap_err();
        assert_eq!(
            (refused.error.code, refused.error.retryable),
            (ErrorCode::ResponseInvalid, false),
            "{action} {of:?}"
        );
        assert!(refused.error.message.contains(reason), "{action} {of:?}: {}", refused.error.message);
        assert_eq!(sent.len(), if of.is_some() { 1 } else { 2 }, "{action} {of:?}");
    }
    assert!(paged.elsewhere.received_requests().await.unwrap().is_empty());
}

/// The answer's copy of the secret is masked: with it in the place of the secret the vendor would refuse the next page.
#[tokio::test]
async fn a_next_address_that_repeats_the_key_is_called_with_the_connections_own() {
    let paged = Paged::new().await;
    let made = paged.connection("in_query", "api_key").await;
    let (output, requests) = paged.call("next", json!({"of": "key"}), &made).await;
    assert_eq!(ids(&output.unwrap()), (0..7).collect::<Vec<_>>());
    let sent: Vec<_> = requests.iter().map(|request| request.url.query().unwrap_or_default()).collect();
    assert_eq!(sent, ["of=key&key=s3cr3ts3cr3t", "of=key&after=3&key=s3cr3ts3cr3t", "of=key&after=6&key=s3cr3ts3cr3t"]);
}

/// An output that repeats a page's text for each of its items made gigabytes of one megabyte.
#[tokio::test]
async fn what_comes_of_pages_is_bounded_as_what_they_bring() {
    let setup = setup(LOOPBACK).await;
    let items: Vec<_> = (0..2_000).collect();
    let page = json!({"pad": "x".repeat(200_000), "items": items});
    Mock::given(any()).respond_with(ResponseTemplate::new(200).set_body_json(page)).mount(&setup.server).await;
    let host = setup.server.address().to_string();
    let manifest = json!({
        "format": 1, "name": "acme", "title": "Acme", "hosts": [host], "base_url": format!("http://{host}"),
        "auth": [{"id": "none", "type": "none"}],
        "actions": {"act": {
            "title": "Act", "effect": "read", "input": {"type": "object"}, "request": {"method": "GET", "path": "/"},
            "paging": {"items": "{{ body.items }}", "link": true}, "output": {"x": "{{ body.pad }}", "n": "{{ item }}"},
        }},
    });
    let action = Arc::clone(&connector(&manifest.to_string()).actions["act"]);
    let output = setup.call(&action, &json!({}), None).await.unwrap();
    let count = output["items"].as_array().unwrap().len();
    assert!(output["complete"] == false && (100..200).contains(&count), "{count} items");
}

#[test]
fn an_input_with_many_faults_is_refused_in_few_words() {
    let long = "x".repeat(50_000);
    let action = action_of(
        &json!({}),
        &json!({"input": {
            "type": "object", "properties": {"list": {"type": "array", "items": {"enum": [long]}}},
        }}),
    );
    let errors = action.input.errors(&json!({"list": vec![0; 3_000]}), |_| false);
    assert_eq!(errors.len(), 50);
    assert!(errors.iter().all(|error| error.detail.len() <= 1_000));
}

#[test]
fn an_optional_field_that_is_null_counts_as_left_out() {
    let action = action_of(
        &json!({}),
        &json!({"input": {
            "type": "object", "required": ["must"], "additionalProperties": false,
            "properties": {
                "must": {"type": "string"}, "may": {"type": "string"}, "either": {"type": ["string", "null"]}, "any": {},
            },
        }}),
    );
    let given = |input: Value| action.given(&input).into_owned();
    assert_eq!(given(json!({"must": "a", "may": null})), json!({"must": "a"}));
    let kept = json!({"must": null, "either": null, "any": null, "unknown": null, "may": "b"});
    assert_eq!(given(kept.clone()), kept);
}
