//! A breaker: after so many failures in a window nobody tries for a while, then a few find out.
//!
//! An attempt needs a pass. Closed, the breaker gives one to whoever asks; open, to nobody until its time is over; half
//! open, to so many at once as `probes` says, and the first of them that succeeds closes it, the first that fails opens it
//! again. A pass belongs to the period in which it was given: from one change of the breaker to the next. The end of an
//! attempt counts in the period of its pass and in no other, so that what was under way when the breaker opened neither
//! decides nor delays what comes afterwards.
//!
//! What the breaker is survives the process, with its failures and its times; who has passes and who waits does not, as
//! with limits, see [`super`].

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Life;
use crate::id::ShardId;
use crate::machine::{BREAKER, BreakerEvent, BreakerState};
use crate::policy::Breaker;
use crate::time::Millis;

/// What has happened at a shard since its last report of one breaker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PassReport {
    /// Passes that it needs beside those that it asked for before.
    pub want: u32,
    /// To which period the passes belong that are back: when it began.
    pub period: Millis,
    /// Attempts that failed.
    pub failed: u32,
    /// Attempts with a result, or an error that is an answer.
    pub answered: u32,
    /// Passes that are back without an attempt that ended by itself.
    pub unused: u32,
    /// Passes that it asked for before and needs no more.
    pub unwanted: u32,
}

impl PassReport {
    fn back(&self) -> u32 {
        self.failed.saturating_add(self.answered).saturating_add(self.unused)
    }
}

/// What a breaker says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Word {
    /// What it lets through.
    pub state: BreakerState,
    /// Since when. No two periods of a breaker begin at the same time.
    pub since: Millis,
    /// Until when nobody gets a pass; of an open one.
    pub until: Option<Millis>,
}

/// A breaker as its row keeps it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GuardRow {
    life: Life,
    breaker: Breaker,
    word: Word,
    failures: Vec<Millis>,
    lent: Vec<(ShardId, u32)>,
    queue: Vec<(ShardId, u32)>,
}

/// One breaker.
#[derive(Clone, Debug)]
pub struct Guard {
    life: Life,
    breaker: Breaker,
    word: Word,
    /// The last failures in the window, at most as many as open it.
    failures: VecDeque<Millis>,
    /// Passes of this period.
    lent: BTreeMap<ShardId, u32>,
    queue: VecDeque<(ShardId, u32)>,
    /// Who waits, or has a pass of an earlier period, and has not heard of this one.
    untold: BTreeSet<ShardId>,
    /// Whether the last step left something that could be given.
    more: bool,
}

/// So many shards hear of a breaker in one step: each is an envelope of one commit.
const GRANTS: usize = 16;

impl Guard {
    /// A closed one.
    #[must_use]
    pub fn new(life: Life, breaker: Breaker, now: Millis) -> Guard {
        let word = Word { state: BREAKER.start, since: now, until: None };
        Guard { life, breaker, word, failures: VecDeque::new(), lent: BTreeMap::new(), queue: VecDeque::new(), untold: BTreeSet::new(), more: false }
    }

    /// From its row. In another life nobody has a pass, and nobody waits: the tasks ask again.
    #[must_use]
    pub fn load(row: GuardRow, life: Life) -> Guard {
        let mut guard = Guard { word: row.word, failures: row.failures.into(), ..Guard::new(life, row.breaker, row.word.since) };
        if row.life == life {
            guard.lent = row.lent.into_iter().collect();
            guard.queue = row.queue.into();
            guard.untold = guard.lent.keys().copied().chain(guard.queue.iter().map(|waiting| waiting.0)).collect();
        }
        guard
    }

    /// What its row holds.
    #[must_use]
    pub fn row(&self) -> GuardRow {
        GuardRow {
            life: self.life,
            breaker: self.breaker.clone(),
            word: self.word,
            failures: self.failures.iter().copied().collect(),
            lent: self.lent.iter().map(|(shard, out)| (*shard, *out)).collect(),
            queue: self.queue.iter().copied().collect(),
        }
    }

    /// What it is.
    #[must_use]
    pub fn word(&self) -> Word {
        self.word
    }

    /// When it opens, as the last borrower said.
    #[must_use]
    pub fn policy(&self) -> &Breaker {
        &self.breaker
    }

    /// How long its row says something that nobody else knows.
    #[must_use]
    pub fn memory(&self) -> std::time::Duration {
        self.breaker.window.0.max(self.breaker.open_for.0)
    }

    /// Whether it can be forgotten: closed, without failures in its window, and nobody has or wants a pass.
    pub fn is_idle(&mut self, now: Millis) -> bool {
        self.forget(now);
        self.word.state == BreakerState::Closed && self.failures.is_empty() && self.lent.is_empty() && self.queue.is_empty() && self.untold.is_empty()
    }

    /// When it can go on although nobody reports: its time is over and somebody waits, there was too much for one step, or
    /// nobody needs it and its row can go with its last failure.
    #[must_use]
    pub fn wake_at(&self, now: Millis) -> Option<Millis> {
        if self.more {
            return Some(now);
        }
        match self.word.state {
            BreakerState::Open => self.word.until.filter(|_| !self.queue.is_empty()),
            BreakerState::Closed if self.lent.is_empty() => self.failures.back().map(|last| last.after(self.breaker.window.0)),
            BreakerState::Closed | BreakerState::HalfOpen => None,
        }
    }

    /// Another period begins: passes of the one before say nothing in it, and whoever has one or waits is to hear of it.
    fn turn(&mut self, event: BreakerEvent, now: Millis) {
        let Ok(state) = BREAKER.next(self.word.state, event) else { return };
        let since = now.max(Millis(self.word.since.0.saturating_add(1)));
        self.word = Word { state, since, until: (state == BreakerState::Open).then(|| since.after(self.breaker.open_for.0)) };
        self.failures.clear();
        self.untold.extend(std::mem::take(&mut self.lent).into_keys());
        self.untold.extend(self.queue.iter().map(|waiting| waiting.0));
    }

    fn forget(&mut self, now: Millis) {
        let window = self.breaker.window.0;
        while self.failures.front().is_some_and(|at| at.after(window) <= now) {
            self.failures.pop_front();
        }
    }

    /// Takes a report; false if it comes from another life and changes nothing.
    pub fn report(&mut self, from: ShardId, life: Life, breaker: &Breaker, report: PassReport, now: Millis) -> bool {
        if life != self.life {
            return false;
        }
        self.breaker = breaker.clone();
        self.forget_wants(from, report.unwanted);
        if report.want > 0 {
            match self.queue.iter_mut().find(|waiting| waiting.0 == from) {
                Some(waiting) => waiting.1 = waiting.1.saturating_add(report.want),
                None => self.queue.push_back((from, report.want)),
            }
            if self.word.state != BreakerState::Closed {
                self.untold.insert(from);
            }
        }
        if report.back() > 0 && report.period == self.word.since {
            self.take_back(from, report, now);
        }
        true
    }

    /// Those that were given already are on their way, and come back unused.
    fn forget_wants(&mut self, from: ShardId, unwanted: u32) {
        if unwanted > 0
            && let Some(place) = self.queue.iter().position(|waiting| waiting.0 == from)
        {
            self.queue[place].1 = self.queue[place].1.saturating_sub(unwanted);
            if self.queue[place].1 == 0 {
                self.queue.remove(place);
            }
        }
    }

    fn take_back(&mut self, from: ShardId, report: PassReport, now: Millis) {
        let out = self.lent.entry(from).or_default();
        *out = out.saturating_sub(report.back());
        if *out == 0 {
            self.lent.remove(&from);
        }
        match self.word.state {
            BreakerState::Closed => {
                self.forget(now);
                let most = self.breaker.failures.max(1) as usize;
                self.failures.extend(std::iter::repeat_n(now, most.min(report.failed as usize)));
                if self.failures.len() >= most {
                    self.turn(BreakerEvent::Trip, now);
                }
            }
            BreakerState::HalfOpen if report.failed > 0 => self.turn(BreakerEvent::Trip, now),
            BreakerState::HalfOpen if report.answered > 0 => self.turn(BreakerEvent::Close, now),
            // An open one has given no passes.
            BreakerState::HalfOpen | BreakerState::Open => {}
        }
    }

    fn free(&self) -> u32 {
        match self.word.state {
            BreakerState::Closed => u32::MAX,
            BreakerState::Open => 0,
            BreakerState::HalfOpen => self.breaker.probes.max(1).saturating_sub(self.lent.values().copied().fold(0, u32::saturating_add)),
        }
    }

    /// Gives what can be given now, to whoever waits longest; and names those who get nothing and have yet to hear what it
    /// is. All of them are to be told its [`Word`].
    pub fn grant(&mut self, now: Millis) -> BTreeMap<ShardId, u32> {
        let mut given: BTreeMap<ShardId, u32> = BTreeMap::new();
        if self.word.until.is_some_and(|until| until <= now) && !self.queue.is_empty() {
            self.turn(BreakerEvent::Elapse, now);
        }
        self.more = false;
        while let Some((to, want)) = self.queue.front().copied() {
            let most = self.free().min(want);
            if most == 0 {
                break;
            }
            if given.len() >= GRANTS && !given.contains_key(&to) {
                self.more = true;
                break;
            }
            self.queue.pop_front();
            if want > most {
                self.queue.push_back((to, want - most));
            }
            let out = self.lent.entry(to).or_default();
            *out = out.saturating_add(most);
            *given.entry(to).or_default() += most;
        }
        self.untold.retain(|shard| !given.contains_key(shard));
        while given.len() < GRANTS
            && let Some(shard) = self.untold.pop_first()
        {
            given.insert(shard, 0);
        }
        self.more |= !self.untold.is_empty();
        given
    }
}

#[cfg(test)]
mod tests;
