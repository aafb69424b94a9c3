#![allow(clippy::unwrap_used)]
use super::*;
use crate::id::ActorId;
use crate::lend::{Ended, Heard, Passes};
use crate::policy::Span;
use proptest::prelude::*;
use std::time::Duration;

const LIFE: Life = Life(1);
const SHARD: ShardId = ShardId(3);

fn policy() -> Breaker {
    Breaker { failures: 3, window: Span(Duration::from_secs(10)), open_for: Span(Duration::from_secs(30)), probes: 1 }
}

fn state(guard: &Guard) -> BreakerState {
    guard.word().state
}

fn given(guard: &mut Guard, now: u64) -> u32 {
    guard.grant(Millis(now)).values().sum()
}

fn wants(guard: &mut Guard, want: u32, now: u64) -> u32 {
    let breaker = guard.breaker.clone();
    guard.report(SHARD, guard.life, &breaker, PassReport { want, ..PassReport::default() }, Millis(now));
    given(guard, now)
}

/// Attempts with passes of a period end.
fn end(guard: &mut Guard, period: Millis, failed: u32, answered: u32, now: u64) {
    let breaker = guard.breaker.clone();
    guard.report(SHARD, guard.life, &breaker, PassReport { period, failed, answered, ..PassReport::default() }, Millis(now));
}

fn ends(guard: &mut Guard, failed: u32, answered: u32, now: u64) {
    end(guard, guard.word().since, failed, answered, now);
}

#[test]
fn breaker_opens_after_its_failures_half_opens_after_its_time_and_closes_on_success() {
    let mut guard = Guard::new(LIFE, policy(), Millis(0));
    assert_eq!(wants(&mut guard, 5, 0), 5);
    ends(&mut guard, 2, 0, 1_000);
    assert_eq!((state(&guard), wants(&mut guard, 1, 1_000)), (BreakerState::Closed, 1));
    ends(&mut guard, 1, 0, 2_000);
    assert_eq!(guard.word(), Word { state: BreakerState::Open, since: Millis(2_000), until: Some(Millis(32_000)) });
    assert_eq!((wants(&mut guard, 4, 31_999), guard.wake_at(Millis(31_999))), (0, Some(Millis(32_000))));
    assert_eq!(given(&mut guard, 32_000), 1, "one finds out");
    assert_eq!((state(&guard), given(&mut guard, 40_000)), (BreakerState::HalfOpen, 0));
    ends(&mut guard, 1, 0, 40_000);
    assert_eq!((state(&guard), given(&mut guard, 69_999)), (BreakerState::Open, 0));
    assert_eq!(given(&mut guard, 70_000), 1);
    ends(&mut guard, 0, 1, 70_001);
    assert_eq!((state(&guard), given(&mut guard, 70_001)), (BreakerState::Closed, 2));
}

#[test]
fn attempts_that_were_let_through_before_it_opened_neither_decide_nor_delay_its_half_open_state() {
    let mut guard = Guard::new(LIFE, policy(), Millis(0));
    assert_eq!(wants(&mut guard, 9, 0), 9);
    let closed = guard.word().since;
    end(&mut guard, closed, 3, 0, 0);
    wants(&mut guard, 1, 1);
    assert_eq!(given(&mut guard, 30_001), 1, "six that are under way take no place of the one that finds out");
    end(&mut guard, closed, 2, 0, 30_001);
    assert_eq!(state(&guard), BreakerState::HalfOpen, "a failure from before says nothing of now");
    end(&mut guard, closed, 0, 2, 30_002);
    assert_eq!(state(&guard), BreakerState::HalfOpen, "nor does a success");
    ends(&mut guard, 0, 1, 30_003);
    assert_eq!(state(&guard), BreakerState::Closed);
    end(&mut guard, closed, 2, 0, 30_004);
    assert!(guard.failures.is_empty(), "not even when it is closed again");
}

#[test]
fn failures_that_are_older_than_the_window_do_not_count() {
    let mut guard = Guard::new(LIFE, policy(), Millis(0));
    for at in [0, 5_000, 10_000, 15_000, 20_000] {
        assert_eq!(wants(&mut guard, 1, at), 1);
        ends(&mut guard, 1, 0, at);
        assert_eq!(state(&guard), BreakerState::Closed);
    }
    assert_eq!(guard.wake_at(Millis(20_000)), Some(Millis(30_000)), "it looks once more, to forget the last one");
    assert!(!guard.clone().is_idle(Millis(29_999)) && guard.clone().is_idle(Millis(30_000)));
    ends(&mut guard, 1, 0, 24_999);
    assert_eq!(state(&guard), BreakerState::Open);
}

#[test]
fn as_many_find_out_as_its_probes_say_and_one_that_is_given_up_makes_room_for_the_next() {
    let breaker = Breaker { probes: 3, ..policy() };
    let mut guard = Guard::new(LIFE, breaker, Millis(0));
    wants(&mut guard, 3, 0);
    ends(&mut guard, 3, 0, 0);
    wants(&mut guard, 10, 0);
    assert_eq!(given(&mut guard, 30_001), 3);
    let (breaker, period) = (guard.breaker.clone(), guard.word().since);
    guard.report(SHARD, LIFE, &breaker, PassReport { period, unused: 2, ..PassReport::default() }, Millis(30_001));
    assert_eq!((state(&guard), given(&mut guard, 30_001)), (BreakerState::HalfOpen, 2));
    ends(&mut guard, 1, 1, 30_002);
    assert_eq!(state(&guard), BreakerState::Open, "of a success and a failure that come together the failure counts");
}

#[test]
fn an_open_breaker_is_open_in_the_next_life_and_its_passes_are_back() {
    let mut guard = Guard::new(LIFE, policy(), Millis(0));
    wants(&mut guard, 3, 0);
    ends(&mut guard, 2, 0, 0);
    let mut guard = Guard::load(crate::wire::decode("breaker", &crate::wire::encode(&guard.row())).unwrap(), Life(2));
    assert_eq!(wants(&mut guard, 3, 9_000), 3);
    ends(&mut guard, 1, 0, 9_000);
    assert_eq!(state(&guard), BreakerState::Open, "the failures of the life before count while they are in the window");
    wants(&mut guard, 2, 9_001);
    let mut next = Guard::load(guard.row(), Life(3));
    assert_eq!((next.word(), next.wake_at(Millis(9_001)), wants(&mut next, 1, 38_999)), (guard.word(), None, 0));
    assert_eq!(given(&mut next, 39_000), 1);
    // A kill in the middle of finding out: another one finds out.
    let mut last = Guard::load(next.row(), Life(4));
    assert_eq!((state(&last), wants(&mut last, 2, 39_001)), (BreakerState::HalfOpen, 1));
    let late = PassReport { period: last.word().since, failed: 1, ..PassReport::default() };
    assert!(!last.report(SHARD, Life(3), &policy(), late, Millis(39_002)));
    assert_eq!(state(&last), BreakerState::HalfOpen);
}

#[test]
fn whoever_waits_or_has_a_pass_hears_of_each_change_sixteen_shards_at_a_time() {
    let mut guard = Guard::new(LIFE, policy(), Millis(0));
    for shard in 0..40 {
        guard.report(ShardId(shard), LIFE, &policy(), PassReport { want: 1, ..PassReport::default() }, Millis(0));
    }
    let mut through = 0;
    while through < 40 {
        through += given(&mut guard, 0);
        assert_eq!(guard.wake_at(Millis(7)).is_some(), through < 40);
    }
    let period = guard.word().since;
    guard.report(ShardId(0), LIFE, &policy(), PassReport { period, failed: 3, ..PassReport::default() }, Millis(5));
    let mut told = BTreeSet::new();
    loop {
        let some = guard.grant(Millis(5));
        assert!(some.len() <= GRANTS && some.values().all(|permits| *permits == 0));
        told.extend(some.into_keys());
        if guard.wake_at(Millis(5)).is_none() {
            break;
        }
    }
    assert_eq!(told.len(), 39, "all but the one whose pass is back");
    assert!(guard.grant(Millis(6)).is_empty(), "once each");
}

#[test]
fn who_waits_no_more_takes_no_probe_from_those_who_do() {
    let mut guard = Guard::new(LIFE, policy(), Millis(0));
    wants(&mut guard, 3, 0);
    ends(&mut guard, 3, 0, 0);
    wants(&mut guard, 1_000, 1);
    let of_other = PassReport { want: 1, ..PassReport::default() };
    guard.report(ShardId(9), LIFE, &policy(), of_other, Millis(2));
    let mut shard: Passes<u32> = Passes::default();
    (0..1_000).for_each(|task| shard.ask(task, breaker_id(), policy()));
    assert_eq!(shard.take_reports()[0].2.want, 1_000);
    (0..1_000).for_each(|task| shard.done(task, Ended::GivenUp));
    guard.report(SHARD, LIFE, &policy(), shard.take_reports()[0].2, Millis(3));
    assert!(shard.is_empty());
    assert_eq!(guard.grant(Millis(30_001)).get(&ShardId(9)), Some(&1), "a thousand that were cancelled are not tried first");
}

#[test]
fn a_probe_that_does_not_start_makes_room_for_the_next_which_may_take_twice_as_long() {
    let mut guard = Guard::new(LIFE, policy(), Millis(0));
    let mut shard: Passes<u32> = Passes::default();
    let exchange = |guard: &mut Guard, shard: &mut Passes<u32>, now: u64| -> Vec<u32> {
        let now = Millis(now);
        for (_, breaker, report) in shard.take_reports() {
            guard.report(SHARD, LIFE, &breaker, report, now);
        }
        let given = guard.grant(now);
        given.values().flat_map(|permits| shard.heard(&breaker_id(), &policy(), guard.word(), *permits, now).through).collect()
    };
    wants(&mut guard, 3, 0);
    ends(&mut guard, 3, 0, 0);
    for task in 0..3 {
        shard.ask(task, breaker_id(), policy());
    }
    assert!(exchange(&mut guard, &mut shard, 10).is_empty());
    assert_eq!(exchange(&mut guard, &mut shard, 30_001), [0]);
    for (task, from, until) in [(0, 30_001, 60_001), (1, 60_001, 120_001)] {
        assert_eq!(shard.next_stall(), Some(Millis(until)), "from {from}");
        assert!(shard.stalled(Millis(until - 1)).is_empty());
        assert_eq!(shard.stalled(Millis(until)), [task]);
        shard.ask(task, breaker_id(), policy());
        assert_eq!(exchange(&mut guard, &mut shard, until), [task + 1]);
    }
    shard.started(2);
    assert_eq!((shard.next_stall(), shard.stalled(Millis(u64::MAX)).len()), (None, 0), "who is at work keeps its place");
    shard.done(2, Ended::Answered);
    assert_eq!(exchange(&mut guard, &mut shard, 120_002), [0, 1]);
    assert_eq!((state(&guard), shard.next_stall()), (BreakerState::Closed, None));
}

#[test]
fn a_probe_whose_breaker_closes_before_it_starts_keeps_what_it_has() {
    let half_open = Word { state: BreakerState::HalfOpen, since: Millis(5), until: None };
    let mut shard: Passes<u32> = Passes::default();
    shard.ask(1, breaker_id(), policy());
    shard.take_reports();
    assert_eq!(shard.heard(&breaker_id(), &policy(), half_open, 1, Millis(5)).through, [1]);
    let closed = Word { state: BreakerState::Closed, since: Millis(6), until: None };
    assert!(shard.heard(&breaker_id(), &policy(), closed, 0, Millis(6)).recalled.is_empty());
    assert!(shard.next_stall().is_none() && shard.stalled(Millis(u64::MAX)).is_empty());
}

fn breaker_id() -> ActorId {
    ActorId { tenant: "default".to_owned(), kind: crate::lend::KIND.to_owned(), key: "breaker of activity fetch".to_owned() }
}

const SHARDS: u16 = 4;

/// One breaker and four shards; what they say to each other arrives late, in order.
struct World {
    breaker: Breaker,
    now: Millis,
    life: Life,
    guard: Guard,
    shards: Vec<Passes<u32>>,
    to_guard: Vec<VecDeque<(Life, PassReport)>>,
    to_shard: Vec<VecDeque<(Life, Word, u32)>>,
    heard: Vec<Option<Word>>,
    /// Tasks that may start and have not, and those that run, each with the word that came with its pass.
    ready: BTreeMap<(u16, u32), Word>,
    running: BTreeMap<(u16, u32), Word>,
    asked: u32,
    ended: u32,
    lost: u32,
}

impl World {
    fn new(breaker: Breaker) -> World {
        let now = Millis(1_000_000);
        World {
            guard: Guard::new(Life(0), breaker.clone(), now),
            breaker,
            now,
            life: Life(0),
            shards: (0..SHARDS).map(|_| Passes::default()).collect(),
            to_guard: (0..SHARDS).map(|_| VecDeque::new()).collect(),
            to_shard: (0..SHARDS).map(|_| VecDeque::new()).collect(),
            heard: vec![None; usize::from(SHARDS)],
            ready: BTreeMap::new(),
            running: BTreeMap::new(),
            asked: 0,
            ended: 0,
            lost: 0,
        }
    }

    fn ask(&mut self, shard: u16) {
        self.asked += 1;
        self.shards[usize::from(shard)].ask(self.asked, breaker_id(), self.breaker.clone());
    }

    fn tell(&mut self, shard: u16) {
        for (_, _, report) in self.shards[usize::from(shard)].take_reports() {
            self.to_guard[usize::from(shard)].push_back((self.life, report));
        }
    }

    fn hear(&mut self, shard: u16) {
        let Some((life, report)) = self.to_guard[usize::from(shard)].pop_front() else { return };
        let before = self.guard.word();
        self.guard.report(ShardId(shard), life, &self.breaker, report, self.now);
        let after = self.guard.word();
        if before != after {
            assert!(after.since > before.since && life == self.life && report.period == before.since, "only what had a pass of this period decides");
            assert_eq!(report.failed > 0, after.state == BreakerState::Open);
        }
        self.grant();
    }

    fn grant(&mut self) {
        for (to, permits) in self.guard.grant(self.now) {
            self.to_shard[usize::from(to.0)].push_back((self.life, self.guard.word(), permits));
        }
        let lent: u32 = self.guard.lent.values().sum();
        assert!(self.guard.word().state != BreakerState::Open || lent == 0);
        assert!(self.guard.word().state != BreakerState::HalfOpen || lent <= self.breaker.probes);
    }

    fn take(&mut self, shard: u16) {
        let Some((life, word, permits)) = self.to_shard[usize::from(shard)].pop_front() else { return };
        if life != self.life {
            return;
        }
        self.heard[usize::from(shard)] = Some(word);
        let Heard { through, recalled } = self.shards[usize::from(shard)].heard(&breaker_id(), &self.breaker, word, permits, self.now);
        for task in recalled {
            self.ready.remove(&(shard, task)).unwrap();
            self.shards[usize::from(shard)].ask(task, breaker_id(), self.breaker.clone());
        }
        self.ready.extend(through.into_iter().map(|task| ((shard, task), word)));
    }

    fn start(&mut self) {
        let Some(((shard, task), word)) = self.ready.pop_first() else { return };
        let heard = self.heard[usize::from(shard)].unwrap();
        assert!(heard.state == BreakerState::Closed || word == heard, "nobody starts with a pass from before it opened");
        self.shards[usize::from(shard)].started(task);
        self.running.insert((shard, task), word);
        let probes = self.running.values().filter(|word| word.state == BreakerState::HalfOpen && word.since == self.guard.word().since).count();
        assert!(probes <= self.breaker.probes as usize, "{probes} find out at once");
    }

    fn end(&mut self, which: usize, ended: Ended) {
        let Some(&(shard, task)) = self.running.keys().nth(which % self.running.len().max(1)) else { return };
        self.running.remove(&(shard, task));
        self.shards[usize::from(shard)].done(task, ended);
        self.ended += 1;
    }

    /// Probes that have not started for too long make room.
    fn stall(&mut self, shard: u16) {
        for task in self.shards[usize::from(shard)].stalled(self.now) {
            self.ready.remove(&(shard, task)).unwrap();
            self.shards[usize::from(shard)].ask(task, breaker_id(), self.breaker.clone());
        }
    }

    fn give_up(&mut self, shard: u16) {
        let task = self.shards[usize::from(shard)].asked.within(0, u32::MAX).into_iter().find(|task| self.shards[usize::from(shard)].asked.has_asked(*task));
        if let Some(task) = task {
            self.shards[usize::from(shard)].done(task, Ended::GivenUp);
            self.ready.remove(&(shard, task));
            self.lost += 1;
        }
    }

    /// The process dies: its attempts die with it; what lies in outboxes is delivered all the same.
    fn crash(&mut self) {
        let row = crate::wire::encode(&self.guard.row());
        self.life = Life(self.life.0 + 1);
        let before = self.guard.word();
        self.guard = Guard::load(crate::wire::decode("breaker", &row).unwrap(), self.life);
        assert_eq!(self.guard.word(), before);
        self.lost += self.shards.iter().map(|shard| shard.asked.within(0, u32::MAX).len() as u32).sum::<u32>();
        self.shards = (0..SHARDS).map(|_| Passes::default()).collect();
        self.heard.fill(None);
        self.ready.clear();
        self.running.clear();
    }

    /// The target is well: everything is delivered, everything ends, time goes on.
    fn drain(&mut self) {
        for _ in 0..20_000 {
            let quiet = self.to_guard.iter().all(VecDeque::is_empty) && self.to_shard.iter().all(VecDeque::is_empty);
            if quiet && self.shards.iter().all(Passes::is_empty) && self.guard.queue.is_empty() && self.guard.lent.is_empty() {
                assert_eq!(self.ended + self.lost, self.asked, "everybody went");
                return;
            }
            for shard in 0..SHARDS {
                self.tell(shard);
                self.hear(shard);
                self.take(shard);
            }
            while !self.ready.is_empty() {
                self.start();
            }
            self.end(0, Ended::Answered);
            if self.guard.wake_at(self.now).is_some_and(|at| at <= self.now) {
                self.grant();
            }
            self.now = self.now.after(Duration::from_millis(100));
        }
        panic!("somebody waits for ever: {:?} {:?}", self.guard, self.shards);
    }
}

fn any_breaker() -> impl Strategy<Value = Breaker> {
    (1u32..6, 10u64..5_000, 10u64..5_000, 1u32..5).prop_map(|(failures, window, open_for, probes)| {
        let span = |ms| Span(Duration::from_millis(ms));
        Breaker { failures, window: span(window), open_for: span(open_for), probes }
    })
}

proptest! {
    #[test]
    fn no_delay_and_no_crash_lets_more_find_out_than_its_probes_and_nobody_waits_for_ever(
        breaker in any_breaker(), acts in prop::collection::vec((0u8..46, 0u16..SHARDS, 0u64..1_000), 1..400)
    ) {
        let mut world = World::new(breaker);
        for (act, shard, span) in acts {
            match act {
                0..=8 => world.ask(shard),
                9..=14 => world.tell(shard),
                15..=20 => world.hear(shard),
                21..=25 => world.take(shard),
                26..=29 => world.start(),
                30..=33 => world.end(usize::from(shard), Ended::Failed),
                34..=35 => world.end(usize::from(shard), Ended::Answered),
                36 => world.end(usize::from(shard), Ended::GivenUp),
                37 => world.give_up(shard),
                38 => world.crash(),
                39 => world.grant(),
                40..=41 => world.stall(shard),
                _ => world.now = world.now.after(Duration::from_millis(span)),
            }
        }
        world.drain();
        for shard in 0..SHARDS {
            world.ask(shard);
        }
        world.drain();
        let late = world.now.after(Duration::from_secs(60));
        prop_assert!(world.guard.word().state == BreakerState::Closed && world.guard.is_idle(late), "{:?}", world.guard);
    }
}
