//! The plain types of Tidegate and their validation: ids, workflow definitions, runs, messages, problems.
//! No I/O, no clock, no randomness: times and entropy come in as arguments.

mod approval_token;
mod audit;
mod builtin;
mod connection;
mod connector;
mod dead_letter;
mod definition;
mod id;
mod identity;
mod journal;
mod json;
mod mask;
mod message;
mod payload;
mod permission;
mod pointer;
mod run;
mod schedule;
mod signal;
mod verification;
mod webhook;

pub use approval_token::{ApprovalToken, ApprovalTokenError};
pub use audit::{Actor, AuditEntry};
pub use builtin::{Builtin, MAX_WAIT, parse_wait};
pub use connection::{
    ClientAuth, Connection, Health, HealthStatus, OAuthGrant, Placed, Placeholder, PlaceholderError, Placement,
    Publisher, Refreshing, SecretPart, SecretText,
};
pub use connector::{ConnectorHead, OAuthClient, OAuthState};
pub use dead_letter::{DeadLetter, Redriven};
pub use definition::{
    Definition, Edge, FailureHandler, Foreach, Graph, MAX_DEFINITION_BYTES, OnFailure, OnInterrupted, OnItemFailure,
    Parameter, ParameterType, RetryOn, RetryPolicy, Step, Trigger, When, Workflow,
};
pub use id::{
    ApiKeyId, AuditId, ConnectionId, IdError, InvitationId, RUN_SHARDS, RunId, ServiceAccountId, SessionId, TenantId,
    UserId, WorkflowId,
};
pub use identity::{
    ApiKey, AuthMethod, Credentials, CustomRole, DataKey, InvalidLimits, Invitation, Limits, Link, Member, Policies,
    PrincipalId, SecondFactor, Session, Tenant, TenantStatus, User,
};
pub use journal::{Entry, ErrorCode, Event, StepError};
pub use json::{JsonError, MAX_JSON_DEPTH, MAX_JSON_VALUES, check_json, check_json_value, parse_json};
pub use mask::{mask_named, masked_snippet};
pub use message::{
    Message, ParentStep, ReconcileMessage, ScheduleMessage, StartMessage, TriggerInput, TriggerKind, WakeMessage,
};
pub use payload::{BlobRef, INLINE_LIMIT_BYTES, Payload};
pub use permission::{InvalidRoleName, Permission, Role, RoleName, UnknownPermission};
pub use pointer::{FieldError, Pointer};
pub use run::{Attempt, ItemRecord, RunDetail, RunRow, RunStatus, StepRecord};
pub use schedule::{Cron, Every, Recurrence, Rhythm, Schedule, Zone};
pub use signal::{Approval, Decided, Signal};
pub use verification::{ContentError, ContentPart, HmacAlgorithm, HmacScheme, Scheme, SignatureEncoding, Verification};
pub use webhook::{
    CapturedDelivery, Cors, Deduplicate, DeduplicateBy, RejectedDeliveries, RejectedDelivery, Respond, RunFile,
    SealedVerification, TriggerRate, Uploads, WebhookMethod, WebhookRequest, WebhookResponse, WebhookTrigger,
};
