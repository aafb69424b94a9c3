//! Attempts that one shard makes for its handlers: an activity stands aside for its breaker and its limit, as tasks of runs
//! do, and shares both with them.

use bytes::Bytes;
use selvedge_kernel::error::{AttemptError, WorkError};
use selvedge_kernel::id::{ActorId, InvocationId};
use selvedge_kernel::lend::{self, Ended};
use selvedge_kernel::machine::BreakerState;
use selvedge_kernel::pipeline::shared::SharedBreaker;
use selvedge_kernel::policy::{Breaker, Retry, Throttle, Timeout};
use selvedge_kernel::time::Millis;
use selvedge_kernel::waiting::Waiting;
use std::time::Duration;

use super::activate::Activation;
use super::decide::attempt_time;
use super::limits::Asker;
use super::timers::Alarm;
use super::{Effect, Shard};
use crate::core::Request;
use crate::registry::Executor;
use crate::runs::accept::{breaker_of, limit_of};
use crate::tasks;
use crate::worker::Event;

/// What an attempt needs before it starts, one after the other.
#[derive(Debug)]
pub(crate) struct Gate {
    breaker: Option<(ActorId, Breaker)>,
    throttle: Option<(ActorId, Throttle)>,
    /// Which of them it has.
    passed: Passed,
    retry: Retry,
    timeout: Option<Timeout>,
    /// When the operation began.
    since: Millis,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Passed {
    Nothing,
    Breaker,
    All,
}

impl Shard {
    /// Starts an attempt of an activity or a blocking step, once what it rests on is durable.
    pub(super) fn start_task(&mut self, activation: &mut Activation, number: u32, attempt: u32, timeout: Option<Timeout>) {
        let id = activation.id();
        let found = activation.core.state.borrow().ops.get(&number).map(|op| (op.signature.clone(), op.request.clone(), op.since, op.retry.clone()));
        let Some((sig, request, since, retry)) = found else { return };
        let now = self.now();
        let timeout = timeout.or_else(|| self.wiring.registry.activities.get(&sig.name).map(|activity| activity.timeout.clone()));
        let (work, gate) = match request {
            Request::Blocking(work) => (tasks::Work::Blocking(work), Ok(None)),
            Request::Activity { input } => {
                let gate = self.gate_of(&activation.record.message.target.tenant, &sig.name, &input, (retry, timeout.clone(), since));
                (tasks::Work::Activity(input), gate)
            }
            _ => return,
        };
        let (gate, wrong) = match gate {
            Ok(gate) => (gate, None),
            Err(error) => (None, Some(error)),
        };
        // Who stands aside is not at work: its own time does not run, that of all attempts does.
        let limit = match &gate {
            None => self.time_at_work(&sig.name, timeout.as_ref(), since, now),
            Some(_) => all_attempts(timeout.as_ref(), since, now),
        };
        let time = timeout.clone().unwrap_or_default().attempt.map(|span| span.0);
        let alarm = limit.map(|limit| self.set_alarm(now.after(limit), Alarm::Attempt { invocation: id, number, attempt }));
        let owner = tasks::Owner::Operation { invocation: id, number };
        let job = tasks::Job {
            owner,
            tenant: activation.record.message.target.tenant.clone(),
            time,
            attempt,
            key: activation.core.effect_key(&sig),
            deadline: limit.map(|limit| now.after(limit)),
            name: sig.name,
            work,
            handing: tasks::Handing::AtOnce,
            asker: Some(activation.record.message.context.clone()),
            trace: activation.record.message.trace.clone(),
        };
        let job = Some(job).filter(|_| wrong.is_none());
        self.tasks.insert((id, number), tasks::Running { attempt, since: now, job, gate, abort: None, progress: None, alarm });
        match wrong {
            None => self.after_all(Effect::Begin { id, number }),
            Some(error) => {
                let result = Err(AttemptError { error, retryable: false, retry_after_ms: None });
                self.wiring.mailbox(self.id).send(Event::TaskDone { invocation: id, number, attempt, result, told: None });
            }
        }
    }

    /// What an activity shares with whoever calls it. Errors: its key names no limit for this input.
    fn gate_of(
        &self,
        tenant: &str,
        name: &str,
        input: &[u8],
        (retry, timeout, since): (Option<Retry>, Option<Timeout>, Millis),
    ) -> Result<Option<Gate>, WorkError> {
        let Some(own) = self.wiring.registry.activities.get(name) else { return Ok(None) };
        if own.breaker.is_none() && own.throttle.is_none() || self.wiring.settings.tasks == crate::wiring::Tasks::Leave {
            return Ok(None);
        }
        let wrong = |error: super::VerbError| WorkError::new(error.code, error.message);
        let named = |key| ActorId { tenant: tenant.to_owned(), kind: lend::KIND.to_owned(), key };
        let breaker = match breaker_of(name, own, None).map_err(wrong)? {
            Some(shared) => Some((named(shared.of_input(input)?), shared.breaker)),
            None => None,
        };
        let throttle = match limit_of(name, own).map_err(wrong)? {
            Some(shared) => Some((named(shared.of_input(input)?), shared.throttle)),
            None => None,
        };
        let retry = retry.unwrap_or_else(|| own.retry.clone());
        Ok(Some(Gate { breaker, throttle, passed: Passed::Nothing, retry, timeout, since }))
    }

    /// What a task of an operation rests on is durable: it starts, or asks for what it stands aside for.
    pub(super) fn begin_task(&mut self, id: InvocationId, number: u32) {
        let asker = Asker::Operation(id, number);
        let Some(running) = self.tasks.get_mut(&(id, number)).filter(|running| running.job.is_some()) else { return };
        if let Some(gate) = &mut running.gate {
            if let (Passed::Nothing, Some((limit, breaker))) = (gate.passed, &gate.breaker) {
                return self.limits.ask_breaker(asker, 0, limit.clone(), breaker.clone());
            }
            if let (Passed::Nothing | Passed::Breaker, Some((limit, throttle))) = (gate.passed, &gate.throttle) {
                gate.passed = Passed::Breaker;
                return self.limits.ask(asker, 0, limit.clone(), throttle.clone());
            }
        }
        self.start_job(id, number);
    }

    /// How long an attempt that starts has: what waits for a worker has time until it is taken, and only that of all attempts runs.
    fn time_at_work(&self, name: &str, timeout: Option<&Timeout>, since: Millis, now: Millis) -> Option<Duration> {
        match self.wiring.registry.activities.get(name).map(|activity| &activity.run) {
            Some(Executor::Worker(_)) => all_attempts(timeout, since, now),
            _ => attempt_time(timeout, since, now),
        }
    }

    fn start_job(&mut self, id: InvocationId, number: u32) {
        let now = self.now();
        let Some(mut running) = self.tasks.remove(&(id, number)) else { return };
        if let (Some(job), Some(gate)) = (&mut running.job, &running.gate) {
            self.clear_alarm(running.alarm.take());
            let limit = self.time_at_work(&job.name, gate.timeout.as_ref(), gate.since, now);
            running.alarm = limit.map(|limit| self.set_alarm(now.after(limit), Alarm::Attempt { invocation: id, number, attempt: running.attempt }));
            (job.deadline, running.since) = (limit.map(|limit| now.after(limit)), now);
            self.limits.started(Asker::Operation(id, number));
        }
        if let Some(job) = running.job.take() {
            let wiring = self.wiring.clone();
            let mailbox = wiring.mailbox(self.id).clone();
            running.abort = Some(tasks::start(&wiring, mailbox, job));
        }
        self.tasks.insert((id, number), running);
    }

    /// It has what it asked for last.
    pub(super) fn admit_operation(&mut self, id: InvocationId, number: u32) {
        let Some(running) = self.tasks.get_mut(&(id, number)).filter(|running| running.job.is_some()) else { return };
        if let Some(gate) = &mut running.gate {
            gate.passed = match gate.passed {
                Passed::Nothing if gate.breaker.is_some() => Passed::Breaker,
                Passed::Nothing | Passed::Breaker | Passed::All => Passed::All,
            };
        }
        self.begin_task(id, number);
    }

    /// The breaker that let it through has opened: unless it has started, it asks again.
    pub(super) fn recall_operation(&mut self, id: InvocationId, number: u32) {
        let Some(running) = self.tasks.get_mut(&(id, number)).filter(|running| running.job.is_some()) else { return };
        let Some(gate) = &mut running.gate else { return };
        gate.passed = Passed::Nothing;
        self.limits.done(Asker::Operation(id, number));
        self.begin_task(id, number);
    }

    /// An attempt has ended by itself, or its time is up: what it had goes back, with what its end says.
    pub(super) fn left_gate(&mut self, id: InvocationId, number: u32, result: &Result<Bytes, AttemptError>) {
        if let Some(gate) = self.tasks.get(&(id, number)).and_then(|running| running.gate.as_ref()) {
            let ended = Ended::of_attempt(result, &gate.retry);
            self.limits.ended(Asker::Operation(id, number), ended);
        }
    }

    /// What an operation stands aside for.
    pub(super) fn aside(&self, id: InvocationId, number: u32) -> Option<Waiting> {
        let own = |owner| owner == tasks::Owner::Operation { invocation: id, number };
        if let Some(activity) = self.wiring.offers.untaken(own).pop().map(|(_, activity)| activity) {
            return Some(Waiting::NoExecutor { activity });
        }
        let asker = Asker::Operation(id, number);
        let gate = self.tasks.get(&(id, number)).filter(|running| running.job.is_some())?.gate.as_ref()?;
        match (gate.passed, &gate.breaker, &gate.throttle) {
            (Passed::Nothing, Some((limit, _)), _) => {
                let target = limit.key.trim_start_matches(SharedBreaker::OF).to_owned();
                Some(match self.limits.breakers.passes.word(limit) {
                    Some(word) => Waiting::Breaker { target, state: word.state, since: Some(word.since), until: word.until },
                    None => Waiting::Breaker { target, state: BreakerState::Closed, since: None, until: None },
                })
            }
            (Passed::Nothing | Passed::Breaker, _, Some((limit, _))) => {
                let before = self.limits.borrower.before(limit, |other| *other == asker).unwrap_or_default();
                Some(Waiting::Throttle { limit: limit.key.clone(), position: before as u64, lending: None })
            }
            _ => None,
        }
    }

    /// Gives a task up, and the wake-up at the end of its time.
    pub(super) fn drop_task(&mut self, id: InvocationId, number: u32) {
        if let Some(task) = self.tasks.remove(&(id, number)) {
            self.clear_alarm(task.alarm);
            if task.gate.is_some() {
                self.limits.done(Asker::Operation(id, number));
            }
        }
    }

    /// Gives all tasks of an invocation up.
    pub(super) fn drop_tasks(&mut self, id: InvocationId) {
        let gone: Vec<u32> = self.tasks.keys().filter(|(owner, _)| *owner == id).map(|(_, number)| *number).collect();
        gone.into_iter().for_each(|number| self.drop_task(id, number));
    }
}

/// What is left for all attempts together.
fn all_attempts(timeout: Option<&Timeout>, since: Millis, now: Millis) -> Option<Duration> {
    timeout.and_then(|timeout| timeout.total).map(|total| since.after(total.0).since(now))
}
