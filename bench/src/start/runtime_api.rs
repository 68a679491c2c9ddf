//! A stand-in for Lambda's runtime API (<https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>), for one
//! function's process, on a free loopback port.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tidegate_platform::Clock;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

const PREFIX: &str = "/2018-06-01/runtime/";
/// How long an invocation may take, as the event's deadline says.
const TIMEOUT_MS: i64 = 30_000;

/// The API; it stops listening when it is dropped.
pub(crate) struct RuntimeApi {
    address: SocketAddr,
    calls: mpsc::UnboundedReceiver<Call>,
    waiting: Option<oneshot::Sender<Event>>,
    invocations: u64,
    clock: Clock,
    listener: AbortHandle,
}

/// What the function's process asks.
enum Call {
    Next { at: Instant, answer: oneshot::Sender<Event> },
    Answer { id: String, at: Instant, body: Bytes },
    Failure { what: &'static str, body: Bytes },
}

struct Event {
    id: String,
    deadline_ms: i64,
    payload: Bytes,
}

/// An invocation's outcome.
pub(crate) struct Answer {
    /// From handing the event out to having the whole answer.
    pub(crate) took: Duration,
    /// What the function answered.
    pub(crate) body: Bytes,
}

impl Drop for RuntimeApi {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl RuntimeApi {
    /// Listens.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (tell, calls) = mpsc::unbounded_channel();
        let listening = tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let tell = tell.clone();
                // A connection that breaks shows as a call that doesn't come.
                tokio::task::spawn_local(async move {
                    stream.set_nodelay(true).ok();
                    let service = service_fn(|request| serve(&tell, request));
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
                });
            }
        });
        let listener = listening.abort_handle();
        Ok(Self { address, calls, waiting: None, invocations: 0, clock: Clock::system(), listener })
    }

    /// What `AWS_LAMBDA_RUNTIME_API` is to say.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the function asks for an event; when it did. It then waits until [`RuntimeApi::invoke`].
    ///
    /// # Errors
    /// The function says that it can't start, or that the last invocation failed.
    pub(crate) async fn asked(&mut self) -> anyhow::Result<Instant> {
        match self.calls.recv().await.context("the runtime API has stopped")? {
            Call::Next { at, answer } => {
                self.waiting = Some(answer);
                Ok(at)
            }
            Call::Answer { id, .. } => bail!("an answer to {id}, which nobody waits for"),
            Call::Failure { what, body } => bail!("{what}: {}", String::from_utf8_lossy(&body)),
        }
    }

    /// Hands an event to the function, waiting until it asks for one, and waits for its answer.
    ///
    /// # Errors
    /// The function reports a failure.
    pub(crate) async fn invoke(&mut self, payload: Bytes) -> anyhow::Result<Answer> {
        if self.waiting.is_none() {
            self.asked().await?;
        }
        let waiting = self.waiting.take().context("nobody asks for an event")?;
        self.invocations += 1;
        let expected = format!("8476a536-e9f4-11e8-9739-{:012x}", self.invocations);
        let deadline_ms = self.clock.now().as_millisecond() + TIMEOUT_MS;
        let event = Event { id: expected.clone(), deadline_ms, payload };
        let handed_out = Instant::now();
        waiting.send(event).ok().context("the function went away")?;
        match self.calls.recv().await.context("the runtime API has stopped")? {
            Call::Answer { id, at, body } if id == expected => Ok(Answer { took: at - handed_out, body }),
            Call::Answer { id, .. } => bail!("an answer to {id}, but {expected} was handed out"),
            Call::Failure { what, body } => bail!("{what}: {}", String::from_utf8_lossy(&body)),
            Call::Next { .. } => bail!("the function asks for another event without an answer to the last"),
        }
    }
}

async fn serve(
    tell: &mpsc::UnboundedSender<Call>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let get = request.method() == Method::GET;
    let Some(path) = path.strip_prefix(PREFIX) else { return Ok(plain(StatusCode::NOT_FOUND, "")) };
    if get && path == "invocation/next" {
        let (answer, event) = oneshot::channel();
        // Where nobody listens any more, nobody needs the answer either.
        tell.send(Call::Next { at: Instant::now(), answer }).ok();
        let Ok(event) = event.await else { return Ok(plain(StatusCode::GONE, "")) };
        return Ok(next(event).unwrap_or_else(|_| plain(StatusCode::INTERNAL_SERVER_ERROR, "")));
    }
    let call: fn(String, Bytes) -> Call = match path.rsplit_once('/') {
        Some(("init", "error")) => |_, body| Call::Failure { what: "the function could not start", body },
        Some((_, "error")) => |_, body| Call::Failure { what: "the invocation failed", body },
        Some((_, "response")) => |id, body| Call::Answer { id, at: Instant::now(), body },
        _ => return Ok(plain(StatusCode::NOT_FOUND, "")),
    };
    let id = path.strip_prefix("invocation/").and_then(|rest| rest.split('/').next()).unwrap_or_default().to_owned();
    // An answer that breaks off is one that doesn't come.
    if let Ok(body) = request.into_body().collect().await {
        tell.send(call(id, body.to_bytes())).ok();
    }
    Ok(plain(StatusCode::ACCEPTED, "{\"status\":\"OK\"}\n"))
}

fn next(event: Event) -> http::Result<Response<Full<Bytes>>> {
    Response::builder()
        .header("content-type", "application/json")
        .header("lambda-runtime-aws-request-id", event.id)
        .header("lambda-runtime-deadline-ms", event.deadline_ms)
        .header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:123456789012:function:tidegate-bench")
        .header("lambda-runtime-trace-id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=1")
        .body(Full::from(event.payload))
}

fn plain(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::client::conn::http1::{SendRequest, handshake};
    use tokio::net::TcpStream;
    use tokio::task::LocalSet;

    async fn connect(api: &RuntimeApi) -> SendRequest<Full<Bytes>> {
        let stream = TcpStream::connect(api.address()).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::task::spawn_local(connection);
        sender
    }

    async fn send(
        to: &mut SendRequest<Full<Bytes>>,
        method: Method,
        path: &str,
        body: &'static str,
    ) -> Response<Incoming> {
        let path = format!("{PREFIX}{path}");
        let request =
            Request::builder().method(method).uri(path).header("host", "local").body(Full::from(body)).unwrap();
        to.ready().await.unwrap();
        to.send_request(request).await.unwrap()
    }

    #[tokio::test]
    async fn an_event_is_handed_out_and_its_answer_taken() {
        let function = async |api: &mut RuntimeApi| {
            let mut runtime = connect(api).await;
            tokio::task::spawn_local(async move {
                let event = send(&mut runtime, Method::GET, "invocation/next", "").await;
                let id = event.headers()["lambda-runtime-aws-request-id"].to_str().unwrap().to_owned();
                for header in ["deadline-ms", "invoked-function-arn", "trace-id"] {
                    assert!(event.headers().contains_key(format!("lambda-runtime-{header}")), "{header}");
                }
                let payload = event.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(&payload[..], b"{\"n\":1}");
                let answer = send(&mut runtime, Method::POST, &format!("invocation/{id}/response"), "done").await;
                assert_eq!(answer.status(), StatusCode::ACCEPTED);
                send(&mut runtime, Method::GET, "invocation/next", "").await;
            });
            assert_eq!(&api.invoke(Bytes::from_static(b"{\"n\":1}")).await.unwrap().body[..], b"done");
            api.asked().await.unwrap();
        };
        LocalSet::new().run_until(async { function(&mut RuntimeApi::start().await.unwrap()).await }).await;
    }

    #[tokio::test]
    async fn what_the_function_reports_as_failed_is_an_error() {
        let report = async |path: &'static str| {
            let mut api = RuntimeApi::start().await.unwrap();
            let mut runtime = connect(&api).await;
            tokio::task::spawn_local(async move {
                send(&mut runtime, Method::POST, path, r#"{"errorMessage":"no table"}"#).await;
            });
            format!("{:#}", api.asked().await.unwrap_err())
        };
        LocalSet::new()
            .run_until(async {
                let start = report("init/error").await;
                assert_eq!(start, r#"the function could not start: {"errorMessage":"no table"}"#);
                assert!(report("invocation/1/error").await.starts_with("the invocation failed"));
            })
            .await;
    }
}
