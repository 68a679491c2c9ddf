//! `tidegate serve`: opens the parts, listens, works, and stops in good order.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use axum::extract::{ConnectInfo, Request};
use axum::http::HeaderMap;
use ipnet::IpNet;
use tidegate_http::Connected;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::util::MapRequestLayer;

use crate::admin::Console;
use crate::parts::Parts;
use crate::settings::Serve;
use crate::{demo, files, workers};

/// How long requests and runs in flight may take to end when the process is asked to stop; runs that are left are
/// resumed by the next one.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How often blobs whose runs have expired are removed.
const BLOB_SWEEP_INTERVAL: Duration = Duration::from_secs(3_600);

/// Serves until SIGINT or SIGTERM, then ends what is in flight; a second signal ends at once.
pub(crate) async fn serve(settings: Serve) -> anyhow::Result<()> {
    let parts = Parts::open(&settings).await?;
    let listener = TcpListener::bind(settings.address())
        .await
        .with_context(|| format!("can't listen on {}; choose another --port", settings.address()))?;
    let url = format!("http://{}", listener.local_addr()?);
    let parts = parts.with_links(&format!("{}{}", settings.public_url(&url), files::PATH))?;
    let mut allow = settings.egress_allow.clone();
    if settings.demo {
        allow.push("127.0.0.1/32".parse()?);
    }
    let egress = parts.egress(allow, settings.extra_roots()?);
    let mut api = parts.api(&settings.public_url(&url), &egress)?;
    if settings.demo {
        api = api.merge(demo::inbox());
    }
    let proxies = settings.trusted_proxies.clone();
    let tell = MapRequestLayer::new(move |request| tell_address(request, &proxies));
    let router = api.into_router(parts.ids.clone()).merge(files::router(parts.blobs.clone())).layer(tell);
    let worker = parts.worker(&settings, &url, egress)?;
    let data = std::path::absolute(&settings.data_dir)?;
    let mut signals = StopSignals::listen()?;
    let (console, _socket) = Console::open(&settings.data_dir)?.unzip();
    if let Some(console) = console {
        let public_url = settings.public_url(&url);
        tokio::spawn(console.serve(parts.auth(&public_url, &parts.limiter())?, public_url));
    }
    announce(&url, &data);
    if settings.demo {
        demo::prepare(&router, &url, &data).await?;
    }

    parts.reconcile().await?;

    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let concurrency = usize::from(settings.run_concurrency);
    let working = tokio::spawn(workers::work(worker, parts.queue.clone(), concurrency, stop.clone(), tasks.clone()));
    tokio::spawn(parts.embedded.sweeping());
    tokio::spawn(sweep_blobs(parts.blobs.clone(), parts.clock.clone()));

    let drained = async {
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        axum::serve(listener, service).with_graceful_shutdown(stop.clone().cancelled_owned()).await?;
        working.await?;
        tasks.close();
        tasks.wait().await;
        anyhow::Ok(())
    };
    let cut_short = async {
        signals.next().await;
        tracing::info!(component = "local", "stopping: no new requests and runs are taken");
        stop.cancel();
        tokio::select! {
            () = tokio::time::sleep(STOP_TIMEOUT) => "the time for it is over",
            () = signals.next() => "asked twice",
        }
    };
    tokio::select! {
        drained = drained => drained?,
        reason = cut_short => tracing::warn!(
            component = "local",
            reason,
            runs = tasks.len(),
            "stopped with requests or runs in flight; the next start resumes the runs"
        ),
    }
    Ok(())
}

/// Tells the operations from which address a request came.
fn tell_address(mut request: Request, proxies: &[IpNet]) -> Request {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let address = peer.map(|peer| client(peer, request.headers(), proxies));
    request.extensions_mut().insert(Connected { address, origin: None });
    request
}

/// Who a request is from: whoever connected, unless that is a proxy that we believe; then whom that names, and so on. What
/// stands further left in `X-Forwarded-For` anybody can have written.
fn client(peer: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> IpAddr {
    let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().filter_map(|line| line.to_str().ok()).collect();
    let mut named = lines.iter().rev().flat_map(|line| line.rsplit(','));
    let mut address = peer.to_canonical();
    while proxies.iter().any(|range| range.contains(&address)) {
        match named.next().and_then(|name| name.trim().parse::<IpAddr>().ok()) {
            Some(before) => address = before.to_canonical(),
            None => break,
        }
    }
    address
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
        match blobs.sweep_expired(before).await {
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

/// What asks the process to stop: SIGINT and SIGTERM.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("can't listen to signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_is_trusted_names_who_is_behind_it() {
        let proxies = ["127.0.0.1/32".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        let client = |peer: &str, lines: &[&str]| {
            let headers =
                lines.iter().map(|line| (http::HeaderName::from_static("x-forwarded-for"), line.parse().unwrap()));
            client(peer.parse().unwrap(), &headers.collect(), &proxies).to_string()
        };
        assert_eq!(client("127.0.0.1", &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(client("::ffff:127.0.0.1", &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(client("127.0.0.1", &["198.51.100.9, 192.0.2.1"]), "192.0.2.1", "the client wrote the first");
        assert_eq!(client("127.0.0.1", &["127.0.0.1", "192.0.2.1 , 10.1.2.3"]), "192.0.2.1");
        assert_eq!(client("127.0.0.1", &["2001:db8::1"]), "2001:db8::1");
        assert_eq!(client("192.0.2.7", &["198.51.100.9"]), "192.0.2.7", "it is no proxy of ours");
        for nothing in [&[][..], &["unknown"], &["192.0.2.1:4711, "]] {
            assert_eq!(client("127.0.0.1", nothing), "127.0.0.1");
        }
    }
}
