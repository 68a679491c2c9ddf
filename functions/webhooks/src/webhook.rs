//! A workflow's webhook as it stands: whether it takes a request before anything of the request is read.

use std::sync::Arc;

use axum::response::{IntoResponse as _, Response};
use http::header::ALLOW;
use http::{HeaderMap, Method};
use tidegate_http::{Problem, ProblemCode, RequestContext, Standing};
use tidegate_model::{TenantStatus, WebhookTrigger, WorkflowId};

use crate::Ingress;
use crate::cors::Granted;
use crate::heads::Head;

/// A workflow that a webhook starts, with its tenant.
pub(crate) struct Webhook {
    pub(crate) head: Arc<Head>,
    pub(crate) trigger: Arc<WebhookTrigger>,
    pub(crate) tenant: Arc<Standing>,
}

/// What becomes of a request that is from whom it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It starts a run.
    Run,
    /// It is kept to be looked at, and starts nothing.
    Listen,
    /// It is refused: the workflow is switched off.
    Off,
}

impl Webhook {
    /// The webhook of a workflow, by an address that nobody guesses. Read at most every five seconds.
    pub(crate) async fn find(ingress: &Ingress, id: WorkflowId, context: &RequestContext) -> Result<Self, Problem> {
        context.record("workflow_id", id);
        let head = ingress.heads.get(&ingress.deps.store, id).await?.ok_or_else(Problem::not_found)?;
        context.record("tenant_id", head.tenant);
        let tenant = ingress.tenants.get(head.tenant).await?.ok_or_else(Problem::not_found)?;
        if tenant.status == TenantStatus::Suspended {
            return Err(Problem::tenant_suspended());
        }
        let Some(trigger) = head.trigger.clone() else {
            let detail = "This workflow isn't started by a webhook; give it the trigger {\"type\": \"webhook\"}.";
            return Err(Problem::new(ProblemCode::NotFound, detail));
        };
        Ok(Self { head, trigger, tenant })
    }

    /// What becomes of requests now.
    pub(crate) fn mode(&self, ingress: &Ingress) -> Mode {
        let now = ingress.deps.clock.now();
        match self.head.listening_until {
            _ if self.head.active => Mode::Run,
            Some(until) if now < until => Mode::Listen,
            _ => Mode::Off,
        }
    }

    /// The answer to a method that the trigger doesn't take. `HEAD` comes by the route of `GET`, and has to start nothing.
    pub(crate) fn refuses(&self, method: &Method) -> Option<Response> {
        let methods = self.trigger.methods();
        if methods.iter().any(|allowed| allowed.as_str() == method.as_str()) {
            return None;
        }
        let allowed = methods.iter().map(|method| method.as_str()).collect::<Vec<_>>().join(", ");
        let detail = format!("This webhook takes {allowed}; its trigger's `methods` say so.");
        Some(([(ALLOW, allowed)], Problem::new(ProblemCode::MethodNotAllowed, detail)).into_response())
    }

    /// Counts a request.
    pub(crate) async fn count(&self, ingress: &Ingress, context: &RequestContext) -> Result<(), Problem> {
        let own = self.trigger.rate_limit.map(|rate| rate.per_second);
        let Head { id, tenant, .. } = *self.head;
        let status = ingress.deps.limiter.webhook(tenant, self.tenant.limits, id, own).await?;
        context.tell_rate(status);
        Ok(())
    }

    /// What the page that a request comes from may do.
    pub(crate) fn cors(&self, headers: &HeaderMap) -> Granted {
        Granted::to(self.trigger.cors.as_ref(), headers)
    }
}

pub(crate) fn switched_off() -> Problem {
    let detail = "This workflow is switched off, so nothing was started. Switch it on, then send again.";
    Problem::new(ProblemCode::WorkflowInactive, detail)
}
