//! The AWS emulator that `scripts/emulator` runs.

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_types::SdkConfig;
use aws_types::region::Region;

/// The account in the emulator's ARNs.
pub const ACCOUNT: &str = "000000000000";
/// The region in the emulator's ARNs.
pub const REGION: &str = "us-east-1";

/// What SDK clients of the emulator are made from: `aws_sdk_sqs::Client::new(&emulator::sdk_config())`. All tests share
/// one emulator, so give what you make there a name of its own.
///
/// # Panics
/// No emulator was started for this test.
pub fn sdk_config() -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .endpoint_url(endpoint())
        .region(Region::new(REGION))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::from_keys("test", "test", None)))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build()
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads where the emulator is")]
fn endpoint() -> String {
    std::env::var("TIDEGATE_TEST_AWS_ENDPOINT").expect(
        "TIDEGATE_TEST_AWS_ENDPOINT is not set: this test needs the AWS emulator. \
         Run it by `scripts/emulator run cargo nextest run …`, or once `eval \"$(scripts/emulator)\"`",
    )
}
