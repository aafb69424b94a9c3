//! A schedule, checked, and the times at which it fires.

use jiff::Timestamp;

use super::cron::Clock;
use super::{ScheduleError, Spec, When};
use crate::limit::{SCHEDULE_EVERY_MS, SCHEDULE_JITTER_MS};
use crate::policy::Span;
use crate::time::Millis;
use std::time::Duration;

/// A schedule that was checked.
#[derive(Clone, Debug)]
pub struct Schedule {
    spec: Spec,
    rhythm: Rhythm,
}

#[derive(Clone, Debug)]
enum Rhythm {
    Clock(Clock),
    Every { ms: u64 },
}

impl Schedule {
    /// Checks what was written. Errors name the field: a pattern that is none or that never comes, a zone that does not
    /// exist, `every` below a second, jitter that is not shorter than the time between two fires.
    /// All that are wrong come at once.
    pub fn new(spec: Spec) -> Result<Schedule, Vec<ScheduleError>> {
        let rhythm = match &spec.when {
            When::Cron { pattern, zone, dst } => Rhythm::Clock(Clock::new(pattern, zone, *dst)?),
            When::Every(span) => Rhythm::Every { ms: every(*span).map_err(|error| vec![error])? },
        };
        let schedule = Schedule { spec, rhythm };
        check_jitter(&schedule).map_err(|error| vec![error])?;
        Ok(schedule)
    }

    /// What was written.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }
}

fn every(span: Span) -> Result<u64, ScheduleError> {
    let ms = u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX);
    if ms < SCHEDULE_EVERY_MS {
        let message = format!("{span} is too often; limit: schedule_every = {}", Span(Duration::from_millis(SCHEDULE_EVERY_MS)));
        return Err(ScheduleError::new("every", message, "write 1s or more"));
    }
    Ok(ms)
}

/// So many fires are looked at to find the shortest time between two.
const LOOKED_AT: usize = 100;

fn check_jitter(schedule: &Schedule) -> Result<(), ScheduleError> {
    let jitter = schedule.spec.jitter;
    if jitter.0.is_zero() {
        return Ok(());
    }
    let most = Span(Duration::from_millis(SCHEDULE_JITTER_MS));
    if jitter > most {
        return Err(ScheduleError::new("jitter", format!("{jitter} is too long; limit: schedule_jitter = {most}"), format!("write {most} or less")));
    }
    let shortest = match &schedule.rhythm {
        Rhythm::Every { ms } => Some(*ms),
        // From some fixed time on, so that the answer is the same every day: 2026-01-01.
        Rhythm::Clock(_) => {
            let fires = next(schedule, Millis(1_767_225_600_000), LOOKED_AT);
            fires.windows(2).map(|pair| pair[1].0 - pair[0].0).min()
        }
    };
    match shortest.map(|ms| Span(Duration::from_millis(ms))) {
        Some(shortest) if jitter >= shortest => {
            Err(ScheduleError::new("jitter", format!("{jitter} is not shorter than the {shortest} between two fires"), format!("write less than {shortest}")))
        }
        _ => Ok(()),
    }
}

/// The first fire after `after`; none if there is none that this program can name, around the year 5000.
#[must_use]
pub fn next_after(schedule: &Schedule, after: Millis) -> Option<Millis> {
    match &schedule.rhythm {
        Rhythm::Clock(clock) => millis(clock.next_after(timestamp(after)?)?),
        Rhythm::Every { ms } => (after.0 / ms).checked_add(1)?.checked_mul(*ms).map(Millis),
    }
}

/// The last fire that is not after `until`; none before 1970.
#[must_use]
pub fn at_or_before(schedule: &Schedule, until: Millis) -> Option<Millis> {
    match &schedule.rhythm {
        Rhythm::Clock(clock) => millis(clock.at_or_before(timestamp(until)?)?),
        Rhythm::Every { ms } => Some(Millis(until.0 / ms * ms)),
    }
}

/// The next `count` fires after `after`.
#[must_use]
pub fn next(schedule: &Schedule, after: Millis, count: usize) -> Vec<Millis> {
    std::iter::successors(next_after(schedule, after), |last| next_after(schedule, *last)).take(count).collect()
}

/// A fire as the clock of the schedule's zone shows it, with offset and zone; in UTC where there is no zone.
#[must_use]
pub fn shown(schedule: &Schedule, fire: Millis) -> String {
    match (&schedule.rhythm, timestamp(fire)) {
        (Rhythm::Clock(clock), Some(at)) => clock.shown(at),
        _ => fire.to_string(),
    }
}

/// How many fires lie after `after` and not after `until`, counted from the end and at most `most`.
pub(super) fn count(schedule: &Schedule, after: Millis, until: Millis, most: u64) -> u64 {
    match &schedule.rhythm {
        Rhythm::Every { ms } => (until.0 / ms).saturating_sub(after.0 / ms).min(most),
        Rhythm::Clock(_) => {
            let backwards = std::iter::successors(at_or_before(schedule, until), |at| at_or_before(schedule, Millis(at.0.checked_sub(1)?)));
            backwards.take_while(|at| *at > after).zip(0..most).count() as u64
        }
    }
}

fn timestamp(at: Millis) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(at.0).ok()?).ok()
}

fn millis(at: Timestamp) -> Option<Millis> {
    u64::try_from(at.as_millisecond()).ok().map(Millis)
}
