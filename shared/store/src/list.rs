//! Lists by tenant, over the index that `config` has for them.

use aws_sdk_dynamodb::types::AttributeValue;

use crate::items::{Item, string, text};
use crate::tables::{BY_TENANT, LIST_KEY, LIST_SORT};
use crate::{Error, MAX_PAGE, Page, Store, cursor};

impl Store {
    /// A page of the rows under a list key, newest first.
    pub(crate) async fn list<T>(
        &self,
        operation: &'static str,
        list: &str,
        cursor: Option<&str>,
        limit: usize,
        read: impl Fn(&Item) -> Result<T, Error>,
    ) -> Result<Page<T>, Error> {
        let query = format!("{operation} {list}");
        let limit = limit.clamp(1, MAX_PAGE);
        // Ids begin with letters, so `~` is after all of them.
        let mut before = cursor.map_or_else(|| Ok("~".to_owned()), |cursor| cursor::decode(&query, cursor))?;
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let request = self
                .client()
                .query()
                .table_name(self.config_table())
                .index_name(BY_TENANT)
                .key_condition_expression("#list = :list AND #listed < :before")
                .expression_attribute_names("#list", LIST_KEY)
                .expression_attribute_names("#listed", LIST_SORT)
                .expression_attribute_values(":list", text(list))
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
            before = string(operation, last, LIST_SORT)?.to_owned();
        }
        let items = items.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Page { items, next_cursor: more.then(|| cursor::encode(&query, &before)) })
    }
}
