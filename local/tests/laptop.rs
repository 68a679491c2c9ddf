//! The scenarios against the `tidegate` process as somebody runs it on a laptop.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tidegate_scenarios::{Api, Server, Sink, scenario};

#[tokio::test]
async fn a_webhook_greets_on_slack() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Path::new(env!("CARGO_BIN_EXE_tidegate")), folder.path()).await.unwrap();
    let api = Api::register(server.url()).await.unwrap();
    let sink = Sink::start(Duration::ZERO).await.unwrap();
    scenario::greeting(&api, &sink).await.unwrap();
}

#[tokio::test]
async fn people_decide_and_cancel() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Path::new(env!("CARGO_BIN_EXE_tidegate")), folder.path()).await.unwrap();
    let api = Api::register(server.url()).await.unwrap();
    let sink = Sink::start(Duration::ZERO).await.unwrap();
    scenario::decisions(&api, &sink).await.unwrap();
}

#[tokio::test]
async fn people_and_machines_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Path::new(env!("CARGO_BIN_EXE_tidegate")), folder.path()).await.unwrap();
    let (email, password) = ("alex@example.com", "correct horse battery staple");
    let account = json!({"email": email, "password": password, "name": "Alex", "tenant_name": "Example"});
    Api::anonymous(server.url()).unwrap().post("/api/auth/register", account).await.unwrap();
    let api = Api::log_in(server.url(), email, password).await.unwrap();
    let sink = Sink::start(Duration::ZERO).await.unwrap();
    scenario::identity(&api, &sink, email, password).await.unwrap();
}

#[tokio::test]
async fn vendors_deliveries_start_workflows() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Path::new(env!("CARGO_BIN_EXE_tidegate")), folder.path()).await.unwrap();
    let api = Api::register(server.url()).await.unwrap();
    let sink = Sink::start(Duration::ZERO).await.unwrap();
    scenario::vendors(&api, &sink).await.unwrap();
}

#[tokio::test]
async fn a_connector_that_is_uploaded_is_used_at_once_and_keeps_to_its_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Path::new(env!("CARGO_BIN_EXE_tidegate")), folder.path()).await.unwrap();
    let api = Api::register(server.url()).await.unwrap();
    let sink = Sink::start(Duration::ZERO).await.unwrap();
    scenario::connectors(&api, &sink).await.unwrap();
}
