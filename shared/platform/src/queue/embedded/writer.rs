//! The one thread that owns the file. It takes whatever commands wait, runs them in one transaction, commits, and only
//! then answers them all. Receives that find nothing wait here; the thread sleeps until a command comes, a message that
//! somebody waits for comes due, or a timer does. When the disk fails it ends for good, as the store's does.

use std::collections::VecDeque;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tidegate_model::TenantId;
use tokio::sync::oneshot;

use super::database::{Database, EmbeddedError, Lane, ReceiptKey};
use super::{Depth, OutgoingMessage, ReceivedMessage};
use crate::scheduler::{Timer, TimerPage};
use crate::{Clock, PortError};

/// Why the last transaction failed, as long as none has succeeded since.
type Failure = Arc<Mutex<Option<EmbeddedError>>>;

/// How many commands share a transaction at most: it bounds what one commit writes.
const BATCH: usize = 512;
/// The wall clock may be set, or stand still while the machine sleeps: what is due is looked at again after this long.
const LONGEST_SLEEP: Duration = Duration::from_secs(15);
/// How long to leave a file in peace that has just failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// A clock moved by hand wakes nobody, so while somebody waits for it, it is looked at this often.
const MANUAL_CLOCK_POLL: Duration = Duration::from_millis(2);

pub(crate) enum Command {
    Send { lane: Lane, message: OutgoingMessage, reply: Reply<()> },
    Receive(WaitingReceive),
    UndoReceive { lane: Lane, keys: Vec<ReceiptKey> },
    Delete { lane: Lane, key: ReceiptKey, reply: Reply<()> },
    ChangeVisibility { lane: Lane, key: ReceiptKey, visible_in: Duration, reply: Reply<()> },
    Redrive { max: usize, reply: Reply<usize> },
    Depth { reply: Reply<Depth> },
    PutTimer { timer: Timer, reply: Reply<()> },
    DeleteTimer { tenant: TenantId, name: String, reply: Reply<()> },
    ListTimers { after: Option<(TenantId, String)>, reply: Reply<TimerPage> },
}

impl Command {
    /// Whether its caller is told that it is on durable storage.
    fn is_durable(&self) -> bool {
        match self {
            Self::Send { .. } | Self::PutTimer { .. } | Self::DeleteTimer { .. } | Self::Redrive { .. } => true,
            Self::Receive(_)
            | Self::UndoReceive { .. }
            | Self::Delete { .. }
            | Self::ChangeVisibility { .. }
            | Self::ListTimers { .. }
            | Self::Depth { .. } => false,
        }
    }

    /// Answers the caller; one that has gone needs no answer.
    fn deliver(self) {
        match self {
            Self::Send { reply, .. }
            | Self::Delete { reply, .. }
            | Self::ChangeVisibility { reply, .. }
            | Self::PutTimer { reply, .. }
            | Self::DeleteTimer { reply, .. } => drop(reply.deliver()),
            Self::Redrive { reply, .. } => drop(reply.deliver()),
            Self::Depth { reply } => drop(reply.deliver()),
            Self::ListTimers { reply, .. } => drop(reply.deliver()),
            Self::Receive(_) | Self::UndoReceive { .. } => {}
        }
    }
}

pub(crate) struct WaitingReceive {
    lane: Lane,
    max: usize,
    until: Instant,
    reply: Reply<Vec<ReceivedMessage>>,
}

/// Where an outcome goes, and the outcome, which is held back until it is committed. Dropped before that, it makes
/// the caller look for the [`Failure`].
pub(crate) struct Reply<T> {
    to: oneshot::Sender<T>,
    outcome: Option<T>,
}

impl<T> Reply<T> {
    fn new() -> (Self, oneshot::Receiver<T>) {
        let (to, answer) = oneshot::channel();
        (Self { to, outcome: None }, answer)
    }

    fn set(&mut self, outcome: T) {
        self.outcome = Some(outcome);
    }

    /// Hands the outcome out, or back when the caller has gone.
    fn deliver(self) -> Option<T> {
        self.outcome.and_then(|outcome| self.to.send(outcome).err())
    }
}

/// The way to the thread. Dropping it lets the thread finish its work and close the file.
pub(crate) struct Writer {
    commands: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
    failure: Failure,
}

impl Writer {
    pub(super) fn start(database: Database, clock: Clock) -> std::io::Result<Self> {
        let (commands, inbox) = mpsc::channel();
        let failure = Failure::default();
        let worker = Worker {
            database,
            clock,
            inbox,
            waiting: VecDeque::new(),
            batch: Vec::with_capacity(BATCH),
            undone: Vec::new(),
            failure: Arc::clone(&failure),
            failed: false,
        };
        let thread = std::thread::Builder::new().name("tidegate-queue".to_owned()).spawn(move || worker.run())?;
        Ok(Self { commands: Some(commands), thread: Some(thread), failure })
    }

    /// Has a command done and waits for its answer.
    pub(crate) async fn call<T>(
        &self,
        operation: &'static str,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, PortError> {
        let (reply, answer) = Reply::new();
        self.post(command(reply));
        answer.await.map_err(|_| PortError::new(operation, self.reason()))
    }

    /// Takes messages. When the caller gives up waiting, those already on their way to it are visible again at once.
    pub(super) async fn receive(
        &self,
        lane: Lane,
        max: usize,
        until: Instant,
    ) -> Result<Vec<ReceivedMessage>, PortError> {
        let (reply, answer) = Reply::new();
        self.post(Command::Receive(WaitingReceive { lane, max, until, reply }));
        let mut pending = PendingReceive { writer: self, lane, answer };
        (&mut pending.answer).await.map_err(|_| PortError::new("receive from the queue", self.reason()))
    }

    /// A thread that has stopped drops the command and its reply with it, which the caller then sees.
    fn post(&self, command: Command) {
        if let Some(commands) = &self.commands {
            drop(commands.send(command));
        }
    }

    fn reason(&self) -> EmbeddedError {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or(EmbeddedError::Stopped)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the queue's writer panicked");
        }
    }
}

struct PendingReceive<'a> {
    writer: &'a Writer,
    lane: Lane,
    answer: oneshot::Receiver<Vec<ReceivedMessage>>,
}

impl Drop for PendingReceive<'_> {
    fn drop(&mut self) {
        self.answer.close();
        if let Ok(messages) = self.answer.try_recv() {
            self.writer.post(Command::UndoReceive { lane: self.lane, keys: keys_of(&messages) });
        }
    }
}

fn keys_of(messages: &[ReceivedMessage]) -> Vec<ReceiptKey> {
    messages.iter().filter_map(|message| ReceiptKey::parse(&message.receipt)).collect()
}

struct Worker {
    database: Database,
    clock: Clock,
    inbox: mpsc::Receiver<Command>,
    batch: Vec<Command>,
    /// Receives that have found nothing yet, in the order in which they came.
    waiting: VecDeque<WaitingReceive>,
    /// Messages whose receiver had gone when they were handed out.
    undone: Vec<(Lane, Vec<ReceiptKey>)>,
    failure: Failure,
    /// Whether the last transaction failed, so that the counts must be read again.
    failed: bool,
}

impl Worker {
    fn run(mut self) {
        while self.wait_for_work() {
            let mut served = Vec::new();
            match self.transact(&mut served) {
                Ok(()) => {
                    self.batch.drain(..).for_each(Command::deliver);
                    for WaitingReceive { lane, reply, .. } in served {
                        self.undone.extend(reply.deliver().map(|messages| (lane, keys_of(&messages))));
                    }
                    self.set_failure(None);
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "a transaction of the queue failed");
                    let is_final = matches!(error, EmbeddedError::Disk(_));
                    self.set_failure(Some(error));
                    if is_final {
                        return self.database.abandon();
                    }
                    self.batch.clear();
                    self.waiting.clear();
                }
            }
        }
    }

    /// Sleeps until there is something to do and takes the commands that came; false when nobody can give any more.
    fn wait_for_work(&mut self) -> bool {
        let first = match self.sleep_for() {
            Some(time) => self.inbox.recv_timeout(time),
            None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        if matches!(first, Err(RecvTimeoutError::Disconnected)) {
            return false;
        }
        for command in first.into_iter().chain(self.inbox.try_iter()).take(BATCH) {
            if let Command::Receive(receive) = command {
                self.waiting.push_back(receive);
            } else {
                self.batch.push(command);
            }
        }
        true
    }

    fn sleep_for(&self) -> Option<Duration> {
        if self.failed {
            return Some(AFTER_FAILURE);
        }
        if !self.undone.is_empty() {
            return Some(Duration::ZERO);
        }
        let next = self.database.next_due();
        let message = next.message.filter(|_| !self.waiting.is_empty());
        let due = [message, next.timer].into_iter().flatten().min().map(|due| {
            if self.clock.is_manual() {
                return MANUAL_CLOCK_POLL;
            }
            let ms = due.saturating_sub(self.clock.now().as_millisecond());
            Duration::from_millis(u64::try_from(ms).unwrap_or(0)).min(LONGEST_SLEEP)
        });
        let given_up = self.waiting.iter().map(|receive| receive.until).min();
        let given_up = given_up.map(|until| until.saturating_duration_since(Instant::now()));
        [due, given_up].into_iter().flatten().min()
    }

    fn transact(&mut self, served: &mut Vec<WaitingReceive>) -> Result<(), EmbeddedError> {
        if self.failed {
            self.database.roll_back()?;
        }
        let now = self.clock.now();
        self.database.begin(self.batch.iter().any(Command::is_durable))?;
        self.database.sweep(now.as_millisecond())?;
        for (lane, keys) in std::mem::take(&mut self.undone) {
            keys.into_iter().try_for_each(|key| self.database.undo_receive(lane, key))?;
        }
        for command in &mut self.batch {
            apply(&mut self.database, command, now)?;
        }
        self.serve(now, served)?;
        self.database.commit()
    }

    /// Takes out the receives that find something or have waited long enough.
    fn serve(&mut self, now: Timestamp, served: &mut Vec<WaitingReceive>) -> Result<(), EmbeddedError> {
        let instant = Instant::now();
        let mut position = 0;
        while let Some(receive) = self.waiting.get(position) {
            let gone = receive.reply.to.is_closed();
            let found = !gone && self.database.has_visible(receive.lane);
            if !gone && !found && instant < receive.until {
                position += 1;
                continue;
            }
            // Kept in `served` before anything can fail, so that no reply is dropped before the failure is set.
            served.extend(self.waiting.remove(position));
            if found && let Some(receive) = served.last_mut() {
                receive.reply.set(self.database.receive(receive.lane, receive.max, now.as_millisecond())?);
            } else if let Some(receive) = served.last_mut() {
                receive.reply.set(Vec::new());
            }
        }
        Ok(())
    }

    fn set_failure(&mut self, failure: Option<EmbeddedError>) {
        let failed = failure.is_some();
        if self.failed || failed {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        }
        self.failed = failed;
    }
}

fn apply(database: &mut Database, command: &mut Command, now: Timestamp) -> Result<(), EmbeddedError> {
    let now_ms = now.as_millisecond();
    match command {
        Command::Send { lane, message, reply } => reply.set(database.send(*lane, message, now_ms)?),
        Command::UndoReceive { lane, keys } => keys.iter().try_for_each(|key| database.undo_receive(*lane, *key))?,
        Command::Delete { lane, key, reply } => reply.set(database.delete(*lane, *key)?),
        Command::ChangeVisibility { lane, key, visible_in, reply } => {
            reply.set(database.change_visibility(*lane, *key, *visible_in, now_ms)?);
        }
        Command::Redrive { max, reply } => reply.set(database.redrive(*max)?),
        Command::Depth { reply } => reply.set(database.depth()),
        Command::PutTimer { timer, reply } => reply.set(database.put_timer(timer, now)?),
        Command::DeleteTimer { tenant, name, reply } => reply.set(database.delete_timer(*tenant, name)?),
        Command::ListTimers { after, reply } => reply.set(database.list_timers(after.as_ref())?),
        // `wait_for_work` keeps receives apart.
        Command::Receive(_) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::EmbeddedSettings;
    use super::super::database::Failing;
    use super::*;

    #[test]
    fn a_file_that_keeps_failing_is_left_in_peace_whatever_waits() {
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        let settings = EmbeddedSettings { visibility_timeout: LONGEST_SLEEP, max_receive_count: 3 };
        let mut database = Database::in_memory(settings, &clock).unwrap();
        database.fail(Failing::RollBack);
        let (_commands, inbox) = mpsc::channel();
        let key = ReceiptKey::parse(&crate::queue::Receipt("1-1".to_owned())).unwrap();
        let mut worker = Worker {
            database,
            clock,
            inbox,
            waiting: VecDeque::new(),
            batch: Vec::new(),
            undone: vec![(Lane::Main, vec![key])],
            failure: Failure::default(),
            failed: true,
        };
        worker.transact(&mut Vec::new()).unwrap_err();
        assert!(!worker.undone.is_empty(), "kept for when the file works again");
        assert_eq!(worker.sleep_for(), Some(AFTER_FAILURE));
    }
}
