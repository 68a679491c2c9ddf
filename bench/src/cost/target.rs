//! The system that the steps call. It has a thread of its own, so that its work isn't counted as the functions'.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::scenario::FirstAnswer;

/// It ends with this program.
pub(crate) struct Target {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    calls: AtomicU64,
    /// Idempotency keys: each names a run's step.
    seen: Mutex<HashSet<String>>,
}

impl Target {
    /// Listens on a free port of this machine.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let (address, state) = (listener.local_addr()?, Arc::<State>::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    stream.set_nodelay(true)?;
                    let state = Arc::clone(&shared);
                    // A connection that breaks shows as a step that fails.
                    tokio::spawn(async move {
                        let service = service_fn(|request| answer(&state, request));
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
                    });
                }
                #[expect(unreachable_code, reason = "says what the errors above are")]
                std::io::Result::Ok(())
            })
        });
        Ok(Self { address, state })
    }

    /// Host and port.
    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    /// Where the first call of each run is answered like this.
    pub(crate) fn url(&self, first: FirstAnswer) -> String {
        let path = match first {
            FirstAnswer::Good => "good",
            FirstAnswer::Unavailable => "unavailable",
            FirstAnswer::UnavailableForAnHour => "unavailable-for-an-hour",
        };
        format!("http://{}/{path}", self.address)
    }

    /// How many calls there were.
    pub(crate) fn calls(&self) -> u64 {
        self.state.calls.load(Ordering::SeqCst)
    }
}

async fn answer(state: &State, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    state.calls.fetch_add(1, Ordering::SeqCst);
    let path = request.uri().path().to_owned();
    let key = request.headers().get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default().to_owned();
    // A request that breaks off needs no answer.
    request.into_body().collect().await.ok();
    let is_first = state.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
    let mut response = Response::new(Full::from(r#"{"ok":true}"#));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    if is_first && path != "/good" {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        if path.ends_with("hour") {
            response.headers_mut().insert("retry-after", http::HeaderValue::from_static("3600"));
        }
    }
    Ok(response)
}
