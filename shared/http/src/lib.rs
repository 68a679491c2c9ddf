//! The glue between axum and Tidegate's functions: who may call ([`Caller`], [`Person`], [`Public`]), how often, what of it
//! the audit log tells ([`Change`]), routes together with their
//! OpenAPI document ([`Api`]), problem documents ([`Problem`]), extractors that name the wrong field, lists, entity tags,
//! request context, what starts a run, health and the pages about errors. Business rules are below it, in the functions.

mod access;
mod api;
mod api_key;
mod audit;
mod authenticate;
mod context;
mod extract;
mod health;
mod html;
mod limit;
mod pages;
pub mod permission;
mod problem;
mod start;
mod token;

pub use access::{Access, Caller, Guarded, Person, Public};
pub use api::{Api, DOCUMENT_PATH, Endpoint, MAX_BODY_BYTES};
pub use api_key::{API_KEY_PREFIX, RandomSecret, read_api_key, sha256_hex, write_api_key};
pub use audit::{AuditEntryView, Change};
pub use authenticate::{Authenticator, Client, MEMBER_STALE_AFTER, Standing, TENANT_STALE_AFTER, Tenants};
pub use context::{Connected, RequestContext, cookie};
pub use extract::{Created, ETag, IfMatch, Json, Limit, ListOf, PageQuery, Path, Query, Raw, Time};
pub use health::{Health, HealthCheck, HealthReport, HealthStatus};
pub use html::{Escaped, html_page};
pub use limit::RateLimiter;
pub use pages::error_pages;
pub use problem::{Problem, ProblemCode};
pub use start::{Accepted, MAX_INPUT_BYTES, Start, StartBody};
pub use token::{ALGORITHM, AUDIENCE, Claims, FIRST_PARTY, ISSUER, Scope, TOKEN_TYPE, TokenVerifier};
