//! The transitions of an actor's invocation, as pure functions: what to write when it is accepted, when an operation's
//! result is decided, when an attempt fails, when it ends.

use bytes::Bytes;
use std::time::Duration;

use crate::error::{AttemptError, WorkError};
use crate::id::InvocationId;
use crate::journal::{Ending, Entry, Hash32, Header, OpKind, Payload, SealKey, Signature, chain_next, chain_start, seal};
use crate::limit;
use crate::policy::{Retry, Verdict, after_failure};
use crate::record::actor::DeadLetter;
use crate::record::invocation::{Code, End, Idempotent, Invocation, Restarts, Status};
use crate::record::message::{Message, Outcome};
use crate::record::shard::{LedgerState, ShardHead, ledger_line};
use crate::record::{Writes, kept, key};
use crate::time::{Day, Millis};
use crate::wire;

/// The head of a journal in memory: where the next entry goes.
#[derive(Clone, Debug)]
pub struct Journal {
    /// Whose.
    pub invocation: InvocationId,
    /// What keys its seals.
    pub key: SealKey,
    /// The last chain value.
    pub chain: Hash32,
    /// The index of the next entry.
    pub next: u32,
    /// The bytes of its values.
    pub bytes: u64,
    /// The bytes of what its invocation has put out; none while nobody has counted them.
    pub output: Option<u64>,
}

impl Journal {
    /// The journal of an invocation that has none yet.
    #[must_use]
    pub fn start(invocation: InvocationId, key: SealKey, input_seal: Hash32) -> Journal {
        Journal { invocation, key, chain: chain_start(invocation.0, input_seal), next: 0, bytes: 0, output: Some(0) }
    }

    /// Goes on behind entries that stand in the store.
    pub fn pass(&mut self, entries: &[Entry]) {
        if let Some(last) = entries.last() {
            self.chain = last.chain;
            self.next = last.header.index + 1;
        }
        self.bytes += kept::of_entries(entries);
    }

    /// Appends an entry. A payload above the inline limit is referred to by its seal: its chunks must have been
    /// written by commits before this one.
    pub fn append(&mut self, entries: &mut Vec<Entry>, signature: Signature, ending: Ending, payload: &Bytes, request_seal: Option<Hash32>, at: Millis) {
        self.append_as(entries, signature, ending, payload, place(payload), request_seal, at);
    }

    /// Appends an entry whose payload was written as chunks, whatever its size, unless there is nothing to write.
    pub fn append_chunked(
        &mut self,
        entries: &mut Vec<Entry>,
        signature: Signature,
        ending: Ending,
        payload: &Bytes,
        request_seal: Option<Hash32>,
        at: Millis,
    ) {
        let stored = if payload.is_empty() { Payload::Inline(Bytes::new()) } else { Payload::Chunked { len: payload.len() as u64 } };
        self.append_as(entries, signature, ending, payload, stored, request_seal, at);
    }

    fn append_as(
        &mut self,
        entries: &mut Vec<Entry>,
        signature: Signature,
        ending: Ending,
        payload: &Bytes,
        stored: Payload,
        request_seal: Option<Hash32>,
        at: Millis,
    ) {
        let header = Header { index: self.next, signature, ending, at, request_seal };
        let payload_seal = seal(&self.key, payload);
        let chain = chain_next(self.chain, &header, payload_seal);
        self.bytes += payload.len() as u64;
        entries.push(Entry { header, seal: payload_seal, chain, payload: stored });
        self.chain = chain;
        self.next += 1;
    }

    /// Writes entries that were appended together: one row, under the index of the first. Their bytes are the tenant's.
    pub fn write(&self, writes: &mut Writes, entries: &[Entry], tenant: &str) {
        if let Some(first) = entries.first() {
            writes.put(key::journal(self.invocation, first.header.index), wire::encode(&entries));
            writes.keep(tenant, kept::change(kept::of_entries(entries)));
        }
    }
}

/// Where a payload of this size is kept.
#[must_use]
pub fn place(payload: &Bytes) -> Payload {
    if payload.len() > limit::INLINE_BYTES { Payload::Chunked { len: payload.len() as u64 } } else { Payload::Inline(payload.clone()) }
}

/// The rows of a large payload, in order; each batch of eight fits a commit.
#[must_use]
pub fn chunks(owner: crate::id::RawId, payload_seal: Hash32, payload: &Bytes) -> Vec<(crate::id::Key, Bytes)> {
    let mut rows = Vec::new();
    let mut at = 0;
    while at < payload.len() {
        let end = (at + limit::CHUNK_BYTES).min(payload.len());
        rows.push((key::chunk(owner, payload_seal, rows.len() as u32), payload.slice(at..end)));
        at = end;
    }
    rows
}

/// Accepts a message for the code that handles it: its record and its place in the inbox.
#[must_use]
pub fn accept(head: &mut ShardHead, mut message: Message, code: Code, seal_key: SealKey, body: Hash32) -> (Invocation, Writes) {
    let mut writes = Writes::default();
    let input = std::mem::take(&mut message.input);
    let input_seal = seal(&seal_key, &input);
    let order = head.next;
    head.next += 1;
    let id = message.id;
    writes.put(key::seal_key(id.0), wire::encode(&seal_key));
    writes.put(key::inbox(&message.target, order), wire::encode(&id));
    writes.count(&message.target.tenant, 1, 0);
    writes.keep(&message.target.tenant, kept::change(input.len()));
    if let Some(idempotency) = &message.idempotency_key {
        writes.put(key::idempotency(&message.target, &message.handler, idempotency), wire::encode(&Idempotent { invocation: id, body }));
    }
    let record = Invocation {
        input: place(&input),
        message,
        input_seal,
        order,
        accepted_at: head.time,
        status: Status::Accepted,
        attempt: 1,
        retry_at: None,
        last_error: None,
        crashes: (0, 0),
        blocked: None,
        cancel: None,
        joined: false,
        signalled: false,
        deadline_timer: None,
        end: None,
        journal: None,
        version: code.version,
        restarts: Restarts::default(),
        build: code.build,
    };
    writes.put(key::invocation(id), record.encode());
    (record, writes)
}

/// What follows a failed attempt of an invocation.
#[derive(Clone, Debug, PartialEq)]
pub enum AfterAttempt {
    /// Another attempt, replaying the journal, at this time.
    Again {
        /// When.
        at: Millis,
    },
    /// It ends with this error; `dead_letter` says whether attempts were used up.
    End {
        /// The error.
        error: WorkError,
        /// Whether it goes to the dead letters.
        dead_letter: bool,
    },
}

/// Decides what follows a failed attempt of an invocation.
#[must_use]
pub fn after_attempt(record: &Invocation, failure: &AttemptError, retry: &Retry, now: Millis) -> AfterAttempt {
    let seed = u64::from_be_bytes(first_eight(&record.message.id.0.uuid[8..]));
    match after_failure(record.attempt, failure, retry, seed) {
        Verdict::Again { delay } => AfterAttempt::Again { at: now.after(delay) },
        Verdict::GiveUp => AfterAttempt::End { error: failure.error.clone(), dead_letter: failure.retryable },
        Verdict::Exhausted => AfterAttempt::End { error: exhausted(record.attempt, &failure.error), dead_letter: true },
    }
}

/// The error of something whose attempts are used up, with the last one inside.
#[must_use]
pub fn exhausted(attempts: u32, last: &WorkError) -> WorkError {
    let noun = if attempts == 1 { "attempt" } else { "attempts" };
    WorkError::new("attempts_exhausted", format!("failed after {attempts} {noun}; the last one said {last}"))
}

fn first_eight(bytes: &[u8]) -> [u8; 8] {
    let mut eight = [0u8; 8];
    for (slot, byte) in eight.iter_mut().zip(bytes) {
        *slot = *byte;
    }
    eight
}

/// How long what has ended is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Finished work.
    pub finished: Duration,
    /// Idempotency keys, after the end.
    pub idempotency: Duration,
    /// Dead letters.
    pub dead_letters: Duration,
    /// Decisions that were recorded: denials above all.
    pub decisions: Duration,
    /// Ledger lines.
    pub ledger: Duration,
}

impl Default for Keep {
    fn default() -> Keep {
        let day = |days: u64| Duration::from_secs(days * 86_400);
        Keep { finished: day(7), idempotency: day(1), dead_letters: day(30), decisions: day(30), ledger: day(365) }
    }
}

/// What ends an invocation.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The state it ends in.
    pub status: Status,
    /// Its value, or its error.
    pub outcome: Outcome,
    /// Whether it goes to the dead letters.
    pub dead_letter: bool,
}

/// Ends an invocation: its record with the outcome, its journal folded, its place in the inbox given up, its line in
/// the ledger, and its bytes until the day on which it leaves. The value of a large outcome must have been written as chunks before, under `value_seal`.
#[must_use]
pub fn end(head: &mut ShardHead, record: &mut Invocation, journal: &Journal, ended: &Ended, input: &Bytes, keep: &Keep) -> Writes {
    let mut writes = Writes::default();
    let now = head.time;
    let id = record.message.id;
    let expires = Day::expiry(now, keep.finished);
    let (value, value_seal, error) = match &ended.outcome {
        Outcome::Value(value) => (Some(place(value)), Some(seal(&journal.key, value)), None),
        Outcome::Error(error) => (None, None, Some(error.clone())),
    };
    record.status = ended.status;
    record.end = Some(End { at: now, value, value_seal, error: error.clone() });
    record.retry_at = None;
    record.blocked = None;
    record.journal = Some((journal.next, journal.chain));
    writes.put_until(key::invocation(id), record.encode(), expires);
    writes.put_until(key::seal_key(id.0), wire::encode(&journal.key), expires);
    writes.delete(key::inbox(&record.message.target, record.order));
    let tenant = &record.message.target.tenant;
    writes.count(tenant, -1, 0);
    let open = record.input.bytes() + journal.bytes + journal.output.unwrap_or(0);
    writes.keep(tenant, -kept::change(open));
    let value = record.end.as_ref().and_then(|end| end.value.as_ref()).map_or(0, crate::journal::Payload::bytes);
    writes.keep_until(tenant, expires, kept::change(open + value));
    if journal.next > 0 {
        writes.folds.push(crate::ports::Fold {
            prefix: key::of_id(crate::record::kind::Kind::Journal, id.0),
            into: key::of_id(crate::record::kind::Kind::FoldedJournal, id.0),
            expires: Some(expires),
        });
    }
    if let Some(idempotency) = &record.message.idempotency_key {
        let body = record.restarts.body.unwrap_or_else(|| Hash32(*blake3::hash(input).as_bytes()));
        let row = Idempotent { invocation: id, body };
        writes.put_until(
            key::idempotency(&record.message.target, &record.message.handler, idempotency),
            wire::encode(&row),
            Day::expiry(now, keep.idempotency),
        );
    }
    if ended.dead_letter
        && let Some(error) = error
    {
        let mut message = record.message.clone();
        if input.len() <= limit::INLINE_BYTES {
            message.input = input.clone();
        }
        let letter = DeadLetter { message, input: place(input), input_seal: record.input_seal, error, attempts: record.attempt, at: now };
        let until = Day::expiry(now, keep.dead_letters);
        writes.keep_until(tenant, until, kept::change(letter.input.bytes()));
        writes.put_until(key::dead_letter(id), wire::encode(&letter), until);
    }
    let state = match ended.status {
        Status::Completed => LedgerState::Completed,
        Status::Cancelled => LedgerState::Cancelled,
        Status::Killed => LedgerState::Killed,
        _ => LedgerState::Failed,
    };
    write_ledger(head, &mut writes, id.0, false, state, (journal.chain, journal.next), keep);
    writes
}

/// Writes a line into the shard's ledger.
pub fn write_ledger(head: &mut ShardHead, writes: &mut Writes, id: crate::id::RawId, run: bool, state: LedgerState, last: (Hash32, u32), keep: &Keep) {
    let (n, line) = ledger_line(head, id, run, state, last.0, last.1);
    writes.put_until(key::ledger(n), wire::encode(&line), Day::expiry(head.time, keep.ledger));
}

/// The id of the invocation that a message of an operation becomes: it does not depend on any clock.
#[must_use]
pub fn sent_id(sender: crate::id::RawId, number: u64, target: &crate::id::ActorId) -> InvocationId {
    derived(&[&sender.to_bytes(), &number.to_be_bytes()], target.hash16())
}

/// The id of the invocation that a dead letter becomes when it is sent again: it follows from the letter's, at the same actor.
#[must_use]
pub fn redriven_id(letter: InvocationId) -> InvocationId {
    derived(&[&letter.0.to_bytes(), b"a dead letter again"], letter.0.hash)
}

/// The id of the invocation that a fork becomes: asked for twice under one key, it is one.
#[must_use]
pub fn forked_id(of: InvocationId, key: &str) -> InvocationId {
    derived(&[&of.0.to_bytes(), key.as_bytes(), b"a fork"], of.0.hash)
}

fn derived(parts: &[&[u8]], hash: crate::id::Hash16) -> InvocationId {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut uuid = [0u8; 16];
    uuid.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    uuid[6] = 0x80 | (uuid[6] & 0x0f);
    uuid[8] = 0x80 | (uuid[8] & 0x3f);
    InvocationId(crate::id::RawId { hash, uuid })
}

/// The random bytes of operation `number`, from the seed of its invocation.
#[must_use]
pub fn random_bytes(seal_key: &SealKey, number: u32) -> [u8; 32] {
    *blake3::keyed_hash(&blake3::derive_key("selvedge random 1", &seal_key.0), &number.to_be_bytes()).as_bytes()
}

/// The signature of an operation.
#[must_use]
pub fn signature(number: u32, kind: OpKind, name: &str, target: &str) -> Signature {
    Signature { number, kind, name: name.to_owned(), target: target.to_owned() }
}
