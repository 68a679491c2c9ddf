//! Says what it means for a step that an outbound call brought no answer.

use tidegate_egress::{EgressError, MailFailure};
use tidegate_model::{ErrorCode, StepError};

use crate::Failure;

/// The failure of a call without an answer. Its text is the call's, which holds no secret.
pub(crate) fn failure(error: EgressError) -> Failure {
    let code = match &error {
        EgressError::InvalidUrl(_) | EgressError::InvalidRequest(_) | EgressError::RequestTooLarge { .. } => {
            ErrorCode::InputInvalid
        }
        EgressError::DeniedAddress { .. } | EgressError::HostNotAllowed { .. } => ErrorCode::EgressDenied,
        EgressError::Connection { .. } | EgressError::Secret { .. } => ErrorCode::ConnectionUnusable,
        EgressError::Dns { .. } | EgressError::Connect { .. } | EgressError::Interrupted { .. } => {
            ErrorCode::ConnectFailed
        }
        EgressError::Timeout(_) => ErrorCode::StepTimeout,
        EgressError::ResponseTooLarge { .. } | EgressError::Encoded { .. } => ErrorCode::ResponseInvalid,
        EgressError::Redirect { .. } => ErrorCode::TargetFailed,
        EgressError::Mail { kind: MailFailure::Credential, .. } => ErrorCode::ConnectionUnusable,
        EgressError::Mail { .. } => ErrorCode::TargetFailed,
        EgressError::Setup(_) => ErrorCode::Internal,
    };
    let retryable = error.is_retryable();
    let message = match &error {
        EgressError::Connection { source, .. } => format!("{error}: {source}"),
        _ => error.to_string(),
    };
    let is_target_down = matches!(code, ErrorCode::ConnectFailed | ErrorCode::StepTimeout);
    let is_connection_broken = matches!(&error, EgressError::Mail { kind: MailFailure::Credential, .. });
    let error = StepError { code, message, retryable, retry_after_ms: None };
    Failure { error, is_connection_broken, is_target_down }
}
