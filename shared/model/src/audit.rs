//! The audit log: who changed what, from where, before and after.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ApiKeyId, AuditId, PrincipalId, SessionId, TenantId};

/// One change. Entries are written in the transaction that makes the change, and never altered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AuditEntry {
    /// Its id; sorts by time.
    pub id: AuditId,
    /// Whose log it is in; none in the installation's own.
    pub tenant: Option<TenantId>,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Who.
    pub actor: Actor,
    /// What was done: `workflow.create`, `member.remove`.
    #[schema(examples("workflow.update"))]
    pub action: String,
    /// To what: an id, or a role's name.
    pub target: String,
    /// The target as it was before, as its resource shows it, secrets masked; none for what is new.
    pub before: Option<Value>,
    /// The target as it is now; none for what is gone.
    pub after: Option<Value>,
    /// The request that did it: its `x-request-id`.
    pub request_id: String,
}

/// Who made a change, and from where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Actor {
    /// Who; none for the operator at the console, and for a link that was followed by whoever had it.
    pub principal: Option<PrincipalId>,
    /// In which sign-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// With which API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<ApiKeyId>,
    /// From which address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
}
