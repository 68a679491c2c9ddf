//! A tenant's files: what is put in comes out, for that tenant alone, and links to it are no one's but ours.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tidegate_connectors::{CallOptions, Failure, Files, Outside, catalogue};
use tidegate_model::{ErrorCode, StepError, TenantId};
use tidegate_platform::blobs::folder::FolderBlobs;
use tidegate_platform::{Blobs, Clock, Ids};

mod support;

use support::{Setup, setup};

const MIB: usize = 1024 * 1024;

impl Setup {
    async fn storage(&self, action: &str, input: Value) -> Result<Value, StepError> {
        let action = catalogue::action(&format!("storage.{action}")).unwrap();
        self.call(action, &input, None).await.map_err(|failure| failure.error)
    }
}

/// Calls with another tenant's files, or with another folder.
async fn call(outside: Outside<'_>, action: &str, input: Value) -> Result<Value, StepError> {
    let options = CallOptions { timeout: Duration::from_secs(5), idempotency_key: None, traceparent: None };
    let action = catalogue::action(&format!("storage.{action}")).unwrap();
    action.call(outside, &input, None, options).await.map_err(|failure: Failure| failure.error)
}

#[tokio::test]
async fn the_examples_of_the_manifest_are_true() {
    let setup = setup(&[]).await;
    let storage = catalogue::connector("storage").unwrap();
    assert_eq!(storage.actions.keys().collect::<Vec<_>>(), ["put", "get", "link", "copy", "delete", "info"]);
    for name in ["put", "get", "info", "link", "copy", "delete"] {
        let example = storage.actions[name].document.example.as_ref().unwrap();
        let mut output = setup.storage(name, Value::Object(example.input.clone())).await.unwrap();
        if name == "link" {
            for changing in ["url", "expires_at"] {
                assert!(output[changing].is_string());
                output[changing] = example.output[changing].clone();
            }
        }
        assert_eq!(output, example.output, "{name}");
        assert_eq!(storage.actions[name].target(&json!({}), None), None, "nothing leaves the installation");
    }
}

#[tokio::test]
async fn what_is_put_in_comes_out_as_it_is_asked_for() {
    let setup = setup(&[]).await;
    for (content, how, bytes, shown) in [
        (json!({"text": "é,b\n"}), None, 5, Ok(json!({"text": "é,b\n"}))),
        (json!({"text": ""}), Some("auto"), 0, Ok(json!({"text": ""}))),
        (json!({"text": "{\"a\": 1.0}"}), Some("text"), 10, Ok(json!({"text": "{\"a\": 1.0}"}))),
        (json!({"text": "{\"a\": 1.0}"}), Some("json"), 10, Ok(json!({"json": {"a": 1.0}}))),
        (json!({"text": "hi"}), Some("base64"), 2, Ok(json!({"base64": "aGk="}))),
        (json!({"text": "{"}), Some("json"), 1, Err("/with/as the file is no JSON: ")),
        (json!({"text": "[".repeat(200)}), Some("json"), 200, Err("more than 100 levels of nesting")),
        (json!({"json": {"b": [null], "a": 1}}), Some("text"), 18, Ok(json!({"text": "{\"b\":[null],\"a\":1}"}))),
        (json!({"json": null}), Some("json"), 4, Ok(json!({"json": null}))),
        (json!({"json": "text"}), None, 6, Ok(json!({"text": "\"text\""}))),
        (json!({"base64": "/wA="}), None, 2, Ok(json!({"base64": "/wA="}))),
        (json!({"base64": "/wA=\n"}), Some("base64"), 2, Ok(json!({"base64": "/wA="}))),
        (json!({"base64": "/wA="}), Some("text"), 2, Err("/with/as the file is no text; read it as base64")),
        (json!({"base64": "/wA="}), Some("json"), 2, Err("/with/as the file is no JSON")),
        (json!({"base64": "aGk="}), None, 2, Ok(json!({"text": "hi"}))),
    ] {
        let mut put = json!({"path": "a/b"});
        put.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
        assert_eq!(setup.storage("put", put).await, Ok(json!({"path": "a/b", "bytes": bytes})), "{content}");
        let get = how.map_or(json!({"path": "a/b"}), |how| json!({"path": "a/b", "as": how}));
        match (setup.storage("get", get).await, shown) {
            (Ok(output), Ok(shown)) => {
                let mut expected = json!({"path": "a/b", "bytes": bytes});
                expected.as_object_mut().unwrap().extend(shown.as_object().unwrap().clone());
                assert_eq!(output, expected, "{content} {how:?}");
            }
            (Err(error), Err(reason)) => {
                assert_eq!((error.code, error.retryable), (ErrorCode::InputInvalid, false));
                assert!(error.message.contains(reason), "{content}: {}", error.message);
            }
            (other, _) => panic!("{content} {how:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_file_is_replaced_looked_at_and_deleted() {
    let setup = setup(&[]).await;
    let info = || setup.storage("info", json!({"path": "a"}));
    let missing = json!({"path": "a", "exists": false, "bytes": null});
    assert_eq!(info().await, Ok(missing.clone()));
    for (text, bytes) in [("one", 3), ("longer", 6), ("", 0)] {
        setup.storage("put", json!({"path": "a", "text": text})).await.unwrap();
        assert_eq!(info().await, Ok(json!({"path": "a", "exists": true, "bytes": bytes})));
    }
    setup.storage("put", json!({"path": "a/b", "text": "below"})).await.unwrap();
    for _ in 0..2 {
        assert!(setup.storage("delete", json!({"path": "a"})).await.is_ok(), "what is gone is no error");
        assert_eq!(info().await, Ok(missing.clone()));
    }
    for action in ["get", "link"] {
        let gone = setup.storage(action, json!({"path": "a"})).await.unwrap_err();
        let expected = (ErrorCode::InputInvalid, false, "there is no file \"a\"".to_owned());
        assert_eq!((gone.code, gone.retryable, gone.message), expected, "{action}");
    }
    assert_eq!(
        setup.storage("get", json!({"path": "a/b"})).await.unwrap()["text"],
        "below",
        "a folder of the same name stays"
    );
    for (input, reason) in [
        (json!({"path": "a"}), "needs at least one of text, base64, json"),
        (json!({"path": "a", "text": "", "json": 1}), "takes only one of text, json"),
        (json!({"path": "a", "text": "", "base64": ""}), "takes only one of text, base64"),
        (json!({"path": "a", "base64": "%"}), "/with/base64 must match"),
        (json!({"path": "a", "base64": "aGk"}), "/with/base64 is not base64"),
        (json!({"path": "a", "text": 7}), "/with/text expected a string, not a number"),
        (json!({"text": ""}), "/with/path is required"),
    ] {
        let refused = setup.storage("put", input).await.unwrap_err();
        assert!(refused.code == ErrorCode::InputInvalid && refused.message.contains(reason), "{}", refused.message);
    }
    assert_eq!(info().await, Ok(missing));
}

#[tokio::test]
async fn no_path_leads_out_of_the_tenants_folder() {
    let setup = setup(&[]).await;
    let other = Ids::new(Clock::system()).tenant();
    setup.blobs.put(&format!("files/{other}/secret"), Bytes::from_static(b"s3cret")).await.unwrap();
    setup.blobs.put("live/secret", Bytes::from_static(b"s3cret")).await.unwrap();
    let (long, deep) = ("a".repeat(201), "a/".repeat(250) + "a");
    let by_tenant = format!("../{other}/secret");
    for path in [
        "",
        ".",
        "..",
        "/",
        "/a",
        "a/",
        "a//b",
        "../a",
        "a/..",
        "a/../b",
        "a/./b",
        "./a",
        "..\\a",
        "a\\b",
        "a b",
        "é",
        "a%2e%2e",
        "a\0",
        "a\n",
        "a=",
        "=links.key",
        "a?b",
        "~",
        &by_tenant,
        "../../live/secret",
        &long,
        &deep,
    ] {
        for action in ["put", "get", "link", "delete", "info"] {
            let mut input = json!({ "path": path });
            if action == "put" {
                input["text"] = json!("x");
            }
            let refused = setup.storage(action, input).await.unwrap_err();
            assert_eq!((refused.code, refused.retryable), (ErrorCode::InputInvalid, false), "{action} {path:?}");
            let message = refused.message;
            assert!(message.contains("/with/path ") || message.contains("is no file's path"), "{message}");
        }
        // What other actions take files by, without the schema of these.
        let files = setup.outside().files;
        assert_eq!(files.get(path).await.unwrap_err().code, ErrorCode::InputInvalid, "{path:?}");
        assert_eq!(files.put(path, Bytes::new()).await.unwrap_err().code, ErrorCode::InputInvalid, "{path:?}");
    }
    for path in ["a", "a/b.c", ".hidden", "...", "a..b", "-", "_/-/0", &"a".repeat(200), &("a/".repeat(249) + "aa")] {
        let put = setup.storage("put", json!({"path": path, "text": path})).await;
        if path == "..." {
            assert!(put.unwrap_err().message.contains("/with/path must match"), "a name has more than dots");
            continue;
        }
        assert_eq!(put, Ok(json!({"path": path, "bytes": path.len()})));
        assert_eq!(setup.storage("get", json!({ "path": path })).await.unwrap()["text"], path);
        assert_eq!(setup.blobs.size(&format!("files/{}/{path}", setup.tenant)).await.unwrap(), Some(path.len() as u64));
    }
}

/// What an action that takes a file by this path says.
async fn asked(setup: &Setup, action: &str, path: &str) -> Result<Value, StepError> {
    let input = match action {
        "put" => json!({"path": path, "text": "x"}),
        "copy from" => json!({"from": path, "to": "copied"}),
        "copy to" => json!({"from": "mine", "to": path}),
        _ => json!({ "path": path }),
    };
    setup.storage(action.split(' ').next().unwrap(), input).await
}

#[tokio::test]
async fn what_was_uploaded_for_a_run_is_read_and_never_changed() {
    let setup = setup(&[]).await;
    let ids = Ids::new(Clock::system());
    let run = ids.run(setup.tenant);
    let (key, path) = (format!("uploads/{}/{run}/0", setup.tenant), format!("upload:{run}/0"));
    for action in ["get", "link", "copy from"] {
        let gone = asked(&setup, action, &path).await.unwrap_err();
        assert_eq!(gone.message, format!("there is no file {path:?}"), "{action}");
    }
    assert_eq!(asked(&setup, "info", &path).await.unwrap()["exists"], false);

    setup.blobs.put(&key, Bytes::from_static(b"upload")).await.unwrap();
    setup.storage("put", json!({"path": "mine", "text": "mine"})).await.unwrap();
    assert_eq!(asked(&setup, "get", &path).await.unwrap(), json!({"path": path, "bytes": 6, "text": "upload"}));
    assert_eq!(asked(&setup, "info", &path).await.unwrap(), json!({"path": path, "exists": true, "bytes": 6}));
    let link = setup.storage("link", json!({"path": path, "filename": "photo.png"})).await.unwrap();
    let token = link["url"].as_str().unwrap().rsplit('/').next().unwrap();
    assert_eq!(setup.blobs.linked(token), Some((key.clone(), "photo.png".to_owned())));
    assert_eq!(asked(&setup, "copy from", &path).await.unwrap(), json!({"path": "copied", "bytes": 6}));
    assert_eq!(setup.storage("get", json!({"path": "copied"})).await.unwrap()["text"], "upload");
    assert_eq!(setup.outside().files.get(&path).await.unwrap(), "upload", "other steps take it");

    for action in ["put", "copy to", "delete"] {
        let refused = asked(&setup, action, &path).await.unwrap_err();
        let field = if action == "copy to" { "/with/to must match" } else { "/with/path must match" };
        assert!(refused.code == ErrorCode::InputInvalid && refused.message.contains(field), "{}", refused.message);
    }
    // What other actions save files by, without the schema of these.
    let refused = setup.outside().files.put(&path, Bytes::new()).await.unwrap_err();
    assert_eq!(refused.message, "an uploaded file is only read; storage.copy makes one of your own of it");
    assert_eq!(setup.blobs.get(&key).await.unwrap().unwrap(), "upload");

    // Another organization's run of the same path is another file, and no path leads to it.
    let other = Outside { files: Files { blobs: &setup.blobs, tenant: ids.tenant() }, ..setup.outside() };
    assert_eq!(other.files.get(&path).await.unwrap_err().message, format!("there is no file {path:?}"));
    let upper = path.to_uppercase().replace("UPLOAD:RUN_", "upload:run_") + "A";
    for wrong in [
        "upload:",
        "upload:a",
        "upload:../../files/a/0",
        "upload:/0",
        "Upload:run_0/0",
        "upload:run_0/0",
        &format!("upload:{run}"),
        &format!("upload:{run}/"),
        &format!("upload:{run}/00"),
        &format!("upload:{run}/-1"),
        &format!("upload:{run}/10000"),
        &format!("upload:{run}/0/0"),
        &format!("upload:{run}/0-"),
        &format!("upload:{run}/-0"),
        &format!("upload:{run}/0-0-0"),
        &format!("upload:{run}/0-g"),
        &format!("upload:{run}/0-{}", "a".repeat(65)),
        &format!("upload:{run}/../{run}/0"),
        &format!("upload: {run}/0"),
        &format!("upload:upload:{run}/0"),
        &upper,
    ] {
        for action in ["get", "link", "info", "copy from", "put", "copy to", "delete"] {
            let refused = asked(&setup, action, wrong).await.unwrap_err();
            assert!(refused.code == ErrorCode::InputInvalid && !refused.retryable, "{action} {wrong}");
            assert!(refused.message.contains("must match"), "{action} {wrong}: {}", refused.message);
        }
        assert_eq!(setup.outside().files.get(wrong).await.unwrap_err().code, ErrorCode::InputInvalid, "{wrong}");
    }
    for name in ["1", "19", "9999", "0-00ff", &format!("3-{}", "a".repeat(64))] {
        setup.blobs.put(&format!("uploads/{}/{run}/{name}", setup.tenant), Bytes::new()).await.unwrap();
        assert!(asked(&setup, "get", &format!("upload:{run}/{name}")).await.is_ok(), "{name}");
    }
}

#[tokio::test]
async fn a_copy_needs_no_memory_and_is_a_file_of_its_own() {
    let setup = setup(&[]).await;
    let key = |path: &str| format!("files/{}/{path}", setup.tenant);
    setup.blobs.put(&key("big"), Bytes::from(vec![b'x'; 25 * MIB + 1])).await.unwrap();
    for _ in 0..2 {
        let copied = setup.storage("copy", json!({"from": "big", "to": "archive/big"})).await;
        assert_eq!(copied, Ok(json!({"path": "archive/big", "bytes": 25 * MIB + 1})));
    }
    setup.storage("put", json!({"path": "big", "text": "newer"})).await.unwrap();
    assert_eq!(setup.blobs.size(&key("archive/big")).await.unwrap(), Some(25 * 1024 * 1024 + 1));
    assert_eq!(setup.storage("copy", json!({"from": "big", "to": "big"})).await.unwrap()["bytes"], 5);
    let gone = setup.storage("copy", json!({"from": "none", "to": "big"})).await.unwrap_err();
    assert_eq!((gone.code, gone.message.as_str()), (ErrorCode::InputInvalid, "there is no file \"none\""));
    assert_eq!(setup.storage("get", json!({"path": "big"})).await.unwrap()["text"], "newer");
    for (input, reason) in [
        (json!({"from": "big"}), "/with/to is required"),
        (json!({"from": "big", "to": "../big"}), "/with/to must match"),
        (json!({"from": "../big", "to": "big"}), "/with/from must match"),
    ] {
        let refused = setup.storage("copy", input).await.unwrap_err();
        assert!(refused.code == ErrorCode::InputInvalid && refused.message.contains(reason), "{}", refused.message);
    }
}

#[tokio::test]
async fn another_tenants_files_are_not_there() {
    let setup = setup(&[]).await;
    let other: TenantId = Ids::new(Clock::system()).tenant();
    let outside = || Outside { files: Files { blobs: &setup.blobs, tenant: other }, ..setup.outside() };
    setup.storage("put", json!({"path": "a/b", "text": "mine"})).await.unwrap();
    for action in ["get", "link"] {
        let gone = call(outside(), action, json!({"path": "a/b"})).await.unwrap_err();
        assert_eq!(gone.message, "there is no file \"a/b\"", "{action}");
    }
    let info = call(outside(), "info", json!({"path": "a/b"})).await;
    assert_eq!(info, Ok(json!({"path": "a/b", "exists": false, "bytes": null})));
    for path in [format!("../{}/a/b", setup.tenant), format!("{}/a/b", setup.tenant)] {
        assert!(call(outside(), "get", json!({ "path": path })).await.is_err(), "{path}");
    }
    call(outside(), "put", json!({"path": "a/b", "text": "theirs"})).await.unwrap();
    assert_eq!(setup.storage("get", json!({"path": "a/b"})).await.unwrap()["text"], "mine");
    call(outside(), "delete", json!({"path": "a/b"})).await.unwrap();
    assert_eq!(setup.storage("get", json!({"path": "a/b"})).await.unwrap()["text"], "mine");
}

#[tokio::test]
async fn only_so_much_of_a_file_is_taken_and_shown() {
    let setup = setup(&[]).await;
    let stored = async |bytes: usize| {
        setup.blobs.put(&format!("files/{}/big", setup.tenant), Bytes::from(vec![b'x'; bytes])).await.unwrap();
    };
    let get = |how: &'static str| setup.storage("get", json!({"path": "big", "as": how}));
    stored(4 * MIB).await;
    assert_eq!(get("text").await.unwrap()["bytes"], 4 * MIB);
    stored(4 * MIB + 1).await;
    let refused = get("auto").await.unwrap_err();
    assert_eq!((refused.code, refused.retryable), (ErrorCode::InputInvalid, false));
    let shown =
        "the file \"big\" has 4194305 bytes; a step's output holds at most 4194304: pass on its path, or a link";
    assert_eq!(refused.message, shown);
    stored(25 * MIB).await;
    let files = setup.outside().files;
    assert_eq!(files.get("big").await.unwrap().len(), 25 * MIB, "other steps take it");
    stored(25 * MIB + 1).await;
    let taken = "the file \"big\" has 26214401 bytes; a step takes at most 26214400";
    assert_eq!(files.get("big").await.unwrap_err().message, taken);
    assert_eq!(get("base64").await.unwrap_err().message, taken);
    assert_eq!(setup.storage("info", json!({"path": "big"})).await.unwrap()["bytes"], 25 * MIB + 1);
    assert!(setup.storage("link", json!({"path": "big"})).await.is_ok(), "a link needs none of it in memory");
}

#[tokio::test]
async fn a_link_is_good_for_its_time_and_for_nothing_else() {
    let setup = setup(&[]).await;
    let (clock, folder) = (Clock::manual(setup.outside().now), tempfile::tempdir().unwrap());
    let open = || FolderBlobs::open(folder.path(), clock.clone()).unwrap().with_links("http://files.test/f").unwrap();
    let blobs = open();
    let files = Files { blobs: &blobs, tenant: setup.tenant };
    let outside = || Outside { files, now: clock.now(), ..setup.outside() };
    let key = |path: &str| format!("files/{}/{path}", setup.tenant);
    for path in ["reports/2026.csv", "other"] {
        files.put(path, Bytes::from_static(b"a,b")).await.unwrap();
    }
    let link = async |input: Value| {
        let output = call(outside(), "link", input).await.unwrap();
        let token = output["url"].as_str().unwrap().strip_prefix("http://files.test/f/").unwrap().to_owned();
        (token, output["expires_at"].clone())
    };
    let (hour, until) = link(json!({"path": "reports/2026.csv"})).await;
    assert_eq!(until, "2026-11-20T11:00:00Z", "an hour where nothing is said");
    let (minute, _) = link(json!({"path": "reports/2026.csv", "expires_in": 60, "filename": "Report March.csv"})).await;
    let (week, until) = link(json!({"path": "other", "expires_in": 604_800, "filename": "ü\"; x=.csv"})).await;
    assert_eq!(until, "2026-11-27T10:00:00Z");
    let is = |token: &str, path: &str, name: &str| assert_eq!(blobs.linked(token), Some((key(path), name.to_owned())));
    is(&hour, "reports/2026.csv", "2026.csv");
    is(&minute, "reports/2026.csv", "Report March.csv");
    is(&week, "other", "ü\"; x=.csv");
    assert_eq!(
        tidegate_platform::blobs::attachment("ü\"; x=.csv"),
        "attachment; filename=\"___ x=.csv\"; filename*=UTF-8''%C3%BC%22%3B%20x%3D.csv"
    );

    // Nobody makes a link of another, nor one of their own.
    let (payload, signature) = hour.split_once('.').unwrap();
    let others = [
        String::new(),
        ".".to_owned(),
        payload.to_owned(),
        format!("{payload}."),
        format!(".{signature}"),
        format!("{}.{signature}", week.split_once('.').unwrap().0),
        format!("{payload}.{}", week.split_once('.').unwrap().1),
        format!("{hour}.{signature}"),
        format!("{hour}="),
        format!("{payload}=.{signature}"),
    ];
    let flipped = (0..hour.len()).map(|at| {
        let mut token = hour.clone().into_bytes();
        token[at] = if token[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(token).unwrap()
    });
    for token in others.into_iter().chain(flipped) {
        assert_eq!(blobs.linked(&token), None, "{token}");
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let elsewhere =
        FolderBlobs::open(elsewhere.path(), clock.clone()).unwrap().with_links("http://files.test/f").unwrap();
    assert_eq!(elsewhere.linked(&hour), None, "each folder has a key of its own");

    clock.advance(Duration::from_secs(59));
    is(&minute, "reports/2026.csv", "Report March.csv");
    clock.advance(Duration::from_secs(1));
    assert_eq!(blobs.linked(&minute), None, "over to the second");
    is(&hour, "reports/2026.csv", "2026.csv");
    clock.advance(Duration::from_secs(3_540));
    assert_eq!(blobs.linked(&hour), None);
    assert_eq!(open().linked(&week), Some((key("other"), "ü\"; x=.csv".to_owned())), "good after a restart too");
    call(outside(), "delete", json!({"path": "other"})).await.unwrap();
    assert_eq!(blobs.get(&blobs.linked(&week).unwrap().0).await.unwrap(), None, "a link keeps nothing");

    for (input, reason) in [
        (json!({"expires_in": 59}), "/with/expires_in"),
        (json!({"expires_in": 604_801}), "/with/expires_in"),
        (json!({"expires_in": "1h"}), "/with/expires_in expected a whole number"),
        (json!({"filename": "a/b"}), "/with/filename must match"),
        (json!({"filename": "a\r\nX: y"}), "/with/filename must match"),
    ] {
        let mut whole = json!({"path": "reports/2026.csv"});
        whole.as_object_mut().unwrap().extend(input.as_object().unwrap().clone());
        let refused = call(outside(), "link", whole).await.unwrap_err();
        assert!(refused.code == ErrorCode::InputInvalid && refused.message.contains(reason), "{}", refused.message);
    }
    let without = tempfile::tempdir().unwrap();
    let without = FolderBlobs::open(without.path(), clock.clone()).unwrap();
    let unlinked = Outside { files: Files { blobs: &without, tenant: setup.tenant }, ..setup.outside() };
    unlinked.files.put("a", Bytes::new()).await.unwrap();
    let away = call(unlinked, "link", json!({"path": "a"})).await.unwrap_err();
    assert_eq!((away.code, away.message.as_str()), (ErrorCode::Internal, "the file storage is away; the log says why"));
}
