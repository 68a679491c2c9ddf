//! Workflows and their versions.

use serde_json::json;
use tidegate_model::{Definition, TenantId, Workflow};
use tidegate_store::Error;

use crate::setup::{Setup, everywhere, walk};

fn definition(name: &str) -> Definition {
    serde_json::from_value(json!({
        "name": name,
        "trigger": { "type": "webhook" },
        // A number that DynamoDB's own could not hold.
        "steps": [{ "id": "notify", "uses": "http.request", "with": { "big": 1e300, "text": "{{ order.id }}", "empty": "" } }],
    }))
    .unwrap()
}

pub(crate) fn workflow(setup: &Setup, tenant: TenantId) -> (Workflow, Definition) {
    setup.clock.advance(std::time::Duration::from_millis(1));
    let definition = definition("Order alerts");
    let workflow = Workflow {
        id: setup.ids.workflow(),
        tenant,
        name: definition.name.clone(),
        active: true,
        version: 1,
        revision: 1,
        connections: Vec::new(),
        verification: None,
        listening_until: None,
        trigger: definition.trigger.clone(),
        created_at: setup.clock.now(),
        updated_at: setup.clock.now(),
    };
    (workflow, definition)
}

#[tokio::test]
async fn a_workflow_belongs_to_its_tenant() {
    everywhere(async |setup| {
        let workflows = setup.store().workflows();
        let (tenant, other) = (setup.ids.tenant(), setup.ids.tenant());
        let (head, first) = workflow(&setup, tenant);
        workflows.create(&head, &first).await.unwrap();
        assert_eq!(workflows.get(tenant, head.id).await.unwrap().as_ref(), Some(&head));
        assert_eq!(workflows.get_public(head.id).await.unwrap().as_ref(), Some(&head));
        assert_eq!(workflows.definition(tenant, head.id, 1).await.unwrap().as_ref(), Some(&first));
        assert_eq!(workflows.definition(tenant, head.id, 2).await.unwrap(), None);
        assert_eq!(workflows.get(other, head.id).await.unwrap(), None);
        assert_eq!(workflows.definition(other, head.id, 1).await.unwrap(), None);
        let theirs = Workflow { tenant: other, revision: 2, ..head.clone() };
        assert!(matches!(workflows.replace(1, &theirs, None).await, Err(Error::Conflict { .. })));
        assert!(matches!(workflows.create(&theirs, &first).await, Err(Error::Conflict { .. })));
        assert!(!workflows.delete(other, head.id).await.unwrap());
        assert_eq!(workflows.get(tenant, head.id).await.unwrap(), Some(head));
    })
    .await;
}

#[tokio::test]
async fn of_two_replacements_of_one_revision_one_wins() {
    everywhere(async |setup| {
        let workflows = setup.store().workflows();
        let tenant = setup.ids.tenant();
        let (head, first) = workflow(&setup, tenant);
        workflows.create(&head, &first).await.unwrap();
        let second = definition("Second");
        let changes: Vec<_> =
            (0..4).map(|i| Workflow { name: format!("Change {i}"), version: 2, revision: 2, ..head.clone() }).collect();
        let attempts = changes.iter().map(|change| workflows.replace(1, change, Some(&second)));
        let outcomes = futures::future::join_all(attempts).await;
        let winners: Vec<_> = outcomes.iter().zip(&changes).filter(|(outcome, _)| outcome.is_ok()).collect();
        assert_eq!(winners.len(), 1, "{outcomes:?}");
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(()) | Err(Error::Conflict { .. }))), "{outcomes:?}");
        assert_eq!(workflows.get(tenant, head.id).await.unwrap().as_ref(), Some(winners[0].1));
        assert_eq!(workflows.definition(tenant, head.id, 1).await.unwrap(), Some(first), "versions stay");
        assert_eq!(workflows.definition(tenant, head.id, 2).await.unwrap(), Some(second));

        let off = Workflow { active: false, revision: 3, ..winners[0].1.clone() };
        workflows.replace(2, &off, None).await.unwrap();
        assert_eq!(workflows.get(tenant, head.id).await.unwrap(), Some(off));
    })
    .await;
}

#[tokio::test]
async fn deleting_takes_all_versions() {
    everywhere(async |setup| {
        let workflows = setup.store().workflows();
        let tenant = setup.ids.tenant();
        let (mut head, definition) = workflow(&setup, tenant);
        workflows.create(&head, &definition).await.unwrap();
        for _ in 0..3 {
            head = Workflow { version: head.version + 1, revision: head.revision + 1, ..head };
            workflows.replace(head.revision - 1, &head, Some(&definition)).await.unwrap();
        }
        assert!(workflows.delete(tenant, head.id).await.unwrap());
        assert_eq!(workflows.get(tenant, head.id).await.unwrap(), None);
        for version in 1..=4 {
            assert_eq!(workflows.definition(tenant, head.id, version).await.unwrap(), None);
        }
        assert!(!workflows.delete(tenant, head.id).await.unwrap());
        let late = Workflow { revision: head.revision + 1, ..head.clone() };
        assert!(matches!(workflows.replace(head.revision, &late, None).await, Err(Error::Conflict { .. })));
    })
    .await;
}

/// It used to read every version whole.
#[tokio::test]
async fn deleting_reads_keys_only() {
    let setup = Setup::memory().await;
    let workflows = setup.store().workflows();
    let (mut head, mut definition) = workflow(&setup, setup.ids.tenant());
    definition.steps[0].with.insert("large".to_owned(), "x".repeat(200_000).into());
    workflows.create(&head, &definition).await.unwrap();
    for _ in 0..11 {
        head = Workflow { version: head.version + 1, revision: head.revision + 1, ..head };
        workflows.replace(head.revision - 1, &head, Some(&definition)).await.unwrap();
    }
    setup.embedded.meter.restart(true);
    assert!(workflows.delete(head.tenant, head.id).await.unwrap());
    let (pages, bytes) = (setup.embedded.meter.calls("Query"), setup.embedded.meter.answered_bytes());
    assert!(pages > 1, "a page ends after 1 MB of rows");
    assert!(bytes < 10_000, "{bytes} bytes");
    assert_eq!(workflows.definition(head.tenant, head.id, 12).await.unwrap(), None);
}

#[tokio::test]
async fn a_list_shows_each_of_the_tenants_workflows_once() {
    everywhere(async |setup| {
        let workflows = setup.store().workflows();
        let (tenant, other) = (setup.ids.tenant(), setup.ids.tenant());
        let mut made = Vec::new();
        for _ in 0..5 {
            for tenant in [tenant, other] {
                let (head, definition) = workflow(&setup, tenant);
                workflows.create(&head, &definition).await.unwrap();
                made.push(head);
            }
        }
        setup.settle();
        let mut own: Vec<_> = made.into_iter().filter(|head| head.tenant == tenant).collect();
        own.reverse();
        let pages = walk(async |cursor| workflows.list(tenant, cursor, 2).await.unwrap()).await;
        assert_eq!(pages.concat(), own);
        let cursor = workflows.list(tenant, None, 2).await.unwrap().next_cursor.unwrap();
        let connections = setup.store().connections();
        assert!(matches!(connections.list(tenant, Some(&cursor), 2).await, Err(Error::InvalidCursor)), "another list");
    })
    .await;
}
