//! How often somebody may try: to sign in, to prove a code, to have mail sent. Counted in the store for all instances
//! together, per account and per address that the request came from. A store that can't count lets nobody try, unlike the
//! API's limits: behind those everybody has proved who it is.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use tidegate_http::{Problem, ProblemCode, RequestContext, sha256_hex};
use tidegate_store::{Rate, Taken};

use crate::Deps;
use crate::accounts::normalize;

/// Of an account, whether it exists or not, from one place: somebody else's wrong tries don't keep its owner out.
const SIGN_IN: Rate = Rate { every: Duration::from_secs(60), burst: 20 };
/// Of an account from all places together: who guesses from many is slowed down all the same.
const SIGN_IN_ANYWHERE: Rate = Rate { every: Duration::from_secs(10), burst: 200 };
/// Of whoever has the password already and lacks a code. A million codes of which three are good at a time: after a year of
/// trying the chance is one in twenty.
const CODE: Rate = Rate { every: Duration::from_secs(1_800), burst: 10 };
/// To one address, whether it has an account or not.
const MAIL: Rate = Rate { every: Duration::from_secs(600), burst: 5 };
/// Of an address that requests come from.
const CLIENT: Rate = Rate { every: Duration::from_secs(10), burst: 50 };

/// Of one client's secret, from one place: one machine with an outdated key doesn't hinder its neighbours.
const SECRET: Rate = Rate { every: Duration::from_secs(30), burst: 10 };
/// Of all clients' secrets, from one place.
const SECRETS: Rate = Rate { every: Duration::from_secs(2), burst: 100 };

/// A try that was counted.
#[must_use]
#[derive(Debug)]
pub(crate) struct Attempt {
    taken: Vec<(String, Rate, i64)>,
    at: Timestamp,
}

/// Counts a try to prove to be the owner of an account.
///
/// # Errors
/// 429: there were too many; 503: they can't be counted.
pub(crate) async fn sign_in(deps: &Deps, context: &RequestContext, email: &str) -> Result<Attempt, Problem> {
    let account = of_account("sign-in", email);
    let here = format!("{account}#{}", place(context).unwrap_or_else(here));
    attempt(deps, of_client(context).chain([(here, SIGN_IN), (account, SIGN_IN_ANYWHERE)])).await
}

/// Counts a try to guess a code, by somebody whose other proof was right.
///
/// # Errors
/// 429: there were too many; 503: they can't be counted.
pub(crate) async fn code(deps: &Deps, email: &str) -> Result<Attempt, Problem> {
    attempt(deps, [(of_account("code", email), CODE)]).await
}

/// Counts a mail that somebody wants sent to an address.
///
/// # Errors
/// 429: there were too many; 503: they can't be counted.
pub(crate) async fn mail(deps: &Deps, context: &RequestContext, email: &str) -> Result<Attempt, Problem> {
    attempt(deps, of_client(context).chain([(of_account("mail", email), MAIL)])).await
}

/// Counts a try that is about no account that could be named.
///
/// # Errors
/// 429: there were too many; 503: they can't be counted.
pub(crate) async fn client(deps: &Deps, context: &RequestContext) -> Result<Attempt, Problem> {
    attempt(deps, of_client(context)).await
}

/// Counts a wrong client secret. A right one always passes: it has 256 random bits, so there is nothing to be won by
/// guessing more often, and a client's id is no secret, so that a limit on the client alone would let everybody who knows it
/// shut the client out.
///
/// # Errors
/// 429: there were too many; 503: they can't be counted.
pub(crate) async fn wrong_secret(deps: &Deps, context: &RequestContext, client: &str) -> Result<Attempt, Problem> {
    let place = place(context).unwrap_or_else(here);
    let of_client = format!("secret#{place}#{}", sha256_hex(client.as_bytes()));
    // The client first: who is refused here takes nothing from the neighbours' limit.
    attempt(deps, [(of_client, SECRET), (format!("secrets#{place}"), SECRETS)]).await
}

impl Attempt {
    /// Gives back what it took: it was right, so it was no guess. That this fails hinders nobody.
    pub(crate) async fn was_right(self, deps: &Deps) {
        for (limit, rate, state) in &self.taken {
            if let Err(error) = deps.store.rates().give_back(limit, *rate, 1, self.at, *state).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(component = "auth", error, "a successful sign-in stays counted as a try");
            }
        }
    }
}

async fn attempt(deps: &Deps, limits: impl IntoIterator<Item = (String, Rate)>) -> Result<Attempt, Problem> {
    let at = deps.clock.now();
    let mut taken = Vec::new();
    for (limit, rate) in limits {
        match deps.store.rates().take(&limit, rate, 1, at, None).await? {
            (Taken::Granted { .. }, state) => taken.push((limit, rate, state)),
            (Taken::Refused { after }, _) => return Err(too_many(after)),
        }
    }
    Ok(Attempt { taken, at })
}

fn too_many(after: Duration) -> Problem {
    let detail = "There were too many attempts. Wait as `Retry-After` says.";
    Problem::new(ProblemCode::RateLimited, detail).retry_after(after)
}

/// The account's address isn't stored as it is.
fn of_account(what: &str, email: &str) -> String {
    format!("{what}#{}", sha256_hex(normalize(email).as_bytes()))
}

/// The limit of the place that a request came from. Of this very machine there is none: that is its owner, or a proxy for
/// everybody.
fn of_client(context: &RequestContext) -> impl Iterator<Item = (String, Rate)> + use<> {
    place(context).map(|place| (format!("client#{place}"), CLIENT)).into_iter()
}

/// One IPv4 address, or the 64 bits of an IPv6 address that name a network: whoever has one address there has them all.
/// Where nobody knows the address all share one place; none where it is this machine.
fn place(context: &RequestContext) -> Option<String> {
    match context.address.map(|address| address.to_canonical()) {
        Some(address) if address.is_loopback() => None,
        Some(IpAddr::V4(address)) => Some(address.to_string()),
        Some(IpAddr::V6(address)) => Some(format!("{:x}/64", address.to_bits() >> 64)),
        None => Some("unknown".to_owned()),
    }
}

fn here() -> String {
    "here".to_owned()
}

#[cfg(test)]
mod tests {
    use tidegate_platform::{Clock, Ids};

    use super::*;

    fn client_of(address: &str) -> Option<String> {
        let mut context = RequestContext::of_command(&Ids::new(Clock::system()));
        context.address = Some(address.parse().unwrap());
        place(&context)
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_so_is_an_ipv4_address_however_written() {
        assert_eq!(client_of("2001:db8:1:2::1"), client_of("2001:db8:1:2:ffff::9"));
        assert_ne!(client_of("2001:db8:1:2::1"), client_of("2001:db8:1:3::1"));
        assert_eq!(client_of("192.0.2.1"), client_of("::ffff:192.0.2.1"));
        assert_ne!(client_of("192.0.2.1"), client_of("192.0.2.2"));
        assert!(client_of("192.0.2.1").is_some());
        assert_eq!((client_of("127.0.0.1"), client_of("::1"), client_of("::ffff:127.0.0.1")), (None, None, None));
    }

    #[test]
    fn an_account_is_one_however_its_address_is_written() {
        assert_eq!(of_account("code", " ALEX@Example.com"), of_account("code", "alex@example.com"));
        assert!(!of_account("code", "alex@example.com").contains("alex"));
    }
}
