//! Limits that hold over all shards: a throttle is lent, by the shard of its name, to the shards whose tasks need it.
//!
//! The lender of a limit ([`Lender`]) gives permits: the right to start one attempt. A permit is a place among those
//! that run at once, until the borrower says that the attempt has ended, and one start of the rate: a start that the
//! borrower has not told of yet counts as if it happened now, always. So no delay between the shards lets more through.
//!
//! A borrower ([`Borrower`]) keeps no permit that no task of it waits for. It gives back at each end, so that whoever
//! waits longest comes next: the lender gives in turns, a block at a time.
//!
//! What a lender knows of its borrowers belongs to one life of the process that owns all shards of the store. The next
//! life holds the lock of the directory, so the attempts of the one before are over: its permits are free at once, its
//! queue is forgotten (the tasks ask again), and starts that were under way count from that moment on. Messages of an
//! earlier life change nothing.

mod asked;
mod ended;
mod guard;
mod passes;

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

use crate::id::{ActorId, ShardId};
use crate::pipeline::throttle::{Gate, Slice};
use crate::policy::Throttle;
use crate::time::Millis;

pub use asked::{Asked, Standing};
pub use ended::Ended;
pub use guard::{Guard, GuardRow, PassReport, Word};
pub use passes::{Heard, Passes};

/// The built-in type of actors that are limits.
pub const KIND: &str = "limit";

/// One process that owns the shards of a store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Life(pub u64);

/// What has happened at a borrower since its last report of one limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Permits that it needs beside those that it asked for before.
    pub want: u32,
    /// Permits whose attempts have started.
    pub started: u32,
    /// Attempts that have ended.
    pub ended: u32,
    /// Permits that were given and that nobody needs any more.
    pub unused: u32,
}

/// What a lender has given to one shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Lent {
    /// Permits that are not back.
    pub out: u32,
    /// Those among them whose start was not told.
    pub unstarted: u32,
}

/// A lender as its row keeps it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LenderRow {
    /// Whose life the rest belongs to.
    pub life: Life,
    /// What it limits to, as the last borrower said.
    pub throttle: Throttle,
    /// What each shard has.
    pub lent: Vec<(ShardId, Lent)>,
    /// Who waits for how many permits, next one first.
    pub queue: Vec<(ShardId, u32)>,
    /// Starts in the window of the rate.
    pub window: Vec<Slice>,
}

/// The lender of one limit.
#[derive(Clone, Debug)]
pub struct Lender {
    life: Life,
    throttle: Throttle,
    lent: BTreeMap<ShardId, Lent>,
    queue: VecDeque<(ShardId, u32)>,
    gate: Gate,
    wake: Option<Millis>,
}

/// So many shards get permits in one step: each is an envelope of one commit.
const GRANTS: usize = 16;

impl Lender {
    /// A lender that has given nothing.
    #[must_use]
    pub fn new(life: Life, throttle: Throttle) -> Lender {
        Lender { life, gate: Gate::new(throttle.clone(), &[]), throttle, lent: BTreeMap::new(), queue: VecDeque::new(), wake: None }
    }

    /// A lender from its row. In another life what was lent is back, and what was about to start has started at `now`.
    #[must_use]
    pub fn load(row: LenderRow, life: Life, now: Millis) -> Lender {
        let LenderRow { life: written, throttle, lent, queue, window } = row;
        let mut lender = Lender {
            life,
            gate: Gate::new(throttle.clone(), &window),
            throttle,
            lent: lent.into_iter().collect(),
            queue: queue.into_iter().collect(),
            wake: None,
        };
        if written != life {
            let unstarted = lender.unstarted();
            lender.gate.count(unstarted, now);
            lender.lent.clear();
            lender.queue.clear();
        }
        lender
    }

    /// What its row holds.
    #[must_use]
    pub fn row(&self) -> LenderRow {
        LenderRow {
            life: self.life,
            throttle: self.throttle.clone(),
            lent: self.lent.iter().map(|(shard, lent)| (*shard, *lent)).collect(),
            queue: self.queue.iter().copied().collect(),
            window: self.gate.stored(),
        }
    }

    /// Whether it can be forgotten: nothing is lent, nobody waits, and the rate has no start in its window.
    pub fn is_idle(&mut self, now: Millis) -> bool {
        self.lent.is_empty() && self.queue.is_empty() && self.gate.is_empty(now)
    }

    /// When it can go on although nobody reports: a start leaves the window of the rate.
    #[must_use]
    pub fn wake_at(&self) -> Option<Millis> {
        self.wake
    }

    /// What each borrower has.
    #[must_use]
    pub fn lent(&self) -> &BTreeMap<ShardId, Lent> {
        &self.lent
    }

    fn unstarted(&self) -> u32 {
        self.lent.values().map(|lent| lent.unstarted).fold(0, u32::saturating_add)
    }

    fn out(&self) -> u32 {
        self.lent.values().map(|lent| lent.out).fold(0, u32::saturating_add)
    }

    /// Takes the report of a borrower; false if it comes from another life and changes nothing.
    pub fn report(&mut self, from: ShardId, life: Life, throttle: &Throttle, report: Report, now: Millis) -> bool {
        if life != self.life {
            return false;
        }
        if *throttle != self.throttle {
            self.throttle = throttle.clone();
            self.gate = Gate::new(throttle.clone(), &self.gate.stored());
        }
        let lent = self.lent.entry(from).or_default();
        let started = report.started.min(lent.unstarted);
        lent.unstarted = lent.unstarted.saturating_sub(report.started.saturating_add(report.unused));
        lent.out = lent.out.saturating_sub(report.ended.saturating_add(report.unused));
        if *lent == Lent::default() {
            self.lent.remove(&from);
        }
        self.gate.count(started, now);
        if report.want > 0 {
            match self.queue.iter_mut().find(|waiting| waiting.0 == from) {
                Some(waiting) => waiting.1 = waiting.1.saturating_add(report.want),
                None => self.queue.push_back((from, report.want)),
            }
        }
        true
    }

    /// Forgets permits that a borrower asked for and needs no more; false if it speaks of another life. Those that were given
    /// already are on their way, and come back unused.
    pub fn unwant(&mut self, from: ShardId, life: Life, unwanted: u32) -> bool {
        if life != self.life {
            return false;
        }
        if let Some(place) = self.queue.iter().position(|waiting| waiting.0 == from) {
            self.queue[place].1 = self.queue[place].1.saturating_sub(unwanted);
            if self.queue[place].1 == 0 {
                self.queue.remove(place);
            }
        }
        true
    }

    /// Gives what can be given now: to whoever waits longest, a block at a time, in turns.
    pub fn grant(&mut self, now: Millis) -> BTreeMap<ShardId, u32> {
        let mut given: BTreeMap<ShardId, u32> = BTreeMap::new();
        self.wake = None;
        while let Some(&(to, want)) = self.queue.front() {
            if given.len() >= GRANTS && !given.contains_key(&to) {
                self.wake = Some(now);
                return given;
            }
            let free = self.gate.free(self.out(), self.unstarted(), now);
            let most = free.min(want).min(self.block());
            if most == 0 {
                break;
            }
            self.queue.pop_front();
            if want > most {
                self.queue.push_back((to, want - most));
            }
            let lent = self.lent.entry(to).or_default();
            lent.out += most;
            lent.unstarted += most;
            *given.entry(to).or_default() += most;
        }
        // Somebody waits for a start to leave the window, or nobody waits and the row can go with the last one.
        if !self.queue.is_empty() || self.lent.is_empty() {
            self.wake = self.gate.next_leaves(now);
        }
        given
    }

    /// A tenth of what may run at once, and one second's worth of the rate; at least one.
    fn block(&self) -> u32 {
        let places = self.throttle.concurrency.map_or(u32::MAX, |most| most / 10);
        let starts = self.throttle.rate.map_or(u32::MAX, |rate| {
            let per_ms = rate.per.0.as_millis().max(1);
            u32::try_from(u128::from(rate.count) * 1_000 / per_ms).unwrap_or(u32::MAX)
        });
        places.min(starts).max(1)
    }
}

/// One limit at a borrower.
#[derive(Clone, Debug)]
struct AtHand<T> {
    throttle: Throttle,
    waiting: VecDeque<T>,
    /// Tasks that have asked, and are not done.
    tasks: u32,
    report: Report,
    /// Permits that were asked for before and that nobody needs any more.
    unwanted: u32,
}

impl<T> AtHand<T> {
    fn new(throttle: &Throttle) -> AtHand<T> {
        AtHand { throttle: throttle.clone(), waiting: VecDeque::new(), tasks: 0, report: Report::default(), unwanted: 0 }
    }
}

/// What a borrower has to say of one limit.
#[derive(Clone, Debug)]
pub struct Told {
    /// Which.
    pub limit: ActorId,
    /// What it limits to.
    pub throttle: Throttle,
    /// Permits that it asked for before and needs no more: to be told first, see [`Lender::unwant`].
    pub unwanted: u32,
    /// What has happened.
    pub report: Report,
}

/// All limits that the tasks of one shard need, in memory: tasks that ask again after a restart are new ones.
#[derive(Clone, Debug)]
pub struct Borrower<T> {
    limits: BTreeMap<ActorId, AtHand<T>>,
    /// Its tasks.
    pub asked: Asked<T, ()>,
}

impl<T: Ord + Copy> Default for Borrower<T> {
    fn default() -> Borrower<T> {
        Borrower { limits: BTreeMap::new(), asked: Asked::default() }
    }
}

impl<T: Ord + Copy> Borrower<T> {
    /// A task needs a permit. One that has asked before and was not done with gives that one back first.
    pub fn ask(&mut self, task: T, limit: ActorId, throttle: Throttle) {
        self.done(task);
        let at = self.limits.entry(limit.clone()).or_insert_with(|| AtHand::new(&throttle));
        at.throttle = throttle;
        at.waiting.push_back(task);
        at.tasks += 1;
        at.report.want += 1;
        self.asked.reports.insert(limit.clone());
        self.asked.tasks.insert(task, (limit, Standing::Waits));
    }

    /// Permits have come. Gives the tasks that may start; what nobody waits for goes back.
    pub fn granted(&mut self, limit: &ActorId, throttle: &Throttle, permits: u32) -> Vec<T> {
        let at = self.limits.entry(limit.clone()).or_insert_with(|| AtHand::new(throttle));
        let some = at.waiting.len().min(permits as usize);
        let starting: Vec<T> = at.waiting.drain(..some).collect();
        // Invariant: `some` is at most `permits`.
        let rest = permits - some as u32;
        if rest > 0 {
            at.report.unused += rest;
            self.asked.reports.insert(limit.clone());
        }
        for task in &starting {
            if let Some(known) = self.asked.tasks.get_mut(task) {
                known.1 = Standing::MayStart(());
            }
        }
        starting
    }

    /// The attempt starts.
    pub fn started(&mut self, task: T) {
        let Some(known) = self.asked.tasks.get_mut(&task).filter(|known| known.1 == Standing::MayStart(())) else { return };
        known.1 = Standing::Runs(());
        if let Some(at) = self.limits.get_mut(&known.0) {
            at.report.started += 1;
            self.asked.reports.insert(known.0.clone());
        }
    }

    /// The attempt has ended, or the task needs no permit any more.
    pub fn done(&mut self, task: T) {
        let Some((limit, standing)) = self.asked.tasks.remove(&task) else { return };
        let Some(at) = self.limits.get_mut(&limit) else { return };
        at.tasks -= 1;
        match standing {
            // A permit that is on its way comes to whoever waits behind it, or goes back.
            Standing::Waits => {
                at.waiting.retain(|other| *other != task);
                match at.report.want {
                    0 => at.unwanted += 1,
                    _ => at.report.want -= 1,
                }
            }
            Standing::MayStart(()) => at.report.unused += 1,
            Standing::Runs(()) => at.report.ended += 1,
        }
        self.asked.reports.insert(limit);
    }

    /// What is to be told to the lenders.
    pub fn take_reports(&mut self) -> Vec<Told> {
        let mut all = Vec::with_capacity(self.asked.reports.len());
        for limit in std::mem::take(&mut self.asked.reports) {
            let Some(at) = self.limits.get_mut(&limit) else { continue };
            let (unwanted, report) = (std::mem::take(&mut at.unwanted), std::mem::take(&mut at.report));
            let told = Told { limit, throttle: at.throttle.clone(), unwanted, report };
            if at.tasks == 0 {
                self.limits.remove(&told.limit);
            }
            // Asked for and given up before anybody was told.
            if unwanted > 0 || report != Report::default() {
                all.push(told);
            }
        }
        all
    }

    /// How many tasks wait for a limit before the first one of those meant; none if none of these waits for it.
    pub fn before(&self, limit: &ActorId, meant: impl Fn(&T) -> bool) -> Option<usize> {
        self.limits.get(limit)?.waiting.iter().position(meant)
    }
}

#[cfg(test)]
mod tests;
