//! Why a schedule is refused.

/// Why a schedule is refused, and what to write instead.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{field}`: {message}")]
pub struct ScheduleError {
    /// In which field: `cron`, `zone`, `every` or `jitter`.
    pub field: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to write instead; empty where there is nothing to add.
    pub hint: String,
}

impl ScheduleError {
    pub(super) fn new(field: &'static str, message: impl Into<String>, hint: impl Into<String>) -> ScheduleError {
        ScheduleError { field, message: message.into(), hint: hint.into() }
    }
}
