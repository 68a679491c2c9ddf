//! A small service as its callers see it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use insta::assert_json_snapshot;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidegate_http::{
    Api, Created, ETag, Health, IfMatch, Json, ListOf, PageQuery, Path, Problem, ProblemCode, Public, Query, Raw,
    RequestContext, Time, endpoint, error_pages,
};
use tidegate_model::WorkflowId;
use tidegate_platform::{Clock, Ids, PortError};
use tidegate_telemetry::subscriber;
use tower::ServiceExt as _;

const ID: &str = "wf_0198c5a0a1b27c3d8e4f5a6b7c8d9e0f";

#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Thing {
    name: String,
    parts: Vec<Part>,
}

#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
struct Part {
    #[serde(rename = "a/b")]
    size: u8,
}

/// Makes a thing
#[utoipa::path(post, path = "/things", tag = "things", request_body = Thing, responses((status = 201, body = Thing)))]
async fn create(_: Public, Json(thing): Json<Thing>) -> Created<Thing> {
    Created { location: format!("/things/{}", thing.name), body: thing }
}

/// Lists things
#[utoipa::path(get, path = "/things", tag = "things", params(PageQuery), responses((status = 200, body = ListOf<Thing>)))]
async fn list(_: Public, Query(page): Query<PageQuery>) -> Json<ListOf<Thing>> {
    let name = format!("{}", page.limit.get());
    Json(ListOf { items: vec![Thing { name, parts: Vec::new() }], next_cursor: page.cursor })
}

/// Changes a thing
#[utoipa::path(put, path = "/things/{id}", tag = "things", params(("id" = WorkflowId, Path)), responses((status = 204)))]
async fn replace(_: Public, Path(id): Path<WorkflowId>, condition: IfMatch) -> Result<(ETag, String), Problem> {
    condition.check(7)?;
    Ok((ETag(8), id.to_string()))
}

/// Fails
#[utoipa::path(post, path = "/fail/{how}", tag = "things", params(("how" = String, Path)), responses((status = 204)))]
async fn fail(_: Public, Path(how): Path<String>) -> Result<(), Problem> {
    match how.as_str() {
        "panic" => panic!("of no interest to callers"),
        "port" => Err(PortError::new("send to queue runs", "secret host name").into()),
        "later" => Err(Problem::new(ProblemCode::Unavailable, "Busy.").retry_after(Duration::from_millis(1_500))),
        _ => Err(tidegate_store::Error::InvalidCursor.into()),
    }
}

/// Tells its trace
#[utoipa::path(post, path = "/trace", tag = "things", responses((status = 200)))]
async fn trace(_: Public, context: RequestContext, State(at): State<Timestamp>, Raw(body): Raw) -> Json<Value> {
    let answer =
        json!({"trace": context.traceparent(), "id": &*context.request_id, "bytes": body.len(), "at": Time(at)});
    Json(answer)
}

fn api(document: &'static str) -> Api {
    let things = Api::new()
        .route(endpoint!(create))
        .route(endpoint!(list))
        .route(endpoint!(replace))
        .route(endpoint!(fail))
        .route(endpoint!(trace).max_body_bytes(10))
        .route(endpoint!(list).at("/items", "list_items"))
        .with_state(Timestamp::UNIX_EPOCH);
    let health = Health::default().live("loop", async || Ok(())).ready("store", async || Err("no such host".into()));
    things.merge(health.api()).merge(error_pages()).with_document(document)
}

fn service() -> Router {
    let document = api("").document().to_json().unwrap();
    api(document.leak()).into_router(Ids::seeded(Clock::system(), 1))
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

async fn send(method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = service().oneshot(request.body(body.into()).unwrap()).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8(bytes.to_vec()).unwrap().into());
    Answer { status, headers, body }
}

async fn post_json(body: &str) -> Answer {
    send("POST", "/things", &[("content-type", "application/json")], body.to_owned()).await
}

#[tokio::test]
async fn a_problem_has_all_its_members_and_headers() {
    let answer = post_json(r#"{"name": "x", "parts": [{"a/b": 1}, {"a/b": "two"}]}"#).await;
    assert_json_snapshot!(answer.body, @r##"
    {
      "type": "/docs/errors/validation_failed",
      "title": "The body is invalid",
      "status": 422,
      "detail": "The body is invalid at \"/parts/1/a~1b\": invalid type: string \"two\", expected u8",
      "code": "validation_failed",
      "request_id": "req_00000000000000000001",
      "errors": [
        {
          "pointer": "/parts/1/a~1b",
          "detail": "invalid type: string \"two\", expected u8"
        }
      ]
    }
    "##);
    assert_eq!(answer.status, 422);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.header("x-request-id"), answer.body["request_id"]);
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[tokio::test]
async fn a_body_of_the_wrong_shape_names_the_field() {
    for (body, pointer, detail) in [
        (r#"{"name": "x"}"#, "/parts", "is required"),
        (r#"{"name": "x", "parts": [{}]}"#, "/parts/0/a~1b", "is required"),
        (r#"{"name": "x", "parts": [], "colour": 1}"#, "/colour", "unknown field `colour`, expected `name` or `parts`"),
        (r#"{"name": "x", "parts": [{"a/b": 256}]}"#, "/parts/0/a~1b", "invalid value: integer `256`, expected u8"),
        ("[]", "", "invalid length 0, expected struct Thing with 2 elements"),
    ] {
        let answer = post_json(body).await;
        assert_eq!(answer.status, 422, "{body}");
        assert_eq!(answer.body["errors"], json!([{"pointer": pointer, "detail": detail}]), "{body}");
    }
}

#[tokio::test]
async fn what_was_sent_comes_back_in_parts_only() {
    for long in ["x".repeat(50_000), "\u{300}".repeat(20_000)] {
        let answer = post_json(&format!("{{\"{long}\": 1}}")).await;
        assert_eq!(answer.status, 422);
        let length = answer.body.to_string().len();
        assert!(length < 10_000, "{length}");
    }
}

#[tokio::test]
async fn a_body_that_is_no_json_tells_where() {
    for (body, place) in
        [("{\n  \"name\": }", "line 2 column 11"), ("", "line 1 column 0"), ("{} {}", "line 1 column 2")]
    {
        let answer = post_json(body).await;
        let detail = answer.body["detail"].as_str().unwrap();
        if body == "{} {}" {
            // Its shape is wrong already, and that is told first.
            assert_eq!(answer.body["code"], "validation_failed");
        } else {
            assert_eq!((answer.status, &answer.body["code"]), (StatusCode::BAD_REQUEST, &json!("malformed_request")));
            assert!(detail.contains(place), "{detail}");
        }
    }
    let answer = post_json(r#"{"name": "x", "parts": []} more"#).await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn only_json_of_bounded_size_is_taken() {
    for content_type in ["text/plain", "multipart/form-data; boundary=x", "application/jsonp", ""] {
        assert_eq!(
            send("POST", "/things", &[("content-type", content_type)], "{}").await.status,
            415,
            "{content_type}"
        );
    }
    assert_eq!(send("POST", "/things", &[], "{}").await.status, 415);
    for content_type in ["application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"] {
        assert_eq!(
            send("POST", "/things", &[("content-type", content_type)], "{}").await.status,
            422,
            "{content_type}"
        );
    }
    assert_eq!(post_json(&" ".repeat(1024 * 1024 + 1)).await.status, 413);
    assert_eq!(send("POST", "/trace", &[], "x".repeat(10)).await.status, 200);
    assert_eq!(send("POST", "/trace", &[], "x".repeat(11)).await.body["code"], "payload_too_large");
}

#[tokio::test]
async fn a_created_resource_says_where_it_is() {
    let answer = post_json(r#"{"name": "x", "parts": []}"#).await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::CREATED, "/things/x"));
    let answer = post_json(r#"{"name": "x\ny", "parts": []}"#).await;
    assert_eq!(answer.body["code"], "internal");
}

#[tokio::test]
async fn lists_bound_their_pages_and_name_the_bad_parameter() {
    assert_eq!(send("GET", "/things", &[], "").await.body["items"][0]["name"], "20");
    let answer = send("GET", "/items?limit=100&cursor=a%20b", &[], "").await;
    assert_eq!(answer.body, json!({"items": [{"name": "100", "parts": []}], "next_cursor": "a b"}));
    for limit in ["0", "101", "-1", "ten", "", "1e1"] {
        let answer = send("GET", &format!("/things?limit={limit}"), &[], "").await;
        assert_eq!((answer.status, &answer.body["errors"][0]["pointer"]), (StatusCode::BAD_REQUEST, &json!("/limit")));
    }
    let answer = send("GET", "/things?colour=red", &[], "").await;
    assert_eq!(
        (&answer.body["code"], &answer.body["errors"][0]["pointer"]),
        (&json!("invalid_parameter"), &json!("/colour"))
    );
}

#[tokio::test]
async fn changes_need_the_revision_that_was_read() {
    let path = format!("/things/{ID}");
    let with = |condition: &'static str| {
        let path = path.clone();
        async move { send("PUT", &path, &[("if-match", condition)], "").await }
    };
    let answer = with("\"7\"").await;
    assert_eq!((answer.status, answer.header("etag")), (StatusCode::OK, "\"8\""));
    assert_eq!(with("\"6\", \"7\"").await.status, 200);
    assert_eq!(with("*").await.status, 200);
    for stale in ["\"6\"", "W/\"7\"", "7", "\"seven\"", ""] {
        assert_eq!(with(stale).await.body["code"], "precondition_failed", "{stale}");
    }
    assert_eq!(send("PUT", &path, &[], "").await.body["code"], "precondition_required");
}

#[tokio::test]
async fn what_does_not_exist_is_told_apart() {
    for path in ["/nowhere", "/things/run_0198c5a0a1b27c3d8e4f5a6b7c8d9e0f", "/things/%ff"] {
        let answer = send("PUT", path, &[("if-match", "*")], "").await;
        assert_eq!((answer.status, &answer.body["code"]), (StatusCode::NOT_FOUND, &json!("not_found")), "{path}");
        assert!(answer.body["request_id"].is_string());
    }
    let answer = send("DELETE", "/things", &[], "").await;
    assert_eq!((answer.status, &answer.body["code"]), (StatusCode::METHOD_NOT_ALLOWED, &json!("method_not_allowed")));
    assert_eq!(answer.header("allow"), "POST,GET,HEAD");
}

#[tokio::test]
async fn failures_inside_are_answered_without_their_text() {
    let answer = send("POST", "/fail/panic", &[], "").await;
    assert_json_snapshot!(answer.body, @r##"
    {
      "type": "/docs/errors/internal",
      "title": "Internal error",
      "status": 500,
      "detail": "Something went wrong on our side. It has been recorded under the request id.",
      "code": "internal",
      "request_id": "req_00000000000000000001"
    }
    "##);
    let answer = send("POST", "/fail/port", &[], "").await;
    assert_json_snapshot!(answer.body, @r##"
    {
      "type": "/docs/errors/unavailable",
      "title": "Temporarily unavailable",
      "status": 503,
      "detail": "Something that this needs is unavailable at the moment. Try again.",
      "code": "unavailable",
      "request_id": "req_00000000000000000001"
    }
    "##);
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(send("POST", "/fail/later", &[], "").await.header("retry-after"), "2");
    assert_eq!(send("POST", "/fail/cursor", &[], "").await.body["code"], "invalid_cursor");
}

#[tokio::test]
async fn a_request_continues_the_callers_trace_or_begins_one() {
    let caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = send("POST", "/trace", &[("traceparent", caller)], "").await;
    let trace = answer.body["trace"].as_str().unwrap();
    assert!(trace.starts_with(&caller[..36]) && trace != caller);
    assert_eq!(
        (answer.header("x-request-id"), &answer.body["at"]),
        (answer.body["id"].as_str().unwrap(), &json!("1970-01-01T00:00:00.000Z"))
    );
    for ambiguous in [&[("traceparent", caller), ("traceparent", caller)][..], &[("traceparent", "00-0")], &[]] {
        let answer = send("POST", "/trace", ambiguous, "").await;
        assert!(!answer.body["trace"].as_str().unwrap().starts_with(&caller[..36]));
    }
}

#[tokio::test]
async fn health_tells_each_check_and_no_reason() {
    let answer = send("GET", "/q/health", &[], "").await;
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.body,
        json!({"status": "DOWN", "checks": [{"name": "loop", "status": "UP"}, {"name": "store", "status": "DOWN"}]})
    );
    let live = send("GET", "/q/health/live", &[], "").await;
    assert_eq!(
        (live.status, live.body),
        (StatusCode::OK, json!({"status": "UP", "checks": [{"name": "loop", "status": "UP"}]}))
    );
    assert_eq!(send("GET", "/q/health/ready", &[], "").await.status, 503);
}

#[tokio::test]
async fn an_errors_page_is_text_and_an_unknown_code_a_problem() {
    let page = send("GET", "/docs/errors/not_found", &[], "").await;
    assert_eq!(page.header("content-type"), "text/plain; charset=utf-8");
    assert!(page.body.as_str().unwrap().starts_with("# `not_found`"));
    let unknown = send("GET", "/docs/errors/nothing", &[], "").await;
    assert_eq!((unknown.status, unknown.header("content-type")), (StatusCode::NOT_FOUND, "application/problem+json"));
}

#[tokio::test]
async fn the_document_describes_what_is_served() {
    let document = send("GET", "/api/openapi.json", &[], "").await.body;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths: Vec<_> = document["paths"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        paths,
        [
            "/api/openapi.json",
            "/docs/errors/{code}",
            "/fail/{how}",
            "/items",
            "/q/health",
            "/q/health/live",
            "/q/health/ready",
            "/things",
            "/things/{id}",
            "/trace"
        ]
    );
    assert_json_snapshot!(document["paths"]["/things"]["post"], @r##"
    {
      "tags": [
        "things"
      ],
      "summary": "Makes a thing",
      "operationId": "create",
      "requestBody": {
        "content": {
          "application/json": {
            "schema": {
              "$ref": "#/components/schemas/Thing"
            }
          }
        },
        "required": true
      },
      "responses": {
        "201": {
          "description": "Created",
          "content": {
            "application/json": {
              "schema": {
                "$ref": "#/components/schemas/Thing"
              }
            }
          }
        },
        "default": {
          "$ref": "#/components/responses/Problem"
        }
      },
      "security": []
    }
    "##);
    let codes = &document["components"]["schemas"]["ProblemCode"]["enum"];
    assert_eq!(codes.as_array().unwrap().len(), ProblemCode::ALL.len());
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What is logged while a request is answered.
async fn lines_of(method: &str, path: &str, headers: &[(&str, &str)]) -> (Answer, Vec<Value>) {
    let log = Log::default();
    let subscriber = subscriber("tidegate", "info".parse().unwrap(), Clock::system(), log.clone());
    let answer = {
        let _logging = tracing::subscriber::set_default(subscriber);
        send(method, path, headers, "").await
    };
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.lines().all(|line| line.len() <= 400), "{text}");
    (answer, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[tokio::test]
async fn a_request_is_one_line_of_the_log() {
    let caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let (_, lines) =
        lines_of("PUT", &format!("/things/{ID}?secret=1"), &[("if-match", "\"7\""), ("traceparent", caller)]).await;
    assert_json_snapshot!(lines, {"[0].timestamp" => "[now]", "[0].data.duration_ms" => "[number]"}, @r##"
    [
      {
        "timestamp": "[now]",
        "level": "info",
        "message": "answered",
        "service": "tidegate",
        "component": "http",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "data": {
          "method": "PUT",
          "route": "/things/{id}",
          "status": 200,
          "duration_ms": "[number]"
        }
      }
    ]
    "##);
    let (_, lines) = lines_of("POST", "/nowhere/with/a/token", &[]).await;
    assert_eq!((&lines[0]["data"]["route"], &lines[0]["data"]["code"]), (&json!("none"), &json!("not_found")));
    let (_, lines) = lines_of("GET", "/q/health/live", &[]).await;
    assert_eq!(lines, Vec::<Value>::new(), "probes would drown the rest");
}

#[tokio::test]
async fn a_failure_inside_is_logged_once_with_its_chain() {
    let (answer, lines) = lines_of("POST", "/fail/port", &[]).await;
    let logged: Vec<_> = lines.iter().map(|line| (line["level"].as_str().unwrap(), &line["data"]["error"])).collect();
    assert_eq!(logged, [("error", &json!("send to queue runs failed: secret host name")), ("info", &Value::Null)]);
    assert_eq!(lines[1]["data"]["request_id"], answer.body["request_id"], "what the caller may name");
    assert_eq!(lines[0]["trace_id"], lines[1]["trace_id"], "which leads to the cause");
}
