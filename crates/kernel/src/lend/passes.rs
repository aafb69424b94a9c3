//! The passes of breakers at one shard: which of its tasks wait for one, have one, and how their attempts ended.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::asked::{Asked, Standing};
use super::ended::Ended;
use super::guard::{PassReport, Word};
use crate::id::ActorId;
use crate::machine::BreakerState;
use crate::policy::Breaker;
use crate::time::Millis;

/// One breaker at a shard.
#[derive(Clone, Debug)]
struct AtHand<T> {
    breaker: Breaker,
    word: Option<Word>,
    waiting: VecDeque<T>,
    /// Tasks that have asked, and are not done.
    tasks: u32,
    /// Of the period that is known here.
    report: PassReport,
    /// How many probes of this period have given their place up here.
    stalled: u32,
}

impl<T> AtHand<T> {
    /// How long a probe may hold its place before it starts: as long as the breaker is open, and twice as long each time
    /// that one has given up, so that in the end one starts however long it has to wait.
    fn patience(&self) -> Duration {
        self.breaker.open_for.0.saturating_mul(1 << self.stalled.min(16))
    }
}

/// What follows from the word of a breaker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heard<T> {
    /// Tasks that may start.
    pub through: Vec<T>,
    /// Tasks that had a pass from before it opened and have not started: they are to ask again.
    pub recalled: Vec<T>,
}

/// All breakers that the tasks of one shard ask, in memory: tasks that ask again after a restart are new ones.
#[derive(Clone, Debug)]
pub struct Passes<T> {
    breakers: BTreeMap<ActorId, AtHand<T>>,
    /// Its tasks; a pass is one of a period.
    pub asked: Asked<T, Millis>,
    /// Until when probes that have not started keep their places.
    probes: BTreeMap<T, Millis>,
}

impl<T> Default for Passes<T> {
    fn default() -> Passes<T> {
        Passes { breakers: BTreeMap::new(), asked: Asked::default(), probes: BTreeMap::new() }
    }
}

impl<T: Ord + Copy> Passes<T> {
    fn at(&mut self, limit: &ActorId, breaker: &Breaker) -> &mut AtHand<T> {
        let new = || AtHand { breaker: breaker.clone(), word: None, waiting: VecDeque::new(), tasks: 0, report: PassReport::default(), stalled: 0 };
        self.breakers.entry(limit.clone()).or_insert_with(new)
    }

    /// A task needs a pass. One that has asked before and was not done with gives that one back first.
    pub fn ask(&mut self, task: T, limit: ActorId, breaker: Breaker) {
        self.done(task, Ended::GivenUp);
        let at = self.at(&limit, &breaker);
        at.breaker = breaker;
        at.waiting.push_back(task);
        at.tasks += 1;
        at.report.want += 1;
        self.asked.reports.insert(limit.clone());
        self.asked.tasks.insert(task, (limit, Standing::Waits));
    }

    /// What a breaker says, and how many it lets through. What nobody waits for goes back.
    pub fn heard(&mut self, limit: &ActorId, breaker: &Breaker, word: Word, permits: u32, now: Millis) -> Heard<T> {
        let at = self.at(limit, breaker);
        let news = word.since > at.report.period;
        at.word = Some(word);
        if news {
            at.stalled = 0;
            at.report = PassReport { want: at.report.want, unwanted: at.report.unwanted, period: word.since, ..PassReport::default() };
        }
        let some = at.waiting.len().min(permits as usize);
        let through: Vec<T> = at.waiting.drain(..some).collect();
        // Invariant: `some` is at most `permits`.
        let rest = permits - some as u32;
        at.report.unused += rest;
        let until = now.after(at.patience());
        let unneeded = at.tasks == 0 && at.report == PassReport { period: word.since, ..PassReport::default() };
        if rest > 0 {
            self.asked.reports.insert(limit.clone());
        } else if unneeded {
            self.breakers.remove(limit);
        }
        for task in &through {
            if let Some(known) = self.asked.tasks.get_mut(task) {
                known.1 = Standing::MayStart(word.since);
            }
            if word.state == BreakerState::HalfOpen {
                self.probes.insert(*task, until);
            }
        }
        let mut recalled = Vec::new();
        if news && word.state != BreakerState::Closed {
            let old = |standing| matches!(standing, Standing::MayStart(period) if period != word.since);
            recalled.extend(self.asked.tasks.iter().filter(|(_, known)| known.0 == *limit && old(known.1)).map(|(task, _)| *task));
        }
        if news {
            // Those of the period before are no probes any more.
            let old = |task: &T| matches!(self.asked.tasks.get(task), Some((of, Standing::MayStart(period))) if of == limit && *period != word.since);
            self.probes.retain(|task, _| !old(task));
        }
        Heard { through, recalled }
    }

    /// What a breaker that somebody here has asked has said of itself last.
    #[must_use]
    pub fn word(&self, limit: &ActorId) -> Option<Word> {
        self.breakers.get(limit)?.word
    }

    /// When the next probe that has not started has held its place for too long.
    #[must_use]
    pub fn next_stall(&self) -> Option<Millis> {
        self.probes.values().min().copied()
    }

    /// Probes that have held their places for too long: they are to give them back and ask again, so that others find out.
    pub fn stalled(&mut self, now: Millis) -> Vec<T> {
        let due: Vec<T> = self.probes.iter().filter(|(_, until)| **until <= now).map(|(task, _)| *task).collect();
        for task in &due {
            self.probes.remove(task);
            if let Some((limit, _)) = self.asked.tasks.get(task)
                && let Some(at) = self.breakers.get_mut(limit)
            {
                at.stalled = at.stalled.saturating_add(1);
            }
        }
        due
    }

    /// The attempt starts.
    pub fn started(&mut self, task: T) {
        self.probes.remove(&task);
        if let Some(known) = self.asked.tasks.get_mut(&task)
            && let Standing::MayStart(period) = known.1
        {
            known.1 = Standing::Runs(period);
        }
    }

    /// The attempt has ended, or the task needs no pass any more.
    pub fn done(&mut self, task: T, ended: Ended) {
        let Some((limit, standing)) = self.asked.tasks.remove(&task) else { return };
        self.probes.remove(&task);
        let Some(at) = self.breakers.get_mut(&limit) else { return };
        at.tasks -= 1;
        let (period, ended) = match standing {
            // A pass that is on its way comes to whoever waits behind it, or goes back.
            Standing::Waits => {
                at.waiting.retain(|other| *other != task);
                match at.report.want {
                    0 => at.report.unwanted += 1,
                    _ => at.report.want -= 1,
                }
                self.asked.reports.insert(limit);
                return;
            }
            Standing::MayStart(period) => (period, Ended::GivenUp),
            Standing::Runs(period) => (period, ended),
        };
        if period == at.report.period {
            match ended {
                Ended::Failed => at.report.failed += 1,
                Ended::Answered => at.report.answered += 1,
                Ended::GivenUp => at.report.unused += 1,
            }
            self.asked.reports.insert(limit);
        } else if at.tasks == 0 && !self.asked.reports.contains(&limit) {
            // A pass of an earlier period says nothing.
            self.breakers.remove(&limit);
        }
    }

    /// What is to be told to the breakers.
    pub fn take_reports(&mut self) -> Vec<(ActorId, Breaker, PassReport)> {
        let mut all = Vec::with_capacity(self.asked.reports.len());
        for limit in std::mem::take(&mut self.asked.reports) {
            let Some(at) = self.breakers.get_mut(&limit) else { continue };
            let kept = PassReport { period: at.report.period, ..PassReport::default() };
            all.push((limit.clone(), at.breaker.clone(), std::mem::replace(&mut at.report, kept)));
            if at.tasks == 0 {
                self.breakers.remove(&limit);
            }
        }
        all
    }

    /// Whether nothing of any breaker is known or wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.breakers.is_empty() && self.asked.tasks.is_empty()
    }
}
