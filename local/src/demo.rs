//! `--demo`: a tenant with a generated password, three sample workflows, and an inbox on this server that they send to,
//! so that a first run needs no outside account.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::{Method, Request, StatusCode, header};
use serde_json::{Map, Value, json};
use tidegate_http::{Api, Public, Raw, endpoint};
use tower::ServiceExt;

const EMAIL: &str = "demo@tidegate.example";
const CONNECTION: &str = "Demo inbox";
const LOGIN_FILE: &str = "demo-login.json";
const INBOX: &str = "/demo/inbox";
/// How many messages the inbox keeps.
const INBOX_SIZE: usize = 50;
/// The longest message that the inbox keeps, in characters.
const MESSAGE_CHARS: usize = 2_000;
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

type Messages = Arc<Mutex<VecDeque<String>>>;

/// The inbox: a place to send to, which plays Slack.
pub(crate) fn inbox() -> Api {
    Api::new().route(endpoint!(leave_message)).route(endpoint!(show_messages)).with_state(Messages::default())
}

/// Leave a message
#[utoipa::path(
    post, path = "/demo/inbox", tag = "demo", request_body(content = String, content_type = "text/plain"),
    responses((status = 200, description = "`ok`, as Slack answers", body = String, content_type = "text/plain")),
)]
async fn leave_message(_: Public, State(messages): State<Messages>, Raw(body): Raw) -> &'static str {
    let message = String::from_utf8_lossy(&body).chars().take(MESSAGE_CHARS).collect();
    let mut messages = messages.lock().unwrap_or_else(PoisonError::into_inner);
    messages.push_front(message);
    messages.truncate(INBOX_SIZE);
    "ok"
}

/// Show the last messages
#[utoipa::path(
    get, path = "/demo/inbox", tag = "demo",
    responses((status = 200, description = "Newest first, a line each", body = String, content_type = "text/plain")),
)]
async fn show_messages(_: Public, State(messages): State<Messages>) -> String {
    let messages = messages.lock().unwrap_or_else(PoisonError::into_inner);
    messages.iter().fold(String::new(), |text, message| text + message + "\n")
}

/// Makes the demo tenant and its workflows, as far as an earlier start hasn't, and prints what to try.
#[expect(clippy::print_stderr, reason = "this is what a person at the terminal reads")]
pub(crate) async fn prepare(router: &Router, url: &str, data: &Path) -> anyhow::Result<()> {
    let login = login(router, url, data).await?;
    let webhook = login["webhook"].as_str().unwrap_or_default();
    eprintln!("Demo: {} with password {}", login["email"], login["password"]);
    eprintln!("Try:  curl {url}{webhook} -H 'content-type: application/json' \\");
    eprintln!("        -d '{{\"user\":{{\"name\":\"Alex\"}},\"order\":{{\"id\":\"12345\",\"total\":99.5}}}}'");
    eprintln!("Then: curl {url}{INBOX}");
    Ok(())
}

/// The demo's address, password and webhook. They are kept in a file, which has the password before the account does,
/// and the webhook once everything is made: a start that dies between leaves nothing that the next one can't go on from.
async fn login(router: &Router, url: &str, data: &Path) -> anyhow::Result<Map<String, Value>> {
    let file = data.join(LOGIN_FILE);
    let mut login: Map<String, Value> = match std::fs::read(&file) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("{} can't be read", file.display()))?,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let login = Map::from_iter([
                ("email".to_owned(), EMAIL.into()),
                ("password".to_owned(), generate_password()?.into()),
            ]);
            write(&file, &login)?;
            login
        }
        Err(error) => return Err(error).with_context(|| format!("{} can't be read", file.display())),
    };
    let made_for = login.get("url").and_then(Value::as_str);
    if let Some(made_for) = made_for.filter(|made_for| *made_for != url) {
        bail!("the demo in {} sends to {made_for}; start it there again, or on another --data-dir", data.display());
    }
    if !login.contains_key("webhook") {
        let webhook = make(router, url, &login).await.with_context(|| {
            format!("can't make the demo that {} is the login of; start again, or on another folder", file.display())
        })?;
        login.insert("webhook".to_owned(), webhook);
        login.insert("url".to_owned(), json!(url));
        write(&file, &login)?;
    }
    Ok(login)
}

fn generate_password() -> anyhow::Result<String> {
    let mut entropy = [0; 15];
    getrandom::fill(&mut entropy)?;
    Ok(entropy.map(|byte| format!("{byte:02x}")).concat())
}

/// Replaces the file at once as a whole; only its owner may read it.
fn write(file: &Path, login: &Map<String, Value>) -> anyhow::Result<()> {
    let replace = || {
        let mut new = tempfile::NamedTempFile::new_in(file.parent().unwrap_or(Path::new(".")))?;
        new.write_all(&serde_json::to_vec(login)?)?;
        new.as_file().sync_all()?;
        new.persist(file)?;
        anyhow::Ok(())
    };
    replace().with_context(|| format!("can't write {}", file.display()))
}

/// Makes what is missing; yields the first workflow's webhook.
async fn make(router: &Router, url: &str, login: &Map<String, Value>) -> anyhow::Result<Value> {
    let api = sign_in(router, login).await?;
    let connections = api.call(Method::GET, "/api/connections", None).await?;
    let connection = match named(&connections, CONNECTION) {
        Some(made) => made.clone(),
        None => {
            let data = json!({"webhook_url": format!("{url}{INBOX}")});
            let connection = json!({"name": CONNECTION, "connector": "slack", "data": data});
            api.call(Method::POST, "/api/connections", Some(&connection)).await?
        }
    };
    let made = api.call(Method::GET, "/api/workflows", None).await?;
    let mut webhook = Value::Null;
    for workflow in workflows(url, &connection["id"]) {
        let workflow = match named(&made, workflow["name"].as_str().unwrap_or_default()) {
            Some(made) => {
                // Its schedule is set after it is stored, so it may lack that; this makes sure of it.
                let toggle = format!("/api/workflows/{}/toggle", made["id"].as_str().unwrap_or_default());
                api.call(Method::PUT, &toggle, Some(&json!({"active": true}))).await?
            }
            None => api.call(Method::POST, "/api/workflows", Some(&workflow)).await?,
        };
        if webhook.is_null() {
            webhook = workflow["webhook_url"].clone();
        }
    }
    Ok(webhook)
}

/// Signs in, and registers where that is yet to be done.
async fn sign_in<'a>(router: &'a Router, login: &Map<String, Value>) -> anyhow::Result<Client<'a>> {
    let mut api = Client { router, token: None };
    let mut account = json!({"email": login["email"], "password": login["password"]});
    let (status, answer) = api.send(Method::POST, "/api/auth/login", Some(&account)).await?;
    let session = if status == StatusCode::UNAUTHORIZED {
        account["name"] = "Demo".into();
        account["tenant_name"] = "Demo".into();
        api.call(Method::POST, "/api/auth/register", Some(&account)).await?
    } else {
        read(Method::POST, "/api/auth/login", status, &answer)?
    };
    api.token = Some(session["access_token"].as_str().context("signing in gave no token")?.to_owned());
    Ok(api)
}

/// The item of this name in a list's answer.
fn named<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    list["items"].as_array()?.iter().find(|item| item["name"] == name)
}

fn workflows(url: &str, slack: &Value) -> [Value; 3] {
    [
        json!({
            "name": "Order alerts",
            "description": "Tells a Slack channel about each order that comes to the webhook.",
            "trigger": {"type": "webhook"},
            "steps": [{
                "id": "notify", "uses": "slack.send_message", "connection": slack,
                "with": {"text": "Hello {{user.name}}! Order #{{order.id}} confirmed."},
            }],
        }),
        json!({
            "name": "Push digest",
            "description": "Takes a GitHub push and sends its last commit on, then reports in Slack.",
            "trigger": {"type": "webhook"},
            "steps": [
                {
                    "id": "forward", "uses": "http.request",
                    "with": {
                        "method": "POST", "url": format!("{url}{INBOX}"),
                        "json": {"repository": "{{ repository.full_name }}", "commit": "{{ head_commit.id }}"},
                    },
                },
                {
                    "id": "report", "uses": "slack.send_message", "connection": slack,
                    "with": {"text": "{{ pusher.name }} pushed to {{ repository.full_name }} ({{ steps.forward.output.status }})"},
                },
            ],
        }),
        json!({
            "name": "Heartbeat",
            "description": "Sends a message every five minutes.",
            "trigger": {"type": "schedule", "every": "5m"},
            "steps": [{
                "id": "beat", "uses": "slack.send_message", "connection": slack,
                "with": {"text": "Alive at {{ now }}"},
            }],
        }),
    ]
}

/// Calls the API as any client would, without the network.
struct Client<'a> {
    router: &'a Router,
    token: Option<String>,
}

impl Client<'_> {
    /// The answer's JSON; anything but a success is an error.
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let (status, answer) = self.send(method.clone(), path, body).await?;
        read(method, path, status, &answer)
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<(StatusCode, Bytes)> {
        let mut request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(body.map_or_else(Body::empty, |body| Body::from(body.to_string())))?;
        let response = self.router.clone().oneshot(request).await?;
        Ok((response.status(), to_bytes(response.into_body(), MAX_ANSWER_BYTES).await?))
    }
}

fn read(method: Method, path: &str, status: StatusCode, answer: &[u8]) -> anyhow::Result<Value> {
    if !status.is_success() {
        bail!("{method} {path} for the demo answered {status}: {}", String::from_utf8_lossy(answer));
    }
    Ok(serde_json::from_slice(answer)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::middleware::{Next, from_fn};
    use axum::response::IntoResponse;

    use super::*;
    use crate::parts::Parts;

    const URL: &str = "http://127.0.0.1:8080";

    /// The same API, where the call after so many others happens and its answer is lost, as when the process dies then.
    fn dying(router: &Router, calls: usize) -> Router {
        let left = Arc::new(AtomicUsize::new(calls));
        router.clone().layer(from_fn(move |request: axum::extract::Request, next: Next| {
            let left = left.clone();
            async move {
                let answer = next.run(request).await;
                let lives = left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
                if lives { answer } else { StatusCode::IM_A_TEAPOT.into_response() }
            }
        }))
    }

    #[tokio::test]
    async fn a_start_makes_what_one_that_died_left_out() {
        for calls in 0.. {
            let parts = Parts::in_memory().await.unwrap();
            let router = parts.api(URL, &parts.egress(Vec::new(), Vec::new())).unwrap().into_router(parts.ids.clone());
            let folder = tempfile::tempdir().unwrap();
            let died = prepare(&dying(&router, calls), URL, folder.path()).await.is_err();

            prepare(&router, URL, folder.path()).await.unwrap();
            let file = folder.path().join(LOGIN_FILE);
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            let login: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            let api = sign_in(&router, login.as_object().unwrap()).await.unwrap();
            let connections = api.call(Method::GET, "/api/connections", None).await.unwrap();
            assert_eq!(connections["items"].as_array().unwrap().len(), 1, "{connections}");
            let workflows = api.call(Method::GET, "/api/workflows", None).await.unwrap();
            let workflows = workflows["items"].as_array().unwrap();
            assert_eq!(workflows.len(), 3, "died after {calls} calls: {workflows:?}");
            let alerts = workflows.iter().find(|workflow| workflow["name"] == "Order alerts").unwrap();
            assert_eq!(login["webhook"], alerts["webhook_url"]);
            if !died {
                assert!(calls >= 5, "{calls} calls can't have made everything");
                return;
            }
        }
    }

    #[tokio::test]
    async fn the_inbox_is_an_operation_like_any_other() {
        let parts = Parts::in_memory().await.unwrap();
        let router = parts
            .api(URL, &parts.egress(Vec::new(), Vec::new()))
            .unwrap()
            .merge(inbox())
            .into_router(parts.ids.clone());
        let request = |method: &str, body: &'static str| {
            Request::builder().method(method).uri(INBOX).body(Body::from(body)).unwrap()
        };
        router.clone().oneshot(request("POST", "Hello")).await.unwrap();
        router.clone().oneshot(request("POST", "again")).await.unwrap();
        let shown = router.clone().oneshot(request("GET", "")).await.unwrap();
        assert!(shown.headers().contains_key("x-request-id"));
        assert_eq!(to_bytes(shown.into_body(), MAX_ANSWER_BYTES).await.unwrap(), "again\nHello\n");
        let refused = router.oneshot(request("DELETE", "")).await.unwrap();
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(refused.headers()[header::CONTENT_TYPE], "application/problem+json");
    }
}
