//! Why a request isn't taken for the sender's. No text holds a secret, a signature, or anything else of the request.

use http::HeaderName;

/// Why a request isn't taken for the sender's. The texts are for whoever sets the webhook up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no signature.
    #[error("the header {header} is missing, which has the signature: give the sender the secret to sign with")]
    SignatureMissing {
        /// Where it should be.
        header: HeaderName,
    },
    /// What should be a signature can't be one.
    #[error("the signature in the header {header} can't be read: {problem}")]
    SignatureMalformed {
        /// Where it is.
        header: HeaderName,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// It is nobody's signature who has the secret.
    #[error(
        "the signature in the header {header} doesn't fit: the connection's secret must be the sender's, and nothing on \
         the way may change the request"
    )]
    SignatureMismatch {
        /// Where it is.
        header: HeaderName,
    },
    /// There is no id, where it is signed.
    #[error("the header {header} is missing, which has the id: it is part of what is signed")]
    IdMissing {
        /// Where it should be.
        header: HeaderName,
    },
    /// What should be an id can't be one.
    #[error("the id in the header {header} can't be read: {problem}")]
    IdMalformed {
        /// Where it is.
        header: HeaderName,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The sender doesn't tell the time.
    #[error("the header {header} has no time of sending, which the scheme requires")]
    TimestampMissing {
        /// Where it should be.
        header: HeaderName,
    },
    /// What should be a time can't be one.
    #[error("the time in the header {header} can't be read: {problem}")]
    TimestampMalformed {
        /// Where it is.
        header: HeaderName,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// It was sent too long ago, or sent again by somebody who saw it.
    #[error(
        "the request is {age_seconds} seconds old, and {tolerance_seconds} are allowed: send it anew, set the sender's \
         clock, or raise `tolerance_seconds`"
    )]
    TimestampTooOld {
        /// How long ago.
        age_seconds: u64,
        /// How long is allowed.
        tolerance_seconds: u32,
    },
    /// It comes from the future.
    #[error(
        "the request was sent {ahead_seconds} seconds from now, and {tolerance_seconds} are allowed: set the sender's \
         clock, or raise `tolerance_seconds`"
    )]
    TimestampInFuture {
        /// How far ahead.
        ahead_seconds: u64,
        /// How far is allowed.
        tolerance_seconds: u32,
    },
    /// The body is of a kind that the scheme has no signature for.
    #[error("the body isn't covered by the signature: {problem}")]
    BodyUnsigned {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// There are no credentials.
    #[error("the header authorization is missing: give the sender the connection's credentials")]
    CredentialsMissing,
    /// What should be credentials can't be some.
    #[error("the header authorization can't be read: {problem}")]
    CredentialsMalformed {
        /// What is wrong with them.
        problem: &'static str,
    },
    /// They are others than the connection's.
    #[error("the credentials are wrong: the sender needs the connection's")]
    CredentialsWrong,
    /// The connection's secret can verify nothing.
    #[error("the connection's secret can't be used: {problem}")]
    SecretUnusable {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The workflow's description of the signature can verify nothing.
    #[error("the trigger's verification can't be used: {problem}")]
    VerificationUnusable {
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl Rejection {
    /// The reason's name: for logs, metrics and programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::SignatureMissing { .. } => "signature_missing",
            Self::SignatureMalformed { .. } => "signature_malformed",
            Self::SignatureMismatch { .. } => "signature_mismatch",
            Self::IdMissing { .. } => "id_missing",
            Self::IdMalformed { .. } => "id_malformed",
            Self::TimestampMissing { .. } => "timestamp_missing",
            Self::TimestampMalformed { .. } => "timestamp_malformed",
            Self::TimestampTooOld { .. } => "timestamp_too_old",
            Self::TimestampInFuture { .. } => "timestamp_in_future",
            Self::BodyUnsigned { .. } => "body_unsigned",
            Self::CredentialsMissing => "credentials_missing",
            Self::CredentialsMalformed { .. } => "credentials_malformed",
            Self::CredentialsWrong => "credentials_wrong",
            Self::SecretUnusable { .. } => "secret_unusable",
            Self::VerificationUnusable { .. } => "verification_unusable",
        }
    }

    /// Whether it is for the workflow's owner to mend, and no sender could do better.
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::SecretUnusable { .. } | Self::VerificationUnusable { .. })
    }
}
