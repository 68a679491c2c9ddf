//! Tenants: a person's own to switch between, and the settings, the owner and the end of one.

use axum::extract::State;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tidegate_http::permission::{AccountRead, AccountWrite, TenantOwn, TenantRead, TenantWrite};
use tidegate_http::{Caller, Change, Created, ETag, IfMatch, Json, ListOf, Person, Problem, ProblemCode, Time};
use tidegate_model::{
    AuthMethod, FieldError, Limits, Member, Policies, PrincipalId, Role, RoleName, Tenant, TenantId, TenantStatus,
    UserId,
};
use tidegate_store::Error as StoreError;
use utoipa::ToSchema;

use crate::authority::{Authority, owner_required};
use crate::members::MemberView;
use crate::routes::TenantView;
use crate::{Deps, Registration, accounts};

/// A person can't make another tenant while being a member of so many.
const MAX_TENANTS: usize = 50;
const READS_AT_ONCE: usize = 8;

/// A tenant that the caller is a member of.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Membership)]
pub(crate) struct MembershipView {
    /// The tenant; its id is what `POST /api/auth/refresh` takes to switch to it.
    tenant: TenantView,
    /// The caller's role there.
    role: RoleName,
}

/// A tenant to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateTenant {
    /// Name for display: 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200, examples("Example Ltd."))]
    name: String,
}

/// A tenant with its settings.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TenantSettings)]
pub(crate) struct SettingsView {
    /// The tenant's id.
    id: TenantId,
    /// Name for display.
    name: String,
    /// Whether it may be used.
    status: TenantStatus,
    /// What its members have to fulfil.
    policies: Policies,
    /// How much it may ask for; what is null is the installation's default.
    limits: Limits,
    /// When it was made.
    created_at: Time,
}

/// What to change of a tenant; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateTenant {
    /// Name for display: 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200, nullable = false)]
    name: Option<String>,
    /// What its members have to fulfil.
    #[schema(nullable = false)]
    policies: Option<UpdatePolicies>,
}

/// Policies to change; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdatePolicies {
    /// Members sign in with a second factor. Only who did so may switch it on.
    #[schema(nullable = false)]
    require_second_factor: Option<bool>,
    /// Members sign in by the tenant's identity provider. Only the owner, who may always sign in by password, may switch
    /// it on.
    #[schema(nullable = false)]
    require_sso: Option<bool>,
}

/// Who is to own the tenant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Transfer {
    /// A member who is a person.
    user_id: UserId,
}

/// That the tenant is really to go.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeleteTenant {
    /// The tenant's name, exactly.
    confirm: String,
}

impl From<&Tenant> for SettingsView {
    fn from(tenant: &Tenant) -> Self {
        let Tenant { id, name, status, data_keys: _, policies, limits, roles: _, revision: _, created_at } = tenant;
        Self {
            id: *id,
            name: name.clone(),
            status: *status,
            policies: *policies,
            limits: *limits,
            created_at: (*created_at).into(),
        }
    }
}

/// List one's tenants
///
/// Those that the caller is a member of, the one that was joined first at the beginning. `POST /api/auth/refresh` with a
/// `tenant_id` gets an access token for another of them.
#[utoipa::path(
    get, path = "/api/tenants", tag = "tenants",
    responses((status = 200, description = "All of them", body = ListOf<MembershipView>)),
)]
pub(crate) async fn list_tenants(
    caller: Person<AccountRead>,
    State(deps): State<Deps>,
) -> Result<Json<ListOf<MembershipView>>, Problem> {
    let ids = deps.store.accounts().tenants_of(caller.user).await?;
    let looked_up = stream::iter(ids).map(|id| membership(&deps, caller.user, id)).buffered(READS_AT_ONCE);
    let items: Vec<_> = looked_up.try_collect().await?;
    Ok(Json(ListOf { items: items.into_iter().flatten().collect(), next_cursor: None }))
}

/// A person's membership. A tenant whose deletion was cut short is met here again, and swept.
async fn membership(deps: &Deps, user: UserId, id: TenantId) -> Result<Option<MembershipView>, Problem> {
    let Some(tenant) = deps.store.tenants().get(id).await? else { return Ok(None) };
    if tenant.status == TenantStatus::Deleted {
        if let Err(error) = sweep(deps, id).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(component = "auth", tenant_id = %id, error, "a deleted tenant can't be swept yet");
        }
        return Ok(None);
    }
    let member = deps.store.tenants().member(id, user.into()).await?;
    Ok(member.map(|member| MembershipView { tenant: TenantView::from(&tenant), role: member.role }))
}

/// Make another tenant
///
/// The caller owns it. Only where registration is open; elsewhere this is 403.
#[utoipa::path(
    post, path = "/api/tenants", tag = "tenants", request_body = CreateTenant,
    responses((
        status = 201, description = "The tenant; get an access token for it with `POST /api/auth/refresh`",
        body = SettingsView, headers(("Location" = String, description = "Where a token of the tenant finds it")),
    )),
)]
pub(crate) async fn create_tenant(
    caller: Person<AccountWrite>,
    State(deps): State<Deps>,
    Json(body): Json<CreateTenant>,
) -> Result<Created<SettingsView>, Problem> {
    if deps.settings.registration != Registration::Open {
        let detail = "Not everyone may make an organization here. Ask whoever runs this installation for one.";
        return Err(Problem::new(ProblemCode::RegistrationClosed, detail));
    }
    let name = valid_name(&body.name)?;
    if deps.store.accounts().tenants_of(caller.user).await?.len() >= MAX_TENANTS {
        let detail = format!("You are a member of {MAX_TENANTS} organizations; leave one to make another.");
        return Err(Problem::new(ProblemCode::LimitReached, detail));
    }
    let user = accounts::account(&deps, caller.user).await?;
    let (tenant, owner) = accounts::new_tenant(&deps, &user, name).await?;
    let view = SettingsView::from(&tenant);
    let entry = caller.audit(&deps.ids, Some(tenant.id), Change::of("tenant.create", tenant.id).to(&view));
    deps.store.audited(entry).tenants().create(&tenant, &owner).await?;
    Ok(Created { location: "/api/tenant".to_owned(), body: view })
}

/// Get the tenant
#[utoipa::path(
    get, path = "/api/tenant", tag = "tenants",
    responses((
        status = 200, description = "The tenant that the token is for", body = SettingsView,
        headers(("ETag" = String, description = "Its revision, for If-Match")),
    )),
)]
pub(crate) async fn get_tenant(
    caller: Caller<TenantRead>,
    State(deps): State<Deps>,
) -> Result<(ETag, Json<SettingsView>), Problem> {
    let tenant = deps.store.tenants().get(caller.tenant).await?.ok_or_else(Problem::not_found)?;
    Ok((ETag(tenant.revision), Json(SettingsView::from(&tenant))))
}

/// Change the tenant's name or policies
///
/// Policies hold for everybody's next request, within 5 seconds: who signed in in another way may only look after their own
/// account. So that nobody locks themselves out, `require_second_factor` is switched on only by who signed in with one, and
/// `require_sso` only by the owner. An API key changes no policies.
#[utoipa::path(
    patch, path = "/api/tenant", tag = "tenants",
    params(("If-Match" = String, Header, description = "The `ETag` that was read")),
    request_body = UpdateTenant,
    responses((
        status = 200, description = "The tenant as it is now", body = SettingsView,
        headers(("ETag" = String, description = "Its new revision")),
    )),
)]
pub(crate) async fn update_tenant(
    caller: Caller<TenantWrite>,
    State(deps): State<Deps>,
    if_match: IfMatch,
    Json(body): Json<UpdateTenant>,
) -> Result<(ETag, Json<SettingsView>), Problem> {
    let authority = Authority::of(&deps, &caller).await?;
    let before = &authority.tenant;
    if_match.check(before.revision)?;
    let name = body.name.map_or_else(|| Ok(before.name.clone()), |name| valid_name(&name))?;
    let policies = match body.policies {
        Some(wanted) => changed_policies(&deps, &caller, &authority, &wanted).await?,
        None => before.policies,
    };
    let after = Tenant { name, policies, revision: before.revision + 1, ..before.clone() };
    let view = SettingsView::from(&after);
    let change = Change::of("tenant.update", after.id).from(&SettingsView::from(before)).to(&view);
    replace_head(&deps, caller.audit(&deps.ids, change), &after).await?;
    Ok((ETag(after.revision), Json(view)))
}

/// Stores a tenant's head that was read for this request's `If-Match`.
pub(crate) async fn replace_head(
    deps: &Deps,
    entry: tidegate_model::AuditEntry,
    tenant: &Tenant,
) -> Result<(), Problem> {
    deps.store.audited(entry).tenants().replace(tenant).await.map_err(|error| match error {
        StoreError::Conflict { .. } => Problem::precondition_failed(),
        StoreError::InvalidCursor
        | StoreError::Unavailable { .. }
        | StoreError::Refused { .. }
        | StoreError::Corrupt { .. } => error.into(),
    })
}

/// The policies as they are wanted, unless whoever wants them would be locked out.
async fn changed_policies(
    deps: &Deps,
    caller: &Caller<TenantWrite>,
    authority: &Authority,
    wanted: &UpdatePolicies,
) -> Result<Policies, Problem> {
    let before = authority.tenant.policies;
    let after = Policies {
        require_second_factor: wanted.require_second_factor.unwrap_or(before.require_second_factor),
        require_sso: wanted.require_sso.unwrap_or(before.require_sso),
    };
    if after == before {
        return Ok(after);
    }
    // Policies are no hurdle for machines, so that a key would switch off for people what its holder doesn't fulfil.
    let (PrincipalId::User(user), Some(session)) = (caller.principal, caller.session) else {
        let detail = "Policies are changed by people who are signed in, not with an API key.";
        return Err(Problem::new(ProblemCode::Forbidden, detail));
    };
    let session = deps.store.sessions().get(user, session).await?;
    let methods = session.map(|session| session.methods).unwrap_or_default();
    let strong = methods.contains(&AuthMethod::Otp) || methods.contains(&AuthMethod::Sso);
    let mut errors = Vec::new();
    if after.require_second_factor && !before.require_second_factor && !strong {
        let detail = "you would lock yourself out: sign in with a second factor first, then switch this on";
        errors.push(FieldError::new("/policies/require_second_factor".into(), detail));
    }
    if after.require_sso && !before.require_sso && !authority.member.is_owner() {
        let detail = "only the owner, who may still sign in by password, can switch this on";
        errors.push(FieldError::new("/policies/require_sso".into(), detail));
    }
    if errors.is_empty() { Ok(after) } else { Err(Problem::validation(errors)) }
}

/// Hand the tenant over
///
/// Another member becomes its owner, and the caller an admin, both at once.
#[utoipa::path(
    post, path = "/api/tenant/transfer", tag = "tenants", request_body = Transfer,
    responses((status = 204, description = "The other member owns the tenant")),
)]
pub(crate) async fn transfer_tenant(
    caller: Caller<TenantOwn>,
    State(deps): State<Deps>,
    Json(body): Json<Transfer>,
) -> Result<StatusCode, Problem> {
    let Authority { tenant, member: owner, .. } = Authority::of(&deps, &caller).await?;
    let refused = |detail: &str| Problem::validation(vec![FieldError::new("/user_id".into(), detail)]);
    if owner.principal == body.user_id.into() {
        return Err(refused("owns the organization already"));
    }
    let heir = deps.store.tenants().member(tenant.id, body.user_id.into()).await?;
    let heir = heir.ok_or_else(|| refused("is no member of the organization; invite them first"))?;
    let changes = [
        (&heir, &Member { role: Role::Owner.into(), ..heir.clone() }),
        (&owner, &Member { role: Role::Admin.into(), ..owner.clone() }),
    ];
    let views = [&owner, changes[0].1].map(MemberView::from);
    let change = Change::of("tenant.transfer", tenant.id).from(&views[0]).to(&views[1]);
    deps.store.audited(caller.audit(&deps.ids, change)).tenants().replace_members(&changes).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Leave the tenant
///
/// The one that the token is for. Its owner can't; there the tenant has to be handed over first.
#[utoipa::path(
    post, path = "/api/tenant/leave", tag = "tenants",
    responses((status = 204, description = "The caller is no member any more")),
)]
pub(crate) async fn leave_tenant(
    caller: Person<AccountWrite>,
    State(deps): State<Deps>,
) -> Result<StatusCode, Problem> {
    let id = caller.tenant.ok_or_else(Problem::not_found)?;
    let member = deps.store.tenants().member(id, caller.user.into()).await?.ok_or_else(Problem::not_found)?;
    if member.is_owner() {
        return Err(owner_required());
    }
    let change = Change::of("member.leave", member.principal).from(&MemberView::from(&member));
    deps.store.audited(caller.audit(&deps.ids, Some(id), change)).tenants().remove_member(&member).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Delete the tenant
///
/// For good. First its data keys are destroyed, so that no secret of its connections can be opened again; then its API keys,
/// invitations and members go. Within 5 seconds nothing of it answers any more, and its webhooks are 404: what a
/// failure on the way leaves behind is good for nothing.
#[utoipa::path(
    delete, path = "/api/tenant", tag = "tenants", request_body = DeleteTenant,
    responses((status = 204, description = "It is gone")),
)]
pub(crate) async fn delete_tenant(
    caller: Caller<TenantOwn>,
    State(deps): State<Deps>,
    Json(body): Json<DeleteTenant>,
) -> Result<StatusCode, Problem> {
    let tenant = deps.store.tenants().get(caller.tenant).await?.ok_or_else(Problem::not_found)?;
    if tenant.status != TenantStatus::Deleted {
        let Authority { tenant: before, .. } = Authority::of(&deps, &caller).await?;
        if body.confirm != before.name {
            let detail = "isn't the organization's name; give that, exactly, to confirm";
            return Err(Problem::validation(vec![FieldError::new("/confirm".into(), detail)]));
        }
        let change = Change::of("tenant.delete", before.id).from(&SettingsView::from(&before));
        let gone = Tenant {
            name: String::new(),
            status: TenantStatus::Deleted,
            data_keys: Vec::new(),
            policies: Policies::default(),
            limits: Limits::default(),
            roles: std::collections::BTreeMap::new(),
            revision: before.revision + 1,
            ..before
        };
        deps.store.audited(caller.audit(&deps.ids, change)).tenants().replace(&gone).await?;
    }
    sweep(&deps, tenant.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes what lies around a tenant whose head says that it is deleted. None of it is good for anything any more, so it
/// doesn't matter when; the members come last, because from them somebody finds here again.
async fn sweep(deps: &Deps, tenant: TenantId) -> Result<(), StoreError> {
    let mut cursor: Option<String> = None;
    loop {
        let page = deps.store.api_keys().list(tenant, cursor.as_deref(), tidegate_store::MAX_PAGE).await?;
        for key in &page.items {
            deps.store.api_keys().delete(key.id).await?;
        }
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    deps.store.tenants().clear(tenant).await
}

fn valid_name(name: &str) -> Result<String, Problem> {
    let mut errors = Vec::new();
    let name = accounts::check_name(name, "/name", &mut errors);
    if errors.is_empty() { Ok(name) } else { Err(Problem::validation(errors)) }
}
