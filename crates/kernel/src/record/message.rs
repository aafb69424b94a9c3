//! What travels between actors, runs and shards.

use serde::{Deserialize, Serialize};

use crate::auth::AuthorizationContext;
use crate::calls::Link;
use crate::error::WorkError;
use crate::id::{ActorId, InvocationId, RunId, ShardId};
use crate::journal::Payload;
use crate::lend::{Life, PassReport, Report, Word};
use crate::policy::{Breaker, Throttle};
use crate::record::line::{Entering, LineSays};
use crate::record::run::Parent;
use crate::time::Millis;
use crate::wire::{self, WireError};
use bytes::Bytes;

/// Who waits for an answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Peer {
    /// An operation of an invocation.
    Operation {
        /// Which invocation.
        invocation: InvocationId,
        /// Its operation.
        number: u32,
    },
    /// A task of a run.
    Task {
        /// Which run.
        run: RunId,
        /// Its stage.
        stage: u16,
        /// Its item.
        item: u32,
        /// Which attempt.
        attempt: u32,
    },
}

/// A message to a handler.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Message {
    /// The invocation that it becomes.
    pub id: InvocationId,
    /// To whom.
    pub target: ActorId,
    /// To which handler.
    pub handler: String,
    /// The input, whole.
    pub input: Bytes,
    /// For whom.
    pub context: AuthorizationContext,
    /// The sender's key, in the scope of the handler.
    pub idempotency_key: Option<String>,
    /// W3C trace context.
    pub trace: Option<String>,
    /// When it must have ended.
    pub deadline: Option<Millis>,
    /// Who waits for the answer.
    pub reply_to: Option<Peer>,
    /// The invocation whose child it is.
    pub parent: Option<InvocationId>,
    /// The invocations that wait for it and the actors that they hold, the first caller first.
    pub chain: Vec<Link>,
}

impl Message {
    /// A message that nobody waits for: without key, trace, deadline and parent.
    #[must_use]
    pub fn new(id: InvocationId, target: ActorId, handler: impl Into<String>, input: Bytes, context: AuthorizationContext) -> Message {
        Message {
            id,
            target,
            handler: handler.into(),
            input,
            context,
            idempotency_key: None,
            trace: None,
            deadline: None,
            reply_to: None,
            parent: None,
            chain: Vec::new(),
        }
    }
}

/// A start of a run that goes to its shard.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Starting {
    /// Its id, which follows from whatever starts it.
    pub run: RunId,
    /// The definition, as JSON.
    pub definition: Bytes,
    /// The input, checked and with defaults filled in.
    pub input: Bytes,
    /// Who starts it.
    pub context: AuthorizationContext,
    /// What somebody waits for.
    pub awaited: Awaited,
}

/// What of a run somebody waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Awaited {
    /// Its acceptance.
    Acceptance(Peer),
    /// Its end.
    End {
        /// Who waits.
        parent: Parent,
        /// When it must have ended.
        deadline: Option<Millis>,
    },
}

/// How an invocation ended, for whoever waits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// Its value.
    Value(Bytes),
    /// Its error.
    Error(WorkError),
}

/// What one shard sends another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Envelope {
    /// A message to an actor.
    Invoke(Message),
    /// A message that is handled later.
    Later {
        /// When.
        at: Millis,
        /// What.
        message: Message,
    },
    /// An answer.
    Reply {
        /// To whom.
        to: Peer,
        /// From which invocation.
        from: InvocationId,
        /// What.
        outcome: Outcome,
    },
    /// Start a run, unless it is there already.
    StartRun {
        /// Its id, which follows from the operation that starts it.
        run: RunId,
        /// The definition, as JSON.
        definition: Bytes,
        /// The input, checked and with defaults filled in.
        input: Bytes,
        /// Who starts it.
        context: AuthorizationContext,
        /// Who waits for its acceptance.
        reply_to: Peer,
    },
    /// Ask an invocation to end.
    Cancel {
        /// Which.
        invocation: InvocationId,
        /// Why.
        reason: String,
    },
    /// Start a run for a task of another run, unless it is there already.
    StartChild {
        /// Its id, which follows from the task.
        run: RunId,
        /// The definition, as JSON.
        definition: Bytes,
        /// The input, checked and with defaults filled in.
        input: Bytes,
        /// Who starts it.
        context: AuthorizationContext,
        /// Who waits for its end.
        parent: Parent,
    },
    /// Ask for a place in a line.
    EnterLine(Entering),
    /// Give a place in a line back.
    LeaveLine(Entering),
    /// What a run is told by its line.
    Line {
        /// Which run.
        run: RunId,
        /// What.
        says: LineSays,
    },
    /// Ask a run to end.
    CancelRun {
        /// Which.
        run: RunId,
        /// Why.
        reason: String,
    },
    /// A borrower's report to the lender of a limit.
    Borrow {
        /// Which limit.
        limit: ActorId,
        /// Of which shard.
        from: ShardId,
        /// In which life of the owner.
        life: Life,
        /// What it limits to.
        throttle: Throttle,
        /// What has happened.
        report: Report,
    },
    /// Permits of a limit.
    Grant {
        /// Which limit.
        limit: ActorId,
        /// In which life of the owner.
        life: Life,
        /// What it limits to.
        throttle: Throttle,
        /// How many.
        permits: u32,
    },
    /// A borrower's report to a breaker.
    AskBreaker {
        /// Which.
        limit: ActorId,
        /// Of which shard.
        from: ShardId,
        /// In which life of the owner.
        life: Life,
        /// When it opens.
        breaker: Breaker,
        /// What has happened.
        report: PassReport,
    },
    /// What a breaker is, and what it lets through.
    Pass {
        /// Which.
        limit: ActorId,
        /// In which life of the owner.
        life: Life,
        /// When it opens.
        breaker: Breaker,
        /// What it says of itself.
        word: Word,
        /// How many it lets through.
        permits: u32,
    },
    /// Start a run for a task of another run whose time is limited, unless it is there already.
    StartChildUntil {
        /// Its id, which follows from the task.
        run: RunId,
        /// The definition, as JSON.
        definition: Bytes,
        /// The input, checked and with defaults filled in.
        input: Bytes,
        /// Who starts it.
        context: AuthorizationContext,
        /// Who waits for its end.
        parent: Parent,
        /// When it must have ended.
        deadline: Millis,
    },
    /// Permits that a borrower asked the lender of a limit for, and needs no more.
    Unwant {
        /// Which limit.
        limit: ActorId,
        /// Of which shard.
        from: ShardId,
        /// In which life of the owner.
        life: Life,
        /// How many.
        permits: u32,
    },
    /// Ask for a place in a line, for a run that others wait for.
    EnterLineBelow {
        /// For which run, in which line.
        entering: Entering,
        /// Who waits for its end, the nearest first.
        above: Vec<RunId>,
    },
    /// A start of a run, and the trace that it belongs to.
    Traced {
        /// The trace, as W3C writes it.
        trace: String,
        /// The start. It is no envelope: those of a stranger would nest as deep as they are long.
        start: Box<Starting>,
    },
}

impl Envelope {
    /// The start of a run as it is sent: one that belongs to no trace as it was sent before there were any.
    #[must_use]
    pub fn start(start: Starting, trace: Option<String>) -> Envelope {
        if let Some(trace) = trace {
            return Envelope::Traced { trace, start: Box::new(start) };
        }
        let Starting { run, definition, input, context, awaited } = start;
        match awaited {
            Awaited::Acceptance(reply_to) => Envelope::StartRun { run, definition, input, context, reply_to },
            Awaited::End { parent, deadline: None } => Envelope::StartChild { run, definition, input, context, parent },
            Awaited::End { parent, deadline: Some(deadline) } => Envelope::StartChildUntil { run, definition, input, context, parent, deadline },
        }
    }
}

/// A client's message that is not due yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Delayed {
    /// Its timer, which holds the message: when it is due, and its number.
    pub timer: (Millis, u64),
    /// When it came.
    pub at: Millis,
}

/// A signal that is kept until somebody waits for it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeptSignal {
    /// What it carries.
    pub payload: Payload,
    /// From whom.
    pub context: AuthorizationContext,
    /// When it came.
    pub at: Millis,
    /// The timer at the end of the time that it is kept; none for a signal to an invocation, which it goes with.
    pub timer: Option<(Millis, u64)>,
}

impl KeptSignal {
    /// Reads the row of a signal, also of one from before they had a timer.
    pub fn decode(row: &[u8]) -> Result<KeptSignal, WireError> {
        wire::decode("signal", row).or_else(|error| match wire::decode::<(Payload, AuthorizationContext, Millis)>("signal", row) {
            Ok((payload, context, at)) => Ok(KeptSignal { payload, context, at, timer: None }),
            Err(_) => Err(error),
        })
    }
}

/// An envelope as it lies in the outbox.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum OutboxRow {
    /// Here.
    Whole(Envelope),
    /// As chunks under its sender: it is larger than a row may be.
    Chunked {
        /// Under whom.
        owner: crate::id::RawId,
        /// Under which seal: BLAKE3 of the envelope's encoding.
        seal: crate::journal::Hash32,
        /// How long its encoding is.
        len: u64,
    },
}

/// An answer that is kept until its operation takes it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum KeptReply {
    /// A value.
    Value {
        /// Where it is.
        payload: Payload,
        /// Its seal.
        seal: crate::journal::Hash32,
    },
    /// An error.
    Error(WorkError),
}
