//! What reaches a waiting step from outside of its run: a person's decision, or the end of a workflow that it called.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Payload, RunId, RunStatus, StepError};

/// An approval that a run waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// SHA-256 of the link's signature, in lower-case hexadecimal: who can read the store can't decide.
    pub digest: String,
    /// What is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Until when it can be decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// What was decided, once it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<Decided>,
}

/// A person's decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// Whether it was approved.
    pub approved: bool,
    /// What the person wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// What a waiting step hears.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Signal {
    /// Its approval was decided.
    Decided(Decided),
    /// The run that it started is over.
    Ended {
        /// That run.
        run_id: RunId,
        /// How it ended.
        status: RunStatus,
        /// What it yields.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<Payload>,
        /// Why it did not succeed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<StepError>,
        /// When.
        at: Timestamp,
    },
}
