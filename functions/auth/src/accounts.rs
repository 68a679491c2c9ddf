//! The rules of accounts: who may register, what a password and an address may be, who is signed in.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tidegate_http::{Change, Problem, ProblemCode, RequestContext};
use tidegate_model::{
    AuditEntry, AuthMethod, Credentials, DataKey, FieldError, Limits, Member, Policies, Role, RoleName, SessionId,
    Tenant, TenantId, TenantStatus, User, UserId,
};
use tidegate_platform::key_service::KeyContext;
use tidegate_store::{Error as StoreError, NewAccount};

use crate::routes::{LogIn, Password, Register, TenantView, UserView};
use crate::sessions::SignedIn;
use crate::{Deps, Registration, email, second_factor, sessions, throttle};

const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 10..=256;
const MAX_PASSWORD_BYTES: usize = 1_024;
/// So often is a change of credentials tried that somebody else changes at the same moment.
const MAX_TRIES: u32 = 4;
const MAX_NAME_CHARS: usize = 200;
/// RFC 5321, section 4.5.3.1: what fits between the angle brackets of a path.
const MAX_EMAIL_BYTES: usize = 254;

/// Makes a tenant and the user who owns it, and signs in, where everybody may.
pub(crate) async fn register(deps: &Deps, context: &RequestContext, request: Register) -> Result<SignedIn, Problem> {
    match deps.settings.registration {
        Registration::Open => {}
        Registration::Invite | Registration::Closed => return Err(registration_closed()),
    }
    let _counted = throttle::sign_in(deps, context, &request.email).await?;
    let (user, _) = create(deps, context, request).await?;
    if email::mail_link(deps, context, &user).await.is_err() {
        // Why not is in the log already. The account is made, and another link can be asked for.
        tracing::warn!(component = "auth", user_id = %user.id, "no link was mailed that verifies the address");
    }
    sessions::begin(deps, context, user, vec![AuthMethod::Pwd], None).await
}

/// Makes a tenant and the user who owns it.
pub(crate) async fn create(
    deps: &Deps,
    context: &RequestContext,
    request: Register,
) -> Result<(User, Tenant), Problem> {
    let Register { email, password, name, tenant_name, token_delivery: _ } = request;
    let mut errors = Vec::new();
    let email = check_email(&email, "/email", &mut errors);
    check_password(&password, "/password", &mut errors);
    let name = check_name(&name, "/name", &mut errors);
    let tenant_name = check_name(&tenant_name, "/tenant_name", &mut errors);
    if !errors.is_empty() {
        return Err(Problem::validation(errors));
    }
    // Before the costly part; the store decides between two who register at once.
    if deps.store.accounts().user_by_email(&email).await?.is_some() {
        return Err(email_taken());
    }
    let (user, credentials) = new_user(deps, email, name, password).await?;
    let (tenant, owner) = new_tenant(deps, &user, tenant_name).await?;
    let change = Change::of("tenant.create", tenant.id).to(&TenantView::from(&tenant));
    let entry = context.audit(&deps.ids, Some(tenant.id), Some(user.id.into()), change);
    let new = NewAccount { user: &user, credentials: &credentials, tenant: Some((&tenant, &owner)) };
    deps.store.audited(entry).accounts().create(new).await.map_err(taken)?;
    Ok((user, tenant))
}

/// A user to store, with a password.
pub(crate) async fn new_user(
    deps: &Deps,
    email: String,
    name: String,
    password: Password,
) -> Result<(User, Credentials), Problem> {
    let password_hash = deps.passwords.hash(password).await?;
    let user = User { id: deps.ids.user(), email, email_verified_at: None, name, created_at: deps.clock.now() };
    let credentials =
        Credentials { user: user.id, password_hash, second_factor: None, reset: None, verification: None, revision: 1 };
    Ok((user, credentials))
}

/// A tenant to store, and its owner.
pub(crate) async fn new_tenant(deps: &Deps, owner: &User, name: String) -> Result<(Tenant, Member), Problem> {
    let id = deps.ids.tenant();
    let created_at = deps.clock.now();
    let tenant = Tenant {
        id,
        name,
        status: TenantStatus::Active,
        data_keys: vec![new_data_key(deps, id, 1).await?],
        policies: Policies::default(),
        limits: Limits::default(),
        roles: BTreeMap::new(),
        revision: 1,
        created_at,
    };
    Ok((tenant, member_of(id, owner, Role::Owner.into(), created_at)))
}

/// A user's membership to store.
pub(crate) fn member_of(tenant: TenantId, user: &User, role: RoleName, created_at: Timestamp) -> Member {
    let (name, email) = (user.name.clone(), Some(user.email.clone()));
    Member { tenant, principal: user.id.into(), role, name, email, created_at }
}

/// Signs in with address and password, and with a code where the account has a second factor. Who isn't known and whose
/// password is wrong get the same answer after the same work, so that it doesn't tell who has an account.
pub(crate) async fn log_in(deps: &Deps, context: &RequestContext, request: LogIn) -> Result<SignedIn, Problem> {
    let LogIn { email, password, code, tenant_id, .. } = request;
    let attempt = throttle::sign_in(deps, context, &email).await?;
    let user = find(deps, &email).await?;
    let id = user.as_ref().map_or_else(|| deps.ids.user(), |user| user.id);
    let credentials = deps.store.accounts().credentials(id).await?;
    let hash = credentials.as_ref().map(|credentials| credentials.password_hash.clone());
    let right = deps.passwords.verify(password, hash).await?;
    let (user, credentials) = user.zip(credentials).filter(|_| right).ok_or_else(invalid_credentials)?;
    let proven = credentials.password_hash.clone();
    let mut methods = vec![AuthMethod::Pwd];
    let with_code = second_factor::confirmed(&credentials).is_some();
    if with_code {
        let Some(code) = code else {
            attempt.was_right(deps).await;
            let detail = "This account has a second factor. Sign in with a `code` of it, or a recovery code.";
            return Err(Problem::new(ProblemCode::SecondFactorRequired, detail));
        };
        let spent = second_factor::spend(deps, context, &user.email, credentials, &code).await?;
        spent.ok_or_else(second_factor_invalid)?;
        methods.push(AuthMethod::Otp);
    }
    attempt.was_right(deps).await;
    let signed_in = sessions::begin(deps, context, user, methods, tenant_id).await?;
    // Who changes the password or sets up a second factor ends all sessions that there are; this one came to be meanwhile.
    let user = signed_in.user.id;
    let now = self::credentials(deps, user).await?;
    if now.password_hash != proven || (second_factor::confirmed(&now).is_some() && !with_code) {
        deps.store.sessions().delete(user, &[signed_in.session]).await?;
        return Err(invalid_credentials());
    }
    Ok(signed_in)
}

/// The user with an address. Where there is none the store is asked as often.
pub(crate) async fn find(deps: &Deps, email: &str) -> Result<Option<User>, Problem> {
    let accounts = deps.store.accounts();
    let user = accounts.user_by_email(&normalize(email)).await?;
    if user.is_none() {
        // An address that is known costs a second read, of its user.
        accounts.user(deps.ids.user()).await?;
    }
    Ok(user)
}

/// Has a person who is signed in prove by the password to be the account's owner, and not only somebody at an open session.
/// A wrong one counts as a try to sign in, and is 422 at `pointer`.
pub(crate) async fn prove(
    deps: &Deps,
    context: &RequestContext,
    user: UserId,
    password: Password,
    pointer: &str,
) -> Result<(User, Credentials), Problem> {
    let user = account(deps, user).await?;
    let attempt = throttle::sign_in(deps, context, &user.email).await?;
    let credentials = credentials(deps, user.id).await?;
    if !deps.passwords.verify(password, Some(credentials.password_hash.clone())).await? {
        return Err(Problem::validation(vec![FieldError::new(pointer.into(), "is not the account's password")]));
    }
    attempt.was_right(deps).await;
    Ok((user, credentials))
}

/// Changes credentials by a rule, with an entry in the audit log if there is one; returns what is stored now. The rule is
/// applied again to what somebody else made of them at the same moment, unless that was another password.
pub(crate) async fn change_credentials(
    deps: &Deps,
    mut stored: Credentials,
    rule: impl Fn(&Credentials) -> Result<Credentials, Problem>,
    entry: impl Fn() -> Option<AuditEntry>,
) -> Result<Credentials, Problem> {
    let proven = stored.password_hash.clone();
    let mut tries = 0;
    loop {
        let next = Credentials { revision: stored.revision + 1, ..rule(&stored)? };
        let store = entry().map_or_else(|| deps.store.clone(), |entry| deps.store.audited(entry));
        match store.accounts().replace_credentials(&next).await {
            Ok(()) => return Ok(next),
            Err(error @ StoreError::Conflict { .. }) => {
                stored = credentials(deps, stored.user).await?;
                tries += 1;
                if tries == MAX_TRIES || (stored.password_hash != proven && rule(&stored).is_ok()) {
                    return Err(error.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Changes credentials and ends the user's sessions but one. They end before, so that where this fails nothing has changed
/// and it can be repeated; and after, for those that began in between.
pub(crate) async fn change_and_end_sessions(
    deps: &Deps,
    stored: Credentials,
    rule: impl Fn(&Credentials) -> Result<Credentials, Problem>,
    but: Option<SessionId>,
    audit: impl Fn(Change) -> AuditEntry,
    change: Change,
) -> Result<(), Problem> {
    let user = stored.user;
    let ended = || audit(Change::of("session.end_all", user));
    sessions::end_all(deps, user, but, ended()).await?;
    change_credentials(deps, stored, rule, || Some(audit(change.clone()))).await?;
    sessions::end_all(deps, user, but, ended()).await
}

/// What proves who a user is.
pub(crate) async fn credentials(deps: &Deps, user: UserId) -> Result<Credentials, Problem> {
    deps.store.accounts().credentials(user).await?.ok_or_else(gone)
}

/// A user. One that is gone since the token was signed is signed in no more.
pub(crate) async fn account(deps: &Deps, user: UserId) -> Result<User, Problem> {
    deps.store.accounts().user(user).await?.ok_or_else(gone)
}

/// Gives an account another name for display.
pub(crate) async fn rename(
    deps: &Deps,
    user: UserId,
    name: &str,
    audit: impl Fn(Change) -> AuditEntry,
) -> Result<(), Problem> {
    let mut errors = Vec::new();
    let name = check_name(name, "/name", &mut errors);
    if !errors.is_empty() {
        return Err(Problem::validation(errors));
    }
    let user = account(deps, user).await?;
    let renamed = User { name, ..user.clone() };
    let change = Change::of("account.update", user.id);
    let change = change.from(&UserView::of(user.clone(), None)).to(&UserView::of(renamed.clone(), None));
    Ok(deps.store.audited(audit(change)).accounts().replace(&user, &renamed).await?)
}

/// A tenant's new data key, of this number.
pub(crate) async fn new_data_key(deps: &Deps, tenant: TenantId, number: u32) -> Result<DataKey, Problem> {
    let wrapped = deps.envelope.new_data_key(&KeyContext::connections(tenant)).await?;
    let ingress = Some(deps.envelope.new_data_key(&KeyContext::ingress(tenant)).await?);
    Ok(DataKey { number, wrapped, ingress, created_at: deps.clock.now() })
}

/// Why an account couldn't be stored.
pub(crate) fn taken(error: StoreError) -> Problem {
    match error {
        StoreError::Conflict { .. } => email_taken(),
        StoreError::InvalidCursor
        | StoreError::Unavailable { .. }
        | StoreError::Refused { .. }
        | StoreError::Corrupt { .. } => error.into(),
    }
}

fn gone() -> Problem {
    Problem::new(ProblemCode::Unauthenticated, "This account exists no more.")
}

/// 401: the password was right, the code isn't.
fn second_factor_invalid() -> Problem {
    let detail = "The code isn't good now, or was used already. Wait for the next one; a recovery code is good once.";
    Problem::new(ProblemCode::SecondFactorInvalid, detail)
}

fn invalid_credentials() -> Problem {
    let detail = "There is no account with this email address and password.";
    Problem::new(ProblemCode::InvalidCredentials, detail)
}

pub(crate) fn registration_closed() -> Problem {
    let detail = "Accounts aren't open to everyone here. Ask whoever runs this installation for one.";
    Problem::new(ProblemCode::RegistrationClosed, detail)
}

fn email_taken() -> Problem {
    let detail = "An account with this email address exists. Sign in, or take another address.";
    Problem::new(ProblemCode::EmailTaken, detail)
        .with_errors(vec![FieldError::new("/email".into(), "is taken by another account")])
}

pub(crate) fn normalize(email: &str) -> String {
    email.trim().to_lowercase()
}

/// The address in the form that is stored. Whether mail arrives there only mail can tell, so little is checked.
pub(crate) fn check_email(email: &str, pointer: &str, errors: &mut Vec<FieldError>) -> String {
    let email = normalize(email);
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || "\"(),:;<>[\\]".contains(c);
    let well_formed = email.split_once('@').is_some_and(|(local, domain)| {
        let labels =
            domain.split('.').all(|label| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-'));
        !local.is_empty() && local.len() <= 64 && labels && !domain.contains('@')
    });
    if !well_formed || email.contains(forbidden) || email.len() > MAX_EMAIL_BYTES {
        errors.push(FieldError::new(pointer.into(), "expected an email address such as alex@example.com"));
    }
    email
}

pub(crate) fn check_password(password: &Password, pointer: &str, errors: &mut Vec<FieldError>) {
    let password = password.expose();
    if !PASSWORD_CHARS.contains(&password.chars().count()) || password.len() > MAX_PASSWORD_BYTES {
        errors.push(FieldError::new(pointer.into(), "expected 10 to 256 characters (1,024 bytes at most)"));
    }
}

pub(crate) fn check_name(name: &str, pointer: &str, errors: &mut Vec<FieldError>) -> String {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARS || name.contains(is_unseen) {
        errors.push(FieldError::new(pointer.into(), "expected 1 to 200 characters on one line, all of them visible"));
    }
    name.to_owned()
}

/// Controls, and what isn't seen or turns the text around it: names stand in mails. Joiners stay, which scripts and emoji
/// need.
fn is_unseen(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
        || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fff0}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_lower_case_and_look_like_addresses() {
        let check = |email: &str| {
            let mut errors = Vec::new();
            let email = check_email(email, "/email", &mut errors);
            errors.is_empty().then_some(email)
        };
        assert_eq!(check(" Alex.Doe+x@Example.COM "), Some("alex.doe+x@example.com".to_owned()));
        assert_eq!(check("root@localhost"), Some("root@localhost".to_owned()));
        assert_eq!(check("ä@bücher.example"), Some("ä@bücher.example".to_owned()));
        let long = format!("alex@{}.example", "x".repeat(250));
        let long_local = format!("{}@example.com", "x".repeat(65));
        for bad in [
            "",
            "@",
            "alex",
            "alex@",
            "@example.com",
            "a@b@c",
            "a b@example.com",
            "a@exa mple.com",
            "a@example..com",
            "a@.com",
            "a@-x.com",
            "<a@example.com>",
            "a@example.com\r\nbcc: b",
            &long,
            &long_local,
        ] {
            assert_eq!(check(bad), None, "{bad}");
        }
    }

    #[test]
    fn passwords_are_bounded_in_characters_and_bytes() {
        let good = |text: &str| {
            let mut errors = Vec::new();
            check_password(&Password::new(text), "/password", &mut errors);
            errors.is_empty()
        };
        assert!(!good("123456789") && good("1234567890") && good(&"x".repeat(256)) && !good(&"x".repeat(257)));
        assert!(good("🌊🌊🌊🌊🌊🌊🌊🌊🌊🌊") && good(&"🌊".repeat(256)));
        assert!(!good("🌊🌊🌊🌊🌊🌊🌊🌊🌊"));
    }
}
