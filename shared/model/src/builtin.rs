//! The actions that the engine carries out itself, without a connector: branches, data, waits, calls of workflows.

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
