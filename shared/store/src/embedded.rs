//! DynamoDB in this process: the SDK's client over dynoxide (SQLite), in memory or in a data folder. For the local
//! runner and for tests, which can also make it fail on purpose ([`Faults`]) and count what it is asked ([`Meter`]).

mod connector;
mod dispatch;
mod engine;
mod faults;
mod meter;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::config::endpoint::{Endpoint, EndpointFuture, Params, ResolveEndpoint};
use aws_sdk_dynamodb::config::retry::{RetryConfig, RetryPartition, TokenBucket};
use aws_sdk_dynamodb::config::{
    BehaviorVersion, Builder, Config, ConfigBag, Region, RuntimeComponents, StalledStreamProtectionConfig, auth,
};
use aws_smithy_runtime_api::client::auth::{AuthSchemeId, AuthSchemeOption, AuthSchemeOptionsFuture};
use dynoxide::Database;
use tidegate_platform::Clock;

use crate::{Store, Tables};
use connector::Connector;
use engine::Engine;

pub use connector::Guard;
pub use faults::Faults;
pub use meter::Meter;

/// How often [`Embedded::sweep_ttl`] is to be called.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

const LOCK_FILE: &str = "lock";
/// The database's file in the data folder.
pub const DATABASE_FILE: &str = "store.db";

/// Where the data lies.
#[derive(Debug, Clone, Copy)]
pub enum Location<'a> {
    /// In memory, gone with the process.
    Memory,
    /// In this folder, which is made if it is missing and then belongs to this process alone.
    Folder(&'a Path),
}

/// An open embedded database. Dropping it finishes what was asked, closes the database and frees the data folder;
/// stores made from it then fail.
#[derive(Debug)]
pub struct Embedded {
    /// The store over it; the tables exist.
    pub store: Store,
    /// What goes wrong in it on purpose; the handle that was given to [`open`].
    pub faults: Faults,
    /// Counts what it is asked.
    pub meter: Meter,
    engine: Arc<Engine>,
}

/// Why the embedded database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder belongs to another process.
    #[error("the data folder {} is in use by another tidegate; stop that one, or choose another folder", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder can't be made, read, written or locked.
    #[error("can't use the data folder {}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The database doesn't open.
    #[error("can't open the database in {place}")]
    Database {
        /// Where it lies.
        place: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Opens the database and makes the tables that are missing.
///
/// In a folder, what is acknowledged survives the death of the process and the loss of power.
///
/// # Errors
/// The folder is in use or not usable, or the database in it is damaged.
pub async fn open(location: Location<'_>, faults: Faults) -> Result<Embedded, OpenError> {
    match location {
        Location::Memory => open_memory(Clock::system(), faults).await,
        Location::Folder(folder) => {
            let lock = lock(folder)?;
            let path = folder.join(DATABASE_FILE);
            let place = path.display().to_string();
            let failed =
                |source: Box<dyn std::error::Error + Send + Sync>| OpenError::Database { place: place.clone(), source };
            make_private(&path).map_err(|source| OpenError::Folder { folder: folder.to_owned(), source })?;
            let text = path.to_str().ok_or_else(|| failed("the path is not valid Unicode".into()))?;
            let database = Database::new(text).map_err(|error| failed(error.into()))?;
            let engine = Engine::durable(database, lock, &path).map_err(failed)?;
            assemble(engine, faults, place).await
        }
    }
}

/// Opens a database in memory whose rows expire by the given clock.
///
/// # Errors
/// SQLite doesn't start.
pub async fn open_memory(clock: Clock, faults: Faults) -> Result<Embedded, OpenError> {
    let place = "memory".to_owned();
    let failed = |source| OpenError::Database { place: "memory".to_owned(), source };
    let database = Database::memory_with_clock(Arc::new(SweepClock(clock))).map_err(|error| failed(error.into()))?;
    let engine = Engine::volatile(database).map_err(failed)?;
    assemble(engine, faults, place).await
}

impl Embedded {
    /// The same store for somebody who may do only what a guard allows; the rest is refused.
    pub fn guarded(&self, guard: Guard) -> Store {
        store(Connector::new(self.engine.clone(), self.faults.clone(), self.meter.clone(), Some(guard)))
    }

    /// Deletes the rows whose time is over, as DynamoDB does by itself; tells how many. To be called once every
    /// [`SWEEP_INTERVAL`]; other requests are served meanwhile.
    ///
    /// # Errors
    /// The database fails, or this is no longer open.
    pub async fn sweep_ttl(&self) -> Result<usize, crate::Error> {
        const OPERATION: &str = "sweep expired rows";
        let failed = |source| crate::Error::Unavailable { operation: OPERATION, source };
        let opened = self.engine.opened().ok_or_else(|| failed("the database is closed".into()))?;
        let swept = tokio::task::spawn_blocking(move || opened.database.sweep_ttl()).await;
        swept.map_err(|error| failed(error.into()))?.map_err(|error| failed(error.into()))
    }

    /// A task that sweeps for as long as it is polled.
    pub fn sweeping(&self) -> impl Future<Output = ()> + Send + 'static {
        let engine = Arc::downgrade(&self.engine);
        async move {
            loop {
                tokio::time::sleep(SWEEP_INTERVAL).await;
                let Some(opened) = engine.upgrade().and_then(|engine| engine.opened()) else { return };
                match tokio::task::spawn_blocking(move || opened.database.sweep_ttl()).await {
                    Ok(Ok(swept)) => tracing::debug!(swept, "swept expired rows"),
                    Ok(Err(error)) => tracing::warn!(error = %error, "sweeping expired rows failed"),
                    Err(error) => tracing::error!(error = %error, "sweeping expired rows died"),
                }
            }
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.engine.stop();
    }
}

async fn assemble(engine: Engine, faults: Faults, place: String) -> Result<Embedded, OpenError> {
    let engine = Arc::new(engine);
    let meter = Meter::default();
    let store = store(Connector::new(engine.clone(), faults.clone(), meter.clone(), None));
    // From here on a failure drops it, which closes the database.
    let embedded = Embedded { store, faults, meter, engine };
    let made = embedded.store.create_tables().await;
    made.map_err(|error| OpenError::Database { place, source: error.into() })?;
    Ok(embedded)
}

fn store(connector: Connector) -> Store {
    Store::over(config(connector), Tables { config: "config".to_owned(), history: "history".to_owned() })
}

/// Takes the folder for this process: the lock goes with the returned file, and with the process however it ends.
fn lock(folder: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Folder { folder: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut options = File::options();
    let file = options.create(true).truncate(false).write(true).open(folder.join(LOCK_FILE)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { folder: folder.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Makes the database's file, if it is missing, readable for this user alone; SQLite gives its log the same mode.
fn make_private(path: &Path) -> std::io::Result<()> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// How the SDK's client is set up: without what only a network needs (signatures, endpoint rules, stalled-stream
/// checks), and with a retry budget of its own.
fn config(connector: Connector) -> Builder {
    Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("local"))
        .allow_no_auth()
        .auth_scheme_resolver(Local)
        .endpoint_resolver(Local)
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .retry_config(RetryConfig::standard().with_max_attempts(10).with_initial_backoff(Duration::from_millis(2)))
        .retry_partition(RetryPartition::custom("embedded").token_bucket(TokenBucket::unlimited()).build())
        .http_client(connector)
}

/// Where requests go and how they are signed: nowhere, and not at all.
#[derive(Debug)]
struct Local;

impl auth::ResolveAuthScheme for Local {
    fn resolve_auth_scheme<'a>(
        &'a self,
        _: &'a auth::Params,
        _: &'a ConfigBag,
        _: &'a RuntimeComponents,
    ) -> AuthSchemeOptionsFuture<'a> {
        AuthSchemeOptionsFuture::ready(Ok(vec![AuthSchemeOption::from(AuthSchemeId::new("noAuth"))]))
    }
}

impl ResolveEndpoint for Local {
    fn resolve_endpoint<'a>(&'a self, _: &'a Params) -> EndpointFuture<'a> {
        EndpointFuture::ready(Ok(Endpoint::builder().url("http://local").build()))
    }
}

struct SweepClock(Clock);

impl dynoxide::storage_backend::Clock for SweepClock {
    fn now_unix_secs(&self) -> u64 {
        u64::try_from(self.0.now().as_second()).unwrap_or(0)
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit a float's 53 bits")]
    fn now_unix_secs_f64(&self) -> f64 {
        self.0.now().as_millisecond() as f64 / 1_000.0
    }
}
