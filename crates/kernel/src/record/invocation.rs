//! One message being handled: what was accepted, and how far it is.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::WorkError;
use crate::journal::{Hash32, OpKind, Payload, Signature};
use crate::record::build::Build;
use crate::record::message::Message;
use crate::time::Millis;
use crate::wire::{self, WireError};
use bytes::Bytes;

/// Why an invocation needs somebody to look at it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Blocked {
    /// Its journal does not fit its code.
    Mismatch {
        /// What the journal says.
        recorded: Option<Signature>,
        /// What the code asked for.
        attempted: Option<Signature>,
    },
    /// Its handler is not registered.
    Missing {
        /// The handler as `type.handler`.
        handler: String,
    },
    /// It awaited something that is not an operation of its context.
    ForeignWait,
    /// The process ended ten times while it ran, without an entry of its own in between.
    Crashes,
    /// Its payload cannot be read.
    Damaged {
        /// What was found.
        reason: String,
    },
    /// Its handler is registered, but not in the version that accepted it.
    Version {
        /// The handler as `type.handler`.
        handler: String,
        /// The version that accepted it.
        needs: u32,
        /// The versions that this binary has.
        has: Vec<u32>,
    },
}

impl Blocked {
    /// Whether another binary may be able to go on with it: it is looked at again when one starts.
    #[must_use]
    pub fn lacks_code(&self) -> bool {
        matches!(self, Blocked::Missing { .. } | Blocked::Version { .. })
    }
}

impl std::fmt::Display for Blocked {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let side = |side: &Option<Signature>| side.as_ref().map_or("nothing".to_owned(), ToString::to_string);
        match self {
            Blocked::Mismatch { recorded, attempted } => write!(
                out,
                "its journal does not fit its code: recorded {}, attempted {}; deploy code that fits and run `selvedge invocations retry`, or `resolve`, `fork` or `kill` it",
                side(recorded),
                side(attempted)
            ),
            Blocked::Missing { handler } => write!(out, "it needs the handler {handler}, which this binary does not have: start one that has it"),
            Blocked::ForeignWait => out.write_str(
                "its handler awaited something that is not an operation of its context: move that into a step, then run `selvedge invocations retry`",
            ),
            Blocked::Crashes => {
                out.write_str("the process ended ten times in a row while it ran: look at the log, then run `selvedge invocations retry`, or `resolve` the operation, `fork` or `kill` it")
            }
            Blocked::Version { handler, needs, has } => {
                let has: Vec<String> = has.iter().map(|version| format!("@{version}")).collect();
                write!(out, "needs {handler}@{needs}, this binary has {}: start one that has it, it is looked at again then", has.join(", "))
            }
            Blocked::Damaged { reason } => write!(out, "a payload of it cannot be read ({reason}): run `selvedge verify`"),
        }
    }
}

/// Where an invocation stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted, not started.
    Accepted,
    /// Being handled, or waiting in memory or on disk.
    Running,
    /// Waits for somebody to look at it.
    Blocked,
    /// Ended with a value.
    Completed,
    /// Ended with an error.
    Failed,
    /// Ended by a cancel.
    Cancelled,
    /// Ended by a kill.
    Killed,
}

impl Status {
    /// Whether nothing more happens to it.
    #[must_use]
    pub fn ended(self) -> bool {
        matches!(self, Status::Completed | Status::Failed | Status::Cancelled | Status::Killed)
    }
}

/// How an invocation ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct End {
    /// When.
    pub at: Millis,
    /// The value.
    pub value: Option<Payload>,
    /// The value's seal.
    pub value_seal: Option<Hash32>,
    /// Or the error.
    pub error: Option<WorkError>,
}

/// The record of one invocation, which only [`Invocation::encode`] and [`Invocation::decode`] write and read. Its message's input is empty here if it is kept in chunks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Invocation {
    /// What was asked, by whom.
    pub message: Message,
    /// Where the input is.
    pub input: Payload,
    /// The seal of the input, which starts the chain.
    pub input_seal: Hash32,
    /// Its place in the inbox.
    pub order: u64,
    /// Shard time at which it was accepted.
    pub accepted_at: Millis,
    /// Where it stands.
    pub status: Status,
    /// Which attempt it is in, from 1.
    pub attempt: u32,
    /// When the next attempt starts, if it waits for one.
    pub retry_at: Option<Millis>,
    /// The error of the last failed attempt.
    pub last_error: Option<WorkError>,
    /// Unclean ends of the process while it ran, and the journal's length at the last of them.
    pub crashes: (u32, u32),
    /// Why it is blocked.
    pub blocked: Option<Blocked>,
    /// A cancel that was asked for.
    pub cancel: Option<String>,
    /// Whether other callers wait for it too.
    pub joined: bool,
    /// Whether a signal was kept for it alone.
    pub signalled: bool,
    /// The timer of its deadline.
    pub deadline_timer: Option<(Millis, u64)>,
    /// How it ended.
    pub end: Option<End>,
    /// Entries and last chain value of the journal when it ended.
    pub journal: Option<(u32, Hash32)>,
    /// The version of its handler that accepted it.
    pub version: u32,
    /// The invocation that it went on from, and the one that goes on for it.
    pub restarts: Restarts,
    /// The code that its journal began under, or that accepted it if it has none; none if that was not written.
    #[serde(skip)]
    pub build: Option<Build>,
}

/// The version of a record that says its build. One that does not is written as before.
const WITH_BUILD: u8 = 2;

impl Invocation {
    /// The value of its row.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match &self.build {
            Some(build) => wire::encode_as(WITH_BUILD, &(Bare(self), build)),
            None => wire::encode(&Bare(self)),
        }
    }

    /// Reads what [`Invocation::encode`] wrote.
    pub fn decode(row: &[u8]) -> Result<Invocation, WireError> {
        if row.first().is_none_or(|version| *version <= wire::VERSION) {
            return Ok(wire::decode::<Read>("invocation", row)?.0);
        }
        let (Read(record), build) = wire::decode_as::<(Read, Build)>("invocation", WITH_BUILD, row)?;
        Ok(Invocation { build: Some(build), ..record })
    }
}

/// A record without its build. Records themselves are not `Serialize`: none is written without its build by mistake.
struct Bare<'a>(&'a Invocation);

impl Serialize for Bare<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Invocation::serialize(self.0, to)
    }
}

/// The same, read.
struct Read(Invocation);

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Read, D::Error> {
        Invocation::deserialize(from).map(Read)
    }
}

/// The code that accepts a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Code {
    /// The version of the handler.
    pub version: u32,
    /// Which build it is of, if it says so.
    pub build: Option<Build>,
}

/// The neighbours of an invocation among those that went on from one another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Restarts {
    /// Whom it goes on for.
    pub before: Option<crate::id::InvocationId>,
    /// Who goes on for it.
    pub after: Option<crate::id::InvocationId>,
    /// BLAKE3 of the body that came under its idempotency key, if that was another one's.
    pub body: Option<Hash32>,
}

/// An operation that left something behind before its result.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Begun {
    /// Which operation.
    pub signature: Signature,
    /// The seal of what was asked.
    pub request_seal: Option<Hash32>,
    /// The timer that it waits for: due, and the timer's number.
    pub timer: Option<(Millis, u64)>,
    /// When it was begun.
    pub since: Millis,
    /// Failed attempts so far.
    pub attempts: u32,
    /// The error of the last failed attempt.
    pub last_error: Option<WorkError>,
    /// The message that it sent.
    pub peer: Option<(crate::id::ActorId, crate::id::InvocationId)>,
    /// The answer, from when it came until the operation takes it.
    pub reply: Option<crate::record::message::KeptReply>,
    /// Whether its peer was asked to end.
    pub cancelled: bool,
}

impl Begun {
    /// A row that says only that the operation was begun.
    #[must_use]
    pub fn new(signature: Signature, since: Millis) -> Begun {
        Begun { signature, request_seal: None, timer: None, since, attempts: 0, last_error: None, peer: None, reply: None, cancelled: false }
    }

    /// Whether an answer lies in it whose payload is chunks of its owner.
    #[must_use]
    pub fn keeps_chunks(&self) -> bool {
        matches!(&self.reply, Some(crate::record::message::KeptReply::Value { payload: Payload::Chunked { .. }, .. }))
    }

    /// Whether it waits for a signal of this name.
    #[must_use]
    pub fn waits_for_signal(&self, name: &str) -> bool {
        self.signature.kind == OpKind::Signal && self.signature.name == name
    }
}

/// What an idempotency key led to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Idempotent {
    /// The invocation.
    pub invocation: crate::id::InvocationId,
    /// BLAKE3 of the body: same body means same bytes.
    pub body: Hash32,
}

impl Idempotent {
    /// Instead of the hash of a body that was erased: whatever comes under the key leads to what was erased.
    pub const ERASED: Hash32 = Hash32([0; 32]);
}

/// One chunk of an invocation's output.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OutputChunk {
    /// When.
    pub at: Millis,
    /// What.
    pub data: Bytes,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::auth::local;
    use crate::id::{ActorId, Hash16, InvocationId, RawId};
    use crate::journal::SealKey;
    use crate::record::shard::ShardHead;
    use proptest::prelude::*;

    fn record(build: Option<Build>, input: Vec<u8>) -> Invocation {
        let target = ActorId { tenant: "default".to_owned(), kind: "order".to_owned(), key: "1".to_owned() };
        let id = InvocationId(RawId { hash: Hash16(7), uuid: [1; 16] });
        let message = Message::new(id, target, "place", Bytes::from(input), local("default", Millis(1)));
        let code = Code { version: 1, build };
        crate::transition::accept(&mut ShardHead::default(), message, code, SealKey([9; 32]), Hash32([2; 32])).0
    }

    proptest! {
        #[test]
        fn records_round_trip_with_and_without_their_build(build in any::<Option<[u8; 8]>>(), input in prop::collection::vec(any::<u8>(), 0..1_000)) {
            let record = record(build.map(Build), input);
            prop_assert_eq!(Invocation::decode(&record.encode()).unwrap(), record);
        }
    }

    #[test]
    fn record_of_before_builds_were_recorded_is_read_without_one_and_a_newer_one_is_refused() {
        let record = record(Some(Build([3; 8])), b"{}".to_vec());
        let old = wire::encode(&Bare(&record));
        assert_eq!(Invocation::decode(&old).unwrap(), Invocation { build: None, ..record.clone() });
        assert_eq!(record.encode().len(), old.len() + 8, "a build costs eight bytes");
        let mut newer = record.encode().to_vec();
        newer[0] = 3;
        assert_eq!(Invocation::decode(&newer), Err(WireError::Newer { what: "invocation", found: 3, known: 2 }));
        let cut = &record.encode()[..old.len() + 7];
        assert!(matches!(Invocation::decode(cut), Err(WireError::Malformed { .. })));
    }
}
