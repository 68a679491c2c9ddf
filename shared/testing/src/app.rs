//! A function's operations as its callers see them.

use std::net::IpAddr;

use axum::body::Body;
use axum::{Extension, Router};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tidegate_http::{Api, Connected};
use tower::ServiceExt as _;

use crate::{Session, World};

/// Sends requests to a function's operations, the middleware around them included.
#[derive(Clone)]
pub struct TestApp {
    router: Router,
    operations: Vec<(Method, String, Option<String>)>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body: parsed where it is JSON, `Null` where there is none, else text.
    pub body: Value,
}

impl Answer {
    /// A header's value; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// A string in the body, by JSON pointer; empty where there is none.
    pub fn text(&self, pointer: &str) -> &str {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// The pointers of a problem's `errors`.
    pub fn pointers(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array().into_iter().flatten();
        errors.filter_map(|error| error["pointer"].as_str()).collect()
    }

    /// The same, having asserted the status.
    ///
    /// # Panics
    /// The status is another one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self
    }
}

impl TestApp {
    /// Serves an API in this world.
    pub fn new(world: &World, api: Api) -> Self {
        let document = serde_json::to_value(api.document()).expect("write the document");
        let operations = operations(&document);
        Self { router: api.into_router(world.ids.clone()), operations }
    }

    /// The same, for requests that come from this address.
    #[must_use]
    pub fn from_address(&self, address: IpAddr) -> Self {
        let connected = Connected { address: Some(address), origin: None };
        Self { router: self.router.clone().layer(Extension(connected)), operations: self.operations.clone() }
    }

    /// Every operation of the document: its method, its path, and the permission that it takes unless it is public.
    pub fn operations(&self) -> &[(Method, String, Option<String>)] {
        &self.operations
    }

    /// `GET`.
    pub async fn get(&self, session: &Session, path: &str) -> Answer {
        self.send(Some(session), Method::GET, path, &[], Body::empty()).await
    }

    /// `POST` of JSON.
    pub async fn post(&self, session: &Session, path: &str, body: &Value) -> Answer {
        self.json(session, Method::POST, path, &[], body).await
    }

    /// `PUT` of JSON with an `If-Match`.
    pub async fn put(&self, session: &Session, path: &str, if_match: &str, body: &Value) -> Answer {
        self.json(session, Method::PUT, path, &[("if-match", if_match)], body).await
    }

    /// `PATCH` of JSON.
    pub async fn patch(&self, session: &Session, path: &str, body: &Value) -> Answer {
        self.json(session, Method::PATCH, path, &[], body).await
    }

    /// `DELETE`.
    pub async fn delete(&self, session: &Session, path: &str) -> Answer {
        self.send(Some(session), Method::DELETE, path, &[], Body::empty()).await
    }

    async fn json(
        &self,
        session: &Session,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Answer {
        let headers = [headers, &[(CONTENT_TYPE.as_str(), "application/json")]].concat();
        self.send(Some(session), method, path, &headers, Body::from(body.to_string())).await
    }

    /// Any request; without a session it carries no token.
    pub async fn send(
        &self,
        session: Option<&Session>,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(session) = session {
            request = request.header(AUTHORIZATION, format!("Bearer {}", session.token));
        }
        let request = request.body(body.into()).expect("make the request");
        let response = self.router.clone().oneshot(request).await.expect("a router always answers");
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.into_body().collect().await.expect("read the answer").to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        let body =
            if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap_or_else(|_| text()) };
        Answer { status, headers, body }
    }
}

fn operations(document: &Value) -> Vec<(Method, String, Option<String>)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths
        .flat_map(|(path, item)| {
            item.as_object().into_iter().flatten().map(move |(method, operation)| {
                let method = method.to_uppercase().parse().expect("a method");
                let permission = operation["x-required-permission"].as_str().map(str::to_owned);
                (method, path.clone(), permission)
            })
        })
        .collect()
}
