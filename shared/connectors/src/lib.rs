//! Connectors: what each action takes, how its request is made and how its answer is read. A connector is data, a manifest
//! ([`manifest`]); those that are built in lie in `manifests/` ([`catalogue`]), tenants bring their own. The code that carries
//! manifests out knows no vendor; the few native actions (`http.request`, mail, files) are code of ours that a manifest names.
//! What the engine's built-in actions take is told here too ([`BuiltinAction`]); carrying them out is the engine's.
//! Sending, address checks and secrets are left to `tidegate-egress`; expressions to the engine; storing to the store.

mod answer;
mod builtin;
mod call;
pub mod catalogue;
mod check;
mod connector;
mod failure;
mod form;
mod http_request;
mod input;
pub mod manifest;
mod openapi;
mod providers;
mod request;
mod schema;
mod sign_in;
mod smtp;
mod storage;

pub use answer::Failure;
pub use builtin::{BuiltinAction, builtin, builtins};
pub use call::{CallOptions, Files, MAX_ITEMS, Outside};
pub use check::{
    MAX_MANIFEST_BYTES, check_builtin, check_manifest, is_reserved, manifest_schema, read_document, read_manifest,
};
pub use connector::{Action, Connector};
pub use input::Uses;
pub use openapi::{ImportOptions, ImportReport, Imported, LeftOut, import_openapi};
pub use providers::{Authorization, Flow, Provider, providers};
pub use request::RequestParts;
pub use schema::Schema;
pub use sign_in::{Entered, Grant};
