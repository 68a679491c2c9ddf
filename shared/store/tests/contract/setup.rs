//! The databases that every contract test runs on.

use std::time::Duration;

use jiff::Timestamp;
use tempfile::TempDir;
use tidegate_model::{ErrorCode, RunRow, RunStatus, StepError, TenantId, TriggerKind, WorkflowId};
use tidegate_platform::{Clock, Ids};
use tidegate_store::embedded::{self, Embedded, Faults, Location};
use tidegate_store::{Page, Store};
use tidegate_testing::Account;

/// An open database with some fault going on, and a source of ids.
pub(crate) struct Setup {
    pub(crate) name: String,
    pub(crate) embedded: Embedded,
    pub(crate) ids: Ids,
    pub(crate) clock: Clock,
    folder: Option<TempDir>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    None,
    Throttling,
    Conflicts,
    StaleIndexes,
    LostAnswers,
    All,
}

impl Trouble {
    const ALL: [Trouble; 6] = [
        Trouble::None,
        Trouble::Throttling,
        Trouble::Conflicts,
        Trouble::StaleIndexes,
        Trouble::LostAnswers,
        Trouble::All,
    ];

    fn start(self, faults: &Faults) {
        if matches!(self, Trouble::Throttling | Trouble::All) {
            faults.throttle_every(4);
        }
        if matches!(self, Trouble::Conflicts | Trouble::All) {
            faults.conflict_every(2);
        }
        if matches!(self, Trouble::StaleIndexes | Trouble::All) {
            faults.stale_index(3);
        }
        if matches!(self, Trouble::LostAnswers | Trouble::All) {
            faults.lose_answer_every(2);
        }
    }
}

/// A time that tests start at.
pub(crate) fn start() -> Timestamp {
    Timestamp::from_millisecond(1_790_000_000_000).unwrap()
}

impl Setup {
    pub(crate) async fn memory() -> Self {
        let embedded = embedded::open(Location::Memory, Faults::default()).await.unwrap();
        Self::new("in memory".to_owned(), embedded, None)
    }

    pub(crate) async fn folder() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let embedded = embedded::open(Location::Folder(folder.path()), Faults::default()).await.unwrap();
        Self::new("in a folder".to_owned(), embedded, Some(folder))
    }

    fn new(name: String, embedded: Embedded, folder: Option<TempDir>) -> Self {
        let clock = Clock::manual(start());
        let ids = Ids::seeded(clock.clone(), 1);
        Self { name, embedded, ids, clock, folder }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.embedded.store
    }

    /// Index queries see all writes from here on, as they do on AWS after a moment.
    pub(crate) fn settle(&self) {
        self.embedded.faults.stale_index(0);
    }

    /// Closes the folder's database and opens it again, the faults gone.
    pub(crate) async fn reopen(self) -> Self {
        let Self { name, embedded, ids, clock, folder } = self;
        drop(embedded);
        let path = folder.as_ref().unwrap().path();
        let embedded = embedded::open(Location::Folder(path), Faults::default()).await.unwrap();
        Self { name, embedded, ids, clock, folder }
    }

    pub(crate) fn account(&self, email: &str) -> Account {
        Account::new(&self.ids, email)
    }
}

impl Setup {
    /// A run that was claimed just now.
    pub(crate) fn run(&self, tenant: TenantId, workflow: WorkflowId) -> RunRow {
        self.clock.advance(Duration::from_millis(1));
        let now = self.clock.now();
        let id = self.ids.run(tenant);
        RunRow {
            id,
            tenant,
            workflow,
            version: 1,
            trigger: TriggerKind::Webhook,
            status: RunStatus::Running,
            accepted_at: now,
            started_at: now,
            finished_at: None,
            fence: 1,
            lease_until: now + Duration::from_secs(305),
            lease_owner: format!("worker-1/{id}"),
            claims: 1,
            journal_length: 0,
            wake: 0,
            wake_at: None,
            traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
            error: None,
            failed_step: None,
            cancel_requested: false,
            parent: None,
        }
    }
}

/// The run at its end, or parked, as its holder writes it.
pub(crate) fn ended(row: &RunRow, status: RunStatus, at: Timestamp) -> RunRow {
    let failed = status == RunStatus::Failed;
    RunRow {
        status,
        finished_at: status.is_final().then_some(at),
        wake: u32::from(status == RunStatus::Waiting),
        wake_at: (status == RunStatus::Waiting).then_some(at),
        error: failed.then(|| StepError::terminal(ErrorCode::TargetFailed, "Slack answered 500")),
        failed_step: failed.then(|| "notify".to_owned()),
        ..row.clone()
    }
}

/// Runs a test on every database.
#[expect(clippy::print_stdout, reason = "tells which database a failed test ran on")]
pub(crate) async fn everywhere(test: impl AsyncFn(Setup)) {
    for trouble in Trouble::ALL {
        for mut setup in [Setup::memory().await, Setup::folder().await] {
            setup.name = format!("{}, {trouble:?}", setup.name);
            println!("{}", setup.name);
            trouble.start(&setup.embedded.faults);
            test(setup).await;
        }
    }
}

/// Follows a list's cursors to its end.
pub(crate) async fn walk<T>(page: impl AsyncFn(Option<&str>) -> Page<T>) -> Vec<Vec<T>> {
    let mut pages = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let next = page(cursor.as_deref()).await;
        pages.push(next.items);
        assert!(pages.len() < 10_000, "the list never ends");
        cursor = next.next_cursor;
        if cursor.is_none() {
            return pages;
        }
    }
}
