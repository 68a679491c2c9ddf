//! What is known of webhooks' deliveries.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::try_join_all;
use serde_json::json;
use tidegate_model::{CapturedDelivery, RejectedDeliveries, RejectedDelivery, WebhookRequest};
use tidegate_store::CAPTURES;

use crate::setup::everywhere;

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn a_delivery_is_the_run_of_its_first_coming_until_it_is_forgotten() {
    everywhere(async |setup| {
        let deliveries = setup.store().deliveries();
        let (tenant, workflow) = (setup.ids.tenant(), setup.ids.workflow());
        let [first, second, third] = [(); 3].map(|()| setup.ids.run(tenant));
        let now = setup.clock.now();
        assert_eq!(deliveries.remember(tenant, workflow, "a", first, now, HOUR).await.unwrap(), None);
        let later = now + Duration::from_secs(3_599);
        assert_eq!(deliveries.remember(tenant, workflow, "a", second, later, HOUR).await.unwrap(), Some(first));
        // Whatever sweeps expired rows hasn't been there.
        let forgotten = now + HOUR;
        assert_eq!(deliveries.remember(tenant, workflow, "a", third, forgotten, HOUR).await.unwrap(), None);
        assert_eq!(deliveries.remember(tenant, workflow, "a", second, forgotten, HOUR).await.unwrap(), Some(third));

        let (other_tenant, other_workflow) = (setup.ids.tenant(), setup.ids.workflow());
        for (tenant, workflow, key) in
            [(tenant, workflow, "b"), (tenant, other_workflow, "a"), (other_tenant, workflow, "a")]
        {
            let run = setup.ids.run(tenant);
            assert_eq!(deliveries.remember(tenant, workflow, key, run, now, HOUR).await.unwrap(), None, "{key}");
        }
    })
    .await;
}

#[tokio::test]
async fn of_those_that_come_at_once_one_is_the_first() {
    everywhere(async |setup| {
        let (tenant, workflow, now) = (setup.ids.tenant(), setup.ids.workflow(), setup.clock.now());
        let runs: Vec<_> = (0..8).map(|_| setup.ids.run(tenant)).collect();
        let deliveries = setup.store().deliveries();
        let comings = runs.iter().map(async |run| {
            let before = deliveries.remember(tenant, workflow, "a", *run, now, HOUR).await?;
            Ok::<_, tidegate_store::Error>(before.unwrap_or(*run))
        });
        let stand: BTreeSet<_> = try_join_all(comings).await.unwrap().into_iter().collect();
        assert_eq!(stand.len(), 1, "{stand:?}");
    })
    .await;
}

#[tokio::test]
async fn the_last_captures_are_kept_and_refusals_by_process() {
    everywhere(async |setup| {
        let deliveries = setup.store().deliveries();
        let (tenant, workflow, now) = (setup.ids.tenant(), setup.ids.workflow(), setup.clock.now());
        for place in 0..=CAPTURES {
            let captured = CapturedDelivery {
                at: now + Duration::from_secs(place.into()),
                content_type: None,
                request: WebhookRequest { method: "POST".to_owned(), ..WebhookRequest::default() },
                body: Some(json!(place)),
            };
            deliveries.capture(tenant, workflow, place, &captured).await.unwrap();
        }
        let captured = deliveries.captured(tenant, workflow).await.unwrap();
        let bodies: Vec<_> = captured.into_iter().map(|delivery| delivery.body.unwrap()).collect();
        assert_eq!(bodies, (1..=CAPTURES).rev().map(|place| json!(place)).collect::<Vec<_>>(), "newest first");

        let mut rejected = RejectedDeliveries::default();
        for _ in 0..3 {
            rejected.add(RejectedDelivery {
                at: now,
                reason: "signature_missing".to_owned(),
                detail: String::new(),
                method: "POST".to_owned(),
                address: None,
                headers: Vec::new(),
            });
            for process in ["a", "b"] {
                deliveries.reject(tenant, workflow, process, &rejected, now).await.unwrap();
            }
        }
        assert_eq!(deliveries.rejected(tenant, workflow).await.unwrap(), [rejected.clone(), rejected]);
        let other = setup.ids.tenant();
        assert!(deliveries.captured(other, workflow).await.unwrap().is_empty());
        assert!(deliveries.rejected(other, workflow).await.unwrap().is_empty());
    })
    .await;
}
