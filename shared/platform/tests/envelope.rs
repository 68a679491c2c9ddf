//! Envelope encryption: what is sealed opens for its tenant, purpose and record alone, and opened keys go stale.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tidegate_platform::envelope::{DATA_KEY_TTL, Envelope, EnvelopeError};
use tidegate_platform::key_service::key_file::KeyFile;
use tidegate_platform::key_service::{KeyContext, KeyService, PlainKey, UnwrapError};
use tidegate_platform::{Clock, PortError};

/// A key file that counts its calls, yields within them, and can be switched off.
struct Observed {
    keys: KeyFile,
    unwraps: AtomicUsize,
    away: AtomicBool,
}

#[async_trait]
impl KeyService for Observed {
    async fn generate_data_key(&self, context: &KeyContext) -> Result<(PlainKey, Vec<u8>), PortError> {
        self.keys.generate_data_key(context).await
    }

    async fn unwrap_data_key(&self, wrapped: &[u8], context: &KeyContext) -> Result<PlainKey, UnwrapError> {
        self.unwraps.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        if self.away.load(Ordering::SeqCst) {
            return Err(PortError::new("open a data key", "switched off").into());
        }
        self.keys.unwrap_data_key(wrapped, context).await
    }
}

struct Fixture {
    envelope: Envelope,
    clock: Clock,
    keys: Arc<Observed>,
    _folder: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let keys = KeyFile::open_or_create(&folder.path().join("master.key")).unwrap();
    let keys = Arc::new(Observed { keys, unwraps: AtomicUsize::new(0), away: AtomicBool::new(false) });
    let clock = Clock::manual(Timestamp::from_second(1_700_000_000).unwrap());
    Fixture { envelope: Envelope::new(keys.clone(), clock.clone()), clock, keys, _folder: folder }
}

fn context(tenant: &str, purpose: &str) -> KeyContext {
    KeyContext { tenant: tenant.into(), purpose: purpose.into() }
}

const SECRET: &[u8] = br#"{"type":"bearer","token":"hunter2"}"#;

#[tokio::test]
async fn opens_for_its_tenant_purpose_and_record_alone() {
    let Fixture { envelope, .. } = fixture();
    let home = context("ten_a", "connections");
    let key = envelope.new_data_key(&home).await.unwrap();
    let other_key = envelope.new_data_key(&home).await.unwrap();
    let sealed = envelope.seal(&key, &home, b"conn_1", SECRET).await.unwrap();
    assert_eq!(envelope.open(&key, &home, b"conn_1", &sealed).await.unwrap().as_slice(), SECRET);

    let refused = envelope.open(&key, &home, b"conn_2", &sealed).await.unwrap_err();
    assert!(matches!(refused, EnvelopeError::Refused) && !refused.is_retryable());
    let refused = envelope.open(&other_key, &home, b"conn_1", &sealed).await.unwrap_err();
    assert!(matches!(refused, EnvelopeError::Refused));
    for wrong in [context("ten_b", "connections"), context("ten_a", "signing"), context("ten_ac", "onnections")] {
        let refused = envelope.open(&key, &wrong, b"conn_1", &sealed).await.unwrap_err();
        assert!(matches!(refused, EnvelopeError::DataKey(_)) && !refused.is_retryable(), "{wrong:?}");
        let sealed_for_wrong = envelope.seal(&key, &wrong, b"conn_1", SECRET).await;
        assert!(sealed_for_wrong.is_err(), "{wrong:?}");
    }
}

#[tokio::test]
async fn every_changed_character_fails_and_no_error_shows_a_secret() {
    let Fixture { envelope, .. } = fixture();
    let home = context("ten_a", "connections");
    let key = envelope.new_data_key(&home).await.unwrap();
    let sealed = envelope.seal(&key, &home, b"conn_1", SECRET).await.unwrap();
    let other = |character: u8| if character == b'A' { 'B' } else { 'A' };
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed.replace_range(at..=at, &other(sealed.as_bytes()[at]).to_string());
        let error = envelope.open(&key, &home, b"conn_1", &changed).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
    for at in 0..key.len() {
        let mut changed = key.clone();
        changed.replace_range(at..=at, &other(key.as_bytes()[at]).to_string());
        let error = envelope.open(&changed, &home, b"conn_1", &sealed).await.unwrap_err();
        assert!(!error.is_retryable(), "{error:?}");
    }
    for (key, sealed) in [(key.as_str(), "***"), ("***", sealed.as_str())] {
        let error = envelope.open(key, &home, b"conn_1", sealed).await.unwrap_err();
        assert!(matches!(error, EnvelopeError::Malformed(_)), "{error:?}");
    }
    assert!(envelope.open(&key, &home, b"conn_1", "").await.is_err());
}

#[tokio::test]
async fn an_opened_key_is_used_for_five_minutes() {
    let Fixture { envelope, clock, keys, .. } = fixture();
    let home = context("ten_a", "connections");
    let key = envelope.new_data_key(&home).await.unwrap();
    let sealed = envelope.seal(&key, &home, b"", SECRET).await.unwrap();
    clock.advance(DATA_KEY_TTL - Duration::from_millis(1));
    envelope.open(&key, &home, b"", &sealed).await.unwrap();
    envelope.clone().open(&key, &home, b"", &sealed).await.unwrap();
    assert_eq!(keys.unwraps.load(Ordering::SeqCst), 1);

    clock.advance(Duration::from_millis(1));
    keys.away.store(true, Ordering::SeqCst);
    let error = envelope.open(&key, &home, b"", &sealed).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    keys.away.store(false, Ordering::SeqCst);
    envelope.open(&key, &home, b"", &sealed).await.unwrap();
    assert_eq!(keys.unwraps.load(Ordering::SeqCst), 3, "a failure is not remembered");
}

#[tokio::test]
async fn calls_at_once_ask_the_key_service_once() {
    let Fixture { envelope, keys, .. } = fixture();
    let home = context("ten_a", "connections");
    let key = envelope.new_data_key(&home).await.unwrap();
    let calls = (0..32).map(|_| {
        let (envelope, home, key) = (envelope.clone(), home.clone(), key.clone());
        tokio::spawn(async move { envelope.seal(&key, &home, b"", SECRET).await })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    assert_eq!(keys.unwraps.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn debug_shows_no_key() {
    let Fixture { envelope, .. } = fixture();
    let home = context("ten_a", "connections");
    let key = envelope.new_data_key(&home).await.unwrap();
    envelope.seal(&key, &home, b"", SECRET).await.unwrap();
    let debug = format!("{envelope:?}");
    assert!(debug.starts_with("Envelope { opened_keys: ") && !debug.contains(&key), "{debug}");
}
