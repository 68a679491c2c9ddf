//! Signing in at a vendor: OAuth 2.0's authorization code with PKCE (RFC 6749, RFC 7636, and RFC 9700's advice). The `state` is
//! good once, for ten minutes, in the browser that began, while the session that began it is there.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CACHE_CONTROL, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tidegate_connections::grant_of;
use tidegate_connectors::manifest::SignInKind;
use tidegate_connectors::{Authorization, Entered, providers};
use tidegate_egress::{Code, TokenClient, TokenError, client_context};
use tidegate_http::permission::{ConnectionsWrite, PlatformRead, PlatformWrite};
use tidegate_http::{
    Caller, Change, Escaped, Json, ListOf, Path, Person, Problem, ProblemCode, Public, Query, RandomSecret,
    RequestContext, Time, cookie, html_page,
};
use tidegate_model::{
    Actor, Connection, ConnectionId, FieldError, Health, HealthStatus, OAuthClient, OAuthGrant, OAuthState, Permission,
    Pointer, Publisher, TenantStatus,
};
use utoipa::{IntoParams, ToSchema};
use zeroize::Zeroizing;

use crate::Deps;
use crate::connections::{
    ConnectionView, check_name, connector_named, ours, seal, sealing_problem, sign_in_of, stored, user_of,
};

/// How long signing in may take.
const LIFETIME: Duration = Duration::from_secs(600);
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(15);
const COOKIE_NAME: &str = "tidegate_oauth";
/// Where vendors send browsers back to.
const CALLBACK: &str = "/api/oauth/callback";

/// Where one wants to sign in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BeginOAuth {
    /// The connector, for a new connection.
    connector: Option<String>,
    /// Name for display of the new connection.
    name: Option<String>,
    /// Or the connection that is signed in anew: it keeps its id, and so its workflows.
    connection: Option<ConnectionId>,
    /// The connector's fields that aren't tokens; with `client_id` and `client_secret` where it is a client of one's own, as
    /// connectors of one's own need it. `type` is the way to sign in; without it the first that is OAuth.
    #[serde(default)]
    #[schema(value_type = Object)]
    data: Map<String, Value>,
}

impl std::fmt::Debug for BeginOAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BeginOAuth").field("connector", &self.connector).finish_non_exhaustive()
    }
}

/// Where to go.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OAuthBegun {
    /// Open this in the browser that made the request: the cookie that came along has to come back.
    authorization_url: String,
    /// Where the vendor sends the browser back to: what has to be set at the vendor's client.
    redirect_uri: String,
    /// Until when one has to be done.
    expires_at: Time,
}

/// Begin to sign in at a vendor
///
/// For a new connection, or for one that is broken. Open `authorization_url` in the same browser; the vendor sends it back to
/// `/api/oauth/callback`, and then the connection is there.
#[utoipa::path(
    post, path = "/api/connections/oauth", tag = "connections",
    request_body = BeginOAuth,
    responses((
        status = 200, description = "Where to go", body = OAuthBegun,
        headers(("Set-Cookie" = String, description = "Ties what comes back to this browser")),
    )),
)]
pub(crate) async fn begin_oauth(
    caller: Caller<ConnectionsWrite>,
    State(deps): State<Deps>,
    context: RequestContext,
    Json(body): Json<BeginOAuth>,
) -> Result<Response, Problem> {
    let (Some(user), Some(session)) = (user_of(caller.principal), caller.session) else {
        let detail =
            "Signing in at a vendor takes a person in a browser; an API key can't. Give tokens as `data` instead.";
        return Err(Problem::new(ProblemCode::Forbidden, detail));
    };
    let wrong = |at: &str, detail: String| Problem::validation(vec![FieldError::new(Pointer::root().push(at), detail)]);
    let before = match body.connection {
        Some(id) => Some(stored(&deps, caller.tenant, id).await?),
        None => None,
    };
    let connector = match (&body.connector, &before) {
        (Some(_), Some(_)) => {
            return Err(wrong("connector", "must be left out with `connection`, which has one".into()));
        }
        (Some(name), None) => name.clone(),
        (None, Some(before)) => before.connector.clone(),
        (None, None) => return Err(wrong("connector", "is required, or `connection`".into())),
    };
    let name = body.name.clone().or_else(|| before.as_ref().map(|before| before.name.clone()));
    let name = name.ok_or_else(|| wrong("name", "is required".into()))?;
    let errors = check_name(&name);
    if !errors.is_empty() {
        return Err(Problem::validation(errors));
    }
    let connector = connector_named(&deps, caller.tenant, &connector).await?;
    let connector = connector.map_err(|error| Problem::validation(vec![error]))?;
    let is_oauth = |kind: &SignInKind| matches!(kind, SignInKind::OAuth2(_));
    let kind = match (body.data.get("type").and_then(Value::as_str), &before) {
        (Some(kind), _) => Some(kind.to_owned()),
        (None, Some(before)) => Some(before.auth.clone()),
        (None, None) => connector.document.auth.iter().find(|way| is_oauth(&way.kind)).map(|way| way.id.clone()),
    };
    let sign_in = sign_in_of(&connector, kind.as_deref()).map_err(|error| Problem::validation(vec![error]))?;
    let SignInKind::OAuth2(oauth) = &sign_in.kind else {
        let detail = format!("{:?} is no OAuth; make the connection by `POST /api/connections`", sign_in.id);
        return Err(Problem::validation(vec![FieldError::new("/data/type".into(), detail)]));
    };
    let mut data = body.data.clone();
    if let Some(before) = &before {
        for (name, value) in &before.settings {
            data.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    let under =
        |error: FieldError| FieldError::new(Pointer::from(format!("/data{}", error.pointer).as_str()), error.detail);
    let entered = sign_in.enter(&data);
    let entered = entered.map_err(|errors| Problem::validation(errors.into_iter().map(under).collect()))?;
    let grant = connector.document.grant(sign_in, &entered, &[]).map_err(Problem::validation)?;
    let flow = oauth.flow(&entered.settings).map_err(|fault| wrong("data", fault))?;
    let Entered { settings, mut secret } = entered;
    secret.retain(|name, _| matches!(name.as_str(), "client_id" | "client_secret"));

    let own = secret.get("client_id").and_then(Value::as_str).map(str::to_owned);
    // The installation's client only for connectors that are built in: its tokens go to their hosts alone.
    let provider = flow.provider.clone().filter(|_| own.is_none() && connector.publisher == Publisher::Builtin);
    let client_id = match (&own, &provider) {
        (Some(id), _) => id.clone(),
        (None, Some(provider)) => match deps.store.oauth().client(provider).await? {
            Some(client) => client.client_id,
            None => {
                let detail = format!(
                    "is required: this installation has no OAuth client at {provider}; its operator can set one \
                     (`PUT /api/admin/platform/oauth-clients/{provider}`)"
                );
                return Err(Problem::validation(vec![FieldError::new("/data/client_id".into(), detail)]));
            }
        },
        (None, None) => {
            let detail = "is required, with client_secret where the vendor gave one";
            return Err(Problem::validation(vec![FieldError::new("/data/client_id".into(), detail)]));
        }
    };

    let (state, browser, verifier) = (RandomSecret::new(), RandomSecret::new(), RandomSecret::new());
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.expose().as_bytes()));
    let id = before.as_ref().map_or_else(|| deps.ids.connection(), |before| before.id);
    let mut sealed = secret;
    if flow.pkce {
        sealed.insert("code_verifier".to_owned(), json!(verifier.expose()));
    }
    let (data_key, sealed) = seal(&deps, caller.tenant, id, &Value::Object(sealed)).await?;
    let redirect_uri = context.url(deps.settings.public_url.as_deref(), CALLBACK)?;
    let authorization = Authorization {
        client_id: &client_id,
        redirect_uri: &redirect_uri,
        state: state.expose(),
        challenge: &challenge,
    };
    let authorization_url = flow.authorize(authorization).map_err(|fault| wrong("data", fault))?;
    let expires_at = deps.clock.now() + LIFETIME;
    let under_way = OAuthState {
        id: state.hash(),
        browser: browser.hash(),
        tenant: caller.tenant,
        user,
        session,
        connector: connector.name().to_owned(),
        publisher: connector.publisher,
        auth: sign_in.id.clone(),
        name: name.trim().to_owned(),
        connection: id,
        renews: before.is_some(),
        settings,
        hosts: grant.hosts,
        placement: grant.placement,
        token_url: flow.token_url,
        provider,
        client_auth: flow.client_auth,
        scopes: flow.scopes,
        redirect_uri: redirect_uri.clone(),
        data_key,
        sealed,
        expires_at,
    };
    deps.store.oauth().begin(&under_way).await?;
    let secure = if redirect_uri.starts_with("https://") { "; Secure" } else { "" };
    let cookie = format!(
        "{COOKIE_NAME}={}; Path={CALLBACK}; Max-Age={}; HttpOnly; SameSite=Lax{secure}",
        browser.expose(),
        LIFETIME.as_secs()
    );
    let mut cookie = HeaderValue::try_from(cookie).map_err(|error| Problem::internal(&error))?;
    cookie.set_sensitive(true);
    let begun = OAuthBegun { authorization_url, redirect_uri, expires_at: expires_at.into() };
    Ok(([(SET_COOKIE, cookie)], Json(begun)).into_response())
}

/// What a vendor sends along.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Returned {
    /// What was given to the vendor.
    state: Option<String>,
    /// What tokens are got for.
    code: Option<String>,
    /// Why there is no code.
    error: Option<String>,
}

/// Come back from a vendor
///
/// Where a vendor sends the browser to. The page says whether the connection is there.
#[utoipa::path(
    get, path = "/api/oauth/callback", tag = "connections", params(Returned),
    responses((status = 200, description = "A page that says so", body = String, content_type = "text/html")),
)]
pub(crate) async fn oauth_callback(
    _: Public,
    State(deps): State<Deps>,
    Query(returned): Query<Returned>,
    context: RequestContext,
    headers: HeaderMap,
) -> Response {
    match finish(&deps, &returned, &context, &headers).await {
        Ok(connection) => {
            let text = format!("The connection “{}” is ready. You can close this window.", connection.name);
            page(StatusCode::OK, "Connected", &text)
        }
        Err(problem) => page(problem.code().status(), "Not connected", &problem.to_string()),
    }
}

async fn finish(
    deps: &Deps,
    returned: &Returned,
    context: &RequestContext,
    headers: &HeaderMap,
) -> Result<Connection, Problem> {
    let gone = || {
        let detail = "This sign-in was used, took more than ten minutes, or was begun in another browser. Begin anew.";
        Problem::new(ProblemCode::LinkInvalid, detail)
    };
    let state = returned.state.as_deref().and_then(RandomSecret::parse).ok_or_else(gone)?;
    let browser = cookie(headers, COOKIE_NAME).and_then(RandomSecret::parse).ok_or_else(gone)?;
    let found = deps.store.oauth().under_way(&state.hash()).await?.ok_or_else(gone)?;
    // Whoever has no cookie of it can't use it up either.
    if !browser.is(&found.browser) || found.expires_at <= deps.clock.now() {
        return Err(gone());
    }
    if !deps.store.oauth().end(&found.id).await? {
        return Err(gone());
    }
    context.record("tenant_id", found.tenant);
    let session = deps.store.sessions().get(found.user, found.session).await?;
    let is_alive = session.is_some_and(|session| session.expires_at > deps.clock.now());
    let member = deps.store.tenants().member(found.tenant, found.user.into()).await?;
    let tenant = deps.store.tenants().get(found.tenant).await?.ok_or_else(gone)?;
    // What the person may do may have changed since.
    let may = member.is_some_and(|member| tenant.permissions(&member.role).contains(&Permission::ConnectionsWrite));
    if !is_alive || !may || tenant.status != TenantStatus::Active {
        return Err(gone());
    }
    let refused = |detail: String| Problem::new(ProblemCode::TargetFailed, detail);
    let code = match (&returned.code, &returned.error) {
        (Some(code), None) => code,
        (_, Some(error)) => {
            let said = tidegate_model::masked_snippet(error);
            return Err(refused(format!("The vendor didn't let you in: {said}. Begin anew.")));
        }
        (None, None) => return Err(refused("The vendor sent no code. Begin anew.".to_owned())),
    };

    let grant = OAuthGrant {
        token_url: found.token_url.clone(),
        provider: found.provider.clone(),
        client_auth: found.client_auth,
        scopes: found.scopes.clone(),
        refreshable: false,
        expires_at: None,
        lifetime_seconds: None,
        refreshing: None,
    };
    let now = deps.clock.now();
    let draft = Connection {
        id: found.connection,
        tenant: found.tenant,
        name: found.name.clone(),
        connector: found.connector.clone(),
        publisher: found.publisher,
        auth: found.auth.clone(),
        settings: found.settings.clone(),
        hosts: found.hosts.clone(),
        placement: found.placement.clone(),
        oauth: Some(grant.clone()),
        health: Health { status: HealthStatus::Ok, reason: None, account: None, since: Some(now) },
        data_key: found.data_key,
        sealed: String::new(),
        created_by: Some(found.user),
        created_at: now,
    };
    let installations = match &found.provider {
        Some(provider) => deps.store.oauth().client(provider).await?,
        None => None,
    };
    let client = match (&found.provider, &installations) {
        (Some(_), Some(client)) => TokenClient::Installation(client),
        (Some(provider), None) => return Err(refused(format!("The installation's client at {provider} is gone."))),
        (None, _) => TokenClient::Connection,
    };
    let usable = deps.connections.usable(draft.clone().into()).await.map_err(ours)?.ok_or_else(gone)?;
    let code = Code { code, redirect_uri: &found.redirect_uri, sealed: &found.sealed };
    let egress = deps.connections.egress();
    let granted = egress.redeem(code, &grant, client, usable.credential(), EXCHANGE_TIMEOUT).await;
    let granted = granted.map_err(|error| match error {
        TokenError::Egress(error) => refused(format!("The vendor can't be reached: {error}. Begin anew.")),
        error => refused(format!("There is no access: {error}. Begin anew.")),
    })?;
    let connection = Connection { oauth: Some(grant_of(&grant, &granted, now)), sealed: granted.sealed, ..draft };
    let actor = Actor {
        principal: Some(found.user.into()),
        session: Some(found.session),
        api_key: None,
        address: context.address,
    };
    let view = ConnectionView::from(connection.clone());
    let connections =
        |change: Change| deps.store.audited(change.entry(&deps.ids, Some(found.tenant), actor.clone(), context));
    if found.renews {
        // A refresh may note something at this moment.
        for _ in 0..5 {
            let Some(before) = deps.store.connections().get(found.tenant, found.connection).await? else {
                return Err(refused("The connection was deleted meanwhile.".to_owned()));
            };
            let renewed =
                Connection { created_by: before.created_by, created_at: before.created_at, ..connection.clone() };
            let old = ConnectionView::from(before.clone());
            let change = Change::of("connection.renew", found.connection).from(&old).to(&view);
            if connections(change).connections().replace(&before, &renewed).await? {
                return Ok(deps.connections.test(renewed).await.map_err(ours)?.connection);
            }
        }
        return Err(Problem::new(ProblemCode::Conflict, "The connection was changed at the same moment. Begin anew."));
    }
    let change = Change::of("connection.create", found.connection).to(&view);
    connections(change).connections().create(&connection).await?;
    Ok(deps.connections.test(connection).await.map_err(ours)?.connection)
}

/// The page that says what came of it; what vendors say stands in it as text.
fn page(status: StatusCode, heading: &str, text: &str) -> Response {
    let mut response = html_page(status, heading, &format!("<p class=\"message\">{}</p>", Escaped(text)));
    let clear = format!("{COOKIE_NAME}=; Path={CALLBACK}; Max-Age=0; HttpOnly; SameSite=Lax");
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(clear) = HeaderValue::try_from(clear) {
        headers.insert(SET_COOKIE, clear);
    }
    response
}

/// The installation's client at a provider.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetOAuthClient {
    /// The client's id.
    client_id: String,
    /// Its secret.
    client_secret: String,
}

impl std::fmt::Debug for SetOAuthClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SetOAuthClient").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// The installation's client at a provider, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OAuthClient)]
pub(crate) struct OAuthClientView {
    /// The provider.
    provider: String,
    /// Its name for display.
    title: String,
    /// Its documentation on making a client.
    docs: String,
    /// What has to be set there as the redirect URI.
    redirect_uri: String,
    /// The client's id; null where none is set.
    client_id: Option<String>,
    /// When it was set.
    updated_at: Option<Time>,
}

fn view(
    deps: &Deps,
    context: &RequestContext,
    provider: &str,
    client: Option<&OAuthClient>,
) -> Result<OAuthClientView, Problem> {
    let known = providers().get(provider).ok_or_else(Problem::not_found)?;
    Ok(OAuthClientView {
        provider: provider.to_owned(),
        title: known.title.clone(),
        docs: known.docs.clone(),
        redirect_uri: context.url(deps.settings.public_url.as_deref(), CALLBACK)?,
        client_id: client.map(|client| client.client_id.clone()),
        updated_at: client.map(|client| client.updated_at.into()),
    })
}

/// List OAuth clients
///
/// The providers that built-in connectors sign in at, and which of them the installation has a client at.
#[utoipa::path(
    get, path = "/api/admin/platform/oauth-clients", tag = "connections",
    responses((status = 200, description = "All providers", body = ListOf<OAuthClientView>)),
)]
pub(crate) async fn list_oauth_clients(
    _: Person<PlatformRead>,
    State(deps): State<Deps>,
    context: RequestContext,
) -> Result<Json<ListOf<OAuthClientView>>, Problem> {
    let clients = deps.store.oauth().clients().await?;
    let of = |provider: &str| clients.iter().find(|client| client.provider == provider);
    let items =
        providers().keys().map(|provider| view(&deps, &context, provider, of(provider))).collect::<Result<_, _>>()?;
    Ok(Json(ListOf { items, next_cursor: None }))
}

/// Set an OAuth client
///
/// The installation's client at a provider, for all tenants' sign-ins there. Connections that exist go on with it.
#[utoipa::path(
    put, path = "/api/admin/platform/oauth-clients/{provider}", tag = "connections",
    params(("provider" = String, Path)), request_body = SetOAuthClient,
    responses((status = 200, description = "The client, without its secret", body = OAuthClientView)),
)]
pub(crate) async fn set_oauth_client(
    person: Person<PlatformWrite>,
    State(deps): State<Deps>,
    context: RequestContext,
    Path(provider): Path<String>,
    Json(body): Json<SetOAuthClient>,
) -> Result<Json<OAuthClientView>, Problem> {
    view(&deps, &context, &provider, None)?;
    let mut errors = Vec::new();
    for (name, text) in [("client_id", &body.client_id), ("client_secret", &body.client_secret)] {
        if text.trim().is_empty() || text.len() > 2_000 {
            errors.push(FieldError::new(Pointer::root().push(name), "must have 1 to 2000 characters"));
        }
    }
    if !errors.is_empty() {
        return Err(Problem::validation(errors));
    }
    let key_context = client_context();
    let data_key = deps.envelope.new_data_key(&key_context).await.map_err(|error| Problem::unavailable(&error))?;
    let secret = Zeroizing::new(body.client_secret.trim().to_owned());
    let sealed = deps.envelope.seal(&data_key, &key_context, provider.as_bytes(), secret.as_bytes()).await;
    let client = OAuthClient {
        provider: provider.clone(),
        client_id: body.client_id.trim().to_owned(),
        data_key,
        sealed: sealed.map_err(|error| sealing_problem(&error))?,
        updated_at: deps.clock.now(),
    };
    let view = view(&deps, &context, &provider, Some(&client))?;
    let entry = person.audit(&deps.ids, None, Change::of("oauth_client.set", &provider).to(&view));
    deps.store.audited(entry).oauth().set_client(&client).await?;
    Ok(Json(view))
}

/// Remove an OAuth client
///
/// Connections that were made with it break when their access tokens end.
#[utoipa::path(
    delete, path = "/api/admin/platform/oauth-clients/{provider}", tag = "connections",
    params(("provider" = String, Path)),
    responses((status = 204, description = "It is gone")),
)]
pub(crate) async fn remove_oauth_client(
    person: Person<PlatformWrite>,
    State(deps): State<Deps>,
    context: RequestContext,
    Path(provider): Path<String>,
) -> Result<StatusCode, Problem> {
    let client = deps.store.oauth().client(&provider).await?.ok_or_else(Problem::not_found)?;
    let change = Change::of("oauth_client.remove", &provider).from(&view(&deps, &context, &provider, Some(&client))?);
    deps.store.audited(person.audit(&deps.ids, None, change)).oauth().remove_client(&provider).await?;
    Ok(StatusCode::NO_CONTENT)
}
