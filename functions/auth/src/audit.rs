//! The audit log as its readers see it. Entries are written with the changes that they tell of; nothing changes one.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use serde::Deserialize;
use serde_json::json;
use tidegate_http::permission::AuditRead;
use tidegate_http::{AuditEntryView, Caller, Json, Limit, ListOf, Problem, Query, Time};
use tidegate_model::{PrincipalId, TenantId};
use tidegate_store::AuditFilter;
use utoipa::IntoParams;

use crate::Deps;

/// What an export answers at most. On Lambda it goes out as base64, which has to stay below 6 MB
/// (<https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>).
const MAX_EXPORT_BYTES: usize = 4 * 1024 * 1024;
/// What an export reads at most, so that it ends in time where few entries match.
const MAX_EXPORT_PAGES: usize = 1_000;
/// Entries of a page of an export: so few that one of the largest entries there are (128 KB) fits into an answer.
const EXPORT_PAGE: usize = 25;

/// Which entries to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditQuery {
    /// Only changes at this time or later (RFC 3339).
    #[param(inline)]
    from: Option<Time>,
    /// Only changes before this time (RFC 3339).
    #[param(inline)]
    to: Option<Time>,
    /// Only this action, such as `workflow.update`; with a `.` at the end all that begin so, such as `workflow.`.
    action: Option<String>,
    /// Only changes by this person or service account.
    principal: Option<PrincipalId>,
    /// Only changes of this: an id, or a role's name.
    target: Option<String>,
    /// How many items to give at most.
    #[serde(default)]
    #[param(inline, required = false)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Which entries to export.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExportQuery {
    /// Only changes at this time or later (RFC 3339).
    #[param(inline)]
    from: Option<Time>,
    /// Only changes before this time (RFC 3339).
    #[param(inline)]
    to: Option<Time>,
    /// Only this action, such as `workflow.update`; with a `.` at the end all that begin so, such as `workflow.`.
    action: Option<String>,
    /// Only changes by this person or service account.
    principal: Option<PrincipalId>,
    /// Only changes of this: an id, or a role's name.
    target: Option<String>,
    /// The `next_cursor` of the part before.
    cursor: Option<String>,
}

/// List the audit log
///
/// Who changed what, when, from where, before and after. A page may be short, even empty, and still not be the last: what
/// doesn't match is left out of it.
#[utoipa::path(
    get, path = "/api/audit", tag = "audit", params(AuditQuery),
    responses((status = 200, description = "Newest first", body = ListOf<AuditEntryView>)),
)]
pub(crate) async fn list_audit_log(
    caller: Caller<AuditRead>,
    State(deps): State<Deps>,
    Query(query): Query<AuditQuery>,
) -> Result<Json<ListOf<AuditEntryView>>, Problem> {
    let AuditQuery { from, to, action, principal, target, limit, cursor } = query;
    let (from, until) = (from.map(Time::into), to.map(Time::into));
    let filter = AuditFilter { from, until, action, principal: principal.map(|id| id.to_string()), target };
    let log = deps.store.audit();
    let page = log.list(Some(caller.tenant), &filter, cursor.as_deref(), limit.get() as usize).await?;
    let items = page.items.into_iter().map(AuditEntryView::from).collect();
    Ok(Json(ListOf { items, next_cursor: page.next_cursor }))
}

/// Export the audit log
///
/// A line of JSON for each entry, newest first. An answer has about 4 MB at most: where there is more, its last line is
/// `{"next_cursor": …}`, and the next part comes by the same request with that as its `cursor`.
#[utoipa::path(
    get, path = "/api/audit/export", tag = "audit", params(ExportQuery),
    responses((
        status = 200, description = "NDJSON", body = AuditEntryView, content_type = "application/x-ndjson",
        headers(("Content-Disposition" = String, description = "Suggests a file name")),
    )),
)]
pub(crate) async fn export_audit_log(
    caller: Caller<AuditRead>,
    State(deps): State<Deps>,
    Query(query): Query<ExportQuery>,
) -> Result<Response, Problem> {
    let ExportQuery { from, to, action, principal, target, cursor } = query;
    let (from, until) = (from.map(Time::into), to.map(Time::into));
    let filter = AuditFilter { from, until, action, principal: principal.map(|id| id.to_string()), target };
    let mut export =
        Export { deps, tenant: caller.tenant, filter, next: None, lines: VecDeque::new(), bytes: 0, pages: 0 };
    // Before the answer begins, so that a wrong cursor and a database that is away are problems like any other.
    let first = export.read(cursor.as_deref()).await?;
    export.take(first);
    let lines =
        stream::unfold(export, |mut export| async move { Some((Ok::<_, Infallible>(export.line().await?), export)) });
    let headers =
        [(CONTENT_TYPE, "application/x-ndjson"), (CONTENT_DISPOSITION, "attachment; filename=\"audit.ndjson\"")];
    Ok((headers, Body::from_stream(lines)).into_response())
}

/// An export under way. It holds one page.
struct Export {
    deps: Deps,
    tenant: TenantId,
    filter: AuditFilter,
    /// Where the next page begins; none after the last.
    next: Option<String>,
    lines: VecDeque<Bytes>,
    bytes: usize,
    pages: usize,
}

/// A page's lines, and where the next page begins.
type Part = (VecDeque<Bytes>, Option<String>);

impl Export {
    /// The next line; none at the end.
    async fn line(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            let cursor = self.next.take()?;
            match self.read(Some(&cursor)).await {
                Ok(part) if self.pages < MAX_EXPORT_PAGES && self.bytes + bytes(&part) <= MAX_EXPORT_BYTES => {
                    self.take(part);
                }
                // Full; or it can't be read, which was logged and is too late for a problem document.
                Ok(_) | Err(_) => return Some(format!("{}\n", json!({ "next_cursor": cursor })).into()),
            }
        }
    }

    fn take(&mut self, part: Part) {
        self.bytes += bytes(&part);
        self.pages += 1;
        (self.lines, self.next) = part;
    }

    async fn read(&self, cursor: Option<&str>) -> Result<Part, Problem> {
        let page = self.deps.store.audit().list(Some(self.tenant), &self.filter, cursor, EXPORT_PAGE).await?;
        let line = |entry| {
            let mut line = serde_json::to_vec(&AuditEntryView::from(entry))?;
            line.push(b'\n');
            Ok(line.into())
        };
        let lines = page.items.into_iter().map(line).collect::<serde_json::Result<_>>();
        Ok((lines.map_err(|error| Problem::internal(&error))?, page.next_cursor))
    }
}

fn bytes((lines, _): &Part) -> usize {
    lines.iter().map(Bytes::len).sum()
}
