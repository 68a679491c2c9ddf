//! What webhooks' requests are verified with: the secret of a connection, sealed again into the workflow's head under the
//! tenant's key for ingress, so that ingress opens nothing else. Whoever changes the connection changes the heads.

use tidegate_http::{Problem, ProblemCode, sha256_hex};
use tidegate_model::{Connection, ConnectionId, SealedVerification, TenantId, Trigger, Workflow, WorkflowId};
use tidegate_platform::key_service::KeyContext;
use tidegate_store::Error as StoreError;

use crate::Deps;
use crate::connections::sealing_problem;

/// The connector whose connections hold what senders sign with.
pub(crate) const CONNECTOR: &str = "webhook_secret";
/// How often a head is read and written again that somebody else changes at the same time.
const MAX_TRIES: u32 = 5;

/// The connection that a trigger's requests are verified with; none where they aren't, or where it is gone.
pub(crate) async fn source(deps: &Deps, tenant: TenantId, trigger: &Trigger) -> Result<Option<Connection>, Problem> {
    let Some(verify) = trigger.verification() else { return Ok(None) };
    Ok(deps.store.connections().get(tenant, verify.connection).await?)
}

/// A connection's secret for a workflow's head.
///
/// # Errors
/// The organization has no key for ingress; the store or the key service is away.
pub(crate) async fn seal(
    deps: &Deps,
    workflow: WorkflowId,
    connection: Option<&Connection>,
) -> Result<Option<SealedVerification>, Problem> {
    let Some(connection) = connection else { return Ok(None) };
    let tenant = deps.store.tenants().get(connection.tenant).await?.ok_or_else(Problem::not_found)?;
    let newest = tenant.sealing_key().and_then(|key| Some((key.number, key.ingress.as_deref()?)));
    let Some((data_key, ingress)) = newest else {
        let detail = "The organization's data key is from before verified webhooks. Make a new one: POST \
                      /api/tenant/data-keys.";
        return Err(Problem::new(ProblemCode::Conflict, detail));
    };
    let opening = tenant.data_key(connection.data_key).ok_or_else(|| Problem::internal(&NoKey(connection.data_key)))?;
    let (context, associated) = (KeyContext::connections(tenant.id), connection.id.to_string());
    let envelope = &deps.envelope;
    let opened = envelope.open(&opening.wrapped, &context, associated.as_bytes(), &connection.sealed).await;
    let plain = opened.map_err(|error| sealing_problem(&error))?;
    let (context, associated) = (KeyContext::ingress(tenant.id), workflow.to_string());
    let sealed = envelope.seal(ingress, &context, associated.as_bytes(), &plain).await;
    let sealed = sealed.map_err(|error| sealing_problem(&error))?;
    Ok(Some(SealedVerification { data_key, sealed, of: name_of(connection) }))
}

/// Names a connection as it is sealed now. It is sealed anew whenever what was entered changes.
fn name_of(connection: &Connection) -> String {
    sha256_hex(connection.sealed.as_bytes())
}

/// Makes sure that a head that was just written holds its connection's secret: the connection may have been changed while
/// the head was made, and whoever changed it may not have seen the head. `before`: what it was made of.
pub(crate) async fn settle(deps: &Deps, written: &Workflow, before: Option<&Connection>) -> Result<(), Problem> {
    let now = source(deps, written.tenant, &written.trigger).await?;
    match (now, before) {
        (Some(now), Some(before)) if now.sealed != before.sealed => {
            change_head(deps, written, now.id, Secret::Current).await
        }
        (None, Some(before)) => change_head(deps, written, before.id, Secret::Current).await,
        _ => Ok(()),
    }
}

/// Seals a connection's secret anew into the heads of all workflows that verify with it. Where it is gone they have none, and
/// take nothing.
///
/// # Errors
/// A head couldn't be written; the others were. Doing the same again does the rest.
pub(crate) async fn propagate(deps: &Deps, connection: &Connection) -> Result<(), Problem> {
    change_heads(deps, connection, Secret::Current).await
}

/// Takes a connection's secret out of all heads that have it, before it is deleted: where that fails midway it can be done again.
///
/// # Errors
/// As [`propagate`].
pub(crate) async fn withdraw(deps: &Deps, connection: &Connection) -> Result<(), Problem> {
    change_heads(deps, connection, Secret::None).await
}

/// Of the workflows that a connection is used by, those that hold another secret of it: who changed it didn't see them yet, since a
/// listing shows what was written a moment ago later.
pub(crate) async fn mend(deps: &Deps, connection: &Connection, workflows: &[Workflow]) {
    let name = name_of(connection);
    for workflow in workflows.iter().filter(|workflow| verifies_with(workflow, connection.id)) {
        if workflow.verification.as_ref().is_none_or(|verification| verification.of != name)
            && let Err(problem) = change_head(deps, workflow, connection.id, Secret::Current).await
        {
            tracing::warn!(
                component = "workflows",
                workflow_id = %workflow.id,
                "a workflow's webhook has a former secret still: {problem}"
            );
        }
    }
}

async fn change_heads(deps: &Deps, connection: &Connection, secret: Secret) -> Result<(), Problem> {
    if connection.connector != CONNECTOR {
        return Ok(());
    }
    let (mut cursor, mut failed) = (None, None);
    loop {
        let page = deps.store.workflows().list(connection.tenant, cursor.as_deref(), tidegate_store::MAX_PAGE).await?;
        for workflow in page.items.iter().filter(|workflow| verifies_with(workflow, connection.id)) {
            failed = change_head(deps, workflow, connection.id, secret).await.err().or(failed);
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return failed.map_or(Ok(()), Err);
        }
    }
}

/// What a head is to hold of a connection.
#[derive(Clone, Copy)]
enum Secret {
    /// What the connection holds now; nothing where it is gone.
    Current,
    /// Nothing.
    None,
}

/// The head gets a new revision: a change that began before this one would bring the former secret back.
async fn change_head(
    deps: &Deps,
    workflow: &Workflow,
    connection: ConnectionId,
    secret: Secret,
) -> Result<(), Problem> {
    let Workflow { id, tenant, .. } = *workflow;
    for _ in 0..MAX_TRIES {
        let Some(before) = deps.store.workflows().get(tenant, id).await? else { return Ok(()) };
        if !verifies_with(&before, connection) {
            return Ok(());
        }
        let verification = match secret {
            Secret::Current => seal(deps, id, source(deps, tenant, &before.trigger).await?.as_ref()).await?,
            Secret::None => None,
        };
        let after = Workflow { verification, revision: before.revision + 1, ..before.clone() };
        match deps.store.workflows().replace(before.revision, &after, None).await {
            Err(StoreError::Conflict { .. }) => {}
            written => return Ok(written?),
        }
    }
    let detail = format!("The workflow {id} is changed all the time, so its webhook has the former secret. Try again.");
    Err(Problem::new(ProblemCode::Conflict, detail))
}

fn verifies_with(workflow: &Workflow, connection: ConnectionId) -> bool {
    workflow.trigger.verification().is_some_and(|verify| verify.connection == connection)
}

#[derive(Debug, thiserror::Error)]
#[error("the tenant has no data key {0}")]
struct NoKey(u32);
