//! Connectors: those that are built in, and those that a tenant uploads, versioned.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tidegate_connectors::manifest::{Category, EffectRule, Manifest, Need, SignInKind};
use tidegate_connectors::{Action, Connector, catalogue, read_manifest};
use tidegate_http::permission::{ConnectorsRead, ConnectorsWrite};
use tidegate_http::{
    Caller, Change, Created, ETag, IfMatch, Json, ListOf, PageQuery, Path, Problem, ProblemCode, Query, Raw, Time,
};
use tidegate_model::{ConnectorHead, FieldError, Publisher, UserId};
use tidegate_store::{Error as StoreError, StoredManifest};
use utoipa::ToSchema;

use crate::Deps;
use crate::connections::{ours, user_of};

/// How many connectors a tenant may have.
const MAX_CONNECTORS: usize = 100;

/// A connector.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Connector)]
pub(crate) struct ConnectorView {
    /// Its name: what steps write before the dot.
    name: String,
    /// Its name for display.
    title: String,
    /// What it is for.
    help: Option<String>,
    /// The name of an icon.
    icon: Option<String>,
    /// What kind of system it talks to.
    category: Category,
    /// Whose it is.
    publisher: Publisher,
    /// Its version; a new one with each upload.
    version: u32,
    /// How many actions it has.
    actions: usize,
    /// Who uploaded the version; nobody where a service account did, or where it is built in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    updated_by: Option<UserId>,
    /// When that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    updated_at: Option<Time>,
}

impl From<&Connector> for ConnectorView {
    fn from(connector: &Connector) -> Self {
        let document = &connector.document;
        Self {
            name: document.name.clone(),
            title: document.title.clone(),
            help: document.help.clone(),
            icon: document.icon.clone(),
            category: document.category,
            publisher: connector.publisher,
            version: connector.version,
            actions: connector.actions.len(),
            updated_by: None,
            updated_at: None,
        }
    }
}

impl From<ConnectorHead> for ConnectorView {
    fn from(head: ConnectorHead) -> Self {
        Self {
            category: serde_json::from_value(json!(head.category)).unwrap_or_default(),
            name: head.name,
            title: head.title,
            help: head.help,
            icon: head.icon,
            publisher: Publisher::Tenant,
            version: head.version,
            actions: head.actions as usize,
            updated_by: head.updated_by,
            updated_at: Some(head.updated_at.into()),
        }
    }
}

/// A connector with its ways to sign in and its actions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConnectorDetail {
    #[serde(flatten)]
    connector: ConnectorView,
    /// The vendor's documentation.
    docs: Option<String>,
    /// The hosts that its requests may go to; with `{{ connection.… }}` where the connection says. None where the connection
    /// lists them itself.
    hosts: Vec<String>,
    /// Whether whoever makes a connection lists the hosts.
    hosts_given: bool,
    /// The ways to sign in, the usual one first; empty where it takes no connection.
    auth: Vec<SignInView>,
    /// Its actions.
    #[serde(rename = "actions")]
    list: Vec<ActionView>,
}

/// A way to sign in.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SignIn)]
pub(crate) struct SignInView {
    /// Its id: `data.type` of a connection to make.
    id: String,
    /// Its name for display.
    title: String,
    /// Where to get what is entered.
    help: Option<String>,
    /// The vendor's page about it.
    docs: Option<String>,
    /// Whether one signs in at the vendor: `POST /api/connections/oauth`.
    oauth: bool,
    /// What is entered: a JSON Schema; secret fields have `x-ui: secret`.
    #[schema(value_type = Object)]
    schema: Value,
}

/// An action in a list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Action)]
pub(crate) struct ActionView {
    /// Its name in a step's `uses`.
    uses: String,
    /// Its name for display.
    title: String,
    /// What it does.
    help: Option<String>,
    /// Whether it only reads.
    effect: EffectRule,
    /// Whether it needs a connection.
    connection: Need,
    /// The ways to sign in that it works with; null for all.
    auth: Option<Vec<String>>,
}

impl From<&Action> for ActionView {
    fn from(action: &Action) -> Self {
        Self {
            uses: action.name.clone(),
            title: action.document.title.clone(),
            help: action.document.help.clone(),
            effect: action.document.effect,
            connection: action.need(),
            auth: action.document.auth.clone(),
        }
    }
}

/// An action with what it takes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ActionDetail {
    #[serde(flatten)]
    action: ActionView,
    /// The vendor's page about it.
    docs: Option<String>,
    /// What its input looks like: a JSON Schema (draft 2020-12), with `x-ui` and `x-options` for forms.
    #[schema(value_type = Object)]
    input: Value,
    /// An input.
    #[schema(value_type = Option<Object>)]
    example_input: Option<Map<String, Value>>,
    /// What the step yields for it.
    #[schema(value_type = Option<Value>)]
    example_output: Option<Value>,
}

impl ConnectorDetail {
    pub(crate) fn name(&self) -> &str {
        &self.connector.name
    }
}

impl From<&Connector> for ConnectorDetail {
    fn from(connector: &Connector) -> Self {
        let document = &connector.document;
        let (hosts, hosts_given) = match &document.hosts {
            tidegate_connectors::manifest::Hosts::Listed(hosts) => (hosts.clone(), false),
            tidegate_connectors::manifest::Hosts::Given(_) => (Vec::new(), true),
        };
        let auth = document.auth.iter().filter(|sign_in| sign_in.kind != SignInKind::None).map(|sign_in| SignInView {
            id: sign_in.id.clone(),
            title: sign_in.title.clone().unwrap_or_else(|| sign_in.id.replace('_', " ")),
            help: sign_in.help.clone(),
            docs: sign_in.docs.clone(),
            oauth: matches!(sign_in.kind, SignInKind::OAuth2(_)),
            schema: sign_in.schema(),
        });
        Self {
            connector: connector.into(),
            docs: document.docs.clone(),
            hosts,
            hosts_given,
            auth: auth.collect(),
            list: connector.actions.values().map(|action| ActionView::from(&**action)).collect(),
        }
    }
}

/// List connectors
///
/// On the first page those that are built in, then the organization's own.
#[utoipa::path(
    get, path = "/api/connectors", tag = "connectors", params(PageQuery),
    responses((status = 200, description = "The connectors", body = ListOf<ConnectorView>)),
)]
pub(crate) async fn list_connectors(
    caller: Caller<ConnectorsRead>,
    State(deps): State<Deps>,
    Query(page): Query<PageQuery>,
) -> Result<Json<ListOf<ConnectorView>>, Problem> {
    let cursor = page.cursor.as_deref();
    let found = deps.store.connectors().list(caller.tenant, cursor, page.limit.get() as usize).await?;
    let builtin =
        catalogue::connectors().filter(|_| cursor.is_none()).map(|connector| ConnectorView::from(&**connector));
    let items = builtin.chain(found.items.into_iter().map(ConnectorView::from)).collect();
    Ok(Json(ListOf { items, next_cursor: found.next_cursor }))
}

/// Get a connector
///
/// With its ways to sign in and its actions; `GET /api/connectors/{name}/actions/{action}` tells what an action takes.
#[utoipa::path(
    get, path = "/api/connectors/{name}", tag = "connectors", params(("name" = String, Path)),
    responses((
        status = 200, description = "The connector in its current version", body = ConnectorDetail,
        headers(("ETag" = String, description = "Its version, for If-Match")),
    )),
)]
pub(crate) async fn get_connector(
    caller: Caller<ConnectorsRead>,
    State(deps): State<Deps>,
    Path(name): Path<String>,
) -> Result<(ETag, Json<ConnectorDetail>), Problem> {
    let connector = deps.connections.connector(caller.tenant, &name).await.map_err(ours)?;
    let connector = connector.ok_or_else(Problem::not_found)?;
    Ok((ETag(connector.version.into()), Json((&*connector).into())))
}

/// Get an action
#[utoipa::path(
    get, path = "/api/connectors/{name}/actions/{action}", tag = "connectors",
    params(("name" = String, Path), ("action" = String, Path, description = "Its name without the connector's")),
    responses((status = 200, description = "The action with what it takes", body = ActionDetail)),
)]
pub(crate) async fn get_action(
    caller: Caller<ConnectorsRead>,
    State(deps): State<Deps>,
    Path((name, action)): Path<(String, String)>,
) -> Result<Json<ActionDetail>, Problem> {
    let found = deps.connections.action(caller.tenant, &format!("{name}.{action}")).await.map_err(ours)?;
    let action = found.ok_or_else(Problem::not_found)?;
    let example = action.document.example.as_ref();
    Ok(Json(ActionDetail {
        action: (&*action).into(),
        docs: action.document.docs.clone(),
        input: action.input.document().clone(),
        example_input: example.map(|example| example.input.clone()),
        example_output: example.map(|example| example.output.clone()),
    }))
}

/// Get a connector's manifest
///
/// As JSON, which is YAML too: what `PUT /api/connectors/{name}` takes.
#[utoipa::path(
    get, path = "/api/connectors/{name}/manifest", tag = "connectors", params(("name" = String, Path)),
    responses((status = 200, description = "The manifest of the current version", body = Value)),
)]
pub(crate) async fn get_manifest(
    caller: Caller<ConnectorsRead>,
    State(deps): State<Deps>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    let connector = deps.connections.connector(caller.tenant, &name).await.map_err(ours)?;
    let connector = connector.ok_or_else(Problem::not_found)?;
    let actions = connector.actions.iter().map(|(name, action)| (name.clone(), action.document.clone())).collect();
    let manifest = Manifest { connector: (*connector.document).clone(), actions };
    Ok(Json(serde_json::to_value(manifest).map_err(|error| Problem::internal(&error))?))
}

/// A manifest, in YAML or JSON; `docs/connector-manifest.md` tells its format, `GET /api/schemas/connector` its schema.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(
    dead_code,
    reason = "it describes the body in the document; the body is read as YAML, of which JSON is a part"
)]
pub(crate) struct UploadConnector {
    /// The format's version.
    #[schema(examples(1))]
    format: u32,
    /// What steps write before the dot.
    #[schema(examples("acme"))]
    name: String,
    /// Its name for display.
    #[schema(examples("Acme"))]
    title: String,
    /// The hosts that its requests may go to.
    #[schema(examples(json!(["api.acme.test"])))]
    hosts: Vec<String>,
    /// The ways to sign in.
    auth: Vec<Value>,
    /// Its actions, by name.
    #[schema(value_type = Object)]
    actions: Value,
}

/// Upload a connector
///
/// Takes a manifest, in YAML or JSON. What is wrong with it is told field by field, and then nothing is stored. Its actions can be
/// used at once.
#[utoipa::path(
    post, path = "/api/connectors", tag = "connectors",
    request_body(content((UploadConnector = "application/yaml"), (UploadConnector = "application/json"))),
    responses((
        status = 201, description = "The connector, in version 1", body = ConnectorDetail,
        headers(
            ("Location" = String, description = "The connector's address"),
            ("ETag" = String, description = "Its version, for If-Match"),
        ),
    )),
)]
pub(crate) async fn create_connector(
    caller: Caller<ConnectorsWrite>,
    State(deps): State<Deps>,
    Raw(body): Raw,
) -> Result<Response, Problem> {
    let manifest = read(body).await?;
    let detail = create(&caller, &deps, manifest).await?;
    let location = format!("/api/connectors/{}", detail.connector.name);
    Ok((ETag(1), Created { location, body: detail }).into_response())
}

/// Upload a new version of a connector
///
/// Which is the current one from then on, for all workflows. A version that names a new host, or puts secrets elsewhere in a
/// request, gets none until somebody consents for each connection: `POST /api/connections/{id}/consent`.
#[utoipa::path(
    put, path = "/api/connectors/{name}", tag = "connectors",
    params(("name" = String, Path), ("If-Match" = String, Header, description = "The `ETag` that was read")),
    request_body(content((UploadConnector = "application/yaml"), (UploadConnector = "application/json"))),
    responses((
        status = 200, description = "The connector in its new version", body = ConnectorDetail,
        headers(("ETag" = String, description = "Its new version")),
    )),
)]
pub(crate) async fn replace_connector(
    caller: Caller<ConnectorsWrite>,
    State(deps): State<Deps>,
    Path(name): Path<String>,
    if_match: IfMatch,
    Raw(body): Raw,
) -> Result<(ETag, Json<ConnectorDetail>), Problem> {
    let before = deps.store.connectors().head(caller.tenant, &name).await?.ok_or_else(Problem::not_found)?;
    if_match.check(before.version.into())?;
    let manifest = read(body).await?;
    if manifest.connector.name != name {
        let detail = format!("must be {name:?}, the name in the address; a connector's name stays");
        return Err(Problem::validation(vec![FieldError::new("/name".into(), detail)]));
    }
    let version = before.version + 1;
    let detail = store(&caller, &deps, manifest, Some(before)).await?;
    Ok((ETag(version.into()), Json(detail)))
}

/// Delete a connector
///
/// With all its versions. Runs whose steps still use it fail with `input_invalid`, within 5 seconds; its connections stay, and can do
/// nothing any more.
#[utoipa::path(
    delete, path = "/api/connectors/{name}", tag = "connectors", params(("name" = String, Path)),
    responses((status = 204, description = "It is gone")),
)]
pub(crate) async fn delete_connector(
    caller: Caller<ConnectorsWrite>,
    State(deps): State<Deps>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let head = deps.store.connectors().head(caller.tenant, &name).await?.ok_or_else(Problem::not_found)?;
    let change = Change::of("connector.delete", &name).from(&ConnectorView::from(head));
    let entry = caller.audit(&deps.ids, change);
    let deleted = deps.store.audited(entry).connectors().delete(caller.tenant, &name).await?;
    if deleted { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::not_found()) }
}

/// Reads and checks a manifest, beside what else there is to do: thousands of schemas take seconds.
async fn read(body: Bytes) -> Result<Manifest, Problem> {
    let checked = tokio::task::spawn_blocking(move || {
        let text = std::str::from_utf8(&body).map_err(|_| {
            Problem::new(ProblemCode::MalformedRequest, "The body is no text: a manifest is YAML or JSON, in UTF-8.")
        })?;
        read_manifest(text).map_err(Problem::validation)
    });
    checked.await.map_err(|error| Problem::internal(&error))?
}

pub(crate) async fn create(
    caller: &Caller<ConnectorsWrite>,
    deps: &Deps,
    manifest: Manifest,
) -> Result<ConnectorDetail, Problem> {
    let name = &manifest.connector.name;
    let taken = || {
        let detail =
            format!("There is a connector {name:?}. `PUT /api/connectors/{name}` uploads a new version of it.");
        Problem::new(ProblemCode::NameTaken, detail)
    };
    if deps.store.connectors().head(caller.tenant, name).await?.is_some() {
        return Err(taken());
    }
    let mut count = 0;
    let mut cursor = None;
    loop {
        let page = deps.store.connectors().list(caller.tenant, cursor.as_deref(), tidegate_store::MAX_PAGE).await?;
        count += page.items.len();
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    if count >= MAX_CONNECTORS {
        let detail = format!("An organization can have {MAX_CONNECTORS} connectors of its own. Delete one first.");
        return Err(Problem::new(ProblemCode::LimitReached, detail));
    }
    store(caller, deps, manifest.clone(), None).await.map_err(|problem| match problem.code() {
        ProblemCode::PreconditionFailed => taken(),
        _ => problem,
    })
}

/// Stores a version; its rows lie under a name of their own.
async fn store(
    caller: &Caller<ConnectorsWrite>,
    deps: &Deps,
    manifest: Manifest,
    before: Option<ConnectorHead>,
) -> Result<ConnectorDetail, Problem> {
    let now = deps.clock.now();
    let json = |value: serde_json::Result<Value>| value.map_err(|error| Problem::internal(&error));
    let mut actions = Vec::new();
    for (name, action) in &manifest.actions {
        actions.push((name.clone(), json(serde_json::to_value(action))?));
    }
    let stored = StoredManifest { connector: json(serde_json::to_value(&manifest.connector))?, actions };
    let document = &manifest.connector;
    let category = json(serde_json::to_value(document.category))?;
    let head = ConnectorHead {
        tenant: caller.tenant,
        name: document.name.clone(),
        title: document.title.clone(),
        help: document.help.clone(),
        icon: document.icon.clone(),
        category: category.as_str().unwrap_or_default().to_owned(),
        version: before.as_ref().map_or(1, |before| before.version + 1),
        upload: format!("v{}", deps.ids.connection()),
        actions: u32::try_from(stored.actions.len()).unwrap_or(u32::MAX),
        updated_by: user_of(caller.principal),
        created_at: before.as_ref().map_or(now, |before| before.created_at),
        updated_at: now,
    };
    let view = ConnectorView::from(head.clone());
    let change = match before {
        None => Change::of("connector.create", &head.name).to(&view),
        Some(before) => Change::of("connector.update", &head.name).from(&ConnectorView::from(before)).to(&view),
    };
    match deps.store.audited(caller.audit(&deps.ids, change)).connectors().put(&head, &stored).await {
        Ok(()) => {}
        Err(StoreError::Conflict { .. }) => return Err(Problem::precondition_failed()),
        Err(error) => return Err(error.into()),
    }
    let connector = Connector::new(manifest, Publisher::Tenant, head.version);
    Ok(ConnectorDetail { connector: head.into(), ..ConnectorDetail::from(&connector) })
}
