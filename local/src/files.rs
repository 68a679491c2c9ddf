//! Downloads of tenants' files by the links that workflows make, and uploads for runs: what S3 does on AWS.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures::{StreamExt as _, stream};
use tidegate_platform::PortError;
use tidegate_platform::blobs::attachment;
use tidegate_platform::blobs::folder::FolderBlobs;
use tidegate_platform::blobs::folder::upload::{Upload, UploadError};

/// Where links begin.
pub(crate) const PATH: &str = "/files";

/// How long an upload may send nothing.
const MAX_SILENCE: Duration = Duration::from_secs(30);

/// Answers links. Whoever has one has the file, which is never shown, only saved; or may store it, once.
pub(crate) fn router(blobs: Arc<FolderBlobs>) -> Router {
    Router::new().route("/files/{token}", get(download).put(upload).options(preflight)).with_state(blobs)
}

async fn download(State(blobs): State<Arc<FolderBlobs>>, Path(token): Path<String>) -> Response {
    let Some((key, filename)) = blobs.linked(&token) else {
        return (StatusCode::NOT_FOUND, "This link was not made here, or is over.\n").into_response();
    };
    match blobs.open_blob(&key).await {
        Ok(Some(reading)) => {
            let disposition = HeaderValue::try_from(attachment(&filename));
            let headers = [
                (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
                (CONTENT_LENGTH, HeaderValue::from(reading.bytes)),
                (CONTENT_DISPOSITION, disposition.unwrap_or(HeaderValue::from_static("attachment"))),
                (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
                (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox")),
                (CACHE_CONTROL, HeaderValue::from_static("private, no-store")),
            ];
            let pieces = stream::try_unfold(reading, async |mut reading| {
                let piece = reading.next().await?;
                Ok::<_, PortError>(piece.map(|piece| (piece, reading)))
            });
            (headers, Body::from_stream(pieces)).into_response()
        }
        Ok(None) => (StatusCode::NOT_FOUND, "The file is gone.\n").into_response(),
        Err(error) => broken(&error),
    }
}

/// A page that has a link may upload by it: what says so is the link, whatever the page (the bucket's CORS rule on AWS).
async fn preflight() -> Response {
    let headers = [
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (ACCESS_CONTROL_ALLOW_METHODS, "PUT"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "content-type, if-none-match"),
        (ACCESS_CONTROL_MAX_AGE, "3600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

async fn upload(
    State(blobs): State<Arc<FolderBlobs>>,
    Path(token): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    ([(ACCESS_CONTROL_ALLOW_ORIGIN, "*")], answer(&blobs, &token, &headers, body).await).into_response()
}

async fn answer(blobs: &FolderBlobs, token: &str, headers: &HeaderMap, body: Body) -> Response {
    let Some(upload) = blobs.upload(token) else {
        return (StatusCode::FORBIDDEN, "This link was not made here, or is over.\n").into_response();
    };
    for (name, value) in upload.headers() {
        let mut sent = headers.get_all(name).iter();
        if sent.next().is_none_or(|sent| sent.as_bytes() != value.as_bytes()) || sent.next().is_some() {
            return (StatusCode::FORBIDDEN, format!("The link is for requests with the header `{name}: {value}`.\n"))
                .into_response();
        }
    }
    receive(upload, body).await.unwrap_or_else(|answer| answer)
}

/// Stores what is sent, as it comes: none of it is kept in memory.
async fn receive(upload: Upload, body: Body) -> Result<Response, Response> {
    let mut receiving = upload.begin().await.map_err(|error| refusal(&error))?;
    let mut pieces = body.into_data_stream();
    let silent = |_| (StatusCode::REQUEST_TIMEOUT, "The upload fell silent; send it again.\n").into_response();
    while let Some(piece) = tokio::time::timeout(MAX_SILENCE, pieces.next()).await.map_err(silent)? {
        let piece =
            piece.map_err(|_| (StatusCode::BAD_REQUEST, "The upload broke off; send it again.\n").into_response())?;
        receiving.write(piece).await.map_err(|error| refusal(&error))?;
    }
    receiving.finish().await.map_err(|error| refusal(&error))?;
    Ok(StatusCode::OK.into_response())
}

fn refusal(error: &UploadError) -> Response {
    let status = match error {
        UploadError::Stored => StatusCode::PRECONDITION_FAILED,
        UploadError::Busy => StatusCode::CONFLICT,
        UploadError::Size { .. } => StatusCode::BAD_REQUEST,
        UploadError::Failed(error) => return broken(error),
    };
    (status, format!("Nothing is stored: {error}.\n")).into_response()
}

fn broken(error: &PortError) -> Response {
    tracing::error!(component = "local", error = error as &dyn std::error::Error, "the folder of files is at fault");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use axum::http::Request;
    use bytes::Bytes;
    use jiff::Timestamp;
    use tidegate_platform::blobs::UploadLink;
    use tidegate_platform::{Blobs as _, Clock};
    use tower::ServiceExt as _;

    use super::*;

    const KEY: &str = "uploads/ten_a/run_1/0";
    const HOUR: Duration = Duration::from_secs(3_600);

    struct Setup {
        folder: tempfile::TempDir,
        blobs: Arc<FolderBlobs>,
        clock: Clock,
        link: UploadLink,
    }

    /// With a link for three bytes.
    async fn setup() -> Setup {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        let blobs = Arc::new(FolderBlobs::open(folder.path(), clock.clone()).unwrap().with_links(PATH).unwrap());
        let link = blobs.upload_link(KEY, HOUR, 3, "image/png").await.unwrap();
        Setup { folder, blobs, clock, link }
    }

    impl Setup {
        async fn put(&self, url: &str, headers: &[(String, String)], body: impl Into<Body>) -> (StatusCode, String) {
            let mut request = Request::put(url);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let request = request.body(body.into()).unwrap();
            let response = router(self.blobs.clone()).oneshot(request).await.unwrap();
            let status = response.status();
            let text = axum::body::to_bytes(response.into_body(), 1_000).await.unwrap();
            (status, String::from_utf8(text.to_vec()).unwrap())
        }

        async fn stored(&self) -> Option<Bytes> {
            assert_eq!(unnamed(self.folder.path()), 0, "nothing half-written is left");
            self.blobs.get(KEY).await.unwrap()
        }
    }

    fn unnamed(folder: &Path) -> usize {
        std::fs::read_dir(folder.join("=new")).unwrap().count()
    }

    fn pieces(pieces: &'static [&'static str]) -> Body {
        Body::from_stream(stream::iter(pieces).map(|piece| Ok::<_, std::io::Error>(*piece)))
    }

    #[tokio::test]
    async fn a_link_stores_one_file_once() {
        let setup = setup().await;
        let UploadLink { method, url, headers } = &setup.link;
        assert_eq!(*method, "PUT");
        assert_eq!(setup.put(url, headers, pieces(&["a", "", "bc"])).await, (StatusCode::OK, String::new()));
        assert_eq!(setup.stored().await.unwrap(), "abc");
        let again = setup.put(url, headers, "xyz").await;
        assert_eq!(again.0, StatusCode::PRECONDITION_FAILED);
        assert!(again.1.contains("there is a file already"), "{}", again.1);
        assert_eq!(setup.stored().await.unwrap(), "abc");
    }

    #[tokio::test]
    async fn a_file_has_exactly_its_bytes() {
        let setup = setup().await;
        for body in [&[][..], &["ab"], &["abcd"], &["abc", "d"]] {
            let (status, text) = setup.put(&setup.link.url, &setup.link.headers, pieces(body)).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{body:?}");
            assert_eq!(text, "Nothing is stored: the link is for exactly 3 bytes.\n", "{body:?}");
        }
        // One that would never end is cut off.
        let endless = Body::from_stream(stream::repeat_with(|| Ok::<_, std::io::Error>("x")));
        assert_eq!(setup.put(&setup.link.url, &setup.link.headers, endless).await.0, StatusCode::BAD_REQUEST);
        let broken = stream::iter([Ok("ab"), Err(std::io::Error::other("gone"))]);
        let (status, text) = setup.put(&setup.link.url, &setup.link.headers, Body::from_stream(broken)).await;
        assert!(status == StatusCode::BAD_REQUEST && text.contains("broke off"), "{status} {text}");
        assert_eq!(setup.stored().await, None);
        assert_eq!(
            setup.put(&setup.link.url, &setup.link.headers, "abc").await.0,
            StatusCode::OK,
            "none of them counts"
        );
    }

    #[tokio::test]
    async fn the_headers_are_those_that_were_signed() {
        let setup = setup().await;
        let headers = &setup.link.headers;
        for (index, (name, _)) in headers.iter().enumerate() {
            let mut without = headers.clone();
            without.remove(index);
            let mut changed = headers.clone();
            changed[index].1 += "1";
            let mut twice = headers.clone();
            twice.push(headers[index].clone());
            for others in [without, changed, twice] {
                let (status, text) = setup.put(&setup.link.url, &others, "abc").await;
                assert_eq!(status, StatusCode::FORBIDDEN, "{others:?}");
                assert!(text.contains(name.as_str()), "{text}");
            }
        }
        assert_eq!(setup.stored().await, None);
    }

    #[tokio::test]
    async fn a_link_is_for_its_time_and_its_purpose() {
        let setup = setup().await;
        let download = setup.blobs.link(KEY, HOUR, "a").await.unwrap();
        let forged = format!("{}A", setup.link.url);
        for url in [&download, &forged] {
            assert_eq!(setup.put(url, &setup.link.headers, "abc").await.0, StatusCode::FORBIDDEN, "{url}");
        }
        setup.blobs.put(KEY, Bytes::from_static(b"secret")).await.unwrap();
        let get = Request::get(&setup.link.url).body(Body::empty()).unwrap();
        let response = router(setup.blobs.clone()).oneshot(get).await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "who may upload may not download");
        setup.blobs.delete(KEY).await.unwrap();

        setup.clock.advance(HOUR);
        let (status, text) = setup.put(&setup.link.url, &setup.link.headers, "abc").await;
        assert!(status == StatusCode::FORBIDDEN && text.contains("is over"), "{status} {text}");
        assert_eq!(setup.stored().await, None);
    }

    #[tokio::test]
    async fn pages_may_upload_and_not_download() {
        let setup = setup().await;
        let answered = async |method: &str, url: &str, headers: &[(String, String)], body: &'static str| {
            let mut request = Request::builder().method(method).uri(url).header("origin", "https://shop.example.com");
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let response = router(setup.blobs.clone()).oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
            let of = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            (response.status(), of(ACCESS_CONTROL_ALLOW_ORIGIN), of(ACCESS_CONTROL_ALLOW_HEADERS))
        };
        let any = Some("*".to_owned());
        let allowed = Some("content-type, if-none-match".to_owned());
        let UploadLink { url, headers, .. } = &setup.link;
        assert_eq!(answered("OPTIONS", url, &[], "").await, (StatusCode::NO_CONTENT, any.clone(), allowed));
        assert_eq!(
            answered("PUT", url, &[], "").await,
            (StatusCode::FORBIDDEN, any.clone(), None),
            "why, they may read"
        );
        assert_eq!(answered("PUT", url, headers, "abc").await, (StatusCode::OK, any, None));
        let download = setup.blobs.link(KEY, HOUR, "a").await.unwrap();
        assert_eq!(answered("GET", &download, &[], "").await, (StatusCode::OK, None, None));
    }

    #[tokio::test]
    async fn one_upload_at_a_time() {
        let setup = setup().await;
        let token = setup.link.url.rsplit('/').next().unwrap();
        let mut first = setup.blobs.upload(token).unwrap().begin().await.unwrap();
        first.write(Bytes::from_static(b"ab")).await.unwrap();
        assert_eq!(setup.put(&setup.link.url, &setup.link.headers, "abc").await.0, StatusCode::CONFLICT);
        drop(first);
        let late = setup.blobs.upload(token).unwrap();
        let mut second = setup.blobs.upload(token).unwrap().begin().await.unwrap();
        second.write(Bytes::from_static(b"abc")).await.unwrap();
        setup.blobs.put(KEY, Bytes::from_static(b"xyz")).await.unwrap();
        assert!(matches!(second.finish().await, Err(UploadError::Stored)), "what came meanwhile stays");
        assert!(matches!(late.begin().await, Err(UploadError::Stored)));
        assert_eq!(setup.stored().await.unwrap(), "xyz");
    }

    #[tokio::test]
    async fn a_download_is_whole() {
        let setup = setup().await;
        let content: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
        setup.blobs.put("files/a", content.clone().into()).await.unwrap();
        let link = setup.blobs.link("files/a", HOUR, "a.bin").await.unwrap();
        let get = Request::get(&link).body(Body::empty()).unwrap();
        let response = router(setup.blobs.clone()).oneshot(get).await.unwrap();
        assert_eq!(response.headers()[CONTENT_LENGTH], "200000");
        assert_eq!(response.headers()[CONTENT_DISPOSITION], "attachment; filename=\"a.bin\"");
        assert_eq!(axum::body::to_bytes(response.into_body(), 1_000_000).await.unwrap(), content);
    }
}
