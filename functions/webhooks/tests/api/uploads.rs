//! Files that are uploaded before the run.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tidegate_model::{RunFile, Workflow};
use tidegate_platform::Blobs as _;
use tidegate_testing::Answer;

use crate::{Setup, path, setup};

impl Setup {
    async fn begin(&self, workflow: &Workflow, file: &Value) -> Answer {
        let target = format!("{}/uploads", path(workflow));
        self.app.send(None, Method::POST, &target, &[("content-type", "application/json")], file.to_string()).await
    }

    async fn start(&self, url: &str) -> Answer {
        self.app.send(None, Method::POST, url, &[("content-type", "application/json")], r#"{"note": 1}"#).await
    }

    async fn with_uploads(&self) -> Workflow {
        self.workflow(json!({"type": "webhook", "uploads": {"max_bytes": 20}}), true).await
    }
}

#[tokio::test]
async fn a_run_starts_with_what_was_uploaded() {
    let setup = setup().await;
    let workflow = setup.with_uploads().await;
    let file = json!({"filename": "a/b\\cat.png", "content_type": "Image/PNG", "bytes": 5});
    let begun = setup.begin(&workflow, &file).await.expect(201);
    let (run, start_url) = (begun.text("/run_id"), begun.text("/start_url"));
    assert_eq!(begun.text("/upload/method"), "PUT");
    let missing = setup.start(start_url).await.expect(409);
    assert_eq!(missing.text("/code"), "upload_missing");
    let key = format!("uploads/{}/{run}/0", setup.owner.tenant);
    setup.world.blobs.put(&key, Bytes::from_static(b"1234")).await.unwrap();
    setup.start(start_url).await.expect(409);
    setup.world.blobs.put(&key, Bytes::from_static(b"12345")).await.unwrap();

    let [first, again] = [setup.start(start_url).await.expect(200), setup.start(start_url).await.expect(200)];
    assert_eq!([first.text("/run_id"), again.text("/run_id")], [run, run], "it is one run");
    let start = setup.queued().await.remove(0);
    assert_eq!(start.trigger.body, tidegate_model::Payload::Inline(json!({"note": 1})));
    assert_eq!(
        start.trigger.request.unwrap().files,
        [RunFile {
            field: None,
            filename: "cat.png".to_owned(),
            content_type: Some("image/png".to_owned()),
            bytes: 5,
            path: format!("upload:{run}/0"),
        }]
    );

    setup.world.clock.advance(Duration::from_secs(86_401));
    assert_eq!(setup.start(start_url).await.expect(410).text("/code"), "link_invalid");
}

#[tokio::test]
async fn an_uploads_address_is_for_its_webhook_alone() {
    let setup = setup().await;
    let (workflow, other) = (setup.with_uploads().await, setup.with_uploads().await);
    let begun = setup.begin(&workflow, &json!({"filename": "a", "bytes": 1})).await.expect(201);
    let token = begun.text("/start_url").rsplit('/').next().unwrap().to_owned();
    setup.start(&format!("{}/uploads/{token}", path(&other))).await.expect(410);
    let flipped = |index: usize| {
        let mut bytes = token.clone().into_bytes();
        bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    for token in ["x", "1.", ".x", "99.AAAA", "1.AAAA", &flipped(0), &flipped(10), &token[..token.len() - 4]] {
        setup.start(&format!("{}/uploads/{token}", path(&workflow))).await.expect(410);
    }
    assert!(setup.queued().await.is_empty());
}

#[tokio::test]
async fn what_can_not_be_uploaded_is_told_field_by_field() {
    let setup = setup().await;
    let workflow = setup.with_uploads().await;
    for (file, pointer) in [
        (json!({"filename": "a", "bytes": 0}), "/bytes"),
        (json!({"filename": "a", "bytes": 21}), "/bytes"),
        (json!({"filename": "a", "bytes": 1, "content_type": "picture"}), "/content_type"),
        (json!({"filename": "a", "bytes": 1, "key": "files/other"}), "/key"),
        (json!({"bytes": 1}), "/filename"),
    ] {
        let answer = setup.begin(&workflow, &file).await.expect(422);
        assert_eq!(answer.pointers(), [pointer], "{file}");
    }
    let plain = setup.by_webhook().await;
    let refused = setup.begin(&plain, &json!({"filename": "a", "bytes": 1})).await.expect(404);
    assert!(refused.text("/detail").contains("uploads"), "{}", refused.body);
    // As signed as the webhook itself.
    let signed = setup.by_signed_webhook(&json!({"uploads": {}})).await;
    setup.begin(&signed, &json!({"filename": "a", "bytes": 1})).await.expect(401);
}
