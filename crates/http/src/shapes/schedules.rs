//! Schedules of pipelines.

use utoipa::ToSchema;

use super::WorkError;

/// The schedule of a pipeline.
#[derive(ToSchema)]
pub(crate) struct Schedule {
    /// Which pipeline it starts.
    pipeline: String,
    /// Since when it is paused, if it is.
    #[schema(required, format = DateTime)]
    paused: Option<String>,
    /// Its next fire.
    #[schema(required, format = DateTime)]
    next: Option<String>,
    /// Fires up to this time were taken care of.
    #[schema(format = DateTime)]
    last: String,
    /// The run that was started last.
    #[schema(required)]
    under_way: Option<String>,
    /// The fire that waits for the end of that run.
    #[schema(required, format = DateTime)]
    buffered: Option<String>,
    /// What it did since it was stored.
    counts: ScheduleCounts,
    /// Why the last fire that an error kept from starting a run did not.
    #[schema(required)]
    last_error: Option<WorkError>,
    /// Why it is where it is.
    sentence: String,
}

/// What a schedule did since it was stored.
#[derive(ToSchema)]
pub(crate) struct ScheduleCounts {
    /// Fires that started a run.
    started: u64,
    /// Fires that were dropped because a run was under way.
    overlapped: u64,
    /// Fires that were missed and dropped.
    missed: u64,
    /// Fires that an error kept from starting a run.
    failed: u64,
}

/// A schedule that was fired by hand.
#[derive(ToSchema)]
pub(crate) struct FiredSchedule {
    /// The run that it started.
    run: String,
}
