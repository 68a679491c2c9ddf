//! The runs function on Lambda.

use tidegate_runs::Deps;

fn main() -> anyhow::Result<()> {
    tidegate_lambda::start("runs", async |aws| {
        let store = aws.store()?;
        let authenticator = aws.authenticator(&store)?;
        let deps = Deps {
            store,
            blobs: aws.blobs()?,
            queue: aws.run_queue()?,
            authenticator,
            clock: aws.clock.clone(),
            ids: aws.ids.clone(),
        };
        tidegate_lambda::serve_api(&aws, tidegate_runs::api(deps)).await
    })
}
