//! A connection moves under the tenant's new data key when it is next read.

use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tidegate_model::{Connection, DataKey, Tenant};
use tidegate_platform::key_service::KeyContext;

use crate::{Setup, setup};

const SECRET: &str = "https://hooks.slack.com/services/T000/B000/s3cr3t";

impl Setup {
    fn connections_context(&self) -> KeyContext {
        KeyContext::connections(self.owner.tenant)
    }

    async fn tenant(&self) -> Tenant {
        self.world.store.tenants().get(self.owner.tenant).await.unwrap().unwrap()
    }

    /// What the auth function does.
    async fn new_data_key(&self) {
        let wrapped = self.world.envelope.new_data_key(&self.connections_context()).await.unwrap();
        let before = self.tenant().await;
        let number = before.data_keys.last().unwrap().number + 1;
        let mut after = Tenant { revision: before.revision + 1, ..before };
        after.data_keys.push(DataKey { number, wrapped, ingress: None, created_at: self.world.clock.now() });
        self.world.store.tenants().replace(&after).await.unwrap();
    }

    async fn stored(&self, id: &str) -> Connection {
        self.world.store.connections().get(self.owner.tenant, id.parse().unwrap()).await.unwrap().unwrap()
    }

    /// The number of the key that a connection is sealed under, and what it holds.
    async fn opened(&self, id: &str) -> (u32, Value) {
        let (stored, tenant) = (self.stored(id).await, self.tenant().await);
        let wrapped = &tenant.data_key(stored.data_key).unwrap().wrapped;
        let (context, envelope) = (self.connections_context(), &self.world.envelope);
        let plain = envelope.open(wrapped, &context, id.as_bytes(), &stored.sealed).await.unwrap();
        (stored.data_key, serde_json::from_slice(&plain).unwrap())
    }
}

#[tokio::test]
async fn a_secret_survives_every_new_key() {
    let setup = setup().await;
    let (app, owner) = (&setup.app, &setup.owner);
    let (read, listed, untouched) = (setup.slack(owner).await, setup.slack(owner).await, setup.slack(owner).await);
    let secret = json!({"webhook_url": SECRET});
    assert_eq!(setup.opened(&read).await, (1, secret.clone()));
    setup.new_data_key().await;
    let path = format!("/api/connections/{read}");
    let before = app.get(owner, &path).await.expect(200).body;
    assert_eq!(setup.opened(&read).await, (2, secret.clone()));
    assert_eq!(setup.opened(&untouched).await, (1, secret.clone()), "nobody read it");
    // Once sealed under the newest, it is written no more.
    let stored = setup.stored(&read).await;
    assert_eq!(app.get(owner, &path).await.expect(200).body, before);
    assert_eq!(setup.stored(&read).await, stored);

    setup.new_data_key().await;
    app.get(owner, "/api/connections").await.expect(200);
    for id in [&read, &listed, &untouched] {
        assert_eq!(setup.opened(id).await, (3, secret.clone()));
    }
    let made = setup.slack(owner).await;
    assert_eq!(setup.opened(&made).await, (3, secret));
}

#[tokio::test]
async fn who_reads_at_once_seals_once_and_nobody_brings_back_what_was_deleted() {
    let setup = setup().await;
    let (app, owner) = (&setup.app, &setup.owner);
    let (kept, deleted) = (setup.slack(owner).await, setup.slack(owner).await);
    setup.new_data_key().await;
    let paths = ["/api/connections".to_owned(), format!("/api/connections/{kept}")];
    let gone = format!("/api/connections/{deleted}");
    let reads = (0..8).map(|index| app.send(Some(owner), Method::GET, &paths[index % 2], &[], ""));
    let (answers, deletion) = futures::join!(join_all(reads), app.delete(owner, &gone));
    assert!(answers.iter().all(|answer| answer.status == 200) && deletion.status == 204);
    assert_eq!(setup.opened(&kept).await, (2, json!({"webhook_url": SECRET})));
    app.get(owner, &gone).await.expect(404);
    app.get(owner, "/api/connections").await.expect(200);
    app.get(owner, &gone).await.expect(404);
}

#[tokio::test]
async fn a_connection_that_does_not_open_is_shown_all_the_same() {
    let setup = setup().await;
    let (app, owner) = (&setup.app, &setup.owner);
    let (good, bad) = (setup.slack(owner).await, setup.slack(owner).await);
    let stored = setup.stored(&bad).await;
    let broken = Connection { sealed: setup.stored(&good).await.sealed, ..stored.clone() };
    assert!(setup.world.store.connections().replace(&stored, &broken).await.unwrap());
    setup.new_data_key().await;
    app.get(owner, &format!("/api/connections/{bad}")).await.expect(200);
    let listed = app.get(owner, "/api/connections").await.expect(200);
    assert_eq!(listed.body["items"].as_array().unwrap().len(), 2);
    assert_eq!(setup.stored(&bad).await, broken, "nothing is lost");
    assert_eq!(setup.opened(&good).await.0, 2, "and the others move");
}
