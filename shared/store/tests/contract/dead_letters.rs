//! Dead letters.

use std::time::Duration;

use serde_json::json;
use tidegate_model::{DeadLetter, ErrorCode, Payload, Redriven, TenantId};
use tidegate_platform::Clock;
use tidegate_store::embedded::{self, Faults};
use tidegate_store::{Error, RETENTION};

use crate::setup::{Setup, everywhere, walk};

fn letter(setup: &Setup, tenant: TenantId) -> DeadLetter {
    setup.clock.advance(Duration::from_millis(1));
    DeadLetter {
        id: setup.ids.run(tenant),
        tenant,
        workflow: setup.ids.workflow(),
        code: ErrorCode::DeadLettered,
        message: "the run's message could not be handled in 25 tries".to_owned(),
        receive_count: 25,
        accepted_at: setup.clock.now(),
        given_up_at: setup.clock.now(),
        start: Payload::Inline(json!({ "run_id": "…", "big": 1e300, "empty": "" })),
        redriven: None,
    }
}

#[tokio::test]
async fn a_letter_is_kept_as_it_came_and_belongs_to_its_tenant() {
    everywhere(async |setup| {
        let letters = setup.store().dead_letters();
        let (tenant, other) = (setup.ids.tenant(), setup.ids.tenant());
        let first = letter(&setup, tenant);
        assert_eq!(letters.get(tenant, first.id).await.unwrap(), None);
        letters.put(&first).await.unwrap();
        letters.put(&DeadLetter { receive_count: 26, ..first.clone() }).await.unwrap();
        assert_eq!(letters.get(tenant, first.id).await.unwrap().as_ref(), Some(&first));
        assert_eq!(letters.get(other, first.id).await.unwrap(), None);
        let run = setup.ids.run(other);
        let marked = letters.mark_redriven(other, first.id, run, setup.clock.now()).await;
        assert!(matches!(marked, Err(Error::Conflict { .. })), "{marked:?}");
    })
    .await;
}

#[tokio::test]
async fn a_letter_is_started_again_under_one_id() {
    everywhere(async |setup| {
        let letters = setup.store().dead_letters();
        let tenant = setup.ids.tenant();
        let first = letter(&setup, tenant);
        letters.put(&first).await.unwrap();
        let at = setup.clock.now();
        let runs: Vec<_> = (0..6).map(|_| setup.ids.run(tenant)).collect();
        let marks = runs.iter().map(|run| letters.mark_redriven(tenant, first.id, *run, at));
        let stand = futures::future::try_join_all(marks).await.unwrap();
        assert!(runs.contains(&stand[0]) && stand.iter().all(|run| *run == stand[0]), "{stand:?}");
        let redriven = Some(Redriven { run_id: stand[0], at });
        assert_eq!(letters.get(tenant, first.id).await.unwrap().unwrap().redriven, redriven);
        letters.put(&first).await.unwrap();
        assert_eq!(letters.get(tenant, first.id).await.unwrap().unwrap().redriven, redriven, "kept what is there");
    })
    .await;
}

#[tokio::test]
async fn a_list_shows_each_of_the_tenants_letters_once() {
    everywhere(async |setup| {
        let letters = setup.store().dead_letters();
        let (tenant, other) = (setup.ids.tenant(), setup.ids.tenant());
        let mut made = Vec::new();
        for _ in 0..7 {
            made.push(letter(&setup, tenant));
            letters.put(&made[made.len() - 1]).await.unwrap();
            letters.put(&letter(&setup, other)).await.unwrap();
        }
        made.reverse();
        for limit in [1, 3, 6, 7, 100] {
            let pages = walk(async |cursor| letters.list(tenant, cursor, limit).await.unwrap()).await;
            assert!(pages.iter().all(|page| page.len() <= limit));
            assert_eq!(pages.concat(), made, "newest first, limit {limit}");
        }
        let cursor = letters.list(tenant, None, 2).await.unwrap().next_cursor.unwrap();
        for (tenant, cursor) in [(other, cursor.as_str()), (tenant, "nonsense"), (tenant, "")] {
            assert!(matches!(letters.list(tenant, Some(cursor), 2).await, Err(Error::InvalidCursor)));
        }
    })
    .await;
}

#[tokio::test]
async fn letters_expire_marked_or_not() {
    let setup = Setup::memory().await;
    let clock = Clock::manual(setup.clock.now() + Duration::from_secs(60));
    let embedded = embedded::open_memory(clock.clone(), Faults::default()).await.unwrap();
    let letters = embedded.store.dead_letters();
    let tenant = setup.ids.tenant();
    for mark in [false, true] {
        let letter = DeadLetter { given_up_at: clock.now(), ..letter(&setup, tenant) };
        letters.put(&letter).await.unwrap();
        if mark {
            letters.mark_redriven(tenant, letter.id, setup.ids.run(tenant), clock.now()).await.unwrap();
        }
    }
    clock.advance(RETENTION - Duration::from_secs(1));
    assert_eq!(embedded.sweep_ttl().await.unwrap(), 0);
    clock.advance(Duration::from_secs(2));
    assert_eq!(embedded.sweep_ttl().await.unwrap(), 2);
}
