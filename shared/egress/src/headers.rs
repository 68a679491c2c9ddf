//! Which headers a request may have.

use http::header::{ACCEPT, ACCEPT_LANGUAGE, HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method};

use crate::{EgressError, OutboundRequest};

pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

const AGENT: &str = concat!("Tidegate/", env!("CARGO_PKG_VERSION"));

/// Whether a header is the client's own: it names the target, frames the message (or says how the answer may be packed, in which
/// secrets couldn't be found any more) or belongs to one connection (RFC 9110,
/// section 7.6.1). A caller that could set one could smuggle a second request behind the first.
pub fn is_reserved_header(name: &str) -> bool {
    const NAMES: [&str; 14] = [
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    NAMES.iter().any(|reserved| name.eq_ignore_ascii_case(reserved))
}

/// The headers of a request, checked and with the client's own added.
pub(crate) fn outgoing(request: &mut OutboundRequest) -> Result<HeaderMap, EgressError> {
    if matches!(request.method, Method::CONNECT | Method::TRACE) {
        return Err(EgressError::InvalidRequest(format!("the method {} is not allowed", request.method)));
    }
    if let Some(name) = request.headers.keys().find(|name| is_reserved_header(name.as_str())) {
        return Err(EgressError::InvalidRequest(format!("the header {name} is set by the client; remove it")));
    }
    let mut headers = std::mem::take(&mut request.headers);
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
    for (name, value) in [(IDEMPOTENCY_KEY, &request.idempotency_key), (TRACEPARENT, &request.traceparent)] {
        if let Some(value) = value {
            let value = HeaderValue::from_str(value)
                .map_err(|_| EgressError::InvalidRequest(format!("its {name} has characters no header can carry")))?;
            headers.insert(name, value);
        }
    }
    Ok(headers)
}

/// Leaves only what may follow a redirect to another origin: nothing that says who asks.
pub(crate) fn keep_anonymous(headers: &mut HeaderMap) {
    let kept = [ACCEPT, ACCEPT_LANGUAGE, USER_AGENT, TRACEPARENT];
    *headers = kept.into_iter().filter_map(|name| headers.remove(&name).map(|value| (name, value))).collect();
}
