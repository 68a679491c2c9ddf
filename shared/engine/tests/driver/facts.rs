//! What the runs of the tests are.

use jiff::Timestamp;
use serde_json::{Map, Value};
use tidegate_engine::{Facts, Plan};
use tidegate_model::{RunId, TenantId, TriggerKind, WorkflowId};

pub(crate) const BEGINNING: &str = "2026-11-21T10:00:00Z";

pub(crate) fn facts(plan: &Plan, parameters: &Map<String, Value>) -> Facts {
    let at: Timestamp = BEGINNING.parse().unwrap();
    let tenant = TenantId::new(at, [1; 10]);
    Facts {
        run_id: RunId::for_tenant(tenant, at, [2; 10]),
        tenant_id: tenant,
        workflow_id: WorkflowId::new(at, [3; 10]),
        version: 1,
        trigger: TriggerKind::Webhook,
        content_type: Some("application/json".to_owned()),
        request: None,
        parameters: parameters.clone(),
        started_at: at,
        approvals: plan.approvals().map(|step| (step.to_owned(), format!("https://gate.example/{step}"))).collect(),
    }
}
