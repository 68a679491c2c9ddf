//! Throughput and latency of one `tidegate serve`: posts orders with unique ids to a workflow with one `http.request`
//! step, and matches the ids at a sink of its own.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::json;
use tidegate_scenarios::{Api, Server};

use crate::ledger::{Ledger, Report};
use crate::load::{self, Pace};
use crate::process::Usage;
use crate::{say, sink};

/// Measures one `tidegate serve`: throughput, latency, CPU and memory.
#[derive(Args)]
pub(crate) struct Options {
    /// The server's binary; by default the `tidegate` beside this program.
    #[arg(long)]
    server: Option<PathBuf>,
    /// Runs to post as fast as they are accepted.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    runs: u32,
    /// Connections to post them over, kept alive.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    connections: u16,
    /// Runs to post before the measurement begins.
    #[arg(long, default_value_t = 500)]
    warmup: u32,
    /// Runs a second to post afterwards at a steady pace, to measure latency; 0 leaves that out.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    rate: u32,
    /// Seconds to keep that pace.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    rate_seconds: u32,
    /// Seconds after which a phase is given up: what hasn't arrived by then is lost.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    timeout_seconds: u64,
}

/// Starts the server, posts the phases and prints what came of them.
///
/// # Errors
/// A run was lost, doubled or refused, or the server failed.
pub(crate) async fn measure(options: Options) -> anyhow::Result<()> {
    let binary = match options.server {
        Some(binary) => binary,
        None => std::env::current_exe()?.with_file_name("tidegate"),
    };
    let folder = tempfile::tempdir()?;
    let server = Server::start(&binary, folder.path()).await?;
    let pid = server.pid()?;
    let ledger = Rc::new(Ledger::default());
    let sink = sink::start(ledger.clone()).await?;

    let api = Api::register(server.url()).await?;
    let request = json!({
        "method": "POST",
        "url": format!("http://{sink}/"),
        "json": {"id": "{{id}}", "text": "Hello {{user.name}}! Order #{{order.id}} confirmed."},
    });
    let workflow = api.create_workflow("Benchmark", json!([{"id": "call", "uses": "http.request", "with": request}]));
    let target = load::Target::new(server.url(), &workflow.await?)?;
    let idle = Usage::of(pid)?;

    let timeout = Duration::from_secs(options.timeout_seconds);
    let connections = usize::from(options.connections);
    let mut phases = vec![("warm-up", options.warmup, Pace::Closed), ("saturated", options.runs, Pace::Closed)];
    if options.rate > 0 {
        phases.push(("steady", options.rate * options.rate_seconds, Pace::PerSecond(options.rate)));
    }
    say(&format!("tidegate-bench: {} runs over {connections} connections", options.runs));
    let mut reports = Vec::new();
    for (name, runs, pace) in phases {
        let report = phase(&ledger, &target, pid, Load { runs, connections, pace, timeout }).await?;
        if name != "warm-up" {
            say(&format!("\n{}", report.table(name)));
        }
        reports.push((name, report));
    }

    let end = Usage::of(pid)?;
    say(&format!(
        "\nmemory of the server (MB)\n  idle {:.0}   after {:.0}   peak {:.0}",
        idle.resident_mb, end.resident_mb, end.peak_mb
    ));
    let checked = check_records(&api, &ledger).await?;
    say(&format!("\n{checked} run records read back: all succeeded"));
    for (name, report) in &reports {
        ensure!(report.lost == 0, "{name}: {} accepted runs did not arrive within {timeout:?}", report.lost);
        ensure!(report.doubled == 0, "{name}: {} runs arrived more than once", report.doubled);
        ensure!(report.refused == 0, "{name}: {} posts were not accepted", report.refused);
    }
    server.kill().await
}

/// What a phase posts.
struct Load {
    runs: u32,
    connections: usize,
    pace: Pace,
    timeout: Duration,
}

async fn phase(ledger: &Rc<Ledger>, target: &load::Target, pid: u32, load: Load) -> anyhow::Result<Report> {
    let before = (Usage::of(pid)?, Usage::of(std::process::id())?);
    ledger.begin(load.runs);
    let whole = async {
        load::post(ledger, target, load.connections, load.pace).await?;
        ledger.all_arrived().await;
        anyhow::Ok(())
    };
    if let Ok(outcome) = tokio::time::timeout(load.timeout, whole).await {
        outcome.context("post runs")?;
    }
    let after = (Usage::of(pid)?, Usage::of(std::process::id())?);
    Ok(ledger.report(after.0.cpu - before.0.cpu, after.1.cpu - before.1.cpu))
}

/// Reads a hundred of the runs back: what arrived must be on record as succeeded.
async fn check_records(api: &Api, ledger: &Ledger) -> anyhow::Result<usize> {
    let runs = ledger.sample(100);
    for run in &runs {
        let record = api.finished_run(run, Duration::from_secs(30)).await?;
        ensure!(record["status"] == "succeeded", "{run} arrived, but its record says {record}");
    }
    Ok(runs.len())
}
