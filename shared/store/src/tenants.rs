//! Tenants: under `ten#{id}` the head, a row for each member (people and service accounts) and one for each invitation. A
//! person's membership also lies with the person, written in the same transaction.

use tidegate_model::{Credentials, Invitation, InvitationId, Member, PrincipalId, RoleName, Tenant, TenantId, User};

use crate::items::{DOC, HEAD, Item, PK, REVISION, SK, document, in_list, key, number, row, string, text, to_json};
use crate::write::{Condition, Outcome, Write};
use crate::{Error, Page, Store, accounts};

/// Tenants, their members and invitations.
#[derive(Debug, Clone, Copy)]
pub struct Tenants<'a>(pub(crate) &'a Store);

/// The list of all tenants.
const ALL: &str = "ten#";
const MEMBER: &str = "member#";
const INVITATION: &str = "invite#";
/// DynamoDB's limit of actions in one transaction.
const TRANSACTION: usize = 99;

impl Tenants<'_> {
    /// Stores a new tenant and its owner.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the id is taken.
    pub async fn create(&self, tenant: &Tenant, owner: &Member) -> Result<(), Error> {
        const OPERATION: &str = "create tenant";
        let mut items = vec![head(OPERATION, tenant)?];
        items.extend(membership(OPERATION, owner)?);
        self.commit(OPERATION, items.into_iter().map(|item| self.new_row(item)).collect()).await
    }

    /// A tenant; also one that is suspended or deleted.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn get(&self, id: TenantId) -> Result<Option<Tenant>, Error> {
        const OPERATION: &str = "read tenant";
        let found = self.0.read(OPERATION, self.0.config_table(), key(partition(id), HEAD)).await?;
        found.as_ref().map(|item| document(OPERATION, item)).transpose()
    }

    /// Replaces a tenant's head whose stored revision is the one before.
    ///
    /// # Errors
    /// [`Error::Conflict`] where it was changed meanwhile.
    pub async fn replace(&self, tenant: &Tenant) -> Result<(), Error> {
        const OPERATION: &str = "replace tenant";
        let before = Condition::Equals(vec![(REVISION, number(tenant.revision.saturating_sub(1)))]);
        match self.0.put(OPERATION, self.0.config_table(), || head(OPERATION, tenant), before).await? {
            Outcome::Written => Ok(()),
            Outcome::Refused(_) => Err(Error::Conflict { operation: OPERATION }),
        }
    }

    /// A page of all tenants, newest first. One made or changed a moment ago may be missing or show its former state.
    ///
    /// # Errors
    /// [`Error::InvalidCursor`]; the database is away, or a row is unreadable.
    pub async fn list(&self, cursor: Option<&str>, limit: usize) -> Result<Page<Tenant>, Error> {
        self.0.list("list tenants", ALL, cursor, limit, |item| document("list tenants", item)).await
    }

    /// A member of a tenant: a person or a service account.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn member(&self, tenant: TenantId, principal: PrincipalId) -> Result<Option<Member>, Error> {
        const OPERATION: &str = "read member";
        let found = self.0.read(OPERATION, self.0.config_table(), member_key(tenant, principal)).await?;
        found.as_ref().map(|item| document(OPERATION, item)).transpose()
    }

    /// Stores a new member.
    ///
    /// # Errors
    /// [`Error::Conflict`] where it is one already.
    pub async fn add_member(&self, member: &Member) -> Result<(), Error> {
        const OPERATION: &str = "add member";
        let rows = membership(OPERATION, member)?;
        self.commit(OPERATION, rows.into_iter().map(|item| self.new_row(item)).collect()).await
    }

    /// Replaces members that are stored exactly as expected, all or none: a change of role, or of two at once.
    ///
    /// # Errors
    /// [`Error::Conflict`] where one was changed or removed meanwhile.
    pub async fn replace_members(&self, changes: &[(&Member, &Member)]) -> Result<(), Error> {
        const OPERATION: &str = "replace member";
        let writes = changes.iter().map(|(expected, member)| {
            let condition = unchanged(OPERATION, *expected)?;
            Ok(Write::Put { table: self.0.config_table(), item: member_row(OPERATION, member)?, condition })
        });
        self.commit(OPERATION, writes.collect::<Result<_, Error>>()?).await
    }

    /// Removes a member that is stored exactly as expected.
    ///
    /// # Errors
    /// [`Error::Conflict`] where it was changed or removed meanwhile.
    pub async fn remove_member(&self, expected: &Member) -> Result<(), Error> {
        const OPERATION: &str = "remove member";
        let table = self.0.config_table();
        let mut writes = vec![Write::Delete {
            table,
            key: member_key(expected.tenant, expected.principal),
            condition: Some(unchanged(OPERATION, expected)?),
        }];
        if let PrincipalId::User(user) = expected.principal {
            let key = key(accounts::partition(user), expected.tenant);
            writes.push(Write::Delete { table, key, condition: None });
        }
        self.commit(OPERATION, writes).await
    }

    /// A page of a tenant's people, newest first. One who came a moment ago may be missing.
    ///
    /// # Errors
    /// [`Error::InvalidCursor`]; the database is away, or a row is unreadable.
    pub async fn members(&self, tenant: TenantId, cursor: Option<&str>, limit: usize) -> Result<Page<Member>, Error> {
        let read = |item: &Item| document("list members", item);
        self.0.list("list members", &format!("{MEMBER}{tenant}"), cursor, limit, read).await
    }

    /// A page of a tenant's service accounts, newest first. One made a moment ago may be missing.
    ///
    /// # Errors
    /// [`Error::InvalidCursor`]; the database is away, or a row is unreadable.
    pub async fn service_accounts(
        &self,
        tenant: TenantId,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<Member>, Error> {
        let read = |item: &Item| document("list service accounts", item);
        self.0.list("list service accounts", &format!("svc#{tenant}"), cursor, limit, read).await
    }

    /// Whether a member or an invitation has this role: such a role can't be deleted.
    ///
    /// # Errors
    /// The database is away, or a row is unreadable.
    pub async fn is_role_given(&self, tenant: TenantId, role: &RoleName) -> Result<bool, Error> {
        const OPERATION: &str = "look for a role's holders";
        #[derive(serde::Deserialize)]
        struct Holder {
            role: RoleName,
        }
        for prefix in [MEMBER, INVITATION] {
            let rows = self.0.read_prefix(OPERATION, self.0.config_table(), text(partition(tenant)), prefix).await?;
            for item in &rows {
                if document::<Holder>(OPERATION, item)?.role == *role {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Stores a new invitation.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the id is taken.
    pub async fn invite(&self, invitation: &Invitation) -> Result<(), Error> {
        const OPERATION: &str = "store invitation";
        self.commit(OPERATION, vec![self.new_row(invitation_row(OPERATION, invitation)?)]).await
    }

    /// A tenant's invitation.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn invitation(&self, tenant: TenantId, id: InvitationId) -> Result<Option<Invitation>, Error> {
        const OPERATION: &str = "read invitation";
        let found = self.0.read(OPERATION, self.0.config_table(), invitation_key(tenant, id)).await?;
        found.as_ref().map(|item| document(OPERATION, item)).transpose()
    }

    /// A page of a tenant's invitations, newest first; also those that have ended. One made a moment ago may be missing.
    ///
    /// # Errors
    /// [`Error::InvalidCursor`]; the database is away, or a row is unreadable.
    pub async fn invitations(
        &self,
        tenant: TenantId,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<Invitation>, Error> {
        let read = |item: &Item| document("list invitations", item);
        self.0.list("list invitations", &format!("{INVITATION}{tenant}"), cursor, limit, read).await
    }

    /// Replaces an invitation that is stored exactly as expected: its link becomes another one.
    ///
    /// # Errors
    /// [`Error::Conflict`] where it is gone or was changed meanwhile.
    pub async fn replace_invitation(&self, expected: &Invitation, invitation: &Invitation) -> Result<(), Error> {
        const OPERATION: &str = "replace invitation";
        let (item, condition) = (invitation_row(OPERATION, invitation)?, unchanged(OPERATION, expected)?);
        self.commit(OPERATION, vec![Write::Put { table: self.0.config_table(), item, condition }]).await
    }

    /// Deletes an invitation that is stored exactly as expected.
    ///
    /// # Errors
    /// [`Error::Conflict`] where it is gone.
    pub async fn revoke(&self, expected: &Invitation) -> Result<(), Error> {
        const OPERATION: &str = "revoke invitation";
        self.commit(OPERATION, vec![self.spend(OPERATION, expected)?]).await
    }

    /// Spends an invitation and makes its member, both or neither.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the invitation is gone, or the person is a member already.
    pub async fn accept(&self, invitation: &Invitation, member: &Member) -> Result<(), Error> {
        const OPERATION: &str = "accept invitation";
        let mut writes: Vec<_> = membership(OPERATION, member)?.into_iter().map(|item| self.new_row(item)).collect();
        writes.push(self.spend(OPERATION, invitation)?);
        self.commit(OPERATION, writes).await
    }

    /// Spends an invitation, and makes the account that it leads to and its member: all or nothing.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the invitation is gone, or the address is taken.
    pub async fn accept_as(
        &self,
        user: &User,
        credentials: &Credentials,
        invitation: &Invitation,
        member: &Member,
    ) -> Result<(), Error> {
        const OPERATION: &str = "accept invitation with a new account";
        let mut items = accounts::rows(OPERATION, user, credentials)?;
        items.extend(membership(OPERATION, member)?);
        let mut writes: Vec<_> = items.into_iter().map(|item| self.new_row(item)).collect();
        writes.push(self.spend(OPERATION, invitation)?);
        self.commit(OPERATION, writes).await
    }

    /// Deletes the members and invitations of a tenant that is deleted; its head stays, without a key. Repeated, it goes on
    /// where it failed.
    ///
    /// # Errors
    /// The database is away, or a row is unreadable.
    pub async fn clear(&self, tenant: TenantId) -> Result<(), Error> {
        const OPERATION: &str = "clear tenant";
        let table = self.0.config_table();
        let rows = self.0.read_partition_keys(OPERATION, table, text(partition(tenant))).await?;
        let mut keys = Vec::new();
        for item in &rows {
            let sort = string(OPERATION, item, SK)?;
            if sort == HEAD {
                continue;
            }
            if let Some(PrincipalId::User(user)) = sort.strip_prefix(MEMBER).and_then(|id| id.parse().ok()) {
                keys.push(key(accounts::partition(user), tenant));
            }
            keys.push(key(string(OPERATION, item, PK)?, sort));
        }
        for group in keys.chunks(TRANSACTION) {
            self.0.unaudited().transact_delete(OPERATION, table, group).await?;
        }
        Ok(())
    }

    fn new_row(&self, item: Item) -> Write<'_> {
        Write::Put { table: self.0.config_table(), item, condition: Condition::Absent }
    }

    fn spend(&self, operation: &'static str, expected: &Invitation) -> Result<Write<'_>, Error> {
        Ok(Write::Delete {
            table: self.0.config_table(),
            key: invitation_key(expected.tenant, expected.id),
            condition: Some(unchanged(operation, expected)?),
        })
    }

    async fn commit(&self, operation: &'static str, writes: Vec<Write<'_>>) -> Result<(), Error> {
        self.0.transact(operation, writes).await?.map_err(|_| Error::Conflict { operation })
    }
}

/// The row is there, with this document.
fn unchanged<T: serde::Serialize>(operation: &'static str, expected: &T) -> Result<Condition, Error> {
    Ok(Condition::Equals(vec![(DOC, text(to_json(operation, DOC, expected)?))]))
}

/// A tenant's head.
pub(crate) fn head(operation: &'static str, tenant: &Tenant) -> Result<Item, Error> {
    let mut item = row(operation, partition(tenant.id), HEAD, tenant)?;
    item.insert(REVISION.to_owned(), number(tenant.revision));
    Ok(in_list(item, ALL, tenant.id))
}

/// The rows of a membership: the tenant's and, for a person, the person's.
pub(crate) fn membership(operation: &'static str, member: &Member) -> Result<Vec<Item>, Error> {
    let mut rows = vec![member_row(operation, member)?];
    if let PrincipalId::User(user) = member.principal {
        let mut own = key(accounts::partition(user), member.tenant);
        own.insert(accounts::JOINED.to_owned(), text(member.created_at));
        rows.push(own);
    }
    Ok(rows)
}

fn member_row(operation: &'static str, member: &Member) -> Result<Item, Error> {
    let Member { tenant, principal, .. } = member;
    let list = match principal {
        PrincipalId::User(_) => format!("{MEMBER}{tenant}"),
        PrincipalId::Service(_) => format!("svc#{tenant}"),
    };
    Ok(in_list(row(operation, partition(*tenant), format_args!("{MEMBER}{principal}"), member)?, list, principal))
}

fn member_key(tenant: TenantId, principal: PrincipalId) -> Item {
    key(partition(tenant), format_args!("{MEMBER}{principal}"))
}

fn invitation_row(operation: &'static str, invitation: &Invitation) -> Result<Item, Error> {
    let Invitation { id, tenant, .. } = invitation;
    let item = row(operation, partition(*tenant), format_args!("{INVITATION}{id}"), invitation)?;
    Ok(in_list(item, format_args!("{INVITATION}{tenant}"), id))
}

fn invitation_key(tenant: TenantId, id: InvitationId) -> Item {
    key(partition(tenant), format_args!("{INVITATION}{id}"))
}

fn partition(id: TenantId) -> String {
    format!("ten#{id}")
}
