//! What happened to a run, commit by commit.

use utoipa::ToSchema;

use super::WorkError;
use super::approvals::ApprovalState;
use super::runs::{RunStatus, StageStatus};

/// An event with its number: a pair.
#[derive(ToSchema)]
pub(crate) struct NumberedEvent(Vec<NumberOrEvent>);

/// Of a pair the number, then the event.
#[derive(ToSchema)]
#[serde(untagged)]
pub(crate) enum NumberOrEvent {
    /// Where it stands.
    Number(u64),
    /// What happened.
    Event(RunEvent),
}

/// What one commit of a run did.
#[derive(ToSchema)]
pub(crate) struct RunEvent {
    /// When, in milliseconds since 1970.
    at: u64,
    /// Where the run is now.
    state: RunStatus,
    /// Stages whose counts changed.
    progress: Vec<StageProgress>,
    /// What happened, in order.
    happened: Vec<Happening>,
}

/// The counts of a stage.
#[derive(ToSchema)]
pub(crate) struct StageProgress {
    /// Which stage.
    stage: String,
    /// Tasks ended.
    done: u64,
    /// Tasks failed.
    failed: u64,
    /// Tasks in all, 0 while unknown.
    total: u64,
}

/// One thing that happened: the name of the only field says what.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Happening {
    /// The run changed.
    Run(RunChanged),
    /// A stage changed.
    Stage(StageChanged),
    /// An attempt failed and another follows.
    Retrying(TaskRetrying),
    /// A task failed for good.
    TaskFailed(FailedTask),
    /// A person is asked.
    ApprovalOpened(OpenedApproval),
    /// An approval was answered, or its fallback did.
    ApprovalDecided(DecidedApproval),
    /// A signal came.
    Signal(ReceivedSignal),
}

/// The run changed.
#[derive(ToSchema)]
pub(crate) struct RunChanged {
    /// To what.
    state: RunStatus,
    /// Why, where there is a reason.
    #[schema(required)]
    reason: Option<String>,
}

/// A stage changed.
#[derive(ToSchema)]
pub(crate) struct StageChanged {
    /// Which.
    stage: String,
    /// To what.
    state: StageStatus,
    /// Why, where there is a reason.
    #[schema(required)]
    reason: Option<String>,
}

/// An attempt failed and another follows.
#[derive(ToSchema)]
pub(crate) struct TaskRetrying {
    /// Of which stage.
    stage: String,
    /// Which item.
    item: u64,
    /// Attempts made.
    attempts: u64,
    /// How the last one failed.
    error: WorkError,
    /// When the next one starts, in milliseconds since 1970.
    at: u64,
}

/// A task failed for good.
#[derive(ToSchema)]
pub(crate) struct FailedTask {
    /// Of which stage.
    stage: String,
    /// Which item.
    item: u64,
    /// Attempts made.
    attempts: u64,
    /// Why.
    error: WorkError,
}

/// A person is asked.
#[derive(ToSchema)]
pub(crate) struct OpenedApproval {
    /// By which stage.
    stage: String,
    /// The approval.
    id: String,
    /// Who.
    assignees: Vec<String>,
    /// Until when, in milliseconds since 1970.
    expires: u64,
}

/// An approval was answered, or its fallback did.
#[derive(ToSchema)]
pub(crate) struct DecidedApproval {
    /// Of which stage.
    stage: String,
    /// The approval.
    id: String,
    /// What it is now.
    state: ApprovalState,
    /// Who.
    by: String,
}

/// A signal came.
#[derive(ToSchema)]
pub(crate) struct ReceivedSignal {
    /// Its name.
    name: String,
    /// The stage that took it; null if it is kept.
    #[schema(required)]
    stage: Option<String>,
}
