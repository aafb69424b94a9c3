//! Permits of limits that are shared with other runs: asked for before a task starts, given back when nothing starts.

use super::begin::expression_error;
use super::dispatch::Prepared;
use super::effects::Command;
use super::{Out, Run};
use bytes::Bytes;

use crate::error::{AttemptError, WorkError};
use crate::id::ActorId;
use crate::lend::{self, Ended};
use crate::pipeline::compiled::CompiledCall;
use crate::pipeline::expression::Scope;
use crate::pipeline::shared::{LimitKey, SharedBreaker, SharedLimit};
use crate::record::run::FALLBACK_ITEM;

impl Run {
    /// Asks for a permit for a task, which stands aside until it has one, so that those behind it can go on. False
    /// while rows are on their way.
    pub(super) fn borrow(&mut self, stage: usize, item: u32, limit: &SharedLimit, base: &Scope, out: &mut Out) -> Result<bool, WorkError> {
        let name = match &limit.key {
            LimitKey::None => limit.name.clone(),
            LimitKey::Task(key) => {
                let Some(scope) = self.task_scope(stage, item, base)? else { return Ok(false) };
                limit.named(&key.eval(&scope).map_err(|error| expression_error("`throttle.key`", &error))?)?
            }
            LimitKey::Input(_) => match self.prepare(stage, item, base)? {
                Prepared::Ready(_, input) => limit.of_input(&input)?,
                Prepared::Waits => return Ok(false),
                Prepared::Nothing => {
                    self.pass_over(stage, item);
                    return Ok(true);
                }
            },
        };
        let limit_id = ActorId { tenant: self.header.tenant.clone(), kind: lend::KIND.to_owned(), key: name };
        self.asked += 1;
        let memory = &mut self.stages[stage];
        memory.due.remove(&item);
        memory.asked.insert(item, (self.asked, limit_id.clone()));
        let (number, throttle) = (self.asked, limit.throttle.clone());
        out.effects.commands.push(Command::Borrow { stage: stage as u16, item, number, limit: limit_id, throttle });
        Ok(true)
    }

    /// Asks the breaker of a task, which stands aside until it is let through, so that those of other targets can go on.
    /// False while rows are on their way.
    pub(super) fn ask_breaker(&mut self, stage: usize, item: u32, shared: &SharedBreaker, base: &Scope, out: &mut Out) -> Result<bool, WorkError> {
        let key = match shared.url {
            None => shared.name.clone(),
            Some(_) => match self.prepare(stage, item, base)? {
                Prepared::Ready(_, input) => shared.of_input(&input)?,
                Prepared::Waits => return Ok(false),
                Prepared::Nothing => {
                    self.pass_over(stage, item);
                    return Ok(true);
                }
            },
        };
        let limit = ActorId { tenant: self.header.tenant.clone(), kind: lend::KIND.to_owned(), key };
        self.asked += 1;
        let memory = &mut self.stages[stage];
        memory.due.remove(&item);
        memory.asked.insert(item, (self.asked, limit.clone()));
        out.effects.commands.push(Command::AskBreaker { stage: stage as u16, item, number: self.asked, limit, breaker: shared.breaker.clone() });
        Ok(true)
    }

    /// The breaker that let a task through has opened. One that has not started gives back what it has and asks again.
    pub(super) fn recalled(&mut self, stage: usize, item: u32, out: &mut Out) {
        let Some(memory) = self.stages.get_mut(stage) else { return };
        if !(memory.passed.remove(&item) | memory.admitted.remove(&item)) {
            return;
        }
        memory.asked.remove(&item);
        if item != FALLBACK_ITEM {
            memory.due.insert(item);
        }
        out.effects.commands.push(Command::GiveBack { stage: stage as u16, item: Some(item) });
    }

    /// What the end of an attempt of a task says of its target.
    #[must_use]
    pub fn says(&self, stage: u16, item: u32, result: &Result<Bytes, AttemptError>) -> Ended {
        let task = self.compiled.stages.get(usize::from(stage)).and_then(|_| self.task_of(&self.compiled, usize::from(stage), item));
        match task {
            None => Ended::GivenUp,
            Some(task) if matches!(task.call, CompiledCall::Activity(_)) => Ended::of_attempt(result, &task.retry),
            Some(task) => Ended::of_answer(result, &task.retry),
        }
    }

    /// A permit has come: the task is the next one to start, or to ask for a permit of its limit. One that was asked for and
    /// is not needed any more is not taken; whoever keeps it gives it back.
    pub(super) fn admitted(&mut self, stage: usize, item: u32, number: u64) {
        let compiled = self.compiled.clone();
        if stage >= self.stages.len() {
            return;
        }
        let limited = self.task_of(&compiled, stage, item).is_some_and(|task| task.limit.is_some());
        let memory = &mut self.stages[stage];
        if memory.asked.get(&item).is_none_or(|asked| asked.0 != number) {
            return;
        }
        let by_breaker = memory.asked.remove(&item).is_some_and(|(_, limit)| limit.key.starts_with(SharedBreaker::OF));
        if by_breaker && limited {
            memory.passed.insert(item);
            if item != FALLBACK_ITEM {
                memory.due.insert(item);
            }
        } else {
            memory.passed.remove(&item);
            memory.admitted.insert(item);
        }
    }

    /// Nothing may start: a task that waits holds no permit, and asks again later.
    pub(super) fn give_back(&mut self, stage: usize, out: &mut Out) {
        let memory = &mut self.stages[stage];
        if !memory.borrows() {
            return;
        }
        memory.passed.clear();
        let waiting = std::mem::take(&mut memory.asked).into_keys().chain(std::mem::take(&mut memory.admitted));
        memory.due.extend(waiting.filter(|item| *item != FALLBACK_ITEM));
        out.effects.commands.push(Command::GiveBack { stage: stage as u16, item: None });
    }

    /// A task that had a permit ends before it has started.
    pub(super) fn release(&mut self, stage: usize, item: u32, out: &mut Out) {
        let memory = &mut self.stages[stage];
        if memory.admitted.remove(&item) | memory.passed.remove(&item) {
            out.effects.commands.push(Command::GiveBack { stage: stage as u16, item: Some(item) });
        }
    }
}
