//! The workflows function on Lambda.

use tidegate_connections::Connections;
use tidegate_workflows::{Deps, Settings};

fn main() -> anyhow::Result<()> {
    tidegate_lambda::start("workflows", async |aws| {
        let store = aws.store()?;
        let (blobs, envelope) = (aws.blobs()?, aws.envelope()?);
        let egress = aws.egress(envelope.clone())?;
        let connections = Connections::new(store.clone(), egress, blobs.clone(), aws.clock.clone());
        let deps = Deps {
            authenticator: aws.authenticator(&store)?,
            store,
            scheduler: aws.scheduler()?,
            queue: aws.run_queue()?,
            blobs,
            connections,
            envelope,
            clock: aws.clock.clone(),
            ids: aws.ids.clone(),
            settings: Settings { public_url: aws.public_url() },
        };
        tidegate_lambda::serve_api(&aws, tidegate_workflows::api(deps)).await
    })
}
