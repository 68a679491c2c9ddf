//! A target for workflows' calls: it keeps what it receives and answers when it is told to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, Uri};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A call that came in.
#[derive(Debug, Clone)]
pub struct Received {
    /// The request's method.
    pub method: Method,
    /// The path, from the slash on.
    pub path: String,
    /// The request's headers.
    pub headers: HeaderMap,
    /// The request's body.
    pub body: Bytes,
}

impl Received {
    /// A header's text, where there is one.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A server on a free port of this machine; it ends when this is dropped.
pub struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<std::io::Result<()>>,
}

struct Shared {
    received: Mutex<Vec<Received>>,
    open: watch::Sender<bool>,
    answered: watch::Sender<usize>,
    in_flight: Mutex<InFlight>,
    answer_after: Duration,
}

#[derive(Default)]
struct InFlight {
    now: usize,
    most: usize,
}

impl Sink {
    /// Starts a sink that answers every call with 200 `ok` once it is open (it is at first) and after this delay.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(answer_after: Duration) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("bind the sink")?;
        let shared = Arc::new(Shared {
            received: Mutex::default(),
            open: watch::Sender::new(true),
            answered: watch::Sender::new(0),
            in_flight: Mutex::default(),
            answer_after,
        });
        let address = listener.local_addr()?;
        let router = Router::new().fallback(receive).layer(DefaultBodyLimit::disable()).with_state(shared.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, shared, server })
    }

    /// The sink's URL with a path that begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Holds answers back from now on.
    pub fn close(&self) {
        self.shared.open.send_replace(false);
    }

    /// Answers what was held back, and what comes.
    pub fn open(&self) {
        self.shared.open.send_replace(true);
    }

    /// All that was received so far, in order.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.shared.received).clone()
    }

    /// What was received at a path so far.
    pub fn received_at(&self, path: &str) -> Vec<Received> {
        self.received().into_iter().filter(|call| call.path == path).collect()
    }

    /// The number of calls answered so far; it can be waited on.
    pub fn answered(&self) -> watch::Receiver<usize> {
        self.shared.answered.subscribe()
    }

    /// The most calls that were in progress at the same time.
    pub fn most_in_flight(&self) -> usize {
        lock(&self.shared.in_flight).most
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Counts a call as in progress until it is answered or its caller is gone.
struct InProgress(Arc<Shared>);

impl InProgress {
    fn begin(shared: Arc<Shared>) -> Self {
        let mut in_flight = lock(&shared.in_flight);
        in_flight.now += 1;
        in_flight.most = in_flight.most.max(in_flight.now);
        drop(in_flight);
        Self(shared)
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        lock(&self.0.in_flight).now -= 1;
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> &'static str {
    let _in_progress = InProgress::begin(shared.clone());
    lock(&shared.received).push(Received { method, path: uri.path().to_owned(), headers, body });
    let mut open = shared.open.subscribe();
    while !*open.borrow_and_update() && open.changed().await.is_ok() {}
    tokio::time::sleep(shared.answer_after).await;
    shared.answered.send_modify(|answered| *answered += 1);
    "ok"
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
