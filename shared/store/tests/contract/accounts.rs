//! Accounts and signing keys.

use tidegate_store::{Error, PublicKey, SigningKey};

use crate::setup::{Setup, everywhere};

#[tokio::test]
async fn an_account_is_found_by_id_and_address() {
    everywhere(async |setup| {
        let accounts = setup.store().accounts();
        let (user, tenant) = setup.account("alex@example.com");
        accounts.create(&user, &tenant).await.unwrap();
        assert_eq!(accounts.user_by_email("alex@example.com").await.unwrap().as_ref(), Some(&user));
        assert_eq!(accounts.user(tenant.id, user.id).await.unwrap().as_ref(), Some(&user));
        assert_eq!(accounts.tenant(tenant.id).await.unwrap().as_ref(), Some(&tenant));
        assert_eq!(accounts.user_by_email("sam@example.com").await.unwrap(), None);
        assert_eq!(accounts.user_by_email(&"a".repeat(3_000)).await.unwrap(), None);
        assert_eq!(accounts.user(setup.ids.tenant(), user.id).await.unwrap(), None, "another tenant's user");
    })
    .await;
}

#[tokio::test]
async fn an_address_belongs_to_one_account() {
    everywhere(async |setup| {
        let accounts = setup.store().accounts();
        let (first, tenant) = setup.account("alex@example.com");
        accounts.create(&first, &tenant).await.unwrap();
        let (second, other) = setup.account("alex@example.com");
        assert!(matches!(accounts.create(&second, &other).await, Err(Error::Conflict { .. })));
        assert_eq!(accounts.user_by_email("alex@example.com").await.unwrap(), Some(first));
        assert_eq!(accounts.tenant(other.id).await.unwrap(), None, "nothing of the second is stored");
        assert_eq!(accounts.user(other.id, second.id).await.unwrap(), None);
    })
    .await;
}

fn signing_key(setup: &Setup, kid: &str) -> SigningKey {
    let public = PublicKey {
        kid: kid.to_owned(),
        jwk: format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"…"}}"#),
        created_at: setup.clock.now(),
    };
    SigningKey { public, data_key: "d3JhcHBlZA==".to_owned(), sealed: "c2VhbGVk".to_owned() }
}

#[tokio::test]
async fn the_first_signing_key_wins() {
    everywhere(async |setup| {
        let keys = setup.store().signing_keys();
        assert_eq!(keys.current().await.unwrap(), None);
        assert_eq!(keys.public_keys().await.unwrap(), []);
        let offered: Vec<_> = (0..8).map(|i| signing_key(&setup, &format!("key-{i}"))).collect();
        let chosen = futures::future::try_join_all(offered.iter().map(|key| keys.put_if_absent(key))).await.unwrap();
        let current = keys.current().await.unwrap().unwrap();
        assert!(chosen.iter().all(|key| *key == current), "all use the same key");
        assert_eq!(
            keys.public_keys().await.unwrap(),
            std::slice::from_ref(&current.public),
            "only its public half is out"
        );
        assert_eq!(keys.public_key(&current.public.kid).await.unwrap(), Some(current.public));
        assert_eq!(keys.public_key("unknown").await.unwrap(), None);
        assert_eq!(keys.public_key("").await.unwrap(), None);
    })
    .await;
}
