//! The target of the benchmark's workflow: reads the id out of each call and answers 200.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::ledger::Ledger;

/// Starts the sink on a free port of this machine.
pub(crate) async fn start(ledger: Rc<Ledger>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let ledger = ledger.clone();
            // A connection that breaks shows as runs that don't arrive.
            tokio::task::spawn_local(async move {
                stream.set_nodelay(true).ok();
                let service = service_fn(|request| receive(&ledger, request));
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
            });
        }
    });
    Ok(address)
}

async fn receive(ledger: &Ledger, request: http::Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    if let Ok(body) = request.into_body().collect().await
        && let Some(id) = id_of(&body.to_bytes())
    {
        ledger.arrived(id);
    }
    Ok(Response::new(Empty::new()))
}

/// The number after `"id":` in the body, which is `{"id":123,"text":…}`.
fn id_of(body: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(body).ok()?.trim_start_matches(['{', ' ']).strip_prefix("\"id\":")?.trim_start();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::id_of;

    #[test]
    fn the_id_is_read_from_the_body() {
        assert_eq!(id_of(br#"{"id":123,"text":"Hello 5"}"#), Some(123));
        assert_eq!(id_of(br#"{"id": 7}"#), Some(7));
        assert_eq!(id_of(br#"{"text":"x"}"#), None);
        assert_eq!(id_of(br#"{"id":"7"}"#), None);
    }
}
