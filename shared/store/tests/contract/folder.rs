//! The data folder: what is acknowledged stays, and one process has it.

use tidegate_model::RunStatus;
use tidegate_store::embedded::{self, Faults, Location, OpenError};

use crate::setup::{Setup, ended};

#[tokio::test]
async fn a_reopened_folder_has_everything() {
    let setup = Setup::folder().await;
    let user = setup.account("alex@example.com");
    setup.store().accounts().create(user.new_account()).await.unwrap();
    let claimed = setup.run(user.tenant.id, setup.ids.workflow());
    setup.store().runs().create(&claimed, None).await.unwrap();
    let parked = ended(&claimed, RunStatus::Waiting, setup.clock.now());
    setup.store().runs().replace(&claimed, &parked, None).await.unwrap();

    let setup = setup.reopen().await;
    assert_eq!(setup.store().accounts().user_by_email(&user.user.email).await.unwrap(), Some(user.user));
    assert_eq!(setup.store().runs().get(user.tenant.id, claimed.id).await.unwrap().unwrap().row, parked);
}

#[tokio::test]
async fn a_copy_of_the_files_at_any_time_has_everything_acknowledged() {
    // What a killed process leaves is what lies in its files: a copy of them while it runs.
    let folder = tempfile::tempdir().unwrap();
    let embedded = embedded::open(Location::Folder(folder.path()), Faults::default()).await.unwrap();
    let setup = Setup::memory().await;
    let (tenant, workflow) = (setup.ids.tenant(), setup.ids.workflow());
    let claims: Vec<_> = (0..200).map(|_| setup.run(tenant, workflow)).collect();
    for group in claims.chunks(20) {
        let runs = embedded.store.runs();
        futures::future::try_join_all(group.iter().map(|claimed| runs.create(claimed, None))).await.unwrap();
    }
    let copy = tempfile::tempdir().unwrap();
    for file in ["store.db", "store.db-wal"] {
        std::fs::copy(folder.path().join(file), copy.path().join(file)).unwrap();
    }
    let copied = embedded::open(Location::Folder(copy.path()), Faults::default()).await.unwrap();
    for claimed in claims {
        let found = copied.store.runs().get(tenant, claimed.id).await.unwrap();
        assert_eq!(found.map(|found| found.row), Some(claimed));
    }
}

#[tokio::test]
async fn a_folder_belongs_to_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/data");
    let first = embedded::open(Location::Folder(&path), Faults::default()).await.unwrap();
    let second = embedded::open(Location::Folder(&path), Faults::default()).await;
    let Err(error @ OpenError::InUse { .. }) = second else { panic!("opened twice") };
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    let store = first.store.clone();
    drop(first);
    let user = Setup::memory().await.account("alex@example.com");
    assert!(store.accounts().create(user.new_account()).await.is_err(), "a closed store fails");
    embedded::open(Location::Folder(&path), Faults::default()).await.unwrap();
}

#[tokio::test]
async fn a_damaged_database_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("store.db"),
        "not a database, but long enough to be mistaken for one".repeat(100),
    )
    .unwrap();
    let opened = embedded::open(Location::Folder(folder.path()), Faults::default()).await;
    assert!(matches!(opened, Err(OpenError::Database { .. })));
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_may_read_the_database() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let _embedded = embedded::open(Location::Folder(folder.path()), Faults::default()).await.unwrap();
    for file in ["store.db", "store.db-wal"] {
        let mode = std::fs::metadata(folder.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}
