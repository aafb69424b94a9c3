//! How an attempt ends, and how an invocation does.

use selvedge_kernel::error::{AttemptError, WorkError};
use selvedge_kernel::id::InvocationId;
use selvedge_kernel::journal::seal;
use selvedge_kernel::limit;
use selvedge_kernel::policy::{Retry, look_after};
use selvedge_kernel::record::invocation::Status;
use selvedge_kernel::record::message::{Message, Outcome};
use selvedge_kernel::record::shard::Timer;
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::time::Day;
use selvedge_kernel::transition::{self, AfterAttempt, Ended, after_attempt};

use super::activate::Activation;
use super::advance::DEADLINE;
use super::{Effect, Shard, VerbError};
use crate::core::within_body;
use crate::ctx::RESTART;
use crate::env::Observation;
use crate::happened::{Became, Happened};

impl Shard {
    /// Ends an invocation, or plans its next attempt.
    pub(super) async fn finish(&mut self, id: InvocationId, result: crate::registry::Ended) {
        let Some(activation) = self.active.get(&id) else { return };
        let own = self.transition_of(activation).and_then(|transition| transition.retry);
        let retry = own.unwrap_or_else(|| self.options(&activation.record.message.target.kind).retry);
        let now = self.now();
        let Some(activation) = self.active.get(&id) else { return };
        let cancelled = activation.core.state.borrow().cancelled;
        let result = match result {
            Ok(value) => match within_body(self.wiring.settings.limits.body_bytes, "the result of the handler", value.len()) {
                Ok(()) => Ok(value),
                Err(error) => Err(AttemptError { error, retryable: false, retry_after_ms: None }),
            },
            Err(failure) => Err(AttemptError { error: failure.error.bounded(), ..failure }),
        };
        let ended = match result {
            Ok(value) => Ended { status: Status::Completed, outcome: Outcome::Value(value), dead_letter: false },
            Err(failure) if cancelled => {
                let error = cancel_error(activation.record.cancel.as_deref(), Some(failure.error));
                Ended { status: Status::Cancelled, outcome: Outcome::Error(error), dead_letter: false }
            }
            Err(failure) if failure.error.code == RESTART && activation.core.state.borrow().restart.is_some() => return self.restart(id).await,
            Err(failure) => match after_attempt(&activation.record, &failure, &retry, now) {
                AfterAttempt::End { error, dead_letter } => Ended { status: Status::Failed, outcome: Outcome::Error(error), dead_letter },
                AfterAttempt::Again { at } => {
                    self.watch_attempts(activation, &retry, &failure.error);
                    return self.attempt_again(id, failure, at).await;
                }
            },
        };
        self.end(id, ended).await;
    }

    /// Says once that a message goes on failing.
    fn watch_attempts(&self, activation: &Activation, retry: &Retry, error: &WorkError) {
        let (message, failed) = (&activation.record.message, activation.record.attempt);
        if look_after(retry) == Some(failed) {
            let (invocation, actor, handler, limit) = (message.id, &message.target, message.handler.as_str(), retry.max_attempts);
            self.wiring.env.observe(&Observation::AttemptsFail { invocation, actor, handler, failed, limit, error });
        }
    }

    async fn attempt_again(&mut self, id: InvocationId, failure: AttemptError, at: selvedge_kernel::time::Millis) {
        if let Some(mut activation) = self.active.remove(&id) {
            let flushed = self.flush(&mut activation).await;
            self.active.insert(id, activation);
            if let Err(error) = flushed {
                self.wiring.stop(error.message);
                return;
            }
        }
        let Some(mut activation) = self.drop_from_memory(id) else { return };
        activation.record.attempt += 1;
        activation.record.status = Status::Running;
        activation.record.retry_at = Some(at);
        activation.record.last_error = Some(failure.error);
        let mut writes = Writes::default();
        writes.put(key::invocation(id), activation.record.encode());
        if let Some(ready) = activation.ready {
            self.delete_ready(&mut writes, ready);
        }
        self.set_timer(&mut writes, at, Timer::Attempt { invocation: id });
        self.write(writes, Vec::new());
    }

    /// The time of the next attempt has come.
    pub(super) async fn attempt_due(&mut self, id: InvocationId, timer: (selvedge_kernel::time::Millis, u64)) {
        let mut writes = Writes::default();
        self.clear_timer(&mut writes, timer);
        match self.record(id).await {
            // The timer of an attempt that came sooner, by hand or for a cancel, says nothing about the one after it.
            Ok(Some(mut record)) if record.retry_at.is_some_and(|at| at <= timer.0) && !record.status.ended() => {
                record.retry_at = None;
                writes.put(key::invocation(id), record.encode());
                let ready = self.put_ready(&mut writes, id);
                self.write(writes, Vec::new());
                self.kept_ready.insert(id, ready);
                self.activate_or_stop(id).await;
            }
            Ok(_) => self.write(writes, Vec::new()),
            Err(error) => self.wiring.stop(error.message),
        }
    }

    pub(super) async fn activate_or_stop(&mut self, id: InvocationId) -> bool {
        match self.activate(id).await {
            Ok(found) => found,
            Err(error) => {
                self.wiring.stop(error.message);
                false
            }
        }
    }

    /// Ends an invocation for good: one transition, and the next in line starts.
    pub(super) async fn end(&mut self, id: InvocationId, ended: Ended) {
        let Some(mut activation) = self.drop_from_memory(id) else { return };
        if let Err(error) = self.try_end(&mut activation, ended, None).await {
            self.wiring.stop(error.message);
        }
    }

    /// Ends an invocation, and perhaps starts its successor in its place, in one transition.
    pub(super) async fn try_end(&mut self, activation: &mut Activation, ended: Ended, successor: Option<Message>) -> Result<(), VerbError> {
        let id = activation.id();
        self.joining.remove(&id);
        let mut writes = activation.pending.take().unwrap_or_default();
        let mut effects = Vec::new();
        let keep = self.keep_of(&activation.record);
        // What it called since it last rested happens with its end, if the end is a good one.
        let fresh = std::mem::take(&mut activation.core.state.borrow_mut().fresh);
        if matches!(ended.outcome, Outcome::Value(_)) {
            self.write_fresh(activation, fresh, &mut writes, &mut effects).await?;
        }
        if let Some((more, then)) = activation.closing.take()
            && matches!(ended.outcome, Outcome::Value(_))
        {
            writes.extend(more);
            effects.extend(then);
        }
        if let Outcome::Value(value) = &ended.outcome
            && value.len() > limit::INLINE_BYTES
        {
            activation.chunked = true;
            self.write_chunks(id.0, seal(&activation.journal.key, value), value);
        }
        let now = self.now();
        let begun = activation.begun_any || activation.durable;
        if let Some(timer) = activation.record.deadline_timer.take() {
            writes.puts.retain(|put| put.key != key::timer(timer.0, timer.1));
            self.clear_timer(&mut writes, timer);
        }
        activation.journal.output = Some(self.output_bytes(activation).await?);
        activation.record.restarts.after = successor.as_ref().map(|message| message.id);
        let last = transition::end(&mut self.head, &mut activation.record, &activation.journal, &ended, &activation.input, &keep);
        writes.extend(last);
        if let Some(ready) = activation.ready {
            self.delete_ready(&mut writes, ready);
        }
        if let Some(peer) = activation.record.message.reply_to.filter(|_| successor.is_none()) {
            self.reply(peer, id, ended.outcome.clone(), &mut writes, &mut effects).await?;
        }
        let mut left = false;
        if begun {
            left |= self.end_operations(activation, &mut writes, &mut effects).await?;
        }
        if successor.is_some() && activation.record.joined {
            left |= !self.move_joined(activation, &mut writes).await? || activation.record.signalled;
        } else if activation.record.joined || activation.record.signalled {
            left |= !self.clear_leftovers((id, &activation.record.message.target.tenant), &ended.outcome, &mut writes, &mut effects).await?;
        }
        if left {
            self.set_timer(&mut writes, now, Timer::Leftovers { invocation: id });
        }
        if activation.chunked || activation.record.crashes.0 > 0 {
            let keep = if ended.dead_letter { keep.finished.max(keep.dead_letters) } else { keep.finished };
            self.set_timer(&mut writes, Day::expiry(now, keep).start(), Timer::Chunks { owner: id.0 });
        }
        if let Some(message) = successor {
            self.succeed(activation, message, &mut writes, &mut effects).await?;
            self.write(writes, effects);
            return Ok(());
        }
        self.tell_end(activation, &ended, &mut effects);
        let actor = activation.record.message.target.clone();
        let order = activation.record.order;
        self.load_actor(&actor).await?;
        let mut next = None;
        if let Some(found) = self.actors.get_mut(&actor) {
            let held = found.queue.front().is_some_and(|(place, _)| *place == order);
            found.queue.retain(|(place, _)| *place != order);
            // Only the end of the one that held the actor starts another.
            next = found.queue.front().map(|(_, id)| *id).filter(|_| held);
        }
        let next_ready = next.map(|next| (next, self.put_ready(&mut writes, next)));
        self.tell_waiters(id, ended.outcome.clone(), &mut effects);
        self.write(writes, effects);
        if let Some((next, ready)) = next_ready {
            self.kept_ready.insert(next, ready);
            if self.record(next).await?.is_some_and(|record| record.cancel.is_some()) {
                // It was cancelled before its turn: it is never started.
                self.doomed.push_back(next);
            } else {
                self.activate_or_stop(next).await;
            }
        }
        Ok(())
    }
}

impl Shard {
    /// Tells the observer how it ended.
    fn tell_end(&self, activation: &Activation, ended: &Ended, effects: &mut Vec<Effect>) {
        let became = match (&ended.outcome, ended.status) {
            (Outcome::Value(_), _) => Became::Completed,
            (Outcome::Error(_), Status::Cancelled | Status::Killed) => Became::Cancelled,
            (Outcome::Error(error), _) => Became::Failed { code: error.code.clone(), dead_letter: ended.dead_letter },
        };
        self.tell_of(effects, became, false, |became| of_invocation(&activation.record.message, became));
    }
}

/// What has become of an invocation, in ids and names.
pub(super) fn of_invocation(message: &Message, became: Became) -> Happened {
    Happened::Invocation { invocation: message.id, actor: message.target.clone(), handler: message.handler.clone(), trace: message.trace.clone(), became }
}

/// The error of an invocation that ended because somebody, or its deadline, asked it to.
pub(super) fn cancel_error(reason: Option<&str>, own: Option<WorkError>) -> WorkError {
    match (reason, own) {
        (Some(DEADLINE), Some(own)) if own.code != "cancelled" => WorkError::new("deadline", format!("its deadline passed before it had ended; it said {own}")),
        (Some(DEADLINE), _) => WorkError::new("deadline", "its deadline passed before it had ended"),
        (_, Some(own)) => own,
        (Some(reason), None) => WorkError::new("cancelled", reason),
        (None, None) => WorkError::new("cancelled", "it was cancelled"),
    }
}
