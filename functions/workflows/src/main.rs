//! The workflows function on Lambda.

use tidegate_workflows::Deps;

fn main() -> anyhow::Result<()> {
    tidegate_lambda::start("workflows", async |aws| {
        let store = aws.store()?;
        let deps = Deps {
            authenticator: aws.authenticator(&store)?,
            store,
            scheduler: aws.scheduler()?,
            queue: aws.run_queue()?,
            blobs: aws.blobs()?,
            envelope: aws.envelope()?,
            clock: aws.clock.clone(),
            ids: aws.ids.clone(),
        };
        tidegate_lambda::serve_api(&aws, tidegate_workflows::api(deps)).await
    })
}
