//! What the end of an attempt says of its target.

use crate::error::{AttemptError, WorkError};
use crate::policy::Retry;

/// Codes of ours with which an actor or a child run ends when what it works with was away, was late or broke down. Under
/// any other code it has answered.
const OF_CALLS: [&str; 10] =
    ["attempts_exhausted", "deadline", "timeout", "panic", "worker_died", "closed", "exec_start", "http_transport", "store_behind", "no_executor"];

/// How an attempt has ended, as its breaker sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// With an error that another attempt could mend: the target is not well.
    Failed,
    /// With a result, or with an error that no attempt can mend: a target that is well has said no.
    Answered,
    /// Nobody has waited for its end. It says nothing of the target.
    GivenUp,
}

impl Ended {
    /// The end of an attempt of an activity.
    #[must_use]
    pub fn of_attempt<T>(result: &Result<T, AttemptError>, retry: &Retry) -> Ended {
        match result {
            Err(failure) if failure.retryable && !retry.give_up_on.contains(&failure.error.code) => Ended::Failed,
            _ => Ended::Answered,
        }
    }

    /// The answer of an actor or of a child run. It is final for whoever called, and does not say whether another attempt
    /// could mend it: its code does.
    #[must_use]
    pub fn of_answer<T>(result: &Result<T, AttemptError>, retry: &Retry) -> Ended {
        match result {
            Err(failure) if failure.retryable && of_outage(&failure.error) && !retry.give_up_on.contains(&failure.error.code) => Ended::Failed,
            _ => Ended::Answered,
        }
    }
}

fn of_outage(error: &WorkError) -> bool {
    let overloaded = matches!(error.code.strip_prefix("http_"), Some("408" | "425" | "429")) || error.code.strip_prefix("http_5").is_some_and(two_digits);
    overloaded || OF_CALLS.contains(&error.code.as_str())
}

fn two_digits(rest: &str) -> bool {
    rest.len() == 2 && rest.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: &str, retryable: bool) -> Result<(), AttemptError> {
        Err(AttemptError { error: WorkError::new(code, "x"), retryable, retry_after_ms: None })
    }

    #[test]
    fn a_target_that_says_no_is_well_and_one_that_is_away_or_late_has_failed() {
        let retry = Retry { give_up_on: vec!["card_declined".to_owned()], ..Retry::default() };
        let of_attempt = |code: &str, retryable| Ended::of_attempt(&error(code, retryable), &retry);
        assert_eq!(of_attempt("http_503", true), Ended::Failed);
        assert_eq!(of_attempt("anything", true), Ended::Failed);
        assert_eq!(of_attempt("anything", false), Ended::Answered);
        assert_eq!(of_attempt("card_declined", true), Ended::Answered);
        assert_eq!(Ended::of_attempt(&Ok(()), &retry), Ended::Answered);
        let of_answer = |code: &str| Ended::of_answer(&error(code, true), &retry);
        for code in ["timeout", "deadline", "attempts_exhausted", "worker_died", "panic", "http_503", "http_429"] {
            assert_eq!(of_answer(code), Ended::Failed, "{code}");
        }
        for code in ["sold_out", "card_declined", "cancelled", "denied", "rejected", "input", "http_404", "http_5xx", "http_5000"] {
            assert_eq!(of_answer(code), Ended::Answered, "{code}");
        }
        assert_eq!(Ended::of_answer(&Ok(()), &retry), Ended::Answered);
    }
}
