//! Names to addresses, all of them checked: the connector sees no address that the guard has not let through.

use std::error::Error as StdError;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

use crate::{AddressGuard, EgressError};

/// Finds a host's addresses, IPv4 and IPv6.
#[async_trait]
pub trait Resolver: Send + Sync {
    /// All addresses of a host.
    ///
    /// # Errors
    /// The host has none, or they couldn't be found out.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver (`getaddrinfo`).
#[derive(Debug)]
pub struct SystemResolver {
    lookups: Arc<Semaphore>,
}

/// A lookup holds a thread until the system gives up, even when nobody waits for it any more. Names whose servers don't
/// answer must not take all the threads that others need.
const MAX_LOOKUPS: usize = 64;

impl SystemResolver {
    /// The system's resolver.
    pub fn new() -> Self {
        Self { lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)) }
    }
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let permit = Arc::clone(&self.lookups).acquire_owned().await.map_err(io::Error::other)?;
        let host = host.to_owned();
        let lookup = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            Ok((host.as_str(), 0).to_socket_addrs()?.map(|address| address.ip()).collect())
        });
        lookup.await.map_err(io::Error::other)?
    }
}

/// Gives the connector a host's addresses if it may connect to every one of them.
pub(crate) struct GuardedResolver {
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) guard: Arc<AddressGuard>,
}

impl GuardedResolver {
    /// All addresses of a host, each of them checked.
    pub(crate) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, EgressError> {
        let failed = |reason: String| EgressError::Dns { host: host.to_owned(), reason };
        let addresses = self.resolver.resolve(host).await.map_err(|error| failed(error.to_string()))?;
        if addresses.is_empty() {
            return Err(failed("the name has no address".to_owned()));
        }
        // One bad answer among good ones is a trick or a mistake: which of them is tried first is chance.
        for address in &addresses {
            let denied = self.guard.check(*address);
            denied.map_err(|denied| EgressError::DeniedAddress { host: host.to_owned(), denied })?;
        }
        Ok(addresses)
    }
}

/// Fits the resolver to the connector.
pub(crate) struct Connector(pub(crate) Arc<GuardedResolver>);

impl Resolve for Connector {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = Arc::clone(&self.0);
        Box::pin(async move {
            match resolver.addresses(name.as_str()).await {
                // The connector puts the URL's port in the place of 0.
                Ok(addresses) => Ok(Box::new(addresses.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs),
                Err(error) => Err(Box::new(error) as Box<dyn StdError + Send + Sync>),
            }
        })
    }
}
