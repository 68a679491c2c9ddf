//! Lists of runs, newest first: a merge over the shards of the tenant's partition, of the workflow's index, or of the
//! attention index, whichever holds the fewest rows that the filter doesn't want. What a page costs is bounded however
//! long the history is: where few rows match, a page comes back short, with a cursor to go on from.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use jiff::Timestamp;
use tidegate_model::{RUN_SHARDS, RunId, RunRow, RunStatus, TenantId, WorkflowId};

use super::row::{self, WITHOUT_DETAIL};
use super::{Runs, partition, run_key};
use crate::items::{Item, PK, SK, string, text};
use crate::tables::{ATTENTION, BY_ATTENTION, BY_WORKFLOW, WORKFLOW_KEY};
use crate::{Error, MAX_PAGE, Page, cursor};

const OPERATION: &str = "list runs";
/// How many runs one page looks at.
const MAX_EXAMINED: usize = 300;
/// How many rows of a shard one query reads when most of them may not match.
const FILTERED_BATCH: usize = 32;
/// DynamoDB's limit of one batch of reads.
const MAX_KEYS: usize = 100;
const MAX_BATCH_ATTEMPTS: u32 = 8;
const FIRST_BATCH_DELAY: Duration = Duration::from_millis(10);

/// Which runs a list shows; by default all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Runs of this workflow.
    pub workflow: Option<WorkflowId>,
    /// Runs of this status. `Queued` finds nothing: a run has a row once it is claimed.
    pub status: Option<RunStatus>,
    /// Runs accepted at this time or later.
    pub from: Option<Timestamp>,
    /// Runs accepted before this time.
    pub to: Option<Timestamp>,
}

impl Runs<'_> {
    /// A page of a tenant's runs, newest first, at most 100. A run that was claimed or has changed a moment ago may be
    /// missing or show its former state. A page may be short, even empty, and still have a cursor.
    ///
    /// # Errors
    /// [`Error::InvalidCursor`]; the database is away, or a row is unreadable.
    pub async fn list(
        &self,
        tenant: TenantId,
        filter: &RunFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<RunRow>, Error> {
        let query = format!("{OPERATION} {tenant} {filter:?}");
        let limit = limit.clamp(1, MAX_PAGE);
        let after = cursor.map(|cursor| cursor::decode(&query, cursor)).transpose()?;
        let after = after.map(|id| id.parse::<RunId>()).transpose().map_err(|_| Error::InvalidCursor)?;
        let none = Page { items: Vec::new(), next_cursor: None };
        if matches!(filter.status, Some(RunStatus::Queued | RunStatus::Skipped)) {
            return Ok(none);
        }
        let Some(range) = Range::of(filter, after) else { return Ok(none) };
        let source = Source::of(filter)?;
        // Whether nearly every row that is read will be shown.
        let selective = match source {
            Source::Tenant | Source::Workflow(_) => filter.status.is_none(),
            Source::Attention(_) => filter.workflow.is_none(),
        };
        let batch = if selective { limit.div_ceil(RUN_SHARDS.into()) + 2 } else { FILTERED_BATCH };
        let mut merge = Merge { runs: *self, tenant, source, range, batch, shards: Shard::all() };

        let mut items = Vec::new();
        let mut last = None;
        let mut examined = 0;
        let mut left_over = false;
        while items.len() < limit && examined < MAX_EXAMINED {
            let want = if selective { limit - items.len() } else { MAX_KEYS };
            let candidates = merge.take(want.min(MAX_EXAMINED - examined)).await?;
            if candidates.is_empty() {
                break;
            }
            for (id, row) in self.rows(tenant, filter, candidates).await? {
                if items.len() == limit {
                    left_over = true;
                    break;
                }
                examined += 1;
                last = Some(id);
                items.extend(row.filter(|row| filter.shows(row)));
            }
        }
        let more = left_over || !merge.is_over();
        let next_cursor = last.filter(|_| more).map(|last| cursor::encode(&query, &last.to_string()));
        Ok(Page { items, next_cursor })
    }

    /// The rows of the candidates that have none yet; `None` for one that is gone or not to be shown.
    async fn rows(
        &self,
        tenant: TenantId,
        filter: &RunFilter,
        candidates: Vec<Candidate>,
    ) -> Result<Vec<(RunId, Option<RunRow>)>, Error> {
        let shown = |candidate: &Candidate| filter.workflow.is_none_or(|workflow| candidate.workflow == workflow);
        let missing = candidates.iter().filter(|candidate| candidate.row.is_none() && shown(candidate));
        let mut fetched = HashMap::new();
        let keys: Vec<_> = missing.map(|candidate| run_key(tenant, candidate.id)).collect();
        for keys in keys.chunks(MAX_KEYS) {
            for item in self.read_batch(keys.to_vec()).await? {
                let row = row::from_item(OPERATION, &item)?.row;
                fetched.insert(row.id, row);
            }
        }
        let rows = candidates.into_iter().map(|candidate| {
            let row = candidate.row.or_else(|| fetched.remove(&candidate.id));
            (candidate.id, row)
        });
        Ok(rows.collect())
    }

    async fn read_batch(&self, mut keys: Vec<Item>) -> Result<Vec<Item>, Error> {
        let table = self.0.history_table();
        let (names, projection) = projection();
        let mut items = Vec::with_capacity(keys.len());
        let mut delay = FIRST_BATCH_DELAY;
        for attempt in 1.. {
            let wanted = KeysAndAttributes::builder()
                .set_keys(Some(keys))
                .projection_expression(&projection)
                .set_expression_attribute_names(Some(names.clone()))
                .build()
                .map_err(|source| Error::Refused { operation: OPERATION, source: source.into() })?;
            let request = self.0.client().batch_get_item().request_items(table, wanted);
            let found = request.send().await.map_err(|error| Error::from_sdk(OPERATION, error))?;
            items.extend(found.responses.and_then(|mut tables| tables.remove(table)).unwrap_or_default());
            let left = found.unprocessed_keys.and_then(|mut tables| tables.remove(table));
            keys = left.map(|left| left.keys).unwrap_or_default();
            if keys.is_empty() {
                break;
            }
            if attempt == MAX_BATCH_ATTEMPTS {
                let source = format!("{} rows were left unread", keys.len()).into();
                return Err(Error::Unavailable { operation: OPERATION, source });
            }
            tokio::time::sleep(delay).await;
            delay *= 2;
        }
        Ok(items)
    }
}

impl RunFilter {
    fn shows(&self, row: &RunRow) -> bool {
        self.workflow.is_none_or(|workflow| row.workflow == workflow)
            && self.status.is_none_or(|status| row.status == status)
    }
}

/// The ids that a page may show: texts, both ends included.
#[derive(Debug, Clone)]
struct Range {
    low: String,
    high: String,
}

impl Range {
    /// `None`: no id is in it.
    fn of(filter: &RunFilter, after: Option<RunId>) -> Option<Self> {
        const NANOSECONDS: i128 = 1_000_000;
        let at = |ms: i128| i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let first_ms = filter.from.map(|from| (from.as_nanosecond() + NANOSECONDS - 1).div_euclid(NANOSECONDS));
        let last_ms = filter.to.map(|to| (to.as_nanosecond() - 1).div_euclid(NANOSECONDS));
        let low = match first_ms {
            Some(ms) => RunId::first_at(at(ms)?).to_string(),
            None => RunId::PREFIX.to_owned(),
        };
        let mut high = match last_ms {
            Some(ms) => RunId::last_at(at(ms)?).to_string(),
            None => format!("{}~", RunId::PREFIX),
        };
        if let Some(after) = after {
            let before = u128::from_be_bytes(*after.as_bytes()).checked_sub(1)?;
            high = high.min(format!("{}{before:032x}", RunId::PREFIX));
        }
        (low <= high).then_some(Self { low, high })
    }
}

/// What a list walks.
#[derive(Debug, Clone)]
enum Source {
    /// The tenant's own partitions: whole rows.
    Tenant,
    /// The workflow's index: keys.
    Workflow(WorkflowId),
    /// The index of runs of a status that is rare: keys and workflows.
    Attention(String),
}

impl Source {
    fn of(filter: &RunFilter) -> Result<Self, Error> {
        Ok(match (filter.status, filter.workflow) {
            (Some(status), _) if row::needs_attention(status) => {
                Source::Attention(row::name(OPERATION, row::STATUS, &status)?)
            }
            (_, Some(workflow)) => Source::Workflow(workflow),
            (_, None) => Source::Tenant,
        })
    }
}

/// A run that may be shown.
#[derive(Debug)]
struct Candidate {
    id: RunId,
    workflow: WorkflowId,
    /// Its row, where the source has whole rows.
    row: Option<RunRow>,
}

/// One shard's part of the merge.
#[derive(Debug)]
struct Shard {
    number: u8,
    read: VecDeque<Candidate>,
    /// Where the next query begins; `None` after the last.
    next: Option<Start>,
}

#[derive(Debug, Clone)]
enum Start {
    Top,
    After(Item),
}

impl Shard {
    fn all() -> Vec<Shard> {
        (0..RUN_SHARDS).map(|number| Shard { number, read: VecDeque::new(), next: Some(Start::Top) }).collect()
    }
}

/// The shards' runs as one sequence, newest first.
struct Merge<'a> {
    runs: Runs<'a>,
    tenant: TenantId,
    source: Source,
    range: Range,
    /// Rows per query.
    batch: usize,
    shards: Vec<Shard>,
}

impl Merge<'_> {
    /// The next candidates, up to `count`; fewer only at the end.
    async fn take(&mut self, count: usize) -> Result<Vec<Candidate>, Error> {
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            self.fill().await?;
            let newest = self.shards.iter_mut().max_by_key(|shard| shard.read.front().map(|candidate| candidate.id));
            let Some(candidate) = newest.and_then(|shard| shard.read.pop_front()) else { break };
            taken.push(candidate);
        }
        Ok(taken)
    }

    /// Whether no candidate is left.
    fn is_over(&self) -> bool {
        self.shards.iter().all(|shard| shard.next.is_none() && shard.read.is_empty())
    }

    /// Reads on in every shard that has nothing read, so that the newest of all is known.
    async fn fill(&mut self) -> Result<(), Error> {
        loop {
            let empty = self.shards.iter().filter(|shard| shard.read.is_empty());
            let queries = empty.filter_map(|shard| Some(self.query(shard.number, shard.next.clone()?)));
            let answers = futures::future::try_join_all(queries).await?;
            if answers.is_empty() {
                return Ok(());
            }
            for (number, read, next) in answers {
                let shard = &mut self.shards[usize::from(number)];
                shard.read = read;
                shard.next = next.map(Start::After);
            }
        }
    }

    async fn query(&self, shard: u8, start: Start) -> Result<(u8, VecDeque<Candidate>, Option<Item>), Error> {
        let partition = partition(self.tenant, shard);
        let Range { low, high } = &self.range;
        let request = self.runs.0.client().query().table_name(self.runs.0.history_table());
        let request = match &self.source {
            Source::Tenant => {
                let (names, projection) = projection();
                let request = request.set_expression_attribute_names(Some(names)).projection_expression(projection);
                between(request, PK, &partition, SK, low, high)
            }
            Source::Workflow(workflow) => {
                let key = row::workflow_key(*workflow, shard);
                between(request.index_name(BY_WORKFLOW), WORKFLOW_KEY, &key, SK, low, high)
            }
            Source::Attention(status) => {
                let (low, high) = (row::attention(status, low), row::attention(status, high));
                between(request.index_name(BY_ATTENTION), PK, &partition, ATTENTION, &low, &high)
            }
        };
        let request = request.scan_index_forward(false).limit(i32::try_from(self.batch).unwrap_or(i32::MAX));
        let request = match start {
            Start::Top => request,
            Start::After(key) => request.set_exclusive_start_key(Some(key)),
        };
        let page = request.send().await.map_err(|error| Error::from_sdk(OPERATION, error))?;
        let mut read = VecDeque::new();
        for item in page.items.unwrap_or_default() {
            // The workflow's index knows no tenant: the row's own key tells. One foreign row, and all of them are.
            if item.get(PK) != Some(&AttributeValue::S(partition.clone())) {
                return Ok((shard, VecDeque::new(), None));
            }
            let row = match self.source {
                Source::Tenant => Some(row::from_item(OPERATION, &item)?.row),
                Source::Workflow(_) | Source::Attention(_) => None,
            };
            let workflow = string(OPERATION, &item, WORKFLOW_KEY)?.split('#').nth(1).unwrap_or_default();
            read.push_back(Candidate {
                id: row::parse(OPERATION, SK, string(OPERATION, &item, SK)?)?,
                workflow: row::parse(OPERATION, WORKFLOW_KEY, workflow)?,
                row,
            });
        }
        Ok((shard, read, page.last_evaluated_key))
    }
}

type Query = aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;

fn between(request: Query, hash: &str, partition: &str, range: &str, low: &str, high: &str) -> Query {
    request
        .key_condition_expression("#hash = :hash AND #range BETWEEN :low AND :high")
        .expression_attribute_names("#hash", hash)
        .expression_attribute_names("#range", range)
        .expression_attribute_values(":hash", text(partition))
        .expression_attribute_values(":low", text(low))
        .expression_attribute_values(":high", text(high))
}

/// The names and the expression of a projection to everything but the detail.
fn projection() -> (HashMap<String, String>, String) {
    let names = WITHOUT_DETAIL.iter().enumerate().map(|(i, name)| (format!("#p{i}"), (*name).to_owned())).collect();
    let expression: Vec<_> = (0..WITHOUT_DETAIL.len()).map(|i| format!("#p{i}")).collect();
    (names, expression.join(", "))
}
