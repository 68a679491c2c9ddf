//! Manifests that tenants bring: a sound one is read, and of one that isn't each fault is told where it stands.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use serde_json::{Value, json};
use tidegate_connectors::manifest::Manifest;
use tidegate_connectors::{MAX_MANIFEST_BYTES, check_manifest, is_reserved, manifest_schema, read_manifest};

/// A manifest with something of everything.
const SOUND: &str = r#"
format: 1
name: acme
title: Acme
hosts: [api.acme.test, files.acme.test, "{{ connection.domain }}.acme.test", "localhost:8080"]
base_url: https://api.acme.test/v2/{{ connection.domain }}
headers: { X-Version: "2", X-Domain: "{{ connection.domain }}" }
auth:
  - id: key
    type: api_key
    in: header
    name: X-Key
    prefix: "Key "
    value: "{{ secret.api_key }}-{{ connection.domain }}"
    fields:
      domain: { title: Domain, secret: false, pattern: "^[a-z]+$" }
      api_key: { title: Key }
  - { id: in_query, type: api_key, in: query, name: key, fields: &shared { domain: { secret: false } } }
  - { id: token, type: bearer, fields: { domain: { secret: false, default: eu, options: [eu, us] } } }
  - { id: login, type: basic, fields: *shared }
  - id: sign_in
    type: oauth2
    authorization_url: https://{{ connection.domain }}.acme.test/authorize
    token_url: http://localhost:8080/token
    fields: *shared
  - id: parts
    type: custom
    fields: { domain: { secret: false }, name: { secret: false }, value: {} }
    headers: { "{{ connection.name }}": "{{ secret.value }}" }
    query: { v: "{{ secret.value }}" }
  - { id: hook, type: url }
  - { id: nobody, type: none, fields: *shared }
rate_limit: { requests: 5, per_seconds: 1 }
test: { request: { method: GET, path: /me }, account: "{{ body.name }}", auth: [key, token] }
errors: [{ when: status == 409, is: failed, message: "{{ body.error }}", retry_after: body.wait }]
error_message: "{{ body.message }}"
retry_after: headers["x-wait"]
actions:
  create:
    title: Create
    effect: write
    auth: [key, token]
    input:
      type: object
      properties:
        customer: { type: string, minLength: 1, x-options: { action: find, value: id, label: name } }
        note: { type: string }
      required: [customer]
    request:
      method: POST
      path: /customers/{{ input.customer }}/orders
      query: { at: "{{ now }}" }
      headers: { X-Note: "{{ input.note }}" }
      json: { note: "{{ input.note }}", domain: "{{ connection.domain }}" }
    output: { id: "{{ body.id }}", at: "{{ headers.date }}", note: "{{ input.note }}" }
    example: { input: { customer: c_1 } }
  find:
    title: Find
    effect: read
    auth: [key]
    input: { type: object, properties: { name: { type: string } } }
    request: { method: GET, url: "https://files.acme.test/find/{{ input.name }}" }
    paging: { items: body.items, cursor: { value: "{{ body.next }}", query: after } }
    output: { id: "{{ item.id }}" }
  tell:
    title: Tell
    effect: write
    auth: [hook]
    input: { type: object }
    request: { method: POST, json: "{{ input }}" }
"#;

fn sound() -> Value {
    serde_json::to_value(read(SOUND)).unwrap()
}

fn read(text: &str) -> Manifest {
    read_manifest(text).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn faults(text: &str) -> Vec<String> {
    let errors = read_manifest(text).err().unwrap_or_default();
    errors.into_iter().map(|error| format!("{} {}", error.pointer, error.detail)).collect()
}

/// The manifest with other values at some places; a place that isn't there is made, `null` takes it away.
fn changed(changes: &[(&str, Value)]) -> Value {
    let mut document = sound();
    for (pointer, value) in changes {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let name = name.replace("~1", "/");
        match document.pointer_mut(parent).unwrap_or_else(|| panic!("there is no {parent}")) {
            Value::Object(members) if value.is_null() => drop(members.shift_remove(&name)),
            Value::Object(members) => drop(members.insert(name, value.clone())),
            Value::Array(items) => items[name.parse::<usize>().unwrap()] = value.clone(),
            _ => panic!("{parent} has no members"),
        }
    }
    document
}

/// Each change makes one fault, at a place, whose detail has a text in it.
fn each_is_refused(cases: &[(&str, Value, &str, &str)]) {
    let mut wrong = Vec::new();
    for (pointer, value, at, detail) in cases {
        let faults = faults(&changed(&[(pointer, value.clone())]).to_string());
        if faults.len() != 1 || !faults[0].starts_with(&format!("{at} ")) || !faults[0].contains(detail) {
            wrong.push(format!("{pointer} = {value}: {faults:#?}\n  instead of {at} … {detail}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_sound_manifest_is_read_as_yaml_and_as_json() {
    let manifest = read(SOUND);
    assert_eq!(manifest.connector.auth.len(), 8);
    assert_eq!(
        manifest.actions.keys().collect::<Vec<_>>(),
        ["create", "find", "tell"],
        "in the order they are written"
    );
    assert_eq!(read(&sound().to_string()), manifest);
    assert_eq!(check_manifest(sound()).unwrap(), manifest);
    assert_eq!(read(&serde_json::to_string_pretty(&sound()).unwrap()), manifest);

    let page = include_str!("../../../docs/connector-manifest.md");
    let example = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(read(example).connector.name, "acme");
    assert_eq!(manifest_schema()["additionalProperties"], false);
}

#[test]
fn what_a_manifest_can_also_say_is_no_fault() {
    for (pointer, value) in [
        ("/base_url", json!("https://API.acme.test:443/v2/")),
        ("/base_url", json!("http://localhost:8080")),
        ("/hosts/2", json!("api.acme.test:8443")),
        ("/hosts/2", json!("[::1]:8080")),
        ("/hosts/2", json!("127.0.0.1:8080")),
        ("/auth/3/username", json!("{{ connection.domain }}")),
        ("/auth/3/password", json!("x")),
        ("/actions/create/request/path", json!("")),
        ("/actions/create/request/path", json!("/")),
        ("/actions/create/request/path", json!("/a-{{ input.customer }}.{{ input.note }}/b:c,d")),
        ("/actions/create/request/url", json!("http://localhost:8080/")),
        ("/actions/create/request/json", json!("{{ input }}")),
        ("/actions/create/request/json", json!([null, 1, {"a": "{{ input.note | default('') }}"}])),
        ("/actions/create/idempotent", json!(true)),
        ("/actions/create/connection", json!("optional")),
        ("/actions/create/answer", json!("any")),
        ("/actions/create/input/properties/$ref", json!({"type": "string", "title": "a field of this name"})),
        ("/actions/find/paging", json!({"items": "body", "link": true})),
        ("/actions/find/paging", json!({"items": "{{ body }}", "page": {"query": "p", "first": 0, "size": 10}})),
        ("/actions/find/paging", json!({"items": "body", "offset": {"query": "o"}})),
        ("/actions/find/paging", json!({"items": "body", "next_url": "body.next"})),
        ("/actions/find/paging", json!({"items": "body", "cursor": {"value": "body.next", "json": "after"}})),
    ] {
        let mut changes = vec![(pointer, value.clone())];
        if pointer == "/actions/create/request/url" {
            changes.push(("/actions/create/request/path", Value::Null));
        }
        let also = changed(&changes);
        assert_eq!(faults(&also.to_string()), [""; 0], "{pointer} = {value}");
    }
}

#[test]
fn a_manifest_has_the_shape_of_the_published_schema() {
    each_is_refused(&[
        ("/colour", json!("red"), "/colour", "unknown field; remove it"),
        ("/actions/create/retries", json!(3), "/actions/create/retries", "unknown field; remove it"),
        ("/actions/create/request/body", json!({}), "/actions/create/request/body", "unknown field; remove it"),
        ("/errors/0/then", json!("x"), "/errors/0/then", "unknown field; remove it"),
        ("/auth/0/realm", json!("x"), "/auth/0/realm", "unknown field; remove it"),
        ("/auth/0/fields/domain/hidden", json!(true), "/auth/0/fields/domain/hidden", "unknown field; remove it"),
        ("/title", Value::Null, "/title", "is required"),
        ("/hosts", Value::Null, "/hosts", "is required"),
        ("/actions", Value::Null, "/actions", "is required"),
        ("/actions", json!({}), "/actions", "must have at least one"),
        ("/format", json!(2), "/format", "1"),
        ("/format", json!("1"), "/format", "1"),
        ("/name", json!("Acme"), "/name", "must match ^[a-z][a-z0-9_]{1,39}$"),
        ("/name", json!("a"), "/name", "must match"),
        ("/category", json!("fun"), "/category", r#"must be one of "communication""#),
        ("/docs", json!("javascript:alert(1)"), "/docs", "must match ^https?://"),
        ("/base_url", json!("ftp://api.acme.test"), "/base_url", "must match ^https?://"),
        ("/hosts", json!("all"), "/hosts", "expected a list, not a string"),
        ("/auth", json!([]), "/auth", "must have at least 1 elements"),
        ("/auth/0/name", Value::Null, "/auth/0/name", "is required"),
        ("/auth/0/in", json!("cookie"), "/auth/0/in", r#"must be one of "header", "query""#),
        ("/auth/0/type", json!("magic"), "/auth/0/type", r#"must be one of "none", "api_key", "bearer""#),
        ("/auth/0/type", Value::Null, "/auth/0", "has none of the forms that are allowed here"),
        ("/rate_limit/requests", json!(0), "/rate_limit/requests", "1"),
        ("/errors/0/is", json!("bad"), "/errors/0/is", r#"must be one of "failed", "retryable""#),
        ("/test/request", Value::Null, "/test/request", "is required"),
        ("/actions/create/effect", Value::Null, "/actions/create/effect", "is required"),
        ("/actions/create/request", Value::Null, "/actions/create", "needs at least one of request, native"),
        ("/actions/create/request/method", json!("TRACE"), "/actions/create/request/method", "must be one of"),
        ("/actions/create/request/path", json!("orders"), "/actions/create/request/path", "must match ^$|^/"),
        ("/actions/create/request/lists", json!("comma"), "/actions/create/request/lists", "must be one of"),
        ("/actions/create/input/type", json!("array"), "/actions/create/input/type", "object"),
        ("/actions/create/answer", json!("xml"), "/actions/create/answer", "must be one of"),
        ("/actions/find/paging/items", Value::Null, "/actions/find/paging/items", "is required"),
        (
            "/actions/find/paging/cursor/query",
            Value::Null,
            "/actions/find/paging/cursor",
            "needs at least one of query, json",
        ),
        (
            "/actions/find/paging/cursor",
            Value::Null,
            "/actions/find/paging",
            "needs at least one of cursor, next_url, link, page, offset",
        ),
        ("/actions/find/paging/link", json!(true), "/actions/find/paging", "has more than one of the forms"),
        (
            "/actions/find/paging/cursor/json",
            json!("c"),
            "/actions/find/paging/cursor",
            "has more than one of the forms",
        ),
    ]);
    let bad_name = faults(&changed(&[("/actions/Create", sound()["actions"]["tell"].clone())]).to_string());
    assert!(bad_name.len() == 1 && bad_name[0].starts_with("/actions"), "{bad_name:?}");
}

#[test]
fn what_is_for_built_in_connectors_is_refused() {
    let built_in = "is the name of a built-in connector; choose another, such as";
    each_is_refused(&[
        ("/name", json!("slack"), "/name", built_in),
        ("/name", json!("logic"), "/name", built_in),
        ("/name", json!("event"), "/name", built_in),
        ("/hosts", json!("given"), "/hosts", "only built-in connectors leave the hosts to their connections"),
        ("/auth/4/provider", json!("google"), "/auth/4/provider", "is for built-in connectors"),
        ("/actions/tell/effect", json!("by_method"), "/actions/tell/effect", "must be read or write"),
    ]);
    let both = faults(&changed(&[("/actions/tell/native", json!("smtp"))]).to_string());
    assert_eq!(both[0], "/actions/tell takes only one of request, native");
    let native = changed(&[("/actions/tell/native", json!("storage")), ("/actions/tell/request", Value::Null)]);
    assert_eq!(faults(&native.to_string()), ["/actions/tell/native is for built-in connectors; describe the request"]);
    assert!(is_reserved("data") && is_reserved("http") && is_reserved("code") && !is_reserved("acme"));
}

#[test]
fn requests_go_to_the_connectors_hosts_alone() {
    let host = "expected a host such as \"api.example.com\"";
    let placeholder = "only `{{ secret.field }}` and `{{ connection.field }}` can be written in braces here";
    let none = "which is none of the connector's hosts";
    let path = "/actions/create/request/path";
    each_is_refused(&[
        ("/hosts/2", json!("*.acme.test"), "/hosts/2", host),
        ("/hosts/2", json!("*"), "/hosts/2", host),
        ("/hosts/2", json!("https://acme.test"), "/hosts/2", host),
        ("/hosts/2", json!("acme.test/v2"), "/hosts/2", host),
        ("/hosts/2", json!("u@acme.test"), "/hosts/2", host),
        ("/hosts/2", json!("acme.test?x"), "/hosts/2", host),
        ("/hosts/2", json!(" acme.test"), "/hosts/2", host),
        ("/hosts/2", json!("acme.test:x"), "/hosts/2", host),
        ("/hosts/2", json!("{{ connection.region }}.acme.test"), "/hosts/2", "names `connection.region`"),
        ("/hosts/2", json!("{{ connection.api_key }}.acme.test"), "/hosts/2", "names `connection.api_key`"),
        ("/hosts/2", json!("{{ secret.api_key }}.acme.test"), "/hosts/2", placeholder),
        ("/hosts/2", json!("{{ input.host }}"), "/hosts/2", placeholder),
        ("/base_url", json!("https://acme.test/v2"), "/base_url", none),
        ("/base_url", json!("https://api.acme.test:8443"), "/base_url", none),
        ("/base_url", json!("https://api.acme.test@evil.test/"), "/base_url", none),
        ("/base_url", json!("https://evil.test\\@api.acme.test/"), "/base_url", none),
        ("/base_url", json!("https://api.acme.test#"), "/base_url", "must not have a query or fragment"),
        ("/base_url", json!("https://api.acme.test/v2?a=b"), "/base_url", "must not have a query or fragment"),
        ("/base_url", json!("http://api.acme.test/v2"), "/base_url", "must begin with https://"),
        ("/base_url", json!("https://api.acme.test/{{ connection.region }}"), "/base_url", "names `connection.region`"),
        ("/base_url", json!("https://api.acme.test/{{ input.note }}"), "/base_url", placeholder),
        (path, json!("/a?b={{ input.note }}"), path, "write the query as `query`"),
        (path, json!("/a#b"), path, "must not have a query or fragment"),
        (path, json!("/a\\b"), path, "must not have a backslash"),
        (path, json!("/a\tb"), path, "must not have a backslash"),
        (path, json!("/{{ input.customer "), path, "`{{` without its `}}`"),
    ]);

    let url = |url: &str| {
        let request = "/actions/create/request";
        let at_url = format!("{request}/url");
        faults(&changed(&[(&at_url, json!(url)), (&format!("{request}/path"), Value::Null)]).to_string())
    };
    for (address, detail) in [
        ("https://evil.test/x", none),
        ("https://api.acme.test.evil.test/x", none),
        ("https://u:p@api.acme.test/x", none),
        ("http://api.acme.test/x", "plain http is only for a host with its port"),
        ("https://api.acme.test", "needs a path after its host"),
        ("https://api.acme.test/x?y=1", "write the query as `query`"),
        ("https://{{ input.note }}/x", none),
        ("https://{{ input.note }}/x", "can't have an expression before its path"),
        ("https://api.acme.test{{ input.note }}/x", none),
        ("https://{{ secret.api_key }}.acme.test/x", none),
    ] {
        let faults = url(address);
        let is_told =
            faults.iter().any(|fault| fault.starts_with("/actions/create/request/url ") && fault.contains(detail));
        assert!(is_told, "{address}: {faults:?}");
    }
    let both = changed(&[("/actions/create/request/url", json!("https://api.acme.test/x"))]);
    assert_eq!(faults(&both.to_string()), ["/actions/create/request takes only one of path, url"]);
    let neither = changed(&[("/actions/create/request/path", Value::Null)]);
    assert_eq!(faults(&neither.to_string()), ["/actions/create/request needs a path or url"]);
    let nowhere = changed(&[("/base_url", Value::Null), ("/test", Value::Null)]);
    assert_eq!(faults(&nowhere.to_string()), ["/actions/create/request/path needs a base_url at the connector"]);
    let hook = changed(&[("/actions/tell/request/path", json!("/x"))]);
    assert!(
        faults(&hook.to_string())[0].starts_with("/actions/tell/request must not have a path or url: the connection's")
    );
    let any = changed(&[("/actions/tell/auth", Value::Null)]);
    assert_eq!(faults(&any.to_string()), ["/actions/tell/request needs a path or url"]);
}

#[test]
fn secrets_are_named_in_auth_alone_and_only_those_that_there_are() {
    let placeholder = "only `{{ secret.field }}` and `{{ connection.field }}` can be written in braces here";
    let only_auth = "names `secret`, which only `auth` can";
    each_is_refused(&[
        ("/auth/0/value", json!("{{ secret.token }}"), "/auth/0/value", "names `secret.token`, but there is no field"),
        (
            "/auth/0/value",
            json!("{{ connection.region }}"),
            "/auth/0/value",
            "names `connection.region`, but there is no field",
        ),
        ("/auth/0/value", json!("{{ secret.domain }}"), "/auth/0/value", "isn't secret: write `connection.domain`"),
        ("/auth/0/value", json!("{{ connection.api_key }}"), "/auth/0/value", "is secret: write `secret.api_key`"),
        ("/auth/0/value", json!("{{ secret.api_key | upper }}"), "/auth/0/value", placeholder),
        ("/auth/0/value", json!("{{ input.customer }}"), "/auth/0/value", placeholder),
        ("/auth/0/value", json!("{{ secret.api_key"), "/auth/0/value", placeholder),
        ("/auth/2/token", json!("{{ secret.api_key }}"), "/auth/2/token", "there is no field \"api_key\""),
        ("/auth/3/username", json!("{{ secret.name }}"), "/auth/3/username", "there is no field \"name\""),
        ("/auth/0/fields/api_key", Value::Null, "/auth/0/value", "there is no field \"api_key\""),
        (
            "/auth/1/fields/api_key",
            json!({"secret": false}),
            "/auth/1/value",
            "isn't secret: write `connection.api_key`",
        ),
        (
            "/auth/5/headers",
            json!({"X-A": "{{ secret.values }}"}),
            "/auth/5/headers/X-A",
            "there is no field \"values\"",
        ),
        ("/auth/5/headers", json!({"X-{{ secret.value }}": "a"}), "/auth/5/headers/X-{{ secret.value }}", placeholder),
        (
            "/auth/5/headers",
            json!({"X-{{ connection.value }}": "a"}),
            "/auth/5/headers/X-{{ connection.value }}",
            "names `connection.value`",
        ),
        ("/auth/5/headers", json!({"Host": "a"}), "/auth/5/headers/Host", "is set by the client itself"),
        ("/auth/5/headers", json!({"X Key": "a"}), "/auth/5/headers/X Key", "is not a header's name"),
        ("/auth/5/query", json!({"v": "{{ secret.value }}{{ now }}"}), "/auth/5/query/v", placeholder),
        ("/auth/0/name", json!("Content-Length"), "/auth/0/name", "is set by the client itself"),
        ("/auth/0/name", json!("X Key"), "/auth/0/name", "is not a header's name"),
        ("/auth/6/fields", json!({"webhook_url": {"secret": false}}), "/auth/6/fields/webhook_url", "must be secret"),
        ("/auth/0/fields/api_key/default", json!("x"), "/auth/0/fields/api_key/default", "a secret has none"),
        ("/auth/0/fields/domain/pattern", json!("["), "/auth/0/fields/domain/pattern", "is no regular expression"),
        ("/auth/0/fields/domain/pattern", json!("(a)\\1"), "/auth/0/fields/domain/pattern", "is no regular expression"),
        ("/auth/1/id", json!("key"), "/auth/1/id", "is the id of an earlier one"),
        ("/auth/4/token_url", Value::Null, "/auth/4", "needs authorization_url and token_url"),
        ("/auth/4/token_url", json!("http://acme.test/token"), "/auth/4/token_url", "begins with https://"),
        (
            "/auth/4/authorization_url",
            json!("https://{{ secret.client_id }}/"),
            "/auth/4/authorization_url",
            placeholder,
        ),
        (
            "/actions/create/auth",
            json!(["key", "cookie"]),
            "/actions/create/auth/1",
            "there is no way to sign in \"cookie\"",
        ),
        ("/test/auth", json!(["cookies", "key"]), "/test/auth/0", "there is no way to sign in \"cookies\""),
        ("/headers/X-Key", json!("{{ secret.api_key }}"), "/headers/X-Key", only_auth),
        (
            "/actions/create/request/query/key",
            json!("{{ secret.api_key }}"),
            "/actions/create/request/query/key",
            only_auth,
        ),
        (
            "/actions/create/request/headers/X-Key",
            json!("k {{ secret.api_key }}"),
            "/actions/create/request/headers/X-Key",
            only_auth,
        ),
        (
            "/actions/create/request/json/key",
            json!(["{{ [secret] }}"]),
            "/actions/create/request/json/key/0",
            only_auth,
        ),
        ("/actions/create/request/path", json!("/{{ secret.api_key }}"), "/actions/create/request/path", only_auth),
        ("/actions/create/output/key", json!("{{ secret.api_key }}"), "/actions/create/output/key", only_auth),
        ("/errors/0/message", json!("{{ secret.api_key }}"), "/errors/0/message", only_auth),
        ("/errors/0/when", json!("secret.api_key == body"), "/errors/0/when", only_auth),
        ("/test/account", json!("{{ secret.api_key }}"), "/test/account", only_auth),
    ]);
}

#[test]
fn expressions_name_what_there_is() {
    let request = |name: &str| format!("names `{name}`; there is only input, connection, now");
    let answer = |name: &str| format!("names `{name}`; there is only status, headers, body, input, now");
    each_is_refused(&[
        ("/headers/X-A", json!("{{ input.note }}"), "/headers/X-A", "names `input`; there is only connection, now"),
        ("/headers/Host", json!("acme.test"), "/headers/Host", "is set by the client itself; remove it"),
        ("/headers/X A", json!("a"), "/headers/X A", "is not a header's name"),
        (
            "/actions/create/request/headers/Transfer-Encoding",
            json!("chunked"),
            "/actions/create/request/headers/Transfer-Encoding",
            "is set by the client",
        ),
        ("/actions/create/request/query/a", json!("{{ body.a }}"), "/actions/create/request/query/a", &request("body")),
        (
            "/actions/create/request/json/a",
            json!({"b": ["{{ steps.a.output }}"]}),
            "/actions/create/request/json/a/b/0",
            &request("steps"),
        ),
        ("/actions/create/request/json", json!("{{ env }}"), "/actions/create/request/json", &request("env")),
        (
            "/actions/create/request/json/a",
            json!("{{ input.nte }}"),
            "/actions/create/request/json/a",
            "names `input.nte`, which the input doesn't declare",
        ),
        (
            "/actions/create/request/path",
            json!("/{{ input.id }}"),
            "/actions/create/request/path",
            "names `input.id`, which the input doesn't declare",
        ),
        (
            "/actions/create/request/json/a",
            json!("{{ input.note | upcase }}"),
            "/actions/create/request/json/a",
            "upcase",
        ),
        ("/actions/create/request/json/a", json!("{{ input. }}"), "/actions/create/request/json/a", "`input.`"),
        (
            "/actions/create/request/json/a",
            json!("{{ input.note | regex_find('[') }}"),
            "/actions/create/request/json/a",
            "[",
        ),
        (
            "/actions/create/request/form",
            json!({"a": "b"}),
            "/actions/create/request",
            "takes only one of json, form, text",
        ),
        ("/actions/create/output/id", json!("{{ item.id }}"), "/actions/create/output/id", &answer("item")),
        (
            "/actions/create/output/id",
            json!("{{ connection.domain }}"),
            "/actions/create/output/id",
            &answer("connection"),
        ),
        (
            "/actions/create/error_message",
            json!("{{ answer.error }}"),
            "/actions/create/error_message",
            &answer("answer"),
        ),
        (
            "/actions/create/errors",
            json!([{"when": "response.ok", "is": "ok"}]),
            "/actions/create/errors/0/when",
            &answer("response"),
        ),
        (
            "/actions/create/errors",
            json!([{"when": "body.ok = 1", "is": "ok"}]),
            "/actions/create/errors/0/when",
            "body.ok = 1",
        ),
        ("/errors/0/when", json!("{{ body.a }} and {{ body.b }}"), "/errors/0/when", "more than one expression"),
        ("/errors/0/retry_after", json!("wait"), "/errors/0/retry_after", &answer("wait")),
        ("/retry_after", json!("connection.wait"), "/retry_after", &answer("connection")),
        ("/test/account", json!("{{ user }}"), "/test/account", &answer("user")),
        (
            "/test/request/path",
            json!("/{{ input.user }}"),
            "/test/request/path",
            "names `input.user`, which the input doesn't declare",
        ),
        ("/test/request/method", json!("DELETE"), "/test/request/method", "the request must only read"),
        ("/actions/find/paging/items", json!("page.items"), "/actions/find/paging/items", &answer("page")),
        ("/actions/find/paging/cursor/value", json!("item.id"), "/actions/find/paging/cursor/value", &answer("item")),
        (
            "/actions/find/paging",
            json!({"items": "body", "next_url": "{{ next }}"}),
            "/actions/find/paging/next_url",
            &answer("next"),
        ),
        (
            "/actions/create/paging",
            json!({"items": "body", "link": true}),
            "/actions/create/paging",
            "is only for actions that read",
        ),
        ("/actions/find/input/properties/max_items", json!({}), "/actions/find/paging", "brings a field max_items"),
    ]);
}

#[test]
fn inputs_are_schemas_that_can_be_checked_at_a_bounded_cost() {
    let input = "/actions/create/input";
    let note = "/actions/create/input/properties/note";
    let written_out = "can't be used in a manifest; write out what it refers to";
    let no_schema = "is no JSON Schema (draft 2020-12)";
    each_is_refused(&[
        ("/actions/create/input/$ref", json!("#"), "/actions/create/input/$ref", written_out),
        (note, json!({"$ref": "#"}), "/actions/create/input/properties/note/$ref", written_out),
        (note, json!({"$ref": "https://evil.test/schema"}), "/actions/create/input/properties/note/$ref", written_out),
        (
            note,
            json!({"items": [{"$dynamicRef": "#a"}]}),
            "/actions/create/input/properties/note/items/0/$dynamicRef",
            written_out,
        ),
        (note, json!({"type": "text"}), input, no_schema),
        (note, json!({"pattern": "["}), input, no_schema),
        (note, json!({"pattern": "(?=a)"}), input, no_schema),
        (note, json!({"minLength": -1}), input, no_schema),
        ("/actions/create/input/$schema", json!("https://evil.test/meta"), input, no_schema),
        ("/actions/create/example/input", json!({}), "/actions/create/example/input/customer", "is required"),
        (
            "/actions/create/example/input",
            json!({"customer": 7}),
            "/actions/create/example/input/customer",
            "expected a string",
        ),
        ("/actions/find/example", json!({"input": {"max_items": 0}}), "/actions/find/example/input/max_items", "1"),
    ]);
    let options = "/actions/create/input/properties/customer/x-options";
    each_is_refused(&[
        (
            options,
            json!({"action": "look_up", "value": "id", "label": "name"}),
            &format!("{options}/action"),
            "must name an action of this connector",
        ),
        (
            options,
            json!({"action": "tell", "value": "id", "label": "name"}),
            &format!("{options}/action"),
            "must name an action that only reads",
        ),
        (options, json!({"value": "id"}), &format!("{options}/action"), "must name an action of this connector"),
        (
            note,
            json!({"type": "array", "items": {"anyOf": [{"x-options": {"action": "create"}}]}}),
            &format!("{note}/items/anyOf/0/x-options/action"),
            "must name an action that only reads",
        ),
    ]);
}

#[test]
fn a_text_that_is_no_manifest_is_refused_within_bounds() {
    let aliases = |levels: usize| {
        let level = |n: usize| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(", "));
        format!("a0: &a0 [x, x]\n{}", (1..=levels).map(level).collect::<String>())
    };
    let wide = "x: &a {}\ny:\n".to_owned() + &"  - *a\n".repeat(200_000);
    for (text, detail) in [
        (String::new(), "expected an object"),
        ("just words".to_owned(), "expected an object"),
        ("[1, 2]".to_owned(), "expected an object"),
        ("a: [1".to_owned(), "the manifest is no YAML: "),
        ("a: b: c".to_owned(), "the manifest is no YAML: "),
        ("\"unclosed".to_owned(), "the manifest is no YAML: "),
        ("a: *nowhere".to_owned(), "the manifest is no YAML: "),
        ("a: &a [*a]".to_owned(), "the manifest is no YAML: "),
        ("a: .nan".to_owned(), "the manifest is no YAML: "),
        (format!("{SOUND}---\n{SOUND}"), "the manifest is no YAML: "),
        (format!("{SOUND}\ntitle: Again\n"), "the manifest is no YAML: "),
        (r#"{"format": 1, "format": 1}"#.to_owned(), "the manifest is no YAML: "),
        (aliases(9), "the manifest is no YAML: "),
        (wide, "the manifest "),
        ("[".repeat(100_000), "the manifest is no YAML: "),
        ("- ".repeat(100_000), "the manifest is no YAML: "),
        (format!("{}1{}", "{\"a\":".repeat(150), "}".repeat(150)), "the manifest "),
        (format!("a: [{}]", "1,".repeat(150_000)), "the manifest "),
        (format!("# {}\n{SOUND}", "x".repeat(MAX_MANIFEST_BYTES)), "the manifest has more than 4194304 bytes"),
    ] {
        let faults = faults(&text);
        let start: String = text.chars().take(40).collect();
        assert!(faults.len() == 1 && faults[0].starts_with(&format!(" {detail}")), "{start:?}: {faults:?}");
        assert!(faults[0].len() < 300 && faults[0].lines().count() == 1, "{start:?}: {faults:?}");
    }
}

#[test]
fn a_manifest_is_as_large_as_what_it_is_stored_in() {
    let long = "x".repeat(600);
    let hints = |count: usize| (0..count).map(|n| (format!("{n}{long}"), json!("x"))).collect::<Value>();
    assert_eq!(faults(&changed(&[("/hints", hints(100))]).to_string()), [""; 0]);
    let huge = |count: usize| json!({"text": vec![long.clone(); count]});
    for (pointer, value, fault) in [
        (
            "/recorded",
            json!({"malformed": {"status": 200, "body": huge(120)}}),
            " has more than 65536 bytes besides its actions",
        ),
        (
            "/actions/tell/recorded",
            json!({"malformed": {"status": 200, "body": huge(240)}}),
            "/actions/tell has more than 131072 bytes",
        ),
    ] {
        assert_eq!(faults(&changed(&[(pointer, value)]).to_string()), [fault]);
    }
    let rule = json!({"when": "a", "is": "ok", "message": "{{ b }}"});
    let many = changed(&[("/errors", json!(vec![rule; 50]))]);
    assert_eq!(faults(&many.to_string()).len(), 50, "of a hundred faults");
    let tell = sound()["actions"]["tell"].clone();
    let actions: Value = (0..2_001).map(|n| (format!("tell_{n}"), tell.clone())).collect();
    let many = faults(&changed(&[("/actions", actions)]).to_string());
    assert!(many.len() == 1 && many[0].starts_with("/actions must have at most 2000 fields"), "{many:?}");
}
