//! Error kinds, named by what the caller must do.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What the caller of a verb can do about an error.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Consequence {
    /// Send the same again later.
    Retry,
    /// Change the input: the same will fail again.
    FixInput,
    /// Ask for the right, or come with another principal.
    NotPermitted,
    /// What was named does not exist.
    NotFound,
    /// Something else is in the way: another body under the same key, a state that does not allow it.
    Conflict,
    /// A limit was met; the text names it.
    Limit,
    /// The work itself failed; the error is its own.
    WorkFailed,
    /// Stop and look: the store or this program is damaged.
    Stop,
}

/// An error of work, as it is journaled and shown: a stable code and a text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WorkError {
    /// Stable, lower case with underscores: `card_declined`, `http_404`, `attempts_exhausted`.
    pub code: String,
    /// For people.
    pub message: String,
}

impl WorkError {
    /// An error from its two parts.
    #[must_use]
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> WorkError {
        WorkError { code: code.into(), message: message.into() }
    }

    /// The error with its text cut at [`crate::limit::ERROR_BYTES`], so that it can be kept.
    #[must_use]
    pub fn bounded(mut self) -> WorkError {
        cut(&mut self.code, 256);
        cut(&mut self.message, crate::limit::ERROR_BYTES);
        self
    }
}

pub(crate) fn cut(text: &mut String, bound: usize) {
    if text.len() > bound {
        let end = (0..=bound).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        let gone = text.len() - end;
        text.truncate(end);
        text.push_str(&format!(" … and {gone} bytes more"));
    }
}

impl fmt::Display for WorkError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.code, self.message)
    }
}

/// How one attempt ended badly.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttemptError {
    /// What to show and to journal.
    pub error: WorkError,
    /// Whether another attempt can help.
    pub retryable: bool,
    /// The least wait that the other side asked for, in milliseconds.
    pub retry_after_ms: Option<u64>,
}
