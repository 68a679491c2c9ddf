//! Metrics in CloudWatch's embedded metric format: log lines that CloudWatch turns into metrics
//! (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>).

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};
use tidegate_platform::Clock;

const NAMESPACE: &str = "Tidegate";
/// The most values of one metric in a line.
const MAX_VALUES: usize = 100;

/// Collects what a batch of work measured, to be written as one line for each outcome. Clones share it.
/// [`Metrics::default`] collects nothing, for where nobody writes it.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    collected: Option<Arc<Mutex<Collected>>>,
}

#[derive(Debug, Default)]
struct Collected {
    /// By the run's final status.
    runs: BTreeMap<String, Vec<EndedRun>>,
    dead_letters: u64,
    dropped: u64,
}

/// A run that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedRun {
    /// From its acceptance to its end, in milliseconds.
    pub duration_ms: i64,
    /// From its acceptance to its first claim, in milliseconds.
    pub queue_age_ms: i64,
}

impl Metrics {
    /// Collects until [`Metrics::write`].
    pub fn collecting() -> Self {
        Self { collected: Some(Arc::default()) }
    }

    /// Counts a run; `outcome` is its final status.
    pub fn run_ended(&self, outcome: &str, run: EndedRun) {
        self.with(|collected| collected.runs.entry(outcome.to_owned()).or_default().push(run));
    }

    /// Counts a dead letter: a message that could not be handled as often as it was tried.
    pub fn dead_letter(&self) {
        self.with(|collected| collected.dead_letters += 1);
    }

    /// Counts a message that ended without a run on record: one that is no message of ours. It must stay 0.
    pub fn dropped(&self) {
        self.with(|collected| collected.dropped += 1);
    }

    /// Writes what was collected since the last time, under the function's name, which tells installations apart; each
    /// line in one write. Nothing collected writes nothing.
    ///
    /// # Errors
    /// The writer's.
    pub fn write(&self, function: &str, clock: &Clock, out: &mut dyn Write) -> std::io::Result<()> {
        let Some(collected) = &self.collected else { return Ok(()) };
        let collected = std::mem::take(&mut *collected.lock().unwrap_or_else(PoisonError::into_inner));
        let at = clock.now().as_millisecond();
        let mut lines = Vec::new();
        for (outcome, runs) in &collected.runs {
            for runs in runs.chunks(MAX_VALUES) {
                let of = |value: fn(&EndedRun) -> i64| runs.iter().map(value).collect::<Vec<_>>();
                let metrics = [
                    ("runs", "Count", json!(runs.len())),
                    ("duration_ms", "Milliseconds", json!(of(|run| run.duration_ms))),
                    ("queue_age_ms", "Milliseconds", json!(of(|run| run.queue_age_ms))),
                ];
                lines.push(line(at, &[("function", function), ("outcome", outcome)], &metrics));
            }
        }
        if !collected.runs.is_empty() || collected.dead_letters + collected.dropped > 0 {
            let metrics = [
                ("dead_letters", "Count", json!(collected.dead_letters)),
                ("dropped", "Count", json!(collected.dropped)),
            ];
            lines.push(line(at, &[("function", function)], &metrics));
        }
        lines.iter().try_for_each(|line| out.write_all(line.as_bytes()))
    }

    fn with(&self, count: impl FnOnce(&mut Collected)) {
        if let Some(collected) = &self.collected {
            count(&mut collected.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

fn line(at_ms: i64, dimensions: &[(&str, &str)], metrics: &[(&str, &str, Value)]) -> String {
    let names: Vec<_> = dimensions.iter().map(|(name, _)| name).collect();
    let described: Vec<_> = metrics.iter().map(|(name, unit, _)| json!({"Name": name, "Unit": unit})).collect();
    let directive = json!({"Namespace": NAMESPACE, "Dimensions": [names], "Metrics": described});
    let mut line = Map::new();
    line.insert("_aws".to_owned(), json!({"Timestamp": at_ms, "CloudWatchMetrics": [directive]}));
    line.extend(dimensions.iter().map(|(name, value)| ((*name).to_owned(), json!(value))));
    line.extend(metrics.iter().map(|(name, _, value)| ((*name).to_owned(), value.clone())));
    format!("{}\n", Value::Object(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(metrics: &Metrics) -> Vec<Value> {
        let clock = Clock::manual(jiff::Timestamp::from_millisecond(1_795_168_800_000).unwrap());
        let mut out = Vec::new();
        metrics.write("tidegate-worker", &clock, &mut out).unwrap();
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_for_each_outcome_and_one_for_the_batch() {
        let metrics = Metrics::collecting();
        metrics.run_ended("succeeded", EndedRun { duration_ms: 12, queue_age_ms: 3 });
        metrics.run_ended("failed", EndedRun { duration_ms: 7, queue_age_ms: 1 });
        metrics.run_ended("succeeded", EndedRun { duration_ms: 15, queue_age_ms: 4 });
        metrics.dead_letter();
        let lines = written(&metrics);
        assert_eq!(lines.len(), 3);
        assert_eq!(
            lines[1],
            json!({
                "_aws": {"Timestamp": 1_795_168_800_000_i64, "CloudWatchMetrics": [{
                    "Namespace": "Tidegate",
                    "Dimensions": [["function", "outcome"]],
                    "Metrics": [
                        {"Name": "runs", "Unit": "Count"},
                        {"Name": "duration_ms", "Unit": "Milliseconds"},
                        {"Name": "queue_age_ms", "Unit": "Milliseconds"},
                    ],
                }]},
                "function": "tidegate-worker", "outcome": "succeeded",
                "runs": 2, "duration_ms": [12, 15], "queue_age_ms": [3, 4],
            })
        );
        assert_eq!((&lines[2]["dead_letters"], &lines[2]["dropped"]), (&json!(1), &json!(0)));
        assert!(written(&metrics).is_empty(), "what was written is gone");
    }

    #[test]
    fn more_values_than_a_line_takes_are_several_lines() {
        let metrics = Metrics::collecting();
        (0..101).for_each(|ms| metrics.run_ended("succeeded", EndedRun { duration_ms: ms, queue_age_ms: 0 }));
        let counts: Vec<_> = written(&metrics).iter().filter_map(|line| line["runs"].as_u64()).collect();
        assert_eq!(counts, [100, 1]);
    }
}
