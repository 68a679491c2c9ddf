//! The page of each error code, where a problem document's `type` points.

use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use include_dir::{Dir, include_dir};

use crate::{Api, Path, Problem, Public, endpoint};

static PAGES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../docs/errors");

/// The pages, as Markdown, which browsers show as text.
pub fn error_pages() -> Api {
    Api::new().route(endpoint!(error_page))
}

/// Read about an error code
#[utoipa::path(
    get, path = "/docs/errors/{code}", tag = "meta",
    params(("code" = String, Path, description = "A problem document's `code`", example = "not_found")),
    responses((
        status = 200, description = "Why it happens and what to do: Markdown", body = String, content_type = "text/plain",
    )),
)]
async fn error_page(
    _: Public,
    Path(code): Path<String>,
) -> Result<([(HeaderName, &'static str); 1], &'static [u8]), Problem> {
    let page = PAGES.get_file(format!("{code}.md")).ok_or_else(Problem::not_found)?;
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], page.contents()))
}
