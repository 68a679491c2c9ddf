//! What a request changed, as the audit log tells it and its readers see it.

use serde::Serialize;
use serde_json::Value;
use tidegate_model::{Actor, AuditEntry, AuditId, TenantId, mask_named};
use tidegate_platform::Ids;
use utoipa::ToSchema;

use crate::{RequestContext, Time};

/// One change, as the readers of the audit log see it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct AuditEntryView {
    /// Its id; sorts by time.
    id: AuditId,
    /// When.
    at: Time,
    /// Who.
    actor: Actor,
    /// What was done.
    #[schema(examples("workflow.update"))]
    action: String,
    /// To what: an id, or a role's name.
    target: String,
    /// The target as it was, as its resource shows it, secrets masked; null for what is new.
    before: Option<Value>,
    /// The target as it is since; null for what is gone.
    after: Option<Value>,
    /// The request that did it: its `x-request-id`.
    request_id: String,
}

impl From<AuditEntry> for AuditEntryView {
    fn from(entry: AuditEntry) -> Self {
        let AuditEntry { id, tenant: _, at, actor, action, target, before, after, request_id } = entry;
        Self { id, at: at.into(), actor, action, target, before, after, request_id }
    }
}

/// A view larger than this is not kept; its versions are, where it has some.
const MAX_VIEW_BYTES: usize = 64 * 1024;

/// A change of a resource: `Change::of("role.update", name).from(&before).to(&after)`. The views are what the API shows of
/// the resource; members whose names speak of secrets are masked all the same.
#[derive(Debug, Clone)]
#[must_use]
pub struct Change {
    action: &'static str,
    target: String,
    before: Option<Value>,
    after: Option<Value>,
}

impl Change {
    /// An action (`role.update`) on a target: an id, or a role's name.
    pub fn of(action: &'static str, target: impl std::fmt::Display) -> Self {
        Self { action, target: target.to_string(), before: None, after: None }
    }

    /// How the target was.
    pub fn from(mut self, view: &impl Serialize) -> Self {
        self.before = shown(view);
        self
    }

    /// How the target is now.
    pub fn to(mut self, view: &impl Serialize) -> Self {
        self.after = shown(view);
        self
    }

    /// The entry of an audit log: that somebody did this, in a tenant or to the installation.
    pub fn entry(self, ids: &Ids, tenant: Option<TenantId>, actor: Actor, context: &RequestContext) -> AuditEntry {
        let Self { action, target, before, after } = self;
        let id = ids.audit();
        let request_id = context.request_id.to_string();
        AuditEntry {
            id,
            tenant,
            at: id.timestamp(),
            actor,
            action: action.to_owned(),
            target,
            before,
            after,
            request_id,
        }
    }
}

impl RequestContext {
    /// An entry for a change that nobody who is signed in made: by a link that was mailed, or a sign-in itself.
    pub fn audit(
        &self,
        ids: &Ids,
        tenant: Option<TenantId>,
        principal: Option<tidegate_model::PrincipalId>,
        change: Change,
    ) -> AuditEntry {
        let actor = Actor { principal, session: None, api_key: None, address: self.address };
        change.entry(ids, tenant, actor, self)
    }
}

fn shown(view: &impl Serialize) -> Option<Value> {
    let mut value = serde_json::to_value(view).ok()?;
    mask_named(&mut value);
    if value.to_string().len() > MAX_VIEW_BYTES {
        return Some(Value::String("too large for the audit log".to_owned()));
    }
    Some(value)
}
