//! Serves the page of each error code where a problem document's `type` points.

use axum::Router;
use axum::extract::Path;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use include_dir::{Dir, include_dir};
use tidegate_http::Problem;

static PAGES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../docs/errors");

/// `GET /docs/errors/{code}`: the page as Markdown, which browsers show as text.
pub(crate) fn errors() -> Router {
    Router::new().route("/docs/errors/{code}", get(page))
}

async fn page(Path(code): Path<String>) -> Response {
    match PAGES.get_file(format!("{code}.md")) {
        Some(page) => ([(CONTENT_TYPE, "text/plain; charset=utf-8")], page.contents()).into_response(),
        None => Problem::not_found().into_response(),
    }
}
