//! What was done is undone when the run fails or is cancelled: stage by stage, the last one first, each by a stage of the
//! plan whose tasks are the finished tasks of the stage that it undoes, in reverse order. They are dispatched, retried,
//! throttled and taken up after a crash as all others are.

use bytes::Bytes;

use super::effects::{Ask, Command, RunDamaged};
use super::end::bounded;
use super::memory::Slot;
use super::read::{PAGE_ROWS, Progress, Target, decode};
use super::{Out, Run};
use crate::error::WorkError;
use crate::id::Key;
use crate::machine::{RunEvent, RunState, StageEvent, StageState, TaskEvent, TaskState};
use crate::pipeline::definition::{Mode, OnFailure};
use crate::pipeline::expression::{Doc, Scope};
use crate::record::run::{Ending, FALLBACK_ITEM, Happening, Phase, Stored, TaskEnd, TaskRow, item_of_task_key, task_key};
use crate::time::Millis;

/// What could not be undone and is told one by one.
const TOLD: usize = 10;

impl Run {
    /// Remembers that a stage finished, if something undoes it.
    pub(super) fn note_finished(&mut self, stage: usize) {
        if self.compiled.stages[stage].undo.is_some() && !self.annex.finished.contains(&(stage as u16)) {
            self.annex.finished.push(stage as u16);
            self.annex_changed = true;
        }
    }

    /// The stages of the plan that undo what was done: those that were at work first, then the finished ones, the last
    /// one first.
    fn to_undo(&self) -> Vec<u16> {
        let began = |stage: usize| self.undo_total(stage) > 0;
        // One that is completed and did not finish here was taken over from another run, whose it is.
        let here = |stage: usize| !self.annex.finished.contains(&(stage as u16)) && self.header.stages[stage].state != StageState::Completed;
        let at_work = (0..self.compiled.definition.stages.len()).rev().filter(|stage| began(*stage) && here(*stage));
        let finished = self.annex.finished.iter().rev().map(|stage| usize::from(*stage)).filter(|stage| began(*stage));
        at_work.chain(finished).filter_map(|stage| self.compiled.stages[stage].undo).collect()
    }

    /// Begins to undo; false if there is nothing to undo, and the run can end at once.
    pub(super) fn begin_undoing(&mut self, event: RunEvent, reason: Option<String>, out: &mut Out) -> bool {
        let order = self.to_undo();
        if order.is_empty() {
            return false;
        }
        for stage in 0..self.compiled.definition.stages.len() {
            if !self.may_do(stage) {
                self.drop_stage(stage, out);
            }
        }
        match self.header.state {
            RunState::Paused => self.run_event(RunEvent::Resume, None),
            RunState::Blocked => self.run_event(RunEvent::Unblock, None),
            RunState::Waiting => self.run_event(RunEvent::Wake, None),
            _ => {}
        }
        (self.header.paused, self.header.blocked, self.header.deadline) = (None, None, None);
        let why = reason.clone().unwrap_or_default();
        self.happened.push(Happening::Run { state: self.header.state, reason: Some(format!("undoes what {} stages did: {why}", order.len())) });
        let cancelled = event == RunEvent::Cancel;
        self.annex.ending = Some(Ending { cancelled, reason, order, done: 0, troubles: Vec::new(), failed: 0 });
        self.annex_changed = true;
        self.dirty = true;
        // Whoever ends the run may be past the point at which a turn looks at its stages.
        out.effects.more = true;
        true
    }

    /// Whether an attempt of a stage that is undone may do something yet, or may have done it: its end is awaited.
    pub(super) fn may_do(&self, stage: usize) -> bool {
        let (at, memory, plan) = (&self.header.stages[stage], &self.stages[stage], &self.compiled.stages[stage]);
        if plan.undo.is_none() || self.undo_total(stage) == 0 || at.state != StageState::Running || !matches!(at.phase, Phase::Tasks | Phase::Fallback) {
            return false;
        }
        !memory.loaded || memory.running > 0 || memory.slots.iter().chain(&memory.fallback).any(Slot::is_unknown)
    }

    /// Whether a stage ends what it has begun, and begins nothing, because the run undoes.
    pub(super) fn lets_end(&self, stage: usize) -> bool {
        self.annex.ending.is_some() && stage < self.compiled.definition.stages.len() && self.header.stages[stage].state == StageState::Running
    }

    /// Whether something of the definition is to end before anything is undone.
    fn all_let_end(&self) -> bool {
        (0..self.compiled.definition.stages.len()).any(|stage| self.lets_end(stage))
    }

    /// One look at a stage that ends what it has begun: calls are asked to end, and what an earlier process may have started
    /// is started again, under the same key and by its retry policy, because only its end says what is to be undone. Whether it
    /// was the last look.
    pub(super) fn let_end(&mut self, stage: usize, now: Millis, out: &mut Out) -> bool {
        if !self.stages[stage].loaded {
            return false;
        }
        self.due_again(stage, now);
        let memory = &mut self.stages[stage];
        let low = self.header.stages[stage].low;
        let began = |item: &u32| match *item {
            FALLBACK_ITEM => memory.fallback.as_ref().is_some_and(Slot::was_begun),
            item => item.checked_sub(low).and_then(|place| memory.slots.get(place as usize)).is_some_and(Slot::was_begun),
        };
        // How the attempt before ended is known of those that wait for their next one here.
        memory.retries.retain(|(_, item)| began(item));
        memory.due.retain(began);
        if memory.borrows() && memory.asked.keys().chain(&memory.passed).chain(&memory.admitted).any(|item| !began(item)) {
            self.give_back(stage, out);
            return true;
        }
        let memory = &mut self.stages[stage];
        if memory.running > 0 && !std::mem::replace(&mut memory.told_to_end, true) {
            out.effects.commands.push(Command::EndCalls { stage: stage as u16 });
            self.dirty = true;
        }
        if memory.running > 0
            || memory.borrows()
            || !memory.due.is_empty()
            || !memory.retries.is_empty()
            || memory.fallback.as_ref().is_some_and(Slot::is_unknown)
        {
            return false;
        }
        let (at, memory) = (&self.header.stages[stage], &self.stages[stage]);
        let fails = !matches!(self.definition(stage).on_failure, OnFailure::Continue { .. });
        let fallback = memory.fallback.as_ref().map(|slot| slot.state);
        let whole = match at.phase {
            Phase::Fallback => fallback == Some(TaskState::Completed),
            _ => at.low == at.total && !(fails && at.failed > 0) && at.error.is_none(),
        };
        match at.error.as_ref().map(ToString::to_string) {
            _ if whole => self.complete_stage(stage),
            Some(error) if at.phase != Phase::Fallback || fallback == Some(TaskState::Failed) => self.stage_event(stage, StageEvent::Fail, Some(error)),
            _ => {}
        }
        self.drop_stage(stage, out);
        true
    }

    /// Whether a stage may begin: while a run undoes, only the one whose turn it is.
    pub(super) fn may_begin(&self, stage: usize) -> bool {
        match &self.annex.ending {
            None => stage < self.compiled.definition.stages.len(),
            Some(_) if self.all_let_end() => false,
            Some(ending) => ending.order.get(ending.done as usize) == Some(&(stage as u16)),
        }
    }

    /// Goes on to the next stage to undo, and ends the run after the last one.
    pub(super) fn undo_next(&mut self, now: Millis, out: &mut Out) -> bool {
        let held = self.held();
        let Some(ending) = &mut self.annex.ending else { return false };
        let over = ending.order.get(ending.done as usize).is_none_or(|stage| self.header.stages[usize::from(*stage)].state.ended());
        if !over || held {
            return false;
        }
        if (ending.done as usize) < ending.order.len() {
            ending.done += 1;
            self.annex_changed = true;
            self.dirty = true;
            return true;
        }
        let Ending { cancelled, reason, troubles, failed, .. } = ending.clone();
        if failed > 0 {
            let text = format!("{failed} of what it did could not be undone, see to it by hand: {}", troubles.join("; "));
            let error = match self.header.error.take() {
                Some(error) if !cancelled => WorkError::new(error.code, format!("{}; and {text}", error.message)),
                _ => WorkError::new("compensation", text),
            };
            self.header.error = Some(error);
        }
        let event = if cancelled { RunEvent::Cancel } else { RunEvent::Fail };
        let reason = if cancelled { reason } else { self.header.error.as_ref().map(ToString::to_string).or(reason) };
        self.end_run(event, reason, now, out);
        true
    }

    /// Keeps that something could not be undone.
    pub(super) fn note_trouble(&mut self, stage: usize, item: u32, error: &WorkError) {
        let Mode::Undo { of } = self.definition(stage).mode else { return };
        let name = self.definition(usize::from(of)).name.clone();
        let wide = self.definition(usize::from(of)).has_items();
        let place = if item == FALLBACK_ITEM || !wide { String::new() } else { format!(", item {}", self.undone_item(stage, item)) };
        if let Some(ending) = &mut self.annex.ending {
            ending.failed += 1;
            if ending.troubles.len() < TOLD {
                ending.troubles.push(bounded(WorkError::new("", format!("stage `{name}`{place}: {error}"))).message);
            }
            self.annex_changed = true;
        }
    }

    /// How many tasks of a stage may have finished.
    pub(super) fn undo_total(&self, of: usize) -> u32 {
        let at = &self.header.stages[of];
        let began = at.cursor.max(at.visited);
        match self.definition(of).mode {
            _ if self.gave_way(of) => 1,
            // What was mapped is undone; what reduces gives nothing but its output.
            Mode::MapReduce { .. } => began.min(super::reduce::mapped(at)),
            _ => began,
        }
    }

    /// Whether the output of a stage with one task is that of its fallback: this is what is undone then.
    fn gave_way(&self, of: usize) -> bool {
        self.header.stages[of].phase == Phase::Fallback && !self.definition(of).has_items()
    }

    /// The task that a task undoes: the last one first.
    pub(super) fn undone_item(&self, stage: usize, item: u32) -> u32 {
        if let Mode::Undo { of } = self.definition(stage).mode
            && self.gave_way(usize::from(of))
        {
            return FALLBACK_ITEM;
        }
        self.header.stages[stage].total.saturating_sub(1).saturating_sub(item)
    }

    /// Sets `item` and `output` of the task that is undone: none while rows are on their way, false if it never finished.
    pub(super) fn undo_scope(&mut self, stage: usize, item: u32, scope: &mut Scope) -> Result<Option<bool>, WorkError> {
        let Mode::Undo { of } = self.definition(stage).mode else { return Ok(Some(true)) };
        let original = self.undone_item(stage, item);
        let page = original / PAGE_ROWS as u32;
        if self.stages[stage].page != Some(page) {
            let first = page * PAGE_ROWS as u32;
            let end = first.checked_add(PAGE_ROWS as u32).map_or_else(|| self.after_tasks(of), |end| task_key(self.id, of, end));
            let range = task_key(self.id, of, first)..end;
            self.readings.begin(Target::Undone(stage as u16, page), Progress::Plain, Ask::Scan { range, limit: PAGE_ROWS });
            return Ok(None);
        }
        let Some(TaskEnd::Completed { output }) = self.stages[stage].old.get(&original).map(|row| row.end.clone()) else {
            return Ok(Some(false));
        };
        let output = match output {
            Stored::Inline(bytes) => Doc::parse(&bytes).map_err(|error| super::begin::expression_error("output", &error))?,
            Stored::Chunked { seal, len } => {
                let Some(output) = self.stages[stage].groups.get(&item).cloned() else {
                    self.readings.begin(Target::UndoneOutput(stage as u16, item), Progress::Plain, Ask::Payload { seal, len });
                    return Ok(None);
                };
                output
            }
        };
        let Some(bytes) = self.item_bytes(stage, item) else { return Ok(None) };
        // Pieces far behind this one are not needed any more, but for a task that is tried again.
        let pieces = &mut self.stages[usize::from(of)].pieces;
        while pieces.len() > 12 {
            pieces.pop_last();
        }
        scope.set("item", Doc::parse(&bytes).map_err(|error| super::begin::expression_error("item", &error))?);
        scope.set("output", output);
        Ok(Some(true))
    }

    pub(super) fn take_undone(&mut self, stage: u16, page: u32, rows: &[(Key, Bytes)]) -> Result<Option<Ask>, RunDamaged> {
        let Mode::Undo { of } = self.definition(usize::from(stage)).mode else { return Ok(None) };
        let fresh = self.fresh(usize::from(of));
        let memory = &mut self.stages[usize::from(stage)];
        memory.old.clear();
        memory.page = Some(page);
        for (key, value) in rows {
            let row: TaskRow = decode("task", value)?;
            // What an earlier round of the run did was undone then.
            if let Some(item) = item_of_task_key(key).filter(|_| row.round >= fresh) {
                memory.old.insert(item, row);
            }
        }
        Ok(None)
    }

    /// Ends a task that has nothing to undo: it leaves no row.
    pub(super) fn pass_over(&mut self, stage: usize, item: u32) {
        let low = self.header.stages[stage].low;
        let memory = &mut self.stages[stage];
        memory.due.remove(&item);
        if let Some(slot) = super::dispatch::slot_mut(memory, low, item) {
            slot.take(TaskEvent::Start);
            slot.take(TaskEvent::Complete);
        }
        self.header.stages[stage].done += 1;
        self.touched.insert(stage as u16);
        self.dirty = true;
        self.slide(stage);
    }
}
