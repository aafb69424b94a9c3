//! An operation that is decided by hand: one more entry of the chain, and the invocation is tried again.

use bytes::Bytes;
use selvedge_kernel::error::Consequence;
use selvedge_kernel::id::InvocationId;
use selvedge_kernel::journal::{Ending, Entry, OpKind, SealKey, Signature};
use selvedge_kernel::record::hand::Resolution;
use selvedge_kernel::record::invocation::{Begun, Blocked, Invocation, Status};
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::transition::{Journal, signature};
use selvedge_kernel::wire;

use super::{Shard, VerbError};
use crate::hand::{Resolve, Resolved};

/// What a journal says of one operation.
struct Recorded {
    /// Its first entry.
    first: Option<Entry>,
    /// The last one that was decided by hand.
    by_hand: Option<Entry>,
    /// Where the next entry goes.
    journal: Journal,
}

impl Shard {
    /// Decides an operation by hand. Nothing of the journal is rewritten: an entry that does not fit stays, and another
    /// one at the end says what stands in its place.
    pub(super) async fn resolve(&mut self, asked: Resolve, by: String) -> Result<Resolved, VerbError> {
        let id = asked.id;
        if self.active.get(&id).is_some_and(|activation| activation.pending.is_some()) {
            // Its acceptance has not been written: it is, and this comes behind it.
            self.advance(id).await;
        }
        let record = self.open_record(id).await?;
        if let Some(blocked) = record.blocked.as_ref().filter(|blocked| blocked.lacks_code()) {
            return Err(VerbError::new(Consequence::Conflict, "lacks_code", format!("{id} cannot go on, whatever an operation gives: it {blocked}")));
        }
        if !self.holds_actor(&record).await? {
            return Err(VerbError::new(
                Consequence::Conflict,
                "not_started",
                format!("{id} has not started: it waits behind another message of its actor, and has no operations yet"),
            ));
        }
        let recorded = self.recorded(&record, asked.operation).await?;
        let (ending, value) = match &asked.gives {
            Ok(value) => (Ending::Value, value.clone()),
            Err(error) => (Ending::Error, wire::encode(&error.clone().bounded())),
        };
        if let Some(entry) = &recorded.by_hand {
            let before = Resolution::of(entry)?;
            let same = before.value == value && before.reason == asked.reason && before.by == by;
            if same && record.status != Status::Blocked {
                // Asked twice, it is done once.
                return Ok(Resolved { entry: entry.header.index, supersedes: before.supersedes, stands_for: before.stands_for.to_string() });
            }
        }
        let stands_for = self.stands_for(&record, asked.operation, recorded.first.as_ref()).await?;
        if let Some(entry) = recorded.first.as_ref().filter(|_| record.status != Status::Blocked) {
            let text = format!(
                "{} of {id} has its result, entry {}: only of one that is blocked can an entry be superseded; fork it from there instead",
                entry.header.signature, entry.header.index
            );
            return Err(VerbError::new(Consequence::Conflict, "decided", text));
        }
        let ending = if stands_for.kind == OpKind::Sleep && ending == Ending::Value { Ending::TimeUp } else { ending };
        let value = if ending == Ending::TimeUp { Bytes::new() } else { value };
        let supersedes = recorded.first.as_ref().map(|entry| entry.header.index);
        let resolution = Resolution { supersedes, stands_for, ending, value, by, reason: asked.reason };
        let entry = self.write_resolution(record, asked.operation, &resolution, recorded.journal).await?;
        Ok(Resolved { entry, supersedes, stands_for: resolution.stands_for.to_string() })
    }

    /// One transition: the entry, what stands where, the operation given up that was begun, and the invocation let go on.
    async fn write_resolution(&mut self, mut record: Invocation, number: u32, resolution: &Resolution, mut journal: Journal) -> Result<u32, VerbError> {
        let (id, now) = (record.message.id, self.now());
        if let Some(activation) = self.drop_from_memory(id) {
            record = activation.record.clone();
            if let Some(ready) = activation.ready {
                self.kept_ready.insert(id, ready);
            }
        }
        // What runs for it is given up. What is not decided here runs again, under the same key.
        self.drop_tasks(id);
        let mut writes = Writes::default();
        if let Some(bytes) = self.get(key::begun(id, number)).await? {
            let row: Begun = wire::decode("begun operation", &bytes)?;
            if let Some(timer) = row.timer {
                self.clear_timer(&mut writes, timer);
            }
            writes.delete(key::begun(id, number));
        }
        let entry = journal.next;
        let mut entries = Vec::with_capacity(1);
        journal.append(&mut entries, signature(number, OpKind::Resolved, "", ""), Ending::Value, &wire::encode(resolution), None, now);
        journal.write(&mut writes, &entries, &record.message.target.tenant);
        if let Some(index) = resolution.supersedes {
            writes.put(key::resolved(id, index), wire::encode(&entry));
        }
        self.take_up(record, writes).await?;
        Ok(entry)
    }

    /// What the journal of an open invocation says of an operation, and where it ends.
    async fn recorded(&self, record: &Invocation, number: u32) -> Result<Recorded, VerbError> {
        let id = record.message.id;
        let seal_key: SealKey = match self.get(key::seal_key(id.0)).await? {
            Some(bytes) => wire::decode("seal key", &bytes)?,
            None => return Err(VerbError::new(Consequence::Stop, "store_damaged", format!("the seal key of {id} is missing: run `selvedge verify`"))),
        };
        let mut found = Recorded { first: None, by_hand: None, journal: Journal::start(id, seal_key, record.input_seal) };
        for entry in self.all_entries(id).await? {
            found.journal.pass(std::slice::from_ref(&entry));
            let is = &entry.header.signature;
            if is.number != number || matches!(is.kind, OpKind::Version | OpKind::Cancel | OpKind::Forked) {
                continue;
            }
            if is.kind == OpKind::Resolved {
                found.by_hand = Some(entry.clone());
            }
            found.first = found.first.or(Some(entry));
        }
        Ok(found)
    }

    /// The operation as the code asks for it: that is what a replay compares from here on.
    async fn stands_for(&mut self, record: &Invocation, number: u32, first: Option<&Entry>) -> Result<Signature, VerbError> {
        let id = record.message.id;
        let attempted = match &record.blocked {
            Some(Blocked::Mismatch { recorded: Some(recorded), attempted: None }) if recorded.number == number => {
                let text = format!("the code of {id} does not ask for {recorded} any more, so nothing can stand in its place: fork it from #{number}");
                return Err(VerbError::new(Consequence::Conflict, "not_asked_for", text));
            }
            Some(Blocked::Mismatch { attempted: Some(attempted), .. }) if attempted.number == number => Some(attempted.clone()),
            _ => None,
        };
        let recorded = match first {
            Some(entry) if entry.header.signature.kind == OpKind::Resolved => Some(Resolution::of(entry)?.stands_for),
            Some(entry) => Some(entry.header.signature.clone()),
            None => match self.get(key::begun(id, number)).await? {
                Some(bytes) => Some(wire::decode::<Begun>("begun operation", &bytes)?.signature),
                None => self.called(id, number),
            },
        };
        let signature = match attempted.or_else(|| recorded.clone()) {
            Some(found) => found,
            None => self.awaited(record.clone(), number).await?.ok_or_else(|| no_operation(id, number))?,
        };
        if let Some(wrong) = [Some(&signature), recorded.as_ref()].into_iter().flatten().find(|signature| signature.kind.at_call()) {
            let text = format!(
                "{wrong} of {id} is recorded where it is called, and nothing is given to it: only an operation that a handler waits for can be decided by hand; \
                 fork {id} from #{number}, or deploy code that fits"
            );
            return Err(VerbError::new(Consequence::Conflict, "not_resolvable", text));
        }
        Ok(signature)
    }

    /// An operation that a handler in memory has called and not been given.
    fn called(&self, id: InvocationId, number: u32) -> Option<Signature> {
        let state = self.active.get(&id)?.core.state.borrow();
        state.ops.get(&number).filter(|op| op.given.is_none() && !op.dropped).map(|op| op.signature.clone())
    }
}

fn no_operation(id: InvocationId, number: u32) -> VerbError {
    let text = format!(
        "{id} waits for no operation #{number}: `selvedge invocations journal {id}` lists what it has recorded, `selvedge why {id}` says what it waits for; \
         of a handler whose code is not in this process, ask the process that has it"
    );
    VerbError::new(Consequence::NotFound, "unknown_operation", text)
}
