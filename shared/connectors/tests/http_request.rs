//! `http.request` on the wire: its bodies, files, pages, and whose connections it takes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::join_all;
use serde_json::{Map, Value, json};
use tidegate_connectors::{Connector, Failure, Files, catalogue};
use tidegate_model::{ErrorCode, StepError};
use tidegate_platform::{Blobs as _, Clock, Ids};
use wiremock::matchers::{any, path};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

mod support;

use support::{LOOPBACK, Made, Setup, setup};

async fn answering(answer: ResponseTemplate) -> Setup {
    let setup = setup(LOOPBACK).await;
    Mock::given(any()).respond_with(answer).mount(&setup.server).await;
    setup
}

async fn ready() -> Setup {
    answering(ResponseTemplate::new(200)).await
}

impl Setup {
    fn files(&self) -> Files<'_> {
        self.outside().files
    }

    async fn received(&self) -> Vec<Request> {
        self.server.received_requests().await.unwrap()
    }

    /// Calls `http.request`; the URL is the server's where none is given.
    async fn request(&self, input: &Value, made: Option<&Made>) -> Result<Value, Failure> {
        let mut whole = json!({"method": "POST", "url": self.url("/x")});
        whole.as_object_mut().unwrap().extend(input.as_object().unwrap().clone());
        self.call(catalogue::action("http.request").unwrap(), &whole, made).await
    }

    /// What arrives.
    async fn sent(&self, input: Value) -> Request {
        let count = self.received().await.len();
        self.request(&input, None).await.unwrap_or_else(|failure| panic!("{input}: {failure:?}"));
        let mut received = self.received().await;
        assert_eq!(received.len(), count + 1);
        received.pop().unwrap()
    }

    /// Why nothing is sent.
    async fn refused(&self, input: Value) -> StepError {
        let count = self.received().await.len();
        let refused = self.request(&input, None).await.unwrap_err();
        assert_eq!(self.received().await.len(), count, "{input}: nothing is sent");
        assert!(!refused.error.retryable && !refused.is_connection_broken && !refused.is_target_down);
        refused.error
    }
}

fn header<'r>(request: &'r Request, name: &str) -> Option<&'r str> {
    request.headers.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_request_has_the_body_that_is_given_and_its_type() {
    let setup = ready().await;
    setup.files().put("in/data.bin", Bytes::from_static(b"\xff\x00\r\n")).await.unwrap();
    let (json_type, form, text) =
        ("application/json", "application/x-www-form-urlencoded", "text/plain; charset=utf-8");
    for (input, body, content_type) in [
        (json!({}), &b""[..], None),
        (json!({"json": {"b": 1, "a": null}}), br#"{"b":1,"a":null}"#, Some(json_type)),
        (json!({"json": [1, "é"]}), "[1,\"é\"]".as_bytes(), Some(json_type)),
        (json!({"json": "text"}), b"\"text\"", Some(json_type)),
        (json!({"json": {}, "content_type": "application/vnd.acme+json"}), b"{}", Some("application/vnd.acme+json")),
        (json!({"json": {}, "headers": {"Content-Type": "a/b"}, "content_type": "c/d"}), b"{}", Some("a/b")),
        (json!({"body": "<a/>"}), b"<a/>", Some(text)),
        (json!({"body": ""}), b"", Some(text)),
        (json!({"body": "<a/>", "headers": {"content-type": "text/xml"}}), b"<a/>", Some("text/xml")),
        (json!({"body": "{{ x }}\r\n", "content_type": "text/x; v=\"1\""}), b"{{ x }}\r\n", Some("text/x; v=\"1\"")),
        (
            json!({"form": {"a b": "c&d=e", "n": 1.5, "yes": true, "gone": null, "é": "+ "}}),
            b"a+b=c%26d%3De&n=1.5&yes=true&%C3%A9=%2B+",
            Some(form),
        ),
        (json!({"form": {}}), b"", Some(form)),
        (json!({"file": "in/data.bin"}), b"\xff\x00\r\n", Some("application/octet-stream")),
        (json!({"file": "in/data.bin", "content_type": "image/png"}), b"\xff\x00\r\n", Some("image/png")),
    ] {
        let request = setup.sent(input.clone()).await;
        assert_eq!((&request.body[..], header(&request, "content-type")), (body, content_type), "{input}");
        assert_eq!(header(&request, "idempotency-key"), Some("key-1"), "a write");
    }
    for method in ["GET", "HEAD", "OPTIONS", "DELETE", "PUT", "PATCH"] {
        let request = setup.sent(json!({"method": method})).await;
        let is_write = !matches!(method, "GET" | "HEAD" | "OPTIONS");
        assert_eq!((request.method.as_str(), header(&request, "idempotency-key").is_some()), (method, is_write));
    }
    let kinds = [
        ("json", json!(1)),
        ("body", json!("")),
        ("form", json!({})),
        ("multipart", json!([{"name": "a", "value": "b"}])),
        ("file", json!("in/data.bin")),
    ];
    for (index, (one, value)) in kinds.iter().enumerate() {
        for (other, second) in &kinds[index + 1..] {
            let refused = setup.refused(json!({*one: value, *other: second})).await;
            assert!(refused.message.contains(&format!("takes only one of {one}, {other}")), "{}", refused.message);
        }
    }
    for (input, reason) in [
        (json!({"file": "in/nothing"}), "there is no file \"in/nothing\""),
        (json!({"file": "../other"}), "/with/file must match"),
        (json!({"body": "", "content_type": "a/b\r\nX: y"}), "/with/content_type must match"),
        (json!({"form": {"a": {"b": 1}}}), "/with/form/a expected"),
    ] {
        let refused = setup.refused(input).await;
        assert_eq!(refused.code, ErrorCode::InputInvalid);
        assert!(refused.message.contains(reason), "{}", refused.message);
    }
}

#[tokio::test]
async fn a_requests_address_and_headers_are_checked_before_it_is_sent() {
    let setup = ready().await;
    let request = setup
        .sent(json!({
            "method": "PUT", "url": setup.url("/v1/orders?a=1#part"),
            "query": {"tag": ["x y", 2], "none": null, "ok": true, "a&b": "c=d"},
            "headers": {"X-Count": 3, "x-yes": true, "User-Agent": "mine"},
        }))
        .await;
    assert_eq!(
        (request.url.path(), request.url.query()),
        ("/v1/orders", Some("a=1&tag=x+y&tag=2&ok=true&a%26b=c%3Dd"))
    );
    let sent = ["x-count", "x-yes", "user-agent"].map(|name| header(&request, name).unwrap());
    assert_eq!(sent, ["3", "true", "mine"]);
    for (change, reason) in [
        (json!({"url": "ftp://e.org"}), "/with/url must begin with https:// or http://"),
        (json!({"url": "file:///etc/passwd"}), "/with/url must begin"),
        (json!({"url": "e.org"}), "/with/url is not a URL"),
        (json!({"url": "http://"}), "/with/url is not a URL"),
        (json!({"url": "https://user:secret@e.org"}), "/with/url must not have a user name"),
        (json!({"url": "https://user@e.org"}), "/with/url must not have a user name"),
        (json!({"headers": {"Host": "other"}}), "/with/headers/Host is set by"),
        (json!({"headers": {"content-length": 0}}), "/with/headers/content-length is set by"),
        (json!({"headers": {"Transfer-Encoding": "chunked"}}), "/with/headers/Transfer-Encoding is set by"),
        (json!({"headers": {"a b": "c"}}), "/with/headers/a b is not a header's name"),
        (json!({"headers": {"a\r\nb": "c"}}), "is not a header's name"),
        (json!({"headers": {"a": "b\r\nc: d"}}), "/with/headers/a has characters"),
        (json!({"headers": {"a": null}}), "/with/headers/a expected"),
        (json!({"query": {"a": {"b": 1}}}), "/with/query/a expected"),
        (json!({"method": "TRACE"}), "/with/method must be one of"),
        (json!({"methd": "GET"}), "/with/methd unknown field"),
    ] {
        let refused = setup.refused(change).await;
        assert_eq!(refused.code, ErrorCode::InputInvalid);
        assert!(refused.message.contains(reason) && !refused.message.contains("secret"), "{}", refused.message);
    }
}

/// A part of a form: its headers and what it holds.
type Part = (BTreeMap<String, String>, Vec<u8>);

/// Reads `multipart/form-data` (RFC 2046, section 5.1.1).
fn parts(request: &Request) -> Vec<Part> {
    let content_type = header(request, "content-type").unwrap();
    let boundary =
        content_type.strip_prefix("multipart/form-data; boundary=").unwrap_or_else(|| panic!("{content_type}"));
    let (body, delimiter) = ([b"\r\n", &request.body[..]].concat(), format!("\r\n--{boundary}").into_bytes());
    let mut rest = &body[..];
    let mut pieces = Vec::new();
    while let Some(at) = rest.windows(delimiter.len()).position(|window| window == delimiter) {
        pieces.push(&rest[..at]);
        rest = &rest[at + delimiter.len()..];
    }
    assert_eq!((pieces[0], rest), (&b""[..], &b"--\r\n"[..]), "nothing before the first part and after the last");
    let read = |piece: &&[u8]| {
        let piece = piece.strip_prefix(b"\r\n").unwrap();
        let end = piece.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&piece[..end]).unwrap();
        let headers = head.split("\r\n").map(|line| line.split_once(": ").unwrap());
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        (headers, piece[end + 4..].to_vec())
    };
    pieces[1..].iter().map(read).collect()
}

fn part(disposition: &str, content_type: Option<&str>, content: &[u8]) -> Part {
    let disposition = ("content-disposition".to_owned(), format!("form-data; {disposition}"));
    let content_type = content_type.map(|content_type| ("content-type".to_owned(), content_type.to_owned()));
    (std::iter::once(disposition).chain(content_type).collect(), content.to_vec())
}

#[tokio::test]
async fn a_form_with_files_arrives_as_it_was_given() {
    let setup = ready().await;
    let bytes = b"\xff\r\n--tidegate\r\n\r\n--\x00";
    setup.files().put("in/photo.png", Bytes::from_static(bytes)).await.unwrap();
    let request = setup
        .sent(json!({"multipart": [
            {"name": "text", "value": "é\r\n--x--\r\n"},
            {"name": "number", "value": 1.5},
            {"name": "yes", "value": true},
            {"name": "empty", "value": ""},
            {"name": "photo", "file": "in/photo.png"},
            {"name": "photo", "file": "in/photo.png", "filename": "Ünter \"us\".png", "content_type": "image/png"},
            {"name": "made", "value": "a,b", "filename": "made.csv", "content_type": "text/csv"},
            {"name": "a\"; filename=\"x\r\nX-Admin: 1\r\n\r\n", "value": "v", "filename": "b\"\r\nX-Admin: 1"},
        ]}))
        .await;
    let octets = Some("application/octet-stream");
    let expected = [
        part("name=\"text\"", None, "é\r\n--x--\r\n".as_bytes()),
        part("name=\"number\"", None, b"1.5"),
        part("name=\"yes\"", None, b"true"),
        part("name=\"empty\"", None, b""),
        part("name=\"photo\"; filename=\"photo.png\"", octets, bytes),
        part("name=\"photo\"; filename=\"Ünter %22us%22.png\"", Some("image/png"), bytes),
        part("name=\"made\"; filename=\"made.csv\"", Some("text/csv"), b"a,b"),
        part("name=\"a%22; filename=%22x%0D%0AX-Admin: 1%0D%0A%0D%0A\"; filename=\"b%22%0D%0AX-Admin: 1\"", None, b"v"),
    ];
    assert_eq!(parts(&request), expected);

    // Only who makes the body knows its boundary, so a type from elsewhere would leave it unreadable.
    let one = json!([{"name": "a", "value": "b"}]);
    let typed = json!({"multipart": one, "content_type": "a/b", "headers": {"Content-Type": "multipart/form-data"}});
    let (first, second) = (setup.sent(typed).await, setup.sent(json!({"multipart": one})).await);
    assert_eq!(
        (parts(&first), parts(&second)),
        (vec![part("name=\"a\"", None, b"b")], vec![part("name=\"a\"", None, b"b")])
    );
    assert_ne!(header(&first, "content-type"), header(&second, "content-type"), "a boundary of its own");

    for (part, reason) in [
        (json!({"name": "a"}), "needs at least one of value, file"),
        (json!({"name": "a", "value": "b", "file": "in/photo.png"}), "takes only one of value, file"),
        (json!({"name": "a", "file": "in/nothing"}), "there is no file \"in/nothing\""),
        (json!({"name": "a", "file": "in/../../x"}), "/with/multipart/0/file must match"),
        (json!({"name": "", "value": "b"}), "/with/multipart/0/name must not be empty"),
        (
            json!({"name": "a", "value": "b", "content_type": "text/plain\r\nX: y"}),
            "/with/multipart/0/content_type must match",
        ),
        (json!({"name": "a", "value": {}}), "/with/multipart/0/value expected"),
    ] {
        let refused = setup.refused(json!({"multipart": [part]})).await;
        assert_eq!(refused.code, ErrorCode::InputInvalid);
        assert!(refused.message.contains(reason), "{}", refused.message);
    }
}

#[tokio::test]
async fn an_uploaded_file_is_a_body_or_a_part_and_no_place_for_an_answer() {
    let setup = ready().await;
    let path = format!("upload:{}/3", Ids::new(Clock::system()).run(setup.tenant));
    let key = path.replace("upload:", &format!("uploads/{}/", setup.tenant));
    setup.blobs.put(&key, Bytes::from_static(b"\x89PNG")).await.unwrap();
    let whole = setup.sent(json!({"file": path, "content_type": "image/png"})).await;
    assert_eq!((&whole.body[..], header(&whole, "content-type")), (&b"\x89PNG"[..], Some("image/png")));
    let form = setup.sent(json!({"multipart": [{"name": "a", "file": path, "filename": "a.png"}]})).await;
    let octets = Some("application/octet-stream");
    assert_eq!(parts(&form), [part("name=\"a\"; filename=\"a.png\"", octets, b"\x89PNG")]);
    let refused = setup.refused(json!({"save_to": path})).await;
    assert!(refused.message.contains("/with/save_to must match"), "{}", refused.message);
    let gone = setup.refused(json!({"file": path.replace("/3", "/4")})).await;
    assert!(gone.message.contains("there is no file \"upload:run_"), "{}", gone.message);
}

#[tokio::test]
async fn a_forms_files_are_bounded_together() {
    let setup = ready().await;
    setup.files().put("half", Bytes::from(vec![b'x'; 25 * 1024 * 1024])).await.unwrap();
    setup.files().put("small", Bytes::from_static(b"x")).await.unwrap();
    let form = |files: &[&str]| {
        let parts: Vec<_> = files.iter().map(|file| json!({"name": "a", "file": file})).collect();
        json!({"multipart": parts})
    };
    let sent = setup.sent(form(&["half", "half"])).await;
    assert!(sent.body.len() > 50 * 1024 * 1024);
    let refused = setup.refused(form(&["half", "small", "half"])).await;
    assert_eq!(refused.code, ErrorCode::InputInvalid);
    let reason = "/with/multipart its files have more than 52428800 bytes together";
    assert!(refused.message.contains(reason), "{}", refused.message);

    let large = setup.sent(json!({"file": "half"})).await;
    assert_eq!(large.body.len(), 25 * 1024 * 1024, "more than what is no file may have");
    let text = json!({"json": ["x".repeat(3 * 1024 * 1024), "\"".repeat(3 * 1024 * 1024)]});
    let refused = setup.refused(text).await;
    assert!(refused.message.contains("larger than 6291456 bytes"), "{}", refused.message);
}

/// Each step has what it needs as soon as the ones before it are done, and none keeps what another waits for.
#[tokio::test]
async fn many_large_files_at_once_all_arrive() {
    let setup = ready().await;
    setup.files().put("large", Bytes::from(vec![b'x'; 12 * 1024 * 1024])).await.unwrap();
    let part = json!({"name": "a", "file": "large"});
    let inputs = [json!({"file": "large"}), json!({"multipart": [part, part]})];
    let sent = join_all((0..8).map(|index| setup.request(&inputs[index % 2], None))).await;
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");
}

#[tokio::test]
async fn an_answer_is_saved_where_it_is_a_success() {
    let setup = setup(LOOPBACK).await;
    let bytes = Bytes::from_static(b"\xff\x00{");
    for (at, answer) in [
        ("/ok", ResponseTemplate::new(200).set_body_raw(bytes.clone(), "application/json")),
        ("/empty", ResponseTemplate::new(204)),
        ("/gone", ResponseTemplate::new(404).set_body_string("gone")),
        ("/down", ResponseTemplate::new(503).set_body_string("down")),
        ("/moved", ResponseTemplate::new(302).insert_header("location", "/ok")),
    ] {
        Mock::given(path(at)).respond_with(answer).mount(&setup.server).await;
    }
    let save = async |at: &str| {
        let input = json!({"method": "GET", "url": setup.url(at), "save_to": "out/it"});
        let saved = setup.request(&input, None).await;
        let file = setup.files().get("out/it").await.ok();
        let deleted = setup.call(catalogue::action("storage.delete").unwrap(), &json!({"path": "out/it"}), None).await;
        assert!(deleted.is_ok());
        (saved, file)
    };
    let (saved, file) = save("/ok").await;
    let saved = saved.unwrap();
    assert_eq!((&saved["status"], &saved["file"]), (&json!(200), &json!({"path": "out/it", "bytes": 3})));
    assert_eq!((&saved["headers"]["content-type"], saved.get("body")), (&json!("application/json"), None));
    assert_eq!(file, Some(bytes.clone()), "as it came, whatever its type says");
    let (saved, file) = save("/empty").await;
    assert_eq!((saved.unwrap()["file"].clone(), file), (json!({"path": "out/it", "bytes": 0}), Some(Bytes::new())));
    assert_eq!(save("/moved").await.1, Some(bytes), "a read follows");
    for (at, retryable) in [("/gone", false), ("/down", true)] {
        let (failed, file) = save(at).await;
        assert_eq!((failed.unwrap_err().error.retryable, file), (retryable, None), "{at}");
    }
    for (input, reason) in [
        (json!({"save_to": "../it"}), "/with/save_to must match"),
        (json!({"save_to": "/it"}), "/with/save_to must match"),
        (json!({"save_to": ""}), "/with/save_to must not be empty"),
        (json!({"save_to": "a".repeat(201)}), "is no file's path"),
        (json!({"save_to": "it", "paging": {"type": "link"}}), "takes only one of paging, save_to"),
    ] {
        let refused = setup.refused(input).await;
        assert_eq!(refused.code, ErrorCode::InputInvalid);
        assert!(refused.message.contains(reason), "{}", refused.message);
    }
}

/// A vendor with seven items, in pages of three.
fn pages(elsewhere: String) -> impl Fn(&Request) -> ResponseTemplate + Send + Sync + 'static {
    move |request| {
        let number = |name: &str| {
            let pair = request.url.query_pairs().find(|(known, _)| known == name);
            pair.and_then(|(_, value)| value.parse::<usize>().ok())
        };
        let page = |from: usize| (from..(from + 3).min(7)).collect::<Vec<_>>();
        let from = number("after").unwrap_or(0);
        let next = (from + 3 < 7).then_some(from + 3);
        let ok = |body: Value| ResponseTemplate::new(200).set_body_json(body);
        match request.url.path() {
            "/link" => {
                let template = ok(json!(page(from)));
                let link = next.map(|next| format!("</link?after={next}>; rel=\"next\""));
                link.iter().fold(template, |template, link| template.insert_header("link", link.as_str()))
            }
            "/cursor" => ok(json!({"data": {"items": page(from)}, "page": {"next": next}})),
            "/next" => ok(json!({"items": page(from), "next": next.map(|next| format!("/next?after={next}"))})),
            "/away" => ok(json!({"items": page(from), "next": elsewhere})),
            "/page" => ok(json!(page(number("p").unwrap_or(99).saturating_sub(1) * 3))),
            "/zero" => ok(json!({"items": page(number("p").unwrap_or(99) * 3)})),
            "/offset" => ok(json!(page(number("skip").unwrap_or(0)))),
            "/failing" if from > 0 => ResponseTemplate::new(500),
            "/failing" => ok(json!({"items": page(from), "next": "?after=3"})),
            "/text" => ResponseTemplate::new(200).set_body_string("[1]"),
            _ => ok(json!({"items": {"a": 1}})),
        }
    }
}

#[tokio::test]
async fn all_pages_of_any_api_are_read() {
    let setup = setup(LOOPBACK).await;
    let elsewhere = MockServer::start().await;
    for server in [&setup.server, &elsewhere] {
        Mock::given(any()).respond_with(pages(elsewhere.uri())).mount(server).await;
    }
    let call = async |at: &str, paging: Value| {
        let before = setup.received().await.len();
        let input = json!({"method": "GET", "url": setup.url(at), "query": {"q": "a"}, "paging": paging});
        let called = setup.request(&input, None).await;
        let queries = setup
            .received()
            .await
            .split_off(before)
            .into_iter()
            .map(|request| request.url.query().unwrap_or_default().to_owned());
        (called, queries.collect::<Vec<_>>())
    };
    let cursor = json!({"type": "cursor", "items": "data.items", "value": "page.next", "query": "after"});
    for (at, paging, queries) in [
        ("/link", json!({"type": "link"}), vec!["q=a", "after=3", "after=6"]),
        ("/cursor?limit=3", cursor.clone(), vec!["limit=3&q=a", "limit=3&q=a&after=3", "limit=3&q=a&after=6"]),
        ("/next", json!({"type": "next_url", "items": "items[]", "value": "next"}), vec!["q=a", "after=3", "after=6"]),
        ("/page", json!({"type": "page", "query": "p"}), vec!["q=a&p=1", "q=a&p=2", "q=a&p=3", "q=a&p=4"]),
        (
            "/zero",
            json!({"type": "page", "query": "p", "first": 0, "items": "items"}),
            vec!["q=a&p=0", "q=a&p=1", "q=a&p=2", "q=a&p=3"],
        ),
        ("/offset", json!({"type": "offset", "query": "skip"}), vec!["q=a", "q=a&skip=3", "q=a&skip=6", "q=a&skip=7"]),
    ] {
        let (output, sent) = call(at, paging).await;
        assert_eq!(output, Ok(json!({"items": [0, 1, 2, 3, 4, 5, 6], "complete": true})), "{at}");
        assert_eq!(sent, queries, "{at}");
    }
    for (max, items, complete, requests) in
        [(2, json!([0, 1]), false, 1), (3, json!([0, 1, 2]), false, 1), (7, json!([0, 1, 2, 3, 4, 5, 6]), true, 3)]
    {
        let mut paging = cursor.clone();
        paging["max_items"] = json!(max);
        let (output, sent) = call("/cursor", paging).await;
        assert_eq!((output, sent.len()), (Ok(json!({"items": items, "complete": complete})), requests), "{max}");
    }
    let next = |items: &str| json!({"type": "next_url", "items": items, "value": "next"});
    for (at, paging, code, reason) in [
        ("/away", next("items"), ErrorCode::ResponseInvalid, "the next page's address is on another host"),
        ("/failing", next("items"), ErrorCode::TargetFailed, "500 Internal Server Error"),
        ("/object", next("items"), ErrorCode::ResponseInvalid, "`items` of its paging finds no list in the page"),
        ("/object", next("nothing"), ErrorCode::ResponseInvalid, "`items` of its paging finds no list in the page"),
        (
            "/text",
            json!({"type": "link"}),
            ErrorCode::ResponseInvalid,
            "`items` of its paging finds no list in the page",
        ),
    ] {
        let error = call(at, paging).await.0.unwrap_err().error;
        assert_eq!(error.code, code, "{at}");
        assert!(error.message.contains(reason), "{at}: {}", error.message);
    }
    for (paging, reason) in [
        (json!({"type": "pages"}), "/with/paging/type must be one of"),
        (json!({"type": "cursor", "value": "next"}), "/with/paging/query is required"),
        (json!({"type": "link", "query": "p"}), "/with/paging/query unknown field"),
        (json!({"type": "link", "max_items": 10_001}), "/with/paging/max_items"),
    ] {
        let refused = setup.refused(json!({"paging": paging})).await;
        assert!(refused.code == ErrorCode::InputInvalid && refused.message.contains(reason), "{}", refused.message);
    }
    assert!(elsewhere.received_requests().await.unwrap().is_empty());
}

const ACME: &str = r#"
format: 1
name: acme
title: Acme
hosts: [HOST]
base_url: http://HOST
auth:
  - { id: header, type: api_key, in: header, name: X-Acme-Key, prefix: "Key " }
  - { id: query, type: api_key, in: query, name: key }
  - { id: basic, type: basic, username: "{{ connection.account }}", fields: { account: { secret: false } } }
  - id: both
    type: custom
    fields: { id: { secret: false }, token: {} }
    headers: { X-Acme-Id: "{{ connection.id }}", Authorization: "Acme {{ connection.id }}:{{ secret.token }}" }
    query: { v: "{{ connection.id }}" }
  - { id: hook, type: url }
actions:
  act: { title: Act, effect: read, auth: [header], input: { type: object }, request: { method: GET, path: / } }
"#;

async fn connected(setup: &Setup, acme: &Connector, auth: &str, data: &Value) -> Made {
    let data: &Map<String, Value> = data.as_object().unwrap();
    setup.connection(acme, auth, data, &[]).await
}

#[tokio::test]
async fn a_connection_of_another_connector_keeps_to_its_hosts_and_places() {
    let setup = ready().await;
    let elsewhere = MockServer::start().await;
    let acme = setup.connector(ACME);
    let secret = "s3cr3ts3cr3t";
    for (auth, data, sent, query) in [
        ("header", json!({"api_key": secret}), vec![("x-acme-key", "Key s3cr3ts3cr3t")], "q=1"),
        ("query", json!({"api_key": secret}), vec![], "q=1&key=s3cr3ts3cr3t"),
        (
            "basic",
            json!({"account": "me", "password": secret}),
            vec![("authorization", "Basic bWU6czNjcjN0czNjcjN0")],
            "q=1",
        ),
        (
            "both",
            json!({"id": "7", "token": secret}),
            vec![("x-acme-id", "7"), ("authorization", "Acme 7:s3cr3ts3cr3t")],
            "q=1&v=7",
        ),
    ] {
        let made = connected(&setup, &acme, auth, &data).await;
        let own = json!({"X-Acme-Key": "mine", "Authorization": "mine", "X-Other": "mine"});
        let input = json!({"url": setup.url("/x?q=1&key=mine&v=mine"), "headers": own});
        setup.request(&input, Some(&made)).await.unwrap();
        let request = setup.received().await.pop().unwrap();
        for name in ["x-acme-key", "x-acme-id", "authorization"] {
            let placed = sent.iter().find(|(placed, _)| *placed == name).map(|(_, value)| *value);
            let mine = (name != "x-acme-id").then_some("mine");
            assert_eq!(header(&request, name), placed.or(mine), "{auth}: {name}: the connection's own wins");
        }
        let others: &[&str] = match auth {
            "query" => &["q=1", "v=mine"],
            "both" => &["q=1", "key=mine"],
            _ => &["q=1", "key=mine", "v=mine"],
        };
        let added = query.split('&').skip(1);
        assert_eq!(
            request.url.query(),
            Some(others.iter().copied().chain(added).collect::<Vec<_>>().join("&").as_str()),
            "{auth}"
        );

        for url in [
            format!("{}/x", elsewhere.uri()),
            "http://localhost:1/".to_owned(),
            setup.url("/").replace("http:", "https:"),
        ] {
            let count = setup.received().await.len();
            let refused = setup.request(&json!({ "url": url }), Some(&made)).await.unwrap_err();
            let on_https = url.starts_with("https:");
            let code = if on_https { ErrorCode::ConnectFailed } else { ErrorCode::EgressDenied };
            assert_eq!((refused.error.code, refused.is_connection_broken), (code, false), "{auth} {url}");
            assert!(!refused.error.message.contains(secret));
            assert_eq!(setup.received().await.len(), count);
        }
    }
    assert!(elsewhere.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_connection_whose_secret_is_the_url_is_refused() {
    let setup = ready().await;
    let acme = setup.connector(ACME);
    let slack = catalogue::connector("slack").unwrap();
    let url = json!({"webhook_url": setup.url("/hook/s3cr3ts3cr3t")});
    for (connector, auth) in [(&acme, "hook"), (&**slack, "webhook")] {
        let made = connected(&setup, connector, auth, &url).await;
        let refused = setup.request(&json!({}), Some(&made)).await.unwrap_err();
        let reason =
            format!("the secret of the connection {} is a whole URL, which http.request can't use", made.connection.id);
        let expected = (ErrorCode::ConnectionUnusable, false, reason);
        assert_eq!((refused.error.code, refused.error.retryable, refused.error.message), expected);
        assert!(!refused.is_connection_broken, "it works where it is for");
    }
    assert!(setup.received().await.is_empty());
}
