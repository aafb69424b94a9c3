//! Breakers over all shards: those of this shard, and what its tasks ask of others. The protocol is that of limits, see
//! `limits.rs`; what a breaker is, and its failures, stand in its row, written before a pass leaves.

use std::collections::{BTreeSet, HashMap};

use selvedge_kernel::id::{ActorId, ShardId};
use selvedge_kernel::lend::{Guard, GuardRow, Life, PassReport, Passes, Word};
use selvedge_kernel::pipeline::run::RunInput;
use selvedge_kernel::policy::Breaker;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::message::Envelope;
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::time::{Day, Millis};
use selvedge_kernel::wire;

use super::limits::{Asker, REPORTS, owner};
use super::{Effect, Shard, VerbError};

/// Breakers of a shard.
#[derive(Default)]
pub(crate) struct Breakers {
    pub passes: Passes<Asker>,
    guards: HashMap<ActorId, Guard>,
    wakes: BTreeSet<(Millis, ActorId)>,
}

impl Breakers {
    pub(super) fn next_due(&self) -> Option<Millis> {
        [self.wakes.first().map(|wake| wake.0), self.passes.next_stall()].into_iter().flatten().min()
    }
}

impl Shard {
    /// Tells breakers what has happened here, and lets through whose time has come.
    pub(super) async fn turn_breakers(&mut self) -> Result<(), VerbError> {
        let now = self.now();
        for asker in self.limits.breakers.passes.stalled(now) {
            self.recall(asker);
        }
        while let Some((at, limit)) = self.limits.breakers.wakes.first().cloned()
            && at <= now
        {
            self.limits.breakers.wakes.pop_first();
            let (mut writes, mut effects) = (Writes::default(), Vec::new());
            self.let_through(limit, &mut writes, &mut effects).await?;
            self.write(writes, effects);
        }
        let life = self.wiring.life;
        for some in self.limits.breakers.passes.take_reports().chunks(REPORTS) {
            let (mut writes, mut effects) = (Writes::default(), Vec::new());
            for (limit, breaker, report) in some {
                let (to, breaker) = (self.wiring.shard_of(limit), breaker.clone());
                let envelope = Envelope::AskBreaker { limit: limit.clone(), from: self.id, life, breaker, report: *report };
                self.send(to, owner(limit), envelope, &mut writes, &mut effects).await?;
            }
            self.write(writes, effects);
        }
        Ok(())
    }

    /// Takes what a shard reports, and lets through what may go.
    pub(super) async fn take_breaker_report(
        &mut self,
        limit: ActorId,
        (from, life): (ShardId, Life),
        breaker: &Breaker,
        report: PassReport,
        writes: &mut Writes,
        effects: &mut Vec<Effect>,
    ) -> Result<(), VerbError> {
        if life != self.wiring.life {
            // What lay in an outbox when the process before ended: its attempts are over.
            return Ok(());
        }
        let now = self.now();
        if !self.limits.breakers.guards.contains_key(&limit) {
            let guard = match self.get(row_of(&limit)).await? {
                Some(bytes) => Guard::load(wire::decode::<GuardRow>("breaker", &bytes)?, life),
                None => Guard::new(life, breaker.clone(), now),
            };
            self.limits.breakers.guards.insert(limit.clone(), guard);
        }
        if let Some(guard) = self.limits.breakers.guards.get_mut(&limit) {
            guard.report(from, life, breaker, report, now);
        }
        self.let_through(limit, writes, effects).await
    }

    /// Gives what a breaker gives now, says what it is to whoever is to hear it, and writes its row.
    async fn let_through(&mut self, limit: ActorId, writes: &mut Writes, effects: &mut Vec<Effect>) -> Result<(), VerbError> {
        let now = self.now();
        let Some(mut guard) = self.limits.breakers.guards.remove(&limit) else { return Ok(()) };
        self.limits.breakers.wakes.retain(|(_, other)| *other != limit);
        let given = guard.grant(now);
        let (life, word, breaker) = (self.wiring.life, guard.word(), guard.policy().clone());
        if guard.is_idle(now) {
            writes.delete(row_of(&limit));
        } else {
            writes.put_until(row_of(&limit), wire::encode(&guard.row()), Day::expiry(now, guard.memory()));
            if let Some(at) = guard.wake_at(now) {
                self.limits.breakers.wakes.insert((at, limit.clone()));
            }
            self.limits.breakers.guards.insert(limit.clone(), guard);
        }
        for (to, permits) in given {
            let envelope = Envelope::Pass { limit: limit.clone(), life, breaker: breaker.clone(), word, permits };
            self.send(to, owner(&limit), envelope, writes, effects).await?;
        }
        Ok(())
    }

    /// A breaker says what it is, and lets through. What it let through before it opened, and has not started, asks again.
    pub(super) fn take_pass(&mut self, limit: &ActorId, life: Life, breaker: &Breaker, word: Word, permits: u32) {
        if life != self.wiring.life {
            return;
        }
        let now = self.now();
        let heard = self.limits.breakers.passes.heard(limit, breaker, word, permits, now);
        for asker in heard.recalled {
            self.recall(asker);
        }
        for asker in heard.through {
            self.let_in(asker);
        }
    }

    /// Whoever was let through and has not started asks again.
    fn recall(&mut self, asker: Asker) {
        match asker {
            Asker::Task(run, stage, item) => self.runs.tell(run, RunInput::Recalled { stage, item }),
            Asker::Operation(id, number) => self.recall_operation(id, number),
        }
    }
}

fn row_of(limit: &ActorId) -> selvedge_kernel::id::Key {
    key::of_actor(Kind::Breaker, limit)
}
