//! What comes to an operation from outside its handler: a time, an answer, a signal, a cancel.

use bytes::Bytes;
use selvedge_kernel::error::WorkError;
use selvedge_kernel::id::InvocationId;
use selvedge_kernel::journal::{Ending, OpKind};
use selvedge_kernel::record::invocation::Begun;
use selvedge_kernel::record::message::KeptReply;
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::time::Millis;
use selvedge_kernel::transition::signature;
use selvedge_kernel::wire;

use super::activate::{Activation, Outside};
use super::{Effect, Shard, VerbError};
use crate::core::{Given, Request, StepState};

impl Shard {
    /// Turns what came from outside into results.
    pub(super) async fn take_outside(&mut self, activation: &mut Activation) -> Result<bool, VerbError> {
        let mut again = false;
        if !activation.durable {
            return Ok(again);
        }
        let mut later = Vec::new();
        while let Some(outside) = activation.outside.pop_front() {
            match outside {
                Outside::Due { number, timer } => self.due(activation, number, timer),
                Outside::Replied { number } => self.replied(activation, number).await?,
                Outside::TaskDone { number, attempt, result, told } => {
                    if !self.attempt_ended(activation, number, attempt, result) {
                        // Dropped, it says so.
                    } else if activation.undecided.iter().any(|(other, ..)| *other == number) {
                        activation.told.extend(told.map(|told| (number, told)));
                    } else {
                        self.say_written(told);
                    }
                }
                Outside::TimedOut { number, attempt } => {
                    // The next poll drops the step's future.
                    again |= self.timed_out(activation, number, attempt);
                }
                Outside::Signal { name } => {
                    // A signal is taken only when every earlier entry has been delivered, so that a loser takes none.
                    if activation.cancelling {
                        // Whoever waits next takes it.
                    } else if activation.ahead > 0 || !activation.undecided.is_empty() || !activation.deliveries.is_empty() {
                        later.push(Outside::Signal { name });
                    } else {
                        self.take_signal(activation, &name).await?;
                    }
                }
                Outside::Cancel { reason } => self.decide_cancel(activation, reason),
            }
        }
        activation.outside.extend(later);
        Ok(again)
    }

    /// Decides a cancel that has come before anything of the handler moves: no step starts any more.
    pub(super) fn take_cancel(&mut self, activation: &mut Activation) {
        if !activation.durable || !activation.core.state.borrow().live {
            return;
        }
        let cancel = activation.outside.iter().position(|outside| matches!(outside, Outside::Cancel { .. }));
        if let Some(Outside::Cancel { reason }) = cancel.and_then(|place| activation.outside.remove(place)) {
            self.decide_cancel(activation, reason);
        }
    }

    fn decide_cancel(&mut self, activation: &mut Activation, reason: String) {
        if activation.cancel_sent {
            return;
        }
        activation.cancel_sent = true;
        activation.cancelling = true;
        let now = self.now();
        let id = activation.id();
        let mut writes = Writes::default();
        let mut entries = Vec::with_capacity(1);
        let payload = Bytes::from(reason.clone());
        // A cancel is no operation: it has the number that none can have.
        activation.journal.append(&mut entries, signature(u32::MAX, OpKind::Cancel, "", ""), Ending::Value, &payload, None, now);
        activation.journal.write(&mut writes, &entries, &activation.record.message.target.tenant);
        if activation.ready.is_none() {
            activation.ready = Some(self.put_ready(&mut writes, id));
        }
        activation.ahead += 1;
        activation.begun_any = true;
        // What is under way comes to nothing from here on.
        for op in activation.core.state.borrow_mut().ops.values_mut().filter(|op| op.given.is_none()) {
            op.step = StepState::Idle;
        }
        self.write(writes, vec![Effect::CancelDelivered { id, life: activation.life, reason, at: now }]);
    }

    fn timed_out(&mut self, activation: &mut Activation, number: u32, attempt: u32) -> bool {
        let runs = activation.core.state.borrow().ops.get(&number).is_some_and(|op| op.step == StepState::Allowed(attempt));
        let task = self.tasks.get(&(activation.id(), number)).is_some_and(|task| task.attempt == attempt);
        if !runs && !task {
            return false;
        }
        self.drop_task(activation.id(), number);
        self.attempt_ended(activation, number, attempt, Err(super::decide::timed_out(attempt)));
        runs
    }

    fn due(&mut self, activation: &mut Activation, number: u32, timer: (Millis, u64)) {
        let id = activation.id();
        let found = activation.core.state.borrow_mut().ops.get_mut(&number).filter(|op| !op.decided).map(|op| {
            let mut row = op.row.take();
            let own = row.as_ref().is_some_and(|row| row.timer == Some(timer));
            if own
                && !matches!(op.request, Request::Sleep { .. } | Request::Signal { .. })
                && let Some(row) = &mut row
            {
                row.timer = None;
            }
            op.row = row.clone();
            (op.request.clone(), row, own)
        });
        let mut writes = Writes::default();
        let Some((request, Some(row), true)) = found else {
            // Nobody waits for it any more, or its operation waits for another one by now.
            self.clear_timer(&mut writes, timer);
            self.write(writes, Vec::new());
            return;
        };
        match request {
            Request::Sleep { .. } | Request::Signal { .. } => self.decide(activation, number, Given::TimeUp),
            Request::Step | Request::Activity { .. } | Request::Blocking(_) => {
                let attempt = row.attempts + 1;
                self.clear_timer(&mut writes, timer);
                writes.put(key::begun(id, number), wire::encode(&row));
                if activation.ready.is_none() {
                    // The attempt is running from here on: a kill must not lose it.
                    activation.ready = Some(self.put_ready(&mut writes, id));
                }
                self.write(writes, Vec::new());
                if let Request::Step = request {
                    if let Some(op) = activation.core.state.borrow_mut().ops.get_mut(&number) {
                        op.begun = true;
                        op.step = StepState::Allowed(attempt);
                    }
                    self.enqueue(id);
                } else if !self.tasks.contains_key(&(id, number)) {
                    let name = activation.core.state.borrow().ops.get(&number).map(|op| op.signature.name.clone()).unwrap_or_default();
                    if matches!(request, Request::Activity { .. })
                        && let Some(error) = self.wiring.revoked(&activation.record.message.context, &name)
                    {
                        return self.decide(activation, number, Given::Error(error));
                    }
                    let timeout = activation.core.state.borrow().ops.get(&number).and_then(|op| op.timeout.clone());
                    self.start_task(activation, number, attempt, timeout);
                }
            }
            Request::Call { target, handler, .. } => {
                self.clear_timer(&mut writes, timer);
                let text = format!("{target}.{handler} had not ended when the time of this call was up: it was called under a key, and goes on by its own");
                self.decide_taking(activation, number, Given::Error(WorkError::new("deadline", text)), writes);
            }
            Request::Join { .. } | Request::Start { .. } => {
                self.clear_timer(&mut writes, timer);
                self.write(writes, Vec::new());
            }
        }
    }

    /// A durable timer of an operation has fired.
    pub(super) async fn operation_due(&mut self, id: InvocationId, number: u32, timer: (Millis, u64)) {
        if self.activate_or_stop(id).await {
            if let Some(activation) = self.active.get_mut(&id) {
                // Brought back just now, it finds by itself that its timer has fired.
                if activation.core.state.borrow().live {
                    activation.outside.push_back(Outside::Due { number, timer });
                }
                self.enqueue(id);
            }
            return;
        }
        if matches!(self.record(id).await, Ok(Some(record)) if !record.status.ended()) {
            // It is blocked, or waits for its next attempt: its row says what was due.
            self.timers.forget(timer);
            return;
        }
        let mut writes = Writes::default();
        self.clear_timer(&mut writes, timer);
        self.write(writes, Vec::new());
    }

    /// Makes sure that a kill does not lose what runs from here on.
    pub(super) fn keep_ready(&mut self, activation: &mut Activation) {
        if activation.ready.is_none() {
            let mut writes = Writes::default();
            activation.ready = Some(self.put_ready(&mut writes, activation.id()));
            self.write(writes, Vec::new());
        }
    }

    /// An answer lies in the row of its operation: the operation takes it, or the child keeps it until it is joined.
    async fn replied(&mut self, activation: &mut Activation, number: u32) -> Result<(), VerbError> {
        let id = activation.id();
        let Some(bytes) = self.get(key::begun(id, number)).await? else { return Ok(()) };
        let row: Begun = wire::decode("begun operation", &bytes)?;
        let Some(reply) = row.reply.clone() else { return Ok(()) };
        let spawned = row.signature.kind == OpKind::Spawn;
        let taker = activation.core.state.borrow().ops.values().find_map(|op| match op.request {
            Request::Join { child } if spawned && child == number && op.begun && !op.decided => Some(op.signature.number),
            Request::Call { .. } | Request::Start { .. } if !spawned && op.signature.number == number && !op.decided => Some(number),
            _ => None,
        });
        let Some(taker) = taker else {
            if spawned {
                activation.core.state.borrow_mut().children.insert(number, row);
            }
            return Ok(());
        };
        let given = match reply {
            KeptReply::Value { payload, seal } => Given::Value(self.payload(id.0, seal, &payload).await?),
            KeptReply::Error(error) => Given::Error(error),
        };
        if spawned {
            activation.core.state.borrow_mut().children.remove(&number);
        }
        let mut writes = Writes::default();
        writes.delete(key::begun(id, number));
        self.decide_with(activation, taker, given, writes);
        Ok(())
    }
}
