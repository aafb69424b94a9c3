//! What a run knows of a stage besides its header: lost with the process, and read again from rows.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::effects::Work;
use crate::id::ActorId;
use crate::machine::{StageState, TASK, TaskEvent, TaskState};
use crate::pipeline::expression::Doc;
use crate::pipeline::throttle::Gate;
use crate::policy::Throttle;
use crate::record::run::{FailedAttempt, Phase, StageHeader, TaskEnd, TaskRow};
use crate::time::Millis;

/// A task between low mark and cursor.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub state: TaskState,
    /// When the next attempt starts, after a failed one.
    pub again: Option<Millis>,
    pub attempts: u32,
    pub earlier: u32,
    pub first_at: Option<Millis>,
    pub failures: Vec<FailedAttempt>,
    /// Of the attempt that runs.
    pub input_bytes: u64,
    /// Whether its next attempt may have been started by an earlier process.
    pub sent_before: bool,
    /// Whether an attempt of an earlier process, of which nobody knows how it ended, was started again in this one.
    pub resent: bool,
}

impl Slot {
    pub fn new() -> Slot {
        Slot {
            state: TaskState::Queued,
            again: None,
            attempts: 0,
            earlier: 0,
            first_at: None,
            failures: Vec::new(),
            input_bytes: 0,
            sent_before: false,
            resent: false,
        }
    }

    /// Moves on if the machine of a task lets it.
    pub fn take(&mut self, event: TaskEvent) -> bool {
        match TASK.next(self.state, event) {
            Ok(state) => {
                self.state = state;
                true
            }
            Err(_) => false,
        }
    }

    /// What a row says in this round: an end stays an end unless it is a failure of an earlier round.
    pub fn from_row(row: &TaskRow, round: u32) -> Slot {
        let mut slot = Slot {
            state: TaskState::Queued,
            again: None,
            attempts: row.attempts,
            earlier: row.earlier,
            first_at: Some(row.first_at),
            failures: row.failures.clone(),
            input_bytes: 0,
            sent_before: false,
            resent: false,
        };
        match &row.end {
            TaskEnd::Completed { .. } => slot.state = TaskState::Completed,
            _ if row.round != round => {
                slot.earlier = row.attempts;
                slot.first_at = None;
            }
            TaskEnd::Failed { .. } => slot.state = TaskState::Failed,
            TaskEnd::Again { at } => slot.again = Some(*at),
        }
        slot
    }

    /// Whether an attempt runs, or an earlier process may have started one of which nobody knows yet how it ended.
    pub fn is_unknown(&self) -> bool {
        self.state == TaskState::Running || self.was_begun()
    }

    /// Whether it does not run, and an earlier process may have started it.
    pub fn was_begun(&self) -> bool {
        self.state == TaskState::Queued && (self.sent_before || self.resent)
    }

    pub fn ended(&self) -> bool {
        matches!(self.state, TaskState::Completed | TaskState::Failed)
    }
}

/// The outputs of an ended stage, parsed.
#[derive(Clone, Debug)]
pub(super) struct StageDoc {
    /// One for each task, null where it failed.
    pub items: Vec<Doc>,
    /// Tasks that failed.
    pub failed: BTreeSet<u32>,
    pub output: Doc,
    pub failures: Doc,
}

/// A list that is being stored.
#[derive(Debug)]
pub(super) struct Expansion {
    pub list: Vec<Doc>,
    /// Of the list.
    pub at: usize,
    /// Of the items kept.
    pub kept: u32,
    pub piece: Vec<Bytes>,
    pub piece_bytes: usize,
    pub pieces_done: usize,
}

#[derive(Debug)]
pub(super) struct StageMemory {
    /// Whether the rows between low mark and cursor are known.
    pub loaded: bool,
    /// Tasks from the low mark to the cursor.
    pub slots: VecDeque<Slot>,
    /// The task of `on_failure: {call}`.
    pub fallback: Option<Slot>,
    /// Tasks below the cursor that can start.
    pub due: BTreeSet<u32>,
    /// Tasks that wait for their next attempt.
    pub retries: BTreeSet<(Millis, u32)>,
    pub running: u32,
    /// Inputs of the attempts that run.
    pub in_flight_bytes: u64,
    pub gate: Gate,
    pub pieces: BTreeMap<u32, Vec<Bytes>>,
    pub expansion: Option<Expansion>,
    /// Rows from before a retry of the run, for tasks before `old_to`.
    pub old: BTreeMap<u32, TaskRow>,
    pub old_to: u32,
    /// The next task, evaluated, while it waits for others to end because inputs in flight are bounded.
    pub prepared: Option<(u32, Work, Bytes)>,
    /// Members of groups, read for tasks about to start.
    pub groups: BTreeMap<u32, Doc>,
    /// Tasks that wait for a permit of a shared limit: the number under which it was asked for, and which limit.
    pub asked: BTreeMap<u32, (u64, ActorId)>,
    /// Tasks that their breaker lets through, and that have no permit of their limit yet.
    pub passed: BTreeSet<u32>,
    /// Tasks with a permit, about to start.
    pub admitted: BTreeSet<u32>,
    /// Whom tasks may have called in an earlier process.
    pub sent: BTreeMap<u32, Work>,
    /// The rows of the undone stage that `old` holds.
    pub page: Option<u32>,
    /// The output of the stage's only task, if it ended in this process and is small.
    pub only: Option<Bytes>,
    /// Whether whom it has called was asked to end, because the run undoes.
    pub told_to_end: bool,
}

impl StageMemory {
    /// What is known without any row: of a stage whose tasks were at work, not enough.
    pub fn new(throttle: Option<&Throttle>, header: &StageHeader) -> StageMemory {
        StageMemory {
            loaded: !(header.state == StageState::Running && matches!(header.phase, Phase::Tasks | Phase::Fallback)),
            slots: VecDeque::new(),
            fallback: None,
            due: BTreeSet::new(),
            retries: BTreeSet::new(),
            running: 0,
            in_flight_bytes: 0,
            gate: Gate::new(throttle.filter(|throttle| throttle.key.is_none()).cloned().unwrap_or_default(), &header.window),
            pieces: BTreeMap::new(),
            expansion: None,
            old: BTreeMap::new(),
            old_to: 0,
            prepared: None,
            groups: BTreeMap::new(),
            asked: BTreeMap::new(),
            passed: BTreeSet::new(),
            admitted: BTreeSet::new(),
            sent: BTreeMap::new(),
            page: None,
            only: None,
            told_to_end: false,
        }
    }

    /// Whether a task waits for a permit, or has one and has not started.
    pub fn borrows(&self) -> bool {
        !self.asked.is_empty() || !self.passed.is_empty() || !self.admitted.is_empty()
    }

    /// Forgets tasks; starts counted by the throttle stay counted.
    pub fn clear(&mut self) {
        self.slots = VecDeque::new();
        self.fallback = None;
        self.due = BTreeSet::new();
        self.retries = BTreeSet::new();
        self.running = 0;
        self.in_flight_bytes = 0;
        self.pieces = BTreeMap::new();
        self.expansion = None;
        self.old = BTreeMap::new();
        self.old_to = 0;
        self.prepared = None;
        self.groups = BTreeMap::new();
        self.asked = BTreeMap::new();
        self.passed = BTreeSet::new();
        self.admitted = BTreeSet::new();
        self.sent = BTreeMap::new();
        self.page = None;
        self.told_to_end = false;
    }
}
