//! What a run costs: the webhooks function and the worker run in this process, in batches as Lambda's mapping takes
//! them, and what they ask of AWS is counted by the layer under every SDK client. DynamoDB is the embedded one, which
//! bills as AWS documents it; SQS, KMS, S3 and EventBridge Scheduler are an emulator.

mod prices;
mod scenario;
mod tally;
mod target;
mod world;

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::say;
use prices::{Item, Prices};
use scenario::SCENARIOS;
use tally::{Bill, PerRun, broken_budget};
use world::World;

/// Which scenario the budget is for.
const BUDGETED: &str = "one step, warm";
const MINUTES_A_MONTH: f64 = 30.0 * 24.0 * 60.0;
/// The run queue's and the dead letters'.
const MAPPINGS: f64 = 2.0;

/// Counts and prices what a run asks of AWS. Needs the AWS emulator.
#[derive(Args)]
pub(crate) struct Options {
    /// Runs of each scenario, rounded up to whole batches.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    runs: u32,
    /// Counts only the scenarios with this in their name.
    #[arg(long, default_value = "")]
    only: String,
    /// Writes the figures there as JSON too.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Runs the scenarios and prints the tables.
///
/// # Errors
/// A run doesn't end as it should, or the budget of a warm run of one step is broken.
pub(crate) async fn measure(options: Options) -> anyhow::Result<()> {
    let prices = Prices::parse(include_str!("../prices.toml"))?;
    let world = World::new().await?;
    let mut all = Vec::new();
    for scenario in SCENARIOS.iter().filter(|scenario| scenario.name.contains(&options.only)) {
        let tally = world.play(scenario, options.runs).await.with_context(|| scenario.name.to_owned())?;
        all.push((scenario.name, tally.per_run(), tally.bill(&prices)?));
    }
    ensure!(!all.is_empty(), "no scenario has {:?} in its name", options.only);
    say(&format!("{}\n{}\n{}", calls(&all), bills(&all, &prices), idle(&prices)));
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&document(&all, &prices))?;
        std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    }
    for (name, run, _) in &all {
        let broken = if *name == BUDGETED { broken_budget(run) } else { Vec::new() };
        ensure!(broken.is_empty(), "{name}: the budget is broken: {}", broken.join("; "));
    }
    Ok(())
}

type Row = (&'static str, PerRun, Bill);

fn calls(all: &[Row]) -> String {
    let mut table = format!(
        "per run, counted\n{:<34}{:>9}{:>7}{:>7}{:>7}{:>6}{:>6}{:>11}{:>9}{:>10}{:>9}{:>7}\n",
        "", "DynamoDB", "write", "read", "SQS", "KMS", "S3", "Scheduler", "Lambda", "webhooks", "worker", "log",
    );
    writeln!(
        table,
        "{:<34}{:>9}{:>7}{:>7}{:>7}{:>6}{:>6}{:>11}{:>9}{:>10}{:>9}{:>7}",
        "", "calls", "units", "units", "calls", "calls", "calls", "calls", "invoc.", "CPU ms", "CPU ms", "bytes",
    )
    .ok();
    for (name, run, _) in all {
        // Writing to a string can't fail.
        writeln!(
            table,
            "{name:<34}{:>9.2}{:>7.2}{:>7.2}{:>7.2}{:>6.2}{:>6.2}{:>11.2}{:>9.2}{:>10.3}{:>9.3}{:>7.0}",
            run.dynamodb,
            run.write_units,
            run.read_units,
            run.sqs,
            run.kms,
            run.s3,
            run.scheduler,
            run.invocations,
            run.webhooks_cpu_ms,
            run.worker_cpu_ms,
            run.log_bytes,
        )
        .ok();
    }
    table
}

fn bills(all: &[Row], prices: &Prices) -> String {
    let (first, last) = &prices.taken;
    let mut table = format!(
        "a million of them, in dollars: list prices of {}, taken {first} to {last}, without free tiers\n\
         {:<34}{:>9}{:>10}{:>10}{:>10}{:>7}{:>7}{:>7}{:>8}\n",
        prices.region, "", "HTTP API", "requests", "duration*", "DynamoDB", "SQS", "other", "logs", "total",
    );
    for (name, _, bill) in all {
        writeln!(
            table,
            "{name:<34}{:>9.2}{:>10.2}{:>10.2}{:>10.2}{:>7.2}{:>7.2}{:>7.2}{:>8.2}",
            bill.http_api,
            bill.lambda_requests,
            bill.lambda_duration,
            bill.dynamodb,
            bill.sqs,
            bill.other,
            bill.logs,
            bill.total(),
        )
        .ok();
    }
    let assumed = &prices.assumed;
    write!(
        table,
        "* modelled, not counted: the measured CPU, stretched to the share of a processor that {} MB (webhooks) and\n  \
         {} MB (worker) bring, and assumed waits: {} ms for what a step calls, {} ms for a start,\n  {}.\n",
        assumed.webhooks_memory_mb,
        assumed.worker_memory_mb,
        assumed.step_wait_ms,
        assumed.init_ms,
        assumed.wait_ms.iter().map(|(service, ms)| format!("{ms} ms {service}")).collect::<Vec<_>>().join(", "),
    )
    .ok();
    table
}

/// What the mappings' polling costs where nothing comes: extra, whatever the runs cost.
fn idle(prices: &Prices) -> String {
    let receives = prices.assumed.idle_receives_per_minute * MINUTES_A_MONTH * MAPPINGS;
    let usd = idle_usd(prices);
    format!(
        "while idle the two mappings poll: about {receives:.0} requests to SQS a month, ${usd:.2} (by what AWS \
         documents, not measured)"
    )
}

fn idle_usd(prices: &Prices) -> f64 {
    prices.usd(Item::SqsRequest, prices.assumed.idle_receives_per_minute * MINUTES_A_MONTH * MAPPINGS)
}

fn document(all: &[Row], prices: &Prices) -> Value {
    let scenarios: Vec<_> = all
        .iter()
        .map(|(name, run, bill)| {
            json!({
                "name": name,
                "per_run": {
                    "dynamodb_calls": run.dynamodb, "write_units": run.write_units, "read_units": run.read_units,
                    "sqs_requests": run.sqs, "kms_requests": run.kms, "s3_requests": run.s3,
                    "scheduler_calls": run.scheduler, "lambda_invocations": run.invocations,
                    "webhooks_cpu_ms": run.webhooks_cpu_ms, "worker_cpu_ms": run.worker_cpu_ms,
                    "log_bytes": run.log_bytes,
                },
                "usd_per_million": {
                    "http_api": bill.http_api, "lambda_requests": bill.lambda_requests,
                    "lambda_duration_modelled": bill.lambda_duration, "dynamodb": bill.dynamodb, "sqs": bill.sqs,
                    "other": bill.other, "logs": bill.logs, "total": bill.total(),
                },
            })
        })
        .collect();
    json!({
        "region": prices.region,
        "prices_taken": [prices.taken.0, prices.taken.1],
        "idle_usd_per_month": idle_usd(prices),
        "scenarios": scenarios,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budgeted_scenario_is_one_of_them() {
        assert!(SCENARIOS.iter().any(|scenario| scenario.name == BUDGETED));
    }
}
