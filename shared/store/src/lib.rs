//! The store: DynamoDB through `aws-sdk-dynamodb`, one module per aggregate. There is one code path: on a laptop and in
//! tests the same client talks to an in-process DynamoDB ([`embedded`]).
//!
//! Every method takes the tenant and answers "absent" for what belongs to another; the exceptions (public ingress by an
//! unguessable id, sign-in by email address, the installation's own keys) say so. Every conditional write may be
//! repeated: where the answer to a write was lost, the repetition finds its own row and succeeds. Caching is left to
//! the callers.

mod accounts;
mod api_keys;
mod audit;
mod breakers;
mod capacity;
mod connections;
mod connectors;
mod cursor;
mod dead_letters;
mod deliveries;
#[cfg(feature = "embedded")]
pub mod embedded;
mod items;
mod leases;
mod list;
mod oauth;
mod platform;
mod rates;
mod runs;
mod sessions;
mod signing_keys;
mod tables;
mod tenants;
mod workflows;
mod write;

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Builder;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_types::SdkConfig;
use serde::Serialize;
use tidegate_model::AuditEntry;
use tidegate_platform::usage;

pub use accounts::{Accounts, NewAccount};
pub use api_keys::ApiKeys;
pub use audit::{AUDIT_RETENTION, AuditFilter, AuditLog};
pub use breakers::{Breaker, Breakers};
pub use connections::Connections;
pub use connectors::{Connectors, StoredManifest};
pub use dead_letters::DeadLetters;
pub use deliveries::{CAPTURES, Deliveries};
pub use leases::{Exhausted, Leases, RateStatus};
pub use oauth::OAuth;
pub use platform::Platform;
pub use rates::{Lease, Rate, Rates, Taken};
pub use runs::{Cancel, CreateError, Journal, JournalItem, ReplaceError, RunFilter, Runs, StoredRun, StoredSignal};
pub use sessions::Sessions;
pub use signing_keys::{PublicKey, SigningKey, SigningKeys, SigningRing};
pub use tables::{IndexDefinition, Projection, TableDefinition, Tables};
pub use tenants::Tenants;
pub use workflows::Workflows;

/// How long a final run is kept unless [`Store::with_retention`] says otherwise.
pub const RETENTION: Duration = Duration::from_secs(30 * 86_400);

/// The most items of one page; a larger limit means this one.
pub const MAX_PAGE: usize = 100;

/// Access to everything stored. Cloning is cheap and shares the client.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
    /// Goes into the audit log with the next write.
    audit: Option<Arc<AuditEntry>>,
}

#[derive(Debug, Clone)]
struct Inner {
    client: Client,
    tables: Tables,
    retention: Duration,
}

impl Store {
    /// A store in two tables that exist, or that [`Store::create_tables`] makes.
    pub fn new(config: &SdkConfig, tables: Tables) -> Self {
        Self::over(Builder::from(config), tables)
    }

    fn over(config: Builder, tables: Tables) -> Self {
        let config = config.interceptor(usage::Calls).interceptor(capacity::Capacity).build();
        let client = Client::from_conf(config);
        Self { inner: Arc::new(Inner { client, tables, retention: RETENTION }), audit: None }
    }

    /// The same store, keeping final runs for this long.
    #[must_use]
    pub fn with_retention(self, retention: Duration) -> Self {
        Self { inner: Arc::new(Inner { retention, ..Arc::unwrap_or_clone(self.inner) }), audit: self.audit }
    }

    /// A handle whose write puts this entry into the audit log in the same transaction: for one operation that writes.
    #[must_use]
    pub fn audited(&self, entry: AuditEntry) -> Self {
        Self { inner: Arc::clone(&self.inner), audit: Some(Arc::new(entry)) }
    }

    fn unaudited(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), audit: None }
    }

    /// The audit log.
    pub fn audit(&self) -> AuditLog<'_> {
        AuditLog(self)
    }

    /// Tenants, their members and invitations.
    pub fn tenants(&self) -> Tenants<'_> {
        Tenants(self)
    }

    /// Sign-ins.
    pub fn sessions(&self) -> Sessions<'_> {
        Sessions(self)
    }

    /// API keys.
    pub fn api_keys(&self) -> ApiKeys<'_> {
        ApiKeys(self)
    }

    /// Who administers the installation.
    pub fn platform(&self) -> Platform<'_> {
        Platform(self)
    }

    /// How much was asked for lately.
    pub fn rates(&self) -> Rates<'_> {
        Rates(self)
    }

    /// People.
    pub fn accounts(&self) -> Accounts<'_> {
        Accounts(self)
    }

    /// The installation's keys for access tokens.
    pub fn signing_keys(&self) -> SigningKeys<'_> {
        SigningKeys(self)
    }

    /// Workflows and their versions.
    pub fn workflows(&self) -> Workflows<'_> {
        Workflows(self)
    }

    /// Connections.
    pub fn connections(&self) -> Connections<'_> {
        Connections(self)
    }

    /// What is known of targets that fail.
    pub fn breakers(&self) -> Breakers<'_> {
        Breakers(self)
    }

    /// What is known of webhooks' deliveries.
    pub fn deliveries(&self) -> Deliveries<'_> {
        Deliveries(self)
    }

    /// Connectors that tenants made.
    pub fn connectors(&self) -> Connectors<'_> {
        Connectors(self)
    }

    /// The installation's OAuth clients, and sign-ins at vendors that are under way.
    pub fn oauth(&self) -> OAuth<'_> {
        OAuth(self)
    }

    /// Runs and their journals.
    pub fn runs(&self) -> Runs<'_> {
        Runs(self)
    }

    /// Runs that were given up.
    pub fn dead_letters(&self) -> DeadLetters<'_> {
        DeadLetters(self)
    }

    fn client(&self) -> &Client {
        &self.inner.client
    }

    fn config_table(&self) -> &str {
        &self.inner.tables.config
    }

    fn history_table(&self) -> &str {
        &self.inner.tables.history
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Page<T> {
    /// The items, newest first. A page may be short, even empty, and still not be the last.
    pub items: Vec<T>,
    /// Asks for the next page; absent on the last. Opaque, and good only for the same tenant and query.
    pub next_cursor: Option<String>,
}

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else has what was to be created, or changed what was to be replaced.
    #[error("{operation}: the stored state is not the expected one")]
    Conflict {
        /// What was tried: `create account`.
        operation: &'static str,
    },
    /// The cursor is not one that this list gave out, for this tenant and query.
    #[error("the cursor does not belong to this list")]
    InvalidCursor,
    /// Throttled, timed out, not reachable, or failing: it may work again later.
    #[error("{operation}: the database is not available")]
    Unavailable {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: BoxError,
    },
    /// The database refuses the request: a wrong table name, missing permissions, an item over 400 KB. Trying again
    /// doesn't help.
    #[error("{operation}: the database refused the request")]
    Refused {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: BoxError,
    },
    /// What is stored can't be read.
    #[error("{operation}: the stored {what} is unreadable")]
    Corrupt {
        /// What was tried.
        operation: &'static str,
        /// What was read: an attribute's name.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: BoxError,
    },
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Error {
    fn from_sdk<E, R>(operation: &'static str, error: SdkError<E, R>) -> Self
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        const REFUSALS: [&str; 5] = [
            "ValidationException",
            "ResourceNotFoundException",
            "AccessDeniedException",
            "UnrecognizedClientException",
            "ItemCollectionSizeLimitExceededException",
        ];
        let refused = error.code().is_some_and(|code| REFUSALS.contains(&code));
        let source = Box::new(error);
        if refused { Error::Refused { operation, source } } else { Error::Unavailable { operation, source } }
    }
}
