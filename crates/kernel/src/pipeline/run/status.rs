//! What people see of a run.

use serde::{Deserialize, Serialize};

use std::collections::BTreeSet;

use super::memory::StageMemory;
use super::{Run, child_id};
use crate::auth::AuthorizationContext;
use crate::error::WorkError;
use crate::id::RunId;
use crate::machine::{ApprovalState, BreakerState, RunState, StageState, TaskState};
use crate::pipeline::compiled::CompiledCall;
use crate::pipeline::definition::Mode;
use crate::pipeline::shared::SharedBreaker;
use crate::record::line::LineId;
use crate::record::run::{FALLBACK_ITEM, Phase, StageHeader, Stored, Wait};
use crate::time::Millis;
use crate::waiting::Waiting;

/// Shared limits that one stage says it waits for.
const LIMITS_SHOWN: usize = 16;

/// A run as `runs show` and `why` print it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RunStatus {
    /// `run_…`.
    pub id: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The version of its definition.
    pub version: String,
    /// Where it is.
    pub state: RunState,
    /// When it was accepted.
    pub started_at: Millis,
    /// When it ended.
    pub ended_at: Option<Millis>,
    /// In the order of the definition.
    pub stages: Vec<StageStatus>,
    /// What it waits for; empty when it has ended.
    pub waiting: Vec<Waiting>,
    /// Set while it undoes what it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<Undoes>,
    /// Why it failed.
    pub error: Option<WorkError>,
    /// Who asked for it, and through whom.
    #[serde(skip)]
    pub caller: Option<AuthorizationContext>,
    /// Commits so far: the number of its next event.
    #[serde(skip)]
    pub commits: u64,
    /// Where the output of a completed run is.
    #[serde(skip)]
    pub output: Option<Stored>,
}

/// How far a run has undone what it did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Undoes {
    /// Why: `cancelled by …`, or the error it failed with.
    pub because: String,
    /// Stages that are undone.
    pub done: u32,
    /// Stages to undo.
    pub of: u32,
}

/// A stage as it is printed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StageStatus {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub state: StageState,
    /// Since when it runs.
    #[serde(skip)]
    pub since: Millis,
    /// Tasks in all, 0 while unknown.
    pub total: u32,
    /// Tasks that ended, failed ones included.
    pub done: u32,
    /// Tasks that failed.
    pub failed: u32,
    /// Attempts that run now.
    pub running: u32,
    /// Tasks that wait for their next attempt.
    pub retrying: u32,
    /// The id of the approval that it asks for, if it has one.
    pub approval: Option<String>,
    /// How its approval was answered, if it was.
    #[serde(default)]
    pub decision: Option<Decision>,
    /// Why it failed, or why its fallback ran.
    pub error: Option<WorkError>,
}

/// The answer to an approval.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Decision {
    /// `approved`, `rejected`, `expired`, …
    pub status: ApprovalState,
    /// Who answered.
    pub by: String,
    /// When.
    pub at: Option<Millis>,
    /// What they said.
    pub comment: Option<String>,
}

/// A task as people read it: its stage, with its number where the stage has more than one.
///
/// ```
/// use selvedge_kernel::pipeline::run::task_name;
/// assert_eq!(task_name("head", 3, 10), "head[3]");
/// assert_eq!(task_name("report", 0, 1), "report");
/// ```
#[must_use]
pub fn task_name(stage: &str, item: u32, tasks: u32) -> String {
    match item {
        FALLBACK_ITEM => format!("{stage} (on_failure)"),
        0 if tasks == 1 => stage.to_owned(),
        _ => format!("{stage}[{item}]"),
    }
}

impl Run {
    /// The run as it is now.
    #[must_use]
    pub fn status(&self) -> RunStatus {
        let header = &self.header;
        let real = self.compiled.definition.stages.len();
        let shown = |(stage, (_, at)): &(usize, (&StageMemory, &StageHeader))| *stage < real || at.state != StageState::Pending;
        let stages = self.stages.iter().zip(&header.stages).enumerate().filter(shown).map(|(stage, (memory, at))| StageStatus {
            name: self.definition(stage).name.clone(),
            state: at.state,
            since: at.since,
            total: at.total,
            done: at.done,
            failed: at.failed,
            running: memory.running,
            retrying: memory.retries.len() as u32,
            approval: match &at.wait {
                Some(Wait::Approval { id, .. }) => Some(id.to_string()),
                _ => None,
            },
            decision: match &at.wait {
                Some(Wait::Approval { state, by: Some(by), at, comment, .. }) => {
                    Some(Decision { status: *state, by: by.clone(), at: *at, comment: comment.clone() })
                }
                _ => None,
            },
            error: at.error.clone(),
        });
        RunStatus {
            caller: Some(self.context().clone()),
            id: self.id.to_string(),
            pipeline: header.pipeline.clone(),
            version: self.compiled.version.clone(),
            state: header.state,
            started_at: header.started_at,
            ended_at: header.ended_at,
            stages: stages.collect(),
            waiting: self.waiting(),
            undoes: self.annex.ending.as_ref().filter(|_| !header.state.ended()).map(|ending| Undoes {
                because: ending.reason.clone().unwrap_or_default(),
                done: ending.done,
                of: ending.order.len() as u32,
            }),
            error: header.error.clone(),
            commits: header.commits,
            output: header.output.clone(),
        }
    }

    /// What the run waits for. A run that has not ended waits for something.
    #[must_use]
    pub fn waiting(&self) -> Vec<Waiting> {
        let header = &self.header;
        if header.state.ended() {
            return Vec::new();
        }
        let mut waiting = Vec::new();
        if let (RunState::Paused, Some(paused)) = (header.state, &header.paused) {
            waiting.push(Waiting::Paused { by: paused.by.clone(), since: paused.since });
        }
        if let Some(reason) = &header.blocked {
            waiting.push(Waiting::Blocked { reason: reason.clone() });
        }
        if let (true, Some(line), Some(holder)) = (self.in_line(), &self.annex.line, self.line_holder) {
            waiting.push(Waiting::RunLimit { key: LineId::value(&line.key).to_owned(), holder });
        }
        for stage in 0..self.stages.len() {
            if header.stages[stage].state == StageState::Running {
                self.stage_waits(stage, &mut waiting);
            }
        }
        if waiting.is_empty() {
            waiting.push(if self.dirty { Waiting::Commit } else { Waiting::Turn { position: 0 } });
        }
        waiting
    }

    /// The runs that tasks of a stage wait for, the first ten.
    fn children(&self, stage: usize) -> Vec<RunId> {
        let (at, memory) = (&self.header.stages[stage], &self.stages[stage]);
        let slots =
            memory.slots.iter().enumerate().map(|(place, slot)| (at.low + place as u32, slot)).chain(memory.fallback.iter().map(|slot| (FALLBACK_ITEM, slot)));
        let calls = |item: u32| self.task_of(&self.compiled, stage, item).is_some_and(|task| matches!(task.call, CompiledCall::Pipeline(_)));
        let running = slots.filter(|(item, slot)| slot.state == TaskState::Running && calls(*item));
        running.take(10).map(|(item, slot)| child_id(self.id, &self.header.tenant, (stage as u16, item, slot.attempts), at.round)).collect()
    }

    fn stage_waits(&self, stage: usize, waiting: &mut Vec<Waiting>) {
        let (at, memory) = (&self.header.stages[stage], &self.stages[stage]);
        let name = self.definition(stage).name.clone();
        match (at.phase, &at.wait) {
            (Phase::Wait, Some(Wait::Until(until))) => waiting.push(Waiting::Timer { until: *until }),
            (Phase::Wait, Some(Wait::Signal { until })) => {
                if let Mode::WaitSignal { signal } = &self.definition(stage).mode {
                    waiting.push(Waiting::Signal { name: signal.clone(), until: *until });
                }
            }
            (Phase::Wait, Some(Wait::Approval { state: ApprovalState::Open | ApprovalState::Escalated, expires, .. })) => {
                let assignees = self.assignees(stage).to_vec();
                waiting.push(Waiting::Approval { stage: name, assignees, expires: *expires });
            }
            (Phase::Tasks | Phase::Fallback, _) => {
                for child in self.children(stage) {
                    waiting.push(Waiting::ChildRun { stage: name.clone(), run: child });
                }
                if memory.running > 0 {
                    waiting.push(Waiting::Tasks { stage: name.clone(), done: u64::from(at.done), total: u64::from(at.total) });
                }
                if let Some((again, item)) = memory.retries.first() {
                    let slot = match memory.fallback.as_ref() {
                        Some(slot) => Some(slot),
                        None => item.checked_sub(at.low).and_then(|place| memory.slots.get(place as usize)),
                    };
                    let last_error = slot.and_then(|slot| slot.failures.last()).map_or_else(String::new, |failure| failure.error.to_string());
                    let attempt = slot.map_or(1, |slot| slot.attempts + 1);
                    waiting.push(Waiting::RetryAt { name: task_name(&name, *item, at.total), attempt, at: *again, last_error, of: None });
                }
                let limits: BTreeSet<&str> = memory.asked.values().map(|(_, limit)| limit.key.as_str()).collect();
                waiting.extend(limits.into_iter().take(LIMITS_SHOWN).map(|limit| match limit.strip_prefix(SharedBreaker::OF) {
                    // Whoever knows the breaker says what it is.
                    Some(target) => Waiting::Breaker { target: target.to_owned(), state: BreakerState::Closed, since: None, until: None },
                    None => Waiting::Throttle { limit: limit.to_owned(), position: 0, lending: None },
                }));
                if self.wake.is_some() && self.definition(stage).throttle.is_some() {
                    let position = u64::from(at.total - at.cursor) + memory.due.len() as u64;
                    waiting.push(Waiting::Throttle { limit: format!("stage `{name}`"), position, lending: None });
                }
            }
            _ => {}
        }
    }
}
