//! Functions as their callers see them: over an embedded store in memory, a key file, and a clock that stands still.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;
use tidegate_auth::{Passwords, Registration, TokenSigner};
use tidegate_http::{Api, TokenVerifier};
use tidegate_model::{Role, Tenant, TenantId, User, UserId};
use tidegate_platform::key_service::KeyContext;
use tidegate_platform::key_service::key_file::KeyFile;
use tidegate_platform::{Clock, Envelope, Ids, KeyService};
use tidegate_store::Store;
use tidegate_store::embedded::{self, Embedded, Faults};
use tower::ServiceExt as _;

/// When every test begins.
const BEGIN_MS: i64 = 1_790_000_000_000;
/// Who signs the tokens of tests.
const ISSUER: &str = "https://tidegate.test";

/// An installation: what its functions share.
pub struct World {
    /// The database. Its faults can be switched on.
    pub embedded: Embedded,
    /// Makes and opens data keys.
    pub keys: Arc<dyn KeyService>,
    /// Stands still until it is moved.
    pub clock: Clock,
    /// Counts up, so that ids are the same in every run of a test.
    pub ids: Ids,
    folder: TempDir,
}

/// An account with a good access token.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// The access token.
    pub token: String,
    /// Who it is.
    pub user: UserId,
    /// Their tenant, which has nobody else.
    pub tenant: TenantId,
}

impl World {
    /// An installation without accounts or data.
    pub async fn new() -> Self {
        let clock = Clock::manual(Timestamp::from_millisecond(BEGIN_MS).expect("a time that exists"));
        let embedded = embedded::open_memory(clock.clone(), Faults::default()).await.expect("SQLite opens in memory");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let keys = Arc::new(KeyFile::open_or_create(&folder.path().join("key")).expect("a key file"));
        let ids = Ids::seeded(clock.clone(), 1);
        Self { embedded, keys, clock, ids, folder }
    }

    /// The store.
    pub fn store(&self) -> Store {
        self.embedded.store.clone()
    }

    /// A temporary folder that goes with the installation; the key file lies in it.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Envelope encryption as of an instance that has just started: no data key is open yet.
    pub fn envelope(&self) -> Envelope {
        Envelope::new(self.keys.clone(), self.clock.clone())
    }

    /// Verifies tokens as an instance that has just started: no public key is known yet.
    pub fn verifier(&self) -> TokenVerifier {
        TokenVerifier::new(self.store(), ISSUER, self.clock.clone())
    }

    /// Signs tokens as an instance that has just started: the signing key isn't known yet.
    pub fn signer(&self) -> TokenSigner {
        TokenSigner::new(self.store(), self.envelope(), ISSUER, self.clock.clone(), self.ids.clone())
    }

    /// What the auth function needs, as of an instance that has just started.
    pub fn auth(&self, registration: Registration) -> tidegate_auth::Deps {
        tidegate_auth::Deps {
            store: self.store(),
            envelope: self.envelope(),
            signer: self.signer(),
            verifier: self.verifier(),
            passwords: Passwords::new(2),
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            registration,
        }
    }

    /// A new tenant with one user in a role, signed in without a password.
    pub async fn sign_in(&self, role: Role) -> SignedIn {
        let id = self.ids.tenant();
        let context = KeyContext { tenant: id.to_string(), purpose: "connections".to_owned() };
        let data_key = self.envelope().new_data_key(&context).await.expect("a data key");
        let created_at = self.clock.now();
        let tenant = Tenant { id, name: "Example Ltd.".to_owned(), data_key, created_at };
        let user = User {
            id: self.ids.user(),
            email: format!("{id}@example.com"),
            name: "Alex".to_owned(),
            password_hash: "none".to_owned(),
            tenant: id,
            role,
            created_at,
        };
        self.store().accounts().create(&user, &tenant).await.expect("an account");
        let token = self.signer().sign(user.id, id, role).await.expect("a token");
        SignedIn { token, user: user.id, tenant: id }
    }

    /// Serves operations to a caller without a token.
    pub fn app(&self, api: Api) -> TestApp {
        TestApp { router: api.into_router(self.ids.clone()), token: None }
    }
}

/// A served API and one of its callers.
#[derive(Clone)]
pub struct TestApp {
    router: Router,
    token: Option<String>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body: parsed where it is JSON, else its text; null where it is empty.
    pub body: Value,
}

impl Answer {
    /// A header's text; empty where there is no such header.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a header in ASCII"))
    }
}

impl TestApp {
    /// The same for the caller with this token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { router: self.router.clone(), token: Some(token.to_owned()) }
    }

    /// The router, to serve it otherwise.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// GETs a path.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], Body::empty()).await
    }

    /// POSTs JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send_json(Method::POST, path, &[], body).await
    }

    /// PUTs JSON with an `If-Match`; an empty one isn't sent.
    pub async fn put(&self, path: &str, if_match: &str, body: &Value) -> Answer {
        let headers = [("if-match", if_match)];
        self.send_json(Method::PUT, path, if if_match.is_empty() { &[] } else { &headers }, body).await
    }

    /// DELETEs a path.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], Body::empty()).await
    }

    /// Sends JSON with headers.
    pub async fn send_json(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let headers = [headers, &[(CONTENT_TYPE.as_str(), "application/json")]].concat();
        self.send(method, path, &headers, body.to_string()).await
    }

    /// Sends anything.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).expect("a well-formed request");
        let Ok(response) = self.router.clone().oneshot(request).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a whole body").to_bytes();
        let body = match serde_json::from_slice(&bytes) {
            Ok(json) => json,
            Err(_) if bytes.is_empty() => Value::Null,
            Err(_) => String::from_utf8_lossy(&bytes).into(),
        };
        Answer { status: parts.status, headers: parts.headers, body }
    }
}
