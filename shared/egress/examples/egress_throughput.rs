//! Prints how many calls a second one client makes, with a bearer token, to a server in the same process:
//! `cargo run --release -p tidegate-egress --example egress_throughput`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for developers")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method};
use support::{Server, Vault, ok};
use tidegate_egress::{Effect, Egress, EgressSettings, OutboundRequest};

#[path = "../tests/support/mod.rs"]
mod support;

const CALLS: u32 = 20_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let server = Server::start(|_| ok("ok")).await;
    let vault = Vault::new();
    let settings = EgressSettings { allow: vec!["127.0.0.1/32".parse().unwrap()], ..EgressSettings::default() };
    let egress = Egress::new(settings, vault.envelope.clone());
    let sealed = vault.connection(&[&server.host()], r#"{"type":"bearer","token":"a-token-of-some-length"}"#).await;
    for (name, credential) in [("without a secret", None), ("with a bearer token", sealed.credential())] {
        for concurrency in [1, 8, 32] {
            let started = Instant::now();
            let worker = async || {
                for _ in 0..CALLS / concurrency {
                    let request = OutboundRequest {
                        method: Method::POST,
                        url: server.url("/hook"),
                        headers: HeaderMap::new(),
                        body: Some(Bytes::from_static(b"{\"text\":\"Hello Alex! Order #12345 confirmed.\"}")),
                        timeout: Duration::from_secs(10),
                        effect: Effect::Write,
                        idempotency_key: Some("run_0190f5fb9d7c7ce3a1f5c8f1f2d3e4b5.notify".to_owned()),
                        traceparent: None,
                    };
                    egress.send(request, credential).await.unwrap();
                }
            };
            futures::future::join_all((0..concurrency).map(|_| worker())).await;
            let each = started.elapsed() / CALLS;
            println!(
                "{name}, {concurrency} at once: {:.0} calls/s, {each:?} each, server included",
                1.0 / each.as_secs_f64()
            );
        }
    }
}
