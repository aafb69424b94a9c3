//! Cron patterns: first on the clock on the wall, which knows no change, then as instants of a zone.
//!
//! The search runs over wall times alone. Each wall time is then one instant or none: where it comes twice the first,
//! where it never comes the first instant after the gap or none. This mapping keeps the order, so that a walk over wall
//! times is a walk over instants, and what is not later than the one before is left out.

use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use croner::{CivilDate, CivilDateTime, CivilTime, Cron, CronDateTime, Resolution, Weekday};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};
use std::cmp::Ordering;

use super::{Dst, ScheduleError};
use crate::limit::CRON_BYTES;
use crate::nearest::nearest;

/// Name, what may stand there, and an example, of each field.
const FIELDS: [(&str, &str); 5] = [
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of the month", "1 to 31, or L"),
    ("month", "1 to 12, or JAN to DEC"),
    ("day of the week", "0 to 7, or SUN to SAT"),
];

const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// A pattern in a zone.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    cron: Cron,
    zone: TimeZone,
    dst: Dst,
}

impl Clock {
    pub(super) fn new(pattern: &str, zone: &str, dst: Dst) -> Result<Clock, Vec<ScheduleError>> {
        match (parse(pattern), find_zone(zone)) {
            (Ok(cron), Ok(zone)) => Ok(Clock { cron, zone, dst }),
            (cron, zone) => Err([cron.err(), zone.err()].into_iter().flatten().collect()),
        }
    }

    /// An instant as this clock shows it.
    pub(super) fn shown(&self, at: Timestamp) -> String {
        at.to_zoned_datetime(self.zone.clone()).to_string()
    }

    /// The first instant after `after`.
    pub(super) fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let mut wall = Wall(self.zone.to_datetime(after));
        loop {
            wall = self.cron.find_next_occurrence(&wall, false).ok()?;
            if let Some(at) = self.instant(wall.0)
                && at > after
            {
                return Some(at);
            }
        }
    }

    /// The last instant that is not after `until`.
    pub(super) fn at_or_before(&self, until: Timestamp) -> Option<Timestamp> {
        let mut wall = Wall(self.last_wall(until)?);
        let mut inclusive = true;
        loop {
            wall = self.cron.find_previous_occurrence(&wall, inclusive).ok()?;
            inclusive = false;
            match self.instant(wall.0) {
                Some(at) if at <= until => return Some(at),
                Some(at) if at < Timestamp::UNIX_EPOCH => return None,
                _ => {}
            }
        }
    }

    /// The latest wall time that has come by `until`: after the clock was set back that is the one just before.
    fn last_wall(&self, until: Timestamp) -> Option<DateTime> {
        let wall = self.zone.to_datetime(until);
        let just_after = until.checked_add(SignedDuration::from_nanos(1)).ok()?;
        let Some(change) = self.zone.preceding(just_after).next() else { return Some(wall) };
        let Ok(second_before) = change.timestamp().checked_sub(SignedDuration::from_secs(1)) else { return Some(wall) };
        Some(wall.max(self.zone.to_datetime(second_before)))
    }

    fn instant(&self, wall: DateTime) -> Option<Timestamp> {
        match self.zone.to_ambiguous_timestamp(wall).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(wall).ok(),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(wall).ok(),
            AmbiguousOffset::Gap { after, .. } => match self.dst {
                Dst::Skip => None,
                // Read with the later offset, a time inside the gap is an instant before it.
                Dst::Shift => self.zone.following(after.to_timestamp(wall).ok()?).next().map(|change| change.timestamp()),
            },
        }
    }
}

/// A time of the clock on the wall, without a zone.
#[derive(Clone, Copy)]
struct Wall(DateTime);

impl CronDateTime for Wall {
    fn to_civil(&self) -> CivilDateTime {
        let at = self.0;
        // Invariant: the parts of a civil time of jiff are in range, and none is negative but the year.
        CivilDateTime::new(
            CivilDate::from_parts_unchecked(i32::from(at.year()), at.month().unsigned_abs().into(), at.day().unsigned_abs().into()),
            CivilTime::from_parts_unchecked(at.hour().unsigned_abs().into(), at.minute().unsigned_abs().into(), at.second().unsigned_abs().into()),
        )
    }

    fn civil_weekday(&self) -> Weekday {
        Weekday::from_days_from_sunday(self.0.weekday().to_sunday_zero_offset().unsigned_abs().into())
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Wall>, CronError> {
        let small = |part: u32| i8::try_from(part).map_err(|_| CronError::InvalidTime);
        let year = i16::try_from(civil.year()).map_err(|_| CronError::InvalidDate)?;
        let at = DateTime::new(year, small(civil.month())?, small(civil.day())?, small(civil.hour())?, small(civil.minute())?, small(civil.second())?, 0);
        at.map(|at| Resolution::Single(Wall(at))).map_err(|_| CronError::InvalidDate)
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Wall> {
        self.0.checked_add(SignedDuration::from_secs(seconds)).ok().map(Wall)
    }

    fn cmp_instant(&self, other: &Wall) -> Ordering {
        self.0.cmp(&other.0)
    }
}

fn parse(pattern: &str) -> Result<Cron, ScheduleError> {
    let refused = |message: String, hint: String| ScheduleError::new("cron", message, hint);
    if pattern.len() > CRON_BYTES {
        return Err(refused(
            format!("the pattern has {} bytes; limit: cron = {CRON_BYTES}", pattern.len()),
            "write ranges and steps instead of lists".to_owned(),
        ));
    }
    let written = pattern.trim();
    if written.starts_with('@') {
        let meant = NICKNAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(written));
        let (_, meant) = meant.ok_or_else(|| {
            let names = NICKNAMES.map(|(name, _)| name);
            refused(format!("`{written}` is not a name for a pattern"), crate::nearest::suggestion(written, names))
        })?;
        return parse(meant);
    }
    let fields: Vec<&str> = written.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let hint = match fields.len() {
            6 | 7 => "take the seconds out: a schedule is no finer than a minute, `every` is",
            _ => "write minute, hour, day of the month, month, day of the week, such as 0 2 * * *",
        };
        return Err(refused(format!("the pattern has {} fields, it must have five", fields.len()), hint.to_owned()));
    }
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    for (index, (name, range)) in FIELDS.iter().enumerate() {
        let mut alone = ["*"; FIELDS.len()];
        alone[index] = fields[index];
        if !fields[index].is_ascii() || parser.parse(&alone.join(" ")).is_err() {
            return Err(refused(
                format!("`{}` cannot be the {name}, field {} of `{written}`", fields[index], index + 1),
                format!("write {range}; lists 1,2, ranges 1-5, steps */5, or *"),
            ));
        }
    }
    let cron = parser.parse(&fields.join(" ")).map_err(|error| refused(format!("`{written}` is not a pattern: {error}"), String::new()))?;
    // The search gives up by itself where nothing comes.
    let start = Wall(DateTime::constant(1970, 1, 1, 0, 0, 0, 0));
    if cron.find_next_occurrence(&start, true).is_err() {
        return Err(refused(format!("`{written}` never comes: no such day exists"), "write a day that the month has, or L for its last".to_owned()));
    }
    Ok(cron)
}

/// The zone of that name, in the time zone data of this binary.
fn find_zone(name: &str) -> Result<TimeZone, ScheduleError> {
    let zones = TimeZoneDatabase::bundled();
    if let Ok(zone) = zones.get(name)
        && name.is_ascii()
    {
        return Ok(zone);
    }
    let shown: String = name.chars().take(60).collect();
    let known: Vec<String> = zones.available().map(|zone| zone.as_str().to_owned()).collect();
    let mut near: Vec<(f64, &str)> = known.iter().map(|zone| (strsim::jaro_winkler(&name.to_lowercase(), &zone.to_lowercase()), zone.as_str())).collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    let nearest_names: Vec<&str> = near.iter().take_while(|(score, _)| *score > 0.8 && *score > near[0].0 - 0.04).take(3).map(|(_, zone)| *zone).collect();
    // People write the city alone.
    let city =
        nearest(name, known.iter().filter_map(|zone| zone.rsplit('/').next())).and_then(|city| known.iter().find(|zone| zone.rsplit('/').next() == Some(city)));
    let hint = match (nearest_names.as_slice(), city) {
        (_, Some(zone)) if !name.contains('/') => format!("did you mean {zone}?"),
        ([], _) => "write a name of the time zone data, such as Europe/Vienna or UTC".to_owned(),
        (names, _) => format!("did you mean {}?", names.join(" or ")),
    };
    Err(ScheduleError::new("zone", format!("there is no zone `{shown}`"), hint))
}
