//! The glue between axum and Tidegate's functions: who may call ([`Caller`], [`Public`]), routes together with their
//! OpenAPI document ([`Api`]), problem documents ([`Problem`]), extractors that name the wrong field, lists, entity tags,
//! request context, what starts a run, health and the pages about errors. Business rules are below it, in the functions.

mod access;
mod api;
mod context;
mod extract;
mod health;
mod pages;
pub mod permission;
mod problem;
mod start;
mod token;

pub use access::{Access, Caller, Guarded, Public};
pub use api::{Api, DOCUMENT_PATH, Endpoint, MAX_BODY_BYTES};
pub use context::RequestContext;
pub use extract::{Created, ETag, IfMatch, Json, Limit, ListOf, PageQuery, Path, Query, Raw, Time};
pub use health::{Health, HealthCheck, HealthReport, HealthStatus};
pub use pages::error_pages;
pub use problem::{Problem, ProblemCode};
pub use start::{Accepted, MAX_INPUT_BYTES, Start, StartBody};
pub use token::{ALGORITHM, AUDIENCE, Claims, ISSUER, TOKEN_TYPE, TokenVerifier};
