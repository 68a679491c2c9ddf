//! `--demo`: a tenant with a generated password, three sample workflows, and an inbox on this server that they send to,
//! so that a first run needs no outside account.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::routing::post;
use serde_json::{Value, json};
use tower::ServiceExt;

const EMAIL: &str = "demo@tidegate.example";
const LOGIN_FILE: &str = "demo-login.json";
const INBOX: &str = "/demo/inbox";
/// How many messages the inbox keeps.
const INBOX_SIZE: usize = 50;
/// The longest message that the inbox keeps, in characters.
const MESSAGE_CHARS: usize = 2_000;
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

type Messages = Arc<Mutex<VecDeque<String>>>;

/// `POST` leaves a message, `GET` shows the last ones. It plays Slack: it answers `ok`.
pub(crate) fn inbox() -> Router {
    let receive = async |State(messages): State<Messages>, body: String| {
        let mut messages = messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.push_front(body.chars().take(MESSAGE_CHARS).collect());
        messages.truncate(INBOX_SIZE);
        "ok"
    };
    let show = async |State(messages): State<Messages>| {
        let messages = messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.iter().fold(String::new(), |text, message| text + message + "\n")
    };
    Router::new().route(INBOX, post(receive).get(show)).with_state(Messages::default())
}

/// Makes the demo tenant and its workflows, the first time, and prints what to try.
#[expect(clippy::print_stderr, reason = "this is what a person at the terminal reads")]
pub(crate) async fn prepare(router: &Router, url: &str, data: &Path) -> anyhow::Result<()> {
    let file = data.join(LOGIN_FILE);
    let login: Value = match std::fs::read_to_string(&file) {
        Ok(text) => serde_json::from_str(&text).with_context(|| format!("{} can't be read", file.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(router, url, &file).await?,
        Err(error) => return Err(error).with_context(|| format!("{} can't be read", file.display())),
    };
    let webhook = login["webhook"].as_str().unwrap_or_default();
    eprintln!("Demo: {} with password {}", login["email"], login["password"]);
    eprintln!("Try:  curl {url}{webhook} -H 'content-type: application/json' \\");
    eprintln!("        -d '{{\"user\":{{\"name\":\"Alex\"}},\"order\":{{\"id\":\"12345\",\"total\":99.5}}}}'");
    eprintln!("Then: curl {url}{INBOX}");
    Ok(())
}

async fn make(router: &Router, url: &str, file: &Path) -> anyhow::Result<Value> {
    let mut entropy = [0; 15];
    getrandom::fill(&mut entropy)?;
    let password = entropy.map(|byte| format!("{byte:02x}")).concat();
    let account = json!({"email": EMAIL, "password": password, "name": "Demo", "tenant_name": "Demo"});
    let session = call(router, "/api/auth/register", None, &account).await?;
    let token = session["access_token"].as_str().context("registration gave no token")?;

    let connection = json!({
        "name": "Demo inbox",
        "connector": "slack",
        "data": {"webhook_url": format!("{url}{INBOX}")},
    });
    let connection = call(router, "/api/connections", Some(token), &connection).await?;
    let id = &connection["id"];
    let mut webhook = Value::Null;
    for workflow in workflows(url, id) {
        let made = call(router, "/api/workflows", Some(token), &workflow).await?;
        if webhook.is_null() {
            webhook = made["webhook_url"].clone();
        }
    }
    let login = json!({"email": EMAIL, "password": password, "webhook": webhook});
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut file| file.write_all(login.to_string().as_bytes()))
        .with_context(|| format!("can't write {}", file.display()))?;
    Ok(login)
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
async fn call(router: &Router, path: &str, token: Option<&str>, body: &Value) -> anyhow::Result<Value> {
    let mut request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Body::from(body.to_string()))?;
    let response = router.clone().oneshot(request).await?;
    let status = response.status();
    let answer = to_bytes(response.into_body(), MAX_ANSWER_BYTES).await?;
    if status != StatusCode::CREATED {
        bail!("POST {path} for the demo answered {status}: {}", String::from_utf8_lossy(&answer));
    }
    Ok(serde_json::from_slice(&answer)?)
}
