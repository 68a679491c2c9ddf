//! Workflows: under `wf#{id}` the head and one immutable item for each version. A head is read by id alone and listed
//! by tenant.

use tidegate_model::{Definition, TenantId, Workflow, WorkflowId};

use crate::items::{HEAD, Item, PK, REVISION, SK, TENANT, document, in_list, key, number, row, string, text};
use crate::write::{Condition, ConditionalPut, Write};
use crate::{Error, Page, Store};

/// DynamoDB's limit of actions in one transaction, without the audit entry.
const TRANSACTION: usize = 99;

/// A tenant's workflows.
#[derive(Debug, Clone, Copy)]
pub struct Workflows<'a>(pub(crate) &'a Store);

impl Workflows<'_> {
    /// Stores a new workflow and its current version, both or neither.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the id is taken; [`Error::Refused`] for a definition over 400 KB.
    pub async fn create(&self, workflow: &Workflow, definition: &Definition) -> Result<(), Error> {
        self.write("create workflow", workflow, Some(definition), Condition::Absent).await
    }

    /// A tenant's workflow.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn get(&self, tenant: TenantId, id: WorkflowId) -> Result<Option<Workflow>, Error> {
        Ok(self.read_head("read workflow", id).await?.filter(|workflow| workflow.tenant == tenant))
    }

    /// The workflow with this unguessable id, of whichever tenant: for its webhook, and for a message of the run queue.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn get_public(&self, id: WorkflowId) -> Result<Option<Workflow>, Error> {
        self.read_head("read workflow by its public id", id).await
    }

    /// A page of a tenant's workflows, newest first. One made or changed a moment ago may be missing or show its former
    /// state.
    ///
    /// # Errors
    /// [`Error::InvalidCursor`]; the database is away, or a row is unreadable.
    pub async fn list(&self, tenant: TenantId, cursor: Option<&str>, limit: usize) -> Result<Page<Workflow>, Error> {
        let read = |item: &Item| document("list workflows", item);
        self.0.list("list workflows", &list_key(tenant), cursor, limit, read).await
    }

    /// Replaces a workflow's head where its stored revision is the expected one, and stores its new current version, if
    /// there is one.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the workflow has another revision or is gone; [`Error::Refused`] for a definition over
    /// 400 KB.
    pub async fn replace(
        &self,
        expected_revision: u64,
        workflow: &Workflow,
        definition: Option<&Definition>,
    ) -> Result<(), Error> {
        let expected = vec![(REVISION, number(expected_revision)), (TENANT, text(workflow.tenant))];
        self.write("replace workflow", workflow, definition, Condition::Equals(expected)).await
    }

    /// Deletes a tenant's workflow with all its versions; tells whether there was one. Runs that are under way lose their
    /// definition. When it fails midway the workflow is gone, and repeating it deletes the remaining versions.
    ///
    /// # Errors
    /// The database is away.
    pub async fn delete(&self, tenant: TenantId, id: WorkflowId) -> Result<bool, Error> {
        const OPERATION: &str = "delete workflow";
        let table = self.0.config_table();
        let rows = self.0.read_partition_keys(OPERATION, table, text(partition(id))).await?;
        // `head` sorts before the versions, so it goes in the first transaction.
        let mut deletes = Vec::with_capacity(rows.len());
        for item in rows.iter().filter(|item| item.get(TENANT) == Some(&text(tenant))) {
            let sort = string(OPERATION, item, SK)?;
            // Of two who delete at the same time one does, so that the audit log has it once. A repetition after a lost
            // answer is known by the entry; without one it can't be told from the other's deletion.
            let only_one = sort == HEAD && self.0.audit.is_some();
            let condition = only_one.then(|| Condition::Equals(vec![(TENANT, text(tenant))]));
            deletes.push(Write::Delete { table, key: key(string(OPERATION, item, PK)?, sort), condition });
        }
        for (index, group) in deletes.chunks(TRANSACTION).enumerate() {
            // The workflow goes with the first group, and with that its entry in the audit log.
            let store = if index == 0 { self.0 } else { &self.0.unaudited() };
            if store.transact(OPERATION, group.to_vec()).await?.is_err() {
                return Ok(false);
            }
        }
        Ok(!deletes.is_empty())
    }

    /// One version of a tenant's workflow.
    ///
    /// # Errors
    /// The database is away, or the row is unreadable.
    pub async fn definition(
        &self,
        tenant: TenantId,
        id: WorkflowId,
        version: u32,
    ) -> Result<Option<Definition>, Error> {
        const OPERATION: &str = "read workflow version";
        let key = key(partition(id), version_key(version));
        let found = self.0.read(OPERATION, self.0.config_table(), key).await?;
        let found = found.filter(|item| item.get(TENANT) == Some(&text(tenant)));
        found.map(|item| document(OPERATION, &item)).transpose()
    }

    async fn write(
        &self,
        operation: &'static str,
        workflow: &Workflow,
        definition: Option<&Definition>,
        condition: Condition,
    ) -> Result<(), Error> {
        let mut head = row(operation, partition(workflow.id), HEAD, workflow)?;
        head.insert(TENANT.to_owned(), text(workflow.tenant));
        head.insert(REVISION.to_owned(), number(workflow.revision));
        let head = in_list(head, list_key(workflow.tenant), workflow.id);
        let mut puts = vec![ConditionalPut { item: head, condition }];
        if let Some(definition) = definition {
            let mut item = row(operation, partition(workflow.id), version_key(workflow.version), definition)?;
            item.insert(TENANT.to_owned(), text(workflow.tenant));
            puts.push(ConditionalPut { item, condition: Condition::Absent });
        }
        let written = self.0.transact_put(operation, self.0.config_table(), puts).await?;
        written.map_err(|_| Error::Conflict { operation })
    }

    async fn read_head(&self, operation: &'static str, id: WorkflowId) -> Result<Option<Workflow>, Error> {
        let found = self.0.read(operation, self.0.config_table(), key(partition(id), HEAD)).await?;
        found.map(|item| document(operation, &item)).transpose()
    }
}

fn partition(id: WorkflowId) -> String {
    format!("wf#{id}")
}

fn version_key(version: u32) -> String {
    format!("v{version:010}")
}

fn list_key(tenant: TenantId) -> String {
    format!("wf#{tenant}")
}
