//! What a run is told, and what it gives back.

use bytes::Bytes;
use std::ops::Range;

use crate::error::{AttemptError, WorkError};
use crate::id::{ActorId, ApprovalId, Key, RunId};
use crate::journal::Hash32;
use crate::machine::RunState;
use crate::policy::{Breaker, Throttle};
use crate::ports::Put;
use crate::record::line::{Entering, LineSays};
use crate::record::run::Stored;
use crate::time::Millis;

/// Something that happened to a run.
#[derive(Clone, PartialEq, Debug)]
pub enum RunInput {
    /// An attempt ended.
    TaskEnded {
        /// Of which stage.
        stage: u16,
        /// Of which item.
        item: u32,
        /// Which attempt.
        attempt: u32,
        /// Its JSON, or how it failed.
        result: Result<Bytes, AttemptError>,
    },
    /// The answer to a call came, perhaps to one that was sent before the run was loaded: then no attempt runs here.
    Answered {
        /// Of which stage.
        stage: u16,
        /// Of which item.
        item: u32,
        /// Which attempt sent it.
        attempt: u32,
        /// Its JSON, or how it failed.
        result: Result<Bytes, AttemptError>,
    },
    /// An attempt could not start: nothing here can run it. The run is blocked until [`RunInput::Unblock`].
    NoExecutor {
        /// Of which stage.
        stage: u16,
        /// Of which item.
        item: u32,
        /// Which attempt.
        attempt: u32,
        /// What is missing, as a sentence.
        reason: String,
    },
    /// A permit of a shared limit has come for a task.
    Admitted {
        /// Of which stage.
        stage: u16,
        /// Of which item.
        item: u32,
        /// Which [`Command::Borrow`] or [`Command::AskBreaker`] it answers.
        number: u64,
    },
    /// The breaker that let a task through has opened: unless it has started, it asks again.
    Recalled {
        /// Of which stage.
        stage: u16,
        /// Of which item.
        item: u32,
    },
    /// What was missing may be back.
    Unblock,
    /// What the line of its pipeline says.
    Line(LineSays),
    /// The run's timer fired.
    TimerFired,
    /// A signal from outside.
    Signal {
        /// Its name.
        name: String,
        /// JSON.
        payload: Bytes,
    },
    /// An answer to an approval.
    Decision {
        /// Which one.
        approval: ApprovalId,
        /// Who answers.
        decider: Decider,
        /// What.
        answer: Answer,
        /// Why.
        comment: Option<String>,
    },
    /// End as cancelled, whatever runs.
    Cancel {
        /// Who says so.
        by: String,
    },
    /// Start nothing new.
    Pause {
        /// Who says so.
        by: String,
    },
    /// Go on.
    Resume,
    /// Run what failed, or was cancelled, again; finished tasks stay.
    RetryFailed,
    /// The same, and more of it.
    Retry(Retry),
}

/// What is run again beside what failed or was cancelled.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Retry {
    /// This stage, and every stage that depends on it, starts over.
    pub from: Option<String>,
    /// Of what.
    pub tasks: Again,
}

/// Which tasks of a stage that is run again run again.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Again {
    /// All of them.
    #[default]
    All,
    /// Those that failed: of the stage that is named, else of every stage, those that `on_failure: continue` has passed
    /// over among them. What depends on such a stage starts over.
    Failed,
}

/// Who answers an approval.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decider {
    /// The principal's id: `user:ID` among the assignees.
    pub id: String,
    /// Its roles: `role:ROLE` among the assignees.
    pub roles: Vec<String>,
}

/// An answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Yes.
    Approve,
    /// No.
    Reject,
}

/// What is left of the bounds of one commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Puts and deletes.
    pub ops: usize,
    /// Bytes of keys and values.
    pub bytes: usize,
}

impl Room {
    /// A commit of its own: 90 operations and 1.5 MiB; [`crate::pipeline::run::Run::close`] needs the rest.
    pub const WHOLE: Room = Room { ops: 90, bytes: 1536 * 1024 };
}

/// What the engine writes and does.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// Values above 64 KiB, written in chunks under (run, seal) before the commit that holds `puts`.
    pub payloads: Vec<LargePayload>,
    /// Rows of the commit.
    pub puts: Vec<Put>,
    /// Rows that leave in the commit.
    pub deletes: Vec<Key>,
    /// Lines of the list of approvals, written in the commit.
    pub approvals: Vec<ApprovalChange>,
    /// Done in order when the commit is durable.
    pub commands: Vec<Command>,
    /// Asked of the store when the commit is durable; each is answered by [`crate::pipeline::run::Run::supply`].
    pub requests: Vec<RowRequest>,
    /// Whether [`crate::pipeline::run::Run::advance`] has more to do at once, in another commit.
    pub more: bool,
}

impl Effects {
    /// Operations that the commit gets from this.
    #[must_use]
    pub fn ops(&self) -> usize {
        self.puts.len() + self.deletes.len() + self.approvals.len()
    }

    /// Bytes of keys and values that the commit gets from this.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.puts.iter().map(|put| put.key.len() + put.value.len()).sum::<usize>() + self.deletes.iter().map(|key| key.len()).sum::<usize>()
    }

    /// Adds what came after.
    pub fn append(&mut self, mut later: Effects) {
        self.payloads.append(&mut later.payloads);
        self.puts.append(&mut later.puts);
        self.deletes.append(&mut later.deletes);
        self.approvals.append(&mut later.approvals);
        self.commands.append(&mut later.commands);
        self.requests.append(&mut later.requests);
        self.more |= later.more;
    }

    pub(super) fn put(&mut self, key: Key, value: Bytes) {
        self.puts.push(Put { key, value, expires: None });
    }
}

/// A value that is stored in chunks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LargePayload {
    /// Under which seal.
    pub seal: Hash32,
    /// What.
    pub bytes: Bytes,
}

/// A line of the list of approvals.
#[derive(Clone, PartialEq, Debug)]
pub enum ApprovalChange {
    /// A person is asked.
    Open {
        /// The approval.
        id: ApprovalId,
        /// The stage.
        stage: String,
        /// Who is asked.
        assignees: Vec<String>,
        /// Until when.
        expires: Millis,
        /// What they see, as JSON.
        show: Bytes,
    },
    /// Its time was up once, and others are asked; they see the same.
    Escalated {
        /// The approval.
        id: ApprovalId,
        /// The stage.
        stage: String,
        /// Who is asked now.
        assignees: Vec<String>,
        /// Until when.
        expires: Millis,
    },
    /// It was answered, or nobody needs the answer any more.
    Closed {
        /// The approval.
        id: ApprovalId,
    },
}

/// What the engine does when the commit is durable.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// Start an attempt.
    Dispatch(Dispatch),
    /// Ask for a permit of a shared limit; [`RunInput::Admitted`] answers. It goes back when the attempt ends.
    Borrow {
        /// For which stage.
        stage: u16,
        /// For which item.
        item: u32,
        /// Names it in its answer.
        number: u64,
        /// Which limit.
        limit: ActorId,
        /// What it limits to.
        throttle: Throttle,
    },
    /// Ask a shared breaker for a pass; [`RunInput::Admitted`] answers. It goes back when the attempt ends.
    AskBreaker {
        /// For which stage.
        stage: u16,
        /// For which item.
        item: u32,
        /// Names it in its answer.
        number: u64,
        /// Which breaker.
        limit: ActorId,
        /// When it opens.
        breaker: Breaker,
    },
    /// Give back permits whose attempts have not started, and ask for none.
    GiveBack {
        /// Of which stage.
        stage: u16,
        /// Of which item; none: of all.
        item: Option<u32>,
    },
    /// Stop every attempt of a stage that runs; their ends are not waited for.
    AbortStage {
        /// Which stage.
        stage: u16,
    },
    /// Ask the line of its pipeline for its place: again after a restart.
    EnterLine {
        /// For which run, in which line.
        entering: Entering,
        /// Who waits for its end, the nearest first.
        above: Vec<RunId>,
        /// Lines that it leaves before.
        left: Vec<Entering>,
    },
    /// Cancel calls that an earlier process may have made and this one did not make again.
    CancelCalls {
        /// Of which stage.
        stage: u16,
        /// Items, the attempt of each, and whom it called.
        calls: Vec<(u32, u32, Work)>,
    },
    /// Ask whom the tasks of a stage have called to end. Their answers are awaited: they say what is to be undone.
    EndCalls {
        /// Of which stage.
        stage: u16,
    },
    /// The run has ended.
    RunEnded {
        /// How.
        state: RunState,
        /// The output of a completed run.
        output: Option<Stored>,
        /// Why it failed.
        error: Option<WorkError>,
    },
}

/// One attempt of one task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dispatch {
    /// Of which stage.
    pub stage: u16,
    /// Of which item.
    pub item: u32,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// What.
    pub work: Work,
    /// Its input, as JSON.
    pub input: Bytes,
    /// The idempotency key of its effect: the same for each attempt.
    pub key: String,
    /// How long it may take.
    pub timeout_ms: Option<u64>,
    /// What is left for all of its attempts together, in milliseconds: it goes on while an attempt waits for somebody to take it.
    pub total_ms: Option<u64>,
}

/// What an attempt calls.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Work {
    /// An activity; what the pipeline's file says about it is in the definition.
    Activity {
        /// Its name.
        name: String,
    },
    /// A handler of an actor.
    Actor {
        /// Whom.
        target: ActorId,
        /// Which handler.
        handler: String,
    },
    /// A run of another pipeline.
    Pipeline {
        /// Its name.
        name: String,
    },
}

/// Rows that the run needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowRequest {
    /// Names the request in its answer.
    pub token: u64,
    /// What is asked for.
    pub ask: Ask,
}

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    /// The first rows of a range.
    Scan {
        /// Which.
        range: Range<Key>,
        /// How many.
        limit: usize,
    },
    /// Rows by key; those that are not there are left out of the answer.
    Get(Vec<Key>),
    /// A payload of this run that was stored in chunks.
    Payload {
        /// Under which seal.
        seal: Hash32,
        /// How many bytes.
        len: u64,
    },
}

/// The answer to a [`RowRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Supply {
    /// To `Scan` and `Get`: in key order, or in the order asked.
    Rows(Vec<(Key, Bytes)>),
    /// To `Payload`.
    Payload(Bytes),
}

/// What becomes of the one timer row of a run in a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimerChange {
    /// The row that leaves, by its due time.
    pub cleared: Option<Millis>,
    /// The row that the commit writes, by its due time.
    pub set: Option<Millis>,
}

/// Why a run does not take an input.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RunRefused {
    /// It takes no signals any more.
    #[error("the run is {state}: it takes no signal")]
    Ended {
        /// How it ended.
        state: RunState,
    },
    /// Its state does not allow it.
    #[error(transparent)]
    State(#[from] crate::machine::Refused),
    /// The approval was answered before.
    #[error("approval {id} was answered already: {state} by {by}")]
    Answered {
        /// Which.
        id: ApprovalId,
        /// What it is.
        state: crate::machine::ApprovalState,
        /// Who answered.
        by: String,
    },
    /// The run has no such approval.
    #[error("this run has no approval {id}: `runs show` lists those it has")]
    NoApproval {
        /// Which.
        id: ApprovalId,
    },
    /// The decider is none of the assignees.
    #[error("{decider} may not answer approval {id}: it is for {}; say who you are with --by NAME", assignees.join(", "))]
    NotAssigned {
        /// Which.
        id: ApprovalId,
        /// Who tried.
        decider: String,
        /// Who may.
        assignees: Vec<String>,
    },
    /// It fails, and what it did is being undone.
    #[error("the run has failed and undoes what it did ({done} of {all} stages): wait for its end, or mend what its compensation waits for")]
    Compensating {
        /// Stages undone.
        done: u32,
        /// Of so many.
        all: usize,
    },
    /// It has no such stage.
    #[error("the run has no stage `{name}`; it has {}", known.join(", "))]
    NoStage {
        /// Which.
        name: String,
        /// Those that it has.
        known: Vec<String>,
    },
    /// What it did could not be undone whole.
    #[error("{failed} of what the run did could not be undone, and would be done twice: see to it by hand, and start a new run instead")]
    NotUndone {
        /// How much.
        failed: u64,
    },
    /// Too many signals are kept.
    #[error("the run keeps {kept} signals that no stage has taken (limit: signals = {kept}): wait until it takes some, or cancel it")]
    Signals {
        /// How many.
        kept: u64,
    },
    /// The name of a signal is too long.
    #[error("the name of a signal has {len} bytes (limit: key_part = 256)")]
    SignalName {
        /// How many bytes.
        len: usize,
    },
}

/// Rows of a run do not fit each other.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RunDamaged {
    /// A row is not there.
    #[error("run row is missing: {what}; run `selvedge verify` and restore from a backup")]
    Missing {
        /// Which.
        what: String,
    },
    /// A row does not decode.
    #[error(transparent)]
    Wire(#[from] crate::wire::WireError),
    /// The pinned definition does not compile with this binary.
    #[error(transparent)]
    Definition(#[from] super::super::compiled::CompileError),
}
