//! Rows of a shard as a whole: its head, its ledger, its timers.

use serde::{Deserialize, Serialize};

use crate::id::{ActorId, InvocationId, RawId, RunId};
use crate::journal::Hash32;
use crate::record::message::Message;
use crate::time::Millis;
use crate::wire;

/// Marks, ledger head and time: written by every commit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, Default)]
pub struct ShardHead {
    /// The time of the last commit: shard time never runs backwards.
    pub time: Millis,
    /// The next number for inbox places, ready rows and timers.
    pub next: u64,
    /// No timer is due before this.
    pub timers_from: Millis,
    /// No ready row has a lower number.
    pub ready_from: u64,
    /// The chain value of the last ledger line.
    pub ledger: Hash32,
    /// How many ledger lines there are.
    pub ledger_lines: u64,
    /// The time of the last ledger line: what is older than its retention may be missing.
    pub ledger_at: Millis,
    /// Whether the last owner closed in good order.
    pub clean: bool,
}

/// What a ledger line says of a piece of work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum LedgerState {
    /// Accepted, durably.
    Accepted,
    /// Ended well.
    Completed,
    /// Ended badly.
    Failed,
    /// Ended by a cancel.
    Cancelled,
    /// Ended by a kill.
    Killed,
}

/// One line of a shard's ledger.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LedgerLine {
    /// Whose.
    pub id: RawId,
    /// Whether it is a run.
    pub run: bool,
    /// What became of it.
    pub state: LedgerState,
    /// The last chain value of its journal.
    pub last: Hash32,
    /// How many entries its journal has.
    pub count: u32,
    /// When.
    pub at: Millis,
    /// When the line before it was written: only once that one has left may this one be the first.
    pub before: Millis,
    /// The chain of the ledger up to and including this line.
    pub chain: Hash32,
}

/// Appends to the ledger: gives the line, and the head is moved on.
#[must_use]
pub fn ledger_line(head: &mut ShardHead, id: RawId, run: bool, state: LedgerState, last: Hash32, count: u32) -> (u64, LedgerLine) {
    let mut line = LedgerLine { id, run, state, last, count, at: head.time, before: head.ledger_at, chain: Hash32::default() };
    line.chain = ledger_chain(head.ledger, &line);
    let n = head.ledger_lines;
    head.ledger = line.chain;
    head.ledger_lines += 1;
    head.ledger_at = line.at;
    (n, line)
}

/// BLAKE3(previous ‖ line without its chain value).
#[must_use]
pub fn ledger_chain(previous: Hash32, line: &LedgerLine) -> Hash32 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&previous.0);
    wire::encoded(&(line.id, line.run, line.state, line.last, line.count, line.at, line.before), |line| {
        hasher.update(line);
    });
    Hash32(*hasher.finalize().as_bytes())
}

/// What a reopened shard activates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ready {
    /// An invocation that was running.
    Invocation(InvocationId),
    /// A run with work in flight.
    Run(RunId),
}

/// What fires.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Timer {
    /// An operation: a sleep, the end of a wait, the next attempt.
    Operation {
        /// Of which invocation.
        invocation: InvocationId,
        /// Which operation.
        number: u32,
    },
    /// The next attempt of an invocation.
    Attempt {
        /// Of which invocation.
        invocation: InvocationId,
    },
    /// The deadline of an invocation.
    Deadline {
        /// Of which invocation.
        invocation: InvocationId,
    },
    /// A delayed message.
    Message(Box<Message>),
    /// A delayed message whose input is kept in chunks under the message's id.
    LargeMessage {
        /// The message, without its input.
        message: Box<Message>,
        /// Under which seal.
        seal: Hash32,
        /// How long the input is.
        len: u64,
    },
    /// What an ended invocation has left behind and one commit could not hold: operations, callers, signals.
    Leftovers {
        /// Of which invocation.
        invocation: InvocationId,
    },
    /// The chunks and the output of an owner, after its retention.
    Chunks {
        /// Whose.
        owner: RawId,
    },
    /// Something that a run waits for.
    Run {
        /// Which run.
        run: RunId,
        /// What it calls it.
        token: u64,
    },
    /// The end of the time that a signal is kept for an actor.
    Signal {
        /// For whom.
        actor: ActorId,
        /// Its name.
        name: String,
        /// Its number.
        n: u64,
    },
    /// A fire of a schedule, or one that waits for the end of the run before it.
    Schedule {
        /// Whose.
        tenant: String,
        /// Which pipeline it starts.
        pipeline: String,
    },
    /// What the tasks of a run have called and nobody waits for any more, written in the commit that gave the tasks up.
    Cancels {
        /// Which run.
        run: RunId,
        /// Whom it asks to end.
        called: Vec<Called>,
    },
}

/// Whom a task of a run has called.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Called {
    /// A handler of an actor.
    Actor(InvocationId),
    /// Another pipeline.
    Pipeline(RunId),
}
