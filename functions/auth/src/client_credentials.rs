//! OAuth 2.0 client credentials (RFC 6749, section 4.4): an API key's id and secret get an access token of its service
//! account. For clients that can't send an API key, and for tokens of a narrower scope.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, PRAGMA, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use tidegate_http::{Client, Json, Problem, ProblemCode, Public, RandomSecret, Raw, RequestContext, Scope};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::{Deps, Subject, TOKEN_LIFETIME, throttle};

const FORM: &str = "application/x-www-form-urlencoded";
/// RFC 7617, section 2: the scheme needs a realm.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"tidegate\"");

/// A client's request for an access token. The client is named by HTTP Basic authentication or in the body, not by both.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the body in the document; the body is a form and is read by hand")]
pub(crate) struct TokenRequest {
    /// Always `client_credentials`.
    #[schema(examples("client_credentials"))]
    grant_type: String,
    /// The API key's id, where it isn't in the `Authorization` header.
    client_id: Option<String>,
    /// The API key's secret, where it isn't in the `Authorization` header.
    #[schema(format = Password)]
    client_secret: Option<String>,
    /// Permissions with a space between them, of those that the key has; without it all of them.
    #[schema(examples("workflows:run runs:read"))]
    scope: Option<String>,
}

/// An access token of a service account.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenAnswer {
    /// The access token: send it as `Authorization: Bearer …`.
    access_token: String,
    /// Always `Bearer`.
    #[schema(examples("Bearer"))]
    token_type: &'static str,
    /// Seconds until the token ends.
    #[schema(examples(900))]
    expires_in: u64,
    /// What may be done with it: permissions with a space between them.
    #[schema(value_type = String, examples("workflows:run runs:read"))]
    scope: Scope,
}

/// Why there is no token, as RFC 6749, section 5.2, has it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Refusal {
    error: ErrorCode,
    /// What is wrong and what to do, for people.
    error_description: &'static str,
}

/// RFC 6749, section 5.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ErrorCode {
    /// The request lacks something, repeats something, or can't be read.
    InvalidRequest,
    /// The client isn't one, or its secret is wrong.
    InvalidClient,
    /// The client may have no token now.
    UnauthorizedClient,
    /// The grant type isn't `client_credentials`.
    UnsupportedGrantType,
    /// The scope names what there isn't, or what the key doesn't have.
    InvalidScope,
}

/// What is answered in place of a token.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What the RFC has a code for.
    Refused(Refusal),
    /// What it has none for: too many wrong secrets, or a fault of ours.
    Problem(Problem),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

fn refused(error: ErrorCode, error_description: &'static str) -> Failure {
    Failure::Refused(Refusal { error, error_description })
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::Problem(problem) => problem.into_response(),
            Self::Refused(refusal) if refusal.error == ErrorCode::InvalidClient => {
                (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, CHALLENGE)], Json(refusal)).into_response()
            }
            Self::Refused(refusal) => (StatusCode::BAD_REQUEST, Json(refusal)).into_response(),
        }
    }
}

/// Get an access token with client credentials
///
/// OAuth 2.0, RFC 6749, section 4.4: the client is an API key, by HTTP Basic authentication or in the form. The token ends
/// after 15 minutes, and within 5 seconds of its key. Too many wrong secrets are answered by 429.
#[utoipa::path(
    post, path = "/api/auth/token", tag = "auth",
    request_body(content = TokenRequest, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The token", body = TokenAnswer),
        (status = 400, description = "The request is wrong", body = Refusal),
        (status = 401, description = "The client isn't known, or its secret is wrong", body = Refusal),
    ),
)]
pub(crate) async fn issue_token(
    _: Public,
    State(deps): State<Deps>,
    context: RequestContext,
    headers: HeaderMap,
    Raw(body): Raw,
) -> Result<Response, Failure> {
    let form = Form::read(&headers, &body)?;
    match form.grant_type.as_deref() {
        Some("client_credentials") => {}
        Some(_) => {
            return Err(refused(ErrorCode::UnsupportedGrantType, "The one grant type here is client_credentials."));
        }
        None => return Err(refused(ErrorCode::InvalidRequest, "grant_type is missing; it is client_credentials.")),
    }
    let (id, secret) = form.client(&headers)?;
    let client = prove(&deps, &context, &id, &secret).await?;
    context.name_caller(Some(client.key.tenant), client.key.service_account.into());
    context.tell_rate(client.rate);
    let scope = narrow(client.permissions, form.scope.as_deref())?;
    let subject = Subject::machine(&client.key, client.role, scope.clone());
    let access_token = deps.signer.sign(subject).await.map_err(Problem::from)?;
    let answer = TokenAnswer { access_token, token_type: "Bearer", expires_in: TOKEN_LIFETIME.as_secs(), scope };
    // RFC 6749, section 5.1, asks for both.
    Ok(([(CACHE_CONTROL, "no-store"), (PRAGMA, "no-cache")], Json(answer)).into_response())
}

/// The client with this id and secret.
async fn prove(deps: &Deps, context: &RequestContext, id: &str, secret: &str) -> Result<Client, Failure> {
    let problem = match (id.parse(), RandomSecret::parse(secret)) {
        (Ok(id), Some(secret)) => match deps.authenticator.client(id, &secret).await {
            Ok(client) => return Ok(client),
            Err(problem) => problem,
        },
        _ => return Err(wrong(deps, context, id).await),
    };
    match problem.code() {
        ProblemCode::Unauthenticated => Err(wrong(deps, context, id).await),
        ProblemCode::TenantSuspended => {
            Err(refused(ErrorCode::UnauthorizedClient, "The client's organization is suspended."))
        }
        _ => Err(problem.into()),
    }
}

/// An id that is none, a key that is gone or over and a wrong secret all get this same answer.
async fn wrong(deps: &Deps, context: &RequestContext, id: &str) -> Failure {
    match throttle::wrong_secret(deps, context, id).await {
        Ok(_counted) => refused(
            ErrorCode::InvalidClient,
            "There is no client with this id and secret: the API key may have been revoked, or have ended.",
        ),
        Err(problem) => problem.into(),
    }
}

/// The scope that is asked for, if the client has it; all that it has where none is asked for.
fn narrow(
    permissions: std::collections::BTreeSet<tidegate_model::Permission>,
    asked: Option<&str>,
) -> Result<Scope, Failure> {
    let beyond = || {
        let detail = "The scope names what isn't a permission, or what this API key doesn't allow.";
        refused(ErrorCode::InvalidScope, detail)
    };
    let scope = match asked {
        Some(asked) => asked.parse::<Scope>().map_err(|_| beyond())?,
        None => Scope(permissions.clone()),
    };
    if scope.0.is_empty() {
        return Err(refused(ErrorCode::InvalidScope, "The service account's role allows nothing of the key's scopes."));
    }
    if scope.0.is_subset(&permissions) { Ok(scope) } else { Err(beyond()) }
}

/// The parameters that matter. The RFC has it that others are ignored, and that one without a value is as good as absent.
#[derive(Default)]
struct Form {
    grant_type: Option<String>,
    client_id: Option<String>,
    client_secret: Option<Zeroizing<String>>,
    scope: Option<String>,
}

impl Form {
    fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Failure> {
        let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case(FORM) {
            let detail = "Send the parameters as a form: Content-Type: application/x-www-form-urlencoded.";
            return Err(refused(ErrorCode::InvalidRequest, detail));
        }
        let mut form = Self::default();
        for (name, value) in url::form_urlencoded::parse(body) {
            if value.is_empty() {
                continue;
            }
            let value = value.into_owned();
            let repeated = match &*name {
                "grant_type" => form.grant_type.replace(value).is_some(),
                "client_id" => form.client_id.replace(value).is_some(),
                "client_secret" => form.client_secret.replace(Zeroizing::new(value)).is_some(),
                "scope" => form.scope.replace(value).is_some(),
                _ => false,
            };
            if repeated {
                return Err(refused(ErrorCode::InvalidRequest, "A parameter is there more than once."));
            }
        }
        Ok(form)
    }

    /// The client's id and secret, from the one place where they are.
    fn client(&self, headers: &HeaderMap) -> Result<(String, Zeroizing<String>), Failure> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let header = values.next();
        let twice =
            || refused(ErrorCode::InvalidRequest, "Name the client once: in the Authorization header or in the form.");
        match (header, &self.client_id, &self.client_secret) {
            (Some(_), _, _) if values.next().is_some() => Err(twice()),
            (Some(header), id, None) => {
                let unreadable =
                    || refused(ErrorCode::InvalidClient, "The Authorization header is no Basic authentication.");
                let (of_header, secret) = basic(header).ok_or_else(unreadable)?;
                // Naming the client in the form too is fine; naming another isn't.
                if id.as_ref().is_none_or(|id| *id == of_header) { Ok((of_header, secret)) } else { Err(twice()) }
            }
            (Some(_), _, Some(_)) => Err(twice()),
            (None, Some(id), Some(secret)) => Ok((id.clone(), secret.clone())),
            (None, _, _) => {
                Err(refused(ErrorCode::InvalidClient, "The request names no client: send client_id and client_secret."))
            }
        }
    }
}

/// Id and secret of HTTP Basic authentication; both are form-encoded inside it (RFC 6749, section 2.3.1).
fn basic(header: &HeaderValue) -> Option<(String, Zeroizing<String>)> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = Zeroizing::new(STANDARD.decode(encoded.trim()).ok()?);
    let (id, secret) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((form_decoded(id).to_string(), form_decoded(secret)))
}

fn form_decoded(text: &str) -> Zeroizing<String> {
    // A form's name without a value: `=` and `&` inside it are encoded, or it is no id or secret of ours anyway.
    let name = url::form_urlencoded::parse(text.as_bytes()).next().map(|(name, _)| name.into_owned());
    Zeroizing::new(name.unwrap_or_default())
}
