//! The one HTTP client: everything that Tidegate sends to the outside leaves here.
//!
//! It resolves names itself and connects only to addresses that it has checked ([`AddressGuard`]), follows no redirect
//! unchecked, bounds size and time, takes no proxy from the environment, and opens a connection's secret only to put it
//! into a request to a host that the connection was made for. What the request means, and whether to repeat it, is left
//! to the callers.

mod address;
mod error;
mod headers;
mod oauth;
mod redirect;
mod resolver;
mod secret;
mod send;
mod smtp;
mod stream;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use ipnet::IpNet;
use tidegate_model::Connection;
use tidegate_platform::Envelope;

pub use address::{AddressGuard, Denied, Rule};
pub use error::EgressError;
pub use headers::is_reserved_header;
pub use oauth::{Code, Granted, TokenClient, TokenError, client_context};
pub use resolver::{Resolver, SystemResolver};
pub use smtp::{MailFailure, MailSecurity, MailServer, OutboundMail};

/// How the client behaves. [`Default`] opens nothing.
#[derive(Debug, Clone)]
pub struct EgressSettings {
    /// Ranges that may be called though they aren't public, such as `127.0.0.1/32`: `--egress-allow`.
    pub allow: Vec<IpNet>,
    /// Loopback and link-local addresses stay closed, whatever `allow` says: set on AWS, where the credentials of the
    /// function lie behind such an address.
    pub never_open_loopback_or_link_local: bool,
    /// Certificates (DER) of authorities that are trusted beside the system's: `--egress-ca`.
    pub extra_roots: Vec<Vec<u8>>,
    /// How long connecting may take, TLS included; the request's own timeout bounds it too.
    pub connect_timeout: Duration,
    /// How long an idle connection is kept for the next call.
    pub idle_timeout: Duration,
    /// The largest request body, and the largest mail.
    pub max_request_bytes: usize,
    /// The largest request body that is made of files.
    pub max_file_request_bytes: usize,
    /// The largest response body, counted after decompression.
    pub max_response_bytes: usize,
}

impl Default for EgressSettings {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            never_open_loopback_or_link_local: false,
            extra_roots: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            max_request_bytes: 6 << 20,
            max_file_request_bytes: 51 << 20,
            max_response_bytes: 5 << 20,
        }
    }
}

/// The certificates (DER) in a PEM file, for [`EgressSettings::extra_roots`].
///
/// # Errors
/// There is none, or one can't be read.
pub fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| error.to_string())?;
    if found.is_empty() {
        Err("there is none".to_owned())
    } else {
        Ok(found.into_iter().map(|der| der.to_vec()).collect())
    }
}

/// A request as an action describes it.
pub struct OutboundRequest {
    /// The method; `CONNECT` and `TRACE` are refused.
    pub method: Method,
    /// An absolute `http` or `https` URL without user name and password; ignored, and best empty, where the connection's
    /// secret is the URL.
    pub url: String,
    /// Headers, none of them one that [`is_reserved_header`] names.
    pub headers: HeaderMap,
    /// The body.
    pub body: Option<Bytes>,
    /// Bounds the whole call: opening the connection, redirects, the response's last byte.
    pub timeout: Duration,
    /// Redirects are followed for reads (`GET`, `HEAD`) alone; otherwise a redirect is the response.
    pub effect: Effect,
    /// Sent as `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// Sent as `traceparent`, as it is.
    pub traceparent: Option<String>,
}

/// What a call does to its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It changes nothing, so that it may be repeated.
    Read,
    /// It may change something.
    Write,
}

/// A connection and what opens it.
#[derive(Debug, Clone, Copy)]
pub struct Credential<'a> {
    /// The connection. Its secret goes where its placement says, and only to `connection.hosts`: an entry `host` stands for the scheme's own port,
    /// `host:port` for that port. Where the URL is the workflow's and not the secret itself, `host` and `host:443` mean
    /// `https` alone.
    pub connection: &'a Connection,
    /// The wrapped data key of the connection's tenant (`DataKey::wrapped`), the one of the number that the connection names.
    pub data_key: &'a str,
}

/// A response, whatever its status.
#[derive(Debug, Clone)]
pub struct OutboundResponse {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, decompressed. The connection's secret, where the target echoes it in body or headers, is `***`.
    pub body: Bytes,
}

/// The client. A clone shares its connections.
#[derive(Clone)]
pub struct Egress {
    shared: Arc<Shared>,
}

struct Shared {
    settings: EgressSettings,
    guard: Arc<AddressGuard>,
    envelope: Envelope,
    resolver: Arc<dyn Resolver>,
    /// Built at the first call: it reads the root certificates.
    client: OnceLock<Result<reqwest::Client, EgressError>>,
}

impl Egress {
    /// A client that asks the system for addresses.
    pub fn new(settings: EgressSettings, envelope: Envelope) -> Self {
        Self::with_resolver(settings, envelope, Arc::new(SystemResolver::new()))
    }

    /// A client that asks a resolver for addresses; it checks them all the same.
    pub fn with_resolver(settings: EgressSettings, envelope: Envelope, resolver: Arc<dyn Resolver>) -> Self {
        let guard = AddressGuard::new(settings.allow.clone(), settings.never_open_loopback_or_link_local);
        let shared = Shared { settings, guard: Arc::new(guard), envelope, resolver, client: OnceLock::new() };
        Self { shared: Arc::new(shared) }
    }
}
