//! Breakers over all shards: those of this shard, and what its tasks ask of others. The protocol is that of limits, see
//! `limits.rs`; what a breaker knows of failures is its row.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use selvedge_kernel::id::{ActorId, ShardId};
use selvedge_kernel::lend::{Borrower, Guard, GuardRow, Life, Outcomes, Report};
use selvedge_kernel::pipeline::run::RunInput;
use selvedge_kernel::policy::Breaker;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::message::Envelope;
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::time::{Day, Millis};
use selvedge_kernel::wire;

use super::limits::{REPORTS, Task, owner};
use super::{Effect, Shard, VerbError};

/// Breakers of a shard.
#[derive(Default)]
pub(crate) struct Breakers {
    pub borrower: Borrower<Task, Breaker>,
    guards: HashMap<ActorId, Guard>,
    wakes: BTreeSet<(Millis, ActorId)>,
    /// Until when those are open that tasks of this shard wait for.
    open: BTreeMap<ActorId, Millis>,
}

impl Breakers {
    pub(super) fn next_due(&self) -> Option<Millis> {
        self.wakes.first().map(|wake| wake.0)
    }

    /// Until when a breaker is open, as far as it has told.
    pub(crate) fn open_until(&self, limit: &ActorId) -> Option<Millis> {
        self.open.get(limit).copied()
    }
}

impl Shard {
    /// Tells breakers what has happened here, and lets through whose time has come.
    pub(super) async fn turn_breakers(&mut self) -> Result<(), VerbError> {
        let now = self.now();
        while let Some((at, limit)) = self.limits.breakers.wakes.first().cloned()
            && at <= now
        {
            self.limits.breakers.wakes.pop_first();
            let (mut writes, mut effects) = (Writes::default(), Vec::new());
            self.let_through(limit, &mut writes, &mut effects).await?;
            self.write(writes, effects);
        }
        let life = self.wiring.life;
        for some in self.limits.breakers.borrower.take_reports().chunks(REPORTS) {
            let (mut writes, mut effects) = (Writes::default(), Vec::new());
            for (limit, breaker, report, outcomes) in some {
                let (to, breaker) = (self.wiring.shard_of(limit), breaker.clone());
                let envelope = Envelope::AskBreaker { limit: limit.clone(), from: self.id, life, breaker, report: *report, outcomes: *outcomes };
                self.send(to, owner(limit), envelope, &mut writes, &mut effects).await?;
            }
            self.write(writes, effects);
        }
        Ok(())
    }

    /// Takes what a borrower reports, and lets through what may go.
    pub(super) async fn take_breaker_report(
        &mut self,
        limit: ActorId,
        (from, life): (ShardId, Life),
        breaker: &Breaker,
        (report, outcomes): (Report, Outcomes),
        writes: &mut Writes,
        effects: &mut Vec<Effect>,
    ) -> Result<(), VerbError> {
        if !self.limits.breakers.guards.contains_key(&limit) {
            let guard = match self.get(row_of(&limit)).await? {
                Some(bytes) => Guard::load(wire::decode::<GuardRow>("breaker", &bytes)?, self.wiring.life),
                None => Guard::new(self.wiring.life, breaker.clone()),
            };
            self.limits.breakers.guards.insert(limit.clone(), guard);
        }
        let now = self.now();
        if let Some(guard) = self.limits.breakers.guards.get_mut(&limit) {
            guard.report(from, life, breaker, report, outcomes, now);
        }
        self.let_through(limit, writes, effects).await
    }

    /// Gives what a breaker gives now, says to who waits until when it is open, and writes its row.
    async fn let_through(&mut self, limit: ActorId, writes: &mut Writes, effects: &mut Vec<Effect>) -> Result<(), VerbError> {
        let now = self.now();
        let Some(mut guard) = self.limits.breakers.guards.remove(&limit) else { return Ok(()) };
        self.limits.breakers.wakes.retain(|(_, other)| *other != limit);
        let mut given = guard.grant(now);
        if guard.is_idle(now) && given.is_empty() {
            writes.delete(row_of(&limit));
            return Ok(());
        }
        let open_until = guard.open_until();
        if open_until.is_some() {
            guard.waiting().take(REPORTS).for_each(|shard| drop(given.entry(shard).or_default()));
        }
        writes.put_until(row_of(&limit), wire::encode(&guard.row()), Day::expiry(now, guard.memory()));
        if let Some(at) = guard.wake_at() {
            self.limits.breakers.wakes.insert((at, limit.clone()));
        } else if guard.has_more() {
            self.limits.breakers.wakes.insert((now, limit.clone()));
        }
        let (life, breaker) = (self.wiring.life, guard.row().into_policy());
        self.limits.breakers.guards.insert(limit.clone(), guard);
        for (to, permits) in given {
            let envelope = Envelope::Pass { limit: limit.clone(), life, breaker: breaker.clone(), permits, open_until };
            self.send(to, owner(&limit), envelope, writes, effects).await?;
        }
        Ok(())
    }

    /// A breaker lets through, or says that it is open.
    pub(super) fn take_pass(&mut self, limit: &ActorId, life: Life, breaker: &Breaker, permits: u32, open_until: Option<Millis>) {
        if life != self.wiring.life {
            return;
        }
        match open_until {
            Some(until) => self.limits.breakers.open.insert(limit.clone(), until),
            None => self.limits.breakers.open.remove(limit),
        };
        for (run, stage, item) in self.limits.breakers.borrower.granted(limit, breaker, permits) {
            let number = self.limits.number((run, stage, item));
            self.runs.tell(run, RunInput::Admitted { stage, item, number });
        }
    }
}

fn row_of(limit: &ActorId) -> selvedge_kernel::id::Key {
    key::of_actor(Kind::Breaker, limit)
}
