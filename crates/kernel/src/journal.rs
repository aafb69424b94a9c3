//! Journal entries: sealed, and chained by hash.
//!
//! The seal of a payload is BLAKE3 keyed with 32 random bytes of the invocation, so that an erased payload cannot be
//! guessed back. The chain value is BLAKE3(previous ‖ header ‖ seal), the header in its encoding below.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::RawId;
use crate::time::Millis;
use crate::wire;

/// 32 bytes of BLAKE3.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
pub struct Hash32(pub [u8; 32]);

impl std::fmt::Debug for Hash32 {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// What keys the seals of one invocation.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealKey(pub [u8; 32]);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("SealKey(…)")
    }
}

/// The keyed hash of a payload.
#[must_use]
pub fn seal(key: &SealKey, payload: &[u8]) -> Hash32 {
    Hash32(*blake3::keyed_hash(&key.0, payload).as_bytes())
}

/// The first chain value of an invocation or a run: over its id and the seal of its input.
#[must_use]
pub fn chain_start(owner: RawId, input_seal: Hash32) -> Hash32 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&owner.to_bytes());
    hasher.update(&input_seal.0);
    Hash32(*hasher.finalize().as_bytes())
}

/// What an entry records.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum OpKind {
    /// A journaled side effect inside the handler.
    Step,
    /// The same on a thread of its own.
    Blocking,
    /// A named side effect outside.
    Activity,
    /// A message whose answer is waited for.
    Call,
    /// The end of a child.
    Join,
    /// A durable wait for a time.
    Sleep,
    /// A durable wait for a signal.
    Signal,
    /// The start of a run.
    Start,
    /// A message whose answer is not waited for.
    Send,
    /// A child invocation.
    Spawn,
    /// A chunk of output.
    Emit,
    /// A state entry written.
    StateSet,
    /// A state entry removed.
    StateDelete,
    /// All state removed.
    StateClear,
    /// The first read of a state entry.
    StateGet,
    /// The names of state entries.
    StateKeys,
    /// The names and values of state entries.
    StateEntries,
    /// Which form of changed code this invocation took.
    Version,
    /// A cancel was delivered here; it has no operation number.
    Cancel,
    /// Somebody decided an operation by hand; the payload is a [`crate::record::hand::Resolution`].
    Resolved,
    /// Another invocation's journal was copied from here on; the payload is a [`crate::record::hand::Origin`]. No operation number.
    Forked,
}

impl OpKind {
    /// The word for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            OpKind::Step => "step",
            OpKind::Blocking => "blocking",
            OpKind::Activity => "activity",
            OpKind::Call => "call",
            OpKind::Join => "join",
            OpKind::Sleep => "sleep",
            OpKind::Signal => "signal",
            OpKind::Start => "start",
            OpKind::Send => "send",
            OpKind::Spawn => "spawn",
            OpKind::Emit => "emit",
            OpKind::StateSet => "state.set",
            OpKind::StateDelete => "state.delete",
            OpKind::StateClear => "state.clear",
            OpKind::StateGet => "state.get",
            OpKind::StateKeys => "state.keys",
            OpKind::StateEntries => "state.entries",
            OpKind::Version => "version",
            OpKind::Cancel => "cancel",
            OpKind::Resolved => "resolved",
            OpKind::Forked => "forked",
        }
    }

    /// Whether the entry is written where the operation is called, instead of where a result is delivered.
    #[must_use]
    pub fn at_call(self) -> bool {
        !matches!(
            self,
            OpKind::Step
                | OpKind::Blocking
                | OpKind::Activity
                | OpKind::Call
                | OpKind::Join
                | OpKind::Sleep
                | OpKind::Signal
                | OpKind::Start
                | OpKind::Cancel
                | OpKind::Resolved
                | OpKind::Forked
        )
    }
}

/// Who an operation is: what replay compares.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Signature {
    /// Its number, in the order of calling.
    pub number: u32,
    /// What it is.
    pub kind: OpKind,
    /// Its name: of the step, activity, signal, state entry, change.
    pub name: String,
    /// Whom it addresses: `type/key.handler`, or empty.
    pub target: String,
}

impl std::fmt::Display for Signature {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "#{} {}", self.number, self.kind.word())?;
        if !self.name.is_empty() {
            write!(out, " `{}`", self.name)?;
        }
        if !self.target.is_empty() {
            write!(out, " to {}", self.target)?;
        }
        Ok(())
    }
}

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Ending {
    /// The payload is its value.
    Value,
    /// The payload is a [`crate::error::WorkError`].
    Error,
    /// Its time was up.
    TimeUp,
}

/// Where a payload is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Payload {
    /// Here.
    Inline(Bytes),
    /// In rows of its own, under its owner and its seal.
    Chunked {
        /// Bytes in all.
        len: u64,
    },
    /// Gone, by request.
    Erased,
}

impl Payload {
    /// How many bytes it has; none when it is gone.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Payload::Inline(bytes) => bytes.len() as u64,
            Payload::Chunked { len } => *len,
            Payload::Erased => 0,
        }
    }
}

/// The rows in a folded one: key and value, each behind its length (`u32`).
#[must_use]
pub fn unfold(folded: &Bytes) -> Vec<(Bytes, Bytes)> {
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(len) = folded.get(at..at + 4) {
        let len = u32::from_be_bytes([len[0], len[1], len[2], len[3]]) as usize;
        if folded.len() < at + 4 + len {
            break;
        }
        parts.push(folded.slice(at + 4..at + 4 + len));
        at += 4 + len;
    }
    parts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

/// All of an entry that the chain covers besides the seal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Header {
    /// Its place in the journal, from 0.
    pub index: u32,
    /// Which operation.
    pub signature: Signature,
    /// How it ended.
    pub ending: Ending,
    /// Shard time at which it was decided.
    pub at: Millis,
    /// The seal of what was asked, where something was.
    pub request_seal: Option<Hash32>,
}

/// One entry, as it is stored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// What it says.
    pub header: Header,
    /// The seal of the payload.
    pub seal: Hash32,
    /// The chain up to and including this entry.
    pub chain: Hash32,
    /// What it gave.
    pub payload: Payload,
}

/// BLAKE3(previous ‖ header ‖ seal).
#[must_use]
pub fn chain_next(previous: Hash32, header: &Header, seal: Hash32) -> Hash32 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&previous.0);
    wire::encoded(header, |header| {
        hasher.update(header);
    });
    hasher.update(&seal.0);
    Hash32(*hasher.finalize().as_bytes())
}

/// Why a journal does not verify.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChainError {
    /// An entry is not where it should be.
    #[error("entry {expected} is missing: entry {found} stands in its place")]
    Missing {
        /// The index that was due.
        expected: u32,
        /// The index found.
        found: u32,
    },
    /// A payload is not the one that was sealed.
    #[error("entry {index} ({signature}): its payload is not the one that was recorded")]
    Payload {
        /// Which entry.
        index: u32,
        /// Which operation.
        signature: Signature,
    },
    /// A header was changed.
    #[error("entry {index} ({signature}): it was changed, or an entry before it was")]
    Chain {
        /// Which entry.
        index: u32,
        /// Which operation.
        signature: Signature,
    },
}

/// Walks a journal one entry at a time.
#[derive(Clone, Debug)]
pub struct Verifier {
    next: u32,
    last: Hash32,
    /// How many entries had lost their payload on purpose.
    pub erased: u32,
}

impl Verifier {
    /// Starts at [`chain_start`].
    #[must_use]
    pub fn new(start: Hash32) -> Verifier {
        Verifier { next: 0, last: start, erased: 0 }
    }

    /// Checks the next entry; `payload` is given where it was fetched, and not for an erased one.
    pub fn check(&mut self, entry: &Entry, key: Option<&SealKey>, payload: Option<&[u8]>) -> Result<(), ChainError> {
        let header = &entry.header;
        if header.index != self.next {
            return Err(ChainError::Missing { expected: self.next, found: header.index });
        }
        match (&entry.payload, key, payload) {
            (Payload::Erased, ..) => self.erased += 1,
            // Nothing is not stored in rows of its own: somebody changed where it lies.
            (Payload::Chunked { len: 0 }, ..) => return Err(ChainError::Payload { index: header.index, signature: header.signature.clone() }),
            (_, Some(key), Some(payload)) if seal(key, payload) != entry.seal => {
                return Err(ChainError::Payload { index: header.index, signature: header.signature.clone() });
            }
            _ => {}
        }
        let chain = chain_next(self.last, header, entry.seal);
        if chain != entry.chain {
            return Err(ChainError::Chain { index: header.index, signature: header.signature.clone() });
        }
        self.last = chain;
        self.next += 1;
        Ok(())
    }

    /// The last chain value and the count of entries.
    #[must_use]
    pub fn head(&self) -> (Hash32, u32) {
        (self.last, self.next)
    }
}
