//! What a user does first, as requests: from connecting Slack to reading a run step by step; then the same with what
//! vendors really send. Nothing here knows where the server runs.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::api::text;
use crate::{Api, GITHUB_PUSH, Received, SHOPIFY_ORDER, SLACK_COMMAND, STRIPE_EVENT, Sink, until};

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// Short enough for a worker whose own time is 15 s.
pub(crate) const STEP_TIMEOUT_MS: u32 = 5_000;
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A greeting goes to Slack: connect, make a workflow, post to its webhook, read the run.
///
/// # Errors
/// Whatever is not as the API promises, with what was answered instead.
pub async fn greeting(api: &Api, sink: &Sink) -> anyhow::Result<()> {
    let me = api.get("/api/auth/me").await?;
    ensure!(me["user"]["name"] == "Alex", "who am I: {me}");

    let slack = connect_slack(api, sink, "/greeting").await?;
    let connections = api.get("/api/connections").await?;
    let mut listed = connections["items"].as_array().into_iter().flatten();
    ensure!(listed.any(|item| item["id"] == slack.as_str()), "the connection is missing from {connections}");
    ensure!(!connections.to_string().contains(&sink.url("/greeting")), "the secret is in {connections}");

    let text = "Hello {{user.name}}! Order #{{order.id}} confirmed.";
    let workflow = api.create_workflow("Order alerts", slack_step(&slack, text)).await?;
    let body = json!({"user": {"name": "Alex"}, "order": {"id": "12345"}}).to_string();
    let run = api.post_webhook(&workflow, "application/json", &[("traceparent", TRACEPARENT)], &body).await?;

    let record = succeeded(api, &run).await?;
    let message = json!({"text": "Hello Alex! Order #12345 confirmed."});
    let call = only_call(sink, "/greeting")?;
    ensure!(call.body == message.to_string(), "the sink received {:?}", call.body);
    let trace = call.header("traceparent").unwrap_or_default();
    ensure!(trace.get(..35) == TRACEPARENT.get(..35), "the trace didn't reach the call: {trace:?}");
    ensure!(call.header("idempotency-key").is_some_and(|key| !key.is_empty()), "the call has no idempotency key");

    ensure!(record["workflow_id"] == workflow.as_str() && record["trigger"] == "webhook", "run {record}");
    ensure!(record["input"]["body"] == serde_json::from_str::<Value>(&body)?, "the run's input: {record}");
    let step = &record["steps"][0];
    ensure!(step["id"] == "notify" && step["uses"] == "slack.send_message", "the run's step: {step}");
    ensure!(step["status"] == "succeeded" && step["input"] == message, "the step's input: {step}");
    let attempt = &step["attempts"][0];
    ensure!(
        attempt["number"] == 1 && attempt["started_at"].is_string() && attempt["duration_ms"].is_u64(),
        "the step's attempt: {step}"
    );
    ensure!(!record.to_string().contains(&sink.url("/greeting")), "the secret is in {record}");

    let runs = api.get(&format!("/api/runs?workflow_id={workflow}&status=succeeded&limit=10")).await?;
    ensure!(runs["items"][0]["id"] == run.as_str(), "the run is missing from {runs}");
    Ok(())
}

/// A machine gets a key that may do one thing, trades it for a token, and loses it; sessions go on by refresh tokens and end;
/// all of it is in the audit log.
///
/// # Errors
/// Whatever is not as the API promises, with what was answered instead.
pub async fn identity(api: &Api, sink: &Sink, email: &str, password: &str) -> anyhow::Result<()> {
    let request = json!({"method": "POST", "url": sink.url("/machine"), "json": {}});
    let steps = json!([{"id": "call", "uses": "http.request", "with": request, "timeout_ms": STEP_TIMEOUT_MS}]);
    let workflow = api.create_workflow("Started by a machine", steps).await?;
    let account = api.post("/api/service-accounts", json!({"name": "Robot", "role": "editor"})).await?;
    let keys = format!("/api/service-accounts/{}/keys", text(&account, "/id")?);
    let key = api.post(&keys, json!({"name": "starts", "scopes": ["workflows:run", "runs:read"]})).await?;
    let (client_id, client_secret) = (text(&key, "/client_id")?, text(&key, "/client_secret")?);
    let machine = api.with_token(text(&key, "/key")?);
    let accepted = machine.post(&format!("/api/workflows/{workflow}/trigger"), json!({})).await?;
    machine.finished_run(text(&accepted, "/run_id")?, DEADLINE).await?;
    refused(machine.get("/api/workflows").await, "403")?;
    refused(machine.get("/api/auth/me").await, "403")?;
    let form = [("grant_type", "client_credentials"), ("client_id", client_id), ("client_secret", client_secret)];
    let granted = api.post_form("/api/auth/token", &form).await?;
    let token = api.with_token(text(&granted, "/access_token")?);
    token.get("/api/runs").await?;
    refused(token.get("/api/connections").await, "403")?;
    api.delete(&format!("{keys}/{client_id}")).await?;
    for revoked in [&machine, &token] {
        until("the key's end", DEADLINE, async || Ok(revoked.get("/api/runs").await.is_err().then_some(()))).await?;
        refused(revoked.get("/api/runs").await, "401")?;
    }

    let login = json!({"email": email, "password": password, "token_delivery": "body"});
    let first = api.post("/api/auth/login", login).await?;
    let refresh = |tokens: &Value| json!({"refresh_token": tokens["refresh_token"]});
    let second = api.post("/api/auth/refresh", refresh(&first)).await?;
    api.with_token(text(&second, "/access_token")?).get("/api/auth/me").await?;
    refused(api.post("/api/auth/refresh", refresh(&first)).await, "401")?;
    refused(api.post("/api/auth/refresh", refresh(&second)).await, "401").context("the family has ended")?;

    let log = api.get("/api/audit?limit=100").await?;
    let actions: Vec<_> = log["items"].as_array().into_iter().flatten().map(|entry| &entry["action"]).collect();
    for action in ["workflow.create", "service_account.create", "api_key.create", "api_key.revoke", "session.begin"] {
        ensure!(actions.iter().any(|found| **found == action), "{action} is missing in {actions:?}");
    }
    Ok(())
}

fn refused(answer: anyhow::Result<Value>, status: &str) -> anyhow::Result<()> {
    match answer {
        Ok(answer) => anyhow::bail!("not refused with {status}, but answered {answer}"),
        Err(error) => {
            ensure!(format!("{error:#}").contains(&format!("answered {status}")), "not {status}, but {error:#}");
            Ok(())
        }
    }
}

/// GitHub's push, Stripe's event, Shopify's order and Slack's command each start a workflow that takes apart what they
/// brought.
///
/// # Errors
/// Whatever is not as the API promises, with what was answered instead.
pub async fn vendors(api: &Api, sink: &Sink) -> anyhow::Result<()> {
    let deliveries = [
        Delivery {
            vendor: "github",
            content_type: "application/json",
            headers: &[("x-github-event", "push"), ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958")],
            body: GITHUB_PUSH,
            text: "{{pusher.name}} pushed {{head_commit.message}} to {{repository.full_name}}",
            expected: "Codertocat pushed Initial commit to Codertocat/Hello-World",
            values: json!({"id": "{{repository.id}}", "commits": "{{commits}}", "created": "{{created}}"}),
            pointers: json!({"id": "/repository/id", "commits": "/commits", "created": "/created"}),
        },
        Delivery {
            vendor: "stripe",
            content_type: "application/json; charset=utf-8",
            headers: &[],
            body: STRIPE_EVENT,
            text: "{{type}}: {{data.object.amount}} {{data.object.currency}} of {{data.object.billing_details.name}}",
            expected: "charge.succeeded: 2099 usd of Jenny Rosen",
            values: json!({"amount": "{{data.object.amount}}", "order": "{{data.object.metadata.order_id}}"}),
            pointers: json!({"amount": "/data/object/amount", "order": "/data/object/metadata/order_id"}),
        },
        Delivery {
            vendor: "shopify",
            content_type: "application/json",
            headers: &[("x-shopify-topic", "orders/create"), ("x-shopify-api-version", "2026-07")],
            body: SHOPIFY_ORDER,
            text: "Order {{name}} of {{customer.first_name}}: {{total_price}} {{currency}}",
            expected: "Order #9999 of John: 404.95 USD",
            values: json!({"id": "{{id}}", "address": "{{shipping_address}}"}),
            pointers: json!({"id": "/id", "address": "/shipping_address"}),
        },
        Delivery {
            vendor: "slack",
            content_type: "application/x-www-form-urlencoded",
            headers: &[],
            body: SLACK_COMMAND,
            text: "{{user_name}} ran {{command}} in {{channel_name}}",
            expected: "roadrunner ran /webhook-collect in foobar",
            values: json!({"reply_to": "{{response_url}}", "text": "{{text}}"}),
            pointers: json!({"reply_to": "/response_url", "text": "/text"}),
        },
    ];
    for delivery in deliveries {
        delivery.check(api, sink).await.with_context(|| format!("what {} sends", delivery.vendor))?;
    }
    Ok(())
}

/// What a vendor sends, and what a workflow makes of it.
struct Delivery {
    vendor: &'static str,
    content_type: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
    /// A Slack message's text, and what it becomes.
    text: &'static str,
    expected: &'static str,
    /// A JSON body whose fields are one expression each, and where in the delivery their values lie.
    values: Value,
    pointers: Value,
}

impl Delivery {
    async fn check(&self, api: &Api, sink: &Sink) -> anyhow::Result<()> {
        let message_path = format!("/{}/message", self.vendor);
        let values_path = format!("/{}/values", self.vendor);
        let slack = connect_slack(api, sink, &message_path).await?;
        let mut steps = slack_step(&slack, self.text);
        let request = json!({"method": "POST", "url": sink.url(&values_path), "json": self.values});
        steps
            .as_array_mut()
            .context("steps")?
            .push(json!({"id": "values", "uses": "http.request", "with": request, "timeout_ms": STEP_TIMEOUT_MS}));
        let workflow = api.create_workflow(self.vendor, steps).await?;
        let run = api.post_webhook(&workflow, self.content_type, self.headers, self.body).await?;

        let record = succeeded(api, &run).await?;
        let sent = self.sent()?;
        ensure!(record["input"]["body"] == sent, "the run's input: {}", record["input"]);
        let message = only_call(sink, &message_path)?.body;
        ensure!(message == json!({"text": self.expected}).to_string(), "the message is {message:?}");
        let values: Value = serde_json::from_slice(&only_call(sink, &values_path)?.body)?;
        for (name, pointer) in self.pointers.as_object().context("pointers")? {
            let original = pointer.as_str().and_then(|pointer| sent.pointer(pointer));
            ensure!(values.get(name) == original, "{name} is {:?}, was sent as {original:?}", values.get(name));
        }
        Ok(())
    }

    /// The delivery as a run sees it.
    fn sent(&self) -> anyhow::Result<Value> {
        if self.content_type.starts_with("application/json") {
            return Ok(serde_json::from_str(self.body)?);
        }
        let fields = reqwest::Url::parse(&format!("form:?{}", self.body))?;
        Ok(fields.query_pairs().map(|(name, value)| (name.into_owned(), Value::from(value))).collect())
    }
}

async fn connect_slack(api: &Api, sink: &Sink, path: &str) -> anyhow::Result<String> {
    let data = json!({"webhook_url": sink.url(path)});
    let connection = api.post("/api/connections", json!({"name": "Slack", "connector": "slack", "data": data})).await?;
    Ok(connection["id"].as_str().with_context(|| format!("no id in {connection}"))?.to_owned())
}

fn slack_step(connection: &str, text: &str) -> Value {
    let with = json!({"text": text});
    json!([{
        "id": "notify", "uses": "slack.send_message", "connection": connection,
        "with": with, "timeout_ms": STEP_TIMEOUT_MS,
    }])
}

pub(crate) async fn succeeded(api: &Api, run: &str) -> anyhow::Result<Value> {
    let record = api.finished_run(run, DEADLINE).await?;
    ensure!(record["status"] == "succeeded", "the run ended as {record}");
    Ok(record)
}

pub(crate) fn only_call(sink: &Sink, path: &str) -> anyhow::Result<Received> {
    let mut calls = sink.received_at(path);
    ensure!(calls.len() == 1, "{} calls of {path}", calls.len());
    calls.pop().context("no call")
}

/// Somebody is asked: two calls at the same time, then an approval whose link a step sends; the link is opened, decides
/// once, and the workflow that called this one goes on. Another run of it is cancelled, which reaches the one it called.
///
/// # Errors
/// Whatever is not as the API promises, with what was answered instead.
pub async fn decisions(api: &Api, sink: &Sink) -> anyhow::Result<()> {
    let (asking, calling) = approval_workflows(api, sink).await?;
    let refused = api.post(&format!("/api/workflows/{asking}/trigger"), json!({"parameters": {"amount": "7"}})).await;
    let refused = format!("{:#}", refused.err().context("a parameter of the wrong type was taken")?);
    ensure!(refused.contains("422") && refused.contains("/parameters/amount"), "the refusal: {refused}");

    let run = triggered(api, &calling).await?;
    let link = until("the approval's link", DEADLINE, async || Ok(sent_links(sink).first().cloned())).await?;
    let waiting = async |run: &str| {
        until(&format!("{run} to wait"), DEADLINE, async || {
            let record = api.get(&format!("/api/runs/{run}")).await?;
            Ok((record["status"] == "waiting").then_some(record))
        })
        .await
    };
    let asked = until("the approval to be open", DEADLINE, async || Ok(api.get(&link).await.ok())).await?;
    ensure!(asked.to_string().contains("Pay 7?"), "the approval: {asked}");
    waiting(&run).await?;
    let decided = api.post(&link, json!({"decision": "approve", "comment": "fine"})).await?;
    ensure!(decided.to_string().contains("approve"), "the decision: {decided}");
    let record = succeeded(api, &run).await?;
    let called = &record["steps"][0]["output"];
    ensure!(called["output"] == json!({"approved": true, "amount": 7}), "what was called yields {called}");
    ensure!(!record.to_string().contains(&link), "the link is in {record}");
    api.post(&link, json!({"decision": "approve"})).await.context("the same decision once more")?;
    let other = api.post(&link, json!({"decision": "reject"})).await;
    ensure!(other.is_err_and(|error| format!("{error:#}").contains("409")), "another decision was taken");
    ensure!(
        sink.received_at("/left").len() == 1 && sink.received_at("/right").len() == 1,
        "a branch was not called once"
    );

    let run = triggered(api, &calling).await?;
    until("the second link", DEADLINE, async || Ok((sent_links(sink).len() == 2).then_some(()))).await?;
    waiting(&run).await?;
    api.post(&format!("/api/runs/{run}/cancel"), json!({})).await?;
    let record = api.finished_run(&run, DEADLINE).await?;
    ensure!(record["status"] == "cancelled", "the cancelled run: {record}");
    until("the called run to be cancelled", DEADLINE, async || {
        let runs = api.get(&format!("/api/runs?workflow_id={asking}&status=cancelled")).await?;
        Ok((runs["items"].as_array().is_some_and(|runs| runs.len() == 1)).then_some(()))
    })
    .await
}

/// A workflow that asks, and one that calls it.
async fn approval_workflows(api: &Api, sink: &Sink) -> anyhow::Result<(String, String)> {
    let call = |id: &str, after: Value, json: Value| {
        let with = json!({"method": "POST", "url": sink.url(&format!("/{id}")), "json": json});
        json!({"id": id, "uses": "http.request", "after": after, "with": with, "timeout_ms": STEP_TIMEOUT_MS})
    };
    let asking = json!({
        "name": "Ask", "trigger": {"type": "manual"},
        "parameters": [{"name": "amount", "type": "integer", "required": true}],
        "steps": [
            call("left", json!([]), json!({})),
            call("right", json!([]), json!({})),
            call("send", json!(["left", "right"]), json!({"link": "{{ run.approvals.ask.url }}"})),
            {"id": "ask", "uses": "approval.wait", "with": {"message": "Pay {{ params.amount }}?", "timeout": "4m"}},
        ],
        "output": {"approved": "{{ steps.ask.output.approved }}", "amount": "{{ params.amount }}"},
    });
    let asking = id_of(&api.post("/api/workflows", asking).await?)?;
    let calling = json!({
        "name": "Call", "trigger": {"type": "manual"},
        "steps": [{"id": "ask", "uses": "workflow.call", "with": {"workflow": asking, "parameters": {"amount": 7}}}],
    });
    let calling = id_of(&api.post("/api/workflows", calling).await?)?;
    Ok((asking, calling))
}

pub(crate) fn id_of(document: &Value) -> anyhow::Result<String> {
    document["id"].as_str().map(str::to_owned).with_context(|| format!("no id in {document}"))
}

async fn triggered(api: &Api, workflow: &str) -> anyhow::Result<String> {
    let answer = api.post(&format!("/api/workflows/{workflow}/trigger"), json!({})).await?;
    answer["run_id"].as_str().map(str::to_owned).with_context(|| format!("no run in {answer}"))
}

/// The paths of the links that were sent.
fn sent_links(sink: &Sink) -> Vec<String> {
    let links = sink.received_at("/send").into_iter().filter_map(|call| {
        let body: Value = serde_json::from_slice(&call.body).ok()?;
        let link = body["link"].as_str()?.to_owned();
        link.find("/api/approvals/").map(|path| link[path..].to_owned())
    });
    links.collect()
}

/// The key of the connection that [`connectors`] makes.
pub const CONNECTOR_KEY: &str = "acme-s3cret-0123456789";

/// A connector is uploaded and called by a workflow at once; its next version, which goes to another host, gets no secret and
/// reaches nobody until that is consented to; a file is stored, sent and linked to.
///
/// # Errors
/// Whatever is not as the API promises, with what was answered instead.
pub async fn connectors(api: &Api, sink: &Sink) -> anyhow::Result<()> {
    let thief = Sink::start(Duration::ZERO).await?;
    let version = |sink: &Sink| {
        let origin = sink.url("");
        let host = origin.trim_start_matches("http://").to_owned();
        json!({
            "format": 1, "name": "acme", "title": "Acme", "hosts": [host], "base_url": origin,
            "auth": [{"id": "key", "type": "api_key", "in": "header", "name": "X-Acme-Key"}],
            "actions": {"make_order": {
                "title": "Make an order", "effect": "write", "answer": "text",
                "input": {"type": "object", "properties": {"customer": {"type": "string"}}, "required": ["customer"]},
                "request": {"method": "POST", "path": "/acme/{{ input.customer }}/orders", "json": "{{ input }}"},
            }},
        })
    };
    api.post("/api/connectors", version(sink)).await?;
    let connection = json!({"name": "Acme", "connector": "acme", "data": {"api_key": CONNECTOR_KEY}});
    let connection = text(&api.post("/api/connections", connection).await?, "/id")?.to_owned();
    let step = json!([{
        "id": "make", "uses": "acme.make_order", "connection": connection, "timeout_ms": STEP_TIMEOUT_MS,
        "with": {"customer": "{{ customer }}"}, "retry": {"max_attempts": 1},
    }]);
    let workflow = api.create_workflow("Orders of Acme", step).await?;
    let order = json!({"customer": "c/1 ?"}).to_string();
    let run = api.post_webhook(&workflow, "application/json", &[], &order).await?;
    succeeded(api, &run).await?;
    let call = only_call(sink, "/acme/c%2F1%20%3F/orders")?;
    ensure!(call.header("x-acme-key") == Some(CONNECTOR_KEY), "the key didn't go along");
    ensure!(call.header("idempotency-key").is_some_and(|key| !key.is_empty()), "the call has no idempotency key");

    let uploaded = api.put("/api/connectors/acme", "1", version(&thief)).await?;
    ensure!(uploaded["version"] == 2, "the new version: {uploaded}");
    let refused = async || {
        let run = api.post_webhook(&workflow, "application/json", &[], &order).await?;
        let record = api.finished_run(&run, DEADLINE).await?;
        anyhow::Ok(record["steps"][0]["error"]["code"].clone())
    };
    // A worker may remember the version before for five seconds; that one goes to the old host.
    until("the new version", DEADLINE, async || Ok((refused().await? == "egress_denied").then_some(()))).await?;
    let path = format!("/api/connections/{connection}");
    let detail = api.get(&path).await?;
    ensure!(
        detail["pending"]["version"] == 2 && detail["workflows"][0]["id"] == workflow.as_str(),
        "pending: {detail}"
    );
    ensure!(thief.received().is_empty(), "the new host was called: {:?}", thief.received());
    api.post(&format!("{path}/consent"), json!({"consent": detail["pending"]["consent"]})).await?;
    until("the consent", DEADLINE, async || {
        let run = api.post_webhook(&workflow, "application/json", &[], &order).await?;
        Ok((api.finished_run(&run, DEADLINE).await?["status"] == "succeeded").then_some(()))
    })
    .await?;
    ensure!(thief.received().iter().all(|call| call.header("x-acme-key") == Some(CONNECTOR_KEY)), "after the consent");

    let parts = json!([{"name": "note", "value": "{{ note }}"}, {"name": "csv", "file": "reports/a.csv", "content_type": "text/csv"}]);
    let with = json!({"method": "POST", "url": sink.url("/upload"), "multipart": parts});
    let steps = json!([
        {"id": "put", "uses": "storage.put", "with": {"path": "reports/a.csv", "text": "a,b\n1,2\n"}, "timeout_ms": STEP_TIMEOUT_MS},
        {"id": "send", "uses": "http.request", "with": with, "timeout_ms": STEP_TIMEOUT_MS},
        {"id": "link", "uses": "storage.link", "with": {"path": "reports/a.csv", "expires_in": 600}, "timeout_ms": STEP_TIMEOUT_MS},
    ]);
    let workflow = api.create_workflow("Reports", steps).await?;
    let run = api.post_webhook(&workflow, "application/json", &[], r#"{"note": "new"}"#).await?;
    let record = succeeded(api, &run).await?;
    let sent = String::from_utf8_lossy(&only_call(sink, "/upload")?.body).into_owned();
    ensure!(
        sent.contains("filename=\"a.csv\"") && sent.contains("a,b\n1,2\n") && sent.contains("\r\n\r\nnew\r\n"),
        "{sent}"
    );
    let link = text(&record["steps"][2], "/output/url")?;
    ensure!(api.download(link).await? == b"a,b\n1,2\n", "the link {link}");
    Ok(())
}
