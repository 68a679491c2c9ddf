//! What a number of runs asked of AWS, by themselves and by what AWS does for them; its price; the budget.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_platform::usage::Usage;

use super::prices::{Item, Prices};

/// SQS bills each begun 64 KB of what a request carries.
const SQS_CHUNK: usize = 64 * 1024;

/// The sum over all runs of a scenario.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) runs: u32,
    /// Requests by service and operation: those that the functions made, and those that AWS made for them.
    pub(crate) calls: BTreeMap<(String, String), u64>,
    pub(crate) read_units: f64,
    pub(crate) write_units: f64,
    /// Begun 64 KB of requests to SQS beyond the first of each.
    pub(crate) further_sqs_chunks: u64,
    pub(crate) webhooks: Invocations,
    pub(crate) worker: Invocations,
    /// Firings of EventBridge Scheduler.
    pub(crate) firings: u64,
    pub(crate) log_bytes: u64,
}

/// A function's invocations.
#[derive(Debug, Default)]
pub(crate) struct Invocations {
    pub(crate) count: u64,
    /// Measured: processor time of this machine.
    pub(crate) cpu: Duration,
    /// Requests to AWS that were waited for one after the other: of a batch those of its longest run.
    pub(crate) waits: BTreeMap<String, f64>,
    /// Calls of steps that were waited for one after the other.
    pub(crate) step_waits: f64,
    /// Those that had to start first.
    pub(crate) cold_starts: u64,
}

/// A run's share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PerRun {
    pub(crate) dynamodb: f64,
    pub(crate) write_units: f64,
    pub(crate) read_units: f64,
    pub(crate) sqs: f64,
    pub(crate) kms: f64,
    pub(crate) s3: f64,
    pub(crate) scheduler: f64,
    pub(crate) invocations: f64,
    pub(crate) webhooks_cpu_ms: f64,
    pub(crate) worker_cpu_ms: f64,
    pub(crate) log_bytes: f64,
}

/// What a million of such runs costs, in dollars.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bill {
    pub(crate) http_api: f64,
    pub(crate) lambda_requests: f64,
    /// The only part that rests on assumptions.
    pub(crate) lambda_duration: f64,
    pub(crate) dynamodb: f64,
    pub(crate) sqs: f64,
    pub(crate) other: f64,
    pub(crate) logs: f64,
}

impl Tally {
    /// Adds what was counted while a function, or AWS for it, was at work.
    pub(crate) fn add(&mut self, usage: &Usage) {
        for (call, count) in &usage.calls {
            *self.calls.entry(call.clone()).or_default() += count;
        }
        self.read_units += usage.read_units;
        self.write_units += usage.write_units;
    }

    /// Adds the size of a request to SQS that is counted already.
    pub(crate) fn add_sqs_bytes(&mut self, bytes: usize) {
        self.further_sqs_chunks += bytes.div_ceil(SQS_CHUNK).saturating_sub(1) as u64;
    }

    /// Adds a request that AWS makes by itself.
    pub(crate) fn add_call(&mut self, service: &str, operation: &str) {
        *self.calls.entry((service.to_owned(), operation.to_owned())).or_default() += 1;
    }

    /// How many requests a service got.
    pub(crate) fn calls_to(&self, service: &str) -> u64 {
        self.calls.iter().filter(|((of, _), _)| of == service).map(|(_, count)| *count).sum()
    }

    /// A run's share of it all.
    pub(crate) fn per_run(&self) -> PerRun {
        let runs = f64::from(self.runs);
        PerRun {
            dynamodb: self.calls_to("DynamoDB") as f64 / runs,
            write_units: self.write_units / runs,
            read_units: self.read_units / runs,
            sqs: (self.calls_to("SQS") + self.further_sqs_chunks) as f64 / runs,
            kms: self.calls_to("KMS") as f64 / runs,
            s3: self.calls_to("S3") as f64 / runs,
            scheduler: self.calls_to("Scheduler") as f64 / runs,
            invocations: (self.webhooks.count + self.worker.count) as f64 / runs,
            webhooks_cpu_ms: self.webhooks.cpu.as_secs_f64() * 1e3 / runs,
            worker_cpu_ms: self.worker.cpu.as_secs_f64() * 1e3 / runs,
            log_bytes: self.log_bytes as f64 / runs,
        }
    }

    /// What a million of such runs costs.
    ///
    /// # Errors
    /// Nothing is assumed about waiting for a service that was asked.
    pub(crate) fn bill(&self, prices: &Prices) -> anyhow::Result<Bill> {
        let million = |what, amount: f64| prices.usd(what, amount / f64::from(self.runs) * 1e6);
        let s3_puts: u64 = self
            .calls
            .iter()
            .filter(|((service, operation), _)| service == "S3" && is_put(operation))
            .map(|(_, count)| count)
            .sum();
        let s3_free: u64 = self.calls.get(&("S3".to_owned(), "DeleteObject".to_owned())).copied().unwrap_or(0);
        let sqs = (self.calls_to("SQS") + self.further_sqs_chunks) as f64;
        let assumed = &prices.assumed;
        let webhooks = self.webhooks.billed_ms(prices, assumed.webhooks_memory_mb)?;
        let worker = self.worker.billed_ms(prices, assumed.worker_memory_mb)?;
        let gb_seconds =
            webhooks / 1e3 * assumed.webhooks_memory_mb / 1024.0 + worker / 1e3 * assumed.worker_memory_mb / 1024.0;
        Ok(Bill {
            http_api: million(Item::HttpApiRequest, self.webhooks.count as f64),
            lambda_requests: million(Item::LambdaRequest, (self.webhooks.count + self.worker.count) as f64),
            lambda_duration: million(Item::LambdaGbSecond, gb_seconds),
            dynamodb: million(Item::WriteUnit, self.write_units) + million(Item::ReadUnit, self.read_units),
            sqs: million(Item::SqsRequest, sqs) + million(Item::SqsFairRequest, sqs),
            other: million(Item::KmsRequest, self.calls_to("KMS") as f64)
                + million(Item::S3Put, s3_puts as f64)
                + million(Item::S3Get, (self.calls_to("S3") - s3_puts - s3_free) as f64)
                + million(Item::SchedulerFiring, self.firings as f64),
            logs: million(Item::LogGb, self.log_bytes as f64 / 1e9),
        })
    }
}

fn is_put(operation: &str) -> bool {
    ["Put", "Copy", "Post", "List"].iter().any(|kind| operation.starts_with(kind))
}

impl Invocations {
    /// How long Lambda would bill, in all, at this memory: the measured processor time, longer by the share of a
    /// processor that the memory brings, and the assumed waits and starts; an average invocation is rounded up to a
    /// millisecond.
    fn billed_ms(&self, prices: &Prices, memory_mb: f64) -> anyhow::Result<f64> {
        let assumed = &prices.assumed;
        let share = (memory_mb / assumed.processor_memory_mb).min(1.0);
        let mut ms = self.cpu.as_secs_f64() * 1e3 / share + self.step_waits * assumed.step_wait_ms;
        for (service, count) in &self.waits {
            ms += count * assumed.wait_ms(service)?;
        }
        if self.count == 0 {
            return Ok(0.0);
        }
        ms += self.cold_starts as f64 * assumed.init_ms;
        let each = (ms / self.count as f64).ceil();
        Ok(each * self.count as f64)
    }
}

impl Bill {
    pub(crate) fn total(&self) -> f64 {
        self.http_api + self.lambda_requests + self.lambda_duration + self.dynamodb + self.sqs + self.other + self.logs
    }
}

/// What a warm run of one step breaks of its budget; empty where it keeps to it.
pub(crate) fn broken_budget(run: &PerRun) -> Vec<String> {
    let limits = [
        ("write units", run.write_units, 3.0),
        ("SQS requests", run.sqs, 1.3),
        ("KMS requests", run.kms, 0.0),
        ("read units", run.read_units, 0.0),
    ];
    let over = limits.into_iter().filter(|(_, is, limit)| *is > limit + 1e-9);
    over.map(|(what, is, limit)| format!("{is:.2} {what}, at most {limit} are allowed")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Tally {
        let mut tally = Tally { runs: 10, write_units: 30.0, ..Tally::default() };
        for _ in 0..10 {
            tally.add_call("SQS", "SendMessage");
        }
        tally.add_call("SQS", "ReceiveMessage");
        tally.add_call("SQS", "DeleteMessageBatch");
        tally
    }

    fn prices() -> Prices {
        Prices::parse(include_str!("../../prices.toml")).unwrap()
    }

    #[test]
    fn the_budget_holds_to_its_limits_and_no_further() {
        let mut run = tally().per_run();
        assert_eq!(broken_budget(&run), Vec::<String>::new());
        run.write_units = 3.01;
        run.kms = 0.1;
        assert_eq!(
            broken_budget(&run),
            ["3.01 write units, at most 3 are allowed", "0.10 KMS requests, at most 0 are allowed"]
        );
        assert_eq!(broken_budget(&PerRun { sqs: 1.31, read_units: 0.5, ..tally().per_run() }).len(), 2);
    }

    #[test]
    fn a_large_request_counts_for_each_64_kb() {
        let mut tally = tally();
        tally.add_sqs_bytes(64 * 1024);
        assert_eq!(tally.per_run().sqs, 1.2);
        tally.add_sqs_bytes(64 * 1024 + 1);
        assert_eq!(tally.per_run().sqs, 1.3);
    }

    #[test]
    fn a_million_runs_cost_a_million_times_a_runs_share() {
        let prices = prices();
        let mut tally = tally();
        let bill = tally.bill(&prices).unwrap();
        assert!((bill.dynamodb - prices.usd(Item::WriteUnit, 3e6)).abs() < 1e-9);
        let sqs = prices.usd(Item::SqsRequest, 1.2e6) + prices.usd(Item::SqsFairRequest, 1.2e6);
        assert!((bill.sqs - sqs).abs() < 1e-9);
        assert_eq!(bill.total(), bill.dynamodb + bill.sqs);
        // Deleting an object is free, copying it costs as much as putting it.
        for operation in ["PutObject", "CopyObject", "GetObject", "DeleteObject"] {
            tally.add_call("S3", operation);
        }
        let other = prices.usd(Item::S3Put, 2e5) + prices.usd(Item::S3Get, 1e5);
        assert!((tally.bill(&prices).unwrap().other - other).abs() < 1e-9);
    }

    #[test]
    fn billed_time_is_processor_time_at_the_functions_share_and_waits() {
        let prices = prices();
        let assumed = &prices.assumed;
        let waits = BTreeMap::from([("SQS".to_owned(), 2.0)]);
        let cpu = Duration::from_millis(1);
        let invocations = Invocations { count: 2, cpu, waits, step_waits: 1.0, cold_starts: 1 };
        let memory = assumed.processor_memory_mb / 4.0;
        let exact = 4.0 + 2.0 * assumed.wait_ms["SQS"] + assumed.step_wait_ms + assumed.init_ms;
        assert_eq!(invocations.billed_ms(&prices, memory).unwrap(), (exact / 2.0).ceil() * 2.0);
        assert_eq!(Invocations::default().billed_ms(&prices, memory).unwrap(), 0.0);
        let unknown = Invocations { count: 1, waits: BTreeMap::from([("Mars".to_owned(), 1.0)]), ..Default::default() };
        assert!(unknown.billed_ms(&prices, memory).is_err());
    }
}
