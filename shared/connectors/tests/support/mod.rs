//! Actions called through egress, with a server that answers as a test says.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this module")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tidegate_connectors::{Action, CallOptions, Connector, Failure, Files, Outside, read_manifest};
use tidegate_egress::{Credential, Egress, EgressSettings, Resolver};
use tidegate_model::{Connection, Health, Publisher, TenantId};
use tidegate_platform::blobs::folder::FolderBlobs;
use tidegate_platform::key_service::KeyContext;
use tidegate_platform::key_service::key_file::KeyFile;
use tidegate_platform::{Clock, Envelope, Ids};
use wiremock::MockServer;

pub struct Setup {
    pub server: MockServer,
    pub egress: Egress,
    pub blobs: FolderBlobs,
    pub tenant: TenantId,
    envelope: Envelope,
    ids: Ids,
    _folder: tempfile::TempDir,
}

pub const LOOPBACK: &[&str] = &["127.0.0.1/32"];

pub async fn setup(allow: &[&str]) -> Setup {
    let allow = allow.iter().map(|range| range.parse().unwrap()).collect();
    setup_with(EgressSettings { allow, ..EgressSettings::default() }).await
}

pub async fn setup_with(settings: EgressSettings) -> Setup {
    let clock = Clock::system();
    let folder = tempfile::tempdir().unwrap();
    let keys = KeyFile::open_or_create(&folder.path().join("key")).unwrap();
    let envelope = Envelope::new(Arc::new(keys), clock.clone());
    let blobs = FolderBlobs::open(&folder.path().join("blobs"), clock.clone()).unwrap();
    let blobs = blobs.with_links("http://files.test").unwrap();
    let egress = Egress::new(settings, envelope.clone());
    let ids = Ids::new(clock);
    Setup { server: MockServer::start().await, egress, blobs, tenant: ids.tenant(), envelope, ids, _folder: folder }
}

/// A connector of a tenant's manifest.
pub fn connector(manifest: &str) -> Connector {
    let manifest = read_manifest(manifest).unwrap_or_else(|errors| panic!("{errors:#?}\n{manifest}"));
    Connector::new(manifest, Publisher::Tenant, 1)
}

/// A connection and what opens it.
pub struct Made {
    pub connection: Connection,
    pub data_key: String,
}

impl Made {
    pub fn credential(&self) -> Credential<'_> {
        Credential { connection: &self.connection, data_key: &self.data_key }
    }
}

impl Setup {
    /// Another way out, with names of the test's own.
    pub fn leave_by(&mut self, settings: EgressSettings, names: Arc<dyn Resolver>) {
        self.egress = Egress::with_resolver(settings, self.envelope.clone(), names);
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.uri())
    }

    /// A connector of a tenant's manifest, in which `HOST` is the server.
    pub fn connector(&self, manifest: &str) -> Connector {
        connector(&manifest.replace("HOST", &self.server.address().to_string()))
    }

    /// A connection as the API makes it.
    pub async fn connection(
        &self,
        connector: &Connector,
        auth: &str,
        data: &Map<String, Value>,
        hosts: &[String],
    ) -> Made {
        let sign_in = connector.document.sign_in(auth).unwrap();
        let entered = sign_in.enter(data).unwrap_or_else(|errors| panic!("{}: {errors:?}", connector.name()));
        let grant = connector.document.grant(sign_in, &entered, hosts).unwrap();
        let context = KeyContext::connections(self.tenant);
        let data_key = self.envelope.new_data_key(&context).await.unwrap();
        let id = self.ids.connection();
        let plain = Value::Object(entered.secret).to_string();
        let sealed =
            self.envelope.seal(&data_key, &context, id.to_string().as_bytes(), plain.as_bytes()).await.unwrap();
        let connection = Connection {
            id,
            tenant: self.tenant,
            name: "c".to_owned(),
            connector: connector.name().to_owned(),
            publisher: connector.publisher,
            auth: auth.to_owned(),
            settings: entered.settings,
            hosts: grant.hosts,
            placement: grant.placement,
            oauth: None,
            health: Health::default(),
            data_key: 1,
            sealed,
            created_by: None,
            created_at: Clock::system().now(),
        };
        Made { connection, data_key }
    }

    pub fn outside(&self) -> Outside<'_> {
        let files = Files { blobs: &self.blobs, tenant: self.tenant };
        Outside { egress: &self.egress, files, now: "2026-11-20T10:00:00Z".parse().unwrap() }
    }

    pub async fn call(&self, action: &Action, input: &Value, made: Option<&Made>) -> Result<Value, Failure> {
        let options = CallOptions {
            timeout: Duration::from_secs(5),
            idempotency_key: Some("key-1".to_owned()),
            traceparent: None,
        };
        action.call(self.outside(), input, made.map(Made::credential), options).await
    }
}
