//! Invitations: a mailed link that makes whoever reads that mail a member. It is good once, for seven days, and only as long
//! as whoever sent it could send it.

use std::time::Duration;

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tidegate_http::permission::{AccountWrite, MembersWrite, TenantRead};
use tidegate_http::{
    Caller, Change, Created, Json, ListOf, PageQuery, Path, Person, Problem, ProblemCode, Public, Query, RandomSecret,
    RequestContext, Time,
};
use tidegate_model::{
    AuthMethod, FieldError, Invitation, InvitationId, Permission, PrincipalId, RoleName, Tenant, TenantId,
    TenantStatus, User,
};
use tidegate_platform::mail::Mail;
use tidegate_store::{Error as StoreError, Rate, Taken};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::authority::Authority;
use crate::members::MemberView;
use crate::routes::{Account, Password, SetRefresh, TenantView, TokenDelivery};
use crate::{Deps, Registration, accounts, routes, sessions, throttle};

/// What every invitation's token begins with.
const TOKEN_PREFIX: &str = "tgi_";
/// How long a link is good.
pub const INVITATION_LIFETIME: Duration = Duration::from_secs(7 * 86_400);
const MAX_INVITATIONS: usize = 100;
/// Mails that a tenant may have sent: enough to invite a company, too few to pester somebody.
const MAILS: Rate = Rate { every: Duration::from_secs(60), burst: 50 };

/// Whom to invite.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateInvitation {
    /// The address that the link is mailed to.
    #[schema(format = Email, max_length = 254, examples("sam@example.com"))]
    email: String,
    /// The role to come in: any but `owner`, and none that allows more than the caller may.
    role: RoleName,
}

/// An invitation, without its link.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Invitation)]
pub(crate) struct InvitationView {
    /// Its id.
    id: InvitationId,
    /// Who is invited, by address in lower case.
    email: String,
    /// In which role.
    role: RoleName,
    /// Who invited.
    invited_by: PrincipalId,
    /// When it was made.
    created_at: Time,
    /// Until when its link is good.
    expires_at: Time,
}

/// A link that was mailed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InvitationLink {
    /// The link's `token`.
    #[schema(value_type = String, examples("tgi_…"))]
    token: Password,
}

/// What an invitation leads to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InvitationPreview {
    /// The name of the tenant.
    tenant_name: String,
    /// Who is invited, by address.
    email: String,
    /// In which role.
    role: RoleName,
    /// Whether there is an account with this address, to sign in with and accept. If not, accepting makes one.
    account_exists: bool,
}

/// An account to make by an invitation.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegisterInvited {
    /// The link's `token`.
    #[schema(value_type = String, examples("tgi_…"))]
    token: Password,
    /// The user's name for display: 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200, examples("Sam"))]
    name: String,
    /// The password: 10 to 256 characters.
    password: Password,
    /// Where the refresh token goes.
    #[serde(default)]
    token_delivery: TokenDelivery,
}

/// A tenant that the caller has become a member of.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Joined {
    /// The tenant; its id is what `POST /api/auth/refresh` takes to switch to it.
    tenant: TenantView,
    /// The caller's role there.
    role: RoleName,
}

impl From<&Invitation> for InvitationView {
    fn from(invitation: &Invitation) -> Self {
        let Invitation { id, tenant: _, email, role, secret_hash: _, invited_by, created_at, expires_at } = invitation;
        Self {
            id: *id,
            email: email.clone(),
            role: role.clone(),
            invited_by: *invited_by,
            created_at: (*created_at).into(),
            expires_at: (*expires_at).into(),
        }
    }
}

/// What the link holds: `tgi_`, the ids of tenant and invitation in 32 hex digits each, and a secret.
struct Token {
    tenant: TenantId,
    id: InvitationId,
    secret: RandomSecret,
}

impl Token {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(TOKEN_PREFIX)?.split('.');
        let mut next = || parts.next();
        let tenant = format!("{}{}", TenantId::PREFIX, next()?).parse().ok()?;
        let id = format!("{}{}", InvitationId::PREFIX, next()?).parse().ok()?;
        let secret = RandomSecret::parse(next()?)?;
        next().is_none().then_some(Self { tenant, id, secret })
    }

    fn write(&self) -> Zeroizing<String> {
        let (tenant, id) = (self.tenant.to_string(), self.id.to_string());
        let (tenant, id) = (&tenant[TenantId::PREFIX.len()..], &id[InvitationId::PREFIX.len()..]);
        Zeroizing::new(format!("{TOKEN_PREFIX}{tenant}.{id}.{}", self.secret.expose()))
    }
}

/// Invite somebody
///
/// Mails a link, good for seven days and once. No answer shows it. Where the mail can't be sent this is 503, and nobody is
/// invited. It is worth nothing any more once the caller couldn't send it: having left, or having a lesser role.
#[utoipa::path(
    post, path = "/api/tenant/invitations", tag = "tenants", request_body = CreateInvitation,
    responses((
        status = 201, description = "The invitation, without its link", body = InvitationView,
        headers(("Location" = String, description = "The invitation's address")),
    )),
)]
pub(crate) async fn create_invitation(
    caller: Caller<MembersWrite>,
    State(deps): State<Deps>,
    context: RequestContext,
    Json(body): Json<CreateInvitation>,
) -> Result<Created<InvitationView>, Problem> {
    let authority = Authority::of(&deps, &caller).await?;
    let mut errors = Vec::new();
    let email = accounts::check_email(&body.email, "/email", &mut errors);
    if !errors.is_empty() {
        return Err(Problem::validation(errors));
    }
    authority.may_give(&body.role, "/role")?;
    check_uninvited(&deps, caller.tenant, &email).await?;
    let token = Token { tenant: caller.tenant, id: deps.ids.invitation(), secret: RandomSecret::new() };
    let now = deps.clock.now();
    let invitation = Invitation {
        id: token.id,
        tenant: caller.tenant,
        email,
        role: body.role,
        secret_hash: token.secret.hash(),
        invited_by: caller.principal,
        created_at: now,
        expires_at: now + INVITATION_LIFETIME,
    };
    // First the mail: an invitation that nobody got isn't to stand in the list.
    send(&deps, &context, &authority, &invitation, &token).await?;
    let view = InvitationView::from(&invitation);
    let entry = caller.audit(&deps.ids, Change::of("invitation.create", invitation.id).to(&view));
    deps.store.audited(entry).tenants().invite(&invitation).await?;
    Ok(Created { location: format!("/api/tenant/invitations/{}", invitation.id), body: view })
}

/// List invitations
///
/// Those that weren't accepted or revoked; also those that have ended, until they are revoked or sent again.
#[utoipa::path(
    get, path = "/api/tenant/invitations", tag = "tenants", params(PageQuery),
    responses((status = 200, description = "Newest first", body = ListOf<InvitationView>)),
)]
pub(crate) async fn list_invitations(
    caller: Caller<TenantRead>,
    State(deps): State<Deps>,
    Query(page): Query<PageQuery>,
) -> Result<Json<ListOf<InvitationView>>, Problem> {
    let (cursor, limit) = (page.cursor.as_deref(), page.limit.get() as usize);
    let found = deps.store.tenants().invitations(caller.tenant, cursor, limit).await?;
    Ok(Json(ListOf { items: found.items.iter().map(InvitationView::from).collect(), next_cursor: found.next_cursor }))
}

/// Get an invitation
#[utoipa::path(
    get, path = "/api/tenant/invitations/{id}", tag = "tenants", params(("id" = InvitationId, Path)),
    responses((status = 200, description = "The invitation, without its link", body = InvitationView)),
)]
pub(crate) async fn get_invitation(
    caller: Caller<TenantRead>,
    State(deps): State<Deps>,
    Path(id): Path<InvitationId>,
) -> Result<Json<InvitationView>, Problem> {
    let invitation = deps.store.tenants().invitation(caller.tenant, id).await?.ok_or_else(Problem::not_found)?;
    Ok(Json(InvitationView::from(&invitation)))
}

/// Revoke an invitation
#[utoipa::path(
    delete, path = "/api/tenant/invitations/{id}", tag = "tenants", params(("id" = InvitationId, Path)),
    responses((status = 204, description = "Its link is good for nothing any more")),
)]
pub(crate) async fn revoke_invitation(
    caller: Caller<MembersWrite>,
    State(deps): State<Deps>,
    Path(id): Path<InvitationId>,
) -> Result<StatusCode, Problem> {
    let authority = Authority::of(&deps, &caller).await?;
    let invitation = deps.store.tenants().invitation(caller.tenant, id).await?.ok_or_else(Problem::not_found)?;
    authority.may_take(&invitation.role)?;
    let change = Change::of("invitation.revoke", id).from(&InvitationView::from(&invitation));
    deps.store.audited(caller.audit(&deps.ids, change)).tenants().revoke(&invitation).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Send an invitation again
///
/// Mails another link, good for seven days from now; the one before isn't any more. The caller is then who invited.
#[utoipa::path(
    post, path = "/api/tenant/invitations/{id}/resend", tag = "tenants", params(("id" = InvitationId, Path)),
    responses((status = 200, description = "The invitation, without its link", body = InvitationView)),
)]
pub(crate) async fn resend_invitation(
    caller: Caller<MembersWrite>,
    State(deps): State<Deps>,
    context: RequestContext,
    Path(id): Path<InvitationId>,
) -> Result<Json<InvitationView>, Problem> {
    let authority = Authority::of(&deps, &caller).await?;
    let before = deps.store.tenants().invitation(caller.tenant, id).await?.ok_or_else(Problem::not_found)?;
    authority.may_give(&before.role, "/role")?;
    let token = Token { tenant: caller.tenant, id, secret: RandomSecret::new() };
    let after = Invitation {
        secret_hash: token.secret.hash(),
        invited_by: caller.principal,
        expires_at: deps.clock.now() + INVITATION_LIFETIME,
        ..before.clone()
    };
    send(&deps, &context, &authority, &after, &token).await?;
    let view = InvitationView::from(&after);
    let change = Change::of("invitation.resend", id).from(&InvitationView::from(&before)).to(&view);
    deps.store.audited(caller.audit(&deps.ids, change)).tenants().replace_invitation(&before, &after).await?;
    Ok(Json(view))
}

/// See what an invitation leads to
///
/// For whoever has the link. One that was used, was revoked or has ended is 410.
#[utoipa::path(
    post, path = "/api/invitations/preview", tag = "tenants", request_body = InvitationLink,
    responses((status = 200, description = "What it leads to", body = InvitationPreview)),
)]
pub(crate) async fn preview_invitation(
    _: Public,
    State(deps): State<Deps>,
    Json(body): Json<InvitationLink>,
) -> Result<Json<InvitationPreview>, Problem> {
    let (invitation, tenant) = open(&deps, &body.token).await?;
    let account_exists = deps.store.accounts().user_by_email(&invitation.email).await?.is_some();
    let Invitation { email, role, .. } = invitation;
    Ok(Json(InvitationPreview { tenant_name: tenant.name, email, role, account_exists }))
}

/// Accept an invitation
///
/// With the account whose address was invited; another one is 403. Who has none makes it with
/// `POST /api/invitations/register`.
#[utoipa::path(
    post, path = "/api/invitations/accept", tag = "tenants", request_body = InvitationLink,
    responses((status = 200, description = "The caller is a member", body = Joined)),
)]
pub(crate) async fn accept_invitation(
    caller: Person<AccountWrite>,
    State(deps): State<Deps>,
    Json(body): Json<InvitationLink>,
) -> Result<Json<Joined>, Problem> {
    let (invitation, tenant) = open(&deps, &body.token).await?;
    let user = accounts::account(&deps, caller.user).await?;
    if user.email != invitation.email {
        let detail = "This invitation is for another address. Sign in with the account that it was sent to.";
        return Err(Problem::new(ProblemCode::Forbidden, detail));
    }
    let member = accounts::member_of(tenant.id, &user, invitation.role.clone(), deps.clock.now());
    let change = Change::of("invitation.accept", invitation.id).to(&MemberView::from(&member));
    let entry = caller.audit(&deps.ids, Some(tenant.id), change);
    match deps.store.audited(entry).tenants().accept(&invitation, &member).await {
        Ok(()) => Ok(Json(Joined { tenant: TenantView::from(&tenant), role: member.role })),
        Err(StoreError::Conflict { .. }) => Err(not_accepted(&deps, &invitation, &user).await?),
        Err(error) => Err(error.into()),
    }
}

/// Make an account by an invitation
///
/// For an address that has none yet: makes it, accepts, and signs in. The address counts as verified, because the link was
/// mailed there. An account that exists is left as it is: 409, sign in and accept. It works wherever registration isn't
/// `closed`.
#[utoipa::path(
    post, path = "/api/invitations/register", tag = "tenants", request_body = RegisterInvited,
    responses((status = 201, description = "Registered, a member, and signed in", body = Account)),
)]
pub(crate) async fn register_invited(
    _: Public,
    State(deps): State<Deps>,
    context: RequestContext,
    Json(body): Json<RegisterInvited>,
) -> Result<(SetRefresh, Created<Account>), Problem> {
    if deps.settings.registration == Registration::Closed {
        return Err(accounts::registration_closed());
    }
    let RegisterInvited { token, name, password, token_delivery } = body;
    let (invitation, tenant) = open(&deps, &token).await?;
    let mut errors = Vec::new();
    let name = accounts::check_name(&name, "/name", &mut errors);
    accounts::check_password(&password, "/password", &mut errors);
    if !errors.is_empty() {
        return Err(Problem::validation(errors));
    }
    // Before the costly part; the store decides between two who accept at once.
    if deps.store.accounts().user_by_email(&invitation.email).await?.is_some() {
        return Err(account_exists());
    }
    let (user, credentials) = accounts::new_user(&deps, invitation.email.clone(), name, password).await?;
    let now = deps.clock.now();
    let user = User { email_verified_at: Some(now), ..user };
    let member = accounts::member_of(tenant.id, &user, invitation.role.clone(), now);
    let change = Change::of("invitation.accept", invitation.id).to(&MemberView::from(&member));
    let entry = context.audit(&deps.ids, Some(tenant.id), Some(user.id.into()), change);
    match deps.store.audited(entry).tenants().accept_as(&user, &credentials, &invitation, &member).await {
        Ok(()) => {}
        Err(StoreError::Conflict { .. }) => {
            let gone = deps.store.tenants().invitation(tenant.id, invitation.id).await?.is_none();
            return Err(if gone { link_invalid() } else { account_exists() });
        }
        Err(error) => return Err(error.into()),
    }
    let signed_in = sessions::begin(&deps, &context, user, vec![AuthMethod::Pwd], Some(tenant.id)).await?;
    let (cookie, account) = routes::answer(&deps, &context, signed_in, token_delivery);
    Ok((cookie, Created { location: "/api/auth/me".to_owned(), body: account }))
}

/// The invitation that a link leads to, and its tenant: only where it can be accepted.
async fn open(deps: &Deps, token: &Password) -> Result<(Invitation, Tenant), Problem> {
    let token = Token::parse(token.expose()).ok_or_else(link_invalid)?;
    let invitation = deps.store.tenants().invitation(token.tenant, token.id).await?;
    let now = deps.clock.now();
    let good = |invitation: &Invitation| token.secret.is(&invitation.secret_hash) && now < invitation.expires_at;
    let invitation = invitation.filter(good).ok_or_else(link_invalid)?;
    let tenant = deps.store.tenants().get(token.tenant).await?;
    let tenant = tenant.filter(|tenant| tenant.status != TenantStatus::Deleted).ok_or_else(link_invalid)?;
    if tenant.status == TenantStatus::Suspended {
        return Err(Problem::tenant_suspended());
    }
    let inviter = deps.store.tenants().member(tenant.id, invitation.invited_by).await?;
    let held = inviter.map(|inviter| tenant.permissions(&inviter.role)).unwrap_or_default();
    let could = held.contains(&Permission::MembersWrite) && held.is_superset(&tenant.permissions(&invitation.role));
    if !could || !tenant.has_role(&invitation.role) {
        return Err(link_invalid());
    }
    Ok((invitation, tenant))
}

/// Refuses to invite an address that is a member's, or was invited; and too many of them.
async fn check_uninvited(deps: &Deps, tenant: TenantId, email: &str) -> Result<(), Problem> {
    let refused = |detail: &str| Problem::validation(vec![FieldError::new("/email".into(), detail)]);
    if let Some(user) = deps.store.accounts().user_by_email(email).await?
        && deps.store.tenants().member(tenant, user.id.into()).await?.is_some()
    {
        return Err(refused("is the address of a member"));
    }
    let invitations = deps.store.tenants().invitations(tenant, None, MAX_INVITATIONS).await?.items;
    if invitations.iter().any(|invitation| invitation.email == email) {
        return Err(refused("was invited already; send that invitation again, or revoke it"));
    }
    if invitations.len() >= MAX_INVITATIONS {
        let detail = format!("An organization has at most {MAX_INVITATIONS} invitations; revoke one first.");
        return Err(Problem::new(ProblemCode::LimitReached, detail));
    }
    Ok(())
}

/// Mails an invitation's link.
async fn send(
    deps: &Deps,
    context: &RequestContext,
    authority: &Authority,
    invitation: &Invitation,
    token: &Token,
) -> Result<(), Problem> {
    let limit = format!("{}#invitations", invitation.tenant);
    if let (Taken::Refused { after }, _) = deps.store.rates().take(&limit, MAILS, 1, deps.clock.now(), None).await? {
        let detail = "Too many invitations were sent. Wait as `Retry-After` says.";
        return Err(Problem::new(ProblemCode::RateLimited, detail).retry_after(after));
    }
    // Whoever invites isn't known to the address either.
    let _counted = throttle::mail(deps, context, &invitation.email).await?;
    let token = token.write();
    let link = deps.settings.link(context, &format!("/invitations/accept#token={}", *token))?;
    let (inviter, tenant, role) = (&authority.member.name, &authority.tenant.name, &invitation.role);
    let text = format!(
        "Hello,\n\n{inviter:?} invites you to the organization {tenant:?} on Tidegate, as {role}.\n\n\
         To accept, follow this link within seven days:\n\n{link}\n\n\
         If you don't know what this is about, do nothing: without the link nobody gets in.\n"
    );
    let mail = Mail { to: invitation.email.clone(), subject: "You are invited to Tidegate".to_owned(), text };
    deps.mailer.send(mail).await.map_err(|error| {
        let error = &error as &dyn std::error::Error;
        tracing::error!(component = "auth", error, "an invitation can't be mailed");
        let detail = "The mail can't be sent at the moment, so nobody was invited. Try again later.";
        Problem::new(ProblemCode::Unavailable, detail).retry_after(Duration::from_secs(60))
    })
}

/// Why an invitation that was good a moment ago wasn't accepted.
async fn not_accepted(deps: &Deps, invitation: &Invitation, user: &User) -> Result<Problem, Problem> {
    let stored = deps.store.tenants().invitation(invitation.tenant, invitation.id).await?;
    let is_member = deps.store.tenants().member(invitation.tenant, user.id.into()).await?.is_some();
    if stored.is_some() && is_member {
        return Ok(Problem::new(ProblemCode::Conflict, "You are a member of this organization already."));
    }
    Ok(link_invalid())
}

fn link_invalid() -> Problem {
    let detail = "This invitation was used, was revoked or has ended. Ask whoever invited you for another one.";
    Problem::new(ProblemCode::LinkInvalid, detail)
}

fn account_exists() -> Problem {
    let detail = "There is an account with the address that was invited. Sign in, then accept the invitation.";
    Problem::new(ProblemCode::EmailTaken, detail)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_no_other_text_is_one() {
        let at = Timestamp::UNIX_EPOCH;
        let token = Token {
            tenant: TenantId::new(at, [1; 10]),
            id: InvitationId::new(at, [2; 10]),
            secret: RandomSecret::new(),
        };
        let text = token.write();
        let read = Token::parse(&text).unwrap();
        assert!(read.tenant == token.tenant && read.id == token.id && read.secret.is(&token.secret.hash()));
        for bad in ["", "tgi_", &text[1..], &text[..text.len() - 1], &format!("{}.x", *text), &text.replace('.', "_")] {
            assert!(Token::parse(bad).is_none(), "{bad}");
        }
    }
}
