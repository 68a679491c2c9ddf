//! Errors as callers see them: problem documents (RFC 9457, `application/problem+json`).

use std::error::Error;
use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::{Serialize, Serializer};
use tidegate_model::{FieldError, Permission};
use tidegate_platform::PortError;
use tidegate_platform::envelope::EnvelopeError;
use utoipa::ToSchema;

use tidegate_store::RateStatus;

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $status:ident, $text:literal, $title:literal;)*) => {
        /// What kind of problem it is: a closed set, each explained on a page of its own (`/docs/errors/{code}`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ProblemCode { $($(#[doc = $doc])* $name,)* }

        impl ProblemCode {
            /// Every code there is.
            pub const ALL: &'static [ProblemCode] = &[$(ProblemCode::$name,)*];

            /// The name in documents and URLs.
            pub fn as_str(self) -> &'static str {
                match self { $(ProblemCode::$name => $text,)* }
            }

            /// The status that it is answered with.
            pub fn status(self) -> StatusCode {
                match self { $(ProblemCode::$name => StatusCode::$status,)* }
            }

            /// A short text for people, the same for every problem of the kind.
            pub fn title(self) -> &'static str {
                match self { $(ProblemCode::$name => $title,)* }
            }
        }
    };
}

codes! {
    /// The body is no JSON, or the path or headers can't be read.
    MalformedRequest = BAD_REQUEST, "malformed_request", "The request can't be read";
    /// A query parameter is unknown, missing or out of range.
    InvalidParameter = BAD_REQUEST, "invalid_parameter", "A query parameter is invalid";
    /// The cursor wasn't given out for this list.
    InvalidCursor = BAD_REQUEST, "invalid_cursor", "The cursor is invalid";
    /// The request needs an access token, and this one is missing, expired or not ours.
    Unauthenticated = UNAUTHORIZED, "unauthenticated", "Sign in first";
    /// No account has this email address and password.
    InvalidCredentials = UNAUTHORIZED, "invalid_credentials", "Wrong email address or password";
    /// The password is right, the code of the second factor isn't.
    SecondFactorInvalid = UNAUTHORIZED, "second_factor_invalid", "Wrong code";
    /// Nothing proves that a webhook's request is from whom the workflow takes it.
    SignatureInvalid = UNAUTHORIZED, "signature_invalid", "The sender isn't proven";
    /// The account has a second factor, or the organization requires one.
    SecondFactorRequired = FORBIDDEN, "second_factor_required", "A second factor is required";
    /// The organization requires signing in by its identity provider.
    SsoRequired = FORBIDDEN, "sso_required", "Single sign-on is required";
    /// The organization was suspended by the installation's administrators.
    TenantSuspended = FORBIDDEN, "tenant_suspended", "The organization is suspended";
    /// The caller is a member of no organization.
    NoTenant = FORBIDDEN, "no_tenant", "No organization";
    /// The link was used, was revoked, has ended, or never was one.
    LinkInvalid = GONE, "link_invalid", "The link is no longer good";
    /// More requests than the limit allows.
    RateLimited = TOO_MANY_REQUESTS, "rate_limited", "Too many requests";
    /// The caller's role doesn't hold the permission.
    Forbidden = FORBIDDEN, "forbidden", "Permission denied";
    /// Nobody can register here without being invited.
    RegistrationClosed = FORBIDDEN, "registration_closed", "Registration is closed";
    /// There is no such thing, or it is another tenant's.
    NotFound = NOT_FOUND, "not_found", "Not found";
    /// The path exists, but not for this method.
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed";
    /// An account with this email address exists.
    EmailTaken = CONFLICT, "email_taken", "The email address is taken";
    /// Somebody else changed it at the same moment.
    Conflict = CONFLICT, "conflict", "Changed at the same time";
    /// An organization has one owner, who stays until it is handed over.
    OwnerRequired = CONFLICT, "owner_required", "The organization needs its owner";
    /// Members or invitations have the role.
    RoleInUse = CONFLICT, "role_in_use", "The role is in use";
    /// There are as many of the kind as there can be.
    LimitReached = CONFLICT, "limit_reached", "There can't be more of these";
    /// Somebody has to administer the installation.
    AdministratorRequired = CONFLICT, "administrator_required", "An administrator has to stay";
    /// The account has a second factor already.
    SecondFactorOn = CONFLICT, "second_factor_on", "The second factor is on";
    /// Another one of this name is there already.
    NameTaken = CONFLICT, "name_taken", "The name is taken";
    /// The connection's connector is gone, or has no longer what the connection needs of it.
    ConnectorGone = CONFLICT, "connector_gone", "The connector is gone";
    /// The workflow is switched off.
    WorkflowInactive = CONFLICT, "workflow_inactive", "The workflow is inactive";
    /// The file that a run is to start with wasn't uploaded.
    UploadMissing = CONFLICT, "upload_missing", "The file isn't there";
    /// It has changed since the version that `If-Match` names.
    PreconditionFailed = PRECONDITION_FAILED, "precondition_failed", "Changed in the meantime";
    /// The body is larger than the operation takes.
    PayloadTooLarge = PAYLOAD_TOO_LARGE, "payload_too_large", "The body is too large";
    /// The body's media type isn't one that the operation takes.
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Unsupported media type";
    /// The body is JSON, but not of the shape that is asked for.
    ValidationFailed = UNPROCESSABLE_ENTITY, "validation_failed", "The body is invalid";
    /// The operation needs an `If-Match`.
    PreconditionRequired = PRECONDITION_REQUIRED, "precondition_required", "If-Match is required";
    /// A fault of ours.
    Internal = INTERNAL_SERVER_ERROR, "internal", "Internal error";
    /// The run whose output was to be the answer has none.
    RunFailed = BAD_GATEWAY, "run_failed", "The run failed";
    /// What was called answered that it failed, or didn't answer.
    TargetFailed = BAD_GATEWAY, "target_failed", "The target failed";
    /// Something that the operation needs is away or busy.
    Unavailable = SERVICE_UNAVAILABLE, "unavailable", "Temporarily unavailable";
}

impl Serialize for ProblemCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl utoipa::PartialSchema for ProblemCode {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("What kind of problem it is; each is explained at `/docs/errors/{code}`."))
            .enum_values(Some(Self::ALL.iter().map(|code| code.as_str())))
            .into()
    }
}

impl ToSchema for ProblemCode {}

/// An error answer. What it says is for the caller: what is wrong, where, and what to do. Causes inside never show.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem(Box<Content>);

#[derive(Debug, Clone, PartialEq)]
struct Content {
    code: ProblemCode,
    detail: String,
    errors: Vec<FieldError>,
    challenge: Option<&'static str>,
    retry_after: Option<Duration>,
    rate: Option<RateStatus>,
}

/// A problem document as it is sent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Document<'a> {
    /// Where the kind of problem is explained.
    #[serde(rename = "type")]
    #[schema(format = "uri-reference", examples("/docs/errors/not_found"))]
    kind: String,
    /// The kind of problem, for people.
    title: &'static str,
    /// The status of the answer.
    #[schema(examples(404))]
    status: u16,
    /// What is wrong this time and what to do, for people.
    detail: &'a str,
    code: ProblemCode,
    /// The answer's `x-request-id`; name it when you ask for help.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, examples("req_5f1c8e0d9b7a6c3f2e14"))]
    request_id: Option<&'a str>,
    /// The fields that are wrong.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

impl Problem {
    /// A problem with a text for the caller: a full sentence.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self(Box::new(Content {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            challenge: None,
            retry_after: None,
            rate: None,
        }))
    }

    /// No such thing; also for another tenant's.
    pub fn not_found() -> Self {
        Self::new(ProblemCode::NotFound, "There is nothing here by this address, or it isn't yours.")
    }

    /// A body of the wrong shape: 422 with the fields.
    pub fn validation(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [one] => format!("The body is invalid at {:?}: {}", one.pointer.as_str(), one.detail),
            many => format!("The body is invalid in {} places; see errors.", many.len()),
        };
        Self::new(ProblemCode::ValidationFailed, detail).with_errors(errors)
    }

    /// The caller's role lacks a permission.
    pub fn forbidden(permission: Permission) -> Self {
        Self::insufficient(format!("Your role doesn't hold the permission {}.", permission.as_str()))
    }

    /// The API key, or the token made with it, isn't for what its holder may do otherwise.
    pub(crate) fn out_of_scope(permission: Permission) -> Self {
        let detail =
            format!("The scopes of the API key or token lack {}. Make a key that has it.", permission.as_str());
        Self::insufficient(detail)
    }

    /// A machine asks for what only people may do.
    pub(crate) fn not_a_person() -> Self {
        Self::insufficient("Only people who are signed in may do this; an API key can't.")
    }

    /// It is about the installation.
    pub(crate) fn not_an_administrator() -> Self {
        Self::insufficient("Only administrators of the installation may do this.")
    }

    fn insufficient(detail: impl Into<String>) -> Self {
        let mut problem = Self::new(ProblemCode::Forbidden, detail);
        problem.0.challenge = Some("Bearer error=\"insufficient_scope\"");
        problem
    }

    /// There is no access token (RFC 6750, section 3.1: then the challenge names no error).
    pub(crate) fn token_missing() -> Self {
        let detail = "This needs an access token: send `Authorization: Bearer <access_token>`.";
        let mut problem = Self::new(ProblemCode::Unauthenticated, detail);
        problem.0.challenge = Some("Bearer");
        problem
    }

    /// The access token isn't good.
    pub(crate) fn token_invalid(detail: &str) -> Self {
        let mut problem = Self::new(ProblemCode::Unauthenticated, detail);
        problem.0.challenge = Some("Bearer error=\"invalid_token\"");
        problem
    }

    /// A fault of ours: logged here with its chain of sources, answered without any of it.
    pub fn internal(error: &(dyn Error + 'static)) -> Self {
        tracing::error!(error, "request failed");
        Self::new(ProblemCode::Internal, "Something went wrong on our side. It has been recorded under the request id.")
    }

    /// Something that the operation needs is away: logged here with its chain of sources, answered without any of it.
    pub fn unavailable(error: &(dyn Error + 'static)) -> Self {
        tracing::error!(error, "dependency unavailable");
        Self::new(ProblemCode::Unavailable, "Something that this needs is unavailable at the moment. Try again.")
            .retry_after(Duration::from_secs(1))
    }

    /// The same with the fields that are wrong.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.0.errors = errors;
        self
    }

    /// The same, telling when to try again (whole seconds, rounded up).
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// The same, challenging whoever asks to prove who it is in this way (RFC 9110, section 11.6.1).
    #[must_use]
    pub fn challenge(mut self, challenge: &'static str) -> Self {
        self.0.challenge = Some(challenge);
        self
    }

    /// The same, telling what is left of a rate limit.
    #[must_use]
    pub(crate) fn rate(mut self, status: RateStatus) -> Self {
        self.0.rate = Some(status);
        self
    }

    pub(crate) fn rate_status(&self) -> Option<RateStatus> {
        self.0.rate
    }

    /// 403: the organization was suspended.
    pub fn tenant_suspended() -> Self {
        let detail = "This organization is suspended. Ask whoever runs this installation.";
        Self::new(ProblemCode::TenantSuspended, detail)
    }

    /// What kind it is.
    pub fn code(&self) -> ProblemCode {
        self.0.code
    }

    /// The fields that are wrong.
    pub fn errors(&self) -> &[FieldError] {
        &self.0.errors
    }

    pub(crate) fn body(&self, request_id: Option<&str>) -> Vec<u8> {
        let code = self.0.code;
        let document = Document {
            kind: format!("/docs/errors/{}", code.as_str()),
            title: code.title(),
            status: code.status().as_u16(),
            detail: &self.0.detail,
            code,
            request_id,
            errors: &self.0.errors,
        };
        // Strings, numbers and lists of them: nothing in it can fail to become JSON.
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

impl fmt::Display for Problem {
    /// What is wrong and where, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)?;
        // One alone is in the detail already.
        self.0
            .errors
            .iter()
            .skip(usize::from(self.0.errors.len() == 1))
            .try_for_each(|error| write!(f, " {}: {}.", error.pointer.as_str(), error.detail))
    }
}

impl IntoResponse for Problem {
    /// The document without a request id. The problem itself goes along as an extension, from which the request's
    /// context makes the whole document.
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body(None)));
        *response.status_mut() = self.0.code.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        let challenge = self.0.challenge.or((self.0.code.status() == StatusCode::UNAUTHORIZED).then_some("Bearer"));
        if let Some(challenge) = challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(after) = self.0.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs() + u64::from(after.subsec_nanos() > 0)));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<PortError> for Problem {
    fn from(error: PortError) -> Self {
        Self::unavailable(&error)
    }
}

impl From<EnvelopeError> for Problem {
    fn from(error: EnvelopeError) -> Self {
        if error.is_retryable() { Self::unavailable(&error) } else { Self::internal(&error) }
    }
}

impl From<tidegate_store::Error> for Problem {
    /// What a handler didn't turn into something more telling.
    fn from(error: tidegate_store::Error) -> Self {
        use tidegate_store::Error;
        match error {
            Error::Conflict { .. } => Self::new(
                ProblemCode::Conflict,
                "Somebody else changed this at the same moment. Read it and try again.",
            ),
            Error::InvalidCursor => Self::new(
                ProblemCode::InvalidCursor,
                "The cursor is not from this list. Take `next_cursor` from the page before, with the same parameters.",
            ),
            Error::Unavailable { .. } => Self::unavailable(&error),
            Error::Refused { .. } | Error::Corrupt { .. } => Self::internal(&error),
        }
    }
}
