//! Serves the page of each error code where a problem document's `type` points.

use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use include_dir::{Dir, include_dir};
use tidegate_http::{Api, Path, Problem, Public, endpoint};

static PAGES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../docs/errors");

/// The pages, as Markdown, which browsers show as text.
pub(crate) fn errors() -> Api {
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

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::{Request, StatusCode};
    use tower::ServiceExt;

    use crate::parts::Parts;

    #[tokio::test]
    async fn a_page_is_text_and_an_unknown_code_a_problem() {
        let parts = Parts::in_memory().await.unwrap();
        let router = parts.api().unwrap().into_router(parts.ids.clone());
        let get = |path: &str| Request::get(path).body(Body::empty()).unwrap();
        let page = router.clone().oneshot(get("/docs/errors/not_found")).await.unwrap();
        assert_eq!(page.headers()["content-type"], "text/plain; charset=utf-8");
        let text = to_bytes(page.into_body(), 100_000).await.unwrap();
        assert!(text.starts_with(b"# `not_found`"));

        let unknown = router.oneshot(get("/docs/errors/nothing")).await.unwrap();
        assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
        assert!(unknown.headers().contains_key("x-request-id"));
        assert_eq!(unknown.headers()["content-type"], "application/problem+json");
    }
}
