//! What is known of webhooks' deliveries beside the runs that they start, in `history`: which came before, one row for each
//! under `once#{tenant}#{workflow}#{key}`; and under `hook#{tenant}#{workflow}` those that were captured to be looked at,
//! and those that were refused, one row for each process that refused some.

use std::time::Duration;

use jiff::Timestamp;
use tidegate_model::{CapturedDelivery, RejectedDeliveries, RunId, TenantId, WorkflowId};

use crate::items::{HEAD, document, expiry, key, row, string, text};
use crate::tables::TTL;
use crate::write::{Condition, Outcome};
use crate::{Error, Store};

/// Which run a delivery started.
const RUN: &str = "run";
/// Until when it is remembered: microseconds since 1970, as texts that sort as numbers do.
const UNTIL: &str = "until";
/// Rows are swept some time after they have expired; whoever sees one go looks again.
const MAX_TRIES: u32 = 3;
/// How many captured deliveries of a workflow are kept.
pub const CAPTURES: u8 = 10;
/// How long captured and refused deliveries can be looked at.
const RETENTION: Duration = Duration::from_secs(86_400);

/// What is known of webhooks' deliveries.
#[derive(Debug, Clone, Copy)]
pub struct Deliveries<'a>(pub(crate) &'a Store);

impl Deliveries<'_> {
    /// Remembers for a time that a delivery starts this run: one write. Where it is remembered already, the other run that it
    /// started then is returned.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn remember(
        &self,
        tenant: TenantId,
        workflow: WorkflowId,
        delivery: &str,
        run: RunId,
        now: Timestamp,
        remember: Duration,
    ) -> Result<Option<RunId>, Error> {
        const OPERATION: &str = "remember delivery";
        let until =
            now.as_microsecond().saturating_add_unsigned(u64::try_from(remember.as_micros()).unwrap_or(u64::MAX));
        let item = || {
            let mut item = key(format!("once#{tenant}#{workflow}#{delivery}"), HEAD);
            item.insert(RUN.to_owned(), text(run));
            item.insert(UNTIL.to_owned(), text(until));
            item.insert(TTL.to_owned(), expiry(now, remember));
            Ok(item)
        };
        for _ in 0..MAX_TRIES {
            let is_new = Condition::AbsentOrUpTo(UNTIL, text(now.as_microsecond()));
            match self.0.put(OPERATION, self.0.history_table(), item, is_new).await? {
                Outcome::Written => return Ok(None),
                Outcome::Refused(None) => {}
                Outcome::Refused(Some(stored)) => {
                    let before: RunId =
                        string(OPERATION, &stored, RUN)?.parse().map_err(|error: tidegate_model::IdError| {
                            Error::Corrupt { operation: OPERATION, what: RUN, source: error.into() }
                        })?;
                    // A write whose answer was lost finds its own row.
                    return Ok((before != run).then_some(before));
                }
            }
        }
        Err(Error::Conflict { operation: OPERATION })
    }

    /// Keeps a delivery to be looked at, in one of [`CAPTURES`] places.
    ///
    /// # Errors
    /// The database is away.
    pub async fn capture(
        &self,
        tenant: TenantId,
        workflow: WorkflowId,
        place: u8,
        delivery: &CapturedDelivery,
    ) -> Result<(), Error> {
        let place = format!("captured#{}", place % CAPTURES);
        self.keep("capture delivery", tenant, workflow, &place, delivery, delivery.at).await
    }

    /// What was captured of a workflow's deliveries, newest first.
    ///
    /// # Errors
    /// The database is away, or a row is unreadable.
    pub async fn captured(&self, tenant: TenantId, workflow: WorkflowId) -> Result<Vec<CapturedDelivery>, Error> {
        let mut found: Vec<CapturedDelivery> =
            self.kept("list captured deliveries", tenant, workflow, "captured#").await?;
        found.sort_by_key(|delivery| std::cmp::Reverse(delivery.at));
        Ok(found)
    }

    /// Keeps what a process has refused of a workflow's deliveries so far, in place of what it kept before.
    ///
    /// # Errors
    /// The database is away.
    pub async fn reject(
        &self,
        tenant: TenantId,
        workflow: WorkflowId,
        process: &str,
        rejected: &RejectedDeliveries,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.keep("count refused deliveries", tenant, workflow, &format!("rejected#{process}"), rejected, now).await
    }

    /// What each process has refused of a workflow's deliveries.
    ///
    /// # Errors
    /// The database is away, or a row is unreadable.
    pub async fn rejected(&self, tenant: TenantId, workflow: WorkflowId) -> Result<Vec<RejectedDeliveries>, Error> {
        self.kept("list refused deliveries", tenant, workflow, "rejected#").await
    }

    async fn keep<T: serde::Serialize>(
        &self,
        operation: &'static str,
        tenant: TenantId,
        workflow: WorkflowId,
        place: &str,
        value: &T,
        at: Timestamp,
    ) -> Result<(), Error> {
        let mut item = row(operation, partition(tenant, workflow), place, value)?;
        item.insert(TTL.to_owned(), expiry(at, RETENTION));
        let put = self.0.client().put_item().table_name(self.0.history_table()).set_item(Some(item));
        put.send().await.map(drop).map_err(|error| Error::from_sdk(operation, error))
    }

    async fn kept<T: serde::de::DeserializeOwned>(
        &self,
        operation: &'static str,
        tenant: TenantId,
        workflow: WorkflowId,
        prefix: &str,
    ) -> Result<Vec<T>, Error> {
        let partition = text(partition(tenant, workflow));
        let items = self.0.read_prefix(operation, self.0.history_table(), partition, prefix).await?;
        items.iter().map(|item| document(operation, item)).collect()
    }
}

fn partition(tenant: TenantId, workflow: WorkflowId) -> String {
    format!("hook#{tenant}#{workflow}")
}
