//! OAuth providers that an installation can have a client at, and what a way to sign in comes to with theirs.

use std::sync::LazyLock;

use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::{Map, Value};
use tidegate_model::{ClientAuth, Placeholder};
use url::Url;

use crate::manifest::OAuth2;

/// An OAuth provider.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Its name for display.
    pub title: String,
    /// Its documentation.
    pub docs: String,
    /// Where one signs in.
    pub authorization_url: String,
    /// Where tokens come from.
    pub token_url: String,
    /// What stands between scopes.
    #[serde(default = "space")]
    pub scope_separator: String,
    /// Whether it takes PKCE.
    #[serde(default = "yes")]
    pub pkce: bool,
    /// How the client says who it is.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// Further parameters of the authorization URL.
    #[serde(default)]
    pub authorize_params: IndexMap<String, String>,
}

fn space() -> String {
    " ".to_owned()
}

fn yes() -> bool {
    true
}

#[expect(clippy::expect_used, reason = "a test reads the file that is built in")]
static PROVIDERS: LazyLock<IndexMap<String, Provider>> = LazyLock::new(|| {
    serde_saphyr::from_str(include_str!("../oauth-providers.yaml")).expect("the providers can be read")
});

/// The OAuth providers that there are, by name.
pub fn providers() -> &'static IndexMap<String, Provider> {
    &PROVIDERS
}

/// How one signs in at a vendor, all filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// The provider that the installation's client is of; without it the client is the tenant's.
    pub provider: Option<String>,
    /// Where one signs in.
    pub authorization_url: String,
    /// Where tokens come from.
    pub token_url: String,
    /// What is asked for.
    pub scopes: Vec<String>,
    scope_separator: String,
    /// Whether the vendor takes PKCE.
    pub pkce: bool,
    /// How the client says who it is.
    pub client_auth: ClientAuth,
    authorize_params: IndexMap<String, String>,
}

/// What an authorization URL carries besides.
#[derive(Debug, Clone, Copy)]
pub struct Authorization<'a> {
    /// The client.
    pub client_id: &'a str,
    /// Where the vendor sends the browser back to.
    pub redirect_uri: &'a str,
    /// Comes back with it.
    pub state: &'a str,
    /// The PKCE challenge (S256).
    pub challenge: &'a str,
}

impl OAuth2 {
    /// How one signs in, with the connection's settings. What the manifest says goes before what its provider does.
    ///
    /// # Errors
    /// The provider isn't known, or a URL can't be made; a sentence that says so.
    pub fn flow(&self, settings: &Map<String, Value>) -> Result<Flow, String> {
        let provider = match &self.provider {
            Some(name) => Some(PROVIDERS.get(name).ok_or_else(|| format!("there is no OAuth provider {name:?}"))?),
            None => None,
        };
        let setting = |name: &str| Some(settings.get(name)?.as_str()?.to_owned());
        let url = |own: &Option<String>, of_provider: Option<&String>| {
            let text = own.as_ref().or(of_provider).ok_or("the manifest says not where one signs in")?;
            let filled = Placeholder::fill(text, setting).map_err(|error| error.to_string())?;
            Url::parse(&filled).map(String::from).map_err(|error| format!("{filled:?} is no URL: {error}"))
        };
        Ok(Flow {
            authorization_url: url(&self.authorization_url, provider.map(|provider| &provider.authorization_url))?,
            token_url: url(&self.token_url, provider.map(|provider| &provider.token_url))?,
            provider: self.provider.clone(),
            scopes: self.scopes.clone(),
            scope_separator: self
                .scope_separator
                .clone()
                .or_else(|| provider.map(|provider| provider.scope_separator.clone()))
                .unwrap_or_else(space),
            pkce: self.pkce.or(provider.map(|provider| provider.pkce)).unwrap_or(true),
            client_auth: self.client_auth.or(provider.map(|provider| provider.client_auth)).unwrap_or_default(),
            authorize_params: provider
                .map(|provider| provider.authorize_params.clone())
                .into_iter()
                .flatten()
                .chain(self.authorize_params.clone())
                .collect(),
        })
    }
}

impl Flow {
    /// Where the browser is sent (RFC 6749, section 4.1.1).
    ///
    /// # Errors
    /// The authorization URL is none.
    pub fn authorize(&self, authorization: Authorization<'_>) -> Result<String, String> {
        let mut url = Url::parse(&self.authorization_url).map_err(|error| format!("it is no URL: {error}"))?;
        {
            let mut query = url.query_pairs_mut();
            query
                .append_pair("response_type", "code")
                .append_pair("client_id", authorization.client_id)
                .append_pair("redirect_uri", authorization.redirect_uri)
                .append_pair("state", authorization.state);
            if !self.scopes.is_empty() {
                query.append_pair("scope", &self.scopes.join(&self.scope_separator));
            }
            if self.pkce {
                query
                    .append_pair("code_challenge", authorization.challenge)
                    .append_pair("code_challenge_method", "S256");
            }
            query.extend_pairs(&self.authorize_params);
        }
        Ok(url.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_provider_is_whole_and_every_manifest_names_one_that_there_is() {
        assert!(
            ["google", "github", "slack", "salesforce", "hubspot"].iter().all(|name| PROVIDERS.contains_key(*name))
        );
        for provider in PROVIDERS.values() {
            for url in [&provider.authorization_url, &provider.token_url, &provider.docs] {
                assert!(url.starts_with("https://"), "{url}");
            }
        }
        for connector in crate::catalogue::connectors() {
            for sign_in in &connector.document.auth {
                if let crate::manifest::SignInKind::OAuth2(oauth) = &sign_in.kind {
                    let settings = sign_in
                        .fields
                        .iter()
                        .filter_map(|(name, field)| Some((name.clone(), Value::from(field.example.clone()?))));
                    let flow =
                        oauth.flow(&settings.collect()).unwrap_or_else(|fault| panic!("{}: {fault}", connector.name()));
                    let authorization = Authorization { client_id: "c", redirect_uri: "r", state: "s", challenge: "h" };
                    assert!(
                        flow.authorize(authorization).is_ok_and(|url| url.contains("response_type=code&client_id=c"))
                    );
                }
            }
        }
    }
}
