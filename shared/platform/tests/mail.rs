//! Mail as the servers get it: by SMTP from a small server here, by SES from an endpoint that keeps the request.

#![cfg(feature = "smtp")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_types::SdkConfig;
use aws_types::region::Region;
use tidegate_platform::Mailer;
use tidegate_platform::mail::ses::SesMailer;
use tidegate_platform::mail::smtp::SmtpMailer;
use tidegate_platform::mail::{Mail, NoMailer};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

fn mail() -> Mail {
    Mail {
        to: "alex@example.com".to_owned(),
        subject: "Set a new password – now".to_owned(),
        text: "Here:\n\nhttps://flows.example.com/reset-password?token=tgp_1.2\n.\nGrüße\n".to_owned(),
    }
}

/// A server for one connection, which offers these extensions; yields all lines that it was sent. RFC 5321.
async fn smtp_server(extensions: &'static [&'static str]) -> (u16, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        let mut seen = Vec::new();
        let mut in_data = false;
        write.write_all(b"220 test\r\n").await.unwrap();
        while let Ok(Some(line)) = lines.next_line().await {
            let verb = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
            let answer = match (in_data, &*verb) {
                (true, ".") => "250 taken\r\n".to_owned(),
                (true, _) => String::new(),
                (false, "EHLO") => {
                    let offered: String = extensions.iter().map(|name| format!("250-{name}\r\n")).collect();
                    format!("250-test\r\n{offered}250 HELP\r\n")
                }
                (false, "DATA") => "354 go on\r\n".to_owned(),
                (false, "QUIT") => "221 bye\r\n".to_owned(),
                (false, "AUTH") => "235 welcome\r\n".to_owned(),
                (false, "MAIL" | "RCPT" | "RSET" | "NOOP") => "250 fine\r\n".to_owned(),
                (false, _) => "502 what?\r\n".to_owned(),
            };
            in_data = if in_data { verb != "." } else { verb == "DATA" };
            seen.push(line);
            write.write_all(answer.as_bytes()).await.unwrap();
            if verb == "QUIT" && !in_data {
                break;
            }
        }
        seen
    });
    (port, serving)
}

fn by_smtp(port: u16, tls: &str) -> SmtpMailer {
    SmtpMailer::new(&format!("smtp://user:hunter2@127.0.0.1:{port}{tls}"), "Tidegate <no-reply@example.com>").unwrap()
}

#[tokio::test]
async fn an_smtp_server_gets_the_mail_as_it_was_meant() {
    let (port, serving) = smtp_server(&["AUTH PLAIN", "8BITMIME"]).await;
    by_smtp(port, "?tls=none").send(mail()).await.unwrap();
    let seen = serving.await.unwrap();
    let has = |line: &str| assert!(seen.iter().any(|seen| seen.starts_with(line)), "{line} in {seen:#?}");
    has("AUTH PLAIN ");
    has("MAIL FROM:<no-reply@example.com>");
    has("RCPT TO:<alex@example.com>");
    has("From: Tidegate <no-reply@example.com>");
    has("To: alex@example.com");
    // Encoded words (RFC 2047), because a header is ASCII.
    has("Subject: Set a new password =?utf-8?");
    has("Content-Type: text/plain; charset=utf-8");
    assert_eq!(seen.iter().filter(|line| *line == ".").count(), 1, "a line of one dot in the text ends no mail");
    assert!(seen.iter().any(|line| line == ".."), "{seen:#?}");
}

#[tokio::test]
async fn a_server_without_starttls_gets_neither_password_nor_mail() {
    let (port, serving) = smtp_server(&["AUTH PLAIN"]).await;
    assert!(by_smtp(port, "").send(mail()).await.is_err());
    let seen = serving.await.unwrap();
    assert!(seen.iter().all(|line| line.starts_with("EHLO") || line == "QUIT"), "{seen:#?}");
}

#[tokio::test]
async fn what_would_add_headers_or_addressees_is_refused() {
    let mailers: [Box<dyn Mailer>; 2] = [Box::new(by_smtp(1, "?tls=none")), Box::new(ses("http://127.0.0.1:1"))];
    for mailer in mailers {
        for (to, subject) in [
            ("alex@example.com\r\nBcc: kim@example.com", "Hello"),
            ("alex@example.com", "Hello\r\nBcc: kim@example.com"),
            ("alex@example.com", "Hello\nBcc: kim@example.com"),
            ("alex@example.com", "Hello\rBcc: kim@example.com"),
            ("alex@example.com\0", "Hello"),
            ("", "Hello"),
        ] {
            let refused =
                mailer.send(Mail { to: to.to_owned(), subject: subject.to_owned(), text: String::new() }).await;
            let reason = refused.unwrap_err().source.to_string();
            assert!(reason.ends_with("isn't one line"), "{to:?} {subject:?}: {reason}");
        }
    }
    let two = Mail { to: "alex@example.com, kim@example.com".to_owned(), ..mail() };
    assert!(by_smtp(1, "?tls=none").send(two).await.is_err());
}

fn ses(endpoint: &str) -> SesMailer {
    let config = SdkConfig::builder()
        .behavior_version(aws_smithy_runtime_api::client::behavior_version::BehaviorVersion::v2026_01_12())
        .endpoint_url(endpoint)
        .region(Region::new("eu-central-1"))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::from_keys("test", "test", None)))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    SesMailer::new(&config, "no-reply@example.com")
}

#[tokio::test]
async fn ses_is_asked_to_send_texts_from_the_one_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        let body = loop {
            let mut buffer = [0; 4_096];
            let read = stream.read(&mut buffer).await.unwrap();
            request.extend_from_slice(&buffer[..read]);
            let text = String::from_utf8_lossy(&request).into_owned();
            let Some((_, body)) = text.split_once("\r\n\r\n") else { continue };
            if let Ok(body) = serde_json::from_str::<serde_json::Value>(body) {
                break body;
            }
        };
        let answer = "{\"MessageId\": \"1\"}";
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", answer.len());
        stream.write_all(format!("{head}{answer}").as_bytes()).await.unwrap();
        (String::from_utf8_lossy(&request).lines().next().unwrap().to_owned(), body)
    });
    ses(&endpoint).send(mail()).await.unwrap();
    let (line, body) = serving.await.unwrap();
    assert_eq!(line, "POST /v2/email/outbound-emails HTTP/1.1");
    let Mail { to, subject, text } = mail();
    assert_eq!(
        body,
        serde_json::json!({
            "FromEmailAddress": "no-reply@example.com",
            "Destination": {"ToAddresses": [to]},
            "Content": {"Simple": {
                "Subject": {"Data": subject, "Charset": "UTF-8"},
                "Body": {"Text": {"Data": text, "Charset": "UTF-8"}},
            }},
        })
    );
}

#[tokio::test]
async fn without_a_way_to_send_mail_the_caller_is_told() {
    assert!(NoMailer.send(mail()).await.is_err());
}
