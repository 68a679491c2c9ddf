//! A run's row as an item. Attribute names are short: the row a claim writes must stay under one write unit (1 KB).

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tidegate_model::{ParentStep, Payload, RunRow, RunStatus, StepError, TenantId, WorkflowId};

use super::{StoredRun, partition};
use crate::Error;
use crate::items::{Item, PK, SK, expiry, from_json, key, number, string, text, to_json};
use crate::tables::{ATTENTION, TTL, WORKFLOW_KEY};

pub(super) const STATUS: &str = "s";
pub(super) const FENCE: &str = "f";
pub(super) const OWNER: &str = "o";
const VERSION: &str = "v";
const TRIGGER: &str = "t";
const ACCEPTED_AT: &str = "a";
const STARTED_AT: &str = "b";
const FINISHED_AT: &str = "e";
const LEASE_UNTIL: &str = "l";
const CLAIMS: &str = "c";
const JOURNAL_LENGTH: &str = "j";
const WAKE: &str = "w";
const WAKE_AT: &str = "wa";
const TRACEPARENT: &str = "tp";
const ERROR: &str = "er";
const FAILED_STEP: &str = "fs";
/// There only where somebody asked for it, as a condition on its absence needs.
pub(super) const CANCEL_REQUESTED: &str = "cr";
const PARENT: &str = "p";
const DETAIL: &str = "d";

/// All attributes of a row but the detail, which may be large: what a list reads.
pub(super) const WITHOUT_DETAIL: [&str; 21] = [
    PK,
    SK,
    WORKFLOW_KEY,
    STATUS,
    FENCE,
    OWNER,
    VERSION,
    TRIGGER,
    ACCEPTED_AT,
    STARTED_AT,
    FINISHED_AT,
    LEASE_UNTIL,
    CLAIMS,
    JOURNAL_LENGTH,
    WAKE,
    WAKE_AT,
    TRACEPARENT,
    ERROR,
    FAILED_STEP,
    CANCEL_REQUESTED,
    PARENT,
];

pub(super) fn to_item(
    operation: &'static str,
    row: &RunRow,
    detail: Option<&Payload>,
    retention: Duration,
) -> Result<Item, Error> {
    let status = name(operation, STATUS, &row.status)?;
    let mut item = key(partition(row.tenant, row.id.shard()), row.id);
    let mut set = |name: &str, value: AttributeValue| drop(item.insert(name.to_owned(), value));
    set(WORKFLOW_KEY, text(workflow_key(row.workflow, row.id.shard())));
    if needs_attention(row.status) {
        set(ATTENTION, text(attention(&status, row.id)));
    }
    set(STATUS, AttributeValue::S(status));
    set(FENCE, number(row.fence));
    set(OWNER, text(&row.lease_owner));
    set(VERSION, number(row.version));
    set(TRIGGER, AttributeValue::S(name(operation, TRIGGER, &row.trigger)?));
    set(ACCEPTED_AT, time(row.accepted_at));
    set(STARTED_AT, time(row.started_at));
    set(LEASE_UNTIL, time(row.lease_until));
    set(CLAIMS, number(row.claims));
    set(JOURNAL_LENGTH, number(row.journal_length));
    set(WAKE, number(row.wake));
    set(TRACEPARENT, text(&row.traceparent));
    if let Some(at) = row.wake_at {
        set(WAKE_AT, time(at));
    }
    if let Some(at) = row.finished_at {
        set(FINISHED_AT, time(at));
        if row.status.is_final() {
            set(TTL, expiry(at, retention));
        }
    }
    if let Some(error) = &row.error {
        set(ERROR, AttributeValue::S(to_json(operation, ERROR, error)?));
    }
    if let Some(step) = &row.failed_step {
        set(FAILED_STEP, text(step));
    }
    if row.cancel_requested {
        set(CANCEL_REQUESTED, number(1));
    }
    if let Some(parent) = &row.parent {
        set(PARENT, AttributeValue::S(to_json(operation, PARENT, parent)?));
    }
    if let Some(detail) = detail {
        set(DETAIL, AttributeValue::S(to_json(operation, DETAIL, detail)?));
    }
    Ok(item)
}

pub(super) fn from_item(operation: &'static str, item: &Item) -> Result<StoredRun, Error> {
    let read = Read { operation, item };
    let (tenant, workflow) = (read.segment(PK)?, read.segment(WORKFLOW_KEY)?);
    let row = RunRow {
        id: parse(operation, SK, string(operation, item, SK)?)?,
        tenant: parse::<TenantId>(operation, PK, tenant)?,
        workflow: parse::<WorkflowId>(operation, WORKFLOW_KEY, workflow)?,
        version: read.number(VERSION)?,
        trigger: read.named(TRIGGER)?,
        status: read.named(STATUS)?,
        accepted_at: read.time(ACCEPTED_AT)?,
        started_at: read.time(STARTED_AT)?,
        finished_at: read.optional(FINISHED_AT, Read::time)?,
        fence: read.number(FENCE)?,
        lease_until: read.time(LEASE_UNTIL)?,
        lease_owner: string(operation, item, OWNER)?.to_owned(),
        claims: read.number(CLAIMS)?,
        journal_length: read.number(JOURNAL_LENGTH)?,
        wake: read.number(WAKE)?,
        wake_at: read.optional(WAKE_AT, Read::time)?,
        traceparent: string(operation, item, TRACEPARENT)?.to_owned(),
        error: read.optional(ERROR, Read::json::<StepError>)?,
        failed_step: read
            .optional(FAILED_STEP, |read, name| Ok(string(read.operation, read.item, name)?.to_owned()))?,
        cancel_requested: item.contains_key(CANCEL_REQUESTED),
        parent: read.optional(PARENT, Read::json::<ParentStep>)?,
    };
    Ok(StoredRun { row, detail: read.optional(DETAIL, Read::json::<Payload>)? })
}

/// Whether runs of this status are in the index of those that somebody may want to look after.
pub(super) fn needs_attention(status: RunStatus) -> bool {
    match status {
        RunStatus::Waiting | RunStatus::Failed | RunStatus::Cancelled | RunStatus::TimedOut => true,
        RunStatus::Queued | RunStatus::Running | RunStatus::Succeeded | RunStatus::Skipped => false,
    }
}

/// The name that an enum's value has in JSON.
pub(super) fn name<T: Serialize>(operation: &'static str, what: &'static str, value: &T) -> Result<String, Error> {
    match serde_json::to_value(value) {
        Ok(Value::String(name)) => Ok(name),
        Ok(_) => Err(Error::Corrupt { operation, what, source: "not a name".into() }),
        Err(source) => Err(Error::Corrupt { operation, what, source: source.into() }),
    }
}

pub(super) fn workflow_key(workflow: WorkflowId, shard: u8) -> String {
    format!("wf#{workflow}#{shard}")
}

/// The key of the attention index: `run` is a run's id, or the end of a range of them.
pub(super) fn attention(status: &str, run: impl std::fmt::Display) -> String {
    format!("{status}#{run}")
}

pub(super) fn parse<T: std::str::FromStr>(operation: &'static str, what: &'static str, text: &str) -> Result<T, Error>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse().map_err(|source: T::Err| Error::Corrupt { operation, what, source: source.into() })
}

fn time(at: Timestamp) -> AttributeValue {
    number(at.as_millisecond())
}

struct Read<'a> {
    operation: &'static str,
    item: &'a Item,
}

impl<'a> Read<'a> {
    /// The middle of `kind#id#shard`.
    fn segment(&self, name: &'static str) -> Result<&'a str, Error> {
        let key = string(self.operation, self.item, name)?;
        key.split('#').nth(1).ok_or_else(|| self.corrupt(name, "not a key of this kind"))
    }

    fn number<T: std::str::FromStr>(&self, name: &'static str) -> Result<T, Error>
    where
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        match self.item.get(name) {
            Some(AttributeValue::N(digits)) => parse(self.operation, name, digits),
            Some(_) => Err(self.corrupt(name, "not a number")),
            None => Err(self.corrupt(name, "missing")),
        }
    }

    fn time(&self, name: &'static str) -> Result<Timestamp, Error> {
        let milliseconds = self.number(name)?;
        Timestamp::from_millisecond(milliseconds).map_err(|source| self.corrupt(name, source))
    }

    fn named<T: DeserializeOwned>(&self, name: &'static str) -> Result<T, Error> {
        let value = Value::String(string(self.operation, self.item, name)?.to_owned());
        serde_json::from_value(value).map_err(|source| self.corrupt(name, source))
    }

    fn json<T: DeserializeOwned>(&self, name: &'static str) -> Result<T, Error> {
        from_json(self.operation, name, string(self.operation, self.item, name)?)
    }

    fn optional<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(&Self, &'static str) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        if self.item.contains_key(name) { read(self, name).map(Some) } else { Ok(None) }
    }

    fn corrupt(&self, what: &'static str, source: impl Into<crate::BoxError>) -> Error {
        Error::Corrupt { operation: self.operation, what, source: source.into() }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_model::{ErrorCode, RunId, TriggerKind};

    use super::*;

    fn size(item: &Item) -> usize {
        // https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
        let value = |value: &AttributeValue| match (value.as_s(), value.as_n()) {
            (Ok(text), _) => text.len(),
            (_, Ok(digits)) => digits.len().div_ceil(2) + 1,
            _ => panic!("rows hold strings and numbers"),
        };
        item.iter().map(|(name, attribute)| name.len() + value(attribute)).sum()
    }

    #[test]
    fn a_claims_row_is_less_than_half_a_write_unit_and_a_failed_one_keeps_everything() {
        let at = Timestamp::from_millisecond(1_790_000_000_123).unwrap();
        let tenant = TenantId::new(at, [0xab; 10]);
        let mut row = RunRow {
            id: RunId::for_tenant(tenant, at, [0xcd; 10]),
            tenant,
            workflow: WorkflowId::new(at, [0xef; 10]),
            version: 4_000_000_000,
            trigger: TriggerKind::Schedule,
            status: RunStatus::Running,
            accepted_at: at,
            started_at: at,
            finished_at: None,
            fence: 1,
            lease_until: at,
            lease_owner: "8f14e45f-ceea-467f-9b36-34d2f1c0a1b7/18446744073709551615".to_owned(),
            claims: 1,
            journal_length: 0,
            wake: 0,
            wake_at: None,
            traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
            error: None,
            failed_step: None,
            cancel_requested: false,
            parent: None,
        };
        let claimed = to_item("test", &row, None, crate::RETENTION).unwrap();
        assert!(size(&claimed) < 512, "{} bytes", size(&claimed));
        assert!(![CANCEL_REQUESTED, PARENT].iter().any(|name| claimed.contains_key(*name)), "an ordinary row grew");

        row.status = RunStatus::Failed;
        row.finished_at = Some(at);
        row.wake = 3;
        row.wake_at = Some(at);
        row.error = Some(StepError::terminal(ErrorCode::TargetFailed, "x".repeat(200)));
        row.failed_step = Some("s".repeat(64));
        row.cancel_requested = true;
        row.parent = Some(ParentStep {
            run_id: row.id,
            step: "p".repeat(64),
            item: Some(9_999),
            depth: 8,
            may_cause: 10_000,
            handles_failure: true,
        });
        let failed = to_item("test", &row, None, crate::RETENTION).unwrap();
        assert!(size(&failed) < 1_280, "{} bytes", size(&failed));
        assert_eq!(from_item("test", &failed).unwrap().row, row);
        let known = failed.keys().filter(|name| ![ATTENTION, TTL].contains(&name.as_str()));
        assert!(known.into_iter().all(|name| WITHOUT_DETAIL.contains(&name.as_str())), "lists read every attribute");
    }
}
