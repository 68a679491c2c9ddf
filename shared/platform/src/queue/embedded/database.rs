//! The queue's file: its tables, the statements over them, and the counts per group that mirror them.
//!
//! Every method but the constructors runs between [`Database::begin`] and [`Database::commit`]. After an error the
//! writer rolls back, and the counts are read again from the file.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use jiff::{SignedDuration, Timestamp};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use tidegate_model::{Every, Recurrence, TenantId};

use super::groups::Groups;
use super::{Depth, EmbeddedSettings, Group, OutgoingMessage, Receipt, ReceivedMessage, group_of};
use crate::Clock;
use crate::scheduler::{SCHEDULED_TIME, Timer, TimerPage, When, ceil_to_second, full_name};

const VERSION: i64 = 2;

/// `due` keeps its width through a message's life and the body comes last, so that an update rewrites no body pages.
/// A waiting message with receives is in flight, without any it is delayed. A timer is `due` at the time that it was
/// `planned` for, or by its jitter later; one without `recurrence` fires once.
const SCHEMA: &str = "
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY,
        lane INTEGER NOT NULL,
        waiting INTEGER NOT NULL,
        receive_count INTEGER NOT NULL,
        due INTEGER NOT NULL,
        tenant BLOB NOT NULL,
        body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX visible_messages ON messages (lane, tenant, id) WHERE waiting = 0;
    CREATE INDEX waiting_messages ON messages (due) WHERE waiting = 1;
    CREATE TABLE timers (
        tenant BLOB NOT NULL,
        name TEXT NOT NULL,
        planned INTEGER NOT NULL,
        due INTEGER NOT NULL,
        recurrence TEXT,
        body TEXT NOT NULL,
        PRIMARY KEY (tenant, name)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX due_timers ON timers (due);
    PRAGMA user_version = 2;
";

/// Version 1 knew intervals only, in milliseconds.
const TO_VERSION_2: &str = "
    ALTER TABLE timers ADD COLUMN planned INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE timers ADD COLUMN recurrence TEXT;
    UPDATE timers SET planned = due;
";
const TO_VERSION_2_AT_LAST: &str = "
    ALTER TABLE timers DROP COLUMN interval;
    PRAGMA user_version = 2;
";

/// How long to wait for a process that is just closing the file.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// How long the log grows before it is moved into the file, in pages (SQLite's own default).
const CHECKPOINT_PAGES: i32 = 1000;
/// How many messages or timers that came due one transaction takes on; more follow in the next.
const SWEEP_LIMIT: i64 = 1000;
/// How many timers a page lists.
const PAGE: usize = 100;
/// When a timer is looked at again that can't be read.
const UNREADABLE: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum EmbeddedError {
    #[error("the file can't be opened or made")]
    File(#[source] Arc<std::io::Error>),
    #[error("SQLite failed")]
    Sqlite(#[source] Arc<rusqlite::Error>),
    /// After a failed fsync the kernel may have dropped what was written before it, and says so only once.
    #[error("the disk failed, so the queue's file is left alone; check the disk, then restart")]
    Disk(#[source] Arc<rusqlite::Error>),
    #[error("the file is of version {0}, this program reads up to {VERSION}: it was made by a newer one")]
    NewerVersion(i64),
    #[error("a timer can't be written")]
    Timer(#[source] Arc<serde_json::Error>),
    #[error("the counts disagree with the file")]
    Inconsistent,
    #[error("the queue's writer has stopped")]
    Stopped,
}

impl From<rusqlite::Error> for EmbeddedError {
    fn from(error: rusqlite::Error) -> Self {
        if is_disk_failure(&error) { Self::Disk(Arc::new(error)) } else { Self::Sqlite(Arc::new(error)) }
    }
}

/// The queue proper, or the dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Main = 0,
    Dead = 1,
}

impl Lane {
    fn from_column(value: i64) -> Self {
        if value == Self::Main as i64 { Self::Main } else { Self::Dead }
    }
}

/// What a receipt names: the message and which of its receives. Ids change when a message changes lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReceiptKey {
    id: i64,
    receive_count: u32,
}

impl ReceiptKey {
    pub(super) fn parse(receipt: &Receipt) -> Option<Self> {
        let (id, receive_count) = receipt.0.split_once('-')?;
        Some(Self { id: id.parse().ok()?, receive_count: receive_count.parse().ok()? })
    }

    fn text(self) -> Receipt {
        Receipt(format!("{}-{}", self.id, self.receive_count))
    }
}

/// When the writer next has something to do by itself, in milliseconds since 1970. May be too early, never too late.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NextDue {
    pub(super) message: Option<i64>,
    pub(super) timer: Option<i64>,
}

pub(super) struct Database {
    connection: Connection,
    settings: EmbeddedSettings,
    next_id: i64,
    lanes: [Groups; 2],
    delayed: [u64; 2],
    next_due: NextDue,
    full_sync: bool,
    #[cfg(test)]
    failing: Option<Failing>,
}

/// A disk that fails; that can't be had otherwise in a test.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failing {
    /// The fsync of a commit, once.
    NextCommit,
    /// Every attempt to get rid of a failed transaction.
    RollBack,
}

impl Database {
    pub(super) fn open(path: &Path, settings: EmbeddedSettings, clock: &Clock) -> Result<Self, EmbeddedError> {
        // Messages hold what webhooks brought. SQLite gives its log the database's mode.
        File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| EmbeddedError::File(Arc::new(error)))?;
        let connection = Connection::open(path)?;
        connection.busy_timeout(LOCK_PATIENCE)?;
        // Without a second process there is no need for shared memory and a lock per transaction.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        // In place of SQLite's own, which keeps a failed fsync to itself.
        connection.wal_hook(Some(|log, pages| {
            if pages < CHECKPOINT_PAGES {
                return Ok(());
            }
            // Any other failure leaves the log as it is, for the next commit to try again.
            log.checkpoint().or_else(|error| if is_disk_failure(&error) { Err(error) } else { Ok(()) })
        }));
        Self::over(connection, settings, clock)
    }

    pub(super) fn in_memory(settings: EmbeddedSettings, clock: &Clock) -> Result<Self, EmbeddedError> {
        Self::over(Connection::open_in_memory()?, settings, clock)
    }

    fn over(connection: Connection, settings: EmbeddedSettings, clock: &Clock) -> Result<Self, EmbeddedError> {
        connection.set_prepared_statement_cache_capacity(64);
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "cache_size", -8192)?;
        connection.pragma_update_and_check(None, "journal_size_limit", 64 * 1024 * 1024, |_| Ok(()))?;
        let mut database = Self {
            connection,
            settings,
            next_id: 1,
            lanes: Default::default(),
            delayed: [0; 2],
            next_due: NextDue::default(),
            full_sync: true,
            #[cfg(test)]
            failing: None,
        };
        database.begin(true)?;
        match database.connection.pragma_query_value(None, "user_version", |row| row.get(0))? {
            0 => database.connection.execute_batch(SCHEMA)?,
            1 => database.migrate_timers()?,
            VERSION => {}
            newer => return Err(EmbeddedError::NewerVersion(newer)),
        }
        database.reload()?;
        database.hand_back_all(clock.now().as_millisecond())?;
        database.commit()?;
        Ok(database)
    }

    fn migrate_timers(&self) -> Result<(), EmbeddedError> {
        self.connection.execute_batch(TO_VERSION_2)?;
        let recurring = self
            .connection
            .prepare("SELECT tenant, name, due, interval FROM timers WHERE interval IS NOT NULL")?
            .query_map([], |row| {
                let key = (row.get::<_, Group>(0)?, row.get::<_, String>(1)?);
                Ok((key, row.get::<_, i64>(2)?, row.get::<_, i64>(3)?))
            })?
            .collect::<Result<Vec<_>, _>>()?;
        for ((group, name), due, interval) in recurring {
            let minutes = u32::try_from(interval / 60_000).ok().and_then(Every::from_minutes);
            let (Some(interval), Ok(first)) = (minutes, Timestamp::from_millisecond(due)) else { continue };
            self.connection
                .prepare_cached("UPDATE timers SET recurrence = ?3 WHERE tenant = ?1 AND name = ?2")?
                .execute(params![group, name, to_json(&Recurrence::every(interval, first))?])?;
        }
        Ok(self.connection.execute_batch(TO_VERSION_2_AT_LAST)?)
    }

    /// Stands in for a disk that is full.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: u32) -> Result<(), EmbeddedError> {
        self.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn fail(&mut self, failing: Failing) {
        self.failing = Some(failing);
    }

    /// Begins a transaction. Only a `durable` one is fsynced when it commits.
    pub(super) fn begin(&mut self, durable: bool) -> Result<(), EmbeddedError> {
        if self.full_sync != durable {
            self.connection.execute_batch(if durable {
                "PRAGMA synchronous = FULL"
            } else {
                "PRAGMA synchronous = NORMAL"
            })?;
            self.full_sync = durable;
        }
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(())
    }

    pub(super) fn commit(&mut self) -> Result<(), EmbeddedError> {
        #[cfg(test)]
        if self.failing == Some(Failing::NextCommit) {
            self.failing = None;
            return Err(failure(rusqlite::ffi::SQLITE_IOERR_FSYNC));
        }
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    /// Undoes the transaction, if one is open, and reads the counts again.
    pub(super) fn roll_back(&mut self) -> Result<(), EmbeddedError> {
        #[cfg(test)]
        if self.failing == Some(Failing::RollBack) {
            return Err(failure(rusqlite::ffi::SQLITE_NOMEM));
        }
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        self.reload()
    }

    /// Closes the file and leaves the log as it is: to move it into the file could only spread the damage.
    pub(super) fn abandon(self) {
        if let Err(error) = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true) {
            tracing::error!(error = &error as &dyn std::error::Error, "the queue's log may be moved into its file");
        }
    }

    pub(super) fn next_due(&self) -> NextDue {
        self.next_due
    }

    pub(super) fn has_visible(&self, lane: Lane) -> bool {
        self.lanes[lane as usize].visible() > 0
    }

    pub(super) fn depth(&self) -> Depth {
        let [main, dead] = &self.lanes;
        Depth {
            visible: main.visible(),
            in_flight: main.in_flight(),
            delayed: self.delayed[Lane::Main as usize],
            dead: dead.visible() + dead.in_flight() + self.delayed[Lane::Dead as usize],
        }
    }

    pub(super) fn send(&mut self, lane: Lane, message: &OutgoingMessage, now: i64) -> Result<(), EmbeddedError> {
        self.insert(lane, group_of(message.group), &message.body, after(now, message.delay), now)
    }

    pub(super) fn receive(&mut self, lane: Lane, max: usize, now: i64) -> Result<Vec<ReceivedMessage>, EmbeddedError> {
        let mut received = Vec::new();
        let due = after(now, self.settings.visibility_timeout);
        while received.len() < max
            && let Some((group, alone)) = self.lanes[lane as usize].next()
        {
            let before = received.len();
            let limit = if alone { max - before } else { 1 };
            let mut select = self.connection.prepare_cached(
                "SELECT id, receive_count, body FROM messages
                 WHERE lane = ?1 AND tenant = ?2 AND waiting = 0 ORDER BY id LIMIT ?3",
            )?;
            let mut update = self.connection.prepare_cached(
                "UPDATE messages SET waiting = 1, receive_count = receive_count + 1, due = ?2 WHERE id = ?1",
            )?;
            let found = select
                .query_map(params![lane as i64, group, limit as i64], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, u32>(1)?, row.get::<_, String>(2)?))
                })?
                .collect::<Result<Vec<_>, _>>()?;
            for (id, earlier_receives, body) in found {
                update.execute(params![id, due])?;
                self.lanes[lane as usize].taken(group);
                let receive_count = earlier_receives + 1;
                received.push(ReceivedMessage {
                    body,
                    receive_count,
                    receipt: ReceiptKey { id, receive_count }.text(),
                });
            }
            if received.len() == before {
                return Err(EmbeddedError::Inconsistent);
            }
        }
        if !received.is_empty() {
            self.expect_message(due);
        }
        Ok(received)
    }

    pub(super) fn delete(&mut self, lane: Lane, key: ReceiptKey) -> Result<(), EmbeddedError> {
        let deleted = self
            .connection
            .prepare_cached(
                "DELETE FROM messages WHERE id = ?1 AND lane = ?2 AND receive_count = ?3 RETURNING tenant, waiting",
            )?
            .query_row(params![key.id, lane as i64, key.receive_count], |row| {
                Ok((row.get::<_, Group>(0)?, row.get::<_, bool>(1)?))
            })
            .optional()?;
        match deleted {
            Some((group, true)) => self.lanes[lane as usize].finished(group),
            Some((group, false)) => self.lanes[lane as usize].removed(group),
            None => {}
        }
        Ok(())
    }

    pub(super) fn change_visibility(
        &mut self,
        lane: Lane,
        key: ReceiptKey,
        visible_in: Duration,
        now: i64,
    ) -> Result<(), EmbeddedError> {
        let Some(group) = self.group_in_flight(lane, key)? else { return Ok(()) };
        if visible_in.is_zero() {
            return self.hand_back(lane, key, group, now);
        }
        let due = after(now, visible_in);
        self.connection.prepare_cached("UPDATE messages SET due = ?2 WHERE id = ?1")?.execute(params![key.id, due])?;
        self.expect_message(due);
        Ok(())
    }

    /// Takes back a receive whose answer nobody took: it doesn't count.
    pub(super) fn undo_receive(&mut self, lane: Lane, key: ReceiptKey) -> Result<(), EmbeddedError> {
        let Some(group) = self.group_in_flight(lane, key)? else { return Ok(()) };
        self.connection
            .prepare_cached("UPDATE messages SET waiting = 0, receive_count = receive_count - 1 WHERE id = ?1")?
            .execute([key.id])?;
        self.lanes[lane as usize].returned(group);
        Ok(())
    }

    /// Moves visible dead letters back to the queue.
    pub(super) fn redrive(&mut self, max: usize) -> Result<usize, EmbeddedError> {
        let limit = i64::try_from(max).unwrap_or(i64::MAX);
        let dead = self
            .connection
            .prepare_cached("SELECT id, tenant FROM messages WHERE lane = 1 AND waiting = 0 LIMIT ?1")?
            .query_map([limit], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Group>(1)?)))?
            .collect::<Result<Vec<_>, _>>()?;
        for &(id, group) in &dead {
            self.move_to(Lane::Main, id)?;
            self.lanes[Lane::Dead as usize].removed(group);
            self.lanes[Lane::Main as usize].arrived(group, 1);
        }
        Ok(dead.len())
    }

    pub(super) fn put_timer(&mut self, timer: &Timer, now: Timestamp) -> Result<(), EmbeddedError> {
        let group = group_of(timer.tenant);
        let (recurrence, firing) = match &timer.when {
            When::At(at) => {
                let at = ceil_to_second(*at).saturating_mul(1000);
                (None, Firing { planned: at, due: at })
            }
            When::Recurring(recurrence) => {
                let pending = self.pending_firing(group, &timer.name, recurrence, now)?;
                let Some(planned) = pending.or_else(|| recurrence.next_after(now)) else {
                    return self.delete_timer(timer.tenant, &timer.name);
                };
                (Some(to_json(recurrence)?), Firing::of(group, &timer.name, recurrence, planned))
            }
        };
        let Firing { planned, due } = firing;
        self.connection
            .prepare_cached(
                "REPLACE INTO timers (tenant, name, planned, due, recurrence, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![group, timer.name, planned, due, recurrence, timer.body])?;
        self.next_due.timer = Some(self.next_due.timer.map_or(due, |next| next.min(due)));
        Ok(())
    }

    /// The firing that a timer of this name puts off at the moment, if it is one of this recurrence too.
    fn pending_firing(
        &self,
        group: Group,
        name: &str,
        recurrence: &Recurrence,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, EmbeddedError> {
        let Some(latest) = recurrence.latest_at(now) else { return Ok(None) };
        let stored: Option<i64> = self
            .connection
            .prepare_cached("SELECT planned FROM timers WHERE tenant = ?1 AND name = ?2")?
            .query_row(params![group, name], |row| row.get(0))
            .optional()?;
        Ok(stored.filter(|planned| *planned == latest.as_millisecond()).map(|_| latest))
    }

    pub(super) fn delete_timer(&mut self, tenant: TenantId, name: &str) -> Result<(), EmbeddedError> {
        self.connection
            .prepare_cached("DELETE FROM timers WHERE tenant = ?1 AND name = ?2")?
            .execute(params![group_of(tenant), name])?;
        Ok(())
    }

    pub(super) fn list_timers(&self, after: Option<&(TenantId, String)>) -> Result<TimerPage, EmbeddedError> {
        let (group, name) = after.map_or((Group::default(), ""), |(tenant, name)| (group_of(*tenant), name.as_str()));
        let timers = self
            .connection
            .prepare_cached(
                "SELECT tenant, name FROM timers WHERE (tenant, name) > (?1, ?2) ORDER BY tenant, name LIMIT ?3",
            )?
            .query_map(params![group, name, PAGE as i64], |row| {
                Ok((TenantId::from_bytes(row.get::<_, Group>(0)?), row.get::<_, String>(1)?))
            })?
            .collect::<Result<Vec<_>, _>>()?;
        let last = timers.last().filter(|_| timers.len() == PAGE);
        let next_cursor = last.map(|(tenant, name)| full_name(*tenant, name));
        Ok(TimerPage { timers, next_cursor })
    }

    /// Makes visible what has come due, and fires timers.
    pub(super) fn sweep(&mut self, now: i64) -> Result<(), EmbeddedError> {
        if self.next_due.message.is_some_and(|due| due <= now) {
            self.sweep_messages(now)?;
        }
        if self.next_due.timer.is_some_and(|due| due <= now) {
            self.fire_timers(now)?;
        }
        Ok(())
    }

    fn sweep_messages(&mut self, now: i64) -> Result<(), EmbeddedError> {
        let due = self
            .connection
            .prepare_cached(
                "SELECT id, lane, tenant, receive_count FROM messages WHERE waiting = 1 AND due <= ?1
                 ORDER BY due LIMIT ?2",
            )?
            .query_map([now, SWEEP_LIMIT], |row| {
                let key = ReceiptKey { id: row.get(0)?, receive_count: row.get(3)? };
                Ok((key, Lane::from_column(row.get(1)?), row.get::<_, Group>(2)?))
            })?
            .collect::<Result<Vec<_>, _>>()?;
        for (key, lane, group) in due {
            if key.receive_count > 0 {
                self.hand_back(lane, key, group, now)?;
            } else {
                self.set_visible(key.id, now)?;
                self.delayed[lane as usize] -= 1;
                self.lanes[lane as usize].arrived(group, 1);
            }
        }
        self.next_due.message = self
            .connection
            .prepare_cached("SELECT min(due) FROM messages WHERE waiting = 1")?
            .query_row([], |row| row.get(0))?;
        Ok(())
    }

    fn fire_timers(&mut self, now: i64) -> Result<(), EmbeddedError> {
        let due = self
            .connection
            .prepare_cached(
                "SELECT tenant, name, planned, recurrence, body FROM timers WHERE due <= ?1 ORDER BY due LIMIT ?2",
            )?
            .query_map([now, SWEEP_LIMIT], |row| {
                Ok(DueTimer {
                    group: row.get(0)?,
                    name: row.get(1)?,
                    planned: row.get(2)?,
                    recurrence: row.get(3)?,
                    body: row.get(4)?,
                })
            })?
            .collect::<Result<Vec<_>, _>>()?;
        for timer in due {
            let Some((planned, next)) = self.advance(&timer, now)? else { continue };
            match next {
                Some(next) => self
                    .connection
                    .prepare_cached("UPDATE timers SET planned = ?3, due = ?4 WHERE tenant = ?1 AND name = ?2")?
                    .execute(params![timer.group, timer.name, next.planned, next.due])?,
                None => self
                    .connection
                    .prepare_cached("DELETE FROM timers WHERE tenant = ?1 AND name = ?2")?
                    .execute(params![timer.group, timer.name])?,
            };
            let body = timer.body.replace(SCHEDULED_TIME, &format!("{planned:.0}"));
            self.insert(Lane::Main, timer.group, &body, now, now)?;
        }
        self.next_due.timer =
            self.connection.prepare_cached("SELECT min(due) FROM timers")?.query_row([], |row| row.get(0))?;
        Ok(())
    }

    /// For which time a timer that is due fires: the latest that is due, if others were missed. With it the firing after
    /// that, if there is one. `None` for a timer that can't be read.
    fn advance(&self, timer: &DueTimer, now: i64) -> Result<Option<(Timestamp, Option<Firing>)>, EmbeddedError> {
        let stored = Timestamp::from_millisecond(timer.planned).unwrap_or(Timestamp::MAX);
        let Some(text) = &timer.recurrence else { return Ok(Some((stored, None))) };
        let recurrence: Recurrence = match serde_json::from_str(text) {
            Ok(recurrence) => recurrence,
            Err(error) => {
                // As when a zone is in no database any more. Only its own firings are to suffer from it.
                tracing::error!(error = &error as &dyn std::error::Error, key = timer.name, "a timer can't be read");
                self.connection
                    .prepare_cached("UPDATE timers SET due = ?3 WHERE tenant = ?1 AND name = ?2")?
                    .execute(params![timer.group, timer.name, after(now, UNREADABLE)])?;
                return Ok(None);
            }
        };
        let firing = |planned| Firing::of(timer.group, &timer.name, &recurrence, planned);
        let before =
            |planned: &Timestamp| recurrence.latest_at(planned.checked_sub(SignedDuration::from_nanos(1)).ok()?);
        let now = Timestamp::from_millisecond(now).unwrap_or(Timestamp::MAX);
        let planned = std::iter::successors(recurrence.latest_at(now), before)
            .take_while(|planned| *planned > stored)
            .find(|planned| firing(*planned).due <= now.as_millisecond())
            .unwrap_or(stored);
        Ok(Some((planned, recurrence.next_after(planned).map(firing))))
    }

    fn insert(&mut self, lane: Lane, group: Group, body: &str, due: i64, now: i64) -> Result<(), EmbeddedError> {
        let waiting = due > now;
        let id = self.take_id();
        self.connection
            .prepare_cached(
                "INSERT INTO messages (id, lane, waiting, receive_count, due, tenant, body)
                 VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6)",
            )?
            .execute(params![id, lane as i64, waiting, due, group, body])?;
        if waiting {
            self.delayed[lane as usize] += 1;
            self.expect_message(due);
        } else {
            self.lanes[lane as usize].arrived(group, 1);
        }
        Ok(())
    }

    /// Makes a message in flight visible again, or a dead letter when its receives are spent.
    fn hand_back(&mut self, lane: Lane, key: ReceiptKey, group: Group, now: i64) -> Result<(), EmbeddedError> {
        if lane == Lane::Main && key.receive_count >= self.settings.max_receive_count {
            self.move_to(Lane::Dead, key.id)?;
            self.lanes[Lane::Main as usize].finished(group);
            self.lanes[Lane::Dead as usize].arrived(group, 1);
        } else {
            self.set_visible(key.id, now)?;
            self.lanes[lane as usize].returned(group);
        }
        Ok(())
    }

    fn hand_back_all(&mut self, now: i64) -> Result<(), EmbeddedError> {
        let in_flight = self
            .connection
            .prepare("SELECT id, lane, tenant, receive_count FROM messages WHERE waiting = 1 AND receive_count > 0")?
            .query_map([], |row| {
                let key = ReceiptKey { id: row.get(0)?, receive_count: row.get(3)? };
                Ok((key, Lane::from_column(row.get(1)?), row.get::<_, Group>(2)?))
            })?
            .collect::<Result<Vec<_>, _>>()?;
        for (key, lane, group) in in_flight {
            self.hand_back(lane, key, group, now)?;
        }
        Ok(())
    }

    fn set_visible(&self, id: i64, now: i64) -> Result<(), EmbeddedError> {
        self.connection
            .prepare_cached("UPDATE messages SET waiting = 0, due = ?2 WHERE id = ?1")?
            .execute([id, now])?;
        Ok(())
    }

    /// Puts a message into the other lane, under a new id: no earlier receipt of it counts there, or counts again if it
    /// comes back.
    fn move_to(&mut self, lane: Lane, id: i64) -> Result<(), EmbeddedError> {
        let new_id = self.take_id();
        self.connection
            .prepare_cached("UPDATE messages SET id = ?2, lane = ?3, waiting = 0, receive_count = 0 WHERE id = ?1")?
            .execute([id, new_id, lane as i64])?;
        Ok(())
    }

    fn group_in_flight(&self, lane: Lane, key: ReceiptKey) -> Result<Option<Group>, EmbeddedError> {
        let group = self
            .connection
            .prepare_cached(
                "SELECT tenant FROM messages WHERE id = ?1 AND lane = ?2 AND receive_count = ?3 AND waiting = 1",
            )?
            .query_row(params![key.id, lane as i64, key.receive_count], |row| row.get(0))
            .optional()?;
        Ok(group)
    }

    fn take_id(&mut self) -> i64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn expect_message(&mut self, due: i64) {
        self.next_due.message = Some(self.next_due.message.map_or(due, |next| next.min(due)));
    }

    fn reload(&mut self) -> Result<(), EmbeddedError> {
        self.lanes = Default::default();
        self.delayed = [0; 2];
        // Ids are never used again while a receipt of them may be about, hence the maximum with what was given out.
        let last: Option<i64> = self.connection.query_row("SELECT max(id) FROM messages", [], |row| row.get(0))?;
        self.next_id = self.next_id.max(last.unwrap_or(0) + 1);
        let mut counts = self
            .connection
            .prepare("SELECT lane, waiting, receive_count > 0, tenant, count(*) FROM messages GROUP BY 1, 2, 3, 4")?;
        let mut rows = counts.query([])?;
        while let Some(row) = rows.next()? {
            let (lane, group) = (Lane::from_column(row.get(0)?) as usize, row.get(3)?);
            let count = u64::try_from(row.get::<_, i64>(4)?).unwrap_or(0);
            match (row.get(1)?, row.get(2)?) {
                (false, _) => self.lanes[lane].arrived(group, count),
                (true, true) => self.lanes[lane].found_in_flight(group, count),
                (true, false) => self.delayed[lane] += count,
            }
        }
        self.next_due = NextDue {
            message: self.connection.query_row("SELECT min(due) FROM messages WHERE waiting = 1", [], |r| r.get(0))?,
            timer: self.connection.query_row("SELECT min(due) FROM timers", [], |row| row.get(0))?,
        };
        Ok(())
    }
}

struct DueTimer {
    group: Group,
    name: String,
    planned: i64,
    recurrence: Option<String>,
    body: String,
}

/// A firing to come, in milliseconds since 1970.
struct Firing {
    planned: i64,
    due: i64,
}

impl Firing {
    /// The firing of a timer for a time. Jitter puts it off by what follows from the timer and the time.
    fn of(group: Group, name: &str, recurrence: &Recurrence, planned: Timestamp) -> Self {
        let planned = planned.as_millisecond();
        let Some(jitter) = recurrence.jitter else { return Self { planned, due: planned } };
        let mut hash = digest::Context::new(&digest::SHA256);
        for part in [&group[..], name.as_bytes(), &planned.to_be_bytes()] {
            hash.update(part);
        }
        let random = hash.finish().as_ref().iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        let window = u64::from(jitter.minutes()) * 60;
        Self { planned, due: planned + i64::try_from(random % window).unwrap_or(0) * 1000 }
    }
}

fn to_json(recurrence: &Recurrence) -> Result<String, EmbeddedError> {
    serde_json::to_string(recurrence).map_err(|error| EmbeddedError::Timer(Arc::new(error)))
}

/// Whether the system failed to read, write or sync the file: not a full disk, which may have room again.
fn is_disk_failure(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
}

#[cfg(test)]
fn failure(extended_code: i32) -> EmbeddedError {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(extended_code), None).into()
}

fn after(now: i64, delay: Duration) -> i64 {
    now.saturating_add(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX))
}
