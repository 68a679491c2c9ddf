//! The databases that every contract test runs on.

use jiff::Timestamp;
use tempfile::TempDir;
use tidegate_model::{Role, Tenant, User};
use tidegate_platform::{Clock, Ids};
use tidegate_store::Store;
use tidegate_store::embedded::{self, Embedded, Faults, Location};

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
            faults.throttle_every(3);
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

    pub(crate) fn account(&self, email: &str) -> (User, Tenant) {
        let tenant = Tenant {
            id: self.ids.tenant(),
            name: format!("{email}'s"),
            data_key: "d3JhcHBlZA==".to_owned(),
            created_at: self.clock.now(),
        };
        let user = User {
            id: self.ids.user(),
            email: email.to_owned(),
            name: "Alex".to_owned(),
            password_hash: "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA".to_owned(),
            tenant: tenant.id,
            role: Role::Owner,
            created_at: self.clock.now(),
        };
        (user, tenant)
    }
}

/// Runs a test on every database.
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
