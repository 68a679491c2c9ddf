//! One call of a step's action.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tidegate_connectors::manifest::Need;
use tidegate_connectors::{Action, CallOptions, Failure};
use tidegate_model::{Connection, ConnectionId, ErrorCode, StepError, TenantId};
use tokio::time::Instant;

use crate::find::Usable;
use crate::{Connections, Error};

/// A call that can be made: all that had to be read for it has been.
#[derive(Debug)]
pub struct Prepared {
    tenant: TenantId,
    action: Arc<Action>,
    usable: Option<Usable>,
}

/// Why a call can't be prepared.
#[derive(Debug, thiserror::Error)]
pub enum Called {
    /// The step's failure.
    #[error("{}", .0.message)]
    Step(StepError),
    /// Our own: it may pass.
    #[error(transparent)]
    Ours(#[from] Error),
}

fn unusable(message: impl Into<String>) -> Called {
    Called::Step(StepError::terminal(ErrorCode::ConnectionUnusable, message))
}

impl Connections {
    /// Looks up what a call needs. Warm it costs nothing.
    ///
    /// # Errors
    /// There is no such action or connection, or they don't fit; the store is away.
    pub async fn prepare(
        &self,
        tenant: TenantId,
        uses: &str,
        connection: Option<ConnectionId>,
    ) -> Result<Prepared, Called> {
        let action = self.action(tenant, uses).await?.ok_or_else(|| {
            let message = format!("there is no action `{uses}` any more");
            Called::Step(StepError::terminal(ErrorCode::InputInvalid, message))
        })?;
        let usable = match connection {
            Some(id) => Some(self.usable_for(&action, tenant, id).await?),
            None if action.need() == Need::Required => {
                let connector = &action.connector.name;
                return Err(unusable(format!(
                    "{uses} needs a connection of the connector {connector:?}; name one in the step"
                )));
            }
            None => None,
        };
        Ok(Prepared { tenant, action, usable })
    }

    async fn usable_for(&self, action: &Action, tenant: TenantId, id: ConnectionId) -> Result<Usable, Called> {
        let connection = self.connection(tenant, id).await?;
        let connection = connection
            .ok_or_else(|| unusable(format!("the connection {id} is gone; choose another one in the step")))?;
        if !action.fits(&connection) {
            return Err(unusable(action.misfit(&connection)));
        }
        let usable = self.usable(connection).await?;
        let gone = "the key that its connection's secret is sealed under was destroyed; make the connection anew";
        usable.ok_or_else(|| unusable(gone))
    }

    /// Makes the call. Dropping the future drops the call.
    ///
    /// # Errors
    /// Why the step failed.
    pub async fn call(&self, prepared: Prepared, input: &Value, options: CallOptions) -> Result<Value, StepError> {
        let Prepared { tenant, action, usable } = prepared;
        let deadline = Instant::now() + options.timeout;
        let connection = usable.as_ref().map(|usable| Arc::clone(&usable.connection));
        let input = &*action.given(input);
        // Before anything is counted or waited for.
        action.check_input(input)?;
        let target = action.target(input, connection.as_deref());
        if let Some(host) = &target {
            self.admit(tenant, host).await?;
        }
        if let (Some(limit), Some(connection)) = (action.connector.rate_limit, &connection) {
            self.pace(connection, limit, deadline).await?;
        }
        let usable = match usable {
            Some(usable) => Some(self.fresh(usable, false, deadline).await?),
            None => None,
        };
        let mut result = self.attempt(tenant, &action, usable.as_ref(), input, &options, deadline).await;
        if let (Err(failure), Some(before)) = (&result, &usable)
            && failure.is_connection_broken
            && before.connection.oauth.as_ref().is_some_and(|grant| grant.refreshable)
        {
            // An access token may end before its time, and some vendors don't say when that is. Nothing was done with it.
            let usable = self.fresh(before.clone(), true, deadline).await?;
            result = self.attempt(tenant, &action, Some(&usable), input, &options, deadline).await;
        }
        if let (Err(failure), Some(before)) = (&result, &connection)
            && matches!(failure.error.code, ErrorCode::ConnectionUnusable | ErrorCode::EgressDenied)
            && let Some(now) = self.changed(before).await
        {
            // Somebody has just mended it, or consented: what was remembered of it is older. Nothing was done with it.
            result = self.attempt(tenant, &action, Some(&now), input, &options, deadline).await;
        }
        if let Some(host) = &target {
            self.note_target(tenant, host, &result).await;
        }
        if let Some(connection) = &connection {
            self.note_health(connection, &result).await;
        }
        result.map_err(|failure| failure.error)
    }

    /// A connection that stands in the store otherwise than it is remembered, in what a call is made of.
    async fn changed(&self, before: &Connection) -> Option<Usable> {
        let now = self.reread(before).await.ok()??;
        let is_same = (&now.sealed, &now.hosts, &now.placement, &now.settings)
            == (&before.sealed, &before.hosts, &before.placement, &before.settings);
        if is_same { None } else { self.usable(now).await.ok()? }
    }

    async fn attempt(
        &self,
        tenant: TenantId,
        action: &Action,
        usable: Option<&Usable>,
        input: &Value,
        options: &CallOptions,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        let timeout = deadline.saturating_duration_since(Instant::now());
        let options = CallOptions { timeout, ..options.clone() };
        action.call(self.outside(tenant), input, usable.map(Usable::credential), options).await
    }
}

impl Prepared {
    /// The connection that is used.
    pub fn connection(&self) -> Option<&Connection> {
        self.usable.as_ref().map(|usable| &*usable.connection)
    }
}

/// What is left until a deadline.
pub(crate) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
