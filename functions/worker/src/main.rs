//! The worker on Lambda: batches of the run queue and of its dead letters.

use std::time::Duration;

use tidegate_telemetry::Metrics;
use tidegate_worker::{Deps, Settings, Source, handle_batch};

fn main() -> anyhow::Result<()> {
    tidegate_lambda::start("worker", async |aws| {
        let process = aws.ids.entropy().map(|byte| format!("{byte:02x}")).concat();
        let timeout = Duration::from_secs(aws.setting("TIDEGATE_WORKER_TIMEOUT")?);
        let public_url: String = aws.setting("TIDEGATE_PUBLIC_URL")?;
        let settings = Settings { public_url, ..Settings::on_lambda(process, timeout) };
        let (queue, scheduler, blobs) = (aws.run_queue()?, aws.scheduler()?, aws.blobs()?);
        let envelope = aws.envelope()?;
        let egress = aws.egress(envelope.clone())?;
        let mut deps = Deps::new(aws.store()?, queue, scheduler, blobs, egress, envelope, aws.clock.clone(), settings);
        deps.metrics = Metrics::collecting();

        let name: String = aws.setting("AWS_LAMBDA_FUNCTION_NAME")?;
        let dead_letters: String = aws.setting("TIDEGATE_DEAD_LETTER_QUEUE_ARN")?;
        let workers: usize = aws.setting("TIDEGATE_WORKER_CONCURRENCY")?;
        let runs: usize = aws.setting("TIDEGATE_RUN_CONCURRENCY")?;
        // Each invocation has its share of the runs that may be in flight at once.
        let share = (runs / workers.max(1)).max(1);
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
