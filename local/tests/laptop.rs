//! The scenarios against the `tidegate` process as somebody runs it on a laptop.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tidegate_scenarios::{Api, Server, Sink, scenario, triggers};

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

#[tokio::test]
async fn a_thousand_deliveries_of_a_hundred_ids_are_a_hundred_runs() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Path::new(env!("CARGO_BIN_EXE_tidegate")), folder.path()).await.unwrap();
    let api = Api::register(server.url()).await.unwrap();
    let sink = Sink::start(Duration::ZERO).await.unwrap();
    triggers::deliveries(&api, &sink).await.unwrap();
}

/// The memory that a file of 20 MB takes is bounded: nowhere is it held more than a few times.
#[tokio::test]
async fn a_file_is_uploaded_processed_stored_and_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Path::new(env!("CARGO_BIN_EXE_tidegate")), folder.path()).await.unwrap();
    let api = Api::register(server.url()).await.unwrap();
    let sink = Sink::start(Duration::ZERO).await.unwrap();
    let before = server.peak_memory().unwrap();
    triggers::uploads(&api, &sink).await.unwrap();
    let after = server.peak_memory().unwrap();
    println!("peak memory: {} MB before, {} MB after", before / 1_000_000, after / 1_000_000);
    assert!(after - before < 100_000_000, "from {before} to {after} bytes");
}

#[tokio::test]
async fn a_webhook_answers_with_its_runs_output() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Path::new(env!("CARGO_BIN_EXE_tidegate")), folder.path()).await.unwrap();
    let api = Api::register(server.url()).await.unwrap();
    triggers::answers(&api).await.unwrap();
}
