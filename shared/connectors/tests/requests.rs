//! Requests that are made of a manifest's template and a step's input, however hostile that is.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tidegate_connectors::{Action, RequestParts, Uses};
use tidegate_model::ErrorCode;
use url::Url;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

mod support;

use support::{LOOPBACK, connector, setup};

/// An action that takes `a`, `b`, `c` and `d` and makes a request of them; members of the connector can be replaced.
fn action_of(request: &Value, with: &[(&str, Value)]) -> Arc<Action> {
    let mut manifest = json!({
        "format": 1, "name": "acme", "title": "Acme", "hosts": ["api.acme.test", "files.acme.test", "localhost:8080"],
        "base_url": "https://api.acme.test/v2/", "auth": [{"id": "none", "type": "none"}],
        "actions": {"act": {
            "title": "Act", "effect": "write",
            "input": {"type": "object", "properties": {"a": {}, "b": {}, "c": {}, "d": {}}},
            "request": request,
        }},
    });
    for (name, value) in with {
        manifest[name] = value.clone();
    }
    Arc::clone(&connector(&manifest.to_string()).actions["act"])
}

fn made_by(action: &Action, input: &Value) -> Result<RequestParts, String> {
    let made = action.request(input, None, "2026-11-20T10:00:00Z".parse().unwrap());
    made.map_err(|error| {
        assert_eq!((error.code, error.retryable), (ErrorCode::InputInvalid, false));
        error.message.strip_prefix("acme.act: ").unwrap_or(&error.message).to_owned()
    })
}

fn made(request: &Value, input: &Value) -> Result<RequestParts, String> {
    made_by(&action_of(request, &[]), input)
}

fn body(parts: &RequestParts) -> &str {
    std::str::from_utf8(parts.body.as_deref().unwrap_or_default()).unwrap()
}

fn headers(parts: &RequestParts) -> Vec<(String, String)> {
    let headers = parts.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let mut headers: Vec<_> = headers.collect();
    headers.sort();
    headers
}

#[test]
fn a_value_fills_a_part_of_one_segment_of_the_path() {
    let empty = "makes an empty, `.` or `..` segment of the address";
    let missing = "is part of the address, but has no value";
    let no_text = "is part of the address, but is no text or number";
    for (path, input, filled) in [
        ("/items/{{ input.a }}", json!({"a": "x"}), Ok("/items/x")),
        ("/items/{{ input.a }}", json!({"a": "a/b"}), Ok("/items/a%2Fb")),
        ("/items/{{ input.a }}", json!({"a": "a\\b"}), Ok("/items/a%5Cb")),
        ("/items/{{ input.a }}", json!({"a": "a?b=c#d"}), Ok("/items/a%3Fb%3Dc%23d")),
        ("/items/{{ input.a }}", json!({"a": "100%"}), Ok("/items/100%25")),
        ("/items/{{ input.a }}", json!({"a": "%2e%2E"}), Ok("/items/%252e%252E")),
        ("/items/{{ input.a }}", json!({"a": "a b+c;d=e"}), Ok("/items/a%20b%2Bc%3Bd%3De")),
        ("/items/{{ input.a }}", json!({"a": "é✓"}), Ok("/items/%C3%A9%E2%9C%93")),
        ("/items/{{ input.a }}", json!({"a": "\r\n\t\0"}), Ok("/items/%0D%0A%09%00")),
        ("/items/{{ input.a }}", json!({"a": "@evil.test:80"}), Ok("/items/%40evil.test%3A80")),
        ("/items/{{ input.a }}", json!({"a": "//evil.test"}), Ok("/items/%2F%2Fevil.test")),
        ("/items/{{ input.a }}", json!({"a": "{{ input.b }}", "b": 1}), Ok("/items/%7B%7B%20input.b%20%7D%7D")),
        ("/items/{{ input.a }}", json!({"a": "..."}), Ok("/items/...")),
        ("/items/{{ input.a }}", json!({"a": "-._~"}), Ok("/items/-._~")),
        ("/items/{{ input.a }}", json!({"a": 7}), Ok("/items/7")),
        ("/items/{{ input.a }}", json!({"a": 1.5}), Ok("/items/1.5")),
        ("/items/{{ input.a }}", json!({"a": false}), Ok("/items/false")),
        ("/items/{{ input.a }}.json", json!({"a": ".."}), Ok("/items/...json")),
        ("/items/{{ input.a }}:{{ input.b }}/x", json!({"a": "p", "b": "q/r"}), Ok("/items/p:q%2Fr/x")),
        ("/items/v{{ input.a }}", json!({"a": ""}), Ok("/items/v")),
        ("/items/{{ input.a | default('me', true) }}", json!({}), Ok("/items/me")),
        ("/items/{{ input.a | join('-') }}", json!({"a": ["x", "/"]}), Ok("/items/x-%2F")),
        ("/items/{{ now | date }}", json!({}), Ok("/items/2026-11-20")),
        ("/{{ input.a }}", json!({"a": "x"}), Ok("/x")),
        ("/", json!({}), Ok("/")),
        ("", json!({}), Ok("")),
        ("/items/{{ input.a }}", json!({"a": ""}), Err(("input.a", empty))),
        ("/items/{{ input.a }}/end", json!({"a": ""}), Err(("input.a", empty))),
        ("/items/{{ input.a }}", json!({"a": "."}), Err(("input.a", empty))),
        ("/items/{{ input.a }}/end", json!({"a": ".."}), Err(("input.a", empty))),
        ("/items/{{ input.a }}{{ input.b }}", json!({"a": ".", "b": "."}), Err(("input.a", empty))),
        ("/items/{{ input.a }}{{ input.b }}", json!({"a": "", "b": ""}), Err(("input.a", empty))),
        ("/items/.{{ input.a }}", json!({"a": "."}), Err(("input.a", empty))),
        ("/items/%2e{{ input.a }}", json!({"a": "."}), Err(("input.a", empty))),
        ("/items/{{ input.a }}%2E", json!({"a": "."}), Err(("input.a", empty))),
        ("/items/{{ input.a }}", json!({}), Err(("input.a", missing))),
        ("/items/{{ input.a }}", json!({"a": null}), Err(("input.a", missing))),
        ("/items/{{ input.a }}", json!({"a": ["x"]}), Err(("input.a", no_text))),
        ("/items/{{ input.a }}", json!({"a": {"b": "x"}}), Err(("input.a", no_text))),
    ] {
        let url = made(&json!({"method": "GET", "path": path}), &input).map(|parts| parts.url);
        match filled {
            Ok(filled) => assert_eq!(url, Ok(format!("https://api.acme.test/v2{filled}")), "{path} {input}"),
            Err((what, why)) => assert_eq!(url, Err(format!("`{what}` {why}")), "{path} {input}"),
        }
    }
}

#[test]
fn a_whole_url_may_be_on_any_of_the_hosts() {
    let url = |url: &str| {
        made(&json!({"method": "GET", "url": url, "query": {"q": "{{ input.b }}"}}), &json!({"a": "../x", "b": "&c=d"}))
    };
    for (address, expected) in [
        ("https://files.acme.test/f/{{ input.a }}", "https://files.acme.test/f/..%2Fx?q=%26c%3Dd"),
        ("http://localhost:8080/{{ input.a }}/raw", "http://localhost:8080/..%2Fx/raw?q=%26c%3Dd"),
        ("https://api.acme.test:443/f", "https://api.acme.test/f?q=%26c%3Dd"),
    ] {
        assert_eq!(url(address).unwrap().url, expected);
    }
}

#[test]
fn what_yields_nothing_is_left_out() {
    let nothing = "{{ input.a }}";
    let part = json!({
        "gone": nothing, "text": "{{ input.b }}", "no": "{{ input.c }}", "zero": "{{ input.d }}", "joined": "<{{ input.a }}>",
    });
    let request = |kind: &str, template: Value| {
        let request = json!({"method": "POST", "path": "/x", kind: template});
        // A value that is `null` is as good as one that isn't given.
        let explicit = made(&request, &json!({"a": null, "b": "", "c": false, "d": 0})).unwrap();
        let parts = made(&request, &json!({"b": "", "c": false, "d": 0})).unwrap();
        assert_eq!((&parts.url, body(&parts)), (&explicit.url, body(&explicit)));
        parts
    };
    let url = "https://api.acme.test/v2/x";
    assert_eq!(request("query", part.clone()).url, format!("{url}?text=&no=false&zero=0&joined=%3Cnull%3E"));
    assert_eq!(request("query", json!({"gone": nothing})).url, url, "without a question mark");
    let named = request("headers", json!({"X-Gone": nothing, "X-Text": "{{ input.b }}", "X-No": "{{ input.c }}"}));
    assert_eq!(headers(&named), [("x-no".to_owned(), "false".to_owned()), ("x-text".to_owned(), String::new())]);
    assert_eq!(body(&request("form", part.clone())), "text=&no=false&zero=0&joined=%3Cnull%3E");

    let filled = r#"{"text":"","no":false,"zero":0,"joined":"<null>"}"#;
    for (template, sent) in [
        (part.clone(), filled.to_owned()),
        (json!({"deep": {"er": part, "gone": nothing}, "gone": nothing}), format!(r#"{{"deep":{{"er":{filled}}}}}"#)),
        (json!([nothing, {"gone": nothing}, [{"gone": nothing}], 1]), "[null,{},[{}],1]".to_owned()),
        (json!({"written": Value::Null, "or": [Value::Null]}), r#"{"written":null,"or":[null]}"#.to_owned()),
        (json!({"else": "{{ input.a | default('x', true) }}"}), r#"{"else":"x"}"#.to_owned()),
        (json!({"{{ input.a }}": 1}), r#"{"{{ input.a }}":1}"#.to_owned()),
    ] {
        assert_eq!(body(&request("json", template.clone())), sent, "{template}");
    }
    for kind in ["json", "form", "text"] {
        let none = request(kind, json!(nothing));
        assert_eq!((none.body, none.headers.len()), (None, 0), "{kind}: no body, and no type of it");
    }
}

#[test]
fn a_whole_input_is_sent_as_it_was_given() {
    let action = action_of(&json!({"method": "POST", "path": "/x", "json": "{{ input }}"}), &[]);
    for input in [
        json!({}),
        json!({"b": 1, "a": null}),
        json!({"d": {"x": [null, "{{ input.a }}"], "a": 1.0}, "c": "é\n\"", "other": true}),
    ] {
        assert_eq!(body(&made_by(&action, &input).unwrap()), input.to_string(), "in the same order");
    }
}

#[test]
fn lists_and_objects_go_out_by_the_style_that_the_vendor_wants() {
    let template = json!({"a": "{{ input.a }}", "b": {"c": "{{ input.b }}", "d": ["x", "{{ input.c }}"]}});
    let input = json!({"a": [1, "two & 2", null], "b": {"e": {"f": true}, "g": []}, "c": {"h": "=", "i": ["j"]}});
    for (style, expected) in [
        (None, "a=1 a=two & 2 b[c][e][f]=true b[d][]=x b[d][1][h]== b[d][1][i][]=j"),
        (Some("repeated"), "a=1 a=two & 2 b[c][e][f]=true b[d][]=x b[d][1][h]== b[d][1][i][]=j"),
        (Some("brackets"), "a[]=1 a[]=two & 2 b[c][e][f]=true b[d][]=x b[d][1][h]== b[d][1][i][]=j"),
        (Some("indexed"), "a[0]=1 a[1]=two & 2 b[c][e][f]=true b[d][0]=x b[d][1][h]== b[d][1][i][0]=j"),
    ] {
        let mut request = json!({"method": "POST", "path": "/x", "query": template, "form": template});
        if let Some(style) = style {
            request["lists"] = json!(style);
        }
        let parts = made(&request, &input).unwrap();
        let sent = |text: &[u8]| {
            let pairs = url::form_urlencoded::parse(text).map(|(name, value)| format!("{name}={value}"));
            pairs.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(sent(body(&parts).as_bytes()), expected, "{style:?}");
        assert_eq!(sent(Url::parse(&parts.url).unwrap().query().unwrap().as_bytes()), expected, "{style:?}");
        assert_eq!(parts.headers["content-type"], "application/x-www-form-urlencoded");
    }
}

#[test]
fn a_requests_headers_win_over_the_connectors() {
    let common = [("headers", json!({"Accept": "application/json", "X-Version": "1", "X-Day": "{{ now | date }}"}))];
    let named = |request: Value, input: Value| {
        made_by(&action_of(&request, &common), &input)
            .map(|parts| headers(&parts).into_iter().map(|(n, v)| format!("{n}: {v}")).collect::<Vec<_>>())
    };
    let (accept, day) = ("accept: application/json", "x-day: 2026-11-20");
    let (json_type, own) = ("content-type: application/json", json!({"x-version": "{{ input.a }}"}));
    for (request, input, expected) in [
        (json!({"method": "GET", "path": "/x"}), json!({}), vec![accept, day, "x-version: 1"]),
        (json!({"method": "GET", "path": "/x", "headers": own}), json!({"a": 2}), vec![accept, day, "x-version: 2"]),
        (json!({"method": "GET", "path": "/x", "headers": own}), json!({}), vec![accept, day]),
        (json!({"method": "POST", "path": "/x", "json": []}), json!({}), vec![accept, json_type, day, "x-version: 1"]),
        (
            json!({"method": "POST", "path": "/x", "text": "a{{ input.a }}", "headers": {"X-Version": "3"}}),
            json!({}),
            vec![accept, "content-type: text/plain; charset=utf-8", day, "x-version: 3"],
        ),
        (
            json!({"method": "POST", "path": "/x", "json": {}, "headers": {"content-type": "application/vnd.acme+json", "ACCEPT": "*/*"}}),
            json!({}),
            vec!["accept: */*", "content-type: application/vnd.acme+json", day, "x-version: 1"],
        ),
    ] {
        assert_eq!(
            named(request.clone(), input.clone()),
            Ok(expected.into_iter().map(str::to_owned).collect()),
            "{request} {input}"
        );
    }
    for value in ["a\r\nX-Evil: 1", "a\nb", "a\0b", "\u{7f}"] {
        let refused = named(json!({"method": "GET", "path": "/x", "headers": own}), json!({"a": value}));
        assert_eq!(
            refused,
            Err("the header x-version has characters that a header can't carry".to_owned()),
            "{value:?}"
        );
    }
}

/// Where a constant told the forms apart, an input that fits none of them was taken.
#[test]
fn an_input_that_fits_none_of_the_forms_is_refused() {
    let forms = json!([
        {"properties": {"kind": {"const": "mail"}, "to": {"type": "string"}}, "required": ["kind", "to"]},
        {"properties": {"kind": {"const": "call"}, "number": {"type": "integer"}}, "required": ["kind", "number"]},
    ]);
    for forms_as in ["oneOf", "anyOf"] {
        let mut manifest = json!({
            "format": 1, "name": "acme", "title": "Acme", "hosts": ["api.acme.test"], "base_url": "https://api.acme.test",
            "auth": [{"id": "none", "type": "none"}],
            "actions": {"act": {
                "title": "Act", "effect": "write", "input": {"type": "object"}, "request": {"method": "POST", "path": "/"},
            }},
        });
        manifest["actions"]["act"]["input"][forms_as] = forms.clone();
        let action = Arc::clone(&connector(&manifest.to_string()).actions["act"]);
        let uses = Uses::Action(Arc::clone(&action));
        for (input, fault) in [
            (json!({"kind": "mail", "to": "a"}), None),
            (json!({"kind": "call", "number": 1}), None),
            (json!({"kind": "fax", "to": "a"}), Some(r#"/kind must be one of "mail", "call""#)),
            (json!({"kind": 7}), Some(r#"/kind must be one of "mail", "call""#)),
            (json!({"kind": "call", "to": "a"}), Some("/number is required")),
            (json!({"kind": "call", "number": "1"}), Some("/number expected a whole number, not a string")),
            (json!({"to": "a"}), Some(" has none of the forms that are allowed here")),
        ] {
            let refused = fault.map(|fault| format!("the input does not fit acme.act: /with{fault}"));
            assert_eq!(made_by(&action, &input).err(), refused, "{forms_as} {input}");
            let saved = uses.validate_step_input(input.as_object().unwrap(), |text| text.contains("{{"));
            assert_eq!(saved.len(), usize::from(fault.is_some()), "{forms_as} {input}: {saved:?}");
        }
        let later = json!({"kind": "{{ kind }}"});
        assert_eq!(
            uses.validate_step_input(later.as_object().unwrap(), |text| text.contains("{{")),
            [],
            "known in the run"
        );
    }
}

#[tokio::test]
async fn a_connections_settings_make_hosts_and_addresses() {
    let setup = setup(LOOPBACK).await;
    let acme = connector(
        r#"
        format: 1
        name: acme
        title: Acme
        hosts: ["{{ connection.shop }}.acme.test", "{{ connection.host }}"]
        base_url: https://{{ connection.shop }}.acme.test/{{ connection.version }}/
        auth:
          - id: key
            type: bearer
            fields:
              shop: { secret: false }
              host: { secret: false, default: localhost:8080 }
              version: { secret: false, default: v2 }
        actions:
          act:
            title: Act
            effect: write
            input: { type: object, properties: { a: {} } }
            request:
              method: POST
              path: /of/{{ connection.shop }}/{{ input.a }}
              headers: { X-Shop: "{{ connection.shop }}" }
              json: { shop: "{{ connection.shop }}", all: "{{ connection }}" }
        "#,
    );
    let data = |shop: &str| Map::from_iter([("shop".to_owned(), json!(shop)), ("token".to_owned(), json!("s3cret"))]);
    let made = setup.connection(&acme, "key", &data("Blue-Sea"), &[]).await;
    assert_eq!(made.connection.hosts, ["blue-sea.acme.test", "localhost:8080"]);
    let (action, now) = (&acme.actions["act"], setup.outside().now);
    let parts = action.request(&json!({"a": "../x"}), Some(&made.connection), now).unwrap();
    assert_eq!(parts.url, "https://blue-sea.acme.test/v2/of/Blue-Sea/..%2Fx");
    assert_eq!(parts.headers["x-shop"], "Blue-Sea");
    let all = json!({"shop": "Blue-Sea", "host": "localhost:8080", "version": "v2"});
    assert_eq!(body(&parts), json!({"shop": "Blue-Sea", "all": all}).to_string(), "and nothing of the secret");
    assert_eq!(action.target(&json!({}), Some(&made.connection)).as_deref(), Some("blue-sea.acme.test:443"));

    let sign_in = acme.document.sign_in("key").unwrap();
    for hostile in
        ["evil.test/", "evil.test#", "evil.test?", "u@evil", "evil.test\\", "a b", "*", "evil.test:1", "%2e", ""]
    {
        let granted = sign_in.enter(&data(hostile)).and_then(|entered| acme.document.grant(sign_in, &entered, &[]));
        let hosts = granted.map(|grant| grant.hosts);
        assert!(hosts.is_err(), "{hostile:?}: {hosts:?}");
    }
}

/// What strangers send, to leave the place that it is meant for.
const HOSTILE: &[&str] = &[
    "../../admin",
    "..%2f..%2fadmin",
    "..\\..\\admin",
    "/admin",
    "//ELSEWHERE/",
    "http://ELSEWHERE/",
    "@ELSEWHERE/",
    ":80@ELSEWHERE",
    "?admin=1",
    "#admin",
    "a&admin=1",
    "a;admin=1",
    "a=1&b[]=2",
    "x HTTP/1.1\r\nHost: ELSEWHERE\r\n\r\nGET /admin",
    "x\r\nX-Admin: 1",
    "x\nX-Admin: 1",
    "\",\"admin\":true,\"",
    "{{ connection }}",
    "{{ now }}}}{{",
    "%00\0",
    "é😀\u{202e}\u{feff}",
    "ａ．．／",
];

#[tokio::test]
async fn a_hostile_input_stays_where_it_was_put() {
    let setup = setup(LOOPBACK).await;
    let elsewhere = MockServer::start().await;
    for server in [&setup.server, &elsewhere] {
        Mock::given(any()).respond_with(ResponseTemplate::new(200)).mount(server).await;
    }
    let acme = setup.connector(
        r#"
        format: 1
        name: acme
        title: Acme
        hosts: [HOST]
        base_url: http://HOST/v2
        auth: [{ id: none, type: none }]
        actions:
          act:
            title: Act
            effect: write
            input: &input { type: object, properties: { a: {} } }
            request:
              method: POST
              path: /items/x{{ input.a }}/end
              query: { q: "{{ input.a }}", "r[s]": "-{{ input.a }}" }
              json: { a: "{{ input.a }}", b: "-{{ input.a }}", "{{ input.a }}": 1 }
          name:
            title: Name
            effect: write
            input: *input
            request: { method: POST, url: "http://HOST/v2", headers: { X-Name: "{{ input.a }}" }, form: { a: { b: ["{{ input.a }}"] } } }
        "#,
    );
    let mut names = BTreeSet::new();
    for hostile in HOSTILE {
        let hostile = hostile.replace("ELSEWHERE", &elsewhere.address().to_string());
        let input = json!({"a": hostile});
        setup
            .call(&acme.actions["act"], &input, None)
            .await
            .unwrap_or_else(|failure| panic!("{hostile:?}: {failure:?}"));
        let sent = setup.server.received_requests().await.unwrap().pop().unwrap();
        let escaped: String = hostile
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
                _ => format!("%{byte:02X}"),
            })
            .collect();
        assert_eq!(sent.url.path(), format!("/v2/items/x{escaped}/end"));
        let query: Vec<_> =
            sent.url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        assert_eq!(query, [("q".to_owned(), hostile.clone()), ("r[s]".to_owned(), format!("-{hostile}"))]);
        let body: Value = serde_json::from_slice(&sent.body).unwrap();
        assert_eq!(body, json!({"a": hostile, "b": format!("-{hostile}"), "{{ input.a }}": 1}));
        names.insert(sent.headers.keys().map(ToString::to_string).collect::<BTreeSet<_>>());

        match setup.call(&acme.actions["name"], &input, None).await {
            Ok(_) => {
                let sent = setup.server.received_requests().await.unwrap().pop().unwrap();
                assert_eq!(sent.headers["x-name"], hostile.as_str());
                assert_eq!(
                    sent.headers.keys().filter(|name| name.as_str().starts_with("x-")).count(),
                    1,
                    "{hostile:?}"
                );
                let form: Vec<_> = url::form_urlencoded::parse(&sent.body).into_owned().collect();
                assert_eq!(form, [("a[b][]".to_owned(), hostile)]);
            }
            Err(failure) => {
                assert_eq!(failure.error.code, ErrorCode::InputInvalid);
                assert!(
                    failure.error.message.contains("characters that a header can't carry"),
                    "{}",
                    failure.error.message
                );
            }
        }
    }
    assert_eq!(names.len(), 1, "always the same headers: {names:?}");
    assert!(elsewhere.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_write_carries_its_idempotency_key_and_a_read_follows_redirects() {
    let setup = setup(LOOPBACK).await;
    let acme = setup.connector(
        r#"
        format: 1
        name: acme
        title: Acme
        hosts: [HOST]
        base_url: http://HOST
        auth: [{ id: none, type: none }]
        actions:
          read: { title: Read, effect: read, input: { type: object }, request: { method: GET, path: /from } }
          ask: { title: Ask, effect: read, input: { type: object }, request: { method: POST, path: /from } }
          write: { title: Write, effect: write, input: { type: object }, request: { method: GET, path: /from } }
          own:
            title: Write
            effect: write
            input: { type: object, properties: { key: {} } }
            request: { method: POST, path: /to, headers: { Idempotency-Key: "{{ input.key }}" } }
        "#,
    );
    let moved = ResponseTemplate::new(302).insert_header("location", "/to");
    Mock::given(wiremock::matchers::path("/from")).respond_with(moved).mount(&setup.server).await;
    Mock::given(wiremock::matchers::path("/to")).respond_with(ResponseTemplate::new(200)).mount(&setup.server).await;
    for (action, input, succeeds, sent) in [
        ("read", json!({}), true, vec![("GET /from", None), ("GET /to", None)]),
        ("ask", json!({}), false, vec![("POST /from", None)]),
        ("write", json!({}), false, vec![("GET /from", Some("key-1"))]),
        ("own", json!({}), true, vec![("POST /to", Some("key-1"))]),
        ("own", json!({"key": "mine"}), true, vec![("POST /to", Some("mine"))]),
    ] {
        let before = setup.server.received_requests().await.unwrap().len();
        let answered = setup.call(&acme.actions[action], &input, None).await;
        assert_eq!(answered.is_ok(), succeeds, "{action}: {answered:?}");
        if let Err(failure) = answered {
            assert!(failure.error.message.contains("302") && !failure.error.retryable, "{}", failure.error.message);
        }
        let requests = setup.server.received_requests().await.unwrap();
        let requests: Vec<_> = requests[before..]
            .iter()
            .map(|sent| {
                let key = sent.headers.get("idempotency-key").map(|key| key.to_str().unwrap().to_owned());
                (format!("{} {}", sent.method, sent.url.path()), key)
            })
            .collect();
        let sent: Vec<_> = sent.into_iter().map(|(line, key)| (line.to_owned(), key.map(str::to_owned))).collect();
        assert_eq!(requests, sent, "{action}");
    }
}
