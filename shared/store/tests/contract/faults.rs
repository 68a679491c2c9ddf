//! The faults themselves: that they bite, and what a caller sees when they don't stop.

use tidegate_model::RunStatus;
use tidegate_store::{CreateError, Error, RunFilter};

use crate::setup::{Setup, ended};
use crate::workflows::workflow;

#[tokio::test]
async fn a_lost_answer_is_repeated_and_recognised() {
    let setup = Setup::folder().await;
    setup.embedded.faults.lose_answer_every(1);
    setup.embedded.meter.restart(false);
    let runs = setup.store().runs();
    let claimed = setup.run(setup.ids.tenant(), setup.ids.workflow());
    runs.create(&claimed, None).await.unwrap();
    assert_eq!(setup.embedded.meter.calls("PutItem"), 2);
    runs.replace(&claimed, &ended(&claimed, RunStatus::Succeeded, setup.clock.now()), None).await.unwrap();
    assert_eq!(setup.embedded.meter.calls("PutItem"), 4);
    assert!(matches!(runs.create(&claimed, None).await, Err(CreateError::Exists(_))), "another state is not ours");

    let user = setup.account("alex@example.com");
    setup.store().accounts().create(user.new_account()).await.unwrap();
    assert_eq!(setup.embedded.meter.calls("TransactWriteItems"), 2);
}

#[tokio::test]
async fn what_does_not_pass_is_reported_as_unavailable() {
    let setup = Setup::memory().await;
    let user = setup.account("alex@example.com");
    let accounts = setup.store().accounts();
    setup.embedded.faults.conflict_every(1);
    assert!(matches!(accounts.create(user.new_account()).await, Err(Error::Unavailable { .. })));
    setup.embedded.faults.clear();
    setup.embedded.faults.throttle_every(1);
    assert!(matches!(accounts.user(user.user.id).await, Err(Error::Unavailable { .. })));
    setup.embedded.faults.clear();
    accounts.create(user.new_account()).await.unwrap();
}

#[tokio::test]
async fn a_stale_index_lags_behind() {
    let setup = Setup::memory().await;
    setup.embedded.faults.stale_index(2);
    let tenant = setup.ids.tenant();
    let (head, definition) = workflow(&setup, tenant);
    let workflows = setup.store().workflows();
    workflows.create(&head, &definition).await.unwrap();
    assert_eq!(workflows.list(tenant, None, 10).await.unwrap().items, []);
    assert_eq!(workflows.get(tenant, head.id).await.unwrap().as_ref(), Some(&head), "reads by key are not stale");
    let run = setup.run(tenant, head.id);
    setup.store().runs().create(&run, None).await.unwrap();
    let by_workflow = RunFilter { workflow: Some(head.id), ..RunFilter::default() };
    assert_eq!(setup.store().runs().list(tenant, &by_workflow, None, 10).await.unwrap().items, []);
    setup.settle();
    assert_eq!(workflows.list(tenant, None, 10).await.unwrap().items, [head]);
    assert_eq!(setup.store().runs().list(tenant, &by_workflow, None, 10).await.unwrap().items, [run]);
}

#[tokio::test]
async fn an_item_that_is_too_large_is_refused() {
    let setup = Setup::memory().await;
    let mut user = setup.account("alex@example.com");
    user.user.name = "x".repeat(500_000);
    let refused = setup.store().accounts().create(user.new_account()).await;
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    assert_eq!(setup.store().tenants().get(user.tenant.id).await.unwrap(), None);
    let claimed = setup.run(user.tenant.id, setup.ids.workflow());
    let detail = tidegate_model::Payload::Inline("x".repeat(500_000).into());
    let refused = setup.store().runs().create(&claimed, Some(&detail)).await;
    assert!(matches!(refused, Err(CreateError::Store(Error::Refused { .. }))), "{refused:?}");
}
