//! A breaker: after so many failures in a window nobody tries for a while, then a few find out.
//!
//! It lends like a throttle does, see [`super`]: an attempt needs a permit. Closed, it gives one to whoever asks; open, to
//! nobody until its time is over; half open, to so many at once as `probes` says, and the first of them that succeeds closes it, the first that
//! fails opens it again. An attempt that was given up says nothing of the target. What it is survives the process; who has
//! permits does not.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

use super::{Life, Report};
use crate::id::ShardId;
use crate::machine::{BREAKER, BreakerEvent, BreakerState};
use crate::policy::Breaker;
use crate::time::Millis;

/// How attempts have ended since the last report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Outcomes {
    /// With an error that another attempt could mend.
    pub failed: u32,
    /// With a result, or an error that is an answer.
    pub answered: u32,
}

/// A breaker as its row keeps it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GuardRow {
    life: Life,
    breaker: Breaker,
    state: BreakerState,
    until: Millis,
    failures: Vec<Millis>,
    lent: Vec<(ShardId, u32)>,
    queue: Vec<(ShardId, u32)>,
}

impl GuardRow {
    /// When it opens.
    #[must_use]
    pub fn into_policy(self) -> Breaker {
        self.breaker
    }
}

/// One breaker.
#[derive(Clone, Debug)]
pub struct Guard {
    life: Life,
    breaker: Breaker,
    state: BreakerState,
    /// When it lets somebody find out; of an open one.
    until: Millis,
    /// The last failures in the window, at most as many as open it.
    failures: VecDeque<Millis>,
    lent: BTreeMap<ShardId, u32>,
    queue: VecDeque<(ShardId, u32)>,
}

/// So many shards get permits in one step: each is an envelope of one commit.
const GRANTS: usize = 16;

impl Guard {
    /// A closed one.
    #[must_use]
    pub fn new(life: Life, breaker: Breaker) -> Guard {
        let (failures, lent, queue) = (VecDeque::new(), BTreeMap::new(), VecDeque::new());
        Guard { life, breaker, state: BREAKER.start, until: Millis(0), failures, lent, queue }
    }

    /// From its row. In another life nobody has a permit, and nobody waits: the tasks ask again.
    #[must_use]
    pub fn load(row: GuardRow, life: Life) -> Guard {
        let mut guard = Guard { state: row.state, until: row.until, failures: row.failures.into(), ..Guard::new(life, row.breaker) };
        if row.life == life {
            guard.lent = row.lent.into_iter().collect();
            guard.queue = row.queue.into();
        }
        guard
    }

    /// What its row holds.
    #[must_use]
    pub fn row(&self) -> GuardRow {
        GuardRow {
            life: self.life,
            breaker: self.breaker.clone(),
            state: self.state,
            until: self.until,
            failures: self.failures.iter().copied().collect(),
            lent: self.lent.iter().map(|(shard, out)| (*shard, *out)).collect(),
            queue: self.queue.iter().copied().collect(),
        }
    }

    /// What it is.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// Until when nobody gets a permit.
    #[must_use]
    pub fn open_until(&self) -> Option<Millis> {
        (self.state == BreakerState::Open).then_some(self.until)
    }

    /// How long its row says something that nobody else knows.
    #[must_use]
    pub fn memory(&self) -> std::time::Duration {
        self.breaker.window.0.max(self.breaker.open_for.0)
    }

    /// Whether it can be forgotten: closed, without failures in its window, and nobody has or wants a permit.
    pub fn is_idle(&mut self, now: Millis) -> bool {
        self.forget(now);
        self.state == BreakerState::Closed && self.failures.is_empty() && self.lent.is_empty() && self.queue.is_empty()
    }

    /// When it can go on although nobody reports.
    #[must_use]
    pub fn wake_at(&self) -> Option<Millis> {
        self.open_until().filter(|_| !self.queue.is_empty())
    }

    fn event(&mut self, event: BreakerEvent) {
        if let Ok(state) = BREAKER.next(self.state, event) {
            self.state = state;
            self.failures.clear();
        }
    }

    fn forget(&mut self, now: Millis) {
        let window = self.breaker.window.0;
        while self.failures.front().is_some_and(|at| at.after(window) <= now) {
            self.failures.pop_front();
        }
    }

    fn open(&mut self, event: BreakerEvent, now: Millis) {
        self.event(event);
        self.until = now.after(self.breaker.open_for.0);
    }

    /// Takes a report; false if it comes from another life and changes nothing.
    pub fn report(&mut self, from: ShardId, life: Life, breaker: &Breaker, report: Report, outcomes: Outcomes, now: Millis) -> bool {
        if life != self.life {
            return false;
        }
        self.breaker = breaker.clone();
        let out = self.lent.entry(from).or_default();
        *out = out.saturating_sub(report.ended.saturating_add(report.unused));
        if *out == 0 {
            self.lent.remove(&from);
        }
        match self.state {
            BreakerState::Closed => {
                self.forget(now);
                let most = self.breaker.failures.max(1);
                let counted = usize::try_from(outcomes.failed.min(most)).unwrap_or(usize::MAX);
                self.failures.extend(std::iter::repeat_n(now, counted));
                if self.failures.len() >= usize::try_from(most).unwrap_or(usize::MAX) {
                    self.open(BreakerEvent::Trip, now);
                }
            }
            // Those that were under way when it opened say nothing new.
            BreakerState::Open => {}
            BreakerState::HalfOpen if outcomes.failed > 0 => self.open(BreakerEvent::Trip, now),
            BreakerState::HalfOpen if outcomes.answered > 0 => self.event(BreakerEvent::Close),
            BreakerState::HalfOpen => {}
        }
        if report.want > 0 {
            match self.queue.iter_mut().find(|waiting| waiting.0 == from) {
                Some(waiting) => waiting.1 = waiting.1.saturating_add(report.want),
                None => self.queue.push_back((from, report.want)),
            }
        }
        true
    }

    /// Gives what can be given now: to whoever waits longest.
    pub fn grant(&mut self, now: Millis) -> BTreeMap<ShardId, u32> {
        let mut given: BTreeMap<ShardId, u32> = BTreeMap::new();
        if self.state == BreakerState::Open && self.until <= now && !self.queue.is_empty() {
            self.event(BreakerEvent::Elapse);
        }
        while let Some((to, want)) = self.queue.front().copied() {
            let free = match self.state {
                BreakerState::Closed => u32::MAX,
                BreakerState::Open => 0,
                BreakerState::HalfOpen => self.breaker.probes.max(1).saturating_sub(self.lent.values().sum()),
            };
            let most = free.min(want);
            if most == 0 || given.len() >= GRANTS && !given.contains_key(&to) {
                break;
            }
            self.queue.pop_front();
            if want > most {
                self.queue.push_back((to, want - most));
            }
            *self.lent.entry(to).or_default() += most;
            *given.entry(to).or_default() += most;
        }
        given
    }

    /// Who waits.
    pub fn waiting(&self) -> impl Iterator<Item = ShardId> {
        self.queue.iter().map(|waiting| waiting.0)
    }

    /// Whether somebody who waits could get a permit at once.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.state == BreakerState::Closed && !self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::policy::Span;
    use proptest::prelude::*;
    use std::time::Duration;

    const LIFE: Life = Life(1);
    const SHARD: ShardId = ShardId(3);

    fn policy() -> Breaker {
        Breaker { failures: 3, window: Span(Duration::from_secs(10)), open_for: Span(Duration::from_secs(30)), probes: 1 }
    }

    fn wants(guard: &mut Guard, want: u32, now: u64) -> u32 {
        guard.report(SHARD, guard.life, &policy(), Report { want, ..Report::default() }, Outcomes::default(), Millis(now));
        guard.grant(Millis(now)).values().sum()
    }

    fn ends(guard: &mut Guard, failed: u32, answered: u32, now: u64) {
        let report = Report { ended: failed + answered, ..Report::default() };
        guard.report(SHARD, guard.life, &policy(), report, Outcomes { failed, answered }, Millis(now));
    }

    #[test]
    fn breaker_opens_after_its_failures_half_opens_after_its_time_and_closes_on_success() {
        let mut guard = Guard::new(LIFE, policy());
        assert_eq!(wants(&mut guard, 5, 0), 5);
        ends(&mut guard, 2, 0, 1_000);
        assert_eq!((guard.state(), wants(&mut guard, 1, 1_000)), (BreakerState::Closed, 1));
        ends(&mut guard, 1, 0, 2_000);
        assert_eq!((guard.state(), guard.open_until()), (BreakerState::Open, Some(Millis(32_000))));
        assert_eq!((wants(&mut guard, 4, 31_999), guard.wake_at()), (0, Some(Millis(32_000))));
        // Those that were under way before say nothing of now.
        ends(&mut guard, 1, 2, 31_999);
        assert_eq!(guard.grant(Millis(32_000)).values().sum::<u32>(), 1, "one finds out");
        assert_eq!((guard.state(), guard.grant(Millis(40_000)).len()), (BreakerState::HalfOpen, 0));
        ends(&mut guard, 1, 0, 40_000);
        assert_eq!((guard.state(), guard.grant(Millis(69_999)).len()), (BreakerState::Open, 0));
        assert_eq!(guard.grant(Millis(70_000)).values().sum::<u32>(), 1);
        ends(&mut guard, 0, 1, 70_001);
        assert_eq!((guard.state(), guard.grant(Millis(70_001)).values().sum::<u32>()), (BreakerState::Closed, 2));
    }

    #[test]
    fn failures_that_are_older_than_the_window_do_not_count() {
        let mut guard = Guard::new(LIFE, policy());
        for at in [0, 5_000, 10_000, 15_000, 20_000] {
            assert_eq!(wants(&mut guard, 1, at), 1);
            ends(&mut guard, 1, 0, at);
            assert_eq!(guard.state(), BreakerState::Closed);
        }
        ends(&mut guard, 1, 0, 24_999);
        assert_eq!(guard.state(), BreakerState::Open);
    }

    #[test]
    fn an_open_breaker_is_open_in_the_next_life_and_its_permits_are_back() {
        let mut guard = Guard::new(LIFE, policy());
        wants(&mut guard, 3, 0);
        ends(&mut guard, 3, 0, 0);
        wants(&mut guard, 2, 1);
        let mut next = Guard::load(guard.row(), Life(2));
        assert_eq!((next.state(), next.wake_at(), wants(&mut next, 1, 29_999)), (BreakerState::Open, None, 0));
        assert_eq!(next.grant(Millis(30_000)).values().sum::<u32>(), 1);
        // A kill in the middle of finding out: another one finds out.
        let mut third = Guard::load(next.row(), Life(3));
        assert_eq!((third.state(), wants(&mut third, 2, 30_001)), (BreakerState::HalfOpen, 1));
        assert!(!third.report(SHARD, Life(2), &policy(), Report { ended: 1, ..Report::default() }, Outcomes { failed: 1, answered: 0 }, Millis(30_002)));
        assert_eq!(third.state(), BreakerState::HalfOpen);
    }

    proptest! {
        #[test]
        fn half_open_lets_no_more_through_than_its_probes_and_nobody_is_forgotten(
            moves in prop::collection::vec((0u8..4, 0u16..4, 0u64..20_000), 1..60), probes in 1u32..4
        ) {
            let breaker = Breaker { probes, ..policy() };
            let mut guard = Guard::new(LIFE, breaker.clone());
            let (mut now, mut out, mut wanted) = (0, BTreeMap::<u16, u32>::new(), 0u32);
            for (what, shard, span) in moves {
                now += span;
                let mut report = Report::default();
                let mut outcomes = Outcomes::default();
                match what {
                    0 => { report.want = 2; wanted += 2; }
                    _ if out.get(&shard).is_none_or(|out| *out == 0) => {}
                    1 => { report.ended = 1; outcomes.failed = 1; }
                    2 => { report.ended = 1; outcomes.answered = 1; }
                    _ => report.unused = 1,
                }
                *out.entry(shard).or_default() -= report.ended + report.unused;
                guard.report(ShardId(shard), LIFE, &breaker, report, outcomes, Millis(now));
                let before: u32 = out.values().sum();
                let given = guard.grant(Millis(now));
                let new: u32 = given.values().sum();
                for (shard, count) in given {
                    *out.entry(shard.0).or_default() += count;
                }
                wanted -= new;
                prop_assert!(guard.state() != BreakerState::Open || new == 0);
                prop_assert!(guard.state() != BreakerState::HalfOpen || before + new <= probes.max(before));
                prop_assert_eq!(guard.queue.iter().map(|waiting| waiting.1).sum::<u32>(), wanted);
                prop_assert!(guard.state() != BreakerState::Closed || wanted == 0);
                prop_assert!(guard.state() != BreakerState::Open || wanted == 0 || guard.wake_at().is_some());
                guard = Guard::load(guard.row(), LIFE);
            }
        }
    }
}
