//! Ends: of attempts, tasks, stages and the run.

use bytes::Bytes;

use super::begin::expression_error;
use super::dispatch::{slot_mut, stopped};
use super::effects::{ApprovalChange, Command, LargePayload};
use super::memory::{Slot, StageDoc};
use super::{Out, Run};
use crate::error::{AttemptError, WorkError};
use crate::journal::seal;
use crate::limit::INLINE_BYTES;
use crate::machine::{APPROVAL, ApprovalEvent, RunEvent, StageEvent, StageState, TaskEvent, TaskState};
use crate::pipeline::compiled::is_plain_gather;
use crate::pipeline::definition::{MaxFailed, Mode, OnFailure, Rest};
use crate::pipeline::expression::{Doc, Scope};
use crate::policy::{Retry, Verdict, after_failure};
use crate::record::run::{FALLBACK_ITEM, FailedAttempt, Happening, Phase, Stored, TaskEnd, TaskRow, Wait, group_key, task_key};
use crate::time::Millis;
use crate::wire;

/// An error's text in rows.
const MESSAGE_BYTES: usize = 4 * 1024;
/// Things that happened, of one commit, that are told one by one.
const TOLD: usize = 64;

/// Nesting of an output: what is stored can be parsed again.
const JSON_DEPTH: usize = 120;

/// How deep JSON is nested.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn too_deep() -> WorkError {
    WorkError::new("limit", format!("the output is nested deeper than {JSON_DEPTH} levels (limit: json_depth): make it flatter"))
}

/// How a task ended.
pub(super) enum Outcome {
    /// With JSON.
    Completed(Bytes),
    /// For good.
    Failed { error: WorkError, output: Bytes },
}

impl Run {
    /// Takes the end of an attempt. One that is not running (a late or a second end) is dropped.
    pub(super) fn task_ended(&mut self, (stage, item, attempt): (usize, u32, u32), result: Result<Bytes, AttemptError>, now: Millis, out: &mut Out) {
        if !self.is_running(stage, item, attempt) {
            return;
        }
        let low = self.header.stages[stage].low;
        stopped(&mut self.stages[stage], low, item);
        match result {
            Ok(bytes) => {
                let outcome = match self.task_output(stage, item, bytes) {
                    Ok(bytes) => Outcome::Completed(bytes),
                    Err(error) => {
                        self.note_failure(stage, item, &error, now);
                        Outcome::Failed { error, output: Bytes::from_static(b"null") }
                    }
                };
                self.end_slot(stage, item, outcome, now, out);
            }
            Err(failure) => self.attempt_failed(stage, item, failure, now, out),
        }
    }

    /// Takes the answer to a call. Who asked may have been dropped from memory since: a task whose next attempt is this
    /// one counts as started.
    pub(super) fn answered(&mut self, (stage, item, attempt): (usize, u32, u32), result: Result<Bytes, AttemptError>, now: Millis, out: &mut Out) {
        let Some(at) = self.header.stages.get(stage) else { return };
        let fits = at.state == StageState::Running && !self.header.state.ended() && (at.phase == Phase::Fallback) == (item == FALLBACK_ITEM);
        let low = at.low;
        if fits
            && let Some(slot) = slot_mut(&mut self.stages[stage], low, item)
            && slot.state == TaskState::Queued
            && slot.attempts + 1 == attempt
        {
            slot.take(TaskEvent::Start);
            let again = slot.again.take();
            slot.attempts += 1;
            slot.first_at.get_or_insert(now);
            let memory = &mut self.stages[stage];
            memory.running += 1;
            memory.due.remove(&item);
            let asked = memory.asked.remove(&item).is_some() | memory.passed.remove(&item) | memory.admitted.remove(&item);
            if let Some(again) = again {
                memory.retries.remove(&(again, item));
            }
            if asked {
                // Also what is about to be asked for, by a command before this one.
                out.effects.commands.push(Command::GiveBack { stage: stage as u16, item: Some(item) });
            }
        }
        self.task_ended((stage, item, attempt), result, now, out);
    }

    pub(super) fn is_running(&mut self, stage: usize, item: u32, attempt: u32) -> bool {
        let Some(at) = self.header.stages.get(stage) else {
            return false;
        };
        let phase_fits = (at.phase == Phase::Fallback) == (item == FALLBACK_ITEM);
        if at.state != StageState::Running || !phase_fits || self.header.state.ended() {
            return false;
        }
        let low = at.low;
        slot_mut(&mut self.stages[stage], low, item).is_some_and(|slot| slot.state == TaskState::Running && slot.attempts == attempt)
    }

    /// Applies `output` to a result.
    pub(super) fn task_output(&mut self, stage: usize, item: u32, result: Bytes) -> Result<Bytes, WorkError> {
        let compiled = self.compiled.clone();
        let plan = &compiled.stages[stage];
        if depth(&result) > JSON_DEPTH {
            return Err(too_deep());
        }
        let Some(output) = &plan.output else {
            return Ok(result);
        };
        if !super::reduce::gives_output(self.definition(stage), &self.header.stages[stage], item) {
            return Ok(result);
        }
        let value = Doc::parse(&result).map_err(|error| expression_error("result", &error))?;
        // Invariant: what `output` reads was there when the task started, and stays while its stage runs.
        let base = self.scope(&plan.task_reads)?.unwrap_or_else(Scope::new);
        let mut scope = match self.definition(stage).mode {
            Mode::Scatter { .. } if item != FALLBACK_ITEM => self.task_scope(stage, item, &base)?.unwrap_or(base),
            Mode::Gather { group_by: Some(_), .. } if item != FALLBACK_ITEM => {
                let mut scope = base;
                let kept = self.stages[stage].groups.get(&item).cloned();
                let group = kept.unwrap_or_else(|| {
                    let key = self.item_bytes(stage, item).and_then(|bytes| Doc::parse(&bytes).ok());
                    Doc::object(vec![("key".into(), key.unwrap_or_else(Doc::null))])
                });
                scope.set("group", group);
                scope
            }
            _ => base,
        };
        scope.set("result", value);
        let output = output.eval_doc(&scope).map_err(|error| expression_error("`output`", &error))?.to_bytes();
        if depth(&output) > JSON_DEPTH { Err(too_deep()) } else { Ok(output) }
    }

    fn note_failure(&mut self, stage: usize, item: u32, error: &WorkError, now: Millis) {
        let low = self.header.stages[stage].low;
        if let Some(slot) = slot_mut(&mut self.stages[stage], low, item) {
            if slot.failures.len() >= FailedAttempt::KEPT {
                slot.failures.remove(0);
            }
            slot.failures.push(FailedAttempt { attempt: slot.attempts, error: bounded(error.clone()), at: now });
        }
    }

    fn attempt_failed(&mut self, stage: usize, item: u32, failure: AttemptError, now: Millis, out: &mut Out) {
        let failure = AttemptError { error: bounded(failure.error), ..failure };
        self.note_failure(stage, item, &failure.error, now);
        let (timeout, lets_end) = (self.timeout_of(stage, item), self.lets_end(stage));
        let compiled = self.compiled.clone();
        let policy = self.task_of(&compiled, stage, item).map_or_else(Retry::none, |task| task.retry.clone());
        let at = &self.header.stages[stage];
        let (low, round) = (at.low, at.round);
        let seed = self.seed(stage, item);
        let Some(slot) = slot_mut(&mut self.stages[stage], low, item) else {
            return;
        };
        let attempts = slot.attempts.saturating_sub(slot.earlier);
        let past = |at: Millis| timeout.total.is_some_and(|total| slot.first_at.is_some_and(|first| at >= first.after(total.0)));
        // What is known to have failed is not tried again while the run undoes.
        let verdict = if lets_end && !slot.resent { Verdict::GiveUp } else { after_failure(attempts, &failure, &policy, seed) };
        let error = match verdict {
            Verdict::Again { delay } if !past(now.after(delay)) => {
                let again = now.after(delay);
                slot.take(TaskEvent::Again);
                slot.again = Some(again);
                let row = row_of(slot, round, now, TaskEnd::Again { at: again });
                let attempts = slot.attempts;
                self.stages[stage].retries.insert((again, item));
                out.effects.put(task_key(self.id, stage as u16, item), wire::encode(&row));
                let name = self.definition(stage).name.clone();
                self.tell(Happening::Retrying { stage: name, item, attempts, error: failure.error, at: again });
                self.dirty = true;
                return;
            }
            Verdict::Again { .. } => WorkError::new("deadline", format!("the task's time (`timeout.total`) is up; the last attempt said: {}", failure.error)),
            Verdict::GiveUp => failure.error,
            Verdict::Exhausted if policy.max_attempts <= 1 => failure.error,
            Verdict::Exhausted => WorkError::new("attempts_exhausted", format!("{attempts} attempts failed; the last one said: {}", failure.error)),
        };
        self.end_slot(stage, item, Outcome::Failed { error, output: Bytes::from_static(b"null") }, now, out);
    }

    fn seed(&self, stage: usize, item: u32) -> u64 {
        let mut word = [0u8; 8];
        word.copy_from_slice(&self.id.0.uuid[8..]);
        u64::from_be_bytes(word) ^ ((stage as u64) << 32) ^ u64::from(item)
    }

    pub(super) fn tell(&mut self, happening: Happening) {
        if self.happened.len() < TOLD {
            self.happened.push(happening);
        }
    }

    /// Ends a task that has a slot.
    pub(super) fn end_slot(&mut self, stage: usize, item: u32, outcome: Outcome, now: Millis, out: &mut Out) {
        let low = self.header.stages[stage].low;
        let Some(slot) = slot_mut(&mut self.stages[stage], low, item) else {
            return;
        };
        let event = if matches!(outcome, Outcome::Completed(_)) { TaskEvent::Complete } else { TaskEvent::Fail };
        if !slot.take(event) {
            return;
        }
        let slot = slot.clone();
        self.stages[stage].groups.remove(&item);
        self.end_task(stage, item, slot, outcome, now, out);
        if self.runs(stage) && self.header.stages[stage].phase == Phase::Tasks {
            if let Some(kept) = slot_mut(&mut self.stages[stage], low, item) {
                kept.failures = Vec::new();
            }
            self.slide(stage);
        }
    }

    /// Raises the low mark over what has ended.
    pub(super) fn slide(&mut self, stage: usize) {
        let at = &mut self.header.stages[stage];
        let memory = &mut self.stages[stage];
        while memory.slots.front().is_some_and(Slot::ended) {
            memory.slots.pop_front();
            at.low += 1;
        }
        while let Some(first) = memory.pieces.first_entry() {
            if at.pieces.get(*first.key() as usize).is_none_or(|end| *end > at.low) {
                break;
            }
            first.remove();
        }
    }

    /// Writes the end of a task and draws the conclusions.
    pub(super) fn end_task(&mut self, stage: usize, item: u32, slot: Slot, outcome: Outcome, now: Millis, out: &mut Out) {
        let number = stage as u16;
        let round = self.header.stages[stage].round;
        let attempts = slot.attempts;
        self.touched.insert(number);
        self.dirty = true;
        match outcome {
            Outcome::Completed(bytes) => {
                let gives = super::reduce::gives_output(self.definition(stage), &self.header.stages[stage], item);
                if gives {
                    self.index_item(stage, item, &bytes, out);
                }
                let at = &mut self.header.stages[stage];
                if item != FALLBACK_ITEM {
                    at.done += 1;
                }
                at.attempts += u64::from(attempts);
                if gives {
                    at.output_bytes += bytes.len() as u64;
                }
                if at.total == 1 && bytes.len() <= INLINE_BYTES && !self.definition(stage).has_items() {
                    self.stages[stage].only = Some(bytes.clone());
                }
                let output = self.store(bytes, out);
                let row = row_of(&slot, round, now, TaskEnd::Completed { output });
                out.effects.put(task_key(self.id, number, item), wire::encode(&row));
                if item != FALLBACK_ITEM && self.definition(stage).takes_first() && !self.lets_end(stage) {
                    if !matches!(self.definition(stage).mode, Mode::Fork { rest: Rest::Run, .. }) {
                        self.abort(stage, out);
                    }
                    self.complete_stage(stage);
                }
            }
            Outcome::Failed { error, output } => {
                let error = bounded(error);
                let value = if item != FALLBACK_ITEM && self.definition(stage).has_items() { self.item_bytes(stage, item) } else { None };
                let value = self.store(value.unwrap_or_else(|| Bytes::from_static(b"null")), out);
                let at = &mut self.header.stages[stage];
                if item != FALLBACK_ITEM {
                    at.done += 1;
                    at.failed += 1;
                }
                at.attempts += u64::from(attempts);
                at.output_bytes += output.len() as u64;
                let row = row_of(&slot, round, now, TaskEnd::Failed { error: error.clone(), item: value, output });
                out.effects.put(task_key(self.id, number, item), wire::encode(&row));
                let name = self.definition(stage).name.clone();
                self.tell(Happening::TaskFailed { stage: name, item, attempts, error: error.clone() });
                self.task_failed(stage, item, error, now, out);
            }
        }
    }

    /// A value for a row: large ones go into chunks of their own.
    pub(super) fn store(&mut self, bytes: Bytes, out: &mut Out) -> Stored {
        if bytes.len() <= INLINE_BYTES {
            return Stored::Inline(bytes);
        }
        let (seal, len) = (seal(&self.seal_key, &bytes), bytes.len() as u64);
        out.effects.payloads.push(LargePayload { seal, bytes });
        Stored::Chunked { seal, len }
    }

    /// Index rows for the gathers over this stage.
    fn index_item(&mut self, stage: usize, item: u32, bytes: &[u8], out: &mut Out) {
        let compiled = self.compiled.clone();
        let feeds = &compiled.stages[stage].feeds;
        if feeds.is_empty() {
            return;
        }
        let value = Doc::parse(bytes).unwrap_or_else(|_| Doc::null());
        // Of a stage that was started over the row says in which round it was written.
        let row = if self.fresh(stage) == 0 { Bytes::from_static(&[wire::VERSION]) } else { wire::encode(&self.header.stages[stage].round) };
        for (gather, place) in feeds {
            match self.group_of(usize::from(*gather), item, &value) {
                Ok(None) => {}
                Ok(Some(group)) => out.effects.put(group_key(self.id, *gather, group.as_bytes(), *place, item), row.clone()),
                Err(error) => {
                    let text = format!("stage `{}`: {}", self.definition(stage).name, error.message);
                    self.header.stages[usize::from(*gather)].defect.get_or_insert(WorkError::new(error.code, text));
                }
            }
        }
    }

    fn task_failed(&mut self, stage: usize, item: u32, error: WorkError, now: Millis, out: &mut Out) {
        let compiled = self.compiled.clone();
        let at = &self.header.stages[stage];
        let (failed, total) = (u64::from(at.failed), u64::from(at.total));
        if let Mode::Undo { .. } = compiled.plan[stage].mode {
            self.note_trouble(stage, item, &error);
        }
        if self.lets_end(stage) {
            return;
        }
        match &compiled.plan[stage].on_failure {
            // One of several is enough: they fail when the last of them has failed.
            _ if item != FALLBACK_ITEM && compiled.plan[stage].takes_first() && failed < total => {}
            _ if item == FALLBACK_ITEM => self.fail_stage(stage, error, now, out),
            OnFailure::Fail => self.fail_stage(stage, error, now, out),
            OnFailure::Continue { max_failed } => {
                let over = match max_failed {
                    None => false,
                    Some(MaxFailed::Count(count)) => failed > *count,
                    Some(MaxFailed::Percent(percent)) => failed as f64 * 100.0 > percent * total as f64,
                };
                if over {
                    let text = format!("{failed} of {total} tasks failed, more than `max_failed` lets pass; the last one said: {error}");
                    self.fail_stage(stage, WorkError::new("max_failed", text), now, out);
                }
            }
            OnFailure::Call { .. } => self.fall_back(stage, error, out),
        }
    }

    /// The fallback of a stage gives its output.
    fn fall_back(&mut self, stage: usize, error: WorkError, out: &mut Out) {
        self.abort(stage, out);
        let at = &mut self.header.stages[stage];
        at.phase = Phase::Fallback;
        at.error = Some(error);
        at.output_bytes = 0;
        // One that has ended in an earlier round of the run is found in its row.
        let earlier = self.header.stages[stage].round > self.fresh(stage);
        let memory = &mut self.stages[stage];
        memory.clear();
        memory.loaded = !earlier;
        memory.fallback = (!earlier).then(Slot::new);
        self.readings.forget(stage as u16);
        self.touched.insert(stage as u16);
        self.dirty = true;
    }

    /// A stage that fails before it has a task fails as its only task would: a wide one has no output then, any other one null.
    pub(super) fn cannot_begin(&mut self, stage: usize, error: WorkError, now: Millis, out: &mut Out) {
        let error = bounded(error);
        match self.compiled.plan[stage].on_failure {
            OnFailure::Fail => return self.fail_stage(stage, error, now, out),
            OnFailure::Call { .. } => return self.fall_back(stage, error, out),
            OnFailure::Continue { .. } => {}
        }
        let definition = self.definition(stage);
        let tasks = u32::from(!definition.is_wide() || is_plain_gather(definition));
        let at = &mut self.header.stages[stage];
        (at.phase, at.total, at.cursor, at.low) = (Phase::Tasks, tasks, tasks, tasks);
        (at.done, at.failed) = (1, 1);
        let null = Bytes::from_static(b"null");
        let row = row_of(&Slot::new(), at.round, now, TaskEnd::Failed { error: error.clone(), item: Stored::Inline(null.clone()), output: null });
        out.effects.put(task_key(self.id, stage as u16, 0), wire::encode(&row));
        self.stages[stage].loaded = true;
        self.touched.insert(stage as u16);
        self.dirty = true;
        self.tell(Happening::TaskFailed { stage: self.definition(stage).name.clone(), item: 0, attempts: 0, error: error.clone() });
        self.task_failed(stage, 0, error, now, out);
    }

    pub(super) fn abort(&mut self, stage: usize, out: &mut Out) {
        self.cancel_calls(stage, out);
        let memory = &mut self.stages[stage];
        if memory.running > 0 || memory.borrows() {
            out.effects.commands.push(Command::AbortStage { stage: stage as u16 });
            memory.running = 0;
            memory.in_flight_bytes = 0;
            memory.asked.clear();
            memory.passed.clear();
            memory.admitted.clear();
        }
    }

    /// The stage has its output.
    pub(super) fn complete_stage(&mut self, stage: usize) {
        self.stage_event(stage, StageEvent::Complete, None);
        self.note_finished(stage);
        let memory = &mut self.stages[stage];
        memory.clear();
        let only = memory.only.take();
        self.readings.forget(stage as u16);
        let at = &self.header.stages[stage];
        if let Some(output) = only.and_then(|bytes| Doc::parse(&bytes).ok())
            && at.failed == 0
            && at.phase != Phase::Fallback
        {
            let doc = StageDoc { items: vec![output.clone()], failed: Default::default(), output, failures: Doc::list(Vec::new()) };
            self.docs.insert(stage as u16, doc);
        }
    }

    /// The stage fails, and the run with it.
    pub(super) fn fail_stage(&mut self, stage: usize, error: WorkError, now: Millis, out: &mut Out) {
        let error = bounded(error);
        let (unread, undoes) = (self.is_loser(stage), self.lets_end(stage));
        // What may have been done is to be undone: it fails when that is known, see `let_end`.
        if unread || undoes || !self.may_do(stage) {
            self.stage_event(stage, StageEvent::Fail, Some(error.to_string()));
            self.abort(stage, out);
        }
        self.header.stages[stage].error = Some(error.clone());
        if undoes {
            return self.drop_stage(stage, out);
        }
        if unread {
            return;
        }
        if let Mode::Undo { .. } = self.definition(stage).mode {
            self.note_trouble(stage, FALLBACK_ITEM, &error);
            self.stages[stage].clear();
            return;
        }
        let text = format!("stage `{}`: {}", self.definition(stage).name, error.message);
        self.fail_run(WorkError::new(error.code, text), now, out);
    }

    pub(super) fn fail_run(&mut self, error: WorkError, now: Millis, out: &mut Out) {
        self.header.error = Some(error.clone());
        self.end_run(RunEvent::Fail, Some(error.to_string()), now, out);
    }

    pub(super) fn complete_run(&mut self, now: Millis, out: &mut Out) {
        let compiled = self.compiled.clone();
        let output = match &compiled.output {
            None => Ok(Bytes::from_static(b"null")),
            Some(template) => match self.scope(&compiled.output_reads) {
                Ok(None) => return,
                Ok(Some(scope)) => template.eval_doc(&scope).map(|doc| doc.to_bytes()).map_err(|error| expression_error("the run's `output`", &error)),
                Err(error) => Err(error),
            },
        };
        match output {
            Ok(bytes) if bytes.len() as u64 <= self.limits.body_bytes => {
                let output = self.store(bytes, out);
                self.header.output = Some(output);
                self.end_run(RunEvent::Complete, None, now, out);
            }
            Ok(bytes) => {
                let (len, limit) = (bytes.len(), self.limits.body_bytes);
                let text = format!("the run's `output` has {len} bytes (limit: body = {limit}): give a reference, or less");
                self.fail_run(WorkError::new("limit", text), now, out);
            }
            Err(error) => self.fail_run(error, now, out),
        }
    }

    /// The run has ended: nothing of it runs, waits or is remembered.
    pub(super) fn end_run(&mut self, event: RunEvent, reason: Option<String>, now: Millis, out: &mut Out) {
        // A waiting or paused run whose last stage has ended completes from `running`.
        if matches!(event, RunEvent::Complete) {
            self.run_event(RunEvent::Wake, None);
        } else if self.annex.ending.is_none() && self.begin_undoing(event, reason.clone(), out) {
            return;
        }
        self.run_event(event, reason);
        for stage in 0..self.stages.len() {
            if stage < self.compiled.definition.stages.len() || self.header.stages[stage].state != StageState::Pending {
                self.drop_stage(stage, out);
            }
        }
        self.docs.clear();
        self.gathered.clear();
        self.index.clear();
        self.signals.clear();
        self.header.ended_at = Some(now);
        let ended = Command::RunEnded { state: self.header.state, output: self.header.output.clone(), error: self.header.error.clone() };
        out.effects.commands.push(ended);
        self.dirty = true;
    }

    /// Nothing of a stage runs or waits any more; one that has not ended is cancelled.
    pub(super) fn drop_stage(&mut self, stage: usize, out: &mut Out) {
        self.abort(stage, out);
        self.withdraw(stage);
        if !self.header.stages[stage].state.ended() {
            self.stage_event(stage, StageEvent::Cancel, None);
        }
        self.stages[stage].clear();
        self.readings.forget(stage as u16);
    }

    fn withdraw(&mut self, stage: usize) {
        if let Some(Wait::Approval { state, .. }) = &mut self.header.stages[stage].wait
            && let Ok(withdrawn) = APPROVAL.next(*state, ApprovalEvent::Withdraw)
        {
            *state = withdrawn;
        }
    }

    /// Takes approvals that nobody will answer off the list, as many as fit.
    pub(super) fn unlist(&mut self, out: &mut Out) {
        for at in self.header.stages.iter_mut().filter(|at| at.state.ended()) {
            let Some(Wait::Approval { id, listed, .. }) = &mut at.wait else { continue };
            if !*listed {
                continue;
            }
            if !out.has_ops(1) {
                out.effects.more = true;
                return;
            }
            *listed = false;
            self.dirty = true;
            out.effects.approvals.push(ApprovalChange::Closed { id: *id });
        }
    }
}

pub(super) fn row_of(slot: &Slot, round: u32, now: Millis, end: TaskEnd) -> TaskRow {
    TaskRow { round, attempts: slot.attempts, earlier: slot.earlier, first_at: slot.first_at.unwrap_or(now), at: now, failures: slot.failures.clone(), end }
}

pub(super) fn bounded(mut error: WorkError) -> WorkError {
    if error.message.len() > MESSAGE_BYTES {
        let cut = (0..=MESSAGE_BYTES).rev().find(|at| error.message.is_char_boundary(*at)).unwrap_or(0);
        error.message.truncate(cut);
        error.message.push('…');
    }
    if error.code.len() > 128 {
        let cut = (0..=128).rev().find(|at| error.code.is_char_boundary(*at)).unwrap_or(0);
        error.code.truncate(cut);
    }
    error
}
