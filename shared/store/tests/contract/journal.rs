//! Journals.

use std::time::Duration;

use serde_json::json;
use tidegate_model::{Entry, Event, Payload, TriggerInput, TriggerKind};
use tidegate_platform::Clock;
use tidegate_store::embedded::{self, Faults};
use tidegate_store::{Error, Journal, JournalItem, RETENTION};

use crate::setup::{Setup, everywhere};

fn item(setup: &Setup, step: &str) -> JournalItem {
    let input = TriggerInput {
        kind: TriggerKind::Webhook,
        content_type: Some("application/json".to_owned()),
        request: None,
        body: Payload::Inline(json!({ "user": { "name": "" }, "big": 1e300 })),
        parameters: serde_json::Map::default(),
    };
    let output = Payload::Inline(json!(null));
    JournalItem {
        input: (step == "s0").then_some(input),
        entries: vec![Entry {
            step: step.to_owned(),
            item: Some(2),
            attempt: 1,
            at: setup.clock.now(),
            event: Event::Succeeded { output, outlet: None },
        }],
    }
}

#[tokio::test]
async fn a_journal_keeps_its_order_and_each_position_one_item() {
    everywhere(async |setup| {
        let runs = setup.store().runs();
        let (tenant, other) = (setup.ids.tenant(), setup.ids.tenant());
        let run = setup.ids.run(tenant);
        assert_eq!(runs.journal(tenant, run).await.unwrap(), Journal::default());
        let items: Vec<_> = (0..12).map(|i| item(&setup, &format!("s{i}"))).collect();
        for (position, item) in (0..).zip(&items) {
            runs.append_journal(tenant, run, position, item, setup.clock.now()).await.unwrap();
        }
        let taken = runs.append_journal(tenant, run, 3, &item(&setup, "other"), setup.clock.now()).await;
        assert!(matches!(taken, Err(Error::Conflict { .. })), "{taken:?}");
        assert_eq!(runs.journal(tenant, run).await.unwrap(), Journal { items, signals: Vec::new() });
        assert_eq!(runs.journal(other, run).await.unwrap(), Journal::default());
    })
    .await;
}

#[tokio::test]
async fn a_journal_expires_a_retention_after_its_runs_latest_end() {
    let setup = Setup::memory().await;
    let clock = Clock::manual(setup.clock.now());
    let embedded = embedded::open_memory(clock.clone(), Faults::default()).await.unwrap();
    let runs = embedded.store.runs();
    let tenant = setup.ids.tenant();
    let run = setup.ids.run(tenant);
    let latest_end = clock.now().checked_add(Duration::from_secs(300)).unwrap();
    runs.append_journal(tenant, run, 0, &item(&setup, "s0"), latest_end).await.unwrap();
    clock.advance(RETENTION + Duration::from_secs(299));
    assert_eq!(embedded.sweep_ttl().await.unwrap(), 0);
    clock.advance(Duration::from_secs(2));
    assert_eq!(embedded.sweep_ttl().await.unwrap(), 1);
    assert_eq!(runs.journal(tenant, run).await.unwrap(), Journal::default());
}
