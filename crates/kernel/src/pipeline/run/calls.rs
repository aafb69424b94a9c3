//! Calls to actors and to other pipelines: their ids, and those that an earlier process made.

use super::dispatch::{Prepared, slot_mut};
use super::effects::{Command, Work};
use super::memory::Slot;
use super::{Out, Run};
use crate::error::WorkError;
use crate::id::{ActorId, InvocationId, RunId};
use crate::machine::{StageState, TaskState};
use crate::pipeline::compiled::CompiledCall;
use crate::pipeline::expression::Scope;
use crate::record::run::FALLBACK_ITEM;
use crate::transition::sent_id;

/// The invocation that an attempt of a task calls: the same after a restart, another one for another attempt.
#[must_use]
pub fn call_id(run: RunId, (stage, item, attempt): (u16, u32, u32), round: u32, target: &ActorId) -> InvocationId {
    let mut hasher = blake3::Hasher::new();
    for part in [&stage.to_be_bytes()[..], &item.to_be_bytes(), &round.to_be_bytes(), &attempt.to_be_bytes()] {
        hasher.update(part);
    }
    let mut word = [0u8; 8];
    word.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    sent_id(run.0, u64::from_be_bytes(word), target)
}

/// The run that an attempt of a task starts: the same after a restart, another one for another attempt.
#[must_use]
pub fn child_id(run: RunId, tenant: &str, task: (u16, u32, u32), round: u32) -> RunId {
    RunId::of(tenant, call_id(run, task, round, &run.actor(tenant)).0.uuid)
}

impl Run {
    /// Learns whom an earlier process may have called, while the run is held and starts nothing again.
    pub(super) fn learn_calls(&mut self, stage: usize, base: &Scope) -> Result<(), WorkError> {
        let compiled = self.compiled.clone();
        let low = self.header.stages[stage].low;
        let memory = &self.stages[stage];
        let slots = memory.slots.iter().enumerate().map(|(at, slot)| (low + at as u32, slot)).chain(memory.fallback.iter().map(|slot| (FALLBACK_ITEM, slot)));
        let unknown = |(item, slot): &(u32, &Slot)| slot.sent_before && slot.state == TaskState::Queued && !memory.sent.contains_key(item);
        let items: Vec<u32> = slots.filter(unknown).map(|(item, _)| item).collect();
        for item in items {
            let calls = self.task_of(&compiled, stage, item).is_some_and(|task| !matches!(task.call, CompiledCall::Activity(_)));
            let work = match calls {
                false => None,
                true => match self.prepare(stage, item, base) {
                    Ok(Prepared::Waits) => return Ok(()),
                    Ok(Prepared::Ready(work, _)) => Some(work),
                    // What cannot be evaluated was not called.
                    Ok(Prepared::Nothing) | Err(_) => None,
                },
            };
            match work {
                Some(work) => drop(self.stages[stage].sent.insert(item, work)),
                // Who may have to be undone is remembered as begun.
                None if compiled.stages[stage].undo.is_some() => {}
                None => {
                    if let Some(slot) = slot_mut(&mut self.stages[stage], low, item) {
                        slot.sent_before = false;
                    }
                }
            }
        }
        Ok(())
    }

    /// Asks for the end of calls that an earlier process may have made for tasks which this one did not start again.
    pub(super) fn cancel_calls(&mut self, stage: usize, out: &mut Out) {
        if self.header.stages[stage].state != StageState::Running {
            return;
        }
        let low = self.header.stages[stage].low;
        let memory = &mut self.stages[stage];
        let mut calls: Vec<(u32, u32, Work)> = Vec::new();
        for (item, work) in std::mem::take(&mut memory.sent) {
            if let Some(slot) = slot_mut(memory, low, item)
                && slot.sent_before
                && slot.state == TaskState::Queued
            {
                calls.push((item, slot.attempts + 1, work));
            }
        }
        if !calls.is_empty() {
            out.effects.commands.push(Command::CancelCalls { stage: stage as u16, calls });
        }
    }
}
