//! `tidegate-bench`: how fast Tidegate is and what it costs. [`throughput`]: how many durable webhook runs a second
//! one `tidegate serve` does. [`start`]: how long a Lambda function takes to start. [`cost`]: what AWS is asked for
//! one run, and what it asks for that. Each ends by itself, and with an error where a promise is broken.

mod cost;
mod latencies;
mod ledger;
mod load;
mod process;
mod sink;
mod start;
mod throughput;

use std::process::ExitCode;

use anyhow::bail;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// Measures Tidegate. Without a command: throughput, latency, CPU and memory of one `tidegate serve`.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    throughput: throughput::Options,
}

#[derive(Subcommand)]
enum Command {
    /// Starts every Lambda function's bootstrap as Lambda would, and measures size, start, memory and a no-op.
    Start(start::Options),
    /// Counts what AWS is asked for one run, and prices it.
    Cost(cost::Options),
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "this program has no log")]
            {
                eprintln!("tidegate-bench: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    // One thread: what is measured shares the machine with this program.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let measure = async {
            match cli.command {
                None => throughput::measure(cli.throughput).await,
                Some(Command::Start(options)) => start::measure(options).await,
                Some(Command::Cost(options)) => cost::measure(options).await,
            }
        };
        // The processes that were started are killed when `measure` is dropped, so it must be, whoever ends this.
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            outcome = measure => outcome,
            _ = interrupt.recv() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })
}

#[expect(clippy::print_stdout, reason = "the report is what this program is for")]
fn say(text: &str) {
    println!("{text}");
}
