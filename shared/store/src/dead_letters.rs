//! Dead letters: `dead#{tenant}` / id of the run that was given up. They expire as final runs do.

use jiff::Timestamp;
use tidegate_model::{DeadLetter, Redriven, RunId, TenantId};

use crate::items::{DOC, Item, PK, SK, document, expiry, key, row, string, text, to_json};
use crate::list::Walk;
use crate::tables::TTL;
use crate::write::{Condition, Outcome};
use crate::{Error, Page, Store};

/// Runs that were given up, with what they started from.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetters<'a>(pub(crate) &'a Store);

impl DeadLetters<'_> {
    /// Stores a dead letter; where the run has one already, that one stands. It expires a retention after
    /// `given_up_at`.
    ///
    /// # Errors
    /// The database is away; [`Error::Refused`] for one over 400 KB.
    pub async fn put(&self, letter: &DeadLetter) -> Result<(), Error> {
        const OPERATION: &str = "store dead letter";
        let item = || {
            let mut item = row(OPERATION, partition(letter.tenant), letter.id, letter)?;
            item.insert(TTL.to_owned(), expiry(letter.given_up_at, self.0.inner.retention));
            Ok(item)
        };
        match self.0.put(OPERATION, self.0.history_table(), item, Condition::Absent).await? {
            Outcome::Written | Outcome::Refused(_) => Ok(()),
        }
    }

    /// A tenant's dead letter.
    ///
    /// # Errors
    /// The database is away, or the letter is unreadable.
    pub async fn get(&self, tenant: TenantId, id: RunId) -> Result<Option<DeadLetter>, Error> {
        const OPERATION: &str = "read dead letter";
        let found = self.0.read(OPERATION, self.0.history_table(), key(partition(tenant), id)).await?;
        found.as_ref().map(|item| document(OPERATION, item)).transpose()
    }

    /// A page of a tenant's dead letters, those of the newest runs first. One given up a moment ago may be missing.
    ///
    /// # Errors
    /// [`Error::InvalidCursor`]; the database is away, or a letter is unreadable.
    pub async fn list(&self, tenant: TenantId, cursor: Option<&str>, limit: usize) -> Result<Page<DeadLetter>, Error> {
        const OPERATION: &str = "list dead letters";
        let partition = partition(tenant);
        let walk = Walk {
            table: self.0.history_table(),
            index: None,
            hash: PK,
            range: SK,
            partition: &partition,
            below: None,
        };
        self.0.page(OPERATION, walk, cursor, limit, |item| document(OPERATION, item)).await
    }

    /// Notes under which id the letter's run is started again. Yields the id that stands: this one or the first.
    ///
    /// # Errors
    /// [`Error::Conflict`] where there is no such letter; the database is away, or the letter is unreadable.
    pub async fn mark_redriven(
        &self,
        tenant: TenantId,
        id: RunId,
        run_id: RunId,
        at: Timestamp,
    ) -> Result<RunId, Error> {
        const OPERATION: &str = "mark dead letter";
        let gone = Error::Conflict { operation: OPERATION };
        let table = self.0.history_table();
        let Some(stored) = self.0.read(OPERATION, table, key(partition(tenant), id)).await? else {
            return Err(gone);
        };
        let letter: DeadLetter = document(OPERATION, &stored)?;
        if let Some(redriven) = letter.redriven {
            return Ok(redriven.run_id);
        }
        let marked = DeadLetter { redriven: Some(Redriven { run_id, at }), ..letter };
        let document_text = to_json(OPERATION, DOC, &marked)?;
        let item = || {
            let mut item: Item = stored.clone();
            item.insert(DOC.to_owned(), text(&document_text));
            Ok(item)
        };
        let unmarked = Condition::Equals(vec![(DOC, text(string(OPERATION, &stored, DOC)?))]);
        match self.0.put(OPERATION, table, item, unmarked).await? {
            Outcome::Written => Ok(run_id),
            Outcome::Refused(Some(stored)) => {
                let letter: DeadLetter = document(OPERATION, &stored)?;
                // A letter changes only by being marked.
                letter.redriven.map(|redriven| redriven.run_id).ok_or(gone)
            }
            Outcome::Refused(None) => Err(gone),
        }
    }
}

fn partition(tenant: TenantId) -> String {
    format!("dead#{tenant}")
}
