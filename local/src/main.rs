//! The `tidegate` command: `tidegate serve` runs the whole product in one process over the embedded store, queue,
//! scheduler, key file and blobs, with its data in a folder; `tidegate admin` says who administers it.

mod admin;
mod demo;
mod files;
mod parts;
mod serve;
mod settings;
mod workers;

use std::time::Duration;

use clap::Parser;

use crate::settings::{Cli, Command};

/// How long to wait at the end for calls that can't be interrupted, such as the resolution of a name.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Serve(settings) => {
            tidegate_telemetry::init("tidegate", &settings.log)?;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let served = runtime.block_on(serve::serve(settings));
            runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
            served
        }
        Command::Admin(settings) => {
            tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(admin::run(settings))
        }
        Command::Openapi => tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let parts = parts::Parts::in_memory().await?;
            let api = parts.api("http://localhost", &parts.egress(Vec::new(), Vec::new()))?;
            print(&api.document().to_pretty_json()?);
            Ok(())
        }),
        Command::Schema => {
            print(&serde_json::to_string_pretty(&tidegate_workflows::definition_schema())?);
            Ok(())
        }
    }
}

#[expect(clippy::print_stdout, reason = "the document is what the command is for")]
fn print(document: &str) {
    println!("{document}");
}
