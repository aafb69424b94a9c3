//! Runs of pipelines: actors of the built-in type `pipeline`, performed by their shard. What a run does is decided by
//! `kernel::pipeline::run`; here its rows are written, and what it asks for is done.

pub(crate) mod accept;
mod child;
pub(crate) mod fork;
mod given_up;
mod kept;
mod line;
mod lists;
mod memory;
mod perform;
mod retention;
mod shown;
mod tasks;
pub(crate) mod turn;
mod verbs;
mod verify;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use selvedge_kernel::auth::AuthorizationContext;
use selvedge_kernel::error::WorkError;
use selvedge_kernel::id::{ActorId, RunId};
use selvedge_kernel::journal::Hash32;
use selvedge_kernel::machine::RunState;
use selvedge_kernel::pipeline::compiled::Compiled;
use selvedge_kernel::pipeline::run::{Command, Run, RunInput};
use selvedge_kernel::record::Writes;
use selvedge_kernel::record::line::LineId;
use selvedge_kernel::record::run::Parent;
use selvedge_kernel::record::shard::Called;
use selvedge_kernel::time::Millis;
use serde::{Deserialize, Serialize};

pub use fork::{ForkedRun, RunFork};
pub use selvedge_kernel::pipeline::run::{Again, Retry, RunStatus, StageStatus, TaskStatus, Undoes};
pub use selvedge_kernel::record::run::Event as RunEvent;
pub use tasks::{TaskNumber, TaskPage, TasksAsked};

use crate::shard::{Effect, Reply, VerbError};
use crate::tasks::Abort;
use crate::work::Told;

/// How a run has ended.
#[derive(Clone, PartialEq, Debug)]
pub struct RunEnd {
    /// `completed`, `failed` or `cancelled`.
    pub state: RunState,
    /// The output of a completed run, as JSON.
    pub output: Option<Bytes>,
    /// Why it failed.
    pub error: Option<WorkError>,
}

/// A line of the list of runs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RunSummary {
    /// Which run.
    pub id: RunId,
    /// Of which pipeline.
    pub pipeline: String,
    /// Where it is.
    pub state: RunState,
    /// When it was accepted.
    pub started_at: Millis,
    /// When it ended.
    pub ended_at: Option<Millis>,
}

/// What people do to a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RunControl {
    /// End as cancelled; what runs is aborted.
    Cancel {
        /// Why.
        reason: String,
    },
    /// Start nothing new.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Run again what failed or was cancelled; what finished stays.
    RetryFailed,
    /// The same, and more of it.
    Retry(Retry),
}

/// A run that is to be accepted.
pub(crate) struct NewRun {
    pub id: RunId,
    pub tenant: String,
    pub compiled: Arc<Compiled>,
    pub input: Bytes,
    pub context: AuthorizationContext,
    /// The run whose task it is.
    pub parent: Option<Parent>,
    /// When that task must have ended.
    pub deadline: Option<Millis>,
    /// The trace that it belongs to.
    pub trace: Option<String>,
}

/// What a run is started with, beside its input.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RunStart {
    /// The same key, the same run.
    pub key: Option<String>,
    /// W3C trace context: that of its tasks, and of whom they call.
    pub trace: Option<String>,
}

/// What a client asks of a run.
pub(crate) enum RunCommand {
    Start { new: Box<NewRun>, reply: Reply<RunId> },
    Fork { id: RunId, tenant: String, fork: Box<RunFork>, context: AuthorizationContext, reply: Reply<ForkedRun> },
    Status { id: RunId, tenant: String, reply: Reply<RunStatus> },
    Wait { id: RunId, tenant: String, reply: Reply<RunEnd> },
    Events { id: RunId, tenant: String, from: u64, wait: bool, reply: Reply<Vec<(u64, RunEvent)>> },
    Tell { id: RunId, tenant: String, input: RunInput, reply: Reply<()> },
    Signal { id: RunId, tenant: String, name: String, payload: Bytes, key: Option<String>, reply: Reply<()> },
    Shown { id: RunId, tenant: String, stage: String, reply: Reply<Option<Bytes>> },
    Tasks { id: RunId, tenant: String, asked: TasksAsked, reply: Reply<TaskPage> },
    Holder { line: LineId, reply: Reply<Option<RunId>> },
    Decide { id: RunId, stage: String, approve: bool, by: String, comment: Option<String>, context: AuthorizationContext, reply: Reply<()> },
}

/// What a run lets out once its commit is durable.
pub(crate) struct RunEffect {
    run: RunId,
    commands: Vec<Command>,
    /// The round of each stage when that was decided.
    rounds: Vec<u32>,
}

/// A run in memory.
struct Active {
    run: Run,
    /// The bytes that its tenant is said to keep by its header.
    kept: u64,
    /// What has happened to it and is not applied yet.
    inputs: VecDeque<RunInput>,
    /// Its ready row.
    ready: Option<u64>,
    /// Where its timer row stands, if this process has written it.
    timer: Option<(Millis, u64)>,
    /// As its index row says.
    indexed: Option<RunState>,
    /// Whether its last line in the ledger says that it has ended.
    ended: bool,
    /// Commits decided whose commands are not performed yet.
    unperformed: u32,
    /// Whom the attempts of its tasks have called, or will when the commit that says so is durable.
    called: BTreeMap<(u16, u32), OpenCall>,
    /// When it wants a turn although nothing happens.
    wake: Option<Millis>,
    /// Since when it rests, and the wake-up after which it leaves memory.
    rests: Option<(Millis, (Millis, u64))>,
}

/// A call of an attempt whose answer is not here yet.
struct OpenCall {
    attempt: u32,
    called: Called,
    /// The handler, if it is one of an actor.
    handler: Option<(ActorId, String)>,
    /// Whether it was asked to end, while its answer is awaited.
    told: bool,
}

/// One attempt in this process, or a call that is under way.
struct Task {
    attempt: u32,
    alarm: Option<(Millis, u64)>,
    work: Doing,
}

enum Doing {
    /// A task of this process: it ends when this is dropped.
    Here { _abort: Abort },
    /// Called: its answer comes as a message.
    Called,
}

/// Who follows a run, and from which event on.
struct Watcher {
    from: u64,
    reply: Reply<Vec<(u64, RunEvent)>>,
}

/// The runs of a shard.
#[derive(Default)]
pub(crate) struct Runs {
    active: HashMap<RunId, Active>,
    runnable: VecDeque<RunId>,
    queued: BTreeSet<RunId>,
    wakes: BTreeSet<(Millis, RunId)>,
    /// Durable commits whose commands are to be performed, in order.
    performing: VecDeque<RunEffect>,
    tasks: BTreeMap<(RunId, u16, u32), Task>,
    /// Marks of answers that were given to runs in this turn: raised when the ends are written.
    marks: Vec<(Writes, Vec<Effect>)>,
    waiters: HashMap<RunId, Vec<Reply<RunEnd>>>,
    watchers: HashMap<RunId, Vec<Watcher>>,
    /// Definitions at hand, by the hash of their bytes.
    definitions: HashMap<Hash32, Arc<Compiled>>,
    /// Ready rows of runs that have left memory and are in flight all the same.
    left_ready: HashMap<RunId, u64>,
    /// Runs that were in flight when the last owner ended and have not come in since, and their ready rows.
    to_recover: HashMap<RunId, u64>,
    /// The same, in the order in which they come.
    in_line: VecDeque<RunId>,
    /// Runs whose rows do not fit each other, and how.
    damaged: HashMap<RunId, VerbError>,
    /// Who waits until it is written that an attempt ended: run, stage, item, attempt.
    told: HashMap<(RunId, u16, u32, u32), Told>,
}

impl Runs {
    /// When a run wants a turn although nothing happens.
    pub(crate) fn next_due(&self) -> Option<Millis> {
        if self.has_work() { Some(Millis(0)) } else { self.wakes.first().map(|wake| wake.0) }
    }

    /// Whether a run wants a turn now.
    pub(crate) fn has_work(&self) -> bool {
        !self.runnable.is_empty() || !self.performing.is_empty() || !self.in_line.is_empty()
    }

    /// Whether something that is durable waits to be done.
    pub(crate) fn performs(&self) -> bool {
        !self.performing.is_empty()
    }

    /// Runs in memory, and attempts of their tasks.
    pub(crate) fn census(&self) -> (usize, usize) {
        (self.active.len(), self.tasks.len())
    }

    fn enqueue(&mut self, run: RunId) {
        if self.queued.insert(run) {
            self.runnable.push_back(run);
        }
    }

    pub(crate) fn tell(&mut self, run: RunId, input: RunInput) {
        if let Some(active) = self.active.get_mut(&run) {
            active.inputs.push_back(input);
            self.enqueue(run);
        }
    }
}
