//! Fires of schedules against what cron-parser gave (`make schedules` writes the fixture): equal everywhere but within a
//! change of the clock, where ours fires once at the end of the gap and never in the second pass of a doubled hour.

use jiff::tz::TimeZoneDatabase;
use selvedge_kernel::policy::Span;
use selvedge_kernel::schedule::{Dst, Misfire, Overlap, Schedule, Spec, When, next_after};
use selvedge_kernel::time::Millis;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A change of the clock: the minute in which it happens, and by how many minutes.
struct Change {
    at: i64,
    by: i64,
}

fn changes(zone: &str) -> Vec<Change> {
    let zone = TimeZoneDatabase::bundled().get(zone).unwrap();
    let from: jiff::Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
    let mut offset = zone.to_offset(from).seconds();
    let mut found = Vec::new();
    for change in zone.following(from).take_while(|change| change.timestamp().as_second() < 2_082_758_400) {
        let by = i64::from(change.offset().seconds() - std::mem::replace(&mut offset, change.offset().seconds())) / 60;
        if by != 0 {
            found.push(Change { at: change.timestamp().as_second() / 60, by });
        }
    }
    found
}

/// `first step stepxTIMES …`, each the difference to the one before.
fn unpacked(text: &str) -> Vec<i64> {
    let (mut at, mut found) = (0, Vec::new());
    for word in text.split_whitespace() {
        let (step, times) = word.split_once('x').map_or((word, 1), |(step, times)| (step, times.parse().unwrap()));
        for _ in 0..times {
            at += step.parse::<i64>().unwrap();
            found.push(at);
        }
    }
    found
}

fn ours(zone: &str, pattern: &str, from: u64, to: u64) -> Vec<i64> {
    let when = When::Cron { pattern: pattern.to_owned(), zone: zone.to_owned(), dst: Dst::Shift };
    let spec = Spec { when, input: serde_json::Value::Null, overlap: Overlap::Allow, misfire: Misfire::Skip, jitter: Span::default() };
    let schedule = Schedule::new(spec).unwrap();
    let fires = std::iter::successors(next_after(&schedule, Millis(from)), |last| next_after(&schedule, *last));
    fires.take_while(|fire| fire.0 < to).map(|fire| (fire.0 / 60_000) as i64).collect()
}

#[test]
fn fires_are_those_of_cron_parser_everywhere_but_within_a_change_of_the_clock() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/schedules/cron_parser.txt")).unwrap();
    let mut zones = BTreeMap::new();
    let (mut equal, mut within) = (0, 0);
    for line in text.lines() {
        let [zone, pattern, from, to, packed]: [&str; 5] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let changes = zones.entry(zone.to_owned()).or_insert_with(|| changes(zone));
        let theirs = unpacked(packed);
        let ours = ours(zone, pattern, from.parse().unwrap(), to.parse().unwrap());
        assert!(ours.is_sorted_by(|a, b| a < b), "{zone} {pattern}");
        let (a, b): (BTreeSet<i64>, BTreeSet<i64>) = (ours.iter().copied().collect(), theirs.iter().copied().collect());
        for at in a.symmetric_difference(&b) {
            // In the hour before a change that is not at a full hour cron-parser leaves out times that the clock shows.
            let before = if a.contains(at) { 60 } else { 0 };
            let change = changes.iter().find(|change| (change.at - before..change.at + change.by.abs()).contains(at));
            let change = change.unwrap_or_else(|| panic!("{zone} {pattern}: minute {at} is {} alone", if a.contains(at) { "ours" } else { "theirs" }));
            assert!(
                change.by < 0 || *at < change.at || a.contains(&change.at),
                "{zone} {pattern}: what the gap at minute {} left out does not fire at its end",
                change.at
            );
            within += 1;
        }
        for change in changes.iter().filter(|change| change.by < 0) {
            assert_eq!(a.range(change.at..change.at - change.by).next(), None, "{zone} {pattern}: a fire in the second pass of a doubled hour");
        }
        equal += a.intersection(&b).count();
    }
    assert!(zones.len() >= 9 && equal > 20_000 && within > 100, "{} zones, {equal} equal, {within} within a change: the fixture is cut", zones.len());
}
