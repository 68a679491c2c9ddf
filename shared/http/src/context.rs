//! What surrounds every request: an id, a trace, one line in the log, and an answer whatever happens.

use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, REFERRER_POLICY, USER_AGENT, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use tidegate_model::{PrincipalId, TenantId};
use tidegate_platform::Ids;
use tidegate_telemetry::TraceContext;
use tracing::{Instrument as _, Span};

use tidegate_store::RateStatus;

use crate::{Problem, ProblemCode};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The headers of <https://www.ietf.org/archive/id/draft-ietf-httpapi-ratelimit-headers-06.html>.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATE_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATE_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
const MAX_USER_AGENT_CHARS: usize = 200;
const TRACEPARENT: &str = "traceparent";
/// Where Lambda puts its own trace, unless the caller sent a `traceparent`.
const XRAY: &str = "x-amzn-trace-id";
/// Answers are data: nothing in them may load or run anything, or be shown in another page.
const NO_CONTENT: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// A request's id and place in its trace.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// Names the request in its answer and in the log: `req_` and 20 hex digits.
    pub request_id: Arc<str>,
    /// This request's own span, in the caller's trace where it sent one.
    pub trace: TraceContext,
    /// From where it came, as far as that is known.
    pub address: Option<IpAddr>,
    /// The API's own address (`https://…`), where whatever took the request vouches for it.
    pub origin: Option<Arc<str>>,
    /// The caller's `User-Agent`, cut to 200 characters.
    pub user_agent: Option<Arc<str>>,
    span: Span,
    rate: Arc<OnceLock<RateStatus>>,
}

/// What whatever took the connection knows of a request: an extension of the request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connected {
    /// The address that it came from.
    pub address: Option<IpAddr>,
    /// The API's own address (`https://…`), not as the request says, but as it is known.
    pub origin: Option<Arc<str>>,
}

impl RequestContext {
    fn new(headers: &HeaderMap, connected: Connected, ids: &Ids) -> Self {
        let entropy = ids.entropy().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let request_id: Arc<str> = format!("req_{entropy}").into();
        let trace = trace_of(headers).map_or_else(TraceContext::new_root, |caller| caller.child());
        let span = tracing::error_span!(
            "request",
            trace_id = trace.trace_id(),
            tenant_id = tracing::field::Empty,
            user_id = tracing::field::Empty,
            workflow_id = tracing::field::Empty,
            run_id = tracing::field::Empty,
        );
        let user_agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
        let user_agent = user_agent.map(|text| text.chars().take(MAX_USER_AGENT_CHARS).collect::<String>().into());
        let Connected { address, origin } = connected;
        Self { request_id, trace, address, origin, user_agent, span, rate: Arc::default() }
    }

    /// The context of what an operator asks for at the console: no request brought it.
    pub fn of_command(ids: &Ids) -> Self {
        Self::new(&HeaderMap::new(), Connected::default(), ids)
    }

    /// An address of the installation, never as the request's `Host` says. `public_url`: where people reach it, without a slash
    /// at the end; none where that is the API's own address.
    ///
    /// # Errors
    /// Neither is known: a fault of ours.
    pub fn url(&self, public_url: Option<&str>, path: &str) -> Result<String, Problem> {
        let origin = public_url.or(self.origin.as_deref()).ok_or_else(|| Problem::internal(&NoPublicUrl))?;
        Ok(format!("{origin}{path}"))
    }

    /// The W3C `traceparent` for what the request causes.
    pub fn traceparent(&self) -> String {
        self.trace.to_string()
    }

    /// Puts an id on this request's log lines: `workflow_id`, `run_id`, or `tenant_id` on a public route.
    pub fn record(&self, field: &'static str, value: impl std::fmt::Display) {
        self.span.record(field, tracing::field::display(value));
    }

    /// Puts who acts on this request's log lines; [`Caller`](crate::Caller) does so by itself.
    pub fn name_caller(&self, tenant: Option<TenantId>, principal: PrincipalId) {
        if let Some(tenant) = tenant {
            self.record("tenant_id", tenant);
        }
        self.record("user_id", principal);
    }

    /// Puts what is left of the caller's rate limit on the answer.
    pub fn tell_rate(&self, status: Option<RateStatus>) {
        if let Some(status) = status {
            // Of two that apply the first one told stands.
            let _first = self.rate.set(status);
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("nothing says where people reach this installation; set TIDEGATE_PUBLIC_URL")]
struct NoPublicUrl;

/// The caller's place in its trace; several or unreadable headers count as none.
fn trace_of(headers: &HeaderMap) -> Option<TraceContext> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    match values.next() {
        Some(value) if values.next().is_none() => value.to_str().ok()?.trim().parse().ok(),
        Some(_) => None,
        None => TraceContext::from_xray(headers.get(XRAY)?.to_str().ok()?),
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Infallible;

    /// The context of the request; outside a served router, one of its own.
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| {
            Self::new(&parts.headers, Connected::default(), &Ids::new(tidegate_platform::Clock::system()))
        }))
    }
}

pub(crate) async fn surround(State(ids): State<Ids>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let connected = request.extensions().get::<Connected>().cloned().unwrap_or_default();
    let context = RequestContext::new(request.headers(), connected, &ids);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    request.extensions_mut().insert(context.clone());

    let handled = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(context.span.clone()).await;
    // The panic hook has already logged where and why.
    let mut response = handled.unwrap_or_else(|_| {
        Problem::new(
            ProblemCode::Internal,
            "Something went wrong on our side. It has been recorded under the request id.",
        )
        .into_response()
    });

    let problem = response.extensions_mut().remove::<Problem>();
    let rate = problem.as_ref().and_then(Problem::rate_status).or_else(|| context.rate.get().copied());
    if let Some(problem) = &problem {
        response.headers_mut().remove(CONTENT_LENGTH);
        *response.body_mut() = Body::from(problem.body(Some(&context.request_id)));
    }
    dress(response.headers_mut(), &context);
    if let Some(RateStatus { limit, remaining, reset }) = rate {
        let seconds = reset.as_secs() + u64::from(reset.subsec_nanos() > 0);
        let headers = response.headers_mut();
        headers.insert(RATE_LIMIT, limit.into());
        headers.insert(RATE_REMAINING, remaining.into());
        headers.insert(RATE_RESET, seconds.into());
    }

    let duration_ms = f64::from(u32::try_from(started.elapsed().as_micros() / 10).unwrap_or(u32::MAX)) / 100.0;
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let status = response.status().as_u16();
    context.span.in_scope(|| match problem {
        Some(problem) => {
            let code = problem.code().as_str();
            // What the caller was given to name; lines of the same request share its trace.
            let request_id = &*context.request_id;
            tracing::info!(component = "http", request_id, %method, route, status, code, duration_ms, "answered");
        }
        None if route.starts_with("/q/") => {
            tracing::debug!(component = "http", %method, route, status, duration_ms, "answered");
        }
        None => tracing::info!(component = "http", %method, route, status, duration_ms, "answered"),
    });
    response
}

fn dress(headers: &mut HeaderMap, context: &RequestContext) {
    if let Ok(id) = HeaderValue::try_from(&*context.request_id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(NO_CONTENT);
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// A cookie of a request (RFC 6265, section 5.4).
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let values = headers.get_all(http::header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find_map(|(known, value)| (known == name).then_some(value))
}
