//! The SDK's configuration, by hand: what Lambda puts into the environment, and one HTTP client for all clients.

use std::net::IpAddr;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SdkConfig;
use aws_types::region::Region;

use crate::settings::{SettingError, optional, required};

/// Amazon Root CA 1 to 4 and Starfield Services Root CA G2, which every AWS endpoint's certificate leads to
/// (<https://www.amazontrust.com/repository/>). Reading them takes microseconds, the system's hundred and more take
/// milliseconds.
const AMAZON_ROOTS: &str = include_str!("amazon-roots.pem");

/// An endpoint that hasn't answered by then won't; the SDK tries again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// The configuration of all clients, and the endpoint where it isn't AWS's own.
pub(crate) fn config() -> Result<(SdkConfig, Option<String>), SettingError> {
    let endpoint = optional("AWS_ENDPOINT_URL");
    // Lambda renews a process's credentials by renewing the process.
    let credentials = Credentials::new(
        required("AWS_ACCESS_KEY_ID")?,
        required("AWS_SECRET_ACCESS_KEY")?,
        optional("AWS_SESSION_TOKEN"),
        None,
        "Lambda",
    );
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_attempt_timeout(ATTEMPT_TIMEOUT);
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(required("AWS_REGION")?))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .timeout_config(timeouts.build())
        .http_client(
            aws_smithy_http_client::Builder::new()
                .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
                .tls_context(roots()?)
                .build_https(),
        );
    config.set_endpoint_url(endpoint.clone());
    Ok((config.build(), endpoint))
}

/// Whether AWS is on this very machine: then this is an emulator and no Lambda, and behind the loopback address there
/// are no credentials of a function.
pub(crate) fn is_on_this_machine(endpoint: &str) -> bool {
    let Ok(url) = endpoint.parse::<http::Uri>() else { return false };
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn roots() -> Result<TlsContext, SettingError> {
    const NAME: &str = "TIDEGATE_ROOT_CERTIFICATES";
    let wanted = optional(NAME);
    let store = match wanted.as_deref() {
        None | Some("amazon") => TrustStore::empty().with_pem_certificate(AMAZON_ROOTS),
        Some("native") => TrustStore::empty().with_native_roots(true),
        Some(other) => {
            let reason = "expected `amazon` (Amazon's own roots) or `native` (the system's)".to_owned();
            return Err(SettingError::Invalid { name: NAME, value: other.to_owned(), reason });
        }
    };
    let context = TlsContext::builder().with_trust_store(store).build();
    context.map_err(|error| SettingError::Invalid {
        name: NAME,
        value: wanted.unwrap_or_default(),
        reason: format!("the root certificates can't be read: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amazons_five_roots_are_read() {
        assert_eq!(AMAZON_ROOTS.matches("-----BEGIN CERTIFICATE-----").count(), 5);
        let store = TrustStore::empty().with_pem_certificate(AMAZON_ROOTS);
        // Building a client is what reads them; it panics where one is damaged.
        let context = TlsContext::builder().with_trust_store(store).build().unwrap();
        let provider = Provider::Rustls(CryptoMode::AwsLc);
        drop(aws_smithy_http_client::Builder::new().tls_provider(provider).tls_context(context).build_https());
    }

    #[test]
    fn only_a_loopback_endpoint_is_on_this_machine() {
        for here in ["http://127.0.0.1:4601", "http://localhost:4566/", "http://[::1]:4566"] {
            assert!(is_on_this_machine(here), "{here}");
        }
        for elsewhere in [
            "https://dynamodb.eu-central-1.amazonaws.com",
            "http://10.0.0.1:4566",
            "http://169.254.169.254",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "not an address",
            "",
        ] {
            assert!(!is_on_this_machine(elsewhere), "{elsewhere}");
        }
    }
}
