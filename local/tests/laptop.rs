//! The scenarios against the `tidegate` process as somebody runs it on a laptop.

use std::path::Path;
use std::time::Duration;

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
async fn vendors_deliveries_start_workflows() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Path::new(env!("CARGO_BIN_EXE_tidegate")), folder.path()).await.unwrap();
    let api = Api::register(server.url()).await.unwrap();
    let sink = Sink::start(Duration::ZERO).await.unwrap();
    scenario::vendors(&api, &sink).await.unwrap();
}
