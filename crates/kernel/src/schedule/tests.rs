#![allow(clippy::unwrap_used)]
use super::*;
use crate::limit::{SCHEDULE_CATCH_UP, SCHEDULE_COUNTED, SCHEDULE_LATE_MS};
use crate::time::Millis;
use proptest::prelude::*;
use std::time::Duration;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 3_600_000;

fn spec(when: When) -> Spec {
    Spec { when, input: Value::Null, overlap: Overlap::default(), misfire: Misfire::default(), jitter: Span::default() }
}

fn cron_with(pattern: &str, zone: &str, dst: Dst) -> Schedule {
    Schedule::new(spec(When::Cron { pattern: pattern.to_owned(), zone: zone.to_owned(), dst })).unwrap()
}

fn cron(pattern: &str, zone: &str) -> Schedule {
    cron_with(pattern, zone, Dst::Shift)
}

fn every(text: &str) -> Schedule {
    Schedule::new(spec(When::Every(text.parse().unwrap()))).unwrap()
}

fn missing(mut schedule: Spec, misfire: Misfire) -> Schedule {
    schedule.misfire = misfire;
    Schedule::new(schedule).unwrap()
}

fn at(text: &str) -> Millis {
    Millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond().unsigned_abs())
}

fn written(fires: &[Millis]) -> Vec<String> {
    fires.iter().map(|fire| fire.to_string().replace(":00.000Z", "Z")).collect()
}

fn refused(when: When) -> (String, String) {
    let error = Schedule::new(spec(when)).unwrap_err().remove(0);
    (error.to_string(), error.hint)
}

fn refused_cron(pattern: &str, zone: &str) -> (String, String) {
    refused(When::Cron { pattern: pattern.to_owned(), zone: zone.to_owned(), dst: Dst::Shift })
}

#[test]
fn fixed_time_in_the_gap_hour_fires_once_at_the_first_valid_instant() {
    let fires = next(&cron("30 2 * * *", "Europe/Vienna"), at("2026-03-27T12:00:00Z"), 3);
    assert_eq!(written(&fires), ["2026-03-28T01:30Z", "2026-03-29T01:00Z", "2026-03-30T00:30Z"]);
}

#[test]
fn interval_in_the_gap_hour_fires_once_at_the_first_valid_instant() {
    let fires = next(&cron("*/20 1-3 * * *", "Europe/Vienna"), at("2026-03-29T00:20:00Z"), 4);
    assert_eq!(written(&fires), ["2026-03-29T00:40Z", "2026-03-29T01:00Z", "2026-03-29T01:20Z", "2026-03-29T01:40Z"]);
}

#[test]
fn gap_hour_does_not_fire_where_dst_says_skip() {
    let fires = next(&cron_with("30 2 * * *", "Europe/Vienna", Dst::Skip), at("2026-03-27T12:00:00Z"), 2);
    assert_eq!(written(&fires), ["2026-03-28T01:30Z", "2026-03-30T00:30Z"]);
}

#[test]
fn doubled_hour_fires_once_at_its_first_pass() {
    let fires = next(&cron("30 2 * * *", "Europe/Vienna"), at("2026-10-24T12:00:00Z"), 2);
    assert_eq!(written(&fires), ["2026-10-25T00:30Z", "2026-10-26T01:30Z"]);
    let fires = next(&cron("0,30 * * * *", "Europe/Vienna"), at("2026-10-24T23:30:00Z"), 5);
    assert_eq!(written(&fires), ["2026-10-25T00:00Z", "2026-10-25T00:30Z", "2026-10-25T02:00Z", "2026-10-25T02:30Z", "2026-10-25T03:00Z"]);
}

#[test]
fn asked_in_the_second_pass_of_the_doubled_hour_the_last_fire_is_the_last_of_the_first_pass() {
    let half_hours = cron("0,30 * * * *", "Europe/Vienna");
    assert_eq!(at_or_before(&half_hours, at("2026-10-25T01:10:00Z")), Some(at("2026-10-25T00:30:00Z")));
    assert_eq!(next_after(&half_hours, at("2026-10-25T01:10:00Z")), Some(at("2026-10-25T02:00:00Z")));
}

#[test]
fn half_hour_changes_and_whole_days_left_out_follow_the_same_rule() {
    // Lord Howe moves by half an hour; Apia left out 30 December 2011.
    assert_eq!(written(&next(&cron("15 2 * * *", "Australia/Lord_Howe"), at("2026-10-03T00:00:00Z"), 2)), ["2026-10-03T15:30Z", "2026-10-04T15:15Z"]);
    assert_eq!(
        written(&next(&cron("0 12 * * *", "Pacific/Apia"), at("2011-12-29T00:00:00Z"), 3)),
        ["2011-12-29T22:00Z", "2011-12-30T10:00Z", "2011-12-30T22:00Z"]
    );
    assert_eq!(written(&next(&cron_with("0 12 * * *", "Pacific/Apia", Dst::Skip), at("2011-12-29T00:00:00Z"), 2)), ["2011-12-29T22:00Z", "2011-12-30T22:00Z"]);
}

#[test]
fn every_is_counted_from_1970_whatever_it_is_asked_after() {
    assert_eq!(written(&next(&every("6h"), at("2026-03-29T00:10:00Z"), 3)), ["2026-03-29T06:00Z", "2026-03-29T12:00Z", "2026-03-29T18:00Z"]);
}

#[test]
fn fire_is_shown_as_the_clock_of_its_zone_shows_it() {
    assert_eq!(shown(&cron("0 2 * * *", "Europe/Vienna"), at("2026-11-26T01:00:00Z")), "2026-11-26T02:00:00+01:00[Europe/Vienna]");
    assert_eq!(shown(&every("1h"), at("2026-11-26T01:00:00Z")), "2026-11-26T01:00:00.000Z");
}

#[test]
fn names_for_patterns_are_those_patterns() {
    let from = at("2026-05-05T05:05:00Z");
    for (name, pattern) in [("@daily", "0 0 * * *"), ("@Hourly", "0 * * * *"), ("@weekly", "0 0 * * 0"), ("@monthly", "0 0 1 * *"), ("@yearly", "0 0 1 1 *")] {
        assert_eq!(next(&cron(name, "UTC"), from, 5), next(&cron(pattern, "UTC"), from, 5), "{name}");
    }
}

#[test]
fn refused_pattern_names_the_field_and_what_may_stand_there() {
    let (message, hint) = refused_cron("0 25 * * *", "UTC");
    assert_eq!(message, "`cron`: `25` cannot be the hour, field 2 of `0 25 * * *`");
    assert_eq!(hint, "write 0 to 23; lists 1,2, ranges 1-5, steps */5, or *");
    let (message, _) = refused_cron("0 2 * * MOO", "UTC");
    assert_eq!(message, "`cron`: `MOO` cannot be the day of the week, field 5 of `0 2 * * MOO`");
    let (message, hint) = refused_cron("0 0 2 * * *", "UTC");
    assert_eq!(message, "`cron`: the pattern has 6 fields, it must have five");
    assert_eq!(hint, "take the seconds out: a schedule is no finer than a minute, `every` is");
    let (message, hint) = refused_cron("0 0 31 2 *", "UTC");
    assert_eq!(message, "`cron`: `0 0 31 2 *` never comes: no such day exists");
    assert_eq!(hint, "write a day that the month has, or L for its last");
    let (message, hint) = refused_cron("@dayly", "UTC");
    assert_eq!((message.as_str(), hint.as_str()), ("`cron`: `@dayly` is not a name for a pattern", "did you mean `@daily`?"));
    let (message, _) = refused_cron(&"1,".repeat(200), "UTC");
    assert_eq!(message, "`cron`: the pattern has 400 bytes; limit: cron = 256");
}

#[test]
fn unknown_zone_is_refused_with_the_nearest_names() {
    let (message, hint) = refused_cron("0 2 * * *", "Europe/Viena");
    assert_eq!(message, "`zone`: there is no zone `Europe/Viena`");
    assert_eq!(hint, "did you mean Europe/Vienna?");
    assert_eq!(refused_cron("0 2 * * *", "Vienna").1, "did you mean Europe/Vienna?");
    assert_eq!(refused_cron("0 2 * * *", "Qqqq/Xxxx").1, "write a name of the time zone data, such as Europe/Vienna or UTC");
}

#[test]
fn every_below_a_second_and_jitter_that_reaches_the_next_fire_are_refused_by_their_limit() {
    assert_eq!(refused(When::Every("999ms".parse().unwrap())).0, "`every`: 999ms is too often; limit: schedule_every = 1s");
    let mut often = spec(When::Every("1m".parse().unwrap()));
    often.jitter = "1m".parse().unwrap();
    assert_eq!(Schedule::new(often.clone()).unwrap_err()[0].to_string(), "`jitter`: 1m is not shorter than the 1m between two fires");
    often.when = When::Cron { pattern: "0,10 * * * *".to_owned(), zone: "UTC".to_owned(), dst: Dst::Shift };
    often.jitter = "15m".parse().unwrap();
    assert_eq!(Schedule::new(often.clone()).unwrap_err()[0].to_string(), "`jitter`: 15m is not shorter than the 10m between two fires");
    often.jitter = "2h".parse().unwrap();
    assert_eq!(Schedule::new(often).unwrap_err()[0].to_string(), "`jitter`: 2h is too long; limit: schedule_jitter = 1h");
}

#[test]
fn fire_on_time_fires_under_every_misfire() {
    for misfire in [Misfire::Skip, Misfire::Once, Misfire::All] {
        let hourly = missing(spec(When::Every("1h".parse().unwrap())), misfire);
        let found = due(&hourly, "s", Millis(4 * HOUR), Millis(5 * HOUR + 3));
        assert_eq!(found, Due { fire: vec![Millis(5 * HOUR)], missed: 0, more: false, until: Some(Millis(5 * HOUR)) });
        assert_eq!(due(&hourly, "s", Millis(5 * HOUR), Millis(5 * HOUR + 3)), Due::default());
    }
}

#[test]
fn missed_fires_are_dropped_made_up_for_once_or_all_of_them_as_misfire_says() {
    let of = |misfire| due(&missing(spec(When::Every("1h".parse().unwrap())), misfire), "s", Millis(2 * HOUR), Millis(5 * HOUR + 2 * MINUTE));
    let until = Some(Millis(5 * HOUR));
    assert_eq!(of(Misfire::Skip), Due { fire: vec![], missed: 3, more: false, until });
    assert_eq!(of(Misfire::Once), Due { fire: vec![Millis(5 * HOUR)], missed: 2, more: false, until });
    assert_eq!(of(Misfire::All), Due { fire: vec![Millis(3 * HOUR), Millis(4 * HOUR), Millis(5 * HOUR)], missed: 0, more: false, until });
}

#[test]
fn misfire_all_makes_up_for_the_last_hundred_and_counts_the_rest_up_to_a_bound() {
    let minutely = missing(spec(When::Every("1m".parse().unwrap())), Misfire::All);
    let found = due(&minutely, "s", Millis(0), Millis(500 * MINUTE + 2_000));
    assert_eq!((found.fire.len(), found.missed, found.more), (SCHEDULE_CATCH_UP + 1, 399, false));
    assert_eq!(found.fire.last(), Some(&Millis(500 * MINUTE)));
    let found = due(&minutely, "s", Millis(0), Millis(50_000 * MINUTE));
    assert_eq!((found.missed, found.more), (SCHEDULE_COUNTED, true));
    let of_cron = missing(spec(When::Cron { pattern: "* * * * *".into(), zone: "Europe/Vienna".into(), dst: Dst::Shift }), Misfire::All);
    let found = due(&of_cron, "s", at("2026-01-01T00:00:00Z"), at("2026-02-01T00:00:00Z"));
    assert_eq!((found.fire.len(), found.missed, found.more), (SCHEDULE_CATCH_UP + 1, SCHEDULE_COUNTED, true));
}

#[test]
fn clock_that_goes_back_fires_nothing_twice() {
    let hourly = every("1h");
    assert_eq!(due(&hourly, "s", Millis(5 * HOUR), Millis(3 * HOUR)), Due::default());
}

#[test]
fn overlap_decides_between_start_skip_buffer_and_cancel() {
    use {OnOverlap::*, UnderWay::*};
    let table = [
        (Overlap::Allow, [Start, Start, Start]),
        (Overlap::Skip, [Start, Skip, Skip]),
        (Overlap::BufferOne, [Start, Buffer, Skip]),
        (Overlap::CancelOther, [Start, CancelAndStart, CancelAndStart]),
    ];
    for (overlap, wanted) in table {
        assert_eq!([Nothing, One, OneAndBuffered].map(|under_way| on_overlap(under_way, overlap)), wanted, "{overlap:?}");
    }
}

#[test]
fn jitter_is_the_same_each_time_and_differs_between_fires_and_schedules() {
    let mut jittered = spec(When::Every("1h".parse().unwrap()));
    jittered.jitter = "10m".parse().unwrap();
    let jittered = Schedule::new(jittered).unwrap();
    let of = |id: &str, hour: u64| jitter(&jittered, id, Millis(hour * HOUR));
    assert_eq!(of("a", 1), of("a", 1));
    assert_ne!(of("a", 1), of("a", 2));
    assert_ne!(of("a", 1), of("b", 1));
    let due_later = due_at(&jittered, "a", Millis(HOUR));
    assert_eq!(due(&jittered, "a", Millis(0), Millis(due_later.0 - 1)), Due::default());
    assert_eq!(due(&jittered, "a", Millis(0), due_later).fire, [Millis(HOUR)]);
}

fn patterns() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "* * * * *",
        "*/7 * * * *",
        "30 2 * * *",
        "0,30 1-3 * * *",
        "0 0 * * *",
        "15 */3 * * 1-5",
        "59 23 L * *",
        "0 2 29 2 *",
        "5 1 1,15 * 0",
    ])
}

fn zones() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "UTC",
        "Europe/Vienna",
        "America/New_York",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "America/Sao_Paulo",
        "Africa/Casablanca",
        "Antarctica/Troll",
        "Asia/Gaza",
        "Pacific/Chatham",
    ])
}

/// 2000 to 2040.
fn instants() -> impl Strategy<Value = Millis> {
    (946_684_800_000u64..2_208_988_800_000).prop_map(Millis)
}

/// All fires of two days, by looking at each minute of the clock: the first time it shows a time that matches.
fn by_looking_at_the_clock(pattern: &Schedule, from: Millis, zone: &str, dst: Dst) -> Vec<Millis> {
    // Whether a minute of the wall matches is asked of the same pattern in UTC, where every minute exists once.
    let zone = jiff::tz::TimeZoneDatabase::bundled().get(zone).unwrap();
    let wall = |at: u64| zone.to_datetime(jiff::Timestamp::from_millisecond(at as i64).unwrap());
    let as_utc = |at: jiff::civil::DateTime| Millis(jiff::tz::Offset::UTC.to_timestamp(at).unwrap().as_millisecond() as u64);
    let matches = |at: Millis| at_or_before(pattern, at) == Some(at);
    let start = from.0 / MINUTE * MINUTE;
    let mut shown_before = as_utc(wall(start - 26 * HOUR));
    let mut fires = Vec::new();
    for at in (start - 26 * HOUR + MINUTE..=start + 48 * HOUR).step_by(MINUTE as usize) {
        let now = as_utc(wall(at));
        if now <= shown_before {
            continue;
        }
        let left_out = (shown_before.0 + MINUTE..now.0).step_by(MINUTE as usize).any(|minute| matches(Millis(minute)));
        if (matches(now) || (left_out && dst == Dst::Shift)) && at > from.0 {
            fires.push(Millis(at));
        }
        shown_before = now;
    }
    fires
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 48 } else { 1000 }))]

    #[test]
    fn next_fire_is_after_and_nothing_lies_between(pattern in patterns(), zone in zones(), after in instants(), skip in any::<bool>()) {
        let schedule = cron_with(pattern, zone, if skip { Dst::Skip } else { Dst::Shift });
        let fires = next(&schedule, after, 5);
        prop_assert_eq!(fires.len(), 5);
        prop_assert!(fires[0] > after);
        prop_assert!(fires.is_sorted_by(|a, b| a < b));
        for (index, fire) in fires.iter().enumerate() {
            prop_assert_eq!(at_or_before(&schedule, *fire), Some(*fire));
            let before = if index == 0 { at_or_before(&schedule, after) } else { Some(fires[index - 1]) };
            prop_assert_eq!(at_or_before(&schedule, Millis(fire.0 - 1)), before);
        }
    }

    #[test]
    fn no_later_question_gives_an_earlier_fire(pattern in patterns(), zone in zones(), after in instants(), more in 0u64..400 * HOUR) {
        let schedule = cron(pattern, zone);
        prop_assert!(next_after(&schedule, after) <= next_after(&schedule, Millis(after.0 + more)));
    }

    #[test]
    fn minutes_around_every_change_fire_as_the_clock_on_the_wall_shows_them(zone in zones(), change in 0usize..60, skip in any::<bool>(), pattern in patterns()) {
        let dst = if skip { Dst::Skip } else { Dst::Shift };
        let known = jiff::tz::TimeZoneDatabase::bundled().get(zone).unwrap();
        let start: jiff::Timestamp = "2000-01-01T00:00:00Z".parse().unwrap();
        let Some(change) = known.following(start).nth(change) else { return Ok(()) };
        let from = Millis((change.timestamp().as_millisecond() - 24 * 3_600_000) as u64);
        let schedule = cron_with(pattern, zone, dst);
        let fires: Vec<Millis> = std::iter::successors(next_after(&schedule, from), |last| next_after(&schedule, *last))
            .take_while(|fire| fire.0 <= from.0 / MINUTE * MINUTE + 48 * HOUR).collect();
        prop_assert_eq!(written(&fires), written(&by_looking_at_the_clock(&cron(pattern, "UTC"), from, zone, dst)));
    }

    #[test]
    fn every_never_drifts(ms in 1_000u64..10_000_000_000, after in instants()) {
        let schedule = Schedule::new(spec(When::Every(Span(Duration::from_millis(ms))))).unwrap();
        let fires = next(&schedule, after, 10);
        prop_assert!(fires[0].0 > after.0 && fires[0].0 - after.0 <= ms);
        prop_assert!(fires.iter().enumerate().all(|(index, fire)| fire.0 == fires[0].0 + index as u64 * ms && fire.0 % ms == 0));
    }

    #[test]
    fn jitter_is_below_what_was_written(ms in 1u64..3_600_000, id in ".*", fire in any::<u64>()) {
        let mut jittered = spec(When::Every(Span(Duration::from_millis(3_600_001))));
        jittered.jitter = Span(Duration::from_millis(ms));
        prop_assert!(jitter(&Schedule::new(jittered).unwrap(), &id, Millis(fire)) < ms);
    }

    #[test]
    fn each_fire_is_fired_or_counted_once_however_often_somebody_looks(
        all in any::<bool>(), start in instants(), looks in prop::collection::vec(1u64..5 * HOUR, 1..20), jitter_ms in 0u64..500_000
    ) {
        let mut written = spec(When::Cron { pattern: "*/10 * * * *".into(), zone: "Europe/Vienna".into(), dst: Dst::Shift });
        written.jitter = Span(Duration::from_millis(jitter_ms));
        let schedule = missing(written, if all { Misfire::All } else { Misfire::Skip });
        let (mut last, mut now, mut fired, mut missed) = (start, start, Vec::new(), 0);
        for look in looks {
            now = Millis(now.0 + look);
            let found = due(&schedule, "s", last, now);
            prop_assert!(found.fire.iter().all(|fire| due_at(&schedule, "s", *fire) <= now));
            prop_assert!(all || found.fire.iter().all(|fire| now.0 - due_at(&schedule, "s", *fire).0 <= SCHEDULE_LATE_MS));
            fired.extend(found.fire);
            missed += found.missed as usize;
            last = found.until.unwrap_or(last);
        }
        prop_assert!(fired.is_sorted_by(|a, b| a < b));
        let there_were = std::iter::successors(next_after(&schedule, start), |fire| next_after(&schedule, *fire)).take_while(|fire| *fire <= last).count();
        prop_assert_eq!(fired.len() + missed, there_were);
    }

    #[test]
    fn any_text_is_refused_or_gives_a_schedule(pattern in ".{0,40}", zone in ".{0,20}", after in any::<u64>()) {
        if let Ok(schedule) = Schedule::new(spec(When::Cron { pattern, zone, dst: Dst::Shift })) {
            let _ = next_after(&schedule, Millis(after));
            let _ = at_or_before(&schedule, Millis(after));
        }
    }

    #[test]
    fn any_pattern_of_the_right_letters_is_refused_or_gives_a_schedule(pattern in "[0-9*/,LW#?+-]{1,5}( [0-9*/,LW#?+-]{1,4}){4}", after in any::<u64>()) {
        if let Ok(schedule) = Schedule::new(spec(When::Cron { pattern, zone: "Europe/Vienna".into(), dst: Dst::Skip })) {
            let _ = next_after(&schedule, Millis(after));
            let _ = at_or_before(&schedule, Millis(after));
        }
    }
}
