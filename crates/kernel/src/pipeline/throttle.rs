//! The throttle of one stage: how many of its tasks at once, and how many starts in a time.
//!
//! The rate is a sliding window: no span of length `per` ever holds more than `count` starts. Starts are counted in
//! slices of the window and a slice leaves it as a whole, after its last moment has: memory is bounded and the error is
//! on the side of starting later.

use std::collections::VecDeque;

use crate::policy::Throttle;
use crate::time::Millis;

/// Slices of the window in memory.
const SLICES: u64 = 1_000;
/// Slices of the window in the header of the run.
const STORED_SLICES: u64 = 16;

/// Starts in one slice of time.
pub type Slice = (Millis, u32);

/// Whether a task may start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Now.
    Now,
    /// At this time at the earliest.
    At(Millis),
    /// When one of the running ones ends.
    Full,
}

/// What is left of a throttle's limits.
#[derive(Clone, Debug)]
pub struct Gate {
    policy: Throttle,
    /// (end of the slice, starts in it).
    window: VecDeque<Slice>,
    in_window: u64,
}

impl Gate {
    /// A gate as it was when [`Gate::stored`] was written; `&[]` for a new one.
    #[must_use]
    pub fn new(policy: Throttle, stored: &[Slice]) -> Gate {
        let in_window = stored.iter().map(|(_, count)| u64::from(*count)).sum();
        Gate { policy, window: stored.iter().copied().collect(), in_window }
    }

    /// Whether one more may start while `running` run.
    pub fn admit(&mut self, running: u32, now: Millis) -> Admission {
        if self.policy.concurrency.is_some_and(|most| running >= most) {
            return Admission::Full;
        }
        let Some(rate) = self.policy.rate else {
            return Admission::Now;
        };
        self.slide(now);
        if self.in_window < u64::from(rate.count) {
            return Admission::Now;
        }
        // Invariant: a full window has a slice.
        self.window.front().map_or(Admission::Now, |(end, _)| Admission::At(end.after(rate.per.0)))
    }

    /// Starts that have left the window are forgotten.
    fn slide(&mut self, now: Millis) {
        let Some(rate) = self.policy.rate else { return };
        while let Some(&(end, count)) = self.window.front() {
            if end.after(rate.per.0) > now {
                break;
            }
            self.window.pop_front();
            self.in_window -= u64::from(count);
        }
    }

    /// How many more may start while `running` run, if `promised` of them are still to be counted as starts.
    pub fn free(&mut self, running: u32, promised: u32, now: Millis) -> u32 {
        self.slide(now);
        let places = self.policy.concurrency.map_or(u32::MAX, |most| most.saturating_sub(running));
        let starts = self.policy.rate.map_or(u64::MAX, |rate| u64::from(rate.count).saturating_sub(self.in_window + u64::from(promised)));
        places.min(u32::try_from(starts).unwrap_or(u32::MAX))
    }

    /// Whether no start is in the window.
    pub fn is_empty(&mut self, now: Millis) -> bool {
        self.slide(now);
        self.policy.rate.is_none() || self.window.is_empty()
    }

    /// When the next start leaves the window.
    pub fn next_leaves(&mut self, now: Millis) -> Option<Millis> {
        self.slide(now);
        let rate = self.policy.rate?;
        self.window.front().map(|(end, _)| end.after(rate.per.0))
    }

    /// Counts a start.
    pub fn started(&mut self, now: Millis) {
        self.count(1, now);
    }

    /// Counts starts.
    pub fn count(&mut self, starts: u32, now: Millis) {
        let Some(rate) = self.policy.rate.filter(|_| starts > 0) else { return };
        self.in_window += u64::from(starts);
        let width_ms = (u64::try_from(rate.per.0.as_millis()).unwrap_or(u64::MAX) / SLICES).max(1);
        add(&mut self.window, width_ms, now, starts);
    }

    /// What the header of the run keeps, so that a restart does not forget starts.
    #[must_use]
    pub fn stored(&self) -> Vec<Slice> {
        let Some(rate) = self.policy.rate else {
            return Vec::new();
        };
        let width_ms = (u64::try_from(rate.per.0.as_millis()).unwrap_or(u64::MAX) / STORED_SLICES).max(1);
        let mut coarse = VecDeque::new();
        for (end, count) in &self.window {
            add(&mut coarse, width_ms, *end, *count);
        }
        coarse.into()
    }
}

fn add(window: &mut VecDeque<Slice>, width_ms: u64, at: Millis, count: u32) {
    let end = Millis((at.0 / width_ms).saturating_mul(width_ms).saturating_add(width_ms - 1));
    match window.back_mut() {
        Some((last, starts)) if *last >= end => *starts = starts.saturating_add(count),
        _ => window.push_back((end, count)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::policy::{Rate, Span};
    use proptest::prelude::*;
    use std::time::Duration;

    fn policy(count: u32, per_ms: u64) -> Throttle {
        Throttle { concurrency: None, rate: Some(Rate { count, per: Span(Duration::from_millis(per_ms)) }), key: None }
    }

    proptest! {
        #[test]
        fn no_window_ever_holds_more_starts_than_the_rate_also_over_restarts(
            count in 1u32..20, per_ms in 1u64..5_000, steps in prop::collection::vec((0u64..700, any::<bool>(), 1u32..10), 1..200)
        ) {
            let mut gate = Gate::new(policy(count, per_ms), &[]);
            let mut starts: Vec<u64> = Vec::new();
            let mut now = Millis(1_000_000);
            for (wait, restart, tries) in steps {
                now = Millis(now.0 + wait);
                if restart {
                    gate = Gate::new(policy(count, per_ms), &gate.stored());
                }
                for _ in 0..tries {
                    match gate.admit(0, now) {
                        Admission::Now => { gate.started(now); starts.push(now.0); }
                        Admission::At(at) => { prop_assert!(at > now); break; }
                        Admission::Full => prop_assert!(false),
                    }
                }
                let within = starts.iter().filter(|at| **at + per_ms > now.0).count();
                prop_assert!(within <= count as usize, "{within} starts in {per_ms} ms");
            }
        }
    }

    #[test]
    fn a_full_rate_is_reached_within_a_few_percent() {
        let mut gate = Gate::new(policy(40, 1_000), &[]);
        let (mut now, mut started) = (Millis(5_000), 0);
        while now < Millis(65_000) {
            match gate.admit(0, now) {
                Admission::Now => {
                    gate.started(now);
                    started += 1;
                }
                Admission::At(at) => now = at,
                Admission::Full => unreachable!(),
            }
        }
        assert!(started >= 2_350, "{started} starts in a minute at 40 a second");
    }

    #[test]
    fn concurrency_is_a_hard_bound() {
        let mut gate = Gate::new(Throttle { concurrency: Some(3), ..Throttle::default() }, &[]);
        assert_eq!(gate.admit(2, Millis(0)), Admission::Now);
        assert_eq!(gate.admit(3, Millis(0)), Admission::Full);
    }
}
