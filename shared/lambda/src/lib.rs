//! What every function's `main` needs on Lambda: settings from the environment, AWS behind the ports, the event loop.
//!
//! A start is lean, because every cold start pays for it: the SDK's configuration is put together by hand rather than
//! searched for, all clients share one HTTP client that trusts Amazon's roots alone, and one thread does all the work.

mod ports;
mod sdk;
mod serve;
mod settings;

pub use ports::Aws;
pub use serve::{serve_api, serve_api_and, serve_queue};
pub use settings::SettingError;

/// Runs a function for as long as Lambda keeps its process: starts the log under the function's name, opens AWS, and
/// hands it to `function`, which puts its dependencies together and serves.
///
/// # Errors
/// A setting is missing or wrong, or the runtime API is away; Lambda then reports the start as failed.
pub fn start(service: &'static str, function: impl AsyncFnOnce(Aws) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let filter = settings::optional("TIDEGATE_LOG").unwrap_or_default();
    // A filter that can't be read must not take the installation down.
    if let Err(error) = tidegate_telemetry::init(service, &filter) {
        tidegate_telemetry::init(service, "info")?;
        tracing::error!(component = "lambda", %error, "TIDEGATE_LOG can't be read; logging at info");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async { function(Aws::from_environment()?).await });
    outcome
        .inspect_err(|error| tracing::error!(component = "lambda", error = format!("{error:#}"), "the function ended"))
}
