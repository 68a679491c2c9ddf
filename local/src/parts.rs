//! Puts the product together: opens the embedded parts and gives each function the ones it may use.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use ipnet::IpNet;
use tidegate_auth::{Passwords, Registration, TokenSigner};
use tidegate_connections::Connections;
use tidegate_egress::{Egress, EgressSettings};
use tidegate_http::{Api, Authenticator, Health, ISSUER, RateLimiter, TokenVerifier};
use tidegate_model::{Every, Limits, Message, ReconcileMessage, Recurrence};
use tidegate_platform::blobs::folder::FolderBlobs;
use tidegate_platform::key_service::key_file::KeyFile;
use tidegate_platform::mail::LogMailer;
use tidegate_platform::mail::smtp::SmtpMailer;
use tidegate_platform::queue::{EmbeddedQueue, EmbeddedSettings, OutgoingMessage};
use tidegate_platform::scheduler::{Timer, When};
use tidegate_platform::{Clock, Envelope, Ids, Mailer, Queue as _, Scheduler as _};
use tidegate_store::embedded::{self, Embedded, Faults, Location};

use crate::settings::Serve;

/// Holds the master key, which opens every other one.
const KEY_FILE: &str = "master.key";
/// The timer that has schedules held against their workflows.
const RECONCILE: &str = "reconcile";
/// The OpenAPI document of all operations; a test holds it against them.
const OPENAPI: &str = include_str!("../../docs/openapi.json");
/// How long a message may be handled before it comes again: the worker's time and a margin.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(330);
/// After so many receives a message becomes a dead letter.
const MAX_RECEIVE_COUNT: u32 = 25;

/// What an installation decides.
pub(crate) struct Installation {
    /// Who may register.
    registration: Registration,
    /// How much a tenant may ask for that has no limits of its own.
    limits: Limits,
    mailer: Arc<dyn Mailer>,
}

impl Installation {
    /// Nobody may register, nothing is limited, mail goes into the log.
    pub(crate) fn closed() -> Self {
        Self { registration: Registration::Closed, limits: Limits::default(), mailer: Arc::new(LogMailer) }
    }

    fn new(settings: &Serve) -> anyhow::Result<Self> {
        let (registration, limits) = (settings.registration(), settings.rate_limits);
        Ok(Self { registration, limits, mailer: mailer(settings)? })
    }
}

/// The embedded parts.
pub(crate) struct Parts {
    pub(crate) embedded: Embedded,
    pub(crate) queue: Arc<EmbeddedQueue>,
    pub(crate) blobs: Arc<FolderBlobs>,
    pub(crate) clock: Clock,
    pub(crate) ids: Ids,
    envelope: Envelope,
    signer: TokenSigner,
    installation: Installation,
    /// Holds what [`Parts::in_memory`] needs on disk.
    _scratch: Option<tempfile::TempDir>,
}

impl Parts {
    /// Opens the parts in the data folder, which is made if it is missing and belongs to this process until it ends.
    pub(crate) async fn open(settings: &Serve) -> anyhow::Result<Self> {
        Self::open_folder(&settings.data_dir, Installation::new(settings)?).await
    }

    /// The same, for any installation.
    pub(crate) async fn open_folder(folder: &Path, installation: Installation) -> anyhow::Result<Self> {
        // What lies in it is for its owner alone: messages hold what webhooks brought.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("can't make the data folder {}", folder.display()))?;
        let key = folder.join(KEY_FILE);
        if folder.join(embedded::DATABASE_FILE).exists() && !key.exists() {
            bail!(
                "{} is missing, and without it no secret in the data folder can be opened: restore it from a backup, or \
                 start on another folder",
                key.display()
            );
        }
        let embedded = embedded::open(Location::Folder(folder), Faults::default()).await?;
        let parts = Self::over(embedded, folder, Some(&folder.join("queue.db")), installation, None)?;
        parts.signer.ready().await.with_context(|| {
            format!("the data folder's keys can't be opened; is {} the one that they were made with?", key.display())
        })?;
        Ok(parts)
    }

    /// Parts that are gone with the process; what the OpenAPI document is made from.
    pub(crate) async fn in_memory() -> anyhow::Result<Self> {
        let scratch = tempfile::tempdir()?;
        let embedded = embedded::open(Location::Memory, Faults::default()).await?;
        let folder = scratch.path().to_owned();
        let installation = Installation { registration: Registration::Open, ..Installation::closed() };
        Self::over(embedded, &folder, None, installation, Some(scratch))
    }

    fn over(
        embedded: Embedded,
        folder: &Path,
        queue: Option<&Path>,
        installation: Installation,
        scratch: Option<tempfile::TempDir>,
    ) -> anyhow::Result<Self> {
        let clock = Clock::system();
        let keys = KeyFile::open_or_create(&folder.join(KEY_FILE))?;
        let settings =
            EmbeddedSettings { visibility_timeout: VISIBILITY_TIMEOUT, max_receive_count: MAX_RECEIVE_COUNT };
        let queue = match queue {
            Some(path) => EmbeddedQueue::open(path, settings, clock.clone())?,
            None => EmbeddedQueue::in_memory(settings, clock.clone())?,
        };
        let envelope = Envelope::new(Arc::new(keys), clock.clone());
        let ids = Ids::new(clock.clone());
        let store = embedded.store.clone();
        Ok(Self {
            embedded,
            queue: Arc::new(queue),
            blobs: Arc::new(FolderBlobs::open(&folder.join("blobs"), clock.clone())?),
            signer: TokenSigner::new(store, envelope.clone(), ISSUER, clock.clone(), ids.clone()),
            envelope,
            ids,
            clock,
            installation,
            _scratch: scratch,
        })
    }

    /// Has schedules held against their workflows, now and each day: what a schedule of the deployment does on AWS.
    pub(crate) async fn reconcile(&self) -> anyhow::Result<()> {
        let message = Message::Reconcile(ReconcileMessage::default());
        let (tenant, body) = (message.tenant(), serde_json::to_string(&message)?);
        let day = Every::from_minutes(24 * 60).context("a day is an interval")?;
        let recurrence = Recurrence::every(day, self.clock.now().checked_add(day.duration())?);
        let when = When::Recurring(Box::new(recurrence));
        let timer = Timer { tenant, name: RECONCILE.to_owned(), when, body: body.clone() };
        self.queue.scheduler().put(timer).await?;
        Ok(self.queue.send(OutgoingMessage::new(tenant, body)).await?)
    }

    /// How much may be asked for.
    pub(crate) fn limiter(&self) -> RateLimiter {
        RateLimiter::new(self.embedded.store.clone(), self.clock.clone(), self.installation.limits)
    }

    /// What the auth function has. `public_url`: where people reach the process.
    pub(crate) fn auth(&self, public_url: &str, limiter: &RateLimiter) -> anyhow::Result<tidegate_auth::Deps> {
        let store = self.embedded.store.clone();
        let verifier = TokenVerifier::new(store.clone(), ISSUER, self.clock.clone());
        let authenticator = Authenticator::new(verifier, store.clone(), self.clock.clone(), limiter.clone());
        Ok(tidegate_auth::Deps {
            store,
            envelope: self.envelope.clone(),
            signer: self.signer.clone(),
            authenticator,
            passwords: Passwords::new(std::thread::available_parallelism()?.get()),
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            mailer: self.installation.mailer.clone(),
            settings: tidegate_auth::Settings::new(self.installation.registration, public_url),
        })
    }

    /// The same, where files can be downloaded by links that begin with an address.
    pub(crate) fn with_links(self, address: &str) -> anyhow::Result<Self> {
        let blobs = Arc::new((*self.blobs).clone().with_links(address)?);
        Ok(Self { blobs, ..self })
    }

    /// The way out to the ranges that are public, and to these.
    pub(crate) fn egress(&self, allow: Vec<IpNet>, extra_roots: Vec<Vec<u8>>) -> Egress {
        let settings = EgressSettings { allow, extra_roots, ..EgressSettings::default() };
        Egress::new(settings, self.envelope.clone())
    }

    /// Every operation of every function. `public_url`: where people reach the process.
    pub(crate) fn api(&self, public_url: &str, egress: &Egress) -> anyhow::Result<Api> {
        let store = self.embedded.store.clone();
        let (envelope, clock, ids) = (self.envelope.clone(), self.clock.clone(), self.ids.clone());
        let limiter = self.limiter();
        let auth = self.auth(public_url, &limiter)?;
        let authenticator = auth.authenticator.clone();
        let workflows = tidegate_workflows::Deps {
            store: store.clone(),
            scheduler: Arc::new(self.queue.scheduler()),
            queue: self.queue.clone(),
            blobs: self.blobs.clone(),
            connections: Connections::new(store.clone(), egress.clone(), self.blobs.clone(), clock.clone()),
            envelope,
            authenticator: authenticator.clone(),
            clock: clock.clone(),
            ids: ids.clone(),
            settings: tidegate_workflows::Settings { public_url: Some(public_url.to_owned()) },
        };
        let webhooks = tidegate_webhooks::Deps {
            store: store.clone(),
            queue: self.queue.clone(),
            blobs: self.blobs.clone(),
            envelope: self.envelope.clone(),
            limiter,
            clock: clock.clone(),
            ids: ids.clone(),
            public_url: Some(public_url.to_owned()),
        };
        let (queue, blobs) = (self.queue.clone(), self.blobs.clone());
        let admin = tidegate_admin::Deps {
            store: store.clone(),
            authenticator: authenticator.clone(),
            clock: clock.clone(),
            ids: ids.clone(),
        };
        let runs = tidegate_runs::Deps { store, blobs, queue, authenticator, clock, ids };
        let api = tidegate_auth::api(auth)
            .merge(tidegate_workflows::api(workflows))
            .merge(tidegate_webhooks::api(webhooks))
            .merge(tidegate_runs::api(runs))
            .merge(tidegate_admin::api(admin))
            .merge(self.health().api())
            .merge(tidegate_http::error_pages());
        Ok(api.with_document(OPENAPI))
    }

    /// The worker, as a process of its own name that alone owns the data. `url`: where the process listens.
    pub(crate) fn worker(&self, settings: &Serve, url: &str, egress: Egress) -> anyhow::Result<tidegate_worker::Deps> {
        let process = self.ids.entropy().map(|byte| format!("{byte:02x}")).concat();
        let public_url = settings.public_url(url);
        Ok(tidegate_worker::Deps::new(
            self.embedded.store.clone(),
            self.queue.clone(),
            Arc::new(self.queue.scheduler()),
            self.blobs.clone(),
            egress,
            self.envelope.clone(),
            self.clock.clone(),
            tidegate_worker::Settings { public_url, ..tidegate_worker::Settings::new(process, true) },
        ))
    }

    fn health(&self) -> Health {
        let queue = self.queue.clone();
        let store = self.embedded.store.clone();
        Health::default()
            .ready("queue", move || {
                let queue = queue.clone();
                async move { queue.depth().await.map(drop).map_err(Into::into) }
            })
            .ready("store", move || {
                let store = store.clone();
                async move { store.signing_keys().ring().await.map(drop).map_err(Into::into) }
            })
    }
}

/// Mail by the server of the settings, or into the log.
fn mailer(settings: &Serve) -> anyhow::Result<Arc<dyn Mailer>> {
    let Some(url) = &settings.smtp_url else { return Ok(Arc::new(LogMailer)) };
    let from = settings.mail_from.as_deref().context("--mail-from is missing; it says from whom mails come")?;
    Ok(Arc::new(SmtpMailer::new(url.expose(), from)?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use clap::Parser;

    use super::*;
    use crate::settings::{Cli, Command};

    #[tokio::test]
    async fn the_kept_openapi_document_is_the_codes() {
        let parts = Parts::in_memory().await.unwrap();
        let document = parts
            .api("http://localhost", &parts.egress(Vec::new(), Vec::new()))
            .unwrap()
            .document()
            .to_pretty_json()
            .unwrap();
        let kept = OPENAPI;
        assert!(
            document.trim() == kept.trim(),
            "docs/openapi.json is not what the code says; if the change is meant: \
             cargo run -p tidegate -- openapi > docs/openapi.json"
        );
    }

    async fn open(folder: &Path) -> anyhow::Result<Parts> {
        let folder = folder.to_str().unwrap();
        let cli = Cli::parse_from(["tidegate", "serve", "--data-dir", folder, "--port", "0"]);
        let Command::Serve(settings) = cli.command else { unreachable!("it is serve") };
        Parts::open(&settings).await
    }

    #[test]
    fn the_mail_servers_password_is_not_printed() {
        let serve = |url: &str| {
            let cli = Cli::try_parse_from(["tidegate", "serve", "--smtp-url", url, "--mail-from", "a@example.com"]);
            let Command::Serve(settings) = cli.unwrap().command else { unreachable!("it is serve") };
            settings
        };
        let settings = serve("smtp://user:hunter2@mail.example.com:587");
        assert!(!format!("{settings:?}").contains("hunter2") && mailer(&settings).is_ok());
        let refused = mailer(&serve("http://user:hunter2@mail.example.com")).err().unwrap();
        assert!(!format!("{refused:?}").contains("hunter2"), "{refused:?}");
        let without = Cli::try_parse_from(["tidegate", "serve", "--smtp-url", "smtp://user:hunter2@mail.example.com"]);
        assert!(!without.unwrap_err().to_string().contains("hunter2"));
    }

    #[tokio::test]
    async fn the_data_folder_is_private_and_opens_with_its_own_key_only() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("data");
        drop(open(&folder).await.unwrap());
        for file in ["master.key", "queue.db", "store.db"] {
            let mode = std::fs::metadata(folder.join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{file}");
        }

        let key = folder.join("master.key");
        let own = std::fs::read(&key).unwrap();
        std::fs::write(&key, [7; 32]).unwrap();
        let refused = format!("{:#}", open(&folder).await.err().unwrap());
        assert!(refused.contains("can't be opened"), "{refused}");
        std::fs::remove_file(&key).unwrap();
        let refused = format!("{:#}", open(&folder).await.err().unwrap());
        assert!(refused.contains("is missing"), "{refused}");
        assert!(!key.exists(), "no other key is made in its place");

        std::fs::write(&key, own).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        drop(open(&folder).await.unwrap());
    }
}
