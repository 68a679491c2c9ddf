//! The audit log: `audit#{tenant}` (or `audit#platform`) / entry, in `history`. Entries are put where there is none, in the
//! transaction of the change that they tell of ([`Store::audited`]), and never changed.

use std::time::Duration;

use jiff::Timestamp;
use tidegate_model::{AuditEntry, AuditId, TenantId};

use crate::items::{Item, PK, SK, document, expiry, row};
use crate::list::Walk;
use crate::tables::TTL;
use crate::{Error, Page, Store};

/// How long entries are kept.
pub const AUDIT_RETENTION: Duration = Duration::from_secs(400 * 86_400);

/// The audit log.
#[derive(Debug, Clone, Copy)]
pub struct AuditLog<'a>(pub(crate) &'a Store);

/// Which entries: those that fulfil everything that is said.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// At this time or later.
    pub from: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// Of this action, or of those that begin so where it ends with `.`.
    pub action: Option<String>,
    /// Of this principal.
    pub principal: Option<String>,
    /// About this target.
    pub target: Option<String>,
}

impl AuditFilter {
    fn matches(&self, entry: &AuditEntry) -> bool {
        let action = |wanted: &String| match wanted.ends_with('.') {
            true => entry.action.starts_with(wanted.as_str()),
            false => entry.action == *wanted,
        };
        let principal = || entry.actor.principal.map(|principal| principal.to_string());
        self.from.is_none_or(|from| entry.at >= from)
            && self.until.is_none_or(|until| entry.at < until)
            && self.action.as_ref().is_none_or(action)
            && self.principal.as_ref().is_none_or(|wanted| principal().as_ref() == Some(wanted))
            && self.target.as_ref().is_none_or(|wanted| entry.target == *wanted)
    }
}

impl AuditLog<'_> {
    /// A page of a tenant's log (`None`: the installation's own), newest first. Entries that don't match are read and left
    /// out, so a page may be short, even empty, and not be the last.
    ///
    /// # Errors
    /// [`Error::InvalidCursor`]; the database is away, or an entry is unreadable.
    pub async fn list(
        &self,
        tenant: Option<TenantId>,
        filter: &AuditFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<AuditEntry>, Error> {
        const OPERATION: &str = "list audit log";
        let partition = partition(tenant);
        // Ids sort by time: those of `until` and later aren't read at all.
        let below = filter.until.map(|until| AuditId::new(until, [0; 10]).to_string());
        let walk = Walk {
            table: self.0.history_table(),
            index: None,
            hash: PK,
            range: SK,
            partition: &partition,
            below: below.as_deref(),
        };
        let page: Page<AuditEntry> =
            self.0.page(OPERATION, walk, cursor, limit, |item| document(OPERATION, item)).await?;
        // Past the first one that is too old there are only older ones.
        let over = page.items.last().is_some_and(|oldest| filter.from.is_some_and(|from| oldest.at < from));
        let Page { items, next_cursor } = page;
        let items = items.into_iter().filter(|entry| filter.matches(entry)).collect();
        Ok(Page { items, next_cursor: next_cursor.filter(|_| !over) })
    }
}

/// An entry's row.
pub(crate) fn item(operation: &'static str, entry: &AuditEntry) -> Result<Item, Error> {
    let mut item = row(operation, partition(entry.tenant), entry.id, entry)?;
    item.insert(TTL.to_owned(), expiry(entry.at, AUDIT_RETENTION));
    Ok(item)
}

fn partition(tenant: Option<TenantId>) -> String {
    tenant.map_or_else(|| "audit#platform".to_owned(), |tenant| format!("audit#{tenant}"))
}
