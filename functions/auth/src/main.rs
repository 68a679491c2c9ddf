//! The auth function on Lambda. It also serves what describes the installation: health, the OpenAPI document and the
//! pages about errors.

use tidegate_auth::{Deps, Passwords, Settings, TokenSigner, command};
use tidegate_http::{Health, ISSUER, error_pages};

fn main() -> anyhow::Result<()> {
    tidegate_lambda::start("auth", async |aws| {
        let (store, envelope) = (aws.store()?, aws.envelope()?);
        let (clock, ids) = (aws.clock.clone(), aws.ids.clone());
        let deps = Deps {
            signer: TokenSigner::new(store.clone(), envelope.clone(), ISSUER, clock.clone(), ids.clone()),
            authenticator: aws.authenticator(&store)?,
            store: store.clone(),
            envelope,
            passwords: Passwords::new(1),
            clock,
            ids,
            mailer: aws.mailer(),
            settings: Settings {
                registration: aws.setting("TIDEGATE_REGISTRATION")?,
                public_url: aws.public_url(),
                secure_cookies: true,
            },
        };
        let health = Health::default().ready("store", move || {
            let store = store.clone();
            async move { store.signing_keys().public_keys().await.map(drop).map_err(Into::into) }
        });
        let api = tidegate_auth::api(deps.clone())
            .merge(health.api())
            .merge(error_pages())
            .with_document(include_str!("../../../docs/openapi.json"));
        let by_the_operator = async |given| command(&deps, given).await.map_err(|problem| problem.to_string());
        tidegate_lambda::serve_api_and(&aws, api, by_the_operator).await
    })
}
