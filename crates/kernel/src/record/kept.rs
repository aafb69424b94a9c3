//! The bytes that a tenant keeps, counted in the transition that changes them.
//!
//! What counts are payloads, as they were given, whether they lie in a row or in chunks:
//!
//! - of an invocation its input, the values of its journal, its output and its result, from when each is written until
//!   the day on which its retention has passed;
//! - of a run its definition and its input, the items of its stages, what its tasks have given in the round that counts,
//!   the signals kept for it and its result, until it is removed;
//! - values of an actor's state; signals kept for an actor or an invocation; inputs of messages that are not due yet and
//!   of dead letters; stored versions of pipelines.
//!
//! Keys, records, seals, contexts, events, chains and ledgers do not count, and neither does what is only on its way.
//!
//! A tenant's bytes stand in one row of a shard, or, once they leave on a day, in one row of that day, which leaves with
//! them: [`crate::record::key::kept`].

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::Writes;
use super::actor::DeadLetter;
use super::definition::StoredVersion;
use super::invocation::{Invocation, OutputChunk};
use super::key;
use super::kind::Kind;
use super::message::KeptSignal;
use super::run::{Pinned, RunRow, Stored};
use super::shard::Timer;
use crate::id::RawId;
use crate::journal::{Entry, unfold};
use crate::time::Day;
use crate::wire::{self, WireError};

/// Whose bytes, and until when.
pub type Place = (String, Option<Day>);

/// Changes by place: a few, each place once.
pub type Changes = Vec<(Place, i64)>;

impl Writes {
    /// Counts bytes that a tenant keeps from here on, or no more.
    pub fn keep(&mut self, tenant: &str, bytes: i64) {
        self.keep_at(tenant, None, bytes);
    }

    /// Counts bytes that leave on a day by themselves.
    pub fn keep_until(&mut self, tenant: &str, day: Day, bytes: i64) {
        self.keep_at(tenant, Some(day), bytes);
    }

    /// Counts bytes in a place.
    pub fn keep_at(&mut self, tenant: &str, until: Option<Day>, bytes: i64) {
        if bytes == 0 {
            return;
        }
        match self.kept.iter_mut().find(|(place, _)| place.0 == tenant && place.1 == until) {
            Some((_, change)) => *change += bytes,
            None => self.kept.push(((tenant.to_owned(), until), bytes)),
        }
    }
}

/// A length as a change.
#[must_use]
pub fn change(bytes: impl TryInto<i64>) -> i64 {
    bytes.try_into().unwrap_or(i64::MAX)
}

/// The bytes of entries of a journal.
#[must_use]
pub fn of_entries(entries: &[Entry]) -> u64 {
    entries.iter().map(|entry| entry.payload.bytes()).sum()
}

/// The bytes in a row of a signal kept for an actor or an invocation; none in one that only remembers an idempotency key.
///
/// # Errors
/// It does not decode.
pub fn of_signal(row: &[u8], value: &[u8]) -> Result<u64, WireError> {
    if is_memory(row) { Ok(0) } else { KeptSignal::decode(value).map(|kept| kept.payload.bytes()) }
}

/// The bytes in a row that a run has by itself, besides what its header counts: items, and signals kept for it.
///
/// # Errors
/// It does not decode.
pub fn of_run_row(row: &[u8], value: &[u8]) -> Result<u64, WireError> {
    match Kind::of(row) {
        Some(Kind::RunItems) => Ok(value.len() as u64),
        Some(Kind::InvocationSignal) if !is_memory(row) => wire::decode::<Stored>("signal", value).map(|kept| kept.len()),
        _ => Ok(0),
    }
}

/// Whether a row is one of those that [`of_run_row`] counts.
#[must_use]
pub fn has_run_bytes(row: &[u8]) -> bool {
    matches!(Kind::of(row), Some(Kind::RunItems | Kind::InvocationSignal))
}

/// Whether a row of a signal stands under the empty name, which no signal has.
fn is_memory(row: &[u8]) -> bool {
    let name = match Kind::of(row) {
        Some(Kind::InvocationSignal) => row.get(21..),
        // Tenant, type and key stand before it.
        Some(Kind::ActorSignal) => row.get(3..).and_then(|rest| (0..3).try_fold(rest, |rest, _| key::part(rest).map(|(_, rest)| rest))),
        _ => None,
    };
    name.and_then(|name| name.first_chunk::<2>()) == Some(&[0, 0])
}

/// The bytes of what a run was given.
#[must_use]
pub fn of_pinned(pinned: &Pinned) -> u64 {
    pinned.definition.len() as u64 + pinned.input.len()
}

/// Counts all rows of a shard anew: those of a store that was written before they were counted, or was imported.
///
/// Rows come in the order of their keys. Those of one identity stand together, and the last of them may say whose they are.
#[derive(Debug, Default)]
pub struct Recount {
    found: BTreeMap<Place, u64>,
    /// Of the identity at hand.
    hash: [u8; 2],
    owners: HashMap<RawId, Place>,
    owned: HashMap<RawId, u64>,
}

impl Recount {
    /// Counts a row. `leaves` says of an ended invocation, or of a dead letter, on which day it does.
    ///
    /// # Errors
    /// It does not decode.
    pub fn row(&mut self, row: &[u8], value: &Bytes, leaves: &dyn Fn(Leaves<'_>) -> Day) -> Result<(), WireError> {
        let (Some(hash), Some(kind)) = (row.first_chunk::<2>(), Kind::of(row)) else { return Ok(()) };
        if *hash != self.hash {
            self.settle();
            self.hash = *hash;
        }
        let tenant = || key::tenant(row).unwrap_or_default().to_owned();
        let owner = row.get(3..21).and_then(RawId::from_bytes);
        match kind {
            Kind::Invocation => {
                let record = Invocation::decode(value)?;
                let value = record.end.as_ref().and_then(|end| end.value.as_ref()).map_or(0, |value| value.bytes());
                let day = record.end.is_some().then(|| leaves(Leaves::Invocation(&record)));
                let id = record.message.id.0;
                self.owners.insert(id, (record.message.target.tenant.clone(), day));
                self.own(Some(id), record.input.bytes() + value);
            }
            Kind::Journal => self.own(owner, of_entries(&wire::decode::<Vec<Entry>>("journal entries", value)?)),
            Kind::FoldedJournal => {
                for rows in unfold(value) {
                    self.own(owner, of_entries(&wire::decode::<Vec<Entry>>("journal entries", &rows.1)?));
                }
            }
            Kind::Output => self.own(owner, wire::decode::<OutputChunk>("output chunk", value)?.data.len() as u64),
            // Of an invocation, or of a run: a signal of the one never decodes as one of the other.
            Kind::InvocationSignal => match of_signal(row, value) {
                Ok(bytes) => self.own_open(owner, bytes),
                Err(_) => self.own(owner, of_run_row(row, value)?),
            },
            Kind::Run => {
                let run: RunRow = wire::decode("run", value)?;
                if let Some(id) = owner {
                    self.owners.insert(id, (run.header.tenant.clone(), None));
                }
                self.own(owner, run.header.kept());
            }
            Kind::RunDefinition => self.own(owner, of_pinned(&wire::decode("pinned definition", value)?)),
            Kind::RunItems => self.own(owner, of_run_row(row, value)?),
            Kind::State => self.add((tenant(), None), value.len() as u64),
            Kind::ActorSignal => self.add((tenant(), None), of_signal(row, value)?),
            Kind::DeadLetter => {
                let letter: DeadLetter = wire::decode("dead letter", value)?;
                self.add((letter.message.target.tenant.clone(), Some(leaves(Leaves::Letter(&letter)))), letter.input.bytes());
            }
            Kind::Timer => match wire::decode("timer", value)? {
                Timer::Message(message) => self.add((message.target.tenant, None), message.input.len() as u64),
                Timer::LargeMessage { message, len, .. } => self.add((message.target.tenant, None), len),
                _ => {}
            },
            Kind::Definition => self.add((tenant(), None), wire::decode::<StoredVersion>("stored pipeline", value)?.definition.len() as u64),
            _ => {}
        }
        Ok(())
    }

    /// What every tenant keeps, and until when.
    #[must_use]
    pub fn end(mut self) -> BTreeMap<Place, u64> {
        self.settle();
        self.found.retain(|_, bytes| *bytes > 0);
        self.found
    }

    fn add(&mut self, place: Place, bytes: u64) {
        *self.found.entry(place).or_default() += bytes;
    }

    fn own(&mut self, owner: Option<RawId>, bytes: u64) {
        if let Some(owner) = owner {
            *self.owned.entry(owner).or_default() += bytes;
        }
    }

    /// A signal that an invocation did not take: it is removed in steps behind the end, not with the day.
    fn own_open(&mut self, owner: Option<RawId>, bytes: u64) {
        if let Some(tenant) = owner.and_then(|owner| self.owners.get(&owner)).map(|place| place.0.clone()) {
            self.add((tenant, None), bytes);
        }
    }

    /// What stands under an identity, and whose record is gone, is about to be removed.
    fn settle(&mut self) {
        let owners = std::mem::take(&mut self.owners);
        for (owner, bytes) in std::mem::take(&mut self.owned) {
            if let Some(place) = owners.get(&owner) {
                self.add(place.clone(), bytes);
            }
        }
    }
}

/// What leaves on a day.
#[derive(Clone, Copy, Debug)]
pub enum Leaves<'a> {
    /// An invocation that has ended.
    Invocation(&'a Invocation),
    /// A dead letter.
    Letter(&'a DeadLetter),
}
