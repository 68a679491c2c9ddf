//! `tidegate serve`: opens the parts, listens, works, and stops in good order.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::parts::Parts;
use crate::settings::Serve;
use crate::{demo, pages, workers};

/// How long runs in flight may take to end when the process is asked to stop; what is left is resumed by the next one.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How often blobs whose runs have expired are removed.
const BLOB_SWEEP_INTERVAL: Duration = Duration::from_secs(3_600);

/// Serves until SIGINT or SIGTERM.
pub(crate) async fn serve(settings: Serve) -> anyhow::Result<()> {
    let parts = Parts::open(&settings).await?;
    let worker = parts.worker(&settings)?;
    let mut router = parts.api()?.into_router(parts.ids.clone()).merge(pages::errors());

    let listener = TcpListener::bind(settings.address())
        .await
        .with_context(|| format!("can't listen on {}; choose another --port", settings.address()))?;
    let url = format!("http://{}", listener.local_addr()?);
    let data = std::path::absolute(&settings.data_dir)?;
    announce(&url, &data);
    if settings.demo {
        router = router.merge(demo::inbox());
        demo::prepare(&router, &url, &data).await?;
    }

    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let concurrency = usize::from(settings.workers);
    let working = tokio::spawn(workers::work(worker, parts.queue.clone(), concurrency, stop.clone(), tasks.clone()));
    let sweeping = tokio::spawn(parts.embedded.sweeping());
    let sweeping_blobs = tokio::spawn(sweep_blobs(parts.blobs.clone(), parts.clock.clone()));

    let stopped = stop.clone();
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            wait_for_signal().await;
            tracing::info!(component = "local", "stopping: no new requests and runs are taken");
            stopped.cancel();
        })
        .await?;

    working.await?;
    sweeping.abort();
    sweeping_blobs.abort();
    tasks.close();
    if tokio::time::timeout(STOP_TIMEOUT, tasks.wait()).await.is_err() {
        tracing::warn!(
            component = "local",
            runs = tasks.len(),
            "stopped with runs in flight; the next start resumes them"
        );
    }
    Ok(())
}

/// Tells a person where things are. Standard output is for log lines.
#[expect(clippy::print_stderr, reason = "this is what a person at the terminal reads")]
fn announce(url: &str, data: &Path) {
    eprintln!("Tidegate listens on {url}");
    eprintln!("Its data lies in {}", data.display());
    eprintln!("Try:  curl {url}/q/health");
}

async fn sweep_blobs(
    blobs: std::sync::Arc<tidegate_platform::blobs::folder::FolderBlobs>,
    clock: tidegate_platform::Clock,
) {
    loop {
        let before = clock.now().checked_sub(tidegate_store::RETENTION).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        match blobs.sweep_kept(before).await {
            Ok(removed) => tracing::debug!(component = "local", removed, "swept expired blobs"),
            Err(error) => tracing::warn!(
                component = "local",
                error = &error as &dyn std::error::Error,
                "sweeping expired blobs failed"
            ),
        }
        tokio::time::sleep(BLOB_SWEEP_INTERVAL).await;
    }
}

async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(
                component = "local",
                error = &error as &dyn std::error::Error,
                "signals can't be listened to"
            );
            std::future::pending::<()>().await;
        }
    }
}
