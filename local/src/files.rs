//! Downloads of tenants' files by the links that workflows make: what S3 does on AWS.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tidegate_platform::Blobs as _;
use tidegate_platform::blobs::attachment;
use tidegate_platform::blobs::folder::FolderBlobs;

/// Where links begin.
pub(crate) const PATH: &str = "/files";

/// Answers links. Whoever has one has the file; it is never shown, only saved.
pub(crate) fn router(blobs: Arc<FolderBlobs>) -> Router {
    Router::new().route("/files/{token}", get(download)).with_state(blobs)
}

async fn download(State(blobs): State<Arc<FolderBlobs>>, Path(token): Path<String>) -> Response {
    let Some((key, filename)) = blobs.linked(&token) else {
        return (StatusCode::NOT_FOUND, "This link was not made here, or is over.\n").into_response();
    };
    match blobs.get(&key).await {
        Ok(Some(bytes)) => {
            let disposition = HeaderValue::try_from(attachment(&filename));
            let headers = [
                (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
                (CONTENT_DISPOSITION, disposition.unwrap_or(HeaderValue::from_static("attachment"))),
                (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
                (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox")),
                (CACHE_CONTROL, HeaderValue::from_static("private, no-store")),
            ];
            (headers, bytes).into_response()
        }
        Ok(None) => (StatusCode::NOT_FOUND, "The file is gone.\n").into_response(),
        Err(error) => {
            tracing::error!(component = "local", error = &error as &dyn std::error::Error, "a file can't be read");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
