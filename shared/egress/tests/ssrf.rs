//! Whatever spells an address that isn't public is refused on every way out, before anybody is connected to.
//! The spellings are in `ssrf.txt`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::fmt::Display;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use support::{Names, Sealed, Server, Vault, get, redirect};
use tidegate_egress::{
    AddressGuard, Code, Credential, Effect, Egress, EgressError, EgressSettings, MailSecurity, MailServer,
    OutboundRequest, Resolver, TokenClient, TokenError,
};
use tidegate_model::{ClientAuth, Connection, OAuthGrant};
use tokio::net::TcpListener;
use url::{Host, Position, Url};

mod support;

/// The one address that is opened: where the servers are that a call may reach.
const OPENED: &str = "127.0.0.77";
const TIMEOUT: Duration = Duration::from_secs(20);

/// How something leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// An action that reads; an import by URL.
    Read,
    Write,
    /// A read of an allowed server that redirects there.
    Redirect,
    /// A connection whose secret is the URL.
    SecretUrl,
    /// A mail server with this host and port.
    Mail(MailSecurity),
    /// The token URL of a sign-in.
    Redeem,
    Refresh,
}

const WAYS: [Way; 9] = [
    Way::Read,
    Way::Write,
    Way::Redirect,
    Way::SecretUrl,
    Way::Mail(MailSecurity::None),
    Way::Mail(MailSecurity::StartTls),
    Way::Mail(MailSecurity::Tls),
    Way::Redeem,
    Way::Refresh,
];

/// What leaves, and how.
struct World {
    vault: Vault,
    egress: Egress,
    redirects: Server,
    location: Arc<Mutex<String>>,
    secret: Sealed,
}

impl World {
    async fn new(names: Arc<impl Resolver + 'static>) -> Self {
        let vault = Vault::new();
        let allow = vec![format!("{OPENED}/32").parse().unwrap()];
        let settings = EgressSettings { allow, ..EgressSettings::default() };
        let egress = Egress::with_resolver(settings, vault.envelope.clone(), names);
        let location = Arc::<Mutex<String>>::default();
        let redirects = Server::start_on(opened().await, {
            let location = Arc::clone(&location);
            move |_| redirect("302 Found", &location.lock().unwrap())
        });
        let secret = r#"{"client_id":"c","refresh_token":"r","password":"p"}"#;
        let secret = vault.connection(&[], secret).await;
        Self { vault, egress, redirects, location, secret }
    }

    async fn go(&self, way: Way, url: &str) -> Result<(), EgressError> {
        let egress = &self.egress;
        let write = || {
            let body = Some(Bytes::from_static(b"{}"));
            OutboundRequest { method: Method::POST, effect: Effect::Write, body, ..get(url) }
        };
        match way {
            Way::Read => egress.send(get(url), None).await.map(drop),
            Way::Write => egress.send(write(), None).await.map(drop),
            Way::Redirect => {
                *self.location.lock().unwrap() = in_a_header(url);
                egress.send(get(&self.redirects.url("/")), None).await.map(drop)
            }
            Way::SecretUrl => {
                let secret = serde_json::json!({ "webhook_url": url }).to_string();
                let host = Url::parse(url).map(|url| url[Position::BeforeHost..Position::AfterPort].to_owned());
                let sealed = self.vault.connection(&[&host.unwrap_or_default()], &secret).await;
                egress.send(write(), sealed.credential()).await.map(drop)
            }
            Way::Mail(security) => {
                let (host, port) = host_and_port(url);
                let username = (security != MailSecurity::None).then(|| "u".to_owned());
                let server = MailServer { host: host.to_owned(), port, security, username };
                let hosts = vec![format!("{}:{port}", host.to_ascii_lowercase())];
                let connection = Connection { hosts, ..self.secret.connection.clone() };
                let credential = Credential { connection: &connection, data_key: &self.secret.data_key };
                egress.mail(&server, None, credential, TIMEOUT).await.map(drop)
            }
            Way::Redeem => {
                let code = Code {
                    code: "x",
                    redirect_uri: "https://flows.example/back",
                    sealed: &self.secret.connection.sealed,
                };
                let credential = self.secret.credential().unwrap();
                let redeemed = egress.redeem(code, &grant(url), TokenClient::Connection, credential, TIMEOUT).await;
                redeemed.map(drop).or_else(no_tokens)
            }
            Way::Refresh => {
                let credential = self.secret.credential().unwrap();
                let refreshed = egress.refresh(&grant(url), TokenClient::Connection, credential, TIMEOUT).await;
                refreshed.map(drop).or_else(no_tokens)
            }
        }
    }
}

/// An answer without tokens shows as well as one with them that the call went through.
fn no_tokens(error: TokenError) -> Result<(), EgressError> {
    match error {
        TokenError::Egress(error) => Err(error),
        TokenError::Refused(_) | TokenError::Client(_) | TokenError::Later(_) => Ok(()),
    }
}

fn grant(token_url: &str) -> OAuthGrant {
    OAuthGrant {
        token_url: token_url.to_owned(),
        provider: None,
        client_auth: ClientAuth::Body,
        scopes: Vec::new(),
        refreshable: true,
        expires_at: None,
        lifetime_seconds: None,
        refreshing: None,
    }
}

async fn opened() -> TcpListener {
    TcpListener::bind((OPENED, 0)).await.unwrap()
}

/// A URL as a `Location` header can carry it.
fn in_a_header(url: &str) -> String {
    let escaped = |char: char| char.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    url.chars().map(|char| if matches!(char, ' '..='~' | '\t') { char.to_string() } else { escaped(char) }).collect()
}

/// The host as the URL spells it, and its port; the whole URL where it has no authority.
fn host_and_port(url: &str) -> (&str, u16) {
    let Some((_, rest)) = url.split_once("//") else { return (url, 25) };
    let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().unwrap_or(25)),
        _ => (authority, 25),
    }
}

/// A line of `ssrf.txt`.
struct Spelling {
    url: String,
    addresses: Vec<IpAddr>,
}

fn spellings(port: u16) -> Vec<Spelling> {
    let lines = include_str!("ssrf.txt").lines().filter(|line| !line.is_empty() && !line.starts_with("# "));
    let spelling = |line: &str| {
        let (url, addresses) = line.split_once(" -> ").unwrap_or((line, ""));
        let mut parts = url.split("{u+");
        let mut url = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (number, rest) = part.split_once('}').unwrap();
            url.push(char::from_u32(u32::from_str_radix(number, 16).unwrap()).unwrap());
            url.push_str(rest);
        }
        let addresses = addresses.split_ascii_whitespace().map(|address| address.parse().unwrap());
        Spelling { url: url.replace("{port}", &port.to_string()), addresses: addresses.collect() }
    };
    lines.map(spelling).collect()
}

/// Answers for any name with the addresses that a test sets.
#[derive(Default)]
struct Anything {
    addresses: Mutex<Vec<IpAddr>>,
    lookups: AtomicUsize,
}

#[async_trait]
impl Resolver for Anything {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        match self.addresses.lock().unwrap().as_slice() {
            [] => Err(io::Error::other(format!("{host} was looked up"))),
            addresses => Ok(addresses.to_vec()),
        }
    }
}

/// Somebody who hears of each connection to loopback, by IPv4 and, where the machine has it, IPv6.
async fn listeners() -> (u16, Vec<Server>) {
    let v4 = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = v4.local_addr().unwrap().port();
    let v6 = TcpListener::bind(("::1", port)).await;
    let listeners = [Some(v4), v6.ok()].into_iter().flatten();
    (port, listeners.map(|listener| Server::serve_on(listener, |_, _| async {})).collect())
}

/// Whether a mistake in the list would bring about a call.
fn is_public(url: &str) -> bool {
    let guard = AddressGuard::new(Vec::new(), false);
    let hosts = [
        Url::parse(url).ok().and_then(|url| Host::parse(url.host_str()?).ok()),
        Host::parse(host_and_port(url).0).ok(),
    ];
    hosts.into_iter().flatten().any(|host| match host {
        Host::Domain(_) => false,
        Host::Ipv4(address) => guard.check(address.into()).is_ok(),
        Host::Ipv6(address) => guard.check(address.into()).is_ok(),
    })
}

fn is_refusal(way: Way, error: &EgressError) -> bool {
    match error {
        EgressError::DeniedAddress { .. } | EgressError::InvalidUrl(_) => true,
        EgressError::Redirect { .. } => way == Way::Redirect,
        _ => false,
    }
}

#[tokio::test]
async fn no_spelling_of_an_address_that_isnt_public_gets_out_on_any_way() {
    let (port, listeners) = listeners().await;
    let names = Arc::<Anything>::default();
    let world = World::new(Arc::clone(&names)).await;
    let spellings = spellings(port);
    assert!(spellings.len() >= 450, "{} spellings", spellings.len());

    for Spelling { url, .. } in &spellings {
        assert!(!is_public(url), "{url:?} is a public address, which no test may call");
    }
    let mut faults = Vec::new();
    for Spelling { url, addresses } in &spellings {
        *names.addresses.lock().unwrap() = addresses.clone();
        for way in WAYS {
            names.lookups.store(0, Ordering::SeqCst);
            let mut fault = |what: &dyn Display| faults.push(format!("{url:?} by {way:?}: {what}"));
            match world.go(way, url).await {
                Ok(()) => fault(&"is called"),
                Err(error) if !is_refusal(way, &error) => fault(&error),
                Err(error) if error.is_retryable() => fault(&format!("may be retried: {error}")),
                Err(error) if error.may_have_arrived() != matches!(error, EgressError::Redirect { .. }) => {
                    fault(&format!("may have arrived: {error}"));
                }
                Err(_) => {}
            }
            match names.lookups.load(Ordering::SeqCst) {
                0 | 1 => {}
                many => fault(&format!("{many} lookups")),
            }
        }
    }
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), spellings.len() * WAYS.len(), faults.join("\n"));
    for listener in listeners {
        assert_eq!(listener.connections(), 0, "{}", listener.address);
    }
}

#[tokio::test]
async fn what_isnt_spelt_so_gets_out_on_every_way() {
    let names = Arc::<Anything>::default();
    let world = World::new(Arc::clone(&names)).await;
    *names.addresses.lock().unwrap() = vec![OPENED.parse().unwrap()];
    for host in [OPENED, "opened.example"] {
        for way in WAYS {
            let target = Server::serve_on(opened().await, |_, _| async {});
            let gone = world.go(way, &format!("http://{host}:{}/", target.address.port())).await;
            let denied = matches!(gone, Err(EgressError::DeniedAddress { .. } | EgressError::InvalidUrl(_)));
            assert!(!denied && target.connections() == 1, "{host} by {way:?}: {gone:?}");
        }
    }
}

#[tokio::test]
async fn a_name_whose_answer_changes_between_check_and_use_gains_nothing_on_any_way() {
    const ANSWERS: [&[&str]; 6] =
        [&[OPENED], &["10.0.0.1"], &[OPENED], &["127.0.0.1"], &["169.254.169.254"], &[OPENED, "127.0.0.1"]];
    for way in WAYS {
        let names = Names::new(&[("rebound.example", &ANSWERS)]);
        let world = World::new(Arc::clone(&names)).await;
        // It hangs up, so that no connection is kept for the next call.
        let target = Server::serve_on(opened().await, |_, _| async {});
        let port = target.address.port();
        let inside = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let inside = Server::serve_on(inside, |_, _| async {});
        let url = format!("http://rebound.example:{port}/");
        let mut connections = 0;
        for (at, answer) in ANSWERS.iter().enumerate() {
            let gone = world.go(way, &url).await;
            let is_denied = matches!(gone, Err(EgressError::DeniedAddress { .. }));
            assert_eq!(is_denied, answer != &[OPENED], "{way:?} {answer:?}: {gone:?}");
            connections += usize::from(!is_denied);
            assert_eq!(names.lookups.load(Ordering::SeqCst), at + 1, "{way:?} {answer:?}: what is checked is called");
            assert_eq!(target.connections(), connections, "{way:?} {answer:?}: {gone:?}");
        }
        assert_eq!(inside.connections(), 0, "{way:?}");
    }
}
