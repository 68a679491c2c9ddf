//! Delays between attempts: exponential backoff with full jitter
//! (<https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tidegate_model::{RetryPolicy, StepError};

/// The longest that a target's `Retry-After` is honoured.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(86_400);

/// How long to wait after the `failures`-th failed attempt (from 1). The jitter is drawn from the run, the step, its item
/// and the attempt, so that deciding again gives the same delay.
pub(crate) fn delay(
    policy: &RetryPolicy,
    run: [u8; 16],
    step: &str,
    item: Option<u32>,
    failures: u32,
    error: &StepError,
) -> Duration {
    let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
    let factor = policy.multiplier.powi(exponent);
    let ceiling_ms = (Duration::from_millis(policy.initial_delay_ms).as_secs_f64() * 1_000.0 * factor)
        .min(Duration::from_millis(policy.max_delay_ms).as_secs_f64() * 1_000.0);
    let jittered = Duration::from_secs_f64(ceiling_ms * fraction((run, step, item, failures)) / 1_000.0);
    let asked = Duration::from_millis(error.retry_after_ms.unwrap_or(0)).min(MAX_RETRY_AFTER);
    jittered.max(asked)
}

/// A number in `0.0..1.0` that looks random but is fixed by its arguments.
fn fraction(seed: impl Hash) -> f64 {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    let [a, b, c, d, ..] = hasher.finish().to_be_bytes();
    f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use tidegate_model::ErrorCode;

    use super::*;

    #[test]
    fn delays_grow_to_their_ceiling_and_honour_retry_after() {
        let policy =
            RetryPolicy { max_attempts: 10, initial_delay_ms: 1_000, multiplier: 2.0, max_delay_ms: 5_000, on: None };
        let error = StepError::retryable(ErrorCode::TargetFailed, "");
        let mut longest = Duration::ZERO;
        for entropy in 0..200 {
            let run = [entropy; 16];
            for (failures, ceiling) in [(1, 1_000), (2, 2_000), (3, 4_000), (4, 5_000), (25, 5_000)] {
                let delay = delay(&policy, run, "a", None, failures, &error);
                assert!(delay < Duration::from_millis(ceiling), "{delay:?} after {failures}");
                longest = longest.max(delay);
            }
            let asked = StepError { retry_after_ms: Some(7_000), ..error.clone() };
            assert_eq!(super::delay(&policy, run, "a", None, 1, &asked), Duration::from_secs(7));
            let rude = StepError { retry_after_ms: Some(u64::MAX), ..error.clone() };
            assert_eq!(super::delay(&policy, run, "a", None, 1, &rude), MAX_RETRY_AFTER);
        }
        assert!(longest > Duration::from_millis(4_500), "the jitter uses the whole range");
    }
}
