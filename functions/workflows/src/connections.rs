//! Connections: stored credentials. A secret comes in once, is sealed, and never goes out by this API.

use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidegate_connectors::manifest::{SignIn, SignInKind};
use tidegate_connectors::{CallOptions, Connector, Entered, Grant, catalogue};
use tidegate_http::permission::{ConnectionsConsent, ConnectionsRead, ConnectionsUse, ConnectionsWrite};
use tidegate_http::{
    Caller, Change, Created, Json, ListOf, PageQuery, Path, Problem, ProblemCode, Query, Time, sha256_hex,
};
use tidegate_model::{
    Connection, ConnectionId, FieldError, Health, HealthStatus, OAuthGrant, Pointer, PrincipalId, Publisher, StepError,
    Tenant, TenantId, UserId, Workflow, WorkflowId,
};
use tidegate_platform::envelope::EnvelopeError;
use tidegate_platform::key_service::KeyContext;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::{Deps, resealing, verification};

const MAX_NAME_CHARS: usize = 200;
/// How many of a tenant's workflows are looked through for a connection.
const MAX_LOOKED_THROUGH: usize = 2_000;

/// A connection to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateConnection {
    /// Name for display: 1 to 200 characters.
    #[schema(examples("Orders channel"))]
    name: String,
    /// The connector it is for: one of `GET /api/connectors`.
    #[schema(examples("slack"))]
    connector: String,
    /// What is entered for one of the connector's ways to sign in, whose id is `type`; without it the first.
    #[schema(value_type = Object, examples(json!({"webhook_url": "https://hooks.slack.com/services/T000/B000/xyz"})))]
    data: Value,
    /// Only where the connector leaves them to the connection, as `http` does: the hosts that the secret may be sent to,
    /// `host` or `host:port`. It is sent to no other.
    #[serde(default)]
    hosts: Vec<String>,
}

impl fmt::Debug for CreateConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateConnection").field("connector", &self.connector).finish_non_exhaustive()
    }
}

/// A change of a connection.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateConnection {
    /// Its new name.
    name: Option<String>,
    /// All that is entered, anew: for the way to sign in that it has, or another.
    #[schema(value_type = Option<Object>)]
    data: Option<Value>,
    /// With `data`, as when it is made.
    #[serde(default)]
    hosts: Vec<String>,
}

impl fmt::Debug for UpdateConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpdateConnection").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A connection, without its secret.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Connection)]
pub(crate) struct ConnectionView {
    /// The connection's id, for a step's `connection`.
    pub(crate) id: ConnectionId,
    /// Name for display.
    name: String,
    /// The connector it is for.
    connector: String,
    /// Whose that connector is.
    publisher: Publisher,
    /// The way to sign in.
    auth: String,
    /// The fields that aren't secret.
    #[schema(value_type = Object)]
    settings: Map<String, Value>,
    /// The only hosts that the secret is sent to.
    hosts: Vec<String>,
    /// Whether it works, as its last use told.
    health: HealthView,
    /// When the access token ends, where somebody signed in at the vendor; it is renewed before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    expires_at: Option<Time>,
    /// What was granted there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scopes: Vec<String>,
    /// Who made it; nobody where a service account did.
    created_by: Option<UserId>,
    /// When it was made.
    created_at: Time,
}

/// Whether a connection works.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ConnectionHealth)]
pub(crate) struct HealthView {
    /// `untested`, `ok` or `broken`.
    status: HealthStatus,
    /// Why it is broken, and what to do.
    reason: Option<String>,
    /// Whose the credential is, where the vendor tells.
    account: Option<String>,
    /// Since when that is so.
    since: Option<Time>,
}

impl From<Health> for HealthView {
    fn from(health: Health) -> Self {
        let Health { status, reason, account, since } = health;
        Self { status, reason, account, since: since.map(Time::from) }
    }
}

impl From<Connection> for ConnectionView {
    fn from(connection: Connection) -> Self {
        let oauth = connection.oauth;
        Self {
            id: connection.id,
            name: connection.name,
            connector: connection.connector,
            publisher: connection.publisher,
            auth: connection.auth,
            settings: connection.settings,
            hosts: connection.hosts,
            health: connection.health.into(),
            expires_at: oauth.as_ref().and_then(|grant| grant.expires_at).map(Time::from),
            scopes: oauth.map(|grant| grant.scopes).unwrap_or_default(),
            created_by: connection.created_by,
            created_at: connection.created_at.into(),
        }
    }
}

/// A connection with what depends on it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConnectionDetail {
    #[serde(flatten)]
    connection: ConnectionView,
    /// The workflows that use it: while it is broken these stop.
    workflows: Vec<UsedBy>,
    /// What the connector's current version asks for beyond what the connection was made for. Until somebody consents the
    /// connection goes on as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pending: Option<PendingConsent>,
}

/// A workflow that uses a connection.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsedBy {
    /// The workflow.
    id: WorkflowId,
    /// Its name.
    name: String,
    /// Whether it is switched on.
    active: bool,
}

/// What a connector's version asks for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PendingConsent {
    /// The version of the connector.
    version: u32,
    /// Names exactly this, and nothing else ever: what `POST /api/connections/{id}/consent` takes.
    consent: String,
    /// The hosts that the secret may then be sent to.
    hosts: Vec<String>,
    /// Those of them that are new.
    new_hosts: Vec<String>,
    /// Whether the secret goes elsewhere in a request.
    moves_secret: bool,
    /// The headers that it would go into.
    headers: Vec<String>,
    /// The parameters of the query that it would go into.
    query: Vec<String>,
}

/// Create a connection
///
/// Stores a credential, encrypted. It is fixed which hosts it can be sent to and where it goes in a request, and no answer ever
/// shows it. Where the connector has a test request, it is made at once, and the answer's `health` tells what came of it.
#[utoipa::path(
    post, path = "/api/connections", tag = "connections",
    request_body = CreateConnection,
    responses((
        status = 201, description = "The connection, without its secret", body = ConnectionView,
        headers(("Location" = String, description = "The connection's address")),
    )),
)]
pub(crate) async fn create_connection(
    caller: Caller<ConnectionsWrite>,
    State(deps): State<Deps>,
    Json(body): Json<CreateConnection>,
) -> Result<Created<ConnectionView>, Problem> {
    let mut errors = check_name(&body.name);
    let connector = connector_named(&deps, caller.tenant, &body.connector).await?;
    let checked = match &connector {
        Ok(connector) => entered(connector, &body.data, &body.hosts, None),
        Err(error) => Err(vec![error.clone()]),
    };
    let (connector, sorted) = match (connector, checked) {
        (Ok(connector), Ok(sorted)) if errors.is_empty() => (connector, sorted),
        (_, checked) => {
            errors.extend(checked.err().unwrap_or_default());
            return Err(Problem::validation(errors));
        }
    };
    let id = deps.ids.connection();
    let (data_key, sealed) = seal(&deps, caller.tenant, id, &Value::Object(sorted.secret)).await?;
    let connection = Connection {
        id,
        tenant: caller.tenant,
        name: body.name.trim().to_owned(),
        connector: body.connector,
        publisher: connector.publisher,
        auth: sorted.auth,
        settings: sorted.settings,
        hosts: sorted.grant.hosts,
        placement: sorted.grant.placement,
        oauth: sorted.oauth,
        health: Health::default(),
        data_key,
        sealed,
        created_by: user_of(caller.principal),
        created_at: deps.clock.now(),
    };
    let view = ConnectionView::from(connection.clone());
    let entry = caller.audit(&deps.ids, Change::of("connection.create", id).to(&view));
    deps.store.audited(entry).connections().create(&connection).await?;
    let body = deps.connections.test(connection).await.map_err(ours)?.connection.into();
    Ok(Created { location: format!("/api/connections/{id}"), body })
}

/// List connections
///
/// With their health: `health.status` is `broken` where a vendor refused the credential.
#[utoipa::path(
    get, path = "/api/connections", tag = "connections", params(PageQuery),
    responses((status = 200, description = "Newest first", body = ListOf<ConnectionView>)),
)]
pub(crate) async fn list_connections(
    caller: Caller<ConnectionsRead>,
    State(deps): State<Deps>,
    Query(page): Query<PageQuery>,
) -> Result<Json<ListOf<ConnectionView>>, Problem> {
    let found = deps.store.connections().list(caller.tenant, page.cursor.as_deref(), page.limit.get() as usize).await?;
    resealing::reseal(&deps, caller.tenant, &found.items).await;
    let items = found.items.into_iter().map(ConnectionView::from).collect();
    Ok(Json(ListOf { items, next_cursor: found.next_cursor }))
}

/// Get a connection
///
/// With the workflows that use it, and what its connector's current version would have it do.
#[utoipa::path(
    get, path = "/api/connections/{id}", tag = "connections", params(("id" = ConnectionId, Path)),
    responses((status = 200, description = "The connection, without its secret", body = ConnectionDetail)),
)]
pub(crate) async fn get_connection(
    caller: Caller<ConnectionsRead>,
    State(deps): State<Deps>,
    Path(id): Path<ConnectionId>,
) -> Result<Json<ConnectionDetail>, Problem> {
    let connection = stored(&deps, caller.tenant, id).await?;
    resealing::reseal(&deps, caller.tenant, std::slice::from_ref(&connection)).await;
    Ok(Json(detail(&deps, connection).await?))
}

/// Change a connection
///
/// Its name, or all that is entered: an older secret can't be kept for other hosts.
#[utoipa::path(
    patch, path = "/api/connections/{id}", tag = "connections", params(("id" = ConnectionId, Path)),
    request_body = UpdateConnection,
    responses((status = 200, description = "The connection, without its secret", body = ConnectionDetail)),
)]
pub(crate) async fn update_connection(
    caller: Caller<ConnectionsWrite>,
    State(deps): State<Deps>,
    Path(id): Path<ConnectionId>,
    Json(body): Json<UpdateConnection>,
) -> Result<Json<ConnectionDetail>, Problem> {
    let before = stored(&deps, caller.tenant, id).await?;
    let mut errors = body.name.as_deref().map(check_name).unwrap_or_default();
    let mut after = before.clone();
    if let Some(name) = &body.name {
        name.trim().clone_into(&mut after.name);
    }
    match &body.data {
        Some(data) => {
            let connector = deps.connections.connector_of(&before).await.map_err(ours)?;
            let connector = connector.ok_or_else(|| Problem::new(ProblemCode::ConnectorGone, GONE))?;
            match entered(&connector, data, &body.hosts, Some(&before.auth)) {
                Ok(sorted) if errors.is_empty() => {
                    let (data_key, sealed) = seal(&deps, caller.tenant, id, &Value::Object(sorted.secret)).await?;
                    after = Connection {
                        auth: sorted.auth,
                        settings: sorted.settings,
                        hosts: sorted.grant.hosts,
                        placement: sorted.grant.placement,
                        oauth: sorted.oauth,
                        health: Health::default(),
                        data_key,
                        sealed,
                        ..after
                    };
                }
                Ok(_) => {}
                Err(wrong) => errors.extend(wrong),
            }
        }
        None if !body.hosts.is_empty() => {
            errors.push(FieldError::new("/hosts".into(), "can't be changed without entering `data` anew"));
        }
        None => {}
    }
    if !errors.is_empty() {
        return Err(Problem::validation(errors));
    }
    let (old, new) = (ConnectionView::from(before.clone()), ConnectionView::from(after.clone()));
    let entry = caller.audit(&deps.ids, Change::of("connection.update", id).from(&old).to(&new));
    replace(&deps, entry, &before, &after).await?;
    if body.data.is_some() {
        verification::propagate(&deps, &after).await?;
        after = deps.connections.test(after).await.map_err(ours)?.connection;
    }
    Ok(Json(detail(&deps, after).await?))
}

/// Delete a connection
///
/// Runs whose steps still use it fail with `connection_unusable`, within 5 seconds; webhooks that are verified with it take
/// nothing more.
#[utoipa::path(
    delete, path = "/api/connections/{id}", tag = "connections", params(("id" = ConnectionId, Path)),
    responses((status = 204, description = "It is gone")),
)]
pub(crate) async fn delete_connection(
    caller: Caller<ConnectionsWrite>,
    State(deps): State<Deps>,
    Path(id): Path<ConnectionId>,
) -> Result<StatusCode, Problem> {
    let connection = stored(&deps, caller.tenant, id).await?;
    let change = Change::of("connection.delete", id).from(&ConnectionView::from(connection.clone()));
    let entry = caller.audit(&deps.ids, change);
    verification::withdraw(&deps, &connection).await?;
    let deleted = deps.store.audited(entry).connections().delete(caller.tenant, id).await?;
    // A workflow that was saved meanwhile has it again.
    verification::propagate(&deps, &connection).await?;
    // Somebody else deleted it at the same moment, and the log says who.
    if deleted { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::not_found()) }
}

/// What came of a test.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TestResult {
    /// Whether the vendor took the credential.
    ok: bool,
    /// Why not, or that the connector has no test.
    detail: Option<String>,
    /// What is known of the connection now.
    health: HealthView,
}

/// Test a connection
///
/// Makes the connector's test request, which only reads, and notes what it tells as the connection's health.
#[utoipa::path(
    post, path = "/api/connections/{id}/test", tag = "connections", params(("id" = ConnectionId, Path)),
    responses((status = 200, description = "What came of it, also where the vendor refused", body = TestResult)),
)]
pub(crate) async fn test_connection(
    caller: Caller<ConnectionsUse>,
    State(deps): State<Deps>,
    Path(id): Path<ConnectionId>,
) -> Result<Json<TestResult>, Problem> {
    let connection = stored(&deps, caller.tenant, id).await?;
    let tested = deps.connections.test(connection).await.map_err(ours)?;
    let detail = match (&tested.error, tested.is_testable) {
        (Some(error), _) => Some(error.message.clone()),
        (None, false) => Some("the connector has no test request; the first call will tell".to_owned()),
        (None, true) => None,
    };
    let ok = tested.error.is_none() && tested.is_testable;
    Ok(Json(TestResult { ok, detail, health: tested.connection.health.into() }))
}

/// Which version one consents to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GiveConsent {
    /// What is consented to: `pending.consent` of the connection.
    consent: String,
}

/// Let a connection follow its connector
///
/// From then on its secret goes to the hosts, and to the places in a request, that this version of the connector names. Who has
/// the credential can enter it anew instead (`PATCH /api/connections/{id}`), which takes only `connections:write`.
#[utoipa::path(
    post, path = "/api/connections/{id}/consent", tag = "connections", params(("id" = ConnectionId, Path)),
    request_body = GiveConsent,
    responses((status = 200, description = "The connection as it is now", body = ConnectionDetail)),
)]
pub(crate) async fn consent_connection(
    caller: Caller<ConnectionsConsent>,
    State(deps): State<Deps>,
    Path(id): Path<ConnectionId>,
    Json(body): Json<GiveConsent>,
) -> Result<Json<ConnectionDetail>, Problem> {
    let before = stored(&deps, caller.tenant, id).await?;
    let Some((connector, grant)) = current_grant(&deps, &before).await? else {
        return Err(Problem::new(ProblemCode::ConnectorGone, GONE));
    };
    if digest_of(&connector, &grant) != body.consent {
        let detail = "It asks for something else than that. Look at the connection's `pending` again.";
        return Err(Problem::new(ProblemCode::Conflict, detail));
    }
    let after = Connection { hosts: grant.hosts, placement: grant.placement, ..before.clone() };
    let (old, new) = (ConnectionView::from(before.clone()), ConnectionView::from(after.clone()));
    let entry = caller.audit(&deps.ids, Change::of("connection.consent", id).from(&old).to(&new));
    replace(&deps, entry, &before, &after).await?;
    Ok(Json(detail(&deps, after).await?))
}

/// For which field choices are wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadOptions {
    /// The action whose form it is: `slack.post_message`.
    action: String,
    /// The field.
    field: String,
    /// What the form has so far.
    #[serde(default)]
    #[schema(value_type = Object)]
    input: Map<String, Value>,
}

/// A choice.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FieldOption {
    /// What goes into the field.
    value: Value,
    /// What is shown.
    label: String,
}

/// Load a field's choices
///
/// For a field whose schema has `x-options`: asks the vendor, by an action that only reads, with this connection.
#[utoipa::path(
    post, path = "/api/connections/{id}/options", tag = "connections", params(("id" = ConnectionId, Path)),
    request_body = LoadOptions,
    responses((status = 200, description = "The choices; at most 1,000", body = ListOf<FieldOption>)),
)]
pub(crate) async fn load_options(
    caller: Caller<ConnectionsUse>,
    State(deps): State<Deps>,
    Path(id): Path<ConnectionId>,
    Json(body): Json<LoadOptions>,
) -> Result<Json<ListOf<FieldOption>>, Problem> {
    let wrong =
        |field: &str, detail: &str| Problem::validation(vec![FieldError::new(Pointer::root().push(field), detail)]);
    stored(&deps, caller.tenant, id).await?;
    let action = deps.connections.action(caller.tenant, &body.action).await.map_err(ours)?;
    let action = action.ok_or_else(|| wrong("action", "there is no such action"))?;
    let schema = &action.input.document()["properties"][&body.field];
    let options = [schema, &schema["items"]].into_iter().find_map(|schema| schema["x-options"].as_object());
    let options = options.ok_or_else(|| wrong("field", "the action has no such field with choices"))?;
    let text = |name: &str| options.get(name).and_then(Value::as_str).unwrap_or_default();
    let uses = format!("{}.{}", action.connector.name, text("action"));
    let with = options.get("with").and_then(Value::as_object).cloned().unwrap_or_default();
    let scope =
        tidegate_engine::Scope::new([("input".to_owned(), tidegate_engine::Data::from(&Value::Object(body.input)))]);
    let input = scope.fill(&with, &Pointer::root().push("input")).map_err(|error| wrong("input", &error.message))?;

    let failed = |error: StepError| Problem::new(ProblemCode::TargetFailed, error.message);
    let prepared = match deps.connections.prepare(caller.tenant, &uses, Some(id)).await {
        Ok(prepared) => prepared,
        Err(tidegate_connections::Called::Step(error)) => return Err(wrong("action", &error.message)),
        Err(tidegate_connections::Called::Ours(error)) => return Err(ours(error)),
    };
    let call = CallOptions { timeout: std::time::Duration::from_secs(15), idempotency_key: None, traceparent: None };
    let output = deps.connections.call(prepared, &input, call).await.map_err(failed)?;
    let found = output["items"].as_array().or_else(|| output["body"].as_array()).map(Vec::as_slice).unwrap_or_default();
    let items = found.iter().take(1_000).map(|item| {
        let value = item.get(text("value")).unwrap_or(item).clone();
        let label = item.get(text("label")).unwrap_or(&value);
        let label = label.as_str().map_or_else(|| label.to_string(), str::to_owned);
        FieldOption { value, label }
    });
    Ok(Json(ListOf { items: items.collect(), next_cursor: None }))
}

const GONE: &str = "The connection's connector is gone, or doesn't have its way to sign in any more.";

pub(crate) async fn stored(deps: &Deps, tenant: TenantId, id: ConnectionId) -> Result<Connection, Problem> {
    deps.store.connections().get(tenant, id).await?.ok_or_else(Problem::not_found)
}

/// Replaces a connection that is stored as it was read. A worker may just have noted something about it.
pub(crate) async fn replace(
    deps: &Deps,
    entry: tidegate_model::AuditEntry,
    before: &Connection,
    after: &Connection,
) -> Result<(), Problem> {
    if deps.store.audited(entry).connections().replace(before, after).await? {
        return Ok(());
    }
    Err(Problem::new(ProblemCode::Conflict, "The connection was changed at the same moment. Try again."))
}

/// What a connection could consent to: hosts and placement by its connector's current version.
async fn current_grant(deps: &Deps, connection: &Connection) -> Result<Option<(Arc<Connector>, Grant)>, Problem> {
    let Some(connector) = deps.connections.connector_of(connection).await.map_err(ours)? else { return Ok(None) };
    let sign_in = connector.document.sign_in(&connection.auth);
    let grant =
        sign_in.and_then(|sign_in| connector.document.grant_now(sign_in, &connection.settings, &connection.hosts));
    Ok(grant.map(|grant| (connector, grant)))
}

async fn detail(deps: &Deps, connection: Connection) -> Result<ConnectionDetail, Problem> {
    let workflows = using(deps, &connection).await?;
    verification::mend(deps, &connection, &workflows).await;
    let used_by = |workflow: Workflow| UsedBy { id: workflow.id, name: workflow.name, active: workflow.active };
    let workflows = workflows.into_iter().map(used_by).collect();
    let pending = current_grant(deps, &connection).await?.and_then(|(connector, grant)| {
        let new_hosts: Vec<_> = grant.hosts.iter().filter(|host| !connection.hosts.contains(host)).cloned().collect();
        let moves_secret = grant.placement != connection.placement;
        let version = connector.version;
        let names = |placed: &[(String, _)]| placed.iter().map(|(name, _)| name.clone()).collect();
        let (headers, query) = (names(&grant.placement.headers), names(&grant.placement.query));
        let consent = digest_of(&connector, &grant);
        (!new_hosts.is_empty() || moves_secret).then_some(PendingConsent {
            version,
            consent,
            hosts: grant.hosts,
            new_hosts,
            moves_secret,
            headers,
            query,
        })
    });
    Ok(ConnectionDetail { connection: connection.into(), workflows, pending })
}

/// What somebody consents to, to the last byte: versions of a connector that is deleted and made again have the same numbers.
fn digest_of(connector: &Connector, grant: &Grant) -> String {
    let exactly = serde_json::json!([connector.name(), connector.publisher, grant.hosts, grant.placement]);
    sha256_hex(exactly.to_string().as_bytes())
}

async fn using(deps: &Deps, connection: &Connection) -> Result<Vec<Workflow>, Problem> {
    let mut found = Vec::new();
    let (mut cursor, mut looked) = (None, 0);
    loop {
        let page = deps.store.workflows().list(connection.tenant, cursor.as_deref(), tidegate_store::MAX_PAGE).await?;
        looked += page.items.len();
        found.extend(page.items.into_iter().filter(|workflow| workflow.connections.contains(&connection.id)));
        cursor = page.next_cursor;
        if cursor.is_none() || looked >= MAX_LOOKED_THROUGH {
            return Ok(found);
        }
    }
}

/// What was entered for a connection, sorted and checked.
pub(crate) struct Sorted {
    pub(crate) auth: String,
    pub(crate) settings: Map<String, Value>,
    pub(crate) secret: Map<String, Value>,
    pub(crate) grant: Grant,
    pub(crate) oauth: Option<OAuthGrant>,
}

/// The connector of a name, or what is wrong with the name.
pub(crate) async fn connector_named(
    deps: &Deps,
    tenant: TenantId,
    name: &str,
) -> Result<Result<Arc<Connector>, FieldError>, Problem> {
    let at = || Pointer::root().push("connector");
    match deps.connections.connector(tenant, name).await.map_err(ours)? {
        Some(connector) if connector.is_connectable() => Ok(Ok(connector)),
        Some(_) => Ok(Err(FieldError::new(at(), "takes no connection: its actions are called without one"))),
        None => {
            let all = catalogue::names().collect::<Vec<_>>().join(", ");
            let detail = format!("there is no such connector; built in are: {all}");
            Ok(Err(FieldError::new(at(), detail)))
        }
    }
}

/// The way to sign in that is meant: what `type` says, else the one that there was, else the first.
pub(crate) fn sign_in_of<'c>(connector: &'c Connector, kind: Option<&str>) -> Result<&'c SignIn, FieldError> {
    let ways = || connector.document.auth.iter().filter(|sign_in| sign_in.kind != SignInKind::None);
    let found = match kind {
        Some(kind) => ways().find(|sign_in| sign_in.id == kind),
        None => ways().next(),
    };
    found.ok_or_else(|| {
        let all = ways().map(|sign_in| sign_in.id.as_str()).collect::<Vec<_>>().join(", ");
        FieldError::new("/data/type".into(), format!("must be one of {all}"))
    })
}

fn entered(
    connector: &Connector,
    data: &Value,
    hosts: &[String],
    before: Option<&str>,
) -> Result<Sorted, Vec<FieldError>> {
    let at =
        |error: FieldError| FieldError::new(Pointer::from(format!("/data{}", error.pointer).as_str()), error.detail);
    let Value::Object(data) = data else {
        return Err(vec![FieldError::new("/data".into(), "expected an object")]);
    };
    let kind = match data.get("type") {
        None | Some(Value::Null) => before,
        Some(Value::String(kind)) => Some(kind.as_str()),
        Some(_) => return Err(vec![FieldError::new("/data/type".into(), "expected a string")]),
    };
    let sign_in = sign_in_of(connector, kind).map_err(|error| vec![error])?;
    let entered = sign_in.enter(data).map_err(|errors| errors.into_iter().map(at).collect::<Vec<_>>())?;
    let grant = connector.document.grant(sign_in, &entered, hosts)?;
    let oauth = match &sign_in.kind {
        SignInKind::OAuth2(oauth) => {
            let flow = oauth.flow(&entered.settings).map_err(|fault| vec![FieldError::new("/data".into(), fault)])?;
            Some(tokens_entered(&entered, flow)?)
        }
        _ => None,
    };
    let Entered { settings, secret } = entered;
    Ok(Sorted { auth: sign_in.id.clone(), settings, secret, grant, oauth })
}

/// Tokens that somebody got elsewhere: with a refresh token the client must be there too, for tokens are bound to it.
fn tokens_entered(entered: &Entered, flow: tidegate_connectors::Flow) -> Result<OAuthGrant, Vec<FieldError>> {
    let has = |name: &str| entered.secret.contains_key(name);
    let required = |name: &str, why: &str| vec![FieldError::new(Pointer::from("/data").push(name), why)];
    if !has("access_token") && !has("refresh_token") {
        let why = "is required here; or sign in by `POST /api/connections/oauth`";
        return Err(required("access_token", why));
    }
    if has("refresh_token") && !has("client_id") {
        return Err(required("client_id", "is required with a refresh token, which is bound to its client"));
    }
    Ok(OAuthGrant {
        token_url: flow.token_url,
        provider: None,
        client_auth: flow.client_auth,
        scopes: Vec::new(),
        refreshable: has("refresh_token"),
        // Without an access token one is got at the first use.
        expires_at: (!has("access_token")).then_some(jiff::Timestamp::UNIX_EPOCH),
        lifetime_seconds: None,
        refreshing: None,
    })
}

pub(crate) fn check_name(name: &str) -> Vec<FieldError> {
    match name.trim().chars().count() {
        1..=MAX_NAME_CHARS => Vec::new(),
        _ => vec![FieldError::new(Pointer::root().push("name"), "must have 1 to 200 characters")],
    }
}

/// A secret, sealed for a connection under the tenant's newest data key, whose number comes with it.
pub(crate) async fn seal(
    deps: &Deps,
    tenant: TenantId,
    connection: ConnectionId,
    secret: &Value,
) -> Result<(u32, String), Problem> {
    let found = deps.store.tenants().get(tenant).await?;
    let data_key = found.as_ref().and_then(Tenant::sealing_key).ok_or_else(Problem::not_found)?;
    let plain = Zeroizing::new(secret.to_string().into_bytes());
    let (context, associated) = (KeyContext::connections(tenant), connection.to_string());
    let sealed = deps.envelope.seal(&data_key.wrapped, &context, associated.as_bytes(), &plain).await;
    Ok((data_key.number, sealed.map_err(|error| sealing_problem(&error))?))
}

pub(crate) fn user_of(principal: PrincipalId) -> Option<UserId> {
    match principal {
        PrincipalId::User(user) => Some(user),
        PrincipalId::Service(_) => None,
    }
}

pub(crate) fn sealing_problem(error: &EnvelopeError) -> Problem {
    if error.is_retryable() { Problem::unavailable(error) } else { Problem::internal(error) }
}

/// A failure of our own while a connection was looked for or used.
pub(crate) fn ours(error: tidegate_connections::Error) -> Problem {
    match error {
        tidegate_connections::Error::Store(error) => error.into(),
        error @ tidegate_connections::Error::Cached(_) => Problem::unavailable(&error),
        error @ tidegate_connections::Error::Corrupt(_) => Problem::internal(&error),
    }
}
