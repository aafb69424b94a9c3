//! Why a request was not done, as both doors say it.

use selvedge_kernel::auth::Denied;
use selvedge_kernel::error::Consequence;
use serde::{Deserialize, Serialize};

use crate::shard::VerbError;

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// What the caller can do.
    pub consequence: Consequence,
    /// A stable code.
    pub code: String,
    /// For people.
    pub message: String,
    /// The decision that denied it, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
}

impl Problem {
    /// A problem from its parts.
    #[must_use]
    pub fn new(consequence: Consequence, code: &str, message: impl Into<String>) -> Problem {
        Problem { consequence, code: code.to_owned(), message: message.into(), decision: None }
    }
}

impl From<VerbError> for Problem {
    fn from(error: VerbError) -> Problem {
        Problem { consequence: error.consequence, code: error.code, message: error.message, decision: None }
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Problem {
        let decision = Some(denied.decision.to_string());
        Problem { decision, ..Problem::new(Consequence::NotPermitted, "denied", denied.to_string()) }
    }
}
