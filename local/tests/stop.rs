//! Being asked to stop: the process ends in bounded time whatever its clients do, and loses nothing it has accepted.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tidegate_scenarios::{Api, Server, Sink, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BINARY: &str = env!("CARGO_BIN_EXE_tidegate");
/// Generous: what counts is that it ends at all.
const DEADLINE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_request_that_never_ends_holds_up_no_stop_and_costs_no_run() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Path::new(BINARY), folder.path()).await.unwrap();
    let sink = Sink::start(Duration::ZERO).await.unwrap();
    sink.close();
    let api = Api::register(server.url()).await.unwrap();
    let request = json!({"method": "POST", "url": sink.url("/call"), "json": {}});
    let steps = json!([{"id": "call", "uses": "http.request", "with": request, "timeout_ms": 60_000}]);
    let workflow = api.create_workflow("A call", steps).await.unwrap();
    let run = api.post_webhook(&workflow, "application/json", &[], "{}").await.unwrap();
    let _hanging = unfinished_request(server.url()).await;

    server.signal("TERM").unwrap();
    assert!(server.ended(DEADLINE).await.unwrap().success());

    let server = Server::start(Path::new(BINARY), folder.path()).await.unwrap();
    sink.open();
    let record = api.at(server.url()).finished_run(&run, DEADLINE).await.unwrap();
    assert_eq!(record["status"], "succeeded", "{record}");
}

#[tokio::test]
async fn a_second_signal_ends_the_wait() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Path::new(BINARY), folder.path()).await.unwrap();
    let _hanging = unfinished_request(server.url()).await;
    let log = folder.path().join("log.jsonl");

    server.signal("TERM").unwrap();
    until("the word that it stops", DEADLINE, async || {
        Ok(std::fs::read_to_string(&log)?.contains("\"stopping").then_some(()))
    })
    .await
    .unwrap();
    server.signal("INT").unwrap();
    assert!(server.ended(DEADLINE).await.unwrap().success());
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("asked twice"), "{log}");
}

/// A request whose body never comes. The server waits for it: it has said so.
async fn unfinished_request(url: &str) -> TcpStream {
    let address = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /api/auth/login HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\
         expect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let continues = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut answer = vec![0; continues.len()];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, continues);
    stream
}
