//! What to do when it is time: jitter, missed fires, overlap.

use super::fires::{Schedule, at_or_before, count};
use super::{Misfire, Overlap};
use crate::limit::{SCHEDULE_CATCH_UP, SCHEDULE_COUNTED, SCHEDULE_LATE_MS};
use crate::time::Millis;

/// By how many milliseconds the fire at `fire` of the schedule `id` is late on purpose: always the same, less than the
/// schedule's jitter.
///
/// Source: BLAKE3 over (id, fire), its first eight bytes scaled down.
#[must_use]
pub fn jitter(schedule: &Schedule, id: &str, fire: Millis) -> u64 {
    let most = schedule.spec().jitter.0.as_millis();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(id.len() as u64).to_be_bytes());
    hasher.update(id.as_bytes());
    hasher.update(&fire.0.to_be_bytes());
    let mut first = [0u8; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    // Invariant: below `most`, and that is at most an hour.
    u64::try_from((u128::from(u64::from_be_bytes(first)) * most) >> 64).unwrap_or(0)
}

/// When the fire at `fire` starts something: the fire and its jitter.
#[must_use]
pub fn due_at(schedule: &Schedule, id: &str, fire: Millis) -> Millis {
    Millis(fire.0.saturating_add(jitter(schedule, id, fire)))
}

/// What is to be fired.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Due {
    /// The fires that start something, the oldest first; at most [`SCHEDULE_CATCH_UP`] and the one that is on time.
    pub fire: Vec<Millis>,
    /// How many fires were missed and start nothing.
    pub missed: u64,
    /// Whether there were more than could be counted: `missed` is the least.
    pub more: bool,
    /// The last fire that this takes care of; none where nothing is due.
    pub until: Option<Millis>,
}

/// What is to be fired at `now`, when everything up to `last` was taken care of. A fire is on time until
/// [`SCHEDULE_LATE_MS`] after it was due; any other between `last` and `now` was missed, and `misfire` says what becomes of it.
#[must_use]
pub fn due(schedule: &Schedule, id: &str, last: Millis, now: Millis) -> Due {
    let Some(latest) = before(schedule, now, |fire| due_at(schedule, id, fire) <= now).filter(|latest| *latest > last) else { return Due::default() };
    let on_time = now.0 - due_at(schedule, id, latest).0 <= SCHEDULE_LATE_MS;
    // With `once` the last fire stands for all of them, late or not.
    let single = on_time || schedule.spec().misfire == Misfire::Once;
    let mut fire: Vec<Millis> = single.then_some(latest).into_iter().collect();
    let mut rest = if single { latest.0.checked_sub(1).map(Millis) } else { Some(latest) };
    if schedule.spec().misfire == Misfire::All {
        for _ in 0..SCHEDULE_CATCH_UP {
            let Some(found) = rest.and_then(|until| at_or_before(schedule, until)).filter(|found| *found > last) else { break };
            fire.push(found);
            rest = found.0.checked_sub(1).map(Millis);
        }
    }
    fire.reverse();
    let left = rest.filter(|until| *until > last).map_or(0, |until| count(schedule, last, until, SCHEDULE_COUNTED + 1));
    Due { fire, missed: left.min(SCHEDULE_COUNTED), more: left > SCHEDULE_COUNTED, until: Some(latest) }
}

fn before(schedule: &Schedule, until: Millis, fits: impl Fn(Millis) -> bool) -> Option<Millis> {
    std::iter::successors(at_or_before(schedule, until), |at| at_or_before(schedule, Millis(at.0.checked_sub(1)?))).find(|at| fits(*at))
}

/// What a schedule has under way when it is time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnderWay {
    /// Nothing.
    Nothing,
    /// The run of an earlier fire.
    One,
    /// The run of an earlier fire, and a fire that waits for its end.
    OneAndBuffered,
}

/// What becomes of a fire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnOverlap {
    /// It starts a run.
    Start,
    /// It is dropped and counted.
    Skip,
    /// It waits for the end of the run under way.
    Buffer,
    /// The run under way is cancelled, and it starts another.
    CancelAndStart,
}

/// What becomes of a fire when this is under way.
#[must_use]
pub fn on_overlap(under_way: UnderWay, overlap: Overlap) -> OnOverlap {
    match (under_way, overlap) {
        (UnderWay::Nothing, _) | (_, Overlap::Allow) => OnOverlap::Start,
        (_, Overlap::Skip) | (UnderWay::OneAndBuffered, Overlap::BufferOne) => OnOverlap::Skip,
        (UnderWay::One, Overlap::BufferOne) => OnOverlap::Buffer,
        (_, Overlap::CancelOther) => OnOverlap::CancelAndStart,
    }
}
