//! The admin function as its callers see it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod access;
mod administrators;
mod clients;
mod lists;

use serde_json::Value;
use tidegate_admin::{Deps, api};
use tidegate_testing::{Answer, Session, TestApp, World};

/// A new instance: it has looked up nothing yet.
fn instance(world: &World) -> TestApp {
    let deps = Deps {
        store: world.store_of("admin"),
        authenticator: world.authenticator_of("admin"),
        clock: world.clock.clone(),
        ids: world.ids.clone(),
    };
    TestApp::new(world, api(deps))
}

/// Somebody new who administers the installation.
async fn administrator(world: &World, name: &str) -> Session {
    let session = world.session(name).await;
    world.store.platform().add_administrator(session.user, world.clock.now(), None).await.unwrap();
    session
}

fn platform(path: &str) -> String {
    format!("/api/admin/platform/{path}")
}

/// The ids of a list's items.
fn ids(answer: &Answer, member: &str) -> Vec<String> {
    let items = answer.body["items"].as_array().unwrap();
    items.iter().map(|item| item[member].as_str().unwrap().to_owned()).collect()
}

/// The actions of an audit log, the last first.
async fn log(app: &TestApp, caller: &Session, query: &str) -> Vec<Value> {
    let answer = app.get(caller, &platform(&format!("audit?limit=100{query}"))).await.expect(200);
    answer.body["items"].as_array().unwrap().clone()
}
