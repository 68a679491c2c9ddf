//! AWS behind the ports, as a function's dependencies take it.

use std::sync::Arc;

use aws_types::SdkConfig;
use ipnet::IpNet;
use tidegate_egress::{Egress, EgressSettings};
use tidegate_http::{Authenticator, RateLimiter, TokenVerifier};
use tidegate_model::Limits;
use tidegate_platform::blobs::s3::{Addressing, S3Blobs};
use tidegate_platform::key_service::kms::Kms;
use tidegate_platform::mail::NoMailer;
use tidegate_platform::mail::ses::SesMailer;
use tidegate_platform::queue::SqsQueue;
use tidegate_platform::scheduler::{EventBridgeScheduler, EventBridgeSettings};
use tidegate_platform::{Clock, Envelope, Ids, Mailer};
use tidegate_store::{Store, Tables};

use crate::sdk;
use crate::settings::{SettingError, optional, optional_parsed, parsed, required};

/// AWS, as the environment says. Each method makes the port anew over the shared configuration; a function calls those
/// that its policy allows.
#[derive(Debug, Clone)]
pub struct Aws {
    config: SdkConfig,
    endpoint: Option<String>,
    /// The system's clock.
    pub clock: Clock,
    /// Ids with the system's randomness.
    pub ids: Ids,
}

impl Aws {
    pub(crate) fn from_environment() -> Result<Self, SettingError> {
        let (config, endpoint) = sdk::config()?;
        let clock = Clock::system();
        Ok(Self { config, endpoint, ids: Ids::new(clock.clone()), clock })
    }

    /// The store. Functions that may not touch the history table have no name for it.
    ///
    /// # Errors
    /// `TIDEGATE_CONFIG_TABLE` is missing.
    pub fn store(&self) -> Result<Store, SettingError> {
        let history = optional("TIDEGATE_HISTORY_TABLE").unwrap_or_default();
        Ok(Store::new(&self.config, Tables { config: required("TIDEGATE_CONFIG_TABLE")?, history }))
    }

    /// Recognises callers, and holds them to their limits.
    ///
    /// # Errors
    /// `TIDEGATE_RATE_LIMITS` can't be read.
    pub fn authenticator(&self, store: &Store) -> Result<Authenticator, SettingError> {
        let verifier = TokenVerifier::new(store.clone(), tidegate_http::ISSUER, self.clock.clone());
        Ok(Authenticator::new(verifier, store.clone(), self.clock.clone(), self.rate_limiter(store)?))
    }

    /// Rate limits; for tenants without their own those of `TIDEGATE_RATE_LIMITS`.
    ///
    /// # Errors
    /// That can't be read.
    pub fn rate_limiter(&self, store: &Store) -> Result<RateLimiter, SettingError> {
        let defaults: Limits = optional_parsed("TIDEGATE_RATE_LIMITS")?.unwrap_or_default();
        Ok(RateLimiter::new(store.clone(), self.clock.clone(), defaults))
    }

    /// Sends mail by SES from the address in `TIDEGATE_MAIL_FROM`; none where that isn't set.
    pub fn mailer(&self) -> Arc<dyn Mailer> {
        match optional("TIDEGATE_MAIL_FROM") {
            Some(from) => Arc::new(SesMailer::new(&self.config, from)),
            None => Arc::new(NoMailer),
        }
    }

    /// Where people reach the installation, where that isn't the API's own address: `TIDEGATE_PUBLIC_URL`.
    pub fn public_url(&self) -> Option<String> {
        optional("TIDEGATE_PUBLIC_URL")
    }

    /// Envelope encryption under the installation's KMS key.
    ///
    /// # Errors
    /// `TIDEGATE_KMS_KEY_ARN` is missing.
    pub fn envelope(&self) -> Result<Envelope, SettingError> {
        let kms = Kms::new(&self.config, required("TIDEGATE_KMS_KEY_ARN")?);
        Ok(Envelope::new(Arc::new(kms), self.clock.clone()))
    }

    /// The run queue, with its dead-letter queue where the function has its name.
    ///
    /// # Errors
    /// `TIDEGATE_RUN_QUEUE_URL` is missing.
    pub fn run_queue(&self) -> Result<Arc<SqsQueue>, SettingError> {
        let queue = SqsQueue::new(&self.config, required("TIDEGATE_RUN_QUEUE_URL")?);
        Ok(Arc::new(match optional("TIDEGATE_DEAD_LETTER_QUEUE_URL") {
            Some(dead_letters) => queue.with_dead_letters(dead_letters),
            None => queue,
        }))
    }

    /// Timers.
    ///
    /// # Errors
    /// One of `TIDEGATE_SCHEDULE_GROUP`, `TIDEGATE_SCHEDULE_ROLE_ARN`, `TIDEGATE_RUN_QUEUE_URL` and
    /// `TIDEGATE_DEAD_LETTER_QUEUE_ARN` is missing.
    pub fn scheduler(&self) -> Result<Arc<EventBridgeScheduler>, SettingError> {
        let settings = EventBridgeSettings {
            group: required("TIDEGATE_SCHEDULE_GROUP")?,
            role_arn: required("TIDEGATE_SCHEDULE_ROLE_ARN")?,
            queue_url: required("TIDEGATE_RUN_QUEUE_URL")?,
            dead_letter_arn: required("TIDEGATE_DEAD_LETTER_QUEUE_ARN")?,
        };
        Ok(Arc::new(EventBridgeScheduler::new(&self.config, settings, self.clock.clone())))
    }

    /// Blobs.
    ///
    /// # Errors
    /// `TIDEGATE_BLOBS_BUCKET` is missing.
    pub fn blobs(&self) -> Result<Arc<S3Blobs>, SettingError> {
        let addressing = if self.endpoint.is_some() { Addressing::Path } else { Addressing::Host };
        Ok(Arc::new(S3Blobs::new(&self.config, addressing, required("TIDEGATE_BLOBS_BUCKET")?)))
    }

    /// The way out. Loopback and link-local addresses stay closed whatever `TIDEGATE_EGRESS_ALLOW` says, for behind them
    /// are the function's credentials; except under an emulator on this very machine, where there are none.
    ///
    /// # Errors
    /// `TIDEGATE_EGRESS_ALLOW` holds something else than ranges.
    pub fn egress(&self, envelope: Envelope) -> Result<Egress, SettingError> {
        const NAME: &str = "TIDEGATE_EGRESS_ALLOW";
        let ranges = optional(NAME).unwrap_or_default();
        let range = |text: &str| {
            text.parse().map_err(|_| SettingError::Invalid {
                name: NAME,
                value: ranges.clone(),
                reason: format!("{text:?} is not a range such as 10.0.0.0/8"),
            })
        };
        let allow: Vec<IpNet> =
            ranges.split(',').map(str::trim).filter(|text| !text.is_empty()).map(range).collect::<Result<_, _>>()?;
        let emulated = self.endpoint.as_deref().is_some_and(sdk::is_on_this_machine);
        let settings =
            EgressSettings { allow, never_open_loopback_or_link_local: !emulated, ..EgressSettings::default() };
        Ok(Egress::new(settings, envelope))
    }

    /// A setting of the function's own, in its own type.
    ///
    /// # Errors
    /// It is missing, or holds something else.
    pub fn setting<T: std::str::FromStr<Err: ToString>>(&self, name: &'static str) -> Result<T, SettingError> {
        parsed(name)
    }
}
