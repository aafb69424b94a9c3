//! Erasure: the payloads of an ended invocation go, with the key of their seals. Its chain still verifies, and nothing
//! that is left can be guessed back.

use bytes::Bytes;

use selvedge_kernel::error::Consequence;
use selvedge_kernel::id::{InvocationId, Key};
use selvedge_kernel::journal::{Entry, Payload, unfold};
use selvedge_kernel::record::invocation::{Idempotent, OutputChunk};
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::{Writes, kept, key};
use selvedge_kernel::time::Day;
use selvedge_kernel::wire;

use super::{Command, Effect, Reply, Shard, VerbError};
use crate::in_flight::InFlight;
use crate::worker::Event;

/// Operations of one step of an erasure.
const STEP: usize = 60;

impl Shard {
    /// Erases an invocation. While its end is on its way to the disk, its journal is neither where it was nor where it
    /// will be: the erasure comes again behind it.
    pub(super) async fn erase_when_durable(&mut self, id: InvocationId, reply: Reply<()>) {
        if self.overlay.get(&key::invocation(id)).is_none() {
            let result = self.erase(id).await;
            return self.answer(reply, result);
        }
        let (wiring, shard) = (self.wiring.clone(), self.id);
        self.after_all(Effect::Answer(Box::new(move || {
            let held = InFlight::again(&wiring);
            wiring.send(shard, Event::Command(shard, Command::Erase { id, reply }, held));
        })));
    }

    /// Erases what an ended invocation was given, did and said. Done again, it goes on where it stopped.
    pub(super) async fn erase(&mut self, id: InvocationId) -> Result<(), VerbError> {
        let Some(mut record) = self.record(id).await? else {
            return Err(VerbError::new(
                Consequence::NotFound,
                "unknown_invocation",
                format!("there is no invocation {id}: it may have been removed after its retention time"),
            ));
        };
        let Some(end) = record.end.clone().filter(|_| record.status.ended()) else {
            return Err(VerbError::new(
                Consequence::Conflict,
                "open",
                format!("{id} has not ended: its replay needs its payloads; cancel or kill it first, then erase it"),
            ));
        };
        let expires = Day::expiry(end.at, self.keep_of(&record).finished);
        let tenant = record.message.target.tenant.clone();
        for kind in [Kind::Journal, Kind::FoldedJournal] {
            for (row, value) in self.scan_all(&key::of_id(kind, id.0)).await? {
                let bytes =
                    if kind == Kind::Journal { bytes_of(&value)? } else { unfold(&value).iter().map(|row| bytes_of(&row.1)).sum::<Result<u64, _>>()? };
                let erased = if kind == Kind::Journal { without_payloads(&value)? } else { fold_without_payloads(&value)? };
                let mut writes = Writes::default();
                writes.keep_until(&tenant, expires, -kept::change(bytes));
                writes.put_until(row, erased, expires);
                self.write(writes, Vec::new());
            }
        }
        for kind in [Kind::Chunk, Kind::Output, Kind::InvocationSignal, Kind::DeadLetter] {
            let rows = self.scan_all(&key::of_id(kind, id.0)).await?;
            self.delete_in_steps(&tenant, expires, rows)?;
        }
        let left = record.input.bytes() + end.value.as_ref().map_or(0, Payload::bytes);
        record.input = Payload::Erased;
        record.last_error = None;
        if let Some(end) = &mut record.end {
            end.value = end.value.as_ref().map(|_| Payload::Erased);
            if let Some(error) = &mut end.error {
                error.message = "erased on request".to_owned();
            }
        }
        let mut writes = Writes::default();
        if let Some(idempotency) = &record.message.idempotency_key {
            let row = key::idempotency(&record.message.target, &record.message.handler, idempotency);
            let known: Option<Idempotent> = match self.get(row.clone()).await? {
                Some(value) => Some(wire::decode("idempotency row", &value)?),
                None => None,
            };
            if known.is_some_and(|known| known.invocation == id) {
                // The key stays taken: what was erased does not happen again. What it was sent with can be guessed no more.
                let until = Day::expiry(end.at, self.wiring.settings.keep.idempotency);
                writes.put_until(row, wire::encode(&Idempotent { invocation: id, body: Idempotent::ERASED }), until);
            }
        }
        writes.keep_until(&tenant, expires, -kept::change(left));
        writes.put_until(key::invocation(id), record.encode(), expires);
        writes.delete(key::seal_key(id.0));
        self.write(writes, Vec::new());
        Ok(())
    }

    fn delete_in_steps(&mut self, tenant: &str, expires: Day, rows: Vec<(Key, Bytes)>) -> Result<(), VerbError> {
        for step in rows.chunks(STEP) {
            let mut writes = Writes::default();
            for (row, value) in step {
                match Kind::of(row) {
                    Some(Kind::Output) => writes.keep_until(tenant, expires, -kept::change(wire::decode::<OutputChunk>("output chunk", value)?.data.len())),
                    Some(Kind::InvocationSignal) => writes.keep(tenant, -kept::change(kept::of_signal(row, value)?)),
                    Some(Kind::DeadLetter) => self.letter_leaves(&wire::decode("dead letter", value)?, &mut writes),
                    _ => {}
                }
                writes.delete(row.clone());
            }
            self.write(writes, Vec::new());
        }
        Ok(())
    }

    /// Whether the record of an ended invocation must still be there.
    pub(super) fn within_retention(&self, ended_at: selvedge_kernel::time::Millis) -> bool {
        let shortest = self.wiring.registry.actors.values().filter_map(|actor| actor.options.retention).min();
        let keep = self.wiring.settings.keep.finished;
        self.head.time.day() < Day::expiry(ended_at, shortest.unwrap_or(keep).min(keep))
    }
}

fn bytes_of(row: &[u8]) -> Result<u64, VerbError> {
    Ok(kept::of_entries(&wire::decode::<Vec<Entry>>("journal entries", row)?))
}

fn without_payloads(row: &Bytes) -> Result<Bytes, VerbError> {
    let mut entries: Vec<Entry> = wire::decode("journal entries", row)?;
    for entry in &mut entries {
        entry.payload = Payload::Erased;
    }
    Ok(wire::encode(&entries))
}

fn fold_without_payloads(folded: &Bytes) -> Result<Bytes, VerbError> {
    let mut erased = Vec::with_capacity(folded.len());
    for (row, value) in unfold(folded) {
        for part in [row, without_payloads(&value)?] {
            erased.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            erased.extend_from_slice(&part);
        }
    }
    Ok(Bytes::from(erased))
}
