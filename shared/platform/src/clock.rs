//! Time and ids, through one place that tests can set.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use jiff::Timestamp;
use tidegate_model::{
    ApiKeyId, AuditId, ConnectionId, InvitationId, RunId, ServiceAccountId, SessionId, TenantId, UserId, WorkflowId,
};

/// Tells the time: the system's, or one that a test sets and moves.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    manual_ms: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands still until it is moved.
    pub fn manual(at: Timestamp) -> Self {
        Self { manual_ms: Some(Arc::new(AtomicI64::new(at.as_millisecond()))) }
    }

    /// The time, to the millisecond.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the system's clock")]
    pub fn now(&self) -> Timestamp {
        let ms = match &self.manual_ms {
            Some(ms) => ms.load(Ordering::SeqCst),
            None => Timestamp::now().as_millisecond(),
        };
        Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
    }

    /// Whether the clock stands still until it is moved, so that it can't be waited for.
    pub fn is_manual(&self) -> bool {
        self.manual_ms.is_some()
    }

    /// Moves a manual clock; the system's clock stays as it is.
    pub fn advance(&self, by: std::time::Duration) {
        if let Some(ms) = &self.manual_ms {
            ms.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }
}

/// Makes ids: from the clock and the system's randomness, or counted from a seed so that a test knows them.
#[derive(Debug, Clone)]
pub struct Ids {
    clock: Clock,
    seed: Option<Arc<AtomicU64>>,
}

impl Ids {
    /// Ids with the system's randomness.
    pub fn new(clock: Clock) -> Self {
        Self { clock, seed: None }
    }

    /// Ids that count up from a seed.
    pub fn seeded(clock: Clock, seed: u64) -> Self {
        Self { clock, seed: Some(Arc::new(AtomicU64::new(seed))) }
    }

    /// Eighty bits that no id has had before.
    pub fn entropy(&self) -> [u8; 10] {
        let mut bytes = [0; 10];
        match &self.seed {
            Some(seed) => bytes[2..].copy_from_slice(&seed.fetch_add(1, Ordering::SeqCst).to_be_bytes()),
            None => {
                #[expect(clippy::expect_used, reason = "a system without randomness can make no ids")]
                getrandom::fill(&mut bytes).expect("the system's random number generator failed");
            }
        }
        bytes
    }

    /// A new run's id, tagged for its tenant.
    pub fn run(&self, tenant: TenantId) -> RunId {
        RunId::for_tenant(tenant, self.clock.now(), self.entropy())
    }
}

macro_rules! new_ids {
    ($($name:ident: $id:ident, $what:literal;)*) => {
        impl Ids {
            $(
                #[doc = concat!("The id of a new ", $what, ".")]
                pub fn $name(&self) -> $id {
                    $id::new(self.clock.now(), self.entropy())
                }
            )*
        }
    };
}

new_ids! {
    tenant: TenantId, "tenant";
    user: UserId, "user";
    workflow: WorkflowId, "workflow";
    connection: ConnectionId, "connection";
    service_account: ServiceAccountId, "service account";
    api_key: ApiKeyId, "API key";
    session: SessionId, "session";
    invitation: InvitationId, "invitation";
    audit: AuditId, "audit entry";
}
