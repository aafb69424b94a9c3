//! What people see of the tasks of a run, one by one.

use serde::{Deserialize, Serialize};

use super::memory::Slot;
use super::{Run, task_name};
use crate::error::WorkError;
use crate::machine::{BreakerState, StageState, TaskState};
use crate::pipeline::compiled::CompiledCall;
use crate::pipeline::shared::SharedBreaker;
use crate::record::run::{FALLBACK_ITEM, Phase, TaskEnd, TaskRow};
use crate::time::Millis;
use crate::waiting::Waiting;

/// A task as it is printed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TaskStatus {
    /// Its stage.
    pub stage: String,
    /// Its number in that stage; none of the one that `on_failure: {call}` runs.
    pub item: Option<u32>,
    /// What it is called where people read it.
    pub name: String,
    /// Where it is.
    pub status: TaskPlace,
    /// Attempts so far, one that runs included.
    pub attempts: u32,
    /// When its first attempt began.
    #[serde(with = "crate::time::text::optional")]
    pub started_at: Option<Millis>,
    /// When it ended.
    #[serde(with = "crate::time::text::optional")]
    pub ended_at: Option<Millis>,
    /// Why it failed, or why its last attempt did.
    pub error: Option<WorkError>,
    /// What it waits for beside what its run waits for.
    pub waiting: Vec<Waiting>,
}

/// Where a task is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskPlace {
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

impl Run {
    /// How many stages have tasks: those of the plan, the ones that undo others too.
    #[must_use]
    pub fn planned(&self) -> u16 {
        self.stages.len() as u16
    }

    /// How many tasks a stage has, as far as that is known.
    #[must_use]
    pub fn tasks_of(&self, stage: u16) -> u32 {
        self.header.stages.get(usize::from(stage)).map_or(0, |at| at.total)
    }

    /// A task as it is now, with its row if it has one; none where `on_failure: {call}` has not been called.
    #[must_use]
    pub fn task_status(&self, stage: u16, item: u32, row: Option<&TaskRow>) -> Option<TaskStatus> {
        let number = usize::from(stage);
        let (at, memory) = (self.header.stages.get(number)?, self.stages.get(number)?);
        let row = row.filter(|row| self.counts(number, row));
        let in_memory = match item {
            FALLBACK_ITEM => memory.fallback.as_ref(),
            _ => item.checked_sub(at.low).and_then(|place| memory.slots.get(place as usize)),
        };
        if item == FALLBACK_ITEM && row.is_none() && in_memory.is_none() && at.phase != Phase::Fallback {
            return None;
        }
        let read = row.map(|row| Slot::from_row(row, at.round));
        // A row that says the end is the end; before that, memory knows more than rows do.
        let slot = read.as_ref().filter(|slot| slot.ended()).or(in_memory).or(read.as_ref());
        let status = match slot.map(|slot| slot.state) {
            Some(TaskState::Completed) => TaskPlace::Completed,
            Some(TaskState::Failed) => TaskPlace::Failed,
            _ if !matches!(at.state, StageState::Pending | StageState::Running) => TaskPlace::Cancelled,
            Some(TaskState::Running) => TaskPlace::Running,
            Some(_) if slot.is_some_and(|slot| slot.again.is_some() && !slot.failures.is_empty()) => TaskPlace::Retrying,
            Some(_) => TaskPlace::Queued,
            None if item < at.cursor => TaskPlace::Queued,
            None => TaskPlace::Pending,
        };
        let failed = match row.map(|row| &row.end) {
            Some(TaskEnd::Failed { error, .. }) if status == TaskPlace::Failed => Some(error.clone()),
            _ => slot.filter(|_| status != TaskPlace::Completed).and_then(|slot| slot.failures.last()).map(|failure| failure.error.clone()),
        };
        let name = self.definition(number).name.clone();
        let mut shown = TaskStatus {
            name: task_name(&name, item, at.total),
            stage: name,
            item: (item != FALLBACK_ITEM).then_some(item),
            status,
            attempts: slot.map_or(0, |slot| slot.attempts),
            started_at: slot.and_then(|slot| slot.first_at),
            ended_at: row.filter(|_| matches!(status, TaskPlace::Completed | TaskPlace::Failed)).map(|row| row.at),
            error: failed,
            waiting: Vec::new(),
        };
        self.task_waits(stage, item, slot, &mut shown);
        Some(shown)
    }

    fn task_waits(&self, stage: u16, item: u32, slot: Option<&Slot>, shown: &mut TaskStatus) {
        let memory = &self.stages[usize::from(stage)];
        match (shown.status, slot) {
            (TaskPlace::Retrying, Some(Slot { again: Some(again), attempts, .. })) => {
                let last_error = shown.error.as_ref().map_or_else(String::new, WorkError::to_string);
                shown.waiting.push(Waiting::RetryAt { name: shown.name.clone(), attempt: attempts + 1, at: *again, last_error, of: None });
            }
            (TaskPlace::Running, Some(slot)) => {
                let task = self.task_of(&self.compiled, usize::from(stage), item);
                if task.is_some_and(|task| matches!(task.call, CompiledCall::Pipeline(_))) {
                    let (at, place) = (&self.header.stages[usize::from(stage)], (stage, item, slot.attempts));
                    let run = super::child_id(self.id, &self.header.tenant, place, at.round);
                    shown.waiting.push(Waiting::ChildRun { stage: shown.stage.clone(), run });
                }
            }
            _ => {}
        }
        let Some((_, limit)) = memory.asked.get(&item).filter(|_| shown.status == TaskPlace::Queued) else { return };
        shown.waiting.push(match limit.key.strip_prefix(SharedBreaker::OF) {
            Some(target) => Waiting::Breaker { target: target.to_owned(), state: BreakerState::Closed, since: None, until: None },
            None => Waiting::Throttle { limit: limit.key.clone(), position: 0, lending: None },
        });
    }
}
