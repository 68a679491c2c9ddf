//! What a caller may hand out and take away: nothing that it doesn't hold itself, at this very moment.

use std::collections::BTreeSet;

use tidegate_http::permission::Required;
use tidegate_http::{Caller, Problem, ProblemCode};
use tidegate_model::{FieldError, Member, Permission, Pointer, PrincipalId, Role, RoleName, Tenant, TenantStatus};

use crate::{Deps, sessions};

/// How a caller stands, read again. What [`Caller`] knows may be half a minute old, in which somebody who was removed, or
/// whose session was ended, could let themselves in again.
pub(crate) struct Authority {
    /// The tenant's head.
    pub(crate) tenant: Tenant,
    /// The caller in it.
    pub(crate) member: Member,
    /// What it may do.
    pub(crate) permissions: BTreeSet<Permission>,
}

impl Authority {
    /// Looks up a caller and its permission `P`.
    pub(crate) async fn of<P: Required>(deps: &Deps, caller: &Caller<P>) -> Result<Self, Problem> {
        let tenant = deps.store.tenants().get(caller.tenant).await?;
        let tenant = tenant.filter(|tenant| tenant.status != TenantStatus::Deleted).ok_or_else(left)?;
        if tenant.status == TenantStatus::Suspended {
            return Err(Problem::tenant_suspended());
        }
        let member = deps.store.tenants().member(tenant.id, caller.principal).await?.ok_or_else(left)?;
        let still = match (caller.principal, caller.session, caller.api_key) {
            (PrincipalId::User(user), Some(session), None) => deps.store.sessions().get(user, session).await?.is_some(),
            (PrincipalId::Service(_), None, Some(key)) => deps.store.api_keys().get(key).await?.is_some(),
            // Of a token that is a machine's by its client credentials the key is named too.
            _ => false,
        };
        if !still {
            return Err(sessions::ended());
        }
        let mut permissions = tenant.permissions(&member.role);
        // Where an API key is used, its scopes bound what the role allows.
        permissions.retain(|permission| caller.permissions.contains(permission));
        if !permissions.contains(&P::PERMISSION) {
            return Err(Problem::forbidden(P::PERMISSION));
        }
        Ok(Self { tenant, member, permissions })
    }

    /// Refuses a role that the caller can't give: the owner's, one that doesn't exist, one that allows more than the caller
    /// may.
    pub(crate) fn may_give(&self, role: &RoleName, pointer: &str) -> Result<(), Problem> {
        let refused = if role.builtin() == Some(Role::Owner) {
            Some("there is one owner; hand the organization over with `POST /api/tenant/transfer`")
        } else if self.tenant.has_role(role) {
            None
        } else {
            Some("the organization has no such role; `GET /api/tenant/roles` lists them")
        };
        if let Some(detail) = refused {
            return Err(Problem::validation(vec![FieldError::new(pointer.into(), detail)]));
        }
        self.covers(role, Some(pointer.into()))
    }

    /// Refuses to take a role away that allows more than the caller may.
    pub(crate) fn may_take(&self, role: &RoleName) -> Result<(), Problem> {
        self.covers(role, None)
    }

    fn covers(&self, role: &RoleName, pointer: Option<Pointer>) -> Result<(), Problem> {
        let beyond = self.beyond(self.tenant.permissions(role));
        if beyond.is_empty() {
            return Ok(());
        }
        let detail = format!("The role {role} allows more than you may: {beyond}.");
        let errors = pointer.map(|pointer| FieldError::new(pointer, format!("allows more than you may: {beyond}")));
        Err(Problem::new(ProblemCode::Forbidden, detail).with_errors(errors.into_iter().collect()))
    }

    /// Refuses permissions that the caller doesn't hold, each by its place.
    pub(crate) fn may_grant(&self, permissions: &[Permission]) -> Result<(), Problem> {
        let beyond = permissions.iter().enumerate().filter(|(_, permission)| !self.permissions.contains(permission));
        let errors: Vec<_> = beyond
            .map(|(index, permission)| {
                let detail = format!("you don't hold {permission} yourself, so you can't give it");
                FieldError::new(Pointer::root().push("permissions").push(index), detail)
            })
            .collect();
        if errors.is_empty() {
            return Ok(());
        }
        let detail = "A role can only be given permissions that you hold yourself; see errors.";
        Err(Problem::new(ProblemCode::Forbidden, detail).with_errors(errors))
    }

    /// Those permissions that the caller doesn't hold, as a text lists them.
    fn beyond(&self, permissions: BTreeSet<Permission>) -> String {
        let beyond: Vec<_> = permissions.difference(&self.permissions).map(|permission| permission.as_str()).collect();
        beyond.join(", ")
    }
}

fn left() -> Problem {
    let detail = "You are no member of this organization any more. Sign in again.";
    Problem::new(ProblemCode::Unauthenticated, detail)
}

/// 409: what would leave the organization without its owner.
pub(crate) fn owner_required() -> Problem {
    let detail = "This is the organization's owner. Hand it over first, with `POST /api/tenant/transfer`.";
    Problem::new(ProblemCode::OwnerRequired, detail)
}
