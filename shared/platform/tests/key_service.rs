//! The contract of the key service, for the key file and for KMS (on the emulator).

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::HashSet;

use tidegate_platform::KeyService;
use tidegate_platform::key_service::key_file::KeyFile;
use tidegate_platform::key_service::kms::Kms;
use tidegate_platform::key_service::{KeyContext, UnwrapError};
use tidegate_testing::emulator;

fn context(tenant: &str, purpose: &str) -> KeyContext {
    KeyContext { tenant: tenant.into(), purpose: purpose.into() }
}

async fn contract(keys: &dyn KeyService) {
    let home = context("ten_a", "connections");
    let (key, wrapped) = keys.generate_data_key(&home).await.unwrap();
    assert_ne!(*key, [0; 32]);
    assert!(!wrapped.windows(32).any(|window| window == key.as_slice()), "the wrapped key holds the key in the clear");
    for _ in 0..2 {
        assert_eq!(keys.unwrap_data_key(&wrapped, &home).await.unwrap(), key);
    }

    let mut made = HashSet::from([(key.to_vec(), wrapped.clone())]);
    for _ in 0..5 {
        let (key, wrapped) = keys.generate_data_key(&home).await.unwrap();
        made.insert((key.to_vec(), wrapped));
    }
    assert_eq!(made.iter().map(|(key, _)| key).collect::<HashSet<_>>().len(), 6, "keys differ");
    assert_eq!(made.iter().map(|(_, wrapped)| wrapped).collect::<HashSet<_>>().len(), 6, "wrapped keys differ");

    for wrong in
        [context("ten_b", "connections"), context("ten_a", "signing"), context("connections", "ten_a"), context("", "")]
    {
        let error = keys.unwrap_data_key(&wrapped, &wrong).await.unwrap_err();
        assert!(matches!(error, UnwrapError::Refused { .. }), "{wrong:?}: {error}");
        assert!(error.to_string().contains(&format!("{} for {}", wrong.tenant, wrong.purpose)), "{error}");
    }
    for garbage in [&b"x"[..], &[0; 200]] {
        let error = keys.unwrap_data_key(garbage, &home).await.unwrap_err();
        assert!(matches!(error, UnwrapError::Refused { .. }), "{error}");
    }
}

#[tokio::test]
async fn key_file() {
    let folder = tempfile::tempdir().unwrap();
    let keys = KeyFile::open_or_create(&folder.path().join("master.key")).unwrap();
    contract(&keys).await;

    let home = context("ten_a", "connections");
    let (key, wrapped) = keys.generate_data_key(&home).await.unwrap();
    let reopened = KeyFile::open_or_create(&folder.path().join("master.key")).unwrap();
    assert_eq!(reopened.unwrap_data_key(&wrapped, &home).await.unwrap(), key, "a restart loses no key");

    // Only here: KMS's own promises, which the emulator doesn't keep. It decrypts a changed ciphertext, and under another
    // key than the one that the request names.
    let other = KeyFile::open_or_create(&folder.path().join("other.key")).unwrap();
    let error = other.unwrap_data_key(&wrapped, &home).await.unwrap_err();
    assert!(matches!(error, UnwrapError::Refused { .. }), "wrapped under another master key: {error}");
    for at in 0..wrapped.len() {
        let mut changed = wrapped.clone();
        changed[at] ^= 1;
        let error = keys.unwrap_data_key(&changed, &home).await.unwrap_err();
        assert!(matches!(error, UnwrapError::Refused { .. }), "byte {at}: {error}");
    }
}

#[tokio::test]
async fn kms() {
    let config = emulator::sdk_config();
    let client = aws_sdk_kms::Client::new(&config);
    let key_id = client.create_key().send().await.unwrap().key_metadata.unwrap().key_id;
    let keys = Kms::new(&config, &key_id);
    contract(&keys).await;

    let home = context("ten_a", "connections");
    let (_, wrapped) = keys.generate_data_key(&home).await.unwrap();
    client.disable_key().key_id(&key_id).send().await.unwrap();
    let error = keys.unwrap_data_key(&wrapped, &home).await.unwrap_err();
    assert!(matches!(error, UnwrapError::Unavailable(_)), "an operator can enable it again: {error}");
    assert!(keys.generate_data_key(&home).await.is_err());
    client.enable_key().key_id(&key_id).send().await.unwrap();
    keys.unwrap_data_key(&wrapped, &home).await.unwrap();

    let away = config
        .into_builder()
        .endpoint_url("http://127.0.0.1:9")
        .retry_config(aws_sdk_kms::config::retry::RetryConfig::disabled())
        .build();
    let error = Kms::new(&away, key_id).unwrap_data_key(&wrapped, &home).await;
    assert!(matches!(error, Err(UnwrapError::Unavailable(_))), "{error:?}");
}
