//! What reaches a waiting step from outside: in the run's journal partition, under sort keys that begin with `signal#`,
//! and expiring with the journal. Whoever writes a signal then looks whether the run waits, and wakes it; the run looks
//! for signals after it has parked. Every write is the first one's: a repetition changes nothing.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_model::{Approval, Decided, RunId, Signal, TenantId};

use super::Runs;
use super::journal::partition;
use crate::Error;
use crate::items::{DOC, Item, document, expiry, key, row, string, text, to_json};
use crate::tables::TTL;
use crate::write::{Condition, Outcome};

/// Sorts after every position of the journal.
pub(super) const PREFIX: &str = "signal#";

/// What a step of a run has heard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredSignal {
    /// The step's id.
    pub step: String,
    /// Which item of the step's list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
    /// What it heard.
    pub signal: Signal,
}

/// A row's document. Approvals are apart, because they are there before they say anything.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stored {
    Signal(StoredSignal),
    Approval { step: String, approval: Approval },
}

impl Runs<'_> {
    /// Stores what a step has heard, once: where there is a signal for it already, that one stands. It expires a
    /// retention after `expires_after`, as the run's journal does.
    ///
    /// # Errors
    /// The database is away; [`Error::Refused`] for a signal over 400 KB.
    pub async fn put_signal(
        &self,
        tenant: TenantId,
        id: RunId,
        step: &str,
        item: Option<u32>,
        signal: &Signal,
        expires_after: Timestamp,
    ) -> Result<(), Error> {
        let stored = Stored::Signal(StoredSignal { step: step.to_owned(), item, signal: signal.clone() });
        let sort = format!("{PREFIX}{step}#{}", item.map(|item| format!("{item:010}")).unwrap_or_default());
        self.put_once("store signal", tenant, id, &sort, &stored, expires_after).await
    }

    /// What the run's steps have heard, decided approvals included, without the journal.
    ///
    /// # Errors
    /// The database is away, or a signal is unreadable.
    pub async fn signals(&self, tenant: TenantId, id: RunId) -> Result<Vec<StoredSignal>, Error> {
        const OPERATION: &str = "read signals";
        let pk = text(partition(tenant, id));
        let items = self.0.read_prefix(OPERATION, self.0.history_table(), pk, PREFIX).await?;
        items.iter().filter_map(|item| heard(OPERATION, item).transpose()).collect()
    }

    /// Opens the approval that a step waits for; one that is open or decided already stays as it is. It expires a
    /// retention after `expires_after`.
    ///
    /// # Errors
    /// The database is away.
    pub async fn open_approval(
        &self,
        tenant: TenantId,
        id: RunId,
        step: &str,
        approval: &Approval,
        expires_after: Timestamp,
    ) -> Result<(), Error> {
        let stored = Stored::Approval { step: step.to_owned(), approval: approval.clone() };
        self.put_once("open approval", tenant, id, &approval_sort(step), &stored, expires_after).await
    }

    /// The approval that a step waits for, or has waited for.
    ///
    /// # Errors
    /// The database is away, or the approval is unreadable.
    pub async fn approval(&self, tenant: TenantId, id: RunId, step: &str) -> Result<Option<Approval>, Error> {
        const OPERATION: &str = "read approval";
        let found = self.0.read(OPERATION, self.0.history_table(), approval_key(tenant, id, step)).await?;
        found.as_ref().map(|item| read_approval(OPERATION, item)).transpose()
    }

    /// Decides an approval, once. Yields the decision that stands: this one or the first. `None`: there is no such
    /// approval. Whether the caller may decide, and may still, is the caller's to know.
    ///
    /// # Errors
    /// The database is away, or the approval is unreadable.
    pub async fn decide(
        &self,
        tenant: TenantId,
        id: RunId,
        step: &str,
        decided: &Decided,
    ) -> Result<Option<Decided>, Error> {
        const OPERATION: &str = "decide approval";
        let table = self.0.history_table();
        let Some(open) = self.0.read(OPERATION, table, approval_key(tenant, id, step)).await? else {
            return Ok(None);
        };
        let approval = read_approval(OPERATION, &open)?;
        if approval.decided.is_some() {
            return Ok(approval.decided);
        }
        let stored = Stored::Approval {
            step: step.to_owned(),
            approval: Approval { decided: Some(decided.clone()), ..approval },
        };
        let document = to_json(OPERATION, DOC, &stored)?;
        let item = || {
            let mut item = open.clone();
            item.insert(DOC.to_owned(), text(&document));
            Ok(item)
        };
        let undecided = Condition::Equals(vec![(DOC, text(string(OPERATION, &open, DOC)?))]);
        match self.0.put(OPERATION, table, item, undecided).await? {
            Outcome::Written => Ok(Some(decided.clone())),
            // An approval changes only by being decided.
            Outcome::Refused(Some(stored)) => Ok(read_approval(OPERATION, &stored)?.decided),
            Outcome::Refused(None) => Ok(None),
        }
    }

    async fn put_once(
        &self,
        operation: &'static str,
        tenant: TenantId,
        id: RunId,
        sort: &str,
        stored: &Stored,
        expires_after: Timestamp,
    ) -> Result<(), Error> {
        let item = || {
            let mut item = row(operation, partition(tenant, id), sort, stored)?;
            item.insert(TTL.to_owned(), expiry(expires_after, self.0.inner.retention));
            Ok(item)
        };
        match self.0.put(operation, self.0.history_table(), item, Condition::Absent).await? {
            Outcome::Written | Outcome::Refused(_) => Ok(()),
        }
    }
}

/// What a row of this kind tells a step; `None` for an approval that is open.
pub(super) fn heard(operation: &'static str, item: &Item) -> Result<Option<StoredSignal>, Error> {
    Ok(match document(operation, item)? {
        Stored::Signal(signal) => Some(signal),
        Stored::Approval { step, approval } => {
            approval.decided.map(|decided| StoredSignal { step, item: None, signal: Signal::Decided(decided) })
        }
    })
}

fn read_approval(operation: &'static str, item: &Item) -> Result<Approval, Error> {
    match document(operation, item)? {
        Stored::Approval { approval, .. } => Ok(approval),
        Stored::Signal(_) => Err(Error::Corrupt { operation, what: DOC, source: "not an approval".into() }),
    }
}

fn approval_key(tenant: TenantId, id: RunId, step: &str) -> Item {
    key(partition(tenant, id), approval_sort(step))
}

/// No signal's: those end with an item's number or with nothing.
fn approval_sort(step: &str) -> String {
    format!("{PREFIX}{step}#approval")
}
