//! Servers that answer as a test says, names that resolve as it says, and connections with secrets.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this module")]

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, Method};
use jiff::Timestamp;
use serde_json::{Map, Value};
use tempfile::TempDir;
use tidegate_egress::{Credential, Effect, OutboundRequest, Resolver};
use tidegate_model::{Connection, ConnectionId, Health, Placed, Placement, Publisher, SecretText, TenantId};
use tidegate_platform::key_service::KeyContext;
use tidegate_platform::key_service::key_file::KeyFile;
use tidegate_platform::{Clock, Envelope};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request to read a URL.
pub fn get(url: &str) -> OutboundRequest {
    OutboundRequest {
        method: Method::GET,
        url: url.to_owned(),
        headers: HeaderMap::new(),
        body: None,
        timeout: Duration::from_secs(30),
        effect: Effect::Read,
        idempotency_key: None,
        traceparent: None,
    }
}

/// An envelope under a key file of its own.
pub struct Vault {
    pub envelope: Envelope,
    _folder: TempDir,
}

impl Vault {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = KeyFile::open_or_create(&folder.path().join("master.key")).unwrap();
        Self { envelope: Envelope::new(Arc::new(keys), Clock::system()), _folder: folder }
    }

    /// A connection that may go to hosts, with a secret.
    pub async fn connection(&self, hosts: &[&str], secret: &str) -> Sealed {
        let (tenant, id) = (TenantId::new(at(), [1; 10]), ConnectionId::new(at(), [2; 10]));
        let context = KeyContext { tenant: tenant.to_string(), purpose: "connections".into() };
        let data_key = self.envelope.new_data_key(&context).await.unwrap();
        let associated = id.to_string();
        let sealed = self.envelope.seal(&data_key, &context, associated.as_bytes(), secret.as_bytes()).await.unwrap();
        Sealed { connection: connection(id, tenant, hosts, placement(secret), sealed), data_key }
    }
}

fn at() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

/// Where the secret of a connection goes that somebody made for it: as a bearer token unless it says otherwise.
fn placement(secret: &str) -> Placement {
    let secret: Value = serde_json::from_str(secret).unwrap_or_default();
    let text = |text: &str| SecretText::read(text, |_| None).unwrap();
    let header = |name: &str, placed| Placement { headers: vec![(name.to_owned(), placed)], ..Placement::default() };
    if secret["webhook_url"].is_string() || secret["url"].is_string() {
        return Placement { url: Some("webhook_url".to_owned()), ..Placement::default() };
    }
    match secret["type"].as_str() {
        Some("basic") => {
            let (username, password) = (text("{{ secret.username }}"), text("{{ secret.password }}"));
            header("Authorization", Placed::Basic { username, password })
        }
        Some("header") => header(secret["name"].as_str().unwrap(), Placed::Text(text("{{ secret.value }}"))),
        Some("query") => {
            let name = secret["name"].as_str().unwrap().to_owned();
            Placement { query: vec![(name, Placed::Text(text("{{ secret.value }}")))], ..Placement::default() }
        }
        _ => header("Authorization", Placed::Text(text("Bearer {{ secret.token }}"))),
    }
}

fn connection(id: ConnectionId, tenant: TenantId, hosts: &[&str], placement: Placement, sealed: String) -> Connection {
    let hosts = hosts.iter().map(|&host| host.to_owned()).collect();
    Connection {
        id,
        tenant,
        name: "Test".into(),
        connector: "http".into(),
        publisher: Publisher::Builtin,
        auth: "bearer".into(),
        settings: Map::new(),
        hosts,
        placement,
        oauth: None,
        health: Health::default(),
        data_key: 1,
        sealed,
        created_by: None,
        created_at: at(),
    }
}

/// A connection and its tenant's data key.
pub struct Sealed {
    pub connection: Connection,
    pub data_key: String,
}

impl Sealed {
    /// One that fails as soon as somebody tries to open it.
    pub fn unopenable(hosts: &[&str]) -> Self {
        let (tenant, id) = (TenantId::new(at(), [1; 10]), ConnectionId::new(at(), [2; 10]));
        Self { connection: connection(id, tenant, hosts, placement(""), "AAAA".into()), data_key: "AAAA".into() }
    }

    pub fn credential(&self) -> Option<Credential<'_>> {
        Some(Credential { connection: &self.connection, data_key: &self.data_key })
    }
}

/// A resolver that must not be asked.
pub struct NoResolver;

#[async_trait]
impl Resolver for NoResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        panic!("{host} was looked up");
    }
}

/// Names whose answers change: each lookup takes the next one, the last stays.
#[derive(Default)]
pub struct Names {
    answers: Mutex<HashMap<String, Vec<Vec<IpAddr>>>>,
    pub lookups: AtomicUsize,
}

impl Names {
    pub fn new(names: &[(&str, &[&[&str]])]) -> Arc<Self> {
        let parse = |answer: &&[&str]| answer.iter().map(|ip| ip.parse().unwrap()).collect();
        let answers = names.iter().map(|(name, answers)| ((*name).to_owned(), answers.iter().map(parse).collect()));
        Arc::new(Self { answers: Mutex::new(answers.collect()), lookups: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl Resolver for Names {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        let mut names = self.answers.lock().unwrap();
        let answers = names.get_mut(host).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such name"))?;
        Ok(if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() })
    }
}

/// A server on a loopback port.
pub struct Server {
    pub address: SocketAddr,
    /// Heads and bodies as they came.
    pub requests: Arc<Mutex<Vec<String>>>,
    pub connections: Arc<AtomicUsize>,
}

impl Server {
    /// Answers each request with what a function makes of it (head and body), keeping connections open.
    pub async fn start(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), answer)
    }

    /// The same, at an address of the caller's.
    pub fn start_on(listener: TcpListener, answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        Self::serve_on(listener, move |mut stream, requests| {
            let answer = Arc::clone(&answer);
            async move {
                while let Some(request) = read_request(&mut stream).await {
                    requests.lock().unwrap().push(request.clone());
                    if stream.write_all(&answer(&request)).await.is_err() {
                        return;
                    }
                }
            }
        })
    }

    /// Gives each connection to a function.
    pub async fn serve<F: Future<Output = ()> + Send>(
        handle: impl Fn(TcpStream, Arc<Mutex<Vec<String>>>) -> F + Send + Sync + 'static,
    ) -> Self {
        Self::serve_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), handle)
    }

    /// The same, at an address of the caller's.
    pub fn serve_on<F: Future<Output = ()> + Send>(
        listener: TcpListener,
        handle: impl Fn(TcpStream, Arc<Mutex<Vec<String>>>) -> F + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let (requests, connections) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicUsize>::default());
        let handle = Arc::new(handle);
        tokio::spawn({
            let (requests, connections) = (Arc::clone(&requests), Arc::clone(&connections));
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    connections.fetch_add(1, Ordering::SeqCst);
                    let (handle, requests) = (Arc::clone(&handle), Arc::clone(&requests));
                    tokio::spawn(async move { handle(stream, requests).await });
                }
            }
        });
        Self { address, requests, connections }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A request with a `Content-Length` or without a body; `None` at the connection's end.
pub async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            let total = end + 4 + length.unwrap_or(0);
            while bytes.len() < total {
                if stream.read_buf(&mut bytes).await.ok()? == 0 {
                    return None;
                }
            }
            assert_eq!(bytes.len(), total, "a second request came with the first");
            return Some(String::from_utf8_lossy(&bytes).into_owned());
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// A response with a body.
pub fn response(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

pub fn ok(body: &str) -> Vec<u8> {
    response("200 OK", "", body.as_bytes())
}

pub fn redirect(status: &str, location: &str) -> Vec<u8> {
    response(status, &format!("location: {location}\r\n"), b"")
}

/// The values of a header in a raw request.
pub fn sent<'a>(request: &'a str, name: &str) -> Vec<&'a str> {
    let head = request.split("\r\n\r\n").next().unwrap();
    let values = head.lines().filter_map(|line| line.split_once(": "));
    values.filter(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

/// Everything that an error may end up in a log or a run's record with.
pub fn all_texts(error: &dyn std::error::Error) -> String {
    let mut texts = format!("{error}\n{error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        texts.push_str(&format!("\n{error}\n{error:?}"));
        source = error.source();
    }
    texts
}
