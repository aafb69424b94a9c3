//! A cron pattern from a stranger at any time: refused, or the next fire is later and found again looking back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use selvedge_kernel::policy::Span;
use selvedge_kernel::schedule::{Dst, Misfire, Overlap, Schedule, Spec, When, at_or_before, next_after};
use selvedge_kernel::time::Millis;

fuzz_target!(|input: (u64, bool, &str)| {
    let (after, skip, pattern) = input;
    let dst = if skip { Dst::Skip } else { Dst::Shift };
    let when = When::Cron { pattern: pattern.to_owned(), zone: "Europe/Vienna".to_owned(), dst };
    let spec = Spec { when, input: serde_json::Value::Null, overlap: Overlap::Allow, misfire: Misfire::Skip, jitter: Span::default() };
    if let Ok(schedule) = Schedule::new(spec)
        && let Some(next) = next_after(&schedule, Millis(after))
    {
        assert!(next > Millis(after));
        assert_eq!(at_or_before(&schedule, next), Some(next));
    }
});
