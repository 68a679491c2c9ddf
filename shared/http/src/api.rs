//! Routes and their OpenAPI document, put together in one step so that neither can lack the other.

use std::convert::Infallible;

use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Extension, Router};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use tidegate_platform::Ids;
use utoipa::openapi::path::{HttpMethod, Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    Components, ComponentsBuilder, ContentBuilder, Deprecated, InfoBuilder, OpenApi, OpenApiBuilder, Paths, Ref, RefOr,
    ResponseBuilder,
};

use utoipa::ToSchema as _;

use crate::access::{self, Access, BEARER, Guarded, Public};
use crate::context::surround;
use crate::problem::Document;
use crate::{Problem, ProblemCode};

/// Where the OpenAPI document is served.
pub const DOCUMENT_PATH: &str = "/api/openapi.json";
/// How large a body may be where the operation doesn't say otherwise.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Operations and their OpenAPI 3.1 document. Each function makes one over its `Deps`; the local runner merges them.
///
/// A handler whose first argument doesn't say who may call it is not accepted:
/// ```compile_fail
/// use tidegate_http::{Api, endpoint};
///
/// /// Greets.
/// #[utoipa::path(get, path = "/api/hello", responses((status = 200)))]
/// async fn hello() -> &'static str {
///     "hello"
/// }
///
/// let api: Api<()> = Api::new().route(endpoint!(hello));
/// ```
/// but this one is:
/// ```
/// use tidegate_http::{Api, Public, endpoint};
///
/// /// Greets.
/// #[utoipa::path(get, path = "/api/hello", responses((status = 200)))]
/// async fn hello(_: Public) -> &'static str {
///     "hello"
/// }
///
/// let api: Api<()> = Api::new().route(endpoint!(hello));
/// ```
#[must_use]
pub struct Api<S = ()> {
    router: Router<S>,
    document: OpenApi,
}

impl<S: Clone + Send + Sync + 'static> Default for Api<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Clone + Send + Sync + 'static> Api<S> {
    /// No operations yet.
    pub fn new() -> Self {
        Self { router: Router::new(), document: empty_document() }
    }

    /// Adds an operation: `api.route(endpoint!(handler))`.
    pub fn route<H, T>(mut self, endpoint: Endpoint<H>) -> Self
    where
        H: Handler<T, S>,
        T: Guarded + 'static,
    {
        let Endpoint { handler, path, method, mut operation, components, max_body_bytes } = endpoint;
        access::describe(T::Access::PERMISSION, &mut operation);
        describe_responses(T::Access::PERMISSION.is_some(), &mut operation);
        let mut route: MethodRouter<S, Infallible> = on(filter(&method), handler);
        if let Some(bytes) = max_body_bytes {
            route = route.layer(DefaultBodyLimit::max(bytes));
        }
        self.router = self.router.route(&path, route);
        let mut paths = Paths::new();
        paths.add_path_operation(&path, vec![method], operation);
        let mut addition = OpenApi::new(InfoBuilder::new().build(), paths);
        addition.components = components;
        self.document.merge(addition);
        self
    }

    /// Fills in the state of all operations so far.
    pub fn with_state(self, state: S) -> Api {
        Api { router: self.router.with_state(state), document: self.document }
    }

    /// These operations and another's.
    ///
    /// # Panics
    /// Both have an operation with the same path and method.
    pub fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.document.merge(other.document);
        self
    }

    /// The document of these operations.
    pub fn document(&self) -> &OpenApi {
        &self.document
    }
}

impl Api {
    /// The same, serving an OpenAPI document at [`DOCUMENT_PATH`]: the installation's, of which these operations may be a
    /// part.
    pub fn with_document(self, document: &'static str) -> Self {
        let mut documented = self.route(crate::endpoint!(openapi_document));
        documented.router = documented.router.layer(Extension(ServedDocument(Bytes::from_static(document.as_bytes()))));
        documented
    }

    /// A service that gives every request its context (id, trace, log line), and every failure a problem document.
    pub fn into_router(self, ids: Ids) -> Router {
        self.router
            .fallback(async || Problem::not_found())
            .method_not_allowed_fallback(async || {
                let detail = "This address exists, but not for this method; `Allow` names those it has.";
                Problem::new(ProblemCode::MethodNotAllowed, detail)
            })
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .layer(axum::middleware::from_fn_with_state(ids, surround))
    }
}

/// An operation to add to an [`Api`]; made by [`endpoint!`](crate::endpoint!).
#[must_use]
pub struct Endpoint<H> {
    handler: H,
    path: String,
    method: HttpMethod,
    operation: Operation,
    components: Option<Components>,
    max_body_bytes: Option<usize>,
}

impl<H> Endpoint<H> {
    /// For [`endpoint!`](crate::endpoint!) alone: a handler and the document that its attribute makes.
    ///
    /// # Panics
    /// The document doesn't hold exactly one operation.
    #[doc(hidden)]
    #[expect(clippy::panic, reason = "the macro derives the document from one handler, and that has one operation")]
    pub fn new(handler: H, mut document: OpenApi) -> Self {
        let operation = document.paths.paths.pop_first().and_then(|(path, item)| {
            let (method, operation) = single_operation(item)?;
            Some((path, method, operation))
        });
        let Some((path, method, operation)) = operation else { panic!("a handler has one path and one method") };
        Self { handler, path, method, operation, components: document.components, max_body_bytes: None }
    }

    /// The same operation at another path, under another operation id.
    pub fn at(mut self, path: &str, operation_id: &str) -> Self {
        self.path = path.to_owned();
        self.operation.operation_id = Some(operation_id.to_owned());
        self
    }

    /// The same operation for another method, under another operation id.
    pub fn of(mut self, method: HttpMethod, operation_id: &str) -> Self {
        self.method = method;
        self.operation.operation_id = Some(operation_id.to_owned());
        self
    }

    /// The same, marked as deprecated: it stays for callers who know it by this path.
    pub fn deprecated(mut self) -> Self {
        self.operation.deprecated = Some(Deprecated::True);
        self
    }

    /// The same, taking bodies up to this size instead of [`MAX_BODY_BYTES`].
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.max_body_bytes = Some(bytes);
        self
    }
}

/// The operation of a handler that carries `#[utoipa::path(…)]`; the crate that uses it depends on `utoipa`.
#[macro_export]
macro_rules! endpoint {
    ($($handler:ident)::+) => {{
        #[derive(::utoipa::OpenApi)]
        #[openapi(paths($($handler)::+))]
        struct Described;
        $crate::Endpoint::new($($handler)::+, <Described as ::utoipa::OpenApi>::openapi())
    }};
}

#[derive(Clone)]
struct ServedDocument(Bytes);

/// The OpenAPI document of this API
#[utoipa::path(
    get,
    path = "/api/openapi.json",
    tag = "meta",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value))
)]
async fn openapi_document(
    _: Public,
    Extension(ServedDocument(bytes)): Extension<ServedDocument>,
) -> ([(http::HeaderName, HeaderValue); 1], Bytes) {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes)
}

fn empty_document() -> OpenApi {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some(
            "The `access_token` of `POST /api/auth/login`, `refresh` or `token`, good for 15 minutes; or an API key (`tgk_…`).",
        ))
        .build();
    let problem = ResponseBuilder::new()
        .description("A problem document (RFC 9457).")
        .content(
            "application/problem+json",
            ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build(),
        )
        .build();
    let mut parts_of_problem = Vec::new();
    Document::schemas(&mut parts_of_problem);
    let components = ComponentsBuilder::new()
        .schema_from::<Document<'static>>()
        .schemas_from_iter(parts_of_problem)
        .security_scheme(BEARER, SecurityScheme::Http(bearer))
        .response("Problem", problem)
        .build();
    let info = InfoBuilder::new()
        .title("Tidegate")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Webhooks and schedules start workflows; their steps call Slack, Discord or any HTTP API."))
        .build();
    OpenApiBuilder::new().info(info).components(Some(components)).build()
}

/// Every operation may answer problems, and one that needs a token says which. A response without a description, which
/// OpenAPI demands, gets its status's.
fn describe_responses(needs_token: bool, operation: &mut Operation) {
    let responses = &mut operation.responses.responses;
    for (status, response) in responses.iter_mut() {
        let reason = status.parse::<StatusCode>().ok().and_then(|status| status.canonical_reason());
        if let (RefOr::T(response), Some(reason)) = (response, reason)
            && response.description.is_empty()
        {
            reason.clone_into(&mut response.description);
        }
    }
    let statuses: &[&str] = if needs_token { &["401", "403", "default"] } else { &["default"] };
    for status in statuses {
        responses.entry((*status).to_owned()).or_insert_with(|| Ref::from_response_name("Problem").into());
    }
}

fn single_operation(item: PathItem) -> Option<(HttpMethod, Operation)> {
    let candidates = [
        (HttpMethod::Get, item.get),
        (HttpMethod::Put, item.put),
        (HttpMethod::Post, item.post),
        (HttpMethod::Delete, item.delete),
        (HttpMethod::Patch, item.patch),
        (HttpMethod::Options, item.options),
    ];
    let mut operations = candidates.into_iter().filter_map(|(method, operation)| Some((method, operation?)));
    let single = operations.next();
    single.filter(|_| operations.next().is_none())
}

fn filter(method: &HttpMethod) -> MethodFilter {
    match method {
        HttpMethod::Get => MethodFilter::GET,
        HttpMethod::Put => MethodFilter::PUT,
        HttpMethod::Post => MethodFilter::POST,
        HttpMethod::Delete => MethodFilter::DELETE,
        HttpMethod::Options => MethodFilter::OPTIONS,
        HttpMethod::Head => MethodFilter::HEAD,
        HttpMethod::Patch => MethodFilter::PATCH,
        HttpMethod::Trace => MethodFilter::TRACE,
    }
}
