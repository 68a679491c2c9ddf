//! Why a call brought no response. No text holds a secret, nor the path or query of a URL: either may be one.

use std::time::Duration;

use tidegate_platform::envelope::EnvelopeError;

use crate::{Denied, MailFailure};

/// Why a call brought no response. The texts are for the author of the workflow.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EgressError {
    /// The URL is not one that can be called.
    #[error("the URL can't be called: {0}")]
    InvalidUrl(&'static str),
    /// The method, a header, the idempotency key or the trace context is not one that can be sent.
    #[error("the request can't be sent: {0}")]
    InvalidRequest(String),
    /// The host's address, or one of its addresses, may not be called.
    #[error("{host} may not be called: {denied}")]
    DeniedAddress {
        /// The host, as the URL names it.
        host: String,
        /// The rule, and what opens it.
        denied: Denied,
    },
    /// The connection was not made for this host, so its secret was not opened.
    #[error(
        "the connection's secret may not be sent to {target}, only to {} (by https unless a port is named): change the \
         URL, make a connection for its host, or consent, where a new version of the connector names it",
        .hosts.join(", ")
    )]
    HostNotAllowed {
        /// Scheme, host and port of the request.
        target: String,
        /// The connection's hosts.
        hosts: Vec<String>,
    },
    /// The connection's secret was not opened.
    #[error("the connection {connection} can't be opened")]
    Connection {
        /// The connection's id.
        connection: String,
        /// Why; it says whether another attempt may help.
        #[source]
        source: EnvelopeError,
    },
    /// The connection's secret is not what the action expects.
    #[error("the secret of the connection {connection} can't be used: {reason}")]
    Secret {
        /// The connection's id.
        connection: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The host has no address, or its address wasn't found out.
    #[error("no address of {host} was found: {reason}")]
    Dns {
        /// The host.
        host: String,
        /// The resolver's reason.
        reason: String,
    },
    /// No connection to the host; nothing was sent.
    #[error("can't connect to {host}: {reason}")]
    Connect {
        /// The host.
        host: String,
        /// The innermost reason.
        reason: String,
    },
    /// The connection broke, or the answer was not HTTP; the request may have arrived.
    #[error("the call to {host} broke off: {reason}")]
    Interrupted {
        /// The host.
        host: String,
        /// The innermost reason.
        reason: String,
    },
    /// The call took longer than the request's timeout; the request may have arrived.
    #[error("no complete answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The request's body is too large.
    #[error("the request's body is larger than {limit} bytes")]
    RequestTooLarge {
        /// The bound.
        limit: usize,
    },
    /// The response's body is too large; the request has arrived.
    #[error("the body of the answer from {host} is larger than {limit} bytes")]
    ResponseTooLarge {
        /// The host.
        host: String,
        /// The bound, after decompression.
        limit: usize,
    },
    /// The response's body is packed in a way that wasn't asked for; the request has arrived.
    #[error("the answer from {host} is encoded as {encoding}, which wasn't asked for and can't be read")]
    Encoded {
        /// The host.
        host: String,
        /// The encoding.
        encoding: String,
    },
    /// A redirect that is not followed.
    #[error("{host} redirects {reason}")]
    Redirect {
        /// The host that redirects.
        host: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// What a mail server answered.
    #[error("the mail server {host} refuses: {reason}")]
    Mail {
        /// The server.
        host: String,
        /// Its answer.
        reason: String,
        /// What it means.
        kind: MailFailure,
    },
    /// This installation can make no calls.
    #[error("the HTTP client can't be set up: {0}")]
    Setup(String),
}

impl EgressError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Dns { .. } | Self::Connect { .. } | Self::Interrupted { .. } | Self::Timeout(_) => true,
            Self::Connection { source, .. } => source.is_retryable(),
            Self::Mail { kind, .. } => *kind == MailFailure::Transient,
            Self::InvalidUrl(_)
            | Self::InvalidRequest(_)
            | Self::DeniedAddress { .. }
            | Self::HostNotAllowed { .. }
            | Self::Secret { .. }
            | Self::RequestTooLarge { .. }
            | Self::ResponseTooLarge { .. }
            | Self::Redirect { .. }
            | Self::Encoded { .. }
            | Self::Setup(_) => false,
        }
    }

    /// Whether the target may have seen the request, so that a write may have taken effect.
    pub fn may_have_arrived(&self) -> bool {
        match self {
            Self::Interrupted { .. }
            | Self::Timeout(_)
            | Self::ResponseTooLarge { .. }
            | Self::Redirect { .. }
            | Self::Encoded { .. } => true,
            Self::InvalidUrl(_)
            | Self::InvalidRequest(_)
            | Self::DeniedAddress { .. }
            | Self::HostNotAllowed { .. }
            | Self::Connection { .. }
            | Self::Secret { .. }
            | Self::Dns { .. }
            | Self::Connect { .. }
            | Self::Mail { .. }
            | Self::RequestTooLarge { .. }
            | Self::Setup(_) => false,
        }
    }
}
