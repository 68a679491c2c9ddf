//! The webhooks function on Lambda.

use tidegate_webhooks::Deps;

fn main() -> anyhow::Result<()> {
    tidegate_lambda::start("webhooks", async |aws| {
        let store = aws.store()?;
        let deps = Deps {
            limiter: aws.rate_limiter(&store)?,
            store,
            queue: aws.run_queue()?,
            blobs: aws.blobs()?,
            envelope: aws.envelope()?,
            clock: aws.clock.clone(),
            ids: aws.ids.clone(),
            public_url: aws.public_url(),
        };
        tidegate_lambda::serve_api(&aws, tidegate_webhooks::api(deps)).await
    })
}
