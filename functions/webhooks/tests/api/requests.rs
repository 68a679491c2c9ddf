//! What a run sees of a request, and from where browsers may send it.

use axum::body::Body;
use http::Method;
use serde_json::{Value, json};
use tidegate_model::{Payload, RunFile};
use tidegate_platform::Blobs as _;

use crate::{path, setup};

#[tokio::test]
async fn methods_are_those_that_the_trigger_allows() {
    let setup = setup().await;
    let trigger = json!({"type": "webhook", "methods": ["GET", "PUT", "PATCH", "DELETE"]});
    let workflow = setup.workflow(trigger, true).await;
    for method in ["GET", "PUT", "PATCH", "DELETE"] {
        let method: Method = method.parse().unwrap();
        setup.app.send(None, method.clone(), &path(&workflow), &[], Body::empty()).await.expect(200);
        let start = setup.queued().await.remove(0);
        assert_eq!(start.trigger.request.unwrap().method, method.as_str());
        assert_eq!(start.trigger.body, Payload::Inline(json!({})), "no body is an empty object");
    }
    // `HEAD` asks for what `GET` would answer, and must start nothing.
    for method in [Method::POST, Method::HEAD] {
        let answer = setup.app.send(None, method, &path(&workflow), &[], Body::empty()).await.expect(405);
        assert_eq!(answer.header("allow"), "GET, PUT, PATCH, DELETE");
    }
    let by_default = setup.by_webhook().await;
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::PATCH, Method::DELETE] {
        let answer = setup.app.send(None, method, &path(&by_default), &[], Body::empty()).await.expect(405);
        assert_eq!(answer.header("allow"), "POST");
    }
    assert!(setup.queued().await.is_empty());
}

#[tokio::test]
async fn the_query_and_chosen_headers_are_seen() {
    let setup = setup().await;
    let trigger = json!({"type": "webhook", "headers": ["X-GitHub-Event", "x-missing", "x-twice"]});
    let workflow = setup.workflow(trigger, true).await;
    let target = format!("{}?shop=a%20b&tag=1&tag=2&empty", path(&workflow));
    let headers = [
        ("content-type", "application/json"),
        ("x-github-event", "push"),
        ("x-twice", "a"),
        ("x-twice", "b"),
        ("x-other", "unseen"),
        ("authorization", "Bearer s3cr3t"),
    ];
    setup
        .app
        .send(None, Method::POST, &target, &headers, r#"{"headers": {"x-github-event": "mine"}}"#)
        .await
        .expect(200);
    let request = setup.queued().await.remove(0).trigger.request.unwrap();
    assert_eq!(Value::Object(request.query), json!({"shop": "a b", "tag": ["1", "2"], "empty": ""}));
    assert_eq!(Value::Object(request.headers), json!({"x-github-event": "push", "x-twice": "a, b"}));

    let long = format!("{}?a={}", path(&workflow), "x".repeat(9_000));
    let answer = setup.app.send(None, Method::POST, &long, &[], "{}").await.expect(400);
    assert!(answer.text("/detail").contains("query have more than 8192 bytes"), "{}", answer.body);
    let reserved = format!("{}?$serde_json::private::RawValue=1", path(&workflow));
    setup.app.send(None, Method::POST, &reserved, &[], "{}").await.expect(400);
    assert!(setup.queued().await.is_empty());
}

#[tokio::test]
async fn files_of_a_form_become_blobs_and_nothing_else_does() {
    let setup = setup().await;
    let workflow = setup.by_webhook().await;
    let form = "--x\r\ncontent-disposition: form-data; name=\"note\"\r\n\r\nhello\r\n\
                --x\r\ncontent-disposition: form-data; name=\"photo\"; filename=\"../../etc/cat.png\"\r\n\
                content-type: image/png\r\n\r\n\u{89}PNG\r\n--x--\r\n";
    let headers = [("content-type", "multipart/form-data; boundary=x")];
    setup.app.send(None, Method::POST, &path(&workflow), &headers, form).await.expect(200);
    let start = setup.queued().await.remove(0);
    assert_eq!(start.trigger.body, Payload::Inline(json!({"note": "hello"})));
    let files = start.trigger.request.unwrap().files;
    let run = start.run_id;
    assert_eq!(
        files,
        [RunFile {
            field: Some("photo".to_owned()),
            filename: "cat.png".to_owned(),
            content_type: Some("image/png".to_owned()),
            bytes: 5,
            path: format!("upload:{run}/0"),
        }]
    );
    let stored = setup.world.blobs.get(&format!("uploads/{}/{run}/0", setup.owner.tenant)).await.unwrap();
    assert_eq!(stored.unwrap(), "\u{89}PNG");

    // A body that looks like a file is a body.
    let posing = json!({"files": [{"path": "upload:run_1/0", "filename": "/etc/passwd"}], "trigger": {"files": [1]}});
    setup.send(&workflow, &[], posing.to_string()).await.expect(200);
    let trigger = setup.queued().await.remove(0).trigger;
    assert_eq!((trigger.body, trigger.request.unwrap().files), (Payload::Inline(posing), Vec::new()));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_told_where_to_go() {
    let setup = setup().await;
    let body = || "x".repeat(4 * 1024 * 1024 + 1);
    let plain = setup.by_webhook().await;
    let answer = setup.send(&plain, &[], body()).await.expect(413);
    let detail = format!("POST /api/webhooks/{}/uploads", plain.id);
    assert!(answer.text("/detail").contains(&detail) && answer.text("/detail").contains("once"), "{}", answer.body);
    let signed = setup.by_signed_webhook(&json!({"uploads": {}})).await;
    let answer = setup.send(&signed, &[], body()).await.expect(413);
    assert!(answer.text("/detail").ends_with("/uploads."), "{}", answer.body);
}

#[tokio::test]
async fn pages_may_send_from_where_the_trigger_says() {
    let setup = setup().await;
    let trigger = json!({"type": "webhook", "cors": {"origins": ["https://shop.example.com"]}});
    let workflow = setup.workflow(trigger, true).await;
    let preflight = async |workflow, origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type"),
        ];
        setup.app.send(None, Method::OPTIONS, &path(workflow), &headers, Body::empty()).await.expect(204)
    };
    let allowed = preflight(&workflow, "https://shop.example.com").await;
    assert_eq!(allowed.header("access-control-allow-origin"), "https://shop.example.com");
    assert_eq!(allowed.header("access-control-allow-methods"), "POST");
    assert_eq!(allowed.header("access-control-allow-headers"), "content-type");
    assert_eq!(allowed.header("vary"), "origin");
    let refused = preflight(&workflow, "https://shop.example.com.evil.test").await;
    let granted = |answer: &tidegate_testing::Answer| {
        answer.headers.keys().any(|name| name.as_str().starts_with("access-control-"))
    };
    assert!(!granted(&refused));
    // Uploading takes a preflight too, since it is JSON.
    let headers = [("origin", "https://shop.example.com"), ("access-control-request-method", "POST")];
    for part in ["uploads", "uploads/1.token"] {
        let target = format!("{}/{part}", path(&workflow));
        let answer = setup.app.send(None, Method::OPTIONS, &target, &headers, Body::empty()).await.expect(204);
        assert_eq!(answer.header("access-control-allow-origin"), "https://shop.example.com", "{part}");
        assert_eq!(answer.header("access-control-allow-methods"), "POST");
    }
    let silent = setup.by_webhook().await;
    assert!(!granted(&preflight(&silent, "https://shop.example.com").await), "nobody said that pages may");

    let origin = [("origin", "https://shop.example.com")];
    let answer = setup.send(&workflow, &origin, "{}").await.expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), "https://shop.example.com");
    assert!(answer.header("access-control-expose-headers").contains("tidegate-run-id"));
    assert_eq!(answer.header("access-control-allow-credentials"), "");
    // What went wrong is for the page too.
    let broken = setup.send(&workflow, &origin, "{").await.expect(400);
    assert_eq!(broken.header("access-control-allow-origin"), "https://shop.example.com");
    let any = setup.workflow(json!({"type": "webhook", "cors": {"origins": ["*"]}}), true).await;
    let answer = setup.send(&any, &[("origin", "null")], "{}").await.expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), "null");
}
