//! Accounts and signing keys.

use tidegate_model::{Credentials, User};
use tidegate_store::{Error, PublicKey, SigningKey, SigningRing};

use crate::setup::{Setup, everywhere};

#[tokio::test]
async fn an_account_is_found_by_id_and_address() {
    everywhere(async |setup| {
        let (accounts, tenants) = (setup.store().accounts(), setup.store().tenants());
        let account = setup.account("alex@example.com");
        accounts.create(account.new_account()).await.unwrap();
        let (user, tenant) = (&account.user, &account.tenant);
        assert_eq!(accounts.user_by_email("alex@example.com").await.unwrap().as_ref(), Some(user));
        assert_eq!(accounts.user(user.id).await.unwrap().as_ref(), Some(user));
        assert_eq!(accounts.credentials(user.id).await.unwrap().as_ref(), Some(&account.credentials));
        assert_eq!(accounts.tenants_of(user.id).await.unwrap(), [tenant.id]);
        assert_eq!(tenants.get(tenant.id).await.unwrap().as_ref(), Some(tenant));
        assert_eq!(tenants.member(tenant.id, user.id.into()).await.unwrap().as_ref(), Some(&account.owner));
        assert_eq!(accounts.user_by_email("sam@example.com").await.unwrap(), None);
        assert_eq!(accounts.user_by_email(&"a".repeat(3_000)).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn an_address_belongs_to_one_account() {
    everywhere(async |setup| {
        let (accounts, tenants) = (setup.store().accounts(), setup.store().tenants());
        let (first, second) = (setup.account("alex@example.com"), setup.account("alex@example.com"));
        accounts.create(first.new_account()).await.unwrap();
        assert!(matches!(accounts.create(second.new_account()).await, Err(Error::Conflict { .. })));
        assert_eq!(accounts.user_by_email("alex@example.com").await.unwrap(), Some(first.user));
        assert_eq!(tenants.get(second.tenant.id).await.unwrap(), None, "nothing of the second is stored");
        assert_eq!(accounts.user(second.user.id).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn of_those_who_change_credentials_alike_at_once_one_wins() {
    everywhere(async |setup| {
        let accounts = setup.store().accounts();
        let account = setup.account("alex@example.com");
        accounts.create(account.new_account()).await.unwrap();
        let next = Credentials { revision: 2, ..account.credentials.clone() };
        let written = futures::future::join_all((0..8).map(|_| accounts.replace_credentials(&next))).await;
        assert_eq!(written.iter().filter(|written| written.is_ok()).count(), 1);
        assert!(written.iter().all(|written| matches!(written, Ok(()) | Err(Error::Conflict { .. }))));
    })
    .await;
}

#[tokio::test]
async fn a_profile_is_replaced_by_who_knows_it_as_it_is() {
    everywhere(async |setup| {
        let accounts = setup.store().accounts();
        let account = setup.account("alex@example.com");
        accounts.create(account.new_account()).await.unwrap();
        let first = account.user;
        let renamed = User { name: "Alexandra".to_owned(), ..first.clone() };
        accounts.replace(&first, &renamed).await.unwrap();
        let verified = User { email_verified_at: Some(setup.clock.now()), ..first.clone() };
        assert!(matches!(accounts.replace(&first, &verified).await, Err(Error::Conflict { .. })));
        assert_eq!(accounts.user(first.id).await.unwrap(), Some(renamed));
    })
    .await;
}

fn signing_key(setup: &Setup, kid: &str) -> SigningKey {
    let created_at = setup.clock.now();
    let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"…"}}"#);
    let public = PublicKey { kid: kid.to_owned(), jwk, created_at };
    let (data_key, sealed) = ("d3JhcHBlZA==".to_owned(), "c2VhbGVk".to_owned());
    SigningKey { public, data_key, sealed, signs_from: created_at }
}

fn ring(keys: &[&SigningKey], revision: u64) -> SigningRing {
    SigningRing { keys: keys.iter().copied().cloned().collect(), revision }
}

#[tokio::test]
async fn the_first_signing_key_wins_and_others_follow_it() {
    everywhere(async |setup| {
        let keys = setup.store().signing_keys();
        assert_eq!(keys.ring().await.unwrap(), None);
        assert_eq!(keys.public_keys().await.unwrap(), []);
        let offered: Vec<_> = (0..8).map(|i| ring(&[&signing_key(&setup, &format!("key-{i}"))], 1)).collect();
        let chosen = offered.iter().map(|ring| keys.replace(None, ring));
        let chosen = futures::future::try_join_all(chosen).await.unwrap();
        let current = keys.ring().await.unwrap().unwrap();
        assert!(chosen.iter().all(|ring| *ring == current), "all use the same key");
        let first = current.keys[0].clone();
        assert_eq!(
            keys.public_keys().await.unwrap(),
            std::slice::from_ref(&first.public),
            "only its public half is out"
        );

        let next = signing_key(&setup, "next");
        let both = ring(&[&first, &next], 2);
        assert_eq!(keys.replace(Some(&current), &both).await.unwrap(), both);
        assert_eq!(keys.replace(Some(&current), &ring(&[&next], 2)).await.unwrap(), both, "it was too late");
        assert_eq!(keys.public_keys().await.unwrap().len(), 2);
        keys.replace(Some(&both), &ring(&[&next], 3)).await.unwrap();
        assert_eq!(keys.public_keys().await.unwrap(), [next.public], "the former one is withdrawn");
    })
    .await;
}
