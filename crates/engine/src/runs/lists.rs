//! Verbs that look at runs, and those that interfere.

use bytes::Bytes;
use selvedge_kernel::auth::{AuthorizationContext, PrincipalKind};
use selvedge_kernel::error::Consequence;
use selvedge_kernel::id::{ActorId, ApprovalId, InvocationId, RunId};
use selvedge_kernel::journal::Hash32;
use selvedge_kernel::lend;
use selvedge_kernel::limit::PAGE;
use selvedge_kernel::machine::StageState;
use selvedge_kernel::nearest::suggestion;
use selvedge_kernel::pipeline::definition::Mode;
use selvedge_kernel::pipeline::run::{Answer, Decider, RunInput, RunRefused, RunStatus};
use selvedge_kernel::pipeline::shared::SharedBreaker;
use selvedge_kernel::ports::{Put, after_prefix};
use selvedge_kernel::record::key;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::run::{event_key, prefix};
use selvedge_kernel::record::shard::Called;
use selvedge_kernel::waiting::Waiting;
use selvedge_kernel::wire;

use std::collections::BTreeSet;

use super::memory::unknown;
use super::{Active, RunCommand, RunEnd, RunEvent, Watcher};
use crate::shard::{Reply, Shard, VerbError};

/// How many open calls to actors a status shows.
const CALLS_SHOWN: usize = 3;

impl Shard {
    pub(crate) async fn run_command(&mut self, command: RunCommand) {
        match command {
            RunCommand::Start { new, reply } => {
                let result = self.start_new_run(*new).await;
                self.answer(reply, result);
            }
            RunCommand::Fork { id, tenant, fork, context, reply } => {
                let result = match self.room_to_keep(&tenant) {
                    Ok(()) => self.fork_run(id, &tenant, *fork, context).await,
                    Err(error) => Err(error),
                };
                self.answer(reply, result);
            }
            RunCommand::Status { id, tenant, reply } => {
                let result = self.run_status(id, &tenant).await;
                self.answer(reply, result);
            }
            RunCommand::Shown { id, tenant, stage, reply } => {
                let result = self.run_shown(id, &tenant, &stage).await;
                self.answer(reply, result);
            }
            RunCommand::Tasks { id, tenant, asked, reply } => {
                let result = self.run_tasks(id, &tenant, asked).await;
                self.answer(reply, result);
            }
            RunCommand::Holder { line, reply } => {
                let result = self.holder_of(&line).await;
                self.answer(reply, result);
            }
            RunCommand::Wait { id, tenant, reply } => match self.run_end(id, &tenant).await {
                Ok(None) => self.runs.waiters.entry(id).or_default().push(reply),
                Ok(Some(end)) => self.answer(reply, Ok(end)),
                Err(error) => self.answer(reply, Err(error)),
            },
            RunCommand::Events { id, tenant, from, wait, reply } => match self.new_events(id, &tenant, from, wait).await {
                Ok(None) => self.runs.watchers.entry(id).or_default().push(Watcher { from, reply }),
                Ok(Some(events)) => self.answer(reply, Ok(events)),
                Err(error) => self.answer(reply, Err(error)),
            },
            RunCommand::Tell { id, tenant, input, reply } => {
                let result = self.tell_run(id, &tenant, input).await;
                self.answer(reply, result);
            }
            RunCommand::Signal { id, tenant, name, payload, key, reply } => {
                let result = self.signal_run(id, &tenant, name, payload, key).await;
                self.answer(reply, result);
            }
            RunCommand::Decide { id, stage, approve, by, comment, context, reply } => {
                let result = self.decide_run(id, &stage, approve, by, comment, &context).await;
                self.answer(reply, result);
            }
        }
    }

    /// Takes a run out of memory, or reads one that has ended. Who takes it keeps it again.
    pub(super) async fn take_run(&mut self, id: RunId, tenant: &str) -> Result<Active, VerbError> {
        self.activate_run(id).await?;
        let active = match self.runs.active.remove(&id) {
            Some(active) => active,
            None => self.read_run(id).await?,
        };
        if active.run.header().tenant != tenant {
            self.keep(active);
            return Err(unknown(id));
        }
        Ok(active)
    }

    async fn run_status(&mut self, id: RunId, tenant: &str) -> Result<RunStatus, VerbError> {
        let active = self.take_run(id, tenant).await?;
        let mut status = active.run.status();
        let open = active.called.values().filter_map(|open| match (&open.called, &open.handler) {
            (Called::Actor(invocation), Some((target, handler))) => {
                Some(Waiting::Call { target: target.clone(), handler: handler.clone(), invocation: *invocation })
            }
            _ => None,
        });
        status.waiting.extend(open.take(CALLS_SHOWN));
        let own = |owner| matches!(owner, crate::tasks::Owner::Run { run, .. } if run == id);
        let activities: BTreeSet<String> = self.wiring.offers.untaken(own).into_iter().map(|(_, activity)| activity).collect();
        status.waiting.extend(activities.into_iter().map(|activity| Waiting::NoExecutor { activity }));
        self.keep(active);
        self.placed(id, tenant, &mut status.waiting);
        Ok(status)
    }

    /// Says how the limits and breakers stand that something of a run waits for.
    pub(super) fn placed(&self, id: RunId, tenant: &str, waits: &mut [Waiting]) {
        for waiting in waits {
            if let Waiting::Breaker { target, state, since, until } = waiting {
                let limit = ActorId { tenant: tenant.to_owned(), kind: lend::KIND.to_owned(), key: format!("{}{target}", SharedBreaker::OF) };
                if let Some(word) = self.limits.breakers.passes.word(&limit) {
                    (*state, *since, *until) = (word.state, Some(word.since), word.until);
                }
                continue;
            }
            if let Waiting::Throttle { limit, position, .. } = waiting
                && let Some(before) = self.limits.place(id, tenant, limit)
            {
                *position = before;
            }
        }
    }

    async fn run_end(&mut self, id: RunId, tenant: &str) -> Result<Option<RunEnd>, VerbError> {
        let active = self.take_run(id, tenant).await?;
        let header = active.run.header();
        let (state, output, error) = (header.state, header.output.clone(), header.error.clone());
        self.keep(active);
        if !state.ended() {
            return Ok(None);
        }
        Ok(Some(RunEnd { state, output: self.stored(id, output).await?, error }))
    }

    async fn events(&self, id: RunId, from: u64) -> Result<Vec<(u64, RunEvent)>, VerbError> {
        let range = event_key(id, from)..after_prefix(&prefix(Kind::RunEvent, id));
        let mut events = Vec::new();
        for (row, value) in self.scan(range, PAGE).await? {
            if let Some(n) = key::last_u64(&row) {
                events.push((n, wire::decode("run event", &value)?));
            }
        }
        Ok(events)
    }

    /// Events from a number on; none if there is none yet and the run goes on.
    async fn new_events(&mut self, id: RunId, tenant: &str, from: u64, wait: bool) -> Result<Option<Vec<(u64, RunEvent)>>, VerbError> {
        let active = self.take_run(id, tenant).await?;
        let goes_on = !active.run.header().state.ended();
        self.keep(active);
        let events = self.events(id, from).await?;
        Ok(if events.is_empty() && wait && goes_on { None } else { Some(events) })
    }

    /// Gives those who follow a run what its last commit did.
    pub(super) async fn tell_watchers(&mut self, id: RunId) -> Result<(), VerbError> {
        let Some(watchers) = self.runs.watchers.remove(&id) else { return Ok(()) };
        let ended = self.runs.active.get(&id).is_none_or(|active| active.run.header().state.ended());
        for watcher in watchers {
            let events = self.events(id, watcher.from).await?;
            if events.is_empty() && !ended {
                self.runs.watchers.entry(id).or_default().push(watcher);
            } else {
                self.answer(watcher.reply, Ok(events));
            }
        }
        Ok(())
    }

    async fn tell_run(&mut self, id: RunId, tenant: &str, input: RunInput) -> Result<(), VerbError> {
        let mut active = self.take_run(id, tenant).await?;
        let now = self.now();
        match active.run.apply(input, now) {
            Ok(effects) => self.move_on(active, effects).await,
            Err(error) => {
                self.keep(active);
                Err(refused(id, &error))
            }
        }
    }

    /// Delivers a signal that a stage waits for or will wait for; under the same key once.
    async fn signal_run(&mut self, id: RunId, tenant: &str, name: String, payload: Bytes, idempotency: Option<String>) -> Result<(), VerbError> {
        let once = idempotency.map(|idempotency| key::invocation_signal_once(InvocationId(id.0), &name, &idempotency));
        let known = match &once {
            Some(row) => self.get(row.clone()).await?,
            None => None,
        };
        let mut active = self.take_run(id, tenant).await?;
        let hash = Hash32(*blake3::hash(&payload).as_bytes());
        if let Some(known) = known {
            self.keep(active);
            let before: Hash32 = wire::decode("key of a signal", &known)?;
            if before == hash {
                return Ok(());
            }
            let text = format!("this key was used for the signal `{name}` of {id} with another payload: send the same payload, or take a new key");
            return Err(VerbError::new(Consequence::Conflict, "idempotency_mismatch", text));
        }
        if let Some(error) = nobody_waits(&active, id, &name) {
            self.keep(active);
            return Err(error);
        }
        if let Err(error) = self.room_to_keep(tenant) {
            self.keep(active);
            return Err(error);
        }
        let now = self.now();
        match active.run.apply(RunInput::Signal { name, payload }, now) {
            Ok(mut effects) => {
                if let Some(key) = once {
                    // The chain of the run covers it: it goes with the run.
                    effects.puts.push(Put { key, value: wire::encode(&hash), expires: None });
                }
                self.move_on(active, effects).await
            }
            Err(error) => {
                self.keep(active);
                Err(refused(id, &error))
            }
        }
    }

    async fn decide_run(
        &mut self,
        id: RunId,
        stage: &str,
        approve: bool,
        by: String,
        comment: Option<String>,
        context: &AuthorizationContext,
    ) -> Result<(), VerbError> {
        let tenant = context.principal.tenant.clone();
        let active = self.take_run(id, &tenant).await?;
        let status = active.run.status();
        let mode = active.run.compiled().definition.stages.iter().find(|other| other.name == stage).map(|stage| stage.mode.clone());
        self.keep(active);
        let (assignees, escalate_to) = match mode {
            Some(Mode::Approval { assignees, escalate_to, .. }) => (assignees, escalate_to),
            Some(_) => return Err(VerbError::new(Consequence::FixInput, "no_approval", format!("the stage `{stage}` of {id} asks nobody: it is no approval"))),
            None => {
                let names: Vec<&str> = status.stages.iter().map(|stage| stage.name.as_str()).collect();
                return Err(VerbError::new(Consequence::NotFound, "unknown_stage", format!("{id} has no stage `{stage}`; it has {}", names.join(", "))));
            }
        };
        let approval = status.stages.iter().find(|other| other.name == stage).and_then(|stage| stage.approval.clone());
        let Some(approval) = approval.and_then(|id| id.parse::<ApprovalId>().ok()) else {
            return Err(VerbError::new(Consequence::Conflict, "wrong_state", format!("the approval `{stage}` of {id} is not open: the stage has not started")));
        };
        // Who owns the process answers for every role; who comes from outside for his own.
        let roles = if matches!(context.principal.kind, PrincipalKind::Local | PrincipalKind::System) {
            assignees.iter().chain(&escalate_to).filter_map(|assignee| assignee.strip_prefix("role:")).map(str::to_owned).collect()
        } else {
            context.principal.roles.clone()
        };
        let answer = if approve { Answer::Approve } else { Answer::Reject };
        let decider = Decider { id: by, roles };
        self.tell_run(id, &tenant, RunInput::Decision { approval, decider, answer, comment }).await
    }
}

/// The refusal of a signal that no stage of a run that goes on waits for, now or later; with the names that some stage does.
fn nobody_waits(active: &Active, id: RunId, name: &str) -> Option<VerbError> {
    let header = active.run.header();
    if header.state.ended() {
        return None;
    }
    let stages = active.run.compiled().definition.stages.iter().zip(&header.stages);
    let waits = stages.filter_map(|(stage, at)| match &stage.mode {
        Mode::WaitSignal { signal } => Some((signal.as_str(), stage.name.as_str(), at.state)),
        _ => None,
    });
    let (open, over): (Vec<_>, Vec<_>) = waits.partition(|(_, _, state)| matches!(state, StageState::Pending | StageState::Running));
    if open.iter().any(|(signal, ..)| *signal == name) {
        return None;
    }
    if let Some((_, stage, state)) = over.iter().find(|(signal, ..)| *signal == name) {
        let text = format!("{id} waits no more for the signal `{name}`: its stage `{stage}` is {state}");
        return Some(VerbError::new(Consequence::Conflict, "wrong_state", text));
    }
    let hint = match suggestion(name, open.iter().map(|(signal, ..)| *signal)) {
        hint if hint.is_empty() => "it waits for no signal any more".to_owned(),
        hint => hint,
    };
    Some(VerbError::new(Consequence::NotFound, "unknown_signal", format!("no stage of {id} waits for the signal `{name}`: {hint}")))
}

pub(super) fn refused(id: RunId, error: &RunRefused) -> VerbError {
    let (consequence, code) = match error {
        RunRefused::Ended { .. } | RunRefused::State(_) | RunRefused::Answered { .. } | RunRefused::Compensating { .. } | RunRefused::NotUndone { .. } => {
            (Consequence::Conflict, "wrong_state")
        }
        RunRefused::NoStage { .. } => (Consequence::NotFound, "unknown_stage"),
        RunRefused::NoApproval { .. } => (Consequence::NotFound, "no_approval"),
        RunRefused::NotAssigned { .. } => (Consequence::NotPermitted, "not_assigned"),
        RunRefused::Signals { .. } => (Consequence::Limit, "limit: signals"),
        RunRefused::SignalName { .. } => (Consequence::Limit, "limit: key part"),
    };
    VerbError::new(consequence, code, format!("{id}: {error}"))
}

/// Answers everybody who waits for a run that is gone.
pub(super) fn gone<T>(id: RunId, waiters: Vec<Reply<T>>) {
    for waiter in waiters {
        let _ = waiter.send(Err(unknown(id)));
    }
}
