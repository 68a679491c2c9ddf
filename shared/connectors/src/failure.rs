//! Says what it means for a step that an outbound call brought no answer.

use tidegate_egress::EgressError;
use tidegate_model::{ErrorCode, StepError};

/// The step's error for a call without an answer. Its text is the call's, which holds no secret.
pub fn step_error(error: EgressError) -> StepError {
    let code = match &error {
        EgressError::InvalidUrl(_) | EgressError::InvalidRequest(_) | EgressError::RequestTooLarge { .. } => {
            ErrorCode::InputInvalid
        }
        EgressError::DeniedAddress { .. } | EgressError::HostNotAllowed { .. } => ErrorCode::EgressDenied,
        EgressError::NoConnection | EgressError::Connection { .. } | EgressError::Secret { .. } => {
            ErrorCode::ConnectionUnusable
        }
        EgressError::Dns { .. } | EgressError::Connect { .. } | EgressError::Interrupted { .. } => {
            ErrorCode::ConnectFailed
        }
        EgressError::Timeout(_) => ErrorCode::StepTimeout,
        EgressError::ResponseTooLarge { .. } => ErrorCode::ResponseInvalid,
        EgressError::Redirect { .. } => ErrorCode::TargetFailed,
        EgressError::Setup(_) => ErrorCode::Internal,
    };
    let retryable = error.is_retryable();
    let message = match &error {
        EgressError::Connection { source, .. } => format!("{error}: {source}"),
        _ => error.to_string(),
    };
    StepError { code, message, retryable, retry_after_ms: None }
}
