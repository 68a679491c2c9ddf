//! The embedded queue: one SQLite file, one writer thread that owns it, group commit.
//!
//! Bodies and index stay in SQLite; memory holds a few numbers per group that has visible or in-flight messages, and
//! nothing per message. A send is acknowledged after an fsync that it shares with whatever else waited. Receives and
//! deletions alone are written without one: a power cut then makes a message come again, which at-least-once allows.

mod database;
mod groups;
pub(crate) mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tidegate_model::TenantId;

use self::database::{Database, Lane, ReceiptKey};
use self::writer::{Command, Writer};
use super::{MAX_RECEIVED, MAX_WAIT, OutgoingMessage, Queue, Receipt, ReceivedMessage, check_body, check_visibility};
use crate::scheduler::EmbeddedScheduler;
use crate::{Clock, PortError};

/// What may be set on an embedded queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddedSettings {
    /// How long a received message stays invisible.
    pub visibility_timeout: Duration,
    /// After so many receives a message becomes a dead letter; at least 1.
    pub max_receive_count: u32,
}

/// How many messages lie where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Those that a receive would find.
    pub visible: u64,
    /// Received and not yet deleted, their visibility timeout not over.
    pub in_flight: u64,
    /// Sent with a delay that isn't over.
    pub delayed: u64,
    /// In the dead-letter queue.
    pub dead: u64,
}

/// A queue in a file of its own (or in memory), for one process. Cloning it is cheap; the file is closed with the last
/// clone.
#[derive(Clone)]
pub struct EmbeddedQueue {
    writer: Arc<Writer>,
    lane: Lane,
    dead_letters: Option<Box<EmbeddedQueue>>,
}

impl EmbeddedQueue {
    /// Opens the file, or makes it. Messages that were in flight when it was last closed are visible at once: whoever
    /// had received them is gone. Blocks for the few milliseconds that opening takes.
    ///
    /// # Errors
    /// The file can't be opened or made, isn't such a file, is of a newer version, or another process has it open.
    pub fn open(path: &Path, settings: EmbeddedSettings, clock: Clock) -> Result<Self, PortError> {
        let database = Database::open(path, settings, &clock)
            .map_err(|error| PortError::new(format!("open the queue {}", path.display()), error))?;
        Self::over(database, clock)
    }

    /// A queue that is gone with its last clone.
    ///
    /// # Errors
    /// The system gives no thread or no memory.
    pub fn in_memory(settings: EmbeddedSettings, clock: Clock) -> Result<Self, PortError> {
        let database =
            Database::in_memory(settings, &clock).map_err(|error| PortError::new("open the queue in memory", error))?;
        Self::over(database, clock)
    }

    /// The timers in the same file, which send to this queue.
    pub fn scheduler(&self) -> EmbeddedScheduler {
        EmbeddedScheduler::new(Arc::clone(&self.writer))
    }

    /// Counts the messages; for health and metrics.
    pub async fn depth(&self) -> Result<Depth, PortError> {
        self.writer.call("count the queue's messages", |reply| Command::Depth { reply }).await
    }

    fn over(database: Database, clock: Clock) -> Result<Self, PortError> {
        let writer = Writer::start(database, clock)
            .map(Arc::new)
            .map_err(|error| PortError::new("start the queue's writer", error))?;
        let dead = Self { writer: Arc::clone(&writer), lane: Lane::Dead, dead_letters: None };
        Ok(Self { writer, lane: Lane::Main, dead_letters: Some(Box::new(dead)) })
    }
}

#[async_trait]
impl Queue for EmbeddedQueue {
    async fn send(&self, message: OutgoingMessage) -> Result<(), PortError> {
        check_body(&message.body)?;
        let lane = self.lane;
        self.writer.call("send to the queue", |reply| Command::Send { lane, message, reply }).await
    }

    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<ReceivedMessage>, PortError> {
        let max = max.clamp(1, MAX_RECEIVED);
        self.writer.receive(self.lane, max, Instant::now() + wait.min(MAX_WAIT)).await
    }

    async fn delete(&self, receipt: &Receipt) -> Result<(), PortError> {
        let (lane, key) = (self.lane, key_of(receipt)?);
        self.writer.call("delete from the queue", |reply| Command::Delete { lane, key, reply }).await
    }

    async fn change_visibility(&self, receipt: &Receipt, visible_in: Duration) -> Result<(), PortError> {
        check_visibility(visible_in)?;
        let (lane, key) = (self.lane, key_of(receipt)?);
        let operation = "change a message's visibility";
        self.writer.call(operation, |reply| Command::ChangeVisibility { lane, key, visible_in, reply }).await
    }

    async fn redrive(&self, max: usize) -> Result<usize, PortError> {
        let operation = "redrive dead letters";
        if self.dead_letters.is_none() {
            return Err(PortError::new(operation, "this is the dead-letter queue itself"));
        }
        self.writer.call(operation, |reply| Command::Redrive { max, reply }).await
    }

    fn dead_letters(&self) -> Option<&dyn Queue> {
        self.dead_letters.as_deref().map(|queue| queue as &dyn Queue)
    }
}

impl fmt::Debug for EmbeddedQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedQueue").field("lane", &self.lane).finish_non_exhaustive()
    }
}

/// A fairness group: the bytes of the tenant's id.
pub(crate) type Group = [u8; 16];

pub(crate) fn group_of(tenant: TenantId) -> Group {
    *tenant.as_bytes()
}

fn key_of(receipt: &Receipt) -> Result<ReceiptKey, PortError> {
    ReceiptKey::parse(receipt).ok_or_else(|| PortError::new("read a receipt", "it isn't one of this queue's"))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tempfile::TempDir;
    use tidegate_model::Recurrence;

    use super::database::Failing;
    use super::*;
    use crate::scheduler::{Scheduler, Timer, When};

    const SETTINGS: EmbeddedSettings =
        EmbeddedSettings { visibility_timeout: Duration::from_secs(60), max_receive_count: 3 };

    fn message(body: &str) -> OutgoingMessage {
        OutgoingMessage::new(TenantId::new(Timestamp::UNIX_EPOCH, [1; 10]), body)
    }

    #[tokio::test]
    async fn after_a_failed_fsync_nothing_more_is_acknowledged_until_a_restart() {
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("queue.db");
        let mut database = Database::open(&path, SETTINGS, &clock).unwrap();
        database.begin(true).unwrap();
        database.send(Lane::Main, &message("kept"), 0).unwrap();
        database.commit().unwrap();
        database.fail(Failing::NextCommit);
        let queue = EmbeddedQueue::over(database, clock.clone()).unwrap();

        let failures = [
            queue.send(message("lost")).await.unwrap_err(),
            queue.send(message("later")).await.unwrap_err(),
            queue.receive(1, Duration::ZERO).await.unwrap_err(),
            queue.depth().await.unwrap_err(),
        ];
        for failure in failures {
            assert!(failure.source.to_string().contains("check the disk, then restart"), "{failure:?}");
        }
        drop(queue);

        let queue = EmbeddedQueue::open(&path, SETTINGS, clock).unwrap();
        let received = queue.receive(10, Duration::ZERO).await.unwrap();
        assert_eq!(received.iter().map(|message| &*message.body).collect::<Vec<_>>(), ["kept"]);
    }

    /// A file as version 1 left it, and what its timers do now.
    #[tokio::test]
    async fn timers_of_an_older_file_go_on() {
        const VERSION_1: &str = "
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
                due INTEGER NOT NULL,
                interval INTEGER,
                body TEXT NOT NULL,
                PRIMARY KEY (tenant, name)
            ) STRICT, WITHOUT ROWID;
            CREATE INDEX due_timers ON timers (due);
            PRAGMA user_version = 1;
            INSERT INTO timers VALUES
                (zeroblob(16), 'every', 600000, 600000, 'every <aws.scheduler.scheduled-time>'),
                (zeroblob(16), 'once', 900000, NULL, 'once <aws.scheduler.scheduled-time>');
        ";
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("queue.db");
        rusqlite::Connection::open(&path).unwrap().execute_batch(VERSION_1).unwrap();
        let clock = Clock::manual(Timestamp::from_second(25 * 60).unwrap());
        for expected in
            [vec!["once 1970-01-01T00:15:00Z", "every 1970-01-01T00:20:00Z"], vec!["every 1970-01-01T00:30:00Z"]]
        {
            let queue = EmbeddedQueue::open(&path, SETTINGS, clock.clone()).unwrap();
            let mut bodies = Vec::new();
            for message in queue.receive(10, Duration::ZERO).await.unwrap() {
                queue.delete(&message.receipt).await.unwrap();
                bodies.push(message.body);
            }
            bodies.sort_by_key(|body| body.starts_with("every"));
            assert_eq!(bodies, expected);
            clock.advance(Duration::from_secs(600));
        }
    }

    #[tokio::test]
    async fn a_timer_that_can_t_be_read_holds_up_no_other() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("queue.db");
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        {
            let scheduler = EmbeddedQueue::open(&path, SETTINGS, clock.clone()).unwrap().scheduler();
            for name in ["broken", "whole"] {
                let first = Timestamp::from_second(60).unwrap();
                let when = When::Recurring(Box::new(Recurrence::every("1m".parse().unwrap(), first)));
                let timer = Timer { tenant: TenantId::NONE, name: name.to_owned(), when, body: name.to_owned() };
                scheduler.put(timer).await.unwrap();
            }
        }
        let broken = "UPDATE timers SET recurrence = replace(recurrence, '1m', '1x') WHERE name = 'broken'";
        assert_eq!(rusqlite::Connection::open(&path).unwrap().execute(broken, []).unwrap(), 1);
        let queue = EmbeddedQueue::open(&path, SETTINGS, clock.clone()).unwrap();
        for _ in 0..2 {
            clock.advance(Duration::from_secs(60));
            let received = queue.receive(10, Duration::ZERO).await.unwrap();
            assert_eq!(received.iter().map(|message| &*message.body).collect::<Vec<_>>(), ["whole"]);
            queue.delete(&received[0].receipt).await.unwrap();
        }
        assert_eq!(queue.scheduler().list(None).await.unwrap().timers.len(), 2, "it is kept");
    }

    #[tokio::test]
    async fn a_log_that_has_grown_is_moved_into_the_file() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("queue.db");
        let queue = EmbeddedQueue::open(&path, SETTINGS, Clock::manual(Timestamp::UNIX_EPOCH)).unwrap();
        let body = "x".repeat(super::super::MAX_BODY_BYTES);
        for _ in 0..5 {
            queue.send(message(&body)).await.unwrap();
        }
        let file = std::fs::metadata(&path).unwrap().len();
        assert!(file > 3 * 1024 * 1024, "the file has {file} bytes");
    }

    #[tokio::test]
    async fn a_full_disk_fails_sends_with_the_reason_and_loses_nothing_else() {
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        let database = Database::in_memory(SETTINGS, &clock).unwrap();
        database.limit_pages(50).unwrap();
        let queue = EmbeddedQueue::over(database, clock).unwrap();
        let message = message(&"x".repeat(3000));

        let mut sent = 0;
        let error = loop {
            match queue.send(message.clone()).await {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        let chain = format!("{:?}", error.source);
        assert!(sent > 10 && chain.contains("DiskFull"), "{chain}");

        let mut received = 0;
        loop {
            let batch = queue.receive(10, Duration::ZERO).await.unwrap();
            if batch.is_empty() {
                break;
            }
            for message in batch {
                queue.delete(&message.receipt).await.unwrap();
                received += 1;
            }
        }
        assert_eq!(received, sent, "what was acknowledged, and nothing that wasn't");
        queue.send(message).await.unwrap();
        assert_eq!(queue.depth().await.unwrap(), Depth { visible: 1, ..Depth::default() });
    }
}
