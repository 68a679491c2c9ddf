//! Connections.

use tidegate_model::{Connection, TenantId};
use tidegate_store::Error;

use crate::setup::{Setup, everywhere, walk};

fn connection(setup: &Setup, tenant: TenantId, name: &str) -> Connection {
    setup.clock.advance(std::time::Duration::from_millis(1));
    Connection {
        id: setup.ids.connection(),
        tenant,
        name: name.to_owned(),
        connector: "slack".to_owned(),
        publisher: tidegate_model::Publisher::Builtin,
        auth: "bearer".to_owned(),
        settings: serde_json::Map::new(),
        hosts: vec!["hooks.slack.com".to_owned()],
        placement: tidegate_model::Placement::default(),
        oauth: None,
        health: tidegate_model::Health::default(),
        data_key: 1,
        sealed: "c2VhbGVk".to_owned(),
        created_by: None,
        created_at: setup.clock.now(),
    }
}

#[tokio::test]
async fn a_connection_belongs_to_its_tenant() {
    everywhere(async |setup| {
        let connections = setup.store().connections();
        let (tenant, other) = (setup.ids.tenant(), setup.ids.tenant());
        let slack = connection(&setup, tenant, "Slack");
        connections.create(&slack).await.unwrap();
        assert_eq!(connections.get(tenant, slack.id).await.unwrap().as_ref(), Some(&slack));
        assert_eq!(connections.get(other, slack.id).await.unwrap(), None);
        let changed = Connection { name: "Slack 2".to_owned(), ..slack.clone() };
        assert!(matches!(connections.create(&changed).await, Err(Error::Conflict { .. })));

        assert!(!connections.delete(other, slack.id).await.unwrap());
        assert!(connections.get(tenant, slack.id).await.unwrap().is_some());
        assert!(connections.delete(tenant, slack.id).await.unwrap());
        assert_eq!(connections.get(tenant, slack.id).await.unwrap(), None);
        assert!(!connections.delete(tenant, slack.id).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_list_shows_each_of_the_tenants_connections_once() {
    everywhere(async |setup| {
        let connections = setup.store().connections();
        let (tenant, other) = (setup.ids.tenant(), setup.ids.tenant());
        let mut made = Vec::new();
        for i in 0..7 {
            made.push(connection(&setup, tenant, &format!("c{i}")));
            connections.create(&made[i]).await.unwrap();
            connections.create(&connection(&setup, other, "theirs")).await.unwrap();
        }
        setup.settle();
        made.reverse();
        for limit in [1, 3, 7, 100] {
            let pages = walk(async |cursor| connections.list(tenant, cursor, limit).await.unwrap()).await;
            assert!(pages.iter().all(|page| page.len() <= limit));
            assert_eq!(pages.concat(), made, "newest first, limit {limit}");
        }
        let first = connections.list(tenant, None, 2).await.unwrap();
        let cursor = first.next_cursor.unwrap();
        for (tenant, cursor) in [(other, cursor.as_str()), (tenant, "nonsense"), (tenant, "")] {
            assert!(matches!(connections.list(tenant, Some(cursor), 2).await, Err(Error::InvalidCursor)));
        }
    })
    .await;
}
