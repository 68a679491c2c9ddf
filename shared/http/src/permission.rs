//! A type for each permission, to say in a handler's signature what it takes: `Caller<WorkflowsRead>`.

use tidegate_model::Permission;

/// A type that stands for a permission.
pub trait Required: Send + Sync + 'static {
    /// The permission.
    const PERMISSION: Permission;
}

macro_rules! markers {
    ($($name:ident)*) => {
        $(
            #[doc = concat!("Stands for [`Permission::", stringify!($name), "`].")]
            #[derive(Debug, Clone, Copy)]
            pub enum $name {}

            impl Required for $name {
                const PERMISSION: Permission = Permission::$name;
            }
        )*

        // A permission without a type doesn't compile here.
        const _: fn(Permission) = |permission| match permission {
            $(Permission::$name => (),)*
        };
    };
}

markers! {
    AccountRead AccountWrite TenantRead TenantWrite TenantOwn MembersWrite RolesWrite ServiceAccountsRead
    ServiceAccountsWrite AuditRead WorkflowsRead WorkflowsWrite WorkflowsRun ConnectionsRead ConnectionsWrite
    ConnectionsUse ConnectionsConsent ConnectorsRead ConnectorsWrite RunsRead RunsWrite PlatformRead PlatformWrite
}
