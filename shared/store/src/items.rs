//! How items are laid out: keys, the attributes that conditions and indexes need, and the rest as one JSON document
//! (`doc`), because a document keeps any number a definition may hold and DynamoDB's own numbers don't.

use std::collections::HashMap;
use std::fmt::Display;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};

use crate::tables::{LIST_KEY, LIST_SORT};
use crate::{Error, Store};

/// Partition key of both tables.
pub(crate) const PK: &str = "pk";
/// Sort key of both tables.
pub(crate) const SK: &str = "sk";
/// The row's content as JSON.
pub(crate) const DOC: &str = "doc";
/// Whose the row is; conditions use it.
pub(crate) const TENANT: &str = "tenant";
/// Counts a row's writes; conditions use it.
pub(crate) const REVISION: &str = "revision";
/// Names the write that made the row.
const WRITE: &str = "write";
/// Sort key of an aggregate's main row.
pub(crate) const HEAD: &str = "head";

pub(crate) type Item = HashMap<String, AttributeValue>;

pub(crate) fn text(value: impl Display) -> AttributeValue {
    AttributeValue::S(value.to_string())
}

pub(crate) fn number(value: impl Into<i128>) -> AttributeValue {
    AttributeValue::N(value.into().to_string())
}

/// When a row expires that is kept for this long after a time: the value of its TTL attribute.
pub(crate) fn expiry(after: Timestamp, retention: Duration) -> AttributeValue {
    number(after.as_second().saturating_add_unsigned(retention.as_secs()))
}

pub(crate) fn key(pk: impl Display, sk: impl Display) -> Item {
    HashMap::from([(PK.to_owned(), text(pk)), (SK.to_owned(), text(sk))])
}

/// A row: its key and its document.
pub(crate) fn row<T: Serialize>(
    operation: &'static str,
    pk: impl Display,
    sk: impl Display,
    value: &T,
) -> Result<Item, Error> {
    let mut item = key(pk, sk);
    item.insert(DOC.to_owned(), AttributeValue::S(to_json(operation, DOC, value)?));
    Ok(item)
}

/// The row, told from one that somebody else writes with the same content: of two who count at the same moment the second
/// would otherwise take the first one's write for a repetition of its own.
///
/// # Panics
/// The system's random number generator fails.
#[expect(clippy::expect_used, reason = "a system without randomness can tell no two writes apart")]
pub(crate) fn unlike_any_other(mut row: Item) -> Item {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system's random number generator failed");
    row.insert(WRITE.to_owned(), text(format_args!("{:032x}", u128::from_be_bytes(bytes))));
    row
}

/// The row, as one that is found in a list of `config` by this sort key.
pub(crate) fn in_list(mut row: Item, list: impl Display, listed: impl Display) -> Item {
    row.insert(LIST_KEY.to_owned(), text(list));
    row.insert(LIST_SORT.to_owned(), text(listed));
    row
}

pub(crate) fn to_json<T: Serialize>(operation: &'static str, what: &'static str, value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|source| Error::Corrupt { operation, what, source: source.into() })
}

/// Reads a row's document.
pub(crate) fn document<T: DeserializeOwned>(operation: &'static str, item: &Item) -> Result<T, Error> {
    from_json(operation, DOC, string(operation, item, DOC)?)
}

pub(crate) fn from_json<T: DeserializeOwned>(
    operation: &'static str,
    what: &'static str,
    json: &str,
) -> Result<T, Error> {
    serde_json::from_str(json).map_err(|source| Error::Corrupt { operation, what, source: source.into() })
}

/// A string attribute that must be there.
pub(crate) fn string<'a>(operation: &'static str, item: &'a Item, name: &'static str) -> Result<&'a str, Error> {
    match item.get(name) {
        Some(AttributeValue::S(value)) => Ok(value),
        Some(_) => Err(Error::Corrupt { operation, what: name, source: "not a string".into() }),
        None => Err(Error::Corrupt { operation, what: name, source: "missing".into() }),
    }
}

impl Store {
    /// Reads one row, strongly consistent.
    pub(crate) async fn read(&self, operation: &'static str, table: &str, key: Item) -> Result<Option<Item>, Error> {
        let request = self.client().get_item().table_name(table).set_key(Some(key)).consistent_read(true);
        Ok(request.send().await.map_err(|error| Error::from_sdk(operation, error))?.item)
    }

    /// Reads a whole partition, strongly consistent: only for partitions that are small by their nature.
    pub(crate) async fn read_partition(
        &self,
        operation: &'static str,
        table: &str,
        pk: AttributeValue,
    ) -> Result<Vec<Item>, Error> {
        self.query_partition(operation, table, pk, None, &[]).await
    }

    /// Reads the rows of a partition whose sort keys begin so, strongly consistent.
    pub(crate) async fn read_prefix(
        &self,
        operation: &'static str,
        table: &str,
        pk: AttributeValue,
        prefix: &str,
    ) -> Result<Vec<Item>, Error> {
        self.query_partition(operation, table, pk, Some(prefix), &[]).await
    }

    /// The keys of a partition's rows and whose they are: without their content, however large that is.
    pub(crate) async fn read_partition_keys(
        &self,
        operation: &'static str,
        table: &str,
        pk: AttributeValue,
    ) -> Result<Vec<Item>, Error> {
        self.query_partition(operation, table, pk, None, &[PK, SK, TENANT]).await
    }

    /// A partition's rows (those whose sort keys have the prefix), strongly consistent, with these attributes or, where
    /// none is named, with all.
    async fn query_partition(
        &self,
        operation: &'static str,
        table: &str,
        pk: AttributeValue,
        prefix: Option<&str>,
        attributes: &[&str],
    ) -> Result<Vec<Item>, Error> {
        let keys = if prefix.is_some() { &[PK, SK][..] } else { &[PK][..] };
        let names: HashMap<_, _> =
            attributes.iter().chain(keys).map(|name| (format!("#{name}"), (*name).to_owned())).collect();
        let mut values = HashMap::from([(":pk".to_owned(), pk)]);
        values.extend(prefix.map(|prefix| (":prefix".to_owned(), text(prefix))));
        let condition = if prefix.is_some() { "#pk = :pk AND begins_with(#sk, :prefix)" } else { "#pk = :pk" };
        let projected: Vec<_> = attributes.iter().map(|name| format!("#{name}")).collect();
        let projection = (!projected.is_empty()).then(|| projected.join(", "));
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let request = self
                .client()
                .query()
                .table_name(table)
                .consistent_read(true)
                .key_condition_expression(condition)
                .set_projection_expression(projection.clone())
                .set_expression_attribute_names(Some(names.clone()))
                .set_expression_attribute_values(Some(values.clone()))
                .set_exclusive_start_key(start);
            let page = request.send().await.map_err(|error| Error::from_sdk(operation, error))?;
            items.extend(page.items.unwrap_or_default());
            start = page.last_evaluated_key;
            if start.is_none() {
                return Ok(items);
            }
        }
    }
}
