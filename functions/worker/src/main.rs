//! The worker on Lambda: batches of the run queue and of its dead letters.

use std::time::Duration;

use anyhow::Context;
use tidegate_telemetry::Metrics;
use tidegate_worker::{Deps, Settings, Source, handle_batch};

fn main() -> anyhow::Result<()> {
    tidegate_lambda::start("worker", async |aws| {
        let egress = aws.egress(aws.envelope()?)?;
        let process = aws.ids.entropy().map(|byte| format!("{byte:02x}")).concat();
        let mut settings = Settings::new(process, false);
        if let Some(seconds) = aws.setting("TIDEGATE_WORKER_TIMEOUT")? {
            settings.worker_timeout = Duration::from_secs(seconds);
        }
        let (queue, scheduler, blobs) = (aws.run_queue()?, aws.scheduler()?, aws.blobs()?);
        let mut deps = Deps::new(aws.store()?, queue, scheduler, blobs, egress, aws.clock.clone(), settings);
        deps.metrics = Metrics::collecting();

        let dead_letters: String =
            aws.setting("TIDEGATE_DEAD_LETTER_QUEUE_ARN")?.context("no dead-letter queue is named")?;
        let name: String = aws.setting("AWS_LAMBDA_FUNCTION_NAME")?.context("Lambda told no function's name")?;
        let workers = aws.setting("TIDEGATE_WORKER_CONCURRENCY")?.unwrap_or(1_usize).max(1);
        let runs = aws.setting("TIDEGATE_RUN_CONCURRENCY")?.unwrap_or(workers);
        // Each invocation has its share of the runs that may be in flight at once.
        let share = (runs / workers).max(1);
        tidegate_lambda::serve_queue(&aws, async |queue, messages, time| {
            let source = if queue == dead_letters { Source::DeadLetters } else { Source::Runs };
            let again = handle_batch(&deps, source, messages, time, share).await;
            if let Err(error) = deps.metrics.write(&name, &deps.clock, &mut std::io::stdout()) {
                tracing::warn!(component = "worker", %error, "metrics could not be written");
            }
            again
        })
        .await
    })
}
