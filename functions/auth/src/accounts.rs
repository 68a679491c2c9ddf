//! The rules of accounts: who may register, what a password and an address may be, who is signed in.

use tidegate_http::{Problem, ProblemCode};
use tidegate_model::{FieldError, Role, Tenant, TenantId, User, UserId};
use tidegate_platform::key_service::KeyContext;
use tidegate_store::Error as StoreError;

use crate::routes::{LogIn, Password, Register};
use crate::{Deps, Registration};

const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 10..=256;
const MAX_PASSWORD_BYTES: usize = 1_024;
const MAX_NAME_CHARS: usize = 200;
/// RFC 5321, section 4.5.3.1: what fits between the angle brackets of a path.
const MAX_EMAIL_BYTES: usize = 254;

/// A user who has just proved to be one.
pub(crate) struct SignedIn {
    pub(crate) token: String,
    pub(crate) user: User,
    pub(crate) tenant: Tenant,
}

/// Makes a tenant and the user who owns it, and signs in, where everybody may.
pub(crate) async fn register(deps: &Deps, request: Register) -> Result<SignedIn, Problem> {
    match deps.registration {
        Registration::Open => {}
        Registration::Invite | Registration::Closed => return Err(registration_closed()),
    }
    let (user, tenant) = create(deps, request).await?;
    sign_in(deps, user, tenant).await
}

/// Makes a tenant and the user who owns it.
pub(crate) async fn create(deps: &Deps, request: Register) -> Result<(User, Tenant), Problem> {
    let Register { email, password, name, tenant_name } = request;
    let mut errors = Vec::new();
    let email = check_email(&email, &mut errors);
    check_password(&password, &mut errors);
    let name = check_name(&name, "/name", &mut errors);
    let tenant_name = check_name(&tenant_name, "/tenant_name", &mut errors);
    if !errors.is_empty() {
        return Err(Problem::validation(errors));
    }
    // Before the costly part; the store decides between two who register at once.
    if deps.store.accounts().user_by_email(&email).await?.is_some() {
        return Err(email_taken());
    }
    let password_hash = deps.passwords.hash(password).await?;
    let id = deps.ids.tenant();
    let data_key = deps.envelope.new_data_key(&connections_context(id)).await?;
    let created_at = deps.clock.now();
    let tenant = Tenant { id, name: tenant_name, data_key, created_at };
    let user = User { id: deps.ids.user(), email, name, password_hash, tenant: id, role: Role::Owner, created_at };
    deps.store.accounts().create(&user, &tenant).await.map_err(|error| match error {
        StoreError::Conflict { .. } => email_taken(),
        StoreError::InvalidCursor
        | StoreError::Unavailable { .. }
        | StoreError::Refused { .. }
        | StoreError::Corrupt { .. } => error.into(),
    })?;
    Ok((user, tenant))
}

/// Signs in with address and password. Who isn't known and whose password is wrong get the same answer after the same
/// work, so that it doesn't tell who has an account.
pub(crate) async fn log_in(deps: &Deps, request: LogIn) -> Result<SignedIn, Problem> {
    let accounts = deps.store.accounts();
    let user = accounts.user_by_email(&normalize(&request.email)).await?;
    if user.is_none() {
        // An address that is known costs a second read, of its user.
        accounts.user(deps.ids.tenant(), deps.ids.user()).await?;
    }
    let hash = user.as_ref().map(|user| user.password_hash.clone());
    let right = deps.passwords.verify(request.password, hash).await?;
    let user = user.filter(|_| right).ok_or_else(|| {
        let detail = "There is no account with this email address and password.";
        Problem::new(ProblemCode::InvalidCredentials, detail)
    })?;
    let tenant = tenant_of(deps, user.tenant).await?;
    sign_in(deps, user, tenant).await
}

/// A user and their tenant. One that is gone since the token was signed is signed in no more.
pub(crate) async fn account(deps: &Deps, tenant: TenantId, user: UserId) -> Result<(User, Tenant), Problem> {
    let gone = || Problem::new(ProblemCode::Unauthenticated, "This account exists no more.");
    let user = deps.store.accounts().user(tenant, user).await?.ok_or_else(gone)?;
    Ok((user, tenant_of(deps, tenant).await?))
}

async fn tenant_of(deps: &Deps, id: TenantId) -> Result<Tenant, Problem> {
    let gone = || Problem::new(ProblemCode::Unauthenticated, "This account's organization exists no more.");
    deps.store.accounts().tenant(id).await?.ok_or_else(gone)
}

async fn sign_in(deps: &Deps, user: User, tenant: Tenant) -> Result<SignedIn, Problem> {
    let token = deps.signer.sign(user.id, tenant.id, user.role).await?;
    Ok(SignedIn { token, user, tenant })
}

/// What a tenant's data key for connections is bound to.
fn connections_context(tenant: TenantId) -> KeyContext {
    KeyContext { tenant: tenant.to_string(), purpose: "connections".to_owned() }
}

fn registration_closed() -> Problem {
    let detail = "Accounts aren't open to everyone here. Ask whoever runs this installation for one.";
    Problem::new(ProblemCode::RegistrationClosed, detail)
}

fn email_taken() -> Problem {
    let detail = "An account with this email address exists. Sign in, or take another address.";
    Problem::new(ProblemCode::EmailTaken, detail)
        .with_errors(vec![FieldError::new("/email".into(), "is taken by another account")])
}

fn normalize(email: &str) -> String {
    email.trim().to_lowercase()
}

/// The address in the form that is stored. Whether mail arrives there only mail can tell, so little is checked.
fn check_email(email: &str, errors: &mut Vec<FieldError>) -> String {
    let email = normalize(email);
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || "\"(),:;<>[\\]".contains(c);
    let well_formed = email.split_once('@').is_some_and(|(local, domain)| {
        let labels =
            domain.split('.').all(|label| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-'));
        !local.is_empty() && local.len() <= 64 && labels && !domain.contains('@')
    });
    if !well_formed || email.contains(forbidden) || email.len() > MAX_EMAIL_BYTES {
        errors.push(FieldError::new("/email".into(), "expected an email address such as alex@example.com"));
    }
    email
}

fn check_password(password: &Password, errors: &mut Vec<FieldError>) {
    let password = password.expose();
    if !PASSWORD_CHARS.contains(&password.chars().count()) || password.len() > MAX_PASSWORD_BYTES {
        errors.push(FieldError::new("/password".into(), "expected 10 to 256 characters (1,024 bytes at most)"));
    }
}

fn check_name(name: &str, pointer: &str, errors: &mut Vec<FieldError>) -> String {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARS || name.contains(char::is_control) {
        errors.push(FieldError::new(pointer.into(), "expected 1 to 200 characters on one line"));
    }
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_lower_case_and_look_like_addresses() {
        let check = |email: &str| {
            let mut errors = Vec::new();
            let email = check_email(email, &mut errors);
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
            check_password(&Password::new(text), &mut errors);
            errors.is_empty()
        };
        assert!(!good("123456789") && good("1234567890") && good(&"x".repeat(256)) && !good(&"x".repeat(257)));
        assert!(good("🌊🌊🌊🌊🌊🌊🌊🌊🌊🌊") && good(&"🌊".repeat(256)));
        assert!(!good("🌊🌊🌊🌊🌊🌊🌊🌊🌊"));
    }
}
