//! Runs, their stages, their tasks and what happened to them.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;

use super::approvals::ApprovalDecision;
use super::waiting::Waiting;
use super::{Caller, WorkError};

/// A run, as lists show it.
#[derive(ToSchema)]
pub(crate) struct RunSummary {
    /// `run_…`.
    id: String,
    /// Its pipeline.
    pipeline: String,
    /// Where it is.
    status: RunStatus,
    /// When it was accepted.
    #[schema(format = DateTime)]
    started_at: String,
    /// The same in milliseconds since 1970.
    started_at_ms: u64,
    /// When it ended.
    #[schema(required, format = DateTime)]
    ended_at: Option<String>,
    /// What its pipeline names so, each a text, a number or a truth value.
    attributes: BTreeMap<String, Value>,
}

/// Where a run is.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum RunStatus {
    /// Accepted; nothing of it was looked at.
    Pending,
    /// A task of it runs or can run.
    Running,
    /// It waits for a time, a person or a signal alone.
    Waiting,
    /// Somebody stopped it for a while.
    Paused,
    /// It cannot go on until someone changes something.
    Blocked,
    /// It ended well.
    Completed,
    /// It ended badly.
    Failed,
    /// It was told to end.
    Cancelled,
}

/// A run of a pipeline, stage by stage.
#[derive(ToSchema)]
pub(crate) struct Run {
    /// `run_…`.
    id: String,
    /// Its pipeline.
    pipeline: String,
    /// The version of its definition.
    version: String,
    /// Where it is.
    status: RunStatus,
    /// When it was accepted.
    #[schema(format = DateTime)]
    started_at: String,
    /// When it ended.
    #[schema(required, format = DateTime)]
    ended_at: Option<String>,
    /// In the order of the definition.
    stages: Vec<Stage>,
    /// What it waits for; empty once it has ended.
    waiting: Vec<Waiting>,
    /// There while it undoes what it did.
    #[schema(nullable = false)]
    undoes: Option<Undoes>,
    /// Why it failed.
    #[schema(required)]
    error: Option<WorkError>,
    /// Why it is where it is.
    sentence: String,
    /// Why it ended, where somebody said so.
    #[schema(required)]
    reason: Option<String>,
    /// Who asked for it.
    #[schema(nullable = false)]
    caller: Option<Caller>,
    /// Tasks that failed, the first hundred.
    failures: Vec<TaskFailure>,
    /// How many more failed.
    more_failures: u64,
    /// What it gave, any JSON, if it has completed.
    output: Option<Value>,
}

/// A stage of a run.
#[derive(ToSchema)]
pub(crate) struct Stage {
    /// Its name.
    name: String,
    /// Where it is.
    status: StageStatus,
    /// Tasks in all, 0 while unknown.
    total: u64,
    /// Tasks that ended, failed ones included.
    done: u64,
    /// Tasks that failed.
    failed: u64,
    /// Attempts that run now.
    running: u64,
    /// Tasks that wait for their next attempt.
    retrying: u64,
    /// The id of the approval that it asks for, if it asks for one.
    #[schema(required)]
    approval: Option<String>,
    /// How its approval was answered, if it was.
    #[schema(required)]
    decision: Option<ApprovalDecision>,
    /// Why it failed, or why its fallback ran.
    #[schema(required)]
    error: Option<WorkError>,
}

/// Where a stage is.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum StageStatus {
    /// A stage before it has not ended.
    Pending,
    /// All before it have ended.
    Ready,
    /// It runs, or waits.
    Running,
    /// It has its output.
    Completed,
    /// Its `when` was false.
    Skipped,
    /// It failed, and the run with it.
    Failed,
    /// The run ended before it did.
    Cancelled,
}

/// How far a run has undone what it did.
#[derive(ToSchema)]
pub(crate) struct Undoes {
    /// Why.
    because: String,
    /// Stages that are undone.
    done: u64,
    /// Stages to undo.
    of: u64,
}

/// A task that failed.
#[derive(ToSchema)]
pub(crate) struct TaskFailure {
    /// Of which stage.
    stage: String,
    /// Its number in that stage.
    item: u64,
    /// Attempts made.
    attempts: u64,
    /// Why.
    error: WorkError,
    /// When.
    #[schema(format = DateTime)]
    at: String,
}

/// A page of the tasks of a run.
#[derive(ToSchema)]
pub(crate) struct TaskPage {
    /// In the order of its stages.
    tasks: Vec<Task>,
    /// The cursor of the next page; null: this is the last.
    #[schema(required)]
    next: Option<String>,
}

/// A task of a run.
#[derive(ToSchema)]
pub(crate) struct Task {
    /// Its stage.
    stage: String,
    /// Its number in that stage; null of the one that `on_failure: {call}` runs.
    #[schema(required)]
    item: Option<u64>,
    /// What it is called where people read it.
    name: String,
    /// Where it is.
    status: TaskStatus,
    /// Attempts so far, one that runs included.
    attempts: u64,
    /// When its first attempt began.
    #[schema(required, format = DateTime)]
    started_at: Option<String>,
    /// When it ended.
    #[schema(required, format = DateTime)]
    ended_at: Option<String>,
    /// Why it failed, or why its last attempt did.
    #[schema(required)]
    error: Option<WorkError>,
    /// What it waits for beside what its run waits for.
    waiting: Vec<Waiting>,
}

/// Where a task is.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum TaskStatus {
    /// It has not been looked at yet.
    Pending,
    /// It can start, or waits for a limit.
    Queued,
    /// An attempt runs, or waits for a worker.
    Running,
    /// An attempt has failed, and the next one has its time.
    Retrying,
    /// It gave an output.
    Completed,
    /// No attempt helps.
    Failed,
    /// Its stage ended before it did.
    Cancelled,
}

/// A run that takes over what another one did well.
#[derive(ToSchema)]
pub(crate) struct RunFork {
    /// The new one.
    id: String,
    /// The other one.
    forked_from: String,
    /// The stages that it took over; null if it was there already.
    #[schema(required)]
    taken: Option<Vec<String>>,
}
