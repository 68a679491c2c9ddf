//! Whether connections work: what calls and tests tell of them.

use std::time::Duration;

use serde_json::Value;
use tidegate_connectors::{CallOptions, Failure};
use tidegate_model::{Connection, ErrorCode, Health, HealthStatus, StepError};
use tokio::time::Instant;

use crate::{Connections, Error};

/// How long the test of a connection may take.
const TEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a connection is read again where somebody else writes it at the same time.
const MAX_TRIES: u32 = 5;

/// What came of the test of a connection.
#[derive(Debug, Clone)]
pub struct Tested {
    /// The connection, with what is known of it now.
    pub connection: Connection,
    /// Why the test failed; nothing where it succeeded, or there is none.
    pub error: Option<StepError>,
    /// Whether the connector has a test for it.
    pub is_testable: bool,
}

impl Connections {
    /// Notes what a call says of its connection: a write where that is something new.
    pub(crate) async fn note_health(&self, connection: &Connection, result: &Result<Value, Failure>) {
        let health = match result {
            Ok(_) => Health { status: HealthStatus::Ok, reason: None, ..connection.health.clone() },
            Err(failure) if failure.is_connection_broken => {
                let reason = Some(failure.error.message.clone());
                Health { status: HealthStatus::Broken, reason, ..connection.health.clone() }
            }
            Err(_) => return,
        };
        if health.status == connection.health.status {
            return;
        }
        if let Err(error) = self.set_health(connection, health).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(component = "connections", connection_id = %connection.id, error, "a connection's health can't be noted");
        }
    }

    /// Writes what is known of a connection, unless it was replaced or deleted meanwhile.
    pub(crate) async fn set_health(&self, connection: &Connection, health: Health) -> Result<Connection, Error> {
        self.change(connection, |now| {
            let since = if now.health.status == health.status { now.health.since } else { Some(self.clock.now()) };
            Connection { health: Health { since, ..health.clone() }, ..now.clone() }
        })
        .await
    }

    /// Changes a connection as it is stored, however often somebody else does at the same time; yields it as it is then.
    pub(crate) async fn change(
        &self,
        connection: &Connection,
        change: impl Fn(&Connection) -> Connection,
    ) -> Result<Connection, Error> {
        let mut expected = connection.clone();
        for _ in 0..MAX_TRIES {
            let changed = change(&expected);
            if changed == expected || self.store.connections().replace(&expected, &changed).await? {
                self.caches.connections.forget(&(connection.tenant, connection.id)).await;
                return Ok(changed);
            }
            match self.store.connections().get(connection.tenant, connection.id).await? {
                Some(now) => expected = now,
                None => break,
            }
        }
        Ok(expected)
    }

    /// Makes the connector's test request with a connection and notes what it tells.
    ///
    /// # Errors
    /// The store is away.
    pub async fn test(&self, connection: Connection) -> Result<Tested, Error> {
        let failed = |connection: Connection, message: &str| {
            let error = Some(StepError::terminal(ErrorCode::ConnectionUnusable, message));
            Tested { connection, error, is_testable: true }
        };
        let Some(connector) = self.connector_of(&connection).await? else {
            return Ok(failed(connection, "its connector is gone"));
        };
        let Some(usable) = self.usable(connection.clone().into()).await? else {
            return Ok(failed(connection, "the key that its secret is sealed under was destroyed; make it anew"));
        };
        let deadline = Instant::now() + TEST_TIMEOUT;
        let usable = match self.fresh(usable, false, deadline).await {
            Ok(usable) => usable,
            Err(error) => {
                let connection = self.reread(&connection).await?.map_or(connection, |now| (*now).clone());
                return Ok(Tested { connection, error: Some(error), is_testable: true });
            }
        };
        let options = CallOptions { timeout: TEST_TIMEOUT, idempotency_key: None, traceparent: None };
        let mut usable = usable;
        let mut result = connector.test(self.outside(connection.tenant), usable.credential(), options.clone()).await;
        if result.as_ref().is_err_and(|failure| failure.is_connection_broken)
            && usable.connection.oauth.as_ref().is_some_and(|grant| grant.refreshable)
        {
            // As a run does it: an access token may end before its time.
            match self.fresh(usable, true, deadline).await {
                Ok(fresh) => usable = fresh,
                Err(error) => {
                    let connection = self.reread(&connection).await?.map_or(connection, |now| (*now).clone());
                    return Ok(Tested { connection, error: Some(error), is_testable: true });
                }
            }
            result = connector.test(self.outside(connection.tenant), usable.credential(), options).await;
        }
        let before = usable.connection.health.clone();
        let (health, error) = match result {
            Ok(None) => {
                let connection = (*usable.connection).clone();
                return Ok(Tested { connection, error: None, is_testable: false });
            }
            Ok(Some(account)) => {
                let account = account.or(before.account);
                (Health { status: HealthStatus::Ok, reason: None, account, since: before.since }, None)
            }
            Err(Failure { error, is_connection_broken: true, .. }) => {
                let reason = Some(error.message.clone());
                (Health { status: HealthStatus::Broken, reason, ..before }, Some(error))
            }
            // The vendor is down: that says nothing of the connection.
            Err(Failure { error, .. }) => (before, Some(error)),
        };
        let connection = self.set_health(&usable.connection, health).await?;
        Ok(Tested { connection, error, is_testable: true })
    }
}
