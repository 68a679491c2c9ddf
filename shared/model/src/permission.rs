//! Permissions and the roles that hold them: the one registry that handlers, OpenAPI and the UI read.

use serde::{Deserialize, Serialize};

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// What a caller may do. The text form is `resource:verb`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Permission { $($(#[$doc])* $name,)* }

        impl Permission {
            /// Every permission there is.
            pub const ALL: &'static [Permission] = &[$(Permission::$name,)*];

            /// The name used in tokens, documents and messages.
            pub fn as_str(self) -> &'static str {
                match self { $(Permission::$name => $text,)* }
            }
        }
    };
}

permissions! {
    /// See one's own account and tenant.
    AccountRead = "account:read";
    /// See workflows and their versions.
    WorkflowsRead = "workflows:read";
    /// Create, change, switch and delete workflows.
    WorkflowsWrite = "workflows:write";
    /// See connections, never their secrets.
    ConnectionsRead = "connections:read";
    /// Create and delete connections.
    ConnectionsWrite = "connections:write";
    /// Start runs by hand.
    WorkflowsRun = "workflows:run";
    /// See runs with their inputs and outputs.
    RunsRead = "runs:read";
    /// Cancel runs, and start again what was given up.
    RunsWrite = "runs:write";
}

/// A set of permissions by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything, billing and deletion of the tenant included.
    Owner,
    /// Sees everything, changes nothing.
    Viewer,
}

impl Role {
    /// Whether the role holds the permission. Denies by default.
    pub fn allows(self, permission: Permission) -> bool {
        match self {
            Role::Owner => true,
            Role::Viewer => matches!(
                permission,
                Permission::AccountRead
                    | Permission::WorkflowsRead
                    | Permission::ConnectionsRead
                    | Permission::RunsRead
            ),
        }
    }
}
