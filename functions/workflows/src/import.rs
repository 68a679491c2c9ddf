//! Making a connector of an OpenAPI document.

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, Method};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_connectors::{ImportOptions, ImportReport, Imported, check_manifest, import_openapi, read_document};
use tidegate_egress::{Effect, OutboundRequest};
use tidegate_http::permission::ConnectorsWrite;
use tidegate_http::{Caller, Created, ETag, Json, Problem, ProblemCode};
use tidegate_model::{FieldError, Pointer};
use url::Url;
use utoipa::ToSchema;

use crate::Deps;
use crate::connectors::{ConnectorDetail, create};

/// The largest document that is fetched, in bytes: GitHub's has 13 MB.
const MAX_DOCUMENT_BYTES: usize = 20 * 1024 * 1024;
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);

/// What a connector is to be made of.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportConnector {
    /// Where the document is: JSON or YAML, up to 20 MB.
    url: Option<String>,
    /// Or the document itself, as an object of JSON, up to 4 MB.
    #[schema(value_type = Option<Object>)]
    document: Option<Value>,
    /// The connector's name; without it one is made of the document's title.
    name: Option<String>,
    /// The connector's title; without it the document's.
    title: Option<String>,
    /// The operations to take: `createOrder` by its `operationId`, `tag:Orders` by a tag, `/v1/orders` or `GET /v1/orders` by the
    /// path's beginning. Without it all, up to 2,000.
    #[serde(default)]
    include: Vec<String>,
    /// The API's base URL, instead of the document's servers; relative ones are taken relative to `url`.
    server: Option<String>,
    /// Ways to sign in, as in a manifest, instead of the document's: many documents don't tell theirs.
    #[schema(value_type = Option<Vec<Object>>)]
    auth: Option<Vec<Value>>,
    /// Only make the manifest, to be looked at and changed.
    #[serde(default)]
    dry_run: bool,
}

/// What came of an import.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ImportedConnector {
    /// The connector; null where only the manifest was made.
    connector: Option<ConnectorDetail>,
    /// The manifest, where only that was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, nullable = false)]
    manifest: Option<Value>,
    /// What was taken of the document, and what wasn't.
    report: ImportReport,
}

/// Import a connector
///
/// Makes a connector of an OpenAPI document (3.0 or 3.1): its operations become actions, its servers hosts, its security schemes ways
/// to sign in. `report` tells what was left out.
#[utoipa::path(
    post, path = "/api/connectors/import", tag = "connectors", request_body = ImportConnector,
    responses(
        (
            status = 201, description = "The connector, in version 1, and the report", body = ImportedConnector,
            headers(("Location" = String, description = "The connector's address")),
        ),
        (status = 200, description = "With `dry_run`: the manifest and the report", body = ImportedConnector),
    ),
)]
pub(crate) async fn import_connector(
    caller: Caller<ConnectorsWrite>,
    State(deps): State<Deps>,
    Json(body): Json<ImportConnector>,
) -> Result<Response, Problem> {
    let wrong = |at: &str, detail: String| Problem::validation(vec![FieldError::new(Pointer::root().push(at), detail)]);
    let (document, at, server) = match (body.url, body.document) {
        (Some(url), None) => {
            let document = fetch(&deps, url.clone()).await?;
            let server = body.server.or_else(|| server_beside(&url, &document));
            (document, "url", server)
        }
        (None, Some(document)) => (document, "document", body.server),
        _ => return Err(wrong("url", "give either url or document".to_owned())),
    };
    let options = ImportOptions { name: body.name, title: body.title, include: body.include, server };
    // Its work is bounded, but may take a second: others go on meanwhile.
    let imported = tokio::task::spawn_blocking(move || import_openapi(&document, &options)).await;
    let imported = imported.map_err(|error| Problem::internal(&error))?;
    let Imported { mut manifest, report } = imported.map_err(|errors| {
        let placed = errors.into_iter().map(|error| {
            let pointer = match error.pointer.as_str().strip_prefix("/options") {
                Some(option) => option.to_owned(),
                None => format!("/{at}{}", error.pointer),
            };
            FieldError::new(Pointer::from(pointer.as_str()), error.detail)
        });
        Problem::validation(placed.collect())
    })?;
    if let Some(auth) = body.auth {
        manifest["auth"] = Value::Array(auth);
    }
    let checked = tokio::task::spawn_blocking({
        let manifest = manifest.clone();
        move || check_manifest(manifest)
    });
    let checked = checked.await.map_err(|error| Problem::internal(&error))?.map_err(Problem::validation)?;
    if body.dry_run {
        let made = ImportedConnector { connector: None, manifest: Some(manifest), report };
        return Ok(Json(made).into_response());
    }
    let connector = create(&caller, &deps, checked).await?;
    let location = format!("/api/connectors/{}", connector.name());
    let made = ImportedConnector { connector: Some(connector), manifest: None, report };
    Ok((ETag(1), Created { location, body: made }).into_response())
}

/// The API's base URL where the document doesn't say a whole one: relative servers, and `/` where there is none, are meant
/// relative to where the document is (<https://spec.openapis.org/oas/v3.1.1.html#server-object>).
fn server_beside(url: &str, document: &Value) -> Option<String> {
    let server = document["servers"][0]["url"].as_str().unwrap_or("/");
    if server.contains("://") || server.contains('{') {
        return None;
    }
    Some(Url::parse(url).ok()?.join(server).ok()?.into())
}

async fn fetch(deps: &Deps, url: String) -> Result<Value, Problem> {
    let wrong = |detail: String| Problem::validation(vec![FieldError::new("/url".into(), detail)]);
    let accept = HeaderValue::from_static("application/json, application/yaml;q=0.9, */*;q=0.1");
    let request = OutboundRequest {
        method: Method::GET,
        url,
        headers: HeaderMap::from_iter([(http::header::ACCEPT, accept)]),
        body: None,
        timeout: FETCH_TIMEOUT,
        effect: Effect::Read,
        idempotency_key: None,
        traceparent: None,
    };
    let fetched = deps.connections.egress().send_up_to(request, None, MAX_DOCUMENT_BYTES).await;
    let response = fetched.map_err(|error| match error.is_retryable() {
        true => Problem::new(ProblemCode::TargetFailed, format!("The document can't be fetched: {error}.")),
        false => wrong(format!("can't be fetched: {error}")),
    })?;
    if !(200..=299).contains(&response.status) {
        return Err(wrong(format!("can't be fetched: it answers {}", response.status)));
    }
    let read = tokio::task::spawn_blocking(move || {
        let text = std::str::from_utf8(&response.body).map_err(|_| "it is no text".to_owned())?;
        read_document(text)
    });
    let read = read.await.map_err(|error| Problem::internal(&error))?;
    read.map_err(|fault| wrong(format!("holds no OpenAPI document: {fault}")))
}
