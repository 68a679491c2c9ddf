//! Connections: stored credentials. A secret comes in once, is sealed, and never goes out by this API.

use std::fmt;

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_connectors::{connector, connectors};
use tidegate_http::permission::{ConnectionsRead, ConnectionsWrite};
use tidegate_http::{Caller, Change, Created, Json, ListOf, PageQuery, Path, Problem, Query, Time};
use tidegate_model::{Connection, ConnectionId, FieldError, Pointer, Tenant};
use tidegate_platform::envelope::EnvelopeError;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::{Deps, resealing};

const MAX_NAME_CHARS: usize = 200;

/// A connection to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateConnection {
    /// Name for display: 1 to 200 characters.
    #[schema(examples("Orders channel"))]
    name: String,
    /// The connector it is for: `slack`, `discord` or `http`.
    #[schema(examples("slack"))]
    connector: String,
    /// The secret. `slack` and `discord`: `{"webhook_url": "https://…"}`; `http`: `{"type": "bearer", "token": "…"}`,
    /// `{"type": "basic", "username": "…", "password": "…"}` or `{"type": "header", "name": "…", "value": "…"}`.
    #[schema(value_type = Object, examples(json!({"webhook_url": "https://hooks.slack.com/services/T000/B000/xyz"})))]
    data: Value,
    /// Only for `http`: the hosts that the secret may be sent to, `host` or `host:port`. It is sent to no other.
    #[serde(default)]
    hosts: Vec<String>,
}

impl fmt::Debug for CreateConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateConnection").field("connector", &self.connector).finish_non_exhaustive()
    }
}

/// A connection, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Connection)]
pub(crate) struct ConnectionView {
    /// The connection's id, for a step's `connection`.
    id: ConnectionId,
    /// Name for display.
    name: String,
    /// The connector it is for.
    connector: String,
    /// The only hosts that the secret is sent to.
    hosts: Vec<String>,
    /// When it was made.
    created_at: Time,
}

impl From<Connection> for ConnectionView {
    fn from(connection: Connection) -> Self {
        let Connection { id, tenant: _, name, connector, hosts, data_key: _, sealed: _, created_at } = connection;
        Self { id, name, connector, hosts, created_at: created_at.into() }
    }
}

/// Create a connection
///
/// Stores a credential, encrypted. It is fixed which hosts it can be sent to, and no answer ever shows it.
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
    let hosts = check(&body).map_err(Problem::validation)?;
    let tenant = deps.store.tenants().get(caller.tenant).await?;
    let data_key = tenant.as_ref().and_then(Tenant::sealing_key).ok_or_else(Problem::not_found)?;
    let id = deps.ids.connection();
    let context = resealing::context(caller.tenant);
    let plain = Zeroizing::new(body.data.to_string().into_bytes());
    let sealed = deps.envelope.seal(&data_key.wrapped, &context, id.to_string().as_bytes(), &plain).await;
    let connection = Connection {
        id,
        tenant: caller.tenant,
        name: body.name.trim().to_owned(),
        connector: body.connector,
        hosts,
        data_key: data_key.number,
        sealed: sealed.map_err(|error| sealing_problem(&error))?,
        created_at: deps.clock.now(),
    };
    let view = ConnectionView::from(connection.clone());
    let entry = caller.audit(&deps.ids, Change::of("connection.create", id).to(&view));
    deps.store.audited(entry).connections().create(&connection).await?;
    Ok(Created { location: format!("/api/connections/{id}"), body: view })
}

/// List connections
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
#[utoipa::path(
    get, path = "/api/connections/{id}", tag = "connections", params(("id" = ConnectionId, Path)),
    responses((status = 200, description = "The connection, without its secret", body = ConnectionView)),
)]
pub(crate) async fn get_connection(
    caller: Caller<ConnectionsRead>,
    State(deps): State<Deps>,
    Path(id): Path<ConnectionId>,
) -> Result<Json<ConnectionView>, Problem> {
    let connection = deps.store.connections().get(caller.tenant, id).await?.ok_or_else(Problem::not_found)?;
    resealing::reseal(&deps, caller.tenant, std::slice::from_ref(&connection)).await;
    Ok(Json(connection.into()))
}

/// Delete a connection
///
/// Runs whose steps still use it fail with `connection_unusable`, within 5 seconds.
#[utoipa::path(
    delete, path = "/api/connections/{id}", tag = "connections", params(("id" = ConnectionId, Path)),
    responses((status = 204, description = "It is gone")),
)]
pub(crate) async fn delete_connection(
    caller: Caller<ConnectionsWrite>,
    State(deps): State<Deps>,
    Path(id): Path<ConnectionId>,
) -> Result<StatusCode, Problem> {
    let connection = deps.store.connections().get(caller.tenant, id).await?.ok_or_else(Problem::not_found)?;
    let change = Change::of("connection.delete", id).from(&ConnectionView::from(connection));
    deps.store.audited(caller.audit(&deps.ids, change)).connections().delete(caller.tenant, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The hosts that the secret may be sent to, or everything that is wrong.
fn check(body: &CreateConnection) -> Result<Vec<String>, Vec<FieldError>> {
    let root = Pointer::root();
    let mut errors = Vec::new();
    if !(1..=MAX_NAME_CHARS).contains(&body.name.trim().chars().count()) {
        errors.push(FieldError::new(root.push("name"), "must have 1 to 200 characters"));
    }
    let Some(connector) = connector(&body.connector) else {
        let all = connectors().map(|connector| connector.name).collect::<Vec<_>>().join(", ");
        errors.push(FieldError::new(root.push("connector"), format!("there is no such connector; there are: {all}")));
        return Err(errors);
    };
    let secret_errors = connector.validate_secret(&body.data);
    let secret_is_valid = secret_errors.is_empty();
    errors.extend(
        secret_errors
            .into_iter()
            .map(|error| FieldError::new(Pointer::from(format!("/data{}", error.pointer).as_str()), error.detail)),
    );
    let hosts = if secret_is_valid { connector.hosts_of(&body.data, &body.hosts) } else { Ok(Vec::new()) };
    match hosts {
        Ok(hosts) if errors.is_empty() => Ok(hosts),
        Ok(_) => Err(errors),
        Err(host_errors) => {
            errors.extend(host_errors);
            Err(errors)
        }
    }
}

fn sealing_problem(error: &EnvelopeError) -> Problem {
    if error.is_retryable() { Problem::unavailable(error) } else { Problem::internal(error) }
}
