//! Every manifest that is built in: sound, and run against a fake of its vendor that answers as the documentation says. A
//! manifest that lacks one of the cases fails here.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tidegate_connectors::manifest::{RecordedAnswer, RecordedRequest, SignInKind};
use tidegate_connectors::{Action, Connector, catalogue, check_builtin, read_manifest};
use tidegate_model::{ErrorCode, Publisher};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

mod support;

use support::{LOOPBACK, Made, Setup, setup};

#[test]
fn every_manifest_is_sound() {
    for name in catalogue::names() {
        let text = catalogue::source(name).unwrap();
        let errors = check_builtin(text);
        assert!(errors.is_empty(), "{name}: {errors:#?}");
        assert_eq!(catalogue::connector(name).unwrap().name(), name, "the file is named after the connector");
    }
    assert!(catalogue::names().count() >= 15);
}

#[test]
fn every_action_has_what_a_user_needs() {
    let mut missing = Vec::new();
    for connector in catalogue::connectors() {
        let is_native = connector.actions.values().all(|action| action.document.native.is_some());
        for action in connector.actions.values() {
            let document = &action.document;
            let mut need = |is_there: bool, what: &str| {
                if !is_there {
                    missing.push(format!("{}: {what}", action.name));
                }
            };
            need(document.help.is_some(), "help");
            need(document.docs.is_some() || is_native, "the page of the documentation");
            let Some(example) = &document.example else {
                need(is_native, "an example");
                continue;
            };
            need((example.request.is_some() && example.response.is_some()) || is_native, "a recorded call");
            for (case, _, recorded) in failures(action) {
                need(recorded.is_some() || is_native, &format!("a recorded {case}"));
            }
        }
        // Nothing is called with the secrets of webhooks.
        if connector.is_connectable() && !["http", "email", "webhook_secret"].contains(&connector.name()) {
            let by_url = connector.document.auth.iter().all(|sign_in| sign_in.kind == SignInKind::Url);
            if connector.document.test.is_none() && !by_url {
                missing.push(format!("{}: a test request", connector.name()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// What is to come of each recorded failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comes {
    Broken,
    Limited,
    Retried,
    Invalid,
}

fn failures(action: &Action) -> [(&'static str, Comes, Option<&RecordedAnswer>); 4] {
    let (own, common) = (&action.document.answers.recorded, &action.connector.answers.recorded);
    [
        ("auth_failure", Comes::Broken, own.auth_failure.as_ref().or(common.auth_failure.as_ref())),
        ("rate_limited", Comes::Limited, own.rate_limited.as_ref().or(common.rate_limited.as_ref())),
        ("server_error", Comes::Retried, own.server_error.as_ref().or(common.server_error.as_ref())),
        ("malformed", Comes::Invalid, own.malformed.as_ref().or(common.malformed.as_ref())),
    ]
}

fn answer(recorded: &RecordedAnswer) -> ResponseTemplate {
    let template = ResponseTemplate::new(recorded.status);
    let says_type = recorded.headers.keys().any(|name| name.eq_ignore_ascii_case("content-type"));
    let template = match &recorded.body {
        Value::Null => template,
        Value::String(text) => template.set_body_raw(text.clone(), if says_type { "" } else { "text/plain" }),
        value => template.set_body_json(value),
    };
    recorded
        .headers
        .iter()
        .fold(template, |template, (name, value)| template.insert_header(name.as_str(), value.as_str()))
}

/// The connector as it is, but for its hosts, which are the fake.
fn at_fake(name: &str, server: &MockServer) -> Connector {
    let text = catalogue::source(name).unwrap();
    let origin = server.address().to_string();
    let mut document: Value = serde_json::to_value(read_builtin(text)).unwrap();
    let hosts: Vec<String> =
        document["hosts"].as_array().into_iter().flatten().map(|host| host.as_str().unwrap().to_owned()).collect();
    if !hosts.is_empty() {
        document["hosts"] = json!([origin]);
    }
    move_urls(&mut document, &hosts, &origin);
    Connector::new(serde_json::from_value(document).unwrap(), Publisher::Builtin, 1)
}

fn read_builtin(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

fn move_urls(document: &mut Value, hosts: &[String], origin: &str) {
    let moved = |text: &str| {
        let mut text = text.to_owned();
        for host in hosts {
            text = text.replace(&format!("https://{host}"), &format!("http://{origin}"));
        }
        json!(text)
    };
    if let Some(base) = document["base_url"].as_str() {
        document["base_url"] = moved(base);
    }
    for action in document["actions"].as_object_mut().unwrap().values_mut() {
        if let Some(url) = action["request"]["url"].as_str() {
            action["request"]["url"] = moved(url);
        }
    }
    if let Some(url) = document["test"]["request"]["url"].as_str() {
        document["test"]["request"]["url"] = moved(url);
    }
}

/// A connection for an action; none where it needs none.
async fn connection(setup: &Setup, connector: &Connector, action: Option<&Action>) -> Option<Made> {
    let usable = |kind: &SignInKind| *kind != SignInKind::None;
    let takes = |id: &str| action.is_none_or(|action| action.takes(id));
    let sign_in = connector.document.auth.iter().find(|sign_in| usable(&sign_in.kind) && takes(&sign_in.id))?;
    let mut data: Map<String, Value> = Map::new();
    for (name, field) in sign_in.all_fields() {
        let value = match (&field.default, &field.example, &field.options) {
            _ if name == "webhook_url" => setup.url("/hook/s3cr3ts3cr3t"),
            (Some(value), _, _) | (None, Some(value), _) => value.clone(),
            (None, None, Some(options)) => options[0].clone(),
            (None, None, None) => "s3cr3t-s3cr3t-s3cr3t".to_owned(),
        };
        data.insert(name, json!(value));
    }
    Some(setup.connection(connector, &sign_in.id, &data, &[]).await)
}

#[tokio::test]
async fn every_action_does_what_its_vendor_documents() {
    let mut faults = Vec::new();
    let mut count = 0;
    for name in catalogue::names() {
        let setup = setup(LOOPBACK).await;
        let connector = at_fake(name, &setup.server);
        for action in connector.actions.values().filter(|action| action.document.native.is_none()) {
            count += 1;
            let made = connection(&setup, &connector, Some(action)).await;
            if let Err(fault) = succeeds(&setup, action, made.as_ref()).await {
                faults.push(format!("{}: success: {fault}", action.name));
            }
            for (case, comes, recorded) in failures(action) {
                let Some(recorded) = recorded else { continue };
                if let Err(fault) = fails(&setup, action, made.as_ref(), recorded, comes).await {
                    faults.push(format!("{}: {case}: {fault}", action.name));
                }
            }
        }
        if let Err(fault) = tests(&setup, &connector).await {
            faults.push(format!("{name}: test: {fault}"));
        }
    }
    assert!(faults.is_empty(), "{} faults in {count} actions:\n{}", faults.len(), faults.join("\n"));
    assert!(count >= 90, "{count} actions");
}

async fn succeeds(setup: &Setup, action: &Action, made: Option<&Made>) -> Result<(), String> {
    let example = action.document.example.as_ref().ok_or("no example")?;
    let (Some(wanted), Some(response)) = (&example.request, &example.response) else {
        return Err("no recording".into());
    };
    setup.server.reset().await;
    Mock::given(wiremock::matchers::any()).respond_with(answer(response)).mount(&setup.server).await;
    let input = Value::Object(example.input.clone());
    let output = setup.call(action, &input, made).await.map_err(|failure| failure.error.message)?;
    let requests = setup.server.received_requests().await.unwrap();
    same_request(wanted, requests.first().ok_or("no request")?, made.is_some())?;
    if output != example.output {
        return Err(format!("yields {output}\n  instead of {}", example.output));
    }
    Ok(())
}

fn same_request(wanted: &RecordedRequest, sent: &Request, by_connection: bool) -> Result<(), String> {
    let differs = |what: &str, wanted: &dyn std::fmt::Debug, sent: &dyn std::fmt::Debug| {
        Err(format!("its {what} is {sent:?}\n  instead of {wanted:?}"))
    };
    if wanted.method != sent.method.as_str() {
        return differs("method", &wanted.method, &sent.method);
    }
    if let Some(path) = &wanted.path
        && path != sent.url.path()
    {
        return differs("path", path, &sent.url.path());
    }
    let mut query: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in sent.url.query_pairs() {
        if !by_connection || !value.contains("s3cr3t") {
            query.entry(name.into_owned()).or_default().push(value.into_owned());
        }
    }
    let flat = |pairs: &indexmap::IndexMap<String, Value>| -> BTreeMap<String, Vec<String>> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let values = |value: &Value| match value {
            Value::Array(items) => items.iter().map(text).collect(),
            value => vec![text(value)],
        };
        pairs.iter().map(|(name, value)| (name.clone(), values(value))).collect()
    };
    if query != flat(&wanted.query) {
        return differs("query", &flat(&wanted.query), &query);
    }
    for (name, value) in &wanted.headers {
        let got = sent.headers.get(name.as_str()).map(|value| value.to_str().unwrap_or_default());
        if got != Some(value) {
            return differs(&format!("header {name}"), value, &got);
        }
    }
    match (&wanted.json, &wanted.form, &wanted.text) {
        (Some(json), _, _) => {
            let body: Value =
                serde_json::from_slice(&sent.body).map_err(|error| format!("its body is no JSON: {error}"))?;
            if body != *json { differs("body", json, &body) } else { Ok(()) }
        }
        (_, Some(form), _) => {
            let mut body: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (name, value) in url::form_urlencoded::parse(&sent.body) {
                body.entry(name.into_owned()).or_default().push(value.into_owned());
            }
            if body != flat(form) { differs("form", &flat(form), &body) } else { Ok(()) }
        }
        (_, _, Some(text)) if text.as_bytes() != sent.body => {
            differs("text", text, &String::from_utf8_lossy(&sent.body))
        }
        (None, None, None) if !sent.body.is_empty() => differs("body", &"none", &String::from_utf8_lossy(&sent.body)),
        _ => Ok(()),
    }
}

async fn fails(
    setup: &Setup,
    action: &Action,
    made: Option<&Made>,
    recorded: &RecordedAnswer,
    comes: Comes,
) -> Result<(), String> {
    let example = action.document.example.as_ref().ok_or("no example")?;
    setup.server.reset().await;
    Mock::given(wiremock::matchers::any()).respond_with(answer(recorded)).mount(&setup.server).await;
    let input = Value::Object(example.input.clone());
    let failure = match setup.call(action, &input, made).await {
        Ok(output) => return Err(format!("it succeeds: {output}")),
        Err(failure) => failure,
    };
    let error = &failure.error;
    let as_wanted = match comes {
        Comes::Broken if made.is_none() => !failure.is_connection_broken && !error.retryable,
        Comes::Broken => {
            failure.is_connection_broken && error.code == ErrorCode::ConnectionUnusable && !error.retryable
        }
        Comes::Limited => error.code == ErrorCode::RateLimited && error.retryable && error.retry_after_ms.is_some(),
        Comes::Retried => failure.is_target_down && error.code == ErrorCode::TargetFailed && error.retryable,
        Comes::Invalid => error.code == ErrorCode::ResponseInvalid && !error.retryable,
    };
    if as_wanted { Ok(()) } else { Err(format!("{failure:?}")) }
}

/// The test request: an answer of the vendor's own fault is one, a refused credential breaks the connection.
async fn tests(setup: &Setup, connector: &Connector) -> Result<(), String> {
    let Some(test) = &connector.document.test else { return Ok(()) };
    let options = || tidegate_connectors::CallOptions {
        timeout: std::time::Duration::from_secs(5),
        idempotency_key: None,
        traceparent: None,
    };
    let usable = |id: &str| test.auth.as_ref().is_none_or(|ids| ids.iter().any(|known| known == id));
    let sign_in =
        connector.document.auth.iter().find(|sign_in| usable(&sign_in.id) && sign_in.kind != SignInKind::None);
    let Some(sign_in) = sign_in else { return Ok(()) };
    let fields = sign_in.all_fields();
    let data = fields.iter().map(|(name, field)| {
        let example = field.default.clone().or_else(|| field.example.clone());
        (name.clone(), json!(example.unwrap_or_else(|| "s3cr3t-s3cr3t-s3cr3t".to_owned())))
    });
    let made = setup.connection(connector, &sign_in.id, &data.collect(), &[]).await;
    let recorded = &connector.document.answers.recorded;
    let recorded = recorded.auth_failure.as_ref().ok_or("no recorded auth_failure")?;
    setup.server.reset().await;
    Mock::given(wiremock::matchers::any()).respond_with(answer(recorded)).mount(&setup.server).await;
    match connector.test(setup.outside(), made.credential(), options()).await {
        Err(failure) if failure.is_connection_broken => Ok(()),
        other => Err(format!("a refused credential comes to {other:?}")),
    }
}

#[test]
fn a_built_in_manifest_isnt_a_tenants() {
    let errors = read_manifest(catalogue::source("slack").unwrap()).unwrap_err();
    assert!(errors.iter().any(|error| error.detail.contains("built-in connector")), "{errors:?}");
}
