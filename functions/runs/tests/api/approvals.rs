//! `/api/approvals/{token}`: the link, the page, the decision, and everything that is no such link.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use http::Method;
use serde_json::{Value, json};
use tidegate_model::{Approval, ApprovalToken, Decided, RunRow, RunStatus, TenantId};
use tidegate_testing::Answer;

use crate::{Setup, setup, wake_of};

const MESSAGE: &str = "Ship <b>it</b> & \"go\" to 'prod'?";
const JSON: (&str, &str) = ("content-type", "application/json");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const ACCEPT_JSON: (&str, &str) = ("accept", "application/json");
const BROWSER: (&str, &str) = ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");

/// A link, signed as the worker signs.
fn token(key: &[u8], row: &RunRow, step: &str) -> ApprovalToken {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let signature = hmac::sign(&key, &ApprovalToken::signed(row.tenant, row.id, step));
    let signature = signature.as_ref().try_into().unwrap();
    ApprovalToken { tenant: row.tenant, run: row.id, step: step.to_owned(), signature }
}

fn path(token: &ApprovalToken) -> String {
    format!("/api/approvals/{token}")
}

/// Opens a step's approval as the worker does, for a minute.
async fn open(setup: &Setup, row: &RunRow, step: &str) -> ApprovalToken {
    let token = token(b"the installation's key", row, step);
    let digest = digest(&SHA256, &token.signature);
    let approval = Approval {
        digest: digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
        message: Some(MESSAGE.to_owned()),
        until: Some(setup.world.clock.now() + Duration::from_secs(60)),
        decided: None,
    };
    let runs = setup.world.store.runs();
    runs.open_approval(row.tenant, row.id, step, &approval, row.accepted_at).await.unwrap();
    token
}

async fn decided(setup: &Setup, token: &ApprovalToken) -> Option<Decided> {
    setup.world.store.runs().approval(token.tenant, token.run, &token.step).await.unwrap().unwrap().decided
}

async fn see(setup: &Setup, path: &str) -> Answer {
    setup.app.send(None, Method::GET, path, &[ACCEPT_JSON], "").await
}

async fn decide(setup: &Setup, path: &str, body: &Value) -> Answer {
    setup.app.send(None, Method::POST, path, &[JSON], body.to_string()).await
}

#[tokio::test]
async fn a_click_approves_and_wakes_the_run() {
    let setup = setup().await;
    let row = setup.waiting().await;
    let token = open(&setup, &row, "ask").await;
    let path = path(&token);
    let shown = see(&setup, &path).await.expect(200).body;
    let expected = json!({
        "workflow": "w", "run_id": row.id, "step": "ask", "message": MESSAGE, "status": "open",
        "until": "2026-11-20T10:01:00.000Z", "decided_at": null,
    });
    assert_eq!(shown, expected);

    setup.world.clock.advance(Duration::from_secs(1));
    let form = "comment=+looks+good%0D%0Ato+me+&decision=approve";
    let answer = setup.app.send(None, Method::POST, &path, &[FORM, BROWSER], form).await.expect(200);
    assert!(answer.body.as_str().unwrap().contains("This was approved on 2026-11-20 10:00:01 UTC."), "{}", answer.body);
    assert_eq!(setup.sent().await, [wake_of(&row)]);
    let comment = Some("looks good\nto me".to_owned());
    assert_eq!(decided(&setup, &token).await, Some(Decided { approved: true, comment, at: setup.world.clock.now() }));

    // A second click: the wake may have been lost. The first decision, its comment and its time stand.
    setup.world.clock.advance(Duration::from_secs(120));
    let again = decide(&setup, &path, &json!({"decision": "approve", "comment": "me too"})).await.expect(200);
    assert_eq!((again.text("/status"), again.text("/decided_at")), ("approved", "2026-11-20T10:00:01.000Z"));
    assert_eq!(setup.sent().await, [wake_of(&row)]);
    let other = decide(&setup, &path, &json!({"decision": "reject"})).await.expect(409);
    assert!(other.text("/detail").contains("approved at 2026-11-20T10:00:01.000Z already"), "{}", other.body);
    assert_eq!(setup.sent().await, []);
    assert_eq!(see(&setup, &path).await.expect(200).text("/status"), "approved");
}

#[tokio::test]
async fn a_rejection_is_a_decision_too() {
    let setup = setup().await;
    let row = setup.waiting().await;
    let token = open(&setup, &row, "ask").await;
    let answer = decide(&setup, &path(&token), &json!({"decision": "reject", "comment": " "})).await.expect(200);
    assert_eq!(answer.text("/status"), "rejected");
    let decided = decided(&setup, &token).await.unwrap();
    assert_eq!((decided.approved, decided.comment), (false, None));
    assert_eq!(setup.sent().await, [wake_of(&row)]);
    decide(&setup, &path(&token), &json!({"decision": "approve"})).await.expect(409);
}

#[tokio::test]
async fn a_run_that_does_not_wait_yet_finds_the_decision_when_it_parks() {
    let setup = setup().await;
    let row = setup.row();
    setup.store(&row, None).await;
    let token = open(&setup, &row, "ask").await;
    decide(&setup, &path(&token), &json!({"decision": "approve"})).await.expect(200);
    assert_eq!(setup.sent().await, [], "there is nothing to wake");
    assert_eq!(setup.world.store.runs().signals(row.tenant, row.id).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_page_runs_nothing_and_escapes_what_it_shows() {
    let setup = setup().await;
    let row = setup.waiting().await;
    let path = path(&open(&setup, &row, "ask").await);
    let page = setup.app.send(None, Method::GET, &path, &[BROWSER], "").await.expect(200);
    let html = page.body.as_str().unwrap();
    assert!(html.contains("Ship &lt;b&gt;it&lt;/b&gt; &amp; &quot;go&quot; to &#39;prod&#39;?"), "{html}");
    assert!(html.contains(&row.id.to_string()) && html.contains("<dd>w</dd>"), "{html}");
    assert!(html.contains("<form method=\"post\">") && !html.contains("<script") && !html.contains("<b>"), "{html}");
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert_eq!((page.header("cache-control"), page.header("referrer-policy")), ("no-store", "no-referrer"));
    assert_eq!((page.header("x-robots-tag"), page.header("x-content-type-options")), ("noindex", "nosniff"));
    let (_, style) = html.split_once("<style>").unwrap();
    let (style, _) = style.split_once("</style>").unwrap();
    use base64::Engine as _;
    let hash = base64::engine::general_purpose::STANDARD.encode(digest(&SHA256, style.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    );
    assert_eq!(page.header("content-security-policy"), policy);

    let gone = setup.app.send(None, Method::GET, "/api/approvals/nonsense", &[BROWSER], "").await.expect(404);
    assert!(gone.body.as_str().unwrap().contains("There is no approval by this link."), "{}", gone.body);
    assert_eq!(gone.header("content-security-policy"), policy);
    let gone = see(&setup, "/api/approvals/nonsense").await.expect(404);
    assert_eq!((gone.text("/code"), gone.header("content-type")), ("not_found", "application/problem+json"));
}

#[tokio::test]
async fn looking_decides_nothing() {
    let setup = setup().await;
    let row = setup.waiting().await;
    let token = open(&setup, &row, "ask").await;
    let path = path(&token);
    for (method, query) in [
        (Method::GET, ""),
        (Method::HEAD, ""),
        (Method::GET, "?decision=approve"),
        (Method::HEAD, "?decision=approve&comment=x"),
    ] {
        for accept in [ACCEPT_JSON, BROWSER] {
            let path = format!("{path}{query}");
            setup.app.send(None, method.clone(), &path, &[accept, FORM], "decision=approve").await.expect(200);
        }
    }
    for method in [Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
        setup.app.send(None, method, &path, &[JSON], r#"{"decision":"approve"}"#).await.expect(405);
    }
    // A decision is in the body, never in the address.
    setup.app.send(None, Method::POST, &format!("{path}?decision=approve"), &[FORM], "").await.expect(422);
    assert_eq!(decided(&setup, &token).await, None);
    assert_eq!(setup.sent().await, []);
}

#[tokio::test]
async fn what_is_no_decision_is_refused() {
    let setup = setup().await;
    let row = setup.waiting().await;
    let token = open(&setup, &row, "ask").await;
    let path = path(&token);
    let long = "ü".repeat(2_001);
    for (body, pointer) in [
        (json!({}), "/decision"),
        (json!({"decision": "approved"}), "/decision"),
        (json!({"decision": "approve", "comment": 1}), "/comment"),
        (json!({"decision": "approve", "comment": long}), "/comment"),
        (json!({"decision": "approve", "by": "me"}), "/by"),
    ] {
        let answer = decide(&setup, &path, &body).await.expect(422);
        assert_eq!(answer.pointers(), [pointer], "{}", answer.body);
    }
    for form in
        ["", "decision=", "decision=Approve", "decision=approve&decision=reject", "comment=x", "decision=approve&x=1"]
    {
        setup.app.send(None, Method::POST, &path, &[FORM, ACCEPT_JSON], form).await.expect(422);
    }
    let form = "decision=approve";
    for content_type in ["text/plain", "multipart/form-data; boundary=x", ""] {
        let headers = [("content-type", content_type), ACCEPT_JSON];
        setup.app.send(None, Method::POST, &path, &headers, form).await.expect(415);
    }
    let huge = format!("decision=approve&comment={}", "x".repeat(70_000));
    setup.app.send(None, Method::POST, &path, &[FORM, ACCEPT_JSON], huge).await.expect(413);
    assert_eq!(decided(&setup, &token).await, None);
    let longest = format!("decision=approve&comment={}", "%F0%9F%8C%8A".repeat(2_000));
    setup.app.send(None, Method::POST, &path, &[FORM, ACCEPT_JSON], longest).await.expect(200);
}

#[tokio::test]
async fn time_and_the_runs_end_close_an_approval() {
    let setup = setup().await;
    let (late, over) = (setup.waiting().await, setup.waiting().await);
    let (late, over) = (open(&setup, &late, "ask").await, (open(&setup, &over, "ask").await, over));
    setup.app.post(&setup.owner, &format!("/api/runs/{}/cancel", over.1.id), &Value::Null).await.expect(202);
    assert_eq!(setup.sent().await, [wake_of(&over.1)]);
    assert_eq!(see(&setup, &path(&over.0)).await.expect(200).text("/status"), "closed");
    let answer = decide(&setup, &path(&over.0), &json!({"decision": "approve"})).await.expect(409);
    assert!(answer.text("/detail").contains("The run ended at 2026-11-20T10:00:00.000Z"), "{}", answer.body);

    setup.world.clock.advance(Duration::from_secs(59));
    assert_eq!(see(&setup, &path(&late)).await.expect(200).text("/status"), "open");
    setup.world.clock.advance(Duration::from_secs(1));
    assert_eq!(see(&setup, &path(&late)).await.expect(200).text("/status"), "expired");
    let answer = decide(&setup, &path(&late), &json!({"decision": "approve"})).await.expect(409);
    assert!(answer.text("/detail").contains("over at 2026-11-20T10:01:00.000Z"), "{}", answer.body);
    for token in [&over.0, &late] {
        assert_eq!(decided(&setup, token).await, None);
    }
    assert_eq!(setup.sent().await, []);
}

/// The lesson of a CVE in the field: a link that was checked in one form and acted on in another. Here one text is one
/// link, and whatever isn't exactly it gets the same answer as a run that never was.
#[tokio::test]
async fn no_other_link_decides() {
    let setup = setup().await;
    let (row, other) = (setup.waiting().await, setup.waiting().await);
    let token = open(&setup, &row, "ask").await;
    open(&setup, &row, "ask_2").await;
    open(&setup, &row, "as").await;
    open(&setup, &other, "ask").await;
    let text = token.to_string();
    let with = |run, step: &str| ApprovalToken { run, step: step.to_owned(), ..token.clone() }.to_string();

    let mut attempts = vec![
        // Another run's, another step's, or one that nobody asked; another key.
        with(other.id, "ask"),
        with(row.id, "ask_2"),
        with(row.id, "as"),
        with(row.id, "never"),
        with(setup.world.ids.run(row.tenant), "ask"),
        self::token(b"another key", &row, "ask").to_string(),
        ApprovalToken { signature: [0; 32], ..token.clone() }.to_string(),
        // The same run under another tenant.
        ApprovalToken { tenant: other_tenant(&setup).await, ..token.clone() }.to_string(),
        // Steps that can't be.
        with(row.id, "ask.approved"),
        with(row.id, "ask#approval"),
        with(row.id, ""),
        with(row.id, "ASK"),
        with(row.id, "ask\0"),
        // Other texts of the same bytes.
        format!("{text}="),
        format!("{text}=="),
        format!("{text}%3D"),
        format!("{text}%00"),
        format!("{text}%0A"),
        format!("%20{text}"),
        format!("{text}."),
        text.to_uppercase(),
        text.to_lowercase(),
        text.replace('-', "+").replace('_', "%2F") + "%2B",
        text[..text.len() - 1].to_owned(),
        text[1..].to_owned(),
        format!("{text}{text}"),
        "x".repeat(5_000),
    ];
    // The bits at the end that carry nothing: `ask` is 68 bytes in all, which leave 4 of them.
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (head, last) = text.split_at(text.len() - 1);
    attempts.extend(alphabet.chars().filter(|other| *last != other.to_string()).map(|other| format!("{head}{other}")));
    // One bit changed anywhere.
    use base64::Engine as _;
    let url_safe = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let bytes = url_safe.decode(&text).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        attempts.push(url_safe.encode(bytes));
    }

    let missing = see(&setup, "/api/approvals/nonsense").await.expect(404).text("/detail").to_owned();
    for attempt in &attempts {
        assert_ne!(*attempt, text);
        let path = format!("/api/approvals/{attempt}");
        for answer in [see(&setup, &path).await, decide(&setup, &path, &json!({"decision": "approve"})).await] {
            assert_eq!((answer.status.as_u16(), answer.text("/detail")), (404, &*missing), "{attempt}");
        }
    }
    for (row, step) in [(&row, "ask"), (&row, "ask_2"), (&row, "as"), (&other, "ask")] {
        let approval = setup.world.store.runs().approval(row.tenant, row.id, step).await.unwrap().unwrap();
        assert_eq!(approval.decided, None);
    }
    assert_eq!(setup.sent().await, []);
    decide(&setup, &format!("/api/approvals/{text}"), &json!({"decision": "approve"})).await.expect(200);
}

async fn other_tenant(setup: &Setup) -> TenantId {
    setup.world.session("sam").await.tenant
}

#[tokio::test]
async fn an_old_link_decides_nothing_of_a_run_whose_record_is_gone() {
    let setup = setup().await;
    let row = RunRow { status: RunStatus::Waiting, ..setup.row() };
    let token = open(&setup, &row, "ask").await;
    decide(&setup, &path(&token), &json!({"decision": "approve"})).await.expect(404);
    see(&setup, &path(&token)).await.expect(404);
    assert_eq!(decided(&setup, &token).await, None);
}

/// What the log and the store hold is not enough to decide.
#[tokio::test]
async fn the_signature_is_nowhere_but_in_the_link() {
    let setup = setup().await;
    let row = setup.waiting().await;
    let token = open(&setup, &row, "ask").await;
    let stored = setup.world.store.runs().approval(row.tenant, row.id, "ask").await.unwrap().unwrap();
    let digest = stored.digest.as_bytes();
    let from_digest: Vec<u8> =
        digest.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
    let forged = ApprovalToken { signature: from_digest.try_into().unwrap(), ..token.clone() };
    decide(&setup, &path(&forged), &json!({"decision": "approve"})).await.expect(404);
    let shown = see(&setup, &path(&token)).await.expect(200).body.to_string();
    assert!(!shown.contains(&stored.digest) && !shown.contains(&token.to_string()), "{shown}");
}
