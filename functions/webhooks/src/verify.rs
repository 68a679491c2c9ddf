//! From whom a request is: opens the secrets that the head holds sealed, and has `signatures` check the raw bytes. Whatever
//! is missing or can't be opened refuses the request; nothing lets one through but a signature that is right.

use tidegate_http::{Problem, ProblemCode};
use tidegate_model::{Scheme, Verification};
use tidegate_platform::key_service::KeyContext;
use tidegate_signatures::{Received, Rejection, Secrets};

use crate::Ingress;
use crate::webhook::Webhook;

/// Why a request wasn't taken for what it says it is.
pub(crate) struct Refused {
    /// In a word.
    pub(crate) reason: &'static str,
    /// In a sentence.
    pub(crate) detail: String,
    /// Whether the workflow's owner has to mend it.
    is_ours: bool,
}

impl Refused {
    /// What the sender is told, which may be anybody.
    pub(crate) fn problem(&self, scheme: Scheme) -> Problem {
        let detail = match self.is_ours {
            true => {
                "This webhook can't verify anybody now. Its owner finds the reason among its deliveries.".to_owned()
            }
            false => format!("This request is not taken: {}.", self.detail),
        };
        let challenge = match scheme {
            Scheme::Basic => "Basic realm=\"webhook\", charset=\"UTF-8\"",
            Scheme::Bearer => "Bearer",
            Scheme::GitHub
            | Scheme::Stripe
            | Scheme::Slack
            | Scheme::Shopify
            | Scheme::Twilio
            | Scheme::StandardWebhooks
            | Scheme::Hmac => "Signature",
        };
        Problem::new(ProblemCode::SignatureInvalid, detail).challenge(challenge)
    }
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        Self { reason: rejection.reason(), detail: rejection.to_string(), is_ours: rejection.is_ours() }
    }
}

/// Checks a request of a workflow whose trigger says how.
///
/// # Errors
/// The key service is away. Inside: the request is refused.
pub(crate) async fn verify(
    ingress: &Ingress,
    webhook: &Webhook,
    verification: &Verification,
    received: &Received<'_>,
) -> Result<Result<(), Refused>, Problem> {
    let Some(secrets) = secrets(ingress, webhook).await? else {
        let detail = "The trigger's connection is gone, so nothing can be verified. Choose another in the workflow's `trigger.verify.connection`.";
        return Ok(Err(Refused { reason: "secret_missing", detail: detail.to_owned(), is_ours: true }));
    };
    let now = ingress.deps.clock.now();
    let verified = secrets.and_then(|secrets| tidegate_signatures::verify(verification, &secrets, received, now));
    Ok(verified.map_err(Refused::from))
}

async fn secrets(ingress: &Ingress, webhook: &Webhook) -> Result<Option<Result<Secrets, Rejection>>, Problem> {
    let Webhook { head, tenant, .. } = webhook;
    let Some(sealed) = &head.verification else { return Ok(None) };
    // A head may be read a moment before the tenant that has its key is read again.
    let Some(wrapped) = tenant.ingress_key(sealed.data_key) else { return Err(Problem::unavailable(&NoKey)) };
    let (context, associated) = (KeyContext::ingress(head.tenant), head.id.to_string());
    let plain = ingress.deps.envelope.open(wrapped, &context, associated.as_bytes(), &sealed.sealed).await?;
    Ok(Some(Secrets::read(&plain)))
}

#[derive(Debug, thiserror::Error)]
#[error("the tenant's data key is not known here yet")]
struct NoKey;
