//! `/api/auth/password`: changing one's password, and setting a new one by a mailed link.

use std::time::Duration;

use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use tidegate_http::permission::AccountWrite;
use tidegate_http::{Change, Json, Person, Problem, Public, RequestContext};
use tidegate_model::{Credentials, UserId};
use tidegate_platform::mail::Mail;
use tidegate_store::Error as StoreError;
use utoipa::ToSchema;

use crate::links::{self, LinkToken, Purpose};
use crate::routes::Password;
use crate::{Deps, accounts, email, second_factor, throttle};

/// How long asking for a link takes at least: longer than it takes to send a mail, so that the time doesn't tell whether
/// one was sent.
const ASKING_TAKES: Duration = Duration::from_secs(2);
/// So often is a link stored again where somebody else changes the credentials.
const MAX_TRIES: u32 = 3;

/// The old password and the new one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangePassword {
    /// The password so far.
    current_password: Password,
    /// The new one: 10 to 256 characters.
    new_password: Password,
}

/// Whose password was forgotten.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForgotPassword {
    /// The account's address.
    #[schema(format = Email, examples("alex@example.com"))]
    email: String,
}

/// A new password, by a mailed link.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResetPassword {
    /// The link's `token`.
    #[schema(value_type = String)]
    token: Password,
    /// The new password: 10 to 256 characters.
    new_password: Password,
}

/// Change one's password
///
/// All other sessions end.
#[utoipa::path(
    post,
    path = "/api/auth/password",
    tag = "auth",
    operation_id = "change_password",
    request_body = ChangePassword,
    responses((status = 204, description = "Changed"))
)]
pub(crate) async fn change(
    caller: Person<AccountWrite>,
    State(deps): State<Deps>,
    context: RequestContext,
    Json(body): Json<ChangePassword>,
) -> Result<StatusCode, Problem> {
    let ChangePassword { current_password, new_password } = body;
    check(&new_password)?;
    let pointer = "/current_password";
    let (_, credentials) = accounts::prove(&deps, &context, caller.user, current_password, pointer).await?;
    let password_hash = deps.passwords.hash(new_password).await?;
    let rule = |stored: &Credentials| Ok(with_password(stored, &password_hash));
    let audit = |change| caller.audit(&deps.ids, caller.tenant, change);
    let change = Change::of("password.change", caller.user);
    accounts::change_and_end_sessions(&deps, credentials, rule, Some(caller.session), audit, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ask for a link that sets a new password
///
/// The answer is the same whether there is such an account or not. The link is good once, for an hour, and until another is
/// asked for.
#[utoipa::path(
    post,
    path = "/api/auth/password/forgot",
    tag = "auth",
    operation_id = "forgot_password",
    request_body = ForgotPassword,
    responses((status = 202, description = "If there is such an account, a link is on its way"))
)]
pub(crate) async fn forgot(
    _: Public,
    State(deps): State<Deps>,
    context: RequestContext,
    Json(body): Json<ForgotPassword>,
) -> Result<StatusCode, Problem> {
    let _counted = throttle::mail(&deps, &context, &body.email).await?;
    let least = async {
        // A clock that stands still can't be waited for.
        if !deps.clock.is_manual() {
            tokio::time::sleep(ASKING_TAKES).await;
        }
    };
    let (mailed, ()) = tokio::join!(mail_link(&deps, &context, &body.email), least);
    mailed?;
    Ok(StatusCode::ACCEPTED)
}

/// Set a new password by a mailed link
///
/// All sessions end. Signing in takes the second factor as before, where there is one; an account whose address wasn't
/// verified has it verified by this, and loses a second factor.
#[utoipa::path(
    post,
    path = "/api/auth/password/reset",
    tag = "auth",
    operation_id = "reset_password",
    request_body = ResetPassword,
    responses((status = 204, description = "Set"))
)]
pub(crate) async fn reset(
    _: Public,
    State(deps): State<Deps>,
    context: RequestContext,
    Json(body): Json<ResetPassword>,
) -> Result<StatusCode, Problem> {
    let ResetPassword { token, new_password } = body;
    let _counted = throttle::client(&deps, &context).await?;
    check(&new_password)?;
    let token = LinkToken::parse(Purpose::Reset, token.expose()).ok_or_else(links::invalid)?;
    let user = token.user;
    let credentials = deps.store.accounts().credentials(user).await?.ok_or_else(links::invalid)?;
    let opens = |stored: &Credentials| token.opens(stored.reset.as_ref(), deps.clock.now());
    if !opens(&credentials) {
        return Err(links::invalid());
    }
    let account = deps.store.accounts().user(user).await?.ok_or_else(links::invalid)?;
    let password_hash = deps.passwords.hash(new_password).await?;
    let rule = |stored: &Credentials| match opens(stored) {
        // Whoever made an account with somebody else's address may have given it a second factor, too.
        true if account.email_verified_at.is_none() => {
            Ok(Credentials { second_factor: None, ..with_password(stored, &password_hash) })
        }
        true => Ok(with_password(stored, &password_hash)),
        false => Err(links::invalid()),
    };
    let audit = |change| context.audit(&deps.ids, None, Some(user.into()), change);
    let change = Change::of("password.reset", user);
    accounts::change_and_end_sessions(&deps, credentials, rule, None, audit, change).await?;
    // The link came to the address. After the rest, which has to see that it wasn't verified; and the link is spent, so that
    // somebody who changed the account at the same moment doesn't make this a failure.
    if let Err(problem) = email::mark_verified(&deps, &context, &account).await {
        tracing::warn!(component = "auth", user_id = %user, error = %problem, "an address isn't marked as verified");
    }
    Ok(StatusCode::NO_CONTENT)
}

/// A new password. A link that was mailed to whoever knew the old one is no longer good, and neither is a second factor that
/// somebody who knew it has begun to set up.
fn with_password(stored: &Credentials, password_hash: &str) -> Credentials {
    Credentials {
        password_hash: password_hash.to_owned(),
        reset: None,
        second_factor: second_factor::confirmed(stored).cloned(),
        ..stored.clone()
    }
}

fn check(new_password: &Password) -> Result<(), Problem> {
    let mut errors = Vec::new();
    accounts::check_password(new_password, "/new_password", &mut errors);
    if errors.is_empty() { Ok(()) } else { Err(Problem::validation(errors)) }
}

/// Mails a link to whoever has the account with this address. Where nobody has, the store is asked the same.
async fn mail_link(deps: &Deps, context: &RequestContext, email: &str) -> Result<(), Problem> {
    let page = deps.settings.link(context, "/reset-password")?;
    let accounts = deps.store.accounts();
    let user = accounts::find(deps, email).await?;
    let id = user.as_ref().map_or_else(|| deps.ids.user(), |user| user.id);
    let token = LinkToken::new(id);
    for _ in 0..MAX_TRIES {
        let stored = accounts.credentials(id).await?.unwrap_or_else(|| nobody(id));
        let reset = Some(token.link(Purpose::Reset, deps.clock.now()));
        let next = Credentials { reset, revision: stored.revision + 1, ..stored };
        match (accounts.replace_credentials(&next).await, &user) {
            (Ok(()), Some(user)) => {
                let text = format!(
                    "Somebody, hopefully you, asked for a new password for your Tidegate account. Set it here within an \
                     hour:\n\n{page}#token={}\n\nIf it wasn't you, ignore this mail: nothing has changed.\n",
                    *token.write(Purpose::Reset)
                );
                let mail = Mail { to: user.email.clone(), subject: "Set a new password".to_owned(), text };
                if let Err(error) = deps.mailer.send(mail).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(component = "auth", user_id = %id, error, "a link can't be mailed");
                }
                return Ok(());
            }
            // The write to the credentials of nobody is refused.
            (Ok(()) | Err(StoreError::Conflict { .. }), None) => return Ok(()),
            (Err(StoreError::Conflict { .. }), Some(_)) => {}
            (Err(error), _) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Credentials that aren't stored, so that a write that expects them fails.
fn nobody(user: UserId) -> Credentials {
    let password_hash = String::new();
    Credentials { user, password_hash, second_factor: None, reset: None, verification: None, revision: 1 }
}
