//! Runs requests on the database, one after the other on a thread of its own, and answers none before what it shows is
//! on durable storage.
//!
//! SQLite flushes nothing at a commit (`synchronous = NORMAL`). A second thread flushes the write-ahead log, once for
//! all requests that were executed meanwhile (group commit), and then hands out their answers. That is as durable as
//! flushing at each commit: SQLite recovers every commit whose log frames are on disk, it flushes the log before it
//! moves frames into the database file, and the database file before it reuses the log
//! (<https://www.sqlite.org/wal.html>). Answers to reads wait likewise, so nobody acts on what a loss of power could undo.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use dynoxide::{Database, DynoxideError};
use tokio::sync::oneshot;

use super::dispatch::{Answer, Work};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The database and its threads.
#[derive(Debug)]
pub(super) struct Engine {
    running: Mutex<Option<Running>>,
}

struct Running {
    jobs: mpsc::Sender<Job>,
    thread: JoinHandle<()>,
    opened: Opened,
}

/// The open database, and the lock of its folder, which is let go after it.
#[derive(Clone)]
pub(super) struct Opened {
    pub(super) database: Database,
    _lock: Option<Arc<File>>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the database refused")]
    Refused(#[source] DynoxideError),
    #[error("the embedded database is closed")]
    Closed,
    /// It may or may not have happened.
    #[error("the embedded database's log could not be flushed to disk")]
    NotDurable,
    #[error("the embedded database panicked")]
    Panicked,
}

struct Job {
    work: Work,
    writes: bool,
    reply: Reply,
}

type Outcome = Result<Answer, Failure>;
type Reply = oneshot::Sender<Outcome>;

/// An executed request whose answer waits until all writes up to `position` are durable.
struct Executed {
    position: u64,
    outcome: Outcome,
    reply: Reply,
}

impl Engine {
    /// Runs a database that is lost with the process.
    pub(super) fn volatile(database: Database) -> Result<Self, BoxError> {
        Self::start(Opened { database, _lock: None }, None)
    }

    /// Runs a database in a file; `lock` is let go after the database is closed.
    pub(super) fn durable(database: Database, lock: File, path: &Path) -> Result<Self, BoxError> {
        // Despite its name this is what sets `synchronous = NORMAL`; it sets nothing else that differs from the default.
        database.disable_bulk_loading()?;
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let log = File::options().read(true).write(true).open(log)?;
        sync_folder(path)?;
        Self::start(Opened { database, _lock: Some(Arc::new(lock)) }, Some(Box::new(move || log.sync_data())))
    }

    fn start(opened: Opened, flush: Option<Flush>) -> Result<Self, BoxError> {
        let (jobs, queue) = mpsc::channel();
        let held = opened.clone();
        let thread = std::thread::Builder::new().name("store".to_owned());
        let thread = thread.spawn(move || execute(&held.database, &queue, flush))?;
        Ok(Self { running: Mutex::new(Some(Running { jobs, thread, opened })) })
    }

    /// Runs a request; the answer comes once it is durable.
    pub(super) async fn run(&self, work: Work, writes: bool) -> Outcome {
        let (reply, answer) = oneshot::channel();
        let sent = {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.as_ref().is_some_and(|running| running.jobs.send(Job { work, writes, reply }).is_ok())
        };
        if !sent {
            return Err(Failure::Closed);
        }
        answer.await.unwrap_or(Err(Failure::Closed))
    }

    /// The database itself, unless it is closed; the folder stays locked for as long as somebody holds this.
    pub(super) fn opened(&self) -> Option<Opened> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().map(|running| running.opened.clone())
    }

    /// Finishes what was asked, then closes the database. Blocks for as long as that takes.
    pub(super) fn stop(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Running { jobs, thread, opened }) = running {
            drop(opened);
            drop(jobs);
            if thread.join().is_err() {
                tracing::error!("the embedded database's thread died");
            }
        }
    }
}

type Flush = Box<dyn FnMut() -> io::Result<()> + Send>;

/// Executes requests until the last sender is gone.
fn execute(database: &Database, queue: &mpsc::Receiver<Job>, flush: Option<Flush>) {
    let flusher = flush.map(Flusher::start);
    let mut position = 0;
    while let Ok(Job { work, writes, reply }) = queue.recv() {
        let outcome = match catch_unwind(AssertUnwindSafe(|| work(database))) {
            Ok(outcome) => outcome.map_err(Failure::Refused),
            Err(_) => Err(Failure::Panicked),
        };
        position += u64::from(writes);
        match &flusher {
            Some(flusher) => flusher.answer(Executed { position, outcome, reply }),
            None => answer(reply, outcome),
        }
    }
}

fn answer(reply: Reply, outcome: Outcome) {
    // Whoever asked may have gone away.
    drop(reply.send(outcome));
}

/// The thread that makes executed requests durable. Dropping it flushes and answers what is left.
struct Flusher {
    executed: Option<mpsc::Sender<Executed>>,
    durable: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    fn start(flush: Flush) -> Self {
        let (executed, queue) = mpsc::channel();
        let durable = Arc::new(AtomicU64::new(0));
        let reached = durable.clone();
        let thread = std::thread::Builder::new().name("store-flush".to_owned());
        let thread = match thread.spawn(move || flush_in_groups(&queue, &reached, flush)) {
            Ok(thread) => Some(thread),
            Err(error) => {
                // Without the thread the channel is closed, and every answer becomes `NotDurable`.
                tracing::error!(error = %error, "the embedded database's flushing thread did not start");
                None
            }
        };
        Self { executed: Some(executed), durable, thread }
    }

    fn answer(&self, executed: Executed) {
        if self.durable.load(Ordering::Acquire) >= executed.position {
            return answer(executed.reply, executed.outcome);
        }
        if let Some(queue) = &self.executed
            && let Err(mpsc::SendError(executed)) = queue.send(executed)
        {
            answer(executed.reply, Err(Failure::NotDurable));
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.executed = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the embedded database's flushing thread died");
        }
    }
}

fn flush_in_groups(queue: &mpsc::Receiver<Executed>, durable: &AtomicU64, mut flush: Flush) {
    let mut group = Vec::new();
    while let Ok(first) = queue.recv() {
        group.push(first);
        group.extend(queue.try_iter());
        let reached = group.last().map_or(0, |last| last.position);
        if let Err(error) = flush() {
            // After a failed flush the kernel may have dropped the pages: nothing written can be trusted any more, so
            // this ends for good, and with it every later request.
            tracing::error!(error = %error, "flushing the embedded database's log failed; restart after checking the disk");
            for executed in group.drain(..) {
                answer(executed.reply, Err(Failure::NotDurable));
            }
            return;
        }
        durable.store(reached, Ordering::Release);
        for executed in group.drain(..) {
            answer(executed.reply, executed.outcome);
        }
    }
}

/// Makes the names of freshly made files durable.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn executed(position: u64) -> (Executed, oneshot::Receiver<Outcome>) {
        let (reply, answer) = oneshot::channel();
        let outcome: Outcome = Ok(Box::new(|| Ok(Vec::new())));
        (Executed { position, outcome, reply }, answer)
    }

    /// A flush that reports that it has begun, and ends when it is told how.
    fn held_flush() -> (Flush, mpsc::Receiver<()>, mpsc::Sender<io::Result<()>>) {
        let (began, begun) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let flush = move || {
            began.send(()).unwrap();
            ended.recv().unwrap()
        };
        (Box::new(flush), begun, end)
    }

    #[test]
    fn an_answer_waits_for_a_flush_that_began_after_its_write() {
        let (flush, begun, end) = held_flush();
        let flusher = Flusher::start(flush);
        let (first, mut first_answer) = executed(1);
        flusher.answer(first);
        begun.recv().unwrap();
        // Executed while the first flush is under way: that one may not have covered it.
        let (second, mut second_answer) = executed(2);
        flusher.answer(second);
        let (read, mut read_answer) = executed(2);
        flusher.answer(read);
        assert!(first_answer.try_recv().is_err());
        end.send(Ok(())).unwrap();
        begun.recv().unwrap();
        assert!(first_answer.try_recv().unwrap().is_ok());
        assert!(second_answer.try_recv().is_err() && read_answer.try_recv().is_err());
        end.send(Ok(())).unwrap();
        assert!(second_answer.blocking_recv().unwrap().is_ok());
        assert!(read_answer.blocking_recv().unwrap().is_ok());
        // Nothing is outstanding, so a read needs no flush.
        let (read, mut answer) = executed(2);
        flusher.answer(read);
        assert!(answer.try_recv().unwrap().is_ok());
    }

    #[test]
    fn after_a_failed_flush_nothing_is_acknowledged() {
        let (flush, begun, end) = held_flush();
        let flusher = Flusher::start(flush);
        let (first, first_answer) = executed(1);
        flusher.answer(first);
        begun.recv().unwrap();
        end.send(Err(io::Error::other("disk gone"))).unwrap();
        assert!(matches!(first_answer.blocking_recv().unwrap(), Err(Failure::NotDurable)));
        let (second, second_answer) = executed(2);
        flusher.answer(second);
        // The channel may still take it while the thread ends: then the reply is dropped unanswered.
        assert!(!matches!(second_answer.blocking_recv(), Ok(Ok(_))));
    }
}
