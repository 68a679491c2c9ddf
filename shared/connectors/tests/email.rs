//! `email.send` to a real mail server: what arrives, and that nothing leaves where it must not.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mail_server::{Authority, MailServers};
use serde_json::{Map, Value, json};
use support::{LOOPBACK, Made, Setup, setup};
use tidegate_connectors::{Action, CallOptions, Connector, Failure, catalogue};
use tidegate_egress::{EgressSettings, Resolver};
use tidegate_model::ErrorCode;
use tidegate_platform::{Blobs as _, Clock, Ids};

#[path = "support/mail_server.rs"]
mod mail_server;
mod support;

/// The year that certificates end, unless a server says otherwise.
const LATER: i32 = 2999;
const USER: &str = "shop@example.com";
const PASSWORD: &str = "hunter2 hünter2";

/// All names are this machine's.
struct Here;

#[async_trait]
impl Resolver for Here {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        assert!(host.ends_with(".test"), "{host} was looked up");
        Ok(vec![Ipv4Addr::LOCALHOST.into()])
    }
}

struct World {
    setup: Setup,
    servers: MailServers,
    list: Vec<Value>,
}

/// Servers that are told apart by their names, each with a certificate of the authority that is trusted.
async fn world(mut list: Vec<Value>) -> World {
    let authority = Authority::new();
    for server in &mut list {
        if server.get("certificate").is_none() {
            let last_year =
                server.get("last_year").and_then(Value::as_i64).map_or(LATER, |year| year.try_into().unwrap());
            let (certificate, key) = authority.certificate("mail.test", last_year);
            (server["certificate"], server["key"]) = (json!(certificate), json!(key));
        }
    }
    let mut setup = setup(LOOPBACK).await;
    let allow = LOOPBACK.iter().map(|range| range.parse().unwrap()).collect();
    let settings = EgressSettings { allow, extra_roots: vec![authority.root.clone()], ..EgressSettings::default() };
    setup.leave_by(settings, Arc::new(Here));
    World { setup, servers: MailServers::start(&json!(list)), list }
}

/// A server that wants a password.
fn server(name: &str, security: &str, more: &Value) -> Value {
    merged(&json!({"name": name, "security": security, "users": {USER: PASSWORD}}), more)
}

fn merged(base: &Value, more: &Value) -> Value {
    let mut merged = base.clone();
    for (name, value) in more.as_object().unwrap() {
        merged[name] = value.clone();
    }
    merged
}

fn connector() -> &'static Connector {
    catalogue::connector("email").unwrap()
}

fn action() -> &'static Action {
    catalogue::action("email.send").unwrap()
}

fn mail() -> Value {
    json!({"to": "alex@example.com", "subject": "Hello", "text": "Hello, Alex."})
}

fn options(key: &str) -> CallOptions {
    CallOptions { timeout: Duration::from_secs(60), idempotency_key: Some(key.to_owned()), traceparent: None }
}

impl World {
    /// A connection to one of the servers, as somebody makes it who knows user and password.
    async fn connection(&self, name: &str, changes: &Value) -> Made {
        let at = self.list.iter().position(|server| server["name"] == name).unwrap();
        let mut data = Map::from_iter([
            ("host".to_owned(), json!("mail.test")),
            ("port".to_owned(), json!(self.servers.ports[at].to_string())),
            ("security".to_owned(), self.list[at]["security"].clone()),
            ("from".to_owned(), json!("Shop <shop@example.com>")),
        ]);
        if self.list[at].get("users").is_some() {
            data.extend([("username".to_owned(), json!(USER)), ("password".to_owned(), json!(PASSWORD))]);
        }
        data.extend(changes.as_object().unwrap().clone());
        self.setup.connection(connector(), "smtp", &data, &[]).await
    }

    async fn send(&self, made: &Made, input: &Value) -> Result<Value, Failure> {
        action().call(self.setup.outside(), input, Some(made.credential()), options("run_1:notify")).await
    }

    async fn test(&self, made: &Made) -> Result<Option<Option<String>>, Failure> {
        connector().test(self.setup.outside(), made.credential(), options("")).await
    }

    /// What arrives of a mail at a server that wants no password.
    async fn arrives(&mut self, made: &Made, input: &Value) -> Value {
        let sent = self.send(made, input).await;
        sent.unwrap_or_else(|failure| panic!("{input}: {failure:?}"));
        let mail = self.servers.next();
        assert_eq!((&mail["event"], &mail["defects"]), (&json!("mail"), &json!([])), "{input}: {mail}");
        mail
    }
}

fn header<'a>(mail: &'a Value, name: &str) -> Vec<&'a str> {
    let headers = mail["headers"].as_array().unwrap().iter();
    headers.filter(|header| header[0] == name).map(|header| header[1].as_str().unwrap()).collect()
}

fn header_names(mail: &Value) -> Vec<&str> {
    let mut names: Vec<_> =
        mail["headers"].as_array().unwrap().iter().map(|header| header[0].as_str().unwrap()).collect();
    names.sort_unstable();
    names
}

/// Whether a message is of lines as any server takes them: ASCII, not too long, and ended by CRLF alone, so that no two servers
/// see different ends of it.
fn has_only_lines(raw: &str) -> bool {
    raw.is_ascii() && raw.split("\r\n").all(|line| line.len() <= 998 && !line.contains(['\r', '\n', '\0']))
}

#[tokio::test]
async fn a_mail_arrives_as_it_was_meant() {
    let list = [("starttls", "PLAIN"), ("starttls", "LOGIN"), ("tls", "PLAIN"), ("tls", "LOGIN")].map(
        |(security, mechanism)| {
            server(&format!("{security} {mechanism}"), security, &json!({"mechanisms": [mechanism]}))
        },
    );
    let mut world = world(list.to_vec()).await;
    let path = format!("files/{}/reports/q3.bin", world.setup.tenant);
    world.setup.blobs.put(&path, b"\x00\x01\xff".as_slice().into()).await.unwrap();
    let input = json!({
        "to": ["Älex Müller <alex@example.com>", "\"Doe, Sam\" <sam@example.com>", "plain@example.com"],
        "cc": "Zoë <zoe@example.com>",
        "bcc": ["hidden@example.com"],
        "reply_to": "Büro <office@example.com>",
        "subject": "Bestellung № 17 ✓ — Grüße, und noch viel mehr, als in eine Zeile passt: Äpfel, Öl, Übung",
        "text": "Grüße\n.\n..\nLeb wohl",
        "html": "<p>Grüße</p>",
        "headers": {"List-Unsubscribe": "<https://example.com/u?a=1>", "X-Note": "naïve"},
        "attachments": [
            {"filename": "bestellung.csv", "content_type": "text/csv", "content": "sku,anzahl\näpfel,2\n"},
            {"filename": "größe \"1\".bin", "content_type": "application/x-thing", "base64": "AAEC/w=="},
            {"filename": "q3.bin", "file": "reports/q3.bin"},
        ],
    });
    for server in &list {
        let name = server["name"].as_str().unwrap();
        let made = world.connection(name, &json!({})).await;
        assert_eq!(world.test(&made).await.unwrap(), Some(None), "{name}");
        let output = world.send(&made, &input).await.unwrap();
        assert_eq!(
            output,
            json!({"message_id": "<run_1.notify@example.com>", "recipients": 5, "answer": "2.0.0 taken as 4711"})
        );
        let mechanism = &server["mechanisms"][0];
        let signed_in = json!({
            "server": name, "event": "sign-in", "mechanism": mechanism, "user": USER, "right": true, "encrypted": true,
        });
        for _ in ["to test", "to send"] {
            assert_eq!(world.servers.next(), signed_in, "{name}");
        }

        let mail = world.servers.next();
        assert_eq!((&mail["server"], &mail["event"]), (&json!(name), &json!("mail")));
        assert_eq!(mail["defects"], json!([]));
        assert_eq!(mail["sender"], "shop@example.com");
        let recipients = ["alex", "sam", "plain", "zoe", "hidden"].map(|name| format!("{name}@example.com"));
        assert_eq!(mail["recipients"], json!(recipients));
        let expected = [
            ("From", "Shop <shop@example.com>"),
            ("To", "Älex Müller <alex@example.com>, Doe, Sam <sam@example.com>, plain@example.com"),
            ("Cc", "Zoë <zoe@example.com>"),
            ("Reply-To", "Büro <office@example.com>"),
            ("Subject", input["subject"].as_str().unwrap()),
            ("Message-ID", "<run_1.notify@example.com>"),
            ("List-Unsubscribe", "<https://example.com/u?a=1>"),
            ("X-Note", "naïve"),
            ("MIME-Version", "1.0"),
        ];
        for (header_name, value) in expected {
            assert_eq!(header(&mail, header_name), [value], "{header_name}: {}", mail["raw"]);
        }
        assert_eq!(header(&mail, "Bcc"), [""; 0]);
        assert_eq!(header(&mail, "Date").len(), 1);
        let raw = mail["raw"].as_str().unwrap();
        assert!(has_only_lines(raw) && !raw.contains("hidden@"), "{raw}");
        assert_eq!(
            mail["content"],
            json!({"type": "multipart/mixed", "parts": [
                {"type": "multipart/alternative", "parts": [
                    {"type": "text/plain", "text": "Grüße\n.\n..\nLeb wohl"},
                    {"type": "text/html", "text": "<p>Grüße</p>"},
                ]},
                {"type": "text/csv", "disposition": "attachment", "filename": "bestellung.csv",
                 "text": "sku,anzahl\näpfel,2"},
                {"type": "application/x-thing", "disposition": "attachment", "filename": "größe \"1\".bin",
                 "base64": "AAEC/w=="},
                {"type": "application/octet-stream", "disposition": "attachment", "filename": "q3.bin",
                 "base64": "AAH/"},
            ]}),
            "{raw}"
        );
    }
    assert_eq!(world.servers.end(), [json!(null); 0]);
}

#[tokio::test]
async fn a_mail_has_the_parts_that_its_step_gives() {
    let mut world = world(vec![json!({"name": "open", "security": "none"})]).await;
    let made = world.connection("open", &json!({})).await;
    let file = json!({"filename": "a.bin", "base64": "/w=="});
    let attached =
        json!({"type": "application/octet-stream", "disposition": "attachment", "filename": "a.bin", "base64": "/w=="});
    let (text, html) = (json!({"type": "text/plain", "text": "T"}), json!({"type": "text/html", "text": "<p>H</p>"}));
    let long = "x".repeat(5_000);
    let smuggled =
        "first\r\n.\r\nMAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.com>\r\nDATA\r\nSubject: x\r\n\r\n";
    let texts = [
        long.as_str(),
        smuggled,
        "one\n.\ntwo",
        "one\r.\rtwo",
        "one\n.\r\ntwo",
        "one\r\n.\rtwo\r\n.",
        ".",
        "..",
        "\n\n",
        "From here",
        " ",
        "=3D =\n",
        "nul \0, bell \u{7}\r\0\n.",
        "日本語 🎉",
    ];
    let mut cases = vec![
        (json!({"text": "T"}), text.clone()),
        (json!({"text": "", "html": "<p>H</p>"}), Value::Null),
        (json!({"text": null, "html": "<p>H</p>"}), Value::Null),
        (json!({"html": "<p>H</p>"}), html.clone()),
        (json!({"text": "T", "html": "<p>H</p>"}), json!({"type": "multipart/alternative", "parts": [text, html]})),
        (json!({"text": "T", "attachments": [file]}), json!({"type": "multipart/mixed", "parts": [text, attached]})),
        (
            json!({"html": "<p>H</p>", "attachments": [file]}),
            json!({"type": "multipart/mixed", "parts": [html, attached]}),
        ),
        (json!({"text": "T", "attachments": []}), text.clone()),
        (
            json!({"text": "T", "attachments": [{"filename": "a.txt", "content_type": "TEXT/plain", "content": "a\r.\rb\n.\n"}]}),
            json!({"type": "multipart/mixed", "parts": [
                text,
                {"type": "text/plain", "disposition": "attachment", "filename": "a.txt", "text": "a\r.\rb\n."},
            ]}),
        ),
    ];
    cases.extend(texts.map(|text| {
        let lines = text.replace('\0', "").replace("\r\n", "\n").replace('\r', "\n");
        (json!({ "text": text }), json!({"type": "text/plain", "text": lines.trim_end_matches('\n')}))
    }));
    for (given, content) in cases {
        let input = merged(&json!({"to": ["alex@example.com"], "subject": "S"}), &given);
        if content.is_null() {
            let failure = world.send(&made, &input).await.unwrap_err();
            assert_eq!(failure.error.code, ErrorCode::InputInvalid, "{given}");
            continue;
        }
        let mail = world.arrives(&made, &input).await;
        assert_eq!(mail["content"], content, "{given}: {}", mail["raw"]);
        assert_eq!(mail["recipients"], json!(["alex@example.com"]), "{given}");
        assert!(has_only_lines(mail["raw"].as_str().unwrap()), "{given}: {}", mail["raw"]);
    }
    // No server here takes addresses other than ASCII, so none is sent one.
    for to in ["älex@example.com", "alex@exämple.com"] {
        let failure = world.send(&made, &merged(&mail(), &json!({ "to": to }))).await.unwrap_err();
        assert_eq!(
            (failure.error.code, failure.error.retryable),
            (ErrorCode::TargetFailed, false),
            "{to}: {failure:?}"
        );
    }
    assert_eq!(world.servers.end(), [json!(null); 0]);
}

#[tokio::test]
async fn an_uploaded_file_is_attached_and_files_that_no_mail_can_carry_are_not_read() {
    let mut world = world(vec![json!({"name": "open", "security": "none"})]).await;
    let made = world.connection("open", &json!({})).await;
    let run = Ids::new(Clock::system()).run(world.setup.tenant);
    let key = |name: &str| format!("uploads/{}/{run}/{name}", world.setup.tenant);
    world.setup.blobs.put(&key("0"), b"\x00\x01\xff".as_slice().into()).await.unwrap();
    world.setup.blobs.put(&key("1"), vec![b'x'; 2_500_000].into()).await.unwrap();
    let attaching = |names: &[&str]| {
        let files = names.iter().map(|name| json!({"file": format!("upload:{run}/{name}"), "filename": "a.bin"}));
        merged(&mail(), &json!({"text": "T", "attachments": files.collect::<Vec<_>>()}))
    };
    let attached = world.arrives(&made, &attaching(&["0"])).await;
    assert_eq!(attached["content"]["parts"][1]["base64"], "AAH/", "{}", attached["raw"]);
    let failure = world.send(&made, &attaching(&["1", "1"])).await.unwrap_err();
    let reason = "/with/attachments its files have more than 4500000 bytes together; send a link";
    assert_eq!((failure.error.code, failure.error.retryable), (ErrorCode::InputInvalid, false));
    assert!(failure.error.message.contains(reason), "{}", failure.error.message);
    assert_eq!(world.servers.end(), [json!(null); 0]);
}

#[tokio::test]
async fn the_message_id_is_the_same_for_the_same_key() {
    let mut world = world(vec![json!({"name": "open", "security": "none"})]).await;
    let made = world.connection("open", &json!({})).await;
    let cases = [
        (Some("run_01:notify"), json!({}), Some("<run_01.notify@example.com>")),
        (Some("run_01:notify"), json!({"subject": "Another"}), Some("<run_01.notify@example.com>")),
        (Some("run_01:notify:7"), json!({}), Some("<run_01.notify.7@example.com>")),
        (Some("run_02:notify"), json!({}), Some("<run_02.notify@example.com>")),
        (Some("run_01:notify"), json!({"from": "Sales <sales@sales.example>"}), Some("<run_01.notify@sales.example>")),
        (Some("a\r\nBcc: <evil@example.com> é"), json!({}), Some("<a..Bcc...evil.example.com...@example.com>")),
        (None, json!({}), None),
    ];
    for (key, changes, id) in cases {
        let options = CallOptions { idempotency_key: key.map(str::to_owned), ..options("") };
        let input = merged(&mail(), &changes);
        let output = action().call(world.setup.outside(), &input, Some(made.credential()), options).await.unwrap();
        assert_eq!(output["message_id"], json!(id), "{key:?}");
        let mail = world.servers.next();
        assert_eq!(header(&mail, "Message-ID"), id.into_iter().collect::<Vec<_>>(), "{key:?}");
        assert_eq!(header(&mail, "Bcc"), [""; 0], "{key:?}");
    }
    assert_eq!(world.servers.end(), [json!(null); 0]);
}

#[tokio::test]
async fn a_wrong_password_breaks_the_connection() {
    let answers = |answer: &str| json!({"answers": {"AUTH": answer}});
    let quoting = "535 5.7.8 {password} is wrong, you sent {sent}";
    let list = vec![
        server("starttls PLAIN", "starttls", &json!({"mechanisms": ["PLAIN"]})),
        server("starttls LOGIN", "starttls", &json!({"mechanisms": ["LOGIN"]})),
        server("tls PLAIN", "tls", &json!({"mechanisms": ["PLAIN"]})),
        server("tls LOGIN", "tls", &json!({"mechanisms": ["LOGIN"]})),
        server("quoting", "starttls", &answers(quoting)),
        server("disabled", "tls", &answers("534 5.7.9 Application-specific password required")),
        server("busy", "starttls", &answers("454 4.7.0 Temporary authentication failure")),
    ];
    let names: Vec<String> = list.iter().map(|server| server["name"].as_str().unwrap().to_owned()).collect();
    let mut world = world(list).await;
    for name in &names {
        let wrong = [json!({"password": "wrong-hunter2"}), json!({"username": "nobody@example.com"})];
        for changes in wrong {
            let made = world.connection(name, &changes).await;
            let is_busy = name == "busy";
            for failure in [world.send(&made, &mail()).await.unwrap_err(), world.test(&made).await.unwrap_err()] {
                assert_eq!(failure.is_connection_broken, !is_busy, "{name}: {failure:?}");
                let code = if is_busy { ErrorCode::TargetFailed } else { ErrorCode::ConnectionUnusable };
                assert_eq!((failure.error.code, failure.error.retryable), (code, is_busy), "{name}: {failure:?}");
                let message = &failure.error.message;
                assert!(message.starts_with("the mail server mail.test refuses: "), "{name}: {message}");
                assert!(!message.contains("hunter2"), "{name}: {message}");
                assert!(!message.contains("d3JvbmctaHVudGVyMg"), "{name}: {message}");
                let event = world.servers.next();
                assert_eq!(
                    (&event["server"], &event["event"], &event["right"]),
                    (&json!(name), &json!("sign-in"), &json!(false))
                );
                assert_eq!(event["encrypted"], true);
            }
        }
    }
    let made = world.connection("quoting", &json!({"password": "wrong-hunter2"})).await;
    let failure = world.send(&made, &mail()).await.unwrap_err();
    assert!(failure.error.message.contains("*** is wrong"), "{failure:?}");
    world.servers.next();

    // A connection with a user and no password can't be tried.
    let made = world.connection("tls PLAIN", &json!({"password": null})).await;
    let failure = world.send(&made, &mail()).await.unwrap_err();
    assert_eq!((failure.error.code, failure.error.retryable), (ErrorCode::ConnectionUnusable, false), "{failure:?}");
    assert_eq!(world.servers.end(), [json!(null); 0]);
}

#[tokio::test]
async fn nothing_is_sent_but_to_the_server_that_it_is_for_and_encrypted() {
    let stranger = Authority::new();
    let (certificate, key) = stranger.certificate("mail.test", LATER);
    let untrusted = json!({"certificate": certificate, "key": key});
    let injected =
        "\r\n250-mail.test\r\n250 AUTH PLAIN LOGIN\r\n235 welcome\r\n250 fine\r\n250 fine\r\n354 go on\r\n250 taken";
    let list = vec![
        server("plain", "none", &json!({})),
        server("busy", "starttls", &json!({"answers": {"STARTTLS": "454 TLS not available"}})),
        server("broken", "starttls", &json!({"answers": {"STARTTLS": "500 what?"}})),
        server("untrusted starttls", "starttls", &untrusted),
        server("untrusted tls", "tls", &untrusted),
        server("expired starttls", "starttls", &json!({"last_year": 2001})),
        server("expired tls", "tls", &json!({"last_year": 2001})),
        server("starttls", "starttls", &json!({})),
        server("tls", "tls", &json!({})),
        server("injected", "starttls", &json!({"injected": injected})),
    ];
    let world = world(list).await;
    let (target, connect) = ((ErrorCode::TargetFailed, false), (ErrorCode::ConnectFailed, true));
    let unusable = (ErrorCode::ConnectionUnusable, false);
    let (to, certificate) = ("can't connect to mail.test: ", "invalid peer certificate: ");
    let (expired, misnamed) = ("certificate expired", "certificate not valid for name");
    let (same, as_is) = ("mail.test", "");
    let cases = [
        ("plain", same, "starttls", target, "it offers no STARTTLS; choose tls (port 465), or another server"),
        ("plain", same, "tls", connect, to),
        ("plain", same, "none", unusable, "a password is only sent encrypted: choose starttls or tls"),
        ("busy", same, as_is, (ErrorCode::TargetFailed, true), "TLS not available"),
        ("broken", same, as_is, target, "what?"),
        ("untrusted starttls", same, as_is, connect, certificate),
        ("untrusted tls", same, as_is, connect, certificate),
        ("expired starttls", same, as_is, connect, expired),
        ("expired tls", same, as_is, connect, expired),
        ("starttls", "other.test", as_is, connect, misnamed),
        ("tls", "other.test", as_is, connect, misnamed),
        ("tls", "127.0.0.1", as_is, connect, misnamed),
        ("injected", same, as_is, connect, to),
    ];
    for (name, host, security, expected, message) in cases {
        let mut changes = json!({ "host": host });
        if security != as_is {
            changes["security"] = json!(security);
        }
        let made = world.connection(name, &changes).await;
        for failure in [world.send(&made, &mail()).await.unwrap_err(), world.test(&made).await.unwrap_err()] {
            assert!(failure.error.message.contains(message), "{name} {changes}: {failure:?}");
            assert_eq!((failure.error.code, failure.error.retryable), expected, "{name} {changes}: {failure:?}");
            assert!(!failure.is_connection_broken, "{name} {changes}: {failure:?}");
        }
    }
    // Another host or port than the connection was made for.
    let mut made = world.connection("tls", &json!({})).await;
    made.connection.hosts = vec!["mail.test:465".to_owned()];
    let failure = world.send(&made, &mail()).await.unwrap_err();
    assert_eq!(failure.error.code, ErrorCode::EgressDenied, "{failure:?}");
    assert_eq!(world.servers.end(), [json!(null); 0], "nobody signed in and nothing was sent");
}

#[tokio::test]
async fn what_the_server_says_decides_whether_it_is_tried_again() {
    let refusing = |name: &str, answers: Value| json!({"name": name, "security": "none", "answers": answers});
    let cases = [
        ("greylisted", json!({"RCPT": {"alex@example.com": "451 4.7.1 Greylisted, try again"}}), true),
        ("full", json!({"RCPT": {"alex@example.com": "452 4.2.2 Mailbox full"}}), true),
        ("closing", json!({"RCPT": {"alex@example.com": "421 4.3.2 Closing"}}), true),
        ("unknown", json!({"RCPT": {"alex@example.com": "550 5.1.1 No such user"}}), false),
        ("relaying", json!({"RCPT": {"alex@example.com": "554 5.7.1 Relaying denied"}}), false),
        ("one of two", json!({"RCPT": {"sam@example.com": "550 5.1.1 No such user"}}), false),
        ("later for one", json!({"RCPT": {"sam@example.com": "450 4.2.1 Later"}}), true),
        ("sender", json!({"MAIL": "553 5.7.1 Sender not allowed"}), false),
        ("sender later", json!({"MAIL": "451 4.7.1 Later"}), true),
        ("spam", json!({"DATA": "554 5.7.1 Message looks like spam"}), false),
        ("no space", json!({"DATA": "452 4.3.1 No space"}), true),
    ];
    let list = cases.iter().map(|(name, answers, _)| refusing(name, answers.clone()));
    let world = world(list.collect()).await;
    let input = merged(&mail(), &json!({"to": ["alex@example.com", "sam@example.com"]}));
    for (name, answers, is_retryable) in &cases {
        let made = world.connection(name, &json!({})).await;
        let failure = world.send(&made, &input).await.unwrap_err();
        assert_eq!(failure.error.code, ErrorCode::TargetFailed, "{name}: {failure:?}");
        assert_eq!(failure.error.retryable, *is_retryable, "{name}: {failure:?}");
        assert!(!failure.is_connection_broken && !failure.is_target_down, "{name}: {failure:?}");
        // The server's own words, which say what to do.
        let answers = answers.to_string();
        let said = failure.error.message.split_once(" refuses: ").unwrap().1;
        assert!(answers.contains(said.split_once(' ').map_or(said, |(_, text)| text)), "{name}: {said}");
        world.test(&made).await.unwrap();
    }
    assert_eq!(world.servers.end(), [json!(null); 0], "no mail goes to some of its recipients");
}

#[tokio::test]
async fn nothing_that_a_step_gives_becomes_a_header_or_a_recipient_of_its_own() {
    let mut world = world(vec![json!({"name": "open", "security": "none"})]).await;
    let made = world.connection("open", &json!({})).await;
    let evil = "x\r\nBcc: evil@example.com";
    let attachment =
        |changes: &Value| json!({"attachments": [merged(&json!({"filename": "a.txt", "content": "x"}), changes)]});
    let refused = [
        json!({ "subject": evil }),
        json!({"subject": "x\nBcc: evil@example.com"}),
        json!({"subject": "x\rBcc: evil@example.com"}),
        json!({"from": "Shop <shop@example.com>\r\nBcc: evil@example.com"}),
        json!({"from": "Shop\r\nBcc: evil@example.com <shop@example.com>"}),
        json!({"from": "shop@example.com, evil@example.com"}),
        json!({"to": "alex@example.com\r\nBcc: evil@example.com"}),
        json!({"to": "alex@example.com>\r\nRCPT TO:<evil@example.com"}),
        json!({"to": "alex@example.com, evil@example.com"}),
        json!({"to": ["alex@example.com", "evil@example.com\n"]}),
        json!({"to": ["<alex@example.com> <evil@example.com>"]}),
        json!({"to": []}),
        json!({"to": ""}),
        json!({"to": "nobody"}),
        json!({"to": "@example.com"}),
        json!({"to": "Alex <alex>"}),
        json!({"cc": ["alex@example.com\r\nBcc: evil@example.com"]}),
        json!({"bcc": "alex@example.com evil@example.com"}),
        json!({"reply_to": "alex@example.com\r\nBcc: evil@example.com"}),
        json!({"headers": { "X-A": evil }}),
        json!({"headers": {"X-A\r\nBcc": "evil@example.com"}}),
        json!({"headers": {"X-A\n": "x"}}),
        json!({"headers": {"X A": "x"}}),
        json!({"headers": {"X-A:": "x"}}),
        json!({"headers": {"": "x"}}),
        json!({"headers": {"X-Ä": "x"}}),
        json!({"headers": {"Bcc": "evil@example.com"}}),
        json!({"headers": {"bcc": "evil@example.com"}}),
        json!({"headers": {"To": "evil@example.com"}}),
        json!({"headers": {"Cc": "evil@example.com"}}),
        json!({"headers": {"From": "ceo@example.com"}}),
        json!({"headers": {"Sender": "evil@example.com"}}),
        json!({"headers": {"Reply-To": "evil@example.com"}}),
        json!({"headers": {"Subject": "Another"}}),
        json!({"headers": {"Message-ID": "<mine@example.com>"}}),
        json!({"headers": {"Content-Type": "text/html"}}),
        json!({"headers": {"content-transfer-encoding": "base64"}}),
        json!({"headers": {"MIME-Version": "2.0"}}),
        attachment(&json!({"filename": "a\r\nX-Evil: 1"})),
        attachment(&json!({"filename": "../a.txt"})),
        attachment(&json!({"content_type": "text/plain\r\nX-Evil: 1"})),
        attachment(&json!({"content_type": "text"})),
        attachment(&json!({"content": null, "file": "../other/secret"})),
        attachment(&json!({"content": null, "file": "not/there"})),
        attachment(&json!({"base64": "eA=="})),
    ];
    for changes in refused {
        let input = merged(&mail(), &changes);
        let sent = world.send(&made, &input).await;
        let failure = sent.expect_err(&changes.to_string());
        assert_eq!(
            (failure.error.code, failure.error.retryable),
            (ErrorCode::InputInvalid, false),
            "{changes}: {failure:?}"
        );
        assert!(!failure.is_connection_broken && !failure.is_target_down, "{changes}: {failure:?}");
    }

    let plain =
        ["Content-Transfer-Encoding", "Content-Type", "Date", "From", "MIME-Version", "Message-ID", "Subject", "To"];
    let taken = [
        (json!({"subject": "x\u{85}Bcc: evil@example.com\u{2028}y\u{b}z"}), &plain[..]),
        (json!({"subject": "=?utf-8?q?x=0D=0ABcc:_evil@example.com?="}), &plain),
        (json!({"subject": format!("{} Bcc: evil@example.com", "x".repeat(900))}), &plain),
        (json!({"subject": "ä".repeat(400)}), &plain),
        (json!({"subject": ""}), &plain),
        (json!({"to": "\"Bcc: evil@example.com\" <alex@example.com>"}), &plain),
        (json!({"to": "\"<evil@example.com>,\" <alex@example.com>"}), &plain),
        (json!({"from": "\"Shöp, the <evil@example.com>\" <shop@example.com>"}), &plain),
        (attachment(&json!({"filename": "a\"; filename=\"evil.exe"})), &plain),
        (attachment(&json!({"filename": "ä.txt", "content_type": "text/plain; charset=utf-8"})), &plain),
    ];
    for (changes, names) in taken {
        let input = merged(&mail(), &changes);
        let mail = world.arrives(&made, &input).await;
        let names: Vec<_> = match changes.get("attachments") {
            Some(_) => names.iter().copied().filter(|name| *name != "Content-Transfer-Encoding").collect(),
            None => names.to_vec(),
        };
        assert_eq!(header_names(&mail), names, "{changes}: {}", mail["raw"]);
        assert_eq!((&mail["sender"], &mail["recipients"]), (&json!("shop@example.com"), &json!(["alex@example.com"])));
        if let Some(filename) = input["attachments"][0].get("filename") {
            assert_eq!(&mail["content"]["parts"][1]["filename"], filename);
        }
    }

    let many = |count: usize| (0..count).map(|at| format!("a{at}@example.com")).collect::<Vec<_>>();
    let lists = [
        (many(50), many(50), many(0), true),
        (many(50), many(50), many(1), false),
        (many(51), many(0), many(0), false),
    ];
    for (to, cc, bcc, is_taken) in lists {
        let count = to.len() + cc.len() + bcc.len();
        let input = merged(&mail(), &json!({"to": to, "cc": cc, "bcc": bcc}));
        match is_taken {
            true => assert_eq!(world.arrives(&made, &input).await["recipients"].as_array().unwrap().len(), count),
            false => assert_eq!(world.send(&made, &input).await.unwrap_err().error.code, ErrorCode::InputInvalid),
        }
    }
    assert_eq!(world.servers.end(), [json!(null); 0]);
}
