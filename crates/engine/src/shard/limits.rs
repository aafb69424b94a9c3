//! Limits over all shards: what this shard lends under the names that hash into it, and what tasks of its runs borrow.
//!
//! The lender's row is written with each report that it takes; a borrower has no row. One process owns all shards of an
//! embedded store and holds the lock of its directory, and its programs die with it: when a shard is opened again, every
//! attempt of the process before is over. So nobody waits for a permit of that process to expire. Each opening draws a
//! [`Life`](selvedge_kernel::lend::Life); a lender that meets a row of another life takes all that it lent back at once.
//!
//! A call to an actor and a child run outlive the process. After a restart they go on, and hold a place again only when
//! their task has asked again and was admitted: until then as many more may run as were under way.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use selvedge_kernel::id::{ActorId, InvocationId, RawId, RunId, ShardId};
use selvedge_kernel::lend::{self, Borrower, Ended, Lender, LenderRow, Life, Report, Told};
use selvedge_kernel::pipeline::run::RunInput;
use selvedge_kernel::policy::{Breaker, Throttle};
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::message::Envelope;
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::time::{Day, Millis};
use selvedge_kernel::wire;

use super::breakers::Breakers;
use super::{Effect, Shard, VerbError};

/// Who needs a permit or a pass for an attempt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Asker {
    /// A task of a run: stage and item.
    Task(RunId, u16, u32),
    /// An activity that a handler has called: the number of the operation.
    Operation(InvocationId, u32),
}

/// Reports in one transition: each is an envelope or two.
pub(super) const REPORTS: usize = 16;

/// Limits of a shard.
#[derive(Default)]
pub(crate) struct Limits {
    pub borrower: Borrower<Asker>,
    pub breakers: Breakers,
    /// The number under which a run asked.
    numbers: BTreeMap<Asker, u64>,
    lenders: HashMap<ActorId, Lender>,
    wakes: BTreeSet<(Millis, ActorId)>,
}

impl Limits {
    /// When a lender can go on although nobody reports.
    pub(crate) fn next_due(&self) -> Option<Millis> {
        [self.wakes.first().map(|wake| wake.0), self.breakers.next_due()].into_iter().flatten().min()
    }

    pub(crate) fn has_reports(&self) -> bool {
        self.borrower.asked.has_reports() || self.breakers.passes.asked.has_reports()
    }

    /// An attempt needs a permit. Under `number` a run knows which answer is whose.
    pub(crate) fn ask(&mut self, asker: Asker, number: u64, limit: ActorId, throttle: Throttle) {
        self.numbers.insert(asker, number);
        self.borrower.ask(asker, limit, throttle);
    }

    /// An attempt needs a pass.
    pub(crate) fn ask_breaker(&mut self, asker: Asker, number: u64, limit: ActorId, breaker: Breaker) {
        self.numbers.insert(asker, number);
        self.breakers.passes.ask(asker, limit, breaker);
    }

    /// The number under which somebody asked last.
    fn number(&self, asker: Asker) -> u64 {
        self.numbers.get(&asker).copied().unwrap_or_default()
    }

    /// Whether somebody waits for a permit or a pass, or has one and has not started.
    pub(crate) fn has_asked(&self, asker: Asker) -> bool {
        self.borrower.asked.has_asked(asker) || self.breakers.passes.asked.has_asked(asker)
    }

    /// The attempt starts.
    pub(crate) fn started(&mut self, asker: Asker) {
        self.borrower.started(asker);
        self.breakers.passes.started(asker);
    }

    /// Nobody needs these permits any more.
    pub(crate) fn done(&mut self, asker: Asker) {
        self.ended(asker, Ended::GivenUp);
    }

    /// An attempt has ended: how.
    pub(crate) fn ended(&mut self, asker: Asker, ended: Ended) {
        self.numbers.remove(&asker);
        self.borrower.done(asker);
        self.breakers.passes.done(asker, ended);
    }

    /// Tasks of a run, or of one stage of it, that have a permit or wait for one.
    pub(crate) fn of_run(&self, run: RunId, stage: Option<u16>) -> Vec<Asker> {
        let (first, last) = stage.map_or((0, u16::MAX), |stage| (stage, stage));
        let (first, last) = (Asker::Task(run, first, 0), Asker::Task(run, last, u32::MAX));
        let mut tasks = self.borrower.asked.within(first, last);
        tasks.extend(self.breakers.passes.asked.within(first, last));
        tasks.sort_unstable();
        tasks.dedup();
        tasks
    }
}

impl Limits {
    /// How many tasks of this shard wait for a limit before the first one of a run.
    pub(crate) fn place(&self, run: RunId, tenant: &str, limit: &str) -> Option<u64> {
        let limit = ActorId { tenant: tenant.to_owned(), kind: lend::KIND.to_owned(), key: limit.to_owned() };
        self.borrower.before(&limit, |asker| matches!(asker, Asker::Task(of, ..) if *of == run)).map(|before| before as u64)
    }
}

impl Shard {
    /// Tells lenders what has happened here, and lends what can be lent because time has passed.
    pub(super) async fn turn_limits(&mut self) {
        if let Err(error) = self.lend_and_report().await {
            self.wiring.stop(error.message);
        }
        if let Err(error) = self.turn_breakers().await {
            self.wiring.stop(error.message);
        }
    }

    async fn lend_and_report(&mut self) -> Result<(), VerbError> {
        let now = self.now();
        while let Some((at, limit)) = self.limits.wakes.first().cloned()
            && at <= now
        {
            self.limits.wakes.pop_first();
            let (mut writes, mut effects) = (Writes::default(), Vec::new());
            self.lend(limit, &mut writes, &mut effects).await?;
            self.write(writes, effects);
        }
        let life = self.wiring.life;
        for some in self.limits.borrower.take_reports().chunks(REPORTS) {
            let (mut writes, mut effects) = (Writes::default(), Vec::new());
            for Told { limit, throttle, unwanted, report } in some {
                let (to, from) = (self.wiring.shard_of(limit), self.id);
                if *unwanted > 0 {
                    let envelope = Envelope::Unwant { limit: limit.clone(), from, life, permits: *unwanted };
                    self.send(to, owner(limit), envelope, &mut writes, &mut effects).await?;
                }
                if *report != Report::default() {
                    let envelope = Envelope::Borrow { limit: limit.clone(), from, life, throttle: throttle.clone(), report: *report };
                    self.send(to, owner(limit), envelope, &mut writes, &mut effects).await?;
                }
            }
            self.write(writes, effects);
        }
        Ok(())
    }

    /// The lender of a limit, from memory or from its row, if somebody has something of it or waits.
    async fn lender(&mut self, limit: &ActorId) -> Result<Option<&mut Lender>, VerbError> {
        if !self.limits.lenders.contains_key(limit) {
            let (life, now) = (self.wiring.life, self.now());
            if let Some(bytes) = self.get(row_of(limit)).await? {
                self.limits.lenders.insert(limit.clone(), Lender::load(wire::decode::<LenderRow>("limit", &bytes)?, life, now));
            }
        }
        Ok(self.limits.lenders.get_mut(limit))
    }

    /// Takes what a borrower reports, and gives what is free.
    pub(super) async fn take_report(
        &mut self,
        limit: ActorId,
        (from, life): (ShardId, Life),
        throttle: &Throttle,
        report: Report,
        writes: &mut Writes,
        effects: &mut Vec<Effect>,
    ) -> Result<(), VerbError> {
        if life != self.wiring.life {
            // What lay in an outbox when the process before ended: its attempts are over.
            return Ok(());
        }
        let now = self.now();
        if self.lender(&limit).await?.is_none() {
            self.limits.lenders.insert(limit.clone(), Lender::new(life, throttle.clone()));
        }
        if let Some(lender) = self.limits.lenders.get_mut(&limit) {
            lender.report(from, life, throttle, report, now);
        }
        self.lend(limit, writes, effects).await
    }

    /// Permits that a borrower asked for and needs no more: they stand in nobody's way.
    pub(super) async fn take_unwant(
        &mut self,
        limit: ActorId,
        (from, life): (ShardId, Life),
        permits: u32,
        writes: &mut Writes,
        effects: &mut Vec<Effect>,
    ) -> Result<(), VerbError> {
        let known = self.lender(&limit).await?.is_some_and(|lender| lender.unwant(from, life, permits));
        if known { self.lend(limit, writes, effects).await } else { Ok(()) }
    }

    /// Gives what is free of a limit, and writes its row.
    async fn lend(&mut self, limit: ActorId, writes: &mut Writes, effects: &mut Vec<Effect>) -> Result<(), VerbError> {
        let now = self.now();
        let Some(mut lender) = self.limits.lenders.remove(&limit) else { return Ok(()) };
        if let Some(at) = lender.wake_at() {
            self.limits.wakes.remove(&(at, limit.clone()));
        }
        let given = lender.grant(now);
        if lender.is_idle(now) {
            writes.delete(row_of(&limit));
            return Ok(());
        }
        let row = lender.row();
        let throttle = row.throttle.clone();
        // Without its row, a lender of another life knows nothing of starts: by then all of them have left the window.
        let window = throttle.rate.map_or(Duration::ZERO, |rate| rate.per.0);
        writes.put_until(row_of(&limit), wire::encode(&row), Day::expiry(now, window));
        if let Some(at) = lender.wake_at() {
            self.limits.wakes.insert((at, limit.clone()));
        }
        self.limits.lenders.insert(limit.clone(), lender);
        let life = self.wiring.life;
        for (to, permits) in given {
            let envelope = Envelope::Grant { limit: limit.clone(), life, throttle: throttle.clone(), permits };
            self.send(to, owner(&limit), envelope, writes, effects).await?;
        }
        Ok(())
    }

    /// Permits have come: those who waited longest may start.
    pub(super) fn take_grant(&mut self, limit: &ActorId, life: Life, throttle: &Throttle, permits: u32) {
        if life != self.wiring.life {
            return;
        }
        for asker in self.limits.borrower.granted(limit, throttle, permits) {
            self.let_in(asker);
        }
    }

    /// Somebody has what it asked for last.
    pub(super) fn let_in(&mut self, asker: Asker) {
        match asker {
            Asker::Task(run, stage, item) => {
                let number = self.limits.number(asker);
                self.runs.tell(run, RunInput::Admitted { stage, item, number });
            }
            Asker::Operation(id, number) => self.admit_operation(id, number),
        }
    }
}

fn row_of(limit: &ActorId) -> selvedge_kernel::id::Key {
    key::of_actor(Kind::Limit, limit)
}

/// Whom an envelope would belong to if it were larger than a row may be.
pub(super) fn owner(limit: &ActorId) -> RawId {
    RawId { hash: limit.hash16(), uuid: [0; 16] }
}
