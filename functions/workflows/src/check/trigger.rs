//! What a webhook's requests are verified with, and what tells one that comes again.

use tidegate_engine::check_expression;
use tidegate_model::{Definition, FieldError, Pointer, Publisher, Scheme, Verification};

use super::known::Known;
use crate::verification::CONNECTOR;

pub(super) fn check(definition: &Definition, known: &Known, errors: &mut Vec<FieldError>) {
    let Some(trigger) = definition.trigger.webhook() else { return };
    let at = Pointer::root().push("trigger");
    if let Some(verify) = &trigger.verify {
        let at = at.push("verify").push("connection");
        errors.extend(check_connection(verify, known).map(|detail| FieldError::new(at, detail)));
    }
    if let Some(expression) = trigger.deduplicate.as_ref().and_then(|deduplicate| deduplicate.expression.as_deref()) {
        check_expression(expression, &at.push("deduplicate").push("expression"), errors);
    }
}

fn check_connection(verify: &Verification, known: &Known) -> Option<String> {
    let id = verify.connection;
    let Some(connection) = known.connections.get(&id) else {
        return Some(format!("there is no connection {id}; create it first, with the connector {CONNECTOR:?}"));
    };
    if connection.connector != CONNECTOR || connection.publisher != Publisher::Builtin {
        let detail = format!(
            "is a connection of connector {:?}; create one with the connector {CONNECTOR:?}, which holds what the sender \
             signs with",
            connection.connector
        );
        return Some(detail);
    }
    let (scheme, way) = (verify.scheme.as_str(), way_to_sign_in(verify.scheme));
    (connection.auth != way)
        .then(|| format!("holds what {CONNECTOR} calls {:?}; the scheme {scheme:?} takes {way:?}", connection.auth))
}

/// The way to sign in of the connector, for a scheme.
fn way_to_sign_in(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Basic => "basic",
        Scheme::Bearer => "bearer",
        Scheme::GitHub
        | Scheme::Stripe
        | Scheme::Slack
        | Scheme::Shopify
        | Scheme::Twilio
        | Scheme::StandardWebhooks
        | Scheme::Hmac => "signing_secret",
    }
}
