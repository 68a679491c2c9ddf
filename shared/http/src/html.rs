//! Pages for people whom a link brought here: one document without scripts, whose policy lets it load nothing and send a form
//! nowhere but back.

use std::fmt::{self, Display};
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};

const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");
const STYLE: &str = "\
body{margin:0;padding:2rem 1rem;background:#f4f5f7;color:#1c2024;font:16px/1.5 system-ui,sans-serif}\
main{max-width:36rem;margin:0 auto;padding:1.5rem;background:#fff;border:1px solid #d9dce1;border-radius:8px}\
h1{margin:0 0 1rem;font-size:1.25rem}\
.message{white-space:pre-wrap;overflow-wrap:anywhere}\
dl{display:grid;grid-template-columns:auto 1fr;gap:.25rem 1rem;color:#4a5058;font-size:.875rem}\
dd{margin:0;overflow-wrap:anywhere}\
label{display:block;margin:1rem 0 .25rem}\
textarea{box-sizing:border-box;width:100%;font:inherit}\
button{margin:1rem .5rem 0 0;padding:.5rem 1.25rem;border:1px solid #8b929b;border-radius:6px;background:#fff;\
font:inherit;cursor:pointer}\
button.first{border-color:#1f6f43;background:#1f6f43;color:#fff}";

/// A page: `heading` is text, `body` HTML in which what isn't ours is [`Escaped`].
pub fn html_page(status: StatusCode, heading: &str, body: &str) -> Response {
    static POLICY: LazyLock<Option<HeaderValue>> = LazyLock::new(|| {
        let style = BASE64.encode(digest(&SHA256, STYLE.as_bytes()));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        );
        HeaderValue::try_from(policy).ok()
    });
    let heading = Escaped(heading);
    let document = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{heading} · Tidegate</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><meta name=\"robots\" content=\"noindex\">\
         <style>{STYLE}</style></head><body><main><h1>{heading}</h1>{body}</main></body></html>"
    );
    let mut response = (status, document).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(ROBOTS, HeaderValue::from_static("noindex"));
    // Without it the answer gets the policy of answers that are data, which is stricter.
    if let Some(policy) = POLICY.clone() {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// Text in an element or a quoted attribute.
pub struct Escaped<'a>(pub &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.split_inclusive(['&', '<', '>', '"', '\'']).try_for_each(|part| {
            let Some(last) = part.chars().last() else { return Ok(()) };
            let reference = match last {
                '&' => "&amp;",
                '<' => "&lt;",
                '>' => "&gt;",
                '"' => "&quot;",
                '\'' => "&#39;",
                _ => return f.write_str(part),
            };
            f.write_str(&part[..part.len() - 1])?;
            f.write_str(reference)
        })
    }
}
