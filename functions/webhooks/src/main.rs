//! The webhooks function on Lambda.

use tidegate_webhooks::Deps;

fn main() -> anyhow::Result<()> {
    tidegate_lambda::start("webhooks", async |aws| {
        let deps = Deps::new(aws.store()?, aws.run_queue()?, aws.blobs()?, aws.clock.clone(), aws.ids.clone());
        tidegate_lambda::serve_api(&aws, tidegate_webhooks::api(deps)).await
    })
}
