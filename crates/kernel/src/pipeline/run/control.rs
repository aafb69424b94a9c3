//! What comes from outside: ends, signals, answers, and the verbs of people.

use super::effects::{Again, Effects, Retry, Room, RunInput, RunRefused};
use super::{Out, Run};
use crate::machine::{RUN, RunEvent, RunState, TaskEvent};
use crate::record::run::{FALLBACK_ITEM, Paused, task_key};
use crate::time::Millis;

impl Run {
    /// Takes one input. Many can go into one commit: one adds at most [`Run::most_ops_of_an_end`] operations. What is
    /// refused changes nothing. Afterwards, once for all that go into a commit, comes [`Run::advance`].
    pub fn apply(&mut self, input: RunInput, now: Millis) -> Result<Effects, RunRefused> {
        let mut out = Out { effects: Effects::default(), room: Room::WHOLE };
        match input {
            RunInput::TaskEnded { stage, item, attempt, result } => {
                self.task_ended((usize::from(stage), item, attempt), result, now, &mut out);
            }
            RunInput::Answered { stage, item, attempt, result } => {
                self.answered((usize::from(stage), item, attempt), result, now, &mut out);
            }
            RunInput::NoExecutor { stage, item, attempt, reason } => self.no_executor((usize::from(stage), item, attempt), reason, &mut out),
            RunInput::Admitted { stage, item, number } => self.admitted(usize::from(stage), item, number),
            RunInput::Recalled { stage, item } => self.recalled(usize::from(stage), item, &mut out),
            RunInput::Unblock => {
                if self.header.blocked.take().is_some() {
                    self.dirty = true;
                    if self.header.state == RunState::Blocked {
                        self.run_event(RunEvent::Unblock, None);
                    }
                }
            }
            RunInput::Line(says) => self.line_says(says, now, &mut out),
            RunInput::TimerFired => {
                if self.header.timer.is_some_and(|at| at <= now) {
                    self.dirty = true;
                }
            }
            RunInput::Signal { name, payload } => self.signal(name, payload, &mut out)?,
            RunInput::Decision { approval, decider, answer, comment } => self.decision(approval, (decider, answer), comment, now)?,
            RunInput::Cancel { by } => {
                RUN.next(self.header.state, RunEvent::Cancel)?;
                match &self.annex.ending {
                    Some(ending) if !ending.cancelled => return Err(RunRefused::Compensating { done: ending.done, all: ending.order.len() }),
                    Some(_) => return Ok(out.effects),
                    None => {}
                }
                self.end_run(RunEvent::Cancel, Some(format!("cancelled by {by}")), now, &mut out);
            }
            RunInput::Pause { by } => {
                RUN.next(self.header.state, RunEvent::Pause)?;
                self.run_event(RunEvent::Pause, Some(format!("paused by {by}")));
                self.header.paused = Some(Paused { by, since: now });
            }
            RunInput::Resume => {
                RUN.next(self.header.state, RunEvent::Resume)?;
                self.run_event(RunEvent::Resume, None);
                self.header.paused = None;
                if let Some(reason) = self.header.blocked.clone() {
                    self.run_event(RunEvent::Block, Some(reason));
                }
            }
            RunInput::RetryFailed => self.retry(&Retry { from: None, tasks: Again::All }, now)?,
            RunInput::Retry(retry) => self.retry(&retry, now)?,
        }
        out.effects.requests = self.readings.asked();
        Ok(out.effects)
    }

    fn no_executor(&mut self, (stage, item, attempt): (usize, u32, u32), reason: String, out: &mut Out) {
        if !self.is_running(stage, item, attempt) {
            return;
        }
        let low = self.header.stages[stage].low;
        let memory = &mut self.stages[stage];
        if let Some(slot) = super::dispatch::slot_mut(memory, low, item) {
            slot.take(TaskEvent::Lost);
            slot.attempts = slot.attempts.saturating_sub(1);
            slot.sent_before = std::mem::take(&mut slot.resent);
            if slot.attempts == 0 && !slot.sent_before && slot.first_at.take().is_some() {
                // It was not begun: the row of its start, if there is one, goes.
                out.effects.deletes.push(task_key(self.id, stage as u16, item));
            }
        }
        super::dispatch::stopped(memory, low, item);
        if item != FALLBACK_ITEM {
            memory.due.insert(item);
        }
        self.dirty = true;
        if matches!(self.header.state, RunState::Running | RunState::Waiting) {
            self.run_event(RunEvent::Block, Some(reason.clone()));
        }
        self.header.blocked = Some(reason);
    }
}
