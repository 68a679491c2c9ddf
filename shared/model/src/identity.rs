//! Who uses Tidegate: people, machines, and the tenants that they are members of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    ApiKeyId, IdError, InvitationId, Permission, Role, RoleName, ServiceAccountId, SessionId, TenantId, UserId,
};

/// A person, of however many tenants. What proves who it is lies apart, in [`Credentials`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// The user's id.
    pub id: UserId,
    /// Address in lower case; unique over the installation.
    pub email: String,
    /// When the user proved to read mail at that address.
    pub email_verified_at: Option<Timestamp>,
    /// Name for display.
    pub name: String,
    /// When the account was made.
    pub created_at: Timestamp,
}

/// What proves who a user is. No text that is printed holds any of it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Credentials {
    /// Whose they are.
    pub user: UserId,
    /// Argon2id hash in PHC string format.
    pub password_hash: String,
    /// The second factor, once it is being set up.
    pub second_factor: Option<SecondFactor>,
    /// The link that sets a new password, if one was asked for.
    pub reset: Option<Link>,
    /// The link that verifies the address, if it isn't yet.
    pub verification: Option<Link>,
    /// Counts the writes, for conditions.
    pub revision: u64,
}

/// A link that was mailed: good once, until it ends.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// SHA-256 of its secret, hex.
    pub secret_hash: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// A time-based one-time password (RFC 6238) and its stand-ins.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct SecondFactor {
    /// The data key that seals the secret, wrapped by the key service (base64).
    pub data_key: String,
    /// The secret under that data key (base64).
    pub sealed: String,
    /// When a first code proved that the user has it; until then it isn't asked for.
    pub confirmed_at: Option<Timestamp>,
    /// The last time step (30 s since 1970) whose code was taken: that one and those before are spent.
    pub last_step: u64,
    /// SHA-256 of the recovery codes that are left, hex.
    pub recovery_hashes: Vec<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// An organization; every other record belongs to exactly one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tenant {
    /// The tenant's id.
    pub id: TenantId,
    /// Name for display.
    pub name: String,
    /// Whether it may be used.
    pub status: TenantStatus,
    /// The data keys that its secrets are sealed under, oldest first; the last one seals.
    pub data_keys: Vec<DataKey>,
    /// What its members have to fulfil.
    pub policies: Policies,
    /// How much it may ask for; what isn't said is the installation's default.
    pub limits: Limits,
    /// The roles that it made, by name.
    pub roles: BTreeMap<RoleName, CustomRole>,
    /// Counts the writes, for conditions and entity tags.
    pub revision: u64,
    /// When the tenant was made.
    pub created_at: Timestamp,
}

/// Whether a tenant may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TenantStatus {
    /// It may.
    Active,
    /// The platform's administrators stopped it: webhooks and the API answer 403, schedules start nothing.
    Suspended,
    /// It is gone; only its id is kept. Its data keys were destroyed.
    Deleted,
}

/// A pair of keys that secrets are sealed under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataKey {
    /// Counts up from 1 within the tenant.
    pub number: u32,
    /// The key for connections, wrapped by the key service (base64).
    pub wrapped: String,
    /// The key for what ingress verifies requests with, wrapped; older ones have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What a tenant's members have to fulfil. Checked with every request: who signed in another way may only look after their
/// own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policies {
    /// Members sign in with a second factor.
    pub require_second_factor: bool,
    /// Members sign in by the tenant's identity provider. The owner may also do so by password.
    pub require_sso: bool,
}

/// How much a tenant may ask for, per second; ten times as much at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests to the API, of all its callers together.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub api_per_second: Option<u32>,
    /// Requests to the API with one API key.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub key_per_second: Option<u32>,
    /// Webhooks.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub webhooks_per_second: Option<u32>,
}

/// A text that can't be read as limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected limits such as `api=200,key=100,webhooks=1000` (per second; what is left out is unlimited), not {0:?}"
)]
pub struct InvalidLimits(String);

impl FromStr for Limits {
    type Err = InvalidLimits;

    fn from_str(text: &str) -> Result<Self, InvalidLimits> {
        let invalid = || InvalidLimits(text.to_owned());
        let mut limits = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, number) = part.split_once('=').ok_or_else(invalid)?;
            let number: u32 = number.trim().parse().ok().filter(|n| (1..=1_000_000).contains(n)).ok_or_else(invalid)?;
            match name.trim() {
                "api" => limits.api_per_second = Some(number),
                "key" => limits.key_per_second = Some(number),
                "webhooks" => limits.webhooks_per_second = Some(number),
                _ => return Err(invalid()),
            }
        }
        Ok(limits)
    }
}

impl Limits {
    /// These limits, and what they don't say from others.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            api_per_second: self.api_per_second.or(others.api_per_second),
            key_per_second: self.key_per_second.or(others.key_per_second),
            webhooks_per_second: self.webhooks_per_second.or(others.webhooks_per_second),
        }
    }
}

/// A set of permissions that a tenant gave a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomRole {
    /// What it is for.
    pub description: String,
    /// What it allows.
    pub permissions: BTreeSet<Permission>,
}

impl Tenant {
    /// What a role allows here; nothing where the tenant has no such role.
    pub fn permissions(&self, role: &RoleName) -> BTreeSet<Permission> {
        match role.builtin() {
            Some(role) => role.permissions(),
            None => self.roles.get(role).map(|role| role.permissions.clone()).unwrap_or_default(),
        }
    }

    /// Whether a role of this name can be given here.
    pub fn has_role(&self, role: &RoleName) -> bool {
        role.builtin().is_some() || self.roles.contains_key(role)
    }

    /// The data key that seals; none once the tenant is deleted.
    pub fn sealing_key(&self) -> Option<&DataKey> {
        self.data_keys.last()
    }

    /// The data key of this number.
    pub fn data_key(&self, number: u32) -> Option<&DataKey> {
        self.data_keys.iter().find(|key| key.number == number)
    }
}

/// Who acts: a person or a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PrincipalId {
    /// A person.
    User(UserId),
    /// A machine.
    Service(ServiceAccountId),
}

impl PrincipalId {
    /// The person, if it is one.
    pub fn user(self) -> Option<UserId> {
        match self {
            Self::User(user) => Some(user),
            Self::Service(_) => None,
        }
    }
}

impl From<UserId> for PrincipalId {
    fn from(user: UserId) -> Self {
        Self::User(user)
    }
}

impl From<ServiceAccountId> for PrincipalId {
    fn from(account: ServiceAccountId) -> Self {
        Self::Service(account)
    }
}

impl fmt::Display for PrincipalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => user.fmt(f),
            Self::Service(account) => account.fmt(f),
        }
    }
}

impl FromStr for PrincipalId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.starts_with(ServiceAccountId::PREFIX) {
            return text.parse().map(Self::Service);
        }
        text.parse().map(Self::User)
    }
}

impl Serialize for PrincipalId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PrincipalId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl utoipa::PartialSchema for PrincipalId {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .pattern(Some("^(usr|svc)_[0-9a-f]{32}$"))
            .into()
    }
}

impl utoipa::ToSchema for PrincipalId {}

/// A principal in a tenant: a person who is a member, or a service account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The tenant.
    pub tenant: TenantId,
    /// Who.
    pub principal: PrincipalId,
    /// The role there.
    pub role: RoleName,
    /// A person's name when it became a member, or the service account's.
    pub name: String,
    /// A person's address when it became a member; none for a service account.
    pub email: Option<String>,
    /// Since when.
    pub created_at: Timestamp,
}

impl Member {
    /// Whether it is the tenant's owner.
    pub fn is_owner(&self) -> bool {
        self.role.builtin() == Some(Role::Owner)
    }
}

/// How somebody proved who it is (the `amr` of RFC 8176).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// By a password.
    Pwd,
    /// By a one-time password of the second factor, or a recovery code.
    Otp,
    /// By an identity provider.
    Sso,
}

/// One sign-in of a person, from login to logout.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Who signed in.
    pub user: UserId,
    /// The tenant of the last access token; none where the user is of no tenant.
    pub tenant: Option<TenantId>,
    /// SHA-256 of the part that all its refresh tokens have in common, hex.
    pub family_hash: String,
    /// SHA-256 of the part that only the newest refresh token has, hex.
    pub refresh_hash: String,
    /// How the user proved who it is.
    pub methods: Vec<AuthMethod>,
    /// When it began.
    pub created_at: Timestamp,
    /// When it was last refreshed.
    pub refreshed_at: Timestamp,
    /// When it ends unless it is refreshed before.
    pub expires_at: Timestamp,
    /// From where it began.
    pub address: Option<IpAddr>,
    /// With what: the `User-Agent` it began with, cut to 200 characters.
    pub user_agent: Option<String>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.id).field("user", &self.user).finish_non_exhaustive()
    }
}

/// An API key of a service account. Its secret is a random 256-bit number, so that one hash is enough.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Its id, which is also the `client_id` for OAuth 2.0.
    pub id: ApiKeyId,
    /// The service account's tenant.
    pub tenant: TenantId,
    /// Who acts with it.
    pub service_account: ServiceAccountId,
    /// What it is for.
    pub name: String,
    /// SHA-256 of its secret, hex.
    pub secret_hash: String,
    /// What may be done with it, of what the service account's role allows.
    pub scopes: BTreeSet<Permission>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends, if it does.
    pub expires_at: Option<Timestamp>,
    /// The key that it was rotated to.
    #[serde(default)]
    pub successor: Option<ApiKeyId>,
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("id", &self.id).field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// An invitation into a tenant, by mail.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// Its id.
    pub id: InvitationId,
    /// Into which tenant.
    pub tenant: TenantId,
    /// Whom, by address in lower case.
    pub email: String,
    /// In which role.
    pub role: RoleName,
    /// SHA-256 of the link's secret, hex.
    pub secret_hash: String,
    /// Who invited.
    pub invited_by: PrincipalId,
    /// When.
    pub created_at: Timestamp,
    /// Until when it can be accepted.
    pub expires_at: Timestamp,
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation").field("id", &self.id).field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_read_as_what_its_prefix_says() {
        let at = Timestamp::UNIX_EPOCH;
        let user = PrincipalId::User(UserId::new(at, [1; 10]));
        let service = PrincipalId::Service(ServiceAccountId::new(at, [1; 10]));
        for principal in [user, service] {
            assert_eq!(principal.to_string().parse(), Ok(principal));
        }
        assert!(TenantId::new(at, [1; 10]).to_string().parse::<PrincipalId>().is_err());
    }

    #[test]
    fn debug_texts_hold_no_hashes() {
        let credentials = Credentials {
            user: UserId::new(Timestamp::UNIX_EPOCH, [1; 10]),
            password_hash: "$argon2id$v=19$m=19456".to_owned(),
            second_factor: None,
            reset: None,
            verification: None,
            revision: 1,
        };
        assert!(!format!("{credentials:?}").contains("argon2id"));
    }
}
