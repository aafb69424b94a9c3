//! Starts attempts, as far as throttles and limits let them.

use bytes::Bytes;
use std::sync::Arc;

use super::begin::expression_error;
use super::effects::{Command, Dispatch, Work};
use super::end::{Outcome, row_of};
use super::memory::{Slot, StageMemory};
use super::{Out, Run};
use crate::error::WorkError;
use crate::id::{ActorId, effect_key};
use crate::limit::TASK_INPUT_BYTES;
use crate::machine::{StageState, TaskEvent, TaskState};
use crate::pipeline::compiled::{Compiled, CompiledCall, CompiledTask};
use crate::pipeline::definition::Mode;
use crate::pipeline::expression::{Doc, Scope};
use crate::pipeline::throttle::Admission;
use crate::policy::Timeout;
use crate::record::run::{FALLBACK_ITEM, Phase, TaskEnd, task_key};
use crate::time::Millis;
use crate::wire;

/// Starts of one turn.
const TURN_STARTS: usize = 64;

/// Inputs of the attempts of one run that run at once; a single one may be larger.
const IN_FLIGHT_BYTES: u64 = 32 * 1024 * 1024;

/// What a task needs to start.
pub(super) enum Prepared {
    /// Rows are on their way.
    Waits,
    /// There is nothing to undo.
    Nothing,
    /// All there.
    Ready(Work, Bytes),
}

impl Run {
    /// Starts what may start, stage by stage, another one first each time.
    pub(super) fn dispatch_all(&mut self, now: Millis, out: &mut Out) {
        let count = self.stages.len();
        let mut starts = TURN_STARTS;
        let undoes = self.annex.ending.is_some();
        let first = self.turn % count.max(1);
        self.turn = first + 1;
        for step in 0..count {
            let stage = (first + step) % count;
            let at = &self.header.stages[stage];
            if at.state != StageState::Running || !matches!(at.phase, Phase::Tasks | Phase::Fallback) {
                continue;
            }
            if let Err(error) = self.dispatch(stage, now, &mut starts, out) {
                self.fail_stage(stage, error, now, out);
                out.effects.more = true;
            }
            if self.header.state.ended() {
                return;
            }
            if self.annex.ending.is_some() != undoes {
                out.effects.more = true;
                return;
            }
            if starts == 0 {
                self.turn = stage + 1;
                out.effects.more = true;
                return;
            }
        }
    }

    fn running(&self) -> u64 {
        self.stages.iter().map(|memory| u64::from(memory.running)).sum()
    }

    fn dispatch(&mut self, stage: usize, now: Millis, starts: &mut usize, out: &mut Out) -> Result<(), WorkError> {
        if !self.stages[stage].loaded {
            self.read_slots(stage);
            return Ok(());
        }
        let compiled = self.compiled.clone();
        let Some(scope) = self.scope(&compiled.stages[stage].task_reads)? else {
            return Ok(());
        };
        if self.held() {
            self.give_back(stage, out);
            return self.learn_calls(stage, &scope);
        }
        let mut room = self.limits.run_tasks.saturating_sub(self.running());
        let undoes = self.annex.ending.is_some();
        while self.runs(stage) && room > 0 && self.annex.ending.is_some() == undoes {
            if *starts == 0 || out.full() {
                out.effects.more = true;
                return Ok(());
            }
            let admitted = self.stages[stage].admitted.first().copied();
            let Some(item) = admitted.or_else(|| self.next_item(stage)) else {
                return Ok(());
            };
            if admitted.is_none()
                && let Some(breaker) = self.task_of(&compiled, stage, item).and_then(|task| task.breaker.as_ref())
                && !self.stages[stage].passed.contains(&item)
            {
                match self.ask_breaker(stage, item, breaker, &scope, out) {
                    Ok(true) => {}
                    Ok(false) => return Ok(()),
                    Err(error) => self.fails_before_its_start(stage, item, error, now, out),
                }
                *starts -= 1;
                continue;
            }
            if admitted.is_none()
                && let Some(limit) = self.task_of(&compiled, stage, item).and_then(|task| task.limit.as_ref())
            {
                match self.borrow(stage, item, limit, &scope, out) {
                    Ok(true) => {}
                    Ok(false) => return Ok(()),
                    Err(error) => self.fails_before_its_start(stage, item, error, now, out),
                }
                *starts -= 1;
                continue;
            }
            let memory = &mut self.stages[stage];
            match memory.gate.admit(memory.running, now) {
                Admission::Now => {}
                Admission::Full => return Ok(()),
                Admission::At(at) => {
                    self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
                    return Ok(());
                }
            }
            let prepared = match self.stages[stage].prepared.take() {
                Some((other, work, input)) if other == item => Ok(Prepared::Ready(work, input)),
                _ => self.prepare(stage, item, &scope),
            };
            match prepared {
                Ok(Prepared::Waits) => return Ok(()),
                Ok(Prepared::Nothing) => {
                    self.release(stage, item, out);
                    self.pass_over(stage, item);
                    *starts -= 1;
                }
                Ok(Prepared::Ready(work, input)) => {
                    let in_flight: u64 = self.stages.iter().map(|memory| memory.in_flight_bytes).sum();
                    if in_flight > 0 && in_flight + input.len() as u64 > IN_FLIGHT_BYTES {
                        self.stages[stage].prepared = Some((item, work, input));
                        return Ok(());
                    }
                    self.start_attempt(stage, item, (work, input), now, out);
                    *starts -= 1;
                    room -= 1;
                }
                Err(error) => {
                    self.fails_before_its_start(stage, item, error, now, out);
                    *starts -= 1;
                }
            }
        }
        Ok(())
    }

    /// A task fails before its start: another turn goes on, so that one turn stays bounded.
    fn fails_before_its_start(&mut self, stage: usize, item: u32, error: WorkError, now: Millis, out: &mut Out) {
        self.stages[stage].due.remove(&item);
        self.release(stage, item, out);
        self.end_slot(stage, item, Outcome::Failed { error, output: Bytes::from_static(b"null") }, now, out);
        out.effects.more = true;
    }

    /// The next task that can start; moves the cursor over those that ended before a retry of the run.
    fn next_item(&mut self, stage: usize) -> Option<u32> {
        if self.header.stages[stage].phase == Phase::Fallback {
            let memory = &self.stages[stage];
            let begins = !self.lets_end(stage);
            let queued = memory.fallback.as_ref().is_some_and(|slot| slot.state == TaskState::Queued && slot.again.is_none() && (begins || slot.was_begun()));
            return (queued && !memory.asked.contains_key(&FALLBACK_ITEM)).then_some(FALLBACK_ITEM);
        }
        loop {
            if let Some(item) = self.stages[stage].due.first() {
                return Some(*item);
            }
            if self.lets_end(stage) {
                return None;
            }
            let at = &self.header.stages[stage];
            let item = at.cursor;
            if item >= at.total || u64::from(item - at.low) >= self.limits.scatter_window {
                return None;
            }
            if !self.children_ended(stage, item) {
                return None;
            }
            let at = &self.header.stages[stage];
            let memory = &mut self.stages[stage];
            let slot = if item < at.visited {
                if item >= memory.old_to {
                    self.read_old(stage);
                    return None;
                }
                self.slot_of_old_row(stage, item)
            } else {
                Slot::new()
            };
            let memory = &mut self.stages[stage];
            if slot.state == TaskState::Queued {
                memory.due.insert(item);
            }
            memory.slots.push_back(slot);
            self.header.stages[stage].cursor += 1;
            self.dirty = true;
            self.slide(stage);
        }
    }

    fn slot_of_old_row(&mut self, stage: usize, item: u32) -> Slot {
        let at = &mut self.header.stages[stage];
        let Some(row) = self.stages[stage].old.remove(&item) else {
            return Slot::new();
        };
        // What was reduced from outputs of which some were missing is reduced again.
        if super::reduce::is_reduce(&self.compiled.plan[stage], at, item) && at.round != row.round {
            return Slot { attempts: row.attempts, earlier: row.attempts, ..Slot::new() };
        }
        let slot = Slot::from_row(&row, at.round);
        if slot.ended() {
            at.done += 1;
            at.attempts += u64::from(row.attempts);
            if let crate::record::run::TaskEnd::Completed { output } = &row.end
                && !matches!(self.compiled.plan[stage].mode, Mode::MapReduce { .. })
            {
                at.output_bytes += output.len();
            }
            self.touched.insert(stage as u16);
        }
        slot
    }

    /// The scope of one task: none while rows are on their way.
    pub(super) fn task_scope(&mut self, stage: usize, item: u32, base: &Scope) -> Result<Option<Scope>, WorkError> {
        let mut scope = base.clone();
        let at = &self.header.stages[stage];
        if item == FALLBACK_ITEM {
            let error = at.error.clone().unwrap_or_else(|| WorkError::new("unknown", ""));
            let entries = vec![(Arc::from("code"), Doc::string(&error.code)), (Arc::from("message"), Doc::string(&error.message))];
            scope.set("error", Doc::object(entries));
            return Ok(Some(scope));
        }
        let grouped = match self.definition(stage).mode {
            Mode::Scatter { .. } => false,
            Mode::MapReduce { .. } => super::reduce::is_reduce(self.definition(stage), &self.header.stages[stage], item),
            Mode::Gather { group_by: Some(_), .. } => true,
            _ => return Ok(Some(scope)),
        };
        let reduces = grouped && matches!(self.definition(stage).mode, Mode::MapReduce { .. });
        let Some(bytes) = self.item_bytes(stage, item) else {
            return Ok(None);
        };
        if grouped {
            let Some(group) = self.stages[stage].groups.get(&item).cloned() else {
                if reduces {
                    self.read_children(stage, item);
                } else {
                    self.read_group(stage, item, &bytes)?;
                }
                return Ok(None);
            };
            if group.is_null() {
                let text = format!(
                    "group {} of stage `{}` has more than 64 MiB of outputs (limit: expression_input): group by more",
                    String::from_utf8_lossy(&bytes),
                    self.definition(stage).name
                );
                return Err(WorkError::new("limit", text));
            }
            scope.set(if reduces { "items" } else { "group" }, group);
            return Ok(Some(scope));
        }
        let value = Doc::parse(&bytes).map_err(|error| expression_error("item", &error))?;
        if let Some(name) = self.item_name(stage) {
            scope.set(name, value.clone());
        }
        scope.set("item", value);
        scope.set("index", Doc::number(item.into()));
        Ok(Some(scope))
    }

    /// An item as JSON: none while its piece is on its way.
    pub(super) fn item_bytes(&mut self, stage: usize, item: u32) -> Option<Bytes> {
        match self.definition(stage).mode {
            Mode::Undo { of } => {
                let original = self.undone_item(stage, item);
                return if self.definition(usize::from(of)).has_items() {
                    self.item_bytes(usize::from(of), original)
                } else {
                    Some(Bytes::from_static(b"null"))
                };
            }
            Mode::Fork { ref branches, .. } => return branches.get(item as usize).map(|branch| Doc::from_value(&branch.item).to_bytes()),
            Mode::MapReduce { .. } => {
                if let Some(place) = super::reduce::place(super::reduce::mapped(&self.header.stages[stage]), item) {
                    return Some(Bytes::from(format!("{{\"level\":{},\"n\":{}}}", place.level, place.n)));
                }
            }
            _ => {}
        }
        let pieces = &self.header.stages[stage].pieces;
        let piece = pieces.partition_point(|end| *end <= item);
        let first = if piece == 0 { 0 } else { pieces[piece - 1] };
        if let Some(items) = self.stages[stage].pieces.get(&(piece as u32)) {
            return items.get((item - first) as usize).cloned();
        }
        self.read_piece(stage, piece as u32);
        None
    }

    pub(super) fn prepare(&mut self, stage: usize, item: u32, base: &Scope) -> Result<Prepared, WorkError> {
        let Some(mut scope) = self.task_scope(stage, item, base)? else {
            return Ok(Prepared::Waits);
        };
        if let Mode::Undo { .. } = self.definition(stage).mode {
            match self.undo_scope(stage, item, &mut scope)? {
                None => return Ok(Prepared::Waits),
                Some(false) => return Ok(Prepared::Nothing),
                Some(true) => {}
            }
        }
        let compiled = self.compiled.clone();
        let task = self.task_of(&compiled, stage, item).ok_or_else(|| WorkError::new("definition", "the stage has no `call`"))?;
        let call = &task.call;
        let input = match &task.input {
            Some(template) => template.eval_doc(&scope).map_err(|error| expression_error("`input`", &error))?.to_bytes(),
            None => match self.plain_input(stage, item, &scope)? {
                Some(input) => input,
                None => return Ok(Prepared::Waits),
            },
        };
        if input.len() > TASK_INPUT_BYTES {
            let text = format!("the task's input has {} bytes (limit: task_input = {TASK_INPUT_BYTES}): group it, or pass a reference", input.len());
            return Err(WorkError::new("limit", text));
        }
        let work = match call {
            CompiledCall::Activity(name) => Work::Activity { name: name.clone() },
            CompiledCall::Pipeline(name) => Work::Pipeline { name: name.clone() },
            CompiledCall::Actor { actor, key, handler } => {
                let key = key.eval_doc(&scope).map_err(|error| expression_error("`key`", &error))?;
                if key.is_null() {
                    return Err(WorkError::new("expression", "`key` of the actor is null"));
                }
                let target = ActorId { tenant: self.header.tenant.clone(), kind: actor.clone(), key: key.text() };
                Work::Actor { target, handler: handler.clone() }
            }
        };
        Ok(Prepared::Ready(work, input))
    }

    /// The input where none is written.
    fn plain_input(&mut self, stage: usize, item: u32, scope: &Scope) -> Result<Option<Bytes>, WorkError> {
        let root = if item == FALLBACK_ITEM {
            "error"
        } else {
            match &self.definition(stage).mode {
                Mode::Scatter { .. } => "item",
                Mode::MapReduce { .. } if super::reduce::is_reduce(self.definition(stage), &self.header.stages[stage], item) => "items",
                Mode::MapReduce { .. } => "item",
                Mode::Undo { .. } => {
                    let part = |root: &str| (Arc::from(root), scope.get(root).cloned().unwrap_or_else(Doc::null));
                    return Ok(Some(Doc::object(vec![part("item"), part("output")]).to_bytes()));
                }
                Mode::Gather { group_by: Some(_), .. } => "group",
                Mode::Gather { .. } => return Ok(self.gather(stage)?.map(|doc| doc.to_bytes())),
                _ => return Ok(Some(Bytes::from_static(b"null"))),
            }
        };
        Ok(Some(scope.get(root).cloned().unwrap_or_else(Doc::null).to_bytes()))
    }

    fn start_attempt(&mut self, stage: usize, item: u32, (work, input): (Work, Bytes), now: Millis, out: &mut Out) {
        let timeout = self.timeout_of(stage, item);
        let keeps_group = self.compiled.stages[stage].output_reads_group;
        let memory = &mut self.stages[stage];
        memory.due.remove(&item);
        memory.admitted.remove(&item);
        if !keeps_group {
            memory.groups.remove(&item);
        }
        memory.running += 1;
        memory.in_flight_bytes += input.len() as u64;
        memory.gate.started(now);
        let (low, round) = (self.header.stages[stage].low, self.header.stages[stage].round);
        let undone = self.compiled.stages[stage].undo.is_some();
        let Some(slot) = slot_mut(memory, low, item) else {
            return;
        };
        if slot.first_at.is_none() && (timeout.total.is_some() || undone) {
            // From here on its time runs, and it may have to be undone, whoever goes on with it: a row says so, as if the first
            // attempt were due now.
            slot.first_at = Some(now);
            let row = row_of(slot, round, now, TaskEnd::Again { at: now });
            out.effects.put(task_key(self.id, stage as u16, item), wire::encode(&row));
        }
        slot.take(TaskEvent::Start);
        slot.again = None;
        slot.resent |= std::mem::take(&mut slot.sent_before);
        slot.attempts += 1;
        slot.input_bytes = input.len() as u64;
        let first = *slot.first_at.get_or_insert(now);
        let left = timeout.total.map(|total| first.after(total.0).since(now)).map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1));
        let attempt_ms = timeout.attempt.map(|span| u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX));
        // What may have to be undone is not cut off because a process was away: only its end says whether it was done.
        let left = left.filter(|_| !(undone && slot.resent));
        let timeout_ms = [attempt_ms, left].into_iter().flatten().min();
        let attempt = slot.attempts;
        let (name, place, fresh) = (self.definition(stage).name.as_bytes(), item.to_be_bytes(), self.fresh(stage).to_be_bytes());
        // What is started over is another effect: whoever keeps the old key would give the old answer.
        let key = if fresh == [0; 4] { effect_key(self.id.0, &[name, &place]) } else { effect_key(self.id.0, &[name, &place, &fresh]) };
        if self.lets_end(stage) {
            // Whom it calls is asked to end once it has been called.
            self.stages[stage].told_to_end = false;
            out.effects.more = true;
        }
        out.effects.commands.push(Command::Dispatch(Dispatch { stage: stage as u16, item, attempt, work, input, key, timeout_ms, total_ms: left }));
        self.dirty = true;
    }

    pub(super) fn timeout_of(&self, stage: usize, item: u32) -> Timeout {
        let compiled = self.compiled.clone();
        self.task_of(&compiled, stage, item).map_or(Timeout { attempt: None, total: None }, |task| task.timeout.clone())
    }

    /// What a task calls.
    pub(super) fn task_of<'a>(&self, compiled: &'a Compiled, stage: usize, item: u32) -> Option<&'a CompiledTask> {
        let plan = &compiled.stages[stage];
        if item == FALLBACK_ITEM {
            return plan.fallback.as_ref();
        }
        let which = match compiled.plan[stage].mode {
            Mode::Fork { .. } => item as usize,
            Mode::MapReduce { .. } => usize::from(super::reduce::is_reduce(&compiled.plan[stage], &self.header.stages[stage], item)),
            _ => 0,
        };
        plan.tasks.get(which)
    }
}

/// An attempt runs no more.
pub(super) fn stopped(memory: &mut StageMemory, low: u32, item: u32) {
    memory.running = memory.running.saturating_sub(1);
    let bytes = slot_mut(memory, low, item).map_or(0, |slot| std::mem::take(&mut slot.input_bytes));
    memory.in_flight_bytes = memory.in_flight_bytes.saturating_sub(bytes);
}

/// The slot of a task that is in the window.
pub(super) fn slot_mut(memory: &mut StageMemory, low: u32, item: u32) -> Option<&mut Slot> {
    if item == FALLBACK_ITEM {
        return memory.fallback.as_mut();
    }
    memory.slots.get_mut(item.checked_sub(low)? as usize)
}
