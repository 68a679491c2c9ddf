//! The admin function on Lambda.

use tidegate_admin::Deps;

fn main() -> anyhow::Result<()> {
    tidegate_lambda::start("admin", async |aws| {
        let store = aws.store()?;
        let authenticator = aws.authenticator(&store)?;
        let deps = Deps { store, authenticator, clock: aws.clock.clone(), ids: aws.ids.clone() };
        tidegate_lambda::serve_api(&aws, tidegate_admin::api(deps)).await
    })
}
