//! Transition handlers: `{actor, handler, message, state}` goes out, `{result | error, state, send}` comes back, and
//! what it says is one commit with the message's completion.

use bytes::Bytes;

use selvedge_kernel::error::{AttemptError, WorkError};
use selvedge_kernel::id::{ActorId, InvocationId, effect_key};
use selvedge_kernel::manifest::Performer;
use selvedge_kernel::record::invocation::{Blocked, Status};
use selvedge_kernel::record::message::Message;
use selvedge_kernel::record::{Writes, kept, key};
use selvedge_kernel::transition::sent_id;
use tokio::sync::oneshot;

use super::activate::{Activation, CRASHES};
use super::advance::Step;
use super::timers::Alarm;
use super::{Effect, Shard, VerbError};
use crate::core::within_body;
use crate::exec::{read_transition, transition_input};
use crate::tasks;
use crate::work::Told;

/// The number of the one operation that a transition handler is.
const NUMBER: u32 = u32::MAX;

impl Shard {
    pub(super) async fn advance_transition(&mut self, activation: &mut Activation) -> Result<Step, VerbError> {
        let id = activation.id();
        if activation.record.cancel.is_some() {
            // Its program is told to end, and what it says from here on is late.
            self.drop_task(id, NUMBER);
            activation.answer = None;
            activation.told.clear();
            activation.core.state.borrow_mut().cancelled = true;
            let reason = activation.record.cancel.clone().unwrap_or_default();
            return Ok(Step::Ended(Err(AttemptError { error: WorkError::new("cancelled", reason), retryable: false, retry_after_ms: None })));
        }
        if let Some(result) = activation.answer.take() {
            return Ok(self.transition_ended(activation, result).await);
        }
        activation.core.state.borrow_mut().live = true;
        if let Some(accepted) = activation.pending.take() {
            activation.pending = Some(accepted);
            self.flush(activation).await?;
            return Ok(Step::Keep);
        }
        if !activation.durable || self.tasks.contains_key(&(id, NUMBER)) {
            return Ok(Step::Keep);
        }
        let Some(handler) = self.transition_of(activation) else { return Ok(Step::Keep) };
        let target = &activation.record.message.target;
        let state = self.state_entries(target, "").await?.into_iter().collect();
        let input = transition_input(&target.kind, &target.key, &activation.record.message.handler, &activation.input, &state);
        let now = self.now();
        let time = handler.timeout.attempt.map(|span| span.0);
        let asker = matches!(handler.run, Performer::Worker(_)).then(|| activation.record.message.context.clone());
        let (work, deadline, time) = match handler.run {
            Performer::Exec(exec) => (tasks::Work::Exec(exec, input), time.map(|time| now.after(time)), None),
            // Its time begins when a worker has it.
            Performer::Worker(worker) => (tasks::Work::Worker(worker, input), None, time),
        };
        let attempt = activation.record.attempt;
        let alarm = deadline.map(|deadline| self.set_alarm(deadline, Alarm::Attempt { invocation: id, number: NUMBER, attempt }));
        let job = tasks::Job {
            owner: tasks::Owner::Operation { invocation: id, number: NUMBER },
            tenant: activation.record.message.target.tenant.clone(),
            time,
            attempt,
            key: effect_key(id.0, &[handler.activity.as_bytes()]),
            deadline,
            name: handler.activity.clone(),
            work,
            asker,
            trace: activation.record.message.trace.clone(),
            handing: if activation.uncounted { tasks::Handing::Counted } else { tasks::Handing::AtOnce },
        };
        activation.begun_any = true;
        self.tasks.insert((id, NUMBER), tasks::Running { attempt, since: now, job: Some(job), gate: None, abort: None, progress: None, alarm });
        self.after_all(Effect::Begin { id, number: NUMBER });
        Ok(Step::Keep)
    }

    /// Its program is there, and it runs again after an unclean end of the process: that is written before it gets the task,
    /// so that an end that only met a starting program does not count.
    pub(crate) fn hand_over(&mut self, id: InvocationId, number: u32, attempt: u32, go: oneshot::Sender<()>) {
        if self.tasks.get(&(id, number)).is_none_or(|task| task.attempt != attempt) {
            return;
        }
        let Some(activation) = self.active.get_mut(&id) else { return };
        activation.uncounted = false;
        activation.record.status = Status::Running;
        if activation.record.crashes.0 >= CRASHES {
            return self.block(id, Blocked::Crashes);
        }
        activation.record.crashes.0 += 1;
        let mut writes = Writes::default();
        writes.put(key::invocation(id), activation.record.encode());
        let answer = Effect::Answer(Box::new(move || {
            let _ = go.send(());
        }));
        self.write(writes, vec![answer]);
    }

    /// A transition handler has answered.
    pub(super) async fn transition_done(&mut self, id: InvocationId, result: Result<Bytes, AttemptError>, told: Option<Told>) {
        self.drop_task(id, NUMBER);
        if self.activate_or_stop(id).await
            && let Some(activation) = self.active.get_mut(&id)
        {
            activation.answer = Some(result);
            activation.told.extend(told.map(|told| (NUMBER, told)));
            self.enqueue(id);
        }
    }

    /// Its attempt's time is up.
    pub(super) async fn transition_timed_out(&mut self, id: InvocationId, attempt: u32) {
        if self.tasks.get(&(id, NUMBER)).is_some_and(|task| task.attempt == attempt) {
            let error = WorkError::new("timeout", format!("attempt {attempt} was given up when its time was up"));
            self.transition_done(id, Err(AttemptError { error, retryable: true, retry_after_ms: None }), None).await;
        }
    }

    async fn transition_ended(&mut self, activation: &mut Activation, result: Result<Bytes, AttemptError>) -> Step {
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(failure) => return Step::Ended(Err(failure)),
        };
        let answer = match read_transition(&bytes) {
            Ok(answer) => answer,
            Err(failure) => return Step::Ended(Err(failure)),
        };
        let result = match answer.outcome {
            Ok(result) => result,
            Err(error) => return Step::Ended(Err(AttemptError { error, retryable: false, retry_after_ms: None })),
        };
        // Nothing refuses it from here on: what is sent is numbered, and a number that is not written is a hole.
        if let Err(error) = within_body(self.wiring.settings.limits.body_bytes, "the result of the handler", result.len()) {
            return Step::Ended(Err(AttemptError { error, retryable: false, retry_after_ms: None }));
        }
        let actor = activation.record.message.target.clone();
        let names: std::collections::BTreeSet<&str> = answer.set.keys().map(String::as_str).collect();
        match self.names_fit(&actor, &names).await {
            Ok(None) => {}
            Ok(Some(error)) => return Step::Ended(Err(AttemptError { error, retryable: false, retry_after_ms: None })),
            Err(error) => {
                self.wiring.stop(error.message);
                return Step::Keep;
            }
        }
        let mut writes = Writes::default();
        let mut effects = Vec::new();
        let changed = answer.set.keys().chain(&answer.delete).map(|name| key::state(&actor, name));
        match self.state_bytes_of(changed).await {
            Ok(before) => writes.keep(&actor.tenant, answer.set.values().map(|value| kept::change(value.len())).sum::<i64>() - before),
            Err(error) => {
                self.wiring.stop(error.message);
                return Step::Keep;
            }
        }
        for (name, value) in answer.set {
            writes.put(key::state(&actor, &name), value);
        }
        for name in answer.delete {
            writes.delete(key::state(&actor, &name));
        }
        let now = self.now();
        for (number, send) in answer.sends.into_iter().enumerate() {
            let target = ActorId { tenant: actor.tenant.clone(), kind: send.actor, key: send.key };
            let own = &activation.record.message;
            let context = own.context.through(&own.target, &own.handler);
            let id = sent_id(own.id.0, number as u64, &target);
            let message = Message { trace: own.trace.clone(), ..Message::new(id, target, send.handler, send.input, context) };
            let sent = match send.delay {
                Some(delay) => self.post_later(now.after(delay.0), message, &mut writes, &mut effects).await,
                None => self.post(message, &mut writes, &mut effects).await,
            };
            if let Err(error) = sent {
                self.wiring.stop(error.message);
            }
        }
        activation.closing = Some((writes, effects));
        Step::Ended(Ok(result))
    }
}
