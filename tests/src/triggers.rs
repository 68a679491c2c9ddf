//! What starts runs, as requests: deliveries that are signed and come again, and files that are uploaded. Nothing here knows
//! where the server runs.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use aws_lc_rs::hmac;
use futures::future::try_join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::api::text;
use crate::png::{png, read_png};
use crate::scenario::{DEADLINE, STEP_TIMEOUT_MS, id_of, only_call, succeeded};
use crate::{Api, GITHUB_PUSH, Sink, until};

const SECRET: &str = "It's a Secret to Everybody";
const JSON: (&str, &str) = ("content-type", "application/json");
const CLIENTS: usize = 20;
const DELIVERIES: usize = 1_000;
const DISTINCT: usize = 100;
/// As large as a picture of a good camera.
const PICTURE_BYTES: usize = 20_000_000;

/// GitHub's signature of a body (<https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>).
fn signature(secret: &str, body: &str) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), body.as_bytes());
    let digits: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={digits}")
}

async fn signed_workflow(api: &Api, trigger: Value, steps: Value) -> anyhow::Result<String> {
    let connection = json!({"name": "GitHub's webhook", "connector": "webhook_secret", "data": {"secret": SECRET}});
    let connection = id_of(&api.post("/api/connections", connection).await?)?;
    let mut definition = json!({"name": "On push", "trigger": trigger, "steps": steps});
    definition["trigger"]["type"] = json!("webhook");
    definition["trigger"]["verify"] = json!({"scheme": "github", "connection": connection});
    id_of(&api.post("/api/workflows", definition).await?)
}

/// A thousand deliveries of a hundred ids, by twenty senders at once, are a hundred runs; what isn't signed is none, and is told.
///
/// # Errors
/// Whatever is not as the API promises, with what was answered instead.
pub async fn deliveries(api: &Api, sink: &Sink) -> anyhow::Result<()> {
    let request = json!({"method": "POST", "url": sink.url("/push"), "json": {"event": "{{ trigger.headers['x-github-event'] }}"}});
    let steps = json!([{"id": "call", "uses": "http.request", "with": request, "timeout_ms": STEP_TIMEOUT_MS}]);
    let workflow = signed_workflow(api, json!({"headers": ["X-GitHub-Event"]}), steps).await?;
    let address = format!("/api/webhooks/{workflow}");
    let deliver = async |id: &str, signature: &str| {
        let headers = [JSON, ("x-github-event", "push"), ("x-github-delivery", id), ("x-hub-signature-256", signature)];
        api.send(Method::POST, &address, &headers, GITHUB_PUSH).await
    };
    let right = signature(SECRET, GITHUB_PUSH);

    let deliver = &deliver;
    let right = &right;
    let senders = (0..CLIENTS).map(|client| async move {
        let mut runs = Vec::new();
        for number in 0..DELIVERIES / CLIENTS {
            let id = format!("72d3162e-cc78-11e3-81ab-{:012}", (client * 7 + number) % DISTINCT);
            let (status, answer) = deliver(&id, right).await?;
            ensure!(status == 200, "{id} was answered {status}: {answer}");
            runs.push((id, text(&answer, "/run_id")?.to_owned()));
        }
        Ok(runs)
    });
    let answered: Vec<(String, String)> = try_join_all(senders).await?.into_iter().flatten().collect();
    ensure!(answered.len() == DELIVERIES, "{} were answered", answered.len());
    let pairs: BTreeSet<_> = answered.iter().collect();
    let runs: BTreeSet<_> = answered.iter().map(|(_, run)| run.clone()).collect();
    ensure!(pairs.len() == DISTINCT && runs.len() == DISTINCT, "{} ids are {} runs", pairs.len(), runs.len());
    for run in &runs {
        succeeded(api, run).await?;
    }
    let listed = api.get(&format!("/api/runs?workflow_id={workflow}&limit=100")).await?;
    let found = listed["items"].as_array().into_iter().flatten().filter_map(|run| run["id"].as_str());
    let found: BTreeSet<_> = found.map(str::to_owned).collect();
    ensure!(found == runs, "{} runs are listed", found.len());
    if let Some(cursor) = listed["next_cursor"].as_str() {
        let more = api.get(&format!("/api/runs?workflow_id={workflow}&limit=100&cursor={cursor}")).await?;
        ensure!(more["items"] == json!([]), "there are more runs: {more}");
    }
    let calls = sink.received_at("/push");
    let keys: BTreeSet<_> = calls.iter().filter_map(|call| call.header("idempotency-key")).collect();
    ensure!(keys.len() == DISTINCT, "{} calls with {} keys", calls.len(), keys.len());
    ensure!(calls.iter().all(|call| call.body == r#"{"event":"push"}"#), "what was called: {:?}", calls[0].body);

    let forged = signature("Somebody's secret", GITHUB_PUSH);
    let (status, answer) = deliver("72d3162e-cc78-11e3-81ab-forged", &forged).await?;
    ensure!(status == 401 && answer["code"] == "signature_invalid", "a forged one was answered {status}: {answer}");
    let told = until("the rejection", DEADLINE, async || {
        let shown = api.get(&format!("/api/workflows/{workflow}/deliveries")).await?;
        Ok((shown["rejected"]["total"] == 1).then_some(shown))
    });
    let shown = told.await?;
    ensure!(shown["rejected"]["reasons"] == json!({"signature_mismatch": 1}), "{shown}");
    let headers = &shown["items"][0]["request"]["headers"];
    ensure!(*headers == json!({"x-github-event": "push"}), "the last payloads: {shown}");
    Ok(())
}

/// A picture of 20 MB is uploaded, given to what processes it, stored under a name of its own, and somebody is told where; a
/// small one comes in a form.
///
/// # Errors
/// Whatever is not as the API promises, with what was answered instead.
pub async fn uploads(api: &Api, sink: &Sink) -> anyhow::Result<()> {
    let file = "{{ trigger.files[0].path }}";
    let process = json!({"method": "POST", "url": sink.url("/process"), "file": file});
    let link = json!({"path": "pictures/{{ trigger.files[0].filename }}", "expires_in": 600});
    let copy = json!({"from": file, "to": "pictures/{{ trigger.files[0].filename }}"});
    let told =
        json!({"url": "{{ steps.link.output.url }}", "bytes": "{{ trigger.files[0].bytes }}", "by": "{{ owner }}"});
    let notify = json!({"method": "POST", "url": sink.url("/notify"), "json": told});
    let step = |id: &str, uses: &str, with: Value| json!({"id": id, "uses": uses, "with": with, "timeout_ms": 8_000});
    let steps = json!([
        step("process", "http.request", process),
        step("store", "storage.copy", copy),
        step("link", "storage.link", link),
        step("notify", "http.request", notify),
    ]);
    let workflow = signed_workflow(api, json!({"uploads": {}, "deduplicate": {"by": "nothing"}}), steps).await?;
    let address = format!("/api/webhooks/{workflow}");
    let send = async |path: &str, body: &str| {
        let (path, signature) = (format!("{address}{path}"), signature(SECRET, body));
        let (status, answer) =
            api.send(Method::POST, &path, &[JSON, ("x-hub-signature-256", &signature)], body.to_owned()).await?;
        ensure!((200..300).contains(&status), "{path} was answered {status}: {answer}");
        Ok(answer)
    };

    let picture = png(PICTURE_BYTES);
    let size = read_png(&picture).map_err(anyhow::Error::msg)?;
    let announced = json!({"filename": "large.png", "content_type": "image/png", "bytes": picture.len()}).to_string();
    let begun = send("/uploads", &announced).await?;
    let headers: Vec<(String, String)> =
        serde_json::from_value::<std::collections::BTreeMap<_, _>>(begun["upload"]["headers"].clone())?
            .into_iter()
            .collect();
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let to = text(&begun, "/upload/url")?;
    let put = async |bytes: Vec<u8>| api.send(Method::PUT, to, &headers, bytes).await;
    let (status, answer) = put(picture.clone()).await?;
    ensure!((200..300).contains(&status), "the upload was answered {status}: {answer}");
    // It is refused before its bytes are taken, which not every client hears.
    if let Ok((status, answer)) = put(picture.iter().rev().copied().collect()).await {
        ensure!(status == 412, "a second upload was answered {status}: {answer}");
    }

    let start = text(&begun, "/start_url")?.strip_prefix(&address).context("another address")?.to_owned();
    let accepted = send(&start, r#"{"owner": "Alex"}"#).await?;
    ensure!(accepted["run_id"] == begun["run_id"], "{accepted} is not the run of {begun}");
    let again = send(&start, r#"{"owner": "Alex"}"#).await?;
    ensure!(again["run_id"] == begun["run_id"], "{again}");
    let record = succeeded(api, text(&accepted, "/run_id")?).await?;
    ensure!(record["input"]["request"]["files"][0]["filename"] == "large.png", "the run's input: {}", record["input"]);
    let processed = only_call(sink, "/process")?.body;
    ensure!(read_png(&processed) == Ok(size) && processed == picture, "{} bytes were processed", processed.len());
    let told: Value = serde_json::from_slice(&only_call(sink, "/notify")?.body)?;
    ensure!(told["bytes"] == picture.len() && told["by"] == "Alex", "told was {told}");
    let stored = api.download(text(&told, "/url")?).await?;
    ensure!(stored == picture, "{} bytes were stored", stored.len());

    // A small one comes with its form.
    let small = png(100_000);
    let form = [
        b"--x\r\ncontent-disposition: form-data; name=\"owner\"\r\n\r\nSam\r\n--x\r\n".as_slice(),
        b"content-disposition: form-data; name=\"picture\"; filename=\"small.png\"\r\ncontent-type: image/png\r\n\r\n",
        &small,
        b"\r\n--x--\r\n",
    ]
    .concat();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let digits: String = hmac::sign(&key, &form).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let signature = format!("sha256={digits}");
    let headers = [("content-type", "multipart/form-data; boundary=x"), ("x-hub-signature-256", &*signature)];
    let (status, answer) = api.send(Method::POST, &address, &headers, form).await?;
    ensure!(status == 200, "the form was answered {status}: {answer}");
    succeeded(api, text(&answer, "/run_id")?).await?;
    let told: Value = serde_json::from_slice(&sink.received_at("/notify")[1].body)?;
    ensure!(told["by"] == "Sam" && api.download(text(&told, "/url")?).await? == small, "told was {told}");
    Ok(())
}

/// A caller who asks for it gets the run's output.
///
/// # Errors
/// Whatever is not as the API promises, with what was answered instead.
pub async fn answers(api: &Api) -> anyhow::Result<()> {
    let definition = json!({
        "name": "Sum",
        "trigger": {"type": "webhook", "methods": ["GET"], "respond": "when_finished"},
        "steps": [{"id": "sum", "uses": "data.transform", "with": {"input": "{{ trigger.query.n }}", "query": "sum(map(&to_number(@), @))"}}],
        "output": {"sum": "{{ steps.sum.output }}"},
    });
    let workflow = id_of(&api.post("/api/workflows", definition).await?)?;
    let path = format!("/api/webhooks/{workflow}?n=1&n=2&n=39");
    let (status, answer) = api.send(Method::GET, &path, &[], "").await?;
    ensure!(status == 200 && answer == json!({"sum": 42}), "it was answered {status}: {answer}");
    let wrong = format!("/api/webhooks/{workflow}");
    let (status, answer) = api.send(Method::GET, &wrong, &[], "").await?;
    ensure!(status == 502 && answer["code"] == "run_failed", "it was answered {status}: {answer}");
    Ok(())
}
