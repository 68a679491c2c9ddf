//! Keeps access tokens fresh: before they end, by one refresher at a time over all processes.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tidegate_egress::{Granted, TokenClient, TokenError};
use tidegate_model::{Connection, ErrorCode, Health, HealthStatus, OAuthClient, OAuthGrant, Refreshing, StepError};
use tokio::time::Instant;

use crate::call::left;
use crate::find::Usable;
use crate::{Connections, Error};

/// A token is refreshed so long before it ends, or after four fifths of its life.
const BEFORE_END: Duration = Duration::from_secs(300);
/// How long one refresh may take.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(20);
/// After how long a refresh counts as given up: its process died.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(30);
/// How often somebody who waits for another's refresh looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a grant becomes with new tokens.
pub fn grant_of(before: &OAuthGrant, granted: &Granted, now: Timestamp) -> OAuthGrant {
    let lifetime_seconds = granted.lifetime.map(|lifetime| u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX));
    OAuthGrant {
        scopes: granted.scopes.clone().unwrap_or_else(|| before.scopes.clone()),
        refreshable: granted.refreshable,
        expires_at: granted.lifetime.and_then(|lifetime| now.checked_add(lifetime).ok()),
        lifetime_seconds,
        refreshing: None,
        ..before.clone()
    }
}

impl Connections {
    /// A connection whose access token is good. `force`: the vendor refused the one that it has.
    pub(crate) async fn fresh(&self, usable: Usable, force: bool, deadline: Instant) -> Result<Usable, StepError> {
        let refused = usable.connection.sealed.clone();
        let mut usable = usable;
        loop {
            let connection = Arc::clone(&usable.connection);
            let Some(grant) = &connection.oauth else { return Ok(usable) };
            let now = self.clock.now();
            let is_over = grant.expires_at.is_some_and(|end| end <= now);
            let is_refused = force && connection.sealed == refused;
            if !is_refused && !is_due(grant, now) {
                return Ok(usable);
            }
            if !grant.refreshable {
                return if is_over || is_refused { Err(ended(&connection)) } else { Ok(usable) };
            }
            let must_wait = is_over || is_refused;
            let current = match grant.refreshing.as_ref().filter(|refreshing| refreshing.until > now) {
                Some(_) if !must_wait => return Ok(usable),
                Some(_) => {
                    tokio::time::sleep(LOOK_EVERY.min(left(deadline))).await;
                    self.reread(&connection).await
                }
                None => match self.refresh_once(&usable, grant, must_wait).await? {
                    Some(fresh) => return Ok(fresh),
                    None => self.reread(&connection).await,
                },
            };
            let current = current.map_err(|error| away(&error))?.ok_or_else(|| {
                StepError::terminal(ErrorCode::ConnectionUnusable, format!("the connection {} is gone", connection.id))
            })?;
            if left(deadline).is_zero() {
                let message = "somebody else is refreshing the connection's access token and isn't done";
                return Err(StepError::retryable(ErrorCode::ConnectFailed, message));
            }
            let found = self.usable(current).await.map_err(|error| away(&error))?;
            usable = found.ok_or_else(|| ended(&connection))?;
        }
    }

    /// Refreshes, if nobody else began meanwhile, which is `None`.
    async fn refresh_once(
        &self,
        usable: &Usable,
        grant: &OAuthGrant,
        must_wait: bool,
    ) -> Result<Option<Usable>, StepError> {
        let connection = &usable.connection;
        let mut by = [0; 16];
        if getrandom::fill(&mut by).is_err() {
            return Err(StepError::retryable(ErrorCode::Internal, "the system's random number generator failed"));
        }
        let until = self.clock.now() + GIVEN_UP_AFTER;
        let refreshing = Some(Refreshing { by: format!("{:032x}", u128::from_be_bytes(by)), until });
        let mine = Connection { oauth: Some(OAuthGrant { refreshing, ..grant.clone() }), ..(**connection).clone() };
        let taken = self.store.connections().replace(connection, &mine).await;
        if !taken.map_err(|error| away(&error.into()))? {
            return Ok(None);
        }
        // To its end even where nobody waits for it any more: the vendor may have taken the old refresh token out of use.
        let (connections, grant, data_key) = (self.clone(), grant.clone(), Arc::clone(&usable.data_key));
        let mine = Usable { connection: Arc::new(mine), data_key };
        let refreshed = tokio::spawn(async move { connections.refreshed(mine, grant).await }).await;
        match refreshed {
            Ok(Ok(fresh)) => Ok(Some(fresh)),
            // The token that there is still good.
            Ok(Err(error)) if error.retryable && !must_wait => Ok(Some(usable.clone())),
            Ok(Err(error)) => Err(error),
            Err(panicked) => Err(StepError::retryable(ErrorCode::Internal, format!("a refresh failed: {panicked}"))),
        }
    }

    async fn refreshed(&self, mine: Usable, grant: OAuthGrant) -> Result<Usable, StepError> {
        let connection = &mine.connection;
        let installations;
        let client = match &grant.provider {
            Some(provider) => {
                let found = self.client(provider).await.map_err(|error| away(&error))?;
                let Some(found) = found else {
                    let reason =
                        format!("the installation has no OAuth client at {provider} any more; ask its operator");
                    return Err(self.break_off(&mine, &grant, &reason, true).await);
                };
                installations = found;
                TokenClient::Installation(&installations)
            }
            None => TokenClient::Connection,
        };
        let tokens = self.egress.refresh(&grant, client, mine.credential(), REFRESH_TIMEOUT).await;
        match tokens {
            Ok(granted) => {
                let now = self.clock.now();
                let renewed = |stored: &Connection| Connection {
                    sealed: granted.sealed.clone(),
                    data_key: mine.connection.data_key,
                    oauth: Some(grant_of(&grant, &granted, now)),
                    health: match stored.health.status {
                        HealthStatus::Broken => {
                            Health { status: HealthStatus::Ok, reason: None, since: Some(now), ..stored.health.clone() }
                        }
                        HealthStatus::Ok | HealthStatus::Untested => stored.health.clone(),
                    },
                    ..stored.clone()
                };
                let stored = self.change(connection, renewed).await.map_err(|error| away(&error))?;
                Ok(Usable { connection: Arc::new(stored), data_key: mine.data_key })
            }
            Err(error) if error.is_retryable() => {
                self.let_go(connection, &grant).await;
                let message = format!("the connection's access token can't be refreshed now: {error}");
                Err(StepError::retryable(ErrorCode::ConnectFailed, message))
            }
            Err(error) => {
                // Somebody may mend the client; a refused grant stays refused.
                let may_heal = matches!(error, TokenError::Client(_) | TokenError::Egress(_));
                let what = if may_heal { "look at the OAuth client" } else { "sign in anew" };
                let reason = format!("its access token can't be refreshed: {error}; {what}");
                Err(self.break_off(&mine, &grant, &reason, may_heal).await)
            }
        }
    }

    /// Marks a connection as broken, with the reason.
    async fn break_off(&self, mine: &Usable, grant: &OAuthGrant, reason: &str, may_heal: bool) -> StepError {
        let now = self.clock.now();
        let broken = |stored: &Connection| Connection {
            oauth: Some(OAuthGrant { refreshing: None, refreshable: may_heal, ..grant.clone() }),
            health: Health {
                status: HealthStatus::Broken,
                reason: Some(reason.to_owned()),
                since: Some(now),
                account: stored.health.account.clone(),
            },
            ..stored.clone()
        };
        let id = mine.connection.id;
        tracing::warn!(component = "connections", connection_id = %id, reason, "a connection is broken");
        match self.change(&mine.connection, broken).await {
            Ok(_) => {
                StepError::terminal(ErrorCode::ConnectionUnusable, format!("the connection {id} is broken: {reason}"))
            }
            Err(error) => away(&error),
        }
    }

    /// Lets others try.
    async fn let_go(&self, mine: &Connection, grant: &OAuthGrant) {
        let released = |stored: &Connection| Connection {
            oauth: Some(OAuthGrant { refreshing: None, ..grant.clone() }),
            ..stored.clone()
        };
        if let Err(error) = self.change(mine, released).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                component = "connections",
                error,
                "a refresh that failed can't be noted; it counts as given up soon"
            );
        }
    }

    /// The installation's client at a provider; at most 5 s old.
    async fn client(&self, provider: &str) -> Result<Option<Arc<OAuthClient>>, Error> {
        let read = || async { Ok(self.store.oauth().client(provider).await?.map(Arc::new)) };
        self.caches.clients.get(provider.to_owned(), read).await.map_err(Error::Cached)
    }
}

fn is_due(grant: &OAuthGrant, now: Timestamp) -> bool {
    let Some(end) = grant.expires_at else { return false };
    let lifetime = grant.lifetime_seconds.map_or(BEFORE_END * 5, |seconds| Duration::from_secs(seconds.into()));
    now >= end - BEFORE_END.min(lifetime / 5)
}

fn ended(connection: &Connection) -> StepError {
    let reason = connection
        .health
        .reason
        .as_deref()
        .unwrap_or("its access token is over and there is no refresh token; sign in anew");
    let message = format!("the connection {} is broken: {reason}", connection.id);
    StepError::terminal(ErrorCode::ConnectionUnusable, message)
}

fn away(error: &Error) -> StepError {
    tracing::warn!(
        component = "connections",
        error = error as &dyn std::error::Error,
        "the store failed while a token was refreshed"
    );
    StepError::retryable(ErrorCode::Internal, "the connection can't be read or written now")
}
