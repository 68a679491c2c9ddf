//! What AWS asks: the table of list prices (`bench/prices.toml`), and what is assumed where nothing can be measured
//! here.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use serde::Deserialize;

/// A thing that has a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Item {
    /// A request to the HTTP API.
    HttpApiRequest,
    /// An invocation of a function.
    LambdaRequest,
    /// A function's second with 1 GB of memory.
    LambdaGbSecond,
    /// DynamoDB on demand.
    WriteUnit,
    /// DynamoDB on demand.
    ReadUnit,
    /// A request to SQS; each 64 KB is one.
    SqsRequest,
    /// What a request to a fair queue costs on top.
    SqsFairRequest,
    /// A request to KMS.
    KmsRequest,
    /// A PUT, COPY, POST or LIST of S3.
    S3Put,
    /// A GET or another request of S3.
    S3Get,
    /// A firing of EventBridge Scheduler.
    SchedulerFiring,
    /// A GB of logs taken in by CloudWatch.
    LogGb,
}

const ITEMS: [Item; 12] = [
    Item::HttpApiRequest,
    Item::LambdaRequest,
    Item::LambdaGbSecond,
    Item::WriteUnit,
    Item::ReadUnit,
    Item::SqsRequest,
    Item::SqsFairRequest,
    Item::KmsRequest,
    Item::S3Put,
    Item::S3Get,
    Item::SchedulerFiring,
    Item::LogGb,
];

/// The table.
#[derive(Debug)]
pub(crate) struct Prices {
    /// The region of all prices.
    pub(crate) region: String,
    /// The dates at which they were taken, the oldest first.
    pub(crate) taken: (String, String),
    /// What stands in for what only AWS can show.
    pub(crate) assumed: Assumed,
    usd: BTreeMap<Item, f64>,
}

/// What can't be measured on this machine.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Assumed {
    /// Memory of the webhooks function.
    pub(crate) webhooks_memory_mb: f64,
    /// Memory of the worker.
    pub(crate) worker_memory_mb: f64,
    /// The memory with which Lambda gives a function one whole processor.
    pub(crate) processor_memory_mb: f64,
    /// How long each service lets a function wait, by the SDK's name for it.
    pub(crate) wait_ms: BTreeMap<String, f64>,
    /// How long the system that a step calls lets it wait.
    pub(crate) step_wait_ms: f64,
    /// How long Lambda bills for a start.
    pub(crate) init_ms: f64,
    /// Requests for messages that a mapping makes in each minute in which nothing comes.
    pub(crate) idle_receives_per_minute: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    region: String,
    price: Vec<Price>,
    assumed: Assumed,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Price {
    what: Item,
    usd: f64,
    per: f64,
    page: String,
    taken: String,
    #[expect(dead_code, reason = "for whoever reads the table")]
    confirmed: String,
}

impl Prices {
    /// Reads the table.
    ///
    /// # Errors
    /// It isn't one, a price is missing, or is there twice, or has no page of AWS or no date.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let file: File = toml::from_str(text).context("read the table of prices")?;
        let mut usd = BTreeMap::new();
        let mut dates = Vec::new();
        for price in file.price {
            let what = price.what;
            ensure!(price.usd >= 0.0 && price.per > 0.0, "{what:?}: {} per {} is no price", price.usd, price.per);
            ensure!(price.page.starts_with("https://aws.amazon.com/"), "{what:?}: {} is no page of AWS", price.page);
            let is_date = price.taken.len() == 10 && price.taken.bytes().filter(u8::is_ascii_digit).count() == 8;
            ensure!(is_date, "{what:?}: {:?} is no date", price.taken);
            ensure!(usd.insert(what, price.usd / price.per).is_none(), "{what:?} has two prices");
            dates.push(price.taken);
        }
        for item in ITEMS {
            ensure!(usd.contains_key(&item), "{item:?} has no price");
        }
        dates.sort();
        let ends = dates.first().cloned().zip(dates.last().cloned());
        Ok(Self { region: file.region, taken: ends.context("no price")?, assumed: file.assumed, usd })
    }

    /// What so much of a thing costs, in dollars.
    pub(crate) fn usd(&self, what: Item, amount: f64) -> f64 {
        // Every item is there, or the table wouldn't have been read.
        self.usd.get(&what).copied().unwrap_or(f64::NAN) * amount
    }
}

impl Assumed {
    /// How long a service lets a function wait for one answer.
    pub(crate) fn wait_ms(&self, service: &str) -> anyhow::Result<f64> {
        self.wait_ms.get(service).copied().with_context(|| format!("nothing is assumed about waiting for {service}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) const TABLE: &str = include_str!("../../prices.toml");

    #[test]
    fn the_table_is_whole() {
        let prices = Prices::parse(TABLE).unwrap();
        assert_eq!(prices.region, "us-east-1");
        assert!(prices.taken.0 <= prices.taken.1);
        for item in ITEMS {
            assert!(prices.usd(item, 1.0).is_finite(), "{item:?}");
        }
    }

    #[test]
    fn a_price_that_is_missing_doubled_or_without_a_source_is_refused() {
        let refused = |text: String| format!("{:#}", Prices::parse(&text).unwrap_err());
        let (before, after) = TABLE.split_once("[[price]]").unwrap();
        let (first, rest) = after.split_once("[[price]]").unwrap();
        assert!(refused(format!("{before}[[price]]{rest}")).contains("has no price"));
        assert!(refused(format!("{before}[[price]]{first}[[price]]{first}[[price]]{rest}")).contains("two prices"));
        assert!(refused(TABLE.replacen("https://aws.amazon.com/", "https://example.com/", 1)).contains("no page"));
        assert!(refused(TABLE.replacen("taken = \"20", "taken = \"x", 1)).contains("no date"));
        assert!(refused(TABLE.replacen("per = ", "per = -", 1)).contains("no price"));
    }
}
