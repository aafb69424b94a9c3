//! What a run lets out: attempts, calls, aborts, its end.

use selvedge_kernel::error::{AttemptError, WorkError};
use selvedge_kernel::id::RunId;
use selvedge_kernel::journal::Payload;
use selvedge_kernel::lend::Ended;
use selvedge_kernel::pipeline::compiled::Compiled;
use selvedge_kernel::pipeline::definition::{Executor, Mode, Rest};
use selvedge_kernel::pipeline::run::{Command, Dispatch, RunInput, Work, call_id};
use selvedge_kernel::record::Writes;
use selvedge_kernel::record::message::{Message, Peer};
use selvedge_kernel::record::run::Stored;

use bytes::Bytes;
use std::time::Duration;

use super::{Doing, RunEffect, RunEnd, Task};
use crate::registry::Activity;
use crate::shard::{Alarm, Asker, Shard, VerbError};
use crate::tasks::{self, Job, Owner};
use crate::work::Told;

impl Shard {
    /// A commit of a run is durable: what rests on it is done in this turn.
    pub(crate) fn perform_run(&mut self, effect: RunEffect) {
        self.runs.performing.push_back(effect);
    }

    pub(super) async fn perform_commands(&mut self, effect: RunEffect) -> Result<(), VerbError> {
        let RunEffect { run, commands, rounds } = effect;
        for command in commands {
            match command {
                Command::Dispatch(dispatch) => {
                    let round = rounds.get(usize::from(dispatch.stage)).copied().unwrap_or(0);
                    self.dispatch(run, dispatch, round).await?;
                }
                Command::Borrow { stage, item, number, limit, throttle } => self.limits.ask(Asker::Task(run, stage, item), number, limit, throttle),
                Command::AskBreaker { stage, item, number, limit, breaker } => self.limits.ask_breaker(Asker::Task(run, stage, item), number, limit, breaker),
                Command::GiveBack { stage, item: Some(item) } => self.limits.done(Asker::Task(run, stage, item)),
                Command::GiveBack { stage, item: None } => {
                    for task in self.limits.of_run(run, Some(stage)) {
                        if self.limits.has_asked(task) {
                            self.limits.done(task);
                        }
                    }
                }
                Command::AbortStage { stage } => self.abort_tasks(run, Some(stage)),
                Command::EnterLine { entering, above, left } => {
                    self.leave_lines(left).await?;
                    self.ask_line(entering, above).await?;
                }
                // Its timer stands in the commit that decided it.
                Command::CancelCalls { .. } => {}
                Command::EndCalls { stage } => self.end_calls(run, stage).await?,
                Command::RunEnded { state, output, error } => {
                    self.abort_tasks(run, None);
                    if let Some(waiters) = self.runs.waiters.remove(&run) {
                        let output = self.stored(run, output).await?;
                        for waiter in waiters {
                            let _ = waiter.send(Ok(RunEnd { state, output: output.clone(), error: error.clone() }));
                        }
                    }
                }
            }
        }
        self.tell_watchers(run).await?;
        if let Some(active) = self.runs.active.get_mut(&run) {
            active.unperformed = active.unperformed.saturating_sub(1);
            self.rest(run);
        }
        Ok(())
    }

    /// A value of a run, wherever it is.
    pub(super) async fn stored(&self, run: RunId, value: Option<Stored>) -> Result<Option<Bytes>, VerbError> {
        Ok(match value {
            None => None,
            Some(Stored::Inline(bytes)) => Some(bytes),
            Some(Stored::Chunked { seal, len }) => Some(self.payload(run.0, seal, &Payload::Chunked { len }).await?),
        })
    }

    async fn dispatch(&mut self, run: RunId, dispatch: Dispatch, round: u32) -> Result<(), VerbError> {
        let Some(active) = self.runs.active.get(&run) else { return Ok(()) };
        let Dispatch { stage, item, attempt, work, input, key, timeout_ms, total_ms } = dispatch;
        let compiled = active.run.compiled().clone();
        let now = self.head.time.max(self.tick.wall);
        self.limits.started(Asker::Task(run, stage, item));
        let deadline = timeout_ms.map(|ms| now.after(Duration::from_millis(ms)));
        if !matches!(work, Work::Activity { .. }) && active.called.get(&(stage, item)).is_none_or(|open| open.attempt != attempt) {
            // It was given up, or has answered, since this was decided.
            return Ok(());
        }
        if let Work::Activity { name } = &work
            && !undoes(&compiled, stage)
            && let Some(error) = self.wiring.revoked(active.run.context(), name)
        {
            self.limits.done(Asker::Task(run, stage, item));
            let result = Err(AttemptError { error, retryable: false, retry_after_ms: None });
            self.runs.tell(run, RunInput::TaskEnded { stage, item, attempt, result });
            return Ok(());
        }
        match work {
            Work::Activity { name } => {
                let declared = compiled.definition.activities.get(&name).map(|activity| &activity.executor);
                let work = match declared {
                    Some(Executor::Exec(exec)) => Some(tasks::Work::Exec(exec.clone(), input)),
                    Some(Executor::Http(http)) => Some(tasks::Work::Http(http.clone(), compiled.definition.egress.clone(), input)),
                    Some(Executor::Worker(worker)) => Some(tasks::Work::Worker(worker.clone(), input)),
                    Some(Executor::Native) | None => self.wiring.registry.activities.contains_key(&name).then_some(tasks::Work::Activity(input)),
                };
                let Some(work) = work else {
                    let reason = format!("nothing here can run the activity `{name}`: register it, or declare it in app.yaml, and start again");
                    self.limits.done(Asker::Task(run, stage, item));
                    self.runs.tell(run, RunInput::NoExecutor { stage, item, attempt, reason });
                    return Ok(());
                };
                // What waits for a worker has time until it is taken; only that of all attempts runs.
                let time = timeout_ms.map(Duration::from_millis);
                let offered = self.is_offered(&name, &work);
                let deadline = if offered { total_ms.map(|ms| now.after(Duration::from_millis(ms))) } else { deadline };
                let tenant = active.run.header().tenant.clone();
                let asker = (offered && !undoes(&compiled, stage)).then(|| active.run.context().clone());
                let wiring = self.wiring.clone();
                let mailbox = wiring.mailbox(self.id).clone();
                let (owner, handing) = (Owner::Run { run, stage, item }, crate::tasks::Handing::AtOnce);
                let trace = active.run.trace().map(str::to_owned);
                let abort = tasks::start(&wiring, mailbox, Job { owner, tenant, attempt, key, deadline, time, name, work, handing, asker, trace });
                let alarm = deadline.map(|at| self.set_alarm(at, Alarm::Task { run, stage, item, attempt }));
                self.runs.tasks.insert((run, stage, item), Task { attempt, alarm, work: Doing::Here { _abort: abort } });
            }
            Work::Pipeline { name } => self.start_child(run, (stage, item, attempt), (round, deadline), &name, &input).await?,
            Work::Actor { target, handler } => {
                let id = call_id(run, (stage, item, attempt), round, &target);
                let name = compiled.plan.get(usize::from(stage)).map_or("", |stage| &stage.name);
                let context = active.run.context().through(&run.actor(&active.run.header().tenant), name);
                let reply_to = Some(Peer::Task { run, stage, item, attempt });
                let trace = active.run.trace().map(str::to_owned);
                let message = Message { deadline, reply_to, trace, ..Message::new(id, target, handler, input, context) };
                self.runs.tasks.insert((run, stage, item), Task { attempt, alarm: None, work: Doing::Called });
                let mut writes = Writes::default();
                let mut effects = Vec::new();
                self.post(message, &mut writes, &mut effects).await?;
                if writes != Writes::default() || !effects.is_empty() {
                    self.write(writes, effects);
                }
            }
        }
        Ok(())
    }

    /// Whether the tasks of a stage run on, unread, when their run has ended: of one that takes the first output and lets the others run.
    pub(super) fn runs_on(compiled: &Compiled, stage: u16) -> bool {
        let mode = compiled.plan.get(usize::from(stage)).map(|stage| &stage.mode);
        matches!(mode, Some(Mode::Fork { first: true, rest: Rest::Run, .. }))
    }

    /// Ends what runs here of a stage, or of a whole run; ends that come all the same are late. Whom it has called is asked to end by a
    /// timer, see `given_up.rs`.
    fn abort_tasks(&mut self, run: RunId, stage: Option<u16>) {
        let (first, last) = stage.map_or((0, u16::MAX), |stage| (stage, stage));
        let compiled = self.runs.active.get(&run).map(|active| active.run.compiled().clone());
        let runs_on = |of: u16| stage.is_none() && compiled.as_ref().is_some_and(|compiled| Shard::runs_on(compiled, of));
        for asker in self.limits.of_run(run, stage) {
            if !matches!(asker, Asker::Task(_, of, _) if runs_on(of)) || self.limits.has_asked(asker) {
                self.limits.done(asker);
            }
        }
        let gone = self.runs.tasks.range((run, first, 0)..=(run, last, u32::MAX)).map(|(task, _)| *task);
        let gone: Vec<_> = gone.filter(|(_, of, _)| !runs_on(*of)).collect();
        for task in gone {
            if let Some(task) = self.runs.tasks.remove(&task) {
                self.clear_alarm(task.alarm);
            }
        }
    }

    /// Forgets an attempt that has ended; false if it is not the one under way.
    pub(super) fn forget_task(&mut self, task: (RunId, u16, u32), attempt: u32, result: &Result<Bytes, AttemptError>) -> bool {
        if let Some(active) = self.runs.active.get_mut(&task.0)
            && active.called.get(&(task.1, task.2)).is_some_and(|open| open.attempt == attempt)
        {
            active.called.remove(&(task.1, task.2));
        }
        if self.runs.tasks.get(&task).is_none_or(|task| task.attempt != attempt) {
            return false;
        }
        let ended = self.runs.active.get(&task.0).map_or(Ended::GivenUp, |active| active.run.says(task.1, task.2, result));
        self.limits.ended(Asker::Task(task.0, task.1, task.2), ended);
        if let Some(task) = self.runs.tasks.remove(&task) {
            self.clear_alarm(task.alarm);
        }
        true
    }

    /// An attempt of a task of this process has ended.
    pub(crate) fn run_task_done(&mut self, run: RunId, (stage, item, attempt): (u16, u32, u32), result: Result<Bytes, AttemptError>, told: Option<Told>) {
        if self.forget_task((run, stage, item), attempt, &result) {
            if let Some(told) = told.filter(|_| self.runs.active.contains_key(&run)) {
                self.runs.told.insert((run, stage, item, attempt), told);
            }
            self.runs.tell(run, RunInput::TaskEnded { stage, item, attempt, result });
        }
    }

    /// Whether a task waits for a worker of another process.
    fn is_offered(&self, name: &str, work: &tasks::Work) -> bool {
        let registered = || matches!(self.wiring.registry.activities.get(name), Some(Activity { run: crate::registry::Executor::Worker(_), .. }));
        matches!(work, tasks::Work::Worker(..)) || matches!(work, tasks::Work::Activity(_)) && registered()
    }

    /// The time of an attempt is up.
    pub(crate) fn run_task_late(&mut self, run: RunId, stage: u16, item: u32, attempt: u32) {
        let error = WorkError::new("timeout", format!("attempt {attempt} was given up when its time was up"));
        self.run_task_done(run, (stage, item, attempt), Err(AttemptError { error, retryable: true, retry_after_ms: None }), None);
    }
}

/// Whether a stage undoes what another one did: that goes on when whoever asked for the run is gone.
fn undoes(compiled: &Compiled, stage: u16) -> bool {
    usize::from(stage) >= compiled.definition.stages.len()
}
