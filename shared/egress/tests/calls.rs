//! Whole calls against servers on loopback: what goes out, what comes back, and what is cut off.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use support::{Names, Sealed, Server, Vault, all_texts, get, ok, read_request, redirect, response, sent};
use tidegate_egress::{Effect, Egress, EgressError, EgressSettings, OutboundRequest, OutboundResponse, Resolver};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

mod support;

fn settings() -> EgressSettings {
    EgressSettings { allow: vec!["127.0.0.1/32".parse().unwrap()], ..EgressSettings::default() }
}

fn egress(vault: &Vault) -> Egress {
    Egress::new(settings(), vault.envelope.clone())
}

fn with_names(vault: &Vault, names: Arc<impl Resolver + 'static>) -> Egress {
    Egress::with_resolver(settings(), vault.envelope.clone(), names)
}

fn post(url: &str, body: &str) -> OutboundRequest {
    let body = Some(Bytes::copy_from_slice(body.as_bytes()));
    OutboundRequest { method: Method::POST, body, effect: Effect::Write, ..get(url) }
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

fn text(response: &OutboundResponse) -> &str {
    std::str::from_utf8(&response.body).unwrap()
}

#[tokio::test]
async fn sends_what_it_is_given_and_its_own_headers() {
    let server = Server::start(|_| response("201 Created", "x-answer: yes\r\n", b"made")).await;
    let vault = Vault::new();
    let mut request = post(&server.url("/a%20b/c?d=e#fragment"), r#"{"x":1}"#);
    request.headers = headers(&[("content-type", "application/json"), ("x-custom", "1"), ("accept", "text/plain")]);
    request.idempotency_key = Some("run_1.notify".into());
    request.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    let response = egress(&vault).send(request, None).await.unwrap();
    assert_eq!((response.status, text(&response)), (201, "made"));
    assert_eq!(response.headers["x-answer"], "yes");

    let request = &server.requests()[0];
    assert!(request.starts_with("POST /a%20b/c?d=e HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"x\":1}"), "{request}");
    let expected = [
        ("host", server.host()),
        ("content-type", "application/json".into()),
        ("content-length", "7".into()),
        ("x-custom", "1".into()),
        ("accept", "text/plain".into()),
        ("user-agent", concat!("Tidegate/", env!("CARGO_PKG_VERSION")).into()),
        ("idempotency-key", "run_1.notify".into()),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
    ];
    for (name, value) in expected {
        assert_eq!(sent(request, name), [value.as_str()], "{name}");
    }
    for absent in ["authorization", "cookie", "referer", "transfer-encoding"] {
        assert_eq!(sent(request, absent), [""; 0], "{absent}");
    }
}

#[tokio::test]
async fn a_callers_user_agent_and_repeated_headers_go_out() {
    let server = Server::start(|_| ok("")).await;
    let vault = Vault::new();
    let mut request = get(&server.url("/"));
    request.headers = headers(&[("user-agent", "mine")]);
    request.headers.append("x-many", HeaderValue::from_static("1"));
    request.headers.append("x-many", HeaderValue::from_static("2"));
    egress(&vault).send(request, None).await.unwrap();
    let request = &server.requests()[0];
    assert_eq!(sent(request, "user-agent"), ["mine"]);
    assert_eq!(sent(request, "x-many"), ["1", "2"]);
}

#[tokio::test]
async fn calls_share_a_connection() {
    let server = Server::start(|_| ok("same")).await;
    let vault = Vault::new();
    let egress = egress(&vault);
    for _ in 0..5 {
        assert_eq!(text(&egress.clone().send(get(&server.url("/")), None).await.unwrap()), "same");
    }
    assert_eq!((server.requests().len(), server.connections()), (5, 1));
}

#[tokio::test]
async fn every_status_is_a_response() {
    let server = Server::start(|request| {
        let status = request.split(['/', ' ']).nth(2).unwrap();
        response(&format!("{status} X"), "retry-after: 7\r\n", b"why")
    })
    .await;
    let vault = Vault::new();
    let egress = egress(&vault);
    for status in [200, 202, 300, 302, 304, 400, 401, 404, 410, 429, 500, 503, 599] {
        let response = egress.send(get(&server.url(&format!("/{status}"))), None).await.unwrap();
        assert_eq!(response.status, status);
        assert_eq!(response.headers["retry-after"], "7");
    }
}

#[tokio::test]
async fn urls_that_are_not_plain_http_are_refused() {
    let vault = Vault::new();
    let egress = with_names(&vault, Arc::new(support::NoResolver));
    let refused = [
        "",
        "/relative",
        "127.0.0.1",
        "file:///etc/passwd",
        "ftp://a.test/",
        "gopher://a.test/",
        "data:text/plain,x",
        "ws://a.test/",
        "unix:/run/x.sock",
        "javascript:alert(1)",
        "http://",
        "http:///",
        "http://user@a.test/",
        "http://:password@a.test/",
        "http://a.test@127.0.0.1/",
        "http://a.test:99999/",
        "http://[::1/",
        "http://[fe80::1%25eth0]/",
        "http://1.2.3.4.5/",
        "http://256.1.1.1/",
        "http://a b/",
    ];
    for url in refused {
        let error = egress.send(get(url), None).await.unwrap_err();
        assert!(matches!(error, EgressError::InvalidUrl(_)), "{url}: {error}");
        assert!(!error.may_have_arrived() && !error.is_retryable());
    }
}

#[tokio::test]
async fn headers_that_frame_or_route_a_message_are_refused() {
    let server = Server::start(|_| ok("")).await;
    let vault = Vault::new();
    let egress = egress(&vault);
    let reserved = [
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    for name in reserved {
        let request = OutboundRequest { headers: headers(&[(name, "1")]), ..post(&server.url("/"), "x") };
        let error = egress.send(request, None).await.unwrap_err();
        assert!(matches!(&error, EgressError::InvalidRequest(text) if text.contains(name)), "{error}");
    }
    for method in [Method::CONNECT, Method::TRACE] {
        let error = egress.send(OutboundRequest { method, ..get(&server.url("/")) }, None).await.unwrap_err();
        assert!(matches!(error, EgressError::InvalidRequest(_)), "{error}");
    }
    for bad in ["a\r\nx-smuggled: 1", "a\nb", "a\0"] {
        let request = OutboundRequest { idempotency_key: Some(bad.into()), ..get(&server.url("/")) };
        assert!(matches!(egress.send(request, None).await, Err(EgressError::InvalidRequest(_))));
        let request = OutboundRequest { traceparent: Some(bad.into()), ..get(&server.url("/")) };
        assert!(matches!(egress.send(request, None).await, Err(EgressError::InvalidRequest(_))));
    }
    assert_eq!(server.connections(), 0);

    egress.send(get(&server.url("/x\r\nx-smuggled: 1 HTTP/1.1\r\n\r\nGET /y")), None).await.unwrap();
    assert_eq!(sent(&server.requests()[0], "x-smuggled"), [""; 0]);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn nothing_that_is_not_public_is_called_unless_it_is_opened() {
    let server = Server::start(|_| ok("")).await;
    let vault = Vault::new();
    let port = server.address.port();
    let names = || {
        Names::new(&[
            ("private.test", &[&["10.1.2.3"]]),
            ("loopback.test", &[&["127.0.0.1"]]),
            ("mapped.test", &[&["::ffff:127.0.0.1"]]),
            ("metadata.test", &[&["169.254.169.254"]]),
            ("v6.test", &[&["::1"]]),
            ("mixed.test", &[&["8.8.8.8", "2606:4700::1111", "127.0.0.1"]]),
        ])
    };
    let closed = Egress::with_resolver(EgressSettings::default(), vault.envelope.clone(), names());
    for host in ["private.test", "loopback.test", "mapped.test", "metadata.test", "v6.test", "mixed.test"] {
        let error = closed.send(get(&format!("http://{host}:{port}/secret-path")), None).await.unwrap_err();
        assert!(matches!(&error, EgressError::DeniedAddress { host: named, .. } if named == host), "{host}: {error}");
        assert!(error.to_string().contains("TIDEGATE_EGRESS_ALLOW"), "{error}");
        assert!(!all_texts(&error).contains("secret-path") && !error.may_have_arrived() && !error.is_retryable());
    }
    assert_eq!(server.connections(), 0);

    let open = with_names(&vault, names());
    for host in ["loopback.test", "mapped.test"] {
        open.send(get(&format!("http://{host}:{port}/")), None).await.unwrap();
    }
    assert_eq!(server.connections(), 2);
    for host in ["private.test", "metadata.test", "v6.test"] {
        let error = open.send(get(&format!("http://{host}:{port}/")), None).await.unwrap_err();
        assert!(matches!(error, EgressError::DeniedAddress { .. }), "{host}: {error}");
    }

    let everything = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
    let on_aws =
        EgressSettings { allow: everything, never_open_loopback_or_link_local: true, ..EgressSettings::default() };
    let on_aws = Egress::with_resolver(on_aws, vault.envelope.clone(), names());
    for host in ["loopback.test", "mapped.test", "metadata.test", "v6.test", "127.0.0.1", "[::ffff:127.0.0.1]"] {
        let error = on_aws.send(get(&format!("http://{host}:{port}/")), None).await.unwrap_err();
        assert!(matches!(error, EgressError::DeniedAddress { .. }), "{host}: {error}");
        assert!(!error.to_string().contains("EGRESS_ALLOW"), "{error}");
    }
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn one_bad_answer_among_good_ones_refuses_the_name() {
    let server = Server::start(|_| ok("")).await;
    let vault = Vault::new();
    for answers in [&["127.0.0.1", "10.0.0.1"][..], &["10.0.0.1", "127.0.0.1"], &["127.0.0.1", "fe80::1"]] {
        let egress = with_names(&vault, Names::new(&[("mixed.test", &[answers])]));
        let error = egress.send(get(&format!("http://mixed.test:{}/", server.address.port())), None).await;
        assert!(matches!(error, Err(EgressError::DeniedAddress { .. })), "{answers:?}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_name_that_is_rebound_gets_no_second_look() {
    let server = Server::start(|_| response("200 OK", "connection: close\r\n", b"")).await;
    let vault = Vault::new();
    let names = Names::new(&[("rebind.test", &[&["127.0.0.1"], &["10.0.0.1"], &["127.0.0.1"], &["169.254.169.254"]])]);
    let egress = with_names(&vault, Arc::clone(&names));
    let url = format!("http://rebind.test:{}/", server.address.port());
    for (lookups, is_public) in [(1, true), (2, false), (3, true), (4, false)] {
        let called = egress.send(get(&url), None).await;
        assert_eq!(called.is_ok(), is_public, "{called:?}");
        assert_eq!(names.lookups.load(Ordering::SeqCst), lookups, "what was checked is what is called");
    }
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn odd_spellings_reach_only_what_is_opened() {
    let server = Server::start(|_| ok("")).await;
    let vault = Vault::new();
    let egress = with_names(&vault, Arc::new(support::NoResolver));
    let port = server.address.port();
    for host in
        ["127.0.0.1", "0x7f.1", "2130706433", "0177.0.0.1", "127.1", "127.0.0.1.", "[::ffff:127.0.0.1]", "１２７.1"]
    {
        // The operating system may or may not connect to a mapped address; what matters is that the guard lets it be.
        let called = egress.send(get(&format!("http://{host}:{port}/")), None).await;
        assert!(!matches!(called, Err(EgressError::DeniedAddress { .. })), "{host}: {called:?}");
    }
    for host in ["127.0.0.2", "0x7f000002", "127.2", "[::1]", "[::127.0.0.1]", "0", "[::]", "[64:ff9b::7f00:1]"] {
        let called = egress.send(get(&format!("http://{host}:{port}/")), None).await;
        assert!(matches!(called, Err(EgressError::DeniedAddress { .. })), "{host}: {called:?}");
    }
}

#[tokio::test]
async fn the_systems_resolver_is_guarded_too() {
    let vault = Vault::new();
    let egress = Egress::new(EgressSettings::default(), vault.envelope.clone());
    for host in ["localhost", "LOCALHOST"] {
        let error = egress.send(get(&format!("http://{host}:9/")), None).await.unwrap_err();
        assert!(matches!(error, EgressError::DeniedAddress { .. }), "{host}: {error}");
    }
}

#[tokio::test]
async fn failures_to_reach_a_host_say_that_nothing_was_sent() {
    let vault = Vault::new();
    let egress = with_names(&vault, Names::new(&[("empty.test", &[&[]])]));
    for host in ["absent.test", "empty.test"] {
        let error = egress.send(get(&format!("http://{host}/path")), None).await.unwrap_err();
        assert!(matches!(&error, EgressError::Dns { host: named, .. } if named == host), "{error}");
        assert!(error.is_retryable() && !error.may_have_arrived());
    }
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = egress.send(get(&format!("http://{closed}/path")), None).await.unwrap_err();
    assert!(matches!(&error, EgressError::Connect { reason, .. } if reason.contains("refused")), "{error}");
    assert!(error.is_retryable() && !error.may_have_arrived());

    // A server that doesn't speak TLS.
    let plain = Server::serve(|mut stream, _| async move {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    })
    .await;
    let error = egress.send(get(&format!("https://{}/path", plain.host())), None).await.unwrap_err();
    assert!(matches!(error, EgressError::Connect { .. }), "{error}");
}

#[tokio::test]
async fn a_call_that_breaks_off_may_have_arrived() {
    let vault = Vault::new();
    let answers: [&'static [u8]; 6] = [
        b"",
        b"HTTP/1.1 200",
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nxxxx",
    ];
    for answer in answers {
        let server = Server::serve(move |mut stream, _| async move {
            read_request(&mut stream).await;
            stream.write_all(answer).await.unwrap();
        })
        .await;
        let error = egress(&vault).send(post(&server.url("/path"), "x"), None).await.unwrap_err();
        assert!(matches!(error, EgressError::Interrupted { .. }), "{}: {error}", answer.escape_ascii());
        assert!(error.may_have_arrived() && error.is_retryable() && !all_texts(&error).contains("/path"));
    }
}

#[tokio::test]
async fn the_timeout_bounds_the_whole_call() {
    let vault = Vault::new();
    let stages: [&'static [u8]; 3] =
        [b"", b"HTTP/1.1 200 OK\r\nx-half: ", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"];
    for stage in stages {
        let server = Server::serve(move |mut stream, _| async move {
            read_request(&mut stream).await;
            stream.write_all(stage).await.unwrap();
            read_request(&mut stream).await;
        })
        .await;
        let timeout = Duration::from_millis(50);
        let request = OutboundRequest { timeout, ..get(&server.url("/path")) };
        let error = egress(&vault).send(request, None).await.unwrap_err();
        assert!(matches!(error, EgressError::Timeout(after) if after == timeout), "{error}");
        assert!(error.may_have_arrived() && error.is_retryable());
        assert_eq!(error.to_string(), "no complete answer within 50 ms");
    }

    // Every redirect is quick, but they are one call.
    let server = Server::serve(|mut stream, requests| async move {
        while let Some(request) = read_request(&mut stream).await {
            requests.lock().unwrap().push(request);
            if requests.lock().unwrap().len() < 3 {
                stream.write_all(&redirect("302 Found", "/next")).await.unwrap();
            }
        }
    })
    .await;
    let request = OutboundRequest { timeout: Duration::from_millis(200), ..get(&server.url("/")) };
    assert!(matches!(egress(&vault).send(request, None).await, Err(EgressError::Timeout(_))));
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn an_answer_that_drips_for_ever_is_cut() {
    let vault = Vault::new();
    let endless = |head: &'static [u8], piece: &'static [u8]| {
        Server::serve(move |mut stream, _| async move {
            read_request(&mut stream).await;
            stream.write_all(head).await.unwrap();
            while stream.write_all(piece).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
    };
    let small = EgressSettings { max_response_bytes: 1000, ..settings() };
    let egress = Egress::new(small, vault.envelope.clone());
    let chunked = endless(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n").await;
    let until_close = endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x").await;
    for server in [chunked, until_close] {
        let error = egress.send(get(&server.url("/")), None).await.unwrap_err();
        assert!(matches!(error, EgressError::ResponseTooLarge { limit: 1000, .. }), "{error}");
        assert!(error.may_have_arrived() && !error.is_retryable());
    }
    let heads = endless(b"HTTP/1.1 200 OK\r\n", b"x-more: 1\r\n").await;
    let informational = endless(b"", b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n").await;
    for (name, server) in [("headers", heads), ("informational", informational)] {
        let request = OutboundRequest { timeout: Duration::from_millis(200), ..get(&server.url("/")) };
        let error = egress.send(request, None).await.unwrap_err();
        assert!(matches!(error, EgressError::Interrupted { .. } | EgressError::Timeout(_)), "{name}: {error}");
    }
}

#[tokio::test]
async fn bodies_are_bounded_on_both_ways() {
    let limit = 5 << 20;
    let server = Server::start(move |request| {
        let extra = usize::from(request.contains("/over"));
        let body = vec![b'x'; limit + extra];
        if request.contains("chunked") {
            let head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n".as_slice();
            let chunks = body
                .chunks(100_000)
                .map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
            return [head, &chunks.collect::<Vec<_>>().concat(), b"0\r\n\r\n"].concat();
        }
        response("200 OK", "connection: close\r\n", &body)
    })
    .await;
    let vault = Vault::new();
    let egress = egress(&vault);
    for path in ["/exact", "/exact-chunked"] {
        let response = egress.send(get(&server.url(path)), None).await.unwrap();
        assert!(response.body.len() == limit && response.body.iter().all(|byte| *byte == b'x'), "{path}");
    }
    for path in ["/over", "/over-chunked"] {
        let error = egress.send(get(&server.url(path)), None).await.unwrap_err();
        assert!(matches!(error, EgressError::ResponseTooLarge { limit: at, .. } if at == limit), "{path}: {error}");
    }

    let limit = 6 << 20;
    let server = Server::start(|_| ok("")).await;
    egress.send(post(&server.url("/"), &"x".repeat(limit)), None).await.unwrap();
    let error = egress.send(post(&server.url("/"), &"x".repeat(limit + 1)), None).await.unwrap_err();
    assert!(matches!(error, EgressError::RequestTooLarge { limit: at } if at == limit), "{error}");
    assert!(!error.may_have_arrived());
    assert_eq!(server.requests().len(), 1);

    let limit = 51 << 20;
    egress.send_files(post(&server.url("/"), &"x".repeat(limit)), None).await.unwrap();
    let error = egress.send_files(post(&server.url("/"), &"x".repeat(limit + 1)), None).await.unwrap_err();
    assert!(matches!(error, EgressError::RequestTooLarge { limit: at } if at == limit), "{error}");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn compressed_answers_are_counted_as_they_unfold() {
    let gzip = |bytes: usize| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..bytes >> 20 {
            encoder.write_all(&[b'0'; 1 << 20]).unwrap();
        }
        encoder.finish().unwrap()
    };
    let (fits, bomb) = (gzip(4 << 20), gzip(64 << 20));
    assert!(bomb.len() < 100_000, "it looks harmless");
    let server = Server::start(move |request| {
        let body = if request.contains("/bomb") { &bomb } else { &fits };
        response("200 OK", "content-encoding: gzip\r\n", body)
    })
    .await;
    let vault = Vault::new();
    let response = egress(&vault).send(get(&server.url("/fits")), None).await.unwrap();
    assert_eq!(response.body.len(), 4 << 20);
    assert_eq!(sent(&server.requests()[0], "accept-encoding"), ["gzip"]);
    let error = egress(&vault).send(get(&server.url("/bomb")), None).await.unwrap_err();
    assert!(matches!(error, EgressError::ResponseTooLarge { .. }), "{error}");
}

#[tokio::test]
async fn dropping_the_call_hangs_up() {
    let (events, mut seen) = mpsc::unbounded_channel();
    let server = Server::serve(move |mut stream, _| {
        let events = events.clone();
        async move {
            read_request(&mut stream).await;
            events.send("called").unwrap();
            let end = stream.read(&mut [0; 10]).await;
            events.send(if matches!(end, Ok(0) | Err(_)) { "hung up" } else { "more" }).unwrap();
        }
    })
    .await;
    let vault = Vault::new();
    let (egress, url) = (egress(&vault), server.url("/"));
    let call = tokio::spawn(async move { egress.send(get(&url), None).await });
    assert_eq!(seen.recv().await, Some("called"));
    call.abort();
    assert_eq!(seen.recv().await, Some("hung up"));
}

#[tokio::test]
async fn reads_follow_redirects_and_writes_do_not() {
    let server = Server::start(|request| match request.split(' ').nth(1).unwrap() {
        "/start" => redirect("302 Found", "/middle"),
        "/middle" => redirect("308 Permanent Redirect", "end?q=1"),
        "/end?q=1" => ok("end"),
        "/loop" => redirect("301 Moved Permanently", "/loop"),
        path => panic!("{path}"),
    })
    .await;
    let vault = Vault::new();
    let egress = egress(&vault);
    assert_eq!(text(&egress.send(get(&server.url("/start")), None).await.unwrap()), "end");
    assert_eq!(server.requests().len(), 3);

    let error = egress.send(get(&server.url("/loop")), None).await.unwrap_err();
    assert!(matches!(error, EgressError::Redirect { .. }), "{error}");
    assert_eq!(server.requests().len(), 3 + 6, "the first and five redirects");

    let writes = [
        post(&server.url("/start"), "x"),
        OutboundRequest { effect: Effect::Write, ..get(&server.url("/start")) },
        OutboundRequest { effect: Effect::Read, ..post(&server.url("/start"), "x") },
    ];
    for (at, write) in writes.into_iter().enumerate() {
        let response = egress.send(write, None).await.unwrap();
        assert_eq!((response.status, &response.headers["location"]), (302, &HeaderValue::from_static("/middle")));
        assert_eq!(server.requests().len(), 10 + at, "it is the response");
    }
}

#[tokio::test]
async fn redirects_lead_nowhere_that_a_call_could_not() {
    let targets = [
        "http://127.0.0.2/",
        "http://169.254.169.254/latest/meta-data/",
        "http://0x7f000002/",
        "http://[::1]/",
        "http://private.test/",
        "//private.test/",
        "http://user:password@a.test/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://[",
    ];
    let vault = Vault::new();
    for target in targets {
        let server = Server::start(move |_| redirect("302 Found", target)).await;
        let egress = with_names(&vault, Names::new(&[("private.test", &[&["192.168.0.1"]])]));
        let error = egress.send(get(&server.url("/")), None).await.unwrap_err();
        let refused = matches!(
            error,
            EgressError::DeniedAddress { .. } | EgressError::InvalidUrl(_) | EgressError::Redirect { .. }
        );
        assert!(refused, "{target}: {error}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_redirect_to_another_origin_carries_nothing_that_says_who_asks() {
    let target = Server::start(|_| ok("there")).await;
    let port = target.address.port();
    let server = Server::start(move |request| match request.split(' ').nth(1).unwrap() {
        "/away" => redirect("302 Found", &format!("http://other.test:{port}/")),
        "/here" => redirect("302 Found", "/landed"),
        _ => ok("here"),
    })
    .await;
    let vault = Vault::new();
    let names = Names::new(&[("first.test", &[&["127.0.0.1"]]), ("other.test", &[&["127.0.0.1"]])]);
    let egress = with_names(&vault, names);
    let host = format!("first.test:{}", server.address.port());
    let request = |path: &str| {
        let mut request = get(&format!("http://{host}{path}"));
        request.headers = headers(&[("cookie", "session"), ("x-api-key", "callers-own"), ("accept", "text/plain")]);
        request.idempotency_key = Some("key-1".into());
        request.body = Some(Bytes::from_static(b"query"));
        request
    };
    let sealed = vault.connection(&[&host], r#"{"type":"bearer","token":"hunter2-hunter2"}"#).await;

    egress.send(request("/away"), sealed.credential()).await.unwrap();
    let first = &server.requests()[0];
    assert_eq!(sent(first, "authorization"), ["Bearer hunter2-hunter2"]);
    let landed = &target.requests()[0];
    assert_eq!(sent(landed, "accept"), ["text/plain"]);
    for absent in ["authorization", "cookie", "x-api-key", "idempotency-key", "referer", "content-length"] {
        assert_eq!(sent(landed, absent), [""; 0], "{absent}");
    }
    assert!(!landed.contains("query") && !landed.contains("hunter2"), "{landed}");

    egress.send(request("/here"), sealed.credential()).await.unwrap();
    let landed = &server.requests()[2];
    assert!(landed.starts_with("GET /landed "), "{landed}");
    assert_eq!(sent(landed, "authorization"), [""; 0], "a connection's secret follows no redirect at all");
    assert_eq!(sent(landed, "cookie"), ["session"]);
    assert_eq!(sent(landed, "idempotency-key"), ["key-1"]);
}

#[tokio::test]
async fn secrets_go_into_their_header() {
    let server = Server::start(|_| ok("")).await;
    let vault = Vault::new();
    let egress = egress(&vault);
    let cases = [
        (r#"{"type":"bearer","token":"t0ken"}"#, "authorization", "Bearer t0ken"),
        (
            r#"{"type":"basic","username":"Aladdin","password":"open sesame"}"#,
            "authorization",
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        ),
        (r#"{"type":"basic","username":"","password":"a:b"}"#, "authorization", "Basic OmE6Yg=="),
        (r#"{"type":"header","name":"X-Api-Key","value":"k3y"}"#, "x-api-key", "k3y"),
    ];
    for (secret, name, value) in cases {
        let sealed = vault.connection(&[&server.host()], secret).await;
        let mut request = post(&server.url("/"), "x");
        request.headers.insert(AUTHORIZATION, HeaderValue::from_static("callers own"));
        egress.send(request, sealed.credential()).await.unwrap();
        let request = server.requests().pop().unwrap();
        assert_eq!(sent(&request, name), [value], "{secret}");
    }

    // In the query, beside what the workflow has there.
    let secret = r#"{"type":"query","name":"app id","value":"k3y&x=1"}"#;
    let sealed = vault.connection(&[&server.host()], secret).await;
    egress.send(get(&server.url("/?a=1")), sealed.credential()).await.unwrap();
    let request = server.requests().pop().unwrap();
    assert!(request.starts_with("GET /?a=1&app+id=k3y%26x%3D1 HTTP/1.1"), "{request}");

    let unusable = [
        "",
        "not json",
        "{}",
        r#"{"type":"bearer"}"#,
        r#"{"type":"bearer","token":7}"#,
        r#"{"type":"bearer","token":"hunter2\r\nx-smuggled: 1"}"#,
        r#"{"type":"basic","username":"hunter2:","password":"x"}"#,
        r#"{"type":"header","name":"Host","value":"hunter2"}"#,
        r#"{"type":"header","name":"transfer-encoding","value":"hunter2"}"#,
        r#"{"type":"header","name":"hunter2 hunter2","value":"x"}"#,
        r#"{"type":"hunter2"}"#,
    ];
    let before = server.requests().len();
    for secret in unusable {
        let sealed = vault.connection(&[&server.host()], secret).await;
        let request = get(&server.url("/"));
        let error = egress.send(request, sealed.credential()).await.unwrap_err();
        assert!(matches!(error, EgressError::Secret { .. }), "{secret}: {error}");
        assert!(!all_texts(&error).contains("hunter2"), "{error:?}");
    }
    assert_eq!(server.requests().len(), before);
}

#[tokio::test]
async fn a_secret_is_opened_only_for_its_hosts() {
    let vault = Vault::new();
    let server = Server::start(|_| ok("")).await;
    let names = Names::new(&[("api.test", &[&["127.0.0.1"]]), ("evil.test", &[&["127.0.0.1"]])]);
    let egress = with_names(&vault, names);
    let port = server.address.port();
    let hosts = ["api.test", "api.test:443", "plain.test:80", &format!("api.test:{port}")];
    let elsewhere = [
        format!("http://evil.test:{port}/"),
        format!("http://api.test.evil.test:{port}/"),
        format!("http://sub.api.test:{port}/"),
        format!("http://evil.test:{port}/?api.test:{port}"),
        format!("http://evil.test:{port}/#api.test:{port}"),
        format!("http://evil.test:{port}\\api.test:{port}/"),
        format!("http://api.test.:{port}/"),
        format!("http://127.0.0.1:{port}/"),
        "https://api.test:8443/".to_owned(),
        // In the clear, which the connection's owner did not ask for.
        "http://api.test/".to_owned(),
        "http://api.test:443/".to_owned(),
        "https://plain.test/".to_owned(),
    ];
    // Whoever tried to open this one would get another error.
    let unopenable = Sealed::unopenable(&hosts);
    for url in elsewhere {
        let request = get(&url);
        let error = egress.send(request, unopenable.credential()).await.unwrap_err();
        assert!(matches!(&error, EgressError::HostNotAllowed { .. }), "{url}: {error}");
        assert!(error.to_string().contains("api.test, api.test:443, plain.test:80"), "{error}");
    }
    assert_eq!(server.connections(), 0);

    let request = get("http://127.0.0.2/");
    let error = egress.send(request, Sealed::unopenable(&["127.0.0.2:80"]).credential()).await.unwrap_err();
    assert!(matches!(error, EgressError::DeniedAddress { .. }), "an address is checked first: {error}");

    let allowed = format!("http://API.test:{port}/");
    let request = get(&allowed);
    let error = egress.send(request, unopenable.credential()).await.unwrap_err();
    assert!(matches!(error, EgressError::Connection { .. }) && !error.is_retryable(), "{error}");

    let sealed = vault.connection(&hosts, r#"{"type":"bearer","token":"hunter2"}"#).await;
    let request = || get(&allowed);
    egress.send(request(), sealed.credential()).await.unwrap();
    assert_eq!(sent(&server.requests()[0], "authorization"), ["Bearer hunter2"]);

    let mut moved = vault.connection(&hosts, r#"{"type":"bearer","token":"hunter2"}"#).await;
    moved.connection.tenant = tidegate_model::TenantId::new(jiff::Timestamp::UNIX_EPOCH, [9; 10]);
    let error = egress.send(request(), moved.credential()).await.unwrap_err();
    assert!(matches!(error, EgressError::Connection { .. }), "another tenant's: {error}");

    egress.send(request(), None).await.unwrap();
    assert_eq!(sent(server.requests().last().unwrap(), "authorization"), [""; 0]);
}

#[tokio::test]
async fn a_secret_url_is_called_and_never_shown() {
    let server = Server::start(|request| match request.contains("away") {
        true => redirect("302 Found", "http://127.0.0.2/"),
        false => ok("ok"),
    })
    .await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let hangs_up = Server::serve(|mut stream, _| async move { drop(read_request(&mut stream).await) }).await;
    let silent = Server::serve(|mut stream, _| async move {
        read_request(&mut stream).await;
        read_request(&mut stream).await;
    })
    .await;
    let vault = Vault::new();
    let egress = with_names(&vault, Names::new(&[("private.test", &[&["10.0.0.1"]])]));
    let call = async |url: &str, hosts: &[&str]| {
        let secret = serde_json::json!({ "webhook_url": url }).to_string();
        let sealed = vault.connection(hosts, &secret).await;
        let timeout = Duration::from_millis(300);
        egress.send(OutboundRequest { timeout, ..post("", "{}") }, sealed.credential()).await
    };

    let response = call(&server.url("/services/T0/B0/hunter2?x=hunter2"), &[&server.host()]).await.unwrap();
    assert_eq!(text(&response), "ok");
    assert!(server.requests()[0].starts_with("POST /services/T0/B0/hunter2?x=hunter2 HTTP/1.1"));
    assert_eq!(call(&server.url("/away/hunter2"), &[&server.host()]).await.unwrap().status, 302);
    assert_eq!(server.requests().len(), 2);

    let failing = [
        (server.url("/hunter2"), "other.test", "HostNotAllowed"),
        (format!("http://{closed}/hunter2?hunter2"), &closed.to_string(), "Connect"),
        (hangs_up.url("/hunter2"), &hangs_up.host(), "Interrupted"),
        (silent.url("/hunter2"), &silent.host(), "Timeout"),
        ("http://private.test/hunter2".to_owned(), "private.test", "DeniedAddress"),
        ("http://127.0.0.2/hunter2".to_owned(), "127.0.0.2", "DeniedAddress"),
        ("http://absent.test/hunter2".to_owned(), "absent.test", "Dns"),
        ("https://hunter2@private.test/".to_owned(), "private.test", "InvalidUrl"),
        ("hunter2".to_owned(), "private.test", "InvalidUrl"),
        ("ftp://private.test/hunter2".to_owned(), "private.test", "InvalidUrl"),
    ];
    for (url, host, kind) in failing {
        let error = call(&url, &[host]).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(kind), "{url}: {error:?}");
        assert!(!all_texts(&error).contains("hunter2"), "{error:?}");
    }

    let sealed = vault.connection(&["a.test"], r#"{"url":"hunter2"}"#).await;
    let error = egress.send(post("", ""), sealed.credential()).await.unwrap_err();
    assert!(matches!(error, EgressError::Secret { .. }) && !all_texts(&error).contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_echoes_the_secret_is_masked() {
    let server = Server::start(|request| {
        let authorization = sent(request, "authorization").first().copied().unwrap_or_default().to_owned();
        let path = request.split(' ').nth(1).unwrap();
        let body = format!("you sent {authorization} to {path} ({}) twice: {authorization}", path.replace('/', "\\/"));
        response("200 OK", &format!("x-echo: {authorization}; x\r\n"), body.as_bytes())
    })
    .await;
    let vault = Vault::new();
    let egress = egress(&vault);
    let sealed = vault.connection(&[&server.host()], r#"{"type":"bearer","token":"hunter2-hunter2"}"#).await;
    let request = get(&server.url("/x"));
    let response = egress.send(request, sealed.credential()).await.unwrap();
    assert_eq!(text(&response), "you sent Bearer *** to /x (\\/x) twice: Bearer ***");
    assert_eq!(response.headers["x-echo"], "Bearer ***; x");

    let secret = r#"{"type":"basic","username":"u","password":"hunter2-hunter2"}"#;
    let sealed = vault.connection(&[&server.host()], secret).await;
    let request = get(&server.url("/hunter2-hunter2"));
    let response = egress.send(request, sealed.credential()).await.unwrap();
    assert_eq!(text(&response), "you sent Basic *** to /*** (\\/***) twice: Basic ***");

    // In a URL, in a form, in base64.
    for spelt in
        ["/hunter%2B2%20hunter2", "/hunter%2B2+hunter2", "/aHVudGVyKzIgaHVudGVyMg==", "/aHVudGVyKzIgaHVudGVyMg"]
    {
        let sealed = vault.connection(&[&server.host()], r#"{"type":"bearer","token":"hunter+2 hunter2"}"#).await;
        let request = get(&server.url(spelt));
        let response = egress.send(request, sealed.credential()).await.unwrap();
        let shown = text(&response);
        assert!(shown.contains("to /*** (") && !shown.contains("unter"), "{spelt}: {shown}");
    }

    let secret = serde_json::json!({ "webhook_url": server.url("/services/T0/hunter2") }).to_string();
    let sealed = vault.connection(&[&server.host()], &secret).await;
    let request = post("", "");
    let response = egress.send(request, sealed.credential()).await.unwrap();
    assert_eq!(text(&response), "you sent  to /*** (\\/***) twice: ");
}

/// Run by [`a_proxy_in_the_environment_is_ignored`] in a process that has one.
#[tokio::test]
#[ignore = "needs the environment that its parent sets"]
async fn a_call_with_a_proxy_in_the_environment() {
    let server = Server::start(|_| ok("straight")).await;
    let vault = Vault::new();
    let egress = with_names(&vault, Names::new(&[("name.test", &[&["127.0.0.1"]])]));
    for host in ["127.0.0.1", "name.test"] {
        let response = egress.send(get(&format!("http://{host}:{}/", server.address.port())), None).await.unwrap();
        assert_eq!(text(&response), "straight");
    }
}

#[tokio::test]
async fn a_proxy_in_the_environment_is_ignored() {
    let proxy = Server::start(|_| ok("proxied")).await;
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--ignored", "--exact", "a_call_with_a_proxy_in_the_environment"]);
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        child.env(name, proxy.url(""));
    }
    let output = tokio::task::spawn_blocking(move || child.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert_eq!(proxy.connections(), 0);
}

/// An author who asks for another packing gets echoes past the masks; one who asks for pieces, too.
#[tokio::test]
async fn what_is_packed_or_cut_is_not_read_with_a_secret() {
    let server = Server::start(|_| response("200 OK", "content-encoding: deflate\r\n", b"\x78\x9c packed")).await;
    let vault = Vault::new();
    let egress = egress(&vault);
    let sealed = vault.connection(&[&server.host()], r#"{"type":"bearer","token":"hunter2-hunter2"}"#).await;
    let error = egress.send(get(&server.url("/")), sealed.credential()).await.unwrap_err();
    assert!(matches!(&error, EgressError::Encoded { encoding, .. } if encoding == "deflate"), "{error}");
    assert!(error.may_have_arrived() && !error.is_retryable());
    assert_eq!(
        egress.send(get(&server.url("/")), None).await.unwrap().status,
        200,
        "without a secret it is only bytes"
    );
    for (name, with_secret) in [("accept-encoding", false), ("accept-encoding", true), ("range", true)] {
        let mut request = get(&server.url("/"));
        request.headers = headers(&[(name, "x")]);
        let credential = if with_secret { sealed.credential() } else { None };
        let error = egress.send(request, credential).await.unwrap_err();
        assert!(matches!(error, EgressError::InvalidRequest(_)), "{name}: {error}");
    }
}

#[tokio::test]
async fn the_parts_of_a_secret_url_are_hidden_too() {
    let answer = r#"{"token":"SuperSecretSegment99","key":"k3y-k3y-k3y","team":"T0"}"#;
    let server =
        Server::start(move |_| response("200 OK", "content-type: application/json\r\n", answer.as_bytes())).await;
    let vault = Vault::new();
    let url = server.url("/services/T0/SuperSecretSegment99?key=k3y-k3y-k3y");
    let secret = serde_json::json!({ "webhook_url": url }).to_string();
    let sealed = vault.connection(&[&server.host()], &secret).await;
    let response = egress(&vault).send(post("", "{}"), sealed.credential()).await.unwrap();
    assert_eq!(text(&response), r#"{"token":"***","key":"***","team":"T0"}"#);
}
