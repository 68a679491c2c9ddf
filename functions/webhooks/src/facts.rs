//! What a run sees of a request beside its body: the method, the query, and the headers that the trigger names.

use http::request::Parts;
use http::{HeaderMap, HeaderName};
use serde_json::{Map, Value};
use tidegate_http::{Problem, ProblemCode};
use tidegate_model::{INLINE_LIMIT_BYTES, WebhookRequest};

use crate::body;

const MAX_NAMES: usize = 100;
const MAX_NAME_BYTES: usize = 100;

/// The facts of a request, within bounds: they stay in the run's message and record.
pub(crate) fn of(parts: &Parts, names: &[String]) -> Result<WebhookRequest, Problem> {
    let request = WebhookRequest {
        method: parts.method.as_str().to_owned(),
        query: query(parts.uri.query())?,
        headers: names.iter().filter_map(|name| header(&parts.headers, name)).collect(),
        files: Vec::new(),
    };
    let too_large = |of: &Map<String, Value>| Value::Object(of.clone()).to_string().len() > INLINE_LIMIT_BYTES;
    for (what, facts) in [("query", &request.query), ("headers that the trigger takes", &request.headers)] {
        if too_large(facts) {
            let detail = format!("The {what} have more than {INLINE_LIMIT_BYTES} bytes; send them in the body.");
            return Err(Problem::new(ProblemCode::MalformedRequest, detail));
        }
    }
    Ok(request)
}

/// All headers, or of very many the first, for a delivery that is looked at.
pub(crate) fn all_headers(headers: &HeaderMap) -> Map<String, Value> {
    let names = headers.keys().map(HeaderName::as_str).filter(|name| name.len() <= MAX_NAME_BYTES).take(MAX_NAMES);
    names.filter_map(|name| header(headers, name)).collect()
}

fn query(query: Option<&str>) -> Result<Map<String, Value>, Problem> {
    match body::form(query.unwrap_or_default().as_bytes()) {
        Ok(Value::Object(query)) => Ok(query),
        Ok(_) => Ok(Map::new()),
        Err(detail) => Err(Problem::new(ProblemCode::MalformedRequest, detail.replacen("form", "query", 1))),
    }
}

/// A header by its name in lower case, its values joined as HTTP has it (RFC 9110, section 5.3).
fn header(headers: &HeaderMap, name: &str) -> Option<(String, Value)> {
    let values: Vec<_> = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    (!values.is_empty()).then(|| (name.to_ascii_lowercase(), Value::String(values.join(", "))))
}
