//! The engine's verbs for runs. Each consumes a permit.

use std::sync::Arc;

use bytes::Bytes;
use selvedge_kernel::auth::{Action, Permit, Resource};
use selvedge_kernel::error::Consequence;
use selvedge_kernel::id::{RawId, RunId};
use selvedge_kernel::limit::ERROR_BYTES;
use selvedge_kernel::pipeline::definition::Definition;
use selvedge_kernel::pipeline::run::{RunInput, RunStatus};
use selvedge_kernel::record::line::LineId;
use selvedge_kernel::waiting::Waiting;

use super::accept::{checked_input, compiled};
use super::{NewRun, RunCommand, RunControl, RunEnd, RunEvent, RunStart};
use crate::definitions::in_force;
use crate::door::{check_part, expect_action, misused, tenant_for};
use crate::engine::Engine;
use crate::in_flight::InFlight;
use crate::shard::{Command, Reply, VerbError};

impl Engine {
    /// Starts a run of what a pipeline's name means now: its newest stored version, else what this process was given.
    /// Errors: as [`Engine::start_run`], and a name that is neither stored nor registered.
    pub async fn start_named(&self, permit: Permit, input: Bytes, start: RunStart) -> Result<RunId, VerbError> {
        expect_action(&permit, Action::Start)?;
        let Resource::Pipeline { tenant, name } = permit.resource() else { return Err(misused(&permit)) };
        let definition = in_force(&self.wiring, tenant, name).await?;
        self.start_run(permit, definition, input, start).await
    }

    /// Starts a run: durable when this returns. Two starts under one key meet; another input under it is a conflict.
    /// Errors: an input that does not fit the definition, all of it at once.
    pub async fn start_run(&self, permit: Permit, definition: Definition, input: Bytes, start: RunStart) -> Result<RunId, VerbError> {
        let RunStart { key, trace } = start;
        expect_action(&permit, Action::Start)?;
        let Resource::Pipeline { tenant, name } = permit.resource().clone() else { return Err(misused(&permit)) };
        if name != definition.name {
            return Err(misused(&permit));
        }
        if let Some(key) = &key {
            check_part("the idempotency key", key)?;
        }
        let bound = self.limits().body_bytes;
        if input.len() as u64 > bound {
            return Err(VerbError::new(
                Consequence::Limit,
                "limit: body",
                format!("the input has {} bytes, the limit of a body is {bound}: send a reference instead", input.len()),
            ));
        }
        let held = InFlight::take(&self.wiring, input.len())?;
        let input = checked_input(&definition, &input)?;
        let compiled = compiled(&self.wiring.registry, definition)?;
        self.admit().await?;
        let id = match key {
            Some(key) => RunId::keyed(&tenant, &name, &key),
            None => RunId::of(&tenant, RawId::at(selvedge_kernel::id::Hash16(0), self.now(), self.draw()).uuid),
        };
        let new = Box::new(NewRun { id, tenant, compiled, input, context: permit.into_context(), parent: None, deadline: None, trace });
        self.ask_run_holding(id, held, |reply| RunCommand::Start { new, reply }).await
    }

    /// A run as it is now.
    pub async fn run_status(&self, permit: Permit, id: RunId) -> Result<RunStatus, VerbError> {
        let tenant = tenant_for(&permit, Action::Read)?;
        let of = tenant.clone();
        let mut status = self.ask_run(id, |reply| RunCommand::Status { id, tenant: of, reply }).await?;
        for waiting in &mut status.waiting {
            // Who held the place when the run came may have ended since: its line knows.
            let Waiting::RunLimit { key, holder } = waiting else { continue };
            let line = LineId { tenant: tenant.clone(), pipeline: status.pipeline.clone(), key: key.clone() };
            let first = self.ask(line.hash16().shard(self.wiring.shards), |reply| Command::Run(RunCommand::Holder { line, reply })).await?;
            // None, or this run itself: its turn has come, and is on its way to it.
            *holder = first.filter(|first| *first != id).unwrap_or(*holder);
        }
        self.with_lending(&tenant, &mut status.waiting).await?;
        Ok(status)
    }

    /// Waits for the end of a run.
    pub async fn run_wait(&self, permit: Permit, id: RunId) -> Result<RunEnd, VerbError> {
        let tenant = tenant_for(&permit, Action::Read)?;
        self.ask_run(id, |reply| RunCommand::Wait { id, tenant, reply }).await
    }

    /// What the commits of a run did, from number `from` on, a page at most. With `wait`, waits for the next commit if
    /// there is none; nothing then means that the run has ended.
    pub async fn run_events(&self, permit: Permit, id: RunId, from: u64, wait: bool) -> Result<Vec<(u64, RunEvent)>, VerbError> {
        let tenant = tenant_for(&permit, Action::Read)?;
        self.ask_run(id, |reply| RunCommand::Events { id, tenant, from, wait, reply }).await
    }

    /// Cancels, pauses, resumes or retries a run. A state that does not allow it refuses, naming both.
    pub async fn run_control(&self, permit: Permit, id: RunId, control: RunControl) -> Result<(), VerbError> {
        let tenant = tenant_for(&permit, Action::Control)?;
        let by = permit.context().principal.id.clone();
        let input = match control {
            RunControl::Cancel { reason } if reason.is_empty() => RunInput::Cancel { by },
            RunControl::Cancel { reason } => RunInput::Cancel { by: format!("{by}: {reason}") },
            RunControl::Pause => RunInput::Pause { by },
            RunControl::Resume => RunInput::Resume,
            RunControl::RetryFailed => RunInput::RetryFailed,
            RunControl::Retry(retry) => RunInput::Retry(retry),
        };
        self.ask_run(id, |reply| RunCommand::Tell { id, tenant, input, reply }).await
    }

    /// Answers the approval that a stage asks for.
    pub async fn run_decide(&self, permit: Permit, id: RunId, stage: &str, approve: bool, by: &str, comment: Option<String>) -> Result<(), VerbError> {
        expect_action(&permit, Action::Signal)?;
        check_part("who answers", by)?;
        check_part("the stage", stage)?;
        let said = comment.as_ref().map_or(0, String::len);
        if said > ERROR_BYTES {
            return Err(VerbError::new(
                Consequence::Limit,
                "limit: comment",
                format!("the comment on `{stage}` has {said} bytes, the limit is {ERROR_BYTES}: shorten it, or give a reference"),
            ));
        }
        let held = InFlight::take(&self.wiring, said)?;
        let (stage, by, context) = (stage.to_owned(), by.to_owned(), permit.into_context());
        self.ask_run_holding(id, held, |reply| RunCommand::Decide { id, stage, approve, by, comment, context, reply }).await
    }

    /// Delivers a signal to a run: durable when this returns, kept until a stage waits for it. The same key, the same signal.
    /// Errors: a signal that no stage waits for or will wait for, with the names that there are.
    pub async fn run_signal(&self, permit: Permit, id: RunId, name: &str, payload: Bytes, key: Option<String>) -> Result<(), VerbError> {
        let tenant = tenant_for(&permit, Action::Signal)?;
        check_part("the signal's name", name)?;
        let bound = self.limits().body_bytes;
        if payload.len() as u64 > bound {
            return Err(VerbError::new(
                Consequence::Limit,
                "limit: body",
                format!("the signal `{name}` carries {} bytes, the limit of a body is {bound}: send a reference instead", payload.len()),
            ));
        }
        let held = InFlight::take(&self.wiring, payload.len())?;
        if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&payload) {
            return Err(VerbError::new(Consequence::FixInput, "json", format!("the payload of the signal `{name}` is no JSON: {error}")));
        }
        if let Some(key) = &key {
            check_part("the idempotency key", key)?;
        }
        self.admit().await?;
        let name = name.to_owned();
        self.ask_run_holding(id, held, |reply| RunCommand::Signal { id, tenant, name, payload, key, reply }).await
    }

    pub(super) async fn ask_run_holding<T>(&self, id: RunId, held: Arc<InFlight>, command: impl FnOnce(Reply<T>) -> RunCommand) -> Result<T, VerbError> {
        self.ask_holding(id.0.hash.shard(self.wiring.shards), held, |reply| Command::Run(command(reply))).await
    }

    pub(super) async fn ask_run<T>(&self, id: RunId, command: impl FnOnce(Reply<T>) -> RunCommand) -> Result<T, VerbError> {
        self.ask(id.0.hash.shard(self.wiring.shards), |reply| Command::Run(command(reply))).await
    }
}
