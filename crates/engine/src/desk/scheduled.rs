//! A schedule, as it is shown.

use selvedge_kernel::error::WorkError;
use selvedge_kernel::id::RunId;
use selvedge_kernel::record::schedule::{Counts, ScheduleRecord};
use selvedge_kernel::time::Millis;
use serde::Serialize;

/// A schedule as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ScheduleStatus {
    /// Which pipeline it starts.
    pub pipeline: String,
    /// Since when it is paused, if it is.
    pub paused: Option<Millis>,
    /// Its next fire.
    pub next: Option<Millis>,
    /// Fires up to this time were taken care of.
    pub last: Millis,
    /// The run that was started last.
    pub under_way: Option<RunId>,
    /// The fire that waits for the end of that run.
    pub buffered: Option<Millis>,
    /// What it did since it was stored.
    pub counts: Counts,
    /// Why the last fire that an error kept from starting a run did not.
    pub last_error: Option<WorkError>,
}

impl ScheduleStatus {
    /// What a record says.
    #[must_use]
    pub fn of(record: ScheduleRecord) -> ScheduleStatus {
        let ScheduleRecord { pipeline, paused, next, last, under_way, buffered, counts, last_error, .. } = record;
        ScheduleStatus { pipeline, paused, next, last, under_way, buffered, counts, last_error }
    }

    /// Why it is where it is, in words.
    #[must_use]
    pub fn sentence(&self) -> String {
        let waits = match (self.paused, self.next) {
            (Some(since), _) => format!("is paused since {since}: `selvedge schedules resume {}` lets it go on", self.pipeline),
            (None, Some(next)) => format!("waits for its next fire at {next}"),
            (None, None) => "fires no more: no time is left that its pattern names".to_owned(),
        };
        let buffered = match (self.buffered, self.under_way) {
            (Some(fire), Some(run)) => format!(" Its fire at {fire} waits for the end of {run}."),
            _ => String::new(),
        };
        let Counts { started, overlapped, missed, failed } = self.counts;
        let error = self.last_error.as_ref().map(|error| format!(" The last error: {error}.")).unwrap_or_default();
        format!(
            "The schedule of `{}` {waits}.{buffered} It has started {started} runs; {overlapped} fires met a run under way, {missed} were missed, {failed} failed.{error}",
            self.pipeline
        )
    }
}
