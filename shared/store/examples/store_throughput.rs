//! How many runs a second the embedded store takes: each is created and replaced, as the worker does for a run of one
//! step. `cargo run --profile fast -p tidegate-store --example store_throughput [folder]`; without a folder, in memory.

#![expect(clippy::print_stdout, reason = "a program that prints its results")]

use std::path::Path;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use jiff::Timestamp;
use serde_json::json;
use tidegate_model::{Payload, RunRow, RunStatus, TriggerKind};
use tidegate_platform::{Clock, Ids};
use tidegate_store::Store;
use tidegate_store::embedded::{Faults, Location, open};

const RUNS: usize = 8_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1);
    let location = folder.as_deref().map_or(Location::Memory, |folder| Location::Folder(Path::new(folder)));
    let embedded = open(location, Faults::default()).await?;
    println!("{location:?}");
    for concurrency in [1, 8, 32] {
        let runs = if concurrency == 1 { RUNS / 4 } else { RUNS };
        let begun = Instant::now();
        let mut took: Vec<Duration> = futures::stream::iter(prepare(runs))
            .map(|row| {
                let store = embedded.store.clone();
                tokio::spawn(async move { run(&store, row).await })
            })
            .buffer_unordered(concurrency)
            .map(|done| done.map_err(|error| error.to_string()).and_then(|done| done))
            .collect::<Vec<_>>()
            .await
            .into_iter()
            .collect::<Result<_, _>>()?;
        let seconds = begun.elapsed().as_secs_f64();
        took.sort_unstable();
        let rate = f64::from(u32::try_from(runs)?) / seconds;
        let (median, tail) = (took[runs / 2], took[runs * 99 / 100]);
        println!(
            "c={concurrency:<2} {rate:>6.0} runs/s, {:>6.0} writes/s, a run p50 {median:?} p99 {tail:?}",
            rate * 2.0
        );
    }
    Ok(())
}

fn prepare(count: usize) -> Vec<RunRow> {
    let clock = Clock::system();
    let ids = Ids::new(clock.clone());
    let (tenant, workflow) = (ids.tenant(), ids.workflow());
    let now: Timestamp = clock.now();
    let row = |_| {
        let id = ids.run(tenant);
        RunRow {
            id,
            tenant,
            workflow,
            version: 1,
            trigger: TriggerKind::Webhook,
            status: RunStatus::Running,
            accepted_at: now,
            started_at: now,
            finished_at: None,
            fence: 1,
            lease_until: now,
            lease_owner: format!("worker-1/{id}"),
            claims: 1,
            journal_length: 0,
            wake: 0,
            wake_at: None,
            traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
            error: None,
            failed_step: None,
            cancel_requested: false,
            parent: None,
        }
    };
    (0..count).map(row).collect()
}

async fn run(store: &Store, claimed: RunRow) -> Result<Duration, String> {
    let begun = Instant::now();
    store.runs().create(&claimed, None).await.map_err(|error| error.to_string())?;
    let finished = RunRow { status: RunStatus::Succeeded, finished_at: Some(claimed.started_at), ..claimed.clone() };
    let detail = Payload::Inline(json!({
        "trigger": { "type": "webhook", "body": { "inline": { "user": { "name": "Alex" }, "order": { "id": "12345" } } } },
        "steps": [{ "id": "notify", "uses": "slack.send_message", "output": { "inline": "x".repeat(200) } }],
    }));
    store.runs().replace(&claimed, &finished, Some(&detail)).await.map_err(|error| error.to_string())?;
    Ok(begun.elapsed())
}
