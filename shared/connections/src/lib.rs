//! Connections at work: finds a tenant's connection and connector, keeps its access token fresh, holds it to its vendor's limits and
//! stays away from targets that are down, makes the call, and notes what the answer says of the connection. What a connector is
//! is `tidegate-connectors`'; sending and secrets are egress's; which step is called when is the worker's.

mod breaker;
mod call;
mod find;
mod health;
mod pace;
mod refresh;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use tidegate_connectors::{Action, Files, Outside};
use tidegate_egress::Egress;
use tidegate_model::{Connection, ConnectionId, ConnectorHead, OAuthClient, Tenant, TenantId};
use tidegate_platform::{Blobs, Clock, Fresh};
use tidegate_store::{Leases, Store};

pub use call::{Called, Prepared};
pub use find::Usable;
pub use health::Tested;
pub use refresh::grant_of;

/// How long what may change is used before it is read again.
const STALE_AFTER: Duration = Duration::from_secs(5);
const MAX_ENTRIES: u64 = 10_000;
/// Bound of the cached actions of tenants' connectors, in bytes of their JSON; in memory they take a few times that.
const MAX_ACTION_BYTES: u64 = 8 * 1024 * 1024;

/// Connections at work. Clones share what they remember.
#[derive(Clone)]
pub struct Connections {
    store: Store,
    egress: Egress,
    blobs: Arc<dyn Blobs>,
    clock: Clock,
    leases: Leases,
    /// How many calls in a row have to fail until a target counts as down.
    open_after: u32,
    caches: Arc<Caches>,
}

/// What is read again and again. Each cache has a bound and a lifetime; a lifetime is how stale a value may be.
struct Caches {
    connections: Fresh<(TenantId, ConnectionId), Option<Arc<Connection>>>,
    tenants: Fresh<TenantId, Option<Arc<Tenant>>>,
    heads: Fresh<(TenantId, String), Option<Arc<ConnectorHead>>>,
    clients: Fresh<String, Option<Arc<OAuthClient>>>,
    /// Versions never change.
    actions: Cache<(TenantId, String, String), Arc<Action>>,
    /// Targets that failed lately, and what is known of them.
    suspects: Cache<(TenantId, String), Arc<breaker::Suspect>>,
}

/// Why a connection or connector can't be found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] tidegate_store::Error),
    /// As before, told to all who waited for the same read.
    #[error("the store failed")]
    Cached(#[source] Arc<tidegate_store::Error>),
    /// What is stored can't be read.
    #[error("{0}")]
    Corrupt(String),
}

impl Connections {
    /// Over a store, the way out and the files.
    pub fn new(store: Store, egress: Egress, blobs: Arc<dyn Blobs>, clock: Clock) -> Self {
        let weight = |(_, _, name): &(TenantId, String, String), action: &Arc<Action>| {
            let json = serde_json::to_vec(&action.document).map_or(usize::MAX, |json| json.len());
            u32::try_from(json + name.len()).unwrap_or(u32::MAX)
        };
        let caches = Caches {
            connections: Fresh::new(clock.clone(), STALE_AFTER, MAX_ENTRIES),
            tenants: Fresh::new(clock.clone(), STALE_AFTER, MAX_ENTRIES),
            heads: Fresh::new(clock.clone(), STALE_AFTER, MAX_ENTRIES),
            clients: Fresh::new(clock.clone(), STALE_AFTER, 100),
            actions: Cache::builder()
                .max_capacity(MAX_ACTION_BYTES)
                .weigher(weight)
                .time_to_live(Duration::from_secs(600))
                .build(),
            suspects: Cache::builder().max_capacity(MAX_ENTRIES).time_to_live(breaker::FORGET_AFTER).build(),
        };
        let leases = Leases::new(store.clone(), clock.clone());
        Self { store, egress, blobs, clock, leases, open_after: 5, caches: Arc::new(caches) }
    }

    /// The same, but a target counts as down only after so many calls in a row that failed; by default after five.
    #[must_use]
    pub fn opening_after(self, failures: u32) -> Self {
        Self { open_after: failures, ..self }
    }

    fn outside(&self, tenant: TenantId) -> Outside<'_> {
        Outside { egress: &self.egress, files: Files { blobs: &*self.blobs, tenant }, now: self.clock.now() }
    }

    /// The way out, for what is no connection's.
    pub fn egress(&self) -> &Egress {
        &self.egress
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}
