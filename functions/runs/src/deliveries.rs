//! What came for a workflow's webhook lately: what started runs, what was kept while it listened, and what was refused. For
//! whoever makes the workflow, so what looks like a credential is hidden.

use std::collections::BTreeMap;

use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tidegate_http::permission::RunsRead;
use tidegate_http::{Caller, Json, Path, Problem, Time};
use tidegate_model::{
    CapturedDelivery, Payload, RejectedDeliveries, RejectedDelivery, RunId, TenantId, TriggerInput, TriggerKind,
    WebhookRequest, WorkflowId, mask_named,
};
use tidegate_store::RunFilter;
use utoipa::ToSchema;

use crate::Deps;
use crate::detail::journaled;
use crate::inline::Inliner;

const MAX_RUNS: usize = 10;
const MAX_REFUSED: usize = 10;

/// What came for a workflow's webhook.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeliveriesView {
    /// Until then, what comes for the switched-off workflow is kept to be looked at; null where it doesn't listen.
    listening_until: Option<Time>,
    /// What started the last ten runs, and up to ten that were kept while the webhook listened, in the last day: newest
    /// first.
    items: Vec<DeliveryView>,
    rejected: RejectedView,
}

/// A delivery.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub(crate) struct DeliveryView {
    /// When it came.
    at: Time,
    /// The run that it started; null where it was only kept.
    run_id: Option<RunId>,
    /// The body's media type, as it was sent.
    content_type: Option<String>,
    /// The rest of the request: of one that started a run the headers that the trigger names, else all.
    request: WebhookRequest,
    /// The body as a run sees it; null where it is larger than 8 KB.
    #[schema(value_type = Value)]
    body: Option<Value>,
}

/// What was refused in the last 24 hours, because nothing proved from whom it is.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = RejectedDeliveries)]
pub(crate) struct RejectedView {
    /// How many.
    total: u64,
    /// How many, by the reason.
    reasons: BTreeMap<String, u64>,
    /// The last ones, newest first.
    last: Vec<RejectedDeliveryView>,
}

/// A request that was refused.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RejectedDelivery)]
pub(crate) struct RejectedDeliveryView {
    /// When it came.
    at: Time,
    /// Why, in a word.
    #[schema(examples("signature_mismatch"))]
    reason: String,
    /// Why, in a sentence.
    detail: String,
    /// The request's method.
    method: String,
    /// From which address it came, as far as that is known.
    address: Option<String>,
    /// The names of its headers.
    headers: Vec<String>,
}

impl From<RejectedDelivery> for RejectedDeliveryView {
    fn from(rejected: RejectedDelivery) -> Self {
        let RejectedDelivery { at, reason, detail, method, address, headers } = rejected;
        Self { at: at.into(), reason, detail, method, address, headers }
    }
}

/// List what came for a workflow's webhook
///
/// The last payloads, to map fields from; and what was refused, with the reasons. Values whose names speak of secrets are
/// hidden.
#[utoipa::path(
    get, path = "/api/workflows/{id}/deliveries", tag = "runs", params(("id" = WorkflowId, Path)),
    responses((status = 200, description = "The last deliveries", body = DeliveriesView)),
)]
pub(crate) async fn list_deliveries(
    caller: Caller<RunsRead>,
    State(deps): State<Deps>,
    Path(id): Path<WorkflowId>,
) -> Result<Json<DeliveriesView>, Problem> {
    let workflow = deps.store.workflows().get(caller.tenant, id).await?.ok_or_else(Problem::not_found)?;
    let now = deps.clock.now();
    let mut items = of_runs(&deps, caller.tenant, id).await?;
    let captured = deps.store.deliveries().captured(caller.tenant, id).await?;
    items.extend(captured.into_iter().map(|captured| {
        let CapturedDelivery { at, content_type, request, body } = captured;
        (at, DeliveryView { at: at.into(), run_id: None, content_type, request, body })
    }));
    items.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    let rejected = deps.store.deliveries().rejected(caller.tenant, id).await?;
    Ok(Json(DeliveriesView {
        listening_until: workflow.listening_until.filter(|until| now < *until).map(Time::from),
        items: items.into_iter().map(|(_, view)| view).collect(),
        rejected: together(rejected, now),
    }))
}

/// What started the workflow's last runs.
async fn of_runs(deps: &Deps, tenant: TenantId, id: WorkflowId) -> Result<Vec<(Timestamp, DeliveryView)>, Problem> {
    let filter = RunFilter { workflow: Some(id), ..RunFilter::default() };
    let rows = deps.store.runs().list(tenant, &filter, None, MAX_RUNS).await?.items;
    let mut inliner = Inliner::new(&*deps.blobs);
    let mut found = Vec::new();
    for row in rows.into_iter().filter(|row| row.trigger == TriggerKind::Webhook) {
        let Some(stored) = deps.store.runs().get(tenant, row.id).await? else { continue };
        let trigger = match stored.detail {
            Some(detail) => inliner.detail(detail).await?.0.trigger,
            None => journaled(deps, &stored.row).await?.0,
        };
        let Some(TriggerInput { content_type, request, body, .. }) = trigger else { continue };
        let body = match body {
            Payload::Inline(body) => Some(masked(body)?),
            Payload::Blob(_) => None,
        };
        let request = masked(request.map(|request| *request).unwrap_or_default())?;
        let at = stored.row.accepted_at;
        found.push((at, DeliveryView { at: at.into(), run_id: Some(row.id), content_type, request, body }));
    }
    Ok(found)
}

/// The same with what looks like a credential hidden.
fn masked<T: Serialize + serde::de::DeserializeOwned>(shown: T) -> Result<T, Problem> {
    let masked = serde_json::to_value(shown).and_then(|mut value| {
        mask_named(&mut value);
        serde_json::from_value(value)
    });
    masked.map_err(|error| Problem::internal(&error))
}

/// What all processes refused.
fn together(of_processes: Vec<RejectedDeliveries>, now: Timestamp) -> RejectedView {
    let mut view = RejectedView::default();
    let mut last = Vec::new();
    for of_process in of_processes {
        for (reason, count) in of_process.since_a_day(now) {
            view.total += count;
            *view.reasons.entry(reason).or_default() += count;
        }
        last.extend(of_process.last);
    }
    last.sort_by_key(|rejected| std::cmp::Reverse(rejected.at));
    view.last = last.into_iter().take(MAX_REFUSED).map(RejectedDeliveryView::from).collect();
    view
}
