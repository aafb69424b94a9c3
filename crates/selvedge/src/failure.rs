//! How a handler, a step or an activity fails.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use selvedge_kernel::error::{AttemptError, WorkError};

/// A failure: retryable, or final. It is not itself an [`Error`], so that `?` converts any.
///
/// ```
/// use selvedge::{Failure, Outcome};
/// fn parse(text: &str) -> Outcome<u64> {
///     Ok(text.parse::<u64>()?)
/// }
/// assert!(matches!(parse("x"), Err(Failure::Retryable { .. })));
/// ```
#[non_exhaustive]
pub enum Failure {
    /// Another attempt may help.
    Retryable {
        /// A stable code.
        code: String,
        /// For people.
        message: String,
        /// The least wait before the next attempt.
        retry_after: Option<Duration>,
        /// What caused it.
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// No attempt helps.
    Terminal {
        /// A stable code.
        code: String,
        /// For people.
        message: String,
    },
}

/// What handlers, steps and activities give.
pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// A failure that no further attempt can mend.
    ///
    /// ```
    /// let failure = selvedge::Failure::terminal("card_declined", "the card was declined");
    /// assert_eq!(failure.code(), "card_declined");
    /// ```
    pub fn terminal(code: impl Into<String>, message: impl Into<String>) -> Failure {
        Failure::Terminal { code: code.into(), message: message.into() }
    }

    /// A failure after which another attempt may help.
    ///
    /// ```
    /// let failure = selvedge::Failure::retryable("http_503", "try later");
    /// assert!(failure.is_retryable());
    /// ```
    pub fn retryable(code: impl Into<String>, message: impl Into<String>) -> Failure {
        Failure::Retryable { code: code.into(), message: message.into(), retry_after: None, source: None }
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Failure::Retryable { code, .. } | Failure::Terminal { code, .. } => code,
        }
    }

    /// The text for people.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Failure::Retryable { message, .. } | Failure::Terminal { message, .. } => message,
        }
    }

    /// Whether another attempt may help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Failure::Retryable { .. })
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({}): {}", self.code(), if self.is_retryable() { "retryable" } else { "terminal" }, self.message())
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Retryable { code: "error".to_owned(), message: chain(&error), retry_after: None, source: Some(Box::new(error)) }
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

pub(crate) fn to_attempt(failure: Failure) -> AttemptError {
    match failure {
        Failure::Retryable { code, message, retry_after, .. } => AttemptError {
            error: WorkError::new(code, message),
            retryable: true,
            retry_after_ms: retry_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        },
        Failure::Terminal { code, message } => AttemptError { error: WorkError::new(code, message), retryable: false, retry_after_ms: None },
    }
}

pub(crate) fn from_work(error: WorkError) -> Failure {
    Failure::Terminal { code: error.code, message: error.message }
}
