//! Durable waits: for a time, a signal, a person.

use bytes::Bytes;

use super::begin::decision_doc;
use super::dispatch::slot_mut;
use super::effects::{Answer, ApprovalChange, Decider, RunRefused};
use super::end::Outcome;
use super::memory::Slot;
use super::{Out, Run};
use crate::error::WorkError;
use crate::id::ApprovalId;
use crate::limit::KEY_PART_BYTES;
use crate::machine::{APPROVAL, ApprovalEvent, ApprovalState, StageState, TaskState};
use crate::pipeline::definition::{Fallback, Mode};
use crate::record::run::{FALLBACK_ITEM, Happening, Phase, Wait, signal_key};
use crate::time::Millis;
use crate::wire;

impl Run {
    /// Tasks whose next attempt is due can start.
    pub(super) fn due_again(&mut self, stage: usize, now: Millis) {
        let low = self.header.stages[stage].low;
        let memory = &mut self.stages[stage];
        while let Some((at, item)) = memory.retries.first().copied() {
            if at > now {
                break;
            }
            memory.retries.pop_first();
            if let Some(slot) = slot_mut(memory, low, item) {
                slot.again = None;
                if item != FALLBACK_ITEM && slot.state == TaskState::Queued {
                    memory.due.insert(item);
                }
            }
        }
    }

    /// One look at a waiting stage; whether its wait is over.
    pub(super) fn wait(&mut self, stage: usize, now: Millis, out: &mut Out) -> bool {
        let compiled = self.compiled.clone();
        // Its end is one row, one for each gather over it, a signal that leaves and a line of a list.
        if !out.has_ops(compiled.stages[stage].feeds.len() + 3) {
            out.effects.more = true;
            return false;
        }
        match self.scope(&compiled.stages[stage].task_reads) {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(error) => {
                self.fail_stage(stage, error, now, out);
                return true;
            }
        }
        let outcome = match self.header.stages[stage].wait.clone() {
            None => return false,
            Some(Wait::Until(until)) if now < until => return false,
            Some(Wait::Until(_)) => Outcome::Completed(Bytes::from_static(b"null")),
            Some(Wait::Signal { until }) => match self.take_kept_signal(stage, out) {
                Some(Some(payload)) => Outcome::Completed(payload),
                Some(None) => return false,
                None if until.is_some_and(|until| until <= now) => {
                    let error = WorkError::new("deadline", "the signal did not come in time (`timeout.total`)");
                    Outcome::Failed { error, output: Bytes::from_static(b"null") }
                }
                None => return false,
            },
            Some(Wait::Approval { .. }) => match self.look_at_approval(stage, now, out) {
                Some(outcome) => outcome,
                None => return false,
            },
        };
        let outcome = match outcome {
            Outcome::Completed(bytes) => match self.task_output(stage, 0, bytes) {
                Ok(bytes) => Outcome::Completed(bytes),
                Err(error) => Outcome::Failed { error, output: Bytes::from_static(b"null") },
            },
            failed => failed,
        };
        self.end_task(stage, 0, Slot { attempts: 1, ..Slot::new() }, outcome, now, out);
        if self.runs(stage) && self.header.stages[stage].phase == Phase::Wait {
            let at = &mut self.header.stages[stage];
            at.phase = Phase::Tasks;
            (at.cursor, at.low) = (1, 1);
        }
        true
    }

    /// The first kept signal of a stage: none if there is none, `Some(None)` while it is read.
    fn take_kept_signal(&mut self, stage: usize, out: &mut Out) -> Option<Option<Bytes>> {
        let compiled = self.compiled.clone();
        let Mode::WaitSignal { signal } = &compiled.plan[stage].mode else {
            return None;
        };
        let first = *self.header.signals.get(signal)?.first()?;
        let Some(payload) = self.signals.remove(&first) else {
            self.read_signal(stage, signal, first);
            return Some(None);
        };
        if let Some(kept) = self.header.signals.get_mut(signal) {
            kept.remove(0);
            if kept.is_empty() {
                self.header.signals.remove(signal);
            }
        }
        out.effects.deletes.push(signal_key(self.id, signal, first));
        self.dirty = true;
        Some(Some(payload))
    }

    /// Keeps a signal; a stage that waits for it takes it in the next [`Run::advance`].
    pub(super) fn signal(&mut self, name: String, payload: Bytes, out: &mut Out) -> Result<(), RunRefused> {
        if self.header.state.ended() {
            return Err(RunRefused::Ended { state: self.header.state });
        }
        if name.len() > KEY_PART_BYTES {
            return Err(RunRefused::SignalName { len: name.len() });
        }
        let kept = self.header.signals.values().map(Vec::len).sum::<usize>() as u64;
        if kept >= self.limits.signals {
            return Err(RunRefused::Signals { kept });
        }
        let number = self.header.signals_seen;
        self.header.signals_seen += 1;
        let stored = self.store(payload.clone(), out);
        out.effects.put(signal_key(self.id, &name, number), wire::encode(&stored));
        self.signals.insert(number, payload);
        self.header.signals.entry(name.clone()).or_default().push(number);
        let stage = self.stage_waiting_for(&name);
        self.tell(Happening::Signal { name, stage });
        self.dirty = true;
        Ok(())
    }

    fn stage_waiting_for(&self, name: &str) -> Option<String> {
        let stages = self.compiled.definition.stages.iter().zip(&self.header.stages);
        let mut waiting = stages.filter(|(_, at)| at.state == StageState::Running && at.phase == Phase::Wait);
        waiting.find(|(stage, _)| matches!(&stage.mode, Mode::WaitSignal { signal } if signal == name)).map(|(stage, _)| stage.name.clone())
    }

    /// Whom an approval asks now.
    pub(super) fn assignees(&self, stage: usize) -> &[String] {
        match (&self.definition(stage).mode, &self.header.stages[stage].wait) {
            (Mode::Approval { escalate_to, .. }, Some(Wait::Approval { state: ApprovalState::Escalated, .. })) => escalate_to,
            (Mode::Approval { assignees, .. }, _) => assignees,
            _ => &[],
        }
    }

    /// Takes an answer; the stage goes on in the next [`Run::advance`].
    pub(super) fn decision(&mut self, approval: ApprovalId, (decider, answer): (Decider, Answer), said: Option<String>, now: Millis) -> Result<(), RunRefused> {
        let is_it = |wait: &Option<Wait>| matches!(wait, Some(Wait::Approval { id, .. }) if *id == approval);
        let Some(stage) = self.header.stages.iter().position(|at| is_it(&at.wait)) else {
            return Err(RunRefused::NoApproval { id: approval });
        };
        let assignees = self.assignees(stage).to_vec();
        let name = self.definition(stage).name.clone();
        let fits = |assignee: &String| match assignee.split_once(':') {
            Some(("user", id)) => id == decider.id.strip_prefix("user:").unwrap_or(&decider.id),
            Some(("role", role)) => decider.roles.iter().any(|has| has == role),
            _ => false,
        };
        let Some(Wait::Approval { state, by, comment, at, .. }) = &mut self.header.stages[stage].wait else {
            return Err(RunRefused::NoApproval { id: approval });
        };
        let event = match answer {
            Answer::Approve => ApprovalEvent::Approve,
            Answer::Reject => ApprovalEvent::Reject,
        };
        let Ok(decided) = APPROVAL.next(*state, event) else {
            let by = by.clone().unwrap_or_else(|| "nobody".to_owned());
            return Err(RunRefused::Answered { id: approval, state: *state, by });
        };
        if !assignees.iter().any(fits) {
            return Err(RunRefused::NotAssigned { id: approval, decider: decider.id, assignees });
        }
        *state = decided;
        *by = Some(decider.id.clone());
        *comment = said;
        *at = Some(now);
        self.happened.push(Happening::ApprovalDecided { stage: name, id: approval.to_string(), state: decided, by: decider.id });
        self.dirty = true;
        Ok(())
    }

    /// Lets an approval expire, and gives its outcome once it is decided.
    fn look_at_approval(&mut self, stage: usize, now: Millis, out: &mut Out) -> Option<Outcome> {
        let compiled = self.compiled.clone();
        let definition = &compiled.plan[stage];
        let Mode::Approval { expires: span, fallback, escalate_to, .. } = &definition.mode else {
            return None;
        };
        let Some(Wait::Approval { id, state, expires, by, comment, at, listed }) = &mut self.header.stages[stage].wait else {
            return None;
        };
        let id = *id;
        if matches!(state, ApprovalState::Open | ApprovalState::Escalated) && *expires <= now {
            let event = match fallback {
                Fallback::Approve => ApprovalEvent::Approve,
                Fallback::Escalate if *state == ApprovalState::Open => ApprovalEvent::Escalate,
                Fallback::Reject | Fallback::Escalate => ApprovalEvent::Reject,
            };
            if let Ok(next) = APPROVAL.next(*state, event) {
                *state = next;
                self.dirty = true;
                self.touched.insert(stage as u16);
                if next == ApprovalState::Escalated {
                    *expires = now.after(span.0);
                    let expires = *expires;
                    let name = definition.name.clone();
                    self.happened.push(Happening::ApprovalOpened { stage: name.clone(), id: id.to_string(), assignees: escalate_to.clone(), expires });
                    out.effects.approvals.push(ApprovalChange::Escalated { id, stage: name, assignees: escalate_to.clone(), expires });
                    return None;
                }
                *by = Some("expiry".to_owned());
                *at = Some(now);
                self.happened.push(Happening::ApprovalDecided { stage: definition.name.clone(), id: id.to_string(), state: next, by: "expiry".to_owned() });
            }
        }
        let by = by.clone().unwrap_or_default();
        let (comment, at) = (comment.clone(), at.unwrap_or(now));
        let doc = |word: &str| decision_doc(word, &by, at, comment.as_deref()).to_bytes();
        let outcome = match state {
            ApprovalState::Approved => Outcome::Completed(doc("approved")),
            ApprovalState::Rejected => {
                let text = match &comment {
                    Some(comment) => format!("{by} rejected it: {comment}"),
                    None => format!("{by} rejected it"),
                };
                Outcome::Failed { error: WorkError::new("rejected", text), output: doc("rejected") }
            }
            ApprovalState::Open | ApprovalState::Escalated | ApprovalState::Withdrawn => {
                return None;
            }
        };
        *listed = false;
        out.effects.approvals.push(ApprovalChange::Closed { id });
        Some(outcome)
    }
}
