//! The row of a schedule: key and value of the kind `Schedule`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::key::all;
use super::kind::Kind;
use crate::auth::AuthorizationContext;
use crate::error::WorkError;
use crate::id::{ActorId, Key, RunId, push_part};
use crate::time::Millis;
use crate::wire::{self, WireError};

/// The built-in actor type whose actors are schedules.
pub const SCHEDULE_TYPE: &str = "schedule";

/// The actor that the schedule of a pipeline is: it decides the shard.
#[must_use]
pub fn actor(tenant: &str, pipeline: &str) -> ActorId {
    ActorId { tenant: tenant.to_owned(), kind: SCHEDULE_TYPE.to_owned(), key: pipeline.to_owned() }
}

/// Shard-wide, tenant, pipeline → [`ScheduleRecord`].
#[must_use]
pub fn schedule_key(tenant: &str, pipeline: &str) -> Key {
    let mut key = schedules_of(tenant).to_vec();
    push_part(&mut key, pipeline.as_bytes());
    key.into()
}

/// All schedules of a tenant in a shard.
#[must_use]
pub fn schedules_of(tenant: &str) -> Key {
    let mut key = all(Kind::Schedule).to_vec();
    push_part(&mut key, tenant.as_bytes());
    key.into()
}

/// The run that a fire starts: the same whenever it is asked, so that a fire that was started and not marked starts no second one.
#[must_use]
pub fn run_of(tenant: &str, pipeline: &str, fire: Millis) -> RunId {
    RunId::keyed(tenant, pipeline, &format!("schedule\n{}", fire.0))
}

/// A schedule that is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ScheduleRecord {
    /// Whose.
    pub tenant: String,
    /// Which pipeline it starts.
    pub pipeline: String,
    /// [`crate::schedule::Spec`] as JSON.
    pub spec: Bytes,
    /// Who stored it last: its runs act as them, authorized anew at each fire.
    pub context: AuthorizationContext,
    /// When it was stored.
    pub since: Millis,
    /// Since when it is paused, if it is.
    pub paused: Option<Millis>,
    /// Fires up to this time were taken care of.
    pub last: Millis,
    /// The fire that its timer waits for; none when it is paused or has no more.
    pub next: Option<Millis>,
    /// Where that timer's row stands: due when, which number.
    pub timer: Option<(Millis, u64)>,
    /// The run that the last fire started, until it is known to have ended.
    pub under_way: Option<RunId>,
    /// The fire that waits for its end.
    pub buffered: Option<Millis>,
    /// Where the timer's row of that stands: it brings the wait back after a restart.
    pub buffer_timer: Option<(Millis, u64)>,
    /// Why the last fire that an error kept from starting a run did not.
    pub last_error: Option<WorkError>,
    /// What it did.
    pub counts: Counts,
}

/// What a schedule did since it was stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Fires that started a run.
    pub started: u64,
    /// Fires that were dropped because a run was under way.
    pub overlapped: u64,
    /// Fires that were missed and dropped.
    pub missed: u64,
    /// Fires that an error kept from starting a run: a denial, a pipeline that is gone, an input that does not fit.
    pub failed: u64,
}

/// The value of the row.
#[must_use]
pub fn encode(record: &ScheduleRecord) -> Bytes {
    wire::encode(record)
}

/// Reads what [`encode`] wrote.
pub fn decode(bytes: &[u8]) -> Result<ScheduleRecord, WireError> {
    wire::decode("schedule", bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::auth::local;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn schedules_round_trip(pipeline in "[a-z]{1,63}", spec in prop::collection::vec(any::<u8>(), 0..100), times in any::<[u64; 6]>(), some in any::<bool>()) {
            let record = ScheduleRecord {
                tenant: "default".to_owned(),
                pipeline: pipeline.clone(),
                spec: spec.into(),
                context: local("default", Millis(times[0])),
                since: Millis(times[0]),
                paused: some.then_some(Millis(times[1])),
                last: Millis(times[2]),
                next: some.then_some(Millis(times[3])),
                timer: some.then_some((Millis(times[3]), times[4])),
                under_way: some.then(|| run_of("default", &pipeline, Millis(times[4]))),
                buffered: some.then_some(Millis(times[5])),
                buffer_timer: some.then_some((Millis(times[5]), times[1])),
                last_error: some.then(|| WorkError::new("denied", "text")),
                counts: Counts { started: times[0], overlapped: times[1], missed: times[2], failed: times[3] },
            };
            prop_assert_eq!(decode(&encode(&record)).unwrap(), record);
        }

        #[test]
        fn bytes_of_a_stranger_decode_to_an_error_or_a_schedule(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn keys_of_two_schedules_differ(one in ("[a-z]{0,5}", "[a-z]{1,5}"), two in ("[a-z]{0,5}", "[a-z]{1,5}")) {
            prop_assert_eq!(schedule_key(&one.0, &one.1) == schedule_key(&two.0, &two.1), one == two);
        }

        #[test]
        fn run_of_a_fire_is_the_same_each_time_and_no_other_fires(fire in any::<u64>(), other in any::<u64>()) {
            let run = |fire| run_of("default", "nightly", Millis(fire));
            prop_assert_eq!(run(fire), run(fire));
            prop_assert_eq!(run(fire) == run(other), fire == other);
        }
    }
}
