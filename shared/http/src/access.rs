//! Who may call an operation. Every handler's first argument says it: [`Caller`] for callers with a permission in a tenant,
//! [`Person`] for what is about a person's own account or the installation, [`Public`] for everyone.
//! [`Api::route`](crate::Api::route) takes no other handler.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use http::header::AUTHORIZATION;
use http::request::Parts;
use tidegate_model::{
    Actor, ApiKeyId, AuditEntry, AuthMethod, Permission, PrincipalId, RoleName, SessionId, TenantId, UserId,
};
use tidegate_platform::Ids;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::SecurityRequirement;

use crate::audit::Change;
use crate::authenticate::Identity;
use crate::permission::Required;
use crate::{Authenticator, Problem, RequestContext};

/// The name of the security scheme in the OpenAPI document.
pub(crate) const BEARER: &str = "bearerAuth";

/// Somebody, a person or a machine, whose role in the tenant holds the permission `P`, and whose API key has it among its
/// scopes where one is used. Without a token 401, without the permission 403, over the limit 429. The function's state
/// yields the authenticator: `impl FromRef<Deps> for Authenticator`.
#[derive(Debug, Clone)]
pub struct Caller<P> {
    /// Whose data the caller works on; every query takes it.
    pub tenant: TenantId,
    /// Who it is.
    pub principal: PrincipalId,
    /// The caller's role in the tenant.
    pub role: RoleName,
    /// All that the caller may do.
    pub permissions: BTreeSet<Permission>,
    /// The API key that was used, if it was one.
    pub api_key: Option<ApiKeyId>,
    /// The sign-in of a person.
    pub session: Option<SessionId>,
    context: RequestContext,
    permission: PhantomData<fn() -> P>,
}

impl<P> Caller<P> {
    /// Refuses a caller without a further permission.
    ///
    /// # Errors
    /// 403.
    pub fn require(&self, permission: Permission) -> Result<(), Problem> {
        if self.permissions.contains(&permission) { Ok(()) } else { Err(Problem::forbidden(permission)) }
    }

    /// An entry of the tenant's audit log: that the caller did this to a target, which was and is as its views say.
    pub fn audit(&self, ids: &Ids, change: Change) -> AuditEntry {
        let actor = Actor {
            principal: Some(self.principal),
            session: self.session,
            api_key: self.api_key,
            address: self.context.address,
        };
        change.entry(ids, Some(self.tenant), actor, &self.context)
    }
}

impl<S, P> FromRequestParts<S> for Caller<P>
where
    S: Send + Sync,
    P: Required,
    Authenticator: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let (authenticator, identity, context) = recognise(parts, state, false).await?;
        let granted = authenticator.grant(&identity).await?;
        context.tell_rate(granted.rate);
        if !identity.is_for(P::PERMISSION) {
            return Err(Problem::out_of_scope(P::PERMISSION));
        }
        if !granted.permissions.contains(&P::PERMISSION) {
            return Err(Problem::forbidden(P::PERMISSION));
        }
        Ok(Self {
            tenant: granted.tenant,
            principal: identity.principal,
            role: granted.role,
            permissions: granted.permissions,
            api_key: identity.api_key.map(|key| key.id),
            session: identity.session,
            context,
            permission: PhantomData,
        })
    }
}

/// A person who is signed in, whatever the tenant: for `P` about the own account, or about the installation, which takes
/// one of its administrators.
#[derive(Debug, Clone)]
pub struct Person<P> {
    /// Who it is.
    pub user: UserId,
    /// The sign-in.
    pub session: SessionId,
    /// How the person proved who it is.
    pub methods: Arc<[AuthMethod]>,
    /// The tenant that the token is for, where the person still is a member.
    pub tenant: Option<TenantId>,
    context: RequestContext,
    permission: PhantomData<fn() -> P>,
}

impl<P> Person<P> {
    /// An entry of a tenant's audit log, or of the installation's: that the person did this.
    pub fn audit(&self, ids: &Ids, tenant: Option<TenantId>, change: Change) -> AuditEntry {
        let actor = Actor {
            principal: Some(self.user.into()),
            session: Some(self.session),
            api_key: None,
            address: self.context.address,
        };
        change.entry(ids, tenant, actor, &self.context)
    }
}

impl<S, P> FromRequestParts<S> for Person<P>
where
    S: Send + Sync,
    P: Required,
    Authenticator: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        // What is changed here outlasts the session: one that has ended changes nothing, however lately it did.
        let anew = matches!(P::PERMISSION, Permission::AccountWrite | Permission::PlatformWrite);
        let (authenticator, identity, context) = recognise(parts, state, anew).await?;
        let (PrincipalId::User(user), Some(session)) = (identity.principal, identity.session) else {
            return Err(Problem::not_a_person());
        };
        context.tell_rate(authenticator.count_person(user).await?);
        if !identity.is_for(P::PERMISSION) {
            return Err(Problem::out_of_scope(P::PERMISSION));
        }
        match P::PERMISSION {
            permission if permission.is_own() => {}
            permission if permission.is_of_platform() && authenticator.is_administrator(user, anew).await? => {}
            _ => return Err(Problem::not_an_administrator()),
        }
        let tenant = match identity.tenant {
            Some(tenant) if authenticator.is_member(tenant, identity.principal).await? => Some(tenant),
            _ => None,
        };
        let methods = identity.methods;
        Ok(Self { user, session, methods, tenant, context, permission: PhantomData })
    }
}

async fn recognise<S>(
    parts: &mut Parts,
    state: &S,
    anew: bool,
) -> Result<(Authenticator, Identity, RequestContext), Problem>
where
    S: Send + Sync,
    Authenticator: FromRef<S>,
{
    let authenticator = Authenticator::from_ref(state);
    let Ok(context) = RequestContext::from_request_parts(parts, state).await;
    let identity = authenticator.recognise(bearer_token(parts)?, anew).await?;
    context.name_caller(identity.tenant, identity.principal);
    Ok((authenticator, identity, context))
}

fn bearer_token(parts: &Parts) -> Result<&str, Problem> {
    let mut values = parts.headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or_else(Problem::token_missing)?;
    let token = value.to_str().ok().and_then(|value| value.split_once(' '));
    match token {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && values.next().is_none() => Ok(token.trim()),
        Some(_) | None => Err(Problem::token_missing()),
    }
}

/// Everyone may call it.
#[derive(Debug, Clone, Copy)]
pub struct Public;

impl<S: Send + Sync> FromRequestParts<S> for Public {
    type Rejection = Infallible;

    async fn from_request_parts(_parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

/// Says who may call an operation: [`Caller`], [`Person`] and [`Public`], nothing else.
#[diagnostic::on_unimplemented(
    message = "a handler's first argument says who may call it",
    label = "this is neither `Caller<_>` nor `Person<_>` nor `Public`"
)]
pub trait Access: sealed::Sealed {
    /// The permission that it takes; `None` where everyone may call.
    const PERMISSION: Option<Permission>;
}

impl<P: Required> Access for Caller<P> {
    const PERMISSION: Option<Permission> = Some(P::PERMISSION);
}

impl<P: Required> Access for Person<P> {
    const PERMISSION: Option<Permission> = Some(P::PERMISSION);
}

impl Access for Public {
    const PERMISSION: Option<Permission> = None;
}

/// Writes into an operation of the OpenAPI document who may call it.
pub(crate) fn describe(permission: Option<Permission>, operation: &mut Operation) {
    let Some(permission) = permission else {
        operation.security = Some(Vec::new());
        return;
    };
    operation.security = Some(vec![SecurityRequirement::new::<_, [String; 0], String>(BEARER, [])]);
    let extensions = operation.extensions.get_or_insert_with(Extensions::default);
    extensions.insert("x-required-permission".to_owned(), permission.as_str().into());
}

/// The arguments of a handler, as axum writes them, whose first says who may call it.
pub trait Guarded {
    /// The first argument.
    type Access: Access;
}

macro_rules! guarded {
    ($($argument:ident)*) => {
        impl<Via, A: Access, $($argument),*> Guarded for (Via, A, $($argument),*) {
            type Access = A;
        }
    };
}

guarded!();
guarded!(B);
guarded!(B C);
guarded!(B C D);
guarded!(B C D E);
guarded!(B C D E F);
guarded!(B C D E F G);
guarded!(B C D E F G H);

mod sealed {
    pub trait Sealed {}
    impl<P> Sealed for super::Caller<P> {}
    impl<P> Sealed for super::Person<P> {}
    impl Sealed for super::Public {}
}
