//! Schedules: when something fires, across changes of the clocks, restarts and jumps of time.
//!
//! A [`Spec`] is what was written and is kept; a [`Schedule`] is what it means. Zones are those of the time zone data in
//! this binary, so that every node computes the same times. `every` is counted from 1970-01-01T00:00:00Z: it does not
//! drift, and storing the same schedule again does not move it.

mod cron;
mod due;
mod error;
mod fires;

pub use due::{Due, OnOverlap, UnderWay, due, due_at, jitter, on_overlap};
pub use error::ScheduleError;
pub use fires::{Schedule, at_or_before, next, next_after, shown};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::policy::Span;

/// What a schedule says. Its JSON form is what is kept.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// When it fires.
    pub when: When,
    /// What each fire gives to what it starts, as JSON.
    pub input: Value,
    /// What happens when the one before is still under way.
    pub overlap: Overlap,
    /// What happens to fires that were missed.
    pub misfire: Misfire,
    /// Each fire is late by less than this, always by the same; zero for none.
    pub jitter: Span,
}

/// When a schedule fires.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// At the times of the clock on the wall that the pattern names.
    Cron {
        /// Minute, hour, day of the month, month, day of the week.
        pattern: String,
        /// Whose clock: a name of the time zone data, such as `Europe/Vienna`.
        zone: String,
        /// What happens to times that a change of the clock leaves out.
        dst: Dst,
    },
    /// Again and again, counted from 1970-01-01T00:00:00Z.
    Every(Span),
}

/// What happens to times of the clock that a change of the clock leaves out. Times that come twice fire at the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dst {
    /// All of them together fire once, at the first instant after the gap.
    #[default]
    Shift,
    /// They do not fire.
    Skip,
}

impl Dst {
    /// As written in a file, in the order of the variants.
    pub const WORDS: &[&str] = &["shift", "skip"];
}

/// What happens when it is time and the run of the fire before has not ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Another run starts beside it.
    Allow,
    /// This fire is dropped and counted.
    #[default]
    Skip,
    /// One fire waits until it has ended; further ones are dropped and counted.
    BufferOne,
    /// The run under way is cancelled, and another starts.
    CancelOther,
}

impl Overlap {
    /// As written in a file, in the order of the variants.
    pub const WORDS: &[&str] = &["allow", "skip", "buffer_one", "cancel_other"];
}

/// What happens to fires whose time came while nobody was there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Misfire {
    /// They are dropped and counted.
    Skip,
    /// The last of them fires, for all of them.
    #[default]
    Once,
    /// The last [`crate::limit::SCHEDULE_CATCH_UP`] of them fire, the oldest first; those before are dropped and counted.
    All,
}

impl Misfire {
    /// As written in a file, in the order of the variants.
    pub const WORDS: &[&str] = &["skip", "once", "all"];
}

#[cfg(test)]
mod tests;
