//! Operations whose result is delivered: how they begin, how their result is decided, how they are given up.

use std::time::Duration;

use bytes::Bytes;
use selvedge_kernel::error::{AttemptError, WorkError};
use selvedge_kernel::id::InvocationId;
use selvedge_kernel::journal::{Ending, OpKind, seal};
use selvedge_kernel::limit;
use selvedge_kernel::policy::{Retry, Timeout, Verdict, after_failure};
use selvedge_kernel::record::invocation::Begun;
use selvedge_kernel::record::shard::Timer;
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::replay::DECIDED_AHEAD;
use selvedge_kernel::time::Millis;
use selvedge_kernel::transition::exhausted;
use selvedge_kernel::wire;

use super::activate::{Activation, Outside};
use super::calls::Call;
use super::timers::Alarm;
use super::{Effect, Shard, VerbError};
use crate::core::{Given, Op, Request, StepState};
use crate::work::Told;

impl Shard {
    /// Begins what was awaited for the first time, and takes in what steps have come to. Gives true if the handler
    /// should be polled again at once.
    pub(super) async fn begin_all(&mut self, activation: &mut Activation) -> Result<bool, VerbError> {
        let mut again = false;
        let (mut began, finished, dropped, started) = {
            let mut state = activation.core.state.borrow_mut();
            (std::mem::take(&mut state.began), std::mem::take(&mut state.finished), std::mem::take(&mut state.dropped), std::mem::take(&mut state.started))
        };
        if activation.cancelling {
            // All that is open comes to nothing when the cancel is delivered.
            began.clear();
        } else if activation.durable {
            // An operation that was called and begun before, and is not awaited now, is still under way.
            for number in began.drain(..) {
                again |= self.begin(activation, number).await?;
            }
        } else if !began.is_empty() {
            activation.core.state.borrow_mut().began = began;
        }
        for (number, attempt, result) in finished {
            self.attempt_ended(activation, number, attempt, result);
        }
        for number in started {
            self.watch_attempt(activation, number);
        }
        if !dropped.is_empty() {
            let mut gone = Vec::new();
            for number in dropped {
                let op = activation.core.state.borrow_mut().ops.get_mut(&number).filter(|op| !op.decided).map(|op| {
                    op.decided = true;
                    (op.row.take(), op.signature.clone(), op.alarm.take(), op.begun)
                });
                if let Some((row, signature, alarm, _)) = op {
                    self.clear_alarm(alarm);
                    gone.push((row, signature));
                    activation.core.state.borrow_mut().ops.remove(&number);
                }
            }
            self.forget_operations(activation, gone);
        }
        Ok(again)
    }

    /// Gives operations up that a cancel has ended: each with what it has left behind, in one transition.
    pub(super) async fn give_up(&mut self, activation: &mut Activation, gone: Vec<Op>) -> Result<(), VerbError> {
        let id = activation.id();
        for mut op in gone {
            self.clear_alarm(op.alarm.take());
            self.drop_task(id, op.signature.number);
            if let Request::Join { child } = op.request {
                self.keep_child(activation, child).await?;
            }
            let Some(row) = op.row.take() else { continue };
            let mut writes = Writes::default();
            let mut effects = Vec::new();
            if op.signature.kind == OpKind::Call
                && let Some((_, called)) = row.peer
            {
                self.post_cancel(called, "the caller was cancelled".to_owned(), &mut writes, &mut effects).await?;
            }
            if let Some(timer) = row.timer {
                self.clear_timer(&mut writes, timer);
            }
            writes.delete(key::begun(id, op.signature.number));
            self.write(writes, effects);
        }
        let children: Vec<u32> = activation.core.state.borrow().children.keys().copied().collect();
        self.cancel_children(activation, children, "the parent was cancelled").await
    }

    /// A child whose answer was on its way into a join that a cancel has ended: its row is there still, and goes with the parent.
    async fn keep_child(&mut self, activation: &mut Activation, child: u32) -> Result<(), VerbError> {
        if activation.core.state.borrow().children.contains_key(&child) {
            return Ok(());
        }
        if let Some(bytes) = self.get(key::begun(activation.id(), child)).await? {
            let row: Begun = wire::decode("begun operation", &bytes)?;
            activation.core.state.borrow_mut().children.insert(child, row);
        }
        Ok(())
    }

    /// Asks children to end that have not ended and were not asked before.
    pub(super) async fn cancel_children(&mut self, activation: &mut Activation, mut children: Vec<u32>, reason: &str) -> Result<(), VerbError> {
        let id = activation.id();
        children.sort_unstable();
        children.dedup();
        for number in children {
            if activation.core.state.borrow().children.get(&number).is_none_or(|row| row.cancelled) {
                continue;
            }
            // The row in the store knows whether the child has answered.
            let Some(bytes) = self.get(key::begun(id, number)).await? else { continue };
            let mut row: Begun = wire::decode("begun operation", &bytes)?;
            let Some((_, child)) = row.peer.clone().filter(|_| row.reply.is_none() && !row.cancelled) else { continue };
            row.cancelled = true;
            let mut writes = Writes::default();
            let mut effects = Vec::new();
            writes.put(key::begun(id, number), wire::encode(&row));
            self.post_cancel(child, reason.to_owned(), &mut writes, &mut effects).await?;
            self.write(writes, effects);
            activation.core.state.borrow_mut().children.insert(number, row);
        }
        Ok(())
    }

    fn forget_operations(&mut self, activation: &Activation, gone: Vec<(Option<Begun>, selvedge_kernel::journal::Signature)>) {
        let id = activation.id();
        let mut writes = Writes::default();
        for (row, signature) in gone {
            self.drop_task(id, signature.number);
            if !super::leftovers::has_room(&writes) {
                // However many they are: each is given up for itself.
                self.write(std::mem::take(&mut writes), Vec::new());
            }
            if let Some(row) = row {
                if let Some(timer) = row.timer {
                    self.clear_timer(&mut writes, timer);
                }
                writes.delete(key::begun(id, signature.number));
            }
        }
        if writes != Writes::default() {
            self.write(writes, Vec::new());
        }
    }

    /// Begins one operation; true if the handler should be polled again at once.
    async fn begin(&mut self, activation: &mut Activation, number: u32) -> Result<bool, VerbError> {
        let now = self.now();
        let id = activation.id();
        let Some((request, sig, row, timeout)) =
            activation.core.state.borrow_mut().ops.get_mut(&number).filter(|op| !op.decided && op.given.is_none()).map(|op| {
                op.begun = true;
                (op.request.clone(), op.signature.clone(), op.row.clone(), op.timeout.clone())
            })
        else {
            return Ok(false);
        };
        let adopted = row.is_some();
        // An answer that has come is taken, whatever time it is.
        if let Some(timer) = row.as_ref().filter(|row| row.reply.is_none()).and_then(|row| row.timer)
            && !self.timers.holds(timer)
        {
            // It fired while this invocation could not take it.
            if matches!(request, Request::Signal { .. }) {
                activation.outside.push_back(Outside::Signal { name: sig.name });
            }
            activation.outside.push_back(Outside::Due { number, timer });
            return Ok(false);
        }
        if matches!(request, Request::Activity { .. })
            && let Some(error) = self.wiring.revoked(&activation.record.message.context, &sig.name)
        {
            self.decide(activation, number, Given::Error(error));
            return Ok(false);
        }
        match request {
            Request::Step => {
                let waits = row.as_ref().is_some_and(|row| row.timer.is_some());
                if !waits {
                    self.keep_ready(activation);
                }
                if !waits
                    && let Some(op) = activation.core.state.borrow_mut().ops.get_mut(&number)
                    && op.step == StepState::Idle
                {
                    op.step = StepState::Allowed(row.as_ref().map_or(1, |row| row.attempts + 1));
                    return Ok(true);
                }
            }
            Request::Blocking(_) | Request::Activity { .. } => {
                let waits = row.as_ref().is_some_and(|row| row.timer.is_some());
                if !waits && !self.tasks.contains_key(&(id, number)) {
                    self.start_task(activation, number, row.map_or(1, |row| row.attempts + 1), timeout);
                }
            }
            Request::Call { target, handler, input, idempotency_key, timeout } => {
                let call = Call { number, sig, target, handler, input, idempotency_key, timeout };
                Box::pin(self.begin_call(activation, call, row)).await?;
            }
            Request::Join { child } => {
                let reply = activation.core.state.borrow().children.get(&child).and_then(|row| row.reply.clone());
                if reply.is_some() {
                    activation.outside.push_back(Outside::Replied { number: child });
                } else if !activation.core.state.borrow().children.contains_key(&child) {
                    let error = WorkError::new("joined", "this child was joined before, or was never sent");
                    self.decide(activation, number, Given::Error(error));
                } else if self.has_queue(&activation.record.message.target) {
                    self.watch_ring(id);
                }
            }
            Request::Sleep { until } => {
                if !adopted {
                    if until <= now {
                        self.decide(activation, number, Given::TimeUp);
                    } else {
                        self.begin_with_timer(activation, number, sig, Some(until));
                    }
                }
            }
            Request::Signal { within } => {
                if !adopted {
                    let until = within.map(|within| now.after(within));
                    self.begin_with_timer(activation, number, sig.clone(), until);
                }
                activation.outside.push_back(Outside::Signal { name: sig.name });
            }
            Request::Start { input } => Box::pin(self.start_run_from(activation, number, sig, input, row)).await?,
        }
        Ok(false)
    }

    fn begin_with_timer(&mut self, activation: &mut Activation, number: u32, sig: selvedge_kernel::journal::Signature, until: Option<Millis>) {
        let now = self.now();
        let id = activation.id();
        let mut writes = Writes::default();
        let mut row = Begun::new(sig, now);
        row.timer = until.map(|until| self.set_timer(&mut writes, until, Timer::Operation { invocation: id, number }));
        writes.put(key::begun(id, number), wire::encode(&row));
        self.set_row(activation, number, row);
        self.write(writes, Vec::new());
    }

    pub(crate) fn set_row(&self, activation: &mut Activation, number: u32, row: Begun) {
        if let Some(op) = activation.core.state.borrow_mut().ops.get_mut(&number) {
            op.row = Some(row);
        }
    }

    /// Sets the alarm at the end of a step's attempt, if it is still running.
    fn watch_attempt(&mut self, activation: &mut Activation, number: u32) {
        let now = self.now();
        let found = activation.core.state.borrow().ops.get(&number).and_then(|op| match op.step {
            StepState::Allowed(attempt) => Some((attempt, attempt_time(op.timeout.as_ref(), op.since, now))),
            StepState::Idle => None,
        });
        if let Some((attempt, Some(limit))) = found {
            let alarm = self.set_alarm(now.after(limit), Alarm::Attempt { invocation: activation.id(), number, attempt });
            let old = activation.core.state.borrow_mut().ops.get_mut(&number).and_then(|op| op.alarm.replace(alarm));
            self.clear_alarm(old);
        }
    }

    /// An attempt's time is up.
    pub(super) async fn attempt_timed_out(&mut self, id: InvocationId, number: u32, attempt: u32) {
        if number == u32::MAX {
            return self.transition_timed_out(id, attempt).await;
        }
        if self.tasks.get(&(id, number)).is_some_and(|task| task.attempt == attempt) {
            self.left_gate(id, number, &Err(timed_out(attempt)));
        }
        if self.tasks.get(&(id, number)).is_some_and(|task| task.attempt == attempt) && !self.activate_or_stop(id).await {
            // Between two attempts of its handler: the next one takes it.
            self.late.entry(id).or_default().push(Outside::TimedOut { number, attempt });
            return;
        }
        if let Some(activation) = self.active.get_mut(&id) {
            activation.outside.push_back(Outside::TimedOut { number, attempt });
            self.enqueue(id);
        }
    }

    /// Takes in an attempt's end: its value, its final error, or the time of the next attempt. False if it counts for nothing.
    pub(super) fn attempt_ended(&mut self, activation: &mut Activation, number: u32, attempt: u32, result: Result<Bytes, AttemptError>) -> bool {
        if activation.cancelling {
            return false;
        }
        let now = self.now();
        let id = activation.id();
        let found = activation.core.state.borrow_mut().ops.get_mut(&number).filter(|op| !op.decided).map(|op| {
            op.step = StepState::Idle;
            (op.signature.clone(), op.retry.clone(), op.timeout.clone(), op.row.clone(), op.since, op.alarm.take())
        });
        let Some((sig, retry, timeout, row, since, alarm)) = found else { return false };
        self.clear_alarm(alarm);
        let current = row.as_ref().map_or(1, |row| row.attempts + 1);
        if attempt != current {
            return false;
        }
        self.drop_task(id, number);
        let failure = match result {
            Ok(value) => {
                let given = match activation.core.check_body("the value of a step or an activity", value.len()) {
                    Ok(()) => Given::Value(value),
                    Err(error) => Given::Error(error),
                };
                self.decide(activation, number, given);
                return true;
            }
            Err(failure) => AttemptError { error: failure.error.bounded(), ..failure },
        };
        let retry = retry.unwrap_or_else(|| self.retry_of(&sig));
        let seed = u64::from(number)
            ^ u64::from_be_bytes([id.0.uuid[8], id.0.uuid[9], id.0.uuid[10], id.0.uuid[11], id.0.uuid[12], id.0.uuid[13], id.0.uuid[14], id.0.uuid[15]]);
        let verdict = after_failure(attempt, &failure, &retry, seed);
        let total = timeout.as_ref().and_then(|timeout| timeout.total);
        match verdict {
            Verdict::Again { delay } if total.is_none_or(|total| now.after(delay) < since.after(total.0)) => {
                let mut row = row.unwrap_or_else(|| Begun::new(sig, since));
                row.attempts = attempt;
                row.last_error = Some(failure.error);
                let mut writes = Writes::default();
                if let Some(timer) = row.timer.take() {
                    self.clear_timer(&mut writes, timer);
                }
                row.timer = Some(self.set_timer(&mut writes, now.after(delay), Timer::Operation { invocation: id, number }));
                writes.put(key::begun(id, number), wire::encode(&row));
                self.set_row(activation, number, row);
                self.write(writes, Vec::new());
            }
            Verdict::GiveUp => self.decide(activation, number, Given::Error(failure.error)),
            Verdict::Again { .. } | Verdict::Exhausted => self.decide(activation, number, Given::Error(exhausted(attempt, &failure.error))),
        }
        true
    }

    /// Says that the end of an attempt is written, once it is.
    pub(crate) fn say_written(&mut self, told: Option<Told>) {
        if let Some(told) = told {
            self.after_all(Effect::Answer(Box::new(move || told.written())));
        }
    }

    fn retry_of(&self, sig: &selvedge_kernel::journal::Signature) -> Retry {
        match sig.kind {
            OpKind::Activity => self.wiring.registry.activities.get(&sig.name).map(|activity| activity.retry.clone()).unwrap_or_default(),
            _ => Retry::default(),
        }
    }

    /// Decides an operation's result: its entry, and the delivery once that is durable.
    pub(crate) fn decide(&mut self, activation: &mut Activation, number: u32, given: Given) {
        self.decide_with(activation, number, given, Writes::default());
    }

    /// The same, together with what the result was taken from.
    pub(super) fn decide_taking(&mut self, activation: &mut Activation, number: u32, given: Given, writes: Writes) {
        self.decide_with(activation, number, given, writes);
    }

    pub(super) fn decide_with(&mut self, activation: &mut Activation, number: u32, given: Given, mut writes: Writes) {
        if activation.cancelling {
            return;
        }
        let id = activation.id();
        let Some(op) = activation.core.state.borrow_mut().ops.get_mut(&number).filter(|op| !op.decided).map(|op| {
            op.decided = true;
            op.step = StepState::Idle;
            (op.signature.clone(), op.row.take(), op.alarm.take())
        }) else {
            return;
        };
        let (sig, row, alarm) = op;
        self.clear_alarm(alarm);
        self.drop_task(id, number);
        if let Some(row) = &row {
            if let Some(timer) = row.timer {
                self.clear_timer(&mut writes, timer);
            }
            writes.delete(key::begun(id, number));
        }
        if activation.ahead >= DECIDED_AHEAD {
            // Its row stays until its entry is written.
            if let Some(op) = activation.core.state.borrow_mut().ops.get_mut(&number) {
                op.row = row;
            }
            activation.undecided.push_back((number, given, writes));
            return;
        }
        let now = self.now();
        let request_seal = row.and_then(|row| row.request_seal);
        let (ending, payload) = match &given {
            Given::Value(value) => (Ending::Value, value.clone()),
            Given::Error(error) => (Ending::Error, wire::encode(error)),
            Given::TimeUp => (Ending::TimeUp, Bytes::new()),
        };
        if payload.len() > limit::INLINE_BYTES {
            activation.chunked = true;
            self.write_chunks(id.0, seal(&activation.journal.key, &payload), &payload);
        }
        let mut entries = Vec::with_capacity(1);
        activation.journal.append(&mut entries, sig, ending, &payload, request_seal, now);
        activation.journal.write(&mut writes, &entries, &activation.record.message.target.tenant);
        if activation.ready.is_none() {
            activation.ready = Some(self.put_ready(&mut writes, id));
        }
        activation.ahead += 1;
        activation.begun_any = true;
        self.write(writes, vec![Effect::Deliver { id, life: activation.life, number, given, at: now }]);
    }

    /// Decides what had to wait because too much was decided ahead.
    pub(super) fn decide_queued(&mut self, activation: &mut Activation) {
        while activation.ahead < DECIDED_AHEAD
            && let Some((number, given, writes)) = activation.undecided.pop_front()
        {
            if let Some(op) = activation.core.state.borrow_mut().ops.get_mut(&number) {
                op.decided = false;
            }
            self.decide_with(activation, number, given, writes);
            if let Some(place) = activation.told.iter().position(|(other, _)| *other == number) {
                let (_, told) = activation.told.swap_remove(place);
                self.say_written(Some(told));
            }
        }
    }

    /// What an ended invocation leaves under way: rows go, children that were not joined are cancelled. Gives true if
    /// the transition could not hold all of it.
    pub(super) async fn end_operations(&mut self, activation: &mut Activation, writes: &mut Writes, effects: &mut Vec<Effect>) -> Result<bool, VerbError> {
        let id = activation.id();
        let rows = if activation.core.state.borrow().live {
            let mut state = activation.core.state.borrow_mut();
            let mut rows: Vec<Begun> = state.ops.values_mut().filter_map(|op| op.row.take()).collect();
            rows.extend(state.children.drain().map(|child| child.1));
            rows.sort_by_key(|row| row.signature.number);
            rows
        } else {
            self.begun_rows(id).await?
        };
        self.drop_tasks(id);
        self.late.remove(&id);
        for row in rows {
            if !super::leftovers::has_room(writes) {
                return Ok(true);
            }
            self.leave_operation(id, row, writes, effects).await?;
        }
        Ok(false)
    }

    /// Gives up one operation of an ended invocation.
    pub(super) async fn leave_operation(&mut self, id: InvocationId, row: Begun, writes: &mut Writes, effects: &mut Vec<Effect>) -> Result<(), VerbError> {
        if let Some(timer) = row.timer {
            self.clear_timer(writes, timer);
        }
        let begun = key::begun(id, row.signature.number);
        writes.puts.retain(|put| put.key != begun);
        writes.delete(begun);
        if row.signature.kind == OpKind::Spawn
            && row.reply.is_none()
            && !row.cancelled
            && let Some((_, child)) = row.peer
        {
            self.post_cancel(child, "the parent has ended".to_owned(), writes, effects).await?;
        }
        Ok(())
    }

    /// A task has ended elsewhere.
    pub(crate) async fn task_done(&mut self, id: InvocationId, number: u32, attempt: u32, result: Result<Bytes, AttemptError>, told: Option<Told>) {
        if self.tasks.get(&(id, number)).is_none_or(|task| task.attempt != attempt) {
            return;
        }
        self.left_gate(id, number, &result);
        if number == u32::MAX {
            self.transition_done(id, result, told).await;
            return;
        }
        let done = Outside::TaskDone { number, attempt, result, told };
        if !self.activate_or_stop(id).await {
            // Between two attempts of its handler: the next one takes it.
            self.late.entry(id).or_default().push(done);
            return;
        }
        if let Some(activation) = self.active.get_mut(&id) {
            activation.outside.push_back(done);
            self.enqueue(id);
        }
    }

    /// A task says how far it is.
    pub(crate) fn progress(&mut self, id: InvocationId, number: u32, progress: Bytes) {
        if let Some(task) = self.tasks.get_mut(&(id, number)) {
            task.progress = Some(progress);
        } else if let Some(activation) = self.active.get_mut(&id) {
            activation.core.state.borrow_mut().progress.insert(number, progress);
        }
    }
}

/// How long an attempt that starts now may take: its own time, and what is left of the time of all.
pub(super) fn attempt_time(timeout: Option<&Timeout>, since: Millis, now: Millis) -> Option<Duration> {
    let usual = Timeout::default();
    let timeout = timeout.unwrap_or(&usual);
    let total = timeout.total.map(|total| since.after(total.0).since(now));
    [timeout.attempt.map(|span| span.0), total].into_iter().flatten().min()
}

/// The time of an attempt is up.
pub(super) fn timed_out(attempt: u32) -> AttemptError {
    let error = WorkError::new("timeout", format!("attempt {attempt} was given up when its time was up"));
    AttemptError { error, retryable: true, retry_after_ms: None }
}
