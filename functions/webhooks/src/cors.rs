//! Which web pages may send to a webhook, and read its answers (<https://fetch.spec.whatwg.org/#http-cors-protocol>).

use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use tidegate_model::{Cors, WebhookMethod};

/// What scripts may read of an answer, beside what they always may.
const EXPOSED: HeaderValue = HeaderValue::from_static("location, retry-after, tidegate-run-id, x-request-id");
const MAX_REQUESTED_BYTES: usize = 1_000;

/// What a trigger grants to the page that a request comes from.
pub(crate) struct Granted {
    /// The trigger names origins, so an answer depends on the request's.
    varies: bool,
    origin: Option<HeaderValue>,
}

impl Granted {
    pub(crate) fn to(cors: Option<&Cors>, headers: &HeaderMap) -> Self {
        let Some(cors) = cors else { return Self { varies: false, origin: None } };
        let origin = headers.get(ORIGIN).filter(|origin| origin.to_str().is_ok_and(|origin| cors.allows(origin)));
        Self { varies: true, origin: origin.cloned() }
    }

    /// The answer, for scripts to read where that is granted; no credentials are.
    pub(crate) fn dress(self, answer: impl IntoResponse) -> Response {
        let mut response = answer.into_response();
        let headers = response.headers_mut();
        if self.varies {
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = self.origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
        response
    }

    /// The answer to a browser that asks beforehand.
    pub(crate) fn preflight(self, methods: &[WebhookMethod], asked: &HeaderMap) -> Response {
        let is_granted = self.origin.is_some();
        let mut response = self.dress(StatusCode::NO_CONTENT);
        if is_granted {
            let headers = response.headers_mut();
            let methods = methods.iter().map(|method| method.as_str()).collect::<Vec<_>>().join(", ");
            if let Ok(methods) = HeaderValue::try_from(methods) {
                headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
            }
            let requested =
                asked.get(ACCESS_CONTROL_REQUEST_HEADERS).filter(|names| names.len() <= MAX_REQUESTED_BYTES);
            if let Some(requested) = requested {
                headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, requested.clone());
            }
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        }
        response
    }
}
