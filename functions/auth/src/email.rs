//! `/api/auth/email`: proving that one reads mail at the account's address.

use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use tidegate_http::permission::AccountWrite;
use tidegate_http::{Change, Json, Person, Problem, RequestContext};
use tidegate_model::{Credentials, User};
use tidegate_platform::mail::Mail;
use utoipa::ToSchema;

use crate::links::{self, LinkToken, Purpose};
use crate::routes::{Password, UserView};
use crate::{Deps, accounts, throttle};

/// A mailed link.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyEmail {
    /// The link's `token`.
    #[schema(value_type = String)]
    token: Password,
}

/// Ask for a link that verifies one's address
///
/// The link is good once, for three days, and until another is asked for.
#[utoipa::path(
    post,
    path = "/api/auth/email/verification",
    tag = "auth",
    operation_id = "ask_for_email_verification",
    responses(
        (status = 202, description = "The link is on its way"),
        (status = 204, description = "The address is verified already")
    )
)]
pub(crate) async fn ask(
    caller: Person<AccountWrite>,
    State(deps): State<Deps>,
    context: RequestContext,
) -> Result<StatusCode, Problem> {
    let user = accounts::account(&deps, caller.user).await?;
    if user.email_verified_at.is_some() {
        return Ok(StatusCode::NO_CONTENT);
    }
    let _counted = throttle::mail(&deps, &context, &user.email).await?;
    mail_link(&deps, &context, &user).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Verify an address by a mailed link
#[utoipa::path(
    post,
    path = "/api/auth/email/verify",
    tag = "auth",
    operation_id = "verify_email",
    request_body = VerifyEmail,
    responses((status = 204, description = "Verified"))
)]
pub(crate) async fn verify(
    caller: Person<AccountWrite>,
    State(deps): State<Deps>,
    context: RequestContext,
    Json(body): Json<VerifyEmail>,
) -> Result<StatusCode, Problem> {
    let _counted = throttle::client(&deps, &context).await?;
    let token = LinkToken::parse(Purpose::Verification, body.token.expose()).ok_or_else(links::invalid)?;
    // Somebody else's account, made with one's own address, is not to be verified by a click.
    if token.user != caller.user {
        return Err(links::not_yours());
    }
    let now = deps.clock.now();
    let opens = |stored: &Credentials| token.opens(stored.verification.as_ref(), now);
    let credentials = deps.store.accounts().credentials(token.user).await?;
    let credentials = credentials.filter(opens).ok_or_else(links::invalid)?;
    let user = deps.store.accounts().user(token.user).await?.ok_or_else(links::invalid)?;
    // First what the link is for, then the link: where this ends in between, it can be followed again.
    mark_verified(&deps, &context, &user).await?;
    let rule = |stored: &Credentials| match opens(stored) {
        true => Ok(Credentials { verification: None, ..stored.clone() }),
        false => Err(links::invalid()),
    };
    accounts::change_credentials(&deps, credentials, rule, || None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Notes that whoever uses an account has its address.
pub(crate) async fn mark_verified(deps: &Deps, context: &RequestContext, user: &User) -> Result<(), Problem> {
    if user.email_verified_at.is_some() {
        return Ok(());
    }
    let verified = User { email_verified_at: Some(deps.clock.now()), ..user.clone() };
    let change = Change::of("email.verify", user.id);
    let change = change.from(&UserView::of(user.clone(), None)).to(&UserView::of(verified.clone(), None));
    let entry = context.audit(&deps.ids, None, Some(user.id.into()), change);
    Ok(deps.store.audited(entry).accounts().replace(user, &verified).await?)
}

/// Mails a link that verifies an account's address. Nothing in the mail is of the person's own choosing: it may be somebody
/// else's address.
pub(crate) async fn mail_link(deps: &Deps, context: &RequestContext, user: &User) -> Result<(), Problem> {
    let page = deps.settings.link(context, "/verify-email")?;
    let token = LinkToken::new(user.id);
    let link = token.link(Purpose::Verification, deps.clock.now());
    let credentials = accounts::credentials(deps, user.id).await?;
    let rule = |stored: &Credentials| Ok(Credentials { verification: Some(link.clone()), ..stored.clone() });
    accounts::change_credentials(deps, credentials, rule, || None).await?;
    let text = format!(
        "A Tidegate account was made with this address. If you made it, follow this link within three days, signed in to \
         it:\n\n{page}#token={}\n\nIf you didn't, ignore this mail.\n",
        *token.write(Purpose::Verification)
    );
    let mail = Mail { to: user.email.clone(), subject: "Verify your email address".to_owned(), text };
    Ok(deps.mailer.send(mail).await?)
}
