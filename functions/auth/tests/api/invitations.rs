//! Invitations: `/api/tenant/invitations`, and what is done with their links, `/api/invitations`.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use tidegate_auth::{Deps, INVITATION_LIFETIME, Registration, api};
use tidegate_model::{Role, TenantStatus, UserId};
use tidegate_platform::mail::NoMailer;
use tidegate_testing::{Answer, Session, TestApp};

use crate::organization::{Organization, app, organization, post_public, told};
use crate::support::deps;

const SAM: &str = "sam@example.com";

impl Organization {
    /// Invites somebody and reads the mail.
    async fn invite(&self, who: &Session, email: &str, role: &str) -> (String, String) {
        let body = json!({"email": email, "role": role});
        let made = self.app.post(who, "/api/tenant/invitations", &body).await.expect(201);
        (made.text("/id").to_owned(), self.mailed(made.text("/email")))
    }

    /// The token in the only mail to an address.
    fn mailed(&self, email: &str) -> String {
        let mails = self.world.outbox.take(email);
        assert_eq!(mails.len(), 1);
        let (_, rest) = mails[0].text.split_once("https://flows.example.com/invitations/accept#token=").unwrap();
        rest.split_whitespace().next().unwrap().to_owned()
    }

    async fn members(&self) -> usize {
        self.world.store.tenants().members(self.owner.tenant, None, 100).await.unwrap().items.len()
    }
}

async fn preview(app: &TestApp, token: &str) -> Answer {
    post_public(app, "/api/invitations/preview", &json!({"token": token})).await
}

async fn accept(app: &TestApp, who: &Session, token: &str) -> Answer {
    app.post(who, "/api/invitations/accept", &json!({"token": token})).await
}

async fn register(app: &TestApp, token: &str) -> Answer {
    let body = json!({"token": token, "name": "Sam", "password": "correct horse battery"});
    post_public(app, "/api/invitations/register", &body).await
}

#[tokio::test]
async fn who_has_no_account_makes_one_by_the_link_also_where_registration_is_by_invitation() {
    let org = organization().await;
    let (id, token) = org.invite(&org.owner, " Sam@Example.com", "editor").await;
    let app = app(&org.world, Registration::Invite);
    let seen = preview(&app, &token).await.expect(200);
    assert_eq!(seen.body, json!({"tenant_name": "alex", "email": SAM, "role": "editor", "account_exists": false}));
    for (field, value) in [("name", json!(" ")), ("password", json!("short"))] {
        let mut body = json!({"token": token, "name": "Sam", "password": "correct horse battery"});
        body[field] = value;
        let answer = post_public(&app, "/api/invitations/register", &body).await.expect(422);
        assert_eq!(answer.pointers(), [format!("/{field}")]);
    }
    let joined = register(&app, &token).await.expect(201);
    assert_eq!((joined.text("/user/role"), joined.text("/tenant/name")), ("editor", "alex"));
    assert_eq!(joined.body["user"]["email_verified"], json!(true));
    assert!(joined.header("set-cookie").starts_with("tidegate_refresh=tgr_"));
    let sam = Session { token: joined.text("/access_token").to_owned(), ..org.owner.clone() };
    app.get(&sam, "/api/tenant").await.expect(200);
    let user: UserId = joined.text("/user/id").parse().unwrap();
    let accepted = org.audited().await.into_iter().find(|(_, action, _)| action == "invitation.accept").unwrap();
    assert_eq!((accepted.0, accepted.2), (Some(user.into()), id));

    for replayed in [register(&app, &token).await, preview(&app, &token).await, accept(&app, &sam, &token).await] {
        assert_eq!(told(&replayed), (410, "link_invalid"));
    }
    let login = json!({"email": SAM, "password": "correct horse battery"});
    post_public(&app, "/api/auth/login", &login).await.expect(200);
    assert!(org.invitations().await.is_empty());
}

#[tokio::test]
async fn an_account_that_exists_accepts_signed_in_and_keeps_its_password() {
    let org = organization().await;
    let sam = org.world.session("sam").await;
    let (_, token) = org.invite(&org.owner, SAM, "viewer").await;
    assert_eq!(preview(&org.app, &token).await.expect(200).body["account_exists"], json!(true));
    let before = org.world.store.accounts().credentials(sam.user).await.unwrap().unwrap();
    assert_eq!(told(&register(&org.app, &token).await), (409, "email_taken"));
    assert!(org.world.store.accounts().credentials(sam.user).await.unwrap() == Some(before));

    let kim = org.world.session("kim").await;
    let refused = accept(&org.app, &kim, &token).await;
    assert_eq!((told(&refused), refused.body.to_string().contains("sam")), ((403, "forbidden"), false));
    assert_eq!(told(&accept(&org.app, &org.owner, &token).await), (403, "forbidden"));
    let joined = accept(&org.app, &sam, &token).await.expect(200);
    assert_eq!((joined.text("/role"), joined.text("/tenant/name")), ("viewer", "alex"));
    assert_eq!(org.role_of(&sam).await, Some(Role::Viewer.into()));
    assert_eq!(org.world.store.accounts().tenants_of(sam.user).await.unwrap().len(), 2);
    assert_eq!(told(&accept(&org.app, &sam, &token).await), (410, "link_invalid"));
}

#[tokio::test]
async fn of_those_who_accept_at_once_one_does() {
    let org = organization().await;
    let (_, token) = org.invite(&org.owner, SAM, "viewer").await;
    let instances: Vec<_> = (0..4).map(|_| org.other_instance()).collect();
    let answers = join_all(instances.iter().map(|app| register(app, &token))).await;
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!((made, org.members().await), (1, 2));
    assert!(
        answers.iter().all(|answer| matches!(told(answer), (201, _) | (410, "link_invalid") | (409, "email_taken")))
    );

    let kim = org.world.session("kim").await;
    let (_, token) = org.invite(&org.owner, "kim@example.com", "viewer").await;
    let answers = join_all(instances.iter().map(|app| accept(app, &kim, &token))).await;
    let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!((statuses, org.members().await), (vec![200, 410, 410, 410], 3));
}

#[tokio::test]
async fn a_link_is_good_for_seven_days_and_until_it_is_revoked_or_sent_again() {
    let org = organization().await;
    let (_, ended) = org.invite(&org.owner, "late@example.com", "viewer").await;
    org.world.clock.advance(INVITATION_LIFETIME - Duration::from_secs(1));
    preview(&org.app, &ended).await.expect(200);
    org.later(1);
    assert_eq!(told(&preview(&org.app, &ended).await), (410, "link_invalid"));
    assert_eq!(told(&register(&org.app, &ended).await), (410, "link_invalid"));

    let (id, revoked) = org.invite(&org.owner, SAM, "viewer").await;
    let path = format!("/api/tenant/invitations/{id}");
    org.app.get(&org.owner, &path).await.expect(200);
    org.app.delete(&org.owner, &path).await.expect(204);
    org.app.get(&org.owner, &path).await.expect(404);
    assert_eq!(told(&register(&org.app, &revoked).await), (410, "link_invalid"));

    let (id, first) = org.invite(&org.owner, SAM, "viewer").await;
    let resent =
        org.app.post(&org.owner, &format!("/api/tenant/invitations/{id}/resend"), &json!({})).await.expect(200);
    let second = org.mailed(SAM);
    assert!(first != second && !resent.body.to_string().contains(&second));
    assert_eq!(told(&preview(&org.app, &first).await), (410, "link_invalid"));
    register(&org.app, &second).await.expect(201);
    let actions: Vec<_> = org.audited().await.into_iter().map(|(_, action, _)| action).collect();
    let of_invitations: Vec<_> = actions.iter().filter_map(|action| action.strip_prefix("invitation.")).collect();
    assert_eq!(of_invitations, ["accept", "resend", "create", "revoke", "create", "create"]);
}

#[tokio::test]
async fn no_other_text_is_a_link() {
    let org = organization().await;
    let (_, token) = org.invite(&org.owner, SAM, "viewer").await;
    let (_, other) = org.invite(&org.owner, "kim@example.com", "admin").await;
    let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (mine, others) = (parts(&token), parts(&other));
    let sam = org.world.session("other").await;
    let other_tenant = format!("tgi_{}", &sam.tenant.to_string()["ten_".len()..]);
    for forged in [
        String::new(),
        format!("{}.{}.{}", mine[0], others[1], mine[2]),
        format!("{}.{}.{}", mine[0], mine[1], others[2]),
        format!("{other_tenant}.{}.{}", mine[1], mine[2]),
        format!("{}.{}.{}", mine[0], mine[1], "A".repeat(43)),
        token.replace("tgi_", "tgr_"),
    ] {
        assert_eq!(told(&preview(&org.app, &forged).await), (410, "link_invalid"), "{forged}");
        assert_eq!(told(&register(&org.app, &forged).await), (410, "link_invalid"), "{forged}");
    }
    register(&org.app, &token).await.expect(201);
}

#[tokio::test]
async fn the_links_secret_is_in_the_mail_alone() {
    let org = organization().await;
    let (id, token) = org.invite(&org.owner, SAM, "viewer").await;
    let secret = token.rsplit('.').next().unwrap();
    let stored = org.invitations().await.remove(0);
    let told = [
        serde_json::to_string(&stored).unwrap(),
        serde_json::to_string(&org.audit_entries().await).unwrap(),
        org.app.get(&org.owner, "/api/tenant/invitations").await.expect(200).body.to_string(),
        org.app.get(&org.owner, &format!("/api/tenant/invitations/{id}")).await.expect(200).body.to_string(),
    ];
    for text in told {
        assert!(text.contains(SAM) && !text.contains(secret), "{text}");
    }
    let list = org.app.get(&org.owner, "/api/tenant/invitations").await.body;
    assert!(!list.to_string().contains(&stored.secret_hash));
}

#[tokio::test]
async fn an_invitation_is_worth_what_its_sender_could_still_give() {
    let org = organization().await;
    let admin = org.member(Role::Admin).await;
    let (_, by_demoted) = org.invite(&admin, SAM, "admin").await;
    let path = format!("/api/tenant/members/{}", admin.user);
    org.patch(&org.owner, &path, &json!({"role": "viewer"})).await.expect(200);
    assert_eq!(told(&register(&org.app, &by_demoted).await), (410, "link_invalid"));
    org.patch(&org.owner, &path, &json!({"role": "admin"})).await.expect(200);
    preview(&org.app, &by_demoted).await.expect(200);
    org.app.delete(&org.owner, &path).await.expect(204);
    for answer in [register(&org.app, &by_demoted).await, preview(&org.app, &by_demoted).await] {
        assert_eq!(told(&answer), (410, "link_invalid"));
    }
    assert_eq!(org.world.store.accounts().user_by_email(SAM).await.unwrap(), None);
    // Somebody else vouches for it.
    let id = org.invitations().await[0].id;
    org.app.post(&org.owner, &format!("/api/tenant/invitations/{id}/resend"), &json!({})).await.expect(200);
    register(&org.app, &org.mailed(SAM)).await.expect(201);
}

#[tokio::test]
async fn nobody_invites_into_a_role_that_they_could_not_give() {
    let org = organization().await;
    org.role("people", &["tenant:read", "members:write"]).await;
    let (people, editor) = (org.member_as("people").await, org.member(Role::Editor).await);
    let invite = async |who, role: &str, email: &str| {
        org.app.post(who, "/api/tenant/invitations", &json!({"email": email, "role": role})).await
    };
    assert_eq!(told(&invite(&editor, "viewer", SAM).await), (403, "forbidden"));
    for role in ["admin", "viewer"] {
        let answer = invite(&people, role, SAM).await;
        assert_eq!((told(&answer), answer.pointers()), ((403, "forbidden"), vec!["/role"]));
    }
    for role in ["owner", "operator"] {
        assert_eq!(invite(&org.owner, role, SAM).await.expect(422).pointers(), ["/role"]);
    }
    assert_eq!(invite(&org.owner, "viewer", "sam").await.expect(422).pointers(), ["/email"]);
    assert_eq!(invite(&org.owner, "viewer", "alex@example.com").await.expect(422).pointers(), ["/email"], "is in");
    assert!(org.invitations().await.is_empty() && org.world.outbox.take(SAM).is_empty());

    let (id, _) = org.invite(&org.owner, SAM, "admin").await;
    assert_eq!(invite(&org.owner, "viewer", SAM).await.expect(422).pointers(), ["/email"], "was invited");
    let path = format!("/api/tenant/invitations/{id}");
    assert_eq!(told(&org.app.post(&people, &format!("{path}/resend"), &json!({})).await), (403, "forbidden"));
    assert_eq!(told(&org.app.delete(&people, &path).await), (403, "forbidden"));
    let stranger = org.world.session("stranger").await;
    for answer in [org.app.get(&stranger, &path).await, org.app.delete(&stranger, &path).await] {
        assert_eq!(told(&answer), (404, "not_found"));
    }
    assert!(org.world.outbox.take(SAM).is_empty());
}

#[tokio::test]
async fn nobody_is_invited_where_no_mail_can_be_sent() {
    let org = organization().await;
    let deps = Deps { mailer: Arc::new(NoMailer), ..deps(&org.world, Registration::Open) };
    let mute = TestApp::new(&org.world, api(deps));
    let answer = mute.post(&org.owner, "/api/tenant/invitations", &json!({"email": SAM, "role": "viewer"})).await;
    assert_eq!(told(&answer), (503, "unavailable"));
    assert!(org.invitations().await.is_empty() && org.audited().await.is_empty());
    let (id, token) = org.invite(&org.owner, SAM, "viewer").await;
    let answer = mute.post(&org.owner, &format!("/api/tenant/invitations/{id}/resend"), &json!({})).await;
    assert_eq!(told(&answer), (503, "unavailable"));
    preview(&org.app, &token).await.expect(200);
}

#[tokio::test]
async fn an_invitation_makes_no_account_where_registration_is_closed_and_leads_into_no_tenant_that_is_stopped() {
    let org = organization().await;
    let closed = app(&org.world, Registration::Closed);
    let (_, token) = org.invite(&org.owner, SAM, "viewer").await;
    assert_eq!(told(&register(&closed, &token).await), (403, "registration_closed"));
    let set = async |status| {
        let before = org.tenant().await;
        let after = tidegate_model::Tenant { status, revision: before.revision + 1, ..before };
        org.world.store.tenants().replace(&after).await.unwrap();
    };
    set(TenantStatus::Suspended).await;
    assert_eq!(told(&register(&org.app, &token).await), (403, "tenant_suspended"));
    set(TenantStatus::Deleted).await;
    assert_eq!(told(&register(&org.app, &token).await), (410, "link_invalid"));
    set(TenantStatus::Active).await;
    let sam = org.world.session("sam").await;
    accept(&closed, &sam, &token).await.expect(200);
}

#[tokio::test]
async fn a_tenant_sends_so_many_invitations_and_no_more() {
    let org = organization().await;
    let invite = async |email: String| {
        org.world.clock.advance(Duration::from_micros(1));
        org.app.post(&org.owner, "/api/tenant/invitations", &json!({"email": email, "role": "viewer"})).await
    };
    for number in 0..50 {
        invite(format!("{number}@example.com")).await.expect(201);
    }
    let refused = invite("50@example.com".to_owned()).await;
    assert_eq!((told(&refused), refused.header("retry-after")), ((429, "rate_limited"), "60"));
    assert!(org.world.outbox.take("50@example.com").is_empty());
    for number in 50..100 {
        org.later(60);
        invite(format!("{number}@example.com")).await.expect(201);
    }
    org.later(60);
    assert_eq!(told(&invite("100@example.com".to_owned()).await), (409, "limit_reached"));
    let page = org.app.get(&org.owner, "/api/tenant/invitations?limit=2").await.expect(200);
    assert!(page.body["items"].as_array().unwrap().len() == 2 && page.body["next_cursor"] != Value::Null);
}

#[tokio::test]
async fn nobody_is_flooded_with_invitations_from_however_many_tenants() {
    let org = organization().await;
    let invite = json!({"email": "kim@example.com", "role": "viewer"});
    let made = org.app.post(&org.owner, "/api/tenant/invitations", &invite).await.expect(201);
    let resend = format!("/api/tenant/invitations/{}/resend", made.text("/id"));
    for _ in 1..5 {
        org.app.post(&org.owner, &resend, &Value::Null).await.expect(200);
    }
    assert_eq!(told(&org.app.post(&org.owner, &resend, &Value::Null).await), (429, "rate_limited"));
    let sam = org.world.session("sam").await;
    assert_eq!(told(&org.app.post(&sam, "/api/tenant/invitations", &invite).await), (429, "rate_limited"));
    assert_eq!(org.world.outbox.take("kim@example.com").len(), 5);
}
