//! A checked connection for what isn't HTTP.

use std::net::{IpAddr, SocketAddr};

use tokio::net::TcpStream;
use url::Host;

use crate::{Egress, EgressError};

impl Egress {
    /// Connects to a host, through the guard: to an address that was checked, and to that alone.
    pub(crate) async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, EgressError> {
        let parsed = Host::parse(host).map_err(|_| EgressError::InvalidUrl("its host is none"))?;
        let addresses: Vec<IpAddr> = match parsed {
            Host::Domain(name) => self.resolver().addresses(&name).await?,
            Host::Ipv4(address) => vec![self.checked(host, address.into())?],
            Host::Ipv6(address) => vec![self.checked(host, address.into())?],
        };
        let mut reason = "it has no address".to_owned();
        for address in addresses {
            let connecting = TcpStream::connect(SocketAddr::new(address, port));
            match tokio::time::timeout(self.shared.settings.connect_timeout, connecting).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => reason = error.to_string(),
                Err(_) => reason = "no answer".to_owned(),
            }
        }
        Err(EgressError::Connect { host: host.to_owned(), reason })
    }

    pub(crate) fn checked(&self, host: &str, address: IpAddr) -> Result<IpAddr, EgressError> {
        let denied = self.shared.guard.check(address);
        denied.map_err(|denied| EgressError::DeniedAddress { host: host.to_owned(), denied })?;
        Ok(address)
    }
}
