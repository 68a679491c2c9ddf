//! The actions that the engine carries out itself, without a connector: branches, data, waits, calls of workflows.

use std::time::Duration;

use serde_json::{Map, Value};

/// A built-in action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builtin {
    /// `logic.if`: goes on at its outlet `true` or `false`.
    If,
    /// `logic.switch`: goes on at the outlet of the first case that fits, else at `default`.
    Switch,
    /// `data.set`: yields its input.
    Set,
    /// `data.transform`: yields what a JMESPath query makes of its input.
    Transform,
    /// `time.delay`: waits for a duration.
    Delay,
    /// `time.wait_until`: waits for a time.
    WaitUntil,
    /// `approval.wait`: waits for a person's decision and goes on at its outlet `approved` or `rejected`.
    Approval,
    /// `workflow.call`: runs another workflow and yields its output.
    Call,
}

impl Builtin {
    /// Every built-in action.
    pub const ALL: [Self; 8] =
        [Self::If, Self::Switch, Self::Set, Self::Transform, Self::Delay, Self::WaitUntil, Self::Approval, Self::Call];

    /// The outlet of an approval that was given; a step after the approval without an outlet follows this one.
    pub const APPROVED: &'static str = "approved";
    /// The outlet of an approval that was refused.
    pub const REJECTED: &'static str = "rejected";
    /// The outlet of a `logic.switch` none of whose cases fits.
    pub const DEFAULT: &'static str = "default";

    /// Its name in a step's `uses`.
    pub fn name(self) -> &'static str {
        match self {
            Self::If => "logic.if",
            Self::Switch => "logic.switch",
            Self::Set => "data.set",
            Self::Transform => "data.transform",
            Self::Delay => "time.delay",
            Self::WaitUntil => "time.wait_until",
            Self::Approval => "approval.wait",
            Self::Call => "workflow.call",
        }
    }

    /// The built-in action of this name.
    pub fn named(uses: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|builtin| builtin.name() == uses)
    }

    /// The outlets of a step with this input; none for an action that doesn't branch.
    pub fn outlets(self, with: &Map<String, Value>) -> Vec<&str> {
        match self {
            Self::If => vec!["true", "false"],
            Self::Switch => {
                let cases = with.get("cases").and_then(Value::as_array).into_iter().flatten();
                cases.filter_map(|case| case.get("name")?.as_str()).chain([Self::DEFAULT]).collect()
            }
            Self::Approval => vec![Self::APPROVED, Self::REJECTED],
            Self::Set | Self::Transform | Self::Delay | Self::WaitUntil | Self::Call => Vec::new(),
        }
    }

    /// Whether the step goes on at one of several outlets.
    pub fn branches(self) -> bool {
        matches!(self, Self::If | Self::Switch | Self::Approval)
    }
}

/// The longest wait of one step: a year and a day.
pub const MAX_WAIT: Duration = Duration::from_secs(366 * 86_400);

/// How long a wait takes: a number of seconds, or a whole number with `s`, `m`, `h` or `d`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_wait(value: &Value) -> Result<Duration, String> {
    let wrong = || "must be a number of seconds, or a text such as \"30s\", \"10m\", \"2h\" or \"7d\"".to_owned();
    let seconds = match value {
        Value::Number(seconds) => seconds.as_f64().filter(|seconds| *seconds >= 0.0).ok_or_else(wrong)?,
        Value::String(text) => {
            let text = text.trim();
            let unit = text.chars().last().ok_or_else(wrong)?;
            let scale = match unit {
                's' => 1,
                'm' => 60,
                'h' => 3_600,
                'd' => 86_400,
                _ => return Err(wrong()),
            };
            let amount: u32 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
            f64::from(amount) * f64::from(scale)
        }
        _ => return Err(wrong()),
    };
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration <= MAX_WAIT => Ok(duration),
        _ => Err("must be at most 366 days".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn waits_are_seconds_or_have_a_unit() {
        for (wait, seconds) in
            [(json!("30s"), 30.0), (json!("2h"), 7_200.0), (json!(1.5), 1.5), (json!(" 7d "), 604_800.0)]
        {
            assert_eq!(parse_wait(&wait).unwrap().as_secs_f64(), seconds);
        }
        for wait in [
            json!("30"),
            json!(""),
            json!("-1s"),
            json!("1.5h"),
            json!(-1),
            json!("367d"),
            json!(1e300),
            json!(null),
            json!("1é"),
        ] {
            assert!(parse_wait(&wait).is_err(), "{wait}");
        }
    }
}
