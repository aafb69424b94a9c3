//! Schedules: a durable record with a timer in its shard. What a fire means is decided by `kernel::schedule`; here it is done.
//!
//! A fire starts its run first, under an id that follows from the fire, and is marked afterwards: killed in between it fires
//! again and meets the run that is there. The timer's row stays until the mark, in one commit with the next timer.

mod fire;
mod shard;
mod verbs;

use bytes::Bytes;
use selvedge_kernel::auth::{Permit, Resource};
use selvedge_kernel::error::{Consequence, WorkError};
use selvedge_kernel::id::RunId;
use selvedge_kernel::record::schedule::{Counts, ScheduleRecord};
use selvedge_kernel::schedule::Spec;
use selvedge_kernel::time::Millis;

use crate::door::misused;
use crate::shard::{Reply, VerbError};

/// What people do to a schedule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScheduleChange {
    /// It fires no more until it is resumed; a fire that waits is dropped.
    Pause,
    /// It fires again from now on: what it left out meanwhile was not missed.
    Resume,
    /// It is gone.
    Remove,
}

/// What a client, or a fire, asks of the shard of a schedule.
pub(crate) enum ScheduleCommand {
    Put { record: Box<ScheduleRecord>, reply: Reply<()> },
    List { tenant: String, reply: Reply<Vec<ScheduleRecord>> },
    Show { tenant: String, pipeline: String, reply: Reply<ScheduleRecord> },
    Change { tenant: String, pipeline: String, change: ScheduleChange, reply: Reply<ScheduleRecord> },
    Mark { tenant: String, pipeline: String, mark: Box<Mark>, reply: Reply<()> },
}

/// What fires have done, to be written into the record.
#[derive(Default)]
pub(crate) struct Mark {
    /// Fires up to this time were taken care of; none where that stays as it is.
    pub until: Option<Millis>,
    /// The timer that was due: its row goes.
    pub timer: Option<(Millis, u64)>,
    /// The run that was started last.
    pub started: Option<RunId>,
    /// A fire that waits for the end of the run under way.
    pub buffered: Option<Millis>,
    /// A fire that has waited, and is done.
    pub unbuffered: Option<Millis>,
    /// What is added to the counts.
    pub counts: Counts,
    /// Why the last fire started nothing.
    pub error: Option<WorkError>,
}

/// The record of the schedule of the permit's pipeline, stored now. Its runs act as whoever has the permit.
pub(crate) fn new_record(permit: Permit, spec: &Spec, now: Millis) -> Result<ScheduleRecord, VerbError> {
    let spec = serde_json::to_vec(spec).map_err(|error| VerbError::new(Consequence::FixInput, "schedule", error.to_string()))?;
    let Resource::Pipeline { tenant, name } = permit.resource().clone() else { return Err(misused(&permit)) };
    Ok(ScheduleRecord {
        tenant,
        pipeline: name,
        spec: Bytes::from(spec),
        context: permit.into_context(),
        since: now,
        paused: None,
        last: now,
        next: None,
        timer: None,
        under_way: None,
        buffered: None,
        buffer_timer: None,
        last_error: None,
        counts: Counts::default(),
    })
}
