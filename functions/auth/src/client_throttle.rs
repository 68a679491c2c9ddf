//! How often a wrong client secret is answered as such: by address and client, so that one machine with an outdated key
//! doesn't hinder its neighbours, and by address, so that nobody floods us with guesses.
//!
//! A right secret always passes. It has 256 random bits, so there is nothing to be won by guessing more often; but a client's
//! id is no secret, and a limit on the client alone would let everybody who knows it shut the client out.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use tidegate_http::{Problem, ProblemCode, sha256_hex};
use tidegate_store::{Rate, Taken};

use crate::Deps;

/// Of one client from one address.
const OF_CLIENT: Rate = Rate { every: Duration::from_secs(30), burst: 10 };
/// From one address.
const OF_ADDRESS: Rate = Rate { every: Duration::from_secs(2), burst: 100 };

/// Counts a wrong secret.
///
/// # Errors
/// 429: there were too many lately; 503: they can't be counted.
pub(crate) async fn count(deps: &Deps, address: Option<IpAddr>, client: &str) -> Result<(), Problem> {
    let address = address.map_or_else(|| "unknown".to_owned(), |address| network(address).to_string());
    let both = sha256_hex(format!("{address} {client}").as_bytes());
    // The client first: who is refused here takes nothing from the neighbours' limit.
    take(deps, format!("client#{both}"), OF_CLIENT).await?;
    take(deps, format!("clients#{}", sha256_hex(address.as_bytes())), OF_ADDRESS).await
}

async fn take(deps: &Deps, limit: String, rate: Rate) -> Result<(), Problem> {
    match deps.store.rates().take(&limit, rate, 1, deps.clock.now(), None).await?.0 {
        Taken::Granted { .. } => Ok(()),
        Taken::Refused { after } => {
            let detail = "Too many wrong client secrets. Wait as `Retry-After` says.";
            Err(Problem::new(ProblemCode::RateLimited, detail).retry_after(after))
        }
    }
}

/// An address of IPv6 counts by its /64, because whoever has one has all of that.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}
