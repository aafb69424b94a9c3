//! Fires of schedules, for a program that compares them with another's: `tools/schedules` reads what this writes.
//!
//! With `zones`: each zone and its offsets from 2020 to 2035, `zone<TAB>from when,seconds …`. Without: each line on standard
//! input, `zone<TAB>pattern<TAB>from<TAB>to` in milliseconds, is answered by a line: the fires after `from` and before `to`, in
//! minutes since 1970, each as the difference to the one before.
#![allow(clippy::unwrap_used)]
#![expect(clippy::disallowed_methods, reason = "a program for a comparison, not the kernel: it reads and writes lines")]

use selvedge_kernel::policy::Span;
use selvedge_kernel::schedule::{Dst, Misfire, Overlap, Schedule, Spec, When, next_after};
use selvedge_kernel::time::Millis;
use std::io::{BufRead, Write};

fn zones() {
    let zones = jiff::tz::TimeZoneDatabase::bundled();
    let (from, to): (jiff::Timestamp, jiff::Timestamp) = ("2020-01-01T00:00:00Z".parse().unwrap(), "2036-01-01T00:00:00Z".parse().unwrap());
    for name in zones.available() {
        let zone = zones.get(name.as_str()).unwrap();
        let mut offset = zone.to_offset(from).seconds();
        let mut line = format!("{name}\t{},{offset}", from.as_millisecond());
        for change in zone.following(from).take_while(|change| change.timestamp() <= to) {
            if change.offset().seconds() != offset {
                offset = change.offset().seconds();
                line.push_str(&format!(" {},{offset}", change.timestamp().as_millisecond()));
            }
        }
        println!("{line}");
    }
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("zones") {
        zones();
        return;
    }
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let parts: Vec<&str> = line.split('\t').collect();
        let when = When::Cron { pattern: parts[1].to_owned(), zone: parts[0].to_owned(), dst: Dst::Shift };
        let spec = Spec { when, input: serde_json::Value::Null, overlap: Overlap::Allow, misfire: Misfire::Skip, jitter: Span::default() };
        let schedule = Schedule::new(spec).unwrap();
        let (from, to): (u64, u64) = (parts[2].parse().unwrap(), parts[3].parse().unwrap());
        let mut before = 0;
        for fire in std::iter::successors(next_after(&schedule, Millis(from)), |last| next_after(&schedule, *last)).take_while(|fire| fire.0 < to) {
            write!(out, "{} ", fire.0 / 60_000 - before).unwrap();
            before = fire.0 / 60_000;
        }
        writeln!(out).unwrap();
        out.flush().unwrap();
    }
}
