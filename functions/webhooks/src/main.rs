//! The webhooks function on Lambda.

use tidegate_webhooks::Deps;

fn main() -> anyhow::Result<()> {
    tidegate_lambda::start("webhooks", async |aws| {
        let store = aws.store()?;
        let limiter = aws.rate_limiter(&store)?;
        let (queue, blobs) = (aws.run_queue()?, aws.blobs()?);
        let deps = Deps::new(store, queue, blobs, limiter, aws.clock.clone(), aws.ids.clone());
        tidegate_lambda::serve_api(&aws, tidegate_webhooks::api(deps)).await
    })
}
