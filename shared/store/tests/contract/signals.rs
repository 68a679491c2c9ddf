//! What reaches a waiting step from outside.

use std::time::Duration;

use serde_json::json;
use tidegate_model::{Approval, Decided, Payload, RunStatus, Signal};
use tidegate_platform::Clock;
use tidegate_store::embedded::{self, Faults};
use tidegate_store::{Journal, JournalItem, RETENTION, StoredSignal};

use crate::setup::{Setup, everywhere};

fn ending(setup: &Setup, status: RunStatus) -> Signal {
    Signal::Ended {
        run_id: setup.ids.run(setup.ids.tenant()),
        status,
        output: Some(Payload::Inline(json!({ "big": 1e300, "empty": "" }))),
        error: None,
        at: setup.clock.now(),
    }
}

fn approval(setup: &Setup) -> Approval {
    Approval {
        digest: "ab".repeat(32),
        message: Some("Ship it?".to_owned()),
        until: Some(setup.clock.now() + Duration::from_secs(60)),
        decided: None,
    }
}

fn decision(setup: &Setup, approved: bool) -> Decided {
    Decided { approved, comment: (!approved).then(|| "not yet".to_owned()), at: setup.clock.now() }
}

fn told(step: &str, item: Option<u32>, signal: &Signal) -> StoredSignal {
    StoredSignal { step: step.to_owned(), item, signal: signal.clone() }
}

#[tokio::test]
async fn a_step_hears_the_first_signal_and_the_journal_tells_it_apart() {
    everywhere(async |setup| {
        let runs = setup.store().runs();
        let (tenant, other) = (setup.ids.tenant(), setup.ids.tenant());
        let (run, until) = (setup.ids.run(tenant), setup.clock.now());
        assert_eq!(runs.signals(tenant, run).await.unwrap(), []);
        let first = ending(&setup, RunStatus::Succeeded);
        let items = [None, Some(0), Some(2), Some(10)];
        for item in items {
            runs.put_signal(tenant, run, "call", item, &first, until).await.unwrap();
            runs.put_signal(tenant, run, "call", item, &ending(&setup, RunStatus::Failed), until).await.unwrap();
        }
        runs.put_signal(tenant, run, "call_2", None, &first, until).await.unwrap();
        let mut signals: Vec<_> = items.map(|item| told("call", item, &first)).into();
        signals.push(told("call_2", None, &first));
        assert_eq!(runs.signals(tenant, run).await.unwrap(), signals);

        let item = JournalItem { input: None, entries: Vec::new() };
        for position in 0..3 {
            runs.append_journal(tenant, run, position, &item, until).await.unwrap();
        }
        assert_eq!(runs.signals(tenant, run).await.unwrap(), signals, "without the journal's items");
        assert_eq!(runs.journal(tenant, run).await.unwrap(), Journal { items: vec![item; 3], signals });
        assert_eq!(runs.signals(other, run).await.unwrap(), []);
        assert_eq!(runs.signals(tenant, setup.ids.run(tenant)).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn an_approval_is_opened_once_and_decided_once() {
    everywhere(async |setup| {
        let runs = setup.store().runs();
        let (tenant, other) = (setup.ids.tenant(), setup.ids.tenant());
        let (run, until) = (setup.ids.run(tenant), setup.clock.now());
        let (yes, no) = (decision(&setup, true), decision(&setup, false));
        assert_eq!(runs.decide(tenant, run, "ask", &yes).await.unwrap(), None, "nothing was asked");
        let open = approval(&setup);
        runs.open_approval(tenant, run, "ask", &open, until).await.unwrap();
        let again = Approval { digest: "cd".repeat(32), ..open.clone() };
        runs.open_approval(tenant, run, "ask", &again, until).await.unwrap();
        assert_eq!(runs.approval(tenant, run, "ask").await.unwrap().as_ref(), Some(&open), "the first one stays");
        assert_eq!(runs.signals(tenant, run).await.unwrap(), [], "nothing is decided");
        assert_eq!(runs.journal(tenant, run).await.unwrap(), Journal::default());
        for (tenant, run, step) in [(other, run, "ask"), (tenant, setup.ids.run(tenant), "ask"), (tenant, run, "as")] {
            assert_eq!(runs.approval(tenant, run, step).await.unwrap(), None);
            assert_eq!(runs.decide(tenant, run, step, &yes).await.unwrap(), None);
        }

        assert_eq!(runs.decide(tenant, run, "ask", &no).await.unwrap().as_ref(), Some(&no));
        assert_eq!(runs.decide(tenant, run, "ask", &yes).await.unwrap().as_ref(), Some(&no), "the first one stands");
        runs.open_approval(tenant, run, "ask", &open, until).await.unwrap();
        let decided = Approval { decided: Some(no.clone()), ..open };
        assert_eq!(runs.approval(tenant, run, "ask").await.unwrap(), Some(decided));
        let signals = vec![told("ask", None, &Signal::Decided(no))];
        assert_eq!(runs.signals(tenant, run).await.unwrap(), signals);
        assert_eq!(runs.journal(tenant, run).await.unwrap().signals, signals);
    })
    .await;
}

#[tokio::test]
async fn of_decisions_that_meet_one_stands_for_all() {
    everywhere(async |setup| {
        let runs = setup.store().runs();
        let tenant = setup.ids.tenant();
        let run = setup.ids.run(tenant);
        runs.open_approval(tenant, run, "ask", &approval(&setup), setup.clock.now()).await.unwrap();
        let decisions: Vec<_> =
            (0..8).map(|i| Decided { comment: Some(format!("person {i}")), ..decision(&setup, i % 2 == 0) }).collect();
        let stand = decisions.iter().map(|decided| runs.decide(tenant, run, "ask", decided));
        let stand = futures::future::try_join_all(stand).await.unwrap();
        let stored = runs.approval(tenant, run, "ask").await.unwrap().unwrap().decided;
        assert!(stored.is_some() && stand.iter().all(|decided| *decided == stored), "{stand:?}");
    })
    .await;
}

#[tokio::test]
async fn signals_and_approvals_expire_with_the_journal() {
    let setup = Setup::memory().await;
    let clock = Clock::manual(setup.clock.now());
    let embedded = embedded::open_memory(clock.clone(), Faults::default()).await.unwrap();
    let runs = embedded.store.runs();
    let tenant = setup.ids.tenant();
    let run = setup.ids.run(tenant);
    let latest_end = clock.now() + Duration::from_secs(300);
    runs.put_signal(tenant, run, "call", None, &ending(&setup, RunStatus::Failed), latest_end).await.unwrap();
    runs.open_approval(tenant, run, "ask", &approval(&setup), latest_end).await.unwrap();
    runs.decide(tenant, run, "ask", &decision(&setup, true)).await.unwrap();
    clock.advance(RETENTION + Duration::from_secs(299));
    assert_eq!(embedded.sweep_ttl().await.unwrap(), 0);
    clock.advance(Duration::from_secs(2));
    assert_eq!(embedded.sweep_ttl().await.unwrap(), 2);
}
