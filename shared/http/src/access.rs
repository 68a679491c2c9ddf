//! Who may call an operation. Every handler's first argument says it: [`Caller`] for callers with a permission,
//! [`Public`] for everyone. [`Api::route`](crate::Api::route) takes no other handler.

use std::convert::Infallible;
use std::marker::PhantomData;

use axum::extract::{FromRef, FromRequestParts};
use http::header::AUTHORIZATION;
use http::request::Parts;
use tidegate_model::{Permission, Role, TenantId, UserId};
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::SecurityRequirement;

use crate::permission::Required;
use crate::{Problem, RequestContext, TokenVerifier};

/// The name of the security scheme in the OpenAPI document.
pub(crate) const BEARER: &str = "bearerAuth";

/// Somebody with a valid access token whose role holds the permission `P`. Without a token 401, without the permission
/// 403. The function's state yields the verifier: `impl FromRef<Deps> for TokenVerifier`.
#[derive(Debug, Clone, Copy)]
pub struct Caller<P> {
    /// Whose data the caller works on; every query takes it.
    pub tenant: TenantId,
    /// Who it is.
    pub user: UserId,
    /// The caller's role in the tenant.
    pub role: Role,
    permission: PhantomData<fn() -> P>,
}

impl<S, P> FromRequestParts<S> for Caller<P>
where
    S: Send + Sync,
    P: Required,
    TokenVerifier: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let token = bearer_token(parts)?;
        let claims = TokenVerifier::from_ref(state).verify(token).await?;
        if let Some(context) = parts.extensions.get::<RequestContext>() {
            context.name_caller(claims.tenant, claims.sub);
        }
        if !claims.role.allows(P::PERMISSION) {
            return Err(Problem::forbidden(P::PERMISSION));
        }
        Ok(Self { tenant: claims.tenant, user: claims.sub, role: claims.role, permission: PhantomData })
    }
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

/// Says who may call an operation: [`Caller`] and [`Public`], nothing else.
#[diagnostic::on_unimplemented(
    message = "a handler's first argument says who may call it",
    label = "this is neither `Caller<_>` nor `Public`"
)]
pub trait Access: sealed::Sealed {
    /// The permission that it takes; `None` where everyone may call.
    const PERMISSION: Option<Permission>;
}

impl<P: Required> Access for Caller<P> {
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
    impl Sealed for super::Public {}
}
