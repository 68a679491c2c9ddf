//! Permissions and the roles that hold them: the one registry that handlers, OpenAPI and the UI read.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

macro_rules! permissions {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal;)*) => {
        /// What a caller may do. The text form is `resource:verb`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Permission { $($(#[doc = $doc])* $name,)* }

        impl Permission {
            /// Every permission there is.
            pub const ALL: &'static [Permission] = &[$(Permission::$name,)*];

            /// The name used in tokens, documents and messages.
            pub fn as_str(self) -> &'static str {
                match self { $(Permission::$name => $text,)* }
            }

            /// What it allows, for people who put a role together.
            pub fn description(self) -> &'static str {
                match self { $(Permission::$name => concat!($($doc),*).trim_ascii(),)* }
            }
        }
    };
}

permissions! {
    /// See one's own account and tenants. Everybody who is signed in may.
    AccountRead = "account:read";
    /// Change one's own password, second factor and sessions, accept invitations, leave. Everybody who is signed in may.
    AccountWrite = "account:write";
    /// See the tenant with its members, invitations, roles and settings.
    TenantRead = "tenant:read";
    /// Change the tenant's name, policies and keys.
    TenantWrite = "tenant:write";
    /// Hand the tenant over to another owner, and delete it.
    TenantOwn = "tenant:own";
    /// Invite members, change their roles, remove them.
    MembersWrite = "members:write";
    /// Make, change and delete roles.
    RolesWrite = "roles:write";
    /// See service accounts and their API keys, never the secrets.
    ServiceAccountsRead = "service_accounts:read";
    /// Make, change and delete service accounts and API keys.
    ServiceAccountsWrite = "service_accounts:write";
    /// Read and export the audit log.
    AuditRead = "audit:read";
    /// See workflows and their versions.
    WorkflowsRead = "workflows:read";
    /// Create, change, switch and delete workflows.
    WorkflowsWrite = "workflows:write";
    /// Start runs by hand.
    WorkflowsRun = "workflows:run";
    /// See connections, never their secrets.
    ConnectionsRead = "connections:read";
    /// Create, change and delete connections.
    ConnectionsWrite = "connections:write";
    /// Let anybody's connection follow a new version of its connector, to other hosts.
    ConnectionsConsent = "connections:consent";
    /// Have workflows use connections.
    ConnectionsUse = "connections:use";
    /// See connectors.
    ConnectorsRead = "connectors:read";
    /// Upload, import and delete the organization's own connectors.
    ConnectorsWrite = "connectors:write";
    /// See runs with their inputs and outputs.
    RunsRead = "runs:read";
    /// Cancel runs, and start again what was given up.
    RunsWrite = "runs:write";
    /// See all tenants, principals and keys of the installation.
    PlatformRead = "platform:read";
    /// Suspend, resume and limit tenants, make and end platform administrators, rotate signing keys.
    PlatformWrite = "platform:write";
}

impl Permission {
    /// Whether every person who is signed in has it, whatever their role: it is about their own account.
    pub fn is_own(self) -> bool {
        matches!(self, Self::AccountRead | Self::AccountWrite)
    }

    /// Whether it is about the installation, so that no role of a tenant holds it.
    pub fn is_of_platform(self) -> bool {
        matches!(self, Self::PlatformRead | Self::PlatformWrite)
    }

    /// Whether a role that a tenant makes may hold it: all but what is the owner's alone.
    pub fn is_grantable(self) -> bool {
        !self.is_own() && !self.is_of_platform() && self != Self::TenantOwn
    }

    /// Those that a role of a tenant may hold.
    pub fn of_tenants() -> impl Iterator<Item = Permission> {
        Self::ALL.iter().copied().filter(|permission| !permission.is_own() && !permission.is_of_platform())
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no permission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no permission {0:?}")]
pub struct UnknownPermission(String);

impl FromStr for Permission {
    type Err = UnknownPermission;

    fn from_str(text: &str) -> Result<Self, UnknownPermission> {
        let found = Self::ALL.iter().copied().find(|permission| permission.as_str() == text);
        found.ok_or_else(|| UnknownPermission(text.to_owned()))
    }
}

impl Serialize for Permission {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Permission {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl utoipa::PartialSchema for Permission {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .enum_values(Some(Self::ALL.iter().map(|permission| permission.as_str())))
            .into()
    }
}

impl utoipa::ToSchema for Permission {}

/// The roles that every tenant has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Everything, handing over and deleting the tenant included. A tenant has exactly one owner.
    Owner,
    /// Everything but handing over and deleting the tenant.
    Admin,
    /// Builds and runs workflows with their connections.
    Editor,
    /// Sees workflows, connections and runs, changes nothing.
    Viewer,
}

impl Role {
    /// Every built-in role, the mightiest first.
    pub const ALL: [Role; 4] = [Role::Owner, Role::Admin, Role::Editor, Role::Viewer];

    /// The role's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Owner => "owner",
            Role::Admin => "admin",
            Role::Editor => "editor",
            Role::Viewer => "viewer",
        }
    }

    /// What it is for.
    pub fn description(self) -> &'static str {
        match self {
            Role::Owner => "Everything, handing over and deleting the organization included.",
            Role::Admin => "Everything but handing over and deleting the organization.",
            Role::Editor => "Builds and runs workflows with their connections.",
            Role::Viewer => "Sees workflows, connections and runs, changes nothing.",
        }
    }

    /// The built-in role of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }

    /// What the role may do in its tenant. Denies by default.
    pub fn permissions(self) -> BTreeSet<Permission> {
        Permission::of_tenants().filter(|permission| self.allows(*permission)).collect()
    }

    fn allows(self, permission: Permission) -> bool {
        use Permission as P;
        match self {
            Role::Owner => true,
            Role::Admin => permission != P::TenantOwn,
            Role::Editor => {
                Role::Viewer.allows(permission)
                    || matches!(
                        permission,
                        P::WorkflowsWrite
                            | P::WorkflowsRun
                            | P::ConnectionsWrite
                            | P::ConnectionsUse
                            | P::ConnectorsWrite
                            | P::RunsWrite
                    )
            }
            Role::Viewer => {
                matches!(
                    permission,
                    P::TenantRead | P::WorkflowsRead | P::ConnectionsRead | P::ConnectorsRead | P::RunsRead
                )
            }
        }
    }
}

/// The name of a role in a tenant: a built-in one's, or a custom one's. Lower-case letters, digits, `_` and `-`, at most 50,
/// a letter first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RoleName(String);

/// A text that can be no role's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a role's name has 1 to 50 lower-case letters, digits, `_` and `-`, a letter first")]
pub struct InvalidRoleName;

impl RoleName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The built-in role of this name, if it is one's.
    pub fn builtin(&self) -> Option<Role> {
        Role::named(&self.0)
    }
}

impl From<Role> for RoleName {
    fn from(role: Role) -> Self {
        Self(role.as_str().to_owned())
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RoleName {
    type Err = InvalidRoleName;

    fn from_str(text: &str) -> Result<Self, InvalidRoleName> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
        let well_formed = (1..=50).contains(&text.len())
            && text.bytes().all(allowed)
            && text.bytes().next().is_some_and(|first| first.is_ascii_lowercase());
        if well_formed { Ok(Self(text.to_owned())) } else { Err(InvalidRoleName) }
    }
}

impl<'de> Deserialize<'de> for RoleName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl utoipa::PartialSchema for RoleName {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .pattern(Some("^[a-z][a-z0-9_-]{0,49}$"))
            .description(Some("`owner`, `admin`, `editor`, `viewer`, or the name of a role that the tenant made."))
            .examples(["editor"])
            .into()
    }
}

impl utoipa::ToSchema for RoleName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_builtin_role_holds_what_the_next_one_does_and_more() {
        for pair in Role::ALL.windows(2) {
            let (mightier, lesser) = (pair[0].permissions(), pair[1].permissions());
            assert!(mightier.is_superset(&lesser) && mightier.len() > lesser.len(), "{pair:?}");
        }
        let of_nobodys_role = |permission: &Permission| permission.is_own() || permission.is_of_platform();
        assert!(!Role::Owner.permissions().iter().any(of_nobodys_role));
    }

    #[test]
    fn permissions_and_roles_are_read_by_their_names_alone() {
        for permission in Permission::ALL {
            assert_eq!(permission.as_str().parse(), Ok(*permission));
            assert!(permission.description().ends_with('.'), "{permission}");
        }
        assert!("workflows:*".parse::<Permission>().is_err());
        assert_eq!("billing-clerk_2".parse::<RoleName>().unwrap().builtin(), None);
        assert_eq!("owner".parse::<RoleName>().unwrap().builtin(), Some(Role::Owner));
        for bad in ["", "Owner", "2nd", "a b", "ä", &"x".repeat(51)] {
            assert!(bad.parse::<RoleName>().is_err(), "{bad}");
        }
    }
}
