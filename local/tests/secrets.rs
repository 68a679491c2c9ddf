//! Plants secrets, has vendors echo them, and searches everything that the process leaves behind: its log, its tables, its
//! queue, its blobs, and what its API shows of runs and changes.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{Response, StatusCode};
use serde_json::{Value, json};
use tidegate_scenarios::{Api, Server, Sink, scenario};

const DEADLINE: Duration = Duration::from_secs(30);
const PASSWORD: &str = "planted correct horse battery";
const BEARER: &str = "planted-bearer/9f8e7d6c5b4a";
const BASIC: &str = "planted:basic+0a1b2c3d4e5f";
const HEADER: &str = "planted-header==77665544";
const HOOK: &str = "planted-hook-T0001122";

/// A vendor that answers with all that it was sent: at `/ok/…` gladly, at `/no/…` as its error.
async fn echo() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = async |request: Request| {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1_000_000).await.unwrap();
        let headers: Vec<_> = parts.headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
        let authorization = parts.headers.get("authorization").cloned();
        let text = format!("{} {headers:?} {authorization:?} {}", parts.uri, String::from_utf8_lossy(&body));
        let status = if parts.uri.path().starts_with("/no") { StatusCode::FORBIDDEN } else { StatusCode::OK };
        let mut response = Response::new(json!({"error": text, "echo": text}).to_string());
        *response.status_mut() = status;
        for (name, value) in &parts.headers {
            response.headers_mut().append(format!("x-echo-{name}").parse::<http::HeaderName>().unwrap(), value.clone());
        }
        response
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    url
}

/// How a secret may be spelt.
fn spellings(secret: &str) -> Vec<String> {
    let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let base64 = STANDARD.encode(secret);
    let mut all = vec![
        secret.to_owned(),
        json!(secret).to_string().trim_matches('"').to_owned(),
        form.replace('+', "%20"),
        form,
        base64.trim_end_matches('=').to_owned(),
        URL_SAFE_NO_PAD.encode(secret),
    ];
    all.sort_unstable();
    all.dedup();
    all
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    // All but the administration's socket.
    entries
        .filter(|path| path.is_dir() || path.is_file())
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_planted_secret_is_left_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Path::new(env!("CARGO_BIN_EXE_tidegate")), folder.path()).await.unwrap();
    let sink = Sink::start(Duration::ZERO).await.unwrap();
    let others = Api::register(server.url()).await.unwrap();
    scenario::greeting(&others, &sink).await.unwrap();
    scenario::vendors(&others, &sink).await.unwrap();
    scenario::decisions(&others, &sink).await.unwrap();
    scenario::connectors(&others, &sink).await.unwrap();

    let mut planted: Vec<String> =
        [PASSWORD, BEARER, BASIC, HEADER, HOOK, scenario::CONNECTOR_KEY].map(str::to_owned).into();
    let account = json!({"email": "planted@example.com", "password": PASSWORD, "name": "P", "tenant_name": "P"});
    let anonymous = Api::anonymous(server.url()).unwrap();
    anonymous.post("/api/auth/register", account).await.unwrap();
    let login = json!({"email": "planted@example.com", "password": PASSWORD, "token_delivery": "body"});
    let signed_in = anonymous.post("/api/auth/login", login).await.unwrap();
    let text = |document: &Value, name: &str| document[name].as_str().unwrap().to_owned();
    planted.extend([text(&signed_in, "access_token"), text(&signed_in, "refresh_token")]);
    let refreshed = json!({"refresh_token": signed_in["refresh_token"]});
    let signed_in = anonymous.post("/api/auth/refresh", refreshed).await.unwrap();
    planted.extend([text(&signed_in, "access_token"), text(&signed_in, "refresh_token")]);
    let wrong = json!({"email": "planted@example.com", "password": format!("{PASSWORD}!")});
    anonymous.post("/api/auth/login", wrong).await.unwrap_err();
    let api = Api::log_in(server.url(), "planted@example.com", PASSWORD).await.unwrap();

    let account = api.post("/api/service-accounts", json!({"name": "robot", "role": "viewer"})).await.unwrap();
    let keys = format!("/api/service-accounts/{}/keys", text(&account, "id"));
    let key = api.post(&keys, json!({"name": "key", "scopes": ["runs:read"]})).await.unwrap();
    planted.push(text(&key, "client_secret"));
    let factor = api.post("/api/auth/second-factor", json!({"password": PASSWORD})).await.unwrap();
    planted.push(text(&factor, "secret"));

    let vendor = echo().await;
    let host = vendor.trim_start_matches("http://").to_owned();
    let secrets = [
        json!({"type": "bearer", "token": BEARER}),
        json!({"type": "basic", "username": "user", "password": BASIC}),
        json!({"type": "header", "name": "x-api-key", "value": HEADER}),
    ];
    let mut steps = Vec::new();
    for (number, data) in secrets.into_iter().enumerate() {
        let connection = json!({"name": "c", "connector": "http", "data": data, "hosts": [host]});
        let connection = api.post("/api/connections", connection).await.unwrap();
        for path in ["ok", "no"] {
            let with = json!({"method": "POST", "url": format!("{vendor}/{path}/x"), "json": {"n": number}});
            steps.push(json!({
                "id": format!("{path}{number}"), "uses": "http.request", "with": with,
                "connection": connection["id"], "on_failure": "continue",
            }));
        }
    }
    let hook = json!({"webhook_url": format!("{vendor}/no/{HOOK}")});
    let slack = json!({"name": "s", "connector": "slack", "data": hook});
    let slack = api.post("/api/connections", slack).await.unwrap();
    let with = json!({"text": "hello"});
    steps.push(json!({
        "id": "slack", "uses": "slack.send_message", "with": with, "connection": slack["id"], "on_failure": "continue",
    }));
    let workflow = api.create_workflow("Echo", json!(steps)).await.unwrap();
    let run = api.post_webhook(&workflow, "application/json", &[], "{}").await.unwrap();
    let record = api.finished_run(&run, DEADLINE).await.unwrap();
    let echoed = record["steps"].as_array().unwrap().iter().filter(|step| step["status"] == "succeeded").count();
    assert_eq!(echoed, 3, "the vendor was reached with each secret: {record}");
    let shown = [
        record,
        api.get("/api/audit?limit=100").await.unwrap(),
        api.get("/api/connections").await.unwrap(),
        api.get(&keys).await.unwrap(),
        api.get("/api/auth/sessions").await.unwrap(),
    ];

    server.kill().await.unwrap();
    let mut searched = 0;
    for path in files(folder.path()) {
        let bytes = std::fs::read(&path).unwrap();
        searched += bytes.len();
        check(&path.display().to_string(), &bytes, &planted);
    }
    for document in shown {
        check("an answer", document.to_string().as_bytes(), &planted);
    }
    assert!(searched > 100_000, "{searched} bytes were searched");
}

fn check(place: &str, bytes: &[u8], planted: &[String]) {
    for secret in planted {
        for spelling in spellings(secret) {
            if let Some(at) = memchr::memmem::find(bytes, spelling.as_bytes()) {
                let around = &bytes[at.saturating_sub(200)..(at + spelling.len() + 50).min(bytes.len())];
                panic!("{place} holds {spelling:?} at {at}: {}", String::from_utf8_lossy(around));
            }
        }
    }
}
