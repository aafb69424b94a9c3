//! Deals an export out to the shards of another store: each row where its identity hashes to.
//!
//! What a shard numbers for itself is numbered anew where it has to be: places in the ledger (with their chain), ready rows,
//! envelopes on their way, and timers where two shards have become one. The rest keeps its numbers and its order.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::api_key::{self, ApiKey};
use super::decision::DecisionRecord;
use super::definition::StoredVersion;
use super::disabled::Disabled;
use super::invocation::{Begun, Invocation};
use super::key;
use super::kind::Kind;
use super::message::{Delayed, Envelope, KeptSignal, OutboxRow, Peer};
use super::portable::{self, Head, Line, Unportable};
use super::schedule;
use super::shard::{LedgerLine, Ready, ShardHead, Timer, ledger_chain};
use super::tally::{Changes, Tally};
use crate::id::{Hash16, Key, RawId, ShardId};
use crate::journal::Hash32;
use crate::limit::INLINE_BYTES;
use crate::time::{Day, Millis};
use crate::wire;

/// A row and its shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dealt {
    /// Whose.
    pub shard: ShardId,
    /// Where.
    pub key: Key,
    /// What.
    pub value: Bytes,
    /// The day on which it may vanish.
    pub until: Option<Day>,
}

fn unreadable(kind: Kind) -> Unportable {
    Unportable::new(format!("a key of the kind {kind:?} does not decode: `selvedge verify` says more"))
}

/// The identity that a row goes with; none for what a shard counts with its neighbours, which does not travel as a row.
///
/// # Errors
/// Key or value do not decode.
pub fn home(kind: Kind, key: &[u8], value: &[u8]) -> Result<Option<Hash16>, Unportable> {
    let front = key.get(..2).and_then(|front| front.try_into().ok()).map(u16::from_be_bytes);
    let of_key = front.map(Hash16).filter(|hash| *hash != Hash16::SHARD_WIDE);
    match kind {
        Kind::ShardHead | Kind::Outbox | Kind::Taken | Kind::Sent | Kind::Tally | Kind::Kept | Kind::Owner => Ok(None),
        Kind::Ready => Ok(Some(match wire::decode("ready row", value)? {
            Ready::Invocation(id) => id.0.hash,
            Ready::Run(id) => id.0.hash,
        })),
        Kind::Timer => Ok(Some(timer_home(&wire::decode("timer", value)?))),
        Kind::Ledger => Ok(Some(wire::decode::<LedgerLine>("ledger line", value)?.id.hash)),
        Kind::Index => {
            let id = key.len().checked_sub(18).and_then(|from| RawId::from_bytes(&key[from..]));
            Ok(Some(id.ok_or_else(|| unreadable(kind))?.hash))
        }
        Kind::Schedule => {
            let record = schedule::decode(value)?;
            Ok(Some(schedule::actor(&record.tenant, &record.pipeline).hash16()))
        }
        Kind::ApiKey => {
            let held: ApiKey = wire::decode("API key", value)?;
            Ok(Some(api_key::home(&held.tenant).hash16()))
        }
        Kind::Disabled => {
            let disabled: Disabled = wire::decode("disabled principal", value)?;
            Ok(Some(api_key::home(&disabled.tenant).hash16()))
        }
        Kind::Decision => Ok(Some(wire::decode::<DecisionRecord>("decision", value)?.id.0.hash)),
        Kind::Definition => {
            let stored: StoredVersion = wire::decode("stored pipeline", value)?;
            let tenant = key.get(3..5).and_then(|len| key.get(5..5 + usize::from(u16::from_be_bytes([len[0], len[1]]))));
            let tenant = tenant.and_then(|tenant| std::str::from_utf8(tenant).ok()).ok_or_else(|| unreadable(kind))?;
            Ok(Some(schedule::actor(tenant, &stored.name).hash16()))
        }
        Kind::Invocation
        | Kind::Inbox
        | Kind::Journal
        | Kind::SealKey
        | Kind::Begun
        | Kind::State
        | Kind::Idempotency
        | Kind::ActorSignal
        | Kind::InvocationSignal
        | Kind::Output
        | Kind::DeadLetter
        | Kind::Chunk
        | Kind::FoldedJournal
        | Kind::Joined
        | Kind::Delayed
        | Kind::Resolved
        | Kind::Fork
        | Kind::Limit
        | Kind::Breaker
        | Kind::Run
        | Kind::RunDefinition
        | Kind::RunItems
        | Kind::RunTask
        | Kind::RunGroup
        | Kind::RunEvent
        | Kind::RunChain
        | Kind::RunAnnex
        | Kind::RunLine
        | Kind::RunPlace => of_key.map(Some).ok_or_else(|| unreadable(kind)),
    }
}

fn timer_home(timer: &Timer) -> Hash16 {
    match timer {
        Timer::Operation { invocation, .. } | Timer::Attempt { invocation } | Timer::Deadline { invocation } | Timer::Leftovers { invocation } => {
            invocation.0.hash
        }
        Timer::Message(message) | Timer::LargeMessage { message, .. } => message.target.hash16(),
        Timer::Chunks { owner } => owner.hash,
        Timer::Run { run, .. } | Timer::Cancels { run, .. } => run.0.hash,
        Timer::Signal { actor, .. } => actor.hash16(),
        Timer::Schedule { tenant, pipeline } => schedule::actor(tenant, pipeline).hash16(),
    }
}

/// Who receives an envelope; none for permits of limits and passes of breakers, which mean nothing to another opening of a store.
#[must_use]
pub fn receiver(envelope: &Envelope) -> Option<Hash16> {
    match envelope {
        Envelope::Invoke(message) | Envelope::Later { message, .. } => Some(message.target.hash16()),
        Envelope::Reply { to: Peer::Operation { invocation, .. }, .. } | Envelope::Cancel { invocation, .. } => Some(invocation.0.hash),
        Envelope::Reply { to: Peer::Task { run, .. }, .. }
        | Envelope::StartRun { run, .. }
        | Envelope::StartChild { run, .. }
        | Envelope::StartChildUntil { run, .. }
        | Envelope::Line { run, .. }
        | Envelope::CancelRun { run, .. } => Some(run.0.hash),
        Envelope::Traced { start, .. } => Some(start.run.0.hash),
        Envelope::EnterLine(place) | Envelope::EnterLineBelow { entering: place, .. } | Envelope::LeaveLine(place) => Some(place.line.hash16()),
        Envelope::Borrow { .. } | Envelope::Unwant { .. } | Envelope::Grant { .. } | Envelope::AskBreaker { .. } | Envelope::Pass { .. } => None,
    }
}

/// The state of an import: one line goes in, the rows that it becomes come out.
#[derive(Debug)]
pub struct Dealer {
    shards: u16,
    heads: Vec<ShardHead>,
    tallies: Vec<Changes>,
    envelopes: Vec<u64>,
    fresh: u64,
    /// The timers of one due time and number, by shard.
    timer: Option<(Millis, u64)>,
    held: Vec<ShardId>,
    /// Rows that name a timer which has another number now.
    moved: BTreeMap<Key, (u64, (Millis, u64))>,
}

impl Dealer {
    /// For so many shards.
    #[must_use]
    pub fn new(head: &Head, shards: u16) -> Dealer {
        let empty = ShardHead { time: head.time, ready_from: head.next, clean: head.clean, ..ShardHead::default() };
        Dealer {
            shards,
            heads: vec![empty; usize::from(shards)],
            tallies: vec![Changes::new(); usize::from(shards)],
            envelopes: vec![0; usize::from(shards)],
            fresh: head.next,
            timer: None,
            held: Vec::new(),
            moved: BTreeMap::new(),
        }
    }

    fn fresh(&mut self) -> u64 {
        self.fresh += 1;
        self.fresh - 1
    }

    fn shard(&self, hash: Hash16) -> ShardId {
        hash.shard(self.shards)
    }

    /// Deals a line out. Timers come before the rows that name them.
    ///
    /// # Errors
    /// Something in it does not decode.
    pub fn deal(&mut self, line: Line) -> Result<Vec<Dealt>, Unportable> {
        match line {
            Line::Head(_) | Line::End(_) => Ok(Vec::new()),
            Line::Timer(timer) => self.timer(timer).map(|dealt| vec![dealt]),
            Line::Ready(ready) => {
                let hash = home(Kind::Ready, &[], &ready.value)?.ok_or_else(|| unreadable(Kind::Ready))?;
                let key = key::ready(self.fresh());
                Ok(vec![Dealt { shard: self.shard(hash), key, value: ready.value, until: None }])
            }
            Line::Envelope(envelope) => self.envelope(&envelope),
            Line::Ledger(ledger) => self.ledger(&ledger).map(|dealt| vec![dealt]),
            Line::Row(row) => self.row(row).map(|dealt| vec![dealt]),
        }
    }

    fn timer(&mut self, line: portable::Timer) -> Result<Dealt, Unportable> {
        let timer: Timer = wire::decode("timer", &line.value)?;
        let shard = self.shard(timer_home(&timer));
        if let Timer::Message(message) | Timer::LargeMessage { message, .. } = &timer {
            self.tallies[usize::from(shard.0)].entry(message.target.tenant.clone()).or_default().delayed += 1;
        }
        let at = (line.due, line.number);
        if self.timer != Some(at) {
            self.timer = Some(at);
            self.held.clear();
        }
        let mut number = line.number;
        if self.held.contains(&shard) {
            number = self.fresh();
            if let Some(row) = named_by(&timer)? {
                self.moved.insert(row, (number, at));
            }
        } else {
            self.held.push(shard);
        }
        Ok(Dealt { shard, key: key::timer(line.due, number), value: line.value, until: None })
    }

    /// An envelope goes into the outbox of its own receiver, who takes it before anything of others.
    fn envelope(&mut self, line: &portable::Envelope) -> Result<Vec<Dealt>, Unportable> {
        let envelope: Envelope = wire::decode("envelope", &line.value)?;
        let Some(hash) = receiver(&envelope) else { return Ok(Vec::new()) };
        let owner = RawId::from_bytes(&line.owner).ok_or_else(|| Unportable::new("the owner of an envelope does not decode"))?;
        let shard = self.shard(hash);
        let n = &mut self.envelopes[usize::from(shard.0)];
        *n += 1;
        let key = key::outbox(shard, *n);
        let row = |key, value| Dealt { shard, key, value, until: None };
        if line.value.len() <= INLINE_BYTES {
            return Ok(vec![row(key, wire::encode(&OutboxRow::Whole(envelope)))]);
        }
        let seal = Hash32(*blake3::hash(&line.value).as_bytes());
        let mut dealt = vec![row(key, wire::encode(&OutboxRow::Chunked { owner, seal, len: line.value.len() as u64 }))];
        dealt.extend(crate::transition::chunks(owner, seal, &line.value).into_iter().map(|(key, piece)| row(key, piece)));
        Ok(dealt)
    }

    fn ledger(&mut self, ledger: &portable::Ledger) -> Result<Dealt, Unportable> {
        let mut line: LedgerLine = wire::decode("ledger line", &ledger.value)?;
        let shard = self.shard(line.id.hash);
        let head = &mut self.heads[usize::from(shard.0)];
        line.before = head.ledger_at;
        line.chain = ledger_chain(head.ledger, &line);
        let n = head.ledger_lines;
        (head.ledger, head.ledger_lines, head.ledger_at) = (line.chain, n + 1, line.at);
        Ok(Dealt { shard, key: key::ledger(n), value: wire::encode(&line), until: ledger.until })
    }

    fn row(&mut self, row: portable::Row) -> Result<Dealt, Unportable> {
        if Kind::of(&row.key) != Some(row.kind) {
            return Err(unreadable(row.kind));
        }
        let hash = home(row.kind, &row.key, &row.value)?.ok_or_else(|| unreadable(row.kind))?;
        if row.kind == Kind::Inbox {
            let tenant = key::tenant(&row.key).ok_or_else(|| unreadable(row.kind))?;
            let shard = usize::from(self.shard(hash).0);
            self.tallies[shard].entry(tenant.to_owned()).or_default().open += 1;
        }
        let value = match self.moved.get(&row.key) {
            Some((number, from)) => renamed(row.kind, &row.value, *from, (from.0, *number))?,
            None => row.value,
        };
        Ok(Dealt { shard: self.shard(hash), key: row.key, value, until: row.until })
    }

    /// The heads of the shards, and what tenants have open in each, once all lines are dealt out.
    #[must_use]
    pub fn heads(self) -> Vec<Dealt> {
        let next = self.fresh;
        let head = |(n, head): (usize, ShardHead)| Dealt {
            shard: ShardId(n as u16),
            key: key::shard_head(),
            value: wire::encode(&ShardHead { next, ..head }),
            until: None,
        };
        let tally = |shard: usize, tenant: &str, change| Dealt {
            shard: ShardId(shard as u16),
            key: key::tally(tenant),
            value: wire::encode(&Tally::default().after(change)),
            until: None,
        };
        let counted = self.tallies.iter().enumerate();
        let tallies = counted.flat_map(|(shard, changes)| changes.iter().map(move |(tenant, change)| tally(shard, tenant, *change)));
        tallies.chain(self.heads.into_iter().enumerate().map(head)).collect()
    }
}

/// The row that names a timer by its number.
fn named_by(timer: &Timer) -> Result<Option<Key>, Unportable> {
    Ok(match timer {
        Timer::Operation { invocation, number } => Some(key::begun(*invocation, *number)),
        Timer::Deadline { invocation } => Some(key::invocation(*invocation)),
        Timer::Message(message) | Timer::LargeMessage { message, .. } => Some(key::delayed(message.id)),
        Timer::Signal { actor, name, n } => Some(key::actor_signal(actor, name, *n)),
        Timer::Schedule { tenant, pipeline } => Some(schedule::schedule_key(tenant, pipeline)),
        Timer::Attempt { .. } | Timer::Leftovers { .. } | Timer::Chunks { .. } | Timer::Cancels { .. } => None,
        // Its number follows from its run: 63 bits of a hash have met twice.
        Timer::Run { .. } => return Err(Unportable::new("two runs have timers of one number: export again in a moment, when one of them has fired")),
    })
}

/// A row that names a timer under its new number.
fn renamed(kind: Kind, value: &Bytes, from: (Millis, u64), to: (Millis, u64)) -> Result<Bytes, Unportable> {
    let change = |timer: &mut Option<(Millis, u64)>| {
        if *timer == Some(from) {
            *timer = Some(to);
        }
    };
    Ok(match kind {
        Kind::Begun => {
            let mut row: Begun = wire::decode("begun operation", value)?;
            change(&mut row.timer);
            wire::encode(&row)
        }
        Kind::Invocation => {
            let mut row = Invocation::decode(value)?;
            change(&mut row.deadline_timer);
            row.encode()
        }
        Kind::Delayed => {
            let mut row: Delayed = wire::decode("delayed message", value)?;
            if row.timer == from {
                row.timer = to;
            }
            wire::encode(&row)
        }
        Kind::ActorSignal => {
            let mut row = KeptSignal::decode(value)?;
            change(&mut row.timer);
            wire::encode(&row)
        }
        Kind::Schedule => {
            let mut row = schedule::decode(value)?;
            change(&mut row.timer);
            change(&mut row.buffer_timer);
            schedule::encode(&row)
        }
        other => return Err(unreadable(other)),
    })
}

#[cfg(test)]
mod tests;
