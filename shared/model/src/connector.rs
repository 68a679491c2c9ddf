//! Connectors that tenants make, and signing in at a vendor.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{ClientAuth, ConnectionId, Placement, Publisher, SessionId, TenantId, UserId};

/// A tenant's connector: which of its versions is the current one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectorHead {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its name: what steps write before the dot.
    pub name: String,
    /// Its name for display.
    pub title: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The name of an icon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icon: Option<String>,
    /// What kind of system it talks to.
    pub category: String,
    /// The current version, from 1.
    pub version: u32,
    /// What the rows of that version are stored under.
    pub upload: String,
    /// How many actions it has.
    pub actions: u32,
    /// Who uploaded the current version; nobody where a service account did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_by: Option<UserId>,
    /// When the first version came.
    pub created_at: Timestamp,
    /// When the current version came.
    pub updated_at: Timestamp,
}

/// The installation's client at an OAuth provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OAuthClient {
    /// The provider: `google`.
    pub provider: String,
    /// The client's id, which is no secret.
    pub client_id: String,
    /// The data key that seals the client's secret, wrapped by the key service (base64).
    pub data_key: String,
    /// The client's secret under that data key, with the provider as associated data (base64).
    pub sealed: String,
    /// When it was set.
    pub updated_at: Timestamp,
}

/// Somebody is signing in at a vendor, to make a connection or to renew one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OAuthState {
    /// SHA-256 of the `state` parameter, in hexadecimal digits: what it is stored under.
    pub id: String,
    /// SHA-256 of the cookie that the browser has, in hexadecimal digits.
    pub browser: String,
    /// The tenant that the connection will be of.
    pub tenant: TenantId,
    /// Who is signing in,
    pub user: UserId,
    /// and in which session, which must still be there when the vendor sends them back.
    pub session: SessionId,
    /// The connector.
    pub connector: String,
    /// Whose it is.
    pub publisher: Publisher,
    /// The way to sign in.
    pub auth: String,
    /// The connection's name.
    pub name: String,
    /// The connection's id: a new one, or that of the connection that is renewed.
    pub connection: ConnectionId,
    /// Whether it is renewed.
    pub renews: bool,
    /// The connection's fields that aren't secret.
    pub settings: Map<String, Value>,
    /// Its hosts.
    pub hosts: Vec<String>,
    /// Where its secret will go.
    pub placement: Placement,
    /// Where tokens come from.
    pub token_url: String,
    /// The provider whose client of the installation's it is.
    pub provider: Option<String>,
    /// How the client says who it is.
    pub client_auth: ClientAuth,
    /// What was asked for.
    pub scopes: Vec<String>,
    /// Where the vendor sends the browser back to.
    pub redirect_uri: String,
    /// The number of the tenant's data key that seals what follows.
    pub data_key: u32,
    /// The PKCE verifier and, where it is the tenant's own, the client: JSON, with the connection's id as associated data (base64).
    pub sealed: String,
    /// When it is over.
    pub expires_at: Timestamp,
}
