//! How long a Lambda function takes to start, what it needs then, and what an invocation that does nothing takes: each
//! bootstrap is started as Lambda would start it, against a stand-in for the runtime API.

mod archive;
mod bootstrap;
mod runtime_api;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use crate::latencies::Latencies;
use crate::process::Usage;
use crate::say;
use bootstrap::Bootstrap;

/// The functions, and whether each takes requests of an HTTP API; the other takes batches of SQS.
const FUNCTIONS: [(&str, Event); 6] = [
    ("tidegate-auth", Event::Http),
    ("tidegate-workflows", Event::Http),
    ("tidegate-webhooks", Event::Http),
    ("tidegate-runs", Event::Http),
    ("tidegate-admin", Event::Http),
    ("tidegate-worker", Event::Queue),
];

/// What is aimed at. MB are 10^6 bytes.
const AIM_ZIP_MB: f64 = 4.0;
const AIM_START_MS: f64 = 5.0;
const AIM_RSS_MB: f64 = 10.0;
const AIM_NO_OP_US: f64 = 100.0;

/// Invocations before those that count.
const WARM_UP: u32 = 50;
/// How long a process may come to rest after its first request, before its memory is read.
const REST: Duration = Duration::from_millis(5);

/// Measures each function's bootstrap.
#[derive(Args)]
pub(crate) struct Options {
    /// Where the functions are: `FOLDER/tidegate-auth/bootstrap` and so on, as cargo-lambda builds them.
    #[arg(long, default_value = "target/lambda")]
    folder: PathBuf,
    /// How often each is started.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    starts: u32,
    /// How many events that need no work the last one gets.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    invocations: u32,
    /// Measures only the functions with this in their name.
    #[arg(long, default_value = "")]
    only: String,
    /// Writes the figures there as JSON too.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// A request that no route matches: the router answers it with a 404, and AWS isn't asked.
    Http,
    /// A batch without messages.
    Queue,
    /// The floor's: anything.
    Any,
}

/// What a bootstrap came to.
struct Figures {
    name: String,
    /// The archive and the file in it; not of the floor.
    size_mb: Option<(f64, f64)>,
    start: Latencies,
    rss_mb: f64,
    no_op: Latencies,
}

/// Measures the bootstraps and prints the table.
///
/// # Errors
/// One is missing, ends, or reports a failure.
pub(crate) async fn measure(options: Options) -> anyhow::Result<()> {
    let floor = std::env::current_exe()?.with_file_name("tidegate-bench-floor");
    let mut all = Vec::new();
    for (name, event) in FUNCTIONS.into_iter().filter(|(name, _)| name.contains(&options.only)) {
        let program = options.folder.join(name).join("bootstrap");
        ensure!(program.is_file(), "{} is missing: build the functions first, see bench/README.md", program.display());
        let mut figures = figures(name, &program, event, &options).await.with_context(|| name.to_owned())?;
        figures.size_mb =
            Some((megabytes(archive::zipped_bytes(&program)?), megabytes(std::fs::metadata(&program)?.len())));
        all.push(figures);
    }
    ensure!(!all.is_empty(), "no function has {:?} in its name", options.only);
    all.push(figures("floor", &floor, Event::Any, &options).await.context("floor")?);
    say(&table(&all, &options));
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&document(&all, &options))?;
        std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

async fn figures(name: &str, program: &Path, event: Event, options: &Options) -> anyhow::Result<Figures> {
    // The first start brings the file into the page cache.
    Bootstrap::start(program).await?.stop().await?;
    let (mut starts, mut rss) = (Vec::new(), Vec::new());
    let mut last = None;
    for _ in 0..options.starts {
        if let Some(previous) = last.take() {
            Bootstrap::stop(previous).await?;
        }
        let bootstrap = Bootstrap::start(program).await?;
        starts.push(bootstrap.took);
        tokio::time::sleep(REST).await;
        rss.push(Usage::of(bootstrap.pid()?)?.resident_mb);
        last = Some(bootstrap);
    }
    let mut bootstrap = last.context("it was started no time")?;
    let mut no_ops = Vec::new();
    for count in 0..WARM_UP + options.invocations {
        let answer = bootstrap.invoke(event.payload()).await?;
        event.check(&answer.body)?;
        if count >= WARM_UP {
            no_ops.push(answer.took);
        }
    }
    bootstrap.stop().await?;
    rss.sort_unstable_by(f64::total_cmp);
    Ok(Figures {
        name: name.to_owned(),
        size_mb: None,
        start: Latencies::new(starts),
        rss_mb: rss[rss.len() / 2],
        no_op: Latencies::new(no_ops),
    })
}

impl Event {
    fn payload(self) -> Bytes {
        Bytes::from_static(match self {
            Self::Http => include_bytes!("../events/http-api.json"),
            Self::Queue => include_bytes!("../events/sqs-empty.json"),
            Self::Any => b"{}",
        })
    }

    /// Whether the answer is the one to an event that needed no work.
    fn check(self, answer: &[u8]) -> anyhow::Result<()> {
        let text = || String::from_utf8_lossy(answer).into_owned();
        let answer: Value = serde_json::from_slice(answer).with_context(|| format!("the answer is {:?}", text()))?;
        let expected = match self {
            Self::Http => answer["statusCode"] == 404,
            Self::Queue => answer["batchItemFailures"].as_array().is_some_and(Vec::is_empty),
            Self::Any => true,
        };
        ensure!(expected, "the answer is {}", text());
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "no file has 2^53 bytes")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

impl Figures {
    fn start_ms(&self) -> f64 {
        self.start.percentile_ms(50)
    }

    fn no_op_us(&self) -> f64 {
        self.no_op.percentile_ms(50) * 1e3
    }
}

fn table(all: &[Figures], options: &Options) -> String {
    let mut table = format!(
        "{:<20}{:>9}{:>11}{:>17}{:>9}{:>9}{:>12}\n{:<20}{:>9}{:>11}{:>17}{:>9}{:>9}{:>12}\n",
        "bootstrap",
        "zip",
        "binary",
        "exec → /next",
        "p95",
        "RSS",
        "no-op",
        "",
        "MB",
        "MB",
        "median, ms",
        "ms",
        "MB",
        "median, µs",
    );
    for figures in all {
        let size = |size: Option<f64>, aim| size.map_or_else(|| "–".to_owned(), |size| marked(size, 2, aim));
        let is_floor = figures.size_mb.is_none();
        let aim = |aim: f64| if is_floor { f64::INFINITY } else { aim };
        // Writing to a string can't fail.
        writeln!(
            table,
            "{:<20}{:>9}{:>11}{:>17}{:>9}{:>9}{:>12}",
            figures.name,
            size(figures.size_mb.map(|(zip, _)| zip), AIM_ZIP_MB),
            size(figures.size_mb.map(|(_, binary)| binary), f64::INFINITY),
            marked(figures.start_ms(), 2, aim(AIM_START_MS)),
            format!("{:.2} ", figures.start.percentile_ms(95)),
            marked(figures.rss_mb, 1, aim(AIM_RSS_MB)),
            marked(figures.no_op_us(), 0, aim(AIM_NO_OP_US)),
        )
        .ok();
    }
    writeln!(
        table,
        "{:<20}{:>9}{:>11}{:>17}{:>9}{:>9}{:>12}",
        "aim",
        format!("≤ {AIM_ZIP_MB} "),
        "",
        format!("≤ {AIM_START_MS} "),
        "",
        format!("≤ {AIM_RSS_MB} "),
        format!("≤ {AIM_NO_OP_US} ")
    )
    .ok();
    write!(
        table,
        "\n! misses its aim. {} starts each with the file in the page cache, {} no-ops; the floor is the smallest \
         program\nthat does the same, so what it shows is the machine and the stand-in for Lambda.",
        options.starts, options.invocations
    )
    .ok();
    table
}

/// A figure with a `!` behind it where it misses its aim.
fn marked(figure: f64, digits: usize, aim: f64) -> String {
    format!("{figure:.digits$}{}", if figure > aim { "!" } else { " " })
}

fn document(all: &[Figures], options: &Options) -> Value {
    let bootstraps: Vec<_> = all
        .iter()
        .map(|figures| {
            json!({
                "name": figures.name,
                "zip_mb": figures.size_mb.map(|(zip, _)| zip),
                "binary_mb": figures.size_mb.map(|(_, binary)| binary),
                "start_ms_median": figures.start_ms(),
                "start_ms_p95": figures.start.percentile_ms(95),
                "rss_mb": figures.rss_mb,
                "no_op_us_median": figures.no_op_us(),
                "no_op_us_p95": figures.no_op.percentile_ms(95) * 1e3,
            })
        })
        .collect();
    json!({
        "starts": options.starts,
        "invocations": options.invocations,
        "aims": {"zip_mb": AIM_ZIP_MB, "start_ms": AIM_START_MS, "rss_mb": AIM_RSS_MB, "no_op_us": AIM_NO_OP_US},
        "bootstraps": bootstraps,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_misses_its_aim_is_marked() {
        assert_eq!(marked(4.0, 2, 4.0), "4.00 ");
        assert_eq!(marked(4.01, 1, 4.0), "4.0!");
    }

    #[test]
    fn only_the_answer_to_a_no_op_passes() {
        assert!(Event::Http.check(br#"{"statusCode": 404, "body": "{}"}"#).is_ok());
        assert!(Event::Http.check(br#"{"statusCode": 500}"#).is_err());
        assert!(Event::Queue.check(br#"{"batchItemFailures": []}"#).is_ok());
        assert!(Event::Queue.check(br#"{"batchItemFailures": [{"itemIdentifier": "1"}]}"#).is_err());
        assert!(Event::Queue.check(b"null").is_err());
    }

    #[test]
    fn the_events_are_json() {
        for event in [Event::Http, Event::Queue, Event::Any] {
            serde_json::from_slice::<Value>(&event.payload()).unwrap();
        }
    }
}
