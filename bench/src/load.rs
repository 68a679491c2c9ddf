//! Posts orders to the webhook over kept-alive connections.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures::future::try_join_all;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::ledger::Ledger;

/// When the next order is posted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// As soon as a connection is free.
    Closed,
    /// So many a second, whatever the answers do. Latency counts from when the order was due, so that a stall is seen.
    PerSecond(u32),
}

/// The webhook that is posted to.
pub(crate) struct Target {
    authority: String,
    path: String,
}

impl Target {
    /// A workflow's webhook on a server (`http://127.0.0.1:8080`).
    pub(crate) fn new(base_url: &str, workflow: &str) -> anyhow::Result<Self> {
        let url: Uri = base_url.parse()?;
        let authority = url.authority().context("no host in the server's URL")?.to_string();
        Ok(Self { authority, path: format!("/api/webhooks/{workflow}") })
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(&self.authority).await.context("connect to the server")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Its error shows in the request that it breaks.
        tokio::task::spawn_local(connection);
        Ok(sender)
    }

    fn request(&self, id: usize) -> anyhow::Result<Request<Full<Bytes>>> {
        let body = format!(r#"{{"id":{id},"user":{{"name":"Alex"}},"order":{{"id":"{id}","total":99.5}}}}"#);
        Ok(Request::post(self.path.as_str())
            .header("host", self.authority.as_str())
            .header("content-type", "application/json")
            .body(Full::from(body))?)
    }
}

/// Posts every run of the phase.
///
/// # Errors
/// A connection broke.
pub(crate) async fn post(ledger: &Rc<Ledger>, target: &Target, connections: usize, pace: Pace) -> anyhow::Result<()> {
    let ids = ledger.ids();
    let next = Cell::new(ids.start);
    let start = Instant::now();
    let workers = (0..connections).map(async |_| {
        let mut connection = target.connect().await?;
        loop {
            let id = next.get();
            if id >= ids.end {
                return anyhow::Ok(());
            }
            next.set(id + 1);
            let due = match pace {
                Pace::PerSecond(rate) => start + Duration::from_secs_f64((id - ids.start) as f64 / f64::from(rate)),
                Pace::Closed => Instant::now(),
            };
            // What waited for a free connection counts from when it was due, what the timer woke late does not.
            let mut posted = due;
            if due > Instant::now() {
                tokio::time::sleep_until(due).await;
                posted = Instant::now();
            }
            let request = target.request(id)?;
            ledger.posted(id, posted.into_std());
            connection.ready().await?;
            let response = connection.send_request(request).await?;
            let accepted = response.status() == StatusCode::OK;
            let body = response.into_body().collect().await?.to_bytes();
            ledger.answered(id, accepted.then(|| run_of(&body)).flatten());
        }
    });
    try_join_all(workers).await?;
    Ok(())
}

/// The run's id in `{"status":"accepted","run_id":"run_…"}`.
fn run_of(body: &[u8]) -> Option<Box<str>> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once("\"run_id\":")?;
    let (run, _) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
    Some(run.into())
}

#[cfg(test)]
mod tests {
    use super::run_of;

    #[test]
    fn the_runs_id_is_read_from_the_answer() {
        assert_eq!(run_of(br#"{"status":"accepted","run_id":"run_1"}"#).as_deref(), Some("run_1"));
        assert_eq!(run_of(br#"{"title":"Not found"}"#), None);
    }
}
