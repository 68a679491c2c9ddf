//! Journals.

use serde_json::json;
use tidegate_model::{Entry, Payload, TriggerInput, TriggerKind};
use tidegate_store::{Error, JournalItem};

use crate::setup::{Setup, everywhere};

fn item(setup: &Setup, step: &str) -> JournalItem {
    let input = TriggerInput {
        kind: TriggerKind::Webhook,
        content_type: Some("application/json".to_owned()),
        body: Payload::Inline(json!({ "user": { "name": "" }, "big": 1e300 })),
    };
    let output = Payload::Inline(json!(null));
    JournalItem {
        input: (step == "s0").then_some(input),
        entries: vec![Entry::Succeeded { step: step.to_owned(), attempt: 1, at: setup.clock.now(), output }],
    }
}

#[tokio::test]
async fn a_journal_keeps_its_order_and_each_position_one_item() {
    everywhere(async |setup| {
        let runs = setup.store().runs();
        let (tenant, other) = (setup.ids.tenant(), setup.ids.tenant());
        let run = setup.ids.run(tenant);
        assert_eq!(runs.journal(tenant, run).await.unwrap(), []);
        let items: Vec<_> = (0..12).map(|i| item(&setup, &format!("s{i}"))).collect();
        for (position, item) in (0..).zip(&items) {
            runs.append_journal(tenant, run, position, item).await.unwrap();
        }
        let taken = runs.append_journal(tenant, run, 3, &item(&setup, "other")).await;
        assert!(matches!(taken, Err(Error::Conflict { .. })), "{taken:?}");
        assert_eq!(runs.journal(tenant, run).await.unwrap(), items);
        assert_eq!(runs.journal(other, run).await.unwrap(), []);

        runs.clear_journal(other, run, 0..12).await.unwrap();
        assert_eq!(runs.journal(tenant, run).await.unwrap().len(), 12);
        runs.clear_journal(tenant, run, 0..12).await.unwrap();
        runs.clear_journal(tenant, run, 0..40).await.unwrap();
        assert_eq!(runs.journal(tenant, run).await.unwrap(), []);
    })
    .await;
}
