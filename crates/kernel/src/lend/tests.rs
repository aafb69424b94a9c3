#![allow(clippy::unwrap_used)]
use std::collections::BTreeSet;

use super::*;
use crate::policy::{Rate, Span};
use proptest::prelude::*;
use std::time::Duration;

const SHARDS: u16 = 4;

fn limit() -> ActorId {
    ActorId { tenant: "default".to_owned(), kind: KIND.to_owned(), key: "links.check[example.org]".to_owned() }
}

/// One lender and four borrowers; what they say to each other arrives late, in order.
struct World {
    throttle: Throttle,
    now: Millis,
    life: Life,
    lender: Lender,
    borrowers: Vec<Borrower<u32>>,
    to_lender: Vec<VecDeque<(Life, u32, Report)>>,
    to_borrower: Vec<VecDeque<(Life, u32)>>,
    /// Tasks that may start and have not, and those that run.
    ready: BTreeSet<(u16, u32)>,
    running: BTreeSet<(u16, u32)>,
    starts: Vec<Millis>,
    next: u32,
}

impl World {
    fn new(throttle: Throttle) -> World {
        let lender = Lender::new(Life(0), throttle.clone());
        let to_lender = (0..SHARDS).map(|_| VecDeque::new()).collect();
        World {
            throttle,
            now: Millis(1_000_000),
            life: Life(0),
            lender,
            borrowers: (0..SHARDS).map(|_| Borrower::default()).collect(),
            to_lender,
            to_borrower: (0..SHARDS).map(|_| VecDeque::new()).collect(),
            ready: BTreeSet::new(),
            running: BTreeSet::new(),
            starts: Vec::new(),
            next: 0,
        }
    }

    fn ask(&mut self, shard: u16) {
        self.next += 1;
        self.borrowers[usize::from(shard)].ask(self.next, limit(), self.throttle.clone());
    }

    fn tell(&mut self, shard: u16) {
        for told in self.borrowers[usize::from(shard)].take_reports() {
            self.to_lender[usize::from(shard)].push_back((self.life, told.unwanted, told.report));
        }
    }

    fn hear(&mut self, shard: u16) {
        if let Some((life, unwanted, report)) = self.to_lender[usize::from(shard)].pop_front() {
            self.lender.unwant(ShardId(shard), life, unwanted);
            self.lender.report(ShardId(shard), life, &self.throttle, report, self.now);
            self.grant();
        }
    }

    fn grant(&mut self) {
        for (to, permits) in self.lender.grant(self.now) {
            self.to_borrower[usize::from(to.0)].push_back((self.life, permits));
        }
    }

    fn take(&mut self, shard: u16) {
        let Some((life, permits)) = self.to_borrower[usize::from(shard)].pop_front() else { return };
        if life == self.life {
            let tasks = self.borrowers[usize::from(shard)].granted(&limit(), &self.throttle.clone(), permits);
            self.ready.extend(tasks.into_iter().map(|task| (shard, task)));
        }
    }

    fn start(&mut self) {
        let Some((shard, task)) = self.ready.pop_first() else { return };
        self.borrowers[usize::from(shard)].started(task);
        self.running.insert((shard, task));
        self.starts.push(self.now);
        if let Some(most) = self.throttle.concurrency {
            assert!(self.running.len() <= most as usize, "{} run, the limit is {most}", self.running.len());
        }
        if let Some(rate) = self.throttle.rate {
            let within = self.starts.iter().filter(|at| at.after(rate.per.0) > self.now).count();
            assert!(within <= rate.count as usize, "{within} starts in one window");
        }
    }

    fn end(&mut self, which: usize) {
        let Some(&(shard, task)) = self.running.iter().nth(which % self.running.len().max(1)) else { return };
        self.running.remove(&(shard, task));
        self.borrowers[usize::from(shard)].done(task);
    }

    fn forget(&mut self, shard: u16) {
        let task = self.borrowers[usize::from(shard)].asked.tasks.iter().find(|(_, known)| known.1 != Standing::Runs(())).map(|(task, _)| *task);
        if let Some(task) = task {
            self.borrowers[usize::from(shard)].done(task);
            self.ready.remove(&(shard, task));
        }
    }

    /// The process dies: its attempts die with it; what lies in outboxes is delivered all the same.
    fn crash(&mut self) {
        let row = crate::wire::encode(&self.lender.row());
        self.life = Life(self.life.0 + 1);
        self.lender = Lender::load(crate::wire::decode("limit", &row).unwrap(), self.life, self.now);
        self.borrowers = (0..SHARDS).map(|_| Borrower::default()).collect();
        self.ready.clear();
        self.running.clear();
    }

    fn waiting(&self) -> usize {
        self.borrowers.iter().map(|borrower| borrower.asked.tasks.len()).sum()
    }

    /// Everything is delivered, everything ends, time goes on.
    fn drain(&mut self) {
        for _ in 0..20_000 {
            let quiet = self.borrowers.iter().all(|borrower| borrower.limits.is_empty()) && self.to_lender.iter().all(VecDeque::is_empty);
            if quiet && self.lender.queue.is_empty() && self.lender.lent.is_empty() && self.to_borrower.iter().all(VecDeque::is_empty) {
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
            self.end(0);
            if self.lender.wake_at().is_some_and(|at| at <= self.now) {
                self.grant();
            }
            self.now = self.now.after(Duration::from_millis(20));
        }
        panic!("{} tasks never started: {:?}", self.waiting(), self.lender);
    }
}

fn throttle() -> impl Strategy<Value = Throttle> {
    (prop::option::of(1u32..30), prop::option::of((1u32..40, 10u64..3_000)), 1u32..10).prop_map(|(concurrency, rate, other)| {
        let rate = rate.map(|(count, per_ms)| Rate { count, per: Span(Duration::from_millis(per_ms)) });
        let concurrency = if rate.is_none() { concurrency.or(Some(other)) } else { concurrency };
        Throttle { concurrency, rate, key: None }
    })
}

proptest! {
    #[test]
    fn no_delay_and_no_crash_lets_more_through_than_the_limit_and_nobody_starves(throttle in throttle(), acts in prop::collection::vec((0u8..40, 0u16..SHARDS, 0u64..200), 1..400)) {
        let mut world = World::new(throttle);
        for (act, shard, span) in acts {
            match act {
                0..=9 => world.ask(shard),
                10..=15 => world.tell(shard),
                16..=21 => world.hear(shard),
                22..=25 => world.take(shard),
                26..=29 => world.start(),
                30..=33 => world.end(usize::from(shard)),
                34 => world.forget(shard),
                35 => world.crash(),
                36 => world.grant(),
                _ => world.now = world.now.after(Duration::from_millis(span)),
            }
        }
        world.drain();
        let late = world.now.after(Duration::from_secs(60));
        prop_assert!(world.lender.is_idle(late), "{:?}", world.lender);
        prop_assert!(world.borrowers.iter().all(|borrower| borrower.limits.is_empty()), "nothing stays at hand");
    }
}

#[test]
fn wishes_of_tasks_that_are_gone_leave_the_queue_and_take_no_permit_from_those_who_wait() {
    let mut lender = Lender::new(Life(1), Throttle { concurrency: Some(1), ..Throttle::default() });
    let throttle = lender.throttle.clone();
    lender.report(ShardId(2), Life(1), &throttle, Report { want: 1, ..Report::default() }, Millis(0));
    lender.grant(Millis(0));
    let mut shard: Borrower<u32> = Borrower::default();
    (0..1_000).for_each(|task| shard.ask(task, limit(), throttle.clone()));
    let told = shard.take_reports().remove(0);
    lender.report(ShardId(1), Life(1), &throttle, told.report, Millis(0));
    lender.report(ShardId(2), Life(1), &throttle, Report { want: 1, ..Report::default() }, Millis(0));
    assert_eq!(lender.row().queue, [(ShardId(1), 1_000), (ShardId(2), 1)]);
    (0..999).for_each(|task| shard.done(task));
    let told = shard.take_reports().remove(0);
    assert!(!lender.unwant(ShardId(1), Life(2), told.unwanted), "of another life");
    assert!(lender.unwant(ShardId(1), Life(1), told.unwanted));
    assert_eq!(lender.row().queue, [(ShardId(1), 1), (ShardId(2), 1)]);
    shard.done(999);
    let told = shard.take_reports().remove(0);
    lender.unwant(ShardId(1), Life(1), told.unwanted);
    assert_eq!(lender.row().queue, [(ShardId(2), 1)]);
    assert!(shard.limits.is_empty());
    shard.ask(7, limit(), throttle.clone());
    shard.done(7);
    assert!(shard.take_reports().is_empty() && shard.limits.is_empty(), "who is gone before anybody was told is not spoken of");
}

#[test]
fn a_shard_with_a_thousand_tasks_does_not_keep_out_one_with_a_single_task() {
    let mut lender = Lender::new(Life(1), Throttle { concurrency: Some(20), ..Throttle::default() });
    let throttle = lender.throttle.clone();
    lender.report(ShardId(1), Life(1), &throttle, Report { want: 1_000, ..Report::default() }, Millis(0));
    assert_eq!(lender.grant(Millis(0)), [(ShardId(1), 20)].into());
    lender.report(ShardId(2), Life(1), &throttle, Report { want: 1, ..Report::default() }, Millis(0));
    lender.report(ShardId(1), Life(1), &throttle, Report { started: 20, ended: 3, ..Report::default() }, Millis(0));
    assert_eq!(lender.grant(Millis(0)), [(ShardId(1), 2), (ShardId(2), 1)].into(), "a block of two, then the other one's turn");
}

#[test]
fn another_life_takes_back_what_was_lent_and_its_messages_change_nothing() {
    let throttle = Throttle { concurrency: Some(2), rate: Some(Rate { count: 3, per: Span(Duration::from_secs(10)) }), key: None };
    let mut lender = Lender::new(Life(1), throttle.clone());
    lender.report(ShardId(1), Life(1), &throttle, Report { want: 5, ..Report::default() }, Millis(0));
    assert_eq!(lender.grant(Millis(0)), [(ShardId(1), 2)].into());
    let mut again = Lender::load(lender.row(), Life(2), Millis(1_000));
    assert!(again.lent().is_empty());
    assert!(!again.report(ShardId(1), Life(1), &throttle, Report { ended: 2, want: 9, ..Report::default() }, Millis(1_000)));
    again.report(ShardId(3), Life(2), &throttle, Report { want: 2, ..Report::default() }, Millis(1_000));
    assert_eq!(again.grant(Millis(1_000)), [(ShardId(3), 1)].into(), "two starts may have been made just before");
    assert!(again.wake_at().unwrap() >= Millis(11_000));
}
