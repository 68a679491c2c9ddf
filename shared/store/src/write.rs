//! Conditional writes that may be repeated. A connection that breaks after the database applied a write makes the SDK
//! send it again, and the repetition fails its own condition; so a failed condition whose stored row is the one we
//! were writing is success.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::error::{BuildError, SdkError};
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    AttributeValue, CancellationReason, ConditionCheck, Delete, Put, ReturnValuesOnConditionCheckFailure,
    TransactWriteItem,
};

use crate::items::{Item, PK};
use crate::{Error, Store, audit};

const MAX_TRANSACTION_ATTEMPTS: u32 = 8;
const FIRST_TRANSACTION_DELAY: Duration = Duration::from_millis(5);

/// A condition on the stored row.
#[derive(Debug, Clone)]
pub(crate) enum Condition {
    /// There is no row.
    Absent,
    /// There is a row.
    Present,
    /// The row's attributes have these values.
    Equals(Vec<(&'static str, AttributeValue)>),
    /// There is no row, or its attribute is this text or one that sorts before it.
    AbsentOrUpTo(&'static str, AttributeValue),
    /// The row's attributes have these values, and it has no attribute of this name.
    EqualsWithout(Vec<(&'static str, AttributeValue)>, &'static str),
}

/// What became of a conditional put.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The row is as we wrote it.
    Written,
    /// The condition failed; here is the row, if there is one.
    Refused(Option<Item>),
}

/// A row to write within a transaction.
#[derive(Debug, Clone)]
pub(crate) struct ConditionalPut {
    pub(crate) item: Item,
    pub(crate) condition: Condition,
}

/// A part of a transaction.
#[derive(Debug, Clone)]
pub(crate) enum Write<'a> {
    /// Writes a row on a condition.
    Put { table: &'a str, item: Item, condition: Condition },
    /// Deletes a row, on a condition if there is one.
    Delete { table: &'a str, key: Item, condition: Option<Condition> },
    /// Writes nothing: the row has to be there.
    Present { table: &'a str, key: Item },
}

impl Write<'_> {
    fn build(&self, operation: &'static str) -> Result<TransactWriteItem, Error> {
        let refused = |source: BuildError| Error::Refused { operation, source: source.into() };
        let on_failure = ReturnValuesOnConditionCheckFailure::AllOld;
        match self {
            Write::Put { table, item, condition } => {
                let put = Put::builder()
                    .table_name(*table)
                    .set_item(Some(item.clone()))
                    .condition_expression(condition.expression())
                    .set_expression_attribute_names(condition.names())
                    .set_expression_attribute_values(condition.clone().values())
                    .return_values_on_condition_check_failure(on_failure);
                Ok(TransactWriteItem::builder().put(put.build().map_err(refused)?).build())
            }
            Write::Delete { table, key, condition } => {
                let delete = Delete::builder()
                    .table_name(*table)
                    .set_key(Some(key.clone()))
                    .set_condition_expression(condition.as_ref().map(Condition::expression))
                    .set_expression_attribute_names(condition.as_ref().and_then(Condition::names))
                    .set_expression_attribute_values(condition.clone().and_then(Condition::values))
                    .return_values_on_condition_check_failure(on_failure);
                Ok(TransactWriteItem::builder().delete(delete.build().map_err(refused)?).build())
            }
            Write::Present { table, key } => {
                let check = ConditionCheck::builder()
                    .table_name(*table)
                    .set_key(Some(key.clone()))
                    .condition_expression(Condition::Present.expression());
                Ok(TransactWriteItem::builder().condition_check(check.build().map_err(refused)?).build())
            }
        }
    }
}

/// Whether the stored rows say that a transaction whose conditions fail is the repetition of one that succeeded: what it
/// puts is there as it puts it. One of deletes alone says nothing of itself.
fn is_written(writes: &[Write<'_>], stored: &[Option<Item>]) -> bool {
    let mut puts = writes.iter().zip(stored).filter_map(|(write, stored)| match write {
        Write::Put { item, .. } => Some(stored.as_ref() == Some(item)),
        Write::Delete { .. } | Write::Present { .. } => None,
    });
    stored.len() == writes.len() && puts.next().is_some_and(|first| first) && puts.all(|written| written)
}

impl Condition {
    fn expression(&self) -> String {
        let equal = |values: &[_]| {
            let terms: Vec<_> = (0..values.len()).map(|i| format!("#c{i} = :c{i}")).collect();
            terms.join(" AND ")
        };
        match self {
            Condition::Absent => format!("attribute_not_exists({PK})"),
            Condition::Present => format!("attribute_exists({PK})"),
            Condition::AbsentOrUpTo(..) => format!("attribute_not_exists({PK}) OR #c0 <= :c0"),
            Condition::Equals(values) => equal(values),
            Condition::EqualsWithout(values, _) => format!("{} AND attribute_not_exists(#absent)", equal(values)),
        }
    }

    fn names(&self) -> Option<HashMap<String, String>> {
        let equal = |values: &[(&'static str, _)]| {
            values.iter().enumerate().map(|(i, (name, _))| (format!("#c{i}"), (*name).to_owned())).collect()
        };
        match self {
            Condition::Absent | Condition::Present => None,
            Condition::AbsentOrUpTo(name, value) => Some(equal(&[(*name, value.clone())])),
            Condition::Equals(values) => Some(equal(values)),
            Condition::EqualsWithout(values, absent) => {
                let mut names: HashMap<_, _> = equal(values);
                names.insert("#absent".to_owned(), (*absent).to_owned());
                Some(names)
            }
        }
    }

    fn values(self) -> Option<Item> {
        match self {
            Condition::Absent | Condition::Present => None,
            Condition::AbsentOrUpTo(_, value) => Some(Item::from([(":c0".to_owned(), value)])),
            Condition::Equals(values) | Condition::EqualsWithout(values, _) => {
                Some(values.into_iter().enumerate().map(|(i, (_, value))| (format!(":c{i}"), value)).collect())
            }
        }
    }
}

impl Store {
    /// Writes a row on a condition: one write, no read. `item` is called again only when the condition failed. Where the
    /// handle has an audit entry, that is written in the same transaction.
    pub(crate) async fn put(
        &self,
        operation: &'static str,
        table: &str,
        item: impl Fn() -> Result<Item, Error>,
        condition: Condition,
    ) -> Result<Outcome, Error> {
        if self.audit.is_some() {
            let writes = vec![Write::Put { table, item: item()?, condition }];
            return Ok(match self.transact(operation, writes).await? {
                Ok(()) => Outcome::Written,
                Err(stored) => Outcome::Refused(stored.into_iter().next().flatten()),
            });
        }
        let request = self
            .client()
            .put_item()
            .table_name(table)
            .set_item(Some(item()?))
            .condition_expression(condition.expression())
            .set_expression_attribute_names(condition.names())
            .set_expression_attribute_values(condition.values())
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match request.send().await {
            Ok(_) => Ok(Outcome::Written),
            Err(SdkError::ServiceError(error)) if error.err().is_conditional_check_failed_exception() => {
                let PutItemError::ConditionalCheckFailedException(failure) = error.into_err() else {
                    return Ok(Outcome::Refused(None));
                };
                let stored = failure.item;
                let written = stored.is_some() && stored == Some(item()?);
                Ok(if written { Outcome::Written } else { Outcome::Refused(stored) })
            }
            Err(error) => Err(Error::from_sdk(operation, error)),
        }
    }

    /// Writes rows of one table in one transaction, all or none, with the handle's audit entry. `Err` inside: the stored
    /// rows, in order, of those conditions that failed.
    pub(crate) async fn transact_put(
        &self,
        operation: &'static str,
        table: &str,
        puts: Vec<ConditionalPut>,
    ) -> Result<Result<(), Vec<Option<Item>>>, Error> {
        let put = |ConditionalPut { item, condition }| Write::Put { table, item, condition };
        self.transact(operation, puts.into_iter().map(put).collect()).await
    }

    /// Deletes rows of one table (at most 99) in one transaction, with the handle's audit entry. Of several who delete one row
    /// at once, each with an entry, one does; the others get `false`, and the log has it once.
    pub(crate) async fn transact_delete(
        &self,
        operation: &'static str,
        table: &str,
        keys: &[Item],
    ) -> Result<bool, Error> {
        let only_one = keys.len() == 1 && self.audit.is_some();
        let delete =
            |key: &Item| Write::Delete { table, key: key.clone(), condition: only_one.then_some(Condition::Present) };
        match self.transact(operation, keys.iter().map(delete).collect()).await? {
            Ok(()) => Ok(true),
            Err(_) if only_one => Ok(false),
            Err(_) => Err(Error::Conflict { operation }),
        }
    }

    /// Writes and deletes in one transaction (at most 99), all or none, with the handle's audit entry. When a condition
    /// fails and every row is as we were writing it, that is success; otherwise the stored rows are returned, in order,
    /// for those conditions that failed.
    pub(crate) async fn transact(
        &self,
        operation: &'static str,
        mut writes: Vec<Write<'_>>,
    ) -> Result<Result<(), Vec<Option<Item>>>, Error> {
        let asked = writes.len();
        if let Some(entry) = &self.audit {
            let item = audit::item(operation, entry)?;
            writes.push(Write::Put { table: self.history_table(), item, condition: Condition::Absent });
        }
        let items = writes.iter().map(|write| write.build(operation)).collect::<Result<Vec<_>, Error>>()?;
        let Err(reasons) = self.send_transaction(operation, items).await? else { return Ok(Ok(())) };
        let mut stored: Vec<_> = reasons.into_iter().map(|reason| reason.item).collect();
        if is_written(&writes, &stored) {
            return Ok(Ok(()));
        }
        stored.truncate(asked);
        Ok(Err(stored))
    }

    /// Runs a transaction, again while it only loses against others; `Err` inside: a condition failed.
    async fn send_transaction(
        &self,
        operation: &'static str,
        items: Vec<TransactWriteItem>,
    ) -> Result<Result<(), Vec<CancellationReason>>, Error> {
        let mut delay = FIRST_TRANSACTION_DELAY;
        let mut attempt = 1;
        loop {
            let request = self.client().transact_write_items().set_transact_items(Some(items.clone()));
            let Err(error) = request.send().await else { return Ok(Ok(())) };
            let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error()
            else {
                return Err(Error::from_sdk(operation, error));
            };
            let reasons = cancelled.cancellation_reasons();
            let codes: Vec<_> =
                reasons.iter().filter_map(|reason| reason.code()).filter(|code| *code != "None").collect();
            if codes.contains(&"ConditionalCheckFailed") {
                return Ok(Err(reasons.to_vec()));
            }
            // The SDK retries no cancelled transaction, whatever the reason.
            let passing = ["TransactionConflict", "ProvisionedThroughputExceeded", "ThrottlingError"];
            if codes.is_empty() || !codes.iter().all(|code| passing.contains(code)) {
                return Err(Error::Refused { operation, source: error.into() });
            }
            if attempt == MAX_TRANSACTION_ATTEMPTS {
                return Err(Error::from_sdk(operation, error));
            }
            tokio::time::sleep(delay).await;
            delay *= 2;
            attempt += 1;
        }
    }
}
