//! Lists by tenant, newest first: over the index that `config` has for them, or over a partition.

use aws_sdk_dynamodb::types::AttributeValue;

use crate::items::{Item, string, text};
use crate::tables::{BY_TENANT, LIST_KEY, LIST_SORT};
use crate::{Error, MAX_PAGE, Page, Store, cursor};

/// What a list walks: the rows of one partition of a table or of an index, by their sort keys, which begin with letters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Walk<'a> {
    pub(crate) table: &'a str,
    pub(crate) index: Option<&'static str>,
    pub(crate) hash: &'static str,
    pub(crate) range: &'static str,
    pub(crate) partition: &'a str,
    /// Only sort keys before this one.
    pub(crate) below: Option<&'a str>,
}

impl Store {
    /// A page of the rows under a list key of `config`, newest first.
    pub(crate) async fn list<T>(
        &self,
        operation: &'static str,
        list: &str,
        cursor: Option<&str>,
        limit: usize,
        read: impl Fn(&Item) -> Result<T, Error>,
    ) -> Result<Page<T>, Error> {
        let walk = Walk {
            table: self.config_table(),
            index: Some(BY_TENANT),
            hash: LIST_KEY,
            range: LIST_SORT,
            partition: list,
            below: None,
        };
        self.page(operation, walk, cursor, limit, read).await
    }

    /// A page of the rows of a partition, the highest sort key first.
    pub(crate) async fn page<T>(
        &self,
        operation: &'static str,
        walk: Walk<'_>,
        cursor: Option<&str>,
        limit: usize,
        read: impl Fn(&Item) -> Result<T, Error>,
    ) -> Result<Page<T>, Error> {
        let query = format!("{operation} {}", walk.partition);
        let limit = limit.clamp(1, MAX_PAGE);
        // Ids begin with letters, so `~` is after all of them.
        let first = walk.below.unwrap_or("~").to_owned();
        let mut before = cursor.map_or(Ok(first), |cursor| cursor::decode(&query, cursor))?;
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let request = self
                .client()
                .query()
                .table_name(walk.table)
                .set_index_name(walk.index.map(str::to_owned))
                .key_condition_expression("#list = :list AND #listed < :before")
                .expression_attribute_names("#list", walk.hash)
                .expression_attribute_names("#listed", walk.range)
                .expression_attribute_values(":list", text(walk.partition))
                .expression_attribute_values(":before", AttributeValue::S(before.clone()))
                .scan_index_forward(false)
                // One more tells whether there is another page.
                .limit(i32::try_from(limit + 1 - items.len()).unwrap_or(i32::MAX))
                .set_exclusive_start_key(start);
            let page = request.send().await.map_err(|error| Error::from_sdk(operation, error))?;
            items.extend(page.items.unwrap_or_default());
            start = page.last_evaluated_key;
            if start.is_none() || items.len() > limit {
                break;
            }
        }
        let more = items.len() > limit;
        items.truncate(limit);
        if more && let Some(last) = items.last() {
            before = string(operation, last, walk.range)?.to_owned();
        }
        let items = items.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Page { items, next_cursor: more.then(|| cursor::encode(&query, &before)) })
    }
}
